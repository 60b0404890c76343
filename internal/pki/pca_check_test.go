package pki

import (
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead/fairlead/api/acmpca"
)

// TestKeysAreTried: the check opens the key in the store, not the one that is
// remembered, and says so when no authority can sign; it heals.
func TestKeysAreTried(t *testing.T) {
	servers, raw := newReplicas(t, 1)
	c := servers[0]
	want := func(what, reason string) {
		t.Helper()
		err := c.KeysUsable()
		if reason == "" && err != nil || reason != "" && (err == nil || !strings.Contains(err.Error(), reason)) {
			t.Errorf("%s: %v, want %q", what, err, reason)
		}
	}
	want("before the first check", "were not tried yet")
	c.CheckKeys(c.ctx)
	want("no authority", "")
	one := c.root(100)
	c.CheckKeys(c.ctx)
	want("one authority", "")

	at := sealedAt(t, raw, one)
	kept, err := raw.Get(t.Context(), at)
	c.must(err)
	sealed := string(kept.Kvs[0].Value)
	_, err = raw.Put(t.Context(), at, sealed[:len(sealed)-1]+string(sealed[len(sealed)-1]^1))
	c.must(err)
	c.CheckKeys(c.ctx)
	want("its key was changed by somebody", "no certificate authority can sign: the keys of 1 were tried")
	if !strings.Contains(c.logs.String(), "open key of authority") {
		t.Errorf("the log does not say why: %s", c.logs)
	}

	c.root(100)
	c.CheckKeys(c.ctx)
	want("another authority can sign", "")

	_, err = raw.Put(t.Context(), at, sealed)
	c.must(err)
	c.CheckKeys(c.ctx)
	want("healed", "")
}

// TestDisabledAuthoritiesAreNotTried: one that may not sign says nothing of keys.
func TestDisabledAuthoritiesAreNotTried(t *testing.T) {
	servers, raw := newReplicas(t, 1)
	c := servers[0]
	root := c.root(100)
	_, err := raw.Put(t.Context(), sealedAt(t, raw, root), "nonsense")
	c.must(err)
	c.CheckKeys(c.ctx)
	if c.KeysUsable() == nil {
		t.Error("a key that is nonsense can be used")
	}
	c.must(c.UpdateCertificateAuthority(c.ctx, &acmpca.UpdateCertificateAuthorityRequest{CertificateAuthorityArn: root, Status: ptr(disabled)}))
	c.CheckKeys(c.ctx)
	if err := c.KeysUsable(); err != nil {
		t.Errorf("after the only authority was disabled: %v", err)
	}
}

// sealedAt is the key in etcd of an authority's secret.
func sealedAt(t *testing.T, raw *clientv3.Client, arn string) string {
	t.Helper()
	all, err := raw.Get(t.Context(), "", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range all.Kvs {
		if key := string(kv.Key); strings.Contains(key, "secret") && strings.HasSuffix(key, idOf(arn)) {
			return key
		}
	}
	t.Fatalf("no secret of %s is in etcd", arn)
	return ""
}
