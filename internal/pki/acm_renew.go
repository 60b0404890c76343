package pki

import (
	"context"
	"errors"
	"hash/fnv"
	"math"
	"time"

	"github.com/fairlead/fairlead/api/acm"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/store"
)

const (
	renewBefore = 60 * 24 * time.Hour // the end
	// renewalsEvery is how often due renewals are looked for, mostSwept how many
	// are taken up then: authorities have other things to do, too.
	renewalsEvery = time.Hour
	mostSwept     = 500
)

// RenewalDue is when a certificate is to be renewed: 60 days before its end or
// after two thirds of its life, whichever is later, and up to a tenth of the
// rest after that. How far is decided by its serial number, so that
// certificates of one day are not renewed on one day.
func RenewalDue(notBefore, notAfter time.Time, serial string) time.Time {
	due := notBefore.Add(notAfter.Sub(notBefore) / 3 * 2)
	if before := notAfter.Add(-renewBefore); before.After(due) {
		due = before
	}
	hash := fnv.New32a()
	hash.Write([]byte(serial)) //nolint:errcheck // it never fails
	share := float64(hash.Sum32()) / math.MaxUint32
	return due.Add(time.Duration(share * float64(notAfter.Sub(due)) / 10))
}

// due says whether a certificate is to be renewed now.
func (c *certificate) due(users []string, now time.Time) bool {
	return c.eligibility(users, now) == acm.RenewalEligibilityEligible && !now.Before(RenewalDue(c.NotBefore, c.NotAfter, c.Serial))
}

// sweep makes tasks of renewals that are due and forgets idempotency tokens
// that are over.
func (m *ACM) sweep(ctx context.Context) error {
	users, err := m.allUsers(ctx)
	if err != nil {
		return err
	}
	now := m.Now()
	var due []store.Place
	err = each(ctx, m.Store, store.Place{kindCertificate}, func(o *store.Object[certificate]) error {
		if len(due) < mostSwept && o.Value.due(users[o.Value.ARN], now) {
			due = append(due, o.Place)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if _, _, err := m.scheduleAll(ctx, due, func(c *certificate, underWay bool) bool { return !underWay && c.due(users[c.ARN], now) }); err != nil {
		return err
	}
	return m.forgetTokens(ctx)
}

// schedule stages the renewal of a certificate, unless one is under way, which
// is tried again at once; then it says whether somebody is just at it.
func (m *ACM) schedule(tx *store.Tx, at store.Place, c *certificate) (busy bool, err error) {
	now := m.Now().UTC()
	o, err := store.GetObject[task](tx, taskPlace(at))
	t := &task{ARN: c.ARN, Generation: c.Generation, Algorithm: c.Algorithm}
	switch {
	case err == nil && now.Before(o.Value.Until):
		return true, nil
	case err == nil:
		t = o.Value
		t.NotYet = time.Time{}
	case !isNotFound(err):
		return false, err
	}
	c.Renewal = &renewal{Status: acm.RenewalStatusPendingAutoRenewal, Updated: now}
	if err := store.PutObject(tx, at, c); err != nil { // what is served of it stays
		return false, err
	}
	return false, store.PutObject(tx, taskPlace(at), t)
}

// forgetTokens deletes idempotency tokens that are over.
func (m *ACM) forgetTokens(ctx context.Context) error {
	now := m.Now()
	over := func(t *token) bool { return !now.Before(t.Expires) }
	return each(ctx, m.Store, store.Place{kindToken}, func(o *store.Object[token]) error {
		if !over(o.Value) {
			return nil
		}
		return removeIf(ctx, m.Store, o.Place, over)
	})
}

// RenewCertificate renews a private certificate before its time.
func (m *ACM) RenewCertificate(ctx context.Context, in *acm.RenewCertificateRequest) error {
	_, err := m.Store.Write(ctx, func(tx *store.Tx) error {
		tx.Actor = awsapi.PrincipalFrom(ctx).ARN()
		at, c, err := certificateOf(ctx, tx, in.CertificateArn)
		if err != nil {
			return err
		}
		users, err := m.users(tx, c.ARN)
		if err != nil {
			return err
		}
		switch {
		case c.Type != acm.CertificateTypePrivate:
			return acm.NewValidationException("CertificateArn: %s was imported; import its successor under the same ARN with import-certificate", c.ARN)
		case c.checkIssued() != nil:
			return c.checkIssued()
		case c.eligibility(users, m.Now()) != acm.RenewalEligibilityEligible:
			return acm.NewValidationException("CertificateArn: %s is not eligible for renewal: it must be issued, neither expired nor revoked, and have been exported since or be in use", c.ARN)
		}
		busy, err := m.schedule(tx, at, c)
		if err == nil && busy {
			return acm.NewRequestInProgressException("Certificate ARN: %s is being renewed.", c.ARN)
		}
		return err
	})
	if err != nil {
		return failure(err)
	}
	m.kick()
	return nil
}

// DeleteCertificate ends a certificate that nothing uses. A spec that names it
// at the same time is either written before, and keeps it, or finds nothing.
func (m *ACM) DeleteCertificate(ctx context.Context, in *acm.DeleteCertificateRequest) error {
	_, err := m.Store.Write(ctx, func(tx *store.Tx) error {
		tx.Actor = awsapi.PrincipalFrom(ctx).ARN()
		at, c, err := certificateOf(ctx, tx, in.CertificateArn)
		if err != nil {
			return err
		}
		users, err := m.users(tx, c.ARN)
		if err != nil {
			return err
		}
		if len(users) > 0 {
			return acm.NewResourceInUseException("Certificate %s is in use by %s.", c.ARN, users[0])
		}
		return errors.Join(dropTask(tx, at), c.leave(tx, c.Serial), store.DeleteCertificate(tx, c.ARN), tx.DeleteObject(at))
	})
	return failure(err)
}
