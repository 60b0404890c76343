package edge

import (
	"cmp"
	"strconv"
	"strings"

	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/tlspolicy"
)

// Proxy is a connected proxy of a mesh endpoint, as the server knows it.
type Proxy struct {
	Settled  bool        // it holds the newest configuration, rejected resources aside
	Held     string      // why the server sends it nothing; empty: it does
	Rejected []Rejection // what its Envoy refuses
	Report   *Report     // the newest; nil: none, as of an Envoy without an agent
}

// Rejection is a resource that an Envoy refuses.
type Rejection struct {
	Resource string // its name
	Message  string // Envoy's own words
}

// Row is what is true of one edge, and why.
type Row struct {
	Client   string   `json:"client"` // as in mesh.ID.String: virtualGateway/front
	Server   string   `json:"server"`
	Port     int64    `json:"port"`
	Protocol string   `json:"protocol"`
	Services []string `json:"services"` // the virtual services through which it is used
	Cluster  string   `json:"cluster"`  // its name in Envoy

	// Verdict is what the counters show, or while they show nothing what is
	// predicted.
	Verdict   tlspolicy.Verdict `json:"verdict"`
	Predicted tlspolicy.Verdict `json:"predicted"`
	// Observed is true when Envoy's counters carry the verdict.
	Observed bool `json:"observed"`
	// Contradicted is true when they carry another than was predicted.
	Contradicted bool   `json:"contradicted,omitzero"`
	Why          string `json:"why"`   // for people
	Field        string `json:"field"` // the field of the spec that decided
	Rule         string `json:"rule"`  // the row of the table in docs/tls.md

	// Handshakes are those that the client's Envoys finished on this edge, and
	// Resumed the resumed among them. ServerHandshakes are those of the server's
	// Envoys with all their clients. All count since the edge changed last.
	Handshakes       uint64    `json:"handshakes"`
	Resumed          uint64    `json:"resumed,omitzero"`
	ServerHandshakes uint64    `json:"serverHandshakes,omitzero"`
	Connections      uint64    `json:"connections"`
	Requests         uint64    `json:"requests,omitzero"`
	RequestsFailed   uint64    `json:"requestsFailed,omitzero"` // answered 5xx, by the server or for it
	Failures         []Failure `json:"failures,omitzero"`
}

// Failure is a counter that tells of failed connections.
type Failure struct {
	At      string `json:"at"`      // client or server: whose Envoy counted
	Counter string `json:"counter"` // ssl.fail_verify_san
	Count   uint64 `json:"count"`
	Meaning string `json:"meaning"`
}

// Table has a row for every edge of a mesh, in the order of clients and then of
// Endpoint.Edges. proxies are the connected ones, by endpoint.
func Table(g *mesh.Graph, proxies map[mesh.ID][]Proxy) []Row {
	rows := []Row{}
	for _, client := range g.Sorted() {
		for _, e := range client.Edges {
			rows = append(rows, row(g, e, proxies[e.Client.ID], proxies[e.Server.ID]))
		}
	}
	return rows
}

func row(g *mesh.Graph, e *mesh.Edge, clients, servers []Proxy) Row {
	cluster := e.Cluster(g.Name.Mesh)
	o := observe(cluster, clients, servers)
	r := Row{
		Client:    e.Client.ID.String(),
		Server:    e.Server.ID.String(),
		Port:      e.Listener.Port,
		Protocol:  string(e.Listener.Protocol),
		Services:  e.Services,
		Cluster:   cluster,
		Predicted: e.Decision.Verdict,
		Field:     e.Decision.Field,
		Rule:      e.Decision.Rule,

		Handshakes:       o.client[handshake],
		Resumed:          o.client[reused],
		ServerHandshakes: o.server[handshake],
		Connections:      o.client[connections],
		Requests:         o.client[requests],
		RequestsFailed:   o.client[requestsFailed],
		Failures:         o.failures(e.Decision.Transport),
	}
	f := judge(e, o)
	r.Verdict, r.Observed, r.Why = f.verdict, f.observed, f.why
	r.Contradicted = r.Observed && r.Verdict != r.Predicted
	if obstacle := configured(e, cluster, clients, servers); obstacle != "" {
		r.Why = obstacle + "; intended: " + r.Why
		if f.verdict == r.Predicted {
			// What was counted may be of the configuration before.
			r.Observed = false
		}
	}
	return r
}

// configured says what keeps the Envoys from what is intended; empty: nothing.
func configured(e *mesh.Edge, cluster string, clients, servers []Proxy) string {
	for _, p := range servers {
		for _, rejected := range p.Rejected {
			if rejected.Resource == "lds_ingress_0.0.0.0_15000" {
				return "the server's Envoy rejects its listener: " + rejected.Message
			}
			if c := e.Listener.TLS.Certificate; c != nil && c.Source == tlspolicy.SourceACM && rejected.Resource == mesh.CertificateSecret(c.ARN) {
				return "the server's Envoy rejects its certificate " + c.ARN + ", and the one before stays: " + rejected.Message
			}
		}
	}
	behind, trust := 0, trustSecret(e.Decision)
	for _, p := range clients {
		for _, rejected := range p.Rejected {
			if rejected.Resource == cluster {
				return "the client's Envoy rejects its configuration of this edge: " + rejected.Message
			}
			if rejected.Resource == trust {
				return "the client's Envoy rejects the trust of this edge, and the one before stays: " + rejected.Message
			}
		}
		if p.Held != "" {
			return "the client is sent nothing: " + p.Held
		}
		if !p.Settled {
			behind++
		}
	}
	if behind > 0 {
		return counted(behind, "of the client's proxies has", "of the client's proxies have") + " not confirmed the configuration yet"
	}
	return ""
}

// trustSecret is the name of the server's secret that an edge's client trusts by;
// empty: there is none.
func trustSecret(d tlspolicy.Decision) string {
	switch {
	case d.Validation == tlspolicy.ByIssuerRoot && d.IssuerOf.Source == tlspolicy.SourceACM:
		return mesh.IssuerSecret(d.IssuerOf.ARN)
	case d.Validation == tlspolicy.ByPolicy && d.Trust.Source == tlspolicy.SourceACM:
		return mesh.TrustSecret(d.Trust.ARNs)
	}
	return ""
}

// observation is what the Envoys of both ends counted.
type observation struct {
	proxies  int               // of the client, connected
	reported int               // of those, with a report
	client   map[string]uint64 // of the edge's cluster
	recent   map[string]uint64 // of that, since its trust changed
	server   map[string]uint64 // of the server's listener, with all its clients
	missing  []string          // secrets that either end could not have, in words
}

// serverListener is the one listener of a virtual node's Envoy, by its stat
// prefix (facts/data-plane.md C.1).
const serverListener = "listener.0.0.0.0_15000."

func observe(cluster string, clients, servers []Proxy) observation {
	o := observation{proxies: len(clients), client: map[string]uint64{}, recent: map[string]uint64{}, server: map[string]uint64{}}
	for _, p := range clients {
		if p.Report == nil {
			continue
		}
		o.reported++
		of := "cluster." + stat(cluster) + "."
		add(o.client, of, p.Report.count)
		add(o.recent, of, p.Report.recent)
		o.lacks("client", p.Report)
	}
	for _, p := range servers {
		if p.Report != nil {
			add(o.server, serverListener, p.Report.count)
			o.lacks("server", p.Report)
		}
	}
	return o
}

func add(to map[string]uint64, prefix string, count func(string) uint64) {
	for name := range counters {
		to[name] += count(prefix + name)
	}
}

func (o *observation) lacks(who string, r *Report) {
	for _, s := range r.Secrets {
		if !s.Loaded {
			o.missing = append(o.missing, "the "+who+"'s Envoy lacks "+s.Name+": "+cmp.Or(s.Error, "not received yet"))
		}
	}
}

// stat is a cluster's name in the names of Envoy's counters.
func stat(cluster string) string { return strings.ReplaceAll(cluster, ":", "_") }

// meanings of failures, by counter, at the client and at the server.
var meanings = []struct{ counter, client, server string }{
	{failNames, "the server's certificate carries no accepted name", "a client's certificate carries no accepted name"},
	{failVerify, "the server's certificate is not issued by a trusted authority, or has expired, or is revoked", "a client's certificate is not issued by a trusted authority, or has expired"},
	{failNoCert, "the server presented no certificate", "a client presented no certificate"},
	{failHash, "the server's certificate is not the pinned one", "a client's certificate is not the pinned one"},
	{sslError, "the handshake failed otherwise: the server refused it or speaks no TLS", "the handshake failed otherwise: a client refused it or speaks no TLS"},
	{connectFailed, "no connection, or one that ended before the handshake did", ""},
}

// failures lists what failed at both ends of an edge. A client that speaks
// plaintext has none to see at the server.
func (o *observation) failures(transport tlspolicy.Transport) []Failure {
	var all []Failure
	for _, m := range meanings {
		if n := o.client[m.counter]; n > 0 {
			all = append(all, Failure{"client", m.counter, n, m.client})
		}
	}
	for _, m := range meanings {
		if n := o.server[m.counter]; n > 0 && m.server != "" && transport == tlspolicy.TLS {
			all = append(all, Failure{"server", m.counter, n, m.server})
		}
	}
	return all
}

func counted[N int | uint64](n N, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.FormatUint(uint64(n), 10) + " " + many
}
