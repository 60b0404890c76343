package store

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
)

func certificateARN(name any) string { return fmt.Sprint("arn:aws:acm:x:1:certificate/", name) }
func authorityARN(name any) string {
	return fmt.Sprint("arn:aws:acm-pca:x:1:certificate-authority/", name)
}

// names is the spec of a node whose listeners name certificates.
func names(certificates ...string) nodeSpec {
	var spec nodeSpec
	for _, arn := range certificates {
		spec.Listeners = append(spec.Listeners, appmesh.Listener{TLS: &appmesh.ListenerTls{
			Certificate: &appmesh.ListenerTlsCertificate{ACM: &appmesh.ListenerTlsAcmCertificate{CertificateArn: arn}},
		}})
	}
	return spec
}

// trusts is the spec of a node whose policy names authorities.
func trusts(authorities ...string) nodeSpec {
	return nodeSpec{BackendDefaults: &appmesh.BackendDefaults{ClientPolicy: &appmesh.ClientPolicy{TLS: &appmesh.ClientPolicyTls{
		Validation: &appmesh.TlsValidationContext{Trust: &appmesh.TlsValidationContextTrust{ACM: &appmesh.TlsValidationContextAcmTrust{CertificateAuthorityArns: authorities}}},
	}}}}
}

// write stages what fn does in one transaction.
func write(t testing.TB, s *Store, fn func(tx *Tx) error) int64 {
	t.Helper()
	revision, err := s.Write(bounded(t), fn)
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

func putCertificate(t testing.TB, s *Store, c Certificate, key string) int64 {
	t.Helper()
	return write(t, s, func(tx *Tx) error {
		if key == "" {
			return PutCertificate(tx, &c, nil)
		}
		return PutCertificate(tx, &c, []byte(key))
	})
}

func putList(tx *Tx, arn string, l RevocationList) error {
	if _, err := GetRevocationList(tx, arn); err != nil && err != ErrNotFound {
		return err
	}
	return PutRevocationList(tx, arn, &l)
}

// A change of a certificate makes new views of the meshes that name it, and no
// others; what nobody names is not held.
func TestOnlyWhoNamesACertificateHearsOfIt(t *testing.T) {
	s := open(t, Config{})
	other := mesh.Name{Owner: account, Mesh: "other"}
	put(t, s, demo, meshID, meshSpec{})
	put(t, s, other, meshID, meshSpec{})
	for i := range 500 {
		putCertificate(t, s, Certificate{ARN: certificateARN(i), Status: "ISSUED", Chain: "chain"}, "key")
	}
	put(t, s, demo, nodeID("a"), names(certificateARN(7), certificateARN("none")))
	revision := put(t, s, other, nodeID("a"), names(certificateARN(8)))
	before := caughtUp(t, s, revision)
	if c := before.Certificates[certificateARN(7)]; len(before.Certificates) != 1 || c.Chain != "chain" || !strings.Contains(c.Key.Reveal(), "PRIVATE KEY") {
		t.Errorf("served are %v", before.Certificates)
	}
	others, _ := s.View(other)
	told := make(chan delivery, 100)
	watch(t, s, func(d delivery) { told <- d })
	for range 2 {
		next(t, told, func(delivery) bool { return true })
	}
	putCertificate(t, s, Certificate{ARN: certificateARN(9), Chain: "nobody's"}, "key")
	revision = putCertificate(t, s, Certificate{ARN: certificateARN(7), Status: "ISSUED", Chain: "renewed"}, "another")
	after := caughtUp(t, s, revision)
	if d := next(t, told, func(delivery) bool { return true }); d.name != demo || d.view != after || len(told) > 0 {
		t.Errorf("told %v, and %d more", d, len(told))
	}
	if after.Revision != revision || after.Certificates[certificateARN(7)].Chain != "renewed" || before.Certificates[certificateARN(7)].Chain != "chain" {
		t.Errorf("revision %d, want %d", after.Revision, revision)
	}
	if now, _ := s.View(other); now != others {
		t.Error("the other mesh has another view")
	}
	// One that comes to be after it was named.
	revision = putCertificate(t, s, Certificate{ARN: certificateARN("none"), Chain: "late"}, "key")
	if got := caughtUp(t, s, revision).Certificates[certificateARN("none")]; got == nil || got.Chain != "late" {
		t.Errorf("served as %v", got)
	}
	put(t, s, demo, nodeID("a"), nodeSpec{})
	revision = remove[nodeSpec](t, s, other, nodeID("a"))
	if view := caughtUp(t, s, revision); len(view.Certificates) != 0 {
		t.Errorf("served though nobody names them: %v", view.Certificates)
	}
	s.stop()
	s.tasks.Wait() // or its goroutine has them
	if held := len(s.cache.trust.certificates); held != 0 {
		t.Errorf("%d certificates are held that nobody names", held)
	}
}

// CRLs are those of a whole chain, or of a whole tree, or none.
func TestWholeSetsOfCRLs(t *testing.T) {
	s := open(t, Config{})
	root, one, two := authorityARN("root"), authorityARN("one"), authorityARN("two")
	leaf := Certificate{ARN: certificateARN("leaf"), Chain: "chain", Roots: "root", Issuers: []string{one, root}}
	put(t, s, demo, meshID, meshSpec{})
	put(t, s, demo, nodeID("a"), names(leaf.ARN))
	put(t, s, demo, nodeID("b"), trusts(root))
	putCertificate(t, s, leaf, "key")
	now := leaf.NotAfter.AddDate(2000, 0, 0)
	steps := []struct {
		name        string
		do          func(tx *Tx) error
		chain, tree string
	}{
		{"a root without a certificate", func(tx *Tx) error { return PutAuthority(tx, &Authority{ARN: root, Root: true}) }, "", "-"},
		{"a root without a list", func(tx *Tx) error {
			return PutAuthority(tx, &Authority{ARN: root, Root: true, Roots: "r", NotAfter: now})
		}, "", ""},
		{"with one", func(tx *Tx) error { return putList(tx, root, RevocationList{CRL: "R"}) }, "", "R"},
		{"a subordinate that is not signed", func(tx *Tx) error { return PutAuthority(tx, &Authority{ARN: one}) }, "", "R"},
		{"that is, without a list", func(tx *Tx) error {
			return PutAuthority(tx, &Authority{ARN: one, NotAfter: now, Parents: []string{root}})
		}, "", ""},
		{"with one", func(tx *Tx) error { return putList(tx, one, RevocationList{CRL: "1"}) }, "1R", "1R"},
		{"one below that", func(tx *Tx) error {
			if err := putList(tx, two, RevocationList{CRL: "2"}); err != nil {
				return err
			}
			return PutAuthority(tx, &Authority{ARN: two, NotAfter: now, Parents: []string{one}})
		}, "1R", "1R2"},
		{"one elsewhere below", func(tx *Tx) error {
			return putList(tx, two, RevocationList{CRL: "2", Others: map[string]time.Time{"x": now}})
		}, "1R", ""},
		{"that has ended", func(tx *Tx) error { return putList(tx, two, RevocationList{CRL: "2"}) }, "1R", "1R2"},
		{"a list that is too long", func(tx *Tx) error { return putList(tx, root, RevocationList{Missing: "too long"}) }, "", ""},
		{"and is not any more", func(tx *Tx) error { return putList(tx, root, RevocationList{CRL: "R"}) }, "1R", "1R2"},
		{"one that is gone", func(tx *Tx) error { return PutAuthority(tx, &Authority{ARN: two, Parents: []string{one}, Gone: true}) }, "1R", "1R"},
		{"a chain with somebody else's", func(tx *Tx) error {
			c := leaf
			c.NoCRLs = "somebody else's"
			return PutCertificate(tx, &c, nil)
		}, "", "1R"},
	}
	for _, step := range steps {
		revision := write(t, s, step.do)
		view := caughtUp(t, s, revision)
		chain, tree := view.Certificates[leaf.ARN].CRLs, "-"
		if a := view.Authorities[root]; a != nil {
			tree = a.CRLs
		}
		if chain != step.chain || tree != step.tree {
			t.Errorf("%s: the chain has %q, the tree %q; want %q, %q", step.name, chain, tree, step.chain, step.tree)
		}
	}
}

// After any sequence of changes the followed cache serves what a new one loads,
// at the same revision: or a proxy that goes from one server to another would be
// held.
func TestServedIsWhatAFreshCacheLoads(t *testing.T) {
	endpoint, _ := external(t, 0)
	config := Config{Endpoints: []string{endpoint}, KEKFile: kekFile(t, 7)}
	s := open(t, config)
	put(t, s, demo, meshID, meshSpec{})
	random := rand.New(rand.NewPCG(1, 2))
	some := func() int { return random.IntN(4) }
	var revision int64
	for range 1500 {
		c, a := certificateARN(some()), authorityARN(some())
		switch random.IntN(6) {
		case 0:
			spec := names(certificateARN(some()), c)
			spec.BackendDefaults = trusts(authorityARN(0), authorityARN(some())).BackendDefaults
			revision = put(t, s, demo, nodeID(fmt.Sprint(some())), spec)
		case 1:
			revision = put(t, s, demo, nodeID(fmt.Sprint(some())), nodeSpec{})
		case 2:
			revision = putCertificate(t, s, Certificate{ARN: c, Chain: fmt.Sprint(some()), Issuers: []string{a}}, fmt.Sprint(some()))
		case 3:
			revision = putCertificate(t, s, Certificate{ARN: c, Status: fmt.Sprint(some()), Chain: "status", Issuers: []string{a}}, "")
		case 4:
			n := some()
			revision = write(t, s, func(tx *Tx) error {
				return PutAuthority(tx, &Authority{ARN: authorityARN(n), Root: n == 0, Roots: "r", NotAfter: time.Now(), Parents: []string{authorityARN(n / 2)}})
			})
		case 5:
			list := RevocationList{CRL: fmt.Sprint(some())}
			revision = write(t, s, func(tx *Tx) error { return putList(tx, a, list) })
		}
		if random.IntN(50) == 0 {
			caughtUp(t, s, revision) // now and then it keeps up
		}
	}
	followed := caughtUp(t, s, revision)
	config.DataDir = ""
	loaded := caughtUp(t, open(t, config), revision)
	if diff := cmp.Diff(loaded, followed); diff != "" {
		t.Error(diff)
	}
	if len(loaded.Certificates) == 0 || len(loaded.Authorities) == 0 {
		t.Errorf("nothing is served: %v, %v", loaded.Certificates, loaded.Authorities)
	}
}

// buffer may be written by many.
type buffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// A key that was moved to another certificate is not taken: the last good one
// stays, and a server that never had it serves none. All else is served.
func TestSwappedKeys(t *testing.T) {
	endpoint, _ := external(t, 0)
	log := &buffer{}
	config := Config{Endpoints: []string{endpoint}, KEKFile: kekFile(t, 7), Log: slog.New(slog.NewTextHandler(log, nil))}
	s := open(t, config)
	one, two := certificateARN(1), certificateARN(2)
	put(t, s, demo, meshID, meshSpec{})
	put(t, s, demo, nodeID("a"), names(one, two))
	putCertificate(t, s, Certificate{ARN: one, Chain: "1"}, "key one")
	before := caughtUp(t, s, putCertificate(t, s, Certificate{ARN: two, Chain: "2"}, "key two"))
	place := func(arn string) string {
		path, err := Place{kindServedCertificate, arn}.path()
		if err != nil {
			t.Fatal(err)
		}
		return dirSecret + path
	}
	stolen, err := s.client.Get(bounded(t), place(two))
	if err != nil {
		t.Fatal(err)
	}
	moved, err := s.client.Put(bounded(t), place(one), string(stolen.Kvs[0].Value), clientv3.WithPrevKV())
	if err != nil {
		t.Fatal(err)
	}
	after := caughtUp(t, s, moved.Header.Revision)
	if after.Certificates[one] != before.Certificates[one] || after.Certificates[two] != before.Certificates[two] {
		t.Error("the last good one does not stay")
	}
	config.DataDir = ""
	fresh := caughtUp(t, open(t, config), moved.Header.Revision)
	if fresh.Certificates[one] != nil || fresh.Certificates[two] == nil {
		t.Errorf("served are %v", fresh.Certificates)
	}
	if !strings.Contains(log.String(), "a certificate in the store cannot be read") || strings.Contains(log.String(), "key two") {
		t.Errorf("logged is\n%s", log)
	}
}
