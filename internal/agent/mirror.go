package agent

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"

	"github.com/fairlead/fairlead/internal/envoy"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/xds"
)

// mirror is what the server has sent and what of it Envoy is to hold. It is
// pure state: one goroutine owns it (relay.go), and nothing in it blocks.
//
// What arrives is kept as it comes. It becomes the published configuration as a
// whole, when every name in it is there, and only if the server's manifest
// explains it; until then Envoy stays at the configuration before.
type mirror struct {
	mesh     mesh.Name
	endpoint mesh.ID

	received [envoy.NumTypes]map[string]*received
	// absent are names of which the server has said that they do not exist, and
	// keys that were not on the disk: what names them is served without them,
	// which Envoy refuses connections for, and never without TLS.
	absent [envoy.NumTypes]map[string]bool

	offered xds.Manifest // of this connection; zero until it comes
	held    xds.Manifest // what the published configuration was made from

	published *envoy.Config // nil: none yet
	dirty     bool          // what was received is not what is published
	sequence  int64         // of the newest message
	applied   int64         // the sequence that published contains
	answered  [envoy.NumTypes]bool
	whole     bool // published has clusters and listeners both: an Envoy can serve by it

	pending  []message // that await Envoy's answer
	rejected map[envoy.Ref]rejection
	// settled is the configuration that Envoy was last known to hold all of that
	// it asks for, and holds how many resources that is.
	settled *envoy.Config
	holds   [envoy.NumTypes]int
	// secretsHeld are the versions of the server's secrets that Envoy has accepted
	// last, by name.
	secretsHeld map[string]string
}

// received is a resource as it came, with what it names.
type received struct {
	resource *envoy.Resource
	references
	// stripped is the resource without those of its Refs that are absent, for
	// the set of them that it was made for.
	stripped *envoy.Resource
	without  string
	expires  time.Time // of a certificate that is a secret
}

// message is one of the server's that awaits its ACK.
type message struct {
	sequence int64
	kind     envoy.Type
	nonce    string
	versions map[string]string // by name
	refused  string            // why we cannot read it
}

// rejection is Envoy's last word on a resource.
type rejection struct {
	version  string
	message  string
	standing *envoy.Resource // what Envoy holds instead; nil: nothing
	// told: the server has had it as a NACK. From then on it is the server that
	// knows: if the resource goes back to what stands, it has nothing to send.
	told bool
}

func newMirror(name mesh.Name, endpoint mesh.ID) *mirror {
	m := &mirror{mesh: name, endpoint: endpoint, rejected: map[envoy.Ref]rejection{}, secretsHeld: map[string]string{}}
	for t := range m.received {
		m.received[t], m.absent[t] = map[string]*received{}, map[string]bool{}
	}
	return m
}

// connected starts over what belongs to one connection.
func (m *mirror) connected() {
	m.offered = xds.Manifest{}
	m.pending = nil
}

// receive takes in one message of the server.
func (m *mirror) receive(r *discoveryv3.DeltaDiscoveryResponse) error {
	if r.TypeUrl == xds.ManifestURL {
		for _, resource := range r.Resources {
			encoded, err := proto.Marshal(resource.Resource)
			if err != nil {
				return fmt.Errorf("read manifest: %w", err)
			}
			if m.offered, err = xds.ParseManifest(encoded); err != nil {
				return fmt.Errorf("read manifest: %w", err)
			}
			m.dirty = true
		}
		return nil
	}
	kind, known := envoy.TypeOf(r.TypeUrl)
	if !known {
		return nil
	}
	m.sequence++
	m.dirty, m.answered[kind] = true, true
	p := message{sequence: m.sequence, kind: kind, nonce: r.Nonce, versions: map[string]string{}}
	for _, resource := range r.Resources {
		if err := m.receiveOne(kind, resource); err != nil {
			p.refused = err.Error()
			continue
		}
		p.versions[resource.Name] = resource.Version
	}
	for _, name := range r.RemovedResources {
		delete(m.received[kind], name)
		delete(m.rejected, envoy.Ref{Type: kind, Name: name})
		if kind != envoy.Cluster && kind != envoy.Listener {
			m.absent[kind][name] = true
		}
	}
	m.pending = append(m.pending, p)
	m.prune()
	return nil
}

func (m *mirror) receiveOne(kind envoy.Type, r *discoveryv3.Resource) error {
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(r.Resource)
	if err != nil {
		return fmt.Errorf("read %s %s: %w", kind, r.Name, err)
	}
	return m.put(&envoy.Resource{Ref: envoy.Ref{Type: kind, Name: r.Name}, Version: r.Version, Any: encoded})
}

// put keeps a resource. The same again keeps its pointer, so that nothing is
// sent to Envoy for it.
func (m *mirror) put(r *envoy.Resource) error {
	delete(m.absent[r.Type], r.Name)
	if had := m.received[r.Type][r.Name]; had != nil && had.resource.Version == r.Version && bytes.Equal(had.resource.Any, r.Any) {
		return nil
	}
	found, err := findReferences(r.Type, r.Any)
	if err != nil {
		return fmt.Errorf("%s %s: %w", r.Type, r.Name, err)
	}
	r.Refs = found.ads
	delete(m.rejected, r.Ref)
	kept := &received{resource: r, references: found}
	if r.Type == envoy.Secret {
		kept.expires = expiryOf(r.Any)
	}
	m.received[r.Type][r.Name] = kept
	return nil
}

// wanted are the names to subscribe to of a type that has no wildcard: all that
// is named by what was received.
func (m *mirror) wanted(kind envoy.Type) []string {
	names := map[string]bool{}
	for t := range m.received {
		for _, r := range m.received[t] {
			for _, ref := range r.ads {
				if ref.Type == kind {
					names[ref.Name] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// prune drops what nothing names any longer; we unsubscribe from it.
func (m *mirror) prune() {
	for _, kind := range []envoy.Type{envoy.Route, envoy.Endpoint, envoy.Secret} {
		wanted := m.wanted(kind)
		named := func(name string) bool { _, ok := slices.BinarySearch(wanted, name); return ok }
		maps.DeleteFunc(m.received[kind], func(name string, _ *received) bool { return !named(name) })
		maps.DeleteFunc(m.absent[kind], func(name string, _ bool) bool { return !named(name) })
	}
	maps.DeleteFunc(m.secretsHeld, func(name, _ string) bool { return m.received[envoy.Secret][name] == nil })
}

// versions are what we tell the server that we hold of a type. Of what Envoy
// has rejected we hold what stands in its place.
func (m *mirror) versions(kind envoy.Type) map[string]string {
	held := map[string]string{}
	for name, r := range m.received[kind] {
		rejected, ok := m.rejected[r.resource.Ref]
		switch {
		case !ok || rejected.version != r.resource.Version:
			held[name] = r.resource.Version
		case rejected.standing != nil:
			held[name] = rejected.standing.Version
		}
	}
	return held
}

// objection is why what was received must not replace what Envoy holds; empty:
// it may. The server has looked at the same (xds, shrink guard): this is the
// second pair of eyes.
func (m *mirror) objection() string {
	switch {
	case !guardRemovals, m.held.Lineage == "", m.offered.AcceptShrink:
		return ""
	case m.offered.Lineage == "":
		return "the server has not said what its configuration was made from"
	case m.offered.Lineage != m.held.Lineage:
		return fmt.Sprintf("the server has another store (%.8s) than the one that this configuration came from (%.8s); if that is right: fairlead proxy accept-shrink", m.offered.Lineage, m.held.Lineage)
	case m.offered.Revision < m.held.Revision:
		return fmt.Sprintf("the server's store is at revision %d, older than this configuration (%d); if that is right: fairlead proxy accept-shrink", m.offered.Revision, m.held.Revision)
	}
	return ""
}

// missing are the names in what was received that have not come yet.
func (m *mirror) missing() []envoy.Ref {
	var missing []envoy.Ref
	for t := range m.received {
		for _, r := range m.received[t] {
			for _, ref := range r.ads {
				if m.received[ref.Type][ref.Name] == nil && !m.absent[ref.Type][ref.Name] {
					missing = append(missing, ref)
				}
			}
		}
	}
	return missing
}

// publish makes what was received the configuration of Envoy if it may be. It
// returns whether the configuration has changed, or what it was made from.
func (m *mirror) publish() (changed bool) {
	if !m.dirty || m.sequence == 0 || m.objection() != "" || len(m.missing()) > 0 {
		return false
	}
	m.dirty = false
	m.applied = m.sequence
	m.whole = m.whole || m.answered[envoy.Cluster] && m.answered[envoy.Listener]
	next := m.build()
	if m.published == nil || !sameResources(m.published, next) {
		m.published, changed = next, true
	}
	if m.offered.Lineage != "" && (m.offered.Lineage != m.held.Lineage || m.offered.Revision != m.held.Revision) {
		m.held, changed = m.offered, true
	}
	return changed
}

func (m *mirror) build() *envoy.Config {
	config := &envoy.Config{Mesh: m.mesh, Endpoint: m.endpoint, Revision: max(m.offered.Revision, m.held.Revision)}
	for t := range m.received {
		for _, r := range m.received[t] {
			config.Resources[t] = append(config.Resources[t], m.serve(r))
		}
		slices.SortFunc(config.Resources[t], func(a, b *envoy.Resource) int { return strings.Compare(a.Name, b.Name) })
	}
	return config
}

func sameResources(a, b *envoy.Config) bool {
	for t := range a.Resources {
		if !slices.Equal(a.Resources[t], b.Resources[t]) {
			return false
		}
	}
	return true
}

// serve is the form of a resource that Envoy gets: without names that are
// absent, and if Envoy has rejected it, what stood before, so that an Envoy
// that starts again gets that.
func (m *mirror) serve(r *received) *envoy.Resource {
	if rejected, ok := m.rejected[r.resource.Ref]; ok && rejected.version == r.resource.Version && rejected.standing != nil && m.complete(rejected.standing) {
		return rejected.standing
	}
	var without []string
	for _, ref := range r.ads {
		if m.received[ref.Type][ref.Name] == nil {
			without = append(without, ref.Type.String()+" "+ref.Name)
		}
	}
	if len(without) == 0 {
		return r.resource
	}
	if key := strings.Join(without, "\n"); r.stripped == nil || r.without != key {
		stripped := *r.resource
		stripped.Refs = slices.DeleteFunc(slices.Clone(r.ads), func(ref envoy.Ref) bool { return m.received[ref.Type][ref.Name] == nil })
		r.stripped, r.without = &stripped, key
	}
	return r.stripped
}

func (m *mirror) complete(r *envoy.Resource) bool {
	return !slices.ContainsFunc(r.Refs, func(ref envoy.Ref) bool { return m.received[ref.Type][ref.Name] == nil })
}

// withheld are the secrets of the server that the published configuration names
// and that we do not have, each with the resources that stay closed for it.
func (m *mirror) withheld() map[string][]envoy.Ref {
	closed := map[string][]envoy.Ref{}
	for t := range m.received {
		for _, r := range m.received[t] {
			for _, ref := range r.ads {
				if ref.Type == envoy.Secret && m.received[envoy.Secret][ref.Name] == nil {
					closed[ref.Name] = append(closed[ref.Name], r.resource.Ref)
				}
			}
		}
	}
	sortRefs(closed)
	return closed
}

func sortRefs(lists map[string][]envoy.Ref) {
	for _, refs := range lists {
		slices.SortFunc(refs, func(a, b envoy.Ref) int {
			return cmp.Or(cmp.Compare(a.Type, b.Type), strings.Compare(a.Name, b.Name))
		})
	}
}

// localSecrets are the secrets that Envoy asks the agent (file) and the provider
// of `sds` secrets for, each with the resources that name it.
func (m *mirror) localSecrets() (file, provider map[string][]envoy.Ref) {
	file, provider = map[string][]envoy.Ref{}, map[string][]envoy.Ref{}
	for t := range m.received {
		for _, r := range m.received[t] {
			for _, name := range r.file {
				file[name] = append(file[name], r.resource.Ref)
			}
			for _, name := range r.provider {
				provider[name] = append(provider[name], r.resource.Ref)
			}
		}
	}
	sortRefs(file)
	sortRefs(provider)
	return file, provider
}
