package mesh

import (
	"slices"
	"strings"
)

// The names of the secrets that the server sends are made of ARNs, which say what
// they are to whoever reads an Envoy's configuration, and stay when the content
// changes.

// CertificateSecret is the name of a certificate from ACM with its key.
func CertificateSecret(arn string) string { return arn }

// IssuerSecret is the name of the trust in what a certificate from ACM chains
// to, for clients without a policy.
func IssuerSecret(arn string) string { return "issuer-of:" + arn }

// TrustSecret is the name of the trust in authorities, in whatever order they
// are given.
func TrustSecret(arns []string) string {
	arns = slices.Clone(arns)
	slices.Sort(arns)
	return "trust:" + strings.Join(slices.Compact(arns), ",")
}
