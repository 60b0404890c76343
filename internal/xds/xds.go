// Package xds delivers configurations to proxies: ADS streams, delta and
// state-of-the-world, their subscriptions, ACKs and NACKs. It decides in which
// order a proxy gets what changed, what it keeps when it rejects something, and
// what may be taken away from it. What a configuration says is decided in
// package envoy. The page it follows is docs/architecture.md.
//
// The engine (Feed, Handler, Stream) serves the proxies of the server and, in
// the agent, the agent's own Envoy. Hub and Server are the server's side: they
// turn the views of the store into Feeds and authenticate proxies.
package xds

import (
	"context"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/fairlead/fairlead/internal/envoy"
)

// Protocol is one of the two forms of the aggregated discovery service.
type Protocol string

// The protocols.
const (
	Delta           Protocol = "delta"
	StateOfTheWorld Protocol = "sotw"
)

// The type URLs that only agents and the server speak, on the same stream.
const (
	// ManifestURL is the type that an agent subscribes to in order to get a
	// Manifest ahead of each push.
	ManifestURL = "type.googleapis.com/fairlead.v1.Manifest"
	// ReportURL is the type of a request that carries a report in its
	// node.metadata. It is never answered.
	ReportURL = "type.googleapis.com/fairlead.v1.Report"
)

// Acceptor decides about streams.
type Acceptor interface {
	// Authenticate is asked when a stream opens, before anything is read from
	// it. The context that it returns is the one that Accept gets. An error
	// ends the stream; it should be a gRPC status.
	Authenticate(ctx context.Context, fullMethod string) (context.Context, error)
	// Accept is asked with the first request of a stream. It may attach the
	// stream to a Feed, hold it, or leave that for later: a stream that is not
	// attached is sent nothing. An error ends the stream.
	Accept(ctx context.Context, s *Stream) (Observer, error)
}

// Observer hears what becomes of a stream. The calls for one stream come one at
// a time and in order, with no lock held; nil fields are not called.
type Observer struct {
	// Acked is told of resources that the proxy has accepted.
	Acked func(t envoy.Type, accepted []*envoy.Resource)
	// Rejected is told once of each resource that the proxy has rejected.
	Rejected func(Rejection)
	// Settled is told when the stream has nothing more to send and waits for no
	// ACK: the proxy holds all of config that it asks for, rejected resources
	// and what depends on them aside.
	Settled func(config *envoy.Config)
	// Held is told when the engine holds the stream because of a version that
	// the proxy reports (see Handler.VersionPrefix).
	Held func(reason string)
	// Reported gets the content of a report.
	Reported func(*structpb.Struct)
	// Ended is the last call.
	Ended func(error)
}

// Rejection is a resource that a proxy has rejected.
type Rejection struct {
	Resource *envoy.Resource
	Message  string          // the proxy's own words, bounded
	Revision int64           // of the configuration that the resource was sent for
	Standing *envoy.Resource // what the proxy holds instead; nil: nothing
}
