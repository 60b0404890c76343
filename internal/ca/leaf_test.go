package ca

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestLeafTakesOnlyTheKeyFromACSR asks with another's names of every kind, CA:TRUE
// and other usages (reliability.md J3): what comes out has the caller's.
func TestLeafTakesOnlyTheKeyFromACSR(t *testing.T) {
	authority, _ := testAuthority(t, P256)
	csr := parseCSR(t, requestFor(t, testKey(t, P256).Signer(), &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "b.local"}, DNSNames: []string{"b.local"}, EmailAddresses: []string{"b@b.local"},
		IPAddresses: []net.IP{net.IPv4(10, 0, 0, 2)}, URIs: []*url.URL{{Scheme: "spiffe", Host: "mesh", Path: "/b"}},
		ExtraExtensions: []pkix.Extension{basicConstraintsExtension(true, -1, true), ekuExtension([]string{codeSigning}, false)},
	}))
	der, err := authority.IssueLeaf(LeafRequest{
		PublicKey: csr.PublicKey(), Names: Names{DNS: []string{"a.local", "*.a.local"}, URIs: []string{"spiffe://mesh.fairlead/a"}},
		Now: start, Life: time.Hour, Serial: testSerial(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	c := parse(t, der)
	var got []string
	for _, e := range c.Extensions {
		got = append(got, reduced(c, e))
	}
	want := []string{
		"basic constraints (critical) CA:FALSE",
		"authority key id",
		"subject key id",
		"key usage (critical) digitalSignature",
		"extended key usage serverAuth,clientAuth",
		"names (critical) [a.local *.a.local] [spiffe://mesh.fairlead/a] [] []",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("extensions (-want +got):\n%s", diff)
	}
	if c.Subject.String() != "" || !samePublicKey(c.PublicKey, csr.PublicKey()) {
		t.Errorf("subject %q, or another key", c.Subject)
	}
	if found := lintErrors(t, lintRegistry(t), der); len(found) > 0 {
		t.Errorf("zlint: %v", found)
	}
	if !c.NotBefore.Equal(start.Add(-ownBackdate)) || !c.NotAfter.Equal(start.Add(time.Hour)) {
		t.Errorf("valid from %s to %s", c.NotBefore, c.NotAfter)
	}
	for _, algorithm := range []KeyAlgorithm{P384, RSA2048} {
		if _, err := authority.IssueLeaf(LeafRequest{PublicKey: testKey(t, algorithm).Public(), Names: Names{DNS: []string{"a.local"}}, Now: start, Life: time.Hour, Serial: testSerial(t)}); KindOf(err) != MalformedCSR {
			t.Errorf("a leaf with a %s key: %v", algorithm, err)
		}
	}
	if _, err := authority.Issue(Names{}, start, time.Hour); KindOf(err) != InvalidArgs {
		t.Errorf("a leaf without names: %v", err)
	}
}

func TestDNSNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "localhost": true, "a.b-c.d": true, "A.Example.COM": true, "_http._tcp.local": true, "*.local.test": true, "*.a_b.local": true, "xn--bcher-kva.example": true,
		strings.Repeat("a", 63) + ".x": true,
		"":                             false, ".": false, "a.": false, ".a": false, "a..b": false, "*": false, "*.com": false, "v*.example.com": false, "*v.example.com": false, "a.*.com": false, "*.*.com": false, "**.a.b": false,
		"-a.b": false, "a-.b": false, "a b": false, "a\x00.b": false, "bücher.example": false, "a/b": false, "1.2.3.4": false, "::1": false, "a:80": false, "a\n": false,
		strings.Repeat("a", 64) + ".x": false, strings.Repeat("a.", 127) + "a": false,
	} {
		if err := CheckDNSName(name); (err == nil) != ok {
			t.Errorf("%q: %v, want ok %t", name, err, ok)
		}
	}
}

func TestSPIFFEIDs(t *testing.T) {
	for id, ok := range map[string]bool{
		"spiffe://td": true, "spiffe://td.example/a/b-c_d.e": true, "spiffe://td/A": true,
		"": false, "spiffe://": false, "spiffe:///a": false, "SPIFFE://td/a": false, "spiffe://TD/a": false, "spiffe://td/": false, "spiffe://td/a/": false,
		"spiffe://td//a": false, "spiffe://td/./a": false, "spiffe://td/../a": false, "spiffe://td/a%2fb": false, "spiffe://td/a?b": false, "spiffe://td/a#b": false,
		"spiffe://td:80/a": false, "spiffe://u@td/a": false, "https://td/a": false, "spiffe://td/a\x00": false, "spiffe://td/ä": false, "spiffe://td/a\n": false,
		"spiffe://td/" + strings.Repeat("a", 2037): false, "spiffe://td/" + strings.Repeat("a", 2036): true,
	} {
		if err := CheckSPIFFEID(id); (err == nil) != ok {
			t.Errorf("%.60q: %v, want ok %t", id, err, ok)
		}
	}
}

// TestOpenSSLVerifiesACertificateOfEachTemplate holds them against RFC 5280 as
// OpenSSL reads it; a template alone breaks nothing but the rule on path
// lengths without key usage.
func TestOpenSSLVerifiesACertificateOfEachTemplate(t *testing.T) {
	dir := t.TempDir()
	for _, algorithm := range []KeyAlgorithm{P256, RSA2048} {
		authority, rootKey := testAuthority(t, algorithm)
		write(t, dir, "root.pem", authority.PEM())
		args := []string{"verify", "-x509_strict", "-attime", fmt.Sprint(start.Unix() + 60), "-CAfile", "root.pem"}
		leaf := testKey(t, algorithm)
		for template := range Templates() {
			if template.Root() {
				continue
			}
			r := Request{
				CSR:      parseCSR(t, requestFor(t, leaf.Signer(), &x509.CertificateRequest{Subject: pkix.Name{CommonName: "leaf"}, DNSNames: []string{"a.example.com"}})),
				Template: template, Algorithm: DefaultSigning(rootKey.Public()), Validity: Validity{Days, 30}, Now: start, Serial: testSerial(t),
				CRLURLs: []string{"http://pki/ca.crl"}, OCSPURL: "http://pki/ocsp",
			}
			if template.isCA && template.keyUsage == 0 {
				r.Template.keyUsage = caUsage
			}
			der, err := authority.IssueCertificate(r)
			if err != nil {
				t.Fatalf("%s: %v", template.Name, err)
			}
			args = append(args, write(t, dir, template.Name+".pem", EncodePEM(der)))
		}
		said, err := openssl(t, dir, args...)
		if err != nil || strings.Count(said, ": OK") != 54 {
			t.Errorf("openssl verify with a %s authority: %v\n%s", algorithm, err, said)
		}
	}
	said, err := openssl(t, dir, "x509", "-in", "SubordinateCACertificate_PathLen1.pem", "-noout", "-text")
	if err != nil {
		t.Fatal(said)
	}
	for _, part := range []string{"CA:TRUE, pathlen:1", "X509v3 Basic Constraints: critical", "X509v3 Key Usage: critical", "Digital Signature, Certificate Sign, CRL Sign", "URI:http://pki/ca.crl", "OCSP - URI:http://pki/ocsp", "DNS:a.example.com"} {
		if !strings.Contains(said, part) {
			t.Errorf("openssl x509 -text lacks %q:\n%s", part, said)
		}
	}
}

// TestSubjectsAndNamesAsOpenSSLReadsThem encodes every member of the API's
// types.
func TestSubjectsAndNamesAsOpenSSLReadsThem(t *testing.T) {
	dir := t.TempDir()
	authority, _ := testAuthority(t, P256)
	r := benchRequest(t)
	r.Template = named(t, "BlankEndEntityCertificate_APIPassthrough")
	r.Passthrough = &Passthrough{
		Subject: &Subject{
			Country: "DE", Organization: "Grün, GmbH", OrganizationalUnit: "OU", DistinguishedNameQualifier: "q", State: "BY", CommonName: "name", SerialNumber: "42",
			Locality: "M", Title: "Dr", Surname: "S", GivenName: "G", Initials: "I", Pseudonym: "P", GenerationQualifier: "III",
		},
		Extensions: &Extensions{
			Policies: []Policy{{OID: "1.2.3.4", CPSURIs: []string{"http://cps.example.com"}}, {OID: "2.5.29.32.0"}},
			EKU:      []ExtendedKeyUsage{{Type: "SERVER_AUTH"}, {OID: "1.2.3.4.5"}},
			KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageDecipherOnly | x509.KeyUsageKeyAgreement,
			SANs: []GeneralName{
				{DNS: "*.example.com"}, {Email: "a@example.com"}, {URI: "spiffe://td/a"}, {IP: "10.0.0.1"}, {IP: "2001:db8::1"}, {RegisteredID: "1.2.840.113549"},
				{DirectoryName: &Subject{CommonName: "dir"}}, {OtherName: &OtherName{"1.3.6.1.4.1.311.20.2.3", "user@example.com"}}, {EDIParty: &EDIPartyName{"assigner", "party"}},
			},
			Custom: []CustomExtension{{OID: "1.3.6.1.4.1.99999.7", Critical: true, Value: "BQA="}},
		},
	}
	der, err := authority.IssueCertificate(r)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "c.pem", EncodePEM(der))
	said, err := openssl(t, dir, "x509", "-in", "c.pem", "-noout", "-text", "-nameopt", "sep_comma_plus,utf8,sname")
	if err != nil {
		t.Fatal(said)
	}
	for _, part := range []string{
		"Subject: C=DE,O=Grün, GmbH,OU=OU,dnQualifier=q,ST=BY,CN=name,serialNumber=42,L=M,title=Dr,SN=S,GN=G,initials=I,pseudonym=P,generationQualifier=III",
		"Policy: 1.2.3.4", "CPS: http://cps.example.com", "Policy: X509v3 Any Policy", "TLS Web Server Authentication, 1.2.3.4.5", "Digital Signature, Key Agreement, Decipher Only",
		"DNS:*.example.com", "email:a@example.com", "URI:spiffe://td/a", "IP Address:10.0.0.1", "IP Address:2001:DB8:0:0:0:0:0:1", "Registered ID:RSA Data Security", "DirName:/CN=dir",
		"othername: UPN::user@example.com", "EdiPartyName:", "1.3.6.1.4.1.99999.7: critical",
	} {
		if !strings.Contains(said, part) {
			t.Errorf("openssl does not say %q", part)
		}
	}
	if t.Failed() {
		t.Log(said)
	}
	const want = `C=DE,O=Grün\, GmbH,OU=OU,dnQualifier=q,ST=BY,CN=name,serialNumber=42,L=M,title=Dr,SN=S,GN=G,initials=I,pseudonym=P,generationQualifier=III`
	if got := DescribeName(parse(t, der).RawSubject); got != want {
		t.Errorf("described as %s", got)
	}
	key := testKey(t, P256)
	csr, err := AuthorityCSR(key, SHA384WithECDSA, &Subject{Custom: []Attribute{{"2.5.4.3", "custom"}, {"0.9.2342.19200300.100.1.25", "example"}, {"1.3.6.1.4.1.99999.9", "größe"}}},
		CSRExtensions{KeyUsage: caUsage, SIA: []AccessDescription{{Method: "CA_REPOSITORY", Location: GeneralName{URI: "http://repo"}}, {OID: "1.2.3.4", Location: GeneralName{DNS: "a.b"}}}})
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(string(csr), "\n") {
		t.Error("the CSR ends with a newline")
	}
	write(t, dir, "ca.csr", append(csr, '\n'))
	if said, err = openssl(t, dir, "req", "-in", "ca.csr", "-noout", "-text", "-verify", "-nameopt", "sep_comma_plus,utf8,sname"); err != nil {
		t.Fatal(said)
	}
	for _, part := range []string{"CN=custom,DC=example,1.3.6.1.4.1.99999.9=größe", "X509v3 Basic Constraints: critical", "CA:TRUE", "Certificate Sign", "CA Repository - URI:http://repo", "ecdsa-with-SHA384"} {
		if !strings.Contains(said, part) {
			t.Errorf("openssl req lacks %q:\n%s", part, said)
		}
	}
	if block, _ := pem.Decode(csr); block == nil {
		t.Error("the CSR is not PEM")
	}
}
