package edge

import (
	"math/rand/v2"
	"testing"

	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/tlspolicy"
)

// TestOnlyCountersConfirm throws counters of all kinds at all kinds of edges: no
// verdict is called observed that they do not carry, and each is explained.
func TestOnlyCountersConfirm(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	names := []string{handshake, sslError, noCertificate, failNoCert, failVerify, failNames, failHash, connections, connectFailed, received}
	random := func() counts {
		c := counts{}
		for _, name := range names {
			if rng.IntN(3) == 0 {
				c[name] = rng.Uint64N(4)
			}
		}
		return c
	}
	for range 20_000 {
		policy := []*tlspolicy.Policy{none, enforced, withCert}[rng.IntN(3)]
		listener := []tlspolicy.Listener{open, strict, mutual}[rng.IntN(3)]
		e, client := edgeOf(policy, listener), random()
		r := Table(graphOf(e), map[mesh.ID][]Proxy{
			e.Client.ID: {reporting("cluster.cds_egress_apps_blue_http_8080.", client)},
			e.Server.ID: {reporting(serverListener, random())},
		})[0]
		refused := client[sslError] + client[failVerify] + client[failNames] + client[failHash] + client[failNoCert]
		carried := !r.Observed
		switch {
		case carried:
			carried = r.Verdict == r.Predicted
		case r.Verdict == tlspolicy.VerdictPlaintext:
			carried = client[received] > 0 && client[handshake] == 0
		case r.Verdict == tlspolicy.VerdictBroken:
			carried = refused > 0 || client[connectFailed] > 0
		default:
			carried = client[handshake] > 0
		}
		if !carried || r.Why == "" || r.Field == "" {
			t.Fatalf("%q (predicted %q, observed %t) of %v: %s", r.Verdict, r.Predicted, r.Observed, client, r.Why)
		}
	}
}
