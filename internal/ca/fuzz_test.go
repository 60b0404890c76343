package ca

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"testing"
)

// FuzzCSR issues by the most generous template for whatever is a CSR: what
// comes out must be a certificate for the CSR's key, and no authority.
func FuzzCSR(f *testing.F) {
	authority, _ := testAuthority(f, P256)
	key := testKey(f, P256)
	for _, template := range []*x509.CertificateRequest{
		{Subject: pkix.Name{CommonName: "a"}},
		{DNSNames: []string{"a.example.com"}, EmailAddresses: []string{"a@b.c"}},
		{Subject: pkix.Name{CommonName: "a"}, ExtraExtensions: []pkix.Extension{basicConstraintsExtension(true, -1, true), keyUsageExtension(caUsage)}},
	} {
		block, _ := pem.Decode(requestFor(f, key.Signer(), template))
		f.Add(block.Bytes)
	}
	template, serial := named(f, "BlankEndEntityCertificate_CSRPassthrough"), testSerial(f)
	f.Fuzz(func(t *testing.T, der []byte) {
		for _, text := range [][]byte{der, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})} {
			csr, err := ParseCSR(text)
			if err != nil {
				if KindOf(err) != MalformedCSR {
					t.Errorf("%v is not the asker's fault", err)
				}
				continue
			}
			raw, err := authority.IssueCertificate(Request{CSR: csr, Template: template, Algorithm: SHA256WithECDSA, Validity: Validity{Days, 1}, Now: start, Serial: serial})
			if err != nil {
				if KindOf(err) == "" {
					t.Errorf("%v is not the asker's fault", err)
				}
				continue
			}
			if c := parse(t, raw); c.IsCA || c.KeyUsage&x509.KeyUsageCertSign != 0 || !samePublicKey(c.PublicKey, csr.PublicKey()) {
				t.Errorf("issued an authority, or for another key: %x", raw)
			}
		}
	})
}

// FuzzImport feeds both imports and the encrypted key's reader.
func FuzzImport(f *testing.F) {
	root := forge(f, "root", nil, asCA)
	leaf := forge(f, "a.example.com", &root, func(c *x509.Certificate) { c.DNSNames = []string{"a.example.com"} })
	text, err := AuthorityCSR(root.key, SHA256WithECDSA, &Subject{CommonName: "root"}, CSRExtensions{})
	if err != nil {
		f.Fatal(err)
	}
	csr := parseCSR(f, text)
	f.Add(leaf.pem(), leaf.keyPEM(f), root.pem())
	f.Add(root.pem(), root.keyPEM(f), []byte{})
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n"), []byte("-----BEGIN EC PARAMETERS-----\n-----END EC PARAMETERS-----\n"), leaf.Raw)
	encrypted, err := EncryptKey(leaf.key, []byte("passphrase"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(leaf.pem(), encrypted, bytes.Repeat(root.pem(), 3))
	f.Fuzz(func(t *testing.T, certificate, key, chain []byte) {
		imported, err := CertificateImport{Certificate: certificate, Key: key, Chain: chain, Previous: leaf.Certificate, Now: start}.Check()
		if err != nil && KindOf(err) != InvalidParameter {
			t.Errorf("%v is not the importer's fault", err)
		}
		if err == nil && (imported.Certificate.IsCA || !samePublicKey(imported.Key.Public(), imported.Certificate.PublicKey)) {
			t.Error("an authority, or another's key, was imported")
		}
		for _, isRoot := range []bool{true, false} {
			c, above, err := AuthorityImport{Root: isRoot, CSR: csr, Certificate: certificate, Chain: chain, Now: start}.Check()
			if err != nil && KindOf(err) == "" {
				t.Errorf("%v is not the importer's fault", err)
			}
			if err == nil && (!c.IsCA || isRoot == (len(above) > 0)) {
				t.Error("no authority, or a root with a chain, was imported")
			}
		}
		if _, err := ParseImportedKey(key); err != nil && KindOf(err) != InvalidParameter {
			t.Error(err)
		}
	})
}

// FuzzDecryptKey has nothing but the bounds to keep it from long work.
func FuzzDecryptKey(f *testing.F) {
	key := testKey(f, P256)
	encrypted, err := EncryptKey(key, []byte("passphrase"))
	if err != nil {
		f.Fatal(err)
	}
	block, _ := pem.Decode(encrypted)
	f.Add(block.Bytes, []byte("passphrase"))
	f.Fuzz(func(t *testing.T, der, passphrase []byte) {
		if _, err := DecryptKey(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der}), passphrase); err != nil && KindOf(err) != InvalidParameter {
			t.Error(err)
		}
	})
}
