package pki

import (
	"context"
	"crypto/x509"
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
	leaf  *x509.Certificate // nil: none yet
}

// ListCertificates lists the caller's certificates in the order of their ids,
// or by when they were made. If nobody asks for other types of keys only those
// with RSA keys of 1024 and 2048 bits are in it, as in AWS's.
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
	all, hidden, err := m.matching(ctx, in)
	if err != nil {
		return nil, failure(err)
	}
	if hidden > 0 {
		m.Log.InfoContext(ctx, "certificates with other types of keys are not in the list: it names no Includes.keyTypes", "hidden", hidden)
	}
	descending := in.SortOrder != nil && *in.SortOrder == acm.SortOrderDescending
	compare := func(a, b string) int {
		if descending {
			a, b = b, a
		}
		return strings.Compare(a, b)
	}
	slices.SortFunc(all, func(a, b listed) int { return compare(a.order, b.order) })
	if behind != "" {
		all = slices.DeleteFunc(all, func(l listed) bool { return compare(l.order, behind) <= 0 })
	}
	out := &acm.ListCertificatesResponse{CertificateSummaryList: []acm.CertificateSummary{}}
	size := largestPage
	if in.MaxItems != nil {
		size = int(*in.MaxItems)
	}
	if len(all) > size {
		all = all[:size]
		out.NextToken = tokens.next(all[size-1].order)
	}
	users, now := m.InUse(), m.Now()
	for _, l := range all {
		out.CertificateSummaryList = append(out.CertificateSummaryList, l.c.summary(l.leaf, users[l.c.ARN], now))
	}
	return out, nil
}

// matching reads what a list asks for, and counts what only the preset of key
// types has kept out.
func (m *ACM) matching(ctx context.Context, in *acm.ListCertificatesRequest) (all []listed, hidden int, err error) {
	filters := in.Includes
	if filters == nil {
		filters = &acm.Filters{}
	}
	types := filters.KeyTypes
	if len(types) == 0 {
		types = []acm.KeyAlgorithm{acm.KeyAlgorithmRsa1024, acm.KeyAlgorithmRsa2048}
	}
	err = each(ctx, m.Store, store.Place{kindCertificate, account(ctx)}, func(o *store.Object[certificate]) error {
		c, id := o.Value, o.Place[2]
		l := listed{order: id, c: c}
		if in.SortBy != nil {
			l.order = fmt.Sprintf("%020d %s", c.Created.UnixMilli(), id)
		}
		if c.Certificate != "" {
			leaf, err := parseCertificate(c.Certificate)
			if err != nil {
				return err
			}
			l.leaf = leaf
		}
		if !m.wanted(l, in, filters) {
			return nil
		}
		if !slices.Contains(types, c.Algorithm) {
			if len(filters.KeyTypes) == 0 {
				hidden++
			}
			return nil
		}
		all = append(all, l)
		return nil
	})
	return all, hidden, err
}

// wanted says whether all filters but the one of key types let a certificate
// pass: one of each filter's values must be the certificate's.
func (m *ACM) wanted(l listed, in *acm.ListCertificatesRequest, filters *acm.Filters) bool {
	if s := in.CertificateStatuses; len(s) > 0 && !slices.Contains(s, l.c.status(m.Now())) {
		return false
	}
	if o := in.CertificateKeyPairOrigins; len(o) > 0 && !slices.Contains(o, *l.c.keyPairOrigin()) {
		return false
	}
	if e := filters.ExportOption; e != nil && *e != l.c.exportOption() {
		return false
	}
	if filters.ManagedBy != nil { // none of ours is managed by another service
		return false
	}
	var usages []acm.KeyUsageName
	var extended []acm.ExtendedKeyUsageName
	if l.leaf != nil {
		usages, extended = keyUsages(l.leaf), extendedUsages(l.leaf)
	}
	return meets(filters.KeyUsage, usages, "ANY", "NONE") && meets(filters.ExtendedKeyUsage, extended, "", "NONE")
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
