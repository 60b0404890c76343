package server

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/store"
)

// TestCertificatesInUse: every mesh endpoint whose listener names a certificate
// uses it, once, whatever mesh it is in. The specs are stored directly: the API
// takes no such ARN yet.
func TestCertificatesInUse(t *testing.T) {
	h := newHarness(t)
	const one, two = "arn:aws:acm:eu-west-1:123456789012:certificate/one", "arn:aws:acm:eu-west-1:123456789012:certificate/two"
	node := func(arns ...string) *appmesh.VirtualNodeSpec {
		spec := &appmesh.VirtualNodeSpec{}
		for _, arn := range arns {
			spec.Listeners = append(spec.Listeners, appmesh.Listener{
				PortMapping: &appmesh.PortMapping{Port: 8080, Protocol: "http"},
				TLS:         &appmesh.ListenerTls{Mode: "STRICT", Certificate: &appmesh.ListenerTlsCertificate{ACM: &appmesh.ListenerTlsAcmCertificate{CertificateArn: arn}}},
			})
		}
		return spec
	}
	gateway := &appmesh.VirtualGatewaySpec{Listeners: []appmesh.VirtualGatewayListener{{
		PortMapping: &appmesh.VirtualGatewayPortMapping{Port: 8080, Protocol: "http"},
		TLS:         &appmesh.VirtualGatewayListenerTls{Mode: "STRICT", Certificate: &appmesh.VirtualGatewayListenerTlsCertificate{ACM: &appmesh.VirtualGatewayListenerTlsAcmCertificate{CertificateArn: one}}},
	}}}
	for _, name := range []string{"apps", "shop"} {
		put(t, h.store, name, mesh.ID{Kind: mesh.KindMesh, Name: name}, &appmesh.MeshSpec{})
	}
	put(t, h.store, "apps", mesh.ID{Kind: mesh.KindVirtualNode, Name: "web"}, node(one, one))
	put(t, h.store, "apps", mesh.ID{Kind: mesh.KindVirtualNode, Name: "plain"}, node())
	put(t, h.store, "shop", mesh.ID{Kind: mesh.KindVirtualNode, Name: "cart"}, node(two, one))
	put(t, h.store, "shop", mesh.ID{Kind: mesh.KindVirtualGateway, Name: "front"}, gateway)
	const arn = "arn:aws:appmesh:eu-west-1:123456789012:mesh/"
	want := map[string][]string{
		one: {arn + "apps/virtualNode/web", arn + "shop/virtualGateway/front", arn + "shop/virtualNode/cart"},
		two: {arn + "shop/virtualNode/cart"},
	}
	if diff := cmp.Diff(want, h.service.CertificatesInUse()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// put stores a new record, and waits until the cache has it.
func put[S any](t *testing.T, s *store.Store, name string, id mesh.ID, spec *S) {
	t.Helper()
	at := mesh.Name{Owner: testAccount, Mesh: name}
	now := time.Now()
	revision, err := s.Write(t.Context(), func(tx *store.Tx) error {
		if _, err := store.Get[S](tx, at, id); !errors.Is(err, store.ErrNotFound) {
			return err
		}
		return store.Put(tx, &mesh.Record[S]{Mesh: at, ID: id, UID: name + id.Name, Version: 1, CreatedAt: now, UpdatedAt: now, ResourceOwner: testAccount, Spec: spec})
	})
	if err == nil {
		err = s.WaitFor(t.Context(), revision)
	}
	if err != nil {
		t.Fatal(err)
	}
}
