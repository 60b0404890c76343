package ca

import (
	"bytes"
	"crypto"
	_ "crypto/sha512"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

func TestCRLAsOpenSSLReadsIt(t *testing.T) {
	dir := t.TempDir()
	authority, _ := testAuthority(t, P384)
	good, bad := testLeaf(t, authority), testLeaf(t, authority)
	list := CRL{ThisUpdate: start, NextUpdate: start.AddDate(50, 0, 0), Revoked: []Revoked{
		{Serial: bad.SerialNumber, At: start.Add(-time.Minute), Reason: "KEY_COMPROMISE"},
		{Serial: testSerial(t).Int(), At: start, Reason: "UNSPECIFIED"},
	}}
	der, err := authority.SignCRL(list)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "root.pem", authority.PEM())
	write(t, dir, "good.pem", EncodePEM(good.Raw))
	write(t, dir, "bad.pem", EncodePEM(bad.Raw))
	write(t, dir, "ca.crl", der)
	if said, err := openssl(t, dir, "crl", "-in", "ca.crl", "-inform", "DER", "-out", "crl.pem"); err != nil {
		t.Fatal(said)
	}
	check := func(name string) (string, error) {
		return openssl(t, dir, "verify", "-attime", fmt.Sprint(start.Unix()+60), "-crl_check", "-CAfile", "root.pem", "-CRLfile", "crl.pem", name)
	}
	if said, err := check("good.pem"); err != nil {
		t.Errorf("a good certificate: %s", said)
	}
	if said, err := check("bad.pem"); err == nil || !strings.Contains(said, "revoked") {
		t.Errorf("a revoked certificate: %v %s", err, said)
	}
	said, err := openssl(t, dir, "crl", "-in", "crl.pem", "-noout", "-text", "-CAfile", "root.pem")
	if err != nil {
		t.Fatal(said)
	}
	for _, part := range []string{"verify OK", "Version 2", "X509v3 Authority Key Identifier", "X509v3 CRL Number", "Key Compromise"} {
		if !strings.Contains(said, part) {
			t.Errorf("openssl crl lacks %q:\n%s", part, said)
		}
	}
	read, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	if read.Number.Int64() != start.UnixMilli() || !bytes.Equal(read.AuthorityKeyId, authority.Certificate.SubjectKeyId) || strings.Contains(said, "Unspecified") {
		t.Errorf("number %s, authority %x; the reason unspecified must be left out", read.Number, read.AuthorityKeyId)
	}
	list.Partition = "http://pki/part-1.crl"
	if der, err = authority.SignCRL(list); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "part.crl", der)
	said, err = openssl(t, dir, "crl", "-in", "part.crl", "-inform", "DER", "-noout", "-text")
	if err != nil || !strings.Contains(said, "X509v3 Issuing Distribution Point: critical") || !strings.Contains(said, "URI:http://pki/part-1.crl") {
		t.Errorf("partition: %v %s", err, said)
	}
	if _, err := ParseReason("CERTIFICATE_HOLD"); KindOf(err) != InvalidRequest {
		t.Errorf("a hold: %v", err)
	}
	list.NextUpdate = list.ThisUpdate
	if _, err := authority.SignCRL(list); err == nil {
		t.Error("a CRL that ends as it begins came out")
	}
}

func testLeaf(t testing.TB, authority *Authority) *x509.Certificate {
	t.Helper()
	der, err := authority.IssueLeaf(LeafRequest{PublicKey: testKey(t, P256).Public(), Names: Names{DNS: []string{"a.example.com"}}, Now: start, Life: time.Hour, Serial: testSerial(t)})
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, der)
}

// TestOCSPAsOpenSSLAsks has openssl make each request and read each answer.
func TestOCSPAsOpenSSLAsks(t *testing.T) {
	dir := t.TempDir()
	for _, algorithm := range []KeyAlgorithm{P256, RSA2048} {
		authority, _ := testAuthority(t, algorithm)
		other, _ := testAuthority(t, P256)
		leaf := testLeaf(t, authority)
		write(t, dir, "root.pem", authority.PEM())
		write(t, dir, "leaf.pem", EncodePEM(leaf.Raw))
		for _, c := range []struct {
			status Status
			says   string
		}{
			{Status{Known: true}, "leaf.pem: good"},
			{Status{Known: true, Revoked: &Revoked{At: start, Reason: "SUPERSEDED"}}, "leaf.pem: revoked"},
			{Status{}, "leaf.pem: unknown"},
		} {
			for _, hash := range []string{"-sha1", "-sha256"} {
				if said, err := openssl(t, dir, "ocsp", "-issuer", "root.pem", hash, "-cert", "leaf.pem", "-reqout", "request.der"); err != nil {
					t.Fatal(said)
				}
				raw, err := os.ReadFile(filepath.Join(dir, "request.der"))
				if err != nil {
					t.Fatal(err)
				}
				request, err := ParseOCSPRequest(raw)
				if err != nil {
					t.Fatal(err)
				}
				if request.Serial.Cmp(leaf.SerialNumber) != 0 || !authority.Asks(request) || other.Asks(request) {
					t.Errorf("serial %s; asks its authority %t, another %t", request.Serial, authority.Asks(request), other.Asks(request))
				}
				c.status.Serial = request.Serial
				now := time.Now()
				answer, err := authority.SignOCSP(c.status, request.Hash, now, now.Add(time.Hour))
				if err != nil {
					t.Fatal(err)
				}
				write(t, dir, "answer.der", answer)
				said, err := openssl(t, dir, "ocsp", "-issuer", "root.pem", hash, "-cert", "leaf.pem", "-respin", "answer.der", "-CAfile", "root.pem", "-no_nonce", "-no_check_time")
				if err != nil || !strings.Contains(said, c.says) || !strings.Contains(said, "Response verify OK") {
					t.Errorf("%s %s: %v\n%s", algorithm, hash, err, said)
				}
				if c.status.Revoked != nil && !strings.Contains(said, "superseded") {
					t.Errorf("without its reason: %s", said)
				}
			}
		}
		if _, err := authority.SignOCSP(Status{Serial: leaf.SerialNumber}, crypto.MD5, start, start.Add(time.Hour)); KindOf(err) != InvalidRequest {
			t.Errorf("an answer with MD5: %v", err)
		}
	}
	if _, err := ParseOCSPRequest(make([]byte, maxOCSPRequest+1)); KindOf(err) != InvalidRequest {
		t.Errorf("a large request: %v", err)
	}
	for _, b := range [][]byte{OCSPMalformed(), OCSPTryLater(), OCSPUnauthorized()} {
		if _, err := ocsp.ParseResponse(b, nil); err == nil {
			t.Error("an error answer is read as a good one")
		}
	}
}

func FuzzOCSPRequest(f *testing.F) {
	authority, _ := testAuthority(f, P256)
	leaf := testLeaf(f, authority)
	for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA512} {
		der, err := ocsp.CreateRequest(leaf, authority.Certificate, &ocsp.RequestOptions{Hash: hash})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		r, err := ParseOCSPRequest(der)
		if err != nil {
			if KindOf(err) != InvalidRequest {
				t.Errorf("%v is not the asker's fault", err)
			}
			return
		}
		if !authority.Asks(r) {
			return
		}
		// What is signed is random, which a fuzzer takes for news: answers are
		// made in TestOCSPAsOpenSSLAsks.
		if n := r.Serial.BitLen(); n > 160 || r.Hash.Size() != len(r.keyHash) {
			t.Errorf("a serial of %d bits, a hash of %d bytes", n, len(r.keyHash))
		}
	})
}
