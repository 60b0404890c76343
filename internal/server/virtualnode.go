package server

import (
	"context"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/store"
)

var virtualNodes = kind[appmesh.VirtualNodeSpec]{
	kind: mesh.KindVirtualNode, noun: "VirtualNode", nameMember: "virtualNodeName", quota: "virtual-nodes-per-mesh",
	rules: virtualNodeRules,
	fill:  mesh.FilledNode, within: backendsWithin, certificates: nodeCertificates, unused: nodeUnused, warnings: (*Service).nodeWarnings,
}

// nodeUnused refuses to delete a node that a service or a route leads to.
func nodeUnused(tx *store.Tx, at location) error {
	services, err := store.List[appmesh.VirtualServiceSpec](tx, at.mesh, mesh.KindVirtualService, "")
	if err != nil {
		return err
	}
	for _, s := range services {
		if p := s.Spec.Provider; p != nil && p.VirtualNode != nil && p.VirtualNode.VirtualNodeName == at.id.Name {
			return appmesh.NewResourceInUseException("VirtualNode with name %s cannot be deleted because it is a VirtualService provider", at.id.Name)
		}
	}
	all, err := store.List[appmesh.RouteSpec](tx, at.mesh, mesh.KindRoute, "")
	if err != nil {
		return err
	}
	for _, r := range all {
		_, targets := weightedTargets(r.Spec)
		for _, target := range targets {
			if target.VirtualNode == at.id.Name {
				return appmesh.NewResourceInUseException("VirtualNode with name %s cannot be deleted because it is the target of one or more routes.", at.id.Name)
			}
		}
	}
	return nil
}

// CreateVirtualNode makes a virtual node.
func (s *Service) CreateVirtualNode(ctx context.Context, in *appmesh.CreateVirtualNodeInput) (*appmesh.CreateVirtualNodeOutput, error) {
	r, err := create(ctx, s, &virtualNodes, request[appmesh.VirtualNodeSpec]{
		mesh: in.MeshName, owner: in.MeshOwner, id: mesh.ID{Kind: mesh.KindVirtualNode, Name: in.VirtualNodeName},
		spec: in.Spec, tags: in.Tags, token: in.ClientToken,
	})
	if err != nil {
		return nil, err
	}
	return &appmesh.CreateVirtualNodeOutput{VirtualNode: s.virtualNode(r, active)}, nil
}

// DescribeVirtualNode reads a virtual node.
func (s *Service) DescribeVirtualNode(ctx context.Context, in *appmesh.DescribeVirtualNodeInput) (*appmesh.DescribeVirtualNodeOutput, error) {
	r, err := describe(ctx, s, &virtualNodes, locator{in.MeshName, in.MeshOwner, mesh.ID{Kind: mesh.KindVirtualNode, Name: in.VirtualNodeName}})
	if err != nil {
		return nil, err
	}
	return &appmesh.DescribeVirtualNodeOutput{VirtualNode: s.virtualNode(r, active)}, nil
}

// UpdateVirtualNode replaces the spec of a virtual node.
func (s *Service) UpdateVirtualNode(ctx context.Context, in *appmesh.UpdateVirtualNodeInput) (*appmesh.UpdateVirtualNodeOutput, error) {
	r, err := update(ctx, s, &virtualNodes, request[appmesh.VirtualNodeSpec]{
		mesh: in.MeshName, owner: in.MeshOwner, id: mesh.ID{Kind: mesh.KindVirtualNode, Name: in.VirtualNodeName},
		spec: in.Spec, token: in.ClientToken,
	})
	if err != nil {
		return nil, err
	}
	return &appmesh.UpdateVirtualNodeOutput{VirtualNode: s.virtualNode(r, active)}, nil
}

// DeleteVirtualNode deletes a virtual node.
func (s *Service) DeleteVirtualNode(ctx context.Context, in *appmesh.DeleteVirtualNodeInput) (*appmesh.DeleteVirtualNodeOutput, error) {
	r, err := remove(ctx, s, &virtualNodes, locator{in.MeshName, in.MeshOwner, mesh.ID{Kind: mesh.KindVirtualNode, Name: in.VirtualNodeName}})
	if err != nil {
		return nil, err
	}
	return &appmesh.DeleteVirtualNodeOutput{VirtualNode: s.virtualNode(r, deleted)}, nil
}

// ListVirtualNodes lists by name.
func (s *Service) ListVirtualNodes(ctx context.Context, in *appmesh.ListVirtualNodesInput) (*appmesh.ListVirtualNodesOutput, error) {
	of := locator{in.MeshName, in.MeshOwner, mesh.ID{Kind: mesh.KindVirtualNode}}
	records, next, err := list(ctx, s, &virtualNodes, of, page{limit: in.Limit, token: in.NextToken})
	if err != nil {
		return nil, err
	}
	out := &appmesh.ListVirtualNodesOutput{VirtualNodes: []appmesh.VirtualNodeRef{}, NextToken: next}
	for _, r := range records {
		m := metadataOf(s, r)
		out.VirtualNodes = append(out.VirtualNodes, appmesh.VirtualNodeRef{
			MeshName: r.Mesh.Mesh, VirtualNodeName: r.ID.Name, ARN: m.ARN, Version: m.Version,
			CreatedAt: m.CreatedAt, LastUpdatedAt: m.LastUpdatedAt, MeshOwner: m.MeshOwner, ResourceOwner: m.ResourceOwner,
		})
	}
	return out, nil
}

func (s *Service) virtualNode(r *mesh.Record[appmesh.VirtualNodeSpec], status appmesh.VirtualNodeStatusCode) *appmesh.VirtualNodeData {
	return &appmesh.VirtualNodeData{
		MeshName: r.Mesh.Mesh, VirtualNodeName: r.ID.Name, Metadata: metadataOf(s, r), Spec: r.Spec,
		Status: &appmesh.VirtualNodeStatus{Status: status},
	}
}
