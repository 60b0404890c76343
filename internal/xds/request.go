package xds

import (
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fairlead/fairlead/internal/envoy"
)

// wildcard is the name that stands for all resources of a type.
const wildcard = "*"

// subscription is what a proxy asks for of one type.
type subscription struct {
	active bool // a request of the type has come
	all    bool // wildcard
	// greet: the wildcard awaits its first answer, even an empty one.
	greet bool
	names []string // asked for by name, sorted
	// ask are names that are to be answered even if nothing has changed:
	// Envoy waits (15 s by default) for the endpoints and secrets of what it
	// warms, whatever it was sent before.
	ask []string
	// solo are names that go in messages of their own, after a NACK that did
	// not say which resource it meant.
	solo []string
	last string // SotW: nonce of the newest message
	told int    // bytes of names in requests since what is kept was last looked at
}

// wants says whether the proxy is sent a resource.
func (sub *subscription) wants(name string) bool {
	return sub.all || contains(sub.names, name)
}

func contains(sorted []string, name string) bool {
	_, ok := slices.BinarySearch(sorted, name)
	return ok
}

// handle acts on one request.
func (s *Stream) handle(req *request) error {
	if err := s.take(req); err != nil {
		return err
	}
	s.notify()
	return nil
}

func (s *Stream) take(req *request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.request(req); err != nil {
		return err
	}
	s.proceed()
	return nil
}

func (s *Stream) request(req *request) error {
	switch req.kind {
	case kindUnknown:
		s.handler.Metrics.unknownType()
		return nil
	case kindManifest:
		s.manifest.wanted = true
		return nil
	case kindReport:
		return s.report(req)
	}
	t := envoy.Type(req.kind)
	known := req.nonce != "" && s.answered(t, req)
	sub := &s.subs[t]
	first := !sub.active
	sub.active = true
	if s.delta {
		s.subscribeDelta(t, first, req)
	} else {
		s.subscribeSotW(t, first, known, req)
	}
	if len(sub.names) > maxNames {
		return status.Errorf(codes.ResourceExhausted, "a stream may name at most %d resources of a type", maxNames)
	}
	return s.weigh(t, req)
}

func (s *Stream) report(req *request) error {
	node, err := decodeNode(req.node)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if s.observer.Reported != nil && node.GetMetadata() != nil {
		s.events = append(s.events, func(o *Observer) { o.Reported(node.GetMetadata()) })
	}
	return nil
}

// hasWildcard says whether "all of the type" can be asked for by naming nothing.
func hasWildcard(t envoy.Type) bool { return t == envoy.Cluster || t == envoy.Listener }

func (s *Stream) subscribeDelta(t envoy.Type, first bool, req *request) {
	sub := &s.subs[t]
	names, star := splitStar(req.names)
	if first && hasWildcard(t) && len(req.names) == 0 {
		star = true
	}
	if star && !sub.all {
		sub.all, sub.greet = true, true
	}
	s.subscribe(t, names)
	if first {
		s.resume(t, req.initial)
	}
	gone, unstar := splitStar(req.unsubscribe)
	if unstar && sub.all {
		sub.all = false
		s.forget(t)
	}
	if len(gone) == 0 {
		return
	}
	sub.names = slices.DeleteFunc(slices.Clone(sub.names), func(n string) bool { return contains(gone, n) })
	if sub.all {
		// Still wanted through the wildcard: the protocol has the server say
		// what the name stands at.
		sub.ask = sortedNames(append(sub.ask, gone...))
		return
	}
	s.forget(t)
}

// subscribeSotW takes the names of a request, which replace those of the one
// before. known: the request's nonce belonged to a message whose ACK was
// awaited.
func (s *Stream) subscribeSotW(t envoy.Type, first, known bool, req *request) {
	sub := &s.subs[t]
	if first {
		s.checkVersion(req.version, true)
	} else if req.nonce != sub.last {
		return // stale: the answer to the newer message will say what is wanted
	}
	names, star := splitStar(req.names)
	switch {
	case star, first && hasWildcard(t) && len(names) == 0, sub.all && !first && len(names) == 0 && len(sub.names) == 0:
		sub.greet = sub.greet || !sub.all
		sub.all = true
	default:
		sub.all = false
	}
	if sub.all && len(names) == 0 {
		return
	}
	old := sub.names
	sub.names = s.intern(t, names)
	if slices.Equal(old, sub.names) {
		if !known && !first && !req.nacked && !hasWildcard(t) {
			// Neither an ACK nor a change: the proxy asks again.
			sub.ask = slices.Clone(sub.names)
		}
		return
	}
	for _, n := range sub.names {
		if !contains(old, n) {
			sub.ask = append(sub.ask, n)
		}
	}
	sub.ask = sortedNames(sub.ask)
	s.forget(t)
}

// splitStar sorts names and takes the wildcard out of them.
func splitStar(names []string) (sorted []string, star bool) {
	sorted = sortedNames(names)
	if i, ok := slices.BinarySearch(sorted, wildcard); ok {
		return slices.Delete(sorted, i, i+1), true
	}
	return sorted, false
}

// subscribe adds names. Each is answered, also if it was asked for before.
func (s *Stream) subscribe(t envoy.Type, names []string) {
	if len(names) == 0 {
		return
	}
	sub := &s.subs[t]
	names = s.intern(t, names)
	if guardAsk {
		sub.ask = sortedNames(append(sub.ask, names...))
	}
	if len(sub.names) == 0 {
		sub.names = names
		return
	}
	sub.names = sortedNames(append(slices.Clone(sub.names), names...))
}

// intern gives names the memory that the Config has them in, so that a stream
// keeps no strings of its own.
func (s *Stream) intern(t envoy.Type, names []string) []string {
	if s.target == nil || s.target.Config == nil {
		return names
	}
	for i, n := range names {
		if r := find(s.target.Config.Resources[t], n); r != nil {
			names[i] = r.Name
		}
	}
	return names
}

// forget drops what is no longer asked for: the proxy has dropped it as well.
func (s *Stream) forget(t envoy.Type) {
	sub := &s.subs[t]
	wanted := func(r *envoy.Resource) bool { return sub.wants(r.Name) }
	s.acked[t] = keep(s.acked[t], wanted)
	s.sent[t] = keep(s.sent[t], wanted)
	unwanted := func(n string) bool { return !sub.wants(n) }
	sub.ask = slices.DeleteFunc(sub.ask, unwanted)
	sub.solo = slices.DeleteFunc(sub.solo, unwanted)
}

// resume notes what a proxy holds from an earlier stream. What has changed
// since is sent, what no longer exists is removed, each in its turn.
func (s *Stream) resume(t envoy.Type, initial []heldVersion) {
	if len(initial) == 0 {
		return
	}
	sub := &s.subs[t]
	var held list
	for _, h := range initial {
		s.checkVersion(h.version, false)
		if !sub.wants(h.name) || h.name == "" {
			continue
		}
		version := strings.TrimPrefix(h.version, s.prefix())
		held = append(held, &envoy.Resource{Ref: envoy.Ref{Type: t, Name: h.name}, Version: version})
	}
	held = with(nil, held, nil)
	s.acked[t], s.sent[t] = held, held
	s.resuming = true
}
