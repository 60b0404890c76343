package pki

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/store"
)

// rotateRig is a root with a subordinate, a certificate of ACM under each, and one
// proxy that presents both and trusts the root.
type rotateRig struct {
	*acmRig
	rotator       *Rotator
	root, sub     string
	byRoot, bySub string // certificates of ACM
	oldRoot       *x509.Certificate
	sightings     *store.Sightings
	proxy         mesh.Sighting
}

func newRotateRig(t *testing.T) *rotateRig {
	t.Helper()
	return newRotateRigOn(t, newACMRig(t))
}

func newRotateRigOn(t *testing.T, rig *acmRig) *rotateRig {
	t.Helper()
	r := &rotateRig{acmRig: rig}
	c := r.ca
	r.root = c.root(3650, func(in *acmpca.CreateCertificateAuthorityRequest) {
		in.RevocationConfiguration = &acmpca.RevocationConfiguration{
			CrlConfiguration: &acmpca.CrlConfiguration{Enabled: ptr(true)}, OcspConfiguration: &acmpca.OcspConfiguration{Enabled: ptr(true)}}
	})
	r.sub = c.sub(r.root)
	r.oldRoot = c.own(r.root)
	r.byRoot, r.bySub = r.ask(r.permit(r.root), "a.apps.local"), r.ask(r.permit(r.sub), "b.apps.local")
	r.issued()
	spec := trusting(r.root)
	for i, arn := range []string{r.byRoot, r.bySub} {
		spec.Listeners = append(spec.Listeners, appmesh.Listener{PortMapping: &appmesh.PortMapping{Port: int64(8080 + i), Protocol: "http"}, TLS: &appmesh.ListenerTls{
			Mode: "STRICT", Certificate: &appmesh.ListenerTlsCertificate{ACM: &appmesh.ListenerTlsAcmCertificate{CertificateArn: arn}}}})
	}
	spec.ServiceDiscovery = &appmesh.ServiceDiscovery{DNS: &appmesh.DnsServiceDiscovery{Hostname: "api.apps.local"}}
	// It calls itself, so that it trusts what it presents.
	spec.Backends = []appmesh.Backend{{VirtualService: &appmesh.VirtualServiceBackend{VirtualServiceName: "svc"}}}
	c.node(spec)
	revision, err := c.Store.Write(c.ctx, func(tx *store.Tx) error {
		id := mesh.ID{Kind: mesh.KindVirtualService, Name: "svc"}
		if ok, err := tx.Exists(apps, id); ok || err != nil {
			return err
		}
		if _, err := store.Get[appmesh.VirtualServiceSpec](tx, apps, id); !isNotFound(err) {
			return err
		}
		return store.Put(tx, &mesh.Record[appmesh.VirtualServiceSpec]{Mesh: apps, ID: id, Version: 1, ResourceOwner: testAccount,
			Spec: &appmesh.VirtualServiceSpec{Provider: &appmesh.VirtualServiceProvider{VirtualNode: &appmesh.VirtualNodeServiceProvider{VirtualNodeName: "api"}}}})
	})
	c.must(err)
	c.must(c.Store.WaitFor(c.ctx, revision))
	r.rotator = &Rotator{PCA: c.PrivateCA, ACM: r.ACM, Graph: mesh.Build, Log: c.Log}
	r.sightings = c.Store.NewSightings()
	t.Cleanup(r.sightings.Close)
	r.proxy = mesh.Sighting{Mesh: apps, Endpoint: apiID, Instance: "one", Server: "first", Node: "mesh/apps/virtualNode/api", Address: "10.0.0.1:1", Since: c.clock.Now()}
	r.seen()
	return r
}

// seen notes the proxy as it is.
func (r *rotateRig) seen() {
	r.t.Helper()
	r.ca.must(r.sightings.Note(r.ctx, []mesh.Sighting{r.proxy}))
}

// acks has the proxy acknowledge what is awaited.
func (r *rotateRig) acks() {
	r.t.Helper()
	r.view()
	r.proxy.Revision = r.ca.Store.Awaited()
	r.seen()
}

// view is the mesh as of all that was written; what is awaited is in it.
func (r *rotateRig) view() *mesh.View {
	r.t.Helper()
	view := r.ca.view()
	if awaited := r.ca.Store.Awaited(); view.Revision < awaited {
		r.t.Fatalf("the mesh is at revision %d, and %d is waited for: no proxy will ever acknowledge that", view.Revision, awaited)
	}
	return view
}

// at wants the rotation at a step, and returns how it stands.
func (r *rotateRig) at(step Step) *RotationStatus {
	r.t.Helper()
	at, err := r.ca.parseARN(r.ctx, "", r.root)
	r.ca.must(err)
	s, err := r.rotator.statusOf(r.ctx, at)
	r.ca.must(err)
	if s.Step != step {
		r.t.Fatalf("it is at step %s, waits %+v, want %s", s.Step, s.Waits, step)
	}
	return s
}

// advance looks at the rotation some times.
func (r *rotateRig) advance() {
	r.t.Helper()
	for range 4 {
		r.ca.must(r.rotator.advanceAll(r.ctx))
		// Whatever awaited revision is deleted shows in the cache only after a while.
		r.ca.view()
	}
}

// until advances until a step is reached, with a proxy that acknowledges everything
// and tasks that are done.
func (r *rotateRig) until(step Step) *RotationStatus {
	r.t.Helper()
	for range 20 {
		at, err := r.ca.parseARN(r.ctx, "", r.root)
		r.ca.must(err)
		if s, err := r.rotator.statusOf(r.ctx, at); err != nil || s.Step == step {
			break
		}
		r.ca.must(r.rotator.advanceAll(r.ctx))
		r.issued()
		r.acks()
	}
	return r.at(step)
}

func (r *rotateRig) start() {
	r.t.Helper()
	_, err := r.rotator.start(r.ctx, r.root)
	r.ca.must(err)
}

// trusted are the roots that proxies have, of both sources.
func (r *rotateRig) trusted() []*x509.Certificate {
	r.t.Helper()
	view := r.view()
	chain, err := parseChain(view.Authorities[r.root].Roots)
	r.ca.must(err)
	for _, arn := range []string{r.byRoot, r.bySub} {
		if view.Certificates[arn].Roots != view.Authorities[r.root].Roots {
			r.t.Errorf("who validates %s by its issuer has other roots than who trusts that", arn)
		}
	}
	return chain
}

// served wants both certificates to chain to a root, with what is presented.
func (r *rotateRig) served(root *x509.Certificate) {
	r.t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(root)
	for arn, name := range map[string]string{r.byRoot: "a.apps.local", r.bySub: "b.apps.local"} {
		chain, err := parseChain(r.view().Certificates[arn].Chain)
		r.ca.must(err)
		between := x509.NewCertPool()
		for _, c := range chain[1:] {
			between.AddCert(c)
		}
		if _, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: name, CurrentTime: r.clock.Now()}); err != nil {
			r.t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRotate walks through a rotation: each step waits for the proxy, by name.
func TestRotate(t *testing.T) {
	r := newRotateRig(t)
	oldLeaf := r.view().Certificates[r.byRoot].Serial
	r.start()
	if n := len(r.trusted()); n != 2 {
		t.Fatalf("%d roots are trusted, want both", n)
	}
	next := r.trusted()[1]
	if string(next.RawSubject) != string(r.oldRoot.RawSubject) || string(next.SubjectKeyId) == string(r.oldRoot.SubjectKeyId) || next.NotAfter.Before(r.oldRoot.NotAfter.Add(-time.Hour)) {
		t.Errorf("the next root is %s, key id %x, until %s", next.Subject, next.SubjectKeyId, next.NotAfter)
	}
	r.advance()
	if w := r.at(StepTrust).Proxies; len(w) != 1 || w[0].Proxy != "mesh/apps/virtualNode/api" || w[0].At != "first" || w[0].From != "10.0.0.1:1" {
		t.Fatalf("it waits for %+v", w)
	}
	if got := r.ca.own(r.root); !got.Equal(r.oldRoot) {
		t.Error("the new root is shown before it issues")
	}
	r.crlsOf(r.oldRoot, next)
	r.acks()
	r.advance()
	r.at(StepRenew) // issue has nothing to wait for but what the server does itself
	if got := r.ca.own(r.root); !got.Equal(next) {
		t.Error("the new root issues, and is not shown")
	}
	r.served(r.oldRoot)
	r.issued()
	r.advance()
	r.at(StepServe)
	r.served(next)
	if now := r.view().Certificates[r.byRoot].Serial; now == oldLeaf {
		t.Error("the certificate is the same")
	}
	if n := len(r.trusted()); n != 2 {
		t.Errorf("%d roots are trusted before the proxy has acknowledged what it serves", n)
	}
	r.acks()
	r.advance()
	r.at(StepWithdraw)
	if now := r.trusted(); len(now) != 1 || !now[0].Equal(next) {
		t.Error("the old root is still trusted")
	}
	r.crlsOf(next)
	_, err := r.rotator.undo(r.ctx, r.root)
	r.ca.refused(err, "InvalidStateException", "cannot be undone: the old root is out")
	r.acks()
	r.advance()
	r.at(StepDone)
	if r.ca.Store.Awaited() != 0 {
		t.Error("something is awaited after the end")
	}
	if got := r.ca.issuerOf(r.byRoot, r.acmRig); !got.Equal(next) {
		t.Errorf("ACM shows another chain")
	}
	// Another rotation of the same root.
	r.start()
	r.until(StepDone)
	if now := r.trusted(); len(now) != 1 || now[0].Equal(next) {
		t.Error("a second rotation does not end in a third root")
	}
}

// issuerOf is the root of what ACM returns for a certificate.
func (c *caTest) issuerOf(arn string, r *acmRig) *x509.Certificate {
	c.t.Helper()
	got, err := r.read(r.ctx, arn)
	c.must(err)
	chain, err := parseChain(got.Chain)
	c.must(err)
	return chain[len(chain)-1]
}

// crlsOf wants the CRLs that proxies get to be those of roots and of the subordinate.
func (r *rotateRig) crlsOf(roots ...*x509.Certificate) {
	r.t.Helper()
	signers := append(roots, r.ca.own(r.sub))
	found := map[int]bool{}
	for rest := []byte(r.view().Authorities[r.root].CRLs); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		list, err := x509.ParseRevocationList(block.Bytes)
		r.ca.must(err)
		for i, s := range signers {
			if list.CheckSignatureFrom(s) == nil && string(list.AuthorityKeyId) == string(s.SubjectKeyId) {
				found[i] = true
			}
		}
	}
	if len(found) != len(signers) {
		r.t.Errorf("CRLs of %d authorities, want %d", len(found), len(signers))
	}
}

// TestRotateOldOnes: what the old root has issued is shown and revoked as before, under
// the names that it has.
func TestRotateOldOnes(t *testing.T) {
	r := newRotateRig(t)
	c := r.ca
	old := c.issue(r.root, leafCSR(t, "old.example.com"), "", 30)
	oldLeaf, oldChain := c.certificate(r.root, old)
	r.start()
	r.until(StepServe)
	fresh := c.issue(r.root, leafCSR(t, "new.example.com"), "", 30)
	freshLeaf, freshChain := c.certificate(r.root, fresh)
	if _, chain := c.certificate(r.root, old); chain != oldChain || chain == freshChain {
		t.Error("the chain of what the old root has issued is another one now")
	}
	next := c.own(r.root)
	for _, issued := range []struct {
		leaf   string
		issuer *x509.Certificate
	}{{oldLeaf, r.oldRoot}, {freshLeaf, next}} {
		leaf := parsePEM(t, issued.leaf)
		status := func(want int) {
			t.Helper()
			answer, _ := c.ask(r.root, leaf, issued.issuer, crypto.SHA1)
			if answer == nil || answer.Status != want {
				t.Errorf("OCSP says of %s %+v, want status %d", leaf.Subject, answer, want)
			}
		}
		status(ocsp.Good)
		c.must(c.revoke(r.root, paddedSerial(leaf.SerialNumber), "SUPERSEDED"))
		status(ocsp.Revoked)
		where := leaf.CRLDistributionPoints[0]
		path, ok := strings.CutPrefix(where, "http://pki.test")
		got := c.fetch(http.MethodGet, path)
		list, err := x509.ParseRevocationList(got.Body.Bytes())
		if !ok || got.Code != http.StatusOK || err != nil || list.CheckSignatureFrom(issued.issuer) != nil || len(list.RevokedCertificateEntries) == 0 {
			t.Errorf("the CRL at %s: %d %v", where, got.Code, err)
		}
	}
	if got := c.fetch(http.MethodGet, "/crl/"+idOf(r.root)+".7.crl").Code; got != http.StatusNotFound {
		t.Errorf("a list of no generation: %d", got)
	}
}

// TestRotateUndo: an undone rotation ends with the old root, whenever it was undone.
func TestRotateUndo(t *testing.T) {
	for _, when := range []Step{StepTrust, StepIssue, StepRenew, StepServe} {
		t.Run(string(when), func(t *testing.T) {
			r := newRotateRig(t)
			r.start()
			r.until(when)
			_, err := r.rotator.undo(r.ctx, r.root)
			r.ca.must(err)
			if got := r.ca.own(r.root); !got.Equal(r.oldRoot) {
				t.Error("the old root does not issue again")
			}
			_, err = r.rotator.undo(r.ctx, r.root)
			r.ca.refused(err, "InvalidStateException", "is being undone already")
			if s := r.until(StepDone); !s.Undone {
				t.Errorf("it is not shown as undone: %+v", s)
			}
			if now := r.trusted(); len(now) != 1 || !now[0].Equal(r.oldRoot) {
				t.Error("the old root is not the only one that is trusted")
			}
			r.served(r.oldRoot)
			r.start()
			r.until(StepDone)
			if r.ca.own(r.root).Equal(r.oldRoot) {
				t.Error("the rotation after it does nothing")
			}
		})
	}
}

// TestRotateBlocks: the old root stays while anything holds under it that the rotation
// cannot replace, until somebody says so.
func TestRotateBlocks(t *testing.T) {
	r := newRotateRig(t)
	c := r.ca
	foreign := []string{c.issue(r.root, leafCSR(t, "x.example.com"), "", 30), c.issue(r.sub, leafCSR(t, "y.example.com"), "", 30)}
	revoked := c.issue(r.root, leafCSR(t, "z.example.com"), "", 30)
	leaf, _ := c.certificate(r.root, revoked)
	c.must(c.revoke(r.root, paddedSerial(parsePEM(t, leaf).SerialNumber), "SUPERSEDED"))
	r.start()
	r.until(StepServe)
	r.advance()
	w := r.at(StepServe)
	if len(w.Issued) != 2 || w.Issued[0].Arn != foreign[0] || w.Issued[1].Arn != foreign[1] || !strings.Contains(w.Issued[0].Why, "x.example.com") {
		t.Fatalf("it waits for %+v, want %v", w.Issued, foreign)
	}
	// A proxy that has come meanwhile and acknowledges nothing is waited for, too.
	late := r.proxy
	late.Instance, late.Address, late.Revision = "two", "10.0.0.2:1", 0
	c.must(r.sightings.Note(r.ctx, []mesh.Sighting{late}))
	if w := r.at(StepServe).Proxies; len(w) != 1 || w[0].From != "10.0.0.2:1" {
		t.Errorf("it waits for %+v", w)
	}
	_, err := r.rotator.pause(r.ctx, r.root)
	c.must(err)
	r.clock.forward(31 * 24 * time.Hour)
	r.advance()
	if s := r.at(StepServe); !s.Paused || len(s.Issued) > 0 {
		t.Errorf("paused: %+v", s)
	}
	_, err = r.rotator.resume(r.ctx, r.root)
	c.must(err)
	r.advance()
	r.at(StepServe)
	if s, err := r.rotator.force(r.ctx, r.root); err != nil || !s.Forced {
		t.Fatal(s, err)
	}
	r.advance()
	if w := r.at(StepWithdraw).Proxies; len(w) != 2 {
		t.Errorf("a forced step was more than one: it waits for %+v", w)
	}
}

// TestRotateStragglers: a proxy counts by its newest stream, until it is forgotten; one
// that rejects the new trust is named.
func TestRotateStragglers(t *testing.T) {
	r := newRotateRig(t)
	r.start()
	r.proxy.Rejected = []string{"secret trust:" + r.root}
	r.acks()
	if w := r.at(StepTrust).Proxies; len(w) != 1 || !strings.Contains(w[0].Why, "rejected secret trust:") {
		t.Errorf("it waits for %+v", w)
	}
	r.proxy.Rejected, r.proxy.Revision, r.proxy.Ended = nil, 0, r.clock.Now()
	r.seen()
	if w := r.at(StepTrust).Proxies; len(w) != 1 || !strings.Contains(w[0].Why, "is gone since") {
		t.Errorf("it waits for %+v", w)
	}
	// It comes back on another server.
	elsewhere := r.ca.Store.NewSightings()
	t.Cleanup(elsewhere.Close)
	back := r.proxy
	back.Ended, back.Server, back.Since, back.Revision = time.Time{}, "second", r.clock.Now().Add(time.Second), r.ca.Store.Awaited()
	r.ca.must(elsewhere.Note(r.ctx, []mesh.Sighting{back}))
	r.advance()
	r.at(StepRenew)
}

// TestRotateRefuses what cannot be rotated.
func TestRotateRefuses(t *testing.T) {
	r := newRotateRig(t)
	_, err := r.rotator.start(r.ctx, r.sub)
	r.ca.refused(err, "InvalidArgsException", "only roots are rotated")
	_, err = r.rotator.start(r.ctx, "arn:nonsense")
	r.ca.refused(err, "InvalidArnException", "")
	_, err = r.rotator.start(callerOf(r.ctx, "210987654321"), r.root)
	r.ca.refused(err, "AccessDeniedException", "")
	for _, do := range []func() error{
		func() error { _, err := r.rotator.pause(r.ctx, r.root); return err },
		func() error { _, err := r.rotator.undo(r.ctx, r.root); return err },
		func() error { _, err := r.rotator.force(r.ctx, r.root); return err },
	} {
		r.ca.refused(do(), "InvalidStateException", "is not being rotated")
	}
	r.start()
	_, err = r.rotator.start(r.ctx, r.root)
	r.ca.refused(err, "InvalidStateException", "is being rotated already")
	r.ca.must(r.ca.UpdateCertificateAuthority(r.ctx, &acmpca.UpdateCertificateAuthorityRequest{CertificateAuthorityArn: r.root, Status: ptr(disabled)}))
	r.acks()
	r.advance()
	if s := r.at(StepTrust); !strings.Contains(s.Reason, "DISABLED") {
		t.Errorf("of a disabled root: %+v", s.Waits)
	}
}

// TestRotateTakenByOpenSSL: with both roots and the CRLs of both, in whatever order,
// openssl and Go take what each has issued, and openssl refuses what its issuer has
// revoked.
func TestRotateTakenByOpenSSL(t *testing.T) {
	r := newRotateRig(t)
	c := r.ca
	old, _ := c.certificate(r.root, c.issue(r.root, leafCSR(t, "old.example.com"), "", 30))
	oldChain := r.view().Certificates[r.bySub].Chain
	r.start()
	r.until(StepServe)
	next, _ := c.certificate(r.root, c.issue(r.root, leafCSR(t, "next.example.com"), "", 30))
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		c.must(os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	verify := func(leaf string) error {
		write("leaf.pem", leaf+"\n")
		command := exec.Command("openssl", "verify", "-crl_check_all", "-CAfile", "roots.pem", "-CRLfile", "crls.pem", "-untrusted", "leaf.pem", "leaf.pem")
		command.Dir = dir
		out, err := command.CombinedOutput()
		if err != nil {
			return fmt.Errorf("openssl verify: %w: %s", err, out)
		}
		return nil
	}
	reversed := func(text string) (back string) {
		for rest := []byte(text); ; {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				return back
			}
			back = string(pem.EncodeToMemory(block)) + back
		}
	}
	for _, revoked := range []bool{false, true} {
		if revoked {
			for _, leaf := range []string{old, next} {
				c.must(c.revoke(r.root, paddedSerial(parsePEM(t, leaf).SerialNumber), "SUPERSEDED"))
			}
		}
		trust := r.view().Authorities[r.root]
		for _, order := range []func(string) string{func(s string) string { return s }, reversed} {
			write("roots.pem", order(trust.Roots))
			write("crls.pem", order(trust.CRLs))
			for name, leaf := range map[string]string{"old": old, "next": next} {
				if err := verify(leaf); revoked != (err != nil) {
					t.Errorf("%s, revoked %t: %v", name, revoked, err)
				}
			}
			for name, chain := range map[string]string{"by the subordinate, before": oldChain, "by the subordinate, now": r.view().Certificates[r.bySub].Chain} {
				if err := verify(chain); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM([]byte(trust.Roots))
		for _, leaf := range []string{old, next} {
			if _, err := parsePEM(t, leaf).Verify(x509.VerifyOptions{Roots: roots, CurrentTime: r.clock.Now()}); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestRotateGoesOnElsewhere: when the server ends that carries a rotation on, another
// one of the same store does.
func TestRotateGoesOnElsewhere(t *testing.T) {
	servers, _ := newReplicas(t, 2)
	r := newRotateRigOn(t, newACMRigOn(t, servers[0]))
	run := func(rotator *Rotator) context.CancelFunc {
		ctx, end := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			if err := rotator.Run(ctx); err != nil {
				t.Error(err)
			}
		}()
		return func() { end(); <-done }
	}
	reaches := func(step Step) {
		t.Helper()
		at, err := r.ca.parseARN(r.ctx, "", r.root)
		r.ca.must(err)
		late := time.After(time.Minute)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			s, err := r.rotator.statusOf(r.ctx, at)
			r.ca.must(err)
			if s.Step == step {
				return
			}
			r.issued()
			select {
			case <-late:
				t.Fatalf("it is at %s and waits for %+v, want %s", s.Step, s.Waits, step)
			case <-tick.C:
			}
		}
	}
	r.start()
	end := run(r.rotator)
	r.acks()
	reaches(StepServe)
	end()
	elsewhere := &Rotator{PCA: servers[1].PrivateCA, ACM: r.newACM(servers[1].PrivateCA), Graph: mesh.Build, Log: servers[1].Log}
	end = run(elsewhere)
	defer end()
	r.acks()
	reaches(StepWithdraw)
	r.acks()
	reaches(StepDone)
}
