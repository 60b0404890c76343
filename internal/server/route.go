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
	rules: routeRules, references: []reference[appmesh.RouteSpec]{
		{"route-port", "B.12 10", "in a virtual router with several listeners a route matches a port", routePort},
		{"route-listener", "B.12 9", "a route is of the kind of the listener of its virtual router, and a port that it matches is one", routeListener},
		{"route-targets", "A.5, B.12 9, B.12 10", "the targets of a route exist, with a listener of the route's kind; port says which if there are several", routeTargets},
	},
}

// routerOf reads the virtual router of a route.
func routerOf(tx *store.Tx, at location) (*appmesh.VirtualRouterSpec, error) {
	router, err := need[appmesh.VirtualRouterSpec](tx, "VirtualRouter", location{at.mesh, mesh.ID{Kind: mesh.KindVirtualRouter, Name: at.id.Parent}})
	if err != nil {
		return nil, err
	}
	return router.Spec, nil
}

func routePort(tx *store.Tx, at location, spec *appmesh.RouteSpec, _ *faults) error {
	router, err := routerOf(tx, at)
	if err != nil {
		return err
	}
	if _, _, port := routeProtocol(spec); len(router.Listeners) > 1 && port == nil {
		return appmesh.NewBadRequestException("Route must define a port match criteria if the Virtual Router has multiple listeners")
	}
	return nil
}

func routeListener(tx *store.Tx, at location, spec *appmesh.RouteSpec, f *faults) error {
	router, err := routerOf(tx, at)
	if err != nil {
		return err
	}
	if len(router.Listeners) > 0 {
		protocol, path, port := routeProtocol(spec)
		routerListener(f, path, router, protocol, port, "the route")
	}
	return nil
}

func routeTargets(tx *store.Tx, at location, spec *appmesh.RouteSpec, f *faults) error {
	protocol, _, _ := routeProtocol(spec)
	path, targets := weightedTargets(spec)
	for i, target := range targets {
		node, err := need[appmesh.VirtualNodeSpec](tx, "VirtualNode", location{at.mesh, mesh.ID{Kind: mesh.KindVirtualNode, Name: target.VirtualNode}})
		if err != nil {
			return err
		}
		targetListener(f, fmt.Sprintf("%s[%d]", path, i), node, protocol, target.Port)
	}
	return nil
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
