package tlspolicy

import (
	"slices"
	"strings"
)

// breaks are the ways in which an edge that speaks TLS is known beforehand to
// fail. The first that holds gives the reason. Neither changes what the Envoys
// are told: they refuse by themselves, and the verdict says why.
var breaks = []struct {
	name  string
	field func(Edge) string
	holds func(Edge, *Decision) string // the reason, or empty
}{
	{"server without discovery name", listenerField(""), func(e Edge, d *Decision) string {
		if e.DiscoveryName != "" {
			return ""
		}
		return "the server has no service discovery: it has neither an address nor a name to validate"
	}},
	{"server without certificate", listenerField(".certificate"), func(e Edge, d *Decision) string {
		if c := e.Listener.Certificate; c != nil && c.Source != SourceNone {
			return ""
		}
		return "the server's listener names no certificate"
	}},
	{"server's certificate cannot be had", listenerField(".certificate.acm.certificateArn"), func(e Edge, d *Decision) string {
		if c := e.Listener.Certificate; !c.Missing {
			return ""
		}
		return "the server's certificate " + e.Listener.Certificate.ARN + " cannot be had"
	}},
	{"policy without trust", policyField(".validation.trust"), func(e Edge, d *Decision) string {
		if d.Validation != ByPolicy || d.Trust.Source != SourceNone {
			return ""
		}
		return "the client's policy names no trust: no certificate can be validated"
	}},
	{"client without policy for a server that wants certificates", listenerField(".validation"), func(e Edge, d *Decision) string {
		if e.Listener.Validation == nil || d.Validation == ByPolicy {
			return ""
		}
		return "the server demands a certificate of its clients, and the client has no policy for this port to name one"
	}},
	{"client without certificate for a server that wants one", policyField(".certificate"), func(e Edge, d *Decision) string {
		if e.Listener.Validation == nil || d.Certificate != nil {
			return ""
		}
		return "the server demands a certificate of its clients, and the client's policy names none"
	}},
	{"names that nothing can match", policyField(".validation.subjectAlternativeNames"), func(e Edge, d *Decision) string {
		if d.Validation != ByPolicy || len(e.Policy.SANs) == 0 || slices.ContainsFunc(d.SANs, matchable) {
			return ""
		}
		return "no name in the policy's list can match a certificate: entries are host names or URIs, and wildcards only where TLS is not enforced"
	}},
	{"trust cannot be had", policyField(".validation.trust.acm"), func(e Edge, d *Decision) string {
		if d.Validation != ByPolicy || d.Trust.Source != SourceACM || len(d.Trust.Missing) < len(d.Trust.ARNs) {
			return ""
		}
		return "none of the authorities that the client's policy trusts can be had"
	}},
	{"root not trusted", policyField(".validation.trust.acm"), func(e Edge, d *Decision) string {
		if d.Validation != ByPolicy || d.Trust.Source != SourceACM || e.Server.Root == "" || d.Trust.trusts(e.Server.Root) {
			return ""
		}
		return "the server's certificate chains to " + e.Server.Root + ", which the client's policy does not trust"
	}},
	{"server's names not accepted", policyField(".validation.subjectAlternativeNames"), func(e Edge, d *Decision) string {
		if d.Validation == Unvalidated || e.Server.SANs == nil || slices.ContainsFunc(d.SANs, isAddress) || anyMatches(d.SANs, e.Server.SANs) {
			return ""
		}
		return "the server's certificate carries " + list(e.Server.SANs) + ", the client wants " + list(d.SANs)
	}},
	{"client's names not accepted", listenerField(".validation.subjectAlternativeNames"), func(e Edge, d *Decision) string {
		v := e.Listener.Validation
		if v == nil || len(v.SANs) == 0 || e.Client.SANs == nil || anyMatches(v.SANs, e.Client.SANs) {
			return ""
		}
		return "the client's certificate carries " + list(e.Client.SANs) + ", the server wants " + list(v.SANs)
	}},
}

// trusts says whether an authority is listed and can be had.
func (t *Trust) trusts(arn string) bool {
	return slices.Contains(t.ARNs, arn) && !slices.Contains(t.Missing, arn)
}

func listenerField(member string) func(Edge) string {
	return func(e Edge) string { return e.Listener.Field + member }
}

// policyField falls back to the listener for a client without a policy, whose
// names are the server's discovery name.
func policyField(member string) func(Edge) string {
	return func(e Edge) string {
		if e.Policy == nil {
			return e.Listener.Field
		}
		return e.Policy.Field + member
	}
}

func anyMatches(entries, sans []string) bool {
	return slices.ContainsFunc(entries, func(entry string) bool {
		return slices.ContainsFunc(sans, func(san string) bool { return Matches(entry, san) })
	})
}

func list(names []string) string {
	if len(names) == 0 {
		return "no name"
	}
	return strings.Join(names, ", ")
}
