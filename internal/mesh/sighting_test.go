package mesh_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/internal/mesh"
)

// TestLacking: who is waited for, and why.
func TestLacking(t *testing.T) {
	in := mesh.Name{Owner: "000000000000", Mesh: "m"}
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	at := func(name, instance string, minutes int, change func(*mesh.Sighting)) mesh.Sighting {
		s := mesh.Sighting{Mesh: in, Endpoint: mesh.ID{Kind: mesh.KindVirtualNode, Name: name}, Instance: instance, Since: now.Add(time.Duration(minutes) * time.Minute), Address: instance}
		if change != nil {
			change(&s)
		}
		return s
	}
	holds := func(s *mesh.Sighting) { s.Revision = 7 }
	all := []mesh.Sighting{
		at("a", "behind", 0, func(s *mesh.Sighting) { s.Revision = 6 }),
		at("a", "holds", 0, holds),
		at("a", "returned", 0, func(s *mesh.Sighting) { s.Ended = now.Add(5 * time.Minute) }), at("a", "returned", 3, holds),
		at("a", "moved", 5, holds), at("a", "moved", 1, nil),
		at("a", "moved back", 5, nil), at("a", "moved back", 1, holds),
		at("a", "gone", 0, func(s *mesh.Sighting) { s.Ended = now }),
		at("a", "gone in time", 0, func(s *mesh.Sighting) { s.Ended, s.Revision = now, 8 }),
		at("a", "held", 0, func(s *mesh.Sighting) { s.Held = "the store is older" }),
		at("a", "rejects", 0, func(s *mesh.Sighting) { s.Revision, s.Rejected = 9, []string{"route r", "secret s"} }),
		at("a", "rejects another", 0, func(s *mesh.Sighting) { s.Revision, s.Rejected = 9, []string{"route r"} }),
		at("b", "not concerned", 0, nil),
	}
	got := map[string]string{}
	for _, s := range mesh.Lacking(all, func(_ mesh.Name, id mesh.ID) bool { return id.Name == "a" }, 7, "secret") {
		got[s.From] = s.Why
		if s.Proxy != "mesh/m/virtualNode/a" {
			t.Errorf("a straggler is named %s", s.Proxy)
		}
	}
	want := map[string]string{
		"behind": "it has not acknowledged it", "moved back": "it has not acknowledged it",
		"gone":    "it is gone since 2026-11-25T12:00:00Z, and had not acknowledged it",
		"held":    "it is held: the store is older",
		"rejects": "it has rejected secret s",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestTrustingServing: whose proxies hold a root, and whose present what it has certified.
func TestTrustingServing(t *testing.T) {
	names := func(ids map[mesh.ID]bool) (all []string) {
		for id := range ids {
			all = append(all, id.Name)
		}
		return all
	}
	for what, c := range map[string]struct {
		view              *mesh.View
		root              string
		trusting, serving []string
	}{
		"by policy":                {shop(trusting(nil, rootARN)), rootARN, []string{"client"}, []string{"server"}},
		"by the issuer":            {shop(nil), rootARN, []string{"client"}, []string{"server"}},
		"by policy, another one":   {shop(trusting(nil, otherARN)), rootARN, nil, []string{"server"}},
		"another one is asked for": {shop(trusting(nil, rootARN, otherARN)), otherARN, []string{"client"}, nil},
		"nobody":                   {shop(nil), otherARN, nil, nil},
	} {
		g := mesh.Build(c.view)
		if diff := cmp.Diff(c.trusting, names(g.Trusting(c.root))); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
		if diff := cmp.Diff(c.serving, names(g.Serving(c.root))); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
}
