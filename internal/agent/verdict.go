package agent

import (
	"slices"
	"strings"

	"github.com/fairlead/fairlead/internal/envoy"
	"github.com/fairlead/fairlead/internal/xds"
)

// answer is what we tell the server of one of its messages: what Envoy made of
// it.
type answer struct {
	kind  envoy.Type
	nonce string
	nack  string // Envoy's message; empty: accepted
}

// envoyRejected notes that Envoy refused a resource. What stands in its place
// is what an Envoy that starts again gets too.
func (m *mirror) envoyRejected(r xds.Rejection) {
	current := m.received[r.Resource.Type][r.Resource.Name]
	if current == nil || current.resource.Version != r.Resource.Version {
		return // overtaken, or something that stood in for another
	}
	before := m.rejected[r.Resource.Ref]
	m.rejected[r.Resource.Ref] = rejection{version: r.Resource.Version, message: r.Message, standing: r.Standing,
		told: before.told && before.version == r.Resource.Version}
	m.dirty = true
}

// envoySettled notes that Envoy holds all of a configuration that it asks for.
func (m *mirror) envoySettled(config *envoy.Config, holds [envoy.NumTypes]int) {
	m.settled, m.holds = config, holds
}

// envoyGone notes that Envoy's stream has ended: what it holds is not known.
func (m *mirror) envoyGone() {
	m.settled = nil
	clear(m.secretsHeld)
}

// answers are the messages that Envoy has now answered, in their order. While
// Envoy is down, they wait: an ACK says that Envoy has it.
func (m *mirror) answers() []answer {
	var due []answer
	m.pending = slices.DeleteFunc(m.pending, func(p message) bool {
		if p.refused != "" {
			due = append(due, answer{p.kind, p.nonce, p.refused})
			return true
		}
		if p.sequence > m.applied || m.published == nil || m.settled != m.published {
			return false
		}
		nack := m.rejectionOf(p)
		if nack == "" && !m.envoyHolds(p) {
			return false
		}
		m.tell(p)
		due = append(due, answer{p.kind, p.nonce, nack})
		return true
	})
	return due
}

// tell notes that the server hears of what Envoy refused of a message.
func (m *mirror) tell(p message) {
	for name, version := range p.versions {
		ref := envoy.Ref{Type: p.kind, Name: name}
		if r, ok := m.rejected[ref]; ok && r.version == version {
			r.told = true
			m.rejected[ref] = r
		}
	}
}

// rejectionOf puts together what Envoy said of a message's resources, in
// Envoy's own form, from which the server reads which ones were meant.
func (m *mirror) rejectionOf(p message) string {
	var said, culprits []string
	for name, version := range p.versions {
		if r, ok := m.rejected[envoy.Ref{Type: p.kind, Name: name}]; ok && r.version == version {
			said = append(said, r.message)
			culprits = append(culprits, name+": "+r.message)
		}
	}
	slices.Sort(said)
	slices.Sort(culprits)
	switch said = slices.Compact(said); {
	case len(said) < 2:
		return strings.Join(said, "")
	case p.kind == envoy.Cluster:
		return "Error adding/updating cluster(s) " + strings.Join(culprits, ", ")
	case p.kind == envoy.Listener:
		return "Error adding/updating listener(s) " + strings.Join(culprits, ", ")
	}
	return strings.Join(culprits, "\n")
}

// envoyHolds says whether Envoy holds all that it must of a message's type.
func (m *mirror) envoyHolds(p message) bool {
	if m.holds[p.kind] >= len(m.mustHold(p.kind)) {
		return true
	}
	// It asks only for what something names that it has accepted.
	must := m.mustHold(p.kind)
	for name := range p.versions {
		if must[name] {
			return false
		}
	}
	return true
}

// mustHold are the resources of a type that a settled Envoy holds: all clusters
// and listeners but those it rejected without having an older one, and of the
// other types what those name.
func (m *mirror) mustHold(kind envoy.Type) map[string]bool {
	refused := func(r *envoy.Resource) bool {
		rejected, ok := m.rejected[r.Ref]
		return ok && rejected.version == r.Version && rejected.standing == nil
	}
	must := map[string]bool{}
	for t, list := range m.published.Resources {
		for _, r := range list {
			if refused(r) {
				continue
			}
			if envoy.Type(t) == kind && (kind == envoy.Cluster || kind == envoy.Listener) {
				must[r.Name] = true
			}
			for _, ref := range r.Refs {
				if ref.Type == kind && kind != envoy.Cluster {
					must[ref.Name] = true
				}
			}
		}
	}
	for _, r := range m.published.Resources[kind] {
		if refused(r) {
			delete(must, r.Name)
		}
	}
	return must
}
