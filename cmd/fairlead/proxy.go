package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	neturl "net/url"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead/fairlead/internal/server"
)

const resourceArgument = "mesh/MESH/virtualNode/NAME or mesh/MESH/virtualGateway/NAME"

func newProxyCommand() *cobra.Command {
	flags := &operatorFlags{}
	cmd := &cobra.Command{
		Use:   "proxy",
		Short: "See the proxies and manage their credentials",
		Args:  noArgs,
		RunE:  showHelp,
	}
	flags.add(cmd)
	cmd.AddCommand(newProxyListCommand(flags), newCredentialsCommand(flags), newAcceptShrinkCommand(flags))
	return cmd
}

func newProxyListCommand(flags *operatorFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the proxies that are connected to the server, and whether they hold what they should",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := flags.connect(cmd)
			if err != nil {
				return err
			}
			var list server.ProxyList
			raw, err := o.call(cmd.Context(), http.MethodGet, "/fairlead/v1/proxies", nil, &list)
			if err != nil {
				return err
			}
			return o.print(raw, func(w io.Writer) {
				fmt.Fprintln(w, "RESOURCE\tADDRESS\tENVOY\tSINCE\tSTATE")
				for _, p := range list.Proxies {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", p.Resource, p.Address, cmp.Or(p.EnvoyVersion, "-"), p.Since.Format(time.DateTime), proxyState(p))
				}
			})
		},
	}
}

// proxyState is what matters most about a proxy, in a few words.
func proxyState(p server.Proxy) string {
	rejected := 0
	for _, t := range p.Types {
		rejected += len(t.Rejected)
	}
	switch {
	case p.Held != "":
		return "held: " + p.Held
	case rejected > 0:
		return fmt.Sprintf("rejects %d resources; see fairlead problems", rejected)
	case !p.Settled:
		return "being configured"
	case p.Report != nil && !p.Report.Ready:
		return "configured, not ready"
	}
	return "ready"
}

func newCredentialsCommand(flags *operatorFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "credentials",
		Short: "Make, list and delete the credentials of proxies",
		Args:  noArgs,
		RunE:  showHelp,
	}
	cmd.AddCommand(newCredentialsCreateCommand(flags), newCredentialsListCommand(flags), newCredentialsDeleteCommand(flags))
	return cmd
}

func newCredentialsCreateCommand(flags *operatorFlags) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "create RESOURCE",
		Short: "Make credentials that open the stream of one mesh endpoint and nothing else",
		Long: `Makes credentials that open the stream of one mesh endpoint and nothing else, and
prints them in the format of AWS's shared credentials file, which the agent reads.
They are not shown again.`,
		Example: `  fairlead proxy credentials create mesh/demo/virtualNode/blue --output-file blue.credentials
  AWS_SHARED_CREDENTIALS_FILE=blue.credentials fairlead agent`,
		Args: oneArg(resourceArgument),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := flags.connect(cmd)
			if err != nil {
				return err
			}
			if file != "" {
				return secretFile(file, func() (string, error) {
					_, shared, err := createCredentials(cmd.Context(), o, args[0])
					return shared, err
				})
			}
			raw, shared, err := createCredentials(cmd.Context(), o, args[0])
			if err != nil {
				return err
			}
			return o.print(raw, func(w io.Writer) { io.WriteString(w, shared) }) //nolint:errcheck // the tabwriter keeps errors for Flush
		},
	}
	cmd.Flags().StringVar(&file, "output-file", "", "write them to this new file, mode 0600, instead of standard output")
	return cmd
}

// createCredentials returns the answer, and the credentials as a shared
// credentials file has them.
func createCredentials(ctx context.Context, o *operator, resource string) (raw []byte, shared string, err error) {
	var made server.ProxyCredentials
	raw, err = o.call(ctx, http.MethodPost, "/fairlead/v1/proxy-credentials", server.ResourceInput{Resource: resource}, &made)
	if err != nil {
		return nil, "", err
	}
	return raw, fmt.Sprintf("# %s\n[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", made.Resource, made.AccessKeyID, made.SecretAccessKey), nil
}

// secretFile makes a file that only its owner reads, before what goes into it:
// nothing is made that could not be kept. One that is there already may have
// other readers, and may be in use.
func secretFile(name string, secret func() (string, error)) (err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("write credentials: %s exists already: remove it, or name another file", name)
	}
	if err != nil {
		return fmt.Errorf("write credentials: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(name))
		}
	}()
	content, err := secret()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	_, err = io.WriteString(f, content)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write credentials: %w", err)
	}
	return nil
}

func newCredentialsListCommand(flags *operatorFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the credentials of proxies, without their secrets",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := flags.connect(cmd)
			if err != nil {
				return err
			}
			var list server.ProxyCredentialsList
			raw, err := o.call(cmd.Context(), http.MethodGet, "/fairlead/v1/proxy-credentials", nil, &list)
			if err != nil {
				return err
			}
			return o.print(raw, func(w io.Writer) {
				fmt.Fprintln(w, "ACCESS KEY ID\tRESOURCE\tCREATED")
				for _, c := range list.Credentials {
					fmt.Fprintf(w, "%s\t%s\t%s\n", c.AccessKeyID, c.Resource, c.CreatedAt.Format(time.DateTime))
				}
			})
		},
	}
}

func newCredentialsDeleteCommand(flags *operatorFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "delete ACCESS-KEY-ID",
		Short: "Delete a proxy's credentials; the streams that they opened stay until they end",
		Args:  oneArg("the access key id, as 'fairlead proxy credentials list' shows it"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := flags.connect(cmd)
			if err != nil {
				return err
			}
			_, err = o.call(cmd.Context(), http.MethodDelete, "/fairlead/v1/proxy-credentials/"+neturl.PathEscape(args[0]), nil, nil)
			return err
		},
	}
}

func newAcceptShrinkCommand(flags *operatorFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "accept-shrink RESOURCE",
		Short: "Let an endpoint's proxies lose what nothing explains, for ten minutes",
		Long: `A server sends a proxy no removal that it cannot explain: after a restore of an old
backup, say, it holds the proxy's configuration and raises an alarm. When what the
store now says is what you want, this releases the proxies of one mesh endpoint.
'fairlead proxy list' shows which are held, and why.`,
		Args: oneArg(resourceArgument),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := flags.connect(cmd)
			if err != nil {
				return err
			}
			var accepted server.ShrinkAccepted
			raw, err := o.call(cmd.Context(), http.MethodPost, "/fairlead/v1/proxies/accept-shrink", server.ResourceInput{Resource: args[0]}, &accepted)
			if err != nil {
				return err
			}
			return o.print(raw, func(w io.Writer) {
				fmt.Fprintf(w, "%s may shrink until %s.\n", accepted.Resource, accepted.Until.Format(time.DateTime))
			})
		},
	}
}
