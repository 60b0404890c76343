package server

import (
	"context"
	"fmt"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/store"
)

var routes = kind[appmesh.RouteSpec]{
	kind: mesh.KindRoute, noun: "Route", nameMember: "routeName", quota: "routes-per-virtual-router",
	rules: routeRules, references: routeReferences,
}

// routeReferences checks that the targets exist and that they, the router and
// the route speak one protocol (B.12 rules 9 and 10).
func routeReferences(tx *store.Tx, at location, spec *appmesh.RouteSpec) error {
	router, err := need[appmesh.VirtualRouterSpec](tx, "VirtualRouter", location{at.mesh, mesh.ID{Kind: mesh.KindVirtualRouter, Name: at.id.Parent}})
	if err != nil {
		return err
	}
	var f faults
	protocol, kindPath, port := routeProtocol(spec)
	if len(router.Spec.Listeners) > 1 && port == nil {
		return appmesh.NewBadRequestException("Route must define a port match criteria if the Virtual Router has multiple listeners")
	}
	if len(router.Spec.Listeners) > 0 {
		routerListener(&f, kindPath, router.Spec, protocol, port, "the route")
	}
	path, targets := weightedTargets(spec)
	for i, target := range targets {
		node, err := need[appmesh.VirtualNodeSpec](tx, "VirtualNode", location{at.mesh, mesh.ID{Kind: mesh.KindVirtualNode, Name: target.VirtualNode}})
		if err != nil {
			return err
		}
		targetListener(&f, fmt.Sprintf("%s[%d]", path, i), node, protocol, target.Port)
	}
	return f.err()
}

// targetListener checks that a node has the listener that a target means: that
// of its port, or the only one.
func targetListener(f *faults, path string, node *mesh.Record[appmesh.VirtualNodeSpec], protocol appmesh.PortProtocol, port *int64) {
	listeners := nodeListeners(node.Spec)
	switch {
	case len(listeners) == 0:
		f.add(path+".virtualNode", "virtual node %s has no listener", node.ID.Name)
		return
	case len(listeners) > 1 && port == nil:
		f.add(path+".port", "must be set: virtual node %s has %d listeners", node.ID.Name, len(listeners))
		return
	}
	for _, l := range listeners {
		if port != nil && l.port != *port {
			continue
		}
		if l.protocol != string(protocol) {
			f.add(path+".virtualNode", "the route is of kind %s, but the listener of virtual node %s on port %d is %s", protocol, node.ID.Name, l.port, l.protocol)
		}
		return
	}
	f.add(path+".port", "%d is no listener of virtual node %s", *port, node.ID.Name)
}

// CreateRoute makes a route.
func (s *Service) CreateRoute(ctx context.Context, in *appmesh.CreateRouteInput) (*appmesh.CreateRouteOutput, error) {
	r, err := create(ctx, s, &routes, request[appmesh.RouteSpec]{
		mesh: in.MeshName, owner: in.MeshOwner, id: mesh.ID{Kind: mesh.KindRoute, Parent: in.VirtualRouterName, Name: in.RouteName},
		spec: in.Spec, tags: in.Tags, token: in.ClientToken,
	})
	if err != nil {
		return nil, err
	}
	return &appmesh.CreateRouteOutput{Route: s.route(r, active)}, nil
}

// DescribeRoute reads a route.
func (s *Service) DescribeRoute(ctx context.Context, in *appmesh.DescribeRouteInput) (*appmesh.DescribeRouteOutput, error) {
	r, err := describe(ctx, s, &routes, locator{in.MeshName, in.MeshOwner, mesh.ID{Kind: mesh.KindRoute, Parent: in.VirtualRouterName, Name: in.RouteName}})
	if err != nil {
		return nil, err
	}
	return &appmesh.DescribeRouteOutput{Route: s.route(r, active)}, nil
}

// UpdateRoute replaces the spec of a route.
func (s *Service) UpdateRoute(ctx context.Context, in *appmesh.UpdateRouteInput) (*appmesh.UpdateRouteOutput, error) {
	r, err := update(ctx, s, &routes, request[appmesh.RouteSpec]{
		mesh: in.MeshName, owner: in.MeshOwner, id: mesh.ID{Kind: mesh.KindRoute, Parent: in.VirtualRouterName, Name: in.RouteName},
		spec: in.Spec, token: in.ClientToken,
	})
	if err != nil {
		return nil, err
	}
	return &appmesh.UpdateRouteOutput{Route: s.route(r, active)}, nil
}

// DeleteRoute deletes a route.
func (s *Service) DeleteRoute(ctx context.Context, in *appmesh.DeleteRouteInput) (*appmesh.DeleteRouteOutput, error) {
	r, err := remove(ctx, s, &routes, locator{in.MeshName, in.MeshOwner, mesh.ID{Kind: mesh.KindRoute, Parent: in.VirtualRouterName, Name: in.RouteName}})
	if err != nil {
		return nil, err
	}
	return &appmesh.DeleteRouteOutput{Route: s.route(r, deleted)}, nil
}

// ListRoutes lists by name.
func (s *Service) ListRoutes(ctx context.Context, in *appmesh.ListRoutesInput) (*appmesh.ListRoutesOutput, error) {
	of := locator{in.MeshName, in.MeshOwner, mesh.ID{Kind: mesh.KindRoute, Parent: in.VirtualRouterName}}
	records, next, err := list(ctx, s, &routes, of, page{limit: in.Limit, token: in.NextToken})
	if err != nil {
		return nil, err
	}
	out := &appmesh.ListRoutesOutput{Routes: []appmesh.RouteRef{}, NextToken: next}
	for _, r := range records {
		m := metadataOf(s, r)
		out.Routes = append(out.Routes, appmesh.RouteRef{
			MeshName: r.Mesh.Mesh, VirtualRouterName: r.ID.Parent, RouteName: r.ID.Name, ARN: m.ARN, Version: m.Version,
			CreatedAt: m.CreatedAt, LastUpdatedAt: m.LastUpdatedAt, MeshOwner: m.MeshOwner, ResourceOwner: m.ResourceOwner,
		})
	}
	return out, nil
}

func (s *Service) route(r *mesh.Record[appmesh.RouteSpec], status appmesh.RouteStatusCode) *appmesh.RouteData {
	return &appmesh.RouteData{
		MeshName: r.Mesh.Mesh, VirtualRouterName: r.ID.Parent, RouteName: r.ID.Name, Metadata: metadataOf(s, r), Spec: r.Spec,
		Status: &appmesh.RouteStatus{Status: status},
	}
}
