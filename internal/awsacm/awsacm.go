// Package awsacm brings certificates and authorities that live in AWS into the
// store, from where meshes serve them: what a spec names is described, exported
// and written as it is served, looked at again every minute, and exported again
// only when it has changed, which costs money. It decides when AWS is asked and
// what of its answers is believed; what a spec may name is package server's, and
// how it reaches proxies the store's and package xds's. It follows
// facts/certificates.md A and G, and docs/tasks/real-acm.md.
package awsacm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/acm"
	"github.com/aws/aws-sdk-go-v2/service/acmpca"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/fairlead/fairlead/internal/store"
)

const (
	// fresh is how old what is known of a certificate or an authority may be.
	fresh = time.Minute
	// roundEvery is how often requests of other servers are looked for.
	roundEvery = time.Second
	// leadLife is how long the others wait for a server that has died.
	leadLife = 15 * time.Second
	// answerWithin bounds all calls for one ARN, and is less than leadLife.
	answerWithin = 10 * time.Second
	// atOnce is how many ARNs are looked at at the same time.
	atOnce = 8
	// The first and the longest pause after a failure.
	firstPause, longestPause = 2 * time.Second, 5 * time.Minute
	// keepUnnamed is how long a certificate stays that no spec names.
	keepUnnamed = 24 * time.Hour
	sweepEvery  = time.Hour
)

// What AWS lets an account do a second, by its quotas, less what others in the
// account may need.
const (
	describesPerSecond   = 8 // of 10
	exportsPerSecond     = 4 // of 5
	authoritiesPerSecond = 10
)

// Config is what a Mirror works with.
type Config struct {
	Store   *store.Store
	ACM     *acm.Client
	PCA     *acmpca.Client
	Region  string
	Account string // that the meshes are of
	Metrics *Metrics
	Now     func() time.Time
	Log     *slog.Logger
}

// Mirror keeps what specs name as it is in AWS. Any number of them may share a
// store: one does the work.
type Mirror struct {
	Config
	worker string
	wake   chan struct{} // holds one token while Run has something to look for

	describes, exports, authorities *rate.Limiter

	// Only Run's goroutine has these.
	turns map[string]*turn
	swept time.Time
}

// turn is when an ARN is looked at next.
type turn struct {
	next     time.Time
	failures int
}

// New makes a Mirror. Its caller starts Run.
func New(c Config) *Mirror {
	return &Mirror{
		Config: c, worker: rand.Text(), wake: make(chan struct{}, 1), turns: map[string]*turn{},
		describes:   rate.NewLimiter(describesPerSecond, describesPerSecond),
		exports:     rate.NewLimiter(exportsPerSecond, exportsPerSecond),
		authorities: rate.NewLimiter(authoritiesPerSecond, authoritiesPerSecond),
	}
}

// lead is who asks AWS, for all servers of a store: its quotas are an account's.
type lead struct {
	Worker string    `json:"worker"`
	Until  time.Time `json:"until"`
}

func leadPlace() store.Place { return store.Place{"aws-lead", "acm"} }

// kick makes Run look for requests now.
func (m *Mirror) kick() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Run keeps what specs name, until ctx ends.
func (m *Mirror) Run(ctx context.Context) error {
	ticker := time.NewTicker(roundEvery)
	defer ticker.Stop()
	for {
		if err := m.round(ctx); err != nil && ctx.Err() == nil {
			m.Log.WarnContext(ctx, "certificates in AWS wait to be looked at", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-m.wake:
		case <-ticker.C:
		}
	}
}

// round looks at everything whose time has come, if this server has the lead.
func (m *Mirror) round(ctx context.Context) error {
	for ctx.Err() == nil {
		until, err := m.takeLead(ctx)
		if err != nil || until.IsZero() {
			return err
		}
		targets, err := m.due(ctx)
		if err != nil || len(targets) == 0 {
			return errors.Join(err, m.sweep(ctx))
		}
		var group errgroup.Group // one failure does not end the others
		for _, t := range targets[:min(atOnce, len(targets))] {
			group.Go(func() error { return m.look(ctx, t) })
		}
		if err := group.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// takeLead returns until when this server has the lead; zero: another one has.
func (m *Mirror) takeLead(ctx context.Context) (until time.Time, err error) {
	_, err = m.Store.Write(ctx, func(tx *store.Tx) error {
		until = time.Time{}
		o, err := store.GetObject[lead](tx, leadPlace())
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		now := m.Now()
		if err == nil && o.Value.Worker != m.worker && now.Before(o.Value.Until) {
			return nil
		}
		if err == nil && o.Value.Worker == m.worker && o.Value.Until.Sub(now) > answerWithin {
			until = o.Value.Until
			return nil
		}
		until = now.Add(leadLife)
		return store.PutObject(tx, leadPlace(), &lead{m.worker, until})
	})
	return until, err
}

// target is an ARN to be looked at.
type target struct {
	arn       string
	named     bool // by a spec
	requested bool
	turn      *turn
}

// due are the ARNs whose time has come: first those that somebody waits for.
func (m *Mirror) due(ctx context.Context) ([]target, error) {
	requests, err := m.waiting(ctx)
	if err != nil {
		return nil, err
	}
	named, now := m.named(), m.Now()
	for arn := range m.turns {
		if !named[arn] && !requests[arn] {
			delete(m.turns, arn)
		}
	}
	var all []target
	add := func(arn string) {
		t := m.turns[arn]
		if t == nil {
			t = &turn{}
			m.turns[arn] = t
		}
		if requests[arn] || !now.Before(t.next) {
			all = append(all, target{arn, named[arn], requests[arn], t})
		}
	}
	for arn := range requests {
		add(arn)
	}
	for arn := range named {
		if !requests[arn] {
			add(arn)
		}
	}
	slices.SortFunc(all, func(a, b target) int {
		if a.requested != b.requested {
			return map[bool]int{true: -1, false: 1}[a.requested]
		}
		if c := a.turn.next.Compare(b.turn.next); c != 0 {
			return c
		}
		return strings.Compare(a.arn, b.arn)
	})
	return all, nil
}

// named are the ARNs in the specs of all meshes, as the cache has them.
func (m *Mirror) named() map[string]bool {
	all := map[string]bool{}
	for _, name := range m.Store.Meshes() {
		view, ok := m.Store.View(name)
		if !ok {
			continue
		}
		certificates, authorities := view.ARNs()
		for _, arns := range []map[string]bool{certificates, authorities} {
			for arn := range arns {
				if _, err := parseARN(arn, m.Region); err == nil {
					all[arn] = true
				}
			}
		}
	}
	return all
}

// look asks AWS about one ARN and writes what has changed. What AWS refuses goes
// into the store; the error is the store's.
func (m *Mirror) look(ctx context.Context, t target) error {
	held, err := m.held(ctx, t.arn)
	if err != nil {
		return err
	}
	call, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	got, failed := m.fetch(call, t.arn, held)
	if ctx.Err() != nil {
		return ctx.Err() // the server is to end
	}
	now := m.Now()
	if failed != nil {
		pause := longestPause
		if t.turn.failures < 8 {
			pause = min(longestPause, firstPause<<t.turn.failures)
		}
		t.turn.failures++
		t.turn.next = now.Add(pause)
		m.Log.WarnContext(ctx, "what AWS has under an ARN could not be fetched; the last good one stays", "arn", t.arn,
			"attempt", t.turn.failures, "again_in", pause, "error", failed)
	} else {
		t.turn.failures, t.turn.next = 0, now.Add(fresh)
	}
	m.Metrics.looked(t.arn, failed)
	return m.write(ctx, t, held, got, failed)
}

// write stores the outcome of a look, unless somebody else has had one meanwhile.
func (m *Mirror) write(ctx context.Context, t target, before holding, got *fetched, failed error) error {
	if failed == nil && !t.requested && got.same && before.status.Failure == "" {
		return nil
	}
	_, err := m.Store.Write(ctx, func(tx *store.Tx) error {
		s, revision, err := getStatus(tx, t.arn)
		if err != nil {
			return err
		}
		if revision == before.revision && (failed == nil || t.named || revision > 0) {
			if err := m.put(tx, t.arn, s, got, failed); err != nil {
				return err
			}
		}
		return answer(tx, t.arn, failed)
	})
	if err == nil && failed == nil && !got.same {
		m.Log.InfoContext(ctx, "fetched from AWS", "arn", t.arn, "serial", got.serial(), "status", got.state())
	}
	return err
}

func (m *Mirror) put(tx *store.Tx, arn string, s *status, got *fetched, failed error) error {
	now := m.Now().UTC()
	if failed != nil {
		if s.Failure == "" {
			s.Since = now
		}
		s.Failure = failureText(failed)
		return putStatus(tx, arn, s)
	}
	s.Failure, s.Since = "", time.Time{}
	if got.seen != "" {
		s.Seen = got.seen
	}
	if !got.same {
		s.Fetched = now
	}
	switch {
	case got.same:
	case got.certificate != nil:
		if err := store.PutCertificate(tx, got.certificate, got.key); err != nil {
			return err
		}
	case got.authority != nil:
		if err := store.PutAuthority(tx, got.authority); err != nil {
			return err
		}
	}
	return putStatus(tx, arn, s)
}

// sweep drops what no spec has named for a day, and answers that nobody reads.
func (m *Mirror) sweep(ctx context.Context) error {
	now := m.Now()
	if now.Sub(m.swept) < sweepEvery {
		return nil
	}
	named := m.named()
	statuses, err := m.statuses(ctx)
	if err != nil {
		return err
	}
	for _, o := range statuses {
		arn := o.Place[1]
		if named[arn] || now.Sub(o.Value.Fetched) < keepUnnamed {
			continue
		}
		if err := m.drop(ctx, arn); err != nil {
			return fmt.Errorf("drop what no spec names: %w", err)
		}
	}
	if err := m.dropAnswers(ctx); err != nil {
		return err
	}
	m.swept = now
	return nil
}

func (m *Mirror) drop(ctx context.Context, arn string) error {
	_, err := m.Store.Write(ctx, func(tx *store.Tx) error {
		users, err := tx.Users(arn, 1)
		if err != nil || len(users) > 0 {
			return err
		}
		if _, revision, err := getStatus(tx, arn); err != nil || revision == 0 {
			return err
		}
		if isAuthority(arn) {
			err = store.PutAuthority(tx, &store.Authority{ARN: arn, Gone: true})
		} else {
			err = store.DeleteCertificate(tx, arn)
		}
		if err != nil {
			return err
		}
		return tx.DeleteObject(statusPlace(arn))
	})
	return err
}
