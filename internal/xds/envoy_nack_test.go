package xds

import (
	"fmt"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/fairlead/fairlead/internal/envoy"
)

var protocols = []Protocol{Delta, StateOfTheWorld}

// site is a configuration of all five types with traffic: a plain listener with
// two backends, and a TLS listener.
type site struct {
	port, tlsPort      uint32
	backendA, backendB uint32
	certificate        *envoy.Resource
}

func newSite(t testing.TB) site {
	return site{freePort(t), freePort(t), backend(t, "a"), backend(t, "b"), secret("cert", "1", false)}
}

func (s site) resources() list {
	return list{
		edsCluster("a", "1"), assignment("a", "1", "127.0.0.1", s.backendA),
		edsCluster("b", "1"), assignment("b", "1", "127.0.0.1", s.backendB),
		listener("l", "1", s.port, "r"), routes("r", "1", "a", "b"),
		tlsListener("s", "1", s.tlsPort, "q", "cert"), routes("q", "1", "b"), s.certificate,
	}
}

// replace is l with resources put in.
func replace(l list, with ...*envoy.Resource) list {
	out := append(list{}, l...)
	for _, r := range with {
		i := 0
		for i < len(out) && out[i].Ref != r.Ref {
			i++
		}
		if i == len(out) {
			out = append(out, r)
		}
		out[i] = r
	}
	return out
}

// TestEnvoyRejectsOneResource sends, for every type, bad resources next to good
// ones. The good ones must be applied, the bad one stands at its last good
// version, traffic goes on, and no rejected version is sent again, however many
// other changes there are.
func TestEnvoyRejectsOneResource(t *testing.T) {
	for _, p := range protocols {
		for _, tc := range []struct {
			name string
			bad  func(site) *envoy.Resource
			good func(site) *envoy.Resource
			says string
		}{
			{"cluster", badCluster, func(site) *envoy.Resource { return edsCluster("b", "2") }, "Error adding/updating cluster(s) a: "},
			{"cluster, fields", invalidCluster, func(site) *envoy.Resource { return edsCluster("b", "2") }, "Invalid duration"},
			{"listener", badListener, func(s site) *envoy.Resource { return tlsListener("s", "2", s.tlsPort, "q", "cert") }, "Error adding/updating listener(s) l: "},
			{"listener, fields", invalidListener, func(s site) *envoy.Resource { return tlsListener("s", "2", s.tlsPort, "q", "cert") }, "Proto constraint validation failed"},
			{"route", badRoutes, func(site) *envoy.Resource { return routes("q", "2", "b") }, "Only unique values for domains are permitted"},
			{"route, fields", invalidRoutes, func(site) *envoy.Resource { return routes("q", "2", "b") }, "Proto constraint validation failed"},
			{"endpoint", badEndpoint, func(s site) *envoy.Resource { return assignment("b", "2", "127.0.0.1", s.backendB) }, "malformed IP address"},
			{"endpoint, fields", invalidEndpoint, func(s site) *envoy.Resource { return assignment("b", "2", "127.0.0.1", s.backendB) }, "Proto constraint validation failed"},
			{"secret", func(site) *envoy.Resource { return secret("cert", "bad", true) }, func(s site) *envoy.Resource { return assignment("b", "2", "127.0.0.1", s.backendB) }, "KEY_VALUES_MISMATCH"},
		} {
			t.Run(string(p)+"/"+tc.name, func(t *testing.T) {
				t.Parallel()
				s := newSite(t)
				e := startEnvoy(t, p)
				e.publishAndSettle(s.resources()...)
				bad, good := tc.bad(s), tc.good(s)
				next := replace(s.resources(), bad, good)
				e.publishAndSettle(next...)
				e.oneRejection(bad, tc.says)
				// Other changes of every type, while the bad one is still there.
				for i := range 30 {
					v := fmt.Sprint(100 + i)
					e.publishAndSettle(replace(next, otherChange(s, good, v))...)
				}
				e.oneRejection(bad, tc.says)
				if n := e.times(bad); n > 2 {
					t.Errorf("%s %s was sent %d times: once with others and once alone is the most", bad.Type, bad.Name, n)
				}
				if e.times(good) == 0 || e.accepted(good) == 0 {
					t.Errorf("the good %s %s was not applied", good.Type, good.Name)
				}
				for _, host := range []string{"a", "b"} {
					if got := get(t, s.port, host); got != "200 1 "+host {
						t.Errorf("%s answered %q", host, got)
					}
				}
				// Repaired content is tried.
				repaired := s.resources()[indexOf(s.resources(), bad)]
				repaired = &envoy.Resource{Ref: repaired.Ref, Version: "repaired", Any: repaired.Any, Refs: repaired.Refs}
				e.publishAndSettle(replace(next, repaired)...)
				if e.accepted(repaired) == 0 {
					t.Error("the repaired resource was not applied")
				}
			})
		}
	}
}

func indexOf(l list, r *envoy.Resource) int {
	for i := range l {
		if l[i].Ref == r.Ref {
			return i
		}
	}
	return -1
}

// otherChange is a change of a resource that is neither bad nor the good one.
func otherChange(s site, good *envoy.Resource, version string) *envoy.Resource {
	if good.Type == envoy.Endpoint {
		return edsCluster("b", version)
	}
	return assignment("b", version, "127.0.0.1", s.backendB)
}

func (e *realEnvoy) times(r *envoy.Resource) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.sent[r.Type.String()+" "+r.Name+" "+r.Version]
}

func (e *realEnvoy) accepted(r *envoy.Resource) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.acked[r.Type.String()+" "+r.Name+" "+r.Version]
}

func (e *realEnvoy) oneRejection(bad *envoy.Resource, says string) {
	e.t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.reject) != 1 || e.reject[0].Resource.Ref != bad.Ref || !strings.Contains(e.reject[0].Message, says) {
		e.t.Fatalf("rejections: %+v; want one of %s %s that says %q", e.reject, bad.Type, bad.Name, says)
	}
	if strings.Contains(e.reject[0].Message, "PRIVATE KEY") {
		e.t.Error("the rejection has a key in it")
	}
}

func badCluster(site) *envoy.Resource {
	c := edsClusterProto("a", "bad")
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST} // needs another lb_policy
	return pack(envoy.Cluster, "a", "bad", c, "endpoint a")
}

func invalidCluster(site) *envoy.Resource {
	c := edsClusterProto("a", "bad")
	c.ConnectTimeout.Seconds = -5
	return pack(envoy.Cluster, "a", "bad", c, "endpoint a")
}

func badListener(s site) *envoy.Resource {
	l := listenerProto("l", "bad", s.port, "r")
	l.FilterChains[0].Filters[0].ConfigType.(*listenerv3.Filter_TypedConfig).TypedConfig.TypeUrl = "type.googleapis.com/no.such.Filter"
	return pack(envoy.Listener, "l", "bad", l, "route r")
}

func invalidListener(s site) *envoy.Resource {
	l := listenerProto("l", "bad", s.port, "r")
	l.Address = &corev3.Address{}
	return pack(envoy.Listener, "l", "bad", l, "route r")
}

func badRoutes(site) *envoy.Resource {
	r := routesProto("r", "bad", "a", "b")
	r.VirtualHosts[1].Domains = r.VirtualHosts[0].Domains
	return pack(envoy.Route, "r", "bad", r, "cluster a", "cluster b")
}

func invalidRoutes(site) *envoy.Resource {
	r := routesProto("r", "bad", "a", "b")
	r.VirtualHosts[1].Domains = nil
	return pack(envoy.Route, "r", "bad", r, "cluster a", "cluster b")
}

func badEndpoint(site) *envoy.Resource {
	return pack(envoy.Endpoint, "a", "bad", assignmentProto("a", "not-an-address", 80))
}

func invalidEndpoint(site) *envoy.Resource {
	e := assignmentProto("a", "127.0.0.1", 80)
	e.Endpoints[0].Priority = 1000
	return pack(envoy.Endpoint, "a", "bad", e)
}

// TestEnvoyAcksAChangedClusterAtOnce: without its endpoints sent again, Envoy
// takes 15 s.
func TestEnvoyAcksAChangedClusterAtOnce(t *testing.T) {
	for _, p := range protocols {
		t.Run(string(p), func(t *testing.T) {
			s := newSite(t)
			e := startEnvoy(t, p)
			e.publishAndSettle(s.resources()...)
			var slowest time.Duration
			for i := range 20 {
				c := edsCluster("a", fmt.Sprint(10+i))
				began := time.Now()
				e.publish(replace(s.resources(), c)...)
				e.wait("the ACK", func() bool { return e.acked["cluster a "+c.Version] > 0 })
				slowest = max(slowest, time.Since(began))
			}
			if slowest > time.Second {
				t.Errorf("Envoy acknowledged a cluster after %s", slowest)
			}
			t.Logf("slowest of 20: %s", slowest)
		})
	}
}

// TestEnvoyLosesNoRequest moves a route from cluster to cluster, each new and
// the old one removed, under load.
func TestEnvoyLosesNoRequest(t *testing.T) {
	for _, p := range protocols {
		t.Run(string(p), func(t *testing.T) {
			s := newSite(t)
			e := startEnvoy(t, p)
			step := func(i int) list {
				name := fmt.Sprintf("c%d", i)
				rc := routesProto("r", fmt.Sprint(i), name)
				rc.VirtualHosts[0].Domains = []string{"*"}
				return list{edsCluster(name, "1"), assignment(name, "1", "127.0.0.1", s.backendA),
					listener("l", fmt.Sprint(i%3), s.port, "r"), pack(envoy.Route, "r", fmt.Sprint(i), rc, "cluster "+name)}
			}
			e.publishAndSettle(step(0)...)
			noFailures := underLoad(t, s.port)
			for i := 1; i <= 60; i++ {
				e.publishAndSettle(step(i)...)
			}
			noFailures()
		})
	}
}

// underLoad sends requests one after the other until the returned function is
// called, which fails the test if one failed.
func underLoad(t *testing.T, port uint32) (noFailures func()) {
	t.Helper()
	eventually(t, "listening", func() bool { return strings.HasPrefix(get(t, port, "x"), "200") })
	requests, failed := 0, map[string]int{}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			requests++
			if got := get(t, port, "x"); !strings.HasPrefix(got, "200") {
				failed[got]++
			}
		}
	}()
	return func() {
		t.Helper()
		close(stop)
		<-done
		if len(failed) > 0 {
			t.Errorf("of %d requests failed: %v", requests, failed)
		}
		t.Logf("%d requests", requests)
	}
}

// TestEnvoyResumes restarts the server while Envoy runs. The new one knows of
// the old stream only what Envoy says. What has not changed is not sent again
// (delta), what has changed meanwhile arrives, and no request fails.
func TestEnvoyResumes(t *testing.T) {
	for _, p := range protocols {
		t.Run(string(p), func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			e := startEnvoy(t, p)
			with := func(cluster string, v string) list {
				rc := routesProto("r", v, cluster)
				rc.VirtualHosts[0].Domains = []string{"*"}
				return list{edsCluster(cluster, "1"), assignment(cluster, "1", "127.0.0.1", s.backendA),
					edsCluster("same", "1"), assignment("same", "1", "127.0.0.1", s.backendB),
					listener("l", "1", s.port, "r"), pack(envoy.Route, "r", v, rc, "cluster "+cluster)}
			}
			e.publishAndSettle(with("a", "1")...)
			noFailures := underLoad(t, s.port)
			restart := func(next list) {
				e.server.Stop()
				e.mu.Lock()
				clear(e.sent)
				e.settle = nil
				e.mu.Unlock()
				c := config(next...)
				e.feed.Publish(Target{Config: c, Manifest: Manifest{Revision: c.Revision}})
				e.serve()
				e.wait("Envoy to come back", func() bool { return e.settle == c })
			}
			// Nothing has changed.
			restart(with("a", "1"))
			if p == Delta {
				for _, r := range with("a", "1") {
					if n := e.times(r); (r.Type == envoy.Cluster || r.Type == envoy.Listener) && n > 0 {
						t.Errorf("%s %s was sent again though Envoy has it", r.Type, r.Name)
					}
				}
				// The route table moves to a new cluster, and the old one goes.
				restart(with("b", "2"))
				e.wait("the removal", func() bool { return e.sent["cluster a removed"] > 0 })
			}
			noFailures()
		})
	}
}
