package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/envoy"
	"github.com/fairlead/fairlead/internal/xds"
)

// TestRejection: what Envoy says of a bad resource reaches the server, the good
// ones beside it are taken, and an Envoy that starts again gets what stood.
func TestRejection(t *testing.T) {
	c := newControl(t)
	p := newProxy(t, "unix://"+c.socket, nil)
	c.start(lineage[:8])
	l, word := listener(t, "ingress", p.bind, 8080, "rds", nil), table(t, "rds", "one")
	p.start()
	c.waitSettled(c.publish(1, lineage, cluster(t, "a", 1), l, word))
	bad := cluster(t, "a", 2)
	c.waitSettled(c.publish(2, lineage, bad, cluster(t, "b", 1), l, word))
	c.mu.Lock()
	message := c.rejected["cluster a"]
	if !strings.Contains(message, "LOGICAL_DNS clusters must have a single locality_lb_endpoint") || c.acked["cluster b"] == "" || c.rejected["cluster b"] != "" {
		t.Errorf("rejected %v, acknowledged %v", c.rejected, c.acked)
	}
	c.mu.Unlock()
	if s := p.status(); len(s.Rejected) != 1 || s.Rejected[0].Name != "a" || s.Rejected[0].Message != message {
		t.Errorf("status: %+v", s.Rejected)
	}
	clusters := func() error {
		_, body := get(p.url(9901, "/clusters"))
		if !strings.Contains(body, "a::127.0.0.1:9") || !strings.Contains(body, "b::127.0.0.1:9") {
			return fmt.Errorf("clusters: %s", body)
		}
		return nil
	}
	eventually(t, 10*time.Second, clusters)
	kill(t, p.status().EnvoyPid)
	p.wants(p.url(8080, "/"), 200, "one")
	eventually(t, 10*time.Second, clusters)

	// The server is back and offers the same again: it hears the same again.
	c.stop()
	c.fresh()
	c.mu.Lock()
	c.rejected = map[string]string{}
	c.mu.Unlock()
	config := c.publish(3, lineage, bad, cluster(t, "b", 1), l, word)
	c.start(lineage[:8])
	c.waitSettled(config)
	c.mu.Lock()
	if c.rejected["cluster a"] != message {
		t.Errorf("after the server's return: rejected %v", c.rejected)
	}
	c.mu.Unlock()
}

// TestKeysOfTheServer: a key that came from the server stays in memory. After a
// restart without the server, plaintext and file certificates serve, and what
// needs that key is closed: never plaintext.
func TestKeysOfTheServer(t *testing.T) {
	c := newControl(t)
	p := newProxy(t, "unix://"+c.socket, nil)
	c.start(lineage[:8])
	authority := newAuthority(t)
	leaf, err := authority.Issue(ca.Names{DNS: []string{"node.local"}}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	chain, key := certificate(t, authority, t.TempDir(), "node.local")
	secret := resource(t, envoy.Secret, "acm:1", &tlsv3.Secret{Name: "acm:1", Type: &tlsv3.Secret_TlsCertificate{
		TlsCertificate: &tlsv3.TlsCertificate{CertificateChain: inline(leaf.Chain), PrivateKey: inline(leaf.Key)}}})
	config := []*envoy.Resource{secret,
		listener(t, "acm", p.bind, 8441, "rds", &tlsv3.SdsSecretConfig{Name: "acm:1", SdsConfig: overADS}),
		listener(t, "file", p.bind, 8442, "rds", &tlsv3.SdsSecretConfig{Name: envoy.FileCertificateName(chain, key), SdsConfig: overAgent}),
		listener(t, "plain", p.bind, 8443, "rds", nil),
		table(t, "rds", "one")}
	p.start()
	c.waitSettled(c.publish(1, lineage, config...))
	p.waitReady()
	handshake(t, p.bind+":8441", authority.Certificate)
	handshake(t, p.bind+":8442", authority.Certificate)
	p.wants(p.url(8443, "/"), 200, "one")

	// In memory it outlives Envoy.
	c.stop()
	kill(t, p.status().EnvoyPid)
	handshake(t, p.bind+":8441", authority.Certificate)

	if err := p.end(); err != nil {
		t.Fatal(err)
	}
	onlyConfiguration(t, p.config.StateDir, leaf.Key)
	p.start()
	p.wants(p.url(8443, "/"), 200, "one")
	handshake(t, p.bind+":8442", authority.Certificate)
	if code, _ := get(p.url(8441, "/")); code != 0 {
		t.Errorf("an edge whose key is not here answers plaintext with %d", code)
	}
	roots := x509.NewCertPool()
	roots.AddCert(authority.Certificate)
	if conn, err := tls.Dial("tcp", p.bind+":8441", &tls.Config{RootCAs: roots, ServerName: "node.local"}); err == nil {
		conn.Close()
		t.Error("an edge whose key is not here speaks TLS")
	}
	s := p.status()
	if len(s.Closed) != 1 || s.Closed[0].Secret != "acm:1" || s.Closed[0].Closes[0] != "listener acm" || !strings.Contains(s.Closed[0].Why, "its key comes from the server") {
		t.Errorf("closed: %+v", s.Closed)
	}
	if code, body := get(p.url(9901, "/ready")); code != 503 || !strings.Contains(body, "acm:1") {
		t.Errorf("ready: %d %s", code, body)
	}

	c.fresh()
	again := c.publish(1, lineage, config...)
	c.start(lineage[:8])
	c.waitSettled(again)
	handshake(t, p.bind+":8441", authority.Certificate)
	p.waitReady()
	if s := p.status(); len(s.Closed) > 0 {
		t.Errorf("closed after the server's return: %+v", s.Closed)
	}
}

// onlyConfiguration checks modes and content of what is on the disk.
func onlyConfiguration(t *testing.T, dir string, key []byte) {
	t.Helper()
	block, _ := pem.Decode(key)
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%s: %v %v", dir, info.Mode(), err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
		content, err := os.ReadFile(path)
		if err != nil || bytes.Contains(content, []byte("PRIVATE")) || bytes.Contains(content, block.Bytes) || bytes.Contains(content, []byte("transport_sockets.tls.v3.Secret\"")) {
			t.Errorf("%s holds a key (%v)", path, err)
		}
		seen += len(content)
	}
	if seen < 500 {
		t.Errorf("%s holds no configuration", dir)
	}
}

// TestRotation: new files are served to new connections; files that are half
// written or not each other's change nothing but the status.
func TestRotation(t *testing.T) {
	c := newControl(t)
	p := newProxy(t, "unix://"+c.socket, nil)
	c.start(lineage[:8])
	authority, dir := newAuthority(t), t.TempDir()
	chain, key := certificate(t, authority, dir, "first.local", "node.local")
	p.start()
	c.waitSettled(c.publish(1, lineage, table(t, "rds", "one"),
		listener(t, "ingress", p.bind, 8443, "rds", &tlsv3.SdsSecretConfig{Name: envoy.FileCertificateName(chain, key), SdsConfig: overAgent})))
	p.waitReady()
	serves := func(name string) {
		t.Helper()
		eventually(t, 10*time.Second, func() error {
			if got := handshake(t, p.bind+":8443", authority.Certificate); got != name {
				return fmt.Errorf("serves %s, want %s", got, name)
			}
			return nil
		})
	}
	serves("first.local")
	problem := func(want string) {
		t.Helper()
		eventually(t, 10*time.Second, func() error {
			if s := p.status().Secrets; len(s) != 1 || !s[0].Loaded || !strings.Contains(s[0].Problem, want) || (want == "") != (s[0].Problem == "") {
				return fmt.Errorf("secrets: %+v, want %q", s, want)
			}
			return nil
		})
	}
	problem("")

	next, nextKey := certificate(t, authority, t.TempDir(), "second.local", "node.local")
	rename(t, next, chain)
	problem(key + " does not belong to " + chain)
	serves("first.local")
	p.waitReady()
	rename(t, nextKey, key)
	problem("")
	serves("second.local")

	// Overwritten in place, which Envoy itself does not notice.
	if err := os.WriteFile(chain, []byte("-----BEGIN NONSENSE"), 0o600); err != nil {
		t.Fatal(err)
	}
	problem(chain + ": it holds no certificate in PEM (the last good one is served)")
	serves("second.local")
	certificate(t, authority, dir, "third.local", "node.local")
	problem("")
	serves("third.local")
}

// TestGuard: a server that comes back with another store, or an older one, takes
// nothing away. `go test -tags unguarded_agent` shows what would happen.
func TestGuard(t *testing.T) {
	for _, test := range []struct {
		about    string
		lineage  string
		revision int64
		why      string
	}{
		{"another store, and empty", "ffffffffffffffff", 9, "the server has another store"},
		{"an older store", lineage, 4, "older than this configuration"},
	} {
		t.Run(test.about, func(t *testing.T) {
			c := newControl(t)
			p := newProxy(t, "unix://"+c.socket, nil)
			c.start(lineage[:8])
			p.start()
			c.waitSettled(c.publish(5, lineage, listener(t, "ingress", p.bind, 8080, "rds", nil), table(t, "rds", "one")))
			p.wants(p.url(8080, "/"), 200, "one")
			c.stop()
			c.fresh()
			c.publish(test.revision, test.lineage)
			c.start(lineage[:8])
			eventually(t, 10*time.Second, func() error {
				if s := p.status(); !strings.Contains(s.Held, test.why) {
					return fmt.Errorf("held: %q", s.Held)
				}
				return nil
			})
			p.wants(p.url(8080, "/"), 200, "one")
			p.waitReady()

			// An operator says that it is right.
			c.feed.Publish(xds.Target{Config: c.feed.Target().Config,
				Manifest: xds.Manifest{Lineage: test.lineage, Revision: test.revision, AcceptShrink: true}})
			eventually(t, 10*time.Second, func() error {
				if code, body := get(p.url(8080, "/")); code != 0 {
					return fmt.Errorf("still there: %d %s", code, body)
				}
				return nil
			})
			eventually(t, 10*time.Second, func() error {
				if s := p.status(); s.Held != "" || s.Lineage != test.lineage || s.Revision != test.revision {
					return fmt.Errorf("status: %+v", s)
				}
				return nil
			})
		})
	}
}

// TestDrain: the agent waits for connections, and no longer than it must.
func TestDrain(t *testing.T) {
	c := newControl(t)
	p := newProxy(t, "unix://"+c.socket, nil)
	c.start(lineage[:8])
	p.start()
	c.waitSettled(c.publish(1, lineage, listener(t, "ingress", p.bind, 8080, "rds", nil), table(t, "rds", "one")))
	p.waitReady()
	conn, err := net.Dial("tcp", p.bind+":8080")
	if err != nil {
		t.Fatal(err)
	}
	request := func() string {
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		answer := make([]byte, 4096)
		n, err := conn.Read(answer)
		if err != nil {
			return err.Error()
		}
		return string(answer[:n])
	}
	if answer := request(); !strings.HasSuffix(answer, "one") {
		t.Fatalf("before: %s", answer)
	}
	pid := p.status().EnvoyPid
	began := time.Now()
	p.stop()
	p.wants(p.url(9901, "/ready"), 503, "draining")
	if answer := request(); !strings.HasSuffix(answer, "one") {
		t.Errorf("while draining: %s", answer)
	}
	conn.Close()
	if err := p.end(); err != nil {
		t.Errorf("the agent ended with %v", err)
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("drained for %s, though nobody was left", took)
	}
	if _, err := os.Stat("/proc/" + pid); err == nil {
		t.Errorf("Envoy %s has outlived its agent", pid)
	}
}

// refusing ends every stream with a status.
type refusing struct{ err error }

func (r refusing) Authenticate(context.Context, string) (context.Context, error) { return nil, r.err }

func (r refusing) Accept(context.Context, *xds.Stream) (xds.Observer, error) {
	return xds.Observer{}, r.err
}

// TestRefusals: whoever operates a proxy reads why it gets nothing, and what to do.
func TestRefusals(t *testing.T) {
	authority := newAuthority(t)
	leaf, err := authority.Issue(ca.Names{IPs: []net.IP{net.IPv4(127, 0, 0, 1)}}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(leaf.Chain, leaf.Key)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "canary-canary-canary")
	for _, test := range []struct {
		about string
		err   error
		roots []byte
		want  string
	}{
		{"bad credentials", status.Error(codes.Unauthenticated, "The security token included in the request is invalid."), authority.PEM(),
			"the server does not accept this proxy's credentials: The security token included in the request is invalid.; make some for this proxy with: fairlead proxy credentials create mesh/apps/virtualNode/colorteller"},
		{"another proxy's credentials", status.Error(codes.PermissionDenied, "its key is bound to mesh/apps/virtualNode/other"), authority.PEM(),
			"the server refuses this proxy: its key is bound to mesh/apps/virtualNode/other"},
		{"an endpoint that does not exist", status.Error(codes.InvalidArgument, "does not exist"), authority.PEM(),
			"the server does not serve mesh/apps/virtualNode/colorteller: does not exist"},
		{"a server that nobody vouches for", nil, newAuthority(t).PEM(),
			"the server's certificate is not accepted: "},
	} {
		t.Run(test.about, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			server := grpc.NewServer(append(xds.ServerOptions(), grpc.Creds(credentials.NewServerTLSFromCert(&pair)))...)
			xds.NewHandler(server, &xds.Handler{Acceptor: refusing{test.err}})
			go server.Serve(listener) //nolint:errcheck // ends with Stop
			defer server.Stop()
			p := newProxy(t, listener.Addr().String(), map[string]string{"FAIRLEAD_CA_FILE": write(t, "ca.pem", string(test.roots))})
			p.start()
			p.wants(p.url(9901, "/ready"), 503, test.want)
			if s := p.status(); !strings.HasPrefix(s.NotConnected, test.want) {
				t.Errorf("status: %q", s.NotConnected)
			}
			if strings.Contains(p.log.String(), "canary") {
				t.Error("the secret key is in the log")
			}
		})
	}
}

// TestNoCredentials: without any, nothing is sent to the server.
func TestNoCredentials(t *testing.T) {
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(t.TempDir(), "none"))
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	p := newProxy(t, "127.0.0.1:1", nil)
	p.start()
	p.wants(p.url(9901, "/ready"), 503, "find AWS credentials: ")
	if s := p.status(); !strings.Contains(s.NotConnected, "make some for this proxy with: fairlead proxy credentials create mesh/apps/virtualNode/colorteller") {
		t.Error(s.NotConnected)
	}
}

// TestMain is an agent of its own process when asked to be.
func TestMain(m *testing.M) {
	if os.Getenv("AGENT_TEST_PROCESS") == "" {
		os.Exit(m.Run())
	}
	config, err := ConfigFrom(os.LookupEnv)
	if err == nil {
		err = Run(context.Background(), config, slog.New(slog.NewTextHandler(os.Stderr, nil)), os.Stderr)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// TestEnvoyDiesWithItsAgent: even if the agent has no time to stop it.
func TestEnvoyDiesWithItsAgent(t *testing.T) {
	bind := loopback(t)
	state := t.TempDir()
	run := func() (*exec.Cmd, Status) {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "AGENT_TEST_PROCESS=1", "APPMESH_RESOURCE_ARN=mesh/apps/virtualNode/n", "APPMESH_XDS_ENDPOINT=unix:///nowhere",
			"ENVOY_BIN="+envoyBinary(t), "FAIRLEAD_BIND_ADDRESS="+bind, "FAIRLEAD_STATE_DIR="+state, "AWS_SECRET_ACCESS_KEY=canary")
		var log lockedBuffer
		cmd.Stdout, cmd.Stderr = &log, &log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			cmd.Process.Kill()
			if t.Failed() {
				t.Log(log.String())
			}
		})
		p := &testProxy{t: t, bind: bind}
		p.wants(p.url(9902, "/status"), 200, `"RUNNING"`)
		return cmd, p.status()
	}
	cmd, s := run()
	environment, err := os.ReadFile("/proc/" + s.EnvoyPid + "/environ")
	if err != nil || bytes.Contains(environment, []byte("canary")) {
		t.Errorf("Envoy has the agent's credentials (%v)", err)
	}
	limit, err := os.ReadFile("/proc/" + s.EnvoyPid + "/limits")
	if err != nil {
		t.Error(err)
	}
	for line := range strings.Lines(string(limit)) {
		if fields := strings.Fields(line); strings.HasPrefix(line, "Max open files") && fields[3] != fields[4] {
			t.Errorf("Envoy's limit of files is not the hard one: %s", line)
		}
	}
	arguments, err := os.ReadFile("/proc/" + s.EnvoyPid + "/cmdline")
	if err != nil {
		t.Error(err)
	}
	sockets := filepath.Dir(strings.Split(string(arguments), "\x00")[2])
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	eventually(t, 5*time.Second, func() error {
		if stat, err := os.ReadFile("/proc/" + s.EnvoyPid + "/stat"); err == nil && !strings.Contains(string(stat), ") Z ") {
			return fmt.Errorf("Envoy %s lives", s.EnvoyPid)
		}
		return nil
	})
	// The next agent takes away what this one could not, and nothing of others.
	long := time.Now().Add(-time.Hour)
	if err := os.Chtimes(sockets, long, long); err != nil {
		t.Fatal(err)
	}
	living, err := newRuntimeDir(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	defer living.remove()
	if err := os.Chtimes(living.path, long, long); err != nil {
		t.Fatal(err)
	}
	run()
	if _, err := os.Stat(sockets); err == nil {
		t.Errorf("%s is left over", sockets)
	}
	if _, err := os.Stat(living.path); err != nil {
		t.Errorf("a living agent's directory was taken away: %v", err)
	}
}
