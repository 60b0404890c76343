package ca

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"
)

// made is a certificate that a test made, by whatever rules.
type made struct {
	*x509.Certificate
	key PrivateKey
}

func (m made) pem() []byte { return EncodePEM(m.Raw) }

func (m made) keyPEM(t testing.TB) []byte {
	t.Helper()
	text, err := encodeKey(m.key.Signer())
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// forge makes a certificate as edit wants it; without a parent it signs itself.
func forge(t testing.TB, name string, parent *made, edit func(*x509.Certificate)) made {
	t.Helper()
	return forgeFor(t, testKey(t, P256), name, parent, edit)
}

func forgeFor(t testing.TB, key PrivateKey, name string, parent *made, edit func(*x509.Certificate)) made {
	t.Helper()
	return made{parse(t, forgeDER(t, key, name, parent, edit)), key}
}

func forgeDER(t testing.TB, key PrivateKey, name string, parent *made, edit func(*x509.Certificate)) []byte {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: testSerial(t).Int(), Subject: pkix.Name{CommonName: name}, NotBefore: start.Add(-time.Hour), NotAfter: start.AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
	}
	if edit != nil {
		edit(template)
	}
	signer, issuer := key, template
	if parent != nil {
		signer, issuer = parent.key, parent.Certificate
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), signer.Signer())
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func asCA(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, caUsage }

func and(edits ...func(*x509.Certificate)) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		for _, edit := range edits {
			edit(c)
		}
	}
}

func extra(extensions ...pkix.Extension) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.ExtraExtensions = extensions }
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestAuthorityImport(t *testing.T) {
	root := forge(t, "root", nil, asCA)
	middle := forge(t, "middle", &root, asCA)
	other := forge(t, "root", nil, asCA) // of the same name, by another key
	key := testKey(t, P256)
	subject := &Subject{CommonName: "sub"}
	text, err := AuthorityCSR(key, SHA256WithECDSA, subject, CSRExtensions{})
	if err != nil {
		t.Fatal(err)
	}
	csr := parseCSR(t, text)
	sub := func(parent *made, edit func(*x509.Certificate)) []byte {
		return forgeFor(t, key, "sub", parent, edit).pem()
	}
	chain := join(middle.pem(), root.pem())
	critical := func(id string) func(*x509.Certificate) {
		return extra(pkix.Extension{Id: oid(id), Critical: true, Value: []byte{5, 0}})
	}
	pathLen := func(n int) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = n, n == 0 }
	}
	short := forge(t, "short", &root, and(asCA, pathLen(0)))
	for _, c := range []struct {
		name        string
		root        bool
		certificate []byte
		chain       []byte
		kind        Kind
		says        string
	}{
		{"good subordinate", false, sub(&middle, asCA), chain, "", ""},
		{"good under the root", false, sub(&root, asCA), root.pem(), "", ""},
		{"good root", true, sub(nil, asCA), nil, "", ""},
		{"critical extension that is allowed", false, sub(&root, and(asCA, extra(pkix.Extension{Id: oidPolicies, Critical: true, Value: der(t, []struct{ ID any }{{oid("1.2.3")}})}))), root.pem(), "", ""},
		{"root with a chain", true, sub(nil, asCA), root.pem(), InvalidRequest, "without a CertificateChain"},
		{"root that is not", true, sub(&root, asCA), nil, MalformedCertificate, "self-signed"},
		{"subordinate that signs itself", false, sub(nil, asCA), root.pem(), MalformedCertificate, "must not be self-signed"},
		{"no chain", false, sub(&middle, asCA), nil, InvalidRequest, "needs its CertificateChain"},
		{"no root", false, sub(&middle, asCA), middle.pem(), MalformedCertificate, "end with a self-signed root"},
		{"wrong order", false, sub(&middle, asCA), join(root.pem(), middle.pem()), MalformedCertificate, "the next certificate in the chain"},
		{"gap", false, sub(&middle, asCA), root.pem(), MalformedCertificate, "the issuer of"},
		{"another root of that name", false, sub(&root, asCA), other.pem(), MalformedCertificate, "is not signed by the key"},
		{"itself in the chain", false, sub(&middle, asCA), nil, InvalidRequest, ""}, // filled in below
		{"another key", false, forge(t, "sub", &middle, asCA).pem(), chain, CertificateMismatch, "public key"},
		{"another subject", false, forgeFor(t, key, "other", &middle, asCA).pem(), chain, CertificateMismatch, "subject"},
		{"no authority", false, sub(&middle, nil), chain, MalformedCertificate, "CA:TRUE"},
		{"no basic constraints", false, sub(&middle, func(c *x509.Certificate) { c.BasicConstraintsValid = false }), chain, MalformedCertificate, "CA:TRUE"},
		{"basic constraints not critical", false, sub(&middle, and(asCA, func(c *x509.Certificate) { c.BasicConstraintsValid = false; c.IsCA = false }, extra(basicConstraintsExtension(true, -1, false)))), chain, MalformedCertificate, "must be critical"},
		{"no keyCertSign", false, sub(&middle, and(asCA, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign })), chain, MalformedCertificate, "keyCertSign"},
		{"critical AIA", false, EncodePEM(forgeDER(t, key, "sub", &middle, and(asCA, extra(pkix.Extension{Id: oidAIA, Critical: true, Value: aiaExtension("http://a").Value})))), chain, MalformedCertificate, "authority info access incorrectly marked critical"},
		{"critical freshest CRL", false, sub(&middle, and(asCA, critical("2.5.29.46"))), chain, MalformedCertificate, "2.5.29.46"},
		{"critical distribution points", false, sub(&middle, and(asCA, extra(pkix.Extension{Id: oidCDP, Critical: true, Value: cdpExtension([]string{"http://a"}).Value}))), chain, MalformedCertificate, "2.5.29.31"},
		{"critical policy constraints", false, sub(&middle, and(asCA, extra(pkix.Extension{Id: oid("2.5.29.36"), Critical: true, Value: []byte{0x30, 3, 0x80, 1, 0}}))), chain, MalformedCertificate, "2.5.29.36"},
		{"critical unknown", false, sub(&middle, and(asCA, critical("1.2.3.4"))), chain, MalformedCertificate, "1.2.3.4"},
		{"path length", false, sub(&short, asCA), join(short.pem(), root.pem()), MalformedCertificate, "path length"},
		{"expired", false, sub(&middle, and(asCA, func(c *x509.Certificate) { c.NotAfter = start.Add(-time.Minute) })), chain, MalformedCertificate, "expired"},
		{"future", false, sub(&middle, and(asCA, func(c *x509.Certificate) { c.NotBefore = start.Add(time.Minute) })), chain, MalformedCertificate, "not valid before"},
		{"two certificates", false, join(sub(&middle, asCA), root.pem()), chain, MalformedCertificate, "more than 1"},
		{"large certificate", false, bytes.Repeat([]byte("A"), maxPEM+1), chain, MalformedCertificate, "32769 bytes"},
		{"large chain", false, sub(&middle, asCA), bytes.Repeat([]byte("A"), maxChainPEM+1), MalformedCertificate, "2097153 bytes"},
		{"long chain", false, sub(&middle, asCA), bytes.Repeat(root.pem(), maxChainLength+1), MalformedCertificate, "more than 10"},
		{"DER", false, root.Raw, chain, MalformedCertificate, "PEM"},
		{"key among the certificates", false, sub(&middle, asCA), join(chain, root.keyPEM(t)), MalformedCertificate, "PRIVATE KEY"},
		{"text among the certificates", false, sub(&middle, asCA), join([]byte("subject=x\n"), chain), MalformedCertificate, "something else"},
	} {
		if c.name == "itself in the chain" {
			c.certificate = sub(&middle, asCA)
			c.chain, c.kind, c.says = join(c.certificate, chain), MalformedCertificate, "must not include"
		}
		certificate, above, err := AuthorityImport{Root: c.root, CSR: csr, Certificate: c.certificate, Chain: c.chain, Now: start}.Check()
		if KindOf(err) != c.kind || err != nil && (c.kind == "" || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v (%s), want %s: … %s", c.name, err, KindOf(err), c.kind, c.says)
		}
		if err == nil {
			if _, err := NewAuthority(certificate, above, key.Signer()); err != nil {
				t.Errorf("%s: imported, and no authority: %v", c.name, err)
			}
		}
	}
}

func TestCertificateImport(t *testing.T) {
	root := forge(t, "root", nil, asCA)
	middle := forge(t, "middle", &root, asCA)
	host := func(c *x509.Certificate) { c.DNSNames = []string{"a.example.com"} }
	good := forge(t, "a.example.com", &middle, host)
	chain := join(middle.pem(), root.pem())
	leaf := func(edit func(*x509.Certificate)) made { return forge(t, "a.example.com", &middle, and(host, edit)) }
	names := func(n int) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.DNSNames = nil
			for i := range n {
				c.DNSNames = append(c.DNSNames, fmt.Sprintf("a%d.example.com", i))
			}
		}
	}
	var long []byte // a chain of 12, each signed by the next
	parent := root
	for i := range 12 {
		parent = forge(t, fmt.Sprint("ca", i), &parent, asCA)
		long = join(parent.pem(), long)
	}
	deep := forge(t, "a.example.com", &parent, host)
	constrained := constrainedAuthority(t)
	constrainedMade := made{constrained.Certificate, PrivateKey{constrained.key}}
	outside := forge(t, "b", &constrainedMade, func(c *x509.Certificate) { c.DNSNames = []string{"b.evil.org"} })
	encrypted, err := EncryptKey(good.key, []byte("passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	expired, future := func(c *x509.Certificate) { c.NotAfter = start.Add(-time.Minute) }, func(c *x509.Certificate) { c.NotBefore = start.Add(time.Minute) }
	oldMiddle := forge(t, "old", &root, and(asCA, expired))
	for _, c := range []struct {
		name  string
		leaf  made
		edit  func(*CertificateImport)
		says  string // empty: taken
		chain []byte
	}{
		{"good", good, nil, "", chain},
		{"without a chain", good, nil, "", nil},
		{"without the root", good, nil, "", middle.pem()},
		{"self-signed", forge(t, "self", nil, host), nil, "", nil},
		{"250 names", leaf(names(250)), nil, "", chain},
		{"wildcard", leaf(func(c *x509.Certificate) { c.DNSNames = []string{"*.example.com"} }), nil, "", chain},
		{"EC PARAMETERS", good, func(m *CertificateImport) {
			m.Key = join([]byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"), sec1(t, good.key))
		}, "", chain},
		{"PKCS #1", forgeFor(t, testKey(t, RSA2048), "rsa", &middle, host), nil, "", chain},

		{"another's key", good, func(m *CertificateImport) { m.Key = middle.keyPEM(t) }, "the private key is not that of the certificate", chain},
		{"encrypted key", good, func(m *CertificateImport) { m.Key = encrypted }, "is encrypted", chain},
		{"large key", good, func(m *CertificateImport) { m.Key = bytes.Repeat([]byte("A"), 5121) }, "5121 bytes", chain},
		{"no key", good, func(m *CertificateImport) { m.Key = nil }, "not PEM", chain},
		{"key that is none", good, func(m *CertificateImport) {
			m.Key = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret")})
		}, "cannot be read", chain},
		{"certificate as key", good, func(m *CertificateImport) { m.Key = good.pem() }, `"CERTIFICATE"`, chain},
		{"two keys", good, func(m *CertificateImport) { m.Key = join(m.Key, m.Key) }, "followed by", chain},
		{"DER", good, func(m *CertificateImport) { m.Certificate = good.Raw }, "is not PEM", chain},
		{"no certificate", good, func(m *CertificateImport) { m.Certificate = nil }, "is empty", chain},
		{"bad base64", good, func(m *CertificateImport) {
			m.Certificate = []byte("-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n")
		}, "not valid PEM", chain},
		{"broken block before it", good, func(m *CertificateImport) {
			m.Certificate = join([]byte("-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n"), good.pem())
		}, "not valid PEM", chain},
		{"an authority", forge(t, "a.example.com", &middle, and(host, asCA)), nil, "CA:TRUE", chain},
		{"RSA 1024", weakRSA(t, &middle), nil, "1024 bits", chain},
		{"expired", leaf(expired), nil, "expired", chain},
		{"future", leaf(future), nil, "not valid before", chain},
		{"251 names", leaf(names(251)), nil, "251 subject alternative names", chain},
		{"wildcard in a label", leaf(func(c *x509.Certificate) { c.DNSNames = []string{"v*.example.com"} }), nil, "v*.example.com", chain},
		{"unknown critical extension", leaf(extra(pkix.Extension{Id: oid("1.2.3.4"), Critical: true, Value: []byte{5, 0}})), nil, "1.2.3.4", chain},
		{"long OCSP URL", leaf(func(c *x509.Certificate) { c.OCSPServer = []string{"http://" + strings.Repeat("a", 1000)} }), nil, "OCSP URL", chain},
		{"wrong order", good, nil, "does not certify the one before it", join(root.pem(), middle.pem())},
		{"itself in the chain", good, nil, "must not include", join(good.pem(), chain)},
		{"no authority in the chain", good, nil, "CA:TRUE", forge(t, "middle", &root, nil).pem()},
		{"another's chain", good, nil, "does not certify", forge(t, "middle", &root, asCA).pem()},
		{"expired chain", forge(t, "a.example.com", &oldMiddle, host), nil, "expired", oldMiddle.pem()},
		{"12 authorities", deep, nil, "more than 10", long},
		{"huge key in the chain", good, nil, "1048577 bits", hugeKey(t, middle.key)},
		{"1 MB chain", good, nil, "at most 262144", bytes.Repeat(chain, 1<<20/len(chain))},
		{"outside the name constraints", outside, nil, "not permitted", constrained.PEM()},
		{"no issuer", forge(t, "", nil, func(c *x509.Certificate) { c.Subject = pkix.Name{}; c.DNSNames = []string{"a.b"} }), nil, "no issuer", nil},
	} {
		m := CertificateImport{Certificate: c.leaf.pem(), Chain: c.chain, Now: start}
		if AlgorithmOf(c.leaf.PublicKey) != "" {
			m.Key = c.leaf.keyPEM(t)
		}
		if c.edit != nil {
			c.edit(&m)
		}
		imported, err := m.Check()
		if c.says == "" {
			if err != nil || !samePublicKey(imported.Key.Public(), c.leaf.PublicKey) {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if KindOf(err) != InvalidParameter || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v (%s), want … %s", c.name, err, KindOf(err), c.says)
		}
	}
}

func sec1(t testing.TB, key PrivateKey) []byte {
	t.Helper()
	dir := t.TempDir()
	text, err := encodeKey(key.Signer())
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "key.pem", text)
	said, err := openssl(t, dir, "pkey", "-in", "key.pem", "-traditional")
	if err != nil || !strings.Contains(said, "BEGIN EC PRIVATE KEY") {
		t.Fatalf("openssl pkey: %v %s", err, said)
	}
	return []byte(said)
}

func weakRSA(t testing.TB, parent *made) made {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "weak"}, NotBefore: start, NotAfter: start.AddDate(1, 0, 0), DNSNames: []string{"a.b"}}
	raw, err := x509.CreateCertificate(rand.Reader, template, parent.Certificate, key.Public(), parent.key.Signer())
	if err != nil {
		t.Fatal(err)
	}
	return made{parse(t, raw), PrivateKey{key}}
}

// hugeKey is an authority's certificate with a key that takes seconds to verify
// with.
func hugeKey(t testing.TB, signer PrivateKey) []byte {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "middle"}, NotBefore: start, NotAfter: start.AddDate(1, 0, 0), IsCA: true, BasicConstraintsValid: true,
	}
	n := new(big.Int).Lsh(big.NewInt(1), 1<<20)
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &rsa.PublicKey{N: n.Add(n, big.NewInt(1)), E: 65537}, signer.Signer())
	if err != nil {
		t.Fatal(err)
	}
	return EncodePEM(raw)
}

// TestSHA1IsRefused: Go does not sign with it, openssl does.
func TestSHA1IsRefused(t *testing.T) {
	dir := t.TempDir()
	if said, err := openssl(t, dir, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-sha1", "-keyout", "key.pem", "-out", "c.pem", "-subj", "/CN=a", "-addext", "basicConstraints=critical,CA:FALSE", "-days", "3650"); err != nil {
		t.Fatal(said)
	}
	said, err := openssl(t, dir, "x509", "-in", "c.pem")
	if err != nil {
		t.Fatal(said)
	}
	key, err := openssl(t, dir, "pkey", "-in", "key.pem")
	if err != nil {
		t.Fatal(key)
	}
	if _, err := (CertificateImport{Certificate: []byte(said), Key: []byte(key), Now: time.Now()}).Check(); KindOf(err) != InvalidParameter || !strings.Contains(err.Error(), "SHA1-RSA") {
		t.Errorf("a certificate signed with SHA-1: %v", err)
	}
	if said, err = openssl(t, dir, "req", "-new", "-key", "key.pem", "-sha1", "-subj", "/CN=a"); err != nil {
		t.Fatal(said)
	}
	if _, err := ParseCSR([]byte(said)); KindOf(err) != MalformedCSR || !strings.Contains(err.Error(), "SHA1-RSA") {
		t.Errorf("a CSR signed with SHA-1: %v", err)
	}
}

func TestReimport(t *testing.T) {
	usages := func(usage x509.KeyUsage, extended ...x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.KeyUsage, c.ExtKeyUsage, c.DNSNames = usage, extended, []string{"a.example.com", "b.example.com"}
		}
	}
	previous := forge(t, "a.example.com", nil, usages(x509.KeyUsageDigitalSignature, x509.ExtKeyUsageServerAuth))
	for _, c := range []struct {
		name string
		leaf made
		says string
	}{
		{"same again", forge(t, "a.example.com", nil, usages(x509.KeyUsageDigitalSignature, x509.ExtKeyUsageServerAuth)), ""},
		{"more usages", forge(t, "a.example.com", nil, usages(x509.KeyUsageDigitalSignature|x509.KeyUsageKeyAgreement, x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth)), ""},
		{"one name left", forge(t, "c", nil, and(usages(x509.KeyUsageDigitalSignature, x509.ExtKeyUsageServerAuth), func(c *x509.Certificate) { c.DNSNames = []string{"B.example.com", "new.org"} })), ""},
		{"other size", forgeFor(t, testKey(t, P384), "a.example.com", nil, usages(x509.KeyUsageDigitalSignature, x509.ExtKeyUsageServerAuth)), "EC_prime256v1"},
		{"other type", forgeFor(t, testKey(t, RSA2048), "a.example.com", nil, usages(x509.KeyUsageDigitalSignature, x509.ExtKeyUsageServerAuth)), "EC_prime256v1"},
		{"usage lost", forge(t, "a.example.com", nil, usages(x509.KeyUsageKeyAgreement, x509.ExtKeyUsageServerAuth)), "DIGITAL_SIGNATURE"},
		{"extended usage lost", forge(t, "a.example.com", nil, usages(x509.KeyUsageDigitalSignature, x509.ExtKeyUsageClientAuth)), "TLS_WEB_SERVER_AUTHENTICATION"},
		{"all names lost", forge(t, "z", nil, and(usages(x509.KeyUsageDigitalSignature, x509.ExtKeyUsageServerAuth), func(c *x509.Certificate) { c.DNSNames = []string{"z.org"} })), "none of the domain names"},
	} {
		_, err := CertificateImport{Certificate: c.leaf.pem(), Key: c.leaf.keyPEM(t), Previous: previous.Certificate, Now: start}.Check()
		if (err == nil) != (c.says == "") || err != nil && (KindOf(err) != InvalidParameter || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v, want … %s", c.name, err, c.says)
		}
	}
}

func TestDescriptions(t *testing.T) {
	for text, want := range map[string]string{"03:e9": "03:e9", "3e9": "03:e9", "0003E9": "03:e9", "0": "00", "67:07:44": "67:07:44"} {
		serial, err := ParseSerial(text)
		if err != nil || DescribeSerial(serial) != want {
			t.Errorf("serial %q: %v, want %s", text, err, want)
		}
	}
	for _, text := range []string{"", "xy", "-1", "+1", "1_0", "0x10", strings.Repeat("1", 65)} {
		if _, err := ParseSerial(text); KindOf(err) != InvalidRequest {
			t.Errorf("serial %q: %v", text, err)
		}
	}
	c := forge(t, "a", nil, func(c *x509.Certificate) {
		c.Subject = pkix.Name{Organization: []string{"Org"}, CommonName: "a"}
		c.KeyUsage, c.ExtKeyUsage, c.UnknownExtKeyUsage = leafUsage|x509.KeyUsageDecipherOnly, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageMicrosoftServerGatedCrypto}, nil
		c.UnknownExtKeyUsage = append(c.UnknownExtKeyUsage, oid("1.2.3"))
	})
	got := fmt.Sprintln(DescribeIssuer(c.Certificate), KeyUsageNames(c.KeyUsage), ExtendedUsages(c.Certificate), AlgorithmOf(c.PublicKey), AlgorithmOf(c.PublicKey).Hyphenated(), RSA2048.Hyphenated())
	const want = "Org [DIGITAL_SIGNATURE KEY_ENCIPHERMENT DECIPHER_ONLY] [{TLS_WEB_SERVER_AUTHENTICATION 1.3.6.1.5.5.7.3.1} {CUSTOM 1.3.6.1.4.1.311.10.3.3} {CUSTOM 1.2.3}] EC_prime256v1 EC-prime256v1 RSA-2048"
	if strings.Join(strings.Fields(got), " ") != want {
		t.Errorf("described as %s", got)
	}
}
