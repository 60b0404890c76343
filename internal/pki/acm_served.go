package pki

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/api/acm"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/store"
)

// put writes a certificate, and what proxies and specs need to know of it.
func (c *certificate) put(tx *store.Tx, at store.Place) error {
	if err := store.PutObject(tx, at, c); err != nil {
		return err
	}
	served, err := c.served()
	if err != nil {
		return err
	}
	return store.PutCertificate(tx, served, nil)
}

// putKey is put with a new key, PKCS #8, and what is above the certificate.
func (c *certificate) putKey(tx *store.Tx, at store.Place, key []byte, above chain) error {
	if err := store.PutObject(tx, at, c); err != nil {
		return err
	}
	if err := tx.PutSecret(at, key); err != nil {
		return err
	}
	served, err := c.servedBelow(above)
	if err != nil {
		return err
	}
	return store.PutCertificate(tx, served, key)
}

func (c *certificate) served() (*store.Certificate, error) {
	above, err := readChain(c.Chain)
	if err != nil {
		return nil, err
	}
	return c.servedBelow(above)
}

func (c *certificate) servedBelow(above chain) (*store.Certificate, error) {
	s := &store.Certificate{
		ARN: c.ARN, Type: string(c.Type), Status: string(c.Status), Failure: string(c.Failure),
		Root: c.Root, NotBefore: c.NotBefore, NotAfter: c.NotAfter, Serial: strings.ReplaceAll(c.Serial, ":", ""), Issuers: c.Issuers, NoCRLs: c.NoCRLs,
	}
	if c.Certificate == "" {
		return s, nil
	}
	leaf, err := parseCertificate(c.Certificate)
	if err != nil {
		return nil, err
	}
	s.Names = slices.Clone(leaf.DNSNames)
	for _, uri := range leaf.URIs {
		s.Names = append(s.Names, uri.String())
	}
	s.Chain = c.Certificate
	for i, c := range above.certificates {
		if text := string(ca.EncodePEM(c.Raw)); above.isRoot(i) {
			s.Roots = text
		} else {
			s.Chain += text
		}
	}
	return s, nil
}

// chain is what is above a certificate, from its issuer up.
type chain struct {
	certificates []*x509.Certificate
	rooted       bool // the last is a root
}

func newChain(certificates []*x509.Certificate) chain {
	return chain{certificates, len(certificates) > 0 && selfIssued(certificates[len(certificates)-1])}
}

func readChain(text string) (chain, error) {
	certificates, err := parseChain(text)
	return newChain(certificates), err
}

func (c chain) isRoot(i int) bool { return c.rooted && i == len(c.certificates)-1 }

// selfIssued says whether a certificate is a root's.
func selfIssued(c *x509.Certificate) bool {
	return bytes.Equal(c.RawIssuer, c.RawSubject) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

func parseChain(text string) (chain []*x509.Certificate, err error) {
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return chain, nil
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read chain: %w", err)
		}
		chain = append(chain, c)
	}
}

// trace finds this server's authorities in the chain of what was issued or
// imported.
func (c *certificate) trace(tx *store.Tx, chain chain) error {
	c.Issuers, c.NoCRLs, c.Root = nil, "", ""
	for i, above := range chain.certificates {
		arn, err := authorityOf(tx, above)
		if err != nil {
			return err
		}
		if chain.isRoot(i) {
			c.Root = arn
		}
		if arn == "" {
			c.NoCRLs = "this server has no CRL of " + ca.DescribeName(above.RawSubject) + ", which is in the chain and none of its authorities"
		} else {
			c.Issuers = append(c.Issuers, arn)
		}
	}
	switch {
	case c.Type == acm.CertificateTypeImported:
		// Whoever imports a certificate knows where it is revoked, and this server does not.
		c.Issuers, c.NoCRLs = nil, "the certificate was imported"
	case !chain.rooted:
		c.NoCRLs = "the chain does not lead to a root"
	}
	return nil
}

// sayNoCRLs logs why revocations of a certificate do not reach proxies, if there
// is a reason.
func (m *ACM) sayNoCRLs(ctx context.Context, arn, why string) {
	if why != "" {
		m.Log.WarnContext(ctx, "proxies get no CRLs for the chain of a certificate", "arn", arn, "reason", why)
	}
}

// issuedPlace is where it is noted which certificate of ACM an authority's
// certificate is.
func issuedPlace(authority, serial string) store.Place {
	return store.Place{"certificate-issued", authority, serial}
}

// issuedAs is the certificate of ACM that an authority's certificate is.
type issuedAs struct {
	ARN string `json:"arn"`
}

// enter notes that what an authority has issued is this certificate, and no more
// what it had issued before. It was revoked meanwhile: then so is this.
func (c *certificate) enter(tx *store.Tx, leaf *x509.Certificate, before string) error {
	id, serial := idOf(c.Authority), paddedSerial(leaf.SerialNumber)
	if err := c.leave(tx, before); err != nil {
		return err
	}
	if serial == "" {
		return nil // no authority of this server's has such numbers
	}
	if _, err := store.GetObject[revoked](tx, revokedPlace(id, serial)); err == nil {
		c.Status = acm.CertificateStatusRevoked
	} else if !isNotFound(err) {
		return err
	}
	return store.MakeObject(tx, issuedPlace(id, serial), &issuedAs{c.ARN})
}

// entries are the places that enter reads.
func (c *certificate) entries(leaf *x509.Certificate) (places []store.Place) {
	id := idOf(c.Authority)
	if serial := paddedSerial(leaf.SerialNumber); serial != "" {
		places = append(places, revokedPlace(id, serial))
	}
	if before, err := ca.ParseSerial(c.Serial); err == nil && paddedSerial(before) != "" {
		places = append(places, issuedPlace(id, paddedSerial(before)))
	}
	return places
}

// leave forgets what enter has noted of a serial number, as DescribeCertificate
// shows it; it may be empty.
func (c *certificate) leave(tx *store.Tx, serial string) error {
	if serial == "" || c.Type != acm.CertificateTypePrivate {
		return nil
	}
	number, err := ca.ParseSerial(serial)
	if err != nil || paddedSerial(number) == "" {
		return err
	}
	at := issuedPlace(idOf(c.Authority), paddedSerial(number))
	if _, err := store.GetObject[issuedAs](tx, at); err != nil {
		return ignoreNotFound(err)
	}
	return tx.DeleteObject(at)
}

// setRevoked gives the certificate of ACM that an authority's certificate is, if
// it is one, another status: REVOKED, which ends its renewal, or ISSUED again.
func setRevoked(tx *store.Tx, authority, serial string, status acm.CertificateStatus) error {
	as, err := store.GetObject[issuedAs](tx, issuedPlace(authority, serial))
	if err != nil {
		return ignoreNotFound(err)
	}
	at, err := acmPlace(as.Value.ARN)
	if err != nil {
		return err
	}
	o, err := store.GetObject[certificate](tx, at)
	if err != nil {
		return ignoreNotFound(err)
	}
	o.Value.Status = status
	if status == acm.CertificateStatusRevoked {
		if err := dropTask(tx, at); err != nil {
			return err
		}
	}
	return o.Value.put(tx, at)
}

// dropTask ends what is to be issued for a certificate.
func dropTask(tx *store.Tx, at store.Place) error {
	if _, err := store.GetObject[task](tx, taskPlace(at)); err != nil {
		return ignoreNotFound(err)
	}
	return tx.DeleteObject(taskPlace(at))
}

// userARN is the ARN of a mesh endpoint.
func userARN(region string, u store.User) string {
	return mesh.ARN(awsapi.Partition(region), region, u.Owner, u.Mesh, u.ID)
}

// users are the ARNs of the mesh endpoints that name a certificate.
func (m *ACM) users(tx *store.Tx, arn string) ([]string, error) {
	found, err := tx.Users(arn, 0)
	return m.userARNs(found), err
}

func (m *ACM) userARNs(users []store.User) []string {
	var all []string
	for _, u := range users {
		all = append(all, userARN(m.Region, u))
	}
	slices.Sort(all)
	return all
}

// allUsers is users of all certificates, by their ARNs.
func (m *ACM) allUsers(ctx context.Context) (map[string][]string, error) {
	all := map[string][]string{}
	_, err := m.Store.Read(ctx, func(tx *store.Tx) error {
		clear(all)
		found, err := tx.AllUsers()
		for arn, users := range found {
			all[arn] = m.userARNs(users)
		}
		return err
	})
	return all, failure(err)
}
