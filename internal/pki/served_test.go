package pki

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/fairlead/fairlead/api/acm"
	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/store"
)

// sub makes an ACTIVE subordinate of a root.
func (c *caTest) sub(root string) string {
	c.t.Helper()
	sub := c.create(createRequest("SUBORDINATE", "Example issuing"))
	own, chain := c.certificate(root, c.issue(root, c.csr(sub), subTemplate, 3000))
	c.must(c.ImportCertificateAuthorityCertificate(c.ctx, &acmpca.ImportCertificateAuthorityCertificateRequest{
		CertificateAuthorityArn: sub, Certificate: []byte(own), CertificateChain: []byte(chain),
	}))
	return sub
}

// trust makes the virtual node's spec trust roots and nothing else.
func (c *caTest) trust(roots ...string) {
	c.t.Helper()
	c.node(trusting(roots...))
}

func trusting(roots ...string) *appmesh.VirtualNodeSpec {
	return &appmesh.VirtualNodeSpec{BackendDefaults: &appmesh.BackendDefaults{ClientPolicy: &appmesh.ClientPolicy{TLS: &appmesh.ClientPolicyTls{
		Validation: &appmesh.TlsValidationContext{Trust: &appmesh.TlsValidationContextTrust{ACM: &appmesh.TlsValidationContextAcmTrust{CertificateAuthorityArns: roots}}},
	}}}}
}

// view is the mesh as of all that was written.
func (c *caTest) view() *mesh.View {
	c.t.Helper()
	// A write of nothing that matters is behind all others.
	revision, err := c.Store.Read(c.ctx, func(tx *store.Tx) error { _, err := tx.Exists(apps, appsID); return err })
	c.must(err)
	c.must(c.Store.WaitFor(c.ctx, revision))
	view, ok := c.Store.View(apps)
	if !ok {
		c.t.Fatal("no view")
	}
	return view
}

// crls reads CRLs, and wants them to be signed by these authorities, each once.
func (c *caTest) crls(text string, by ...string) (revoked []string) {
	c.t.Helper()
	var signers []*x509.Certificate
	for _, arn := range by {
		signers = append(signers, c.own(arn))
	}
	for rest := []byte(text); len(rest) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "X509 CRL" {
			c.t.Fatalf("no CRL in %q", text)
		}
		list, err := x509.ParseRevocationList(block.Bytes)
		c.must(err)
		i := slices.IndexFunc(signers, func(s *x509.Certificate) bool { return list.CheckSignatureFrom(s) == nil })
		if i < 0 {
			c.t.Fatalf("a CRL of %s, which is not wanted or there already", list.Issuer)
		}
		signers = slices.Delete(signers, i, i+1)
		if now := c.clock.Now(); list.ThisUpdate.After(now) || list.NextUpdate.Before(now.Add(listLife/2)) {
			c.t.Errorf("a CRL of %s to %s, at %s", list.ThisUpdate, list.NextUpdate, now)
		}
		for _, entry := range list.RevokedCertificateEntries {
			revoked = append(revoked, paddedSerial(entry.SerialNumber))
		}
	}
	if len(signers) > 0 {
		c.t.Errorf("no CRL of %s", signers[0].Subject)
	}
	slices.Sort(revoked)
	return revoked
}

// verify wants a served certificate to be one that Go's TLS takes.
func (c *caTest) verify(served *mesh.Certificate, name string) *x509.Certificate {
	c.t.Helper()
	pair, err := tls.X509KeyPair([]byte(served.Chain), []byte(served.Key.Reveal()))
	c.must(err)
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(served.Roots)) {
		c.t.Fatalf("no roots in %q", served.Roots)
	}
	for _, der := range pair.Certificate[1:] {
		above, err := x509.ParseCertificate(der)
		c.must(err)
		if selfIssued(above) {
			c.t.Error("the root is in the chain")
		}
		between.AddCert(above)
	}
	_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: name, CurrentTime: c.clock.Now()})
	c.must(err)
	if strings.ReplaceAll(ca.DescribeSerial(pair.Leaf.SerialNumber), ":", "") != served.Serial || !pair.Leaf.NotAfter.Equal(served.NotAfter) || !slices.Equal(served.Names, pair.Leaf.DNSNames) {
		c.t.Errorf("served as %s, %v, until %s", served.Serial, served.Names, served.NotAfter)
	}
	return pair.Leaf
}

// TestServed: what a spec names comes into the view with its issue, and again
// with each renewal, with its root and the CRLs of its chain.
func TestServed(t *testing.T) {
	r := newACMRig(t)
	c := r.ca
	root := c.root(3650)
	sub := r.permit(c.sub(root))
	arn := r.ask(sub, "api.apps.local", "www.apps.local")
	r.use(arn)
	if got := c.view().Certificates; len(got) != 0 {
		t.Fatalf("served before it is issued: %v", got)
	}
	r.issued()
	before := c.view()
	first := before.Certificates[arn]
	if first == nil {
		t.Fatal("not served")
	}
	c.verify(first, "www.apps.local")
	if first.Root != root || len(c.crls(first.CRLs, sub, root)) != 0 {
		t.Errorf("its root is %s", first.Root)
	}
	c.must(r.RenewCertificate(r.ctx, &acm.RenewCertificateRequest{CertificateArn: arn}))
	r.issued()
	after := c.view()
	second := after.Certificates[arn]
	if leaf := c.verify(second, "api.apps.local"); after.Revision <= before.Revision || second.Revision <= first.Revision || second.Key.Equal(first.Key) || second.Serial == first.Serial || leaf == nil {
		t.Errorf("after a renewal: revision %d after %d, serial %s after %s", second.Revision, first.Revision, second.Serial, first.Serial)
	}

	// Tags change nothing.
	c.must(r.AddTagsToCertificate(r.ctx, &acm.AddTagsToCertificateRequest{CertificateArn: arn, Tags: []acm.Tag{{Key: "a"}}}))
	if c.view().Certificates[arn] != second {
		t.Error("a tag makes another certificate")
	}
	r.use()
	if got := c.view().Certificates; len(got) != 0 {
		t.Errorf("served though nothing names it: %v", got)
	}
}

// TestServedImport: an imported certificate has the root of its chain and no CRLs;
// importing it again serves the other one.
func TestServedImport(t *testing.T) {
	r := newACMRig(t)
	spec := leafSpec{algorithm: ca.P256, name: "api.apps.local", names: []string{"api.apps.local"}}
	arn := r.importLeaf(t, spec)
	r.use(arn)
	first := r.ca.view().Certificates[arn]
	r.ca.verify(first, "api.apps.local")
	if first.CRLs != "" || first.Root != "" {
		t.Errorf("CRLs %q, root %q", first.CRLs, first.Root)
	}
	if !strings.Contains(r.log.String(), "proxies get no CRLs for the chain of a certificate") {
		t.Error("nobody says so")
	}
	again := r.makeLeaf(t, spec).request()
	again.CertificateArn = &arn
	if _, err := r.ImportCertificate(r.ctx, again); err != nil {
		t.Fatal(err)
	}
	second := r.ca.view().Certificates[arn]
	r.ca.verify(second, "api.apps.local")
	if second.Key.Equal(first.Key) || second.Revision <= first.Revision {
		t.Error("the old one is still served")
	}
	rootless := r.makeLeaf(t, spec).request()
	rootless.CertificateArn, rootless.CertificateChain = &arn, nil
	_, err := r.ImportCertificate(r.ctx, rootless)
	wantCode(t, err, "InvalidParameterException", "CertificateChain: "+arn+" is in use by "+user)
}

// TestRevoked: a revocation is at once on the CRL that proxies get of the server's
// certificate and of the root they trust, on every server, and ends the
// certificate in ACM; taking it back heals.
func TestRevoked(t *testing.T) {
	servers, _ := newReplicas(t, 2)
	r := newACMRigOn(t, servers[0])
	c, other := servers[0], servers[1]
	root := c.root(3650)
	sub := r.permit(c.sub(root))
	arn := r.ask(sub, "api.apps.local")
	r.issued()
	spec := trusting(root)
	spec.Listeners = []appmesh.Listener{{TLS: &appmesh.ListenerTls{Certificate: &appmesh.ListenerTlsCertificate{ACM: &appmesh.ListenerTlsAcmCertificate{CertificateArn: arn}}}}}
	c.node(spec)
	serial := other.view().Certificates[arn].Serial
	want := func(revoked []string, status acm.CertificateStatus) {
		t.Helper()
		for _, server := range servers {
			view := server.view()
			if got := c.crls(view.Certificates[arn].CRLs, sub, root); !slices.Equal(got, revoked) {
				t.Errorf("revoked for clients without policy: %v", got)
			}
			if got := c.crls(view.Authorities[root].CRLs, sub, root); !slices.Equal(got, revoked) {
				t.Errorf("revoked for clients that trust the root: %v", got)
			}
		}
		if d := r.describe(t, arn); *d.Status != status {
			t.Errorf("ACM says %s", *d.Status)
		}
	}
	want(nil, "ISSUED")
	c.must(r.RenewCertificate(r.ctx, &acm.RenewCertificateRequest{CertificateArn: arn})) // not done yet
	begun := time.Now()
	c.must(other.revoke(sub, serial, "KEY_COMPROMISE"))
	want([]string{serial}, "REVOKED")
	if took := time.Since(begun); took > time.Second {
		t.Errorf("it took %s", took)
	}
	if tasks, err := r.ready(r.ctx); err != nil || len(tasks) != 0 {
		t.Errorf("%d tasks, %v", len(tasks), err)
	}
	if d := r.describe(t, arn); *d.RenewalEligibility != "INELIGIBLE" {
		t.Error("it is renewed")
	}
	wantCode(t, r.RenewCertificate(r.ctx, &acm.RenewCertificateRequest{CertificateArn: arn}), "ValidationException", "is not eligible for renewal")
	if got := c.view().Certificates[arn].Serial; got != serial {
		t.Errorf("its server presents %s", got)
	}

	// Another one of the same authority, which nobody has in ACM.
	_, stranger, _ := strings.Cut(c.issue(sub, leafCSR(t, "b.apps.local"), "", 30), "/certificate/")
	c.must(c.revoke(sub, stranger, "UNSPECIFIED"))
	both := []string{serial, stranger}
	slices.Sort(both)
	want(both, "REVOKED")

	take := func(serial string) error {
		_, err := other.unrevoke(other.ctx, &awsapi.Request{Principal: awsapi.PrincipalFrom(other.ctx), Body: []byte(`{"certificateArn":"` + certificateARN(sub, serial) + `"}`)})
		return err
	}
	c.must(take(serial))
	want([]string{stranger}, "ISSUED")
	c.refused(take(serial), "ResourceNotFoundException", "has revoked no certificate with the serial "+serial)
	c.refused(take("xyz"), "InvalidArnException", "is not the ARN of a certificate")
	c.must(c.revoke(sub, serial, "UNSPECIFIED"))
	want(both, "REVOKED")
}

// TestRevokedWhileIssued: what an authority revokes before ACM has taken it is
// REVOKED in ACM from the start; what it had before counts no more.
func TestRevokedWhileIssued(t *testing.T) {
	r := newACMRig(t)
	c := r.ca
	root := r.permit(c.root(3650))
	arn := r.ask(root, "api.apps.local")
	tasks, err := r.ready(r.ctx)
	if err != nil || len(tasks) != 1 {
		t.Fatalf("%d tasks, %v", len(tasks), err)
	}
	jobs := []*job{{at: tasks[0].Place}}
	c.must(r.claim(r.ctx, jobs))
	r.issue(r.ctx, jobs)
	c.must(jobs[0].err)
	_, serial, _ := strings.Cut(jobs[0].got.arn, "/certificate/")
	c.must(c.revoke(root, serial, "UNSPECIFIED"))
	r.issued()
	if d := r.describe(t, arn); *d.Status != "REVOKED" {
		t.Errorf("ACM says %s", *d.Status)
	}

	renewed := r.ask(root, "b.apps.local")
	r.use(renewed)
	r.issued()
	old := c.view().Certificates[renewed].Serial
	c.must(r.RenewCertificate(r.ctx, &acm.RenewCertificateRequest{CertificateArn: renewed}))
	r.issued()
	c.must(c.revoke(root, old, "SUPERSEDED"))
	if d := r.describe(t, renewed); *d.Status != "ISSUED" {
		t.Errorf("after its predecessor was revoked ACM says %s", *d.Status)
	}
}

// TestOthers: an authority that is certified for somebody else has no CRL here, so
// that a tree has none, until that certificate ends or is revoked. One of ours is
// none of them, before it is imported, either.
func TestOthers(t *testing.T) {
	c := newCATest(t)
	root := c.root(3650)
	c.trust(root)
	waiting := c.create(createRequest("SUBORDINATE", "not imported yet"))
	c.issue(root, c.csr(waiting), subTemplate, 100)
	c.crls(c.view().Authorities[root].CRLs, root)

	csr := leafCSR(t, "spire.apps.local")
	_, serial, _ := strings.Cut(c.issue(root, csr, subTemplate, 100), "/certificate/")
	if got := c.view().Authorities[root]; got == nil || got.CRLs != "" || got.Roots == "" {
		t.Errorf("%+v", got)
	}
	if !strings.Contains(c.logs.String(), "an authority that is not of this server was certified") {
		t.Error("nobody says so")
	}
	problem := func() string {
		t.Helper()
		out, err := c.listAuthorities(c.ctx, &awsapi.Request{Principal: awsapi.PrincipalFrom(c.ctx)})
		c.must(err)
		for _, a := range out.(AuthorityList).Authorities {
			if a.Arn == root {
				return a.Problem
			}
		}
		t.Fatal("not listed")
		return ""
	}
	if got := problem(); !strings.Contains(got, serial) {
		t.Errorf("an operator is told %q", got)
	}
	c.must(c.revoke(root, serial, "UNSPECIFIED"))
	if got := c.crls(c.view().Authorities[root].CRLs, root); !slices.Equal(got, []string{serial}) || problem() != "" {
		t.Errorf("revoked: %v, problem %q", got, problem())
	}

	c.issue(root, csr, subTemplate, 1)
	if got := c.view().Authorities[root]; got.CRLs != "" {
		t.Error("a second one is overlooked")
	}
	c.clock.forward(25 * time.Hour)
	c.must(c.renewLists(c.ctx))
	c.crls(c.view().Authorities[root].CRLs, root)
}

// TestListsAreRenewed at half their life, by one of the servers, and drop what has
// ended.
func TestListsAreRenewed(t *testing.T) {
	servers, _ := newReplicas(t, 2)
	c := servers[0]
	root := c.root(3650)
	c.trust(root)
	_, serial, _ := strings.Cut(c.issue(root, leafCSR(t, "a.apps.local"), "", 10), "/certificate/")
	c.must(c.revoke(root, serial, "UNSPECIFIED"))
	first := c.view()
	c.must(c.renewLists(c.ctx))
	if c.view() != first {
		t.Error("it was renewed at once")
	}
	c.clock.forward(listLife/2 + time.Minute)
	var group errgroup.Group
	for _, s := range servers {
		group.Go(func() error { return s.renewLists(s.ctx) })
	}
	c.must(group.Wait())
	second := c.view()
	if got := c.crls(second.Authorities[root].CRLs, root); !slices.Equal(got, []string{serial}) || second.Revision <= first.Revision {
		t.Errorf("revoked: %v", got)
	}
	c.clock.forward(listLife)
	c.must(c.renewLists(c.ctx))
	if got := c.crls(c.view().Authorities[root].CRLs, root); len(got) != 0 {
		t.Errorf("what has ended stays: %v", got)
	}
}

// TestTrustedAuthority: a root that a spec trusts cannot be deleted, not in a race
// either; a subordinate's CRL goes with it, until it is gone for good.
func TestTrustedAuthority(t *testing.T) {
	c := newCATest(t)
	root := c.root(3650)
	c.trust(root)
	sub := c.sub(root)
	c.crls(c.view().Authorities[root].CRLs, root, sub)
	disable := func(arn string) {
		c.must(c.UpdateCertificateAuthority(c.ctx, &acmpca.UpdateCertificateAuthorityRequest{CertificateAuthorityArn: arn, Status: ptr(acmpca.CertificateAuthorityStatusDisabled)}))
	}
	remove := func(arn string) error {
		return c.DeleteCertificateAuthority(c.ctx, &acmpca.DeleteCertificateAuthorityRequest{CertificateAuthorityArn: arn, PermanentDeletionTimeInDays: ptr(int64(7))})
	}
	disable(root)
	c.refused(remove(root), "InvalidStateException", "is trusted by "+user)
	disable(sub)
	c.must(remove(sub))
	c.clock.forward(6 * 24 * time.Hour)
	c.must(c.renewLists(c.ctx))
	before := c.view()
	if len(strings.SplitAfter(before.Authorities[root].CRLs, "-----END X509 CRL-----\n")) != 3 {
		t.Error("an authority that can be restored has no CRL")
	}
	c.clock.forward(2 * 24 * time.Hour)
	c.must(c.sweep(c.ctx))
	after := c.view()
	c.crls(after.Authorities[root].CRLs, root)
	if after.Revision <= before.Revision {
		t.Errorf("the view is of revision %d after %d", after.Revision, before.Revision)
	}
	c.trust()
	c.must(remove(root))
}

// TestServedKeysCannotBeSwapped: a key that is moved in etcd to another
// certificate is not taken. The last good one stays, and a server that has none
// serves none.
func TestServedKeysCannotBeSwapped(t *testing.T) {
	servers, raw := newReplicas(t, 2)
	c, fresh := servers[0], servers[1]
	r := newACMRigOn(t, c)
	root := r.permit(c.root(3650))
	one, two := r.ask(root, "one.apps.local"), r.ask(root, "two.apps.local")
	r.issued()
	r.use(one)
	good := c.view().Certificates[one]
	at := func(arn string) string {
		all, err := raw.Get(t.Context(), "/fairlead/secret/served-certificate/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
		c.must(err)
		for _, kv := range all.Kvs {
			if key := string(kv.Key); strings.HasSuffix(key, idOf(arn)) {
				return key
			}
		}
		t.Fatalf("no key of %s", arn)
		return ""
	}
	stolen, err := raw.Get(t.Context(), at(two))
	c.must(err)
	for _, arn := range []string{one, two} {
		_, err = raw.Put(t.Context(), at(arn), string(stolen.Kvs[0].Value))
		c.must(err)
	}
	r.use(one, two)
	if got := c.view().Certificates; got[one] != good || got[two] == nil || got[two].Key.Equal(good.Key) {
		t.Error("the key of another certificate was taken")
	}
	if got := fresh.view().Certificates; got[one] != nil && got[one].Key.Equal(got[two].Key) {
		t.Error("the key of another certificate was taken by another server")
	}
	// Its own sealed key is the private key of its own certificate.
	pair, err := tls.X509KeyPair([]byte(good.Chain), []byte(good.Key.Reveal()))
	c.must(err)
	if _, ok := pair.PrivateKey.(crypto.Signer); !ok {
		t.Error("no signer")
	}
}

// TestReaders: an authority is shared with accounts as a whole.
func TestReaders(t *testing.T) {
	c := newCATest(t)
	root := c.root(3650)
	policy := strings.ReplaceAll(`{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Principal":{"AWS":["111111111111","arn:aws:iam::222222222222:root","arn:aws:iam::333333333333:role/web"]},"Action":["acm-pca:DescribeCertificateAuthority","acm-pca:GetCertificate","acm-pca:GetCertificateAuthorityCertificate","acm-pca:ListPermissions","acm-pca:ListTags"],"Resource":"ARN"},
		{"Effect":"Allow","Principal":{"AWS":"444444444444"},"Action":"acm-pca:IssueCertificate","Resource":"ARN","Condition":{"StringEquals":{"acm-pca:TemplateArn":"arn:aws:acm-pca:::template/EndEntityCertificate/V1"}}}]}`, "ARN", root)
	c.must(c.PutPolicy(c.ctx, &acmpca.PutPolicyRequest{ResourceArn: root, Policy: policy}))
	readers := func() (all []string) {
		_, err := c.Store.Read(c.ctx, func(tx *store.Tx) error {
			a, err := store.GetAuthority(tx, root)
			if err == nil {
				all = a.Readers
			}
			return err
		})
		c.must(err)
		return all
	}
	if got := readers(); !slices.Equal(got, []string{"111111111111", "222222222222"}) {
		t.Errorf("shared with %v", got)
	}
	c.must(c.DeletePolicy(c.ctx, &acmpca.DeletePolicyRequest{ResourceArn: root}))
	if got := readers(); len(got) != 0 {
		t.Errorf("shared with %v", got)
	}
}

// TestDeletingRacesNaming: on two servers, a spec that names a certificate and a
// root races who deletes them. One of the two wins, whatever the order.
func TestDeletingRacesNaming(t *testing.T) {
	servers, _ := newReplicas(t, 2)
	c, other := servers[0], servers[1]
	r := newACMRigOn(t, c)
	won := map[string]int{}
	for range 25 {
		root := c.root(3650)
		arn := r.importLeaf(t, leafSpec{algorithm: ca.P256, name: "api.apps.local", names: []string{"api.apps.local"}})
		c.must(c.UpdateCertificateAuthority(c.ctx, &acmpca.UpdateCertificateAuthorityRequest{CertificateAuthorityArn: root, Status: ptr(acmpca.CertificateAuthorityStatusDisabled)}))
		c.node(&appmesh.VirtualNodeSpec{})
		spec := trusting(root)
		spec.Listeners = []appmesh.Listener{{TLS: &appmesh.ListenerTls{Certificate: &appmesh.ListenerTlsCertificate{ACM: &appmesh.ListenerTlsAcmCertificate{CertificateArn: arn}}}}}
		var group errgroup.Group
		var naming, certificate, authority error
		group.Go(func() error {
			_, naming = other.Store.Write(other.ctx, func(tx *store.Tx) error {
				if _, err := store.GetCertificate(tx, arn); err != nil {
					return err
				}
				if a, err := store.GetAuthority(tx, root); err != nil || a.Status != string(disabled) {
					return store.ErrNotFound
				}
				if _, err := store.Get[appmesh.VirtualNodeSpec](tx, apps, apiID); err != nil {
					return err
				}
				return store.Put(tx, &mesh.Record[appmesh.VirtualNodeSpec]{Mesh: apps, ID: apiID, Version: 1, ResourceOwner: testAccount, Spec: spec})
			})
			return nil
		})
		group.Go(func() error {
			certificate = r.DeleteCertificate(r.ctx, &acm.DeleteCertificateRequest{CertificateArn: arn})
			return nil
		})
		group.Go(func() error {
			authority = c.DeleteCertificateAuthority(c.ctx, &acmpca.DeleteCertificateAuthorityRequest{CertificateAuthorityArn: root})
			return nil
		})
		c.must(group.Wait())
		switch {
		case naming == nil && exception(certificate) == "ResourceInUseException" && exception(authority) == "InvalidStateException":
			won["naming"]++
		case isNotFound(naming) && (certificate == nil || authority == nil):
			won["deleting"]++
		default:
			t.Fatalf("naming: %v, deleting the certificate: %v, the authority: %v", naming, certificate, authority)
		}
		if view := c.view(); naming == nil && (view.Certificates[arn] == nil || view.Authorities[root] == nil) {
			t.Fatal("what the spec names is not served")
		}
	}
	t.Logf("%v", won)
}
