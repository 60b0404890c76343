package pki

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/store"
)

// newReplicas are Private CAs on one etcd, each with a store of its own, and a
// client that sees what lies in etcd.
func newReplicas(t *testing.T, n int) ([]*caTest, *clientv3.Client) {
	t.Helper()
	// The path of a socket has at most 108 bytes, which t.TempDir may exceed.
	dir, err := os.MkdirTemp("", "etcd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := embed.NewConfig()
	c.Dir = filepath.Join(dir, "data")
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:1"}
	c.AdvertisePeerUrls, c.ListenPeerUrls, c.InitialCluster = []url.URL{peer}, nil, c.Name+"="+peer.String()
	listen := url.URL{Scheme: "unix", Path: filepath.Join(dir, "s")}
	c.AdvertiseClientUrls, c.ListenClientUrls = []url.URL{listen}, []url.URL{listen}
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	c.TickMs, c.ElectionMs, c.UnsafeNoFsync = 20, 100, true
	etcd, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		etcd.Server.HardStop() // Close alone waits for watches to end
		etcd.Close()
	})
	<-etcd.Server.ReadyNotify()
	raw, err := clientv3.New(clientv3.Config{Endpoints: []string{listen.String()}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	kek := filepath.Join(t.TempDir(), "kek")
	if err := os.WriteFile(kek, []byte(strings.Repeat("0f", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	now := &clock{now: time.Now().Truncate(time.Second)}
	var all []*caTest
	for range n {
		all = append(all, newCATestOn(t, store.Config{DataDir: t.TempDir(), Endpoints: []string{listen.String()}, KEKFile: kek}, now))
	}
	return all, raw
}

// TestServersShareAuthorities: on two servers of one etcd no serial is issued
// twice, every certificate is in the ledger, and a change on one counts at once
// on the other, whatever that remembers.
func TestServersShareAuthorities(t *testing.T) {
	servers, _ := newReplicas(t, 2)
	a, b := servers[0], servers[1]
	root := a.root(100, publishing)
	csr := leafCSR(t, "a.example.com")
	in := &acmpca.IssueCertificateRequest{CertificateAuthorityArn: root, Csr: csr, SigningAlgorithm: "SHA256WITHECDSA", Validity: &acmpca.Validity{Type: "DAYS", Value: 5}}
	var mu sync.Mutex
	seen := map[string]bool{}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 25 {
				out, err := servers[i%2].IssueCertificate(a.ctx, in)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := servers[(i+1)%2].GetCertificate(a.ctx, &acmpca.GetCertificateRequest{CertificateAuthorityArn: root, CertificateArn: *out.CertificateArn}); err != nil {
					t.Errorf("the other server does not have %s: %v", *out.CertificateArn, err)
				}
				mu.Lock()
				if seen[*out.CertificateArn] {
					t.Errorf("%s was issued twice", *out.CertificateArn)
				}
				seen[*out.CertificateArn] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if n := b.ledger(root); n != len(seen)+1 {
		t.Errorf("%d certificates are in the ledger, %d were answered", n, len(seen)+1)
	}
	for round := range 3 {
		s, other := &subject{caTest: servers[round%2], arn: root}, servers[(round+1)%2]
		s.must(s.update(disabled))
		_, err := other.IssueCertificate(other.ctx, in)
		other.refused(err, "InvalidStateException", "is not in a valid state for issuing certificates")
		s.must(s.update(active))
		if _, err := other.IssueCertificate(other.ctx, in); err != nil {
			t.Error(err)
		}
	}
	// One of two who revoke the same certificate is told that it is.
	var codes [2]string
	serial := idOf(a.issue(root, csr, "", 5))
	for i, s := range servers {
		wg.Go(func() { codes[i] = exception(s.revoke(root, serial, "SUPERSEDED")) })
	}
	wg.Wait()
	if codes[0]+codes[1] != "RequestAlreadyProcessedException" {
		t.Errorf("two revocations of one certificate: %q", codes)
	}
}

// TestKeysStaySecret: an authority's key is in no answer, log line, file or
// value of the store, in no encoding.
func TestKeysStaySecret(t *testing.T) {
	servers, raw := newReplicas(t, 1)
	c := servers[0]
	root := c.root(100, publishing)
	leaf := c.issue(root, leafCSR(t, "a.example.com"), "", 10)
	c.list(root)
	c.must(c.revoke(root, idOf(leaf), "SUPERSEDED"))
	in := &acmpca.CreateCertificateAuthorityAuditReportRequest{CertificateAuthorityArn: root, S3BucketName: "any", AuditReportResponseFormat: "JSON"}
	_, err := c.CreateCertificateAuthorityAuditReport(c.ctx, in)
	c.must(err)
	c.must(c.makeReports(c.ctx))
	secret := c.secretOf(root)
	key, err := ca.ParsePrivateKey(secret)
	c.must(err)
	scalar := keyScalar(t, key)

	everything := map[string][]byte{"the log": c.logs.Bytes()}
	all, err := raw.Get(t.Context(), "", clientv3.WithPrefix())
	c.must(err)
	for _, kv := range all.Kvs {
		everything["etcd: "+string(kv.Key)] = kv.Value
	}
	c.must(filepath.WalkDir(c.Folder, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		everything[path] = text
		return err
	}))
	if len(everything) < 10 {
		t.Fatalf("only %d places were looked at", len(everything))
	}
	for where, text := range everything {
		for _, needle := range [][]byte{secret, scalar} {
			for _, form := range []string{string(needle), hex.EncodeToString(needle), base64.StdEncoding.EncodeToString(needle)[:40]} {
				if bytes.Contains(bytes.ToLower(text), []byte(strings.ToLower(form))) {
					t.Errorf("the key is in %s", where)
				}
			}
		}
	}
}

// TestSwappedKeysAreFound: whoever may write to etcd cannot make one authority
// sign with another's key.
func TestSwappedKeysAreFound(t *testing.T) {
	servers, raw := newReplicas(t, 2)
	c, fresh := servers[0], servers[1]
	one, two := c.root(100), c.root(100)
	stolen, err := raw.Get(t.Context(), sealedAt(t, raw, one))
	c.must(err)
	_, err = raw.Put(t.Context(), sealedAt(t, raw, two), string(stolen.Kvs[0].Value))
	c.must(err)
	_, err = fresh.IssueCertificate(fresh.ctx, &acmpca.IssueCertificateRequest{
		CertificateAuthorityArn: two, Csr: leafCSR(t, "a.example.com"), SigningAlgorithm: "SHA256WITHECDSA", Validity: &acmpca.Validity{Type: "DAYS", Value: 5},
	})
	if err == nil || exception(err) != "not an exception: "+err.Error() || !strings.Contains(err.Error(), "open key of authority") {
		t.Errorf("got %v, want an internal error about the key", err)
	}
	fresh.issue(one, leafCSR(t, "a.example.com"), "", 5)
}

// secretOf is the authority's key as it is sealed in the store.
func (c *caTest) secretOf(arn string) (secret []byte) {
	c.t.Helper()
	at, err := c.parseARN(c.ctx, "", arn)
	c.must(err)
	_, err = c.Store.Read(context.WithoutCancel(c.ctx), func(tx *store.Tx) error {
		secret, err = tx.Secret(at)
		return err
	})
	c.must(err)
	return secret
}

// keyScalar is the secret number of a P-256 key.
func keyScalar(t *testing.T, key ca.PrivateKey) []byte {
	t.Helper()
	private, ok := key.Signer().(*ecdsa.PrivateKey)
	if !ok {
		t.Fatalf("the key is a %T", key.Signer())
	}
	scalar, err := private.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return scalar
}
