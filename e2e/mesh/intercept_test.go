//go:build root

package mesh_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead/fairlead/internal/discovery"
	"github.com/fairlead/fairlead/internal/meshtest"
)

// envoyUser is whom the rules leave alone: agent and Envoy run as it.
const envoyUser = 1337

const (
	outsideAddress = "10.77.0.1"
	clientAddress  = "10.77.0.2"
	serverAddress  = "10.77.0.3"
)

// machine is a host of the mesh: a namespace with an agent and its Envoy.
type machine struct {
	*namespace
	agent *meshtest.Process
}

// lab is three machines on one wire: a client, a server, and one outside of the
// mesh.
type lab struct {
	server           *meshtest.Server
	outside          *namespace
	caller, answerer machine
	fairlead         string // the binary, where every user may run it
}

// shared is a folder that every user may enter.
func shared(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

// copyTo copies a file into a folder, for envoyUser.
func copyTo(t *testing.T, dir, file string, mode os.FileMode) string {
	t.Helper()
	from, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	name := filepath.Join(dir, filepath.Base(file))
	to, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(to, from)
	if err := errors.Join(err, to.Chown(envoyUser, envoyUser), to.Close()); err != nil {
		t.Fatalf("copy %s: %v", file, err)
	}
	return name
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{server: meshtest.StartServer(t, meshtest.ServerOptions{}), outside: newNamespace(t, "outside")}
	l.outside.ip(t, "link add switch type bridge")
	l.outside.ip(t, "address add "+outsideAddress+"/24 dev switch")
	l.outside.ip(t, "link set switch up")
	dir := shared(t)
	l.fairlead = copyTo(t, dir, meshtest.Binary(t), 0o755)
	envoy, ca := copyTo(t, dir, meshtest.Envoy(t), 0o755), copyTo(t, dir, l.server.CA(), 0o644)

	authority := meshtest.NewAuthority(t, "mesh")
	leaf := func(name string) string {
		c := authority.Issue(t, name)
		return fmt.Sprintf("{file: {certificateChain: %s, privateKey: %s}}", copyTo(t, dir, c.Chain, 0o600), copyTo(t, dir, c.Key, 0o600))
	}
	trust := "{trust: {file: {certificateChain: " + copyTo(t, dir, authority.Root, 0o644) + "}}}"
	tls := "tls: {mode: STRICT, certificate: " + leaf("server.local") + ", validation: " + trust + "}"
	l.server.Apply(t, inMesh+`
---
virtualNode: server
spec:
  listeners:
  - {portMapping: {port: 8080, protocol: http}, `+tls+`}
  - {portMapping: {port: 8083, protocol: tcp}, `+tls+`}
  serviceDiscovery: {dns: {hostname: server.local}}
---
{virtualService: server.local, spec: {provider: {virtualNode: {virtualNodeName: server}}}}
---
virtualNode: client
spec:
  backends: [{virtualService: {virtualServiceName: server.local, clientPolicy: {tls: {certificate: `+leaf("client.local")+`, validation: `+trust+`}}}}]
`)
	l.caller = l.machine(t, "client", clientAddress, envoy, ca)
	l.answerer = l.machine(t, "server", serverAddress, envoy, ca)
	meshtest.StartAppAt(t, "server", l.answerer.listen(t, "0.0.0.0:8080"))
	echoAt(t, "server", l.answerer.listen(t, "0.0.0.0:8083"))
	meshtest.StartAppAt(t, "outside", l.outside.listen(t, outsideAddress+":8080"))
	echoAt(t, "outside", l.outside.listen(t, outsideAddress+":7000"))
	echoAt(t, "outside", l.outside.listen(t, outsideAddress+":22"))
	for _, m := range []machine{l.caller, l.answerer} {
		meshtest.Eventually(t, time.Minute, func(ctx context.Context) error { _, err := m.get(ctx, "/ready"); return err })
	}
	return l
}

// echoAt answers lines with a name.
func echoAt(t *testing.T, name string, listener net.Listener) {
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // the test has ended
			}
			go func() {
				defer conn.Close()
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					fmt.Fprintln(conn, name, lines.Text()) //nolint:errcheck // the test sees it
				}
			}()
		}
	}()
}

// machine starts a namespace with an agent in interception mode, without root.
func (l *lab) machine(t *testing.T, name, address, envoy, ca string) machine {
	t.Helper()
	m := machine{namespace: newNamespace(t, name)}
	l.outside.plug(t, m.namespace, address)
	var dns *discovery.Server
	if err := m.do(func() (err error) {
		dns, err = discovery.Start("127.0.0.1:0", map[string]string{"server.local": serverAddress})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() }) //nolint:errcheck // ends with the test
	state := shared(t)
	if err := os.Chown(state, envoyUser, envoyUser); err != nil {
		t.Fatal(err)
	}
	key := l.server.ProxyCredentials(t, "mesh/m/virtualNode/"+name)
	cmd := exec.Command(l.fairlead, "agent")
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "APPMESH_RESOURCE_ARN=mesh/m/virtualNode/" + name, "APPMESH_XDS_ENDPOINT=" + m.forward(t, l.server.XDS),
		"FAIRLEAD_CA_FILE=" + ca, "AWS_REGION=" + meshtest.Region, "AWS_ACCESS_KEY_ID=" + key.ID, "AWS_SECRET_ACCESS_KEY=" + key.Secret,
		"FAIRLEAD_STATE_DIR=" + state, "FAIRLEAD_DNS_RESOLVER=" + dns.Address(), "ENVOY_BIN=" + envoy, "ENVOY_CONCURRENCY=1", "LISTENER_DRAIN_WAIT_TIME_S=5",
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: envoyUser, Gid: envoyUser}}
	if err := m.do(func() error {
		m.agent = meshtest.Start(t, "agent of "+name, cmd, nil)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return m
}

// get reads a page that the agent serves of its Envoy.
func (m machine) get(ctx context.Context, path string) (string, error) {
	answer, body, err := m.request(ctx, "127.0.0.1:9901", path, "")
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %d %s", path, answer.StatusCode, body)
	}
	return body, err
}

func (n *namespace) request(ctx context.Context, address, path, host string) (*http.Response, string, error) {
	transport := &http.Transport{DialContext: n.dial, DisableKeepAlives: true}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return nil, "", err
	}
	request.Host = host
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return nil, "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return answer, strings.TrimSpace(string(body)), err
}

// http is what an application on the machine gets who dials an address.
func (n *namespace) http(ctx context.Context, address, host string) string {
	switch answer, body, err := n.request(ctx, address, "/", host); {
	case err != nil:
		return "refused"
	case answer.StatusCode != http.StatusOK:
		return fmt.Sprint(answer.StatusCode)
	default:
		return "200 " + body
	}
}

// tcp is likewise for a line.
func (n *namespace) tcp(ctx context.Context, address string) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := n.dial(ctx, "tcp4", address)
	if err != nil {
		return "refused"
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err.Error()
	}
	if _, err := io.WriteString(conn, "hello\n"); err != nil {
		return "refused"
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return "refused"
	}
	return strings.TrimSpace(line)
}

// handshakes are those that the machine's Envoy counted at the name that every
// App Mesh runbook has.
func (m machine) handshakes(t *testing.T) string {
	t.Helper()
	page, err := m.get(t.Context(), "/stats?filter=%5Elistener.0.0.0.0_15000.ssl.handshake%24")
	if err != nil {
		t.Fatal(err)
	}
	_, count, _ := strings.Cut(page, ": ")
	return count
}

// redirect runs fairlead redirect on the machine.
func (l *lab) redirect(t *testing.T, m machine, args ...string) (string, error) {
	t.Helper()
	return m.run(l.fairlead, append([]string{"redirect"}, args...)...)
}

// way is what happens to a connection: who dials where, and what comes of it.
type way struct {
	what string
	call func(context.Context) string
	want string
}

func (l *lab) ways(t *testing.T, ways []way) {
	t.Helper()
	for _, w := range ways {
		t.Run(w.what, func(t *testing.T) { waitAnswer(t, w.call, w.want) })
	}
}

// TestInterception runs a mesh on three machines as operators do: applications
// dial the addresses that they always dialled, and iptables sends the
// connections through Envoys that run as a user of their own.
func TestInterception(t *testing.T) {
	l := newLab(t)
	client, server, outside := l.caller, l.answerer, l.outside
	dials := func(n *namespace, address, host string) func(context.Context) string {
		return func(ctx context.Context) string { return n.http(ctx, address, host) }
	}
	speaks := func(n *namespace, address string) func(context.Context) string {
		return func(ctx context.Context) string { return n.tcp(ctx, address) }
	}
	around := []way{
		{"from the client, HTTP", dials(client.namespace, serverAddress+":8080", "server.local:8080"), "200 server"},
		{"from the client, TCP", speaks(client.namespace, serverAddress+":8083"), "server hello"},
		{"from outside, HTTP in plaintext", dials(outside, serverAddress+":8080", "server.local:8080"), "200 server"},
		{"to outside", speaks(client.namespace, outsideAddress+":7000"), "outside hello"},
	}
	t.Run("without rules", func(t *testing.T) { l.ways(t, around) })
	if n := server.handshakes(t); n != "0" {
		t.Fatalf("%s handshakes before anything is redirected", n)
	}

	for _, m := range []machine{client, server} {
		var first string
		for range 2 { // idempotent
			if out, err := l.redirect(t, m, "enable", "--ignore-uid", "1337", "--app-ports", "8080,8083"); err != nil {
				t.Fatalf("redirect enable: %v: %s", err, out)
			}
			status, err := l.redirect(t, m, "status")
			if err != nil || first != "" && status != first || !strings.Contains(status, "APPMESH_INGRESS") || !strings.Contains(status, "APPMESH_EGRESS") {
				t.Fatalf("redirect status: %v: %s; was %s", err, status, first)
			}
			first = status
		}
	}
	t.Run("redirected, egress DROP_ALL", func(t *testing.T) {
		l.ways(t, []way{
			{"from the client, HTTP", dials(client.namespace, serverAddress+":8080", "server.local:8080"), "200 server"},
			{"by the name alone", dials(client.namespace, serverAddress+":8080", "server.local"), "200 server"},
			{"from the client, TCP", speaks(client.namespace, serverAddress+":8083"), "server hello"},
			{"from outside, HTTP in plaintext", dials(outside, serverAddress+":8080", "server.local:8080"), "refused"},
			{"from outside, TCP in plaintext", speaks(outside, serverAddress+":8083"), "refused"},
			{"a host that is no backend", dials(client.namespace, outsideAddress+":8080", "outside.example"), "404"},
			{"a port that is none of the mesh", speaks(client.namespace, outsideAddress+":7000"), "refused"},
			{"SSH is left alone", speaks(client.namespace, outsideAddress+":22"), "outside hello"},
			{"within the machine", dials(client.namespace, "127.0.0.1:9901", ""), "404"},
		})
	})
	if n := server.handshakes(t); n == "0" {
		t.Error("no handshake at listener.0.0.0.0_15000.ssl.handshake")
	} else {
		t.Logf("listener.0.0.0.0_15000.ssl.handshake: %s", n)
	}
	for port, call := range map[int]func(context.Context) string{
		8080: dials(client.namespace, serverAddress+":8080", "server.local:8080"), 8083: speaks(client.namespace, serverAddress+":8083"),
	} {
		wantVerdict(t, l.server, "server.local", port, "mutual", "", call)
	}

	l.server.Apply(t, "{mesh: m, spec: {egressFilter: {type: ALLOW_ALL}}}")
	t.Run("redirected, egress ALLOW_ALL", func(t *testing.T) {
		l.ways(t, []way{
			{"a port that is none of the mesh", speaks(client.namespace, outsideAddress+":7000"), "outside hello"},
			{"a host that is no backend", dials(client.namespace, outsideAddress+":8080", "outside.example"), "200 outside"},
			{"from the client, HTTP", dials(client.namespace, serverAddress+":8080", "server.local:8080"), "200 server"},
			{"from the client, TCP", speaks(client.namespace, serverAddress+":8083"), "server hello"},
			{"from outside, HTTP in plaintext", dials(outside, serverAddress+":8080", "server.local:8080"), "refused"},
		})
	})
	l.server.Apply(t, "{mesh: m, spec: {egressFilter: {type: DROP_ALL}}}")
	t.Run("egress DROP_ALL again", func(t *testing.T) {
		l.ways(t, []way{{"a port that is none of the mesh", speaks(client.namespace, outsideAddress+":7000"), "refused"}})
	})

	for _, m := range []machine{client, server} {
		for range 2 {
			if out, err := l.redirect(t, m, "disable"); err != nil {
				t.Fatalf("redirect disable: %v: %s", err, out)
			}
		}
		var exit *exec.ExitError
		if out, err := l.redirect(t, m, "status"); !errors.As(err, &exit) || exit.ExitCode() != 1 || strings.Contains(out, "APPMESH") {
			t.Errorf("redirect status after disable: %v: %s", err, out)
		}
		if rules, err := m.run("iptables-save", "-t", "nat"); err != nil || strings.Contains(rules, "APPMESH") {
			t.Errorf("left behind: %v %s", err, rules)
		}
	}
	before := server.handshakes(t)
	t.Run("without rules again", func(t *testing.T) { l.ways(t, around) })
	if after := server.handshakes(t); after != before {
		t.Errorf("%s handshakes, %s before: something still passes Envoy", after, before)
	}
}
