package manifest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
)

// Reference is one resource's need of another in the same mesh.
type Reference struct {
	To    mesh.ID
	Field string // of the spec; empty: the resource stands in the other
	// Loose: the other may be missing, as the backends of a virtual node may. The
	// API deletes what is referred to loosely.
	Loose bool
}

// References are what a resource refers to, in the order of its spec; a thing
// that it refers to twice is there twice.
func References(r Resource) []Reference {
	var all []Reference
	add := func(kind mesh.Kind, name, field string) {
		all = append(all, Reference{To: mesh.ID{Kind: kind, Name: name}, Field: field})
	}
	if parent := ParentKind(r.ID.Kind); parent != "" {
		add(parent, r.ID.Parent, "")
	}
	switch spec := r.Spec.(type) {
	case *appmesh.VirtualNodeSpec:
		for i, b := range spec.Backends {
			if b.VirtualService != nil {
				all = append(all, Reference{
					To:    mesh.ID{Kind: mesh.KindVirtualService, Name: serviceName(b.VirtualService.VirtualServiceName)},
					Field: fmt.Sprintf("spec.backends[%d].virtualService", i), Loose: true,
				})
			}
		}
	case *appmesh.VirtualServiceSpec:
		if p := spec.Provider; p != nil && p.VirtualNode != nil {
			add(mesh.KindVirtualNode, p.VirtualNode.VirtualNodeName, "spec.provider.virtualNode")
		} else if p != nil && p.VirtualRouter != nil {
			add(mesh.KindVirtualRouter, p.VirtualRouter.VirtualRouterName, "spec.provider.virtualRouter")
		}
	case *appmesh.RouteSpec:
		field, targets := routeTargets(spec)
		for i, target := range targets {
			add(mesh.KindVirtualNode, target.VirtualNode, fmt.Sprintf("%s.action.weightedTargets[%d]", field, i))
		}
	case *appmesh.GatewayRouteSpec:
		if field, target := gatewayTarget(spec); target != nil && target.VirtualService != nil {
			add(mesh.KindVirtualService, target.VirtualService.VirtualServiceName, field+".action.target.virtualService")
		}
	}
	return all
}

// serviceName is the name in a backend, which may be an ARN.
func serviceName(backend string) string {
	if _, name, arn := strings.Cut(backend, "/virtualService/"); arn && strings.HasPrefix(backend, "arn:") {
		return name
	}
	return backend
}

func routeTargets(spec *appmesh.RouteSpec) (field string, targets []appmesh.WeightedTarget) {
	switch {
	case spec.HttpRoute != nil && spec.HttpRoute.Action != nil:
		return "spec.httpRoute", spec.HttpRoute.Action.WeightedTargets
	case spec.Http2Route != nil && spec.Http2Route.Action != nil:
		return "spec.http2Route", spec.Http2Route.Action.WeightedTargets
	case spec.GrpcRoute != nil && spec.GrpcRoute.Action != nil:
		return "spec.grpcRoute", spec.GrpcRoute.Action.WeightedTargets
	case spec.TcpRoute != nil && spec.TcpRoute.Action != nil:
		return "spec.tcpRoute", spec.TcpRoute.Action.WeightedTargets
	}
	return "spec", nil
}

func gatewayTarget(spec *appmesh.GatewayRouteSpec) (field string, target *appmesh.GatewayRouteTarget) {
	switch {
	case spec.HttpRoute != nil && spec.HttpRoute.Action != nil:
		return "spec.httpRoute", spec.HttpRoute.Action.Target
	case spec.Http2Route != nil && spec.Http2Route.Action != nil:
		return "spec.http2Route", spec.Http2Route.Action.Target
	case spec.GrpcRoute != nil && spec.GrpcRoute.Action != nil:
		return "spec.grpcRoute", spec.GrpcRoute.Action.Target
	}
	return "spec", nil
}

// Summary says in a few words what a resource is about: the listeners of a node,
// a router or a gateway, where a service or a route leads.
func Summary(r Resource) string {
	var words []string
	port := func(protocol string, port int64) { words = append(words, fmt.Sprintf("%s:%d", protocol, port)) }
	switch spec := r.Spec.(type) {
	case *appmesh.MeshSpec:
		if spec.EgressFilter != nil {
			words = append(words, string(spec.EgressFilter.Type))
		}
	case *appmesh.VirtualNodeSpec:
		for _, l := range spec.Listeners {
			if l.PortMapping != nil {
				port(string(l.PortMapping.Protocol), l.PortMapping.Port)
			}
		}
	case *appmesh.VirtualRouterSpec:
		for _, l := range spec.Listeners {
			if l.PortMapping != nil {
				port(string(l.PortMapping.Protocol), l.PortMapping.Port)
			}
		}
	case *appmesh.VirtualGatewaySpec:
		for _, l := range spec.Listeners {
			if l.PortMapping != nil {
				port(string(l.PortMapping.Protocol), l.PortMapping.Port)
			}
		}
	case *appmesh.RouteSpec:
		_, targets := routeTargets(spec)
		for _, target := range targets {
			weight := int64(0)
			if target.Weight != nil {
				weight = *target.Weight
			}
			words = append(words, fmt.Sprintf("%s=%d", target.VirtualNode, weight))
		}
	default:
		for _, ref := range References(r) {
			if ref.Field != "" {
				words = append(words, ref.To.String())
			}
		}
	}
	return strings.Join(words, ",")
}

// WithDependants adds to some resources of a mesh those that must be deleted
// before them: what stands in them and what refers to them, not loosely, and so
// on. A mesh needs everything in it gone. The result is in no order.
func WithDependants(all []Resource, of []mesh.ID) []Resource {
	doomed := map[mesh.ID]bool{}
	for _, id := range of {
		doomed[id] = true
	}
	whole := slices.ContainsFunc(of, func(id mesh.ID) bool { return id.Kind == mesh.KindMesh })
	for grown := true; grown; {
		grown = false
		for _, r := range all {
			if !doomed[r.ID] && (whole || slices.ContainsFunc(References(r), func(ref Reference) bool { return !ref.Loose && doomed[ref.To] })) {
				doomed[r.ID], grown = true, true
			}
		}
	}
	var found []Resource
	for _, r := range all {
		if doomed[r.ID] {
			found = append(found, r)
		}
	}
	return found
}

// BothListeners is a virtual router with the listeners that it has and those
// that it is to have on other ports. more is false if there are none.
func BothListeners(server, file Resource) (both Resource, more bool) {
	old, isRouter := server.Spec.(*appmesh.VirtualRouterSpec)
	wanted, alsoRouter := file.Spec.(*appmesh.VirtualRouterSpec)
	if !isRouter || !alsoRouter {
		return Resource{}, false
	}
	listeners := slices.Clone(old.Listeners)
	for _, l := range wanted.Listeners {
		if !slices.ContainsFunc(old.Listeners, func(o appmesh.VirtualRouterListener) bool { return o.PortMapping.Port == l.PortMapping.Port }) {
			listeners, more = append(listeners, l), true
		}
	}
	both = server
	both.Spec = &appmesh.VirtualRouterSpec{Listeners: listeners}
	return both, more
}
