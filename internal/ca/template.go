package ca

import (
	"crypto/x509"
	"iter"
	"regexp"
)

// Template says what a certificate has, by the name that it has in Private CA.
type Template struct {
	Name string // EndEntityCertificate_APIPassthrough
	base
	fromAPI bool // subject, names and free extensions from the API request
	fromCSR bool // free extensions from the CSR
}

// base is what all varieties of a template have in common: the extensions that
// the template defines and nothing overrides.
type base struct {
	name        string
	isCA        bool
	pathLen     int  // of a CA; negative: none
	criticalBC  bool // BasicConstraints
	keyUsage    x509.KeyUsage
	eku         []string
	criticalEKU bool
	root        bool // self-signed: no AKI, no CDP
	varieties   []variety
}

type variety struct {
	suffix           string
	fromAPI, fromCSR bool
}

var (
	plain  = variety{"", false, false}
	csr    = variety{"_CSRPassthrough", false, true}
	api    = variety{"_APIPassthrough", true, false}
	apiCSR = variety{"_APICSRPassthrough", true, true}

	every    = []variety{plain, csr, api, apiCSR}
	noPlain  = []variety{csr, api, apiCSR}
	rootOnly = []variety{plain, api}
)

const (
	leafUsage    = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	signingUsage = x509.KeyUsageDigitalSignature
	caUsage      = x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign | x509.KeyUsageCRLSign

	serverAuth  = "1.3.6.1.5.5.7.3.1"
	clientAuth  = "1.3.6.1.5.5.7.3.2"
	codeSigning = "1.3.6.1.5.5.7.3.3"
	ocspSigning = "1.3.6.1.5.5.7.3.9"
)

// bases is the table of Private CA's templates. Key usage is critical where it
// is there; every certificate has a subject key id, all but roots an authority
// key id.
var bases = []base{
	{"EndEntityCertificate", false, -1, false, leafUsage, []string{serverAuth, clientAuth}, false, false, every},
	{"EndEntityClientAuthCertificate", false, -1, false, leafUsage, []string{clientAuth}, false, false, every},
	{"EndEntityServerAuthCertificate", false, -1, false, leafUsage, []string{serverAuth}, false, false, every},
	{"CodeSigningCertificate", false, -1, false, signingUsage, []string{codeSigning}, true, false, every},
	{"OCSPSigningCertificate", false, -1, false, signingUsage, []string{ocspSigning}, true, false, every},
	{"SubordinateCACertificate_PathLen0", true, 0, true, caUsage, nil, false, false, every},
	{"SubordinateCACertificate_PathLen1", true, 1, true, caUsage, nil, false, false, every},
	{"SubordinateCACertificate_PathLen2", true, 2, true, caUsage, nil, false, false, every},
	{"SubordinateCACertificate_PathLen3", true, 3, true, caUsage, nil, false, false, every},
	{"RootCACertificate", true, -1, true, caUsage, nil, false, true, rootOnly},
	{"BlankEndEntityCertificate", false, -1, false, 0, nil, false, false, noPlain},
	{"BlankEndEntityCertificate_CriticalBasicConstraints", false, -1, true, 0, nil, false, false, noPlain},
	{"BlankSubordinateCACertificate_PathLen0", true, 0, true, 0, nil, false, false, noPlain},
	{"BlankSubordinateCACertificate_PathLen1", true, 1, true, 0, nil, false, false, noPlain},
	{"BlankSubordinateCACertificate_PathLen2", true, 2, true, 0, nil, false, false, noPlain},
	{"BlankSubordinateCACertificate_PathLen3", true, 3, true, 0, nil, false, false, noPlain},
}

// Templates are all that there are, in the table's order.
func Templates() iter.Seq[Template] {
	return func(yield func(Template) bool) {
		for _, b := range bases {
			for _, v := range b.varieties {
				if !yield(Template{Name: b.name + v.suffix, base: b, fromAPI: v.fromAPI, fromCSR: v.fromCSR}) {
					return
				}
			}
		}
	}
}

// DefaultTemplate is the one that a request without a template means.
const DefaultTemplate = "EndEntityCertificate"

var templateARN = regexp.MustCompile(`^arn:([a-z-]+):acm-pca:::template/([A-Za-z0-9_]+)/V1$`)

// ParseTemplateARN finds the template of an ARN of the given partition ("aws").
// An empty ARN means the default.
func ParseTemplateARN(partition, arn string) (Template, error) {
	name := DefaultTemplate
	if arn != "" {
		parts := templateARN.FindStringSubmatch(arn)
		if parts == nil || parts[1] != partition {
			return Template{}, faultf(InvalidArgs, "template %.200q is not of the form arn:%s:acm-pca:::template/NAME/V1", arn, partition)
		}
		name = parts[2]
	}
	for t := range Templates() {
		if t.Name == name {
			return t, nil
		}
	}
	return Template{}, faultf(InvalidArgs, "template %q does not exist; the documented ones are EndEntityCertificate, EndEntityClientAuthCertificate, EndEntityServerAuthCertificate, CodeSigningCertificate, OCSPSigningCertificate, SubordinateCACertificate_PathLen0 to 3, RootCACertificate and the Blank ones, with their Passthrough varieties", arn)
}

// ARN is the template's, in a partition.
func (t Template) ARN(partition string) string {
	return "arn:" + partition + ":acm-pca:::template/" + t.Name + "/V1"
}

// CA says whether certificates of the template are of authorities.
func (t Template) CA() bool { return t.isCA }

// Root says whether the template is for an authority's own, self-signed
// certificate (SelfSign).
func (t Template) Root() bool { return t.root }
