// Package edge says what is true of each edge of a mesh: what was intended (the
// Graph's Decision), what the proxies hold (ACKed or rejected) and what their
// Envoys counted, put together into one verdict and its cause. It is pure: what
// proxies report is handed to it. The page of the guide it follows is
// docs/tls.md.
package edge

import "strings"

// Report is what an agent tells of its proxy. Its JSON is the wire between
// agents and servers of different ages: members are added, never changed.
type Report struct {
	Ready        bool   `json:"ready"`
	EnvoyVersion string `json:"envoyVersion,omitzero"`
	// Counters are Envoy's, by name, for which Wanted is true. They count from
	// Envoy's start.
	Counters map[string]uint64 `json:"counters,omitzero"`
	// Baseline has counters as they stood when the cluster or listener that
	// they belong to changed last: what came before says nothing of what the
	// proxy holds now. Missing ones were 0.
	Baseline map[string]uint64 `json:"baseline,omitzero"`
	// Trusted has counters as they stood when the trust of the cluster that they
	// belong to changed last: roots or CRLs. Connections from before go on, so
	// that only what came since tells whether new ones succeed.
	Trusted  map[string]uint64 `json:"trusted,omitzero"`
	Secrets  []SecretStatus    `json:"secrets,omitzero"`
	Problems []string          `json:"problems,omitzero"` // for people: what the agent could not do
}

// SecretStatus is a certificate or trust bundle that a proxy needs.
type SecretStatus struct {
	Name   string `json:"name"` // as the Envoy configuration names it
	Loaded bool   `json:"loaded"`
	Error  string `json:"error,omitzero"` // why it could not be had
	// NotAfter is when the certificate in use expires, in seconds since the
	// Unix epoch; 0: unknown.
	NotAfter int64 `json:"notAfter,omitzero"`
}

// Rebase makes the counters of one cluster or listener start anew, as
// "cluster.NAME" or "listener.ADDRESS" changed. The agent calls it when Envoy
// has taken the change.
func (r *Report) Rebase(owner string) { r.note(&r.Baseline, owner) }

// Retrust notes that the trust of a cluster has changed, as Rebase does of the
// cluster.
func (r *Report) Retrust(owner string) { r.note(&r.Trusted, owner) }

func (r *Report) note(in *map[string]uint64, owner string) {
	if *in == nil {
		*in = map[string]uint64{}
	}
	for name, n := range r.Counters {
		if rest, ok := strings.CutPrefix(name, owner+"."); ok && counters[rest] {
			(*in)[name] = n
		}
	}
}

// count is how far a counter went since its baseline. A counter below its
// baseline belongs to an Envoy that was started since.
func (r *Report) count(name string) uint64 { return since(r.Counters[name], r.Baseline[name]) }

// recent is how far a counter went since the trust changed, too.
func (r *Report) recent(name string) uint64 {
	return since(r.Counters[name], max(r.Baseline[name], r.Trusted[name]))
}

func since(n, before uint64) uint64 {
	if n < before {
		return n
	}
	return n - before
}

// The counters of Envoy that verdicts are made of, behind "cluster.NAME." or
// "listener.ADDRESS.".
const (
	handshake      = "ssl.handshake"             // finished, resumed ones too
	reused         = "ssl.session_reused"        // of those, resumed
	sslError       = "ssl.connection_error"      // failed, but for failed verification
	noCertificate  = "ssl.no_certificate"        // finished without a certificate of the peer
	failNoCert     = "ssl.fail_verify_no_cert"   // the peer presented none
	failVerify     = "ssl.fail_verify_error"     // chain not trusted, expired or revoked
	failNames      = "ssl.fail_verify_san"       // no accepted name
	failHash       = "ssl.fail_verify_cert_hash" // not a pinned certificate
	connections    = "upstream_cx_total"
	connectFailed  = "upstream_cx_connect_fail"
	received       = "upstream_cx_rx_bytes_total" // of the application, after decryption
	requests       = "upstream_rq_total"
	requestsFailed = "upstream_rq_5xx"
)

var counters = map[string]bool{
	handshake: true, reused: true, sslError: true, noCertificate: true,
	failNoCert: true, failVerify: true, failNames: true, failHash: true,
	connections: true, connectFailed: true, received: true, requests: true, requestsFailed: true,
}

// Wanted says whether an agent should report a counter of Envoy's: those of
// clusters to other nodes, and the TLS of listeners.
func Wanted(name string) bool {
	rest, cluster := strings.CutPrefix(name, "cluster.cds_egress_")
	if !cluster {
		var listener bool
		if rest, listener = strings.CutPrefix(name, "listener."); !listener {
			return false
		}
	}
	// Names of nodes and addresses have dots of their own: what counts stands
	// at the end.
	last := strings.LastIndexByte(rest, '.')
	if last < 0 {
		return false
	}
	if before := strings.LastIndexByte(rest[:last], '.'); before >= 0 && rest[before+1:last] == "ssl" {
		return counters[rest[before+1:]]
	}
	return cluster && counters[rest[last+1:]]
}
