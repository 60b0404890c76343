package mesh_test

import (
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead/fairlead/internal/meshtest"
)

// provider is an SDS provider of somebody else's on a Unix socket, as SPIRE is
// one: what APPMESH_SDS_SOCKET_PATH names. It serves secrets as they are put.
type provider struct {
	secretv3.UnimplementedSecretDiscoveryServiceServer
	socket string

	mu      sync.Mutex
	secrets map[string]*tlsv3.Secret
	changed chan struct{} // closed at the next put
}

func startProvider(t *testing.T) *provider {
	t.Helper()
	dir, err := os.MkdirTemp("", "sds") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) }) //nolint:errcheck // ends with the test
	p := &provider{socket: filepath.Join(dir, "s"), secrets: map[string]*tlsv3.Secret{}, changed: make(chan struct{})}
	listener, err := net.Listen("unix", p.socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	secretv3.RegisterSecretDiscoveryServiceServer(server, p)
	go server.Serve(listener) //nolint:errcheck // it ends with Stop
	t.Cleanup(server.Stop)
	return p
}

// certificate puts a certificate and its key under a name.
func (p *provider) certificate(name string, chain, key []byte) {
	p.put(&tlsv3.Secret{Name: name, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
		CertificateChain: inline(chain), PrivateKey: inline(key)}}})
}

// pair puts a certificate from files under a name.
func (p *provider) pair(t *testing.T, name string, c meshtest.Certificate) {
	t.Helper()
	p.certificate(name, content(t, c.Chain), content(t, c.Key))
}

// trust puts roots under a name.
func (p *provider) trust(name string, roots []byte) {
	p.put(&tlsv3.Secret{Name: name, Type: &tlsv3.Secret_ValidationContext{
		ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: inline(roots)}}})
}

func (p *provider) put(secret *tlsv3.Secret) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.secrets[secret.Name] = secret
	close(p.changed)
	p.changed = make(chan struct{})
}

func inline(content []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: content}}
}

func content(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// StreamSecrets answers each stream with what it names, and again when that has
// changed.
func (p *provider) StreamSecrets(stream secretv3.SecretDiscoveryService_StreamSecretsServer) error {
	requests, failed := make(chan *discoveryv3.DiscoveryRequest), make(chan error, 1)
	go func() {
		for {
			r, err := stream.Recv()
			if err != nil {
				failed <- err
				return
			}
			select {
			case requests <- r:
			case <-stream.Context().Done():
				return
			}
		}
	}()
	var names []string
	sent := map[string]*tlsv3.Secret{}
	for {
		p.mu.Lock()
		changed, response := p.changed, &discoveryv3.DiscoveryResponse{VersionInfo: "1", Nonce: "1", TypeUrl: "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"}
		for _, name := range names {
			if secret := p.secrets[name]; secret != nil && sent[name] != secret {
				packed, err := anypb.New(secret)
				if err != nil {
					p.mu.Unlock()
					return err
				}
				response.Resources, sent[name] = append(response.Resources, packed), secret
			}
		}
		p.mu.Unlock()
		if len(response.Resources) > 0 {
			if err := stream.Send(response); err != nil {
				return err
			}
		}
		select {
		case r := <-requests:
			names = r.GetResourceNames()
		case <-changed:
		case <-failed:
			return nil
		}
	}
}
