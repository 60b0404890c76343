package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/fairlead/fairlead/bench/adswire"
)

// watch is what the fleet is waiting for in the current round.
type watch struct {
	started time.Time
	marker  []byte // nil: any response of an expected kind counts
	kinds   kinds
}

// traffic counts received messages and payload bytes.
type traffic struct{ messages, bytes [kindCount]atomic.Int64 }

// subscription is one resource type on one stream.
type subscription struct {
	asked    bool
	answered bool
	version  string
	nonce    string
	wanted   map[string]struct{} // nil: wildcard
	list     []string            // wanted, sorted; nil when stale
	known    map[string]*needs   // delta CDS and LDS: what the proxy holds now
}

// proxy is a simulated Envoy: one ADS stream, the subscription order of a real
// Envoy (CDS, EDS, LDS, RDS, and SDS as soon as something refers to a secret),
// and an ACK for every response. It never builds the resources: it reads
// responses as raw protobuf and parses a resource only the first time any proxy
// sees its bytes, so that thousands of proxies fit beside the server on one
// small machine.
type proxy struct {
	fleet      *fleet
	index      int
	node       *corev3.Node
	unsentNode *corev3.Node // node, until the stream's first request
	stream     grpc.ClientStream

	subs [kindCount]subscription
	resp adswire.Response
	dump *dump // nil: not wanted

	connectAt time.Time
	synced    chan struct{} // closed when every subscription has been answered
	isSynced  bool
	syncedAt  time.Time

	seen       *watch       // the last watch that this proxy has answered
	roundBytes atomic.Int64 // received since the round began
	hitIn      atomic.Pointer[watch]
}

// run keeps a stream open until ctx ends. A stream that breaks is opened again
// after a random wait that doubles, up to 30 s, as Envoy does.
func (p *proxy) run(ctx context.Context, conn *grpc.ClientConn) error {
	p.connectAt = time.Now()
	wait := 500 * time.Millisecond
	for {
		err := p.serve(ctx, conn)
		if ctx.Err() != nil || !p.fleet.opt.retry {
			return err
		}
		p.fleet.retried(p, err)
		select {
		case <-time.After(rand.N(wait)):
		case <-ctx.Done():
			return nil
		}
		wait = min(2*wait, 30*time.Second)
		for k := range p.subs { // a new stream knows nothing of the old one
			p.subs[k] = subscription{}
		}
		p.unsentNode = p.node
	}
}

// serve opens one stream and reads it until it ends.
func (p *proxy) serve(ctx context.Context, conn *grpc.ClientConn) error {
	method := adswire.StateOfTheWorld
	if p.fleet.opt.delta {
		method = adswire.Delta
	}
	var err error
	if p.stream, err = conn.NewStream(ctx, adswire.StreamDesc, method, grpc.ForceCodecV2(adswire.Codec{})); err != nil {
		return err
	}
	if err := p.start(); err != nil {
		return err
	}
	var f adswire.Frame
	for {
		if err := p.stream.RecvMsg(&f); err != nil {
			if errors.Is(err, io.EOF) || ctx.Err() != nil {
				return nil
			}
			return err
		}
		if err := p.receive(f.Bytes, time.Now()); err != nil {
			return err
		}
		if cap(f.Bytes) > 64<<10 { // large first pushes must not stay with every proxy
			f.Bytes = nil
		}
	}
}

// start asks for the first enabled wildcard type, as Envoy does, after an
// agent's manifests.
func (p *proxy) start() error {
	if p.fleet.opt.kinds[manifest] {
		if err := p.ask(manifest); err != nil {
			return err
		}
	}
	if p.fleet.opt.kinds[cds] {
		return p.ask(cds)
	}
	return p.ask(lds)
}

func (p *proxy) receive(b []byte, now time.Time) error {
	r := &p.resp
	if err := r.Parse(b, p.fleet.opt.delta); err != nil {
		return fmt.Errorf("read response: %w", err)
	}
	k, ok := kindOf(r.TypeURL)
	if !ok {
		return fmt.Errorf("response for a type that was not asked for: %q", r.TypeURL)
	}
	p.fleet.flow.messages[k].Add(1)
	p.fleet.flow.bytes[k].Add(int64(len(b)))
	p.roundBytes.Add(int64(len(b)))
	s := &p.subs[k]
	s.version, s.nonce, s.answered = r.Version, r.Nonce, true
	if p.dump != nil {
		p.dump.add(k, r)
	}
	if err := p.follow(k, r); err != nil { // includes the ACK
		return err
	}
	acked := time.Now()
	if w := p.fleet.watch.Load(); w != nil && p.seen != w && w.kinds[k] && !now.Before(w.started) &&
		(w.marker == nil || bytes.Contains(b, w.marker)) {
		p.seen = w
		p.hitIn.Store(w)
		p.fleet.hit(w, now, acked)
	}
	if !p.isSynced && p.complete() {
		p.isSynced, p.syncedAt = true, acked
		close(p.synced)
	}
	return nil
}

// follow ACKs a response and asks for whatever its resources refer to.
func (p *proxy) follow(k kind, r *adswire.Response) error {
	if k == manifest { // agents do not acknowledge it
		return nil
	}
	if err := p.ack(k); err != nil {
		return err
	}
	switch k {
	case eds:
		return p.askListeners()
	case rds, sds:
		return nil
	}
	held := p.held(k, r)
	if p.fleet.opt.kinds[sds] {
		if err := p.askSecrets(held); err != nil {
			return err
		}
	}
	next := eds
	if k == lds {
		next = rds
	}
	names := map[string]struct{}{}
	for _, n := range held {
		if k == cds && n.eds != "" {
			names[n.eds] = struct{}{}
		}
		for _, name := range n.rds {
			names[name] = struct{}{}
		}
	}
	if p.fleet.opt.kinds[next] && !sameSet(names, p.subs[next].wanted) {
		if err := p.resubscribe(next, names); err != nil {
			return err
		}
	}
	if k == cds && !p.subs[eds].asked {
		return p.askListeners()
	}
	return nil
}

// held is what the resources need that the proxy has after a response.
func (p *proxy) held(k kind, r *adswire.Response) []*needs {
	cache := p.fleet.cache
	all := make([]*needs, 0, len(r.Anys))
	if !p.fleet.opt.delta {
		for _, body := range r.Anys {
			all = append(all, cache.get(k, body))
		}
		return all
	}
	s := &p.subs[k]
	if s.known == nil {
		s.known = make(map[string]*needs, len(r.Anys))
	}
	for i, body := range r.Anys {
		s.known[r.Names[i]] = cache.get(k, body)
	}
	for _, name := range r.Removed {
		delete(s.known, name)
	}
	for _, n := range s.known {
		all = append(all, n)
	}
	return all
}

func (p *proxy) askSecrets(held []*needs) error {
	s, more := &p.subs[sds], false
	for _, n := range held {
		for _, name := range n.secrets {
			if _, have := s.wanted[name]; !have {
				if s.wanted == nil {
					s.wanted = map[string]struct{}{}
				}
				s.wanted[name], s.list, more = struct{}{}, nil, true
			}
		}
	}
	if !more {
		return nil
	}
	return p.ask(sds)
}

func (p *proxy) askListeners() error {
	if p.fleet.opt.kinds[lds] && !p.subs[lds].asked {
		return p.ask(lds)
	}
	return nil
}

// complete says whether the proxy has had an answer to all it asked for.
func (p *proxy) complete() bool {
	wanted := p.fleet.opt.kinds
	if wanted[cds] && !p.subs[cds].answered || wanted[lds] && !p.subs[lds].answered {
		return false
	}
	for k := range p.subs {
		if p.subs[k].asked && !p.subs[k].answered {
			return false
		}
	}
	return true
}

func sameSet(a, b map[string]struct{}) bool {
	if len(a) != len(b) {
		return false
	}
	for n := range a {
		if _, ok := b[n]; !ok {
			return false
		}
	}
	return true
}

// names are the resource names of a subscription, in a stable order.
func (s *subscription) names() []string {
	if s.list == nil && len(s.wanted) > 0 {
		s.list = make([]string, 0, len(s.wanted))
		for n := range s.wanted {
			s.list = append(s.list, n)
		}
		slices.Sort(s.list)
	}
	return s.list
}

// nodeOnce is the node in the first request of the stream, then nil.
func (p *proxy) nodeOnce() *corev3.Node {
	n := p.unsentNode
	p.unsentNode = nil
	return n
}

func (p *proxy) send(m proto.Message) error {
	b, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	return p.stream.SendMsg(&adswire.Frame{Bytes: b})
}

// ask subscribes to a type (first request of the type on the stream), or adds
// to what it asks for.
func (p *proxy) ask(k kind) error {
	s := &p.subs[k]
	s.asked = true
	if p.fleet.opt.delta {
		return p.send(&discoveryv3.DeltaDiscoveryRequest{Node: p.nodeOnce(), TypeUrl: kindURL[k], ResourceNamesSubscribe: s.names()})
	}
	return p.send(&discoveryv3.DiscoveryRequest{Node: p.nodeOnce(), TypeUrl: kindURL[k],
		VersionInfo: s.version, ResponseNonce: s.nonce, ResourceNames: s.names()})
}

// resubscribe changes the set of names that the proxy asks for.
func (p *proxy) resubscribe(k kind, names map[string]struct{}) error {
	s := &p.subs[k]
	old := s.wanted
	s.wanted, s.list = names, nil
	if !p.fleet.opt.delta || !s.asked {
		if len(names) == 0 && !s.asked {
			return nil
		}
		for n := range names {
			if _, had := old[n]; !had {
				s.answered = false
			}
		}
		return p.ask(k)
	}
	req := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: kindURL[k]}
	for n := range names {
		if _, had := old[n]; !had {
			req.ResourceNamesSubscribe = append(req.ResourceNamesSubscribe, n)
		}
	}
	for n := range old {
		if _, want := names[n]; !want {
			req.ResourceNamesUnsubscribe = append(req.ResourceNamesUnsubscribe, n)
		}
	}
	return p.send(req)
}

func (p *proxy) ack(k kind) error {
	s := &p.subs[k]
	if p.fleet.opt.delta {
		return p.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: kindURL[k], ResponseNonce: s.nonce})
	}
	return p.send(&discoveryv3.DiscoveryRequest{TypeUrl: kindURL[k], VersionInfo: s.version,
		ResponseNonce: s.nonce, ResourceNames: s.names()})
}
