package kek

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const lineage = "00112233445566778899aabbccddeeff"

func write(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func parse(t testing.TB, spec string) Key {
	t.Helper()
	key, err := Parse(spec)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Conforms is what every provider must do: right opens what it has wrapped, and
// other, a second key of the same provider, does not.
func Conforms(t *testing.T, right, other Key) {
	t.Helper()
	root := bytes.Repeat([]byte{7}, RootSize)
	wrapped, err := right.Wrap(t.Context(), root, lineage)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(wrapped.Blob, root) {
		t.Error("the root key is there in clear")
	}
	if opened, err := right.Unwrap(t.Context(), wrapped, lineage); err != nil || !bytes.Equal(opened, root) {
		t.Fatalf("unwraps as %x, %v", opened, err)
	}
	again, err := right.Wrap(t.Context(), root, lineage)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(again.Blob, wrapped.Blob) {
		t.Error("the same root key wraps twice to the same bytes")
	}
	altered, cut, foreign := wrapped, wrapped, wrapped
	altered.Blob = slices.Clone(wrapped.Blob)
	altered.Blob[len(altered.Blob)-1] ^= 1
	cut.Blob = wrapped.Blob[:5]
	foreign.Provider = "elsewhere"
	for _, test := range []struct {
		name    string
		by      Key
		wrapped Wrapped
		lineage string
	}{
		{"another key", other, wrapped, lineage},
		{"for another store", right, wrapped, strings.Repeat("0", 32)},
		{"altered", right, altered, lineage},
		{"cut short", right, cut, lineage},
		{"nothing", right, Wrapped{Provider: wrapped.Provider, Argon2id: wrapped.Argon2id}, lineage},
		{"of another provider", right, foreign, lineage},
	} {
		if opened, err := test.by.Unwrap(t.Context(), test.wrapped, test.lineage); !errors.Is(err, ErrWrong) || opened != nil {
			t.Errorf("%s: unwraps as %x, %v", test.name, opened, err)
		}
	}
}

func TestFile(t *testing.T) {
	right, other := write(t, "a", string(NewFileContent())), write(t, "b", string(NewFileContent()))
	Conforms(t, parse(t, "file:"+right), parse(t, "file:"+other))

	// A file that was replaced counts at once.
	key := parse(t, "file:"+right)
	wrapped, err := parse(t, "file:"+other).Wrap(t.Context(), make([]byte, RootSize), lineage)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(other, right); err != nil {
		t.Fatal(err)
	}
	if _, err := key.Unwrap(t.Context(), wrapped, lineage); err != nil {
		t.Errorf("the file that took its place: %v", err)
	}
	for name, content := range map[string]string{"short": "0102", "long": strings.Repeat("00", 33), "no key": "hello", "empty": ""} {
		if _, err := (File{Path: write(t, "kek", content)}).Read(); err == nil || !strings.Contains(err.Error(), "does not hold 32 bytes") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := (File{Path: right + ".missing"}).Read(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

func TestPassphrase(t *testing.T) {
	right, other := write(t, "a", "correct horse battery staple\n"), write(t, "b", "correct horse battery stapler")
	Conforms(t, parse(t, "passphrase:"+right), parse(t, "passphrase:"+other))

	root := make([]byte, RootSize)
	wrapped, err := parse(t, "passphrase:"+right).Wrap(t.Context(), root, lineage)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(passphraseVariable, "correct horse battery staple")
	if _, err := parse(t, "passphrase:").Unwrap(t.Context(), wrapped, lineage); err != nil {
		t.Errorf("the same from the environment: %v", err)
	}
	t.Setenv(passphraseVariable, "")
	for spec, want := range map[string]string{
		"passphrase:": passphraseVariable + " is not set",
		"passphrase:" + write(t, "empty", "\nsecond line"): "is empty",
		"passphrase:" + write(t, "short", "eleven char"):   "too short",
		"passphrase:/nowhere":                              "no such file",
	} {
		if _, err := parse(t, spec).Wrap(t.Context(), root, lineage); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", spec, err, want)
		}
	}
	// Whoever may write to the store must not have us compute for ever.
	for name, spoil := range map[string]func(*Argon2id){
		"no time": func(a *Argon2id) { a.Time = 0 }, "much time": func(a *Argon2id) { a.Time = 17 },
		"much memory": func(a *Argon2id) { a.Memory = 1<<20 + 1 }, "no memory": func(a *Argon2id) { a.Memory = 0 },
		"no threads": func(a *Argon2id) { a.Threads = 0 }, "many threads": func(a *Argon2id) { a.Threads = 255 },
		"no salt": func(a *Argon2id) { a.Salt = nil },
	} {
		bad := wrapped
		spoil(&bad.Argon2id)
		if _, err := parse(t, "passphrase:"+right).Unwrap(t.Context(), bad, lineage); !errors.Is(err, ErrWrong) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNoSecretIsPrinted: however a key is printed, its secret is not there.
func TestNoSecretIsPrinted(t *testing.T) {
	secret := "correct horse battery staple"
	p := newPassphrase("-")
	p.known = []byte(secret)
	for _, verb := range []string{"%v", "%+v", "%s", "%q", "%#v"} {
		if text := fmt.Sprintf(verb, p); strings.Contains(text, secret) || strings.Contains(text, fmt.Sprint([]byte(secret))) || strings.Contains(text, fmt.Sprintf("%x", secret)) {
			t.Errorf("%s prints %s", verb, text)
		}
	}
}

func TestParse(t *testing.T) {
	for spec, want := range map[string]string{
		"":           "is not file:PATH",
		"kek":        "is not file:PATH",
		"file:":      "is not file:PATH",
		"aws-kms:":   "is not file:PATH",
		"vault:key":  "is not file:PATH",
		"pkcs11:":    "token is missing",
		"pkcs11:x=1": `"x" is not one of its attributes`,
		"pkcs11:token=a;object=b?module-path=/m&pin-value=1234":             "pin-value would show the PIN",
		"pkcs11:token=a;object=b?module-path=/m":                            "pin-source is missing",
		"pkcs11:token=a;token=b;object=b?module-path=/m&pin-source=/p":      "token is given twice",
		"pkcs11:token=%zz;object=b?module-path=/m&pin-source=/p":            "not percent-encoded",
		"pkcs11:token=a;object=b?module-path=/m&pin-source=/p&module-name=": "not one of its attributes",
	} {
		key, err := Parse(spec)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is %v, %v; want %q", spec, key, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "1234") {
			t.Errorf("the PIN is in %v", err)
		}
	}
	for _, spec := range []string{"file:/etc/kek", "passphrase:/p", "passphrase:", "passphrase:-", "aws-kms:alias/fairlead", "aws-kms:arn:aws:kms:eu-west-1:111122223333:key/x"} {
		if got := parse(t, spec).String(); got != spec {
			t.Errorf("%q is printed as %q", spec, got)
		}
	}
}

// FuzzPKCS11URI: an URI is read as it was written, or refused.
func FuzzPKCS11URI(f *testing.F) {
	f.Add("pkcs11:token=fair%20lead;object=kek?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/pin")
	f.Add("pkcs11:token=a;object=b")
	f.Add("pkcs11:?")
	f.Fuzz(func(t *testing.T, uri string) {
		p, err := readPKCS11(uri)
		if err == nil && (p.Token == "" || p.Object == "" || p.Module == "" || p.String() != uri) {
			t.Errorf("%q is read as %+v", uri, p)
		}
	})
}
