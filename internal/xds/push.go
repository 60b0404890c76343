package xds

import (
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fairlead/fairlead/internal/envoy"
)

// Resources are made before what names them and removed after it. makeOrder and
// removeOrder are the orders in which a push looks for something to send.
var (
	makeOrder   = [...]envoy.Type{envoy.Secret, envoy.Cluster, envoy.Endpoint, envoy.Listener, envoy.Route}
	removeOrder = [...]envoy.Type{envoy.Route, envoy.Cluster, envoy.Endpoint, envoy.Secret}
)

// work is what the next message says.
type work struct {
	kind    envoy.Type
	items   list
	missing []string // asked for and not there (delta)
	removed []string
	// complete: with this message, sent is goal.
	complete bool
}

// next is the next message, or nil if nothing can be sent now. It is called
// with the lock held; what it returns must be sent.
func (s *Stream) next() *response {
	if s.ended || s.held != "" || s.target == nil || s.target.Config == nil {
		return nil
	}
	if s.goal == nil {
		s.goal = s.effective()
	}
	if s.resuming {
		s.adopt()
	}
	w, waiting := s.plan()
	if m := s.manifestDue(w != nil); m != nil {
		return m
	}
	if w == nil {
		if !waiting && len(s.flights) == 0 {
			s.settle()
		}
		return nil
	}
	return s.commit(w)
}

// plan finds what can be sent now, without noting anything. waiting is true if
// there is more, which something must come before.
func (s *Stream) plan() (w *work, waiting bool) {
	for _, t := range makeOrder {
		w, blocked := s.make(t)
		if w != nil {
			return w, false
		}
		waiting = waiting || blocked
	}
	for _, t := range removeOrder {
		w, blocked := s.remove(t)
		if w != nil {
			return w, false
		}
		waiting = waiting || blocked
	}
	return nil, waiting
}

// make finds resources of a type that the proxy is to get or that it asks for.
// Listeners that are gone go in the same message, so that one which takes the
// address of another is not refused.
func (s *Stream) make(t envoy.Type) (w *work, blocked bool) {
	sub := &s.subs[t]
	goal, sent := s.goal.Resources[t], s.sent[t]
	if !sub.active || alias(goal, sent) && len(sub.ask) == 0 && !sub.greet {
		return nil, false
	}
	w = &work{kind: t, complete: true}
	var solo list
	var gone []string
	compare(sent, goal, func(r *envoy.Resource) {
		switch {
		case !sub.wants(r.Name):
			w.complete = false
		case !s.ready(r):
			w.complete, blocked = false, true
		case contains(sub.solo, r.Name):
			solo = append(solo, r)
		default:
			w.items = append(w.items, r)
		}
	}, func(r *envoy.Resource) { gone = append(gone, r.Name) })
	blocked = s.answer(w, solo) || blocked
	if sub.greet && blocked {
		// The first answer is whole: a proxy counts as ready when it has all that
		// it was told of first.
		return nil, true
	}
	if len(solo) > 0 && len(w.items) == 0 {
		if !s.delta && s.flying(t) {
			return nil, true // its message would say again what is under way
		}
		w.items, solo = solo[:1:1], solo[1:]
	}
	if t == envoy.Listener && !blocked && len(solo) == 0 {
		w.removed, gone = gone, nil
	}
	w.complete = w.complete && len(solo) == 0 && len(gone) == 0
	nothing := len(w.items) == 0 && len(w.missing) == 0 && len(w.removed) == 0
	if nothing && (!sub.greet || blocked) {
		return nil, blocked
	}
	if s.full(t) {
		return nil, true
	}
	return w, blocked
}

// answer puts what the proxy asks for into w, changed or not, unless it is among
// what will be sent alone.
func (s *Stream) answer(w *work, solo list) (blocked bool) {
	sub := &s.subs[w.kind]
	for _, name := range sub.ask {
		r := find(s.goal.Resources[w.kind], name)
		if r == nil {
			// Gone, but it may have to stand a while: then that is the answer.
			r = find(s.sent[w.kind], name)
		}
		switch {
		case r == nil:
			w.missing = append(w.missing, name)
		case r.Any == nil:
			// From an earlier stream, and it stands: we have nothing else to say.
		case slices.Contains(w.items, r) || slices.Contains(solo, r):
		case s.ready(r):
			w.items = append(w.items, r)
		default:
			blocked = true
		}
	}
	return blocked
}

// ready says whether all stands that r names and that the proxy does not ask
// for by itself: the clusters of a route table or a listener, and those of the
// route tables that the listener will ask for.
func (s *Stream) ready(r *envoy.Resource) bool {
	if !guardOrder || r.Type < envoy.Listener {
		return true
	}
	for _, ref := range r.Refs {
		switch ref.Type {
		case envoy.Cluster:
			if !s.stands(ref) {
				return false
			}
		case envoy.Route:
			route := find(s.goal.Resources[envoy.Route], ref.Name)
			if r.Type == envoy.Listener && route != nil && !same(route, find(s.acked[envoy.Route], ref.Name)) && !s.ready(route) {
				return false
			}
		}
	}
	return true
}

// stands says whether the proxy has accepted a resource and will keep it. Of
// what the proxy does not ask for we know nothing, and hold nothing back.
func (s *Stream) stands(ref envoy.Ref) bool {
	if !s.subs[ref.Type].wants(ref.Name) {
		return true
	}
	if find(s.acked[ref.Type], ref.Name) == nil {
		return false
	}
	return !slices.ContainsFunc(s.flights, func(f flight) bool {
		return f.kind == ref.Type && slices.Contains(f.removed, ref.Name)
	})
}

// remove finds resources of a type that the proxy is to lose: those that
// nothing names which the proxy has, may have, or is about to get.
func (s *Stream) remove(t envoy.Type) (w *work, blocked bool) {
	goal, sent := s.goal.Resources[t], s.sent[t]
	if !s.subs[t].active || alias(goal, sent) {
		return nil, false
	}
	w = &work{kind: t, complete: true}
	incomplete := func(*envoy.Resource) { w.complete = false }
	compare(sent, goal, incomplete, func(r *envoy.Resource) { w.removed = append(w.removed, r.Name) })
	if len(w.removed) == 0 {
		return nil, false
	}
	if s.resuming && !s.resumed(t) {
		return nil, false
	}
	if guardOrder {
		named := s.named(t)
		all := len(w.removed)
		w.removed = slices.DeleteFunc(w.removed, func(n string) bool { return named[n] })
		blocked = len(w.removed) < all
		w.complete = w.complete && !blocked
	}
	switch {
	case len(w.removed) == 0:
		return nil, blocked
	case !s.delta && !hasWildcard(t):
		// There is no message for it: the proxy drops what it does not ask for.
		s.sent[t] = with(s.sent[t], nil, w.removed)
		s.acked[t] = with(s.acked[t], nil, w.removed)
		return nil, blocked
	case s.full(t):
		return nil, true
	}
	return w, blocked
}

// named are the names of a type that anything on the stream refers to.
func (s *Stream) named(t envoy.Type) map[string]bool {
	names := map[string]bool{}
	note := func(l list) {
		for _, r := range l {
			for _, ref := range r.Refs {
				if ref.Type == t {
					names[ref.Name] = true
				}
			}
		}
	}
	for u := range s.acked {
		note(s.acked[u])
		if !alias(s.acked[u], s.sent[u]) {
			note(s.sent[u])
		}
	}
	for _, f := range s.flights {
		note(f.items)
	}
	return names
}

// full says whether too many messages of a type await their ACK. Of full sets
// there is one at a time: the next would say again what may be rejected.
func (s *Stream) full(t envoy.Type) bool {
	n, most := 0, maxFlights
	if !s.delta && hasWildcard(t) {
		most = 1
	}
	for _, f := range s.flights {
		if f.kind == t {
			n++
		}
	}
	if n < most {
		return false
	}
	if s.stalled == nil {
		s.stalledBy = t
		s.stalled = time.AfterFunc(ackTimeout, func() {
			s.End(status.Errorf(codes.DeadlineExceeded, "the proxy acknowledged nothing for %s", ackTimeout))
		})
	}
	return true
}

// commit notes a message as sent and makes it.
func (s *Stream) commit(w *work) *response {
	t, sub := w.kind, &s.subs[w.kind]
	goal := s.goal.Resources[t]
	if w.complete {
		s.sent[t] = goal
	} else if s.sent[t] = with(s.sent[t], w.items, w.removed); equal(s.sent[t], goal) {
		s.sent[t] = goal
	}
	sub.answered(w)
	if guardEndpoints && (t == envoy.Cluster || t == envoy.Listener) {
		s.again(w.items)
	}
	msg := &response{delta: s.delta, kind: kind(t), nonce: s.nonce(), prefix: s.prefix(),
		version: s.prefix() + strconv.FormatInt(s.target.Config.Revision, 10)}
	f := flight{nonce: msg.nonce, kind: t, revision: s.target.Config.Revision}
	// The newest message of a state-of-the-world stream says all that is open,
	// since a proxy may answer that one only.
	switch {
	case s.delta:
		msg.resources, msg.removed = w.items, slices.Concat(w.removed, w.missing)
	case hasWildcard(t):
		msg.resources, f.all = s.sent[t], s.sent[t]
		w.items, w.removed = nil, nil
		compare(s.acked[t], s.sent[t], func(r *envoy.Resource) { w.items = append(w.items, r) },
			func(r *envoy.Resource) { w.removed = append(w.removed, r.Name) })
	default:
		for _, f := range s.flights {
			if f.kind == t {
				w.items = with(s.current(t, f.items), w.items, nil)
			}
		}
		msg.resources = w.items
	}
	sub.last = msg.nonce
	sub.greet = false
	f.items, f.removed = w.items, slices.Concat(w.removed, w.missing)
	s.flights = append(s.flights, f)
	s.settled = nil
	return msg
}

// current is items as far as they have not been overtaken.
func (s *Stream) current(t envoy.Type, items list) list {
	return keep(items, func(r *envoy.Resource) bool { return find(s.sent[t], r.Name) == r })
}

// answered takes what a message says off the lists of what is to be said.
func (sub *subscription) answered(w *work) {
	said := func(name string) bool {
		return slices.Contains(w.missing, name) ||
			slices.ContainsFunc(w.items, func(r *envoy.Resource) bool { return r.Name == name })
	}
	if sub.ask = slices.DeleteFunc(sub.ask, said); len(sub.ask) == 0 {
		sub.ask = nil
	}
	if sub.solo = slices.DeleteFunc(sub.solo, said); len(sub.solo) == 0 {
		sub.solo = nil
	}
}

// again has what changed clusters and listeners name sent right after them, even
// if it is unchanged. Envoy warms a changed cluster and would wait for its
// endpoints until a timeout of 15 s. On a state-of-the-world stream it cannot
// even ask: a name that it dropped and takes up again looks like no change.
func (s *Stream) again(items list) {
	for _, r := range items {
		for _, ref := range r.Refs {
			if ref.Type == envoy.Cluster || s.delta && ref.Type != envoy.Endpoint {
				continue
			}
			if sub := &s.subs[ref.Type]; sub.wants(ref.Name) && find(s.sent[ref.Type], ref.Name) != nil {
				sub.ask = sortedNames(append(sub.ask, ref.Name))
			}
		}
	}
}

// manifestDue is the manifest if it must go before what is due: once as the
// answer to the subscription, and ahead of every push.
func (s *Stream) manifestDue(push bool) *response {
	m := &s.manifest
	if !m.wanted || m.sent == s.target {
		return nil
	}
	if m.sent != nil && !push && m.sent.Manifest.AcceptShrink == s.target.Manifest.AcceptShrink {
		return nil
	}
	m.sent = s.target
	return &response{delta: s.delta, kind: kindManifest, nonce: s.nonce(), prefix: s.prefix(),
		version:   s.prefix() + strconv.FormatInt(s.target.Config.Revision, 10),
		resources: list{s.target.manifestResource()}}
}

// settle notes that the proxy holds all it asks for.
func (s *Stream) settle() {
	if s.settled == s.target.Config {
		return
	}
	active := false
	for t := range s.subs {
		if !s.subs[t].active {
			continue
		}
		active = true
		s.subs[t].solo = nil
		s.revision[t] = s.target.Config.Revision
		if equal(s.sent[t], s.goal.Resources[t]) {
			s.sent[t] = s.goal.Resources[t]
		}
		s.acked[t] = s.sent[t]
	}
	if !active {
		return
	}
	s.settled = s.target.Config
	if s.observer.Settled != nil {
		config := s.settled
		s.events = append(s.events, func(o *Observer) { o.Settled(config) })
	}
}

// adopt puts the real resources in the place of what a resuming proxy has said
// it holds, where the versions are the same.
func (s *Stream) adopt() {
	for t := range s.sent {
		var known list
		for _, r := range s.sent[t] {
			if g := find(s.goal.Resources[t], r.Name); r.Any == nil && same(r, g) {
				known = append(known, g)
			}
		}
		if len(known) > 0 {
			s.sent[t], s.acked[t] = with(s.sent[t], known, nil), with(s.acked[t], known, nil)
		}
	}
}

// resumed says whether all is known that a resuming proxy has and that could
// name resources of type t: then what nothing names can be removed. Listeners
// name route tables; listeners and route tables name the rest.
func (s *Stream) resumed(t envoy.Type) bool {
	stub := func(r *envoy.Resource) bool { return r.Any == nil }
	listeners := s.acked[envoy.Listener]
	if !s.subs[envoy.Listener].active || s.flying(envoy.Listener) || slices.ContainsFunc(listeners, stub) {
		return false
	}
	if t == envoy.Route {
		return true
	}
	if s.flying(envoy.Route) || slices.ContainsFunc(s.acked[envoy.Route], stub) {
		return false
	}
	for _, l := range listeners {
		for _, ref := range l.Refs {
			if ref.Type == envoy.Route && !s.subs[envoy.Route].wants(ref.Name) {
				return false
			}
		}
	}
	s.resuming = false
	return true
}
