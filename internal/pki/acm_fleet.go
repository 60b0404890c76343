package pki

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/acm"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/store"
)

// mostScheduled bounds the renewals that are made tasks of in one transaction, so
// that work on the first begins soon. Each writes two keys.
const mostScheduled = 100

// mostNamed bounds the certificates that an answer names.
const mostNamed = 100

// RenewalsInput says which certificates of ACM are to be renewed now: exactly one
// member is given.
type RenewalsInput struct {
	Certificates []string `json:"certificates,omitzero" min:"1" max:"1000" each-min:"1" each-max:"200"` // ARNs
	Authority    *string  `json:"authority,omitzero" min:"1" max:"200"`                                 // ARN: all in whose chain it is
	All          *bool    `json:"all,omitzero"`
}

// Renewals is what became of a request to renew many certificates.
type Renewals struct {
	// Renewing are being renewed from now on, Busy were already, at this moment.
	Renewing int `json:"renewing"`
	Busy     int `json:"busy"`
	// Skipped cannot be renewed; Reasons says why, of the first hundred.
	Skipped int             `json:"skipped"`
	Reasons []RenewalReason `json:"reasons"`
}

// RenewalReason says why a certificate is not renewed.
type RenewalReason struct {
	ARN    string `json:"arn"`
	Reason string `json:"reason"`
}

// RenewalProgress is how the renewals stand that are under way.
type RenewalProgress struct {
	Waiting int `json:"waiting"` // not renewed yet
	// Failing are those of them that failed so far, and are tried again; Reasons
	// says why, of the first hundred.
	Failing int             `json:"failing"`
	Reasons []RenewalReason `json:"reasons"`
}

// RenewCertificates renews many certificates of the caller's now. Those that
// nobody uses are not renewed, as with RenewCertificate.
func (m *ACM) RenewCertificates(ctx context.Context, in *RenewalsInput) (*Renewals, error) {
	given := 0
	for _, is := range []bool{in.Certificates != nil, in.Authority != nil, set(in.All)} {
		if is {
			given++
		}
	}
	if given != 1 {
		return nil, acm.NewInvalidParameterException("give exactly one of certificates, authority and all, which is true if it is given")
	}
	users, err := m.allUsers(ctx)
	if err != nil {
		return nil, err
	}
	out, missing, places := &Renewals{Reasons: []RenewalReason{}}, map[string]bool{}, []store.Place(nil)
	for _, arn := range in.Certificates {
		missing[arn] = true
	}
	err = each(ctx, m.Store, store.Place{kindCertificate, account(ctx)}, func(o *store.Object[certificate]) error {
		c := o.Value
		if in.Certificates != nil && !missing[c.ARN] || in.Authority != nil && !c.below(*in.Authority) {
			return nil
		}
		delete(missing, c.ARN)
		if why := c.unrenewable(users[c.ARN], m.Now()); why == "" {
			places = append(places, o.Place)
		} else if out.Skipped++; out.Skipped <= mostNamed {
			out.Reasons = append(out.Reasons, RenewalReason{c.ARN, why})
		}
		return nil
	})
	if err != nil {
		return nil, failure(err)
	}
	for arn := range missing { // any of them
		return nil, acm.NewResourceNotFoundException("Could not find certificate %.300s. None was renewed.", arn)
	}
	if in.Authority != nil && len(places)+out.Skipped == 0 {
		return nil, acm.NewResourceNotFoundException("There is no certificate of ACM below %.300s", *in.Authority)
	}
	out.Renewing, out.Busy, err = m.scheduleAll(ctx, places, func(c *certificate, _ bool) bool {
		return c.unrenewable(users[c.ARN], m.Now()) == ""
	})
	m.Log.InfoContext(ctx, "many certificates are renewed", "renewing", out.Renewing, "busy", out.Busy, "skipped", out.Skipped, "actor", awsapi.PrincipalFrom(ctx).ARN())
	if err != nil {
		return nil, failure(err)
	}
	return out, nil
}

// below says whether an authority is in the chain of a certificate, as far as this
// server knows.
func (c *certificate) below(authority string) bool {
	return c.Authority == authority || c.Root == authority || slices.Contains(c.Issuers, authority)
}

// scheduleAll makes tasks of renewals, many in a transaction. Wanted decides on
// each as it is then, and is told whether its renewal is under way. What is busy
// has somebody just at it.
func (m *ACM) scheduleAll(ctx context.Context, places []store.Place, wanted func(c *certificate, underWay bool) bool) (scheduled, busy int, err error) {
	var faults []error
	for some := range slices.Chunk(places, min(mostScheduled, m.Store.MostKeys()/2)) {
		err := together(some, func(some []store.Place) error {
			var done, others int
			_, err := m.Store.Write(ctx, func(tx *store.Tx) (err error) {
				done, others, err = m.scheduleSome(tx, some, wanted)
				return err
			})
			if err == nil {
				scheduled, busy = scheduled+done, busy+others
			}
			return err
		})
		m.kick()
		if faults = append(faults, err); errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrFull) {
			break
		}
	}
	return scheduled, busy, errors.Join(faults...)
}

func (m *ACM) scheduleSome(tx *store.Tx, places []store.Place, wanted func(c *certificate, underWay bool) bool) (scheduled, busy int, err error) {
	var all []store.Place
	for _, at := range places {
		all = append(all, at, taskPlace(at))
	}
	if err := tx.ReadAhead(all, nil); err != nil {
		return 0, 0, err
	}
	for _, at := range places {
		o, err := store.GetObject[certificate](tx, at)
		if isNotFound(err) {
			continue
		}
		if err != nil {
			return 0, 0, err
		}
		_, err = store.GetObject[task](tx, taskPlace(at))
		if err != nil && !isNotFound(err) {
			return 0, 0, err
		}
		if !wanted(o.Value, err == nil) {
			continue
		}
		switch working, err := m.schedule(tx, at, o.Value); {
		case err != nil:
			return 0, 0, err
		case working:
			busy++
		default:
			scheduled++
		}
	}
	return scheduled, busy, nil
}

// renewals is how the caller's renewals stand.
func (m *ACM) renewals(ctx context.Context, _ *awsapi.Request) (any, error) {
	out := RenewalProgress{Reasons: []RenewalReason{}}
	err := each(ctx, m.Store, store.Place{kindTask, account(ctx)}, func(o *store.Object[task]) error {
		if o.Value.Generation == 0 {
			return nil // not a renewal
		}
		out.Waiting++
		if o.Value.Failures == 0 {
			return nil
		}
		if out.Failing++; out.Failing > mostNamed {
			return nil
		}
		reason := "the authority has not answered yet"
		c, err := m.read(ctx, o.Value.ARN)
		if err == nil && c.Renewal != nil && c.Renewal.Reason != "" {
			reason = string(c.Renewal.Reason)
		}
		if e, gone := errors.AsType[*api.Exception](err); gone && e.Code == "ResourceNotFoundException" {
			err = nil
		}
		out.Reasons = append(out.Reasons, RenewalReason{o.Value.ARN, reason})
		return err
	})
	return out, failure(err)
}

func (m *ACM) mountRenewals(mux *awsapi.Mux) {
	mux.HandleOperator(http.MethodGet, "/fairlead/v1/certificates/renewals", "ListRenewals", m.renewals)
	mux.HandleOperator(http.MethodPost, "/fairlead/v1/certificates/renew", "RenewCertificates", func(ctx context.Context, r *awsapi.Request) (any, error) {
		var in RenewalsInput
		if err := r.Decode(&in); err != nil {
			return nil, err
		}
		out, err := m.RenewCertificates(ctx, &in)
		if err != nil {
			return nil, err
		}
		return out, nil
	})
}
