package pki

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	awscreds "github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/acmpca"
	pca "github.com/aws/aws-sdk-go-v2/service/acmpca/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/meshtest"
	"github.com/fairlead/fairlead/internal/tlspolicy"
	"github.com/fairlead/fairlead/internal/xds"
)

const (
	blueID   = "spiffe://m.fairlead/mesh/m/virtualNode/blue"
	clientID = "spiffe://m.fairlead/mesh/m/virtualNode/client"
)

// ownMesh has a server that wants certificates of its clients, both ends with
// Fairlead's own SDS: no file, no provider.
const ownMesh = `{mesh: m, spec: {}}
---
virtualNode: blue
spec:
  listeners:
  - portMapping: {port: 8080, protocol: http}
    tls:
      mode: STRICT
      certificate: {sds: {secretName: "` + blueID + `"}}
      validation:
        trust: {sds: {secretName: "spiffe://m.fairlead"}}
        subjectAlternativeNames: {match: {exact: ["` + clientID + `"]}}
  serviceDiscovery: {dns: {hostname: blue.local}}
---
virtualService: blue.local
spec: {provider: {virtualNode: {virtualNodeName: blue}}}
---
virtualNode: client
spec:
  backends:
  - virtualService:
      virtualServiceName: blue.local
      clientPolicy:
        tls:
          certificate: {sds: {secretName: "` + clientID + `"}}
          validation:
            trust: {sds: {secretName: "spiffe://m.fairlead"}}
            subjectAlternativeNames: {match: {exact: ["` + blueID + `"]}}
`

// openOwn starts both ends. Their certificates live for so long.
func openOwn(t *testing.T, life, specs string) *shop {
	s := &shop{t: t, server: meshtest.StartServer(t, meshtest.ServerOptions{Args: []string{"--own-certificate-life", life}}), roots: x509.NewCertPool()}
	n := meshtest.NewNetwork(t)
	app := meshtest.StartApp(t, "blue")
	s.server.Apply(t, specs)
	s.blue = meshtest.StartAgent(t, s.server, meshtest.AgentOptions{Resource: "mesh/m/virtualNode/blue",
		Address: n.Address(t, "blue.local"), Apps: map[int]int{8080: app.Port}, DNS: n.DNS.Address()})
	s.client = meshtest.StartAgent(t, s.server, meshtest.AgentOptions{Resource: "mesh/m/virtualNode/client",
		Address: n.Address(t, "client.local"), DNS: n.DNS.Address()})
	s.blue.WaitReady(t)
	s.client.WaitReady(t)
	s.root = s.ownAuthority()
	own := must[*acmpca.GetCertificateAuthorityCertificateOutput](t)(client(t, s.server).GetCertificateAuthorityCertificate(t.Context(),
		&acmpca.GetCertificateAuthorityCertificateInput{CertificateAuthorityArn: &s.root}))
	s.roots.AppendCertsFromPEM([]byte(*own.Certificate))
	return s
}

// ownAuthority is the ARN of the one authority, which Fairlead has made itself.
func (s *shop) ownAuthority() string {
	s.t.Helper()
	list := must[*acmpca.ListCertificateAuthoritiesOutput](s.t)(client(s.t, s.server).ListCertificateAuthorities(s.t.Context(), &acmpca.ListCertificateAuthoritiesInput{}))
	if len(list.CertificateAuthorities) != 1 || list.CertificateAuthorities[0].Status != pca.CertificateAuthorityStatusActive {
		s.t.Fatalf("authorities: %+v", list.CertificateAuthorities)
	}
	return *list.CertificateAuthorities[0].Arn
}

// shown is the certificate that blue shows to a client without one, which it
// then refuses.
func (s *shop) shown(ctx context.Context) (*x509.Certificate, error) {
	conn, err := (&tls.Dialer{Config: &tls.Config{RootCAs: s.roots, ServerName: "blue.local"}}).DialContext(ctx, "tcp", s.blue.Options.Address+":8080")
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// held is the serial number of the certificate that an agent's Envoy has.
func held(ctx context.Context, a *meshtest.Agent, uri string) (*big.Int, error) {
	text, err := a.Admin(ctx, "/certs")
	if err != nil {
		return nil, err
	}
	var all struct {
		Certificates []struct {
			Chain []struct {
				Serial string `json:"serial_number"`
				SANs   []struct {
					URI string `json:"uri"`
				} `json:"subject_alt_names"`
			} `json:"cert_chain"`
		}
	}
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		return nil, err
	}
	for _, c := range all.Certificates {
		for _, leaf := range c.Chain {
			if len(leaf.SANs) > 0 && leaf.SANs[0].URI == uri {
				n, _ := new(big.Int).SetString(leaf.Serial, 16)
				return n, nil
			}
		}
	}
	return nil, fmt.Errorf("no certificate of %s in %.2000s", uri, text)
}

func (s *shop) asks(when, answer string) {
	s.t.Helper()
	meshtest.Eventually(s.t, within, func(ctx context.Context) error {
		if got := s.call(ctx, "blue.local"); got != answer {
			return fmt.Errorf("%s: blue.local answers %q, want %q", when, got, answer)
		}
		return nil
	})
}

// TestOwnSDS has two real Envoys speak mutual TLS with certificates that their
// agents were issued; renews them under load, without and with the server; and
// gives them to a restarted Envoy.
func TestOwnSDS(t *testing.T) {
	s := openOwn(t, "20s", ownMesh)
	s.asks("at first", "blue")
	meshtest.Eventually(t, within, func(ctx context.Context) error {
		s.call(ctx, "blue.local")
		edges, err := s.server.Edges(t, "m")
		if err != nil || len(edges) != 1 || edges[0].Verdict != tlspolicy.VerdictMutual || !edges[0].Observed {
			return fmt.Errorf("edges: %+v, %w", edges, err)
		}
		return nil
	})
	leaf := must[*x509.Certificate](t)(s.shown(t.Context()))
	if !slices.Equal(leaf.DNSNames, []string{"blue.local"}) || len(leaf.URIs) != 1 || leaf.URIs[0].String() != blueID {
		t.Errorf("blue's certificate is of %v and %v", leaf.DNSNames, leaf.URIs)
	}

	var total atomic.Int64
	var failed sync.Map
	stop := make(chan struct{})
	var worker sync.WaitGroup
	worker.Go(func() {
		pause := time.NewTicker(5 * time.Millisecond)
		defer pause.Stop()
		for {
			if got := s.call(t.Context(), "blue.local"); got != "blue" {
				failed.Store(got, total.Load())
			}
			total.Add(1)
			select {
			case <-stop:
				return
			case <-pause.C:
			}
		}
	})
	for range 2 {
		meshtest.Eventually(t, within, func(ctx context.Context) error {
			next, err := s.shown(ctx)
			if err == nil && next.SerialNumber.Cmp(leaf.SerialNumber) == 0 {
				return fmt.Errorf("blue still shows %x", next.SerialNumber)
			}
			if err == nil {
				leaf = next
			}
			return err
		})
	}
	// Without the server the last certificate stays; with it again there is a new one.
	s.server.KillAll()
	s.asks("without the server", "blue")
	s.server.Restart(t)
	meshtest.Eventually(t, within, func(ctx context.Context) error {
		next, err := s.shown(ctx)
		if err == nil && next.SerialNumber.Cmp(leaf.SerialNumber) == 0 {
			return fmt.Errorf("blue still shows %x", next.SerialNumber)
		}
		return err
	})
	close(stop)
	worker.Wait()
	failed.Range(func(answer, at any) bool {
		t.Errorf("request %d was answered %q", at, answer)
		return true
	})
	t.Logf("%d requests", total.Load())
	if got := s.ownAuthority(); got != s.root {
		t.Errorf("the authority is %s after a restart, was %s", got, s.root)
	}
	s.restartEnvoy()
	s.asks("after Envoy's death", "blue")
	for _, agent := range []*meshtest.Agent{s.blue, s.client} {
		text, err := os.ReadFile(agent.Options.StateDir + "/config.json")
		if err != nil || strings.Contains(string(text), "PRIVATE") {
			t.Errorf("the state of %s: %v", agent.Name, err)
		}
	}
}

// TestOwnSDSWithoutPolicy: a client without a policy verifies such a server by the
// mesh's authority and the discovery name.
func TestOwnSDSWithoutPolicy(t *testing.T) {
	s := openOwn(t, "10m", `{mesh: m, spec: {}}
---
virtualNode: blue
spec:
  listeners: [{portMapping: {port: 8080, protocol: http}, tls: {mode: STRICT, certificate: {sds: {secretName: "spiffe://m.fairlead/blue"}}}}]
  serviceDiscovery: {dns: {hostname: blue.local}}
---
virtualService: blue.local
spec: {provider: {virtualNode: {virtualNodeName: blue}}}
---
virtualNode: client
spec: {backends: [{virtualService: {virtualServiceName: blue.local}}]}
`)
	s.asks("at first", "blue")
	meshtest.Eventually(t, within, func(ctx context.Context) error {
		s.call(ctx, "blue.local")
		edges, err := s.server.Edges(t, "m")
		if err != nil || len(edges) != 1 || edges[0].Verdict != tlspolicy.VerdictVerified || !edges[0].Observed {
			return fmt.Errorf("edges: %+v, %w", edges, err)
		}
		return nil
	})
	leaf := must[*x509.Certificate](t)(s.shown(t.Context()))
	s.revoke(leaf.SerialNumber)
	s.restartEnvoy()
	s.asks("revoked", "503")
}

// TestOwnSDSRefusesRevoked revokes a client's certificate: the server refuses it
// on the next connection. The next certificate heals the edge.
func TestOwnSDSRefusesRevoked(t *testing.T) {
	s := openOwn(t, "10m", ownMesh)
	s.asks("at first", "blue")
	serial := must[*big.Int](t)(held(t.Context(), s.client, clientID))
	s.revoke(serial)
	began := time.Now()
	s.restartEnvoy() // connections that stand are not looked at again
	s.asks("revoked", "503")
	t.Logf("refused %s after the revocation, Envoy's restart included", time.Since(began))
	if out, err := s.server.Fairlead(t, "ca", "unrevoke", s.root+"/certificate/"+hex.EncodeToString(serial.Bytes())); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.asks("taken back", "blue")
	s.revoke(serial)
	s.restartEnvoy()
	s.asks("revoked again", "503")
	s.client.KillAll() // its next life makes a new key
	s.client.Start(t)
	s.client.WaitReady(t)
	s.asks("with a new certificate", "blue")
	if now := must[*big.Int](t)(held(t.Context(), s.client, clientID)); now.Cmp(serial) == 0 {
		t.Errorf("a new agent has the old certificate %x", now)
	}
}

// TestOwnSDSAttackers asks with the key of one proxy for what is another's.
func TestOwnSDSAttackers(t *testing.T) {
	s := openOwn(t, "10m", ownMesh)
	key := s.server.ProxyCredentials(t, "mesh/m/virtualNode/client")
	ask := func(resource, secret, csr string) (xds.Issued, error) {
		return askIssue(t, s.server, key, resource, secret, csr)
	}
	mine := mesh.OwnCertificate{URI: clientID}.SecretName()
	forged := csrFor(t, elliptic.P256(), &x509.CertificateRequest{Subject: pkix.Name{CommonName: "blue.local"}, DNSNames: []string{"blue.local"}, URIs: []*url.URL{must[*url.URL](t)(url.Parse(blueID))}})

	issued, err := ask("mesh/m/virtualNode/client", mine, forged)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(issued.Chain))
	leaf := must[*x509.Certificate](t)(x509.ParseCertificate(block.Bytes))
	if len(leaf.DNSNames) != 0 || len(leaf.URIs) != 1 || leaf.URIs[0].String() != clientID || len(leaf.Subject.Names) != 0 || leaf.IsCA {
		t.Errorf("a CSR with blue's names got a certificate of %v %v %v", leaf.Subject, leaf.DNSNames, leaf.URIs)
	}
	blue := mesh.OwnCertificate{URI: blueID, DNS: "blue.local"}.SecretName()
	tampered := []byte(forged)
	tampered[len(tampered)/2] ^= 1
	for name, c := range map[string]struct {
		resource, secret, csr string
		want                  codes.Code
	}{
		"another's secret":                     {"mesh/m/virtualNode/client", blue, forged, codes.FailedPrecondition},
		"another's resource":                   {"mesh/m/virtualNode/blue", blue, forged, codes.PermissionDenied},
		"its own name with another's DNS name": {"mesh/m/virtualNode/client", mesh.OwnCertificate{URI: clientID, DNS: "blue.local"}.SecretName(), forged, codes.FailedPrecondition},
		"a name that no spec has":              {"mesh/m/virtualNode/client", mesh.OwnCertificate{URI: "spiffe://m.fairlead/admin"}.SecretName(), forged, codes.FailedPrecondition},
		"the trust bundle":                     {"mesh/m/virtualNode/client", mesh.OwnCertificate{URI: "spiffe://m.fairlead"}.SecretName(), forged, codes.FailedPrecondition},
		"a broken signature":                   {"mesh/m/virtualNode/client", mine, string(tampered), codes.InvalidArgument},
		"a large key":                          {"mesh/m/virtualNode/client", mine, csrFor(t, elliptic.P521(), &x509.CertificateRequest{}), codes.InvalidArgument},
		"much":                                 {"mesh/m/virtualNode/client", mine, strings.Repeat("x", 1<<20), codes.InvalidArgument},
	} {
		if _, err := ask(c.resource, c.secret, c.csr); status.Code(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	// Whoever asks without end is throttled, and the others are not.
	meshtest.Eventually(t, within, func(context.Context) error {
		if _, err := ask("mesh/m/virtualNode/client", blue, forged); status.Code(err) != codes.ResourceExhausted {
			return fmt.Errorf("not throttled: %w", err)
		}
		return nil
	})
	s.client.KillAll()
	s.client.Start(t)
	s.client.WaitReady(t)
	s.asks("beside an attacker", "blue")

	// In the spec, too, a name of the reserved form is its endpoint's alone.
	s.server.Apply(t, `virtualNode: thief
mesh: m
spec: {backendDefaults: {clientPolicy: {tls: {certificate: {sds: {secretName: "`+blueID+`"}}, validation: {trust: {sds: {secretName: "spiffe://m.fairlead"}}}}}}}
`)
	thief := s.server.ProxyCredentials(t, "mesh/m/virtualNode/thief")
	if _, err := askIssue(t, s.server, thief, "mesh/m/virtualNode/thief", mesh.OwnCertificate{URI: blueID}.SecretName(), forged); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("a spec with another's name: %v", err)
	}
}

func csrFor(t *testing.T, curve elliptic.Curve, r *x509.CertificateRequest) string {
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(curve, rand.Reader))
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: must[[]byte](t)(x509.CreateCertificateRequest(rand.Reader, r, key))}))
}

// askIssue is the agent's call, made by whoever has a key.
func askIssue(t *testing.T, s *meshtest.Server, key meshtest.Key, resource, secret, csr string) (issued xds.Issued, err error) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(must[[]byte](t)(os.ReadFile(s.CA())))
	conn := must[*grpc.ClientConn](t)(grpc.NewClient(s.XDS, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots})),
		grpc.WithPerRPCCredentials(awsapi.StreamSigner{Credentials: awscreds.NewStaticCredentialsProvider(key.ID, key.Secret, ""), Region: "us-east-1"})))
	defer conn.Close()
	stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, awsapi.IssueCertificate)
	if err != nil {
		return issued, err
	}
	text := must[[]byte](t)(json.Marshal(xds.IssueRequest{Resource: resource, Secret: secret, CSR: csr}))
	stream.SendMsg(wrapperspb.Bytes(text)) //nolint:errcheck // RecvMsg says why
	var answer wrapperspb.BytesValue
	if err := stream.RecvMsg(&answer); err != nil {
		return issued, err
	}
	return issued, json.Unmarshal(answer.GetValue(), &issued)
}
