package outage

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/internal/meshtest"
)

// A proxy is ready when it has its listeners and their certificates, and not
// before; what keeps it is on its page /status.
func TestReadiness(t *testing.T) {
	t.Parallel()
	server := meshtest.StartServer(t, meshtest.ServerOptions{})
	n := meshtest.NewNetwork(t)
	authority := meshtest.NewAuthority(t, "mesh")
	app := meshtest.StartApp(t, appName)
	certificate, dir := authority.Issue(t, "web.local"), t.TempDir()
	chain, key := filepath.Join(dir, "late.pem"), filepath.Join(dir, "late.key")
	server.Apply(t, `
{mesh: m, spec: {}}
---
virtualNode: web
spec:
  listeners:
  - portMapping: {port: 8080, protocol: http}
    tls: {mode: STRICT, certificate: {file: {certificateChain: `+chain+`, privateKey: `+key+`}}}
  - portMapping: {port: 8081, protocol: http}
  serviceDiscovery: {dns: {hostname: web.local}}`)
	link := meshtest.NewLink(t, server.XDS)
	link.Cut()
	web := meshtest.StartAgent(t, server, meshtest.AgentOptions{Resource: webResource, Address: n.Address(t, "web.local"), XDS: link.Address,
		DNS: n.DNS.Address(), Apps: map[int]int{8080: app.Port, 8081: app.Port}})
	keptBy := func(reason string) {
		t.Helper()
		meshtest.Eventually(t, 30*time.Second, func(ctx context.Context) error {
			if _, err := web.Admin(ctx, "/ready"); err == nil {
				return errors.New("it is ready")
			} else if !strings.Contains(err.Error(), "503") {
				return err
			}
			status, err := statusOf(ctx, web)
			if err == nil && !strings.Contains(strings.Join(status.NotReady, "\n"), reason) {
				err = fmt.Errorf("not ready because of %q, want %q", status.NotReady, reason)
			}
			return err
		})
	}
	keptBy("no configuration yet: the server is not reached")
	link.Restore()
	keptBy("certificate: ")
	keptBy(chain)
	// Its other port serves; a load balancer does not know of it yet.
	meshtest.Eventually(t, 10*time.Second, func(ctx context.Context) error { _, err := meshtest.Get(ctx, web.At(8081, "/")); return err })
	if _, err := meshtest.Get(t.Context(), web.At(8080, "/")); err == nil {
		t.Error("without its certificate the port serves plaintext")
	}
	for from, to := range map[string]string{certificate.Key: key, certificate.Chain: chain} {
		content, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	web.WaitReady(t)
	t.Logf("ready %s after the certificate appeared", time.Since(began).Round(time.Millisecond))
	if err := handshake(web.Options.Address+":8080", authority.Certificate); err != nil {
		t.Error(err)
	}
}

// An edge whose key comes from elsewhere stays closed while the key is not
// there, after a restart from the disk too, and is never plaintext. Keys of ACM,
// which the server sends, do not exist yet: the agent's own tests hold them to
// the same (internal/agent, TestKeysOfTheServer). This is an `sds` certificate
// whose provider is not there.
func TestEdgeWithoutItsKeyStaysClosed(t *testing.T) {
	t.Parallel()
	server := meshtest.StartServer(t, meshtest.ServerOptions{})
	n := meshtest.NewNetwork(t)
	app := meshtest.StartApp(t, appName)
	server.Apply(t, `
{mesh: m, spec: {}}
---
virtualNode: web
spec:
  listeners:
  - portMapping: {port: 8080, protocol: http}
    tls: {mode: STRICT, certificate: {sds: {secretName: of-a-provider}}}
  - portMapping: {port: 8081, protocol: http}
  serviceDiscovery: {dns: {hostname: web.local}}`)
	web := meshtest.StartAgent(t, server, meshtest.AgentOptions{Resource: webResource, Address: n.Address(t, "web.local"),
		DNS: n.DNS.Address(), Apps: map[int]int{8080: app.Port, 8081: app.Port}})
	closed := func() {
		t.Helper()
		meshtest.Eventually(t, servingWithin, func(ctx context.Context) error { _, err := meshtest.Get(ctx, web.At(8081, "/")); return err })
		if _, err := meshtest.Get(t.Context(), web.At(8080, "/")); err == nil {
			t.Error("the edge is plaintext")
		}
		if err := handshake(web.Options.Address+":8080", nil); err == nil {
			t.Error("the edge speaks TLS")
		}
		status, err := statusOf(t.Context(), web)
		if err != nil || len(status.Closed) != 1 || status.Closed[0].Secret != "of-a-provider" || len(status.Closed[0].Closes) == 0 {
			t.Errorf("closed on /status: %+v %v", status.Closed, err)
		}
		if _, err := web.Admin(t.Context(), "/ready"); err == nil {
			t.Error("the proxy is ready")
		}
	}
	meshtest.Eventually(t, 30*time.Second, func(ctx context.Context) error { _, err := meshtest.Get(ctx, web.At(8081, "/")); return err })
	closed()
	server.Kill()
	killEnvoy(t, web)
	closed()
	web.KillAll()
	web.Start(t)
	closed()
	server.Restart(t)
	server.WaitSettled(t, 1)
	closed()
}

// handshake is one of a client that trusts a root; without one, it fails at the
// latest when it has seen a certificate.
func handshake(address string, root *x509.Certificate) error {
	roots := x509.NewCertPool()
	if root != nil {
		roots.AddCert(root)
	}
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	conn, err := tls.DialWithDialer(dialer, "tcp", address, &tls.Config{RootCAs: roots, ServerName: "web.local"})
	if err != nil {
		return err
	}
	return conn.Close()
}
