package pki

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/store"
)

// issuer reads what an answer about an authority's certificates depends on: the
// authority, ready to sign, and the revision of its revocations. It is
// ErrNotFound if the authority's state publishes nothing, or it is not
// configured to.
func (p *PrivateCA) issuer(tx *store.Tx, id string, configured func(*authority) *bool) (s *signer, revision int64, err error) {
	at, err := p.published(tx, id)
	if err != nil {
		return nil, 0, err
	}
	s, err = p.load(tx, at)
	if _, gone := errors.AsType[*api.Exception](err); gone {
		return nil, 0, store.ErrNotFound
	}
	if err != nil {
		return nil, 0, err
	}
	if p.can(s.authority, doPublish, p.Now()) != nil || s.ca == nil || !set(configured(s.authority)) {
		return nil, 0, store.ErrNotFound
	}
	o, err := store.GetObject[revocations](tx, revocationsPlace(id))
	if isNotFound(err) {
		return s, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	return s, o.Revision, nil
}

// crl is a list, and what it was made from.
type crl struct {
	der                    []byte
	authority, revocations int64 // revisions
	thisUpdate, nextUpdate time.Time
}

// freshFor is how long a list or an answer is served before it is made anew.
func freshFor(from, to time.Time) time.Time { return from.Add(min(to.Sub(from)/2, time.Hour)) }

// crls remembers the newest list of each generation of each authority.
type crls struct {
	mu     sync.Mutex
	byName map[string]*crl // as crlName
	flight singleflight.Group
}

// maxCRLs bounds how many lists are remembered.
const maxCRLs = 256

func (c *crls) get(name string) *crl {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byName[name]
}

func (c *crls) put(name string, list *crl) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byName == nil || len(c.byName) >= maxCRLs {
		c.byName = map[string]*crl{}
	}
	c.byName[name] = list
}

// crl is the list of a generation of an authority: the remembered one while nothing
// has changed and it is fresh.
func (p *PrivateCA) crl(ctx context.Context, id string, generation int) (*crl, error) {
	name := crlName(id, generation)
	var s *signer
	var revision int64
	if _, err := p.Store.Read(ctx, func(tx *store.Tx) (err error) {
		s, revision, err = p.issuer(tx, id, func(a *authority) *bool { return a.Revocation.CrlConfiguration.Enabled })
		if err == nil && s.generation(generation) == nil {
			return store.ErrNotFound
		}
		return err
	}); err != nil {
		return nil, err
	}
	now := p.Now().UTC()
	if known := p.crls.get(name); known != nil && known.authority == s.revision && known.revocations == revision && now.Before(freshFor(known.thisUpdate, known.nextUpdate)) {
		return known, nil
	}
	// Whoever waits for a list of the same revisions shares it.
	made, err, _ := p.crls.flight.Do(fmt.Sprint(name, s.revision, revision), func() (any, error) {
		shared, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishTime)
		defer cancel()
		return p.makeCRL(shared, s, generation, revision, now)
	})
	if err != nil {
		return nil, err
	}
	return made.(*crl), nil
}

// makeCRL signs the list. What is revoked while it reads is on it or on the
// next one, whose revision is then another.
func (p *PrivateCA) makeCRL(ctx context.Context, s *signer, generation int, revision int64, now time.Time) (*crl, error) {
	days := int64(presetCRLDays)
	if d := s.Revocation.CrlConfiguration.ExpirationInDays; d != nil {
		days = *d
	}
	list := &crl{authority: s.revision, revocations: revision, thisUpdate: now, nextUpdate: now.AddDate(0, 0, int(days))}
	var all []ca.Revoked
	err := each(ctx, p.Store, store.Place{"authority-revoked", s.ID}, func(o *store.Object[revoked]) error {
		// A certificate stays until one list after its end has had it.
		if now.After(o.Value.NotAfter.AddDate(0, 0, int(days))) {
			return nil
		}
		serial, err := ca.ParseSerial(o.Place[2])
		if err != nil {
			return err
		}
		all = append(all, ca.Revoked{Serial: serial, At: o.Value.At, Reason: o.Value.Reason})
		return nil
	})
	if err != nil {
		return nil, err
	}
	if list.der, err = s.generation(generation).SignCRL(ca.CRL{Revoked: all, ThisUpdate: list.thisUpdate, NextUpdate: list.nextUpdate}); err != nil {
		return nil, err
	}
	p.crls.put(crlName(s.ID, generation), list)
	return list, nil
}

// asked is the generation that an OCSP request is about; nil: it is none of this
// authority's.
func (s *signer) asked(r *ca.OCSPRequest) (number int, by *ca.Authority) {
	if s.ca.Asks(r) {
		return s.Generation, s.ca
	}
	for number, other := range s.others {
		if other.Asks(r) {
			return number, other
		}
	}
	return 0, nil
}

// ocspLife is how long an OCSP answer holds.
const ocspLife = time.Hour

// ocspAnswers remembers signed answers about certificates that are known.
type ocspAnswers struct {
	mu    sync.Mutex
	byKey map[ocspKey]*ocspAnswer
}

type ocspKey struct {
	id, serial string
	generation int
	hash       crypto.Hash
}

type ocspAnswer struct {
	der                    []byte
	authority, revocations int64 // revisions
	until                  time.Time
}

// maxAnswers bounds how many answers are remembered: some 600 bytes each.
const maxAnswers = 16384

func (o *ocspAnswers) get(key ocspKey) *ocspAnswer {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.byKey[key]
}

func (o *ocspAnswers) put(key ocspKey, a *ocspAnswer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.byKey == nil || len(o.byKey) >= maxAnswers {
		o.byKey = map[ocspKey]*ocspAnswer{}
	}
	o.byKey[key] = a
}

// statusOf is the signed status of a certificate.
func (p *PrivateCA) statusOf(ctx context.Context, id string, asked *ca.OCSPRequest) ([]byte, error) {
	key := ocspKey{id: id, serial: paddedSerial(asked.Serial), hash: asked.Hash}
	var by *ca.Authority
	var s *signer
	var revision int64
	var known []byte
	status := ca.Status{Serial: asked.Serial}
	now := p.Now().UTC()
	_, err := p.Store.Read(ctx, func(tx *store.Tx) (err error) {
		s, revision, err = p.issuer(tx, id, func(a *authority) *bool { return a.Revocation.OcspConfiguration.Enabled })
		if err != nil {
			return err
		}
		if key.generation, by = s.asked(asked); by == nil {
			return store.ErrNotFound
		}
		if a := p.status.get(key); a != nil && a.authority == s.revision && a.revocations == revision && now.Before(a.until) {
			known = a.der
			return nil
		}
		if key.serial == "" {
			return nil
		}
		c, err := store.GetObject[issued](tx, certificatePlace(id, key.serial))
		if err == nil && c.Value.Generation == key.generation {
			status.Known = true
			if !c.Value.RevokedAt.IsZero() {
				status.Revoked = &ca.Revoked{Serial: asked.Serial, At: c.Value.RevokedAt, Reason: c.Value.Reason}
			}
		}
		return ignoreNotFound(err)
	})
	if err != nil || known != nil {
		return slices.Clone(known), err
	}
	// Anybody may ask: that leaves the other cores to who may call the API.
	if err := p.asking.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer p.asking.Release(1)
	until := now.Add(ocspLife)
	der, err := by.SignOCSP(status, asked.Hash, now, until)
	if err == nil && status.Known {
		p.status.put(key, &ocspAnswer{der: der, authority: s.revision, revocations: revision, until: freshFor(now, until)})
	}
	return der, err
}
