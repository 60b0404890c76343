package xds

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// firstRequestTimeout is how long an authenticated stream may stay silent.
const firstRequestTimeout = 30 * time.Second

// Handler serves aggregated discovery streams.
type Handler struct {
	Acceptor Acceptor
	// VersionPrefix is put before every version on the wire, with a dot: the
	// first digits of the store's lineage. Empty (agents): none, and versions
	// are those of the resources.
	VersionPrefix string
	// SendTimeout bounds how long a stream may take to accept a message before
	// it is cut off. 0: 20 s.
	SendTimeout time.Duration
	// Admissions bounds how many streams are being accepted at once; others
	// wait. 0: 64.
	Admissions int
	Metrics    *Metrics     // nil: none
	Log        *slog.Logger // nil: silent

	slots chan struct{}
}

// NewHandler registers h's streams at a gRPC server made with ServerOptions.
func NewHandler(server grpc.ServiceRegistrar, h *Handler) {
	h.slots = make(chan struct{}, max(h.Admissions, 1))
	if h.Admissions == 0 {
		h.slots = make(chan struct{}, 64)
	}
	const service = "envoy.service.discovery.v3.AggregatedDiscoveryService"
	stream := func(name string, delta bool) grpc.StreamDesc {
		return grpc.StreamDesc{StreamName: name, ServerStreams: true, ClientStreams: true,
			Handler: func(_ any, rpc grpc.ServerStream) error {
				return h.serve(rpc, "/"+service+"/"+name, delta)
			}}
	}
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: service,
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{
			stream("StreamAggregatedResources", false),
			stream("DeltaAggregatedResources", true),
		},
	}, nil)
}

// ServerOptions are what a gRPC server needs to serve a Handler's streams in
// little memory: the raw codec (ordinary services still work beside it), small
// shared buffers, bounded messages, keepalive as proxies use it (App Mesh's
// Envoys ping every 10 s). Transport credentials are the caller's to add.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(newCodec()),
		grpc.ReadBufferSize(4 << 10),
		grpc.WriteBufferSize(4 << 10),
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.MaxSendMsgSize(maxResponse),
		grpc.MaxHeaderListSize(maxHeader),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingMinTime, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idleTimeout, Time: pingTime, Timeout: pingTimeout}),
	}
}

// serve is the life of one stream. A panic ends this stream and no other.
func (h *Handler) serve(rpc grpc.ServerStream, method string, delta bool) (err error) {
	s := &Stream{handler: h, rpc: rpc, delta: delta}
	defer func() {
		if p := recover(); p != nil {
			h.panicked(p, debug.Stack())
			err = status.Error(codes.Internal, "internal error")
		}
		s.close(err)
	}()
	ctx, err := h.Acceptor.Authenticate(rpc.Context(), method)
	if err != nil {
		return err
	}
	req := &request{delta: delta}
	if err := s.first(req); errors.Is(err, io.EOF) {
		return nil
	} else if err != nil {
		return err
	}
	if err := h.accept(ctx, s, req); err != nil {
		return err
	}
	h.Metrics.opened(s.Protocol())
	defer h.Metrics.closed(s.Protocol())
	for {
		if err := s.handle(req); err != nil {
			return err
		}
		if err := rpc.RecvMsg(req); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// first reads the first request, which a proxy that has opened a stream must
// send soon.
func (s *Stream) first(req *request) error {
	late := time.AfterFunc(firstRequestTimeout, func() {
		s.End(status.Error(codes.DeadlineExceeded, "no request came"))
	})
	defer late.Stop()
	if err := s.rpc.RecvMsg(req); err != nil {
		return err
	}
	node, err := decodeNode(req.node)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	s.node = node
	return nil
}

// accept lets the Acceptor decide, so many at a time: a herd of proxies waits in
// line, and none is refused.
func (h *Handler) accept(ctx context.Context, s *Stream, req *request) error {
	select {
	case h.slots <- struct{}{}:
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
	defer func() { <-h.slots }()
	observer, err := h.Acceptor.Accept(ctx, s)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.observer, s.node = observer, nil
	if req.kind != kindReport {
		req.node = nil
	}
	return nil
}

// close waits for the sender, which the end of the stream wakes.
func (s *Stream) close(err error) {
	s.End(err)
	s.sender.Wait()
	s.mu.Lock()
	feed := s.feed
	if s.stalled != nil {
		s.stalled.Stop()
	}
	s.mu.Unlock()
	if feed != nil {
		feed.remove(s)
	}
	s.notify()
	if s.observer.Ended != nil {
		s.observer.Ended(err)
	}
}

func (h *Handler) sendTimeout() time.Duration {
	if h.SendTimeout > 0 {
		return h.SendTimeout
	}
	return 20 * time.Second
}

func (h *Handler) panicked(p any, stack []byte) {
	h.Metrics.panicked("stream")
	if h.Log != nil {
		h.Log.Error("a stream panicked and was ended", "panic", p, "stack", string(stack))
	}
}
