package server

import (
	"context"
	"slices"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/store"
)

var gatewayRoutes = kind[appmesh.GatewayRouteSpec]{
	kind: mesh.KindGatewayRoute, noun: "GatewayRoute", nameMember: "gatewayRouteName", quota: "gateway-routes-per-virtual-gateway",
	rules: gatewayRouteRules, references: []reference[appmesh.GatewayRouteSpec]{
		{"gateway-port", "B.12 10", "in a virtual gateway with several listeners a gateway route matches a port, and a port that it matches is one of them", gatewayPort},
		{"gateway-target", "A.5, B.12 10", "the target of a gateway route exists; port says which of its provider's listeners if there are several", gatewayTargetPort},
	},
}

func gatewayPort(tx *store.Tx, at location, spec *appmesh.GatewayRouteSpec, f *faults) error {
	gateway, err := need[appmesh.VirtualGatewaySpec](tx, "VirtualGateway", location{at.mesh, mesh.ID{Kind: mesh.KindVirtualGateway, Name: at.id.Parent}})
	if err != nil {
		return err
	}
	_, path, port := gatewayTarget(spec)
	onePort(f, path+".match.port", port, gatewayListeners(gateway.Spec), "virtual gateway "+at.id.Parent)
	return nil
}

func gatewayTargetPort(tx *store.Tx, at location, spec *appmesh.GatewayRouteSpec, f *faults) error {
	target, path, _ := gatewayTarget(spec)
	if target == nil || target.VirtualService == nil {
		return nil
	}
	name := target.VirtualService.VirtualServiceName
	service, err := need[appmesh.VirtualServiceSpec](tx, "VirtualService", location{at.mesh, mesh.ID{Kind: mesh.KindVirtualService, Name: name}})
	if err != nil {
		return err
	}
	listeners, err := providerListeners(tx, at.mesh, service.Spec)
	if err != nil {
		return err
	}
	onePort(f, path+".action.target.port", target.Port, listeners, "the provider of virtual service "+name)
	return nil
}

// onePort checks that a port is one of the listeners', and that it is given if
// there are several. Without listeners nothing is known of ports.
func onePort(f *faults, path string, port *int64, of []listener, owner string) {
	switch {
	case port == nil && len(of) > 1:
		f.add(path, "must be set: %s has %d listeners", owner, len(of))
	case port != nil && len(of) > 0 && !slices.ContainsFunc(of, func(l listener) bool { return l.port == *port }):
		f.add(path, "%d is no listener of %s", *port, owner)
	}
}

// providerListeners are the ports on which a service is called.
func providerListeners(tx *store.Tx, in mesh.Name, service *appmesh.VirtualServiceSpec) ([]listener, error) {
	switch p := service.Provider; {
	case p != nil && p.VirtualNode != nil:
		node, err := need[appmesh.VirtualNodeSpec](tx, "VirtualNode", location{in, mesh.ID{Kind: mesh.KindVirtualNode, Name: p.VirtualNode.VirtualNodeName}})
		if err != nil {
			return nil, err
		}
		return nodeListeners(node.Spec), nil
	case p != nil && p.VirtualRouter != nil:
		router, err := need[appmesh.VirtualRouterSpec](tx, "VirtualRouter", location{in, mesh.ID{Kind: mesh.KindVirtualRouter, Name: p.VirtualRouter.VirtualRouterName}})
		if err != nil {
			return nil, err
		}
		return routerListeners(router.Spec), nil
	}
	return nil, nil
}

// CreateGatewayRoute makes a gateway route.
func (s *Service) CreateGatewayRoute(ctx context.Context, in *appmesh.CreateGatewayRouteInput) (*appmesh.CreateGatewayRouteOutput, error) {
	r, err := create(ctx, s, &gatewayRoutes, request[appmesh.GatewayRouteSpec]{
		mesh: in.MeshName, owner: in.MeshOwner, id: mesh.ID{Kind: mesh.KindGatewayRoute, Parent: in.VirtualGatewayName, Name: in.GatewayRouteName},
		spec: in.Spec, tags: in.Tags, token: in.ClientToken,
	})
	if err != nil {
		return nil, err
	}
	return &appmesh.CreateGatewayRouteOutput{GatewayRoute: s.gatewayRoute(r, active)}, nil
}

// DescribeGatewayRoute reads a gateway route.
func (s *Service) DescribeGatewayRoute(ctx context.Context, in *appmesh.DescribeGatewayRouteInput) (*appmesh.DescribeGatewayRouteOutput, error) {
	r, err := describe(ctx, s, &gatewayRoutes, locator{in.MeshName, in.MeshOwner, mesh.ID{Kind: mesh.KindGatewayRoute, Parent: in.VirtualGatewayName, Name: in.GatewayRouteName}})
	if err != nil {
		return nil, err
	}
	return &appmesh.DescribeGatewayRouteOutput{GatewayRoute: s.gatewayRoute(r, active)}, nil
}

// UpdateGatewayRoute replaces the spec of a gateway route.
func (s *Service) UpdateGatewayRoute(ctx context.Context, in *appmesh.UpdateGatewayRouteInput) (*appmesh.UpdateGatewayRouteOutput, error) {
	r, err := update(ctx, s, &gatewayRoutes, request[appmesh.GatewayRouteSpec]{
		mesh: in.MeshName, owner: in.MeshOwner, id: mesh.ID{Kind: mesh.KindGatewayRoute, Parent: in.VirtualGatewayName, Name: in.GatewayRouteName},
		spec: in.Spec, token: in.ClientToken,
	})
	if err != nil {
		return nil, err
	}
	return &appmesh.UpdateGatewayRouteOutput{GatewayRoute: s.gatewayRoute(r, active)}, nil
}

// DeleteGatewayRoute deletes a gateway route.
func (s *Service) DeleteGatewayRoute(ctx context.Context, in *appmesh.DeleteGatewayRouteInput) (*appmesh.DeleteGatewayRouteOutput, error) {
	r, err := remove(ctx, s, &gatewayRoutes, locator{in.MeshName, in.MeshOwner, mesh.ID{Kind: mesh.KindGatewayRoute, Parent: in.VirtualGatewayName, Name: in.GatewayRouteName}})
	if err != nil {
		return nil, err
	}
	return &appmesh.DeleteGatewayRouteOutput{GatewayRoute: s.gatewayRoute(r, deleted)}, nil
}

// ListGatewayRoutes lists by name.
func (s *Service) ListGatewayRoutes(ctx context.Context, in *appmesh.ListGatewayRoutesInput) (*appmesh.ListGatewayRoutesOutput, error) {
	of := locator{in.MeshName, in.MeshOwner, mesh.ID{Kind: mesh.KindGatewayRoute, Parent: in.VirtualGatewayName}}
	records, next, err := list(ctx, s, &gatewayRoutes, of, page{limit: in.Limit, token: in.NextToken})
	if err != nil {
		return nil, err
	}
	out := &appmesh.ListGatewayRoutesOutput{GatewayRoutes: []appmesh.GatewayRouteRef{}, NextToken: next}
	for _, r := range records {
		m := metadataOf(s, r)
		out.GatewayRoutes = append(out.GatewayRoutes, appmesh.GatewayRouteRef{
			MeshName: r.Mesh.Mesh, VirtualGatewayName: r.ID.Parent, GatewayRouteName: r.ID.Name, ARN: m.ARN, Version: m.Version,
			CreatedAt: m.CreatedAt, LastUpdatedAt: m.LastUpdatedAt, MeshOwner: m.MeshOwner, ResourceOwner: m.ResourceOwner,
		})
	}
	return out, nil
}

func (s *Service) gatewayRoute(r *mesh.Record[appmesh.GatewayRouteSpec], status appmesh.GatewayRouteStatusCode) *appmesh.GatewayRouteData {
	return &appmesh.GatewayRouteData{
		MeshName: r.Mesh.Mesh, VirtualGatewayName: r.ID.Parent, GatewayRouteName: r.ID.Name, Metadata: metadataOf(s, r), Spec: r.Spec,
		Status: &appmesh.GatewayRouteStatus{Status: status},
	}
}
