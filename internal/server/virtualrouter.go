package server

import (
	"context"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/store"
)

var virtualRouters = kind[appmesh.VirtualRouterSpec]{
	kind: mesh.KindVirtualRouter, noun: "VirtualRouter", nameMember: "virtualRouterName", quota: "virtual-routers-per-mesh",
	rules: virtualRouterRules,
	references: []reference[appmesh.VirtualRouterSpec]{
		{"router-ports", "B.12 10", "with several listeners, all routes of a virtual router match a port", routerPorts},
		{"router-routes", "B.12 9, B.5", "the routes of a virtual router fit its listeners: a port that a route matches stays, of the route's kind", routerRoutes},
	},
	unused: routerUnused,
}

// routerPorts refuses a second listener while routes match no port.
func routerPorts(tx *store.Tx, at location, spec *appmesh.VirtualRouterSpec, _ *faults) error {
	if len(spec.Listeners) < 2 {
		return nil
	}
	all, err := store.List[appmesh.RouteSpec](tx, at.mesh, mesh.KindRoute, at.id.Name)
	if err != nil {
		return err
	}
	var without []string
	for _, r := range all {
		if _, _, port := routeProtocol(r.Spec); port == nil {
			without = append(without, r.ID.Name)
		}
	}
	if len(without) == 0 {
		return nil
	}
	slices.Sort(without)
	return appmesh.NewBadRequestException("All Routes for this Virtual Router must define a port match before adding multiple listeners to this Virtual Router. %d Route(s) are missing port. Listing up to 5 route names: [%s]",
		len(without), strings.Join(without[:min(5, len(without))], ", "))
}

// routerRoutes refuses listeners that the router's routes do not fit. Without
// listeners a router takes its targets' ports: then only those ports may go
// that no route matches.
func routerRoutes(tx *store.Tx, at location, spec *appmesh.VirtualRouterSpec, f *faults) error {
	all, err := store.List[appmesh.RouteSpec](tx, at.mesh, mesh.KindRoute, at.id.Name)
	if err != nil || len(all) == 0 {
		return err
	}
	before, err := store.Get[appmesh.VirtualRouterSpec](tx, at.mesh, at.id)
	if err != nil {
		return err
	}
	had := map[int64]bool{}
	for _, l := range routerListeners(before.Spec) {
		had[l.port] = true
	}
	for _, r := range all {
		protocol, _, port := routeProtocol(r.Spec)
		if len(spec.Listeners) > 0 || port != nil && had[*port] {
			routerListener(f, "spec.listeners", spec, protocol, port, "route "+r.ID.Name)
		}
	}
	return nil
}

// routerListener checks that a route of a protocol finds the router's listener:
// that of its port, or the only one.
func routerListener(f *faults, path string, spec *appmesh.VirtualRouterSpec, protocol appmesh.PortProtocol, port *int64, who string) {
	for _, l := range routerListeners(spec) {
		if port != nil && l.port != *port {
			continue
		}
		if l.protocol != string(protocol) {
			f.add(path, "%s is of kind %s, but the router's listener on port %d is %s", who, protocol, l.port, l.protocol)
		}
		return
	}
	if port != nil {
		f.add(path, "%s matches port %d, which is no listener of the router", who, *port)
	}
}

func routerUnused(tx *store.Tx, at location) error {
	empty, err := tx.Empty(at.mesh, mesh.KindRoute, at.id.Name)
	if err != nil {
		return err
	}
	if !empty {
		return appmesh.NewResourceInUseException("VirtualRouter with name %s has active Routes, please delete Routes before deleting the VirtualRouter", at.id.Name)
	}
	services, err := store.List[appmesh.VirtualServiceSpec](tx, at.mesh, mesh.KindVirtualService, "")
	if err != nil {
		return err
	}
	for _, s := range services {
		if p := s.Spec.Provider; p != nil && p.VirtualRouter != nil && p.VirtualRouter.VirtualRouterName == at.id.Name {
			return appmesh.NewResourceInUseException("VirtualRouter with name %s cannot be deleted because it is a VirtualService provider", at.id.Name)
		}
	}
	return nil
}

// CreateVirtualRouter makes a virtual router.
func (s *Service) CreateVirtualRouter(ctx context.Context, in *appmesh.CreateVirtualRouterInput) (*appmesh.CreateVirtualRouterOutput, error) {
	r, err := create(ctx, s, &virtualRouters, request[appmesh.VirtualRouterSpec]{
		mesh: in.MeshName, owner: in.MeshOwner, id: mesh.ID{Kind: mesh.KindVirtualRouter, Name: in.VirtualRouterName},
		spec: in.Spec, tags: in.Tags, token: in.ClientToken,
	})
	if err != nil {
		return nil, err
	}
	return &appmesh.CreateVirtualRouterOutput{VirtualRouter: s.virtualRouter(r, active)}, nil
}

// DescribeVirtualRouter reads a virtual router.
func (s *Service) DescribeVirtualRouter(ctx context.Context, in *appmesh.DescribeVirtualRouterInput) (*appmesh.DescribeVirtualRouterOutput, error) {
	r, err := describe(ctx, s, &virtualRouters, locator{in.MeshName, in.MeshOwner, mesh.ID{Kind: mesh.KindVirtualRouter, Name: in.VirtualRouterName}})
	if err != nil {
		return nil, err
	}
	return &appmesh.DescribeVirtualRouterOutput{VirtualRouter: s.virtualRouter(r, active)}, nil
}

// UpdateVirtualRouter replaces the spec of a virtual router.
func (s *Service) UpdateVirtualRouter(ctx context.Context, in *appmesh.UpdateVirtualRouterInput) (*appmesh.UpdateVirtualRouterOutput, error) {
	r, err := update(ctx, s, &virtualRouters, request[appmesh.VirtualRouterSpec]{
		mesh: in.MeshName, owner: in.MeshOwner, id: mesh.ID{Kind: mesh.KindVirtualRouter, Name: in.VirtualRouterName},
		spec: in.Spec, token: in.ClientToken,
	})
	if err != nil {
		return nil, err
	}
	return &appmesh.UpdateVirtualRouterOutput{VirtualRouter: s.virtualRouter(r, active)}, nil
}

// DeleteVirtualRouter deletes a virtual router.
func (s *Service) DeleteVirtualRouter(ctx context.Context, in *appmesh.DeleteVirtualRouterInput) (*appmesh.DeleteVirtualRouterOutput, error) {
	r, err := remove(ctx, s, &virtualRouters, locator{in.MeshName, in.MeshOwner, mesh.ID{Kind: mesh.KindVirtualRouter, Name: in.VirtualRouterName}})
	if err != nil {
		return nil, err
	}
	return &appmesh.DeleteVirtualRouterOutput{VirtualRouter: s.virtualRouter(r, deleted)}, nil
}

// ListVirtualRouters lists by name.
func (s *Service) ListVirtualRouters(ctx context.Context, in *appmesh.ListVirtualRoutersInput) (*appmesh.ListVirtualRoutersOutput, error) {
	of := locator{in.MeshName, in.MeshOwner, mesh.ID{Kind: mesh.KindVirtualRouter}}
	records, next, err := list(ctx, s, &virtualRouters, of, page{limit: in.Limit, token: in.NextToken})
	if err != nil {
		return nil, err
	}
	out := &appmesh.ListVirtualRoutersOutput{VirtualRouters: []appmesh.VirtualRouterRef{}, NextToken: next}
	for _, r := range records {
		m := metadataOf(s, r)
		out.VirtualRouters = append(out.VirtualRouters, appmesh.VirtualRouterRef{
			MeshName: r.Mesh.Mesh, VirtualRouterName: r.ID.Name, ARN: m.ARN, Version: m.Version,
			CreatedAt: m.CreatedAt, LastUpdatedAt: m.LastUpdatedAt, MeshOwner: m.MeshOwner, ResourceOwner: m.ResourceOwner,
		})
	}
	return out, nil
}

func (s *Service) virtualRouter(r *mesh.Record[appmesh.VirtualRouterSpec], status appmesh.VirtualRouterStatusCode) *appmesh.VirtualRouterData {
	return &appmesh.VirtualRouterData{
		MeshName: r.Mesh.Mesh, VirtualRouterName: r.ID.Name, Metadata: metadataOf(s, r), Spec: r.Spec,
		Status: &appmesh.VirtualRouterStatus{Status: status},
	}
}
