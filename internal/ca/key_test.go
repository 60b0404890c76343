package ca

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestEveryKeySignsInItsFamily makes an authority of each kind of key and has
// it sign with each algorithm there is.
func TestEveryKeySignsInItsFamily(t *testing.T) {
	leaf := parseCSR(t, requestFor(t, testKey(t, P384).Signer(), &x509.CertificateRequest{Subject: pkix.Name{CommonName: "leaf"}}))
	for _, algorithm := range []KeyAlgorithm{RSA2048, RSA3072, RSA4096, P256, P384, P521} {
		authority, key := testAuthority(t, algorithm)
		if key.Algorithm() != algorithm {
			t.Errorf("%s is described as %s", algorithm, key.Algorithm())
		}
		encoded, err := key.PKCS8()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParsePrivateKey(encoded); err != nil || !samePublicKey(again.Public(), key.Public()) {
			t.Errorf("%s does not come back from PKCS #8: %v", algorithm, err)
		}
		roots := x509.NewCertPool()
		roots.AddCert(authority.Certificate)
		for _, signing := range []SigningAlgorithm{SHA256WithECDSA, SHA384WithECDSA, SHA512WithECDSA, SHA256WithRSA, SHA384WithRSA, SHA512WithRSA,
			"SHA256WITHRSA_PSS", "SHA384WITHRSA_PSS", "SHA512WITHRSA_PSS", "SM3WITHSM2", "ML_DSA_44", "ML_DSA_65", "ML_DSA_87", "SHA1WITHRSA", ""} {
			fits := strings.HasSuffix(string(signing), "RSA") == strings.HasPrefix(string(algorithm), "RSA") && strings.HasPrefix(string(signing), "SHA") && !strings.Contains(string(signing), "PSS") && signing != "SHA1WITHRSA"
			der, err := authority.IssueCertificate(Request{CSR: leaf, Template: named(t, "EndEntityCertificate"), Algorithm: signing, Validity: Validity{Days, 1}, Now: start, Serial: testSerial(t)})
			if !fits {
				if KindOf(err) != InvalidArgs || !strings.Contains(err.Error(), string(signing)) {
					t.Errorf("%s with a %s key: %v, want it refused by name", signing, algorithm, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s with a %s key: %v", signing, algorithm, err)
				continue
			}
			c := parse(t, der)
			if _, err := c.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: start}); err != nil || DescribeSigning(c) != string(signing) {
				t.Errorf("%s with a %s key: %v, described as %s", signing, algorithm, err, DescribeSigning(c))
			}
		}
	}
}

func TestKeysThatAreRefused(t *testing.T) {
	for _, name := range []KeyAlgorithm{"RSA_1024", "ML_DSA_44", "ML_DSA_65", "ML_DSA_87", "SM2", "", "rsa_2048"} {
		if _, err := GenerateKey(name); KindOf(err) != InvalidArgs || !strings.Contains(err.Error(), string(name)) {
			t.Errorf("%q: %v, want it refused by name", name, err)
		}
	}
}

func TestKeysDoNotPrint(t *testing.T) {
	key := testKey(t, P256)
	der, err := key.PKCS8()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		fmt.Fprintf(&out, verb+"\n", key)
		fmt.Fprintf(&out, verb+"\n", &key)
		fmt.Fprintf(&out, verb+"\n", Imported{Key: key})
	}
	text, err := json.Marshal(struct{ Key PrivateKey }{key})
	if err != nil {
		t.Fatal(err)
	}
	out.Write(text)
	slog.New(slog.NewTextHandler(&out, nil)).Info("key", "key", key, "imported", Imported{Key: key})
	slog.New(slog.NewJSONHandler(&out, nil)).Info("key", "key", key, "imported", Imported{Key: key})
	secret := der[40:60]
	for _, form := range []string{string(secret), hex.EncodeToString(secret), strings.ToUpper(hex.EncodeToString(secret)), base64.StdEncoding.EncodeToString(der)[54:80], fmt.Sprint(secret)} {
		if strings.Contains(out.String(), form) {
			t.Errorf("a part of the key is printed: %s", out.String())
		}
	}
	if n := strings.Count(out.String(), redacted); n < 20 {
		t.Errorf("redacted %d times, want each time:\n%s", n, out.String())
	}
}

// openssl runs it in a folder of the test's own and returns what it says.
func openssl(t testing.TB, dir string, args ...string) (string, error) {
	t.Helper()
	command := exec.Command("openssl", args...)
	command.Dir = dir
	said, err := command.CombinedOutput()
	return string(said), err
}

func write(t testing.TB, dir, name string, content []byte) string {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestExportedKeysAreReadByOpenSSLAndItsByUs(t *testing.T) {
	dir := t.TempDir()
	for _, algorithm := range []KeyAlgorithm{RSA2048, P256, P521} {
		key := testKey(t, algorithm)
		passphrase := []byte("correct horse & battery")
		text, err := EncryptKey(key, passphrase)
		if err != nil {
			t.Fatal(err)
		}
		write(t, dir, "key.enc", text)
		if said, err := openssl(t, dir, "pkcs8", "-in", "key.enc", "-passin", "pass:"+string(passphrase), "-out", "key.pem"); err != nil {
			t.Fatalf("openssl pkcs8: %v\n%s", err, said)
		}
		plain, err := os.ReadFile(filepath.Join(dir, "key.pem"))
		if err != nil {
			t.Fatal(err)
		}
		if read, err := ParseImportedKey(plain); err != nil || !samePublicKey(read.Public(), key.Public()) {
			t.Errorf("%s: openssl read another key: %v", algorithm, err)
		}
		if said, err := openssl(t, dir, "pkcs8", "-in", "key.enc", "-passin", "pass:wrong"); err == nil {
			t.Errorf("openssl decrypts with another passphrase: %s", said)
		}
		for _, prf := range []string{"hmacWithSHA1", "hmacWithSHA256"} { // the former is what AWS writes
			if said, err := openssl(t, dir, "pkcs8", "-topk8", "-in", "key.pem", "-v2", "aes-256-cbc", "-v2prf", prf, "-passout", "pass:"+string(passphrase), "-out", "theirs.pem"); err != nil {
				t.Fatalf("openssl pkcs8: %v\n%s", err, said)
			}
			theirs, err := os.ReadFile(filepath.Join(dir, "theirs.pem"))
			if err != nil {
				t.Fatal(err)
			}
			if read, err := DecryptKey(theirs, passphrase); err != nil || !samePublicKey(read.Public(), key.Public()) {
				t.Errorf("%s by openssl with %s: %v", algorithm, prf, err)
			}
			if _, err := DecryptKey(theirs, []byte("wrong")); KindOf(err) != InvalidParameter {
				t.Errorf("decrypted with another passphrase: %v", err)
			}
		}
	}
}

func TestPassphrases(t *testing.T) {
	for passphrase, ok := range map[string]bool{
		"": false, "abc": false, "abcd": true, strings.Repeat("a", 128): true, strings.Repeat("a", 129): false,
		"abc#d": false, "abc$d": false, "abc%d": false, "ab\x00cd": true, "äöüß": true,
	} {
		err := CheckPassphrase([]byte(passphrase))
		if (err == nil) != ok {
			t.Errorf("%q: %v, want ok %t", passphrase, err, ok)
		}
		if err != nil && passphrase != "" && strings.Contains(err.Error(), passphrase) {
			t.Errorf("the error quotes the passphrase: %v", err)
		}
	}
}
