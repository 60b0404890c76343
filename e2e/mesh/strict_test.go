package mesh_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead/fairlead/internal/meshtest"
)

// TestSessionAfterTrust: once a root is no longer trusted, no session from before
// is resumed. A client's Envoy resumes one until then; a server's that validates
// its clients never does, for that would skip the validation.
func TestSessionAfterTrust(t *testing.T) {
	f, other := newForge(t), newForge(t)
	v := startVictims(t, f)
	v.tickets.Store(true)
	trust := func(roots ...[]byte) {
		write(t, v.trust+".new", bytes.Join(roots, nil))
		if err := os.Rename(v.trust+".new", v.trust); err != nil {
			t.Fatal(err)
		}
	}
	trust(f.root.pem(), other.root.pem())
	theirs, cache := other.leaf(nil).pair(), tls.NewLRUClientSessionCache(1)
	both := func(ctx context.Context) string {
		client, resumed := v.asClient(ctx, theirs, cache)
		if resumed {
			t.Error("the server's Envoy resumes a session without validating")
		}
		client, _, _ = strings.Cut(client, ":")
		return v.asServer(ctx, theirs) + ", " + client
	}
	waitAnswer(t, both, "200 rogue, 200")
	meshtest.Eventually(t, within, func(ctx context.Context) error {
		if got := both(ctx); got != "200 rogue, 200" || v.resumed.Load() == 0 {
			return fmt.Errorf("answered %q, %d sessions resumed", got, v.resumed.Load())
		}
		return nil
	})
	trust(f.root.pem())
	waitAnswer(t, both, "503, refused")
	served := v.served.Load()
	for range 5 {
		if got := both(t.Context()); got != "503, refused" || v.served.Load() != served {
			t.Errorf("after its root is gone: answered %q", got)
		}
	}
	if answer, _ := v.asClient(t.Context(), f.leaf(nil).pair(), nil); answer != "200" {
		t.Errorf("a client whose root is trusted is answered %q", answer)
	}
}

// tap passes connections on and keeps every byte of both directions.
type tap struct {
	mu   sync.Mutex
	seen bytes.Buffer
}

func (p *tap) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen.Write(b)
}

func (p *tap) holds(text string) (found bool, size int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bytes.Contains(p.seen.Bytes(), []byte(text)), p.seen.Len()
}

func startTap(t *testing.T, address, to string) *tap {
	t.Helper()
	listener := must[net.Listener](t)(net.Listen("tcp", address))
	t.Cleanup(func() { listener.Close() }) //nolint:errcheck // ends with the test
	p := &tap{}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // the test has ended
			}
			go p.pass(conn, to)
		}
	}()
	return p
}

func (p *tap) pass(client net.Conn, to string) {
	defer client.Close()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return // the client sees it
	}
	defer server.Close()
	go func() {
		io.Copy(io.MultiWriter(server, p), client) //nolint:errcheck // ends with either
		server.(*net.TCPConn).CloseWrite()         //nolint:errcheck // it has gone
	}()
	io.Copy(io.MultiWriter(client, p), server) //nolint:errcheck // ends with either
}

// TestStrictOnTheWire puts a tap between two proxies: it sees all of a plaintext
// request, and no byte of one over a STRICT edge. A plaintext client is refused on
// the raw socket, and the counters of the App Mesh page stand at zero.
func TestStrictOnTheWire(t *testing.T) {
	const canary = "canary-payload-5b1f"
	s, n := meshtest.StartServer(t, meshtest.ServerOptions{}), meshtest.NewNetwork(t)
	authority := meshtest.NewAuthority(t, "mesh")
	tlsOf := map[string]string{"strict": "{mode: STRICT, certificate: " + fileYAML(authority.Issue(t, "strict.local")) + "}", "plain": ""}
	s.Apply(t, "{mesh: m, spec: {}}")
	taps, proxies, client := map[string]*tap{}, map[string]*meshtest.Agent{}, "virtualNode: client\nspec:\n  backends:\n"
	for _, name := range []string{"strict", "plain"} {
		listener := "  - portMapping: {port: 8080, protocol: http}\n"
		if tlsOf[name] != "" {
			listener += "    tls: " + tlsOf[name] + "\n"
		}
		s.Apply(t, fmt.Sprintf("{mesh: m, spec: {}}\n---\nvirtualNode: %[1]s\nspec:\n  listeners:\n%[2]s  serviceDiscovery: {dns: {hostname: %[1]s.local}}%[3]s",
			name, listener, serviceOf(name+".local", name)))
		policy := ""
		if name == "strict" {
			policy = "validation: {trust: {file: {certificateChain: " + authority.Root + "}}}"
		}
		client += backend(name+".local", policy)
		address := n.Address(t, "")
		taps[name] = startTap(t, n.Address(t, name+".local")+":8080", address+":8080")
		proxies[name] = meshtest.StartAgent(t, s, meshtest.AgentOptions{Resource: "mesh/m/virtualNode/" + name, Address: address,
			DNS: n.DNS.Address(), Apps: map[int]int{8080: meshtest.StartApp(t, name).Port}})
	}
	s.Apply(t, "{mesh: m, spec: {}}\n---\n"+client)
	caller := meshtest.StartAgent(t, s, meshtest.AgentOptions{Resource: "mesh/m/virtualNode/client", Address: n.Address(t, ""), DNS: n.DNS.Address()})
	caller.WaitReady(t)
	for _, name := range []string{"strict", "plain"} {
		proxies[name].WaitReady(t)
		waitAnswer(t, func(ctx context.Context) string {
			return callHTTP(ctx, "http", caller.At(15001, "/"+canary), name+".local", http.Header{"X-Canary": {canary}})
		}, "200 "+name)
		found, size := taps[name].holds(canary)
		if found != (name == "plain") || size == 0 {
			t.Errorf("%s: the payload is on the wire: %t, of %d bytes", name, found, size)
		}
	}
	counters := must[map[string]int64](t)(proxies["strict"].Counters(t.Context(), `^listener\.0\.0\.0\.0_15000\.ssl\.`))
	for _, name := range []string{"connection_error", "fail_verify_cert_hash", "fail_verify_error", "fail_verify_no_cert", "fail_verify_san"} {
		if value, shown := counters["listener.0.0.0.0_15000.ssl."+name]; !shown || value != 0 {
			t.Errorf("%s of a healthy listener: %d (shown: %t)", name, value, shown)
		}
	}
	if counters["listener.0.0.0.0_15000.ssl.handshake"] == 0 {
		t.Error("no handshake was counted")
	}
	wantNoPlaintext(t, proxies["strict"].Options.Address+":8080")
}

// wantNoPlaintext sends a plaintext request: not one byte may come back that is
// not TLS's.
func wantNoPlaintext(t *testing.T, address string) {
	t.Helper()
	conn := must[net.Conn](t)(net.Dial("tcp", address))
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(within)) //nolint:errcheck // the read would last longer
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: strict.local\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if os.IsTimeout(err) || bytes.Contains(answer, []byte("HTTP/")) || bytes.Contains(answer, []byte("strict")) {
		t.Errorf("a plaintext client is answered %q, %v", answer, err)
	}
}
