package mesh_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/internal/meshtest"
	"github.com/fairlead/fairlead/internal/tlspolicy"
)

// stage is one server, strict to begin with, and one client that takes TLS as
// it comes.
type stage struct {
	server    *meshtest.Server
	authority *meshtest.Authority
	leaf      meshtest.Certificate
	proxy     *meshtest.Agent // of virtual node blue, HTTP at 8080
	client    caller
}

// blue is the spec of the stage's server.
func (s stage) blue(tls string) string {
	if tls != "" {
		tls = ", tls: {" + tls + ", certificate: {file: {certificateChain: " + s.leaf.Chain + ", privateKey: " + s.leaf.Key + "}}}"
	}
	return "{mesh: m, spec: {}}\n---\n{virtualNode: blue, spec: {listeners: [{portMapping: {port: 8080, protocol: http}" + tls + "}], serviceDiscovery: {dns: {hostname: blue.local}}}}"
}

func newStage(t *testing.T, tls string) stage {
	t.Helper()
	s := stage{server: meshtest.StartServer(t, meshtest.ServerOptions{}), authority: meshtest.NewAuthority(t, "mesh")}
	s.leaf = s.authority.Issue(t, "blue.local")
	n := meshtest.NewNetwork(t)
	app := meshtest.StartApp(t, "blue")
	s.server.Apply(t, s.blue(tls)+serviceOf("blue.local", "blue")+"\n---\nvirtualNode: client\nspec:\n  backends:\n"+
		backend("blue.local", "enforce: false, validation: {trust: {file: {certificateChain: "+s.authority.Root+"}}}"))
	s.proxy = meshtest.StartAgent(t, s.server, meshtest.AgentOptions{Resource: "mesh/m/virtualNode/blue",
		Address: n.Address(t, "blue.local"), Apps: map[int]int{8080: app.Port}, DNS: n.DNS.Address()})
	s.client.proxy = meshtest.StartAgent(t, s.server, meshtest.AgentOptions{Resource: "mesh/m/virtualNode/client",
		Address: n.Address(t, "client.local"), DNS: n.DNS.Address()})
	s.proxy.WaitReady(t)
	s.client.proxy.WaitReady(t)
	return s
}

func (s stage) call(ctx context.Context) string {
	return s.client.call(ctx, "http", "blue.local", 8080)
}

// plaintext is what somebody outside the mesh gets who speaks no TLS.
func (s stage) plaintext(ctx context.Context) string {
	got := callHTTP(ctx, "http", s.proxy.At(8080, "/"), "blue.local", nil)
	if strings.HasPrefix(got, "error: ") {
		return "refused"
	}
	return got
}

// overTLS is what somebody outside the mesh gets who speaks TLS and trusts the
// mesh's authority, and the serial of the certificate shown.
func (s stage) overTLS(ctx context.Context) (answer, serial string) {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.authority.PEM())
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := (&tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: "blue.local"}}).DialContext(ctx, "tcp", s.proxy.Options.Address+":8080")
	if err != nil {
		return "refused", ""
	}
	defer conn.Close()
	serial = conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String()
	return ask(conn), serial
}

// ask sends a request over a connection that stays open.
func ask(conn net.Conn) string {
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "error: " + err.Error()
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: blue.local\r\n\r\n"); err != nil {
		return "error: " + err.Error()
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "error: " + err.Error()
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return "error: " + err.Error()
	}
	return fmt.Sprint(answer.StatusCode, " ", strings.TrimSpace(string(body)))
}

// TestTLSModeChanges walks a live edge through the modes and back: what the
// client's Envoy does, what outsiders get, and the verdict follow each change.
func TestTLSModeChanges(t *testing.T) {
	s := newStage(t, "mode: DISABLED")
	for _, step := range []struct {
		mode               string
		plaintext, overTLS string // of outsiders
		verdict            tlspolicy.Verdict
	}{
		{"mode: DISABLED", "200 blue", "refused", tlspolicy.VerdictPlaintext},
		{"mode: PERMISSIVE", "200 blue", "200 blue", tlspolicy.VerdictVerified},
		{"mode: STRICT", "refused", "200 blue", tlspolicy.VerdictVerified},
		{"mode: PERMISSIVE", "200 blue", "200 blue", tlspolicy.VerdictVerified},
		{"", "200 blue", "refused", tlspolicy.VerdictPlaintext},
	} {
		s.server.Apply(t, s.blue(step.mode))
		waitAnswer(t, s.plaintext, step.plaintext)
		waitAnswer(t, func(ctx context.Context) string { got, _ := s.overTLS(ctx); return got }, step.overTLS)
		s.server.WaitSettled(t, 2)
		meshtest.Eventually(t, within, func(ctx context.Context) error {
			// Connections of before the change may live on: calls make new ones.
			if got := s.call(ctx); got != "200 blue" {
				return fmt.Errorf("the client is answered %q", got)
			}
			list, err := s.server.Edges(t, "m")
			if err != nil {
				return err
			}
			e, err := edgeTo(list, "virtualNode/client", "blue.local", 8080)
			if err == nil && (e.Verdict != step.verdict || !e.Observed) {
				err = fmt.Errorf("%q (observed: %t), want %q: %s", e.Verdict, e.Observed, step.verdict, e.Why)
			}
			return err
		})
		t.Logf("%q: %s", step.mode, step.verdict)
	}
}

// TestCertificateRotates writes a new certificate over the old one, as an
// operator or a job would. New connections get it at once, old ones live on, and
// no call fails; files that do not fit each other change nothing.
func TestCertificateRotates(t *testing.T) {
	s := newStage(t, "mode: STRICT")
	waitAnswer(t, s.call, "200 blue")
	pid := s.proxy.EnvoyPID(t)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.authority.PEM())
	old, err := tls.Dial("tcp", s.proxy.Options.Address+":8080", &tls.Config{RootCAs: roots, ServerName: "blue.local"})
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	l := startLoad(t, s.call, "200 blue")
	for range 3 {
		_, before := s.overTLS(t.Context())
		put(t, s.authority.Issue(t, "blue.local"), s.leaf)
		meshtest.Eventually(t, 10*time.Second, func(ctx context.Context) error {
			answer, serial := s.overTLS(ctx)
			if answer != "200 blue" || serial == before {
				return fmt.Errorf("%s with certificate %s, which was there before", answer, serial)
			}
			return nil
		})
	}
	if got := ask(old); got != "200 blue" {
		t.Errorf("a connection of before: %q", got)
	}

	// A certificate with the key of another, and then no certificate at all.
	_, good := s.overTLS(t.Context())
	stranger := s.authority.Issue(t, "blue.local")
	put(t, meshtest.Certificate{Chain: stranger.Chain}, s.leaf)
	waitProxyProblem(t, s.server, s.leaf.Chain)
	if err := os.WriteFile(s.leaf.Chain, []byte("no certificate\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	waitProxyProblem(t, s.server, s.leaf.Chain)
	if answer, serial := s.overTLS(t.Context()); answer != "200 blue" || serial != good {
		t.Errorf("%s with %s, want the last good certificate %s", answer, serial, good)
	}
	put(t, stranger, s.leaf)
	meshtest.Eventually(t, 10*time.Second, func(ctx context.Context) error {
		if _, serial := s.overTLS(ctx); serial == good {
			return errors.New("the repaired certificate is not shown")
		}
		return nil
	})
	l.Stop(t)
	if now := s.proxy.EnvoyPID(t); now != pid {
		t.Errorf("Envoy was %d and is %d", pid, now)
	}
}

// put replaces the files of a certificate, each in one step.
func put(t *testing.T, from, over meshtest.Certificate) {
	t.Helper()
	for from, over := range map[string]string{from.Key: over.Key, from.Chain: over.Chain} {
		if from == "" {
			continue
		}
		content, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(over+".new", content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(over+".new", over); err != nil {
			t.Fatal(err)
		}
	}
}

// waitProxyProblem waits until a proxy reports trouble with a file.
func waitProxyProblem(t *testing.T, s *meshtest.Server, file string) {
	t.Helper()
	meshtest.Eventually(t, within, func(context.Context) error {
		proxies, err := s.Proxies(t)
		if err != nil {
			return err
		}
		for _, p := range proxies {
			for _, secret := range p.Report.Secrets {
				if strings.Contains(secret.Error, file) {
					return nil
				}
			}
		}
		return fmt.Errorf("no proxy says that %s is bad: %s", file, show(proxies))
	})
}
