package pki

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/iam"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/store"
)

const apiURI = "spiffe://apps.fairlead/api"

// ownRig is a mesh whose node names a certificate of its own.
type ownRig struct {
	*caTest
	sds   *OwnSDS
	proxy iam.Principal
}

func newOwnRig(t *testing.T) *ownRig {
	c := newCATest(t)
	c.node(&appmesh.VirtualNodeSpec{
		ServiceDiscovery: &appmesh.ServiceDiscovery{DNS: &appmesh.DnsServiceDiscovery{Hostname: "api.apps.local"}},
		Listeners: []appmesh.Listener{{TLS: &appmesh.ListenerTls{Mode: "STRICT", Certificate: &appmesh.ListenerTlsCertificate{
			SDS: &appmesh.ListenerTlsSdsCertificate{SecretName: apiURI}}}}},
	})
	c.view()
	return &ownRig{c, &OwnSDS{Authorities: c.PrivateCA, Life: 24 * time.Hour}, iam.Principal{Kind: iam.Proxy, Account: testAccount, Resource: "mesh/apps/virtualNode/api"}}
}

func (r *ownRig) ask(csr []byte) (*x509.Certificate, error) {
	r.t.Helper()
	chain, err := r.sds.Issue(r.ctx, r.proxy, apps, apiID, mesh.OwnCertificate{URI: apiURI, DNS: "api.apps.local"}.SecretName(), csr)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(chain)
	if len(rest) > 0 {
		r.t.Errorf("more than the leaf: %s", rest)
	}
	return x509.ParseCertificate(block.Bytes)
}

func (r *ownRig) csr(algorithm ca.KeyAlgorithm) []byte {
	r.t.Helper()
	key, err := ca.GenerateKey(algorithm)
	r.must(err)
	name := "somebody else"
	csr, err := ca.AuthorityCSR(key, ca.DefaultSigning(key.Public()), &ca.Subject{CommonName: name}, ca.CSRExtensions{})
	r.must(err)
	return csr
}

func (r *ownRig) authorities() (arns []string) {
	r.t.Helper()
	list, err := r.ListCertificateAuthorities(r.ctx, &acmpca.ListCertificateAuthoritiesRequest{})
	r.must(err)
	for _, a := range list.CertificateAuthorities {
		arns = append(arns, *a.Arn)
	}
	return arns
}

// TestOwnIssue: of any number of requests at the same time, on two servers, one
// makes the authority; each certificate is in the ledger and verifies by what
// proxies get as trust; once it is revoked that says so.
func TestOwnIssue(t *testing.T) {
	r := newOwnRig(t)
	second := &OwnSDS{Authorities: NewPrivateCA(r.Config), Life: r.sds.Life}
	var group errgroup.Group
	for _, sds := range []*OwnSDS{r.sds, second, r.sds, second} {
		csr := r.csr(ca.P256)
		group.Go(func() error {
			_, err := sds.Issue(r.ctx, r.proxy, apps, apiID, mesh.OwnCertificate{URI: apiURI, DNS: "api.apps.local"}.SecretName(), csr)
			return err
		})
	}
	r.must(group.Wait())
	arns := r.authorities()
	if len(arns) != 1 {
		t.Fatalf("authorities: %v", arns)
	}
	leaf, err := r.ask(r.csr(ca.P256))
	r.must(err)
	own := r.view().Own
	if own == nil || own.ARN != arns[0] || len(r.crls(own.CRLs, arns[0])) != 0 {
		t.Fatalf("the trust is %+v", own)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(own.Roots))
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "api.apps.local", CurrentTime: r.clock.Now(), KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			t.Error(err)
		}
	}
	if !slices.Equal(leaf.DNSNames, []string{"api.apps.local"}) || len(leaf.URIs) != 1 || leaf.URIs[0].String() != apiURI || len(leaf.Subject.Names) > 0 || leaf.NotAfter.Sub(r.clock.Now()) != 24*time.Hour {
		t.Errorf("the leaf is %v %v %v until %s", leaf.Subject, leaf.DNSNames, leaf.URIs, leaf.NotAfter)
	}
	serial := paddedSerial(leaf.SerialNumber)
	var entry *issued
	_, err = r.Store.Read(r.ctx, func(tx *store.Tx) error {
		o, err := store.GetObject[issued](tx, certificatePlace(idOf(arns[0]), serial))
		if err == nil {
			entry = o.Value
		}
		return err
	})
	r.must(err)
	if entry.Requester != r.proxy.ARN() || string(entry.Certificate) != string(leaf.Raw) {
		t.Errorf("the ledger has %+v", entry)
	}
	r.must(r.RevokeCertificate(r.ctx, &acmpca.RevokeCertificateRequest{CertificateAuthorityArn: arns[0], CertificateSerial: serial, RevocationReason: acmpca.RevocationReasonKeyCompromise}))
	if revoked := r.crls(r.view().Own.CRLs, arns[0]); !slices.Equal(revoked, []string{serial}) {
		t.Errorf("revoked: %v", revoked)
	}
}

// TestOwnRefuses: what is not named, other keys, and what an operator has stopped.
func TestOwnRefuses(t *testing.T) {
	r := newOwnRig(t)
	good := r.csr(ca.P256)
	for _, c := range []mesh.OwnCertificate{{URI: apiURI}, {URI: apiURI, DNS: "web.apps.local"}, {URI: apiURI + "2", DNS: "api.apps.local"}, {}} {
		if _, err := r.sds.Issue(r.ctx, r.proxy, apps, apiID, c.SecretName(), good); !errors.Is(err, mesh.ErrNotNamed) {
			t.Errorf("%v: %v", c, err)
		}
	}
	if _, err := r.sds.Issue(r.ctx, r.proxy, mesh.Name{Owner: testAccount, Mesh: "nowhere"}, apiID, "", good); !errors.Is(err, mesh.ErrNotNamed) {
		t.Errorf("a mesh that is not there: %v", err)
	}
	for name, csr := range map[string][]byte{
		"RSA": r.csr(ca.RSA2048), "P-384": r.csr(ca.P384), "nothing": nil, "text": []byte("x"), "two": slices.Concat(good, good),
		"large": []byte(strings.Repeat("x", 1<<20)),
	} {
		if _, err := r.ask(csr); !errors.Is(err, mesh.ErrCSR) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if arns := r.authorities(); len(arns) != 0 {
		t.Errorf("what was refused has made %v", arns)
	}
	_, err := r.ask(good)
	r.must(err)
	arn := r.authorities()[0]
	disable := acmpca.CertificateAuthorityStatusDisabled
	r.must(r.UpdateCertificateAuthority(r.ctx, &acmpca.UpdateCertificateAuthorityRequest{CertificateAuthorityArn: arn, Status: &disable}))
	if _, err := r.ask(good); err == nil || len(r.authorities()) != 1 {
		t.Errorf("a disabled authority issues, or has a successor: %v", r.authorities())
	}
	if own := r.view().Own; own == nil || own.ARN != arn {
		t.Errorf("what a disabled authority has issued is not trusted: %+v", own)
	}
	r.must(r.DeleteCertificateAuthority(r.ctx, &acmpca.DeleteCertificateAuthorityRequest{CertificateAuthorityArn: arn}))
	if own := r.view().Own; own != nil {
		t.Errorf("a deleted authority is trusted: %+v", own)
	}
	_, err = r.ask(good)
	r.must(err)
	if own := r.view().Own; own == nil || own.ARN == arn {
		t.Errorf("after the authority was deleted the trust is %+v", own)
	}
}

// TestOwnGrowsOld: certificates that ended leave the ledger, and an authority that
// ends has a successor that is trusted before it issues.
func TestOwnGrowsOld(t *testing.T) {
	r := newOwnRig(t)
	_, err := r.ask(r.csr(ca.P256))
	r.must(err)
	first := r.authorities()[0]
	count := func() (n int) {
		r.must(each(r.ctx, r.Store, store.Place{"authority-issued", idOf(first)}, func(*store.Object[issued]) error { n++; return nil }))
		return n
	}
	r.must(r.sweepOwn(r.ctx))
	if n := count(); n != 2 { // its own, and the leaf
		t.Errorf("the ledger has %d", n)
	}
	r.clock.forward(49 * time.Hour)
	r.must(r.sweepOwn(r.ctx))
	if n := count(); n != 1 {
		t.Errorf("after a day the ledger has %d", n)
	}
	r.clock.forward(9 * 365 * 24 * time.Hour)
	r.must(r.sds.look(r.ctx, apps))
	arns := r.authorities()
	if len(arns) != 2 || strings.Count(r.view().Own.Roots, "BEGIN") != 2 {
		t.Fatalf("authorities %v, trust in %s", arns, r.view().Own.Roots)
	}
	r.must(r.sds.look(r.ctx, apps))
	issuer := func() string {
		leaf, err := r.ask(r.csr(ca.P256))
		r.must(err)
		for _, arn := range r.authorities() {
			if leaf.CheckSignatureFrom(r.own(arn)) == nil {
				return arn
			}
		}
		return ""
	}
	if got := issuer(); got != first {
		t.Errorf("%s issues at once", got)
	}
	r.clock.forward(2 * ownSpread)
	if got := issuer(); got == first || got == "" || len(r.authorities()) != 2 {
		t.Errorf("%q issues later, of %v", got, r.authorities())
	}
}
