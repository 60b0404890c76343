package server

import (
	"context"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/store"
)

var meshes = kind[appmesh.MeshSpec]{
	kind: mesh.KindMesh, noun: "Mesh", nameMember: "meshName", quota: "meshes",
	rules: meshRules, unused: meshUnused,
}

// meshUnused refuses to delete a mesh that has something in it. Routes need
// not be looked for: they imply their parents.
func meshUnused(tx *store.Tx, at location) error {
	for _, held := range []struct {
		kind  mesh.Kind
		nouns string
	}{
		{mesh.KindVirtualNode, "VirtualNodes"},
		{mesh.KindVirtualService, "VirtualServices"},
		{mesh.KindVirtualRouter, "VirtualRouters"},
		{mesh.KindVirtualGateway, "VirtualGateways"},
	} {
		empty, err := tx.Empty(at.mesh, held.kind, "")
		if err != nil {
			return err
		}
		if !empty {
			return appmesh.NewResourceInUseException("Mesh %s for account %s has active %s, please delete %[3]s before deleting the Mesh", at.mesh.Mesh, at.mesh.Owner, held.nouns)
		}
	}
	return nil
}

// meshSpec: a mesh without a spec has an empty one.
func meshSpec(spec *appmesh.MeshSpec) *appmesh.MeshSpec {
	if spec == nil {
		return &appmesh.MeshSpec{}
	}
	return spec
}

// CreateMesh makes a mesh.
func (s *Service) CreateMesh(ctx context.Context, in *appmesh.CreateMeshInput) (*appmesh.CreateMeshOutput, error) {
	r, err := create(ctx, s, &meshes, request[appmesh.MeshSpec]{
		mesh: in.MeshName, id: mesh.ID{Kind: mesh.KindMesh, Name: in.MeshName},
		spec: meshSpec(in.Spec), tags: in.Tags, token: in.ClientToken,
	})
	if err != nil {
		return nil, err
	}
	return &appmesh.CreateMeshOutput{Mesh: s.mesh(r, active)}, nil
}

// DescribeMesh reads a mesh.
func (s *Service) DescribeMesh(ctx context.Context, in *appmesh.DescribeMeshInput) (*appmesh.DescribeMeshOutput, error) {
	r, err := describe(ctx, s, &meshes, locator{in.MeshName, in.MeshOwner, mesh.ID{Kind: mesh.KindMesh, Name: in.MeshName}})
	if err != nil {
		return nil, err
	}
	return &appmesh.DescribeMeshOutput{Mesh: s.mesh(r, active)}, nil
}

// UpdateMesh replaces the spec of a mesh.
func (s *Service) UpdateMesh(ctx context.Context, in *appmesh.UpdateMeshInput) (*appmesh.UpdateMeshOutput, error) {
	r, err := update(ctx, s, &meshes, request[appmesh.MeshSpec]{
		mesh: in.MeshName, id: mesh.ID{Kind: mesh.KindMesh, Name: in.MeshName},
		spec: meshSpec(in.Spec), token: in.ClientToken,
	})
	if err != nil {
		return nil, err
	}
	return &appmesh.UpdateMeshOutput{Mesh: s.mesh(r, active)}, nil
}

// DeleteMesh deletes a mesh.
func (s *Service) DeleteMesh(ctx context.Context, in *appmesh.DeleteMeshInput) (*appmesh.DeleteMeshOutput, error) {
	r, err := remove(ctx, s, &meshes, locator{mesh: in.MeshName, id: mesh.ID{Kind: mesh.KindMesh, Name: in.MeshName}})
	if err != nil {
		return nil, err
	}
	return &appmesh.DeleteMeshOutput{Mesh: s.mesh(r, deleted)}, nil
}

// ListMeshes lists by name.
func (s *Service) ListMeshes(ctx context.Context, in *appmesh.ListMeshesInput) (*appmesh.ListMeshesOutput, error) {
	of := locator{id: mesh.ID{Kind: mesh.KindMesh}}
	records, next, err := list(ctx, s, &meshes, of, page{limit: in.Limit, token: in.NextToken})
	if err != nil {
		return nil, err
	}
	out := &appmesh.ListMeshesOutput{Meshes: []appmesh.MeshRef{}, NextToken: next}
	for _, r := range records {
		m := metadataOf(s, r)
		out.Meshes = append(out.Meshes, appmesh.MeshRef{
			MeshName: r.Mesh.Mesh, ARN: m.ARN, Version: m.Version,
			CreatedAt: m.CreatedAt, LastUpdatedAt: m.LastUpdatedAt, MeshOwner: m.MeshOwner, ResourceOwner: m.ResourceOwner,
		})
	}
	return out, nil
}

func (s *Service) mesh(r *mesh.Record[appmesh.MeshSpec], status appmesh.MeshStatusCode) *appmesh.MeshData {
	return &appmesh.MeshData{
		MeshName: r.Mesh.Mesh, Metadata: metadataOf(s, r), Spec: r.Spec,
		Status: &appmesh.MeshStatus{Status: &status},
	}
}
