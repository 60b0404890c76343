package xds

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/fairlead/fairlead/internal/envoy"
	"github.com/fairlead/fairlead/internal/iam"
	"github.com/fairlead/fairlead/internal/mesh"
)

// shutdownTimeout bounds how long Serve waits for streams to end.
const shutdownTimeout = 5 * time.Second

// Config is what a Server needs.
type Config struct {
	Source Source
	// Authenticate says who opens a stream (awsapi.VerifyStream). Its errors
	// are Refusals of package iam; any other means "not now".
	Authenticate func(ctx context.Context, fullMethod string) (iam.Principal, error)
	// Revocations calls revoked with each access key that is deleted, until ctx
	// ends: its streams end too. nil: nobody deletes keys.
	Revocations func(ctx context.Context, revoked func(accessKeyID string)) error
	TLS         *tls.Config
	// Issue makes certificates of Fairlead's own SDS. nil: there are none.
	Issue Issuer
	// NewCompiler makes the stages between store and streams for one mesh. nil:
	// mesh.Build and envoy.Builder.
	NewCompiler func() Compiler
	// ProxyLimit is how many proxies an endpoint of a kind may have here; further
	// ones are refused with status 8. nil: any number.
	ProxyLimit func(mesh.Kind) int
	// Evidence is where it is noted what proxies hold, under this server's Name. nil:
	// nowhere.
	Evidence    Evidence
	Name        string
	SendTimeout time.Duration    // as in Handler
	Metrics     *Metrics         // nil: none
	Log         *slog.Logger     // nil: silent
	Now         func() time.Time // nil: time.Now
}

// Server delivers configurations to the proxies of all meshes.
type Server struct {
	config Config
	hub    *Hub
	keys   *openKeys
	limits issueLimits
	grpc   *grpc.Server
}

// NewServer makes a server. It does nothing before Serve.
func NewServer(c Config) (*Server, error) {
	if c.Source == nil || c.Authenticate == nil || c.TLS == nil {
		return nil, errors.New("make xDS server: a source, an authenticator and a TLS configuration are needed")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.NewCompiler == nil {
		c.NewCompiler = newCompiler
	}
	// A session ticket would let a proxy in whose key or root is gone.
	tlsConfig := c.TLS.Clone()
	tlsConfig.SessionTicketsDisabled = true
	s := &Server{config: c, hub: newHub(c), keys: newOpenKeys()}
	s.grpc = grpc.NewServer(append(ServerOptions(), grpc.Creds(credentials.NewTLS(tlsConfig)))...)
	NewHandler(s.grpc, &Handler{Acceptor: s, VersionPrefix: versionPrefix(c.Source.Lineage()),
		SendTimeout: c.SendTimeout, Metrics: c.Metrics, Log: c.Log})
	s.registerIssuer()
	return s, nil
}

// versionPrefix is what a lineage is known by in versions.
func versionPrefix(lineage string) string { return lineage[:min(len(lineage), 8)] }

// Serve serves until ctx ends, then ends all streams with status 14, which has
// proxies connect elsewhere, and returns. It closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	watched := make(chan error, 3)
	go func() { watched <- s.hub.run(ctx) }()
	go func() { watched <- s.watchKeys(ctx) }()
	go func() { watched <- s.witness(ctx) }()
	served := make(chan error, 1)
	go func() { served <- s.grpc.Serve(l) }()
	var err error
	select {
	case <-ctx.Done():
		s.shutdown()
		err = <-served
	case err = <-served:
	}
	cancel()
	<-watched
	<-watched
	<-watched
	if err != nil {
		return fmt.Errorf("serve xDS: %w", err)
	}
	return nil
}

// witness notes what proxies hold, if there is somewhere to note it.
func (s *Server) witness(ctx context.Context) error {
	if s.hub.witness != nil {
		s.hub.witness.run(ctx)
	}
	return nil
}

// watchKeys ends the streams of keys that are deleted.
func (s *Server) watchKeys(ctx context.Context) error {
	if s.config.Revocations == nil {
		return nil
	}
	return s.config.Revocations(ctx, func(key string) {
		if n := s.keys.revoke(key); n > 0 {
			s.config.Log.Info("the streams of a deleted access key were ended", "access_key_id", key, "streams", n)
		}
	})
}

func (s *Server) shutdown() {
	stopped := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		close(stopped)
	}()
	late := time.NewTimer(shutdownTimeout)
	defer late.Stop()
	for _, p := range s.hub.proxies() {
		p.stream.End(status.Error(codes.Unavailable, "the server is shutting down"))
	}
	select {
	case <-stopped:
	case <-late.C:
		s.grpc.Stop()
		<-stopped
	}
}

type principalKey struct{}

// Authenticate implements Acceptor.
func (s *Server) Authenticate(ctx context.Context, fullMethod string) (context.Context, error) {
	principal, err := s.config.Authenticate(ctx, fullMethod)
	if err != nil {
		return nil, s.refuse(err)
	}
	if err := s.keys.open(ctx, principal.AccessKeyID); err != nil {
		return nil, s.refuse(err)
	}
	return context.WithValue(ctx, principalKey{}, principal), nil
}

// stillKnown notes the stream under its key, then looks whether the key has
// been deleted since the stream was opened: one that is deleted later ends it.
func (s *Server) stillKnown(ctx context.Context, p iam.Principal, stream *Stream) error {
	s.keys.note(p.AccessKeyID, stream)
	method, _ := grpc.Method(ctx)
	_, err := s.config.Authenticate(ctx, method)
	return err
}

// Accept implements Acceptor: it finds the mesh endpoint that the proxy's key
// is bound to and gives the stream its configuration.
func (s *Server) Accept(ctx context.Context, stream *Stream) (Observer, error) {
	principal, _ := ctx.Value(principalKey{}).(iam.Principal)
	node := stream.Node()
	name, id, err := iam.AuthorizeStream(principal, node.GetId())
	if err != nil {
		return Observer{}, s.refuse(err)
	}
	if err := s.stillKnown(ctx, principal, stream); err != nil {
		return Observer{}, s.refuse(err)
	}
	shape, err := envoy.ShapeOf(node)
	if err != nil {
		return Observer{}, s.refuse(status.Errorf(codes.InvalidArgument, "node metadata: %v", err))
	}
	p := &proxy{stream: stream, mesh: name, endpoint: id, shape: shape, held: heldBy(node.GetMetadata()),
		instance: instanceOf(node.GetMetadata()),
		info:     infoOf(node, s.config.Now())}
	if from, ok := peer.FromContext(ctx); ok {
		p.info.Address = from.Addr.String()
	}
	if err := s.hub.join(ctx, p); err != nil {
		return Observer{}, s.refuse(err)
	}
	return p.observer(), nil
}

// maxInstance bounds the name that a proxy gives itself among those of its endpoint.
const maxInstance = 64

// instanceOf is that name; empty: it has none that can be used.
func instanceOf(metadata *structpb.Struct) string {
	name := metadata.GetFields()[MetadataInstance].GetStringValue()
	if len(name) > maxInstance {
		return ""
	}
	return name
}

// heldBy is what an agent says that it holds.
func heldBy(metadata *structpb.Struct) *Manifest {
	held := metadata.GetFields()[MetadataHeld].GetStructValue()
	if held == nil {
		return nil
	}
	m := ReadManifest(held)
	return &m
}

// refuse turns an error into the status that App Mesh ends streams with.
func (s *Server) refuse(err error) error {
	code := codes.Unavailable
	switch {
	case errors.Is(err, iam.ErrUnauthenticated), errors.Is(err, iam.ErrUnknownKey):
		code = codes.Unauthenticated
	case errors.Is(err, iam.ErrDenied):
		code = codes.PermissionDenied
	case errors.Is(err, iam.ErrInvalidResource):
		code = codes.InvalidArgument
	default:
		if st, ok := status.FromError(err); ok {
			s.config.Metrics.refuse(st.Code().String())
			return err
		}
	}
	s.config.Metrics.refuse(code.String())
	s.config.Log.Info("a stream was refused", "code", code.String(), "error", err)
	if code == codes.Unavailable {
		return status.Error(code, "the server cannot authenticate at the moment")
	}
	return status.Error(code, err.Error())
}
