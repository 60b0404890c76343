package server

import (
	"context"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/store"
)

var virtualGateways = kind[appmesh.VirtualGatewaySpec]{
	kind: mesh.KindVirtualGateway, noun: "VirtualGateway", nameMember: "virtualGatewayName", quota: "virtual-gateways-per-mesh",
	rules: virtualGatewayRules,
	fill:  mesh.FilledGateway, certificates: gatewayCertificates, unused: gatewayUnused, warnings: (*Service).gatewayWarnings,
}

func gatewayUnused(tx *store.Tx, at location) error {
	empty, err := tx.Empty(at.mesh, mesh.KindGatewayRoute, at.id.Name)
	if err == nil && !empty {
		return appmesh.NewResourceInUseException("VirtualGateway with name %s has active GatewayRoutes, please delete GatewayRoutes before deleting the VirtualGateway", at.id.Name)
	}
	return err
}

// CreateVirtualGateway makes a virtual gateway.
func (s *Service) CreateVirtualGateway(ctx context.Context, in *appmesh.CreateVirtualGatewayInput) (*appmesh.CreateVirtualGatewayOutput, error) {
	r, err := create(ctx, s, &virtualGateways, request[appmesh.VirtualGatewaySpec]{
		mesh: in.MeshName, owner: in.MeshOwner, id: mesh.ID{Kind: mesh.KindVirtualGateway, Name: in.VirtualGatewayName},
		spec: in.Spec, tags: in.Tags, token: in.ClientToken,
	})
	if err != nil {
		return nil, err
	}
	return &appmesh.CreateVirtualGatewayOutput{VirtualGateway: s.virtualGateway(r, active)}, nil
}

// DescribeVirtualGateway reads a virtual gateway.
func (s *Service) DescribeVirtualGateway(ctx context.Context, in *appmesh.DescribeVirtualGatewayInput) (*appmesh.DescribeVirtualGatewayOutput, error) {
	r, err := describe(ctx, s, &virtualGateways, locator{in.MeshName, in.MeshOwner, mesh.ID{Kind: mesh.KindVirtualGateway, Name: in.VirtualGatewayName}})
	if err != nil {
		return nil, err
	}
	return &appmesh.DescribeVirtualGatewayOutput{VirtualGateway: s.virtualGateway(r, active)}, nil
}

// UpdateVirtualGateway replaces the spec of a virtual gateway.
func (s *Service) UpdateVirtualGateway(ctx context.Context, in *appmesh.UpdateVirtualGatewayInput) (*appmesh.UpdateVirtualGatewayOutput, error) {
	r, err := update(ctx, s, &virtualGateways, request[appmesh.VirtualGatewaySpec]{
		mesh: in.MeshName, owner: in.MeshOwner, id: mesh.ID{Kind: mesh.KindVirtualGateway, Name: in.VirtualGatewayName},
		spec: in.Spec, token: in.ClientToken,
	})
	if err != nil {
		return nil, err
	}
	return &appmesh.UpdateVirtualGatewayOutput{VirtualGateway: s.virtualGateway(r, active)}, nil
}

// DeleteVirtualGateway deletes a virtual gateway.
func (s *Service) DeleteVirtualGateway(ctx context.Context, in *appmesh.DeleteVirtualGatewayInput) (*appmesh.DeleteVirtualGatewayOutput, error) {
	r, err := remove(ctx, s, &virtualGateways, locator{in.MeshName, in.MeshOwner, mesh.ID{Kind: mesh.KindVirtualGateway, Name: in.VirtualGatewayName}})
	if err != nil {
		return nil, err
	}
	return &appmesh.DeleteVirtualGatewayOutput{VirtualGateway: s.virtualGateway(r, deleted)}, nil
}

// ListVirtualGateways lists by name.
func (s *Service) ListVirtualGateways(ctx context.Context, in *appmesh.ListVirtualGatewaysInput) (*appmesh.ListVirtualGatewaysOutput, error) {
	of := locator{in.MeshName, in.MeshOwner, mesh.ID{Kind: mesh.KindVirtualGateway}}
	records, next, err := list(ctx, s, &virtualGateways, of, page{limit: in.Limit, token: in.NextToken})
	if err != nil {
		return nil, err
	}
	out := &appmesh.ListVirtualGatewaysOutput{VirtualGateways: []appmesh.VirtualGatewayRef{}, NextToken: next}
	for _, r := range records {
		m := metadataOf(s, r)
		out.VirtualGateways = append(out.VirtualGateways, appmesh.VirtualGatewayRef{
			MeshName: r.Mesh.Mesh, VirtualGatewayName: r.ID.Name, ARN: m.ARN, Version: m.Version,
			CreatedAt: m.CreatedAt, LastUpdatedAt: m.LastUpdatedAt, MeshOwner: m.MeshOwner, ResourceOwner: m.ResourceOwner,
		})
	}
	return out, nil
}

func (s *Service) virtualGateway(r *mesh.Record[appmesh.VirtualGatewaySpec], status appmesh.VirtualGatewayStatusCode) *appmesh.VirtualGatewayData {
	return &appmesh.VirtualGatewayData{
		MeshName: r.Mesh.Mesh, VirtualGatewayName: r.ID.Name, Metadata: metadataOf(s, r), Spec: r.Spec,
		Status: &appmesh.VirtualGatewayStatus{Status: status},
	}
}
