package agent

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/fairlead/fairlead/internal/envoy"
	"github.com/fairlead/fairlead/internal/xds"
)

// relay stands between the server and Envoy. One goroutine owns its state: it
// takes in what either side says and what the files do, and after each such
// event brings both sides up to date.
type relay struct {
	config Config
	node   *corev3.Node
	// envoyVersion is shown to the server's operators.
	envoyVersion string
	log          *slog.Logger
	now          func() time.Time
	files        *fileSecrets

	feed   xds.Feed
	done   chan struct{} // closed when run has returned
	server chan serverEvent
	envoy  chan envoyEvent
	report chan *structpb.Struct // reports to send, newest wins
	disk   chan *saved           // what to keep, newest wins

	// changed is told of anything that readiness may depend on; rebase of
	// clusters and listeners that Envoy has taken anew, by name.
	changed func()
	rebase  func(baselines)

	mirror     *mirror
	session    *session
	subscribed [envoy.NumTypes]map[string]bool
	saidHeld   string
	streams    int // of Envoy
	state      atomic.Pointer[relayState]
	connection connection
}

// envoyEvent is something that Envoy said over its stream.
type envoyEvent struct {
	rejected *xds.Rejection
	accepted []*envoy.Resource
	settled  *envoy.Config
	holds    [envoy.NumTypes]int
	opened   bool
	ended    bool
}

// connection is the state of the stream to the server.
type connection struct {
	connected bool
	since     time.Time // of the last change
	why       string    // it is not
}

// relayState is what others may know of the relay. It is immutable.
type relayState struct {
	connection connection
	revision   int64
	lineage    string
	configured bool // clusters and listeners have come, from the server or the disk
	held       string
	missing    []envoy.Ref
	listeners  []string               // that Envoy should have
	closed     map[string][]envoy.Ref // secrets of the server that are not here, and what they close
	secrets    []serverSecret         // of the server, that are here
	// file and provider are the secrets that Envoy gets here and from the
	// provider of `sds` secrets, with what names them.
	file, provider map[string][]envoy.Ref
	rejected       map[envoy.Ref]string
	untold         map[envoy.Ref]string // of those, what the server has not heard
	settled        bool                 // Envoy holds the newest configuration
	envoyConnected bool
}

func newRelay(config Config, files *fileSecrets, log *slog.Logger, now func() time.Time) *relay {
	r := &relay{config: config, node: config.node(), files: files, log: log, now: now,
		server: make(chan serverEvent, 16), envoy: make(chan envoyEvent, 64),
		report: make(chan *structpb.Struct, 1), disk: make(chan *saved, 1), done: make(chan struct{})}
	r.mirror = newMirror(config.meshName(), config.Endpoint)
	r.connection = connection{since: now(), why: "not connected yet"}
	r.state.Store(&relayState{connection: r.connection})
	return r
}

// restore takes up what an earlier agent kept on the disk.
func (r *relay) restore(s *saved) error {
	if err := r.mirror.restore(s); err != nil {
		r.mirror = newMirror(r.config.meshName(), r.config.Endpoint)
		return err
	}
	r.serve()
	r.note()
	return nil
}

// run is the relay's goroutine.
func (r *relay) run(ctx context.Context) {
	defer close(r.done)
	for {
		select {
		case e := <-r.server:
			r.fromServer(e)
		case e := <-r.envoy:
			r.fromEnvoy(e)
		case report := <-r.report:
			r.sendReport(report)
			continue
		case <-ctx.Done():
			return
		}
		if r.mirror.publish() {
			r.serve()
			r.keep()
		}
		for _, a := range r.mirror.answers() {
			r.answer(a)
		}
		r.subscribe()
		r.sayHeld()
		r.note()
	}
}

func (r *relay) fromServer(e serverEvent) {
	switch {
	case e.opened != nil:
		r.session = e.opened
		r.mirror.connected()
		r.subscribed = [envoy.NumTypes]map[string]bool{}
		r.open()
	case e.quiet != nil:
		if e.quiet == r.session {
			r.nowConnected()
		}
	case e.message != nil:
		r.nowConnected()
		if err := r.mirror.receive(e.message); err != nil {
			r.log.Error("the server sent what cannot be read", "type", e.message.TypeUrl, "why", err)
		}
	case e.err != nil:
		r.session = nil
		if r.connection.connected {
			r.connection = connection{since: r.now()}
		}
		r.connection.why = e.err.Error()
	}
}

func (r *relay) nowConnected() {
	if !r.connection.connected {
		r.connection = connection{connected: true, since: r.now()}
		r.log.Info("connected to the server", "server", r.config.serverName())
	}
}

func (r *relay) fromEnvoy(e envoyEvent) {
	switch {
	case e.opened:
		r.streams++
	case e.ended:
		if r.streams--; r.streams == 0 {
			r.mirror.envoyGone()
		}
	case e.rejected != nil:
		r.log.Error("Envoy rejects a resource; the one before stays", "type", e.rejected.Resource.Type.String(),
			"resource", e.rejected.Resource.Name, "why", e.rejected.Message)
		r.mirror.envoyRejected(*e.rejected)
	case e.accepted != nil:
		b := baselines{changed: statOwners(e.accepted), retrusted: statOwners(r.mirror.envoyAccepted(e.accepted))}
		if !b.empty() {
			r.rebase(b)
		}
	case e.settled != nil:
		r.mirror.envoySettled(e.settled, e.holds)
	}
}

// serve hands the published configuration to Envoy, its file secrets first.
func (r *relay) serve() {
	file, _ := r.mirror.localSecrets()
	r.files.want(slices.Sorted(maps.Keys(file)))
	if err := xds.Check(r.mirror.published); err != nil {
		r.log.Error("the server's configuration is not whole; Envoy keeps the one before", "why", err)
		return
	}
	r.feed.Publish(xds.Target{Config: r.mirror.published})
}

// keep has the configuration written to the disk, once there is all of it.
func (r *relay) keep() {
	if !r.mirror.configured() {
		return
	}
	next := r.mirror.save(r.config.Resource)
	select {
	case <-r.disk:
	default:
	}
	r.disk <- next // this goroutine alone fills it
}

// open subscribes on a new stream: the first request says who we are and what
// we hold.
func (r *relay) open() {
	node := &corev3.Node{Id: r.node.Id, Cluster: r.node.Cluster, Locality: r.node.Locality, UserAgentName: "envoy",
		UserAgentVersionType: &corev3.Node_UserAgentVersion{UserAgentVersion: r.envoyVersion},
		Metadata:             &structpb.Struct{Fields: map[string]*structpb.Value{}}}
	for key, value := range r.node.GetMetadata().GetFields() {
		node.Metadata.Fields[key] = value
	}
	if held := r.mirror.held; held.Lineage != "" {
		node.Metadata.Fields[xds.MetadataHeld] = structpb.NewStructValue(held.Struct())
	}
	r.session.send(&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: xds.ManifestURL, ResourceNamesSubscribe: []string{"manifest"}})
	for _, kind := range []envoy.Type{envoy.Cluster, envoy.Listener} {
		r.session.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: kind.URL(), ResourceNamesSubscribe: []string{"*"},
			InitialResourceVersions: r.mirror.versions(kind)})
	}
}

// subscribe asks for all that what we have names, and no longer for the rest.
func (r *relay) subscribe() {
	if r.session == nil {
		return
	}
	for _, kind := range []envoy.Type{envoy.Secret, envoy.Endpoint, envoy.Route} {
		wanted := r.mirror.wanted(kind)
		request := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: kind.URL()}
		for _, name := range wanted {
			if !r.subscribed[kind][name] {
				request.ResourceNamesSubscribe = append(request.ResourceNamesSubscribe, name)
			}
		}
		for name := range r.subscribed[kind] {
			if _, still := slices.BinarySearch(wanted, name); !still {
				request.ResourceNamesUnsubscribe = append(request.ResourceNamesUnsubscribe, name)
			}
		}
		if len(request.ResourceNamesSubscribe) == 0 && len(request.ResourceNamesUnsubscribe) == 0 {
			continue
		}
		slices.Sort(request.ResourceNamesUnsubscribe)
		if r.subscribed[kind] == nil {
			request.InitialResourceVersions = r.mirror.versions(kind)
			r.subscribed[kind] = map[string]bool{}
		}
		for _, name := range request.ResourceNamesSubscribe {
			r.subscribed[kind][name] = true
		}
		for _, name := range request.ResourceNamesUnsubscribe {
			delete(r.subscribed[kind], name)
		}
		r.session.send(request)
	}
}

// answer passes on what Envoy made of a message.
func (r *relay) answer(a answer) {
	if r.session == nil {
		return
	}
	request := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: a.kind.URL(), ResponseNonce: a.nonce}
	if a.nack != "" {
		request.ErrorDetail = &rpcstatus.Status{Code: int32(codes.InvalidArgument), Message: a.nack}
	}
	r.session.send(request)
}

func (r *relay) sendReport(report *structpb.Struct) {
	if r.session == nil || !r.connection.connected {
		return
	}
	r.session.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.ReportURL, Node: &corev3.Node{Id: r.node.Id, Metadata: report}})
}

// sayHeld logs once when removals are held back, and when no longer.
func (r *relay) sayHeld() {
	held := ""
	switch {
	case !r.connection.connected:
	case r.mirror.offered.Lineage != "" || r.mirror.sequence > r.mirror.applied:
		held = r.mirror.objection()
	case r.mirror.held.Lineage != "":
		held = "the server sends nothing: it holds this proxy, or has not loaded its store yet; fairlead proxy list says why"
	}
	if held == r.saidHeld {
		return
	}
	if r.saidHeld = held; held != "" {
		r.log.Error("Envoy keeps its configuration", "why", held)
	} else {
		r.log.Info("the server's configuration is taken again")
	}
}

// note makes the state visible to others.
func (r *relay) note() {
	m := r.mirror
	s := &relayState{connection: r.connection, revision: m.held.Revision, lineage: m.held.Lineage, configured: m.configured(),
		held: r.saidHeld, missing: m.missing(), closed: m.withheld(), rejected: map[envoy.Ref]string{}, untold: map[envoy.Ref]string{},
		settled: m.published != nil && m.settled == m.published, envoyConnected: r.streams > 0}
	s.secrets = m.serverSecrets()
	s.file, s.provider = m.localSecrets()
	for ref, rejected := range m.rejected {
		s.rejected[ref] = rejected.message
		if !rejected.told {
			s.untold[ref] = rejected.message
		}
	}
	if m.published != nil {
		for _, l := range m.published.Resources[envoy.Listener] {
			s.listeners = append(s.listeners, l.Name)
		}
	}
	r.state.Store(s)
	if r.changed != nil {
		r.changed()
	}
}

// Authenticate implements xds.Acceptor. Only this agent's user can reach the
// socket.
func (r *relay) Authenticate(ctx context.Context, _ string) (context.Context, error) { return ctx, nil }

// Accept implements xds.Acceptor: whoever is behind the socket is our Envoy.
func (r *relay) Accept(_ context.Context, s *xds.Stream) (xds.Observer, error) {
	emit := func(e envoyEvent) {
		select {
		case r.envoy <- e:
		case <-r.done:
		}
	}
	emit(envoyEvent{opened: true})
	s.Attach(&r.feed)
	return xds.Observer{
		Acked:    func(_ envoy.Type, accepted []*envoy.Resource) { emit(envoyEvent{accepted: accepted}) },
		Rejected: func(rejection xds.Rejection) { emit(envoyEvent{rejected: &rejection}) },
		Settled: func(config *envoy.Config) {
			if status := s.Status(); status.Settled {
				emit(envoyEvent{settled: config, holds: status.Resources})
			}
		},
		Ended: func(error) { emit(envoyEvent{ended: true}) },
	}, nil
}
