//go:build !pkcs11 || !cgo

package kek

import (
	"strings"
	"testing"
)

func TestPKCS11IsNotThere(t *testing.T) {
	_, err := Parse("pkcs11:token=a;object=b?module-path=/m.so&pin-source=/pin")
	if err == nil || !strings.Contains(err.Error(), "built without PKCS #11") || !strings.Contains(err.Error(), "-tags pkcs11") {
		t.Errorf("parsed: %v", err)
	}
}
