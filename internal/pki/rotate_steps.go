package pki

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fairlead/fairlead/api/acm"
	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/store"
)

const (
	// rotationPrincipal is who asks for what a rotation has issued, in ledgers.
	rotationPrincipal = "rotation.fairlead"
	// stepEvery is how often a rotation is looked at.
	stepEvery = 500 * time.Millisecond
)

func drawSerial() (ca.Serial, error) { return ca.NewSerial(rand.Reader) }

// Run carries rotations on until ctx ends, on one server of the store at a time.
func (r *Rotator) Run(ctx context.Context) error {
	r.PCA.Store.Lead(ctx, "rotations", func(ctx context.Context) {
		tick := time.NewTicker(stepEvery)
		defer tick.Stop()
		for {
			if err := r.advanceAll(ctx); err != nil && ctx.Err() == nil {
				r.Log.WarnContext(ctx, "rotations of roots wait", "error", err)
			}
			select {
			case <-ctx.Done():
				r.Metrics.none()
				return
			case <-tick.C:
			}
		}
	})
	return nil
}

// advanceAll looks at all rotations that are under way. Each of them is awaited: while
// nothing is, there is none.
func (r *Rotator) advanceAll(ctx context.Context) error {
	if r.PCA.Store.Awaited() == 0 {
		r.Metrics.none()
		return nil
	}
	var all []error
	counted := rotationCount{}
	err := each(ctx, r.PCA.Store, store.Place{kindRotation}, func(o *store.Object[rotation]) error {
		if o.Value.Step == StepDone {
			return nil
		}
		waits, err := r.advance(ctx, placeOf(o.Place[1], o.Place[2]))
		if err != nil {
			all = append(all, fmt.Errorf("authority %s: %w", o.Place[2], err))
		}
		counted.add(o.Value, waits)
		return ctx.Err()
	})
	r.Metrics.show(counted)
	return errors.Join(append(all, err)...)
}

// look is a rotation at one moment.
type look struct {
	at        store.Place // of the authority
	arn       string
	rotation  *rotation
	revision  int64 // of the rotation's record
	authority *authority
	awaited   int64
}

func (r *Rotator) look(ctx context.Context, at store.Place) (*look, error) {
	l := &look{at: at, arn: r.PCA.arn(at[1], at[2])}
	_, err := r.PCA.Store.Read(ctx, func(tx *store.Tx) error {
		a, err := store.GetObject[authority](tx, at)
		if err != nil {
			return err
		}
		o, err := store.GetObject[rotation](tx, rotationPlace(at))
		if err != nil {
			return err
		}
		l.authority, l.rotation, l.revision = a.Value, o.Value, o.Revision
		l.awaited, err = tx.AwaitedUnder(l.arn)
		return err
	})
	return l, err
}

// advance does what a rotation's step has to do, and goes on to the next one if there
// is nothing left to wait for.
func (r *Rotator) advance(ctx context.Context, at store.Place) (Waits, error) {
	l, err := r.look(ctx, at)
	if err != nil || l.rotation.Step == StepDone || l.rotation.Paused {
		return Waits{}, ignoreNotFound(err)
	}
	switch l.rotation.Step {
	case StepIssue:
		err = r.certify(ctx, l)
	case StepRenew:
		err = r.renew(ctx, l)
	}
	if err != nil {
		return Waits{}, err
	}
	waits, err := r.waits(ctx, l)
	if err != nil {
		return waits, err
	}
	if why := waits.text(); guardEvidence && why != "" && l.rotation.Forced != l.rotation.Step {
		r.say(ctx, l, why)
		return waits, nil
	}
	return waits, r.next(ctx, l)
}

// say logs what a rotation waits for, when that is news.
func (r *Rotator) say(ctx context.Context, l *look, why string) {
	r.mu.Lock()
	if r.said == nil {
		r.said = map[string]string{}
	}
	news := r.said[l.arn] != why
	r.said[l.arn] = why
	r.mu.Unlock()
	if news {
		r.Log.WarnContext(ctx, "the rotation of a root waits", "authority", l.arn, "step", string(l.rotation.Step), "for", why)
	}
}

// next takes a rotation to its next step, unless somebody has changed it since it was
// looked at.
func (r *Rotator) next(ctx context.Context, l *look) error {
	from := l.rotation.Step
	var to Step
	_, err := r.PCA.Store.Write(ctx, func(tx *store.Tx) error {
		tx.Actor, to = rotationPrincipal, ""
		o, err := store.GetObject[rotation](tx, rotationPlace(l.at))
		if err != nil || o.Revision != l.revision {
			return ignoreNotFound(err)
		}
		a, err := store.GetObject[authority](tx, l.at)
		if err != nil {
			return err
		}
		n := o.Value
		n.Forced, n.Changed = "", r.PCA.Now().UTC()
		defer func() { to = n.Step }()
		switch from {
		case StepTrust:
			n.Step = StepIssue
			if err := a.Value.issueWith(tx, n.Target); err != nil {
				return err
			}
		case StepIssue:
			n.Step = StepRenew
		case StepRenew:
			n.Step = StepServe
		case StepServe:
			return r.withdraw(tx, l.at, a.Value, n)
		default:
			n.Step = StepDone
		}
		return r.put(tx, l.at, a.Value, n)
	})
	if err != nil || to == "" {
		return err
	}
	if to == StepDone {
		r.Log.InfoContext(ctx, "the rotation of a root is done", "authority", l.arn, "undone", l.rotation.Undone)
	} else {
		r.Log.InfoContext(ctx, "the rotation of a root goes on", "authority", l.arn, "step", string(to), "undone", l.rotation.Undone)
	}
	return nil
}

// withdraw stages that nobody trusts the generation any more that is to go.
func (r *Rotator) withdraw(tx *store.Tx, at store.Place, a *authority, n *rotation) error {
	n.Step = StepWithdraw
	if g := a.other(n.Other); g != nil {
		g.Trusted = false
	}
	return r.put(tx, at, a, n)
}

// certify gives the authorities below a root certificates of the generation that
// issues now, and all below those their chains.
func (r *Rotator) certify(ctx context.Context, l *look) error {
	below, err := r.below(ctx, l)
	if err != nil {
		return err
	}
	for _, b := range below {
		if b.rooted(l) || b.obstacle != "" {
			continue
		}
		if err := r.recertify(ctx, l, b); err != nil {
			return fmt.Errorf("certify %s: %w", b.arn, err)
		}
	}
	return nil
}

// subordinate is an authority of this server's below a root.
type subordinate struct {
	*authority
	arn      string
	obstacle string // why it must be certified by hand
}

// rooted says whether its chain ends in the generation that issues.
func (s *subordinate) rooted(l *look) bool {
	return len(s.Chain) > 0 && bytes.Equal(s.Chain[len(s.Chain)-1], l.authority.Certificate)
}

// below are the authorities whose chains end in any generation of a root, from above to
// below.
func (r *Rotator) below(ctx context.Context, l *look) ([]*subordinate, error) {
	keys := l.authority.publicKeys()
	var all []*subordinate
	err := each(ctx, r.PCA.Store, store.Place{"authority"}, func(o *store.Object[authority]) error {
		a := o.Value
		if len(a.Chain) == 0 || a.Status == deleted || r.PCA.Now().After(a.NotAfter) {
			return nil
		}
		root, err := x509.ParseCertificate(a.Chain[len(a.Chain)-1])
		if err != nil {
			return fmt.Errorf("read chain of authority %s: %w", a.ID, err)
		}
		if keys[string(root.RawSubjectPublicKeyInfo)] {
			s := &subordinate{authority: a, arn: r.PCA.arn(a.Account, a.ID)}
			s.obstacle, err = r.obstacle(ctx, l, s)
			all = append(all, s)
			return err
		}
		return nil
	})
	slices.SortFunc(all, func(a, b *subordinate) int { return len(a.Chain) - len(b.Chain) })
	return all, err
}

// publicKeys are those of all generations.
func (a *authority) publicKeys() map[string]bool {
	all := map[string]bool{}
	add := func(der []byte) {
		if c, err := x509.ParseCertificate(der); err == nil {
			all[string(c.RawSubjectPublicKeyInfo)] = true
		}
	}
	add(a.Certificate)
	for _, g := range a.Others {
		add(g.Certificate)
	}
	return all
}

// obstacle says why a subordinate cannot be certified anew by itself.
func (r *Rotator) obstacle(ctx context.Context, l *look, s *subordinate) (why string, err error) {
	if s.rooted(l) {
		return "", nil
	}
	_, err = r.PCA.Store.Read(ctx, func(tx *store.Tx) error {
		why = ""
		if len(s.Chain) > 1 {
			parent, err := r.parentOf(tx, s.authority)
			if err == nil && parent == nil {
				why = "the authority above it is none of this server's"
			}
			return err
		}
		_, _, err := r.again(tx, l, s.authority)
		if errors.Is(err, errNoLedger) {
			why, err = err.Error(), nil
		}
		return err
	})
	if why != "" {
		why += ": have its CSR signed and import the certificate with acm-pca import-certificate-authority-certificate"
	}
	return why, err
}

// parentOf is the authority of this server's that has signed a subordinate's
// certificate; nil: there is none.
func (r *Rotator) parentOf(tx *store.Tx, a *authority) (*authority, error) {
	c, err := x509.ParseCertificate(a.Chain[0])
	if err != nil {
		return nil, fmt.Errorf("read chain of authority %s: %w", a.ID, err)
	}
	arn, err := authorityOf(tx, c)
	if err != nil || arn == "" {
		return nil, err
	}
	fields := strings.SplitN(arn, ":", 6)
	o, err := store.GetObject[authority](tx, placeOf(fields[4], idOf(arn)))
	if err != nil {
		return nil, ignoreNotFound(err)
	}
	return o.Value, nil
}

// errNoLedger is that of a certificate that cannot be made again.
var errNoLedger = errors.New("the root's ledger does not say how its certificate was made")

// again is a request for the certificate that a subordinate has from a root, for as long
// as that one. It is a fault if the ledger does not tell how that was made.
func (r *Rotator) again(tx *store.Tx, l *look, a *authority) (ca.Request, *issued, error) {
	number, err := ca.ParseSerial(a.Serial)
	if err != nil {
		return ca.Request{}, nil, err
	}
	o, err := store.GetObject[issued](tx, certificatePlace(l.authority.ID, paddedSerial(number)))
	if isNotFound(err) {
		return ca.Request{}, nil, errNoLedger
	}
	if err != nil {
		return ca.Request{}, nil, err
	}
	template, err := r.PCA.parseTemplate(&o.Value.Template)
	if err != nil {
		return ca.Request{}, nil, err
	}
	if strings.Contains(template.Name, "API") {
		return ca.Request{}, nil, errNoLedger // what was passed through is not kept
	}
	request := ca.Request{Template: template, Algorithm: ca.SigningAlgorithm(l.authority.Configuration.SigningAlgorithm), Now: r.PCA.Now().UTC()}
	if request.CSR, err = ca.ParseCSR(a.CSR); err != nil {
		return request, nil, err
	}
	end := request.Now.Add(a.NotAfter.Sub(a.NotBefore))
	if end.After(l.authority.NotAfter) {
		end = l.authority.NotAfter
	}
	request.Validity = ca.Validity{Type: ca.Absolute, Value: end.Unix()}
	return request, o.Value, nil
}

// recertify gives a subordinate the certificate and chain that it is to have, in one
// transaction of its own.
func (r *Rotator) recertify(ctx context.Context, l *look, s *subordinate) error {
	serial, err := drawSerial()
	if err != nil {
		return err
	}
	at := placeOf(s.Account, s.ID)
	_, err = r.PCA.Store.Write(ctx, func(tx *store.Tx) error {
		tx.Actor = rotationPrincipal
		o, err := store.GetObject[rotation](tx, rotationPlace(l.at))
		if err != nil || o.Revision != l.revision {
			return ignoreNotFound(err)
		}
		sub, err := store.GetObject[authority](tx, at)
		if err != nil {
			return ignoreNotFound(err)
		}
		a := sub.Value
		if !bytes.Equal(a.Certificate, s.Certificate) {
			return nil // somebody has imported another one
		}
		if len(a.Chain) > 1 {
			parent, err := r.parentOf(tx, a)
			if err != nil || parent == nil {
				return err
			}
			a.Chain = append([][]byte{parent.Certificate}, parent.Chain...)
		} else if err := r.signAgain(tx, l, a, serial); err != nil {
			return err
		}
		return r.PCA.put(tx, at, a)
	})
	return err
}

// signAgain has the root sign a subordinate's certificate.
func (r *Rotator) signAgain(tx *store.Tx, l *look, a *authority, serial ca.Serial) error {
	request, before, err := r.again(tx, l, a)
	if err != nil {
		return err
	}
	request.Serial = serial
	root, err := r.PCA.load(tx, l.at)
	if err != nil {
		return err
	}
	der, err := r.PCA.sign(root, request)
	if err != nil {
		return err
	}
	entry := issued{Template: before.Template, Requester: rotationPrincipal, IssuedAt: request.Now, Generation: root.Generation}
	if err := entry.describe(der); err != nil {
		return err
	}
	a.Certificate, a.Chain = der, [][]byte{root.Certificate}
	a.Serial, a.NotBefore, a.NotAfter, a.Certified = ca.DescribeSerial(serial.Int()), entry.NotBefore, entry.NotAfter, request.Now
	return store.MakeObject(tx, certificatePlace(l.authority.ID, serial.String()), &entry)
}

// renew makes tasks of the certificates of ACM that still chain to the generation that
// is to go.
func (r *Rotator) renew(ctx context.Context, l *look) error {
	stale, err := r.stale(ctx, l)
	if err != nil {
		return err
	}
	for _, s := range stale {
		if s.why != staleWaits {
			continue
		}
		if _, err := r.PCA.Store.Write(ctx, func(tx *store.Tx) error {
			tx.Actor = rotationPrincipal
			o, err := store.GetObject[certificate](tx, s.at)
			if err != nil || !bytes.Equal([]byte(o.Value.Certificate), []byte(s.certificate)) {
				return ignoreNotFound(err)
			}
			if _, err := store.GetObject[task](tx, taskPlace(s.at)); !isNotFound(err) {
				return err // it is under way
			}
			_, err = r.ACM.schedule(tx, s.at, o.Value)
			return err
		}); err != nil {
			return fmt.Errorf("renew %s: %w", s.arn, err)
		}
	}
	if len(stale) > 0 {
		r.ACM.kick()
	}
	return nil
}

// staleCertificate is one of ACM that does not chain to the generation that issues.
type staleCertificate struct {
	at               store.Place
	arn, certificate string
	why              string
	imported         bool
}

// staleWaits is why of one that is to be renewed, or is being renewed.
const staleWaits = "it is not renewed yet"

// stale are the certificates that hold, and whose chain ends in another generation of
// the root than the one that issues.
func (r *Rotator) stale(ctx context.Context, l *look) ([]staleCertificate, error) {
	issuing, err := x509.ParseCertificate(l.authority.Certificate)
	if err != nil {
		return nil, fmt.Errorf("read certificate of authority %s: %w", l.authority.ID, err)
	}
	var all []staleCertificate
	err = each(ctx, r.PCA.Store, store.Place{kindCertificate}, func(o *store.Object[certificate]) error {
		c := o.Value
		if c.Root != l.arn || c.status(r.PCA.Now()) != acm.CertificateStatusIssued {
			return nil
		}
		chain, err := parseChain(c.Chain)
		if err != nil || len(chain) == 0 || bytes.Equal(chain[len(chain)-1].RawSubjectPublicKeyInfo, issuing.RawSubjectPublicKeyInfo) {
			return err
		}
		s := staleCertificate{at: o.Place, arn: c.ARN, certificate: c.Certificate, why: staleWaits}
		switch {
		case c.Type == acm.CertificateTypeImported:
			s.imported, s.why = true, "it was imported: import one under the same ARN that the new root has issued"
		case c.Renewal != nil && c.Renewal.Status == acm.RenewalStatusFailed:
			s.why = "its renewal has failed: " + string(c.Renewal.Reason)
		}
		all = append(all, s)
		return nil
	})
	return all, err
}
