package pki

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fairlead/fairlead/internal/store"
)

// What waits for Run, as the kind in pendingPlace.
const (
	pendingKey    = "key"    // of an RSA authority
	pendingReport = "report" // an audit report
)

// work is what waits for Run in the store, so that a restart forgets nothing.
type work struct {
	At time.Time `json:"at"`
}

// How often Run looks by itself: for what a server that is gone has left, and
// for what has run out.
const (
	lookEvery  = 10 * time.Second
	sweepEvery = time.Minute
)

// rouse makes Run look for work now.
func (p *PrivateCA) rouse() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Run makes what takes long, one after the other, and removes what has run out,
// until ctx ends; and it checks keys. Several servers may do the same work at
// the same time: the first one's stays.
func (p *PrivateCA) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return p.work(ctx) })
	group.Go(func() error {
		again := time.NewTicker(checkEvery)
		defer again.Stop()
		for {
			p.CheckKeys(ctx)
			select {
			case <-ctx.Done():
				return nil
			case <-again.C:
			}
		}
	})
	return group.Wait()
}

func (p *PrivateCA) work(ctx context.Context) error {
	look, sweep, lists := time.NewTicker(lookEvery), time.NewTicker(sweepEvery), time.NewTicker(listsEvery)
	defer look.Stop()
	defer sweep.Stop()
	defer lists.Stop()
	p.attempt(ctx, "make the CRLs of proxies anew", p.renewLists)
	p.rouse()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
			p.attempt(ctx, "make keys", p.makeKeys)
			p.attempt(ctx, "make audit reports", p.makeReports)
		case <-look.C:
			p.rouse()
		case <-sweep.C:
			p.attempt(ctx, "remove what has run out", p.sweep)
		case <-lists.C:
			p.attempt(ctx, "make the CRLs of proxies anew", p.renewLists)
		}
	}
}

// attempt does what is tried again later if it fails.
func (p *PrivateCA) attempt(ctx context.Context, what string, do func(context.Context) error) {
	if err := do(ctx); err != nil && ctx.Err() == nil {
		p.Log.WarnContext(ctx, "private CA: work is left for later", "work", what, "error", err)
	}
}

// batch bounds what is read at once.
const batch = 500

// each calls fn for all objects below a place, in batches of one revision each.
func each[T any](ctx context.Context, s *store.Store, below store.Place, fn func(o *store.Object[T]) error) error {
	var behind store.Place
	for {
		var page []*store.Object[T]
		if _, err := s.Read(ctx, func(tx *store.Tx) (err error) {
			page, err = store.ListObjects[T](tx, below, behind, batch)
			return err
		}); err != nil {
			return err
		}
		for _, o := range page {
			if err := fn(o); err != nil {
				return err
			}
			behind = o.Place
		}
		if len(page) < batch {
			return nil
		}
	}
}

// makeKeys makes the keys that authorities wait for.
func (p *PrivateCA) makeKeys(ctx context.Context) error {
	var all []error
	err := each(ctx, p.Store, store.Place{"authority-pending", pendingKey}, func(o *store.Object[work]) error {
		if err := p.finishKey(ctx, o.Place); err != nil {
			all = append(all, fmt.Errorf("authority %s: %w", o.Place[3], err))
		}
		return ctx.Err()
	})
	return errors.Join(append(all, err)...)
}

func (p *PrivateCA) finishKey(ctx context.Context, waiting store.Place) error {
	at := placeOf(waiting[2], waiting[3])
	var made *authority // outside of the transaction: it takes seconds
	var secret []byte
	if _, err := p.Store.Read(ctx, func(tx *store.Tx) error {
		o, err := store.GetObject[authority](tx, at)
		if err == nil {
			made = o.Value
		}
		return err
	}); err != nil && !isNotFound(err) {
		return err
	}
	if made != nil && made.Status == creating {
		var err error
		if secret, err = made.makeKeyUntil(ctx); err != nil {
			return err
		}
	}
	_, err := p.Store.Write(ctx, func(tx *store.Tx) error {
		if err := take(tx, waiting); err != nil {
			return ignoreNotFound(err)
		}
		o, err := store.GetObject[authority](tx, at)
		if err != nil {
			return ignoreNotFound(err) // deleted meanwhile
		}
		if o.Value.Status != creating || secret == nil {
			return nil
		}
		o.Value.CSR = made.CSR
		o.Value.shift(pending, p.Now().UTC())
		if err := tx.PutSecret(at, secret); err != nil {
			return err
		}
		if err := p.claim(tx, o.Value); err != nil {
			return err
		}
		return p.put(tx, at, o.Value)
	})
	return err
}

// makeKeyUntil is makeKey, which nothing can interrupt: when ctx ends it is left
// alone.
func (a *authority) makeKeyUntil(ctx context.Context) (secret []byte, err error) {
	type outcome struct {
		csr, secret []byte
		err         error
	}
	made := make(chan outcome, 1)
	go func(own authority) {
		secret, err := own.makeKey()
		made <- outcome{own.CSR, secret, err}
	}(*a)
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case o := <-made:
		a.CSR = o.csr
		return o.secret, o.err
	}
}

// take stages the end of a piece of work, which must still be there.
func take(tx *store.Tx, waiting store.Place) error {
	if _, err := store.GetObject[work](tx, waiting); err != nil {
		return err
	}
	return tx.DeleteObject(waiting)
}

func ignoreNotFound(err error) error {
	if isNotFound(err) {
		return nil
	}
	return err
}

// sweep removes answers whose tokens no longer count, and authorities that
// nobody can restore any more: keys first.
func (p *PrivateCA) sweep(ctx context.Context) error {
	now := p.Now()
	err := each(ctx, p.Store, store.Place{"authority-token"}, func(o *store.Object[answered]) error {
		if now.Sub(o.Value.At) < tokenLife {
			return nil
		}
		return removeIf(ctx, p.Store, o.Place, func(a *answered) bool { return now.Sub(a.At) >= tokenLife })
	})
	if err != nil {
		return err
	}
	return each(ctx, p.Store, store.Place{"authority"}, func(o *store.Object[authority]) error {
		if !o.Value.goneAt(now) {
			return nil
		}
		return p.remove(ctx, o.Place)
	})
}

// remove removes an authority, its key and its ledger.
func (p *PrivateCA) remove(ctx context.Context, at store.Place) error {
	now := p.Now()
	// What was issued goes first: whoever ends in between goes on next time.
	for _, ledger := range []string{"authority-issued", "authority-revoked", "authority-report"} {
		if err := each(ctx, p.Store, store.Place{ledger, at[2]}, func(o *store.Object[struct{}]) error {
			return removeIf(ctx, p.Store, o.Place, func(*struct{}) bool { return true })
		}); err != nil {
			return err
		}
	}
	if err := removeIf(ctx, p.Store, revocationsPlace(at[2]), func(*revocations) bool { return true }); err != nil {
		return err
	}
	if err := removeIf(ctx, p.Store, ownerPlace(at[2]), func(*owner) bool { return true }); err != nil {
		return err
	}
	p.signers.drop(at[2])
	_, err := p.Store.Write(ctx, func(tx *store.Tx) error {
		o, err := store.GetObject[authority](tx, at)
		if err != nil || !o.Value.goneAt(now) {
			return ignoreNotFound(err)
		}
		return errors.Join(p.forget(tx, o.Value), tx.DeleteObject(at))
	})
	return err
}

// removeIf removes an object that is still there and still meant.
func removeIf[T any](ctx context.Context, s *store.Store, at store.Place, meant func(*T) bool) error {
	_, err := s.Write(ctx, func(tx *store.Tx) error {
		o, err := store.GetObject[T](tx, at)
		if err != nil || !meant(o.Value) {
			return ignoreNotFound(err)
		}
		return tx.DeleteObject(at)
	})
	return err
}
