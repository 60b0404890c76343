package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairlead/fairlead/internal/manifest"
	"github.com/fairlead/fairlead/internal/mesh"
)

// kindWord is what commands call a kind, and its short form.
type kindWord struct {
	kind  mesh.Kind
	short string
	// headers of a table of such resources, for the columns that not all have.
	parent, summary string
}

func kindWords() []kindWord {
	return []kindWord{
		{mesh.KindMesh, "", "", "EGRESS"},
		{mesh.KindVirtualNode, "vn", "", "LISTENERS"},
		{mesh.KindVirtualRouter, "vr", "", "LISTENERS"},
		{mesh.KindRoute, "", "ROUTER", "TARGETS"},
		{mesh.KindVirtualService, "vs", "", "PROVIDER"},
		{mesh.KindVirtualGateway, "vg", "", "LISTENERS"},
		{mesh.KindGatewayRoute, "gr", "GATEWAY", "TARGET"},
	}
}

const kindsHelp = `KIND is mesh, virtualnode (vn), virtualservice (vs), virtualrouter (vr), route,
virtualgateway (vg) or gatewayroute (gr), in the singular or the plural. A route is
named NAME or ROUTER/NAME, a gateway route NAME or GATEWAY/NAME. KIND/NAME, as
'get -o name' prints it, may stand for KIND NAME.`

// parseKind reads a kind as users write it.
func parseKind(word string) (kindWord, error) {
	lower := strings.ToLower(word)
	for _, w := range kindWords() {
		if lower == strings.ToLower(string(w.kind)) || lower == strings.ToLower(plural(w.kind)) || w.short != "" && lower == w.short {
			return w, nil
		}
	}
	return kindWord{}, usagef("%q is not a kind of resource: use mesh, virtualnode, virtualservice, virtualrouter, route, virtualgateway or gatewayroute", word)
}

// parseResources reads KIND NAME…, or KIND/NAME…: the resources that a command
// is about. A route without its router has no parent yet. KIND alone is all of
// that kind: no resources.
func parseResources(in string, args []string) (kind kindWord, named []manifest.Resource, err error) {
	words := args
	if !strings.Contains(args[0], "/") {
		if kind, err = parseKind(args[0]); err != nil {
			return kind, nil, err
		}
		words = nil
		for _, name := range args[1:] {
			words = append(words, string(kind.kind)+"/"+name)
		}
	}
	for _, word := range words {
		first, name, _ := strings.Cut(word, "/")
		k, err := parseKind(first)
		if err != nil {
			return kind, nil, err
		}
		if kind.kind == "" {
			kind = k
		}
		id, err := parseID(k.kind, name)
		if err != nil {
			return kind, nil, err
		}
		r := manifest.Resource{Mesh: in, ID: id}
		if id.Kind == mesh.KindMesh {
			r.Mesh = id.Name
		}
		if r.Mesh == "" {
			return kind, nil, needsMesh()
		}
		named = append(named, r)
	}
	if len(named) == 0 && kind.kind != mesh.KindMesh && in == "" {
		return kind, nil, needsMesh()
	}
	return kind, named, nil
}

func needsMesh() error { return usagef("--mesh is required: the mesh that the resources are in") }

// parseID reads NAME, and PARENT/NAME or PARENT/route/NAME where there is one.
func parseID(kind mesh.Kind, name string) (mesh.ID, error) {
	parts := strings.Split(name, "/")
	child := map[mesh.Kind]mesh.Kind{mesh.KindVirtualRouter: mesh.KindRoute, mesh.KindVirtualGateway: mesh.KindGatewayRoute}[kind]
	var id mesh.ID
	switch {
	case len(parts) == 1:
		id = mesh.ID{Kind: kind, Name: name}
	case len(parts) == 2 && manifest.ParentKind(kind) != "":
		id = mesh.ID{Kind: kind, Parent: parts[0], Name: parts[1]}
	case len(parts) == 3 && child != "" && parts[1] == string(child): // as get -o name has it
		id = mesh.ID{Kind: child, Parent: parts[0], Name: parts[2]}
	default:
		return id, usagef("%q is not the name of a %s", name, kind)
	}
	if slices.Contains(parts, "") {
		return id, usagef("the name of a %s is missing in %q", kind, string(kind)+"/"+name)
	}
	return id, nil
}

// locate finds the router or gateway of a route that was named without it.
func (a *meshAPI) locate(ctx context.Context, r manifest.Resource) (manifest.Resource, error) {
	parent := manifest.ParentKind(r.ID.Kind)
	if parent == "" || r.ID.Parent != "" {
		return r, nil
	}
	all, err := a.list(ctx, r.In(), r.ID.Kind)
	if err != nil {
		return r, err
	}
	found := slices.DeleteFunc(all, func(other manifest.Resource) bool { return other.ID.Name != r.ID.Name })
	switch len(found) {
	case 0:
		return r, &refusal{code: "NotFoundException", message: fmt.Sprintf("no %s of mesh %s has a %s %s", parent, r.Mesh, r.ID.Kind, r.ID.Name)}
	case 1:
		return found[0], nil
	}
	return r, usagef("%s %s is in %s and in %s: name it %[3]s/%[2]s", r.ID.Kind, r.ID.Name, found[0].ID.Parent, found[1].ID.Parent)
}

// addMesh adds the flag of commands about what is in a mesh.
func addMesh(cmd *cobra.Command, flags *operatorFlags, name *string) {
	cmd.Flags().StringVarP(name, "mesh", "m", "", "the mesh that the resources are in")
	completeWith(cmd, "mesh", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return completeNames(cmd, flags, mesh.KindMesh, ""), cobra.ShellCompDirectiveNoFileComp
	})
}

// completeWith completes a flag's value. It fails only for a flag that is not
// there, which completion tests would show.
func completeWith(cmd *cobra.Command, flag string, complete cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, complete); err != nil {
		cobra.CompErrorln(err.Error())
	}
}

// completeResources completes KIND NAME… . more are words for KIND beside the kinds.
func completeResources(flags *operatorFlags, in *string, more ...string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			words := more
			for _, w := range kindWords() {
				words = append(words, strings.ToLower(string(w.kind)))
			}
			return words, cobra.ShellCompDirectiveNoFileComp
		}
		kind, err := parseKind(args[0])
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names := completeNames(cmd, flags, kind.kind, *in)
		return slices.DeleteFunc(names, func(name string) bool { return slices.Contains(args[1:], name) }), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeNames asks the server; a shell that completes shows no errors.
func completeNames(cmd *cobra.Command, flags *operatorFlags, kind mesh.Kind, in string) []string {
	api, err := flags.connectMesh(cmd)
	if err != nil || in == "" && kind != mesh.KindMesh {
		return nil
	}
	found, err := api.list(cmd.Context(), mesh.Name{Mesh: in}, kind)
	if err != nil {
		return nil
	}
	var names []string
	for _, r := range found {
		names = append(names, shortName(r))
	}
	return names
}

// shortName is NAME, or PARENT/NAME.
func shortName(r manifest.Resource) string {
	if r.ID.Parent != "" {
		return r.ID.Parent + "/" + r.ID.Name
	}
	return r.ID.Name
}
