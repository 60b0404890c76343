package pki

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/store"
)

// Waits is what a rotation waits for: nothing, if all of it is empty.
type Waits struct {
	// Reason why nothing can go on; most often there is none.
	Reason string `json:"reason,omitzero"`
	// Proxies that have not acknowledged what this step has changed.
	Proxies []mesh.Straggler `json:"proxies,omitzero"`
	// Authorities below that must be certified by hand.
	Authorities []Unready `json:"authorities,omitzero"`
	// Certificates of ACM that chain to the old root.
	Certificates []Unready `json:"certificates,omitzero"`
	// Issued are certificates that ACM does not manage and that hold under the old
	// root.
	Issued []Unready `json:"issued,omitzero"`
	// More: there are further ones than those that are named.
	More bool `json:"more,omitzero"`
}

// shorten names at most so many of each.
func (w *Waits) shorten(most int) {
	w.More = w.More || max(len(w.Proxies), len(w.Authorities), len(w.Certificates), len(w.Issued)) > most
	w.Proxies = w.Proxies[:min(most, len(w.Proxies))]
	w.Authorities = w.Authorities[:min(most, len(w.Authorities))]
	w.Certificates = w.Certificates[:min(most, len(w.Certificates))]
	w.Issued = w.Issued[:min(most, len(w.Issued))]
}

// Unready is something under the old root, and why it stands there.
type Unready struct {
	Arn string `json:"arn"`
	Why string `json:"why"`
}

// Bounds on what is named: of what was issued to others, for which ledgers are read, and
// of everything to whoever asks.
const (
	maxIssued = 50
	maxShown  = 100
)

// text is all of it in a sentence; empty: nothing is waited for.
func (w *Waits) text() string {
	var all []string
	if w.Reason != "" {
		all = append(all, w.Reason)
	}
	for _, p := range w.Proxies {
		all = append(all, fmt.Sprintf("proxy %s at %s (server %s, connected %s): %s", p.Proxy, p.From, p.At, p.Since.UTC().Format(time.RFC3339), p.Why))
	}
	for _, list := range [][]Unready{w.Authorities, w.Certificates, w.Issued} {
		for _, u := range list {
			all = append(all, u.Arn+": "+u.Why)
		}
	}
	const named = 5
	if n := len(all); n > named {
		all = append(all[:named], fmt.Sprintf("and %d more", n-named))
	}
	return strings.Join(all, "; ")
}

// waits finds what stands between a rotation and its next step.
func (r *Rotator) waits(ctx context.Context, l *look) (w Waits, err error) {
	if err := r.PCA.can(l.authority, doIssue, r.PCA.Now()); err != nil {
		w.Reason = err.Error()
		return w, nil
	}
	switch l.rotation.Step {
	case StepTrust, StepWithdraw:
		w.Proxies, err = r.lacking(ctx, l, func(g *graphed) map[mesh.ID]bool { return g.trusting[l.arn] })
	case StepIssue:
		err = r.waitsBelow(ctx, l, &w)
	case StepRenew:
		err = r.waitsCertificates(ctx, l, &w, false)
	case StepServe:
		// What was forced before is not forgotten: this is the last step before the
		// old root is out.
		w.Proxies, err = r.lacking(ctx, l, func(g *graphed) map[mesh.ID]bool { return g.both(l.arn) })
		if err = errors.Join(err, r.waitsBelow(ctx, l, &w), r.waitsCertificates(ctx, l, &w, true)); err == nil && w.text() == "" {
			err = r.waitsIssued(ctx, l, &w)
		}
	}
	return w, err
}

func (r *Rotator) waitsBelow(ctx context.Context, l *look, w *Waits) error {
	below, err := r.below(ctx, l)
	for _, s := range below {
		if s.rooted(l) {
			continue
		}
		why := s.obstacle
		if why == "" {
			why = "it has no certificate of the new root yet"
		}
		w.Authorities = append(w.Authorities, Unready{s.arn, why})
	}
	return err
}

func (r *Rotator) waitsCertificates(ctx context.Context, l *look, w *Waits, imported bool) error {
	stale, err := r.stale(ctx, l)
	for _, s := range stale {
		if s.imported && !imported {
			continue
		}
		w.Certificates = append(w.Certificates, Unready{s.arn, s.why})
	}
	return err
}

// waitsIssued finds what was issued to others under the generation that is to go, by the
// root or below it, and holds.
func (r *Rotator) waitsIssued(ctx context.Context, l *look, w *Waits) error {
	below, err := r.below(ctx, l)
	if err != nil {
		return err
	}
	ledgers := append([]*subordinate{{authority: l.authority, arn: l.arn}}, below...)
	for _, s := range ledgers {
		err := each(ctx, r.PCA.Store, store.Place{"authority-issued", s.ID}, func(o *store.Object[issued]) error {
			e := o.Value
			if e.Root || e.Service == acmPrincipal || !e.RevokedAt.IsZero() || r.PCA.Now().After(e.NotAfter) {
				return nil
			}
			if s.arn == l.arn && e.Generation != l.rotation.Other || s.arn != l.arn && e.IssuedAt.After(s.Certified) {
				return nil
			}
			if ours, err := r.ours(ctx, e); err != nil || ours {
				return err
			}
			if len(w.Issued) == maxIssued {
				w.More = true
				return errEnough
			}
			w.Issued = append(w.Issued, Unready{certificateARN(s.arn, o.Place[2]), "it was issued to " + e.Requester + " (" + e.Subject + ") and holds until " + e.NotAfter.UTC().Format(time.DateOnly)})
			return nil
		})
		if errors.Is(err, errEnough) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// ours says whether a certificate is one of an authority of this server's, which the
// rotation sees to.
func (r *Rotator) ours(ctx context.Context, e *issued) (ours bool, err error) {
	c, err := x509.ParseCertificate(e.Certificate)
	if err != nil {
		return false, fmt.Errorf("read a certificate of the ledger: %w", err)
	}
	if !c.IsCA {
		return false, nil
	}
	_, err = r.PCA.Store.Read(ctx, func(tx *store.Tx) error {
		arn, err := authorityOf(tx, c)
		ours = arn != ""
		return err
	})
	return ours, err
}

// graphed is what the Graph of a mesh says of roots, by their ARNs.
type graphed struct {
	view              *mesh.View
	trusting, serving map[string]map[mesh.ID]bool
}

// both are the endpoints that trust a root or present certificates below it.
func (g *graphed) both(root string) map[mesh.ID]bool {
	all := map[mesh.ID]bool{}
	for _, some := range []map[mesh.ID]bool{g.trusting[root], g.serving[root]} {
		for id := range some {
			all[id] = true
		}
	}
	return all
}

// graphOf looks at a mesh, which is built anew only when it has changed.
func (r *Rotator) graphOf(name mesh.Name, view *mesh.View, root string) *graphed {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil {
		r.known = map[mesh.Name]*graphed{}
	}
	g := r.known[name]
	if g == nil || g.view != view {
		g = &graphed{view: view, trusting: map[string]map[mesh.ID]bool{}, serving: map[string]map[mesh.ID]bool{}}
		r.known[name] = g
	}
	if g.trusting[root] == nil {
		graph := r.Graph(view)
		g.trusting[root], g.serving[root] = graph.Trusting(root), graph.Serving(root)
	}
	return g
}

// lacking are the proxies of some endpoints, of all meshes, that have not acknowledged
// what the rotation awaits.
func (r *Rotator) lacking(ctx context.Context, l *look, of func(*graphed) map[mesh.ID]bool) ([]mesh.Straggler, error) {
	// The views must be those in which what is awaited is.
	if err := r.PCA.Store.WaitFor(ctx, l.awaited); err != nil {
		return nil, err
	}
	var all []mesh.Straggler
	for _, name := range r.PCA.Store.Meshes() {
		view, ok := r.PCA.Store.View(name)
		if !ok || len(view.Certificates)+len(view.Authorities) == 0 {
			continue
		}
		concerned := of(r.graphOf(name, view, l.arn))
		if len(concerned) == 0 {
			continue
		}
		var seen []mesh.Sighting
		if _, err := r.PCA.Store.Read(ctx, func(tx *store.Tx) (err error) {
			seen, err = tx.Sightings(name)
			return err
		}); err != nil {
			return nil, err
		}
		all = append(all, mesh.Lacking(seen, func(_ mesh.Name, id mesh.ID) bool { return concerned[id] }, l.awaited, "secret")...)
	}
	return all, nil
}
