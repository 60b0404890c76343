package pki

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/store"
)

// signer is an authority ready to sign, as of a revision.
type signer struct {
	*authority
	revision int64
	key      crypto.Signer
	ca       *ca.Authority // nil before its certificate is imported, and if only that is known
}

// signers remembers authorities with their opened keys. What is remembered is
// never relied on: its revision is a condition of whatever is written with it.
type signers struct {
	mu   sync.Mutex
	byID map[string]*signer
}

// maxSigners bounds how many authorities are remembered: each may have a chain
// of two megabytes.
const maxSigners = 256

func (s *signers) get(id string) *signer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byID[id]
}

func (s *signers) put(a *signer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID == nil || len(s.byID) >= maxSigners {
		s.byID = map[string]*signer{}
	}
	// Of two that load at the same time the newer stays.
	if old := s.byID[a.ID]; old == nil || old.revision < a.revision {
		s.byID[a.ID] = a
	}
}

func (s *signers) drop(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byID, id)
}

// recall is the authority as it is remembered, if it is: that it still is so
// becomes a condition, which costs no read. What it refuses is not to be told to
// anybody: another server may have changed it. Nil: it is not remembered.
func (p *PrivateCA) recall(tx *store.Tx, at store.Place) (*signer, error) {
	known := p.signers.get(at[2])
	if known == nil || known.Account != at[1] {
		return nil, nil
	}
	return known, tx.Expect(at, known.revision)
}

// load reads the authority, and makes it ready to sign.
func (p *PrivateCA) load(tx *store.Tx, at store.Place) (*signer, error) {
	o, err := p.get(tx, at)
	if err != nil {
		if _, gone := errors.AsType[*api.Exception](err); gone {
			p.signers.drop(at[2])
		}
		return nil, err
	}
	known := p.signers.get(o.Value.ID)
	if known != nil && known.revision == o.Revision {
		return known, nil
	}
	s := &signer{authority: o.Value, revision: o.Revision}
	switch {
	case known != nil && known.key != nil: // an authority's key never changes
		s.key = known.key
	case o.Value.CSR != nil:
		if s.key, err = openKey(tx, at); err != nil {
			return nil, err
		}
	}
	if o.Value.Certificate != nil && s.key != nil {
		if s.ca, err = o.Value.join(s.key); err != nil {
			return nil, err
		}
	}
	p.signers.put(s)
	return s, nil
}

func openKey(tx *store.Tx, at store.Place) (crypto.Signer, error) {
	secret, err := tx.Secret(at)
	if err != nil {
		return nil, fmt.Errorf("open key of authority %s: %w", at[2], err)
	}
	key, err := ca.ParsePrivateKey(secret)
	if err != nil {
		return nil, fmt.Errorf("open key of authority %s: %w", at[2], err)
	}
	return key.Signer(), nil
}

// join makes the stored certificates and the key an authority.
func (a *authority) join(key crypto.Signer) (*ca.Authority, error) {
	own, err := x509.ParseCertificate(a.Certificate)
	if err != nil {
		return nil, fmt.Errorf("read certificate of authority %s: %w", a.ID, err)
	}
	var chain []*x509.Certificate
	for _, der := range a.Chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("read chain of authority %s: %w", a.ID, err)
		}
		chain = append(chain, c)
	}
	return ca.NewAuthority(own, chain, key)
}

// signRecalled signs with the authority as it is remembered, and if that does
// not work, or the transaction runs again, as it is.
func (p *PrivateCA) signRecalled(tx *store.Tx, at store.Place, r ca.Request, again bool) ([]byte, error) {
	if !again {
		known, err := p.recall(tx, at)
		if err != nil {
			return nil, err
		}
		if known != nil {
			if der, err := p.sign(known, r); err == nil {
				return der, nil
			}
		}
	}
	s, err := p.load(tx, at)
	if err != nil {
		return nil, err
	}
	return p.sign(s, r)
}

// sign makes the certificate of a request, if the authority's state lets it.
func (p *PrivateCA) sign(s *signer, r ca.Request) ([]byte, error) {
	r.ShortLived = s.UsageMode == acmpca.CertificateAuthorityUsageModeShortLivedCertificate
	if s.keyless() {
		return nil, p.needsKey(s.authority, doIssue)
	}
	root := s.Type == acmpca.CertificateAuthorityTypeRoot
	status := s.statusAt(r.Now)
	if status == pending && root || status == active && r.Template.Root() {
		if !root {
			return nil, acmpca.NewInvalidArgsException("The certificate authority is of type SUBORDINATE: template %s is for a root, which signs its own certificate", r.Template.Name)
		}
		return ca.SelfSign(s.key, r)
	}
	if err := p.can(s.authority, doIssue, r.Now); err != nil {
		return nil, err
	}
	if url := p.crlURL(s.authority); url != "" {
		r.CRLURLs = []string{url}
	}
	r.OCSPURL = p.ocspURL(s.authority)
	return s.ca.IssueCertificate(r)
}
