package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairlead/fairlead/internal/manifest"
	"github.com/fairlead/fairlead/internal/mesh"
)

func newApplyCommand() *cobra.Command {
	flags, files, options := &operatorFlags{}, []string{}, applyOptions{}
	cmd := &cobra.Command{
		Use:   "apply -f DIR|FILE|-",
		Short: "Make meshes what files say: create, update and, with --prune, delete",
		Long: `Makes resources what files say. What is as the files say already is not written, so a
second run changes nothing. ` + filesHelp + `

Before anything is written all documents are checked as far as that can be done without
the server. Resources go in the order of their references; one that the server refuses
does not keep back those that do not need it. A document without tags leaves the tags of
its resource alone; tags: [] removes them.

--prune then deletes what is in the meshes that the files name and not in the files, but
never a mesh, and nothing while something could not be written.`,
		Example: `  fairlead apply -f mesh/ --dry-run
  fairlead export apps | fairlead apply -f - --endpoint-url https://other:9480`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(files) == 0 {
				return usagef("--filename is required\nUsage: %s", cmd.UseLine())
			}
			api, err := flags.connectMesh(cmd)
			if err != nil {
				return err
			}
			resources, err := readFiles(cmd, files)
			if err != nil {
				return err
			}
			return apply(cmd.Context(), api, resources, options)
		},
	}
	flags.addFormats(cmd)
	addFiles(cmd, &files)
	cmd.Flags().BoolVar(&options.prune, "prune", false, "delete what is in the meshes of the files and not in the files")
	cmd.Flags().BoolVar(&options.dryRun, "dry-run", false, "show what would change, and change nothing")
	return cmd
}

type applyOptions struct{ prune, dryRun bool }

// change is what it takes to make one resource what a file says.
type change struct {
	file   *manifest.Resource // nil: delete
	server *stored            // nil: create
	spec   bool               // the spec is another
	set    map[string]string  // tags
	remove []string           // keys of tags
}

// what is done, in the past tense.
func (c change) verb() string {
	switch {
	case c.server == nil:
		return "created"
	case c.file == nil:
		return "deleted"
	case c.spec || len(c.set) > 0 || len(c.remove) > 0:
		return "updated"
	}
	return "unchanged"
}

func (c change) resource() manifest.Resource {
	if c.file != nil {
		return *c.file
	}
	return c.server.Resource
}

// apply makes resources what they say. fairlead import applies what it has
// read by it as well.
func apply(ctx context.Context, api *meshAPI, resources []manifest.Resource, options applyOptions) error {
	resources = slices.Clone(resources)
	manifest.Sort(resources)
	writes, err := planWrites(ctx, api, resources)
	if err != nil {
		return err
	}
	var deletions []change
	if options.prune {
		if deletions, err = planPrune(ctx, api, resources); err != nil {
			return err
		}
	}
	if options.dryRun {
		return showPlan(api.out, append(writes, deletions...))
	}
	r := changer{api: api, counts: map[string]int{}}
	return r.apply(ctx, writes, deletions)
}

func planWrites(ctx context.Context, api *meshAPI, resources []manifest.Resource) ([]change, error) {
	var changes []change
	for _, r := range resources {
		c, err := planWrite(ctx, api, r)
		if err != nil {
			return nil, err
		}
		changes = append(changes, c)
	}
	return changes, nil
}

func planWrite(ctx context.Context, api *meshAPI, r manifest.Resource) (change, error) {
	s, err := api.describe(ctx, r)
	if isRefusal(err, "NotFoundException") {
		return change{file: &r}, nil
	}
	if err != nil {
		return change{}, fmt.Errorf("look at %s: %w", r, err)
	}
	same, err := manifest.SameSpec(r.Spec, s.Spec)
	if err != nil {
		return change{}, err
	}
	c := change{file: &r, server: s, spec: !same}
	c.set, c.remove = manifest.TagChanges(r.Tags, s.Tags)
	return c, nil
}

// planPrune finds what is to be deleted, in the order in which it can be.
func planPrune(ctx context.Context, api *meshAPI, resources []manifest.Resource) ([]change, error) {
	kept := map[manifest.Key]bool{}
	var meshes []mesh.Name
	for _, r := range resources {
		kept[r.Key()] = true
		if name := r.In(); !slices.Contains(meshes, name) {
			meshes = append(meshes, name)
		}
	}
	var deletions []change
	for _, name := range meshes {
		all, err := api.all(ctx, name)
		if isRefusal(err, "NotFoundException") { // it is made only now
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look at mesh %s: %w", name.Mesh, err)
		}
		for _, s := range slices.Backward(all) {
			if s.ID.Kind != mesh.KindMesh && !kept[s.Key()] {
				deletions = append(deletions, change{server: s})
			}
		}
	}
	return deletions, nil
}

// showPlan prints the diff of every change.
func showPlan(out io.Writer, changes []change) error {
	counts := map[string]int{}
	for _, c := range changes {
		counts[c.verb()]++
		if c.verb() == "unchanged" {
			continue
		}
		var server *manifest.Resource
		if c.server != nil {
			server = &c.server.Resource
		}
		diff, err := manifest.Diff(server, c.file)
		if err != nil {
			return err
		}
		if _, err := io.WriteString(out, diff); err != nil {
			return fmt.Errorf("print the changes: %w", err)
		}
	}
	_, err := fmt.Fprintf(out, "dry run, nothing was changed: %s\n", summary(counts, "created", "updated", "deleted", "unchanged"))
	return err
}

func summary(counts map[string]int, verbs ...string) string {
	var parts []string
	for _, verb := range verbs {
		if n := counts[verb]; n > 0 || verb == "unchanged" {
			parts = append(parts, fmt.Sprintf("%d %s", n, verb))
		}
	}
	return strings.Join(parts, ", ")
}

// changer makes changes and says so.
type changer struct {
	api    *meshAPI
	counts map[string]int // by verb
}

// refusedChange is a change that the server refused.
type refusedChange struct {
	change
	err error
}

// apply makes the writes, forwards by reference, then the deletions, backwards.
//
// That order alone is not enough: a router may lose a listener only after its
// routes have left it, and such a route comes later, whether it is updated or
// pruned. So what is refused for the state of other resources is tried again as
// long as anything else gets done. A router and its routes that move to another
// port together wait for each other: the router takes both ports for a while.
//
// Routers are the only resources whose update may have to wait for a deletion.
// If anything else was refused nothing is deleted: what could not be written
// may be what would have left the things that are to be deleted.
func (r *changer) apply(ctx context.Context, writes, deletions []change) error {
	refused, err := r.rounds(ctx, writes)
	if err == nil && r.widen(ctx, refused) {
		refused, err = r.rounds(ctx, changesOf(refused))
	}
	if blocked := slices.ContainsFunc(refused, func(c refusedChange) bool { return !c.routerWaits() }); blocked && len(deletions) > 0 {
		fmt.Fprintf(r.api.warnings, "nothing is pruned: %d resources would be, were all others as the files say\n", len(deletions))
	} else if err == nil && len(deletions) > 0 {
		refused, err = r.rounds(ctx, append(deletions, changesOf(refused)...))
	}
	for _, c := range refused {
		source := ""
		if c.file != nil && c.file.Source != "" {
			source = c.file.Source + ": "
		}
		fmt.Fprintf(r.api.warnings, "failed %s: %s%v\n", c.resource(), source, c.err)
	}
	if _, failed := fmt.Fprintln(r.api.out, summary(r.counts, "created", "updated", "deleted", "unchanged")); failed != nil {
		return errors.Join(err, failed)
	}
	if err == nil && len(refused) > 0 {
		err = fmt.Errorf("%d of %d changes could not be made", len(refused), len(writes)+len(deletions))
	}
	return err
}

func changesOf(refused []refusedChange) []change {
	var changes []change
	for _, r := range refused {
		changes = append(changes, r.change)
	}
	return changes
}

// routerWaits is true of the update of a router that waits for others.
func (c refusedChange) routerWaits() bool {
	return c.file != nil && c.server != nil && c.file.ID.Kind == mesh.KindVirtualRouter && waits(c.err)
}

// widen gives routers that wait for others their old listeners and the new ones
// together. It reports whether it could for any.
func (r *changer) widen(ctx context.Context, refused []refusedChange) bool {
	widened := false
	for _, c := range refused {
		if !c.routerWaits() {
			continue
		}
		if both, more := manifest.BothListeners(c.server.Resource, *c.file); more && r.api.update(ctx, both) == nil {
			widened = true
			fmt.Fprintln(r.api.out, "updated", both, "to have its old and its new listeners for now") //nolint:errcheck // the summary's error is the same
		}
	}
	return widened
}

// waits reports whether a change may be possible once others are made.
func waits(err error) bool {
	return isRefusal(err, "NotFoundException", "BadRequestException", "ResourceInUseException")
}

// rounds makes changes in their order, and tries those that wait for others
// again until nothing more gets done. It returns what was refused. An error is
// not about one change: an unreachable server, an interrupt.
func (r *changer) rounds(ctx context.Context, changes []change) ([]refusedChange, error) {
	var final []refusedChange
	for {
		var waiting []refusedChange
		progress := false
		for i, c := range changes {
			err := r.do(ctx, c)
			var refused *refusal
			switch {
			case err == nil:
				progress = true
			case ctx.Err() != nil:
				return append(final, waiting...), fmt.Errorf("interrupted at %s: it and %d more changes were not tried to the end", c.resource(), len(changes)-i-1)
			case !errors.As(err, &refused):
				return append(final, waiting...), fmt.Errorf("stopped at %s: %w", c.resource(), err)
			case waits(err):
				waiting = append(waiting, refusedChange{c, err})
			default:
				final = append(final, refusedChange{c, err})
			}
		}
		if len(waiting) == 0 || !progress {
			return append(final, waiting...), nil
		}
		changes = changesOf(waiting)
	}
}

// do makes one change, and says so.
func (r *changer) do(ctx context.Context, c change) error {
	err := r.write(ctx, c)
	if c.server == nil && isRefusal(err, "ConflictException") { // somebody else has made it
		again, planned := planWrite(ctx, r.api, *c.file)
		if planned != nil || again.server == nil {
			return errors.Join(planned, err)
		}
		return r.do(ctx, again)
	}
	if err != nil {
		return err
	}
	r.counts[c.verb()]++
	_, err = fmt.Fprintln(r.api.out, c.verb(), c.resource())
	return err
}

func (r *changer) write(ctx context.Context, c change) error {
	switch {
	case c.server == nil:
		return r.api.create(ctx, *c.file)
	case c.file == nil:
		err := r.api.remove(ctx, c.server.Resource)
		if isRefusal(err, "NotFoundException") { // somebody else has
			return nil
		}
		return err
	}
	// Tags first: when they are refused no version has been spent, however often
	// that is tried again.
	if len(c.set) > 0 || len(c.remove) > 0 {
		if err := r.api.retag(ctx, c.server, c.set, c.remove); err != nil {
			return err
		}
	}
	if c.spec {
		return r.api.update(ctx, *c.file)
	}
	return nil
}
