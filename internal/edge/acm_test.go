package edge

import (
	"strings"
	"testing"

	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/tlspolicy"
)

// TestACM tells what is seen of edges whose certificate or trust the server
// sends.
func TestACM(t *testing.T) {
	const leaf, root, other = "arn:aws:acm:r:1:certificate/1", "arn:aws:acm-pca:r:1:certificate-authority/1", "arn:aws:acm-pca:r:1:certificate-authority/2"
	const owner = "cluster.cds_egress_apps_blue_http_8080."
	acm := tlspolicy.Listener{Mode: tlspolicy.ModeStrict, Certificate: &tlspolicy.Certificate{Source: tlspolicy.SourceACM, ARN: leaf}, Field: "listener"}
	missing := acm
	missing.Certificate = &tlspolicy.Certificate{Source: tlspolicy.SourceACM, ARN: leaf, Missing: true}
	policy := &tlspolicy.Policy{Enforce: true, Trust: tlspolicy.Trust{Source: tlspolicy.SourceACM, ARNs: []string{other, root}}, Field: "policy"}
	good, revoked := counts{connections: 2, handshake: 2}, counts{connections: 3, connectFailed: 3, failVerify: 3}
	rejecting := func(secret string) Proxy {
		p := reporting(owner, good)
		p.Rejected = []Rejection{{secret, "Failed to load"}}
		return p
	}
	type test struct {
		name           string
		policy         *tlspolicy.Policy
		listener       tlspolicy.Listener
		client, server Proxy
		verdict        tlspolicy.Verdict
		observed       bool
		why            string
	}
	tests := []test{
		{"handshakes, without a policy", nil, acm, reporting(owner, good), Proxy{Settled: true}, tlspolicy.VerdictVerified, observed, "the root of the server's certificate is known and distributed; seen: 2 handshakes"},
		{"handshakes, with a policy", policy, acm, reporting(owner, good), Proxy{Settled: true}, tlspolicy.VerdictVerified, observed, "seen: 2 handshakes"},
		{"refused, without a policy", nil, acm, reporting(owner, revoked), Proxy{Settled: true}, tlspolicy.VerdictBroken, observed,
			"not issued by what the client trusts (the root of " + leaf + "), or has expired, or is revoked"},
		{"refused, with a policy", policy, acm, reporting(owner, revoked), Proxy{Settled: true}, tlspolicy.VerdictBroken, observed,
			"not issued by what the client trusts (" + other + ", " + root + "), or has expired, or is revoked"},
		{"no certificate", nil, missing, reporting(owner, counts{}), Proxy{Settled: true}, tlspolicy.VerdictBroken, predicted, "the server's certificate " + leaf + " cannot be had"},
		{"the server rejects its certificate", nil, acm, reporting(owner, good), rejecting(leaf), tlspolicy.VerdictVerified, predicted,
			"the server's Envoy rejects its certificate " + leaf + ", and the one before stays: Failed to load; intended"},
		{"the client rejects the root", nil, acm, rejecting(mesh.IssuerSecret(leaf)), Proxy{Settled: true}, tlspolicy.VerdictVerified, predicted,
			"the client's Envoy rejects the trust of this edge, and the one before stays: Failed to load; intended"},
		{"the client rejects the policy's trust", policy, acm, rejecting(mesh.TrustSecret([]string{root, other})), Proxy{Settled: true}, tlspolicy.VerdictVerified, predicted,
			"the client's Envoy rejects the trust of this edge"},
		{"the client rejects another's trust", policy, acm, rejecting(mesh.TrustSecret([]string{root})), Proxy{Settled: true}, tlspolicy.VerdictVerified, observed, "seen"},
		{"the server rejects another's certificate", nil, acm, reporting(owner, good), rejecting(leaf + "2"), tlspolicy.VerdictVerified, observed, "seen"},
	}
	// The trust has changed after two handshakes.
	after := func(then counts) Proxy {
		p := reporting(owner, then)
		p.Report.Trusted = reporting(owner, good).Report.Counters
		return p
	}
	tests = append(tests, []test{
		{"another trust, no connection since", nil, acm, after(good), Proxy{Settled: true}, tlspolicy.VerdictVerified, observed, "seen: 2 handshakes"},
		{"another trust, all fail since", nil, acm, after(counts{connections: 5, handshake: 2, connectFailed: 3, failVerify: 3}), Proxy{Settled: true},
			tlspolicy.VerdictBroken, observed, "or is revoked; seen: 3 failed connections and no good one"},
		{"another trust, some fail since", nil, acm, after(counts{connections: 6, handshake: 3, connectFailed: 3, failVerify: 3}), Proxy{Settled: true},
			tlspolicy.VerdictVerified, observed, "seen: 3 handshakes, counted by the client's Envoy; but 3 other connections failed"},
	}...)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := edgeOf(tt.policy, tt.listener)
			got := Table(graphOf(e), map[mesh.ID][]Proxy{e.Client.ID: {tt.client}, e.Server.ID: {tt.server}})[0]
			if got.Verdict != tt.verdict || got.Observed != tt.observed || !strings.Contains(got.Why, tt.why) {
				t.Errorf("%s, observed %t: %s", got.Verdict, got.Observed, got.Why)
			}
		})
	}
}
