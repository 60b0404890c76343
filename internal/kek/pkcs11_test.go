//go:build pkcs11 && cgo

package kek

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"
)

const softHSM = "/usr/lib/softhsm/libsofthsm2.so"

// TestPKCS11 uses a token of SoftHSM, which is not ours.
func TestPKCS11(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "tokens"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", write(t, "softhsm2.conf", "directories.tokendir = "+filepath.Join(dir, "tokens")+"\nlog.level = ERROR\n"))
	if out, err := exec.CommandContext(t.Context(), "softhsm2-util", "--init-token", "--free", "--label", "fair lead", "--so-pin", "5678", "--pin", "1234").CombinedOutput(); err != nil {
		t.Fatalf("make a token: %v\n%s", err, out)
	}
	uri := func(object, pin string) string {
		return fmt.Sprintf("pkcs11:token=fair%%20lead;object=%s?module-path=%s&pin-source=%s", object, softHSM, write(t, "pin", pin))
	}
	for label, size := range map[string]int{"right": 32, "other": 32, "weak": 16} {
		makeKey(t, label, size)
	}
	Conforms(t, parse(t, uri("right", "1234\n")), parse(t, uri("other", "1234")))

	for spec, want := range map[string]string{
		uri("right", "0000"):   "CKR_PIN_INCORRECT",
		uri("unknown", "1234"): `0 AES keys named "unknown"`,
		uri("weak", "1234"):    "128 bits, not 256",
		strings.Replace(uri("right", "1234"), "fair%20lead", "none", 1):        `no token "none"`,
		strings.Replace(uri("right", "1234"), softHSM, "/nowhere.so", 1):       "cannot be loaded",
		"pkcs11:token=a;object=b?module-path=" + softHSM + "&pin-source=/none": "read the PIN",
	} {
		_, err := parse(t, spec).Wrap(t.Context(), make([]byte, RootSize), lineage)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", spec, err, want)
		}
		if err != nil && (strings.Contains(err.Error(), "0000") || strings.Contains(err.Error(), "1234")) {
			t.Errorf("the PIN is in %v", err)
		}
	}
}

// makeKey makes an AES key on the token, as whoever runs the token does.
func makeKey(t *testing.T, label string, size int) {
	t.Helper()
	module := pkcs11.New(softHSM)
	defer module.Destroy()
	if err := module.Initialize(); err != nil {
		t.Fatal(err)
	}
	defer module.Finalize()
	slot, err := (PKCS11{Token: "fair lead", Module: softHSM}).slot(module)
	if err != nil {
		t.Fatal(err)
	}
	session, err := module.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		t.Fatal(err)
	}
	if err := module.Login(session, pkcs11.CKU_USER, "1234"); err != nil {
		t.Fatal(err)
	}
	if _, err := module.GenerateKey(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, size),
		pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true), pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, true), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
	}); err != nil {
		t.Fatal(err)
	}
}
