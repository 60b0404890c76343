package mesh_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/internal/meshtest"
	"github.com/fairlead/fairlead/internal/tlspolicy"
)

// protocols are the listeners of every server node: its ports from 8080 on.
var protocols = []string{"http", "http2", "grpc", "tcp"}

// servers are virtual nodes by their listeners' TLS, without the certificate.
var servers = map[string]string{
	"plain":      ``,
	"disabled":   `mode: DISABLED, certificate: CERTIFICATE`,
	"strict":     `mode: STRICT, certificate: CERTIFICATE`,
	"permissive": `mode: PERMISSIVE, certificate: CERTIFICATE`,
	"mutual":     `mode: STRICT, certificate: CERTIFICATE, validation: {trust: {file: {certificateChain: TRUSTED}}, subjectAlternativeNames: {match: {exact: [client.local]}}}`,
}

const (
	trusted  = `validation: {trust: {file: {certificateChain: TRUSTED}}}`
	stranger = `validation: {trust: {file: {certificateChain: STRANGER}}}`
)

// edges are what a client with one policy for each service sees of them. Where
// the verdict is broken, a counter of the client's Envoy, or the server's, says
// why.
var edges = []struct {
	service string // without .local
	server  string
	policy  string // of the backend; empty: none
	verdict tlspolicy.Verdict
	counter string // that counted the failure
}{
	{"plain", "plain", ``, tlspolicy.VerdictPlaintext, ""},
	{"plain-optional", "plain", `enforce: false, ` + trusted, tlspolicy.VerdictPlaintext, ""},
	{"plain-enforced", "plain", trusted, tlspolicy.VerdictBroken, "client ssl.connection_error"},
	{"disabled", "disabled", ``, tlspolicy.VerdictPlaintext, ""},
	{"disabled-enforced", "disabled", trusted, tlspolicy.VerdictBroken, "client ssl.connection_error"},

	{"strict-none", "strict", ``, tlspolicy.VerdictUnverified, ""},
	{"strict-other-port", "strict", `ports: [9], ` + stranger, tlspolicy.VerdictUnverified, ""},
	{"strict", "strict", trusted, tlspolicy.VerdictVerified, ""},
	{"strict-optional", "strict", `enforce: false, ` + trusted, tlspolicy.VerdictVerified, ""},
	{"strict-names", "strict", `validation: {trust: {file: {certificateChain: TRUSTED}}, subjectAlternativeNames: {match: {exact: [elsewhere.local, strict.local]}}}`, tlspolicy.VerdictVerified, ""},
	{"strict-other-ca", "strict", stranger, tlspolicy.VerdictBroken, "client ssl.fail_verify_error"},
	{"strict-other-name", "strict", `validation: {trust: {file: {certificateChain: TRUSTED}}, subjectAlternativeNames: {match: {exact: [elsewhere.local]}}}`, tlspolicy.VerdictBroken, "client ssl.fail_verify_san"},
	{"strict-optional-ca", "strict", `enforce: false, ` + stranger, tlspolicy.VerdictBroken, "client ssl.fail_verify_error"},

	{"permissive-none", "permissive", ``, tlspolicy.VerdictUnverified, ""},
	{"permissive", "permissive", trusted, tlspolicy.VerdictVerified, ""},
	{"permissive-other-ca", "permissive", stranger, tlspolicy.VerdictBroken, "client ssl.fail_verify_error"},

	{"mutual", "mutual", `certificate: {file: CLIENT}, ` + trusted, tlspolicy.VerdictMutual, ""},
	{"mutual-none", "mutual", ``, tlspolicy.VerdictBroken, "server ssl.fail_verify_no_cert"},
	{"mutual-no-certificate", "mutual", trusted, tlspolicy.VerdictBroken, "server ssl.fail_verify_no_cert"},
	{"mutual-other-ca", "mutual", `certificate: {file: FORGED}, ` + trusted, tlspolicy.VerdictBroken, "server ssl.fail_verify_error"},
	{"mutual-other-name", "mutual", `certificate: {file: NAMELESS}, ` + trusted, tlspolicy.VerdictBroken, "server ssl.fail_verify_san"},
}

// files writes the certificates that the tables above name, and returns what
// puts their paths in.
func files(t *testing.T, trusted, stranger *meshtest.Authority, server string) *strings.Replacer {
	t.Helper()
	pair := func(c meshtest.Certificate) string {
		return fmt.Sprintf("{certificateChain: %s, privateKey: %s}", c.Chain, c.Key)
	}
	return strings.NewReplacer(
		"CERTIFICATE", "{file: "+pair(trusted.Issue(t, server+".local"))+"}",
		"CLIENT", pair(trusted.Issue(t, "client.local")),
		"FORGED", pair(stranger.Issue(t, "client.local")),
		"NAMELESS", pair(trusted.Issue(t, "somebody.local")),
		"TRUSTED", trusted.Root, "STRANGER", stranger.Root)
}

// serverNode is a virtual node with a listener for each protocol.
func serverNode(name, tls string) string {
	listeners := ""
	for i, protocol := range protocols {
		listeners += fmt.Sprintf("  - portMapping: {port: %d, protocol: %s}\n", 8080+i, protocol)
		if tls != "" {
			listeners += "    tls: {" + tls + "}\n"
		}
	}
	return fmt.Sprintf("virtualNode: %[1]s\nspec:\n  listeners:\n%[2]s  serviceDiscovery: {dns: {hostname: %[1]s.local}}\n", name, listeners)
}

// backend is a virtual service as a client's backend with a policy of its own.
func backend(service, policy string) string {
	out := "  - virtualService:\n      virtualServiceName: " + service + "\n      clientPolicy: {"
	if policy != "" {
		out += "tls: {" + policy + "}"
	}
	return out + "}\n"
}

func serviceOf(name, node string) string {
	return fmt.Sprintf("\n---\nvirtualService: %s\nspec: {provider: {virtualNode: {virtualNodeName: %s}}}", name, node)
}

// startServers starts a proxy with an application of each protocol for each of
// the servers named, and makes their nodes in mesh m.
func startServers(t *testing.T, s *meshtest.Server, n *meshtest.Network, names []string, replace func(server string) *strings.Replacer) map[string]*meshtest.Agent {
	t.Helper()
	proxies := map[string]*meshtest.Agent{}
	for _, name := range names {
		s.Apply(t, "{mesh: m, spec: {}}\n---\n"+replace(name).Replace(serverNode(name, servers[name])))
		app := meshtest.StartApp(t, name)
		proxies[name] = meshtest.StartAgent(t, s, meshtest.AgentOptions{
			Resource: "mesh/m/virtualNode/" + name, Address: n.Address(t, name+".local"), DNS: n.DNS.Address(),
			Apps: map[int]int{8080: app.Port, 8081: app.Port, 8082: meshtest.StartGRPC(t, name).Port, 8083: meshtest.StartTCP(t, name).Port}})
	}
	return proxies
}

// TestEdges makes every kind of edge for every protocol and wants of each the
// answer, the counters and the verdict that the table says.
func TestEdges(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	n := meshtest.NewNetwork(t)
	authority, other := meshtest.NewAuthority(t, "mesh"), meshtest.NewAuthority(t, "stranger")
	s.Apply(t, "{mesh: m, spec: {}}")
	replace := func(name string) *strings.Replacer { return files(t, authority, other, name) }
	proxies := startServers(t, s, n, slices.Sorted(maps.Keys(servers)), replace)

	spec, services, local, tcp := "virtualNode: client\nspec:\n  backends:\n", "", []string{}, map[string]int{}
	for i, e := range edges {
		name := e.service + ".local"
		spec += backend(name, e.policy)
		services += serviceOf(name, e.server)
		tcp[name] = 20000 + i
		local = append(local, fmt.Sprintf("%s:8083=%d", name, tcp[name]))
	}
	s.Apply(t, "{mesh: m, spec: {}}"+services+"\n---\n"+replace("client").Replace(spec))
	client := caller{meshtest.StartAgent(t, s, meshtest.AgentOptions{Resource: "mesh/m/virtualNode/client",
		Address: n.Address(t, "client.local"), DNS: n.DNS.Address(), TCPEgress: local}), tcp}
	for _, p := range proxies {
		p.WaitReady(t)
	}
	client.proxy.WaitReady(t)

	for _, e := range edges {
		for i, protocol := range protocols {
			want := []string{"200 " + e.server}
			if e.verdict == tlspolicy.VerdictBroken {
				want = broken
			}
			waitAnswer(t, func(ctx context.Context) string { return client.call(ctx, protocol, e.service+".local", 8080+i) }, want...)
		}
	}
	for _, e := range edges {
		for i, protocol := range protocols {
			call := func(ctx context.Context) string { return client.call(ctx, protocol, e.service+".local", 8080+i) }
			t.Run(e.service+"/"+protocol, func(t *testing.T) { wantVerdict(t, s, e.service+".local", 8080+i, e.verdict, e.counter, call) })
		}
	}
	for name, want := range map[string]bool{"plain": false, "disabled": false, "strict": true, "permissive": true, "mutual": true} {
		counters, err := proxies[name].Counters(t.Context(), `^listener\.0\.0\.0\.0_15000\.ssl\.handshake$`)
		if err != nil || (counters["listener.0.0.0.0_15000.ssl.handshake"] > 0) != want {
			t.Errorf("handshakes at %s: %v %v, want some: %t", name, counters, err, want)
		}
	}
	wantTags(t, proxies["strict"])
}

// wantVerdict waits for a verdict on an edge of client. It goes on calling: an
// agent may count only from after the first calls on.
func wantVerdict(t *testing.T, s *meshtest.Server, service string, port int, verdict tlspolicy.Verdict, counter string, call func(context.Context) string) {
	t.Helper()
	tries := 0
	meshtest.Eventually(t, within, func(ctx context.Context) error {
		if tries++; tries%10 == 0 {
			call(ctx)
		}
		list, err := s.Edges(t, "m")
		if err != nil {
			return err
		}
		e, err := edgeTo(list, "virtualNode/client", service, port)
		if err != nil {
			return err
		}
		if e.Verdict != verdict || !e.Observed {
			return fmt.Errorf("verdict %q (observed: %t), want %q: %s", e.Verdict, e.Observed, verdict, show(e))
		}
		if counter == "" && verdict != tlspolicy.VerdictPlaintext && e.Handshakes == 0 {
			return fmt.Errorf("no handshake: %s", show(e))
		}
		for _, f := range e.Failures {
			if counter == f.At+" "+f.Counter && f.Count > 0 {
				return nil
			}
		}
		if counter != "" {
			return fmt.Errorf("%s has not counted: %s", counter, show(e))
		}
		return nil
	})
}

// wantTags wants the labels that App Mesh gave the statistics of a node with
// several listeners: dashboards select by them.
func wantTags(t *testing.T, proxy *meshtest.Agent) {
	t.Helper()
	page, err := proxy.Admin(t.Context(), "/stats/prometheus")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		metric string
		labels []string
	}{
		{"envoy_http_downstream_rq_xx", []string{`appmesh_listener_protocol="http2"`, `appmesh_listener_port="8081"`, `envoy_http_conn_manager_prefix="ingress"`}},
		{"envoy_listener_http_downstream_rq_xx", []string{`appmesh_listener_protocol="grpc"`, `appmesh_listener_port="8082"`, `envoy_http_conn_manager_prefix="ingress"`, `envoy_listener_address="0.0.0.0_15000"`}},
		{"envoy_http_rds_update_success", []string{`appmesh_listener_protocol="http"`, `appmesh_listener_port="8080"`, `envoy_rds_route_config="rds_ingress_http_8080"`}},
		{"envoy_tcp_downstream_cx_total", []string{`appmesh_listener_protocol="tcp"`, `appmesh_listener_port="8083"`, `envoy_tcp_prefix="ingress"`}},
	} {
		found := false
		for line := range strings.Lines(page) {
			found = found || strings.HasPrefix(line, want.metric+"{") &&
				!slices.ContainsFunc(want.labels, func(label string) bool { return !strings.Contains(line, label) })
		}
		if !found {
			t.Errorf("no %s with %q", want.metric, want.labels)
		}
	}
}
