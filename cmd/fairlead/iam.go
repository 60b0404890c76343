package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	neturl "net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead/fairlead/internal/iam"
	"github.com/fairlead/fairlead/internal/server"
)

// iamFlags are what every command of iam takes.
type iamFlags struct {
	operatorFlags
	account string
}

func newIAMCommand() *cobra.Command {
	flags := &iamFlags{}
	cmd := &cobra.Command{
		Use:   "iam",
		Short: "Say who may do what: accounts, users, groups, roles and policies",
		Args:  noArgs,
		RunE:  showHelp,
	}
	flags.add(cmd)
	cmd.PersistentFlags().StringVar(&flags.account, "account", "", "the account, 12 digits (default the server's own)")
	cmd.AddCommand(newIAMCreateCommand(flags), newIAMListCommand(flags), newIAMShowCommand(flags), newIAMUpdateCommand(flags), newIAMDeleteCommand(flags),
		newIAMAttachCommand(flags), newIAMDetachCommand(flags), newIAMKeyCommand(flags), newIAMSimulateCommand(flags))
	return cmd
}

// path is where an entity, or what is below it, is in the API.
func (f *iamFlags) path(parts ...string) string {
	path := "/fairlead/v1/iam"
	for _, part := range parts {
		path += "/" + neturl.PathEscape(part)
	}
	if f.account != "" {
		path += "?account=" + neturl.QueryEscape(f.account)
	}
	return path
}

const kindArgument = "account, user, group, role or policy"

// kindAndName requires the two arguments of most commands.
func kindAndName(cmd *cobra.Command, args []string) error {
	if len(args) != 2 {
		return usagef("%s takes two arguments: %s, and a name\nUsage: %s", cmd.CommandPath(), kindArgument, cmd.UseLine())
	}
	return knownKind(args[0])
}

func knownKind(kind string) error {
	for _, known := range iam.EntityKinds() {
		if kind == string(known) {
			return nil
		}
	}
	return usagef("%q is not %s", kind, kindArgument)
}

// readDocument reads a policy from a file; "" is none.
func readDocument(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read policy: %w", err)
	}
	return string(text), nil
}

func newIAMCreateCommand(flags *iamFlags) *cobra.Command {
	var in server.EntityInput
	var document, trust string
	var session time.Duration
	cmd := &cobra.Command{
		Use:   "create KIND NAME",
		Short: "Make an account, user, group, role or policy",
		Example: `  fairlead iam create policy read-meshes --document read-meshes.json
  fairlead iam create user alice --policy read-meshes
  fairlead iam create role deploy --trust trust.json --policy read-meshes`,
		Args: kindAndName,
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if in.Document, err = readDocument(document); err != nil {
				return err
			}
			if in.Trust, err = readDocument(trust); err != nil {
				return err
			}
			in.Name, in.Account, in.MaxSession = args[1], flags.account, int64(session.Seconds())
			where := *flags
			where.account = "" // it is in the body
			return flags.change(cmd, http.MethodPost, where.path(args[0]), in)
		},
	}
	cmd.Flags().StringVar(&document, "document", "", "file with the policy, of a policy")
	cmd.Flags().StringVar(&trust, "trust", "", "file with the policy that says who may assume it, of a role")
	cmd.Flags().DurationVar(&session, "max-session", 0, "how long its sessions may last, of a role (default 1h)")
	cmd.Flags().StringSliceVar(&in.Policies, "policy", nil, "a policy to attach; may be given again")
	cmd.Flags().StringSliceVar(&in.Groups, "group", nil, "a group to put a user in; may be given again")
	cmd.Flags().StringVar(&in.Boundary, "boundary", "", "the policy that bounds what a user or role may do")
	return cmd
}

// change sends a change and prints the entity as it is then.
func (f *iamFlags) change(cmd *cobra.Command, method, path string, in any) error {
	o, err := f.connect(cmd)
	if err != nil {
		return err
	}
	var e server.Entity
	raw, err := o.call(cmd.Context(), method, path, in, &e)
	if err != nil {
		return err
	}
	return o.print(raw, func(w io.Writer) { printEntity(w, e) })
}

func printEntity(w io.Writer, e server.Entity) {
	fmt.Fprintf(w, "%s\t%s\n", "ARN", e.ARN)
	for _, row := range [][2]string{
		{"ID", e.ID}, {"CREATED", e.CreatedAt.Format(time.DateTime)}, {"POLICIES", strings.Join(e.Policies, ", ")}, {"GROUPS", strings.Join(e.Groups, ", ")}, {"BOUNDARY", e.Boundary},
	} {
		if row[1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", row[0], row[1])
		}
	}
	if e.MaxSession > 0 {
		fmt.Fprintf(w, "MAX SESSION\t%s\n", time.Duration(e.MaxSession)*time.Second)
	}
	for _, k := range e.Keys {
		fmt.Fprintf(w, "KEY\t%s, %s, made %s\n", k.AccessKeyID, keyState(k), k.CreatedAt.Format(time.DateTime))
	}
	if text := cmp.Or(e.Document, e.Trust); text != "" {
		fmt.Fprintf(w, "\n%s\n", strings.TrimRight(text, "\n"))
	}
}

func keyState(k server.UserKeyState) string {
	if k.Disabled {
		return "disabled"
	}
	return "active"
}

func newIAMListCommand(flags *iamFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "list KIND",
		Short: "List accounts, users, groups, roles or policies, of all accounts or of one",
		Args:  oneArg(kindArgument),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := knownKind(args[0]); err != nil {
				return err
			}
			o, err := flags.connect(cmd)
			if err != nil {
				return err
			}
			var list server.EntityList
			raw, err := o.call(cmd.Context(), http.MethodGet, flags.path(args[0]), nil, &list)
			if err != nil {
				return err
			}
			return o.print(raw, func(w io.Writer) {
				fmt.Fprintln(w, "ACCOUNT\tNAME\tPOLICIES\tGROUPS\tKEYS\tCREATED")
				for _, e := range list.Entities {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\n", e.Account, e.Name, cmp.Or(strings.Join(e.Policies, ","), "-"), cmp.Or(strings.Join(e.Groups, ","), "-"), len(e.Keys), e.CreatedAt.Format(time.DateTime))
				}
			})
		},
	}
}

func newIAMShowCommand(flags *iamFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "show KIND NAME",
		Short: "Show one, with its policy and the state of its keys",
		Args:  kindAndName,
		RunE: func(cmd *cobra.Command, args []string) error {
			return flags.change(cmd, http.MethodGet, flags.path(args...), nil)
		},
	}
}

func newIAMUpdateCommand(flags *iamFlags) *cobra.Command {
	var document, trust string
	var session time.Duration
	cmd := &cobra.Command{
		Use:   "update KIND NAME",
		Short: "Change the document of a policy, or whom a role trusts and how long its sessions may last",
		Args:  kindAndName,
		RunE: func(cmd *cobra.Command, args []string) error {
			var in server.EntityChange
			for _, file := range []struct {
				name string
				to   **string
			}{{document, &in.Document}, {trust, &in.Trust}} {
				if file.name == "" {
					continue
				}
				text, err := readDocument(file.name)
				if err != nil {
					return err
				}
				*file.to = &text
			}
			if session != 0 {
				seconds := int64(session.Seconds())
				in.MaxSession = &seconds
			}
			return flags.change(cmd, http.MethodPut, flags.path(args...), in)
		},
	}
	cmd.Flags().StringVar(&document, "document", "", "file with the policy, of a policy")
	cmd.Flags().StringVar(&trust, "trust", "", "file with the policy that says who may assume it, of a role")
	cmd.Flags().DurationVar(&session, "max-session", 0, "how long its sessions may last, of a role")
	return cmd
}

func newIAMDeleteCommand(flags *iamFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "delete KIND NAME",
		Short: "Delete one; the keys of a user and the sessions of a role end with it",
		Args:  kindAndName,
		RunE: func(cmd *cobra.Command, args []string) error {
			return flags.send(cmd, http.MethodDelete, flags.path(args...))
		},
	}
}

// send is for requests whose answer is empty.
func (f *iamFlags) send(cmd *cobra.Command, method, path string) error {
	o, err := f.connect(cmd)
	if err != nil {
		return err
	}
	_, err = o.call(cmd.Context(), method, path, nil, nil)
	return err
}

func newIAMAttachCommand(flags *iamFlags) *cobra.Command {
	var in server.EntityChange
	var boundary string
	cmd := &cobra.Command{
		Use:   "attach KIND NAME",
		Short: "Attach policies to a user, group or role, or put a user into groups",
		Args:  kindAndName,
		RunE: func(cmd *cobra.Command, args []string) error {
			if boundary != "" {
				in.Boundary = &boundary
			}
			return flags.change(cmd, http.MethodPut, flags.path(args...), in)
		},
	}
	cmd.Flags().StringSliceVar(&in.Attach, "policy", nil, "a policy; may be given again")
	cmd.Flags().StringSliceVar(&in.Join, "group", nil, "a group; may be given again")
	cmd.Flags().StringVar(&boundary, "boundary", "", "the policy that bounds what it may do")
	return cmd
}

func newIAMDetachCommand(flags *iamFlags) *cobra.Command {
	var in server.EntityChange
	var boundary bool
	cmd := &cobra.Command{
		Use:   "detach KIND NAME",
		Short: "Detach policies, or take a user out of groups",
		Args:  kindAndName,
		RunE: func(cmd *cobra.Command, args []string) error {
			if boundary {
				in.Boundary = new(string)
			}
			return flags.change(cmd, http.MethodPut, flags.path(args...), in)
		},
	}
	cmd.Flags().StringSliceVar(&in.Detach, "policy", nil, "a policy; may be given again")
	cmd.Flags().StringSliceVar(&in.Leave, "group", nil, "a group; may be given again")
	cmd.Flags().BoolVar(&boundary, "boundary", false, "its boundary")
	return cmd
}

func newIAMKeyCommand(flags *iamFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Make, disable, enable and delete the access keys of users",
		Args:  noArgs,
		RunE:  showHelp,
	}
	cmd.AddCommand(newIAMKeyCreateCommand(flags),
		newIAMKeyStateCommand(flags, "disable", "Disable a key, and the sessions made with it, on every server", true),
		newIAMKeyStateCommand(flags, "enable", "Enable a key again", false),
		&cobra.Command{
			Use:   "delete USER ACCESS-KEY-ID",
			Short: "Delete a key, and the sessions made with it, on every server",
			Args:  userAndKey,
			RunE: func(cmd *cobra.Command, args []string) error {
				return flags.send(cmd, http.MethodDelete, flags.path("user", args[0], "keys", args[1]))
			},
		})
	return cmd
}

func userAndKey(cmd *cobra.Command, args []string) error {
	if len(args) != 2 {
		return usagef("%s takes two arguments: a user, and an access key id as 'fairlead iam show user' shows it\nUsage: %s", cmd.CommandPath(), cmd.UseLine())
	}
	return nil
}

func newIAMKeyCreateCommand(flags *iamFlags) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "create USER",
		Short: "Make an access key of a user, who has two at most",
		Long: `Makes an access key of a user and prints it in the format of AWS's shared
credentials file. The secret is not shown again.`,
		Args: oneArg("the user"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := flags.connect(cmd)
			if err != nil {
				return err
			}
			path := flags.path("user", args[0], "keys")
			if file != "" {
				return secretFile(file, func() (string, error) {
					_, shared, err := createUserKey(cmd.Context(), o, path)
					return shared, err
				})
			}
			raw, shared, err := createUserKey(cmd.Context(), o, path)
			if err != nil {
				return err
			}
			return o.print(raw, func(w io.Writer) { io.WriteString(w, shared) }) //nolint:errcheck // the tabwriter keeps errors for Flush
		},
	}
	cmd.Flags().StringVar(&file, "output-file", "", "write it to this new file, mode 0600, instead of standard output")
	return cmd
}

func createUserKey(ctx context.Context, o *operator, path string) (raw []byte, shared string, err error) {
	var made server.UserKeyState
	raw, err = o.call(ctx, http.MethodPost, path, nil, &made)
	return raw, fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", made.AccessKeyID, made.SecretAccessKey), err
}

func newIAMKeyStateCommand(flags *iamFlags, verb, short string, disabled bool) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " USER ACCESS-KEY-ID",
		Short: short,
		Args:  userAndKey,
		RunE: func(cmd *cobra.Command, args []string) error {
			return flags.change(cmd, http.MethodPut, flags.path("user", args[0], "keys", args[1]), server.KeyChange{Disabled: &disabled})
		},
	}
}

func newIAMSimulateCommand(flags *iamFlags) *cobra.Command {
	var in server.Simulation
	var context []string
	cmd := &cobra.Command{
		Use:     "simulate PRINCIPAL ACTION [RESOURCE]",
		Short:   "Say what a user's or role's policies come to, and which statement decides",
		Example: `  fairlead iam simulate arn:aws:iam::000000000000:user/alice appmesh:DescribeMesh arn:aws:appmesh:us-east-1:000000000000:mesh/apps`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 && len(args) != 3 {
				return usagef("%s takes the ARN of a user or role, an action, and the ARN of a resource unless the action is on none\nUsage: %s", cmd.CommandPath(), cmd.UseLine())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := flags.connect(cmd)
			if err != nil {
				return err
			}
			in.Principal, in.Action = args[0], args[1]
			if len(args) == 3 {
				in.Resource = args[2]
			}
			for _, pair := range context {
				key, value, ok := strings.Cut(pair, "=")
				if !ok {
					return usagef("--context: %q is not KEY=VALUE", pair)
				}
				in.Context = append(in.Context, server.SimulationValue{Key: key, Values: []string{value}})
			}
			var said server.Simulated
			raw, err := o.call(cmd.Context(), http.MethodPost, "/fairlead/v1/iam-simulation", in, &said)
			if err != nil {
				return err
			}
			return o.print(raw, func(w io.Writer) {
				fmt.Fprintf(w, "%s %s\ndecided by %s\n", said.Decision, said.Because, said.Statement)
			})
		},
	}
	cmd.Flags().StringArrayVar(&context, "context", nil, "a condition key of the request, KEY=VALUE; may be given again, of one key too")
	return cmd
}
