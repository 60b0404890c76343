package ca

import (
	"crypto/x509"
	"slices"
	"strings"
	"testing"

	zcrypto "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"
)

// parityBreaks are the lints that a certificate of a template breaks because
// AWS's does, and why.
func parityBreaks(template string) []string {
	// keyEncipherment on EC keys (RFC 8813 3): the templates have it whatever the key.
	breaks := []string{"e_ecdsa_allowed_ku"}
	if strings.HasPrefix(template, "EndEntityClientAuthCertificate") {
		// keyEncipherment is of no use to clients (RFC 5280 4.2.1.12).
		breaks = append(breaks, "e_key_usage_and_extended_key_usage_inconsistent")
	}
	if strings.HasPrefix(template, "BlankSubordinateCACertificate") {
		// A path length without key usage, if nobody passes that through (RFC 5280 4.2.1.9).
		breaks = append(breaks, "e_path_len_constraint_improperly_included")
	}
	return breaks
}

// checkLints runs zlint over a certificate.
func checkLints(t testing.TB, lints lint.Registry, c *x509.Certificate, template string) {
	t.Helper()
	for _, name := range lintErrors(t, lints, c.Raw) {
		if !slices.Contains(parityBreaks(template), name) {
			t.Errorf("%s: zlint: %s", template, name)
		}
	}
}

func lintErrors(t testing.TB, lints lint.Registry, der []byte) []string {
	t.Helper()
	c, err := zcrypto.ParseCertificate(der)
	if err != nil {
		t.Fatalf("zcrypto: %v", err)
	}
	var names []string
	for name, result := range zlint.LintCertificateEx(c, lints).Results {
		if result.Status == lint.Error || result.Status == lint.Fatal {
			names = append(names, name)
		}
	}
	return names
}

// lintRegistry has the lints of the RFCs and of the community. Those of the
// web's authorities are wrong for private ones.
func lintRegistry(t testing.TB) lint.Registry {
	t.Helper()
	registry, err := lint.GlobalRegistry().Filter(lint.FilterOptions{IncludeSources: lint.SourceList{lint.RFC5280, lint.RFC5480, lint.RFC5891, lint.RFC8813, lint.Community}})
	if err != nil {
		t.Fatal(err)
	}
	return registry
}

// BenchmarkZlint is why zlint is in the tests and not in the product.
func BenchmarkZlint(b *testing.B) {
	authority, _ := testAuthority(b, P256)
	der, err := authority.IssueCertificate(benchRequest(b))
	if err != nil {
		b.Fatal(err)
	}
	lints := lintRegistry(b)
	for b.Loop() {
		lintErrors(b, lints, der)
	}
}
