package pki

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/google/uuid"

	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/iam"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/store"
)

const (
	// ownSuccession is how long before its end an authority of a mesh gets a
	// successor, and ownSpread how long that is trusted before it issues.
	ownSuccession = 2 * 365 * 24 * time.Hour
	ownSpread     = time.Hour
	// ownLedger is how long a certificate stays in the ledger after its end: a mesh
	// of 10,000 proxies has 20,000 new ones a day.
	ownLedger = 24 * time.Hour
	// ownTemplate and ownRequester stand in the ledger.
	ownTemplate  = "fairlead:own-sds"
	ownRequester = "fairlead"
)

// OwnSDS issues the certificates of Fairlead's own SDS: to proxies, by the specs,
// from an authority that each mesh has for itself. The authority is one like any
// other for acm-pca, so that what it does can be audited and revoked.
type OwnSDS struct {
	Authorities *PrivateCA
	TrustDomain string // as in mesh.View
	Life        time.Duration
}

// ownPointer is the authority that issues in a mesh, and the one before it.
type ownPointer struct {
	ID     string    `json:"id"`
	Before string    `json:"before,omitzero"`
	At     time.Time `json:"at"`
}

func ownPlace(name mesh.Name) store.Place {
	return store.Place{"authority-own", name.Owner, name.Mesh}
}

// view is a mesh as this server sees it.
func (o *OwnSDS) view(name mesh.Name) *mesh.View {
	v, ok := o.Authorities.Store.View(name)
	if !ok {
		return nil
	}
	own := *v
	own.TrustDomain = o.TrustDomain
	return &own
}

// Issue signs a certificate for the key of a CSR (PEM) and enters it in the
// ledger before it answers with the chain, PEM. Of the CSR nothing but the key
// counts: the names are those of the secret, which must be one that the spec of
// the endpoint names. Else the error is mesh.ErrNotNamed, or mesh.ErrCSR.
func (o *OwnSDS) Issue(ctx context.Context, by iam.Principal, name mesh.Name, id mesh.ID, secret string, csr []byte) ([]byte, error) {
	view := o.view(name)
	if view == nil {
		return nil, mesh.ErrNotNamed
	}
	for _, c := range view.OwnCertificates(id) {
		if c.SecretName() == secret {
			return o.issue(ctx, by.ARN(), name, c, csr)
		}
	}
	return nil, mesh.ErrNotNamed
}

func (o *OwnSDS) issue(ctx context.Context, requester string, name mesh.Name, c mesh.OwnCertificate, text []byte) ([]byte, error) {
	p := o.Authorities
	csr, err := ca.ParseCSR(text)
	if err == nil && ca.AlgorithmOf(csr.PublicKey()) != ca.P256 {
		err = errors.New("its key must be P-256")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", mesh.ErrCSR, err)
	}
	serial, err := ca.NewSerial(rand.Reader)
	if err != nil {
		return nil, err
	}
	if err := p.ensureOwn(ctx, name); err != nil {
		return nil, err
	}
	r := ca.LeafRequest{PublicKey: csr.PublicKey(), Names: namesOf(c), Now: p.Now().UTC(), Life: o.Life, Serial: serial}
	entry := issued{Template: ownTemplate, Requester: requester, IssuedAt: r.Now}
	_, err = p.Store.Write(ctx, func(tx *store.Tx) error {
		tx.Actor = requester
		s, err := p.ownSigner(tx, name)
		if err != nil {
			return err
		}
		der, err := s.ca.IssueLeaf(r)
		if err != nil {
			return err
		}
		if err := entry.describe(der); err != nil {
			return err
		}
		return store.MakeObject(tx, certificatePlace(s.ID, serial.String()), &entry)
	})
	if err != nil {
		return nil, fmt.Errorf("issue %s: %w", c.URI, err)
	}
	return ca.EncodePEM(entry.Certificate), nil
}

// namesOf are the names in a certificate. An endpoint that is known by an address
// has that instead of a host name.
func namesOf(c mesh.OwnCertificate) ca.Names {
	names := ca.Names{URIs: []string{c.URI}}
	switch ip := net.ParseIP(c.DNS); {
	case ip != nil:
		names.IPs = []net.IP{ip}
	case c.DNS != "":
		names.DNS = []string{c.DNS}
	}
	return names
}

// ownSigner is the authority that issues in a mesh now: not one that proxies may
// not trust yet, as long as there is the one before.
func (p *PrivateCA) ownSigner(tx *store.Tx, name mesh.Name) (*signer, error) {
	o, err := store.GetObject[ownPointer](tx, ownPlace(name))
	if err != nil {
		return nil, err
	}
	now := p.Now()
	if o.Value.Before != "" && now.Before(o.Value.At.Add(ownSpread)) {
		if s, err := p.load(tx, placeOf(name.Owner, o.Value.Before)); err == nil && s.ca != nil && p.can(s.authority, doIssue, now) == nil {
			return s, nil
		}
	}
	s, err := p.load(tx, placeOf(name.Owner, o.Value.ID))
	if err != nil {
		return nil, err
	}
	return s, p.can(s.authority, doIssue, now)
}

// ensureOwn makes the authority of a mesh if it has none, or only one that was
// deleted or ends soon. Of several servers one makes it.
func (p *PrivateCA) ensureOwn(ctx context.Context, name mesh.Name) error {
	due := false
	if _, err := p.Store.Read(ctx, func(tx *store.Tx) (err error) {
		_, due, err = p.ownDue(tx, name)
		return err
	}); err != nil || !due {
		return err
	}
	next, err := p.newOwn(ctx, name)
	if err != nil {
		return err
	}
	_, err = p.Store.Write(ctx, func(tx *store.Tx) error {
		tx.Actor = ownRequester
		before, still, err := p.ownDue(tx, name)
		if due = still; err != nil || !due {
			return err // somebody else has made one
		}
		if err := store.PutObject(tx, ownPlace(name), &ownPointer{ID: next.ID, Before: before, At: next.CreatedAt}); err != nil {
			return err
		}
		at := placeOf(next.Account, next.ID)
		if _, err := store.GetObject[authority](tx, at); !isNotFound(err) {
			return errors.Join(errors.New("the id of an authority was drawn before"), err)
		}
		return p.make(tx, at, next)
	})
	if err == nil && due {
		p.Log.InfoContext(ctx, "a mesh has got an authority of its own for the secrets in its trust domain", "mesh", name.Mesh, "arn", p.arn(next.Account, next.ID))
	}
	return err
}

// ownDue says whether a mesh needs another authority, and which it has. One that
// was disabled is not replaced: whoever did that wants nothing to be issued.
func (p *PrivateCA) ownDue(tx *store.Tx, name mesh.Name) (before string, due bool, err error) {
	pointer, err := store.GetObject[ownPointer](tx, ownPlace(name))
	if err != nil {
		return "", isNotFound(err), ignoreNotFound(err)
	}
	o, err := store.GetObject[authority](tx, placeOf(name.Owner, pointer.Value.ID))
	if err != nil {
		return "", isNotFound(err), ignoreNotFound(err)
	}
	if o.Value.Status == deleted {
		return "", true, nil
	}
	return o.Value.ID, p.Now().After(o.Value.NotAfter.Add(-ownSuccession)), nil
}

// newOwn is a root for a mesh, not stored yet.
func (p *PrivateCA) newOwn(ctx context.Context, name mesh.Name) (*adopted, error) {
	id, err := uuid.NewRandom()
	if err != nil {
		return nil, fmt.Errorf("draw the id of an authority: %w", err)
	}
	common := "Fairlead mesh " + name.Mesh
	common = common[:min(len(common), 64)] // the most that a common name has
	a, err := p.newRoot(ctx, &AdoptAuthorityInput{ARN: p.arn(name.Owner, id.String()), CommonName: &common})
	if err != nil {
		return nil, err
	}
	a.ledger.Requester = ownRequester
	now := p.Now().UTC()
	a.ID, a.Account, a.Mesh = id.String(), name.Owner, store.MeshKey(name)
	a.KeyStorage, a.UsageMode = acmpca.KeyStorageSecurityStandardFips1402Level3OrHigher, acmpca.CertificateAuthorityUsageModeGeneralPurpose
	a.Revocation, a.Tags = completed(nil), map[string]string{"fairlead:mesh": name.Mesh}
	a.Status, a.CreatedAt, a.ChangedAt = active, now, now
	return a, nil
}

// Run makes authorities as soon as specs need them, renews them, and forgets
// certificates that ended, until ctx ends.
func (o *OwnSDS) Run(ctx context.Context) error {
	p := o.Authorities
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		p.attempt(ctx, "watch the meshes", func(ctx context.Context) error {
			return p.Store.Watch(ctx, func(name mesh.Name, _ *mesh.View) {
				p.attempt(ctx, "make a mesh's own authority", func(ctx context.Context) error { return o.look(ctx, name) })
			})
		})
	}()
	look, sweep := time.NewTicker(lookEvery), time.NewTicker(listsEvery)
	defer look.Stop()
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			<-watched
			return nil
		case <-look.C:
			for _, name := range p.Store.Meshes() {
				p.attempt(ctx, "make a mesh's own authority", func(ctx context.Context) error { return o.look(ctx, name) })
			}
		case <-sweep.C:
			p.attempt(ctx, "forget certificates of meshes that ended", p.sweepOwn)
		}
	}
}

// look makes the authority of a mesh if its specs need one and there is none, or
// one that ends soon.
func (o *OwnSDS) look(ctx context.Context, name mesh.Name) error {
	view := o.view(name)
	if view == nil || !view.NeedsOwn() {
		return nil
	}
	return o.Authorities.ensureOwn(ctx, name)
}

// sweepOwn forgets the certificates that meshes' own authorities have issued and
// that ended.
func (p *PrivateCA) sweepOwn(ctx context.Context) error {
	over := func(c *issued) bool { return !c.Root && p.Now().After(c.NotAfter.Add(ownLedger)) }
	return each(ctx, p.Store, store.Place{"authority"}, func(o *store.Object[authority]) error {
		if o.Value.Mesh == "" {
			return nil
		}
		return each(ctx, p.Store, store.Place{"authority-issued", o.Value.ID}, func(c *store.Object[issued]) error {
			if c.Value.Template != ownTemplate || !over(c.Value) {
				return nil
			}
			return removeIf(ctx, p.Store, c.Place, over)
		})
	})
}
