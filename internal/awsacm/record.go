package awsacm

import (
	"context"
	"errors"
	"time"

	"github.com/fairlead/fairlead/internal/store"
)

// status is what is known of an ARN beside what is served.
type status struct {
	// Seen is what AWS described when the certificate was exported: whatever
	// else it describes is another certificate.
	Seen    string    `json:"seen,omitzero"`
	Fetched time.Time `json:"fetched,omitzero"`
	// Failure is why the last look failed, and Since when; empty: it did not.
	Failure string    `json:"failure,omitzero"`
	Since   time.Time `json:"since,omitzero"`
}

func statusPlace(arn string) store.Place { return store.Place{"aws-status", arn} }

// getStatus reads a status and makes that it stays so a condition; its revision
// is 0 if there is none.
func getStatus(tx *store.Tx, arn string) (*status, int64, error) {
	o, err := store.GetObject[status](tx, statusPlace(arn))
	if errors.Is(err, store.ErrNotFound) {
		return &status{}, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	return o.Value, o.Revision, nil
}

func putStatus(tx *store.Tx, arn string, s *status) error {
	return store.PutObject(tx, statusPlace(arn), s)
}

// holding is what the store has of an ARN.
type holding struct {
	status      status
	revision    int64 // of the status
	certificate *store.Certificate
	authority   *store.Authority
}

func (m *Mirror) held(ctx context.Context, arn string) (holding, error) {
	var h holding
	_, err := m.Store.Read(ctx, func(tx *store.Tx) error {
		h = holding{}
		s, revision, err := getStatus(tx, arn)
		if err != nil {
			return err
		}
		h.status, h.revision = *s, revision
		if isAuthority(arn) {
			h.authority, err = store.GetAuthority(tx, arn)
		} else {
			h.certificate, err = store.GetCertificate(tx, arn)
		}
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		return err
	})
	return h, err
}

func (m *Mirror) statuses(ctx context.Context) ([]*store.Object[status], error) {
	return list[status](ctx, m.Store, statusPlace("")[:1])
}

// list reads all objects below a place, a page at a time.
func list[T any](ctx context.Context, s *store.Store, below store.Place) (all []*store.Object[T], err error) {
	const page = 200
	var behind store.Place
	for {
		var some []*store.Object[T]
		_, err := s.Read(ctx, func(tx *store.Tx) error {
			some, err = store.ListObjects[T](tx, below, behind, page)
			return err
		})
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
		if len(some) < page {
			return all, nil
		}
		behind = some[len(some)-1].Place
	}
}
