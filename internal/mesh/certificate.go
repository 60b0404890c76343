package mesh

import (
	"time"

	"github.com/fairlead/fairlead/api"
)

// Certificate is a certificate of ACM with its key, as proxies get it. It is
// immutable; whatever changes it makes another one.
type Certificate struct {
	ARN      string
	Revision int64 // of the store, when it was issued, renewed or imported last
	// Chain is PEM, the certificate first, then its issuers without the root.
	Chain string
	Key   api.Secret // PEM, PKCS #8
	// Roots is PEM: what clients without a policy validate against, usually one.
	// While an authority's root is exchanged, there are the old and the new one.
	Roots string
	// CRLs is PEM: one CRL of every authority in the chain, or nothing, since an
	// Envoy that has some and lacks one refuses every certificate.
	CRLs string
	// Root is the ARN of the root CA that the chain ends in; empty: a root that
	// this server does not know as an authority.
	Root                string
	Names               []string // DNS and URI names
	Serial              string   // lower-case hex, as in ACM's DescribeCertificate without colons
	NotBefore, NotAfter time.Time
}

// Authority is a root CA as a trust anchor.
type Authority struct {
	ARN      string
	Revision int64
	Roots    string // PEM, as in Certificate
	// CRLs is PEM: one CRL of the root and one of every authority below it, or
	// nothing, as in Certificate.
	CRLs string
}
