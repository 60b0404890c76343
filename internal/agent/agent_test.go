package agent

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	jsonv2 "github.com/go-json-experiment/json"

	"github.com/fairlead/fairlead/internal/envoy"
	"github.com/fairlead/fairlead/internal/xds"
)

const lineage = "0123456789abcdef"

// status reads the agent's /status, which takes 10 requests a second.
func (p *testProxy) status() (s Status) {
	p.t.Helper()
	eventually(p.t, 5*time.Second, func() error {
		code, body := get(p.url(9902, "/status"))
		if code != 200 {
			return fmt.Errorf("/status: %d %s", code, body)
		}
		s = Status{}
		return jsonv2.Unmarshal([]byte(body), &s)
	})
	return s
}

// TestOutage is an outage from the first moment to the last: the server goes,
// Envoy restarts, the agent restarts, the server comes back with a change.
func TestOutage(t *testing.T) {
	c := newControl(t)
	p := newProxy(t, "unix://"+c.socket, nil)
	c.start(lineage[:8])
	l := listener(t, "lds_ingress_0.0.0.0_15000", p.bind, 8080, "rds", nil)
	first := c.publish(5, lineage, l, table(t, "rds", "one"))
	p.start()
	c.waitSettled(first)
	p.waitReady()
	p.wants(p.url(8080, "/"), 200, "one")
	if s := p.status(); s.HealthStatus != "HEALTHY" || s.Connection != "CONNECTED" || s.Revision != 5 || s.EnvoyReadiness != "READY" {
		t.Errorf("status: %+v", s)
	}

	c.stop()
	eventually(t, 10*time.Second, func() error {
		if s := p.status(); s.Connection != "NOT_CONNECTED" || s.HealthStatus != "HEALTHY" || s.DisconnectedAt == 0 {
			return fmt.Errorf("without the server: %+v", s)
		}
		return nil
	})
	p.wants(p.url(8080, "/"), 200, "one")

	// Envoy dies: the next one has it all from the agent's memory.
	pid := p.status().EnvoyPid
	kill(t, pid)
	began := time.Now()
	p.wants(p.url(8080, "/"), 200, "one")
	p.waitReady()
	t.Logf("a new Envoy serves after %s", time.Since(began))
	if s := p.status(); s.EnvoyPid == pid || s.EnvoyRestarts != "1" {
		t.Errorf("after Envoy's death: %+v", s)
	}

	// The agent goes too: the next one has it from the disk.
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	p.start()
	p.wants(p.url(8080, "/"), 200, "one")
	t.Logf("a new agent and its Envoy serve after %s", time.Since(began))
	p.waitReady()

	// The server is back, and says what has changed.
	c.fresh()
	second := c.publish(6, lineage, l, table(t, "rds", "two"))
	c.start(lineage[:8])
	c.waitSettled(second)
	p.wants(p.url(8080, "/"), 200, "two")
	c.mu.Lock()
	held := xds.ReadManifest(c.node.GetMetadata().GetFields()[xds.MetadataHeld].GetStructValue())
	c.mu.Unlock()
	if held.Lineage != lineage || held.Revision != 5 || len(held.Origins) != 1 {
		t.Errorf("the agent came with %+v", held)
	}
}

// TestHeldByTheServer: a server that sends nothing is there all the same.
func TestHeldByTheServer(t *testing.T) {
	c := newControl(t)
	p := newProxy(t, "unix://"+c.socket, nil)
	c.start(lineage[:8])
	p.start()
	c.waitSettled(c.publish(5, lineage, listener(t, "ingress", p.bind, 8080, "rds", nil), table(t, "rds", "one")))
	c.stop()
	c.fresh() // and nothing is published
	c.start(lineage[:8])
	eventually(t, 10*time.Second, func() error {
		if s := p.status(); s.Connection != "CONNECTED" || !strings.Contains(s.Held, "the server sends nothing") || s.DisconnectedAt != 0 {
			return fmt.Errorf("status: %+v", s)
		}
		return nil
	})
	p.waitReady()
	c.publish(5, lineage, listener(t, "ingress", p.bind, 8080, "rds", nil), table(t, "rds", "one"))
	eventually(t, 10*time.Second, func() error {
		if s := p.status(); s.Held != "" {
			return fmt.Errorf("held: %s", s.Held)
		}
		return nil
	})
}

// TestOwnConfiguration: an Envoy that the user configured is kept running and
// looked at, and nothing else.
func TestOwnConfiguration(t *testing.T) {
	admin := filepath.Join(t.TempDir(), "admin.sock")
	p := newProxy(t, "unix:///nowhere", map[string]string{"ENVOY_CONFIG_FILE": write(t, "envoy.yaml", "admin: {address: {pipe: {path: "+admin+"}}}\n")})
	p.start()
	p.waitReady()
	p.wants(p.url(9901, "/server_info"), 200, `"LIVE"`)
	if err := p.end(); err != nil {
		t.Error(err)
	}
}

func kill(t *testing.T, pid string) {
	t.Helper()
	var number int
	if _, err := fmt.Sscan(pid, &number); err != nil || number < 2 {
		t.Fatalf("no Envoy to kill: %q", pid)
	}
	if err := syscall.Kill(number, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// TestReadiness: Envoy says LIVE long before it serves.
func TestReadiness(t *testing.T) {
	c := newControl(t)
	chain, key := t.TempDir()+"/chain.pem", t.TempDir()+"/key.pem"
	p := newProxy(t, "unix://"+c.socket, map[string]string{"ENVOY_INITIAL_FETCH_TIMEOUT": "1"})
	p.start()
	p.wants(p.url(9901, "/ready"), 503, "no configuration yet: the server is not reached")
	// Envoy gives up waiting and is LIVE with no listeners; the agent knows better.
	p.wants(p.url(9901, "/server_info"), 200, `"INITIALIZING"`)
	eventually(t, 20*time.Second, func() error {
		if _, body := get(p.url(9901, "/stats?filter=^server.live$")); !strings.Contains(body, "server.live: 1") {
			return fmt.Errorf("Envoy: %s", body)
		}
		return nil
	})
	p.wants(p.url(9901, "/ready"), 503, "no configuration yet")

	c.start(lineage[:8])
	secret := &tlsv3.SdsSecretConfig{Name: envoy.FileCertificateName(chain, key), SdsConfig: overAgent}
	config := c.publish(1, lineage, listener(t, "ingress", p.bind, 8443, "rds", secret), table(t, "rds", "one"))
	p.wants(p.url(9901, "/ready"), 503, "open "+chain+": no such file")
	c.waitSettled(config)

	authority := newAuthority(t)
	made, madeKey := certificate(t, authority, t.TempDir(), "node.local")
	rename(t, made, chain)
	p.wants(p.url(9901, "/ready"), 503, "open "+key+": no such file")
	rename(t, madeKey, key)
	p.waitReady()
	if name := handshake(t, p.bind+":8443", authority.Certificate); name != "node.local" {
		t.Errorf("served %s", name)
	}
	p.wants(p.url(9901, "/server_info"), 200, `"LIVE"`)
	eventually(t, 10*time.Second, func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(c.reports) == 0 {
			return fmt.Errorf("no report")
		}
		last := c.reports[len(c.reports)-1].AsMap()
		if last["ready"] != true || last["envoyVersion"] != "1.40.0" {
			return fmt.Errorf("the last report: %v", last)
		}
		return nil
	})
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// handshake returns the name in the certificate that is served.
func handshake(t *testing.T, address string, root *x509.Certificate) (name string) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(root)
	eventually(t, 10*time.Second, func() error {
		conn, err := tls.DialWithDialer(&net.Dialer{Timeout: time.Second}, "tcp", address, &tls.Config{RootCAs: roots, ServerName: "node.local"})
		if err != nil {
			return err
		}
		defer conn.Close()
		name = conn.ConnectionState().PeerCertificates[0].DNSNames[0]
		return nil
	})
	return name
}
