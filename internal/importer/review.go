package importer

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/manifest"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/tlspolicy"
)

// review says what is unsafe in what was read and what it needs, from the same
// Graph that the server would make of it.
func (s *session) review() {
	certificates, authorities, namespaces := map[string][]string{}, map[string][]string{}, map[string][]string{}
	issuables := issuables{}
	var graphs []*mesh.Graph
	for _, view := range views(s.result.Resources) {
		graph := mesh.Build(view)
		graphs = append(graphs, graph)
		r := reviewer{s, graph, s.sources(graph.Name.Mesh)}
		r.mesh()
		for _, e := range graph.Sorted() {
			r.endpoint(e)
			issuables.served(e)
			name := r.name(e.ID)
			for _, l := range e.Listeners {
				if c := l.TLS.Certificate; c != nil && c.ARN != "" {
					certificates[c.ARN] = append(certificates[c.ARN], name)
				}
			}
			for _, arn := range authoritiesOf(e) {
				authorities[arn] = append(authorities[arn], name)
			}
			if e.Node != nil && e.Node.Spec.ServiceDiscovery != nil {
				if m := e.Node.Spec.ServiceDiscovery.AwsCloudMap; m != nil {
					namespaces[m.NamespaceName] = append(namespaces[m.NamespaceName], name)
				}
			}
		}
		for _, p := range graph.Problems {
			s.note(r.name(p.ID), r.source(p.ID.String(), p.Field), "%s", p.Message)
		}
	}
	for _, graph := range graphs {
		for _, e := range graph.Sorted() {
			issuables.called(resourceName(graph.Name.Mesh, e.ID), e)
		}
	}
	for _, need := range needs(certificates) {
		s.result.Issuable = append(s.result.Issuable, *issuables[need.Name])
	}
	s.result.Certificates, s.result.Authorities, s.result.Namespaces = needs(certificates), needs(authorities), needs(namespaces)
}

// views are the resources as the records of their meshes. A mesh has one name
// here, whoever owns it: its owner leaves that out.
func views(resources []manifest.Resource) []*mesh.View {
	byName := map[string]*mesh.View{}
	var all []*mesh.View
	for i := range resources {
		name := resources[i].Mesh
		if byName[name] == nil {
			byName[name] = emptyView(mesh.Name{Mesh: name})
			all = append(all, byName[name])
		}
		put(byName[name], byName[name].Mesh.Mesh, &resources[i])
	}
	return all
}

func emptyView(name mesh.Name) *mesh.View {
	return &mesh.View{
		Mesh:            &mesh.Record[appmesh.MeshSpec]{Mesh: name, ID: mesh.ID{Kind: mesh.KindMesh, Name: name.Mesh}, Spec: &appmesh.MeshSpec{}},
		VirtualNodes:    map[string]*mesh.Record[appmesh.VirtualNodeSpec]{},
		VirtualServices: map[string]*mesh.Record[appmesh.VirtualServiceSpec]{},
		VirtualRouters:  map[string]*mesh.Record[appmesh.VirtualRouterSpec]{},
		VirtualGateways: map[string]*mesh.Record[appmesh.VirtualGatewaySpec]{},
		Routes:          map[mesh.ID]*mesh.Record[appmesh.RouteSpec]{},
		GatewayRoutes:   map[mesh.ID]*mesh.Record[appmesh.GatewayRouteSpec]{},
	}
}

func put(view *mesh.View, in mesh.Name, r *manifest.Resource) {
	switch spec := r.Spec.(type) {
	case *appmesh.MeshSpec:
		view.Mesh = record(in, r, spec)
	case *appmesh.VirtualNodeSpec:
		view.VirtualNodes[r.ID.Name] = record(in, r, spec)
	case *appmesh.VirtualServiceSpec:
		view.VirtualServices[r.ID.Name] = record(in, r, spec)
	case *appmesh.VirtualRouterSpec:
		view.VirtualRouters[r.ID.Name] = record(in, r, spec)
	case *appmesh.VirtualGatewaySpec:
		view.VirtualGateways[r.ID.Name] = record(in, r, spec)
	case *appmesh.RouteSpec:
		view.Routes[r.ID] = record(in, r, spec)
	case *appmesh.GatewayRouteSpec:
		view.GatewayRoutes[r.ID] = record(in, r, spec)
	}
}

func record[S any](in mesh.Name, r *manifest.Resource, spec *S) *mesh.Record[S] {
	return &mesh.Record[S]{Mesh: in, ID: r.ID, Spec: spec, Tags: r.Tags, Version: 1, Revision: 1}
}

// sources are where the resources of a mesh were read, by mesh.ID.String.
func (s *session) sources(in string) map[string]string {
	sources := map[string]string{}
	for _, r := range s.result.Resources {
		if r.Mesh == in {
			sources[r.ID.String()] = r.Source
		}
	}
	return sources
}

// reviewer looks at one mesh.
type reviewer struct {
	session *session
	graph   *mesh.Graph
	sources map[string]string
}

func (r reviewer) name(id mesh.ID) string { return resourceName(r.graph.Name.Mesh, id) }

// source is a field of a resource's spec. The field is in the words of the API:
// the source may have others, or compute it.
func (r reviewer) source(id, field string) place {
	at := cmp.Or(r.sources[id], "mesh/"+r.graph.Name.Mesh+"/"+id)
	if field != "" {
		at += ", " + field
	}
	return place{file: at}
}

func (r reviewer) unsafe(id mesh.ID, field, format string, args ...any) {
	s := r.session
	s.result.Unsafe = add(s.result.Unsafe, r.name(id), r.source(id.String(), field).file, format, args...)
}

func (r reviewer) mesh() {
	id := mesh.ID{Kind: mesh.KindMesh, Name: r.graph.Name.Mesh}
	if r.graph.AllowAll {
		r.unsafe(id, "spec.egressFilter.type", "ALLOW_ALL lets every node reach every address, in plaintext where no backend says otherwise; DROP_ALL lets it reach its backends only")
	}
	if _, there := r.sources[id.String()]; !there {
		r.session.note(r.name(id), place{}, "the mesh itself is not among the resources: it must be there before they are applied")
	}
}

// endpoint says what is unsafe in what a node or gateway offers, and in what it
// demands of those it calls.
func (r reviewer) endpoint(e *mesh.Endpoint) {
	for i, l := range e.Listeners {
		field := fmt.Sprintf("spec.listeners[%d].tls", i)
		switch l.TLS.Mode {
		case tlspolicy.ModeNone, tlspolicy.ModeDisabled:
			r.unsafe(e.ID, field, "port %d takes plaintext only: TLS is %s", l.Port, strings.ToLower(string(l.TLS.Mode)))
		case tlspolicy.ModePermissive:
			r.unsafe(e.ID, field+".mode", "port %d takes plaintext, too: TLS is PERMISSIVE", l.Port)
		}
		for _, w := range tlspolicy.Warnings(l.TLS) {
			_, member, _ := strings.Cut(w.Field, " ")
			if !strings.HasSuffix(member, ".mode") { // said already
				r.unsafe(e.ID, member, "%s", w.Message)
			}
		}
	}
	seen := map[string]bool{}
	policy := func(p *tlspolicy.Policy) {
		if p == nil || seen[p.Field] {
			return
		}
		seen[p.Field] = true
		_, field, _ := strings.Cut(p.Field, " ")
		if !p.Enforce {
			r.unsafe(e.ID, field+".enforce", "the policy is not enforced: it speaks plaintext with a server that offers no TLS")
		}
		for _, san := range p.SANs {
			if tlspolicy.IsWildcard(san) || san == "*" {
				r.unsafe(e.ID, field+".validation.subjectAlternativeNames", "%q accepts more than one server", san)
			}
		}
	}
	for _, b := range e.Backends {
		policy(b.Policy)
	}
	for _, edge := range e.Edges {
		policy(edge.Policy)
		r.edge(edge)
	}
}

// edge says of a call why it is not safe.
func (r reviewer) edge(e *mesh.Edge) {
	switch e.Decision.Verdict {
	case tlspolicy.VerdictVerified, tlspolicy.VerdictMutual:
		return
	}
	id, field, _ := strings.Cut(e.Decision.Field, " ")
	s := r.session
	s.result.Unsafe = add(s.result.Unsafe, r.name(e.Client.ID), r.source(id, field).file, "calls %s port %d, %s: %s",
		e.Server.ID, e.Listener.Port, e.Decision.Verdict, e.Decision.Reason)
}

// authoritiesOf are the root CAs that an endpoint's policies trust, also those
// of policies through which it calls nobody.
func authoritiesOf(e *mesh.Endpoint) []string {
	var arns []string
	trust := func(acm *appmesh.TlsValidationContextAcmTrust) {
		if acm != nil {
			arns = append(arns, acm.CertificateAuthorityArns...)
		}
	}
	node := func(p *appmesh.ClientPolicy) {
		if p != nil && p.TLS != nil && p.TLS.Validation != nil && p.TLS.Validation.Trust != nil {
			trust(p.TLS.Validation.Trust.ACM)
		}
	}
	if e.Node != nil {
		if d := e.Node.Spec.BackendDefaults; d != nil {
			node(d.ClientPolicy)
		}
		for _, b := range e.Node.Spec.Backends {
			if b.VirtualService != nil {
				node(b.VirtualService.ClientPolicy)
			}
		}
	}
	if e.Gateway != nil {
		d := e.Gateway.Spec.BackendDefaults
		if d != nil && d.ClientPolicy != nil && d.ClientPolicy.TLS != nil && d.ClientPolicy.TLS.Validation != nil && d.ClientPolicy.TLS.Validation.Trust != nil {
			if acm := d.ClientPolicy.TLS.Validation.Trust.ACM; acm != nil {
				arns = append(arns, acm.CertificateAuthorityArns...)
			}
		}
	}
	slices.Sort(arns)
	return slices.Compact(arns)
}
