package xds

import (
	"slices"
	"strings"

	"github.com/fairlead/fairlead/internal/envoy"
)

// answered acts on an ACK or NACK. It is false if the nonce belongs to no
// message whose answer is awaited: a stale or repeated one says nothing.
func (s *Stream) answered(t envoy.Type, req *request) bool {
	i := slices.IndexFunc(s.flights, func(f flight) bool { return f.kind == t && f.nonce == req.nonce })
	if i < 0 {
		return false
	}
	f := s.flights[i]
	if s.delta {
		s.flights = slices.Delete(s.flights, i, i+1)
	} else {
		f = s.overtake(i)
	}
	if len(s.flights) == 0 {
		s.flights = nil
	}
	if s.stalled != nil && s.stalledBy == t {
		s.stalled.Stop()
		s.stalled = nil
	}
	if req.nacked {
		s.reject(f, req.message)
		return true
	}
	s.accept(f, f.items)
	if !s.flying(t) {
		s.revision[t] = f.revision
	}
	return true
}

// overtake takes flight i and those of its type before it: a state-of-the-world
// proxy may answer the newest only, which says all that the others said.
func (s *Stream) overtake(i int) flight {
	last := s.flights[i]
	var items list
	var rest []flight
	for j, f := range s.flights {
		if j > i || f.kind != last.kind {
			rest = append(rest, f)
			continue
		}
		items = with(items, f.items, nil)
	}
	last.items = items
	s.flights = rest
	return last
}

func (s *Stream) flying(t envoy.Type) bool {
	return slices.ContainsFunc(s.flights, func(f flight) bool { return f.kind == t })
}

// accept notes that the proxy holds items of a flight, and not what it removed.
func (s *Stream) accept(f flight, items list) {
	t := f.kind
	wanted := func(r *envoy.Resource) bool { return s.subs[t].wants(r.Name) }
	if f.all != nil {
		// The whole of what the proxy holds, but for what it refused.
		var back list
		var none []string
		for _, r := range f.items {
			if slices.Contains(items, r) {
				continue
			}
			if old := find(s.acked[t], r.Name); old != nil {
				back = append(back, old)
			} else {
				none = append(none, r.Name)
			}
		}
		s.acked[t] = keep(with(f.all, back, none), wanted)
	} else {
		s.acked[t] = with(s.acked[t], keep(items, wanted), f.removed)
	}
	if !s.flying(t) && equal(s.acked[t], s.sent[t]) {
		s.acked[t] = s.sent[t]
	}
	if s.observer.Acked != nil && len(items) > 0 {
		s.events = append(s.events, func(o *Observer) { o.Acked(t, items) })
	}
}

// reject acts on a NACK. Envoy applies what it can of a message and names what
// it refused; then the rest stands. If it names nothing it may have applied
// nothing: what the message held is sent again one by one, until the culprit is
// alone.
func (s *Stream) reject(f flight, message string) {
	culprits := accused(f.items, message)
	if len(culprits) == 0 && len(f.items) == 1 {
		culprits = f.items
	}
	if len(culprits) == 0 {
		if len(f.items) == 0 {
			s.accept(f, nil)
			return
		}
		sub := &s.subs[f.kind]
		for _, r := range f.items {
			sub.solo = append(sub.solo, r.Name)
		}
		sub.solo = sortedNames(sub.solo)
		s.revert(f.kind, f.items, f.removed)
		if !s.delta && !hasWildcard(f.kind) && !s.flying(f.kind) {
			// A name that the proxy dropped and took up again before it saw this
			// message looks as if it had been held all the time.
			for _, r := range f.items {
				if sub.wants(r.Name) && same(r, find(s.acked[f.kind], r.Name)) {
					sub.ask = append(sub.ask, r.Name)
				}
			}
			sub.ask = sortedNames(sub.ask)
		}
		return
	}
	s.accept(f, keep(f.items, func(r *envoy.Resource) bool { return !slices.Contains(culprits, r) }))
	s.revert(f.kind, culprits, nil)
	for _, r := range culprits {
		s.park(&Rejection{Resource: r, Message: message, Revision: f.revision, Standing: find(s.acked[r.Type], r.Name)})
	}
}

// park keeps a rejected resource from being sent again until its content
// changes.
func (s *Stream) park(r *Rejection) {
	s.goal = nil
	if known := s.rejected[r.Resource.Ref]; known != nil && same(known.Resource, r.Resource) {
		return // it was in two messages that were under way
	}
	s.handler.Metrics.rejected(r.Resource.Type)
	if guardParking {
		if s.rejected == nil {
			s.rejected = map[envoy.Ref]*Rejection{}
		}
		s.rejected[r.Resource.Ref] = r
	}
	if s.observer.Rejected != nil {
		s.events = append(s.events, func(o *Observer) { o.Rejected(*r) })
	}
}

// revert takes back what a rejected flight was to change: what was sent of these
// names is what the proxy holds, and what messages under way make of it.
func (s *Stream) revert(t envoy.Type, items list, removed []string) {
	var back list
	var gone []string
	again := func(name string) {
		if r := s.expected(t, name); r != nil && s.subs[t].wants(name) {
			back = append(back, r)
		} else {
			gone = append(gone, name)
		}
	}
	for _, r := range items {
		again(r.Name)
	}
	for _, name := range removed {
		again(name)
	}
	s.sent[t] = with(s.sent[t], back, gone)
	if !s.flying(t) && equal(s.acked[t], s.sent[t]) {
		s.acked[t] = s.sent[t]
	}
}

// expected is what the proxy will hold of a name when it accepts all that is
// under way.
func (s *Stream) expected(t envoy.Type, name string) *envoy.Resource {
	r := find(s.acked[t], name)
	for _, f := range s.flights {
		if f.kind != t {
			continue
		}
		if slices.Contains(f.removed, name) {
			r = nil
		}
		for _, item := range f.items {
			if item.Name == name {
				r = item
			}
		}
	}
	return r
}

// accusations are how Envoy begins a NACK that names what it refused (1.40,
// both protocols): "Error adding/updating cluster(s) a: why, b: why".
var accusations = []string{
	"Error adding/updating cluster(s) ",
	"Error adding/updating listener(s) ",
}

// accused are the resources that a NACK names.
func accused(items list, message string) list {
	for _, intro := range accusations {
		rest, ok := strings.CutPrefix(message, intro)
		if !ok {
			continue
		}
		var found list
		for _, r := range items {
			// A reason may name other resources; only the head of the message
			// and of each further entry accuses.
			head := r.Name + ": "
			if strings.HasPrefix(rest, head) || strings.Contains(rest, ", "+head) || strings.Contains(rest, "\n"+head) {
				found = append(found, r)
			}
		}
		return found
	}
	return nil
}
