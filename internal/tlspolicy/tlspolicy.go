// Package tlspolicy decides how two Envoys of a mesh negotiate TLS: from a
// client's effective policy and a server's listener to one Decision. It is one
// table (rules.go); it knows no Envoy configuration, no store and no streams.
// The page of the guide it follows is docs/tls.md.
package tlspolicy

// Verdict is what is true of an edge, everywhere one of the same five.
type Verdict string

// The verdicts, from worst to best but for Broken.
const (
	VerdictPlaintext  Verdict = "plaintext"
	VerdictUnverified Verdict = "encrypted, server unverified"
	VerdictVerified   Verdict = "encrypted, server verified"
	VerdictMutual     Verdict = "mutual"
	VerdictBroken     Verdict = "broken"
)

// Source says where a certificate or a trust bundle comes from.
type Source string

// The sources of the App Mesh model. OwnSDS is an SDS secret whose name lies in
// the mesh's trust domain: Fairlead's agent issues it.
const (
	SourceNone   Source = ""
	SourceACM    Source = "acm"
	SourceFile   Source = "file"
	SourceSDS    Source = "sds"
	SourceOwnSDS Source = "own-sds"
)

// Certificate is a certificate with its key, by reference.
type Certificate struct {
	Source     Source
	ARN        string // acm
	Missing    bool   // acm: it is known that it cannot be had
	Chain, Key string // file: paths on the proxy's host
	Secret     string // sds
}

// Trust is a set of trusted roots, by reference.
type Trust struct {
	Source Source
	ARNs   []string // acm: root CAs
	// Missing are those of the ARNs that are known not to be had. They are not
	// trusted.
	Missing []string
	Chain   string // file: path on the proxy's host
	Secret  string // sds
}

// Policy is a client's effective policy (ClientPolicyTls of a backend, or of
// the backend defaults).
type Policy struct {
	Enforce     bool    // true when absent in the spec
	Ports       []int64 // empty: all ports
	Certificate *Certificate
	Trust       Trust
	SANs        []string
	Field       string // where it stands: "virtualNode/a spec.backendDefaults.clientPolicy.tls"
}

// Mode is a listener's TLS mode.
type Mode string

// The modes of the App Mesh model, and ModeNone for a listener without tls.
const (
	ModeNone       Mode = "none"
	ModeDisabled   Mode = "DISABLED"
	ModePermissive Mode = "PERMISSIVE"
	ModeStrict     Mode = "STRICT"
)

// Listener is the server's half of an edge.
type Listener struct {
	Mode        Mode
	Certificate *Certificate
	Validation  *ListenerValidation // nil: clients need no certificate
	Field       string              // "virtualNode/b spec.listeners[0].tls", also when absent
}

// ListenerValidation is what a server demands of client certificates.
type ListenerValidation struct {
	Trust Trust
	SANs  []string // empty: not checked
}

// Edge is the whole input of a decision: one client endpoint, one port of one
// server virtual node.
type Edge struct {
	Policy        *Policy // nil: none
	Port          int64   // the server's listener port
	Listener      Listener
	DiscoveryName string // DNS hostname without trailing dot, or serviceName.namespaceName
	// Server and Client are what is known of the certificates of the two ends.
	// The zero value knows nothing, and then only the configured proxies show it.
	Server, Client Facts
}

// Facts are what is known of a certificate before any handshake.
type Facts struct {
	Root string   // ARN of the root CA that it chains to; empty: unknown
	SANs []string // its DNS and URI names; nil: unknown
}

// Transport is what the client's Envoy speaks.
type Transport string

// The transports.
const (
	Plaintext Transport = "plaintext"
	TLS       Transport = "tls"
)

// Validation says against what the client validates the server's certificate.
type Validation string

// The validations. ByIssuerRoot is the root that the server's certificate
// chains to, distributed automatically.
const (
	Unvalidated  Validation = "none"
	ByPolicy     Validation = "policy"
	ByIssuerRoot Validation = "issuer-root"
)

// Decision is what tlspolicy says of an edge.
type Decision struct {
	Transport  Transport
	Validation Validation
	Trust      *Trust       // ByPolicy: the policy's
	IssuerOf   *Certificate // ByIssuerRoot: the server's certificate
	// SANs are names of which the server's certificate must carry one, as in
	// Matches; empty only if Unvalidated. Where nothing may match, it is Nobody.
	SANs []string
	// Certificate is what the client presents when the server asks; nil: nothing.
	Certificate *Certificate
	SNI         string  // empty: none, as for plaintext and IP addresses
	Verdict     Verdict // predicted
	Reason      string  // one sentence for people
	Field       string  // the field that decided, as in Policy.Field or Listener.Field
	Rule        string  // the matched row of the table
}
