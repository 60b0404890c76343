package pki

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/fairlead/fairlead/api/acm"
	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/store"
)

// AuthorityList is all authorities that the caller's account manages.
type AuthorityList struct {
	Authorities []AuthorityStatus `json:"authorities"`
}

// AuthorityStatus is what Private CA's API does not tell of an authority.
type AuthorityStatus struct {
	Arn    string `json:"arn"`
	Type   string `json:"type"`
	Status string `json:"status"`
	// Until is the end of the CRL that proxies get.
	Until time.Time `json:"until,omitzero"`
	// Problem says why proxies get no CRLs of this authority, or of its tree.
	Problem string `json:"problem,omitzero"`
}

// UnrevokeInput names a certificate of an authority.
type UnrevokeInput struct {
	CertificateArn string `json:"certificateArn" required:"true" min:"1" max:"400"`
}

// MountOperator routes what operators do with authorities beside AWS's API.
func (p *PrivateCA) MountOperator(mux *awsapi.Mux) {
	mux.HandleOperator(http.MethodGet, "/fairlead/v1/authorities", "ListAuthorities", p.listAuthorities)
	mux.HandleOperator(http.MethodPost, "/fairlead/v1/authorities/adopt", "AdoptCertificateAuthority", p.adoptAuthority)
	mux.HandleOperator(http.MethodPost, "/fairlead/v1/authorities/unrevoke", "UnrevokeCertificate", p.unrevoke)
}

func (p *PrivateCA) listAuthorities(ctx context.Context, r *awsapi.Request) (any, error) {
	out := AuthorityList{Authorities: []AuthorityStatus{}}
	now := p.Now()
	err := each(ctx, p.Store, store.Place{"authority"}, func(o *store.Object[authority]) error {
		if o.Value.goneAt(now) || !p.managed(r.Principal, o.Value) {
			return nil
		}
		status := AuthorityStatus{Arn: p.arn(o.Place[1], o.Place[2]), Type: string(o.Value.Type), Status: string(o.Value.statusAt(now))}
		err := p.read(ctx, func(tx *store.Tx) error {
			l, err := store.GetRevocationList(tx, status.Arn)
			if err == nil {
				status.Until, status.Problem = l.NextUpdate, problemOf(l, now)
			}
			return ignoreNotFound(err)
		})
		out.Authorities = append(out.Authorities, status)
		return err
	})
	return out, failure(err)
}

func problemOf(l *store.RevocationList, now time.Time) string {
	switch others := othersAt(l.Others, listChange{}, now); {
	case l.Missing != "":
		return "proxies get no CRL of it: " + l.Missing
	case len(others) > 0:
		var all []string
		for serial, until := range others {
			all = append(all, serial+" until "+until.Format(time.DateOnly))
		}
		slices.Sort(all)
		return "proxies get no CRLs of its tree: it has certified authorities that are not of this server: " + strings.Join(all, ", ")
	}
	return ""
}

// unrevoke takes a certificate off its authority's list, which AWS has no
// operation for: proxies take it again as soon as they have the new CRL.
func (p *PrivateCA) unrevoke(ctx context.Context, r *awsapi.Request) (any, error) {
	var in UnrevokeInput
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	arn, hexadecimal, _ := strings.Cut(in.CertificateArn, "/certificate/")
	at, err := p.parseARN(ctx, "UnrevokeCertificate", arn)
	if err != nil {
		return nil, err
	}
	number, err := ca.ParseSerial(hexadecimal)
	if err != nil || paddedSerial(number) == "" {
		return nil, acmpca.NewInvalidArnException("%.200s is not the ARN of a certificate: it ends in /certificate/ and a serial number in hexadecimal", in.CertificateArn)
	}
	serial := paddedSerial(number)
	err = p.write(ctx, func(tx *store.Tx) error {
		s, err := p.load(tx, at)
		if err != nil {
			return err
		}
		if err := p.can(s.authority, doRevoke, p.Now()); err != nil {
			return err
		}
		if _, err := store.GetObject[revoked](tx, revokedPlace(at[2], serial)); isNotFound(err) {
			return acmpca.NewResourceNotFoundException("The certificate authority %s has revoked no certificate with the serial %s", arn, serial)
		} else if err != nil {
			return err
		}
		c, err := store.GetObject[issued](tx, certificatePlace(at[2], serial))
		if err != nil {
			return fmt.Errorf("read certificate %s of authority %s: %w", serial, at[2], err)
		}
		c.Value.RevokedAt, c.Value.Reason = time.Time{}, ""
		if err := store.PutObject(tx, certificatePlace(at[2], serial), c.Value); err != nil {
			return err
		}
		if err := tx.DeleteObject(revokedPlace(at[2], serial)); err != nil {
			return err
		}
		if err := countRevocation(tx, at[2]); err != nil {
			return err
		}
		if err := setRevoked(tx, at[2], serial, acm.CertificateStatusIssued); err != nil {
			return err
		}
		change := listChange{remove: number}
		if change.other, err = otherAuthority(tx, c.Value.Certificate); err != nil {
			return err
		}
		return p.list(tx, s.authority, s.ca, change)
	})
	if err == nil {
		p.Log.InfoContext(ctx, "a certificate is not revoked any more", "authority", arn, "serial", serial, "actor", r.Principal.ARN())
	}
	return nil, err
}
