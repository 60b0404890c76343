package xds

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/fairlead/fairlead/internal/mesh"
)

// Evidence is where the server notes what its proxies hold, for whoever waits for
// that (*store.Sightings with its store).
type Evidence interface {
	// Awaited is the newest revision that somebody waits for; 0: nobody does.
	Awaited() int64
	// Note writes what is new. After an error it is called with everything again.
	Note(ctx context.Context, news []mesh.Sighting) error
	// Alive is an error if everything is to be noted again.
	Alive() error
}

const (
	// coalesce is how long comings and goings are collected before they are written,
	// lookEvery how often proxies are looked at while somebody waits for them, and
	// whether what was written is still there at other times.
	coalesce  = 200 * time.Millisecond
	lookEvery = time.Second
	// maxRejected bounds the rejected resources that are noted of a proxy.
	maxRejected = 8
)

// witness notes the proxies of this server. While nobody waits for anything only
// their coming and going is written.
type witness struct {
	hub    *Hub
	to     Evidence
	server string // its name for people
	now    func() time.Time
	wake   chan struct{} // capacity 1

	mu      sync.Mutex
	changed map[*proxy]bool // came or went

	// Only run uses these.
	noted  map[*proxy]mesh.Sighting
	unsure bool // what was written may not be there
}

func newWitness(h *Hub, c Config) *witness {
	return &witness{hub: h, to: c.Evidence, server: c.Name, now: c.Now, wake: make(chan struct{}, 1),
		changed: map[*proxy]bool{}, noted: map[*proxy]mesh.Sighting{}}
}

// moved says that a proxy has come or gone. A nil witness does not care.
func (w *witness) moved(p *proxy) {
	if w == nil {
		return
	}
	w.mu.Lock()
	w.changed[p] = true
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run notes until ctx ends.
func (w *witness) run(ctx context.Context) {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
			wait := time.NewTimer(coalesce)
			select {
			case <-ctx.Done():
				wait.Stop()
				return
			case <-wait.C:
			}
		case <-look.C:
			if w.to.Alive() != nil {
				w.unsure = true
			}
		}
		w.note(ctx)
	}
}

// note writes what has changed.
func (w *witness) note(ctx context.Context) {
	w.mu.Lock()
	changed := w.changed
	w.changed = map[*proxy]bool{}
	w.mu.Unlock()
	awaited := w.to.Awaited()
	if len(changed) == 0 && awaited == 0 && !w.unsure {
		return
	}
	connected := map[*proxy]bool{}
	for _, p := range w.hub.proxies() {
		connected[p] = true
	}
	next := map[*proxy]mesh.Sighting{}
	for p := range connected {
		if known, ok := w.noted[p]; !ok || awaited > 0 || w.unsure {
			if now := w.see(p, known, awaited); !ok || w.unsure || !sameSighting(now, known) {
				next[p] = now
			}
		}
	}
	for p, s := range w.noted {
		if !connected[p] {
			s.Ended = w.now().UTC()
			next[p] = s
		}
	}
	if len(next) == 0 {
		w.unsure = false
		return
	}
	if err := w.to.Note(ctx, slices.Collect(maps.Values(next))); err != nil {
		if !w.unsure && ctx.Err() == nil {
			w.hub.log.Warn("what proxies hold cannot be noted; changes that wait for them wait", "error", err)
		}
		w.unsure = true
		return
	}
	w.unsure = false
	for p, s := range next {
		if s.Ended.IsZero() {
			w.noted[p] = s
		} else {
			delete(w.noted, p)
		}
	}
}

// see is what there is to say of a proxy: as before but for what somebody waits for.
func (w *witness) see(p *proxy, known mesh.Sighting, awaited int64) mesh.Sighting {
	s := known
	if s.Server == "" {
		s = mesh.Sighting{Mesh: p.mesh, Endpoint: p.endpoint, Instance: cmp.Or(p.instance, p.info.Address),
			Server: w.server, Node: p.info.Node, Address: p.info.Address, Since: p.info.Since.UTC()}
	}
	st := p.stream.Status()
	if awaited > s.Revision && st.Settled && st.Held == "" && st.Revision >= awaited && p.stream.AsksForSecrets() {
		s.Revision = st.Revision
	}
	p.mu.Lock()
	s.Held = cmp.Or(p.hold, p.groupHold, st.Held)
	p.mu.Unlock()
	s.Rejected = nil
	for _, r := range st.Rejected {
		s.Rejected = append(s.Rejected, r.Resource.Type.String()+" "+r.Resource.Name)
	}
	slices.Sort(s.Rejected)
	s.Rejected = s.Rejected[:min(len(s.Rejected), maxRejected)]
	return s
}

// sameSighting says whether two sightings of a proxy say the same.
func sameSighting(a, b mesh.Sighting) bool {
	return a.Revision == b.Revision && a.Held == b.Held && slices.Equal(a.Rejected, b.Rejected)
}
