package pki

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/store"
)

// How often keys are checked, and of how many authorities at most until one can
// sign.
const (
	checkEvery  = 5 * time.Second
	checkWithin = 5 * time.Second
	mostTried   = 16
	mostSeen    = 1000 // also those that are not ACTIVE
)

// keyCheck is what the newest check has found.
type keyCheck struct {
	found atomic.Pointer[error]
	good  atomic.Pointer[store.Place] // the authority that could sign last time; nil: none
}

// KeysUsable says whether the keys of authorities can be opened and sign, as the
// newest check has found: nil if so, and if there is no ACTIVE authority. Its
// error is for everybody's eyes; causes are in the log.
func (p *PrivateCA) KeysUsable() error {
	if found := p.keys.found.Load(); found != nil {
		return *found
	}
	return errors.New("the keys of certificate authorities were not tried yet")
}

// CheckKeys opens the key of an ACTIVE authority afresh, signs a throw-away leaf
// with it and verifies that. It is about how keys are kept, which all
// authorities share: while any of those that are tried can sign, others that
// cannot are only logged, since one account's trouble is not another's. If the
// store does not answer nothing is found, and what was found before stays.
func (p *PrivateCA) CheckKeys(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	found := p.findUsable(ctx)
	if ctx.Err() != nil || errors.Is(found, store.ErrUnavailable) {
		return
	}
	p.keys.found.Store(&found)
}

// errEnough ends a walk over authorities.
var errEnough = errors.New("enough was seen")

func (p *PrivateCA) findUsable(ctx context.Context) error {
	if good := p.keys.good.Load(); good != nil && p.tryKey(ctx, *good) == nil {
		return nil
	}
	var usable *store.Place
	seen, tried := 0, 0
	err := each(ctx, p.Store, store.Place{"authority"}, func(o *store.Object[authority]) error {
		if seen++; seen > mostSeen || tried == mostTried {
			return errEnough
		}
		if o.Value.statusAt(p.Now()) != active {
			return nil
		}
		err := p.tryKey(ctx, o.Place)
		switch {
		case err == nil:
			usable = &o.Place
			return errEnough
		case ctx.Err() != nil || errors.Is(err, store.ErrUnavailable):
			return err
		}
		tried++
		p.Log.ErrorContext(ctx, "private CA: the key of an authority cannot be used", "authority", p.arn(o.Place[1], o.Place[2]), "error", err)
		return nil
	})
	p.keys.good.Store(usable)
	switch {
	case err != nil && !errors.Is(err, errEnough):
		return err
	case usable == nil && tried > 0:
		return fmt.Errorf("no certificate authority can sign: the keys of %d were tried, see the server's log", tried)
	}
	return nil
}

// tryKey signs with an authority's key as it lies in the store, whatever is
// remembered of it.
func (p *PrivateCA) tryKey(ctx context.Context, at store.Place) error {
	var joined *ca.Authority
	if _, err := p.Store.Read(ctx, func(tx *store.Tx) error {
		o, err := store.GetObject[authority](tx, at)
		if err != nil {
			return err
		}
		if err := p.can(o.Value, doIssue, p.Now()); err != nil {
			return err
		}
		key, err := openKey(tx, at)
		if err != nil {
			return err
		}
		joined, err = o.Value.join(key)
		return err
	}); err != nil {
		return err
	}
	return joined.Try()
}
