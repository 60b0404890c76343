package ca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

func TestValidity(t *testing.T) {
	leapDay := time.Date(2028, 2, 29, 12, 0, 0, 999, time.UTC)
	endOfJanuary := time.Date(2027, 1, 31, 23, 59, 59, 0, time.UTC)
	for _, c := range []struct {
		validity Validity
		now      time.Time
		want     string // or a part of the error
	}{
		{Validity{Days, 1}, start, "2026-11-24T00:00:00Z"},
		{Validity{Days, 395}, start, "2027-12-23T00:00:00Z"},
		{Validity{Days, 3_000_000}, start, "year 9999"},
		{Validity{Days, 1 << 62}, start, "year 9999"},
		{Validity{Days, 0}, start, "at least 1"},
		{Validity{Days, -1}, start, "at least 1"},
		{Validity{Months, 1}, endOfJanuary, "2027-02-28T23:59:59Z"},
		{Validity{Months, 13}, endOfJanuary, "2028-02-29T23:59:59Z"},
		{Validity{Months, 3}, endOfJanuary, "2027-04-30T23:59:59Z"},
		{Validity{Years, 1}, leapDay, "2029-02-28T12:00:00Z"},
		{Validity{Years, 4}, leapDay, "2032-02-29T12:00:00Z"},
		{Validity{Years, 7973}, start, "9999-11-23T00:00:00Z"},
		{Validity{Years, 7974}, start, "year 9999"},
		{Validity{Absolute, 253402300799}, start, "9999-12-31T23:59:59Z"},
		{Validity{Absolute, 253402300800}, start, "year 9999"},
		{Validity{Absolute, 1}, start, "1970-01-01T00:00:01Z"},
		{Validity{EndDate, 20271231235959}, start, "2027-12-31T23:59:59Z"},
		{Validity{EndDate, 99991231235959}, start, "9999-12-31T23:59:59Z"},
		{Validity{EndDate, 271231235959}, start, "2027-12-31T23:59:59Z"},
		{Validity{EndDate, 10203040506}, start, "2001-02-03T04:05:06Z"}, // 01 02 03 …
		{Validity{EndDate, 491231235959}, start, "2049-12-31T23:59:59Z"},
		{Validity{EndDate, 500101000000}, start, "1950-01-01T00:00:00Z"},
		{Validity{EndDate, 991231235959}, start, "1999-12-31T23:59:59Z"},
		{Validity{EndDate, 20270229000000}, start, "not a date"},
		{Validity{EndDate, 20271301000000}, start, "not a date"},
		{Validity{EndDate, 20270101240000}, start, "not a date"},
		{Validity{EndDate, 2027010100000}, start, "neither"},
		{Validity{EndDate, 120270101000000}, start, "neither"},
		{Validity{EndDate, 1}, start, "not a date"},
		{Validity{"WEEKS", 1}, start, "WEEKS"},
		{Validity{"", 1}, start, "is not one of"},
	} {
		end, err := c.validity.End(c.now)
		got := stamp(end)
		if err != nil {
			got = err.Error()
		}
		if err != nil && KindOf(err) != InvalidArgs || !strings.Contains(got, c.want) {
			t.Errorf("%v: %s, want %s", c.validity, got, c.want)
		}
	}
}

// TestRefusedRequests says what IssueCertificate refuses, and with what.
func TestRefusedRequests(t *testing.T) {
	authority, _ := testAuthority(t, P256)
	leaf := testKey(t, P256)
	with := func(template *x509.CertificateRequest) *CSR {
		return parseCSR(t, requestFor(t, leaf.Signer(), template))
	}
	plainCSR := with(&x509.CertificateRequest{Subject: pkix.Name{CommonName: "leaf"}})
	passing := func(e Extensions) func(*Request) {
		return func(r *Request) {
			r.Template, r.Passthrough = named(t, "BlankEndEntityCertificate_APIPassthrough"), &Passthrough{Extensions: &e}
		}
	}
	long := strings.Repeat("a", 65)
	for _, c := range []struct {
		name string
		edit func(*Request)
		kind Kind
		says string
	}{
		{"no subject, no name", func(r *Request) { r.CSR = with(&x509.CertificateRequest{}) }, InvalidArgs, "neither a subject nor"},
		{"an authority without a subject", func(r *Request) {
			r.CSR, r.Template = with(&x509.CertificateRequest{DNSNames: []string{"a.b"}}), named(t, "SubordinateCACertificate_PathLen0")
		}, InvalidArgs, "must have a subject"},
		{"a root's template", func(r *Request) { r.Template = named(t, "RootCACertificate") }, InvalidArgs, "for itself"},
		{"longer than the authority", func(r *Request) { r.Validity = Validity{Years, 11} }, InvalidDuration, "exceeds the certificate authority validity"},
		{"a second longer than the authority", func(r *Request) { r.Validity = Validity{Absolute, authority.Certificate.NotAfter.Unix() + 1} }, InvalidDuration, "exceeds"},
		{"short-lived", func(r *Request) {
			r.ShortLived, r.Validity = true, Validity{Absolute, start.Add(shortLived).Unix() + 1}
		}, InvalidDuration, "7 days"},
		{"past", func(r *Request) { r.Validity = Validity{Absolute, start.Unix()} }, InvalidArgs, "past"},
		{"ends before it begins", func(r *Request) { r.NotBefore = &Validity{Absolute, start.AddDate(1, 0, 0).Unix()} }, InvalidArgs, "before it begins"},
		{"relative beginning", func(r *Request) { r.NotBefore = &Validity{Days, 1} }, InvalidArgs, "ABSOLUTE"},
		{"expired authority", func(r *Request) { r.Now = start.AddDate(10, 0, 1) }, InvalidState, "not in a valid state for issuing certificates"},
		{"authority of the future", func(r *Request) { r.Now = start.AddDate(-1, 0, 0) }, InvalidState, "not in a valid state"},
		{"signing authority's usage on a leaf", passing(Extensions{KeyUsage: x509.KeyUsageCertSign}), InvalidArgs, "keyCertSign"},
		{"name constraints on a leaf", passing(Extensions{Custom: []CustomExtension{{OID: "2.5.29.30", Critical: true, Value: b64(der(t, struct {
			Permitted []struct {
				Name string `asn1:"tag:2,ia5"`
			} `asn1:"tag:0"`
		}{[]struct {
			Name string `asn1:"tag:2,ia5"`
		}{{"example.com"}}}))}}}), InvalidArgs, "only for authorities"},
		{"unknown usage", passing(Extensions{EKU: []ExtendedKeyUsage{{Type: "EVERYTHING"}}}), InvalidArgs, "EVERYTHING"},
		{"two kinds of usage", passing(Extensions{EKU: []ExtendedKeyUsage{{Type: "SERVER_AUTH", OID: "1.2.3"}}}), InvalidArgs, "either"},
		{"extension that is no DER", passing(Extensions{Custom: []CustomExtension{{OID: "1.2.3", Value: b64([]byte{4, 9, 1})}}}), InvalidArgs, "one DER element"},
		{"extension that is no base64", passing(Extensions{Custom: []CustomExtension{{OID: "1.2.3", Value: "!"}}}), InvalidArgs, "base64"},
		{"names that are no names", passing(Extensions{Custom: []CustomExtension{{OID: "2.5.29.17", Value: b64([]byte{4, 1, 1})}}}), InvalidArgs, "could not be read"},
		{"extension twice", passing(Extensions{Custom: []CustomExtension{{OID: "1.2.3", Value: "BQA="}, {OID: "1.2.3", Value: "BQA="}}}), InvalidArgs, "twice"},
		{"huge arc", passing(Extensions{Custom: []CustomExtension{{OID: "1.2.2147483648", Value: "BQA="}}}), InvalidArgs, "larger than"},
		{"not an OID", passing(Extensions{Custom: []CustomExtension{{OID: "3.2.1", Value: "BQA="}}}), InvalidArgs, "not of the form"},
		{"second arc", passing(Extensions{Custom: []CustomExtension{{OID: "1.40.1", Value: "BQA="}}}), InvalidArgs, "below 40"},
		{"name of two kinds", passing(Extensions{SANs: []GeneralName{{DNS: "a", URI: "b:c"}}}), InvalidArgs, "exactly one"},
		{"name of no kind", passing(Extensions{SANs: []GeneralName{{}}}), InvalidArgs, "exactly one"},
		{"control character", passing(Extensions{SANs: []GeneralName{{DNS: "a\x00.example.com"}}}), InvalidArgs, "printable"},
		{"bad IP", passing(Extensions{SANs: []GeneralName{{IP: "10.0.0.0/8"}}}), InvalidArgs, "not an IPv4"},
		{"too many names", passing(Extensions{SANs: make([]GeneralName, 151)}), InvalidArgs, "at most 150"},
		{"two letters", func(r *Request) {
			r.Template, r.Passthrough = named(t, "EndEntityCertificate_APIPassthrough"), &Passthrough{Subject: &Subject{Country: "D1"}}
		}, InvalidArgs, "two letters"},
		{"long name", func(r *Request) {
			r.Template, r.Passthrough = named(t, "EndEntityCertificate_APIPassthrough"), &Passthrough{Subject: &Subject{CommonName: long}}
		}, InvalidArgs, "65 characters"},
		{"mixed attributes", func(r *Request) {
			r.Template, r.Passthrough = named(t, "EndEntityCertificate_APIPassthrough"), &Passthrough{Subject: &Subject{CommonName: "a", Custom: []Attribute{{"2.5.4.3", "b"}}}}
		}, InvalidArgs, "mixed"},
	} {
		r := Request{CSR: plainCSR, Template: named(t, "EndEntityCertificate"), Algorithm: SHA256WithECDSA, Validity: Validity{Days, 30}, Now: start, Serial: testSerial(t)}
		c.edit(&r)
		_, err := authority.IssueCertificate(r)
		if KindOf(err) != c.kind || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v (%s), want %s: … %s", c.name, err, KindOf(err), c.kind, c.says)
		}
	}
	weakSerial := Request{CSR: plainCSR, Template: named(t, "EndEntityCertificate"), Algorithm: SHA256WithECDSA, Validity: Validity{Days, 30}, Now: start}
	weakSerial.Serial[15] = 1
	if _, err := authority.IssueCertificate(weakSerial); err == nil || KindOf(err) != "" {
		t.Errorf("serial 1: %v, want it refused as a mistake of ours", err)
	}
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func TestLimitsThatJustFit(t *testing.T) {
	authority, key := testAuthority(t, P256)
	csr := parseCSR(t, requestFor(t, testKey(t, P256).Signer(), &x509.CertificateRequest{DNSNames: []string{"a.example.com"}}))
	r := Request{CSR: csr, Template: named(t, "EndEntityCertificate"), Algorithm: SHA256WithECDSA, Now: start, Serial: testSerial(t)}
	for _, validity := range []Validity{{Absolute, authority.Certificate.NotAfter.Unix()}, {Days, 1}} {
		r.Validity = validity
		if _, err := authority.IssueCertificate(r); err != nil {
			t.Errorf("%v: %v", validity, err)
		}
	}
	r.ShortLived, r.Validity = true, Validity{Days, 7}
	der, err := authority.IssueCertificate(r)
	if err != nil {
		t.Fatal(err)
	}
	if c := parse(t, der); !c.NotBefore.Equal(start.Add(-time.Hour)) || !find(c.Extensions, oidSAN).Critical {
		t.Errorf("begins %s, names critical %t; want an hour before, and critical names without a subject", c.NotBefore, find(c.Extensions, oidSAN).Critical)
	}
	forever := selfRequest(t, key, "Test root")
	forever.Validity, forever.ShortLived = Validity{Absolute, 253402300799}, true
	if der, err = SelfSign(key.Signer(), forever); err != nil || parse(t, der).NotAfter.Year() != 9999 {
		t.Errorf("a root without an end: %v", err)
	}
}

// TestChainsAndPathLengths issues authority under authority as far as the path
// lengths allow.
func TestChainsAndPathLengths(t *testing.T) {
	root, _ := testAuthority(t, P256)
	under := func(parent *Authority, template string) (*Authority, error) {
		key := testKey(t, P256)
		csr, err := AuthorityCSR(key, SHA256WithECDSA, &Subject{CommonName: template}, CSRExtensions{})
		if err != nil {
			t.Fatal(err)
		}
		der, err := parent.IssueCertificate(Request{CSR: parseCSR(t, csr), Template: named(t, template), Algorithm: SHA256WithECDSA, Validity: Validity{Years, 1}, Now: start, Serial: testSerial(t)})
		if err != nil {
			return nil, err
		}
		return NewAuthority(parse(t, der), append([]*x509.Certificate{parent.Certificate}, parent.Chain...), key.Signer())
	}
	second, err := under(root, "SubordinateCACertificate_PathLen2")
	if err != nil {
		t.Fatal(err)
	}
	for _, tooLong := range []string{"SubordinateCACertificate_PathLen2", "SubordinateCACertificate_PathLen3", "BlankSubordinateCACertificate_PathLen2_CSRPassthrough"} {
		if _, err := under(second, tooLong); KindOf(err) != InvalidArgs {
			t.Errorf("%s under path length 2: %v", tooLong, err)
		}
	}
	third, err := under(second, "SubordinateCACertificate_PathLen1")
	if err != nil {
		t.Fatal(err)
	}
	fourth, err := under(third, "SubordinateCACertificate_PathLen0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := under(fourth, "SubordinateCACertificate_PathLen0"); KindOf(err) != InvalidArgs {
		t.Errorf("an authority under path length 0: %v", err)
	}
	leaf, err := fourth.Issue(Names{DNS: []string{"a.example.com"}}, start, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(leaf.Chain), "BEGIN"); n != 4 {
		t.Errorf("the chain has %d certificates; want the leaf and three authorities, no root", n)
	}
	block, _ := pem.Decode(leaf.Chain)
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root.Certificate)
	between.AppendCertsFromPEM(leaf.Chain)
	if _, err := parse(t, block.Bytes).Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: start, DNSName: "a.example.com"}); err != nil {
		t.Error(err)
	}
	if _, err := NewAuthority(fourth.Certificate, []*x509.Certificate{second.Certificate, root.Certificate}, fourth.key); KindOf(err) != MalformedCertificate {
		t.Errorf("a chain with a gap: %v", err)
	}
	if _, err := NewAuthority(fourth.Certificate, fourth.Chain, third.key); KindOf(err) != CertificateMismatch {
		t.Errorf("another's key: %v", err)
	}
}

func TestSelfSigningIsForTheAuthoritysOwnCSR(t *testing.T) {
	key := testKey(t, P256)
	r := selfRequest(t, testKey(t, P256), "another")
	if _, err := SelfSign(key.Signer(), r); KindOf(err) != InvalidArgs {
		t.Errorf("another's CSR: %v", err)
	}
	r = selfRequest(t, key, "own")
	r.Template = named(t, "SubordinateCACertificate_PathLen0")
	if _, err := SelfSign(key.Signer(), r); KindOf(err) != InvalidState {
		t.Errorf("a subordinate's template: %v", err)
	}
}

func TestLeavesOfAnAuthorityThatIsNotValid(t *testing.T) {
	authority, _ := testAuthority(t, P256)
	for _, now := range []time.Time{start.AddDate(10, 0, 1), start.AddDate(-1, 0, 0)} {
		if _, err := authority.Issue(Names{DNS: []string{"a.local"}}, now, time.Hour); KindOf(err) != InvalidState {
			t.Errorf("at %s: %v", now, err)
		}
	}
}

// TestAuthorityWithoutKeyID has what it issues name it by SHA-1 of its key, as
// AWS does.
func TestAuthorityWithoutKeyID(t *testing.T) {
	m := forge(t, "old", nil, func(c *x509.Certificate) {
		c.KeyUsage, c.BasicConstraintsValid, c.ExtraExtensions = caUsage, false, []pkix.Extension{basicConstraintsExtension(true, -1, true)}
	})
	authority, err := NewAuthority(m.Certificate, nil, m.key.Signer())
	if err != nil {
		t.Fatal(err)
	}
	want := documentedKeyID(spkiBits(t, m.Certificate))
	raw, err := authority.SignCRL(CRL{ThisUpdate: start, NextUpdate: start.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	list, err := x509.ParseRevocationList(raw)
	if err != nil {
		t.Fatal(err)
	}
	if leaf := testLeaf(t, authority); len(m.SubjectKeyId) > 0 || !bytes.Equal(leaf.AuthorityKeyId, want) || !bytes.Equal(list.AuthorityKeyId, want) {
		t.Errorf("authority %x; its leaf names %x, its CRL %x, want %x", m.SubjectKeyId, leaf.AuthorityKeyId, list.AuthorityKeyId, want)
	}
}

// TestRoomBelow counts as RFC 5280 4.2.1.9 does: a certificate that an
// authority has for its own new key is not one more.
func TestRoomBelow(t *testing.T) {
	of := func(subject, issuer string, pathLen int) *x509.Certificate {
		return &x509.Certificate{RawSubject: []byte(subject), RawIssuer: []byte(issuer), MaxPathLen: pathLen, MaxPathLenZero: pathLen == 0}
	}
	for _, c := range []struct {
		chain []*x509.Certificate
		want  int
		bad   bool
	}{
		{[]*x509.Certificate{of("root", "root", -1)}, -1, false},
		{[]*x509.Certificate{of("root", "root", 2)}, 2, false},
		{[]*x509.Certificate{of("sub", "root", -1), of("root", "root", 2)}, 1, false},
		{[]*x509.Certificate{of("sub", "root", 0), of("root", "root", 2)}, 0, false},
		{[]*x509.Certificate{of("sub", "root", -1), of("root", "root", 0)}, 0, true},
		{[]*x509.Certificate{of("root", "root", -1), of("root", "root", 1)}, 1, false},
		{[]*x509.Certificate{of("sub", "root", -1), of("root", "root", -1), of("root", "root", 1)}, 0, false},
	} {
		if room, err := roomBelow(c.chain); (err != nil) != c.bad || room != c.want {
			t.Errorf("%d certificates: room %d, %v; want %d", len(c.chain), room, err, c.want)
		}
	}
}

// constrainedAuthority has name constraints of every kind.
func constrainedAuthority(t *testing.T) *Authority {
	t.Helper()
	key := testKey(t, P256)
	_, ten, _ := net.ParseCIDR("10.0.0.0/8")
	_, tenOne, _ := net.ParseCIDR("10.1.0.0/16")
	template := &x509.Certificate{
		SerialNumber: testSerial(t).Int(), Subject: pkix.Name{CommonName: "constrained"}, NotBefore: start.Add(-time.Hour), NotAfter: start.AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: caUsage, PermittedDNSDomainsCritical: true,
		PermittedDNSDomains: []string{"example.com"}, ExcludedDNSDomains: []string{"secret.example.com"},
		PermittedURIDomains: []string{"td.example.com", ".mesh.local"}, ExcludedURIDomains: []string{"bad.mesh.local"},
		PermittedIPRanges: []*net.IPNet{ten}, ExcludedIPRanges: []*net.IPNet{tenOne},
		PermittedEmailAddresses: []string{"example.com"}, ExcludedEmailAddresses: []string{"root@example.com"},
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key.Signer())
	if err != nil {
		t.Fatal(err)
	}
	authority, err := NewAuthority(parse(t, raw), nil, key.Signer())
	if err != nil {
		t.Fatal(err)
	}
	return authority
}

// TestNameConstraints also asks Go: it must take what is issued.
func TestNameConstraints(t *testing.T) {
	authority := constrainedAuthority(t)
	roots := x509.NewCertPool()
	roots.AddCert(authority.Certificate)
	for _, c := range []struct {
		name GeneralName
		ok   bool
	}{
		{GeneralName{DNS: "example.com"}, true},
		{GeneralName{DNS: "a.EXAMPLE.com"}, true},
		{GeneralName{DNS: "*.b.example.com"}, true},
		{GeneralName{DNS: "notexample.com"}, false},
		{GeneralName{DNS: "example.com.evil.org"}, false},
		{GeneralName{DNS: "secret.example.com"}, false},
		{GeneralName{DNS: "x.secret.example.com"}, false},
		{GeneralName{DNS: "*.example.com"}, false}, // it stands for secret.example.com (CVE-2025-61727)
		{GeneralName{DNS: "*.secret.example.com"}, false},
		{GeneralName{URI: "spiffe://td.example.com/a"}, true},
		{GeneralName{URI: "spiffe://x.td.example.com/a"}, false},
		{GeneralName{URI: "spiffe://a.mesh.local/a"}, true},
		{GeneralName{URI: "spiffe://mesh.local/a"}, false},
		{GeneralName{URI: "spiffe://bad.mesh.local/a"}, false},
		{GeneralName{URI: "spiffe://x.bad.mesh.local/a"}, false},
		{GeneralName{URI: "urn:no:host"}, false},
		{GeneralName{URI: "https://10.0.0.1/"}, false},
		{GeneralName{IP: "10.2.3.4"}, true},
		{GeneralName{IP: "10.1.3.4"}, false},
		{GeneralName{IP: "11.0.0.1"}, false},
		{GeneralName{IP: "::1"}, false},
		{GeneralName{Email: "a@example.com"}, true},
		{GeneralName{Email: "root@example.com"}, false},
		{GeneralName{Email: "a@sub.example.com"}, false},
		{GeneralName{Email: "a@evil.org"}, false},
	} {
		r := Request{
			CSR:      parseCSR(t, requestFor(t, testKey(t, P256).Signer(), &x509.CertificateRequest{Subject: pkix.Name{CommonName: "leaf"}})),
			Template: named(t, "EndEntityCertificate_APIPassthrough"), Passthrough: &Passthrough{Extensions: &Extensions{SANs: []GeneralName{c.name}}},
			Algorithm: SHA256WithECDSA, Validity: Validity{Days, 1}, Now: start, Serial: testSerial(t),
		}
		raw, err := authority.IssueCertificate(r)
		if c.ok != (err == nil) || err != nil && KindOf(err) != NameConstraints {
			t.Errorf("%+v: %v (%s), want ok %t", c.name, err, KindOf(err), c.ok)
		}
		if err == nil {
			if _, err := parse(t, raw).Verify(x509.VerifyOptions{Roots: roots, CurrentTime: start, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
				t.Errorf("%+v is issued, and refused by Go: %v", c.name, err)
			}
		}
	}
	r := Request{
		CSR:      parseCSR(t, requestFor(t, testKey(t, P256).Signer(), &x509.CertificateRequest{Subject: pkix.Name{CommonName: "host.evil.org"}})),
		Template: named(t, "EndEntityCertificate"), Algorithm: SHA256WithECDSA, Validity: Validity{Days, 1}, Now: start, Serial: testSerial(t),
	}
	if _, err := authority.IssueCertificate(r); KindOf(err) != NameConstraints {
		t.Errorf("a host outside the constraints as common name: %v", err)
	}
	r.Template, r.Passthrough = named(t, "EndEntityCertificate_APIPassthrough"), &Passthrough{Subject: &Subject{Custom: []Attribute{{"1.2.840.113549.1.9.1", "a@evil.org"}}}}
	if _, err := authority.IssueCertificate(r); KindOf(err) != NameConstraints {
		t.Errorf("an address outside the constraints in the subject: %v", err)
	}
	if _, err := authority.IssueLeaf(LeafRequest{PublicKey: testKey(t, P256).Public(), Names: Names{DNS: []string{"a.evil.org"}}, Now: start, Life: time.Hour, Serial: testSerial(t)}); KindOf(err) != NameConstraints {
		t.Errorf("a leaf of ours outside the constraints: %v", err)
	}
}

// brokenSigner is a key service that answers with another's signature.
type brokenSigner struct {
	crypto.Signer
	signs crypto.Signer
	asked int
}

func (b *brokenSigner) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	b.asked++
	return b.signs.Sign(random, digest, opts)
}

func TestWhatIsSignedIsLintedAndVerified(t *testing.T) {
	good, key := testAuthority(t, P256)
	signer := &brokenSigner{key.Signer(), testKey(t, P256).Signer(), 0}
	authority, err := NewAuthority(good.Certificate, nil, signer)
	if err != nil {
		t.Fatal(err)
	}
	r := benchRequest(t)
	if der, err := authority.IssueCertificate(r); err == nil || der != nil || KindOf(err) != "" {
		t.Errorf("a wrong signature: %v, want it refused as a failure of ours", err)
	}
	if signer.asked != 1 {
		t.Errorf("the key was asked %d times", signer.asked)
	}
	r.Template, r.Passthrough = named(t, "BlankEndEntityCertificate_APIPassthrough"), &Passthrough{Extensions: &Extensions{KeyUsage: x509.KeyUsageCertSign}}
	if _, err := authority.IssueCertificate(r); err == nil || signer.asked != 1 {
		t.Errorf("%v; the key was asked %d times for what the lint refuses", err, signer.asked)
	}
	if _, err := authority.SignCRL(CRL{ThisUpdate: start, NextUpdate: start.Add(time.Hour)}); err == nil {
		t.Error("a CRL with a wrong signature came out")
	}
	if _, err := authority.SignOCSP(Status{Serial: r.Serial.Int(), Known: true}, crypto.SHA256, start, start.Add(time.Hour)); err == nil {
		t.Error("an OCSP answer with a wrong signature came out")
	}
	if err := authority.Try(); err == nil {
		t.Error("a key that signs wrongly can be used")
	}
}

func TestEveryKeyCanBeTried(t *testing.T) {
	for _, a := range keyAlgorithms {
		authority, _ := testAuthority(t, a.name)
		if err := authority.Try(); err != nil {
			t.Errorf("%s: %v", a.name, err)
		}
	}
}

func TestHostileCSRs(t *testing.T) {
	key := testKey(t, P256)
	good := requestFor(t, key.Signer(), &x509.CertificateRequest{Subject: pkix.Name{CommonName: "a"}})
	block, _ := pem.Decode(good)
	tampered := bytes.Clone(block.Bytes)
	tampered[bytes.Index(tampered, []byte{0x13, 1, 'a'})+2] = 'b'
	encode := func(der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	}
	rsaKey := func(bits int) []byte {
		k, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		return requestFor(t, k, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "a"}})
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	many := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "a"}}
	for i := range maxCSRExtensions + 1 {
		many.ExtraExtensions = append(many.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, i}, Value: []byte{5, 0}})
	}
	twice := &x509.CertificateRequest{ExtraExtensions: []pkix.Extension{{Id: oidSAN, Value: rawNames(t, "a.b")}, {Id: oidSAN, Value: rawNames(t, "c.d")}}}
	for _, c := range []struct {
		name string
		text []byte
		says string
	}{
		{"empty", nil, "not a PEM block"},
		{"DER", block.Bytes, "not a PEM block"},
		{"certificate", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes}), "not a PEM block"},
		{"two", append(bytes.Clone(good), good...), "after its PEM block"},
		{"trailing data", append(bytes.Clone(good), "x"...), "after its PEM block"},
		{"cut", encode(block.Bytes[:len(block.Bytes)-5]), "cannot be read"},
		{"trailing DER", encode(append(bytes.Clone(block.Bytes), 5, 0)), "cannot be read"},
		{"tampered", encode(tampered), "not by its key"},
		{"large", bytes.Repeat([]byte("a"), maxPEM+1), "32769 bytes"},
		{"RSA 1024", rsaKey(1024), "1024 bits"},
		{"P-224", requestFor(t, p224, &x509.CertificateRequest{}), "P-224"},
		{"many extensions", requestFor(t, key.Signer(), many), "151 extensions"},
		{"extension twice", requestFor(t, key.Signer(), twice), "duplicate requested extensions"},
	} {
		if _, err := ParseCSR(c.text); KindOf(err) != MalformedCSR || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want … %s", c.name, err, c.says)
		}
	}
	for _, k := range []*rsa.PublicKey{
		{N: new(big.Int).Lsh(big.NewInt(1), 2046), E: 65537}, {N: new(big.Int).Lsh(big.NewInt(1), 4096), E: 65537},
		{N: new(big.Int).Lsh(big.NewInt(1), 2047), E: 3}, {N: new(big.Int).Lsh(big.NewInt(1), 2047), E: 65538},
	} {
		if checkKeyStrength(k) == nil {
			t.Errorf("RSA of %d bits with exponent %d is taken", k.N.BitLen(), k.E)
		}
	}
	if _, err := ParseCSR(append([]byte("\n\n"), good...)); err != nil {
		t.Errorf("with empty lines before it: %v", err)
	}
}
