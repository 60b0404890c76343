package pki

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/store"
)

// presetRestorable is how many days a deleted authority can be restored.
const presetRestorable = 30

// DescribeCertificateAuthority reads an authority.
func (p *PrivateCA) DescribeCertificateAuthority(ctx context.Context, in *acmpca.DescribeCertificateAuthorityRequest) (*acmpca.DescribeCertificateAuthorityResponse, error) {
	at, err := p.parseARN(ctx, "DescribeCertificateAuthority", in.CertificateAuthorityArn)
	if err != nil {
		return nil, err
	}
	var out acmpca.DescribeCertificateAuthorityResponse
	err = p.read(ctx, func(tx *store.Tx) error {
		o, err := p.get(tx, at)
		if err == nil {
			out.CertificateAuthority = p.describe(o.Value, p.Now())
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &out, nil
}

// ListCertificateAuthorities lists the caller's authorities by id, or those of
// other accounts that were adopted. Whatever else others share comes with sharing.
func (p *PrivateCA) ListCertificateAuthorities(ctx context.Context, in *acmpca.ListCertificateAuthoritiesRequest) (*acmpca.ListCertificateAuthoritiesResponse, error) {
	own := account(ctx)
	others := in.ResourceOwner != nil && *in.ResourceOwner == acmpca.ResourceOwnerOtherAccounts
	list, below := "own authorities", store.Place{"authority", own}
	if others {
		list, below = "others' authorities", store.Place{"authority"}
	}
	tokens, err := p.pageTokens(list, own)
	if err != nil {
		return nil, err
	}
	after, err := tokens.after(in.NextToken)
	if err != nil {
		return nil, err
	}
	out := &acmpca.ListCertificateAuthoritiesResponse{CertificateAuthorities: []acmpca.CertificateAuthority{}}
	if others && own != p.Store.Account() {
		return out, nil
	}
	size := pageSize(in.MaxResults)
	err = p.read(ctx, func(tx *store.Tx) error {
		out.CertificateAuthorities, out.NextToken = out.CertificateAuthorities[:0], nil
		var behind store.Place
		if after != "" {
			account, id, _ := strings.Cut(after, "/")
			behind = placeOf(account, id)
		}
		for {
			page, err := store.ListObjects[authority](tx, below, behind, size)
			if err != nil {
				return err
			}
			for _, o := range page {
				behind = o.Place
				if o.Value.goneAt(p.Now()) || others && (o.Value.Account == own || !o.Value.Adopted) {
					continue
				}
				if len(out.CertificateAuthorities) == size {
					last := out.CertificateAuthorities[size-1]
					out.NextToken = tokens.Next(*last.OwnerAccount + "/" + idOf(*last.Arn))
					return nil
				}
				out.CertificateAuthorities = append(out.CertificateAuthorities, *p.describe(o.Value, p.Now()))
			}
			if len(page) < size {
				return nil
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// UpdateCertificateAuthority changes the configuration of revocation, and
// disables an authority or enables it again.
func (p *PrivateCA) UpdateCertificateAuthority(ctx context.Context, in *acmpca.UpdateCertificateAuthorityRequest) error {
	at, err := p.parseARN(ctx, "UpdateCertificateAuthority", in.CertificateAuthorityArn)
	if err != nil {
		return err
	}
	if s := in.Status; s != nil && *s != active && *s != disabled {
		return acmpca.NewInvalidArgsException("Status: an authority can be set to ACTIVE or DISABLED, not to %s", *s)
	}
	if err := checkRevocation(in.RevocationConfiguration); err != nil {
		return err
	}
	return p.write(ctx, func(tx *store.Tx) error {
		return p.change(tx, at, doUpdate, func(a *authority, now time.Time) error {
			if in.Status != nil {
				a.shift(*in.Status, now)
			}
			if c := in.RevocationConfiguration; c != nil {
				if a.keyless() {
					return p.needsKey(a, doPublish)
				}
				next := *a.Revocation // a part that is not given stays
				if c.CrlConfiguration != nil {
					next.CrlConfiguration = c.CrlConfiguration
				}
				if c.OcspConfiguration != nil {
					next.OcspConfiguration = c.OcspConfiguration
				}
				a.Revocation = &next
			}
			return nil
		})
	})
}

// DeleteCertificateAuthority deletes an authority: one that has had no key or
// has failed at once, any other so that it can be restored for some days.
func (p *PrivateCA) DeleteCertificateAuthority(ctx context.Context, in *acmpca.DeleteCertificateAuthorityRequest) error {
	at, err := p.parseARN(ctx, "DeleteCertificateAuthority", in.CertificateAuthorityArn)
	if err != nil {
		return err
	}
	days := int64(presetRestorable)
	if in.PermanentDeletionTimeInDays != nil {
		days = *in.PermanentDeletionTimeInDays
	}
	return p.write(ctx, func(tx *store.Tx) error {
		o, err := p.get(tx, at)
		if err != nil {
			return err
		}
		a, now := o.Value, p.Now()
		if err := p.can(a, doDelete, now); err != nil {
			return err
		}
		if a.Status == creating || a.Status == failed {
			if _, err := store.GetObject[owner](tx, ownerPlace(a.ID)); err != nil {
				return err
			}
			return errors.Join(p.forget(tx, a), tx.DeleteObject(ownerPlace(a.ID)), tx.DeleteObject(at))
		}
		users, err := tx.Users(in.CertificateAuthorityArn, 1)
		if err != nil {
			return err
		}
		if len(users) > 0 {
			return acmpca.NewInvalidStateException("The certificate authority %s is trusted by %s: take it out of that client policy first", in.CertificateAuthorityArn, userARN(p.Region, users[0]))
		}
		a.Before, a.RestorableUntil = a.Status, now.UTC().AddDate(0, 0, int(days))
		a.shift(deleted, now)
		return p.put(tx, at, a)
	})
}

// RestoreCertificateAuthority gives a deleted authority the status back that it
// had.
func (p *PrivateCA) RestoreCertificateAuthority(ctx context.Context, in *acmpca.RestoreCertificateAuthorityRequest) error {
	at, err := p.parseARN(ctx, "RestoreCertificateAuthority", in.CertificateAuthorityArn)
	if err != nil {
		return err
	}
	return p.write(ctx, func(tx *store.Tx) error {
		return p.change(tx, at, doRestore, func(a *authority, now time.Time) error {
			a.shift(a.Before, now)
			a.Before, a.RestorableUntil = "", time.Time{}
			return nil
		})
	})
}
