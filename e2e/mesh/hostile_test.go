package mesh_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead/fairlead/internal/meshtest"
)

// impersonated is the name that hostile certificates are after. The victims
// accept it, and the SPIFFE id beside it.
const (
	impersonated = "a.mesh.local"
	spiffeID     = "spiffe://mesh.test/a"
)

// hostile is a certificate that is presented to both victims.
type hostile struct {
	name    string
	present func(*forge) *tls.Certificate
	// client and server are the counters with which the client's Envoy refuses it
	// of a server, and the server's Envoy of a client. Empty: it is accepted.
	client, server string
}

const (
	byNames = "fail_verify_san"
	byChain = "fail_verify_error"
)

func leafOf(change func(*x509.Certificate)) func(*forge) *tls.Certificate {
	return func(f *forge) *tls.Certificate { return f.leaf(change).pair() }
}

func underOf(change func(*x509.Certificate)) func(*forge) *tls.Certificate {
	return func(f *forge) *tls.Certificate { return f.below(change).pair() }
}

func usage(usages ...x509.ExtKeyUsage) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.ExtKeyUsage = usages }
}

// presented are good certificates first: what follows is refused for what it is.
var presented = []hostile{
	{"good", leafOf(nil), "", ""},
	{"good, by its SPIFFE id", leafOf(named(uriName, spiffeID)), "", ""},
	{"good, upper case", leafOf(named(dnsName, "A.Mesh.LOCAL")), "", ""},
	{"good, wildcard of a whole label", leafOf(named(dnsName, "*.mesh.local")), "", ""},
	{"good, under an authority", underOf(nil), "", ""},

	{"common name only", leafOf(commonNameOnly), byNames, byNames},
	{"bare wildcard", leafOf(named(dnsName, "*")), byNames, byNames},
	{"wildcard of the top level", leafOf(named(dnsName, "*.local")), byNames, byNames},
	{"wildcard at the end of a label", leafOf(named(dnsName, "a*.mesh.local")), byNames, byNames},
	{"wildcard at the beginning of a label", leafOf(named(dnsName, "*a.mesh.local")), byNames, byNames},
	{"wildcard in the second label", leafOf(named(dnsName, "a.*.local")), byNames, byNames},
	{"two wildcards", leafOf(named(dnsName, "*.*.local")), byNames, byNames},
	{"wildcard one level deeper", leafOf(named(dnsName, "*.a.mesh.local")), byNames, byNames},
	{"trailing dot", leafOf(named(dnsName, "a.mesh.local.")), byNames, byNames},
	{"trailing space", leafOf(named(dnsName, "a.mesh.local ")), byNames, byNames},
	{"name below", leafOf(named(dnsName, "x.a.mesh.local")), byNames, byNames},
	{"name above", leafOf(named(dnsName, "mesh.local")), byNames, byNames},
	{"name with more behind", leafOf(named(dnsName, "a.mesh.local.evil.test")), byNames, byNames},
	{"name with more before", leafOf(named(dnsName, "xa.mesh.local")), byNames, byNames},
	{"another character for the dot", leafOf(named(dnsName, "a-mesh.local")), byNames, byNames},
	{"Cyrillic a", leafOf(named(dnsName, "\u0430.mesh.local")), byNames, byNames},
	{"Cyrillic a in punycode", leafOf(named(dnsName, "xn--80a.mesh.local")), byNames, byNames},
	{"full-width a", leafOf(named(dnsName, "\uff41.mesh.local")), byNames, byNames},
	{"NUL in a host name", leafOf(named(dnsName, "a.mesh.local\x00.evil.test")), byNames, byNames},
	{"NUL at the end", leafOf(named(dnsName, "a.mesh.local\x00")), byNames, byNames},
	{"NUL in a URI", leafOf(named(uriName, spiffeID+"\x00.evil")), byNames, byNames},
	{"e-mail with the host name", leafOf(named(emailName, impersonated)), byNames, byNames},
	{"e-mail at the host name", leafOf(named(emailName, "x@"+impersonated)), byNames, byNames},
	{"URI with the host name", leafOf(named(uriName, impersonated)), byNames, byNames},
	{"URL at the host name", leafOf(named(uriName, "https://"+impersonated)), byNames, byNames},
	{"directory name with the host name", leafOf(named(dirName, impersonated)), byNames, byNames},
	{"IP address", leafOf(named(ipName, address4("127.0.0.1"))), byNames, byNames},
	{"SPIFFE id as a host name", leafOf(named(dnsName, spiffeID)), byNames, byNames},
	{"SPIFFE id with a longer path", leafOf(named(uriName, spiffeID+"/b")), byNames, byNames},
	{"SPIFFE id with a way back", leafOf(named(uriName, "spiffe://mesh.test/b/../a")), byNames, byNames},
	{"SPIFFE id, escaped", leafOf(named(uriName, "spiffe://mesh.test/%61")), byNames, byNames},
	{"SPIFFE id in another case", leafOf(named(uriName, "spiffe://mesh.test/A")), byNames, byNames},

	{"expired", leafOf(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), byChain, byChain},
	{"not yet valid", leafOf(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(5 * time.Minute) }), byChain, byChain},
	{"signed by itself", func(f *forge) *tls.Certificate { return f.sign(leafTemplate(), nil).pair() }, byChain, byChain},
	{"root of the same name, other key", func(f *forge) *tls.Certificate { return f.sign(leafTemplate(), f.impostor()).pair() }, byChain, byChain},
	{"changed after signing", (*forge).resigned, byChain, byChain},
	{"issuer missing", (*forge).withoutIssuer, byChain, byChain},
	{"issuer expired", underOf(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), byChain, byChain},
	{"signed by a leaf", func(f *forge) *tls.Certificate { return f.sign(leafTemplate(), f.leaf(nil)).pair() }, byChain, byChain},
	{"issuer is no authority", underOf(func(c *x509.Certificate) { c.IsCA = false; c.MaxPathLen = 0 }), byChain, byChain},
	{"issuer may not sign", underOf(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }), byChain, byChain},
	{"path too long", func(f *forge) *tls.Certificate {
		short := authorityTemplate("short")
		short.MaxPathLen, short.MaxPathLenZero = 0, true
		return f.sign(leafTemplate(), f.sign(authorityTemplate("issuing"), f.sign(short, f.root))).pair()
	}, byChain, byChain},
	{"name that its issuer may not sign", underOf(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"evil.test"} }), byChain, byChain},
	{"name that its issuer is denied", underOf(func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"mesh.local"} }), byChain, byChain},
	{"SPIFFE id that its issuer may not sign", func(f *forge) *tls.Certificate {
		issuer, leaf := authorityTemplate("issuing"), leafTemplate()
		issuer.PermittedURIDomains = []string{"evil.test"}
		named(uriName, spiffeID)(leaf)
		return f.sign(leaf, f.sign(issuer, f.root)).pair()
	}, byChain, byChain},
	{"unknown critical extension", leafOf(critical), byChain, byChain},
	{"unknown critical extension of the issuer", underOf(critical), byChain, byChain},
	{"for e-mail", leafOf(usage(x509.ExtKeyUsageEmailProtection)), byChain, byChain},
	{"issuer for e-mail", underOf(usage(x509.ExtKeyUsageEmailProtection)), byChain, byChain},
	{"for servers only", leafOf(usage(x509.ExtKeyUsageServerAuth)), "", byChain},
	{"for clients only", leafOf(usage(x509.ExtKeyUsageClientAuth)), byChain, ""},
}

// victims are a client's and a server's Envoy that trust one root and accept
// impersonated and spiffeID of each other.
type victims struct {
	t      *testing.T
	server *meshtest.Agent
	client caller
	trust  string // file
	roots  *x509.CertPool
	// rogue is what the client's Envoy takes for its server.
	rogue   atomic.Pointer[tls.Certificate]
	tickets atomic.Bool  // it lets sessions be resumed
	served  atomic.Int64 // requests that reached it
	resumed atomic.Int64 // of those, over a resumed session
}

func startVictims(t *testing.T, f *forge) *victims {
	t.Helper()
	v := &victims{t: t, trust: filepath.Join(t.TempDir(), "trust.pem"), roots: x509.NewCertPool()}
	v.roots.AppendCertsFromPEM(f.root.pem())
	write(t, v.trust, f.root.pem())
	good := f.leaf(nil)
	chain, key := filepath.Join(t.TempDir(), "chain.pem"), filepath.Join(t.TempDir(), "key.pem")
	write(t, chain, good.pem())
	write(t, key, keyPEM(t, good.key))
	s, n := meshtest.StartServer(t, meshtest.ServerOptions{}), meshtest.NewNetwork(t)
	names := sansYAML([]string{impersonated, spiffeID})
	certificate := fmt.Sprintf("certificate: {file: {certificateChain: %s, privateKey: %s}}", chain, key)
	validation := "validation: {trust: {file: {certificateChain: " + v.trust + "}}" + names + "}"
	node := func(name, tls string) string {
		return fmt.Sprintf("virtualNode: %[1]s\nspec:\n  listeners:\n  - portMapping: {port: 8080, protocol: http}\n    tls: {%[2]s}\n  serviceDiscovery: {dns: {hostname: %[1]s.local}}\n", name, tls)
	}
	s.Apply(t, "{mesh: m, spec: {}}\n---\n"+node("rogue", "mode: STRICT, "+certificate)+"\n---\n"+node("guard", "mode: STRICT, "+certificate+", "+validation)+
		serviceOf("rogue.local", "rogue")+"\n---\nvirtualNode: client\nspec:\n  backends:\n"+backend("rogue.local", validation))
	v.startRogue(n.Address(t, "rogue.local"))
	v.server = meshtest.StartAgent(t, s, meshtest.AgentOptions{Resource: "mesh/m/virtualNode/guard",
		Address: n.Address(t, "guard.local"), DNS: n.DNS.Address(), Apps: map[int]int{8080: meshtest.StartApp(t, "guard").Port}})
	v.client.proxy = meshtest.StartAgent(t, s, meshtest.AgentOptions{Resource: "mesh/m/virtualNode/client", Address: n.Address(t, ""), DNS: n.DNS.Address()})
	v.server.WaitReady(t)
	v.client.proxy.WaitReady(t)
	return v
}

// startRogue serves one request for each connection with the certificate of the
// moment.
func (v *victims) startRogue(address string) {
	v.t.Helper()
	listener := must[net.Listener](v.t)(net.Listen("tcp", address+":8080"))
	v.t.Cleanup(func() { listener.Close() }) //nolint:errcheck // ends with the test
	present := func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return v.rogue.Load(), nil }
	once, again := &tls.Config{GetCertificate: present, SessionTicketsDisabled: true}, &tls.Config{GetCertificate: present}
	config := &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		if v.tickets.Load() {
			return again, nil
		}
		return once, nil
	}}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // the test has ended
			}
			go func() {
				defer conn.Close()
				secured := tls.Server(conn, config)
				if n, err := secured.Read(make([]byte, 4096)); err != nil || n == 0 {
					return
				}
				v.served.Add(1)
				if secured.ConnectionState().DidResume {
					v.resumed.Add(1)
				}
				io.WriteString(secured, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nrogue") //nolint:errcheck // the client has gone
			}()
		}
	}()
}

// asServer shows a certificate to the client's Envoy.
func (v *victims) asServer(ctx context.Context, c *tls.Certificate) string {
	v.rogue.Store(c)
	return v.client.call(ctx, "http", "rogue.local", 8080)
}

// asClient shows a certificate to the server's Envoy.
func (v *victims) asClient(ctx context.Context, c *tls.Certificate, cache tls.ClientSessionCache) (answer string, resumed bool) {
	config := &tls.Config{RootCAs: v.roots, ServerName: impersonated, ClientSessionCache: cache,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c, nil }}
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", v.server.Options.Address+":8080")
	if err != nil {
		return "refused: " + err.Error(), false
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(15 * time.Second)) //nolint:errcheck // the read would last longer
	resumed = conn.(*tls.Conn).ConnectionState().DidResume
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: guard.local\r\nConnection: close\r\n\r\n"); err != nil {
		return "refused: " + err.Error(), resumed
	}
	answered, err := io.ReadAll(conn)
	switch {
	case strings.HasPrefix(string(answered), "HTTP/1.1 200"):
		return "200", resumed
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "silent", resumed
	case err != nil:
		return "refused: " + err.Error(), resumed
	}
	return "refused: " + string(answered), resumed
}

// refusals are the counters of refused certificates.
func (v *victims) refusals(proxy *meshtest.Agent, owner string) map[string]int64 {
	v.t.Helper()
	counters := must[map[string]int64](v.t)(proxy.Counters(v.t.Context(), `ssl\.(fail_verify|connection_error)`))
	out := map[string]int64{}
	for name, n := range counters {
		if rest, ok := strings.CutPrefix(name, owner+".ssl."); ok {
			out[rest] = n
		}
	}
	return out
}

// TestHostileCertificates presents certificates that must be refused to a
// client's and to a server's Envoy, and wants the counter that tells why.
func TestHostileCertificates(t *testing.T) {
	f := newForge(t)
	v := startVictims(t, f)
	waitAnswer(t, func(ctx context.Context) string { return v.asServer(ctx, f.leaf(nil).pair()) }, "200 rogue")
	refused := 0
	for _, h := range presented {
		t.Run(h.name, func(t *testing.T) {
			c := h.present(f)
			served, before := v.served.Load(), v.refusals(v.client.proxy, "cluster.cds_egress_m_rogue_http_8080")
			answer := v.asServer(t.Context(), c)
			v.wantRefusal(t, "server", answer, h.client, before, v.refusals(v.client.proxy, "cluster.cds_egress_m_rogue_http_8080"))
			if h.client != "" && v.served.Load() != served {
				t.Error("the server with it got a request")
			}
			before = v.refusals(v.server, "listener.0.0.0.0_15000")
			answer, _ = v.asClient(t.Context(), c, nil)
			v.wantRefusal(t, "client", answer, h.server, before, v.refusals(v.server, "listener.0.0.0.0_15000"))
		})
		if h.client != "" || h.server != "" {
			refused++
		}
	}
	t.Logf("%d hostile certificates, in both directions", refused)
}

func (v *victims) wantRefusal(t *testing.T, side, answer, counter string, before, after map[string]int64) {
	t.Helper()
	if counter == "" {
		if !strings.HasPrefix(answer, "200") {
			t.Errorf("the %s with it is answered %q (%v, then %v)", side, answer, before, after)
		}
		return
	}
	if answer != "503" && !strings.HasPrefix(answer, "refused") {
		t.Errorf("the %s with it is answered %q", side, answer)
	}
	if after[counter] <= before[counter] {
		t.Errorf("the %s with it: %s has not counted: %v, then %v", side, counter, before, after)
	}
}
