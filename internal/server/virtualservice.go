package server

import (
	"context"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/store"
)

var virtualServices = kind[appmesh.VirtualServiceSpec]{
	kind: mesh.KindVirtualService, noun: "VirtualService", nameMember: "virtualServiceName", quota: "virtual-services-per-mesh",
	rules: virtualServiceRules,
	references: []reference[appmesh.VirtualServiceSpec]{
		{"provider-exists", "A.5", "the provider of a virtual service exists", serviceProvider},
	},
	unused: serviceUnused,
}

// serviceProvider checks that the provider exists.
func serviceProvider(tx *store.Tx, at location, spec *appmesh.VirtualServiceSpec, _ *faults) error {
	switch p := spec.Provider; {
	case p == nil:
		return nil
	case p.VirtualNode != nil:
		return exists(tx, "VirtualNode", location{at.mesh, mesh.ID{Kind: mesh.KindVirtualNode, Name: p.VirtualNode.VirtualNodeName}})
	case p.VirtualRouter != nil:
		return exists(tx, "VirtualRouter", location{at.mesh, mesh.ID{Kind: mesh.KindVirtualRouter, Name: p.VirtualRouter.VirtualRouterName}})
	}
	return nil
}

// serviceUnused refuses to delete a service that a gateway route leads to;
// nodes may name services that do not exist as backends.
func serviceUnused(tx *store.Tx, at location) error {
	all, err := store.List[appmesh.GatewayRouteSpec](tx, at.mesh, mesh.KindGatewayRoute, "")
	if err != nil {
		return err
	}
	var users []string
	for _, r := range all {
		target, _, _ := gatewayTarget(r.Spec)
		if target != nil && target.VirtualService != nil && target.VirtualService.VirtualServiceName == at.id.Name {
			users = append(users, r.ID.Name)
		}
	}
	if len(users) == 0 {
		return nil
	}
	slices.Sort(users)
	return appmesh.NewResourceInUseException("VirtualService %s is being referenced in the following: GATEWAY_ROUTE: [%s]", at.id.Name, strings.Join(users, ", "))
}

// CreateVirtualService makes a virtual service.
func (s *Service) CreateVirtualService(ctx context.Context, in *appmesh.CreateVirtualServiceInput) (*appmesh.CreateVirtualServiceOutput, error) {
	r, err := create(ctx, s, &virtualServices, request[appmesh.VirtualServiceSpec]{
		mesh: in.MeshName, owner: in.MeshOwner, id: mesh.ID{Kind: mesh.KindVirtualService, Name: in.VirtualServiceName},
		spec: in.Spec, tags: in.Tags, token: in.ClientToken,
	})
	if err != nil {
		return nil, err
	}
	return &appmesh.CreateVirtualServiceOutput{VirtualService: s.virtualService(r, active)}, nil
}

// DescribeVirtualService reads a virtual service.
func (s *Service) DescribeVirtualService(ctx context.Context, in *appmesh.DescribeVirtualServiceInput) (*appmesh.DescribeVirtualServiceOutput, error) {
	r, err := describe(ctx, s, &virtualServices, locator{in.MeshName, in.MeshOwner, mesh.ID{Kind: mesh.KindVirtualService, Name: in.VirtualServiceName}})
	if err != nil {
		return nil, err
	}
	return &appmesh.DescribeVirtualServiceOutput{VirtualService: s.virtualService(r, active)}, nil
}

// UpdateVirtualService replaces the spec of a virtual service.
func (s *Service) UpdateVirtualService(ctx context.Context, in *appmesh.UpdateVirtualServiceInput) (*appmesh.UpdateVirtualServiceOutput, error) {
	r, err := update(ctx, s, &virtualServices, request[appmesh.VirtualServiceSpec]{
		mesh: in.MeshName, owner: in.MeshOwner, id: mesh.ID{Kind: mesh.KindVirtualService, Name: in.VirtualServiceName},
		spec: in.Spec, token: in.ClientToken,
	})
	if err != nil {
		return nil, err
	}
	return &appmesh.UpdateVirtualServiceOutput{VirtualService: s.virtualService(r, active)}, nil
}

// DeleteVirtualService deletes a virtual service.
func (s *Service) DeleteVirtualService(ctx context.Context, in *appmesh.DeleteVirtualServiceInput) (*appmesh.DeleteVirtualServiceOutput, error) {
	r, err := remove(ctx, s, &virtualServices, locator{in.MeshName, in.MeshOwner, mesh.ID{Kind: mesh.KindVirtualService, Name: in.VirtualServiceName}})
	if err != nil {
		return nil, err
	}
	return &appmesh.DeleteVirtualServiceOutput{VirtualService: s.virtualService(r, deleted)}, nil
}

// ListVirtualServices lists by name.
func (s *Service) ListVirtualServices(ctx context.Context, in *appmesh.ListVirtualServicesInput) (*appmesh.ListVirtualServicesOutput, error) {
	of := locator{in.MeshName, in.MeshOwner, mesh.ID{Kind: mesh.KindVirtualService}}
	records, next, err := list(ctx, s, &virtualServices, of, page{limit: in.Limit, token: in.NextToken})
	if err != nil {
		return nil, err
	}
	out := &appmesh.ListVirtualServicesOutput{VirtualServices: []appmesh.VirtualServiceRef{}, NextToken: next}
	for _, r := range records {
		m := metadataOf(s, r)
		out.VirtualServices = append(out.VirtualServices, appmesh.VirtualServiceRef{
			MeshName: r.Mesh.Mesh, VirtualServiceName: r.ID.Name, ARN: m.ARN, Version: m.Version,
			CreatedAt: m.CreatedAt, LastUpdatedAt: m.LastUpdatedAt, MeshOwner: m.MeshOwner, ResourceOwner: m.ResourceOwner,
		})
	}
	return out, nil
}

func (s *Service) virtualService(r *mesh.Record[appmesh.VirtualServiceSpec], status appmesh.VirtualServiceStatusCode) *appmesh.VirtualServiceData {
	return &appmesh.VirtualServiceData{
		MeshName: r.Mesh.Mesh, VirtualServiceName: r.ID.Name, Metadata: metadataOf(s, r), Spec: r.Spec,
		Status: &appmesh.VirtualServiceStatus{Status: status},
	}
}
