package hostile

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead/fairlead/internal/meshtest"
)

// TestCertificatePaths: whoever writes specs decides which files the agents read.
// A path that is no certificate closes its own port and nothing else; no path
// makes the agent hang, grow, or tell what is in the file.
func TestCertificatePaths(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{})
	network := meshtest.NewNetwork(t)
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	const secret = "Gracie-Hopper-keeps-this-to-herself"
	must(syscall.Mkfifo(in("fifo"), 0o600))
	must(os.Symlink(in("fifo"), in("link-to-fifo")))
	must(os.Symlink(in("loop"), in("loop")))
	must(os.Mkdir(in("directory"), 0o700))
	must(os.WriteFile(in("secret"), []byte("root:"+secret+":0:0\n"), 0o600))
	must(os.WriteFile(in("secret.pem"), []byte("-----BEGIN CERTIFICATE-----\n"+secret+"\n-----END CERTIFICATE-----\n"), 0o600))
	must(os.WriteFile(in("empty"), nil, 0o600))
	huge, err := os.Create(in("huge"))
	must(err)
	must(huge.Truncate(100 << 20))
	must(huge.Close())
	socket, err := net.Listen("unix", in("socket"))
	must(err)
	defer socket.Close()
	authority := meshtest.NewAuthority(t, "files")
	good := authority.Issue(t, "server.example")
	chain, key := good.Chain, good.Key
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(authority.PEM())

	paths := []string{in("fifo"), in("link-to-fifo"), in("loop"), in("directory"), in("secret"), in("secret.pem"), in("empty"), in("huge"), in("socket"),
		in("missing"), "/dev/zero", "/dev/full", "/dev/stdin", "/proc/self/environ", "/proc/self/mem", "/proc/kmsg", "/etc/shadow", "relative", "/"}
	listener := func(port int, chain, key string) string {
		return fmt.Sprintf("\n  - portMapping: {port: %d, protocol: http}\n    tls: {mode: STRICT, certificate: {file: {certificateChain: %q, privateKey: %q}}}", port, chain, key)
	}
	spec := "virtualNode: server\nspec:\n  serviceDiscovery: {dns: {hostname: server.example}}\n  listeners:" + listener(8000, chain, key)
	for i, path := range paths {
		spec += listener(8001+2*i, path, key) + listener(8002+2*i, chain, path)
	}
	v.Apply(t, "mesh: m\nspec: {}\n---\n"+spec)

	agent := meshtest.StartAgent(t, v.Server, meshtest.AgentOptions{Resource: serverNode, Address: network.Address(t, "server.example")})
	meshtest.Eventually(t, 30*time.Second, func(ctx context.Context) error {
		conn, err := (&tls.Dialer{Config: &tls.Config{RootCAs: trusted, ServerName: "server.example", MinVersion: tls.VersionTLS12}}).
			DialContext(ctx, "tcp", agent.Options.Address+":8000")
		if err != nil {
			return fmt.Errorf("the port with a good certificate: %w", err)
		}
		return conn.Close()
	})
	resetPeak(t, agent.PID())
	page, err := agent.Status(t.Context(), "/status")
	if err != nil {
		t.Fatalf("the agent does not answer: %v", err)
	}
	var status struct {
		Secrets []struct {
			Name, Problem string
			Loaded        bool
		}
	}
	must(json.Unmarshal([]byte(page), &status))
	bad := 0
	for _, s := range status.Secrets {
		if s.Problem != "" {
			bad++
			t.Logf("%.150s", s.Problem)
		}
	}
	if want := 2 * len(paths); bad != want {
		t.Errorf("%d of %d bad certificates are named:\n%s", bad, want, page)
	}
	list, err := v.Fairlead(t, "proxy", "list", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{"/status": page, "its log": agent.Log(), "the server's log": v.Log(), "proxy list": string(list)} {
		if strings.Contains(text, secret) {
			t.Errorf("%s tells what is in the file", what)
		}
	}
	if _, peak := resident(t, agent.PID()); peak > 200 {
		t.Errorf("the agent has %d MiB", peak)
	}
	// The others' edges go on, and a later change arrives.
	v.Apply(t, "mesh: m\nspec: {}\n---\nvirtualNode: server\nspec:\n  serviceDiscovery: {dns: {hostname: server.example}}\n  listeners:"+listener(8000, chain, key))
	agent.WaitReady(t)
	if code := agent.Terminate(t); code != 0 {
		t.Errorf("the agent ended with %d", code)
	}
}
