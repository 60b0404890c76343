package xds

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"math/big"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/envoy"
	"github.com/fairlead/fairlead/internal/mesh"
)

// kit is a view whose certificates are real, brought to one proxy.
type kit struct {
	t       *testing.T
	root    *ca.Authority
	view    *mesh.View
	graph   *mesh.Graph
	builder *envoy.Builder
}

func newKit(t *testing.T) *kit {
	k := &kit{t: t, root: newRoot(t), builder: envoy.NewBuilder()}
	k.view = view(demo, 10)
	k.view.Certificates = map[string]*mesh.Certificate{}
	k.view.Authorities = map[string]*mesh.Authority{authorityARN: {ARN: authorityARN, Roots: string(k.root.PEM())}}
	return k
}

func newRoot(t *testing.T) *ca.Authority {
	t.Helper()
	return must(ca.NewRoot("root of "+t.Name(), time.Now(), time.Hour))
}

// node adds a node with one http listener, whose certificate is of ACM.
func (k *kit) node(name string, port int64, arn string) *appmesh.VirtualNodeSpec {
	spec := &appmesh.VirtualNodeSpec{
		Listeners: []appmesh.Listener{{PortMapping: &appmesh.PortMapping{Port: port, Protocol: appmesh.PortProtocolHttp},
			TLS: &appmesh.ListenerTls{Mode: appmesh.ListenerTlsModeStrict, Certificate: &appmesh.ListenerTlsCertificate{
				ACM: &appmesh.ListenerTlsAcmCertificate{CertificateArn: arn}}}}},
		ServiceDiscovery: &appmesh.ServiceDiscovery{DNS: &appmesh.DnsServiceDiscovery{Hostname: "127.0.0.1"}},
	}
	k.view.VirtualNodes[name] = &mesh.Record[appmesh.VirtualNodeSpec]{Mesh: demo, ID: nodeID(name), Revision: 1, Spec: spec}
	return spec
}

// change is the next view: f changes its certificates and authorities.
func (k *kit) change(f func(*mesh.View)) {
	next := *k.view
	next.Revision++
	next.Certificates, next.Authorities = maps.Clone(next.Certificates), maps.Clone(next.Authorities)
	f(&next)
	k.view = &next
}

// issue puts a new certificate of a name and of 127.0.0.1 into a view, and returns its serial.
func (k *kit) issue(v *mesh.View, arn, name string) *big.Int {
	leaf := must(k.root.Issue(ca.Names{DNS: []string{name}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}}, time.Now(), 30*time.Minute))
	block, _ := pem.Decode(leaf.Chain)
	v.Certificates[arn] = &mesh.Certificate{ARN: arn, Revision: v.Revision, Chain: string(leaf.Chain), Key: api.NewSecret(string(leaf.Key)),
		Roots: string(k.root.PEM()), Root: authorityARN, Names: []string{name}}
	return must(x509.ParseCertificate(block.Bytes)).SerialNumber
}

// list is a CRL of the root, in PEM.
func (k *kit) list(revoked ...*big.Int) string {
	l := ca.CRL{ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour)}
	for _, serial := range revoked {
		l.Revoked = append(l.Revoked, ca.Revoked{Serial: serial, At: time.Now().Add(-time.Second), Reason: "KEY_COMPROMISE"})
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: must(k.root.SignCRL(l))}))
}

// bring publishes the view's configuration of a node and waits until its Envoy
// holds it.
func (k *kit) bring(e *realEnvoy, node string, shape envoy.Shape) {
	k.t.Helper()
	k.graph = mesh.Rebuild(k.graph, k.view)
	config, problems, err := k.builder.Build(k.graph, nodeID(node), shape)
	if err != nil || len(problems) > 0 {
		k.t.Fatal(problems, err)
	}
	e.feed.Publish(Target{Config: config})
	e.wait("settling", func() bool { return e.settle != nil && e.settle.Revision == config.Revision })
}

// TestEnvoyServesRenewedCertificate renews the certificate of a real Envoy: new
// connections get the new one, and one that is open goes on.
func TestEnvoyServesRenewedCertificate(t *testing.T) {
	for _, p := range []Protocol{Delta, StateOfTheWorld} {
		t.Run(string(p), func(t *testing.T) {
			k := newKit(t)
			arn, port := certificateARN("server"), freePort(t)
			k.node("server", int64(port), arn)
			serial := k.issue(k.view, arn, "server.apps.local")
			shape := envoy.Shape{Bind: "127.98.7.1", AppPorts: fmt.Sprintf("%d=%d", port, backend(t, "application"))}
			if p == StateOfTheWorld {
				shape.Bind = "127.98.7.2"
			}
			e := startEnvoy(t, p)
			k.bring(e, "server", shape)
			roots := x509.NewCertPool()
			roots.AddCert(k.root.Certificate)
			dial := func() *tls.Conn {
				t.Helper()
				conn := must(net.Dial("tcp", net.JoinHostPort(shape.Bind, strconv.Itoa(int(port)))))
				secured := tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: "server.apps.local"})
				t.Cleanup(func() { secured.Close() })
				if err := secured.Handshake(); err != nil {
					t.Fatal(err)
				}
				return secured
			}
			kept := dial()
			for range 5 {
				if got := dial().ConnectionState().PeerCertificates[0].SerialNumber; got.Cmp(serial) != 0 {
					t.Fatalf("it serves %x, not %x", got, serial)
				}
				ask(t, kept, "application")
				k.change(func(v *mesh.View) { serial = k.issue(v, arn, "server.apps.local") })
				k.bring(e, "server", shape)
			}
			ask(t, kept, "application")
			e.mu.Lock()
			defer e.mu.Unlock()
			for what, n := range e.sent {
				if n > 1 && !strings.HasPrefix(what, "route ") && !strings.HasPrefix(what, "secret ") && p == Delta {
					t.Errorf("%s was sent %d times", what, n)
				}
			}
		})
	}
}

// ask sends a request over a connection that stays open.
func ask(t *testing.T, conn net.Conn, want string) {
	t.Helper()
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: server\r\n\r\n")
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("a connection from before the renewal: %v", err)
	}
	defer response.Body.Close()
	if body := must(io.ReadAll(response.Body)); string(body) != want {
		t.Fatalf("got %q", body)
	}
}

// TestEnvoyRefusesRevoked connects a client's real Envoy to a server whose
// certificate is revoked, unrevoked, and loses its root: each shows with the next
// connection, also where the session before would be resumed.
func TestEnvoyRefusesRevoked(t *testing.T) {
	for _, policy := range []bool{true, false} {
		t.Run(fmt.Sprintf("policy=%v", policy), func(t *testing.T) {
			k := newKit(t)
			arn, name := certificateARN("server"), "server.apps.local"
			serial := k.issue(k.view, arn, name)
			k.node("server", int64(tlsBackend(t, k.view.Certificates[arn])), arn)
			client := k.node("client", 1024, arn)
			client.Listeners = nil
			client.Backends = []appmesh.Backend{{VirtualService: &appmesh.VirtualServiceBackend{VirtualServiceName: "svc"}}}
			if policy {
				client.Backends[0].VirtualService.ClientPolicy = &appmesh.ClientPolicy{TLS: &appmesh.ClientPolicyTls{Validation: &appmesh.TlsValidationContext{
					SubjectAlternativeNames: &appmesh.SubjectAlternativeNames{Match: &appmesh.SubjectAlternativeNameMatchers{Exact: []string{name}}},
					Trust: &appmesh.TlsValidationContextTrust{ACM: &appmesh.TlsValidationContextAcmTrust{
						CertificateAuthorityArns: []string{authorityARN}}}}}}
			}
			k.view.VirtualServices["svc"] = &mesh.Record[appmesh.VirtualServiceSpec]{Mesh: demo, ID: serviceID("svc"), Revision: 1,
				Spec: &appmesh.VirtualServiceSpec{Provider: &appmesh.VirtualServiceProvider{
					VirtualNode: &appmesh.VirtualNodeServiceProvider{VirtualNodeName: "server"}}}}
			shape := envoy.Shape{Bind: "127.98.7.3"}
			if policy {
				shape.Bind = "127.98.7.4"
			}
			e := startEnvoy(t, Delta)
			trust := func(roots, lists string) {
				t.Helper()
				k.change(func(v *mesh.View) {
					v.Authorities[authorityARN] = &mesh.Authority{ARN: authorityARN, Roots: roots, CRLs: lists}
					c := *v.Certificates[arn]
					c.Roots, c.CRLs = roots, lists
					v.Certificates[arn] = &c
				})
				k.bring(e, "client", shape)
			}
			expect := func(when string, status int) {
				t.Helper()
				if got := askHost(t, shape.Bind, "svc"); got != status {
					t.Errorf("%s: status %d, want %d", when, got, status)
				}
			}
			own, other := string(k.root.PEM()), string(newRoot(t).PEM())
			trust(own, k.list())
			eventually(t, "listening", func() bool {
				conn, err := net.Dial("tcp", shape.Bind+":15001")
				if err == nil {
					_ = conn.Close()
				}
				return err == nil
			})
			expect("nothing is revoked", 200)
			expect("again", 200)
			if n := e.counter("ssl.session_reused"); n == 0 {
				t.Error("no session was resumed: this tests nothing of resumption")
			}
			for range 2 {
				trust(own, k.list(serial))
				reused := e.counter("ssl.session_reused")
				expect("revoked", 503)
				expect("still revoked", 503)
				if n := e.counter("ssl.session_reused"); n != reused {
					t.Errorf("%d sessions were resumed after the revocation", n-reused)
				}
				trust(own, k.list(big.NewInt(7)))
				expect("not on the new list", 200)
			}
			trust(other, "")
			expect("the root is trusted no more", 503)
			trust(own+other, "")
			expect("both roots are trusted", 200)
		})
	}
}

// tlsBackend is a server that presents a certificate, resumes sessions, and ends
// each connection after one answer.
func tlsBackend(t *testing.T, c *mesh.Certificate) uint32 {
	t.Helper()
	pair := must(tls.X509KeyPair([]byte(c.Chain), []byte(c.Key.Reveal())))
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	s := &http.Server{ReadHeaderTimeout: 5 * time.Second, ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "hello")
	})}
	s.SetKeepAlivesEnabled(false)
	go func() { _ = s.Serve(tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{pair}})) }()
	t.Cleanup(func() { _ = s.Close() })
	return uint32(l.Addr().(*net.TCPAddr).Port)
}

// askHost asks an Envoy's egress for a host and returns the status.
func askHost(t *testing.T, bind, host string) int {
	t.Helper()
	r := must(http.NewRequest(http.MethodGet, "http://"+bind+":15001/", nil))
	r.Host = host
	response, err := (&http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	return response.StatusCode
}

// counter adds up the counters of Envoy with this ending.
func (e *realEnvoy) counter(ending string) (sum int) {
	e.t.Helper()
	response := must(e.admin.Get("http://envoy/stats?filter=" + ending))
	defer response.Body.Close()
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), ": "); ok && strings.HasSuffix(name, ending) {
			sum += must(strconv.Atoi(value))
		}
	}
	return sum
}
