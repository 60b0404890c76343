package edge

import (
	"strings"

	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/tlspolicy"
)

// finding is a verdict with what carries it.
type finding struct {
	verdict  tlspolicy.Verdict
	observed bool
	why      string
}

// judge puts what was intended and what was counted into one verdict. Only
// counters confirm or contradict; where they say nothing, the verdict stays
// predicted, and the words say so.
func judge(e *mesh.Edge, o observation) finding {
	f := weigh(e, o)
	if e.Decision.Transport == tlspolicy.TLS && (!f.observed || f.verdict == tlspolicy.VerdictBroken) {
		for _, lack := range o.missing {
			f.why += "; " + lack
		}
	}
	return f
}

func weigh(e *mesh.Edge, o observation) finding {
	d := e.Decision
	predicted := func(why string) finding {
		return finding{d.Verdict, false, d.Reason + " (predicted: " + why + ")"}
	}
	switch {
	case o.proxies == 0:
		return predicted("no proxy of the client is connected")
	case o.reported == 0:
		return predicted("the client's proxies report no counters")
	case o.client[connections] == 0 && o.client[handshake] == 0 && o.refusals() == 0:
		return predicted("no connection yet")
	}
	encrypts := o.client[handshake] > 0
	switch {
	case d.Transport == tlspolicy.Plaintext && encrypts:
		return finding{tlspolicy.VerdictUnverified, true, "contradiction: plaintext is intended, and the client's Envoy has finished " +
			counted(o.client[handshake], "TLS handshake", "TLS handshakes") + " on this edge"}
	case d.Transport == tlspolicy.Plaintext:
		return o.plaintext(d, predicted)
	case !encrypts && o.refusals() == 0 && o.client[received] > 0:
		return finding{tlspolicy.VerdictPlaintext, true, "contradiction: TLS is intended, and the client's Envoy has received data without any handshake"}
	case d.Verdict == tlspolicy.VerdictBroken && o.refusals() > 0:
		return o.broken(e)
	case encrypts && o.distrusted():
		o.client = o.recent
		return o.broken(e)
	case encrypts && o.accepted(e):
		return o.encrypted(e)
	case o.refusals() > 0:
		return o.broken(e)
	case encrypts:
		return predicted("handshakes are finished, and the server, which looks at the client's certificate after that, has not answered yet")
	case o.client[connectFailed] < o.client[connections]:
		return predicted("no handshake is finished yet")
	case d.Verdict == tlspolicy.VerdictBroken:
		return finding{tlspolicy.VerdictBroken, true, d.Reason + "; seen: " + o.unconnected()}
	}
	return predicted(o.unconnected() + ": is the server up?")
}

// refusals are the connections that TLS ended, as the client counted them.
func (o *observation) refusals() uint64 { return refused(o.client) }

func refused(c map[string]uint64) uint64 {
	return c[sslError] + c[failVerify] + c[failNames] + c[failHash] + c[failNoCert]
}

// distrusted says whether the handshakes are from before the trust changed, and
// all that came since has failed.
func (o *observation) distrusted() bool { return refused(o.recent) > 0 && o.recent[handshake] == 0 }

// accepted says whether a finished handshake means that the server goes on. In
// TLS 1.3 a client has finished before the server looks at its certificate, and
// learns of a refusal when it reads; data of the server's proves that it did
// not refuse.
func (o *observation) accepted(e *mesh.Edge) bool {
	if o.client[received] > 0 {
		return true
	}
	return e.Listener.TLS.Validation == nil && o.client[sslError] < o.client[handshake]
}

func (o *observation) unconnected() string {
	return counted(o.client[connectFailed], "connection", "connections") + " failed before a handshake"
}

func (o *observation) plaintext(d tlspolicy.Decision, predicted func(string) finding) finding {
	switch failed := o.client[connectFailed]; {
	case o.client[received] > 0:
		return finding{tlspolicy.VerdictPlaintext, true, d.Reason + "; seen: data received and no handshake"}
	case failed < o.client[connections]:
		return predicted("connections, and nothing received yet")
	default:
		return predicted(counted(failed, "connection", "connections") + " failed: is the server up?")
	}
}

// encrypted: handshakes are there. What they were checked against is the
// client's configuration, which Envoy enforces.
func (o *observation) encrypted(e *mesh.Edge) finding {
	d := e.Decision
	seen := counted(o.client[handshake], "handshake", "handshakes")
	if o.server[handshake] > 0 {
		seen += ", counted by both Envoys"
	} else {
		seen += ", counted by the client's Envoy"
	}
	if n := o.refusals(); n > 0 {
		seen += "; but " + counted(n, "other connection", "other connections") + " failed: " + o.cause(d)
	}
	verdict := d.Verdict
	switch {
	case verdict == tlspolicy.VerdictBroken:
		verdict = tlspolicy.VerdictVerified
		if d.Validation == tlspolicy.Unvalidated {
			verdict = tlspolicy.VerdictUnverified
		}
		return finding{verdict, true, "contradiction: " + d.Reason + "; yet seen: " + seen +
			" (a change at the server shows with the next connection)"}
	case verdict == tlspolicy.VerdictMutual && o.server[noCertificate] > 0 && demandsAlways(e.Server):
		return finding{tlspolicy.VerdictVerified, true, "contradiction: the server is to demand a certificate of its clients, and its Envoy has finished " +
			counted(o.server[noCertificate], "handshake", "handshakes") + " without one"}
	}
	return finding{verdict, true, d.Reason + "; seen: " + seen}
}

// demandsAlways says whether all TLS listeners of a node demand certificates:
// only then does a handshake without one, which its Envoy counts for all of
// them together, tell of this edge.
func demandsAlways(server *mesh.Endpoint) bool {
	for _, l := range server.Listeners {
		encrypts := l.TLS.Mode == tlspolicy.ModeStrict || l.TLS.Mode == tlspolicy.ModePermissive
		if encrypts && l.TLS.Validation == nil {
			return false
		}
	}
	return true
}

func (o *observation) broken(e *mesh.Edge) finding {
	d := e.Decision
	seen := counted(o.refusals(), "failed connection", "failed connections")
	if o.client[received] == 0 {
		seen += " and no good one"
	}
	if d.Verdict == tlspolicy.VerdictBroken {
		return finding{tlspolicy.VerdictBroken, true, d.Reason + "; seen: " + seen}
	}
	return finding{tlspolicy.VerdictBroken, true, o.cause(d) + "; seen: " + seen + " (was to be: " + string(d.Verdict) + ")"}
}

// cause puts the failure into words, from the counter that says most.
func (o *observation) cause(d tlspolicy.Decision) string {
	switch {
	case o.client[failNames] > 0:
		return "the client refuses the server's certificate: it carries none of " + strings.Join(d.SANs, ", ")
	case o.client[failVerify] > 0:
		return "the client refuses the server's certificate: it is not issued by what the client trusts" + trusted(d) + ", or has expired, or is revoked"
	case o.client[failHash] > 0:
		return "the client refuses the server's certificate: it is not the pinned one"
	case o.client[failNoCert] > 0:
		return "the server presents no certificate"
	case o.server[failNoCert] > 0 && d.Certificate == nil:
		return "the server refuses the client: it presents no certificate"
	case o.server[failNames] > 0:
		return "the server refuses its clients' certificates: they carry none of the accepted names"
	case o.server[failVerify] > 0:
		return "the server refuses its clients' certificates: they are not issued by what it trusts, or have expired"
	case o.server[failNoCert] > 0:
		return "the server refuses its clients: they present no certificate"
	}
	return "the handshake fails: the server refuses it or speaks no TLS"
}

// trusted names the client's trust.
func trusted(d tlspolicy.Decision) string {
	switch t := d.Trust; {
	case t == nil && d.IssuerOf != nil && d.IssuerOf.ARN != "":
		return " (the root of " + d.IssuerOf.ARN + ")"
	case t == nil:
		return ""
	case t.Source == tlspolicy.SourceACM:
		return " (" + strings.Join(t.ARNs, ", ") + ")"
	case t.Source == tlspolicy.SourceFile:
		return " (" + t.Chain + ")"
	default:
		return " (" + t.Secret + ")"
	}
}
