package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/fairlead/fairlead/internal/awsapi"
)

const (
	// defaultRegion is what streams are signed for where nothing names one: the
	// server's own default. The instance metadata service is not asked.
	defaultRegion = "us-east-1"
	// connectTimeout bounds one attempt to reach the server.
	connectTimeout = 10 * time.Second
	// credentialsTimeout bounds the search for credentials.
	credentialsTimeout = 10 * time.Second
	maxPause           = 30 * time.Second
	maxResponse        = 256 << 20
)

// upstream keeps a delta ADS stream to the server open. It decides when to try
// again; what is asked and answered is the relay's.
type upstream struct {
	config Config
	log    *slog.Logger
	events chan<- serverEvent
	issuer *issuer
	// opened is told of each stream that opens.
	opened func()
}

// quietAfter is when a stream that was not refused counts as connected, though
// the server sends nothing: it does so while it holds a proxy.
const quietAfter = time.Second

// serverEvent is what happens to the connection: it opens (opened), stays quiet,
// brings a message, or ends (err).
type serverEvent struct {
	opened  *session
	quiet   *session
	message *discoveryv3.DeltaDiscoveryResponse
	err     error
}

// session is one open stream. Its requests go out in order; who is behind by
// more than the channel holds is cut off.
type session struct {
	requests chan *discoveryv3.DeltaDiscoveryRequest
	cut      context.CancelFunc
}

func (s *session) send(r *discoveryv3.DeltaDiscoveryRequest) {
	select {
	case s.requests <- r:
	default:
		s.cut() // the server takes nothing; the next connection starts afresh
	}
}

// run connects again and again until the context ends.
func (u *upstream) run(ctx context.Context) {
	failures, last := 0, ""
	for ctx.Err() == nil {
		served, err := u.connect(ctx)
		if ctx.Err() != nil {
			return
		}
		if served {
			failures = 0
		}
		pause := reconnectPause(failures)
		failures++
		err = u.explain(err)
		u.emit(ctx, serverEvent{err: err})
		if message := err.Error(); message != last || served {
			u.log.Warn("no stream to the server; Envoy goes on with what it has", "why", message, "server", u.config.serverName(), "next", pause.Round(time.Millisecond))
			last = message
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// reconnectPause is short the first time, since a server that restarts is back
// at once, then grows from half a second to half a minute. The jitter spreads a
// mesh of proxies that lost the same server.
func reconnectPause(failures int) time.Duration {
	if failures == 0 {
		return 50*time.Millisecond + rand.N(200*time.Millisecond)
	}
	pause := min(500*time.Millisecond<<min(failures-1, 10), maxPause)
	return pause/2 + rand.N(pause/2)
}

func (u *upstream) emit(ctx context.Context, e serverEvent) {
	select {
	case u.events <- e:
	case <-ctx.Done():
	}
}

// connect opens one stream and reads from it until it ends. served is true if
// the server has sent anything.
func (u *upstream) connect(ctx context.Context) (served bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := u.dial(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx, grpc.MaxCallRecvMsgSize(maxResponse))
	if err != nil {
		return false, err
	}
	s := &session{requests: make(chan *discoveryv3.DeltaDiscoveryRequest, 1024), cut: cancel}
	go func() {
		for {
			select {
			case r := <-s.requests:
				if stream.Send(r) != nil {
					return // Recv says why
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	u.issuer.conn.Store(conn)
	defer u.issuer.conn.Store(nil)
	u.opened()
	u.emit(ctx, serverEvent{opened: s})
	defer time.AfterFunc(quietAfter, func() { u.emit(ctx, serverEvent{quiet: s}) }).Stop()
	for {
		message, err := stream.Recv()
		if err != nil {
			return served, err
		}
		served = true
		u.emit(ctx, serverEvent{message: message})
	}
}

func (u *upstream) dial(ctx context.Context) (*grpc.ClientConn, error) {
	options := []grpc.DialOption{
		// The server allows a ping every 5 s; silence for 20 s ends the stream.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: connectTimeout}),
		grpc.WithDisableServiceConfig(),
	}
	target := "dns:///" + u.config.Server
	if u.config.ServerSocket != "" {
		target = "unix:" + u.config.ServerSocket
		options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"))
	} else {
		roots, err := loadRoots(u.config.CAFile)
		if err != nil {
			return nil, err
		}
		signer, err := u.signer(ctx)
		if err != nil {
			return nil, err
		}
		// Never less than this: without a chain to the roots and the host's name
		// in the certificate there is no connection.
		options = append(options, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12})),
			grpc.WithPerRPCCredentials(signer))
	}
	conn, err := grpc.NewClient(target, options...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", u.config.serverName(), err)
	}
	return conn, nil
}

// signer finds credentials anew for each connection, so that a file that has
// changed is read again. As the AWS SDK does, it looks into the environment, the
// shared files, then the container's and the instance's metadata.
func (u *upstream) signer(ctx context.Context) (awsapi.StreamSigner, error) {
	ctx, cancel := context.WithTimeout(ctx, credentialsTimeout)
	defer cancel()
	var options []func(*awsconfig.LoadOptions) error
	if u.config.Region != "" {
		options = append(options, awsconfig.WithRegion(u.config.Region))
	}
	loaded, err := awsconfig.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return awsapi.StreamSigner{}, fmt.Errorf("read AWS configuration: %w", err)
	}
	region := loaded.Region
	if region == "" {
		region = defaultRegion
	}
	found, err := loaded.Credentials.Retrieve(ctx)
	if err != nil {
		return awsapi.StreamSigner{}, fmt.Errorf("find AWS credentials: %w; %s", err, u.makeOne())
	}
	return awsapi.StreamSigner{Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return found, nil }), Region: region}, nil
}

func (u *upstream) makeOne() string {
	return "make some for this proxy with: fairlead proxy credentials create " + u.config.Resource +
		", and give them as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
}

// explain turns the end of a stream into a sentence for whoever operates this
// proxy.
func (u *upstream) explain(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("the server closed the stream")
	}
	refusal, ok := status.FromError(err)
	if !ok {
		return err
	}
	switch message := refusal.Message(); refusal.Code() {
	case codes.Unauthenticated:
		return fmt.Errorf("the server does not accept this proxy's credentials: %s; %s", message, u.makeOne())
	case codes.PermissionDenied:
		return fmt.Errorf("the server refuses this proxy: %s", message)
	case codes.InvalidArgument:
		return fmt.Errorf("the server does not serve %s: %s", u.config.Resource, message)
	case codes.Unavailable:
		if strings.Contains(message, "x509:") || strings.Contains(message, "tls:") {
			return fmt.Errorf("the server's certificate is not accepted: %s; FAIRLEAD_CA_FILE names who vouches for it", message)
		}
		return fmt.Errorf("the server is not reached: %s", message)
	}
	return err
}

// loadRoots reads who vouches for the server; without a file, the system's
// roots (nil).
func loadRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	text, err := readFile(file, maxSecretFile)
	if err != nil {
		return nil, fmt.Errorf("read the server's CA: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("read the server's CA: %s holds no certificate in PEM", file)
	}
	return roots, nil
}
