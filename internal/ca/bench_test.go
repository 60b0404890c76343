package ca

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"
)

func benchRequest(b testing.TB) Request {
	b.Helper()
	return Request{
		CSR:      parseCSR(b, benchCSR(b)),
		Template: named(b, "EndEntityCertificate"), Algorithm: SHA256WithECDSA, Validity: Validity{Days, 395}, Now: start, Serial: testSerial(b),
		CRLURLs: []string{"http://pki.example.com/ca.crl"}, OCSPURL: "http://pki.example.com/ocsp",
	}
}

func benchCSR(b testing.TB) []byte {
	b.Helper()
	return requestFor(b, testKey(b, P256).Signer(), &x509.CertificateRequest{Subject: pkix.Name{CommonName: "a.example.com"}, DNSNames: []string{"a.example.com", "b.example.com"}})
}

// BenchmarkIssue is everything from the bytes of a CSR to a verified
// certificate: parse, verify the CSR, decide, lint, sign, verify.
func BenchmarkIssue(b *testing.B) {
	authority, _ := testAuthority(b, P256)
	r, csr := benchRequest(b), benchCSR(b)
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		r := r
		for p.Next() {
			var err error
			if r.CSR, err = ParseCSR(csr); err != nil {
				b.Error(err)
			}
			if r.Serial, err = NewSerial(rand.Reader); err != nil {
				b.Error(err)
			}
			if _, err := authority.IssueCertificate(r); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkIssueLeaf is the mesh's own profile, for a key that is known.
func BenchmarkIssueLeaf(b *testing.B) {
	authority, _ := testAuthority(b, P256)
	r := LeafRequest{PublicKey: testKey(b, P256).Public(), Names: Names{DNS: []string{"a.example.com"}, URIs: []string{"spiffe://mesh.fairlead/a"}}, Now: start, Life: time.Hour, Serial: testSerial(b)}
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, err := authority.IssueLeaf(r); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkBareCreateCertificate is the standard library alone, which verifies
// its signature too: no CSR, no decision, no lint.
func BenchmarkBareCreateCertificate(b *testing.B) {
	authority, key := testAuthority(b, P256)
	leaf := testKey(b, P256)
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes([]byte("0123456789abcdef")), Subject: pkix.Name{CommonName: "a.example.com"}, DNSNames: []string{"a.example.com", "b.example.com"},
		NotBefore: start, NotAfter: start.AddDate(0, 0, 395), KeyUsage: leafUsage, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, err := x509.CreateCertificate(rand.Reader, template, authority.Certificate, leaf.Public(), key.Signer()); err != nil {
				b.Error(err)
			}
		}
	})
}
