package xds

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fairlead/fairlead/internal/envoy"
)

// world makes random configurations, always whole, and knows every resource
// that it has made, so that a simulated proxy can tell what content refers to.
type world struct {
	rand *rand.Rand
	bad  float64 // share of new versions that proxies will reject

	mu       sync.Mutex
	made     map[string]*envoy.Resource // by content
	versions int
	current  map[envoy.Ref]*envoy.Resource
	present  map[envoy.Ref]bool // in the configuration before
}

func newWorld(seed uint64, bad float64) *world {
	return &world{rand: rand.New(rand.NewPCG(seed, seed)), bad: bad, made: map[string]*envoy.Resource{}, current: map[envoy.Ref]*envoy.Resource{}}
}

func (w *world) lookup(content string) *envoy.Resource {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.made[content]
}

// resource is name as it is now, or a new version of it if what it names has
// changed or chance wants it.
func (w *world) resource(name string, names ...string) *envoy.Resource {
	old := w.current[ref(name)]
	slices.Sort(names)
	again := old != nil && (w.present[old.Ref] || !strings.HasSuffix(old.Version, "bad"))
	if again && slices.EqualFunc(old.Refs, names, func(a envoy.Ref, b string) bool { return a == ref(b) }) && w.rand.IntN(4) > 0 {
		return old
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.versions++
	version := fmt.Sprint(w.versions)
	if w.rand.Float64() < w.bad {
		version += "bad"
	}
	r := res(name+" "+version, names...)
	w.made[name+" "+version] = r
	w.current[r.Ref] = r
	return r
}

func (w *world) some(kind string, of int) []string {
	var out []string
	for i := range of {
		if w.rand.IntN(3) > 0 {
			out = append(out, fmt.Sprintf("%s %d", kind, i))
		}
	}
	return out
}

// step is the next configuration.
func (w *world) step() *envoy.Config {
	var all list
	secrets := w.some("secret", 3)
	clusters := w.some("cluster", 6)
	if len(clusters) == 0 {
		clusters = []string{"cluster 0"}
	}
	for _, s := range secrets {
		all = append(all, w.resource(s))
	}
	for _, c := range clusters {
		endpoint := strings.Replace(c, "cluster", "endpoint", 1)
		names := []string{endpoint}
		if len(secrets) > 0 && w.rand.IntN(2) == 0 {
			names = append(names, secrets[w.rand.IntN(len(secrets))])
		}
		all = append(all, w.resource(c, names...), w.resource(endpoint))
	}
	for _, l := range w.some("listener", 3) {
		route := fmt.Sprintf("route %d", w.rand.IntN(4))
		names := []string{route}
		if w.rand.IntN(3) == 0 {
			names = append(names, clusters[w.rand.IntN(len(clusters))])
		}
		if len(secrets) > 0 && w.rand.IntN(3) == 0 {
			names = append(names, secrets[w.rand.IntN(len(secrets))])
		}
		all = append(all, w.resource(l, names...))
		if !slices.ContainsFunc(all, func(r *envoy.Resource) bool { return r.Ref == ref(route) }) {
			var to []string
			for _, c := range clusters {
				if w.rand.IntN(2) == 0 {
					to = append(to, c)
				}
			}
			all = append(all, w.resource(route, to...))
		}
	}
	w.present = map[envoy.Ref]bool{}
	for _, r := range all {
		w.present[r.Ref] = true
	}
	return config(all...)
}

// simulated is a proxy that behaves as Envoy does on the wire and checks every
// message against what it holds.
type simulated struct {
	*client
	world   *world
	rand    *rand.Rand
	held    [envoy.NumTypes]map[string]*envoy.Resource
	wanted  [envoy.NumTypes]map[string]bool
	nonce   [envoy.NumTypes]string
	times   map[string]int
	late    []func() // ACKs that are held back
	owed    [envoy.NumTypes]int
	begun   [envoy.NumTypes]bool
	trace   []string
	hurry   atomic.Bool // stop at once
	complex bool        // NACKs sometimes name no culprit
}

func simulate(c *client, w *world, seed uint64) *simulated {
	s := &simulated{client: c, world: w, rand: rand.New(rand.NewPCG(seed, 1)), times: map[string]int{}}
	for t := range s.held {
		s.held[t], s.wanted[t] = map[string]*envoy.Resource{}, map[string]bool{}
	}
	s.begun[envoy.Cluster] = true
	s.send(req{kind: "cluster"})
	return s
}

// resume goes on with a new stream as Envoy does: it says what it holds.
func (s *simulated) resume(c *client) {
	s.client, s.late = c, nil
	s.hurry.Store(false)
	s.owed = [envoy.NumTypes]int{}
	s.trace = append(s.trace, "--- a new stream")
	for _, t := range []envoy.Type{envoy.Cluster, envoy.Endpoint, envoy.Secret, envoy.Listener, envoy.Route} {
		if !s.begun[t] && hasWildcard(t) || !hasWildcard(t) && len(s.wanted[t]) == 0 {
			continue
		}
		held := map[string]string{}
		for name, r := range s.held[t] {
			held[name] = r.Version
		}
		s.trace = append(s.trace, fmt.Sprint("-> ", t, " + ", s.names(t), " holds ", held))
		s.send(req{kind: t.String(), names: s.names(t), initial: held})
	}
}

// run handles messages until stop is closed and nothing more comes.
func (s *simulated) run(stop <-chan struct{}) {
	idle := 0
	for {
		if s.hurry.Load() {
			select {
			case <-stop:
				return
			default:
			}
		}
		select {
		case a := <-s.in:
			s.receive(a)
			idle = 0
			continue
		case err := <-s.ended:
			if status.Code(err) != codes.Canceled { // as at the end of a failed test
				s.t.Errorf("the stream ended: %v", err)
			}
			return
		case <-time.After(time.Duration(s.rand.IntN(300)) * time.Microsecond):
		}
		if len(s.late) > 0 {
			s.late[0]()
			s.late = s.late[1:]
			continue
		}
		select {
		case <-stop:
			// The stream had settled; an ACK may have been ahead of a new name.
			if idle++; idle > 100 || s.hurry.Load() {
				return
			}
		default:
		}
	}
}

func (s *simulated) receive(a answer) {
	line := "<- " + a.String()
	for _, x := range a.specs {
		line += fmt.Sprint("\n      ", x, " ", s.world.lookup(x).Refs)
	}
	s.trace = append(s.trace, line)
	t := ref(a.kind + " x").Type
	s.nonce[t] = a.nonce
	if !s.begun[envoy.Listener] {
		s.begun[envoy.Listener] = true
		defer s.send(req{kind: "listener"})
	}
	var rejected []string
	named := s.sotw == nil || t == envoy.Cluster || t == envoy.Listener
	apply := func(r *envoy.Resource) {
		if hasWildcard(t) || s.wanted[t][r.Name] { // Envoy ignores what it does not ask for
			s.held[t][r.Name] = r
		}
	}
	fail := s.complex && s.rand.IntN(2) == 0 // all or nothing, nobody named
	var items list
	for _, content := range a.specs {
		r := s.world.lookup(content)
		s.times[content]++
		if strings.HasSuffix(r.Version, "bad") {
			rejected = append(rejected, r.Name)
		}
		items = append(items, r)
	}
	unnamed := len(rejected) > 0 && (fail || t != envoy.Cluster && t != envoy.Listener)
	if !unnamed {
		for _, r := range items {
			if !slices.Contains(rejected, r.Name) {
				apply(r)
			}
		}
	}
	s.drop(t, a, items, named)
	s.check(a)
	s.answer(t, a, rejected, unnamed)
	s.subscribe()
}

// drop takes away what the message removes.
func (s *simulated) drop(t envoy.Type, a answer, items list, _ bool) {
	for _, name := range a.removed {
		delete(s.held[t], name)
	}
	if s.sotw == nil || t != envoy.Cluster && t != envoy.Listener {
		return
	}
	for name := range s.held[t] {
		if !slices.ContainsFunc(items, func(r *envoy.Resource) bool { return r.Name == name }) {
			delete(s.held[t], name)
		}
	}
}

// check is the property: nothing that the proxy holds, nor anything that it was
// just sent, names a cluster that it does not hold.
func (s *simulated) check(a answer) {
	of := func(r *envoy.Resource, why string) {
		for _, n := range r.Refs {
			if n.Type == envoy.Cluster && s.held[envoy.Cluster][n.Name] == nil {
				s.t.Errorf("%s %s %s (%s) names cluster %s, which the proxy does not have, after %s; before that:\n%s",
					r.Type, r.Name, r.Version, why, n.Name, a, strings.Join(s.trace[max(0, len(s.trace)-60):], "\n"))
				runtime.Goexit()
			}
		}
	}
	for _, t := range []envoy.Type{envoy.Listener, envoy.Route} {
		for _, r := range s.held[t] {
			of(r, "held")
		}
	}
	for _, content := range a.specs {
		of(s.world.lookup(content), "sent")
	}
}

// answer accepts or rejects, at once or late.
func (s *simulated) answer(t envoy.Type, a answer, rejected []string, unnamed bool) {
	r := req{kind: a.kind, nonce: a.nonce, version: a.version}
	if len(rejected) > 0 {
		r.nack = "it is no good"
		if !unnamed {
			r.nack = "Error adding/updating " + a.kind + "(s) " + strings.Join(rejected, ": no, ") + ": no"
		}
	}
	s.owed[t]++
	send := func() {
		s.owed[t]--
		if s.sotw != nil {
			r.names = s.names(t)
		}
		s.trace = append(s.trace, fmt.Sprintf("-> %+v", r))
		s.send(r)
	}
	if s.rand.IntN(3) == 0 || len(s.late) > 0 {
		s.late = append(s.late, send)
		return
	}
	send()
}

func (s *simulated) names(t envoy.Type) []string {
	var out []string
	for n := range s.wanted[t] {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// subscribe asks for what the clusters and listeners name, and drops the rest.
func (s *simulated) subscribe() {
	for _, t := range []envoy.Type{envoy.Endpoint, envoy.Route, envoy.Secret} {
		want := map[string]bool{}
		for _, u := range []envoy.Type{envoy.Cluster, envoy.Listener} {
			for _, r := range s.held[u] {
				for _, n := range r.Refs {
					if n.Type == t {
						want[n.Name] = true
					}
				}
			}
		}
		var added, gone []string
		for n := range want {
			if !s.wanted[t][n] {
				added = append(added, n)
			}
		}
		for n := range s.wanted[t] {
			if !want[n] {
				gone = append(gone, n)
				delete(s.held[t], n)
			}
		}
		s.wanted[t] = want
		switch {
		case len(added)+len(gone) == 0:
		case s.sotw != nil && s.owed[t] > 0: // the ACK will say it
		case s.sotw != nil:
			s.trace = append(s.trace, fmt.Sprint("-> ", t, " now ", s.names(t)))
			s.send(req{kind: t.String(), names: s.names(t), nonce: s.nonce[t]})
		default:
			s.trace = append(s.trace, fmt.Sprint("-> ", t, " + ", added, " - ", gone))
			s.send(req{kind: t.String(), names: added, unsubscribe: gone})
		}
	}
}

// TestRandomMeshes drives random configurations through simulated proxies that
// acknowledge late, reject, and check that nothing on the wire dangles. At the
// end each must hold the last configuration, rejected resources and what needs
// them aside, and no rejected version may have been sent over and over.
func TestRandomMeshes(t *testing.T) {
	for _, p := range protocols {
		for _, bad := range []float64{0, 0.1} {
			for seed := range uint64(8) {
				t.Run(fmt.Sprintf("%s/bad=%v/seed=%d", p, bad, seed), func(t *testing.T) {
					t.Parallel()
					runRandom(t, p, bad, seed)
				})
			}
		}
	}
}

func runRandom(t *testing.T, p Protocol, bad float64, seed uint64) {
	w := newWorld(seed, bad)
	r := newRig(t, func(r *rig) { r.acceptor.streams = make(chan *Stream, 1) })
	first := w.step()
	r.feed.Publish(Target{Config: first})
	s := simulate(r.connect(p), w, seed)
	s.complex = seed%2 == 1
	var stop, done chan struct{}
	start := func() {
		stop, done = make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			s.run(stop)
		}()
	}
	start()
	stream := <-r.acceptor.streams
	var last *envoy.Config
	for i := range 150 {
		last = w.step()
		r.feed.Publish(Target{Config: last})
		if p == Delta && i%50 == 49 {
			// The stream breaks; the proxy comes back with what it holds.
			s.hurry.Store(true)
			close(stop)
			<-done
			s.cancel()
			s.checkTimes(t, w)
			s.resume(r.connect(p))
			start()
			stream = <-r.acceptor.streams
		}
		if i%5 == 0 {
			settle(t, stream, s)
		} else {
			<-time.After(time.Duration(w.rand.IntN(500)) * time.Microsecond) // the next change meets whatever is under way
		}
	}
	settle(t, stream, s)
	close(stop)
	<-done
	s.compare(t, last)
	if t.Failed() {
		t.Logf("%s\nits end:\n%s", stream.describe(), strings.Join(s.trace[max(0, len(s.trace)-50):], "\n"))
	}
	s.checkTimes(t, w)
}

// checkTimes ends a stream's account of what it was sent. A new stream knows
// nothing of what the one before rejected.
func (s *simulated) checkTimes(t *testing.T, w *world) {
	t.Helper()
	for content, n := range s.times {
		// Once in a batch and once alone, and again only when asked again.
		if r := w.lookup(content); strings.HasSuffix(content, "bad") && (r.Type == envoy.Cluster || r.Type == envoy.Listener) && n > 3 {
			t.Errorf("%s was sent %d times on one stream", content, n)
		}
	}
	clear(s.times)
}

func settle(t *testing.T, stream *Stream, s *simulated) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(5 * time.Second); !stream.Status().Settled; <-tick.C {
		if t.Failed() {
			t.FailNow()
		}
		if time.Now().After(deadline) {
			t.Fatalf("the stream does not settle: %s\nits end:\n%s", stream.describe(), strings.Join(s.trace[max(0, len(s.trace)-30):], "\n"))
		}
	}
}

// compare checks what the proxy holds in the end.
func (s *simulated) compare(t *testing.T, c *envoy.Config) {
	t.Helper()
	for kind := range c.Resources {
		for _, r := range c.Resources[kind] {
			if !good(c, r) {
				continue
			}
			if s.wanted[kind][r.Name] || kind == int(envoy.Cluster) || kind == int(envoy.Listener) {
				if got := s.held[kind][r.Name]; got != r {
					t.Errorf("%s %s: holds %v, want %s", r.Type, r.Name, got, r.Version)
				}
			}
		}
	}
	if strings.Contains(t.Name(), "bad=0/") {
		for kind := range s.held {
			for name := range s.held[kind] {
				if find(c.Resources[kind], name) == nil {
					t.Errorf("still holds %s %s", envoy.Type(kind), name)
				}
			}
		}
	}
}

// good says whether neither r nor anything that it needs is bad.
func good(c *envoy.Config, r *envoy.Resource) bool {
	if strings.HasSuffix(r.Version, "bad") {
		return false
	}
	for _, n := range r.Refs {
		if x := find(c.Resources[n.Type], n.Name); x == nil || !good(c, x) {
			return false
		}
	}
	return true
}

// describe is what a stream waits for, for the log of a failed test.
func (s *Stream) describe() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	w, waiting := s.plan()
	fmt.Fprintf(&b, "sending %v, plan %+v, waiting %v\n", s.sending, w, waiting)
	short := func(l list) (out []string) {
		for _, r := range l {
			out = append(out, fmt.Sprint(r.Name, " ", r.Version, r.Refs))
		}
		return out
	}
	for _, f := range s.flights {
		fmt.Fprintf(&b, "flight %s %s %v -%v\n", f.nonce, f.kind, short(f.items), f.removed)
	}
	for t := range s.subs {
		fmt.Fprintf(&b, "%s: %+v\n  goal  %v\n  sent  %v\n  acked %v\n", envoy.Type(t), s.subs[t],
			short(s.goal.Resources[t]), short(s.sent[t]), short(s.acked[t]))
	}
	for _, r := range s.rejected {
		fmt.Fprintf(&b, "rejected %v\n", r.Resource.Ref)
	}
	return b.String()
}
