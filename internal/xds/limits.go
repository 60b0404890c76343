package xds

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fairlead/fairlead/internal/envoy"
)

// Bounds of a connection, before there is a proxy behind it. What one request
// may say is bounded in wire.go.
const (
	// handshakeTimeout is how long a connection may take to speak TLS and HTTP/2.
	handshakeTimeout = 10 * time.Second
	// idleTimeout is how long a connection without a stream is kept: a proxy
	// opens its stream at once.
	idleTimeout = 20 * time.Second
	// pingTime is how long a connection may be silent before it is asked for a
	// sign of life, pingTimeout how long it has to give it.
	pingTime, pingTimeout = 60 * time.Second, 20 * time.Second
	// pingMinTime is how often a proxy may ping (App Mesh's Envoys: every 10 s).
	pingMinTime = 5 * time.Second
	// maxStreams is how many streams a connection may have. A proxy has one.
	maxStreams = 100
	// maxHeader bounds the headers of a stream, in bytes.
	maxHeader = 64 << 10
	// maxResponse bounds a message to a proxy: an Envoy takes what it must.
	maxResponse = 1 << 30
)

// streamsPerKey is how many streams one access key may have open. Every proxy
// is to have a key of its own; a key that all proxies of an endpoint share has
// room for more than any endpoint should have.
const streamsPerKey = 1000

// maxForeign bounds the names that a stream makes us keep though no resource
// has them, in bytes. A proxy asks for names that it was sent; few of them have
// gone meanwhile.
const maxForeign = 256 << 10

// weigh bounds what a request makes a stream keep. Requests are only counted
// until there could be too much; then what is kept is looked at. It is called
// with the lock held.
func (s *Stream) weigh(t envoy.Type, req *request) error {
	sub := &s.subs[t]
	for _, names := range [][]string{req.names, req.unsubscribe} {
		for _, n := range names {
			sub.told += len(n)
		}
	}
	for _, h := range req.initial {
		sub.told += len(h.name) + len(h.version)
	}
	if sub.told <= maxForeign {
		return nil
	}
	if sub.told = s.foreign(t); sub.told > maxForeign {
		return status.Errorf(codes.ResourceExhausted, "a stream may name at most %d KiB of resources of a type that do not exist", maxForeign>>10)
	}
	return nil
}

// foreign is the size of the names that are kept of a type and that no resource
// has.
func (s *Stream) foreign(t envoy.Type) (size int) {
	var there list
	if s.target != nil && s.target.Config != nil {
		there = s.target.Config.Resources[t]
	}
	add := func(names []string) {
		for _, n := range names {
			if find(there, n) == nil {
				size += len(n)
			}
		}
	}
	sub := &s.subs[t]
	add(sub.names)
	add(sub.ask)
	add(sub.solo)
	for _, f := range s.flights {
		if f.kind == t {
			add(f.removed)
		}
	}
	for _, r := range s.sent[t] {
		if r.Any == nil { // told by the proxy, not ours
			size += len(r.Name) + len(r.Version)
		}
	}
	return size
}

// openKeys are the streams that access keys have open.
type openKeys struct {
	mu      sync.Mutex
	counts  map[string]int
	streams map[string]map[*Stream]bool // those that have been accepted
}

func newOpenKeys() *openKeys {
	return &openKeys{counts: map[string]int{}, streams: map[string]map[*Stream]bool{}}
}

// open counts a stream until its context ends.
func (k *openKeys) open(ctx context.Context, key string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.counts[key] >= streamsPerKey {
		return status.Errorf(codes.ResourceExhausted, "the access key %s has %d streams open, the most that a key may have: give proxies keys of their own", key, streamsPerKey)
	}
	k.counts[key]++
	context.AfterFunc(ctx, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.counts[key]--; k.counts[key] == 0 {
			delete(k.counts, key)
		}
	})
	return nil
}

// note keeps a stream under its key until it ends.
func (k *openKeys) note(key string, s *Stream) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.streams[key] == nil {
		k.streams[key] = map[*Stream]bool{}
	}
	k.streams[key][s] = true
	context.AfterFunc(s.Context(), func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if delete(k.streams[key], s); len(k.streams[key]) == 0 {
			delete(k.streams, key)
		}
	})
}

// revoke ends all streams of a key that is no more.
func (k *openKeys) revoke(key string) (n int) {
	k.mu.Lock()
	var streams []*Stream
	for s := range k.streams[key] {
		streams = append(streams, s)
	}
	k.mu.Unlock()
	for _, s := range streams {
		s.End(status.Error(codes.Unauthenticated, "the access key of this stream was deleted"))
	}
	return len(streams)
}
