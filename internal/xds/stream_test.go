package xds

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fairlead/fairlead/internal/envoy"
)

// Conformance vectors: what the protocol and Envoy's habits ask of a server,
// one test each, over real gRPC and TLS.

// web is a small configuration: a listener whose route table names a cluster.
func web(version string) []*envoy.Resource {
	return []*envoy.Resource{
		res("cluster a "+version, "endpoint a"), res("endpoint a " + version),
		res("listener l "+version, "route r"), res("route r "+version, "cluster a"),
	}
}

// start brings a delta stream to a configuration.
func (c *client) start(t *testing.T, clusters, endpoints, listeners, routes string) {
	t.Helper()
	c.send(req{kind: "cluster"})
	first := c.expect(clusters)
	c.send(req{kind: "endpoint", names: []string{"a"}})
	c.ack(c.expect(endpoints))
	c.ack(first)
	c.send(req{kind: "listener"})
	c.ack(c.expect(listeners))
	c.send(req{kind: "route", names: []string{"r"}})
	c.ack(c.expect(routes))
}

func (c *client) startWeb(t *testing.T) {
	t.Helper()
	c.start(t, "cluster [a 1]", "endpoint [a 1]", "listener [l 1]", "route [r 1]")
}

func TestDeltaFirstConfigInOrder(t *testing.T) {
	r := newRig(t)
	r.publish(web("1")...)
	c := r.connect(Delta)
	c.send(req{kind: "cluster"})
	clusters := c.expect("cluster [a 1]")
	c.send(req{kind: "endpoint", names: []string{"a"}})
	c.ack(c.expect("endpoint [a 1]"))
	c.send(req{kind: "listener"})
	c.quiet() // the listener's route table names a cluster that is not accepted yet
	c.ack(clusters)
	c.ack(c.expect("listener [l 1]"))
	c.send(req{kind: "route", names: []string{"r"}})
	c.ack(c.expect("route [r 1]"))
	c.quiet()
}

func TestDeltaSendsOnlyWhatChanged(t *testing.T) {
	r := newRig(t)
	base := web("1")
	r.publish(base...)
	c := r.connect(Delta)
	c.startWeb(t)
	r.publish(base[0], base[1], base[2], res("route r 2", "cluster a"))
	c.ack(c.expect("route [r 2]"))
	r.publish(base[0], res("endpoint a 2"), base[2], res("route r 2", "cluster a"))
	c.ack(c.expect("endpoint [a 2]"))
	c.quiet()
}

func TestEmptyWildcardIsAnswered(t *testing.T) {
	r := newRig(t)
	r.publish()
	for _, p := range []Protocol{Delta, StateOfTheWorld} {
		c := r.connect(p)
		c.send(req{kind: "cluster"})
		c.ack(c.expect("cluster []"))
		c.send(req{kind: "listener"})
		c.ack(c.expect("listener []"))
		c.quiet()
	}
}

func TestNothingBeforeTheFirstPublish(t *testing.T) {
	r := newRig(t)
	c := r.connect(Delta)
	c.send(req{kind: "cluster"})
	select {
	case a := <-c.in:
		t.Fatalf("answered from nothing: %s", a)
	case <-time.After(50 * time.Millisecond):
	}
	r.publish(web("1")...)
	c.expect("cluster [a 1]")
}

func TestDeltaStaleAndUnknownNoncesSayNothing(t *testing.T) {
	r := newRig(t)
	base := web("1")
	r.publish(base...)
	c := r.connect(Delta)
	c.send(req{kind: "cluster"})
	first := c.expect("cluster [a 1]")
	c.send(req{kind: "cluster", nonce: "nobody's"})
	c.send(req{kind: "cluster", nonce: "nobody's", nack: "Error adding/updating cluster(s) a: no"})
	c.quiet()
	c.ack(first)
	c.ack(first) // again: says nothing
	c.nack(first, "too late")
	c.quiet()
	// A NACK of what has been acknowledged did not park anything.
	r.publish(append(base[1:], res("cluster a 2", "endpoint a"))...)
	c.ack(c.expect("cluster [a 2]"))
	c.quiet()
}

func TestDeltaResubscribeIsAnsweredThoughUnchanged(t *testing.T) {
	for _, kind := range []string{"endpoint", "secret", "route"} {
		t.Run(kind, func(t *testing.T) {
			r := newRig(t)
			r.publish(res(kind + " x 1"))
			c := r.connect(Delta)
			for range 3 {
				c.send(req{kind: kind, names: []string{"x"}})
				c.ack(c.expect(kind + " [x 1]"))
			}
		})
	}
}

func TestDeltaMissingNameIsAnswered(t *testing.T) {
	r := newRig(t)
	r.publish(res("endpoint a 1"))
	c := r.connect(Delta)
	c.send(req{kind: "endpoint", names: []string{"a", "b"}})
	c.ack(c.expect("endpoint [a 1] -[b]"))
	r.publish(res("endpoint a 1"), res("endpoint b 1"))
	c.ack(c.expect("endpoint [b 1]"))
	c.quiet()
}

func TestDeltaUnsubscribe(t *testing.T) {
	r := newRig(t)
	r.publish(res("endpoint a 1"), res("endpoint b 1"))
	c := r.connect(Delta)
	c.send(req{kind: "endpoint", names: []string{"a", "b"}})
	c.ack(c.expect("endpoint [a 1, b 1]"))
	c.send(req{kind: "endpoint", unsubscribe: []string{"b"}})
	c.quiet()
	r.publish(res("endpoint a 1"), res("endpoint b 2"))
	c.quiet()
	c.send(req{kind: "endpoint", names: []string{"b"}})
	c.ack(c.expect("endpoint [b 2]"))
	c.quiet()
}

func TestDeltaWildcardToExplicitAndBack(t *testing.T) {
	r := newRig(t)
	r.publish(res("cluster a 1"), res("cluster b 1"))
	c := r.connect(Delta)
	c.send(req{kind: "cluster", names: []string{"*"}})
	c.ack(c.expect("cluster [a 1, b 1]"))
	c.send(req{kind: "cluster", names: []string{"a"}, unsubscribe: []string{"*"}})
	c.ack(c.expect("cluster [a 1]"))
	r.publish(res("cluster a 1"), res("cluster b 2"))
	c.quiet()
	c.send(req{kind: "cluster", names: []string{"*"}})
	c.ack(c.expect("cluster [b 2]"))
	// A name that is also covered by the wildcard is told when it is left.
	c.send(req{kind: "cluster", unsubscribe: []string{"a"}})
	c.ack(c.expect("cluster [a 1]"))
	c.quiet()
}

func TestDeltaStarSubscribesAnyType(t *testing.T) {
	r := newRig(t)
	r.publish(res("secret s 1"), res("endpoint a 1"))
	c := r.connect(Delta)
	c.send(req{kind: "endpoint", names: []string{"*"}})
	c.ack(c.expect("endpoint [a 1]"))
	r.publish(res("secret s 1"), res("endpoint b 1"))
	a := c.expect("endpoint [b 1]")
	c.ack(a)
	c.ack(c.expect("endpoint [] -[a]"))
}

func TestUnknownTypesAreIgnored(t *testing.T) {
	r := newRig(t)
	r.publish(web("1")...)
	c := r.connect(Delta)
	c.send(req{kind: "runtime", names: []string{"*"}})
	c.startWeb(t)
}

func TestSotWFirstConfigAndStaleNonces(t *testing.T) {
	r := newRig(t)
	base := web("1")
	r.publish(base...)
	c := r.connect(StateOfTheWorld)
	c.send(req{kind: "cluster"})
	clusters := c.expect("cluster [a 1]")
	c.ack(clusters)
	c.send(req{kind: "endpoint", names: []string{"a"}})
	ends := c.expect("endpoint [a 1]")
	c.ack(ends, "a")
	c.send(req{kind: "listener"})
	c.ack(c.expect("listener [l 1]"))
	c.send(req{kind: "route", names: []string{"r"}})
	c.ack(c.expect("route [r 1]"), "r")
	c.ack(clusters) // repeated: a wildcard has nothing to ask again for
	c.quiet()

	r.publish(base[0], res("endpoint a 2"), base[2], base[3])
	newer := c.expect("endpoint [a 2]")
	// Overtaken by the newer message: its names no longer count.
	c.send(req{kind: "endpoint", nonce: ends.nonce, names: []string{"a", "b"}})
	c.quiet()
	c.ack(newer, "a")
	// The same request once more is Envoy asking again for a warming cluster.
	c.ack(newer, "a")
	c.ack(c.expect("endpoint [a 2]"), "a")
	c.quiet()
}

func TestSotWFullSetsOfClusters(t *testing.T) {
	r := newRig(t)
	r.publish(res("cluster a 1"), res("cluster b 1"))
	c := r.connect(StateOfTheWorld)
	c.send(req{kind: "cluster"})
	c.ack(c.expect("cluster [a 1, b 1]"))
	r.publish(res("cluster a 2"), res("cluster b 1"))
	c.ack(c.expect("cluster [a 2, b 1]"))
	r.publish(res("cluster a 2"))
	c.ack(c.expect("cluster [a 2]"))
	c.quiet()
}

func TestSotWNamesGrowAndShrink(t *testing.T) {
	r := newRig(t)
	r.publish(res("endpoint a 1"), res("endpoint b 1"))
	c := r.connect(StateOfTheWorld)
	c.send(req{kind: "endpoint", names: []string{"a"}})
	first := c.expect("endpoint [a 1]")
	c.ack(first, "a")
	c.ack(first, "a", "b") // with the ACK's nonce: a change of names
	second := c.expect("endpoint [b 1]")
	c.ack(second, "b")
	c.quiet()
	r.publish(res("endpoint a 2"), res("endpoint b 1"))
	c.quiet()
}

func TestSotWWildcardToExplicit(t *testing.T) {
	r := newRig(t)
	r.publish(res("cluster a 1"), res("cluster b 1"))
	c := r.connect(StateOfTheWorld)
	c.send(req{kind: "cluster"})
	a := c.expect("cluster [a 1, b 1]")
	c.ack(a, "b")
	c.ack(c.expect("cluster [b 1]"), "b")
	r.publish(res("cluster a 2"), res("cluster b 1"))
	c.quiet()
}

func TestChangedClusterBringsItsEndpoints(t *testing.T) {
	for _, p := range []Protocol{Delta, StateOfTheWorld} {
		t.Run(string(p), func(t *testing.T) {
			r := newRig(t)
			r.publish(res("cluster a 1", "endpoint a"), res("cluster b 1", "endpoint b"), res("endpoint a 1"), res("endpoint b 1"))
			c := r.connect(p)
			c.send(req{kind: "cluster"})
			c.ack(c.expect("cluster [a 1, b 1]"))
			c.send(req{kind: "endpoint", names: []string{"a", "b"}})
			c.ack(c.expect("endpoint [a 1, b 1]"), "a", "b")
			r.publish(res("cluster a 2", "endpoint a"), res("cluster b 1", "endpoint b"), res("endpoint a 1"), res("endpoint b 1"))
			if p == Delta {
				c.ack(c.expect("cluster [a 2]"))
			} else {
				c.ack(c.expect("cluster [a 2, b 1]"))
			}
			c.ack(c.expect("endpoint [a 1]"), "a", "b")
			c.quiet()
		})
	}
}

func TestMakeBeforeBreak(t *testing.T) {
	r := newRig(t)
	r.publish(web("1")...)
	c := r.connect(Delta)
	c.startWeb(t)
	r.publish(res("cluster b 1", "endpoint b"), res("endpoint b 1"),
		res("listener l 1", "route r"), res("route r 2", "cluster b"))
	added := c.expect("cluster [b 1]")
	c.send(req{kind: "endpoint", names: []string{"b"}})
	c.ack(c.expect("endpoint [b 1]"))
	c.quiet() // the route waits for the cluster's ACK, the old cluster for the route's
	c.ack(added)
	route := c.expect("route [r 2]")
	c.quiet()
	c.ack(route)
	c.ack(c.expect("cluster [] -[a]"))
	c.ack(c.expect("endpoint [] -[a]"))
	c.quiet()
}

func TestNewestWinsOverAStreamThatNeverAcks(t *testing.T) {
	r := newRig(t)
	r.publish(web("1")...)
	c := r.connect(Delta)
	c.startWeb(t)
	base := web("1")
	for _, v := range []string{"2", "3", "4"} {
		r.publish(base[0], base[1], base[2], res("route r "+v, "cluster a"))
		c.expect("route [r " + v + "]")
	}
	// What names something new waits, but not what does not.
	r.publish(res("cluster b 1"), base[0], base[1], base[2], res("route r 5", "cluster b"))
	c.expect("cluster [b 1]")
	r.publish(res("cluster b 1"), base[0], base[1], base[2], res("route r 6", "cluster a"))
	c.expect("route [r 6]")
}

func TestChangedSecretGoesFirst(t *testing.T) {
	r := newRig(t)
	r.publish(res("cluster a 1", "secret s"), res("secret s 1"))
	c := r.connect(Delta)
	c.send(req{kind: "cluster"})
	c.ack(c.expect("cluster [a 1]"))
	c.send(req{kind: "secret", names: []string{"s"}})
	c.ack(c.expect("secret [s 1]"))
	r.publish(res("cluster a 2", "secret s"), res("secret s 2"))
	c.ack(c.expect("secret [s 2]"))
	c.ack(c.expect("cluster [a 2]"))
}

func TestResumedDeltaStreamGetsTheDifference(t *testing.T) {
	r := newRig(t, func(r *rig) { r.handler.VersionPrefix = "01234567" })
	r.publish(res("cluster a 2", "endpoint a"), res("cluster b 1"), res("endpoint a 1"),
		res("listener l 2", "route r"), res("route r 2", "cluster a"))
	c := r.connect(Delta)
	held := func(of ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(of); i += 2 {
			m[of[i]] = "01234567." + of[i+1]
		}
		return m
	}
	c.send(req{kind: "cluster", initial: held("a", "1", "b", "1", "gone", "1")})
	c.ack(c.expect("cluster [a 2]"))
	c.send(req{kind: "endpoint", names: []string{"a"}, initial: held("a", "1")})
	c.ack(c.expect("endpoint [a 1]")) // the cluster may be waiting for it
	c.quiet()                         // the proxy's listeners may name what is gone
	c.send(req{kind: "listener", initial: held("l", "1", "old", "1")})
	c.ack(c.expect("listener [l 2] -[old]"))
	c.quiet()
	c.send(req{kind: "route", names: []string{"r"}, initial: held("r", "1")})
	c.ack(c.expect("route [r 2]"))
	c.ack(c.expect("cluster [] -[gone]"))
	c.quiet()
}

// An agent asks for all of every type, and says what it kept from before.
func TestResumedAgentStream(t *testing.T) {
	r := newRig(t, func(r *rig) { r.handler.VersionPrefix = "01234567" })
	r.publish(res("cluster b 1", "endpoint b"), res("endpoint b 1"), res("listener l 2", "route r"), res("route r 2", "cluster b"))
	c := r.connect(Delta)
	held := func(names ...string) map[string]string {
		m := map[string]string{}
		for _, n := range names {
			m[n] = "01234567.1"
		}
		return m
	}
	all := []string{"*"}
	c.send(req{kind: "cluster", names: all, initial: held("a")})
	clusters := c.expect("cluster [b 1]")
	c.send(req{kind: "endpoint", names: all, initial: held("a")})
	c.ack(c.expect("endpoint [b 1]"))
	c.send(req{kind: "listener", names: all, initial: held("l", "old")})
	c.send(req{kind: "route", names: all, initial: held("r", "old")})
	c.ack(clusters)
	c.ack(c.expect("listener [l 2] -[old]"))
	c.ack(c.expect("route [r 2]"))
	c.ack(c.expect("route [] -[old]"))
	c.ack(c.expect("cluster [] -[a]"))
	c.ack(c.expect("endpoint [] -[a]"))
	c.quiet()
}

func TestForeignVersionsHoldTheStream(t *testing.T) {
	for _, tc := range []struct {
		name     string
		protocol Protocol
		first    req
		held     bool
	}{
		{"fresh delta", Delta, req{kind: "cluster"}, false},
		{"fresh sotw", StateOfTheWorld, req{kind: "cluster"}, false},
		{"delta, own lineage", Delta, req{kind: "cluster", initial: map[string]string{"a": "01234567.1"}}, false},
		{"delta, other lineage", Delta, req{kind: "cluster", initial: map[string]string{"a": "89abcdef.1"}}, true},
		{"delta, other control plane", Delta, req{kind: "cluster", initial: map[string]string{"a": "1"}}, true},
		{"sotw, own lineage", StateOfTheWorld, req{kind: "cluster", version: "01234567.1"}, false},
		{"sotw, other lineage", StateOfTheWorld, req{kind: "cluster", version: "89abcdef.1"}, true},
		{"sotw, later revision", StateOfTheWorld, req{kind: "cluster", version: "01234567.999999999"}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			reasons := make(chan string, 1)
			r := newRig(t, func(r *rig) {
				r.handler.VersionPrefix = "01234567"
				r.acceptor.observer.Held = func(why string) { reasons <- why }
				r.acceptor.streams = make(chan *Stream, 1)
			})
			r.publish(res("cluster b 1"))
			c := r.connect(tc.protocol)
			c.send(tc.first)
			s := <-r.acceptor.streams
			if !tc.held {
				c.next()
				return
			}
			t.Log(<-reasons)
			if s.Status().Held == "" {
				t.Error("the status does not say that the stream is held")
			}
			select {
			case a := <-c.in:
				t.Fatalf("a held stream was sent %s", a)
			case <-time.After(50 * time.Millisecond):
			}
			s.Release()
			c.next()
		})
	}
}

func TestManifestGoesFirst(t *testing.T) {
	r := newRig(t)
	base := web("1")
	first := r.publish(base...)
	c := r.connect(Delta)
	c.send(req{kind: "manifest", names: []string{"manifest"}})
	if got := c.next().manifest(t); got.Revision != first.Revision || got.Lineage != "0123456789abcdef" {
		t.Errorf("got %+v", got)
	}
	c.startWeb(t)
	second := r.publish(base[0], res("endpoint a 2"), base[2], base[3])
	m := c.expect("manifest []")
	if got := m.manifest(t); got.Revision != second.Revision {
		t.Errorf("revision %d, want %d", got.Revision, second.Revision)
	}
	c.ack(m)
	c.ack(c.expect("endpoint [a 2]"))
	// A later view with the same configuration costs nothing.
	r.feed.Publish(Target{Config: second, Manifest: Manifest{Revision: second.Revision + 7}})
	c.quiet()
	// An accepted shrink is said at once.
	r.feed.Publish(Target{Config: second, Manifest: Manifest{Revision: second.Revision + 8, AcceptShrink: true}})
	if got := c.expect("manifest []").manifest(t); !got.AcceptShrink {
		t.Errorf("got %+v", got)
	}
}

func TestSettledAndStatus(t *testing.T) {
	settled := make(chan *envoy.Config, 10)
	r := newRig(t, func(r *rig) {
		r.acceptor.observer.Settled = func(c *envoy.Config) { settled <- c }
		r.acceptor.streams = make(chan *Stream, 1)
	})
	first := r.publish(web("1")...)
	c := r.connect(Delta)
	c.startWeb(t)
	s := <-r.acceptor.streams
	c.quiet()
	if got := <-settled; got != first {
		t.Errorf("settled at revision %d, want %d", got.Revision, first.Revision)
	}
	eventually(t, "settling", func() bool { return s.Status().Settled })
	want := StreamStatus{Protocol: Delta, Settled: true, Revision: first.Revision, Resources: [envoy.NumTypes]int{0, 1, 1, 1, 1}}
	for i := range want.Acked {
		want.Acked[i] = first.Revision
	}
	if diff := cmp.Diff(want, s.Status()); diff != "" {
		t.Error(diff)
	}
	base := web("1")
	second := r.publish(base[0], base[1], base[2], res("route r 2", "cluster a"))
	a := c.expect("route [r 2]")
	st := s.Status()
	if st.Settled || st.Acked[envoy.Route] != first.Revision {
		t.Errorf("before the ACK: %+v", st)
	}
	c.ack(a)
	eventually(t, "settling", func() bool { return s.Status().Settled })
	if st := s.Status(); st.Acked[envoy.Route] != second.Revision {
		t.Errorf("after the ACK: %+v", st)
	}
}

func TestEnd(t *testing.T) {
	for _, p := range []Protocol{Delta, StateOfTheWorld} {
		r := newRig(t, func(r *rig) { r.acceptor.streams = make(chan *Stream, 1) })
		r.publish(web("1")...)
		ended := make(chan error, 1)
		r.acceptor.observer.Ended = func(err error) { ended <- err }
		c := r.connect(p)
		c.send(req{kind: "cluster"})
		c.next()
		(<-r.acceptor.streams).End(status.Error(codes.InvalidArgument, "gone"))
		if err := c.end(); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: got %v", p, err)
		}
		<-ended
		if n := r.feed.Streams(); n != 0 {
			t.Errorf("%s: the feed still has %d streams", p, n)
		}
	}
}

func TestRefusedStreams(t *testing.T) {
	r := newRig(t, func(r *rig) {
		r.acceptor.accept = func(*Stream) error { return status.Error(codes.InvalidArgument, "unknown") }
	})
	c := r.connect(Delta)
	c.send(req{kind: "cluster"})
	if err := c.end(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("got %v", err)
	}
}

func TestAPanicEndsOneStream(t *testing.T) {
	r := newRig(t)
	r.publish(web("1")...)
	other := r.connect(Delta)
	other.startWeb(t)
	r.acceptor.observer.Acked = func(envoy.Type, []*envoy.Resource) { panic("poison") }
	c := r.connect(Delta)
	c.send(req{kind: "cluster"})
	c.ack(c.next())
	if err := c.end(); status.Code(err) != codes.Internal {
		t.Errorf("got %v", err)
	}
	other.quiet()
}

func TestCheck(t *testing.T) {
	for want, c := range map[string]*envoy.Config{
		"": config(web("1")...),
		"route r names the cluster a, which does not exist": {Resources: [envoy.NumTypes][]*envoy.Resource{
			envoy.Route: {res("route r 1", "cluster a")}}},
		"cluster a is there twice or not in order": {Resources: [envoy.NumTypes][]*envoy.Resource{
			envoy.Cluster: {res("cluster b 1"), res("cluster a 1")}}},
		"route r lies among resources of type cluster": {Resources: [envoy.NumTypes][]*envoy.Resource{
			envoy.Cluster: {res("route r 1")}}},
	} {
		err := Check(c)
		got := ""
		if err != nil {
			got = err.Error()
			if broken := new(CheckError); !errors.As(err, &broken) {
				t.Errorf("%T is not a CheckError", err)
			}
		}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
