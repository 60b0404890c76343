package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/fairlead/fairlead/internal/manifest"
	"github.com/fairlead/fairlead/internal/mesh"
)

func newDeleteCommand() *cobra.Command {
	flags, in, files, options := &operatorFlags{}, "", []string{}, deleteOptions{}
	cmd := &cobra.Command{
		Use:   "delete KIND NAME... | KIND/NAME... | -f DIR|FILE|-",
		Short: "Delete resources and, with --cascade, what needs them",
		Long: `Deletes resources, those that need others first, and prints each. It asks nothing:
--dry-run shows what it would delete.
` + kindsHelp + `

The server refuses to delete what others need. --cascade deletes those first: the routes
of a router and the services that it provides, the routes that lead to a node, all that is
in a mesh. Backends of virtual nodes need nothing: they may name services that do not exist.

With -f it deletes the resources that files name; those that do not exist are no error.`,
		Example: `  fairlead delete virtualrouter color -m apps --cascade --dry-run
  fairlead get routes -m apps -o name | xargs fairlead delete -m apps`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 0) == (len(files) == 0) {
				return usagef("%s takes KIND and names, KIND/NAME, or --filename\nUsage: %s", cmd.CommandPath(), cmd.UseLine())
			}
			var named []manifest.Resource
			var err error
			if options.files = len(files) > 0; options.files {
				named, err = readFiles(cmd, files)
			} else if _, named, err = parseResources(in, args); err == nil && len(named) == 0 {
				err = usagef("the names are missing: all resources of a kind are deleted by their names only")
			}
			if err != nil {
				return err
			}
			api, err := flags.connectMesh(cmd)
			if err != nil {
				return err
			}
			return deleteResources(cmd.Context(), api, named, options)
		},
	}
	flags.addFormats(cmd)
	addMesh(cmd, flags, &in)
	addFiles(cmd, &files)
	cmd.Flags().BoolVar(&options.cascade, "cascade", false, "delete what needs them first")
	cmd.Flags().BoolVar(&options.dryRun, "dry-run", false, "show what would be deleted, and delete nothing")
	cmd.ValidArgsFunction = completeResources(flags, &in)
	return cmd
}

type deleteOptions struct {
	cascade, dryRun bool
	files           bool // what does not exist is no error
}

func deleteResources(ctx context.Context, api *meshAPI, named []manifest.Resource, options deleteOptions) error {
	doomed, err := planDelete(ctx, api, named, options)
	if err != nil {
		return err
	}
	manifest.Sort(doomed)
	var deletions []change
	for _, r := range slices.Backward(doomed) {
		deletions = append(deletions, change{server: &stored{Resource: r}})
	}
	if options.dryRun {
		for _, c := range deletions {
			if _, err := fmt.Fprintln(api.out, "would delete", c.resource()); err != nil {
				return err
			}
		}
		return nil
	}
	r := changer{api: api, counts: map[string]int{}}
	refused, err := r.rounds(ctx, deletions)
	for _, c := range refused {
		hint := ""
		if isRefusal(c.err, "ResourceInUseException") && !options.cascade {
			hint = " (--cascade deletes what needs it first)"
		}
		fmt.Fprintf(api.warnings, "failed %s: %v%s\n", c.resource(), c.err, hint)
	}
	if err == nil && len(refused) > 0 {
		err = fmt.Errorf("%d of %d resources could not be deleted", len(refused), len(deletions))
	}
	return err
}

// planDelete finds what is to be deleted: each once, all of them there.
func planDelete(ctx context.Context, api *meshAPI, named []manifest.Resource, options deleteOptions) ([]manifest.Resource, error) {
	ids := map[mesh.Name][]mesh.ID{}
	var doomed []manifest.Resource
	seen := map[manifest.Key]bool{}
	for _, r := range named {
		s, err := api.find(ctx, r)
		if options.files && isRefusal(err, "NotFoundException") {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look at %s: %w", r, err)
		}
		if seen[s.Key()] {
			continue
		}
		seen[s.Key()] = true
		doomed = append(doomed, s.Resource)
		name := s.In()
		ids[name] = append(ids[name], s.ID)
	}
	if !options.cascade {
		return doomed, nil
	}
	doomed = nil
	for name, of := range ids {
		all, err := api.all(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("look at mesh %s: %w", name.Mesh, err)
		}
		var resources []manifest.Resource
		for _, s := range all {
			resources = append(resources, s.Resource)
		}
		doomed = append(doomed, manifest.WithDependants(resources, of)...)
	}
	return doomed, nil
}
