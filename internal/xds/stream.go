package xds

import (
	"context"
	"fmt"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fairlead/fairlead/internal/envoy"
)

// maxFlights is how many messages of a type may await their ACK before the
// next waits for one, and ackTimeout how long it waits before the stream is
// ended: a proxy that acknowledges nothing starts again with the newest.
const (
	maxFlights = 32
	ackTimeout = 30 * time.Second
)

// Stream is one ADS stream of one proxy.
//
// Its state is what the proxy has accepted (acked), what it will hold when it
// accepts all that is under way (sent), and where it is to go (goal). Each is a
// list per type that an idle stream shares with its Config. What goes next is
// found by comparing sent with goal (push.go); nothing is ever queued, so the
// newest goal always wins. One goroutine, the gRPC handler, receives; a second
// one sends, and exists only while there is something to send.
type Stream struct {
	handler  *Handler
	rpc      grpc.ServerStream
	observer Observer
	delta    bool

	// sender is done when the sending goroutine is.
	sender sync.WaitGroup

	mu   sync.Mutex
	node *corev3.Node // until Accept has returned
	feed *Feed

	target *publication  // nil: nothing published yet
	goal   *envoy.Config // target's Config, rejected resources substituted; nil: to be found
	held   string        // why nothing is sent
	freed  bool          // an operator has released a hold: foreign versions no longer matter

	subs     [envoy.NumTypes]subscription
	acked    [envoy.NumTypes]list
	sent     [envoy.NumTypes]list
	flights  []flight
	rejected map[envoy.Ref]*Rejection
	settled  *envoy.Config
	revision [envoy.NumTypes]int64 // that each type has last been ACKed at

	manifest manifestState
	nonces   uint64
	// resuming is set while the proxy may hold resources from an earlier stream
	// of which we know only the names.
	resuming bool

	sending   bool
	ended     bool
	stalled   *time.Timer // ends the stream unless a message of stalledBy is answered
	stalledBy envoy.Type
	events    []event
	notifying bool
}

// manifestState is an agent's subscription to manifests.
type manifestState struct {
	wanted bool
	sent   *publication
}

// flight is a message whose ACK is awaited.
type flight struct {
	nonce    string
	kind     envoy.Type
	items    list
	removed  []string
	all      list // SotW clusters and listeners: the whole message
	revision int64
}

// event is a call to the observer that waits for the lock to be free.
type event func(*Observer)

// Node is what the first request said of the proxy. It is kept only until
// Accept has returned; nil afterwards.
func (s *Stream) Node() *corev3.Node {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.node
}

// Protocol is the stream's protocol.
func (s *Stream) Protocol() Protocol {
	if s.delta {
		return Delta
	}
	return StateOfTheWorld
}

// Context is the stream's context: done when the stream has ended.
func (s *Stream) Context() context.Context { return s.rpc.Context() }

// Attach makes the stream deliver the Feed's configuration, instead of that of
// the Feed it was attached to before.
func (s *Stream) Attach(f *Feed) {
	s.mu.Lock()
	old := s.feed
	s.feed = f
	ended := s.ended
	s.mu.Unlock()
	if old != nil && old != f {
		old.remove(s)
	}
	if !ended {
		f.add(s)
	}
	// The stream may have ended meanwhile, before the Feed knew it.
	s.mu.Lock()
	ended = s.ended
	s.mu.Unlock()
	if ended {
		f.remove(s)
	}
}

// Hold makes the stream send nothing at all until Release.
func (s *Stream) Hold(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = reason
}

// Release ends a Hold for good: an operator has accepted what the proxy loses.
func (s *Stream) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held, s.freed = "", true
	s.wake()
}

// End ends the stream with a gRPC status error, from any goroutine.
func (s *Stream) End(err error) {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	// The transport's stream can be ended from outside the handler, which then
	// wakes up. What the package documents of it does not say so; TestEnd does.
	w, ok := grpc.ServerTransportStreamFromContext(s.rpc.Context()).(interface {
		WriteStatus(*status.Status) error
	})
	if ok {
		// The stream may have ended otherwise; then there is nobody to tell.
		_ = w.WriteStatus(status.Convert(err))
	}
}

// StreamStatus is a stream's state at one moment.
type StreamStatus struct {
	Protocol  Protocol
	Held      string                // why nothing is sent; empty: it is
	Revision  int64                 // of the configuration that the proxy is to hold; 0: none yet
	Settled   bool                  // nothing to send, no ACK awaited
	Acked     [envoy.NumTypes]int64 // the revision that each type was last ACKed at in full; 0: never
	Rejected  []Rejection
	Resources [envoy.NumTypes]int // how many the proxy holds
}

// Status is the stream's state now.
func (s *Stream) Status() StreamStatus {
	newest := s.newest()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := StreamStatus{Protocol: s.Protocol(), Held: s.held, Acked: s.revision}
	if s.target != nil && s.target.Config != nil {
		st.Revision, st.Settled = s.target.Config.Revision, s.settled == s.target.Config
	}
	if s.target != nil && newest.Config == s.target.Config {
		// The mesh may have moved on without a change for this proxy.
		st.Revision = max(st.Revision, newest.Manifest.Revision)
	}
	for t := range s.acked {
		st.Resources[t] = len(s.acked[t])
		if st.Settled && s.subs[t].active {
			st.Acked[t] = st.Revision
		}
	}
	for _, r := range s.rejected {
		st.Rejected = append(st.Rejected, *r)
	}
	return st
}

// AsksForSecrets says whether the proxy asks for all secrets of its configuration. One
// that reconnects does so only after a moment, and until then holds older ones.
func (s *Stream) AsksForSecrets() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.target == nil || s.target.Config == nil {
		return false
	}
	for _, r := range s.target.Config.Resources[envoy.Secret] {
		if !s.subs[envoy.Secret].wants(r.Name) {
			return false
		}
	}
	return true
}

// newest is what the stream's Feed holds.
func (s *Stream) newest() Target {
	s.mu.Lock()
	feed := s.feed
	s.mu.Unlock()
	if feed == nil {
		return Target{}
	}
	return feed.Target()
}

// retarget is called by the Feed, with the Feed's lock held.
func (s *Stream) retarget(t *publication) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.target, s.goal = t, nil
	s.wake()
}

// wake starts the sender. It is called with the lock held.
func (s *Stream) wake() {
	if s.sending || s.ended || s.held != "" || s.target == nil {
		return
	}
	s.sending = true
	s.sender.Go(func() { s.send(nil) })
}

// proceed sends what a request has made due. Most requests are ACKs that make
// nothing due and need no goroutine. It is called with the lock held.
func (s *Stream) proceed() {
	if s.sending {
		return
	}
	if msg := s.next(); msg != nil {
		s.sending = true
		s.sender.Go(func() { s.send(msg) })
	}
}

// send sends until there is nothing more to send.
func (s *Stream) send(msg *response) {
	defer func() {
		if p := recover(); p != nil {
			s.handler.panicked(p, debug.Stack())
			s.End(status.Error(codes.Internal, "internal error"))
		}
	}()
	timeout := s.handler.sendTimeout()
	cut := time.AfterFunc(timeout, func() {
		s.handler.Metrics.slow()
		s.End(status.Errorf(codes.ResourceExhausted, "the proxy did not take a message within %s", timeout))
	})
	defer cut.Stop()
	if msg == nil {
		msg = s.advance()
	}
	for ; msg != nil; msg = s.advance() {
		cut.Reset(timeout)
		if err := s.rpc.SendMsg(msg); err != nil {
			// The handler finds out the same way. sending stays true: nothing
			// more is sent.
			return
		}
		s.handler.Metrics.sent(msg)
	}
	s.notify()
}

// advance is next, for the sender.
func (s *Stream) advance() *response {
	s.mu.Lock()
	defer s.mu.Unlock()
	msg := s.next()
	s.sending = msg != nil
	return msg
}

// notify makes the calls to the observer that are due. It is called without the
// lock; only one goroutine calls at a time.
func (s *Stream) notify() {
	for events := s.due(false); events != nil; events = s.due(true) {
		for _, call := range events {
			call(&s.observer)
		}
	}
}

// due takes the calls that are due, unless another goroutine is making some.
func (s *Stream) due(mine bool) []event {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.notifying && !mine {
		return nil
	}
	events := s.events
	s.events, s.notifying = nil, events != nil
	return events
}

func (s *Stream) nonce() string {
	s.nonces++
	return strconv.FormatUint(s.nonces, 36)
}

// prefix is what our versions start with.
func (s *Stream) prefix() string {
	if s.handler.VersionPrefix == "" {
		return ""
	}
	return s.handler.VersionPrefix + "."
}

// checkVersion holds the stream if the proxy's configuration was not made from
// this store, or from a later revision of it: then it is not known what the
// proxy would lose. It is called with the lock held.
func (s *Stream) checkVersion(version string, isRevision bool) {
	prefix := s.prefix()
	if !guardShrink || prefix == "" || version == "" || s.freed || s.held != "" {
		return
	}
	rest, ours := strings.CutPrefix(version, prefix)
	if !ours {
		s.hold(fmt.Sprintf("the proxy's configuration (version %s) was made from another store", version))
		return
	}
	if !isRevision || s.target == nil {
		return
	}
	if revision, err := strconv.ParseInt(rest, 10, 64); err == nil && revision > s.target.Manifest.Revision {
		s.hold(fmt.Sprintf("the proxy's configuration is of revision %d, the store's is %d", revision, s.target.Manifest.Revision))
	}
}

func (s *Stream) hold(reason string) {
	s.held = reason
	if s.observer.Held != nil {
		s.events = append(s.events, func(o *Observer) { o.Held(reason) })
	}
}
