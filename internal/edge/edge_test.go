package edge

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/tlspolicy"
)

// The policies and listeners of the cases.
var (
	none     *tlspolicy.Policy
	enforced = &tlspolicy.Policy{Enforce: true, Trust: tlspolicy.Trust{Source: tlspolicy.SourceFile, Chain: "/root.pem"}, Field: "policy"}
	withCert = &tlspolicy.Policy{Enforce: true, Trust: enforced.Trust, Certificate: &tlspolicy.Certificate{Source: tlspolicy.SourceFile}, Field: "policy"}

	open   = tlspolicy.Listener{Mode: tlspolicy.ModeNone, Field: "listener"}
	strict = tlspolicy.Listener{Mode: tlspolicy.ModeStrict, Certificate: &tlspolicy.Certificate{Source: tlspolicy.SourceFile}, Field: "listener"}
	mutual = tlspolicy.Listener{Mode: tlspolicy.ModeStrict, Certificate: strict.Certificate, Field: "listener",
		Validation: &tlspolicy.ListenerValidation{Trust: enforced.Trust}}
)

// edgeOf is the edge front → blue:8080 under a policy.
func edgeOf(policy *tlspolicy.Policy, listener tlspolicy.Listener) *mesh.Edge {
	l := &mesh.Listener{Port: 8080, Protocol: "http", TLS: listener}
	return &mesh.Edge{
		Client:   &mesh.Endpoint{ID: mesh.ID{Kind: mesh.KindVirtualGateway, Name: "front"}},
		Server:   &mesh.Endpoint{ID: mesh.ID{Kind: mesh.KindVirtualNode, Name: "blue"}, Listeners: []*mesh.Listener{l}},
		Listener: l,
		Services: []string{"color.apps.local"},
		Policy:   policy,
		Decision: tlspolicy.Decide(tlspolicy.Edge{Policy: policy, Port: 8080, Listener: listener, DiscoveryName: "blue.apps.local"}),
	}
}

func graphOf(e *mesh.Edge) *mesh.Graph {
	e.Client.Edges = []*mesh.Edge{e}
	return &mesh.Graph{Name: mesh.Name{Mesh: "apps"}, Endpoints: map[mesh.ID]*mesh.Endpoint{e.Client.ID: e.Client, e.Server.ID: e.Server}}
}

type counts map[string]uint64

// reporting is a settled proxy whose Envoy counted so, of the one edge or of
// its listener.
func reporting(owner string, c counts) Proxy {
	r := &Report{Ready: true, Counters: map[string]uint64{}}
	for name, n := range c {
		r.Counters[owner+name] = n
	}
	return Proxy{Settled: true, Report: r}
}

const (
	predicted = false
	observed  = true
)

func TestVerdicts(t *testing.T) {
	tests := []struct {
		name           string
		policy         *tlspolicy.Policy
		listener       tlspolicy.Listener
		client, server counts
		verdict        tlspolicy.Verdict
		observed       bool
		why            string // a part of it
	}{
		{"nothing has happened", enforced, strict, counts{}, counts{},
			tlspolicy.VerdictVerified, predicted, "(predicted: no connection yet)"},
		{"a connection has begun", enforced, strict, counts{connections: 1}, counts{},
			tlspolicy.VerdictVerified, predicted, "(predicted: no handshake is finished yet)"},
		{"the server is down", enforced, strict, counts{connections: 3, connectFailed: 3}, counts{},
			tlspolicy.VerdictVerified, predicted, "3 connections failed before a handshake: is the server up?"},

		{"plaintext as intended", none, open, counts{connections: 2, received: 500}, counts{},
			tlspolicy.VerdictPlaintext, observed, "seen: data received and no handshake"},
		{"plaintext to a server that is down", none, open, counts{connections: 1, connectFailed: 1}, counts{},
			tlspolicy.VerdictPlaintext, predicted, "1 connection failed: is the server up?"},
		{"plaintext to a server that expects TLS", none, open, counts{connections: 5}, counts{sslError: 5},
			tlspolicy.VerdictPlaintext, predicted, "connections, and nothing received yet"},
		{"verified, seen from both ends", enforced, strict, counts{connections: 2, handshake: 2, received: 500}, counts{handshake: 2, noCertificate: 2},
			tlspolicy.VerdictVerified, observed, "seen: 2 handshakes, counted by both Envoys"},
		{"verified, the server silent", enforced, strict, counts{connections: 1, handshake: 1}, nil,
			tlspolicy.VerdictVerified, observed, "seen: 1 handshake, counted by the client's Envoy"},
		{"unverified", none, strict, counts{connections: 1, handshake: 1}, counts{handshake: 1},
			tlspolicy.VerdictUnverified, observed, "nothing says whom to trust; seen: 1 handshake"},
		{"mutual", withCert, mutual, counts{connections: 1, handshake: 1, received: 9}, counts{handshake: 1},
			tlspolicy.VerdictMutual, observed, "seen: 1 handshake, counted by both Envoys"},
		{"mutual, but the server has not answered", withCert, mutual, counts{connections: 1, handshake: 1}, counts{},
			tlspolicy.VerdictMutual, predicted, "looks at the client's certificate after that, has not answered yet"},
		{"one bad server among good ones", enforced, strict, counts{connections: 9, handshake: 6, failNames: 3}, counts{handshake: 6},
			tlspolicy.VerdictVerified, observed, "but 3 other connections failed: the client refuses the server's certificate: it carries none of blue.apps.local"},

		{"another authority than the client trusts", enforced, strict, counts{connections: 3, connectFailed: 3, failVerify: 3}, counts{sslError: 3},
			tlspolicy.VerdictBroken, observed, "not issued by what the client trusts (/root.pem), or has expired, or is revoked; seen: 3 failed connections and no good one (was to be: encrypted, server verified)"},
		{"another name than the client accepts", enforced, strict, counts{connections: 1, connectFailed: 1, failNames: 1}, counts{sslError: 1},
			tlspolicy.VerdictBroken, observed, "it carries none of blue.apps.local"},
		{"the server refuses the client's certificate (TLS 1.2)", withCert, mutual, counts{connections: 2, connectFailed: 2, sslError: 2}, counts{failVerify: 2},
			tlspolicy.VerdictBroken, observed, "the server refuses its clients' certificates: they are not issued by what it trusts"},
		{"the server refuses the client's certificate (TLS 1.3)", withCert, mutual, counts{connections: 2, handshake: 2, sslError: 2}, counts{failNames: 2},
			tlspolicy.VerdictBroken, observed, "the server refuses its clients' certificates: they carry none of the accepted names"},
		{"the server has no TLS after all", enforced, strict, counts{connections: 1, connectFailed: 1, sslError: 1}, counts{},
			tlspolicy.VerdictBroken, observed, "the handshake fails: the server refuses it or speaks no TLS"},

		{"broken as predicted: no TLS at the server", enforced, open, counts{connections: 2, connectFailed: 2, sslError: 2}, counts{},
			tlspolicy.VerdictBroken, observed, "enforces TLS and the server's listener has none: no connection succeeds; seen: 2 failed connections and no good one"},
		{"broken as predicted: the server hangs up", enforced, open, counts{connections: 2, connectFailed: 2}, counts{},
			tlspolicy.VerdictBroken, observed, "seen: 2 connections failed before a handshake"},
		{"broken as predicted: no client certificate", none, mutual, counts{connections: 2, handshake: 2, sslError: 2}, counts{failNoCert: 2},
			tlspolicy.VerdictBroken, observed, "has no policy for this port to name one; seen: 2 failed connections"},
		{"broken as predicted, after better days", none, mutual, counts{connections: 9, handshake: 7, received: 90, sslError: 2}, counts{failNoCert: 2},
			tlspolicy.VerdictBroken, observed, "seen: 2 failed connections"},
		{"broken, nothing tried yet", enforced, mutual, counts{}, counts{},
			tlspolicy.VerdictBroken, predicted, "the client's policy names none (predicted: no connection yet)"},

		{"contradiction: plaintext where TLS is intended", enforced, strict, counts{connections: 1, received: 90}, counts{},
			tlspolicy.VerdictPlaintext, observed, "contradiction: TLS is intended, and the client's Envoy has received data without any handshake"},
		{"contradiction: TLS where plaintext is intended", none, open, counts{connections: 1, handshake: 1}, counts{},
			tlspolicy.VerdictUnverified, observed, "contradiction: plaintext is intended, and the client's Envoy has finished 1 TLS handshake"},
		{"contradiction: it works although it should not", enforced, mutual, counts{connections: 1, handshake: 1, received: 9}, counts{handshake: 1, noCertificate: 1},
			tlspolicy.VerdictVerified, observed, "contradiction: the server demands a certificate"},
		{"contradiction: the server lets clients in without certificate", withCert, mutual, counts{connections: 1, handshake: 1, received: 9}, counts{handshake: 3, noCertificate: 2},
			tlspolicy.VerdictVerified, observed, "its Envoy has finished 2 handshakes without one"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			e := edgeOf(test.policy, test.listener)
			proxies := map[mesh.ID][]Proxy{e.Client.ID: {reporting("cluster.cds_egress_apps_blue_http_8080.", test.client)}}
			if test.server != nil {
				proxies[e.Server.ID] = []Proxy{reporting(serverListener, test.server)}
			}
			got := Table(graphOf(e), proxies)[0]
			if got.Verdict != test.verdict || got.Observed != test.observed {
				t.Errorf("%q, observed %t; want %q, observed %t", got.Verdict, got.Observed, test.verdict, test.observed)
			}
			if !strings.Contains(got.Why, test.why) {
				t.Errorf("why %q, want in it %q", got.Why, test.why)
			}
			if want := got.Observed && got.Verdict != e.Decision.Verdict; got.Contradicted != want {
				t.Errorf("contradicted %t, predicted %q", got.Contradicted, got.Predicted)
			}
		})
	}
}

// TestConfigured: what keeps a configuration from its Envoys is said first, and
// counters then confirm nothing.
func TestConfigured(t *testing.T) {
	good := counts{connections: 1, handshake: 1}
	const owner = "cluster.cds_egress_apps_blue_http_8080."
	with := func(change func(*Proxy)) Proxy {
		p := reporting(owner, good)
		change(&p)
		return p
	}
	rejecting := Proxy{Settled: true, Rejected: []Rejection{{"lds_ingress_0.0.0.0_15000", "bad key"}}}
	tests := []struct {
		name     string
		clients  []Proxy
		observed bool
		why      string
	}{
		{"no client", nil, predicted, "(predicted: no proxy of the client is connected)"},
		{"an Envoy without an agent", []Proxy{{Settled: true}}, predicted, "(predicted: the client's proxies report no counters)"},
		{"settled", []Proxy{reporting(owner, good)}, observed, "seen: 1 handshake"},
		{"not confirmed", []Proxy{reporting(owner, good), with(func(p *Proxy) { p.Settled = false })}, predicted,
			"1 of the client's proxies has not confirmed the configuration yet; intended: "},
		{"held", []Proxy{with(func(p *Proxy) { p.Held = "half of the mesh is gone" })}, predicted,
			"the client is sent nothing: half of the mesh is gone; intended: "},
		{"rejected", []Proxy{with(func(p *Proxy) {
			p.Rejected = []Rejection{{"cds_egress_apps_blue_http_8080", "no such file"}}
		})}, predicted, "the client's Envoy rejects its configuration of this edge: no such file; intended: "},
		{"another is rejected", []Proxy{with(func(p *Proxy) { p.Rejected = []Rejection{{"rds_egress_http_80", "no"}} })}, observed, "seen: 1 handshake"},
	}
	e := edgeOf(enforced, strict)
	if got := Table(graphOf(e), map[mesh.ID][]Proxy{e.Client.ID: {reporting(owner, good)}, e.Server.ID: {rejecting}})[0]; got.Observed ||
		!strings.HasPrefix(got.Why, "the server's Envoy rejects its listener: bad key; intended: ") {
		t.Errorf("observed %t: %s", got.Observed, got.Why)
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			e := edgeOf(enforced, strict)
			got := Table(graphOf(e), map[mesh.ID][]Proxy{e.Client.ID: test.clients})[0]
			if got.Observed != test.observed || !strings.Contains(got.Why, test.why) {
				t.Errorf("observed %t: %s", got.Observed, got.Why)
			}
		})
	}
}

// TestBaseline: what was counted before an edge changed says nothing of it.
func TestBaseline(t *testing.T) {
	e := edgeOf(none, open)
	p := reporting("cluster.cds_egress_apps_blue_http_8080.", counts{connections: 5, handshake: 5, received: 100})
	p.Report.Rebase("cluster.cds_egress_apps_blue_http_8080")
	proxies := map[mesh.ID][]Proxy{e.Client.ID: {p}}
	if got := Table(graphOf(e), proxies)[0]; got.Observed || got.Handshakes != 0 {
		t.Errorf("verdict %q of %d handshakes before the change", got.Verdict, got.Handshakes)
	}
	p.Report.Counters["cluster.cds_egress_apps_blue_http_8080."+connections] = 6
	p.Report.Counters["cluster.cds_egress_apps_blue_http_8080."+received] = 150
	if got := Table(graphOf(e), proxies)[0]; !got.Observed || got.Verdict != tlspolicy.VerdictPlaintext || got.Connections != 1 {
		t.Errorf("%+v", got)
	}
	// Envoy has started again: its counters are below the baseline.
	p.Report.Counters = map[string]uint64{"cluster.cds_egress_apps_blue_http_8080." + connections: 2}
	if got := Table(graphOf(e), proxies)[0]; got.Connections != 2 {
		t.Errorf("%d connections after a restart", got.Connections)
	}
}

// TestProxiesAddUp: an edge is that of all proxies of its client.
func TestProxiesAddUp(t *testing.T) {
	e := edgeOf(enforced, strict)
	const owner = "cluster.cds_egress_apps_blue_http_8080."
	got := Table(graphOf(e), map[mesh.ID][]Proxy{
		e.Client.ID: {reporting(owner, counts{connections: 3, handshake: 2, reused: 1}), reporting(owner, counts{connections: 4, handshake: 4, requests: 7})},
		e.Server.ID: {reporting(serverListener, counts{handshake: 5}), {Settled: true}, reporting(serverListener, counts{handshake: 1})},
	})
	want := []Row{{
		Client: "virtualGateway/front", Server: "virtualNode/blue", Port: 8080, Protocol: "http",
		Services: []string{"color.apps.local"}, Cluster: "cds_egress_apps_blue_http_8080",
		Verdict: tlspolicy.VerdictVerified, Predicted: tlspolicy.VerdictVerified, Observed: true,
		Why:   e.Decision.Reason + "; seen: 6 handshakes, counted by both Envoys",
		Field: "policy", Rule: "enforced",
		Handshakes: 6, Resumed: 1, ServerHandshakes: 6, Connections: 7, Requests: 7,
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestMissingSecret: a certificate that could not be had explains what fails.
func TestMissingSecret(t *testing.T) {
	e := edgeOf(enforced, strict)
	server := reporting(serverListener, counts{})
	server.Report.Secrets = []SecretStatus{{Name: "/blue.pem", Error: "permission denied"}, {Name: "/root.pem", Loaded: true}}
	got := Table(graphOf(e), map[mesh.ID][]Proxy{
		e.Client.ID: {reporting("cluster.cds_egress_apps_blue_http_8080.", counts{connections: 1, connectFailed: 1})},
		e.Server.ID: {server},
	})[0]
	if want := "; the server's Envoy lacks /blue.pem: permission denied"; !strings.HasSuffix(got.Why, want) {
		t.Errorf("why %q", got.Why)
	}
}

func TestWanted(t *testing.T) {
	for name, want := range map[string]bool{
		"cluster.cds_egress_apps_blue_http_8080.ssl.handshake":                      true,
		"cluster.cds_egress_apps_node_1.prod_http_8080.ssl.fail_verify_san":         true,
		"cluster.cds_egress_apps_blue_http_8080_color.apps.local.upstream_cx_total": true,
		"cluster.cds_egress_apps_blue_http_8080.upstream_rq_5xx":                    true,
		"cluster.cds_egress_apps_blue_http_8080.ssl.ciphers.ECDHE-RSA-AES128":       false,
		"cluster.cds_egress_apps_blue_http_8080.ssl.upstream_cx_total":              false,
		"cluster.cds_egress_apps_blue_http_8080.upstream_cx_active":                 false,
		"cluster.cds_egress_apps_blue_http_8080.external.upstream_rq_total_more":    false,
		"cluster.cds_ingress_apps_blue_http_8080.upstream_cx_total":                 false,
		"listener.0.0.0.0_15000.ssl.handshake":                                      true,
		"listener.0.0.0.0_9080.ssl.fail_verify_no_cert":                             true,
		"listener.0.0.0.0_15000.downstream_cx_total":                                false,
		"listener.0.0.0.0_15000.upstream_cx_total":                                  false,
		"listener.0.0.0.0_15000.ssl.versions.TLSv1.3":                               false,
		"listener":                      false,
		"server.live":                   false,
		"http.egress.upstream_cx_total": false,
	} {
		if got := Wanted(name); got != want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// TestReportJSON: agents and servers of different ages read each other.
func TestReportJSON(t *testing.T) {
	report := Report{
		Ready:        true,
		EnvoyVersion: "1.40.0",
		Counters:     map[string]uint64{"listener.0.0.0.0_15000.ssl.handshake": 3},
		Baseline:     map[string]uint64{"listener.0.0.0.0_15000.ssl.handshake": 1},
		Secrets:      []SecretStatus{{Name: "/blue.pem", Error: "no such file", NotAfter: 1800000000}},
		Problems:     []string{"cannot write the cache"},
	}
	const wire = `{"ready":true,"envoyVersion":"1.40.0","counters":{"listener.0.0.0.0_15000.ssl.handshake":3},` +
		`"baseline":{"listener.0.0.0.0_15000.ssl.handshake":1},` +
		`"secrets":[{"name":"/blue.pem","loaded":false,"error":"no such file","notAfter":1800000000}],"problems":["cannot write the cache"]}`
	got, err := json.Marshal(report)
	if err != nil || string(got) != wire {
		t.Errorf("%s, %v", got, err)
	}
	var back Report
	if err := json.Unmarshal([]byte(wire), &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(report, back); diff != "" {
		t.Error(diff)
	}
}

func TestText(t *testing.T) {
	rows := []Row{
		{Client: "virtualGateway/front", Server: "virtualNode/blue", Port: 8080, Verdict: tlspolicy.VerdictMutual, Observed: true, Why: "short", Handshakes: 12},
		{Client: "virtualNode/blue", Server: "virtualNode/red", Port: 80, Verdict: tlspolicy.VerdictBroken,
			Why: "the client's policy enforces TLS and the server's listener has none: no connection succeeds"},
	}
	const want = `EDGE                                          VERDICT             WHY                                                             HANDSHAKES
virtualGateway/front → virtualNode/blue:8080  mutual              short                                                           12
virtualNode/blue → virtualNode/red:80         broken (predicted)  the client's policy enforces TLS and the server's listener has  0
                                                                  none: no connection succeeds
`
	if diff := cmp.Diff(want, Text(rows)); diff != "" {
		t.Error(diff)
	}
	for line := range strings.Lines(Text(rows)) {
		if strings.HasSuffix(line, " \n") {
			t.Errorf("%q ends with spaces", line)
		}
	}
	if Text(nil) == "" {
		t.Error("nothing is said of no edges")
	}
}
