// Package server implements the App Mesh API and Fairlead's operator API over
// the store: which specs are valid, which resources may be made, changed and
// deleted in which order, and what callers are told. It decides nothing about
// the wire (package awsapi) and nothing about what a mesh means (package mesh).
// It follows facts/appmesh-api.md A and B, and docs/deviations.md where
// Fairlead departs from App Mesh on purpose.
package server

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/store"
)

// Service implements appmesh.Service: every operation is one transaction of
// the store.
type Service struct {
	Store  *store.Store
	Region string
	Graphs Graphs
	Quotas Quotas // nil: all at their presets
	// Fetch brings what ARNs name into the store before a spec may name it, and
	// returns why it cannot, by ARN. Nil: the ARNs are this server's own.
	Fetch func(ctx context.Context, arns []string) (refused map[string]string, err error)
	Now   func() time.Time
	Log   *slog.Logger
}

var _ appmesh.Service = (*Service)(nil)

// status is what App Mesh says of a resource; every kind has its own type of it.
const (
	active  = "ACTIVE"
	deleted = "DELETED"
)

// account is whose resources the caller works on.
func account(ctx context.Context) string { return awsapi.PrincipalFrom(ctx).Account }

// meshName names a mesh as a request does. Sharing comes with a later issue:
// until then the only meshes that anybody may use are its own.
func meshName(ctx context.Context, name string, owner *string) (mesh.Name, error) {
	own := account(ctx)
	if owner != nil && (len(*owner) != 12 || strings.Trim(*owner, "0123456789") != "") {
		return mesh.Name{}, appmesh.NewBadRequestException("meshOwner: %.80q does not have 12 digits", *owner)
	}
	if owner != nil && *owner != own {
		return mesh.Name{}, appmesh.NewForbiddenException("meshOwner %s: account %s has shared no mesh with account %s", *owner, *owner, own)
	}
	if strings.ContainsAny(name, "/@") {
		return mesh.Name{}, appmesh.NewBadRequestException("meshName: %q is not the name of a mesh: give its name, not its ARN", name)
	}
	return mesh.Name{Owner: own, Mesh: name}, nil
}

// failure turns what went wrong into what the caller is told. Exceptions are
// meant for him; of anything else he learns whether it helps to try again.
func (s *Service) failure(ctx context.Context, err error) error {
	var exception *api.Exception
	switch {
	case errors.As(err, &exception):
		return exception
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		s.Log.WarnContext(ctx, "store is unavailable", "error", err)
		return appmesh.NewServiceUnavailableException("The store does not answer now. Try again.")
	case errors.Is(err, store.ErrFull): // the store has logged it
		return appmesh.NewServiceUnavailableException("The disk of the server is full: nothing can be changed until there is room again.")
	case errors.Is(err, store.ErrConflict):
		return appmesh.NewTooManyRequestsException("Others keep changing the same resources. Try again.")
	case errors.Is(err, store.ErrTooLarge):
		return appmesh.NewBadRequestException("spec: too large to be stored")
	}
	s.Log.ErrorContext(ctx, "request ended in an internal error", "error", err)
	return appmesh.NewInternalServerErrorException("Internal error; the server's log has it under request %s.", awsapi.RequestIDFrom(ctx))
}

// WarningHeader carries what a write was warned of, one warning per line.
const WarningHeader = "X-Fairlead-Warning"

type headerKey struct{}

// WithWarnings lets the operations behind next answer with warnings in the
// WarningHeader.
func WithWarnings(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), headerKey{}, w.Header())))
	})
}
