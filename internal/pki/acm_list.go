package pki

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/acm"
	"github.com/fairlead/fairlead/internal/store"
)

// listed is a certificate on its way into a list.
type listed struct {
	order string // what the list is ordered by
	c     *certificate
}

// ListCertificates lists the caller's certificates in the order of their ids,
// or by when they were made, which reads all of them. If nobody asks for other
// types of keys only those with RSA keys of 1024 and 2048 bits are in it, as in
// AWS's.
func (m *ACM) ListCertificates(ctx context.Context, in *acm.ListCertificatesRequest) (*acm.ListCertificatesResponse, error) {
	if (in.SortBy == nil) != (in.SortOrder == nil) {
		return nil, acm.NewValidationException("SortBy and SortOrder go together: give both, or none")
	}
	tokens, err := m.listTokens(ctx, in)
	if err != nil {
		return nil, err
	}
	behind, err := tokens.after(in.NextToken)
	if wrong, ok := errors.AsType[*api.Exception](err); ok {
		return nil, acm.NewInvalidArgsException("%s", wrong.Message)
	}
	size := largestPage
	if in.MaxItems != nil {
		size = int(*in.MaxItems)
	}
	find := m.byID
	if in.SortBy != nil {
		find = m.byAge
	}
	all, err := find(ctx, in, behind, size+1)
	if err != nil {
		return nil, failure(err)
	}
	out := &acm.ListCertificatesResponse{CertificateSummaryList: []acm.CertificateSummary{}}
	if len(all) > size {
		all = all[:size]
		out.NextToken = tokens.Next(all[size-1].order)
	}
	users, err := m.allUsers(ctx)
	if err != nil {
		return nil, err
	}
	now := m.Now()
	for _, l := range all {
		summary, err := l.c.summary(users[l.c.ARN], now)
		if err != nil {
			return nil, err
		}
		out.CertificateSummaryList = append(out.CertificateSummaryList, summary)
	}
	return out, nil
}

// byID finds at most so many certificates that a list asks for, behind an id.
func (m *ACM) byID(ctx context.Context, in *acm.ListCertificatesRequest, behind string, limit int) (all []listed, err error) {
	below := store.Place{kindCertificate, account(ctx)}
	var from store.Place
	if behind != "" {
		from = append(slices.Clone(below), behind)
	}
	var hidden int
	for {
		var page []*store.Object[certificate]
		if _, err := m.Store.Read(ctx, func(tx *store.Tx) (err error) {
			page, err = store.ListObjects[certificate](tx, below, from, batch)
			return err
		}); err != nil {
			return nil, err
		}
		for _, o := range page {
			fits, err := m.wanted(o.Value, in, &hidden)
			if err != nil {
				return nil, err
			}
			if fits {
				all = append(all, listed{o.Place[2], o.Value})
			}
			from = o.Place
			if len(all) == limit {
				break
			}
		}
		if len(all) == limit || len(page) < batch {
			m.sayHidden(ctx, hidden)
			return all, nil
		}
	}
}

// byAge is byID in the order of when certificates were made.
func (m *ACM) byAge(ctx context.Context, in *acm.ListCertificatesRequest, behind string, limit int) (all []listed, err error) {
	compare := func(a, b string) int {
		if *in.SortOrder == acm.SortOrderDescending {
			a, b = b, a
		}
		return strings.Compare(a, b)
	}
	var hidden int
	err = each(ctx, m.Store, store.Place{kindCertificate, account(ctx)}, func(o *store.Object[certificate]) error {
		order := fmt.Sprintf("%020d %s", o.Value.Created.UnixMilli(), o.Place[2])
		if behind != "" && compare(order, behind) <= 0 {
			return nil
		}
		fits, err := m.wanted(o.Value, in, &hidden)
		if fits {
			all = append(all, listed{order, o.Value})
		}
		return err
	})
	m.sayHidden(ctx, hidden)
	slices.SortFunc(all, func(a, b listed) int { return compare(a.order, b.order) })
	return all[:min(len(all), limit)], err
}

func (m *ACM) sayHidden(ctx context.Context, hidden int) {
	if hidden > 0 {
		m.Log.InfoContext(ctx, "certificates with other types of keys are not in the list: it names no Includes.keyTypes", "hidden", hidden)
	}
}

// wanted says whether all filters let a certificate pass: one of each filter's
// values must be the certificate's. It counts what only the preset of key types
// keeps out.
func (m *ACM) wanted(c *certificate, in *acm.ListCertificatesRequest, hidden *int) (bool, error) {
	filters := in.Includes
	if filters == nil {
		filters = &acm.Filters{}
	}
	if s := in.CertificateStatuses; len(s) > 0 && !slices.Contains(s, c.status(m.Now())) {
		return false, nil
	}
	if o := in.CertificateKeyPairOrigins; len(o) > 0 && !slices.Contains(o, *c.keyPairOrigin()) {
		return false, nil
	}
	if e := filters.ExportOption; e != nil && *e != c.exportOption() {
		return false, nil
	}
	if filters.ManagedBy != nil { // none of ours is managed by another service
		return false, nil
	}
	if len(filters.KeyUsage)+len(filters.ExtendedKeyUsage) > 0 {
		usages, extended, err := c.usages()
		if err != nil || !meets(filters.KeyUsage, usages, "ANY", "NONE") || !meets(filters.ExtendedKeyUsage, extended, "", "NONE") {
			return false, err
		}
	}
	if len(filters.KeyTypes) > 0 {
		return slices.Contains(filters.KeyTypes, c.Algorithm), nil
	}
	if c.Algorithm != acm.KeyAlgorithmRsa1024 && c.Algorithm != acm.KeyAlgorithmRsa2048 {
		*hidden++
		return false, nil
	}
	return true, nil
}

// meets says whether a certificate has one of the usages that a filter names.
// The name wild means any usage, none that there is none.
func meets[T ~string](filter, has []T, wild, none T) bool {
	return len(filter) == 0 || slices.ContainsFunc(filter, func(want T) bool {
		return slices.Contains(has, want) || want == wild && len(has) > 0 || want == none && len(has) == 0
	})
}

// listTokens are those of one list of one caller.
func (m *ACM) listTokens(ctx context.Context, in *acm.ListCertificatesRequest) (pageTokens, error) {
	order := "by id"
	if in.SortBy != nil {
		order = string(*in.SortBy) + " " + string(*in.SortOrder)
	}
	return newPageTokens(m.Store, acm.SigningName, account(ctx), order)
}
