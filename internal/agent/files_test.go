package agent

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead/fairlead/internal/envoy"
	"github.com/fairlead/fairlead/internal/xds"
)

// TestFilesThatCannotBeServed: the status says which file it is and what is wrong.
func TestFilesThatCannotBeServed(t *testing.T) {
	authority, dir := newAuthority(t), t.TempDir()
	chain, key := certificate(t, authority, dir, "node.local")
	_, otherKey := certificate(t, authority, t.TempDir(), "other.local")
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	empty, large := file("empty", ""), file("large", strings.Repeat("x", maxSecretFile+1))
	damaged := file("damaged", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	locked := file("locked", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
	for _, test := range []struct {
		name string
		want string // empty: it can be served
	}{
		{envoy.FileCertificateName(chain, key), ""},
		{envoy.FileTrustName(chain), ""},
		{envoy.FileCertificateName("/nowhere/chain.pem", key), "open /nowhere/chain.pem: no such file or directory"},
		{envoy.FileCertificateName(chain, "/nowhere/key.pem"), "open /nowhere/key.pem: no such file or directory"},
		{envoy.FileCertificateName(chain, otherKey), otherKey + " does not belong to " + chain},
		{envoy.FileCertificateName(chain, chain), chain + " does not belong to " + chain},
		{envoy.FileCertificateName(chain, locked), locked + ": the private key has a passphrase, which Envoy cannot ask for"},
		{envoy.FileCertificateName(empty, key), empty + ": it holds no certificate in PEM"},
		{envoy.FileTrustName(damaged), damaged + ": certificate 1: "},
		{envoy.FileTrustName(large), large + " is larger than"},
		{envoy.FileTrustName(dir), "is a directory"},
	} {
		f := newFileSecrets(time.Now, discard())
		f.want([]string{test.name})
		s := f.states()[0]
		if s.Loaded != (test.want == "") || !strings.Contains(s.Problem, test.want) || (test.want == "") != (s.Problem == "") {
			t.Errorf("%s: %+v, want %q", test.name, s, test.want)
		}
	}
	later := newFileSecrets(func() time.Time { return time.Now().Add(2 * time.Hour) }, discard())
	later.want([]string{envoy.FileCertificateName(chain, key)})
	if s := later.states()[0]; !s.Loaded || !strings.Contains(s.Problem, chain+" has expired at ") {
		t.Errorf("expired: %+v", s)
	}
}

// TestSDS speaks both forms of the protocol with the agent: a secret that is not
// there, then is, then is another.
func TestSDS(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	files := newFileSecrets(time.Now, discard())
	server := grpc.NewServer(xds.ServerOptions()...)
	secretv3.RegisterSecretDiscoveryServiceServer(server, &sdsServer{files: files})
	go server.Serve(listener) //nolint:errcheck // ends with Stop
	defer server.Stop()
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := secretv3.NewSecretDiscoveryServiceClient(conn)

	authority, dir := newAuthority(t), t.TempDir()
	chain, key := filepath.Join(dir, "chain.pem"), filepath.Join(dir, "key.pem")
	name := envoy.FileCertificateName(chain, key)
	files.want([]string{name})
	delta, err := client.DeltaSecrets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	asEnvoy, gone := context.WithCancel(t.Context())
	defer gone()
	sotw, err := client.StreamSecrets(asEnvoy)
	if err != nil {
		t.Fatal(err)
	}
	held := func(want bool) {
		t.Helper()
		eventually(t, 5*time.Second, func() error {
			if s := files.states()[0]; s.Held != want {
				return fmt.Errorf("held: %t, want %t", s.Held, want)
			}
			return nil
		})
	}
	if err := delta.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: envoy.Secret.URL(), ResourceNamesSubscribe: []string{name, "unknown"}}); err != nil {
		t.Fatal(err)
	}
	if err := sotw.Send(&discoveryv3.DiscoveryRequest{TypeUrl: envoy.Secret.URL(), ResourceNames: []string{name}}); err != nil {
		t.Fatal(err)
	}
	response, err := delta.Recv()
	if err != nil || len(response.Resources) > 0 || fmt.Sprint(response.RemovedResources) != fmt.Sprint([]string{name, "unknown"}) {
		t.Fatalf("what is not there: %v %v", response, err)
	}
	served := func(packed *anypb.Any) string {
		var secret tlsv3.Secret
		if err := packed.UnmarshalTo(&secret); err != nil || secret.Name != name || len(secret.GetTlsCertificate().GetPrivateKey().GetInlineBytes()) == 0 {
			t.Fatalf("%v %v", &secret, err)
		}
		certificates, err := parseCertificates(secret.GetTlsCertificate().GetCertificateChain().GetInlineBytes())
		if err != nil {
			t.Fatal(err)
		}
		return certificates[0].DNSNames[0]
	}
	for _, subject := range []string{"first.local", "second.local"} {
		certificate(t, authority, dir, subject)
		files.reload()
		if response, err = delta.Recv(); err != nil || len(response.Resources) != 1 || served(response.Resources[0].Resource) != subject {
			t.Fatalf("delta: %v %v", response, err)
		}
		all, err := sotw.Recv()
		if err != nil || len(all.Resources) != 1 || served(all.Resources[0]) != subject {
			t.Fatalf("state of the world: %v %v", all, err)
		}
		if s := files.states()[0]; !s.Loaded || s.Held != (subject == "second.local") {
			t.Errorf("%s was sent and not acknowledged: %+v", subject, s)
		}
		if err := sotw.Send(&discoveryv3.DiscoveryRequest{TypeUrl: all.TypeUrl, ResourceNames: []string{name}, ResponseNonce: all.Nonce, VersionInfo: all.VersionInfo}); err != nil {
			t.Fatal(err)
		}
		held(true)
	}
	// The stream of delta has acknowledged nothing; with the other one Envoy goes.
	gone()
	held(false)
	if err := delta.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: response.TypeUrl, ResponseNonce: response.Nonce, ErrorDetail: &status.Status{Message: "no good"}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, func() error {
		if s := files.states()[0]; s.Loaded || s.Problem != "Envoy refuses it: no good" {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
}
