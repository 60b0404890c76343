package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/fairlead/fairlead/bench/adswire"
	"github.com/fairlead/fairlead/bench/loadrun"
	"github.com/fairlead/fairlead/internal/awsapi"
)

const clusterURL = "type.googleapis.com/envoy.config.cluster.v3.Cluster"

// relay stands between a real Envoy, which cannot sign, and Fairlead: it signs
// the stream, passes every message on as it is, and notes when cluster ACKs pass.
type relay struct {
	upstream *grpc.ClientConn

	mu     sync.Mutex
	pushed map[string]bool // nonces of cluster responses that are not acknowledged yet
	acks   chan ack
}

// ack is an Envoy's answer to a cluster response.
type ack struct {
	at   time.Time
	nack bool
}

// stream serves Envoy's stream by one to Fairlead.
func (r *relay) stream(_ any, down grpc.ServerStream) error {
	method, ok := grpc.MethodFromServerStream(down)
	if !ok || method != adswire.Delta {
		return fmt.Errorf("%s is not relayed", method)
	}
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(down.Context(), nil))
	defer cancel()
	up, err := r.upstream.NewStream(ctx, adswire.StreamDesc, method, grpc.ForceCodecV2(adswire.Codec{}))
	if err != nil {
		return err
	}
	ended := make(chan error, 2)
	go func() { ended <- pump(down, up, r.request) }()
	go func() { ended <- pump(up, down, r.response) }()
	return <-ended
}

type messages interface {
	RecvMsg(any) error
	SendMsg(any) error
}

func pump(from, to messages, note func([]byte) error) error {
	for {
		var f adswire.Frame // a new one each time: SendMsg may still hold the last
		if err := from.RecvMsg(&f); err != nil {
			return err
		}
		if err := note(f.Bytes); err != nil {
			return err
		}
		if err := to.SendMsg(&f); err != nil {
			return err
		}
	}
}

func (r *relay) response(b []byte) error {
	var response adswire.Response
	if err := response.Parse(b, true); err != nil {
		return err
	}
	if response.TypeURL == clusterURL {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.pushed[response.Nonce] = true
	}
	return nil
}

func (r *relay) request(b []byte) error {
	request, err := adswire.ParseDeltaRequest(b)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if request.TypeURL != clusterURL || !r.pushed[request.Nonce] {
		return nil
	}
	delete(r.pushed, request.Nonce)
	r.acks <- ack{at: time.Now(), nack: request.Nack}
	return nil
}

// next waits for the next ACK of clusters.
func (r *relay) next(ctx context.Context) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second) // twice what Envoy waits for endpoints
	defer cancel()
	select {
	case a := <-r.acks:
		if a.nack {
			return a.at, errors.New("Envoy rejected the clusters")
		}
		return a.at, nil
	case <-ctx.Done():
		return time.Time{}, errors.New("Envoy acknowledged no clusters within 30 seconds")
	}
}

func startRelay(f *fairlead, id loadrun.Identity) (*relay, net.Listener, func(), error) {
	pem, err := os.ReadFile(f.ca)
	if err != nil {
		return nil, nil, nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	key := aws.Credentials{AccessKeyID: id.AccessKeyID, SecretAccessKey: id.SecretAccessKey}
	upstream, err := grpc.NewClient("passthrough:///"+f.addr["xds"],
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12})),
		grpc.WithPerRPCCredentials(awsapi.StreamSigner{Region: region,
			Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return key, nil })}))
	if err != nil {
		return nil, nil, nil, err
	}
	r := &relay{upstream: upstream, pushed: map[string]bool{}, acks: make(chan ack, 64)}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, nil, err
	}
	server := grpc.NewServer(grpc.ForceServerCodecV2(adswire.Codec{}), grpc.UnknownServiceHandler(r.stream))
	go func() {
		if err := server.Serve(listener); err != nil {
			log.Printf("relay: %v", err)
		}
	}()
	return r, listener, func() {
		server.Stop()
		_ = upstream.Close() // it ends with us
	}, nil
}

// envoyAcks starts a real Envoy with a Cloud Map backend, changes that backend
// and returns how many ms after the API's answer Envoy acknowledged the changed
// cluster, for each of the rounds. Envoy acknowledges a changed EDS cluster only
// when it has its endpoints again.
func envoyAcks(ctx context.Context, w workplace, f *fairlead, rounds int) ([]float64, error) {
	ids, err := f.identities(ctx, 1, []string{narrator})
	if err != nil {
		return nil, err
	}
	r, listener, stop, err := startRelay(f, ids[0])
	if err != nil {
		return nil, err
	}
	defer stop()
	envoy, err := startEnvoy(w, listener.Addr().(*net.TCPAddr).Port)
	if err != nil {
		return nil, err
	}
	defer func() {
		_ = envoy.Process.Kill() // fails only if it has ended
		_ = envoy.Wait()         // it was killed
	}()
	if _, err := r.next(ctx); err != nil {
		return nil, err
	}
	var took []float64
	for round := range rounds {
		body := map[string]any{"spec": cloudSpec(int64(1000 + round))}
		if err := f.do(ctx, http.MethodPut, meshPath("/virtualNodes/"+cloud), body, nil); err != nil {
			return nil, err
		}
		answered := time.Now()
		at, err := r.next(ctx)
		if err != nil {
			return nil, err
		}
		took = append(took, max(0, float64(at.Sub(answered).Microseconds())/1000))
		fmt.Fprintf(w.progress, "real Envoy: cluster acknowledged %.1f ms after the answer\n", took[len(took)-1])
	}
	return took, nil
}

func startEnvoy(w workplace, relayPort int) (*exec.Cmd, error) {
	bootstrap := filepath.Join(w.out, "envoy.yaml")
	if err := os.WriteFile(bootstrap, []byte(fmt.Sprintf(`
node:
  id: %s
  cluster: bench
  metadata: {fairlead.bind_address: %s}
dynamic_resources:
  ads_config: {api_type: DELTA_GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: relay}}]}
  cds_config: {ads: {}, resource_api_version: V3}
  lds_config: {ads: {}, resource_api_version: V3}
static_resources:
  clusters:
  - name: relay
    type: STATIC
    connect_timeout: 5s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment:
      cluster_name: relay
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]
`, resourceOf(narrator), envoyAddress, relayPort)), 0o600); err != nil {
		return nil, err
	}
	output, err := os.Create(filepath.Join(w.out, "envoy.log"))
	if err != nil {
		return nil, err
	}
	defer output.Close() // Envoy has its own
	cmd := exec.Command(w.envoy, "-c", bootstrap, "--concurrency", "1", "--disable-hot-restart", "--log-level", "info")
	cmd.Stdout, cmd.Stderr = io.Discard, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start Envoy: %w", err)
	}
	return cmd, nil
}
