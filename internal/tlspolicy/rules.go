package tlspolicy

import (
	"net/netip"
	"slices"
)

// policyClass is what a client's policy says of one port of a server. The
// classes are bits, so that a rule can name several.
type policyClass uint8

const (
	noPolicy policyClass = 1 << iota // none, or its ports do not list this one
	optional                         // enforce: false
	enforced

	everyPolicy = noPolicy | optional | enforced
)

// serverClass is what a server's listener offers.
type serverClass uint8

const (
	noTLS    serverClass = 1 << iota // no tls, or DISABLED
	rooted                           // TLS; Fairlead knows the root: ACM or its own SDS
	unrooted                         // TLS; it does not: a file or another SDS

	anyTLS = rooted | unrooted
)

// rule is a row of the table: what the calling Envoy does.
type rule struct {
	name       string
	policy     policyClass
	server     serverClass
	transport  Transport
	validation Validation
	verdict    Verdict // before the checks
	byServer   bool    // the listener's field decides, not the policy's
	sentence   string
}

// rules is the whole negotiation, in order of priority: the first row that
// matches decides. Every edge matches one (TestTotal).
var rules = []rule{
	// An enforcing policy wins, whatever the server says: it never sends plaintext.
	{"enforced, server without TLS", enforced, noTLS, TLS, ByPolicy, VerdictBroken, false,
		"the client's policy enforces TLS and the server's listener has none: no connection succeeds"},
	{"enforced", enforced, anyTLS, TLS, ByPolicy, VerdictVerified, false,
		"the client's policy enforces TLS: the server's certificate is validated against the policy's trust"},

	// Else the server decides whether there is TLS at all.
	{"server without TLS", everyPolicy, noTLS, Plaintext, Unvalidated, VerdictPlaintext, true,
		"no policy of the client enforces TLS on this port and the server's listener has none"},

	// A policy that does not enforce still says how to validate.
	{"not enforced, server with TLS", optional, anyTLS, TLS, ByPolicy, VerdictVerified, false,
		"the server offers TLS and the client's policy, without enforcing it, says how to validate the server's certificate"},

	// Without a policy, the server's certificate is validated as far as its root is known.
	{"no policy, known root", noPolicy, rooted, TLS, ByIssuerRoot, VerdictVerified, true,
		"the server offers TLS and the client has no policy for this port: the root of the server's certificate is known and distributed"},
	{"no policy, unknown root", noPolicy, unrooted, TLS, Unvalidated, VerdictUnverified, true,
		"the server offers TLS with a certificate from a file or another SDS, and the client has no policy for this port: nothing says whom to trust"},
}

// Nobody is the SAN of a decision that no certificate may satisfy. The name is
// reserved (RFC 2606): no authority issues it.
const Nobody = "nobody.invalid"

// Decide says how the client's Envoy talks to the server's. It is total: an
// edge that a valid spec cannot have is decided closed, never as plaintext
// under an enforcing policy.
func Decide(e Edge) Decision {
	r := match(classify(e.Policy, e.Port), offer(e.Listener))
	d := Decision{
		Transport:  r.transport,
		Validation: r.validation,
		Verdict:    r.verdict,
		Reason:     r.sentence,
		Field:      fieldOf(e, r),
		Rule:       r.name,
	}
	switch r.validation {
	case ByPolicy:
		d.Trust = &e.Policy.Trust
		d.SANs = names(e)
		d.Certificate = e.Policy.Certificate
	case ByIssuerRoot:
		d.IssuerOf = e.Listener.Certificate
		d.SANs = []string{discoveryName(e)}
	}
	if r.transport == TLS {
		d.SNI = serverName(e.DiscoveryName)
		check(e, &d)
	}
	return d
}

// check refines the verdict of an edge that speaks TLS.
func check(e Edge, d *Decision) {
	if d.Verdict == VerdictBroken {
		return
	}
	for _, b := range breaks {
		if reason := b.holds(e, d); reason != "" {
			d.Verdict, d.Reason, d.Field = VerdictBroken, reason, b.field(e)
			return
		}
	}
	if e.Listener.Validation != nil {
		d.Verdict = VerdictMutual
		d.Reason += "; the server demands a certificate of the client, which presents the policy's"
	}
}

func match(p policyClass, s serverClass) rule {
	for _, r := range rules {
		if r.policy&p != 0 && r.server&s != 0 {
			return r
		}
	}
	panic("tlspolicy: the table has a hole") // TestTotal shows that it has none
}

// classify reads a policy for one port. Ports that do not list it are as no
// policy.
func classify(p *Policy, port int64) policyClass {
	switch {
	case p == nil, len(p.Ports) > 0 && !slices.Contains(p.Ports, port):
		return noPolicy
	case p.Enforce:
		return enforced
	}
	return optional
}

// offer reads a listener. A mode that is not known, or a certificate without a
// source, counts as TLS with an unknown root: it is not plaintext.
func offer(l Listener) serverClass {
	switch {
	case l.Mode == ModeNone, l.Mode == "", l.Mode == ModeDisabled:
		return noTLS
	case l.Certificate == nil:
		return unrooted
	case l.Certificate.Source == SourceACM, l.Certificate.Source == SourceOwnSDS:
		return rooted
	}
	return unrooted
}

// names are the SANs that a policy accepts of the server.
func names(e Edge) []string {
	if len(e.Policy.SANs) == 0 {
		return []string{discoveryName(e)}
	}
	if !e.Policy.Enforce {
		return e.Policy.SANs
	}
	// The API refuses wildcard entries in a policy that enforces: here they
	// match nothing.
	exact := make([]string, 0, len(e.Policy.SANs))
	for _, entry := range e.Policy.SANs {
		if !IsWildcard(entry) {
			exact = append(exact, entry)
		}
	}
	if len(exact) == 0 {
		return []string{Nobody}
	}
	return exact
}

func discoveryName(e Edge) string {
	if e.DiscoveryName == "" {
		return Nobody
	}
	return e.DiscoveryName
}

// maxHostName is the length of the longest host name (RFC 1035). Names of Cloud
// Map may be longer.
const maxHostName = 253

// serverName is a discovery name as SNI carries it: host names only (RFC 6066).
func serverName(name string) string {
	if _, err := netip.ParseAddr(name); err == nil || len(name) > maxHostName {
		return ""
	}
	return name
}

func fieldOf(e Edge, r rule) string {
	if r.byServer || e.Policy == nil {
		return e.Listener.Field
	}
	return e.Policy.Field
}
