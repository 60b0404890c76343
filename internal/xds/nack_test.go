package xds

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// NACKs, as far as they need no real Envoy; envoy_nack_test.go has the rest.

func TestRejectedStandsUntilItsContentChanges(t *testing.T) {
	for _, p := range []Protocol{Delta, StateOfTheWorld} {
		t.Run(string(p), func(t *testing.T) {
			rejections := make(chan Rejection, 10)
			r := newRig(t, func(r *rig) { r.acceptor.observer.Rejected = func(x Rejection) { rejections <- x } })
			r.publish(res("cluster a 1"), res("cluster b 1"))
			c := r.connect(p)
			set := func(delta, sotw string) answer {
				t.Helper()
				if p == Delta {
					return c.expect("cluster [" + delta + "]")
				}
				return c.expect("cluster [" + sotw + "]")
			}
			c.send(req{kind: "cluster"})
			c.ack(set("a 1, b 1", "a 1, b 1"))
			bad := r.publish(res("cluster a bad"), res("cluster b 2"))
			c.nack(set("a bad, b 2", "a bad, b 2"), "Error adding/updating cluster(s) a: because")
			c.quiet()
			got := <-rejections
			if got.Resource.Version != "bad" || got.Standing.Version != "1" || got.Revision != bad.Revision || got.Message != "Error adding/updating cluster(s) a: because" {
				t.Errorf("got %+v", got)
			}
			// Another change does not bring it back.
			r.publish(res("cluster a bad"), res("cluster b 3"))
			c.ack(set("b 3", "a 1, b 3"))
			c.quiet()
			// New content does.
			r.publish(res("cluster a 2"), res("cluster b 3"))
			c.ack(set("a 2", "a 2, b 3"))
			c.quiet()
			if len(rejections) != 0 {
				t.Errorf("a further rejection was told: %+v", <-rejections)
			}
		})
	}
}

func TestUnnamedCulpritIsFoundOneByOne(t *testing.T) {
	for _, p := range []Protocol{Delta, StateOfTheWorld} {
		t.Run(string(p), func(t *testing.T) {
			r := newRig(t)
			names := []string{"a", "b", "c"}
			r.publish(res("endpoint a 1"), res("endpoint b 1"), res("endpoint c 1"))
			c := r.connect(p)
			c.send(req{kind: "endpoint", names: names})
			c.ack(c.expect("endpoint [a 1, b 1, c 1]"), names...)
			r.publish(res("endpoint a 2"), res("endpoint b bad"), res("endpoint c 2"))
			c.nack(c.expect("endpoint [a 2, b bad, c 2]"), "malformed IP address", names...)
			c.ack(c.expect("endpoint [a 2]"), names...)
			c.nack(c.expect("endpoint [b bad]"), "malformed IP address", names...)
			c.ack(c.expect("endpoint [c 2]"), names...)
			c.quiet()
			r.publish(res("endpoint a 3"), res("endpoint b bad"), res("endpoint c 2"))
			c.ack(c.expect("endpoint [a 3]"), names...)
			c.quiet()
		})
	}
}

func TestWhatNeedsARejectedResourceIsHeldBack(t *testing.T) {
	r := newRig(t)
	r.publish(web("1")...)
	c := r.connect(Delta)
	c.startWeb(t)
	// The new cluster is rejected: the route table that names it stays as it
	// is, and so does the cluster that it names, though it is to go.
	r.publish(res("cluster b bad"), res("listener l 1", "route r"), res("route r 2", "cluster b"))
	c.nack(c.expect("cluster [b bad]"), "Error adding/updating cluster(s) b: no")
	c.quiet()
	// What does not need it goes on.
	r.publish(res("cluster b bad"), res("cluster d 1"), res("listener l 2", "route r"), res("route r 2", "cluster b"))
	c.ack(c.expect("cluster [d 1]"))
	c.ack(c.expect("listener [l 2]"))
	c.quiet()
	// Repaired: all moves on, the old cluster goes.
	r.publish(res("cluster b 2"), res("cluster d 1"), res("listener l 2", "route r"), res("route r 2", "cluster b"))
	c.ack(c.expect("cluster [b 2]"))
	c.ack(c.expect("route [r 2]"))
	c.ack(c.expect("cluster [] -[a]"))
	c.ack(c.expect("endpoint [] -[a]"))
	c.quiet()
}

func TestRejectedAtFirst(t *testing.T) {
	r := newRig(t, func(r *rig) { r.acceptor.streams = make(chan *Stream, 1) })
	r.publish(res("cluster a bad", "endpoint a"), res("cluster b 1"), res("endpoint a 1"),
		res("listener l 1", "route r"), res("listener m 1", "route s"), res("route r 1", "cluster a"), res("route s 1", "cluster b"))
	c := r.connect(Delta)
	c.send(req{kind: "cluster"})
	c.nack(c.expect("cluster [a bad, b 1]"), "Error adding/updating cluster(s) a: no")
	c.send(req{kind: "listener"})
	c.ack(c.expect("listener [m 1]")) // the other listener has no whole route table
	c.send(req{kind: "route", names: []string{"s"}})
	c.ack(c.expect("route [s 1]"))
	c.quiet()
	st := (<-r.acceptor.streams).Status()
	var got []string
	for _, x := range st.Rejected {
		got = append(got, x.Resource.Name+" "+x.Message)
	}
	if diff := cmp.Diff([]string{"a Error adding/updating cluster(s) a: no"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestNackOfAnOvertakenMessage(t *testing.T) {
	r := newRig(t)
	r.publish(res("cluster a 1"))
	c := r.connect(Delta)
	c.send(req{kind: "cluster"})
	c.ack(c.expect("cluster [a 1]"))
	r.publish(res("cluster a bad"))
	first := c.expect("cluster [a bad]")
	r.publish(res("cluster a 2"))
	second := c.expect("cluster [a 2]")
	c.nack(first, "Error adding/updating cluster(s) a: no")
	c.ack(second)
	c.quiet()
}

// TestRejectedAnswerIsSentAgain has a proxy drop a name and take it up again
// before it answers, so that the server sees no change. What it was sent again
// for that went down with the message that it rejected.
func TestRejectedAnswerIsSentAgain(t *testing.T) {
	r := newRig(t)
	r.publish(res("cluster a 1", "endpoint a"), res("cluster b 1", "endpoint b"), res("endpoint a 1"), res("endpoint b 1"))
	c := r.connect(StateOfTheWorld)
	c.send(req{kind: "cluster"})
	c.ack(c.expect("cluster [a 1, b 1]"))
	c.send(req{kind: "endpoint", names: []string{"a", "b"}})
	c.ack(c.expect("endpoint [a 1, b 1]"), "a", "b")
	r.publish(res("cluster a 1", "endpoint a"), res("cluster b 2", "endpoint b"), res("endpoint a bad"), res("endpoint b 1"))
	c.ack(c.expect("cluster [a 1, b 2]"))
	c.nack(c.expect("endpoint [a bad, b 1]"), "malformed IP address", "a", "b")
	c.ack(c.expect("endpoint [b 1]"), "a", "b")
	c.nack(c.expect("endpoint [a bad]"), "malformed IP address", "a", "b")
	c.quiet()
}

func TestAccused(t *testing.T) {
	items := list{res("cluster a 1"), res("cluster ab 1"), res("cluster b 1")}
	for message, want := range map[string][]string{
		"Error adding/updating cluster(s) a: why":                   {"a"},
		"Error adding/updating cluster(s) ab: why":                  {"ab"},
		"Error adding/updating cluster(s) a: why, b: too":           {"a", "b"},
		"Error adding/updating cluster(s) other: it is not a: that": nil,
		"Error adding/updating listener(s) b: why\n":                {"b"},
		"a: why":         nil,
		"malformed data": nil,
	} {
		var got []string
		for _, r := range accused(items, message) {
			got = append(got, r.Name)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", message, diff)
		}
	}
}

func TestWordsLeaveOutTheResource(t *testing.T) {
	dump := "goo.gle/debugproto  \nname: \"k\"\nprivate_key {\n  inline_bytes: \"SECRET\"\n}\n: Proto constraint validation failed (x)"
	if got := words(dump); got != "Proto constraint validation failed (x)" {
		t.Errorf("got %q", got)
	}
	if got := words("Invalid duration: goo.gle/debugonly  \nseconds: -5\n"); got != "Invalid duration:" {
		t.Errorf("got %q", got)
	}
}
