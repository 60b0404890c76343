// Package pki implements the APIs of AWS Private CA (pca_*.go) and of ACM
// (acm_*.go) over the store: which authorities and certificates there are, what
// each of their states allows, and what callers are told. What a certificate
// looks like and what may be signed is package ca's; the wire is package
// awsapi's. It follows facts/certificates.md A and B, and docs/deviations.md
// where Fairlead departs from AWS on purpose.
package pki

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"runtime"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/store"
)

// Config is what a PrivateCA works with.
type Config struct {
	Store  *store.Store
	Region string
	// URL is where relying parties fetch CRLs and ask for status, without a
	// slash at its end. It goes into certificates: http://pki.example.com.
	URL string
	// Folder is where audit reports are written, below audit-report/.
	Folder string
	Now    func() time.Time
	Log    *slog.Logger
}

// PrivateCA implements acmpca.Service: every operation is one transaction of the
// store. RSA keys and audit reports are made by Run. Any number of them may
// share a store.
type PrivateCA struct {
	Config
	signers signers
	crls    crls
	status  ocspAnswers
	asking  *semaphore.Weighted // signs OCSP answers
	keys    keyCheck
	wake    chan struct{} // holds one token while Run has something to look for
}

var _ acmpca.Service = (*PrivateCA)(nil)

// NewPrivateCA makes the service. Its caller starts Run.
func NewPrivateCA(c Config) *PrivateCA {
	return &PrivateCA{Config: c, asking: semaphore.NewWeighted(int64(max(1, runtime.GOMAXPROCS(0)/2))), wake: make(chan struct{}, 1)}
}

// account is whose authorities the caller works on.
func account(ctx context.Context) string { return awsapi.PrincipalFrom(ctx).Account }

// write runs a transaction for the caller and says what went wrong as he is told.
func (p *PrivateCA) write(ctx context.Context, fn func(tx *store.Tx) error) error {
	_, err := p.Store.Write(ctx, func(tx *store.Tx) error {
		tx.Actor = awsapi.PrincipalFrom(ctx).ARN()
		return fn(tx)
	})
	return failure(err)
}

// read is write's counterpart.
func (p *PrivateCA) read(ctx context.Context, fn func(tx *store.Tx) error) error {
	_, err := p.Store.Read(ctx, fn)
	return failure(err)
}

// exceptions are what a fault of package ca is to callers of Private CA.
// The kinds that are not here are no caller's.
var exceptions = map[ca.Kind]string{
	ca.MalformedCSR:         "MalformedCSRException",
	ca.MalformedCertificate: "MalformedCertificateException",
	ca.CertificateMismatch:  "CertificateMismatchException",
	ca.InvalidArgs:          "InvalidArgsException",
	ca.InvalidState:         "InvalidStateException",
	ca.InvalidRequest:       "InvalidRequestException",
	ca.InvalidDuration:      "ValidationException", // no member of the model, as at AWS
	ca.NameConstraints:      "InvalidArgsException",
}

// failure turns what went wrong into what the caller is told: the one place for
// it. A fault stays in the error, so that callers inside see its kind. What is
// neither his nor the store's goes on to package awsapi, which logs it.
func failure(err error) error {
	var exception *api.Exception
	switch {
	case err == nil, errors.As(err, &exception):
		return err
	case exceptions[ca.KindOf(err)] != "":
		return &refused{api.Exceptionf(exceptions[ca.KindOf(err)], http.StatusBadRequest, "%s", err.Error()), err}
	case errors.Is(err, store.ErrUnavailable):
		return &refused{api.Exceptionf("ServiceUnavailableException", http.StatusServiceUnavailable, "The store does not answer now. Try again."), err}
	case errors.Is(err, store.ErrFull):
		return &refused{api.Exceptionf("ServiceUnavailableException", http.StatusServiceUnavailable, "The disk of the server is full: nothing can be changed until there is room again."), err}
	case errors.Is(err, store.ErrConflict):
		return &refused{api.Exceptionf("ThrottlingException", http.StatusBadRequest, "Others keep changing the same resources. Try again."), err}
	case errors.Is(err, store.ErrTooLarge):
		return &refused{api.Exceptionf("ValidationException", http.StatusBadRequest, "The request is too large to be stored."), err}
	}
	return err
}

// refused is what a caller is told, and why.
type refused struct {
	exception *api.Exception
	cause     error
}

// Error is the exception's text.
func (r *refused) Error() string { return r.exception.Error() }

// Unwrap gives both.
func (r *refused) Unwrap() []error { return []error{r.exception, r.cause} }
