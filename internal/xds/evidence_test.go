package xds

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/fairlead/fairlead/internal/mesh"
)

// notebook is an Evidence that a test reads.
type notebook struct {
	mu      sync.Mutex
	awaited int64
	broken  error
	notes   int // sightings that were written
	newest  map[string]mesh.Sighting
}

func (n *notebook) Awaited() int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.awaited
}

func (n *notebook) Alive() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.broken
}

func (n *notebook) Note(_ context.Context, news []mesh.Sighting) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.broken != nil {
		return n.broken
	}
	for _, s := range news {
		n.notes++
		n.newest[s.Endpoint.Name+" "+s.Instance] = s
	}
	return nil
}

// of is what is noted of a proxy, by its endpoint's name and the beginning of its
// instance; and how much was written in all.
func (n *notebook) of(name string) (s mesh.Sighting, notes int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for key, s := range n.newest {
		if strings.HasPrefix(key, name) {
			return s, n.notes
		}
	}
	return mesh.Sighting{}, n.notes
}

func (n *notebook) set(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

// TestEvidence: coming and going is noted; what a proxy has acknowledged only while
// somebody waits for it, and only when it has.
func TestEvidence(t *testing.T) {
	source := newMemory()
	source.views[demo] = view(demo, 10, "node a: svc", "node b", "service svc: b")
	book := &notebook{newest: map[string]mesh.Sighting{}}
	r := startServer(t, source, func(c *Config) { c.Evidence, c.Name = book, "here" })
	named, err := structpb.NewStruct(map[string]any{MetadataInstance: "one"})
	if err != nil {
		t.Fatal(err)
	}
	a := r.as(Delta, "mesh/demo/virtualNode/a", named)
	b := r.as(Delta, "mesh/demo/virtualNode/b", nil)
	a.clusters()
	b.clusters()
	eventually(t, "both are noted", func() bool {
		one, _ := book.of("a one")
		other, _ := book.of("b 127.0.0.1:")
		return one.Server == "here" && one.Node == "mesh/demo/virtualNode/a" && one.Mesh == demo && other.Server == "here" && one.Revision == 0
	})
	_, before := book.of("a")
	for revision := range int64(20) {
		source.set(demo, view(demo, 11+revision, "node a: svc", "node b", "node c", "service svc: b"))
	}
	// What comes last: a change that a has not acknowledged.
	source.set(demo, view(demo, 40, "node a: svc", "node b", "node c", "service svc: c"))
	last := a.next()
	if _, notes := book.of("a"); notes != before {
		t.Errorf("%d sightings were written although nobody waits for anything", notes-before)
	}
	book.set(func() { book.awaited = 40 })
	eventually(t, "b has acknowledged", func() bool { s, _ := book.of("b"); return s.Revision == 40 })
	if s, _ := book.of("a"); s.Revision != 0 {
		t.Errorf("of a is noted revision %d, which it has not acknowledged", s.Revision)
	}
	a.ack(last)
	go a.acksAll()
	eventually(t, "a has acknowledged", func() bool { s, _ := book.of("a"); return s.Revision == 40 })
	_, before = book.of("a")
	source.set(demo, view(demo, 41, "node a: svc", "node b", "node c", "service svc: b"))
	book.set(func() { book.awaited = 42 }) // of another mesh
	b.cancel()
	eventually(t, "b is gone", func() bool { s, _ := book.of("b"); return !s.Ended.IsZero() })
	if s, notes := book.of("a"); s.Revision != 40 || notes != before+1 {
		t.Errorf("of a is noted %d, and %d sightings more than that b is gone", s.Revision, notes-before-1)
	}
	// The store forgets: everything is noted again.
	book.set(func() { book.broken = errors.New("forgotten"); clear(book.newest) })
	c := r.as(Delta, "mesh/demo/virtualNode/c", nil)
	c.clusters()
	eventually(t, "that c has come is noticed", func() bool {
		w := r.server.hub.witness
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.changed) == 0
	})
	book.set(func() { book.broken = nil })
	eventually(t, "all are there again", func() bool {
		one, _ := book.of("a one")
		other, _ := book.of("c")
		return one.Server != "" && other.Server != ""
	})
}

// acksAll accepts whatever comes.
func (c *client) acksAll() {
	for {
		select {
		case a := <-c.in:
			c.ack(a)
		case <-c.t.Context().Done():
			return
		}
	}
}

// TestEvidenceOfSecrets: a proxy that has not asked for its secrets on this stream holds
// those of an earlier one, whatever else it has acknowledged.
func TestEvidenceOfSecrets(t *testing.T) {
	k := newKit(t)
	arn := certificateARN("server")
	k.node("server", 8080, arn)
	k.issue(k.view, arn, "server.apps.local")
	source := newMemory()
	source.views[demo] = k.view
	book := &notebook{newest: map[string]mesh.Sighting{}, awaited: k.view.Revision}
	r := startServer(t, source, func(c *Config) { c.Evidence = book })
	p := r.as(Delta, "mesh/demo/virtualNode/server", nil)
	p.clusters()
	p.send(req{kind: "listener"})
	listeners := p.next()
	p.ack(listeners)
	eventually(t, "it is settled", func() bool {
		all := r.server.Proxies()
		return len(all) == 1 && all[0].Settled
	})
	other := r.as(Delta, "mesh/demo/virtualNode/server", nil) // makes the witness look
	other.clusters()
	eventually(t, "a look", func() bool {
		_, notes := book.of("server")
		return notes >= 2
	})
	if s, _ := book.of("server"); s.Revision != 0 {
		t.Errorf("it has acknowledged revision %d without having asked for its secrets", s.Revision)
	}
	for _, one := range []*client{p, other} {
		one.send(req{kind: "secret", names: []string{mesh.CertificateSecret(arn)}})
		one.ack(one.next())
	}
	eventually(t, "it holds them", func() bool { s, _ := book.of("server"); return s.Revision == k.view.Revision })
}
