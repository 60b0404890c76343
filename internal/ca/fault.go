package ca

import (
	"errors"
	"fmt"
)

// Kind says what sort of mistake a Fault is. The API maps each to the exception
// that AWS answers with.
type Kind string

// The kinds.
const (
	MalformedCSR         Kind = "malformed CSR"
	MalformedCertificate Kind = "malformed certificate"
	CertificateMismatch  Kind = "certificate mismatch" // not the certificate of this CSR or key
	InvalidArgs          Kind = "invalid arguments"
	InvalidState         Kind = "invalid state"     // of the authority: expired, not a CA, out of path length
	InvalidRequest       Kind = "invalid request"   // well-formed, and not to be done in this case
	InvalidDuration      Kind = "invalid duration"  // outlives its authority or the usage mode
	NameConstraints      Kind = "name constraints"  // a name that the chain does not permit
	InvalidParameter     Kind = "invalid parameter" // ACM's word for a bad certificate, key or chain
)

// Fault is a caller's mistake: what is wrong, where, and what would be right.
type Fault struct {
	Kind    Kind
	Message string
}

// Error is the message, without the kind.
func (f *Fault) Error() string { return f.Message }

// KindOf is the kind of the Fault in an error, or empty: then the failure is
// not the caller's.
func KindOf(err error) Kind {
	var f *Fault
	if errors.As(err, &f) {
		return f.Kind
	}
	return ""
}

func faultf(kind Kind, format string, args ...any) error {
	return &Fault{Kind: kind, Message: fmt.Sprintf(format, args...)}
}
