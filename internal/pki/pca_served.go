package pki

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/store"
)

const (
	// listLife is how long a CRL holds that proxies get. It is made anew at half
	// its life: for as long as that proxies go on without a control plane. What
	// is revoked meanwhile does not wait for it.
	listLife = 30 * 24 * time.Hour
	// listsEvery is how often lists are looked for that are due.
	listsEvery = time.Hour
	// listBackdate lets a list work in proxies whose clocks run late.
	listBackdate = time.Hour
	// maxListed bounds the certificates on a list, by what the store takes and
	// every proxy has to hold: some 40 bytes each.
	maxListed = 10000
	// maxOthers bounds what is remembered of authorities elsewhere, by those that
	// end last: as long as any that is forgotten holds, so do these.
	maxOthers = 64
)

// keyOwner is the authority of a public key, found by the key's hash.
type keyOwner struct {
	ARN string `json:"arn"`
}

func keyPlace(spki []byte) store.Place {
	sum := sha256.Sum256(spki)
	return store.Place{"authority-key", hex.EncodeToString(sum[:])}
}

// csrKeyPlace is keyPlace of the key of one of an authority's CSRs; of the key in
// its certificate if there is none.
func csrKeyPlace(a *authority, text []byte) (store.Place, error) {
	if text == nil {
		own, err := x509.ParseCertificate(a.Certificate)
		if err != nil {
			return nil, fmt.Errorf("read the certificate of authority %s: %w", a.ID, err)
		}
		return keyPlace(own.RawSubjectPublicKeyInfo), nil
	}
	csr, err := ca.ParseCSR(text)
	if err != nil {
		return nil, fmt.Errorf("read the CSR of authority %s: %w", a.ID, err)
	}
	spki, err := x509.MarshalPKIXPublicKey(csr.PublicKey())
	if err != nil {
		return nil, fmt.Errorf("read the public key of authority %s: %w", a.ID, err)
	}
	return keyPlace(spki), nil
}

// claim notes which authority the key of a new CSR is of, or that of its certificate.
func (p *PrivateCA) claim(tx *store.Tx, a *authority, csr []byte) error {
	at, err := csrKeyPlace(a, csr)
	if err != nil {
		return err
	}
	return store.MakeObject(tx, at, &keyOwner{p.arn(a.Account, a.ID)})
}

// disclaim takes back what claim has noted.
func disclaim(tx *store.Tx, a *authority, csr []byte) error {
	at, err := csrKeyPlace(a, csr)
	if err != nil {
		return err
	}
	if _, err := store.GetObject[keyOwner](tx, at); err != nil {
		return ignoreNotFound(err)
	}
	return tx.DeleteObject(at)
}

// authorityOf is the ARN of the authority whose key a certificate certifies;
// empty: it is none of this server's.
func authorityOf(tx *store.Tx, c *x509.Certificate) (string, error) {
	o, err := store.GetObject[keyOwner](tx, keyPlace(c.RawSubjectPublicKeyInfo))
	if isNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return o.Value.ARN, nil
}

// put writes an authority, and what proxies and specs need to know of it.
func (p *PrivateCA) put(tx *store.Tx, at store.Place, a *authority) error {
	if err := store.PutObject(tx, at, a); err != nil {
		return err
	}
	return p.serve(tx, a)
}

func (p *PrivateCA) serve(tx *store.Tx, a *authority) error {
	served := &store.Authority{
		ARN: p.arn(a.Account, a.ID), Account: a.Account, Root: a.Type == acmpca.CertificateAuthorityTypeRoot,
		Status: string(a.Status), NotAfter: a.NotAfter, Parents: a.Parents, Readers: readersOf(a.Policy), Mesh: a.Mesh,
	}
	if served.Root && a.Certificate != nil {
		served.Roots = a.roots()
	}
	return store.PutAuthority(tx, served)
}

// forget leaves of an authority that it was there, if anything was below it.
func (p *PrivateCA) forget(tx *store.Tx, a *authority) error {
	if _, err := store.GetObject[rotation](tx, rotationPlace(placeOf(a.Account, a.ID))); err == nil {
		tx.StopAwaiting(p.arn(a.Account, a.ID))
		if err := tx.DeleteObject(rotationPlace(placeOf(a.Account, a.ID))); err != nil {
			return err
		}
	} else if !isNotFound(err) {
		return err
	}
	for _, g := range a.Others {
		if err := dropGeneration(tx, a, g.Number); err != nil {
			return err
		}
	}
	if a.CSR != nil || a.keyless() {
		if err := disclaim(tx, a, a.CSR); err != nil {
			return err
		}
	}
	if a.Certificate == nil {
		return store.DeleteAuthority(tx, p.arn(a.Account, a.ID))
	}
	return store.PutAuthority(tx, &store.Authority{ARN: p.arn(a.Account, a.ID), Account: a.Account, Status: string(deleted), Parents: a.Parents, Gone: true})
}

// readersOf are the accounts that a resource policy lets read, as a whole: what a
// policy allows one role of an account, it does not allow the account.
func readersOf(text string) []string {
	var doc policy
	if text == "" || json.Unmarshal([]byte(text), &doc) != nil {
		return nil
	}
	var all []string
	for _, s := range doc.Statement {
		if !slices.Contains(s.Action, sharedReads[0]) {
			continue
		}
		for _, who := range s.Principal["AWS"] {
			if fields := strings.Split(who, ":"); len(fields) == 6 && fields[5] == "root" {
				who = fields[4]
			}
			if !strings.Contains(who, ":") {
				all = append(all, who)
			}
		}
	}
	return all
}

// adopt notes which of this server's authorities has signed another one, whose
// chain is given.
func (p *PrivateCA) adopt(tx *store.Tx, a *authority, chain []*x509.Certificate) error {
	if len(chain) == 0 {
		return nil
	}
	parent, err := authorityOf(tx, chain[0])
	if err != nil || parent == "" || slices.Contains(a.Parents, parent) {
		return err
	}
	a.Parents = append(a.Parents, parent)
	return nil
}

// listChange is what a list is to have besides what the store has.
type listChange struct {
	add    *ca.Revoked
	remove *big.Int // serial
	other  *x509.Certificate
	// unknownUntil is the end of what the authority may have certified before it
	// was adopted.
	unknownUntil time.Time
}

// unknownBelow stands for that, in the place of a serial number.
const unknownBelow = "whatever it certified before it was adopted"

// list makes the list anew that proxies get of an authority: with all that is
// revoked, whether or not it publishes CRLs.
func (p *PrivateCA) list(tx *store.Tx, a *authority, by *ca.Authority, change listChange) error {
	arn, now := p.arn(a.Account, a.ID), p.Now().UTC()
	l, err := store.GetRevocationList(tx, arn)
	if isNotFound(err) {
		l = &store.RevocationList{}
	} else if err != nil {
		return err
	}
	l.Others = othersAt(l.Others, change, now)
	if a.keyless() {
		l.Missing = "its key is not on this server"
	}
	if by == nil || change.other != nil && change.remove == nil && l.CRL != "" {
		return store.PutRevocationList(tx, arn, l) // the list says the same
	}
	entries, err := revokedNow(tx, a.ID, change, now)
	if err != nil {
		return err
	}
	l.CRL, l.Missing, l.NextUpdate = "", "", now.Add(listLife)
	if len(entries) > maxListed {
		l.Missing = fmt.Sprintf("more than %d certificates are revoked", maxListed)
		return store.PutRevocationList(tx, arn, l)
	}
	text, err := crlsOf(tx, a, by, ca.CRL{Revoked: entries, ThisUpdate: now.Add(-listBackdate), NextUpdate: l.NextUpdate})
	switch {
	case ca.KindOf(err) != "":
		l.Missing = err.Error()
	case err != nil:
		return err
	default:
		l.CRL = text
	}
	return store.PutRevocationList(tx, arn, l)
}

// othersAt are the authorities below one that are not this server's, after a
// change, and without those whose certificates have ended.
func othersAt(others map[string]time.Time, change listChange, now time.Time) map[string]time.Time {
	next := maps.Clone(others)
	maps.DeleteFunc(next, func(serial string, until time.Time) bool {
		return now.After(until) || change.add != nil && serial == paddedSerial(change.add.Serial)
	})
	if next == nil && (change.other != nil || !change.unknownUntil.IsZero()) {
		next = map[string]time.Time{}
	}
	if !change.unknownUntil.IsZero() {
		next[unknownBelow] = change.unknownUntil
	}
	if c := change.other; c != nil {
		next[paddedSerial(c.SerialNumber)] = c.NotAfter.UTC()
	}
	for len(next) > maxOthers {
		first := slices.MinFunc(slices.Collect(maps.Keys(next)), func(a, b string) int { return next[a].Compare(next[b]) })
		delete(next, first)
	}
	return next
}

// revokedNow is what is revoked and not over, after a change; at most one more than
// maxListed.
func revokedNow(tx *store.Tx, id string, change listChange, now time.Time) ([]ca.Revoked, error) {
	var all []ca.Revoked
	if change.add != nil {
		all = append(all, *change.add)
	}
	var behind store.Place
	for {
		page, err := store.ListObjects[revoked](tx, store.Place{"authority-revoked", id}, behind, batch)
		if err != nil {
			return nil, err
		}
		for _, o := range page {
			behind = o.Place
			serial, err := ca.ParseSerial(o.Place[2])
			if err != nil {
				return nil, err
			}
			// A certificate stays until one list after its end has had it.
			if now.After(o.Value.NotAfter.Add(listLife)) || change.remove != nil && change.remove.Cmp(serial) == 0 {
				continue
			}
			all = append(all, ca.Revoked{Serial: serial, At: o.Value.At, Reason: o.Value.Reason})
		}
		if len(page) < batch || len(all) > maxListed {
			return all, nil
		}
	}
}

// noteOther remembers a certificate that makes somebody else an authority: from
// then on nobody here has all CRLs of the tree, and proxies get none of it.
func (p *PrivateCA) noteOther(tx *store.Tx, at store.Place, der []byte) (other bool, err error) {
	c, err := otherAuthority(tx, der)
	if err != nil || c == nil {
		return false, err
	}
	s, err := p.load(tx, at)
	if err != nil {
		return false, err
	}
	return true, p.list(tx, s.authority, s.ca, listChange{other: c})
}

// otherAuthority is the certificate of an authority that is not this server's;
// nil: it is no such one.
func otherAuthority(tx *store.Tx, der []byte) (*x509.Certificate, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read a certificate of the ledger: %w", err)
	}
	if !c.IsCA {
		return nil, nil
	}
	if known, err := authorityOf(tx, c); err != nil || known != "" {
		return nil, err
	}
	return c, nil
}

// renewLists makes lists anew that have less than half their life left.
func (p *PrivateCA) renewLists(ctx context.Context) error {
	var all []error
	err := each(ctx, p.Store, store.Place{"authority"}, func(o *store.Object[authority]) error {
		if o.Value.Certificate != nil && !o.Value.keyless() && !o.Value.goneAt(p.Now()) {
			if err := p.renewList(ctx, o.Place); err != nil {
				all = append(all, fmt.Errorf("authority %s: %w", o.Place[2], err))
			}
		}
		return ctx.Err()
	})
	return errors.Join(append(all, err)...)
}

func (p *PrivateCA) renewList(ctx context.Context, at store.Place) error {
	_, err := p.Store.Write(ctx, func(tx *store.Tx) error {
		o, err := store.GetObject[authority](tx, at)
		if err != nil || o.Value.Certificate == nil || o.Value.keyless() {
			return ignoreNotFound(err)
		}
		now := p.Now()
		l, err := store.GetRevocationList(tx, p.arn(at[1], at[2]))
		if err == nil && now.Before(l.NextUpdate.Add(-listLife/2)) && maps.Equal(l.Others, othersAt(l.Others, listChange{}, now)) || err != nil && !isNotFound(err) {
			return err
		}
		var key crypto.Signer
		if key, err = openKey(tx, at); err != nil {
			return err
		}
		by, err := o.Value.join(key)
		if err != nil {
			return err
		}
		return p.list(tx, o.Value, by, listChange{})
	})
	return err
}
