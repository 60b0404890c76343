package mesh_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/fairlead/fairlead/internal/meshtest"
)

// TestMutualMigration walks a gateway and a node to mutual TLS in the five steps
// that App Mesh's walkthrough had, and wants of each the counter named there.
func TestMutualMigration(t *testing.T) {
	s, n, authority := meshtest.StartServer(t, meshtest.ServerOptions{}), meshtest.NewNetwork(t), meshtest.NewAuthority(t, "mesh")
	const host = "teller.mesh.local"
	strict := "mode: STRICT, certificate: " + fileYAML(authority.Issue(t, host))
	trust := "trust: {file: {certificateChain: " + authority.Root + "}}"
	policy := func(san string) string { return "validation: {" + trust + sansYAML([]string{san}) + "}" }
	teller := func(tls string) {
		if tls != "" {
			tls = "    tls: {" + tls + "}\n"
		}
		s.Apply(t, "{mesh: m, spec: {}}\n---\nvirtualNode: teller\nspec:\n  listeners:\n  - portMapping: {port: 9080, protocol: http}\n"+tls+
			"  serviceDiscovery: {dns: {hostname: "+host+"}}")
	}
	gateway := func(tls string) {
		if tls != "" {
			tls = "\n  backendDefaults: {clientPolicy: {tls: {" + tls + "}}}"
		}
		s.Apply(t, "{mesh: m, spec: {}}\n---\nvirtualGateway: front\nspec:\n  listeners: [{portMapping: {port: 9080, protocol: http}}]"+tls)
	}
	s.Apply(t, "{mesh: m, spec: {}}")
	teller("")
	gateway("")
	s.Apply(t, "{mesh: m, spec: {}}"+serviceOf(host, "teller")+
		"\n---\n{gatewayRoute: all, virtualGateway: front, spec: {httpRoute: {match: {prefix: /}, action: {target: {virtualService: {virtualServiceName: "+host+"}}}}}}")
	server := meshtest.StartAgent(t, s, meshtest.AgentOptions{Resource: "mesh/m/virtualNode/teller", Address: n.Address(t, host),
		DNS: n.DNS.Address(), Apps: map[int]int{9080: meshtest.StartApp(t, "teller").Port}})
	front := meshtest.StartAgent(t, s, meshtest.AgentOptions{Resource: "mesh/m/virtualGateway/front", Address: n.Address(t, ""), DNS: n.DNS.Address()})
	server.WaitReady(t)
	front.WaitReady(t)

	const listener, cluster = "listener.0.0.0.0_15000.ssl.", "cluster.cds_egress_m_teller_http_9080.ssl."
	ok := []string{"200 teller"}
	steps := []struct {
		name    string
		change  func()
		answers []string
		at      *meshtest.Agent
		counter string
	}{
		{"the node goes STRICT", func() { teller(strict) }, ok, server, listener + "no_certificate"},
		{"the gateway wants another name", func() { gateway(policy("elsewhere.mesh.local")) }, broken, front, cluster + "fail_verify_san"},
		{"the gateway wants the right name", func() { gateway(policy(host)) }, ok, front, cluster + "handshake"},
		{"the node wants a certificate", func() { teller(strict + ", validation: {" + trust + "}") }, broken, server, listener + "fail_verify_no_cert"},
		{"the gateway has one", func() { gateway(policy(host) + ", certificate: " + fileYAML(authority.Issue(t, "front.mesh.local"))) }, ok, server, listener + "handshake"},
	}
	anonymous := func() int64 {
		return must[map[string]int64](t)(server.Counters(t.Context(), `ssl\.`))[listener+"no_certificate"]
	}
	unnamed := int64(0)
	for i, step := range steps {
		if i == len(steps)-1 {
			unnamed = anonymous()
		}
		before := must[map[string]int64](t)(step.at.Counters(t.Context(), `ssl\.`))[step.counter]
		step.change()
		s.WaitSettled(t, 2)
		meshtest.Eventually(t, within, func(ctx context.Context) error {
			answer := callHTTP(ctx, "http", front.At(9080, "/"), host, nil)
			counters, err := step.at.Counters(ctx, `ssl\.`)
			if err == nil && (!slices.Contains(step.answers, answer) || counters[step.counter] <= before) {
				err = fmt.Errorf("%s: answered %q, %s went from %d to %d", step.name, answer, step.counter, before, counters[step.counter])
			}
			return err
		})
	}
	if after := anonymous(); after != unnamed {
		t.Errorf("since the node wants certificates, %d handshakes went without one", after-unnamed)
	}
}
