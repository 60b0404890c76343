package pki

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/acm"
	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/store"
)

const (
	oldCA        = "arn:aws:acm-pca:eu-west-1:123456789012:certificate-authority/aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
	oldForeignCA = "arn:aws:acm-pca:eu-west-1:999999999999:certificate-authority/bbbbbbbb-bbbb-cccc-dddd-eeeeeeeeeeee"
	oldCert      = "arn:aws:acm:eu-west-1:123456789012:certificate/11111111-2222-3333-4444-555555555555"
)

// elsewhere is an authority that was made elsewhere, PEM.
type elsewhere struct {
	own, key, chain string
	ca              *ca.Authority
	signer          ca.PrivateKey
}

// authorityElsewhere makes one below another, or a root.
func authorityElsewhere(t *testing.T, name pkix.Name, above *elsewhere, now time.Time, change ...func(*x509.Certificate)) *elsewhere {
	t.Helper()
	key, err := ca.GenerateKey(ca.P256)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(77), Subject: name, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(5, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	for _, f := range change {
		f(template)
	}
	parent, signer, made := template, key, &elsewhere{signer: key}
	var chain []*x509.Certificate
	if above != nil {
		parent, signer = above.ca.Certificate, above.signer
		made.chain = above.own + above.chain
		chain = append([]*x509.Certificate{above.ca.Certificate}, above.ca.Chain...)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer.Signer())
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := key.PKCS8()
	if err != nil {
		t.Fatal(err)
	}
	made.own, made.key = string(ca.EncodePEM(der)), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
	if own, err := x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	} else if made.ca, err = ca.NewAuthority(own, chain, key.Signer()); err != nil {
		made.ca = &ca.Authority{Certificate: own}
	}
	return made
}

func (e *elsewhere) adopt(arn string) *AdoptAuthorityInput {
	in := &AdoptAuthorityInput{ARN: arn, Certificate: &e.own}
	if e.chain != "" {
		in.Chain = &e.chain
	}
	return in
}

func (e *elsewhere) withKey(arn string) *AdoptAuthorityInput {
	in := e.adopt(arn)
	in.PrivateKey = api.NewSecret(e.key)
	return in
}

func (c *caTest) adopt(in *AdoptAuthorityInput, wantStatus string, wantNew bool) {
	c.t.Helper()
	out, err := c.AdoptAuthority(c.ctx, in)
	c.must(err)
	if want := (Adoption{in.ARN, wantStatus, wantNew}); *out != want {
		c.t.Errorf("adopted as %+v, want %+v", *out, want)
	}
}

func (c *caTest) described(arn string) *acmpca.CertificateAuthority {
	c.t.Helper()
	out, err := c.DescribeCertificateAuthority(c.ctx, &acmpca.DescribeCertificateAuthorityRequest{CertificateAuthorityArn: arn})
	c.must(err)
	return out.CertificateAuthority
}

// TestAdoptTrustOnly: an authority that is known by its certificate can be
// trusted; whatever needs its key says so; once it has the key it can all.
func TestAdoptTrustOnly(t *testing.T) {
	c := newCATest(t)
	root := authorityElsewhere(t, pkix.Name{CommonName: "Old root", Organization: []string{"Example"}}, nil, c.clock.Now())
	c.adopt(root.adopt(oldCA), "ACTIVE", true)
	c.adopt(root.adopt(oldCA), "ACTIVE", false)
	d := c.described(oldCA)
	if *d.Type != acmpca.CertificateAuthorityTypeRoot || *d.Status != active || *d.Serial != "4d" || *d.CertificateAuthorityConfiguration.Subject.CommonName != "Old root" {
		t.Errorf("described as %+v", d)
	}
	own, err := c.GetCertificateAuthorityCertificate(c.ctx, &acmpca.GetCertificateAuthorityCertificateRequest{CertificateAuthorityArn: oldCA})
	c.must(err)
	if *own.Certificate+"\n" != root.own || own.CertificateChain != nil {
		t.Errorf("its certificate is %v", own)
	}

	on, csr := oldCA, leafCSR(t, "a.example.com")
	const text = "has its certificate and not its private key"
	for name, call := range map[string]func() error{
		"issue": func() error {
			_, err := c.IssueCertificate(c.ctx, &acmpca.IssueCertificateRequest{CertificateAuthorityArn: on, Csr: csr, SigningAlgorithm: "SHA256WITHECDSA", Validity: &acmpca.Validity{Type: "DAYS", Value: 1}})
			return err
		},
		"sign itself": func() error {
			_, err := c.IssueCertificate(c.ctx, &acmpca.IssueCertificateRequest{CertificateAuthorityArn: on, Csr: csr, SigningAlgorithm: "SHA256WITHECDSA", TemplateArn: ptr(rootTemplate), Validity: &acmpca.Validity{Type: "DAYS", Value: 1}})
			return err
		},
		"CSR": func() error {
			_, err := c.GetCertificateAuthorityCsr(c.ctx, &acmpca.GetCertificateAuthorityCsrRequest{CertificateAuthorityArn: on})
			return err
		},
		"import": func() error {
			return c.ImportCertificateAuthorityCertificate(c.ctx, &acmpca.ImportCertificateAuthorityCertificateRequest{CertificateAuthorityArn: on, Certificate: []byte(root.own)})
		},
		"revoke": func() error {
			return c.RevokeCertificate(c.ctx, &acmpca.RevokeCertificateRequest{CertificateAuthorityArn: on, CertificateSerial: "4d", RevocationReason: "UNSPECIFIED"})
		},
		"report": func() error {
			_, err := c.CreateCertificateAuthorityAuditReport(c.ctx, &acmpca.CreateCertificateAuthorityAuditReportRequest{CertificateAuthorityArn: on, S3BucketName: "b", AuditReportResponseFormat: "JSON"})
			return err
		},
		"CRL": func() error {
			return c.UpdateCertificateAuthority(c.ctx, &acmpca.UpdateCertificateAuthorityRequest{CertificateAuthorityArn: on, RevocationConfiguration: &acmpca.RevocationConfiguration{CrlConfiguration: &acmpca.CrlConfiguration{Enabled: ptr(true)}}})
		},
	} {
		t.Log(name)
		c.refused(call(), "InvalidStateException", text)
	}
	disable := func(status acmpca.CertificateAuthorityStatus) {
		c.must(c.UpdateCertificateAuthority(c.ctx, &acmpca.UpdateCertificateAuthorityRequest{CertificateAuthorityArn: on, Status: &status}))
	}
	disable(disabled)
	c.adopt(root.adopt(oldCA), "DISABLED", false)
	disable(active)

	c.adopt(root.withKey(oldCA), "ACTIVE", true)
	c.adopt(root.withKey(oldCA), "ACTIVE", false)
	c.adopt(root.adopt(oldCA), "ACTIVE", false)
	leaf, chain := c.certificate(oldCA, c.issue(oldCA, csr, "", 30))
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(root.own))
	if _, err := parsePEM(t, leaf).Verify(x509.VerifyOptions{Roots: roots, DNSName: "a.example.com", CurrentTime: c.clock.Now()}); err != nil || chain+"\n" != root.own {
		t.Errorf("what it issues: %v, chain\n%s", err, chain)
	}
	c.must(c.UpdateCertificateAuthority(c.ctx, &acmpca.UpdateCertificateAuthorityRequest{CertificateAuthorityArn: on, RevocationConfiguration: &acmpca.RevocationConfiguration{CrlConfiguration: &acmpca.CrlConfiguration{Enabled: ptr(true)}}}))
	if list, err := c.crl(c.ctx, oldCA[len(oldCA)-36:]); err != nil || len(list.der) == 0 {
		t.Errorf("its CRL: %v", err)
	}
}

// TestAdoptRenewed: of an authority without its key the certificate is renewed by
// adopting its successor, and never goes back.
func TestAdoptRenewed(t *testing.T) {
	c := newCATest(t)
	old := authorityElsewhere(t, pkix.Name{CommonName: "Old root"}, nil, c.clock.Now(), func(x *x509.Certificate) { x.NotAfter = c.clock.Now().AddDate(1, 0, 0) })
	c.adopt(old.adopt(oldCA), "ACTIVE", true)
	c.trust(oldCA)
	next := *old.ca.Certificate
	next.SerialNumber, next.NotAfter = big.NewInt(78), next.NotAfter.AddDate(5, 0, 0)
	der, err := x509.CreateCertificate(rand.Reader, &next, &next, old.signer.Public(), old.signer.Signer())
	c.must(err)
	renewed := &elsewhere{own: string(ca.EncodePEM(der)), key: old.key}
	c.adopt(renewed.adopt(oldCA), "ACTIVE", true)
	c.adopt(renewed.adopt(oldCA), "ACTIVE", false)
	if served := c.view().Authorities[oldCA]; *c.described(oldCA).Serial != "4e" || served.Roots != renewed.own {
		t.Errorf("renewed it is %s, served as %s", *c.described(oldCA).Serial, served.Roots)
	}
	_, err = c.AdoptAuthority(c.ctx, old.adopt(oldCA))
	c.refused(err, "ConflictException", "another certificate, serial number 4e")
	c.adopt(renewed.withKey(oldCA), "ACTIVE", true)
	c.issue(oldCA, leafCSR(t, "a.example.com"), "", 30)
}

// TestAdoptNewRoot: a new root under an old ARN issues at once, also to ACM, and
// is in its own ledger.
func TestAdoptNewRoot(t *testing.T) {
	r := newACMRig(t)
	c := r.ca
	in := &AdoptAuthorityInput{ARN: oldCA, Issue: ptr(true), CommonName: ptr("New root")}
	c.adopt(in, "ACTIVE", true)
	before := c.described(oldCA)
	c.adopt(in, "ACTIVE", false)
	c.adopt(&AdoptAuthorityInput{ARN: oldCA, Issue: ptr(true)}, "ACTIVE", false)
	if after := c.described(oldCA); *after.Serial != *before.Serial || *after.CertificateAuthorityConfiguration.Subject.CommonName != "New root" {
		t.Errorf("adopted again it is %+v", after)
	}
	own, _ := c.certificate(oldCA, certificateARN(oldCA, strings.ReplaceAll(*before.Serial, ":", "")))
	if root := parsePEM(t, own); root.Subject.CommonName != "New root" || !root.IsCA || root.NotAfter.Before(c.clock.Now().AddDate(9, 11, 0)) {
		t.Errorf("in its ledger it is %v until %v", root.Subject, root.NotAfter)
	}
	arn := r.ask(oldCA, "a.example.com")
	r.issued()
	if d := r.describe(t, arn); *d.Status != acm.CertificateStatusIssued {
		t.Errorf("ACM has %s %v of it", *d.Status, d.FailureReason)
	}
}

// TestAdoptForeign: this server's account manages what it has adopted from
// another, nobody else does, and the policy says so.
func TestAdoptForeign(t *testing.T) {
	r := newACMRig(t)
	c := r.ca
	describe := func(ctx context.Context) error {
		_, err := c.DescribeCertificateAuthority(ctx, &acmpca.DescribeCertificateAuthorityRequest{CertificateAuthorityArn: oldForeignCA})
		return err
	}
	c.refused(describe(c.ctx), "AccessDeniedException", "no resource-based policy")
	c.adopt(&AdoptAuthorityInput{ARN: oldForeignCA, Issue: ptr(true)}, "ACTIVE", true)
	c.root(100)
	if d := c.described(oldForeignCA); *d.OwnerAccount != "999999999999" {
		t.Errorf("its owner is %s", *d.OwnerAccount)
	}
	c.refused(describe(callerOf(t.Context(), "555555555555")), "AccessDeniedException", "no resource-based policy")
	policy, err := c.GetPolicy(c.ctx, &acmpca.GetPolicyRequest{ResourceArn: oldForeignCA})
	c.must(err)
	if err := c.parsePolicy(*policy.Policy, oldForeignCA); err != nil || strings.Count(*policy.Policy, testAccount) != 2 {
		t.Errorf("its policy %s: %v", *policy.Policy, err)
	}
	for owner, want := range map[acmpca.ResourceOwner]string{acmpca.ResourceOwnerSelf: testAccount, acmpca.ResourceOwnerOtherAccounts: "999999999999"} {
		list, err := c.ListCertificateAuthorities(c.ctx, &acmpca.ListCertificateAuthoritiesRequest{ResourceOwner: &owner})
		c.must(err)
		if len(list.CertificateAuthorities) != 1 || *list.CertificateAuthorities[0].OwnerAccount != want {
			t.Errorf("listed of %s: %+v", owner, list.CertificateAuthorities)
		}
	}
	other := acmpca.ResourceOwnerOtherAccounts
	if list, err := c.ListCertificateAuthorities(callerOf(t.Context(), "555555555555"), &acmpca.ListCertificateAuthoritiesRequest{ResourceOwner: &other}); err != nil || len(list.CertificateAuthorities) != 0 {
		t.Errorf("others see %+v, %v", list, err)
	}
	in := &AdoptCertificateInput{ARN: oldCert, Authority: ptr(oldForeignCA), Names: []string{"a.example.com"}}
	if _, err := r.AdoptCertificate(r.ctx, in); err != nil {
		t.Fatal(err)
	}
	r.issued()
	if d := r.describe(t, oldCert); *d.Status != acm.CertificateStatusIssued || *d.CertificateAuthorityArn != oldForeignCA {
		t.Errorf("a certificate below it is %s", *d.Status)
	}
}

// TestAdoptForeignPages: the list of others' authorities page by page, among own ones.
func TestAdoptForeignPages(t *testing.T) {
	c := newCATest(t)
	want := map[string]bool{}
	for _, id := range []string{"1", "2", "3", "4", "5"} {
		for _, account := range []string{testAccount, "999999999999", "000000000001"} {
			arn := "arn:aws:acm-pca:eu-west-1:" + account + ":certificate-authority/" + strings.Repeat(id, 8) + "-0000-0000-0000-0000" + account[4:]
			c.adopt(&AdoptAuthorityInput{ARN: arn, Issue: ptr(true)}, "ACTIVE", true)
			want[arn] = true
		}
	}
	for _, owner := range []acmpca.ResourceOwner{acmpca.ResourceOwnerSelf, acmpca.ResourceOwnerOtherAccounts} {
		in := &acmpca.ListCertificateAuthoritiesRequest{ResourceOwner: &owner, MaxResults: ptr(int64(2))}
		for {
			page, err := c.ListCertificateAuthorities(c.ctx, in)
			c.must(err)
			for _, a := range page.CertificateAuthorities {
				if own := *a.OwnerAccount == testAccount; !want[*a.Arn] || own != (owner == acmpca.ResourceOwnerSelf) {
					t.Errorf("%s lists %s, again or of the wrong account", owner, *a.Arn)
				}
				delete(want, *a.Arn)
			}
			if in.NextToken = page.NextToken; in.NextToken == nil {
				break
			}
			turned := acmpca.ResourceOwnerSelf
			if owner == turned {
				turned = acmpca.ResourceOwnerOtherAccounts
			}
			_, err = c.ListCertificateAuthorities(c.ctx, &acmpca.ListCertificateAuthoritiesRequest{ResourceOwner: &turned, NextToken: page.NextToken})
			c.refused(err, "InvalidNextTokenException", "")
		}
	}
	if len(want) > 0 {
		t.Errorf("never listed: %v", want)
	}
}

// TestAdoptSubordinate: with its chain, and a subject that has no names in the API.
func TestAdoptSubordinate(t *testing.T) {
	c := newCATest(t)
	root := authorityElsewhere(t, pkix.Name{CommonName: "Old root"}, nil, c.clock.Now())
	domain := pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}, Value: "example"}
	sub := authorityElsewhere(t, pkix.Name{CommonName: "Old issuing", ExtraNames: []pkix.AttributeTypeAndValue{domain}}, root, c.clock.Now())
	c.adopt(sub.withKey(oldCA), "ACTIVE", true)
	d := c.described(oldCA)
	if *d.Type != acmpca.CertificateAuthorityTypeSubordinate || len(d.CertificateAuthorityConfiguration.Subject.CustomAttributes) != 2 {
		t.Errorf("described as %+v of %+v", d, d.CertificateAuthorityConfiguration.Subject)
	}
	if _, chain := c.certificate(oldCA, c.issue(oldCA, leafCSR(t, "a.example.com"), "", 30)); chain+"\n" != sub.own+root.own {
		t.Errorf("the chain of what it issues is\n%s", chain)
	}
}

// TestAdoptAuthorityRefused: what is refused, and that then nothing is changed.
func TestAdoptAuthorityRefused(t *testing.T) {
	c := newCATest(t)
	now := c.clock.Now()
	root := authorityElsewhere(t, pkix.Name{CommonName: "Old root"}, nil, now)
	other := authorityElsewhere(t, pkix.Name{CommonName: "Old root"}, nil, now)
	sub := authorityElsewhere(t, pkix.Name{CommonName: "Old issuing"}, root, now)
	over := authorityElsewhere(t, pkix.Name{CommonName: "Over"}, nil, now, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) })
	leaf := authorityElsewhere(t, pkix.Name{CommonName: "Leaf"}, nil, now, func(c *x509.Certificate) { c.IsCA = false })
	nameless := authorityElsewhere(t, pkix.Name{}, nil, now)
	fresh := strings.Replace(oldCA, "aaaaaaaa", "cccccccc", 1)
	trusted, waiting, gone := strings.Replace(oldCA, "aaaaaaaa", "dddddddd", 1), c.create(createRequest("ROOT", "waits")), c.root(100)
	c.adopt(root.withKey(oldCA), "ACTIVE", true)
	c.adopt(authorityElsewhere(t, pkix.Name{CommonName: "Trusted"}, nil, now).adopt(trusted), "ACTIVE", true)
	c.must(c.UpdateCertificateAuthority(c.ctx, &acmpca.UpdateCertificateAuthorityRequest{CertificateAuthorityArn: gone, Status: ptr(disabled)}))
	c.must(c.DeleteCertificateAuthority(c.ctx, &acmpca.DeleteCertificateAuthorityRequest{CertificateAuthorityArn: gone}))
	at := func(in *AdoptAuthorityInput, change func(*AdoptAuthorityInput)) *AdoptAuthorityInput {
		change(in)
		return in
	}
	before := *c.described(oldCA)
	for name, refusal := range map[string]struct {
		in         *AdoptAuthorityInput
		code, text string
	}{
		"not an ARN":         {root.adopt("arn"), "InvalidArnException", "is not of the form"},
		"of ACM":             {root.adopt(oldCert), "InvalidArnException", "is not of the form"},
		"no account":         {root.adopt(strings.Replace(fresh, testAccount, "", 1)), "InvalidArnException", "is not of the form"},
		"no UUID":            {root.adopt(fresh + "x"), "InvalidArnException", "is not of the form"},
		"another region":     {root.adopt(strings.Replace(fresh, "eu-west-1", "us-east-1", 1)), "InvalidArnException", "of the region us-east-1, and this server's is eu-west-1"},
		"another partition":  {root.adopt(strings.Replace(fresh, "arn:aws:", "arn:aws-cn:", 1)), "InvalidArnException", "of the region"},
		"nothing given":      {&AdoptAuthorityInput{ARN: fresh}, "InvalidArgsException", "give the authority's certificate, or issue"},
		"both":               {at(root.adopt(fresh), func(in *AdoptAuthorityInput) { in.Issue = ptr(true) }), "InvalidArgsException", "either that or a certificate"},
		"a name for both":    {at(root.adopt(fresh), func(in *AdoptAuthorityInput) { in.CommonName = ptr("x") }), "InvalidArgsException", "commonName"},
		"not PEM":            {at(root.adopt(fresh), func(in *AdoptAuthorityInput) { in.Certificate = ptr("x") }), "MalformedCertificateException", "not PEM"},
		"over":               {over.adopt(fresh), "MalformedCertificateException", "has expired"},
		"no CA":              {leaf.adopt(fresh), "MalformedCertificateException", "is no authority"},
		"no subject":         {nameless.adopt(fresh), "MalformedCertificateException", "no subject"},
		"no chain":           {at(sub.adopt(fresh), func(in *AdoptAuthorityInput) { in.Chain = nil }), "InvalidRequestException", "needs its CertificateChain"},
		"a root's chain":     {at(root.adopt(fresh), func(in *AdoptAuthorityInput) { in.Chain = &sub.own }), "InvalidRequestException", "without a CertificateChain"},
		"another chain":      {at(sub.adopt(fresh), func(in *AdoptAuthorityInput) { in.Chain = &other.own }), "MalformedCertificateException", "is not signed by the key"},
		"another key":        {at(root.adopt(fresh), func(in *AdoptAuthorityInput) { in.PrivateKey = api.NewSecret(other.key) }), "CertificateMismatchException", "is not that of the certificate"},
		"no key":             {at(root.adopt(fresh), func(in *AdoptAuthorityInput) { in.PrivateKey = api.NewSecret("x") }), "InvalidArgsException", "not PEM"},
		"there is another":   {other.withKey(oldCA), "ConflictException", "another certificate, serial number 4d"},
		"there is a root":    {sub.adopt(oldCA), "ConflictException", "another certificate"},
		"there is one named": {&AdoptAuthorityInput{ARN: oldCA, Issue: ptr(true), CommonName: ptr("New")}, "ConflictException", `with the common name "Old root"`},
		"it is trusted":      {&AdoptAuthorityInput{ARN: trusted, Issue: ptr(true)}, "ConflictException", "known by its certificate alone"},
		"it waits":           {root.adopt(waiting), "ConflictException", "waits for its certificate"},
		"it was deleted":     {root.adopt(gone), "ConflictException", "restore-certificate-authority"},
		"the key is taken":   {root.adopt(fresh), "ConflictException", "it is that of the authority " + oldCA},
		"the id is taken":    {root.adopt(strings.Replace(oldCA, testAccount, "999999999999", 1)), "ConflictException", "an authority of account 123456789012"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.AdoptAuthority(c.ctx, refusal.in)
			wantCode(t, err, refusal.code, refusal.text)
		})
	}
	if after := c.described(oldCA); *after.Serial != *before.Serial || !after.LastStateChangeAt.Equal(before.LastStateChangeAt.Time) {
		t.Errorf("after refusals it is %+v", after)
	}
	_, err := c.DescribeCertificateAuthority(c.ctx, &acmpca.DescribeCertificateAuthorityRequest{CertificateAuthorityArn: fresh})
	c.refused(err, "ResourceNotFoundException", "")
	c.issue(oldCA, leafCSR(t, "a.example.com"), "", 30) // the key is still its own
}

// TestAdoptCertificate: issued and renewed as any other, or imported.
func TestAdoptCertificate(t *testing.T) {
	r := newACMRig(t)
	r.ca.adopt(&AdoptAuthorityInput{ARN: oldCA, Issue: ptr(true)}, "ACTIVE", true)
	adopt := func(in *AdoptCertificateInput, status string, made bool) {
		t.Helper()
		out, err := r.AdoptCertificate(r.ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		if want := (Adoption{in.ARN, status, made}); *out != want {
			t.Errorf("adopted as %+v, want %+v", *out, want)
		}
	}
	issue := &AdoptCertificateInput{ARN: oldCert, Authority: ptr(oldCA), Names: []string{"api.apps.local", "b.apps.local"}}
	adopt(issue, "PENDING_VALIDATION", true)
	adopt(issue, "PENDING_VALIDATION", false)
	r.issued()
	adopt(issue, "ISSUED", false)
	before := r.describe(t, oldCert)
	if *before.Type != acm.CertificateTypePrivate || strings.Join(before.SubjectAlternativeNames, " ") != "api.apps.local b.apps.local" {
		t.Errorf("described as %+v", before)
	}
	r.use(oldCert, "arn:aws:appmesh:eu-west-1:123456789012:mesh/apps/virtualNode/api")
	r.clock.forward(350 * 24 * time.Hour)
	if err := r.step(r.ctx); err != nil {
		t.Fatal(err)
	}
	if after := r.describe(t, oldCert); *after.Serial == *before.Serial || *after.CertificateArn != oldCert || *after.Status != acm.CertificateStatusIssued {
		t.Errorf("it was not renewed: %+v", after)
	}

	imported := strings.Replace(oldCert, "11111111", "22222222", 1)
	m := r.makeLeaf(t, leafSpec{algorithm: ca.P256, name: "own.apps.local", names: []string{"own.apps.local"}})
	own := m.adopt(imported)
	adopt(own, "ISSUED", true)
	adopt(own, "ISSUED", false)
	got, err := r.GetCertificate(r.ctx, &acm.GetCertificateRequest{CertificateArn: imported})
	if err != nil || *got.Certificate != string(m.certificate) || *got.CertificateChain != string(m.chain) || *r.describe(t, imported).Type != acm.CertificateTypeImported {
		t.Errorf("imported as %+v, %v", got, err)
	}
	again := r.makeLeaf(t, leafSpec{algorithm: ca.P256, name: "own.apps.local", names: []string{"own.apps.local"}}).request()
	again.CertificateArn = &imported
	if _, err := r.ImportCertificate(r.ctx, again); err != nil {
		t.Errorf("its successor cannot be imported: %v", err)
	}
	if err := r.DeleteCertificate(r.ctx, &acm.DeleteCertificateRequest{CertificateArn: imported}); err != nil {
		t.Fatal(err)
	}
	adopt(own, "ISSUED", true)
}

func (m material) adopt(arn string) *AdoptCertificateInput {
	return &AdoptCertificateInput{ARN: arn, Certificate: ptr(string(m.certificate)), Chain: ptr(string(m.chain)), PrivateKey: api.NewSecret(string(m.key))}
}

// TestAdoptCertificateRefused: what is refused, and that then nothing is changed.
func TestAdoptCertificateRefused(t *testing.T) {
	r := newACMRig(t)
	now := r.clock.Now()
	root := authorityElsewhere(t, pkix.Name{CommonName: "Old root"}, nil, now)
	trusted, off := strings.Replace(oldCA, "aaaaaaaa", "dddddddd", 1), strings.Replace(oldCA, "aaaaaaaa", "eeeeeeee", 1)
	r.ca.adopt(&AdoptAuthorityInput{ARN: oldCA, Issue: ptr(true)}, "ACTIVE", true)
	r.ca.adopt(&AdoptAuthorityInput{ARN: off, Issue: ptr(true)}, "ACTIVE", true)
	r.ca.must(r.ca.UpdateCertificateAuthority(r.ctx, &acmpca.UpdateCertificateAuthorityRequest{CertificateAuthorityArn: off, Status: ptr(disabled)}))
	r.ca.adopt(root.adopt(trusted), "ACTIVE", true)
	leaf := leafSpec{algorithm: ca.P256, name: "own.apps.local", names: []string{"own.apps.local"}}
	m, other := r.makeLeaf(t, leaf), r.makeLeaf(t, leaf)
	leaf.from, leaf.to = now.Add(-time.Hour), now.Add(-time.Minute)
	over := r.makeLeaf(t, leaf)
	imported, fresh := strings.Replace(oldCert, "11111111", "22222222", 1), strings.Replace(oldCert, "11111111", "33333333", 1)
	issue := func(arn, authority string, names ...string) *AdoptCertificateInput {
		return &AdoptCertificateInput{ARN: arn, Authority: &authority, Names: names}
	}
	for _, in := range []*AdoptCertificateInput{issue(oldCert, oldCA, "a.example.com"), m.adopt(imported)} {
		if _, err := r.AdoptCertificate(r.ctx, in); err != nil {
			t.Fatal(err)
		}
	}
	r.issued()
	before, beforeImported := r.describe(t, oldCert), r.describe(t, imported)
	at := func(in *AdoptCertificateInput, change func(*AdoptCertificateInput)) *AdoptCertificateInput {
		change(in)
		return in
	}
	for name, refusal := range map[string]struct {
		in         *AdoptCertificateInput
		code, text string
	}{
		"not an ARN":          {m.adopt("arn"), "InvalidArnException", "is not of the form"},
		"of Private CA":       {m.adopt(oldCA), "InvalidArnException", "is not of the form"},
		"another region":      {m.adopt(strings.Replace(fresh, "eu-west-1", "us-east-1", 1)), "InvalidArnException", "of the region us-east-1"},
		"another account":     {m.adopt(strings.Replace(fresh, testAccount, "999999999999", 1)), "InvalidArnException", "of the account 999999999999, and this server's is 123456789012"},
		"nothing given":       {&AdoptCertificateInput{ARN: fresh}, "InvalidParameterException", "give either"},
		"both":                {at(m.adopt(fresh), func(in *AdoptCertificateInput) { in.Names = []string{"a.example.com"} }), "InvalidParameterException", "give either"},
		"no names":            {issue(fresh, oldCA), "InvalidParameterException", "authority and names"},
		"no authority":        {&AdoptCertificateInput{ARN: fresh, Names: []string{"a.example.com"}}, "InvalidParameterException", "authority and names"},
		"no name":             {issue(fresh, oldCA, "a.example.com", "b_*"), "InvalidParameterException", "is no DNS name"},
		"an address":          {issue(fresh, oldCA, "10.0.0.1"), "InvalidParameterException", "is no DNS name"},
		"a long common name":  {issue(fresh, oldCA, strings.Repeat("a", 60)+".example.com"), "InvalidParameterException", "common name"},
		"unknown authority":   {issue(fresh, strings.Replace(oldCA, "aaaaaaaa", "ffffffff", 1), "a.example.com"), "ResourceNotFoundException", ""},
		"somebody's":          {issue(fresh, oldForeignCA, "a.example.com"), "AccessDeniedException", "no resource-based policy"},
		"a disabled one":      {issue(fresh, off, "a.example.com"), "InvalidParameterException", "is not ACTIVE"},
		"one without its key": {issue(fresh, trusted, "a.example.com"), "InvalidStateException", "fairlead ca adopt --arn " + trusted},
		"no chain":            {at(m.adopt(fresh), func(in *AdoptCertificateInput) { in.Chain = nil }), "InvalidParameterException", "all three are needed"},
		"a chain to nowhere": {at(m.adopt(fresh), func(in *AdoptCertificateInput) { in.Chain = ptr("\n") }), "InvalidParameterException",
			"does not end in a self-signed root"},
		"another chain":    {at(m.adopt(fresh), func(in *AdoptCertificateInput) { in.Chain = ptr(string(other.chain)) }), "InvalidParameterException", "does not certify"},
		"another key":      {at(m.adopt(fresh), func(in *AdoptCertificateInput) { in.PrivateKey = api.NewSecret(string(other.key)) }), "InvalidParameterException", "is not that of the certificate"},
		"no key":           {at(m.adopt(fresh), func(in *AdoptCertificateInput) { in.PrivateKey = api.Secret{} }), "InvalidParameterException", "all three are needed"},
		"over":             {over.adopt(fresh), "InvalidParameterException", "has expired"},
		"a CA":             {at(m.adopt(fresh), func(in *AdoptCertificateInput) { in.Certificate, in.PrivateKey = &root.own, api.NewSecret(root.key) }), "InvalidParameterException", "is an authority's"},
		"there is another": {other.adopt(imported), "ConflictException", "an imported certificate with another certificate"},
		"it was issued":    {m.adopt(oldCert), "ConflictException", "of the type PRIVATE"},
		"it was imported":  {issue(imported, oldCA, "own.apps.local"), "ConflictException", "of the type IMPORTED"},
		"for other names":  {issue(oldCert, oldCA, "b.example.com"), "ConflictException", `for ["a.example.com"]`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := r.AdoptCertificate(r.ctx, refusal.in)
			wantCode(t, err, refusal.code, refusal.text)
		})
	}
	if after := r.describe(t, oldCert); *after.Serial != *before.Serial {
		t.Errorf("after refusals it is %+v", after)
	}
	if after := r.describe(t, imported); *after.Serial != *beforeImported.Serial || !after.ImportedAt.Equal(beforeImported.ImportedAt.Time) {
		t.Errorf("after refusals it is %+v", after)
	}
	_, err := r.DescribeCertificate(r.ctx, &acm.DescribeCertificateRequest{CertificateArn: fresh})
	wantCode(t, err, "ResourceNotFoundException", "")
}

// TestAdoptAfterFailure: what was refused by its authority and never issued may
// be adopted anew under the same ARN, also as something else.
func TestAdoptAfterFailure(t *testing.T) {
	r := newACMRig(t)
	short := r.permit(r.ca.root(30)) // ends before a certificate would
	r.ca.adopt(&AdoptAuthorityInput{ARN: oldCA, Issue: ptr(true)}, "ACTIVE", true)
	for _, authority := range []string{short, oldCA} {
		out, err := r.AdoptCertificate(r.ctx, &AdoptCertificateInput{ARN: oldCert, Authority: &authority, Names: []string{"a.example.com"}})
		if err != nil || !out.Adopted {
			t.Fatalf("%+v, %v", out, err)
		}
		r.issued()
		want := map[string]acm.CertificateStatus{short: acm.CertificateStatusFailed, oldCA: acm.CertificateStatusIssued}[authority]
		if got := *r.describe(t, oldCert).Status; got != want {
			t.Errorf("below %s it is %s, want %s", authority, got, want)
		}
	}
}

// TestAdoptServed: what is adopted comes into the view of a mesh that names it,
// with the CRLs that this server can know to be complete.
func TestAdoptServed(t *testing.T) {
	r := newACMRig(t)
	c := r.ca
	other := func(arn, id string) string {
		return strings.Replace(arn, arn[strings.LastIndexByte(arn, '/')+1:][:8], id, 1)
	}
	adopt := func(in *AdoptCertificateInput) {
		t.Helper()
		if _, err := r.AdoptCertificate(r.ctx, in); err != nil {
			t.Fatal(err)
		}
		r.issued()
	}
	issue := func(arn, authority string) *AdoptCertificateInput {
		return &AdoptCertificateInput{ARN: arn, Authority: &authority, Names: []string{"api.apps.local"}}
	}
	fresh, trusted, keyed := oldForeignCA, other(oldCA, "cccccccc"), other(oldCA, "dddddddd")
	c.adopt(&AdoptAuthorityInput{ARN: fresh, Issue: ptr(true)}, "ACTIVE", true)
	root := authorityElsewhere(t, pkix.Name{CommonName: "Old root"}, nil, c.clock.Now())
	c.adopt(root.adopt(trusted), "ACTIVE", true)
	own := authorityElsewhere(t, pkix.Name{CommonName: "Own root"}, nil, c.clock.Now())
	c.adopt(own.withKey(keyed), "ACTIVE", true)
	adopt(issue(oldCert, fresh))
	adopt(issue(other(oldCert, "22222222"), keyed))

	c.trust(fresh, trusted, keyed)
	roots := c.view().Authorities
	if len(roots) != 3 || roots[trusted].Roots != root.own || roots[keyed].Roots != own.own {
		t.Fatalf("the roots are %v", roots)
	}
	c.crls(roots[fresh].CRLs, fresh)
	if roots[trusted].CRLs != "" || roots[keyed].CRLs != "" {
		t.Error("CRLs are served of trees that nobody knows here")
	}
	r.use(oldCert, other(oldCert, "22222222"))
	for arn, root := range map[string]string{oldCert: fresh, other(oldCert, "22222222"): keyed} {
		served := c.view().Certificates[arn]
		c.verify(served, "api.apps.local")
		if c.crls(served.CRLs, root); served.Root != root {
			t.Errorf("the root of %s is %s, want %s", arn, served.Root, root)
		}
	}

	// The list that is made anew keeps what is not known, and needs no key that is not there.
	c.clock.forward(20 * 24 * time.Hour)
	c.must(c.renewLists(c.ctx))
	c.trust(fresh, trusted, keyed)
	roots = c.view().Authorities
	if c.crls(roots[fresh].CRLs, fresh); roots[trusted].CRLs != "" || roots[keyed].CRLs != "" {
		t.Error("CRLs are served of trees that nobody knows here, after they were made anew")
	}
	c.adopt(root.withKey(trusted), "ACTIVE", true)
	if c.view().Authorities[trusted].CRLs != "" {
		t.Error("CRLs are served of a tree that nobody knows here, once its root has its key")
	}

	// An imported certificate finds its root, whichever comes first.
	m := r.makeLeaf(t, leafSpec{algorithm: ca.P256, name: "own.apps.local", names: []string{"own.apps.local"}})
	late := &elsewhere{own: string(m.chain)}
	imported, again, lateCA := other(oldCert, "33333333"), other(oldCert, "44444444"), other(oldCA, "eeeeeeee")
	adopt(m.adopt(imported))
	r.use(imported)
	if served := c.view().Certificates[imported]; served.Root != "" || served.Roots != string(m.chain) {
		t.Errorf("before its root is known it is %q, its roots %q", served.Root, served.Roots)
	}
	c.adopt(late.adopt(lateCA), "ACTIVE", true)
	adopt(m.adopt(again))
	r.use(imported, again)
	for _, arn := range []string{imported, again} {
		if served := c.view().Certificates[arn]; served.Root != lateCA || served.CRLs != "" {
			t.Errorf("the root of %s is %q", arn, served.Root)
		}
	}
}

// TestAdoptAtOnce: of many that adopt the same there is one, and all are told.
func TestAdoptAtOnce(t *testing.T) {
	c := newCATest(t)
	var group errgroup.Group
	made := make(chan bool, 8)
	for range cap(made) {
		group.Go(func() error {
			out, err := c.AdoptAuthority(c.ctx, &AdoptAuthorityInput{ARN: oldCA, Issue: ptr(true)})
			if err == nil {
				made <- out.Adopted
			}
			return err
		})
	}
	c.must(group.Wait())
	close(made)
	n := 0
	for one := range made {
		if one {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d say that they made it", n)
	}
	c.issue(oldCA, leafCSR(t, "a.example.com"), "", 30)
}

// TestAdoptedKeysAreSealed: the key of what is adopted is in no log and no file.
func TestAdoptedKeysAreSealed(t *testing.T) {
	dir := t.TempDir()
	c := newCATestOn(t, store.Config{DataDir: dir, UnsafeNoFsync: true}, &clock{now: time.Now().Truncate(time.Second)})
	r := newACMRigOn(t, c)
	root := authorityElsewhere(t, pkix.Name{CommonName: "Old root"}, nil, c.clock.Now())
	other := authorityElsewhere(t, pkix.Name{CommonName: "Old root"}, nil, c.clock.Now())
	m := r.makeLeaf(t, leafSpec{algorithm: ca.P256, name: "own.apps.local", names: []string{"own.apps.local"}})
	c.adopt(root.withKey(oldCA), "ACTIVE", true)
	if _, err := c.AdoptAuthority(c.ctx, other.withKey(oldCA)); err == nil {
		t.Fatal("another one was adopted")
	}
	if _, err := r.AdoptCertificate(r.ctx, m.adopt(oldCert)); err != nil {
		t.Fatal(err)
	}
	c.Store.Close()
	var files []byte
	c.must(filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		files = append(files, text...)
		return err
	}))
	if !bytes.Contains(files, []byte(base64.StdEncoding.EncodeToString(root.ca.Certificate.Raw))) {
		t.Fatal("not even the certificate is in the files: this test looks at the wrong ones")
	}
	for _, key := range []string{root.key, other.key, string(m.key)} {
		block, _ := pem.Decode([]byte(key))
		for form, text := range map[string][]byte{
			"DER": block.Bytes, "PEM": []byte(key)[30:90], "base64": []byte(base64.StdEncoding.EncodeToString(block.Bytes)), "hex": []byte(hex.EncodeToString(block.Bytes)),
		} {
			if bytes.Contains(files, text) || strings.Contains(c.logs.String()+r.log.String(), string(text)) {
				t.Errorf("a key is in a file or in the log as %s", form)
			}
		}
	}
}

// FuzzAdoptedARN: an ARN names one place of this region, or none.
func FuzzAdoptedARN(f *testing.F) {
	for _, arn := range []string{oldCA, oldCert, "arn:aws:acm:::certificate/", "::::::", ""} {
		f.Add(arn)
	}
	f.Fuzz(func(t *testing.T, arn string) {
		account, id, err := parseAdopted(arn, testRegion, "acm", "certificate")
		if err != nil {
			if exception(err) != "InvalidArnException" || len(err.Error()) > 4096 {
				t.Errorf("%q: %v", arn, err)
			}
			return
		}
		if arn != "arn:aws:acm:eu-west-1:"+account+":certificate/"+id {
			t.Errorf("%q is read as %s %s", arn, account, id)
		}
	})
}
