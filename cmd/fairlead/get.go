package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"github.com/fairlead/fairlead/internal/manifest"
	"github.com/fairlead/fairlead/internal/mesh"
)

// everything stands for all kinds in a mesh.
const everything = "all"

func newGetCommand() *cobra.Command {
	flags, in := &operatorFlags{}, ""
	cmd := &cobra.Command{
		Use:   "get KIND [NAME...] | KIND/NAME... | all",
		Short: "Show resources: a line each, or as the API describes them",
		Long: `Shows resources of a kind: all of a mesh, or those named. 'get all' shows all kinds.
` + kindsHelp + `

-o wide has more columns. -o json and yaml have what the API's describe operations
answer: one object if one NAME is given, else a list (yaml: documents between lines of ---).`,
		Example: `  fairlead get meshes
  fairlead get virtualnodes -m apps -o wide
  fairlead get route color/canary -m apps -o yaml`,
		Args: someArgs("KIND, KIND and names, KIND/NAME, or all"),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := flags.connectMesh(cmd)
			if err != nil {
				return err
			}
			if args[0] == everything {
				if len(args) > 1 {
					return usagef("get all takes no names, got %q", args[1:])
				}
				if in == "" {
					return needsMesh()
				}
				return getAll(cmd.Context(), api, in)
			}
			return get(cmd.Context(), api, in, args)
		},
	}
	flags.addFormats(cmd, "text", "wide", "json", "yaml", "name")
	addMesh(cmd, flags, &in)
	cmd.ValidArgsFunction = completeResources(flags, &in, everything)
	return cmd
}

// someArgs requires at least one argument.
func someArgs(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usagef("%s takes %s\nUsage: %s", cmd.CommandPath(), what, cmd.UseLine())
		}
		return nil
	}
}

func getAll(ctx context.Context, api *meshAPI, in string) error {
	all, err := api.all(ctx, mesh.Name{Mesh: in})
	if err != nil {
		return err
	}
	return api.show(all, false)
}

func get(ctx context.Context, api *meshAPI, in string, args []string) error {
	kind, named, err := parseResources(in, args)
	if err != nil {
		return err
	}
	single, listed := len(named) == 1, len(named) == 0
	if listed {
		if named, err = api.list(ctx, mesh.Name{Mesh: in}, kind.kind); err != nil {
			return err
		}
	}
	var found []*stored
	var errs []error
	for _, r := range named {
		s, err := api.find(ctx, r)
		if listed && isRefusal(err, "NotFoundException") { // deleted meanwhile
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		found = append(found, s)
	}
	if len(found) > 0 || len(errs) == 0 {
		errs = append(errs, api.show(found, single))
	}
	return errors.Join(errs...)
}

// find describes a resource, which need not have its parent's name.
func (a *meshAPI) find(ctx context.Context, r manifest.Resource) (*stored, error) {
	r, err := a.locate(ctx, r)
	if err != nil {
		return nil, err
	}
	return a.describe(ctx, r)
}

// show prints resources as --output says; single: the one that was asked for.
func (a *meshAPI) show(found []*stored, single bool) error {
	switch a.output {
	case "json":
		var value any = jsontext.Value("[]")
		if single {
			value = jsontext.Value(found[0].raw)
		} else if len(found) > 0 {
			list := []jsontext.Value{}
			for _, s := range found {
				list = append(list, s.raw)
			}
			value = list
		}
		text, err := json.Marshal(value, jsontext.WithIndent("  "))
		if err != nil {
			return fmt.Errorf("print the answer: %w", err)
		}
		_, err = a.out.Write(append(text, '\n'))
		return err
	case "yaml":
		for i, s := range found {
			text, err := manifest.YAML(jsontext.Value(s.raw))
			if err != nil {
				return err
			}
			if i > 0 {
				text = append([]byte("---\n"), text...)
			}
			if _, err := a.out.Write(text); err != nil {
				return err
			}
		}
		return nil
	case "name":
		for _, s := range found {
			if _, err := fmt.Fprintln(a.out, s.Name()); err != nil {
				return err
			}
		}
		return nil
	}
	return a.tables(found, a.output == "wide")
}

// tables prints one table for each kind that there is.
func (a *meshAPI) tables(found []*stored, wide bool) error {
	if len(found) == 0 {
		_, err := fmt.Fprintln(a.warnings, "There are none.")
		return err
	}
	first := true
	for _, kind := range kindWords() {
		of := slices.DeleteFunc(slices.Clone(found), func(s *stored) bool { return s.ID.Kind != kind.kind })
		if len(of) == 0 {
			continue
		}
		if !first {
			fmt.Fprintln(a.out) //nolint:errcheck // the table's error is the same
		}
		first = false
		w := tabwriter.NewWriter(a.out, 0, 0, 3, ' ', 0)
		table(w, kind, of, wide)
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func table(w io.Writer, kind kindWord, of []*stored, wide bool) {
	row := func(parent string, columns []string, more ...string) {
		if kind.parent != "" {
			columns = append([]string{parent}, columns...)
		}
		if wide {
			columns = append(columns, more...)
		}
		fmt.Fprintln(w, strings.Join(columns, "\t"))
	}
	name := strings.ToUpper(string(kind.kind))
	row(kind.parent, []string{name, kind.summary, "AGE"}, "VERSION", "CHANGED", "UID", "ARN")
	for _, s := range of {
		version := "-"
		if s.metadata.Version != nil {
			version = fmt.Sprint(*s.metadata.Version)
		}
		text := manifest.Summary(s.Resource)
		if text == "" {
			text = "-"
		}
		row(s.ID.Parent, []string{s.ID.Name, text, age(time.Since(s.metadata.CreatedAt.Time))},
			version, age(time.Since(s.metadata.LastUpdatedAt.Time)), s.metadata.UID, s.metadata.ARN)
	}
}

// age is a time in its largest unit: 3m.
func age(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}
