package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	neturl "net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/manifest"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/server"
)

// meshAPI calls App Mesh's operations for resources of any kind. It speaks the
// API's JSON by the generated table of operations, and not through AWS's SDK:
// that has specs of its own types, and seven kinds of them would have to be
// copied field by field between the two, a field that one does not know lost.
type meshAPI struct {
	*operator
	warnings io.Writer // what the server warns of goes here
}

func (o *operatorFlags) connectMesh(cmd *cobra.Command) (*meshAPI, error) {
	connected, err := o.connect(cmd)
	if err != nil {
		return nil, err
	}
	return &meshAPI{connected, cmd.ErrOrStderr()}, nil
}

// stored is a resource as the server has it.
type stored struct {
	manifest.Resource
	metadata appmesh.ResourceMetadata
	raw      []byte // the answer of the describe operation
}

// noun is a kind as operations have it: VirtualNode.
func noun(k mesh.Kind) string { return strings.ToUpper(string(k[:1])) + string(k[1:]) }

// plural is the member of a list operation's answer: virtualNodes.
func plural(k mesh.Kind) string {
	if k == mesh.KindMesh {
		return "meshes"
	}
	return string(k) + "s"
}

// try calls an operation on a resource. It tries again what the server says to
// try again: every write carries a token that makes it happen once, and what is
// deleted twice is gone.
func (a *meshAPI) try(ctx context.Context, operation string, on manifest.Resource, query neturl.Values, in any) ([]byte, error) {
	i := slices.IndexFunc(appmesh.Operations, func(o api.Operation[appmesh.Service]) bool { return o.Name == operation })
	if i < 0 {
		return nil, fmt.Errorf("call %s: no such operation", operation)
	}
	path := appmesh.Operations[i].URI
	labels := map[mesh.Kind]string{mesh.KindMesh: on.Mesh, manifest.ParentKind(on.ID.Kind): on.ID.Parent}
	if on.ID.Kind != mesh.KindMesh {
		labels[on.ID.Kind] = on.ID.Name
	}
	for kind, value := range labels {
		path = strings.ReplaceAll(path, "{"+string(kind)+"Name}", neturl.PathEscape(value))
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return again(ctx, func() ([]byte, error) {
		header, body, err := a.send(ctx, appmesh.SigningName, appmesh.Operations[i].Method, path, in)
		for _, warning := range header.Values(server.WarningHeader) {
			fmt.Fprintf(a.warnings, "warning: %s: %s\n", on, warning)
		}
		return body, err
	})
}

// again calls the server, and again while it says to try again.
func again(ctx context.Context, call func() ([]byte, error)) ([]byte, error) {
	const attempts, longest = 9, 5 * time.Second
	for attempt, delay := 1, 100*time.Millisecond; ; attempt, delay = attempt+1, min(2*delay, longest) {
		body, err := call()
		if attempt == attempts || !isRefusal(err, "TooManyRequestsException", "ThrottlingException", "ServiceUnavailableException") {
			return body, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(delay/2 + mathrand.N(delay/2)):
		}
	}
}

// owner is the query that names the owner of a mesh, of operations that take it.
func owner(r manifest.Resource) neturl.Values {
	if r.MeshOwner == "" || r.ID.Kind == mesh.KindMesh {
		return nil
	}
	return neturl.Values{"meshOwner": {r.MeshOwner}}
}

func (a *meshAPI) create(ctx context.Context, r manifest.Resource) error {
	in := map[string]any{string(r.ID.Kind) + "Name": r.ID.Name, "spec": r.Spec, "clientToken": rand.Text()}
	if len(r.Tags) > 0 {
		in["tags"] = tagRefs(r.Tags)
	}
	_, err := a.try(ctx, "Create"+noun(r.ID.Kind), r, owner(r), in)
	return err
}

func (a *meshAPI) update(ctx context.Context, r manifest.Resource) error {
	_, err := a.try(ctx, "Update"+noun(r.ID.Kind), r, owner(r), map[string]any{"spec": r.Spec, "clientToken": rand.Text()})
	return err
}

func (a *meshAPI) remove(ctx context.Context, r manifest.Resource) error {
	_, err := a.try(ctx, "Delete"+noun(r.ID.Kind), r, owner(r), nil)
	return err
}

// retag sets some tags of a resource and removes others.
func (a *meshAPI) retag(ctx context.Context, s *stored, set map[string]string, remove []string) error {
	arn := neturl.Values{"resourceArn": {s.metadata.ARN}}
	if len(remove) > 0 { // first: there may be room for no more
		if _, err := a.try(ctx, "UntagResource", s.Resource, arn, map[string]any{"tagKeys": remove}); err != nil {
			return err
		}
	}
	if len(set) == 0 {
		return nil
	}
	_, err := a.try(ctx, "TagResource", s.Resource, arn, map[string]any{"tags": tagRefs(set)})
	return err
}

func tagRefs(tags map[string]string) []appmesh.TagRef {
	var refs []appmesh.TagRef
	for key, value := range tags {
		refs = append(refs, appmesh.TagRef{Key: key, Value: &value})
	}
	return refs
}

// describe reads a resource with its tags.
func (a *meshAPI) describe(ctx context.Context, r manifest.Resource) (*stored, error) {
	raw, err := a.try(ctx, "Describe"+noun(r.ID.Kind), r, owner(r), nil)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Metadata appmesh.ResourceMetadata `json:"metadata"`
		Spec     json.RawMessage          `json:"spec"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return nil, fmt.Errorf("read the server's answer about %s: %w", r, err)
	}
	s := &stored{Resource: r, metadata: answer.Metadata, raw: raw}
	s.Spec = manifest.NewSpec(r.ID.Kind)
	// Strictly: what a newer server knows and this program does not must not be
	// lost on the way into a file or back.
	if err := awsapi.Decode(answer.Spec, s.Spec); err != nil {
		return nil, fmt.Errorf("read the spec of %s: %w", r, err)
	}
	if s.Tags, err = a.tags(ctx, s); err != nil {
		return nil, err
	}
	return s, nil
}

func (a *meshAPI) tags(ctx context.Context, s *stored) (map[string]string, error) {
	tags := map[string]string{}
	query := neturl.Values{"resourceArn": {s.metadata.ARN}}
	for {
		raw, err := a.try(ctx, "ListTagsForResource", s.Resource, query, nil)
		if err != nil {
			return nil, err
		}
		var page appmesh.ListTagsForResourceOutput
		if err := json.Unmarshal(raw, &page); err != nil {
			return nil, fmt.Errorf("read the tags of %s: %w", s, err)
		}
		for _, t := range page.Tags {
			if t.Value != nil {
				tags[t.Key] = *t.Value
			}
		}
		if page.NextToken == nil {
			return tags, nil
		}
		query.Set("nextToken", *page.NextToken)
	}
}

// list names the resources of a kind in a mesh, or the meshes; routes of all
// virtual routers, gateway routes of all virtual gateways.
func (a *meshAPI) list(ctx context.Context, in mesh.Name, kind mesh.Kind) ([]manifest.Resource, error) {
	parent := manifest.ParentKind(kind)
	if parent == "" {
		return a.listIn(ctx, in, kind, "")
	}
	parents, err := a.list(ctx, in, parent)
	if err != nil {
		return nil, err
	}
	var all []manifest.Resource
	for _, p := range parents {
		children, err := a.listIn(ctx, in, kind, p.ID.Name)
		if isRefusal(err, "NotFoundException") { // the parent was deleted meanwhile
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, children...)
	}
	return all, nil
}

func (a *meshAPI) listIn(ctx context.Context, in mesh.Name, kind mesh.Kind, parent string) ([]manifest.Resource, error) {
	at := manifest.Resource{Mesh: in.Mesh, MeshOwner: in.Owner, ID: mesh.ID{Kind: kind, Parent: parent}}
	query := neturl.Values{}
	if o := owner(at); o != nil {
		query = o
	}
	operation := "List" + strings.ToUpper(plural(kind)[:1]) + plural(kind)[1:]
	var all []manifest.Resource
	for {
		raw, err := a.try(ctx, operation, at, query, nil)
		if err != nil {
			return nil, err
		}
		var page map[string]json.RawMessage
		var refs []map[string]any
		var next *string
		if err := errors.Join(json.Unmarshal(raw, &page), json.Unmarshal(page[plural(kind)], &refs), json.Unmarshal([]byte(cmp.Or(string(page["nextToken"]), "null")), &next)); err != nil {
			return nil, fmt.Errorf("read the server's list: %w", err)
		}
		for _, ref := range refs {
			r := at
			r.ID.Name, _ = ref[string(kind)+"Name"].(string)
			if kind == mesh.KindMesh {
				r.Mesh = r.ID.Name
			}
			all = append(all, r)
		}
		if next == nil {
			return all, nil
		}
		query.Set("nextToken", *next)
	}
}

// all reads every resource of a mesh and the mesh, in the order in which they
// can be made.
func (a *meshAPI) all(ctx context.Context, in mesh.Name) ([]*stored, error) {
	var all []*stored
	for _, kind := range manifest.Kinds() {
		found := []manifest.Resource{{Mesh: in.Mesh, MeshOwner: in.Owner, ID: mesh.ID{Kind: kind, Name: in.Mesh}}}
		if kind != mesh.KindMesh {
			var err error
			if found, err = a.list(ctx, in, kind); err != nil {
				return nil, err
			}
		}
		for _, r := range found {
			s, err := a.describe(ctx, r)
			if isRefusal(err, "NotFoundException") && kind != mesh.KindMesh { // deleted meanwhile
				continue
			}
			if err != nil {
				return nil, err
			}
			all = append(all, s)
		}
	}
	return all, nil
}

// problems are those that the server knows of a resource.
func (a *meshAPI) problems(ctx context.Context, r manifest.Resource) ([]server.Problem, error) {
	var list server.ProblemList
	if _, err := a.call(ctx, http.MethodGet, "/fairlead/v1/meshes/"+neturl.PathEscape(r.Mesh)+"/problems", nil, &list); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list.Problems, func(p server.Problem) bool { return p.Resource != r.ID.String() }), nil
}
