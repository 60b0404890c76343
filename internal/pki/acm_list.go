package pki

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/api/acm"
	"github.com/fairlead/fairlead/internal/store"
)

const (
	listedAtOnce = 100 // if MaxItems is not given
	readAtOnce   = 500 // certificates from the store
	maxListToken = 512 // characters; a token of ours has some 140
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
	behind, err := tokens.open(in.NextToken)
	if err != nil {
		return nil, err
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
	size := listedAtOnce
	if in.MaxItems != nil {
		size = int(*in.MaxItems)
	}
	if len(all) > size {
		all = all[:size]
		out.NextToken = tokens.seal(all[size-1].order)
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
	err = m.each(ctx, store.Place{kindCertificate, account(ctx)}, func(at store.Place, c *certificate) error {
		l := listed{order: at[2], c: c}
		if in.SortBy != nil {
			l.order = fmt.Sprintf("%020d %s", c.Created.UnixMilli(), at[2])
		}
		if c.Certificate != "" {
			if l.leaf, err = parseCertificate(c.Certificate); err != nil {
				return err
			}
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

// each calls fn with all certificates below a place.
func (m *ACM) each(ctx context.Context, below store.Place, fn func(at store.Place, c *certificate) error) error {
	_, err := m.Store.Read(ctx, func(tx *store.Tx) error {
		var behind store.Place
		for {
			page, err := store.ListObjects[certificate](tx, below, behind, readAtOnce)
			if err != nil {
				return err
			}
			for _, o := range page {
				if err := fn(o.Place, o.Value); err != nil {
					return err
				}
			}
			if len(page) < readAtOnce {
				return nil
			}
			behind = page[len(page)-1].Place
		}
	})
	return err
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

// listTokens seals where the pages of one list of one caller begin, with a key
// of the store: every server reads it, and nobody else can make one.
type listTokens struct {
	aead  cipher.AEAD
	scope []byte
}

func (m *ACM) listTokens(ctx context.Context, in *acm.ListCertificatesRequest) (listTokens, error) {
	key, err := m.Store.DeriveKey("paging token of certificates")
	if err != nil {
		return listTokens{}, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return listTokens{}, fmt.Errorf("use key of paging tokens: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return listTokens{}, fmt.Errorf("use key of paging tokens: %w", err)
	}
	order := "by id"
	if in.SortBy != nil {
		order = string(*in.SortBy) + " " + string(*in.SortOrder)
	}
	return listTokens{aead, fmt.Appendf(nil, "%q", []string{account(ctx), order})}, nil
}

func (t listTokens) seal(order string) *string {
	token := base64.RawURLEncoding.EncodeToString(t.aead.Seal(nil, nil, []byte(order), t.scope))
	return &token
}

func (t listTokens) open(token *string) (string, error) {
	if token == nil {
		return "", nil
	}
	if len(*token) <= maxListToken {
		sealed, err := base64.RawURLEncoding.Strict().DecodeString(*token)
		if err == nil && base64.RawURLEncoding.EncodeToString(sealed) == *token {
			if order, err := t.aead.Open(nil, nil, sealed, t.scope); err == nil && len(order) > 0 {
				return string(order), nil
			}
		}
	}
	return "", acm.NewInvalidArgsException("NextToken: %.64q is not a token of this list: give the one that the page before has ended with, with the same parameters", *token)
}
