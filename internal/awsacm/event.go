package awsacm

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/store"
)

const (
	// MaxEvent is how large an event may be, in bytes: what EventBridge allows.
	MaxEvent     = 256 << 10
	maxResources = 100
)

// event is the envelope of EventBridge.
type event struct {
	Version    string         `json:"version"`
	ID         string         `json:"id"`
	DetailType string         `json:"detail-type"`
	Source     string         `json:"source"`
	Account    string         `json:"account"`
	Time       time.Time      `json:"time"`
	Region     string         `json:"region"`
	Resources  []string       `json:"resources"`
	Replay     string         `json:"replay-name"`
	Detail     jsontext.Value `json:"detail"`
}

// readEvent reads an event of ACM. What it says of a certificate is not
// believed: it only says which to look at.
func readEvent(body []byte, region string) (*event, error) {
	if len(body) > MaxEvent {
		return nil, fmt.Errorf("the event has %d bytes; at most %d", len(body), MaxEvent)
	}
	e := &event{}
	if err := json.Unmarshal(body, e, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("the body is not an event as EventBridge delivers it: %w", err)
	}
	switch {
	case e.Source != "aws.acm":
		return nil, fmt.Errorf("source: %.80q is not aws.acm", e.Source)
	case len(e.Resources) == 0 || len(e.Resources) > maxResources:
		return nil, fmt.Errorf("resources: there are %d; an event names 1 to %d certificates", len(e.Resources), maxResources)
	}
	for i, arn := range e.Resources {
		if _, err := parseARN(arn, region); err != nil || isAuthority(arn) {
			return nil, fmt.Errorf("resources[%d]: %.200q is not the ARN of a certificate in region %s", i, arn, region)
		}
	}
	return e, nil
}

// EventAnswer says which certificates of an event are looked at now: those that
// specs name.
type EventAnswer struct {
	Refreshed []string `json:"refreshed"`
}

// Fetched is one certificate or authority in AWS that is held here.
type Fetched struct {
	Arn     string    `json:"arn"`
	Fetched time.Time `json:"fetched,omitzero"` // when it changed last
	// Failure is why the last look failed, and Since when that began.
	Failure string    `json:"failure,omitzero"`
	Since   time.Time `json:"since,omitzero"`
}

// FetchedList is all of them.
type FetchedList struct {
	Fetched []Fetched `json:"fetched"`
}

// MountOperator routes the events and the list.
func (m *Mirror) MountOperator(mux *awsapi.Mux) {
	mux.HandleOperator(http.MethodPost, "/fairlead/v1/acm-events", "PutACMEvent", m.putEvent)
	mux.HandleOperator(http.MethodGet, "/fairlead/v1/acm-fetched", "ListACMFetched", m.listFetched)
}

func (m *Mirror) putEvent(ctx context.Context, r *awsapi.Request) (any, error) {
	e, err := readEvent(r.Body, m.Region)
	if err != nil {
		return nil, api.Exceptionf("BadRequestException", http.StatusBadRequest, "%s", err.Error())
	}
	asked, err := m.ask(ctx, e.Resources, func(tx *store.Tx, arn string) (bool, error) {
		users, err := tx.Users(arn, 1)
		return len(users) > 0, err
	})
	if err != nil {
		return nil, m.failure(ctx, err)
	}
	m.Log.InfoContext(ctx, "an event of ACM arrived", "type", e.DetailType, "resources", len(e.Resources), "looked_at", len(asked), "actor", r.Principal.ARN())
	return EventAnswer{Refreshed: append([]string{}, asked...)}, nil
}

func (m *Mirror) listFetched(ctx context.Context, _ *awsapi.Request) (any, error) {
	all, err := m.statuses(ctx)
	if err != nil {
		return nil, m.failure(ctx, err)
	}
	out := FetchedList{Fetched: []Fetched{}}
	for _, o := range all {
		out.Fetched = append(out.Fetched, Fetched{o.Place[1], o.Value.Fetched, o.Value.Failure, o.Value.Since})
	}
	return out, nil
}

// failure is what callers are told when the store is in the way.
func (m *Mirror) failure(ctx context.Context, err error) error {
	if errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrFull) {
		m.Log.WarnContext(ctx, "store is unavailable", "error", err)
		return api.Exceptionf("ServiceUnavailableException", http.StatusServiceUnavailable, "The store does not answer now. Try again.")
	}
	return err
}
