package main

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairlead/fairlead/internal/importer"
	"github.com/fairlead/fairlead/internal/manifest"
)

// exitIncomplete says that something was not carried over.
const exitIncomplete exitCode = 3

// maxImport bounds all files of one import together, in bytes.
const maxImport = 256 << 20

// importFlags are the flags of fairlead import.
type importFlags struct {
	from          string
	mesh          string
	parameters    []string
	parameterFile string
	output        string
	report        string
	adopt         adoptFlags
}

// adoptFlags are those about the server, which import asks only with --adopt.
type adoptFlags struct {
	operatorFlags
	adopt, yes, dryRun bool
	authority          string
}

func newImportCommand() *cobra.Command {
	flags := &importFlags{}
	cmd := &cobra.Command{
		Use:   "import PATH…|-",
		Short: "Turn what App Mesh users have into documents for Fairlead, and say what that leaves out",
		Long: `Reads files, folders of them, or standard input (-): the output of aws appmesh
describe-…, CloudFormation templates, Terraform state, manifests of the App Mesh
controller for Kubernetes. It writes every App Mesh resource as a document on
standard output, in an order in which they can be made, and a report on standard
error: what is not carried over, what is unsafe, which certificates, root CAs and
Cloud Map namespaces the resources need. It calls no server.

With --adopt it does, before it writes the documents: it makes the certificates and root
CAs that the resources name and the server has not, under the ARNs that they had in AWS,
and waits until they are issued. What you have yourself give first to fairlead ca adopt
and fairlead acm adopt; what is there is left alone. It asks before it makes any.

A resource of which a part cannot be carried over is left out when it would mean
something else without it. Exits 0 if all was carried over, 3 if something was
not.`,
		Example: `  fairlead import mesh.yaml services.yaml --parameter AWS::Region=eu-west-1
  aws appmesh describe-virtual-node --mesh-name apps --virtual-node-name api | fairlead import -
  terraform show -json | fairlead import - -o json
  fairlead import mesh.yaml --adopt --yes | fairlead apply -f -`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("%s takes files, folders or -\nUsage: %s", cmd.CommandPath(), cmd.UseLine())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return flags.run(cmd, args) },
	}
	cmd.Flags().StringVar(&flags.from, "from", "", "describe, cloudformation, terraform or kubernetes (default: by what is in the files)")
	cmd.Flags().StringVar(&flags.mesh, "mesh", "", "the mesh of Kubernetes resources, where the files have none or several")
	cmd.Flags().StringArrayVar(&flags.parameters, "parameter", nil, "NAME=VALUE for CloudFormation: a parameter, AWS::Region and the like, Resource or Resource.Attribute, an export")
	cmd.Flags().StringVar(&flags.parameterFile, "parameters", "", "a file of such values, an object or as aws cloudformation takes it")
	cmd.Flags().StringVarP(&flags.output, "output", "o", "yaml", "yaml or json")
	flags.adopt.addFormats(cmd)
	cmd.Flags().BoolVar(&flags.adopt.adopt, "adopt", false, "make the certificates and root CAs that are missing, under their ARNs")
	cmd.Flags().BoolVar(&flags.adopt.yes, "yes", false, "with --adopt, do not ask")
	cmd.Flags().BoolVar(&flags.adopt.dryRun, "dry-run", false, "with --adopt, say what would be made, and make nothing")
	cmd.Flags().StringVar(&flags.adopt.authority, "authority", "", "with --adopt, the ARN of the authority that issues the certificates (default: a root CA that their clients trust)")
	cmd.Flags().StringVar(&flags.report, "report", "", "a file to write the report to, as JSON")
	return cmd
}

func (f *importFlags) run(cmd *cobra.Command, args []string) error {
	options, err := f.options()
	if err != nil {
		return err
	}
	if f.output != "yaml" && f.output != "json" {
		return usagef("--output: %q is not yaml or json", f.output)
	}
	if a := f.adopt; !a.adopt && (a.yes || a.dryRun || a.authority != "" || a.endpoint != "") {
		return usagef("--yes, --dry-run, --authority and --endpoint-url are for --adopt: without it no server is asked")
	}
	inputs, err := readInputs(cmd.InOrStdin(), args)
	if err != nil {
		return err
	}
	result, err := importer.Read(inputs, options)
	if err != nil {
		return err
	}
	documents, err := manifest.Write(result.Resources, f.output == "json")
	if err != nil {
		return err
	}
	if f.report != "" {
		report, err := json.MarshalIndent(result, "", "  ")
		if err != nil {
			return fmt.Errorf("write the report: %w", err)
		}
		if err := os.WriteFile(f.report, append(report, '\n'), 0o644); err != nil {
			return fmt.Errorf("write the report: %w", err)
		}
	}
	if err := result.WriteReport(cmd.ErrOrStderr()); err != nil {
		return err
	}
	if f.adopt.adopt {
		if err := f.adopt.run(cmd, result); err != nil {
			return err
		}
	}
	if _, err := cmd.OutOrStdout().Write(documents); err != nil {
		return fmt.Errorf("write the documents: %w", err)
	}
	if !result.Complete {
		return exitIncomplete
	}
	return nil
}

// run makes what the resources need, as far as it is missing.
func (f *adoptFlags) run(cmd *cobra.Command, result *importer.Result) error {
	o, err := f.connect(cmd)
	if err != nil {
		return err
	}
	a, stderr := newAdopter(o), cmd.ErrOrStderr()
	plan, err := planAdoption(cmd.Context(), a, result, f.authority)
	if err != nil {
		return err
	}
	if err := plan.write(stderr); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	if err := plan.blocked(); err != nil {
		return err
	}
	if f.dryRun {
		return nil
	}
	if !plan.empty() && !f.yes {
		if err := plan.confirm(); err != nil {
			return err
		}
	}
	return plan.do(cmd.Context(), a, stderr)
}

func (f *importFlags) options() (importer.Options, error) {
	options := importer.Options{Format: importer.Format(f.from), Mesh: f.mesh, Parameters: map[string]string{}}
	if f.from != "" && !slices.Contains(importer.Formats(), options.Format) {
		return options, usagef("--from: %q is not describe, cloudformation, terraform or kubernetes", f.from)
	}
	if f.parameterFile != "" {
		in, err := readInput(f.parameterFile)
		if err != nil {
			return options, err
		}
		values, err := importer.ReadParameters(in)
		if err != nil {
			return options, err
		}
		maps.Copy(options.Parameters, values)
	}
	for _, p := range f.parameters {
		name, value, ok := strings.Cut(p, "=")
		if !ok || name == "" {
			return options, usagef("--parameter: %q is not NAME=VALUE", p)
		}
		options.Parameters[name] = value
	}
	return options, nil
}

// readInputs reads files, and folders with all that may be one of ours in them.
func readInputs(stdin io.Reader, paths []string) ([]importer.Input, error) {
	var inputs []importer.Input
	total := 0
	add := func(in importer.Input, err error) error {
		if err != nil {
			return err
		}
		if total += len(in.Data); total > maxImport {
			return fmt.Errorf("the files have more than %d bytes together; import them one after the other", maxImport)
		}
		inputs = append(inputs, in)
		return nil
	}
	for _, name := range paths {
		if name == "-" {
			data, err := bounded(stdin)
			if err := add(importer.Input{Name: "stdin", Data: data}, err); err != nil {
				return nil, fmt.Errorf("read standard input: %w", err)
			}
			continue
		}
		info, err := os.Stat(name)
		if err != nil {
			return nil, fmt.Errorf("read files to import: %w", err)
		}
		if !info.IsDir() {
			if err := add(readInput(name)); err != nil {
				return nil, err
			}
			continue
		}
		before := len(inputs)
		err = filepath.WalkDir(name, func(name string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || !importable(name) {
				return err
			}
			in, err := readInput(name)
			in.Found = true
			return add(in, err)
		})
		if err != nil {
			return nil, fmt.Errorf("read files to import: %w", err)
		}
		if len(inputs) == before {
			return nil, fmt.Errorf("%s has no file whose name ends in .json, .yaml, .yml, .template or .tfstate", name)
		}
	}
	return inputs, nil
}

func importable(name string) bool {
	return slices.Contains([]string{".json", ".yaml", ".yml", ".template", ".tfstate"}, filepath.Ext(name))
}

func readInput(name string) (importer.Input, error) {
	file, err := os.Open(name)
	if err != nil {
		return importer.Input{}, fmt.Errorf("read files to import: %w", err)
	}
	defer file.Close()
	data, err := bounded(file)
	if err != nil {
		return importer.Input{}, fmt.Errorf("read %s: %w", name, err)
	}
	return importer.Input{Name: name, Data: data}, nil
}

// bounded reads at most one byte more than the importer takes, which then
// refuses it.
func bounded(r io.Reader) ([]byte, error) { return io.ReadAll(io.LimitReader(r, importer.MaxBytes+1)) }
