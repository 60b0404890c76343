package pki

import (
	"context"
	"fmt"
	"time"

	"github.com/fairlead/fairlead/api/acm"
	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/store"
)

// revoked is a certificate on its authority's list: what a CRL needs to know.
type revoked struct {
	At       time.Time `json:"at"`
	Reason   ca.Reason `json:"reason"`
	NotAfter time.Time `json:"notAfter"`
}

// revocations is written with each revocation of an authority: whoever holds a
// list as of its revision has them all.
type revocations struct {
	Count int64 `json:"count"`
}

// RevokeCertificate revokes a certificate. The next CRL and OCSP answer that
// anybody fetches say so.
func (p *PrivateCA) RevokeCertificate(ctx context.Context, in *acmpca.RevokeCertificateRequest) error {
	at, err := p.parseARN(ctx, "RevokeCertificate", in.CertificateAuthorityArn)
	if err != nil {
		return err
	}
	number, err := ca.ParseSerial(in.CertificateSerial)
	if err != nil || number.BitLen() > 128 {
		return acmpca.NewInvalidRequestException("CertificateSerial: %.128q is not a serial in hexadecimal", in.CertificateSerial)
	}
	reason, err := ca.ParseReason(string(in.RevocationReason))
	if err != nil {
		return failure(err)
	}
	serial := fmt.Sprintf("%032x", number)
	return p.write(ctx, func(tx *store.Tx) error {
		s, err := p.load(tx, at)
		if err != nil {
			return err
		}
		now := p.Now().UTC()
		if err := p.can(s.authority, doRevoke, now); err != nil {
			return err
		}
		if s.Serial == ca.DescribeSerial(number) && s.Type == acmpca.CertificateAuthorityTypeRoot {
			return selfSigned()
		}
		c, err := store.GetObject[issued](tx, certificatePlace(at[2], serial))
		if isNotFound(err) {
			return acmpca.NewResourceNotFoundException("The certificate authority %s has issued no certificate with the serial %s", in.CertificateAuthorityArn, in.CertificateSerial)
		}
		if err != nil {
			return err
		}
		if err := enterRevocation(tx, at[2], serial, c.Value, &revoked{At: now, Reason: reason, NotAfter: c.Value.NotAfter}); err != nil {
			return err
		}
		if err := setRevoked(tx, at[2], serial, acm.CertificateStatusRevoked); err != nil {
			return err
		}
		return p.list(tx, s.authority, s.ca, listChange{add: &ca.Revoked{Serial: number, At: now, Reason: reason}})
	})
}

func selfSigned() error {
	return acmpca.NewInvalidRequestException("Self-signed certificate can not be revoked")
}

// enterRevocation writes a revocation to the ledger and to the list.
func enterRevocation(tx *store.Tx, id, serial string, c *issued, r *revoked) error {
	switch {
	case c.Root:
		return selfSigned()
	case !c.RevokedAt.IsZero():
		return acmpca.NewRequestAlreadyProcessedException("The certificate was revoked already, at %s", c.RevokedAt.Format(time.RFC3339))
	case r.At.After(c.NotAfter):
		return acmpca.NewInvalidRequestException("The certificate has expired, at %s: there is nothing left to revoke", c.NotAfter.Format(time.RFC3339))
	}
	c.RevokedAt, c.Reason = r.At, r.Reason
	if err := store.PutObject(tx, certificatePlace(id, serial), c); err != nil {
		return err
	}
	if err := store.MakeObject(tx, revokedPlace(id, serial), r); err != nil {
		return err
	}
	return countRevocation(tx, id)
}

// countRevocation says that the list of an authority is another one.
func countRevocation(tx *store.Tx, id string) error {
	count := &revocations{}
	o, err := store.GetObject[revocations](tx, revocationsPlace(id))
	if err == nil {
		count = o.Value
	} else if !isNotFound(err) {
		return err
	}
	count.Count++
	return store.PutObject(tx, revocationsPlace(id), count)
}
