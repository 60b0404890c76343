package meshtest_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/fairlead/fairlead/internal/meshtest"
)

// Two real Envoys and TLS between them: a request from one node reaches the
// other's application, also while the server is dead, stopped and back.
func TestTwoProxies(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	n := meshtest.NewNetwork(t)
	authority := meshtest.NewAuthority(t, "mesh")
	certificate := authority.Issue(t, "server.local")
	app := meshtest.StartApp(t, "hello")
	clientAddress, serverAddress := n.Address(t, "client.local"), n.Address(t, "server.local")

	s.Apply(t, `
{mesh: m, spec: {}}
---
virtualNode: server
spec:
  listeners:
  - portMapping: {port: 8080, protocol: http}
    tls: {mode: STRICT, certificate: {file: {certificateChain: `+certificate.Chain+`, privateKey: `+certificate.Key+`}}}
  serviceDiscovery: {dns: {hostname: server.local}}
---
virtualService: hello.local
spec: {provider: {virtualNode: {virtualNodeName: server}}}
---
virtualNode: client
spec:
  backends:
  - virtualService:
      virtualServiceName: hello.local
      clientPolicy: {tls: {validation: {trust: {file: {certificateChain: `+authority.Root+`}}}}}
`)
	server := meshtest.StartAgent(t, s, meshtest.AgentOptions{Resource: "mesh/m/virtualNode/server", Address: serverAddress,
		Apps: map[int]int{8080: app.Port}, DNS: n.DNS.Address()})
	client := meshtest.StartAgent(t, s, meshtest.AgentOptions{Resource: "mesh/m/virtualNode/client", Address: clientAddress, DNS: n.DNS.Address()})
	server.WaitReady(t)
	client.WaitReady(t)

	request := func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, client.At(15001, "/x"), nil)
		if err != nil {
			return err
		}
		r.Host = "hello.local:8080"
		status, body, err := meshtest.Do(r)
		if err == nil && (status != http.StatusOK || body != "hello") {
			err = fmt.Errorf("answer: %d %s", status, body)
		}
		return err
	}
	meshtest.Eventually(t, 30*time.Second, request)
	counters, err := server.Counters(t.Context(), `ssl\.handshake`)
	if err != nil || counters["listener.0.0.0.0_15000.ssl.handshake"] == 0 {
		t.Errorf("no handshake at the server: %v %v", counters, err)
	}
	if server.EnvoyPID(t) == 0 {
		t.Error("the agent's Envoy was not found")
	}
	s.Stop()
	if err := request(t.Context()); err != nil {
		t.Errorf("while the server is stopped: %v", err)
	}
	s.Continue()
	s.Kill()
	if err := request(t.Context()); err != nil {
		t.Errorf("while the server is dead: %v", err)
	}
	s.Restart(t)
	s.WaitSettled(t, 2)
	if err := request(t.Context()); err != nil {
		t.Errorf("after the server is back: %v", err)
	}
	began := time.Now()
	if code := s.Terminate(t); code != 0 || time.Since(began) > 8*time.Second {
		t.Errorf("with proxies connected the server ended with code %d in %s", code, time.Since(began))
	}
	t.Logf("the server ended in %s", time.Since(began))
}
