package pki

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/store"
)

// generation is a key of a root authority besides the one that issues, with its
// certificate: one that is prepared, or one that is retired. All have the same
// subject, since that is what the authority was configured with; they are told
// apart by their key ids, which everything that they sign names.
type generation struct {
	Number int `json:"number"`
	// Trusted: proxies that trust the authority trust this key, too, and get its CRL.
	Trusted     bool      `json:"trusted,omitzero"`
	CSR         []byte    `json:"csr"`         // PEM
	Certificate []byte    `json:"certificate"` // DER
	Serial      string    `json:"serial"`      // as it is shown
	NotBefore   time.Time `json:"notBefore"`
	NotAfter    time.Time `json:"notAfter"`
}

// maxGenerations bounds the keys that an authority has besides the one that issues.
const maxGenerations = 8

// generationPlace is where the key of a generation lies that does not issue, as the
// secret of an object that says nothing.
func generationPlace(account, id string, number int) store.Place {
	return store.Place{"authority-generation", account, id, strconv.Itoa(number)}
}

// place is generationPlace of one of the authority's own.
func (a *authority) place(number int) store.Place { return generationPlace(a.Account, a.ID, number) }

// other is a generation that does not issue; nil: there is none of that number.
func (a *authority) other(number int) *generation {
	i := slices.IndexFunc(a.Others, func(g generation) bool { return g.Number == number })
	if i < 0 {
		return nil
	}
	return &a.Others[i]
}

// own is the certificate of a generation, the one that issues or another; nil: it is
// not here any more.
func (a *authority) own(number int) []byte {
	if number == a.Generation {
		return a.Certificate
	}
	if g := a.other(number); g != nil {
		return g.Certificate
	}
	return nil
}

// issuing is the generation that issues.
func (a *authority) issuing() generation {
	return generation{Number: a.Generation, Trusted: true, CSR: a.CSR, Certificate: a.Certificate, Serial: a.Serial, NotBefore: a.NotBefore, NotAfter: a.NotAfter}
}

// roots are the certificates that who trusts the authority trusts, PEM.
func (a *authority) roots() string {
	text := string(ca.EncodePEM(a.Certificate))
	for _, g := range a.Others {
		if g.Trusted {
			text += string(ca.EncodePEM(g.Certificate))
		}
	}
	return text
}

// nextNumber is one that no generation has had.
func (a *authority) nextNumber() int {
	next := a.Generation + 1
	for _, g := range a.Others {
		next = max(next, g.Number+1)
	}
	return next
}

// prepare makes the next generation of a root: its key, PKCS #8, and a certificate
// that it has signed itself, as the present one has.
func (a *authority) prepare(request ca.Request, now time.Time) (g generation, secret []byte, err error) {
	next := *a
	if secret, err = next.makeKey(); err != nil {
		return g, nil, err
	}
	key, err := ca.ParsePrivateKey(secret)
	if err != nil {
		return g, nil, err
	}
	if request.CSR, err = ca.ParseCSR(next.CSR); err != nil {
		return g, nil, err
	}
	present, err := x509.ParseCertificate(a.Certificate)
	if err != nil {
		return g, nil, fmt.Errorf("read certificate of authority %s: %w", a.ID, err)
	}
	request.Algorithm, request.Now = ca.SigningAlgorithm(a.Configuration.SigningAlgorithm), now
	request.Validity = ca.Validity{Type: ca.Absolute, Value: now.Add(present.NotAfter.Sub(present.NotBefore)).Unix()}
	der, err := ca.SelfSign(key.Signer(), request)
	if err != nil {
		return g, nil, err
	}
	own, err := x509.ParseCertificate(der)
	if err != nil {
		return g, nil, fmt.Errorf("read the certificate just signed: %w", err)
	}
	return generation{CSR: next.CSR, Certificate: der, Serial: ca.DescribeSerial(own.SerialNumber), NotBefore: own.NotBefore, NotAfter: own.NotAfter}, secret, nil
}

// addGeneration stages a generation that is trusted and does not issue yet.
func (p *PrivateCA) addGeneration(tx *store.Tx, a *authority, g generation, secret []byte) error {
	g.Number, g.Trusted = a.nextNumber(), true
	a.Others = append(a.Others, g)
	at := a.place(g.Number)
	if err := store.MakeObject(tx, at, &struct{}{}); err != nil {
		return err
	}
	if err := tx.PutSecret(at, secret); err != nil {
		return err
	}
	a.staged = map[int][]byte{g.Number: secret}
	return p.claim(tx, a, g.CSR)
}

// issueWith stages that a generation issues from now on, and what did so far is one
// of the others.
func (a *authority) issueWith(tx *store.Tx, number int) error {
	if number == a.Generation {
		return nil
	}
	g := a.other(number)
	if g == nil {
		return fmt.Errorf("authority %s has no generation %d", a.ID, number)
	}
	at := placeOf(a.Account, a.ID)
	before, err := tx.Secret(at)
	if err != nil {
		return fmt.Errorf("open key of authority %s: %w", a.ID, err)
	}
	next, err := tx.Secret(a.place(number))
	if err != nil {
		return fmt.Errorf("open key %d of authority %s: %w", number, a.ID, err)
	}
	for _, place := range []store.Place{a.place(number), a.place(a.Generation)} {
		if _, err := store.GetObject[struct{}](tx, place); err != nil && !isNotFound(err) {
			return err
		}
	}
	if err := errors.Join(
		store.PutObject(tx, a.place(a.Generation), &struct{}{}), tx.PutSecret(a.place(a.Generation), before),
		tx.DeleteObject(a.place(number)), tx.PutSecret(at, next),
	); err != nil {
		return err
	}
	a.staged = map[int][]byte{a.Generation: before, number: next}
	issues := *g
	*g = a.issuing()
	a.Generation, a.CSR, a.Certificate, a.Serial = issues.Number, issues.CSR, issues.Certificate, issues.Serial
	a.NotBefore, a.NotAfter = issues.NotBefore, issues.NotAfter
	return nil
}

// dropGeneration stages the end of a generation and its key, which has issued nothing
// or nothing that still holds.
func dropGeneration(tx *store.Tx, a *authority, number int) error {
	g := a.other(number)
	if g == nil {
		return nil
	}
	at := a.place(number)
	if _, err := store.GetObject[struct{}](tx, at); err != nil {
		return err
	}
	if err := errors.Join(tx.DeleteObject(at), disclaim(tx, a, g.CSR)); err != nil {
		return err
	}
	a.Others = slices.DeleteFunc(slices.Clone(a.Others), func(g generation) bool { return g.Number == number })
	return nil
}

// key opens the key of a generation.
func (a *authority) key(tx *store.Tx, number int) (crypto.Signer, error) {
	if secret := a.staged[number]; secret != nil {
		key, err := ca.ParsePrivateKey(secret)
		if err != nil {
			return nil, fmt.Errorf("open key %d of authority %s: %w", number, a.ID, err)
		}
		return key.Signer(), nil
	}
	if number == a.Generation {
		return openKey(tx, placeOf(a.Account, a.ID))
	}
	return openKey(tx, a.place(number))
}

// retiredAuthority is a generation that does not issue, ready to sign CRLs and OCSP
// answers.
func retiredAuthority(tx *store.Tx, a *authority, g generation) (*ca.Authority, error) {
	key, err := a.key(tx, g.Number)
	if err != nil {
		return nil, err
	}
	own, err := x509.ParseCertificate(g.Certificate)
	if err != nil {
		return nil, fmt.Errorf("read certificate %d of authority %s: %w", g.Number, a.ID, err)
	}
	return ca.NewAuthority(own, nil, key)
}

// crlsOf are the lists that proxies get, PEM: of the key that issues, and of each
// other that they trust.
func crlsOf(tx *store.Tx, a *authority, by *ca.Authority, l ca.CRL) (string, error) {
	signers := []*ca.Authority{by}
	for _, g := range a.Others {
		if !g.Trusted {
			continue
		}
		other, err := retiredAuthority(tx, a, g)
		if err != nil {
			return "", err
		}
		signers = append(signers, other)
	}
	text := ""
	for _, signer := range signers {
		der, err := signer.SignCRL(l)
		if err != nil {
			return "", err
		}
		text += string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
	}
	return text, nil
}

// mayRotate refuses what cannot be rotated: only a root that issues can.
func (p *PrivateCA) mayRotate(a *authority, now time.Time) error {
	if a.Type != acmpca.CertificateAuthorityTypeRoot {
		return acmpca.NewInvalidArgsException("%s is of type SUBORDINATE, and only roots are rotated: give it a new certificate with acm-pca import-certificate-authority-certificate", p.arn(a.Account, a.ID))
	}
	if a.Mesh != "" {
		return acmpca.NewInvalidStateException("%s is the own authority of the mesh %s, which gets its successor by itself, in time or when this one is deleted", p.arn(a.Account, a.ID), a.Mesh)
	}
	if a.CSR == nil {
		return acmpca.NewInvalidStateException("The key of %s is not here, and what is not here cannot be rotated", p.arn(a.Account, a.ID))
	}
	return p.can(a, doIssue, now)
}
