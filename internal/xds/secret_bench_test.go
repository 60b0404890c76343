package xds

import (
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
)

// BenchmarkRenewal has 1,000 proxies of 1,000 nodes connected, over TLS in this
// process. In "shared" 100 of them hold one certificate, which one iteration
// renews: the figures are from the view to a proxy's receipt. In "own" each has
// one of its own, and one iteration renews all, one view at a time.
func BenchmarkRenewal(b *testing.B) {
	const nodes, holders = 1000, 100
	b.Run("shared", func(b *testing.B) {
		rig, clients := fleet(b, nodes, func(i int) string { return fmt.Sprint("c", min(i/holders, 1)) })
		var took []time.Duration
		now := rig.source.views[demo]
		for b.Loop() {
			began := time.Now()
			now = renewed(now, "c0")
			rig.source.set(demo, now)
			for _, c := range clients[:holders] {
				c.ack(c.next())
				took = append(took, time.Since(began))
			}
		}
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	})
	b.Run("own", func(b *testing.B) {
		rig, clients := fleet(b, nodes, func(i int) string { return fmt.Sprint("c", i) })
		now := rig.source.views[demo]
		for b.Loop() {
			for i := range clients {
				now = renewed(now, fmt.Sprint("c", i))
				rig.source.set(demo, now)
			}
			for i, c := range clients {
				for want := fmt.Sprintf("c%d at %d", i, now.Certificates[certificateARN(fmt.Sprint("c", i))].Revision); ; {
					a := c.next()
					c.ack(a)
					if a.secrets(b)[certificateARN(fmt.Sprint("c", i))] == "chain of "+want+", key of "+want {
						break
					}
				}
			}
		}
	})
}

// fleet connects a proxy of each of n nodes and has it subscribe to its
// certificate.
func fleet(b *testing.B, n int, certificateOf func(int) string) (*serverRig, []*client) {
	var lines []string
	for i := range n {
		lines = append(lines, fmt.Sprintf("node n%d: s%d s%d s%d", i, (i+1)%n, (i+2)%n, (i+3)%n), fmt.Sprintf("service s%d: n%d", i, i))
	}
	v := secure(view(demo, 10, lines...))
	for i := range n {
		name := certificateOf(i)
		secure(&mesh.View{VirtualNodes: map[string]*mesh.Record[appmesh.VirtualNodeSpec]{name: v.VirtualNodes[fmt.Sprint("n", i)]}}, name)
		renew(v, name, 1)
	}
	source := newMemory()
	source.views[demo] = v
	rig := startServer(b, source, func(c *Config) { c.Log = slog.New(slog.DiscardHandler) })
	clients := make([]*client, n)
	for i := range n {
		c := rig.as(Delta, fmt.Sprint("mesh/demo/virtualNode/n", i), nil)
		c.clusters()
		c.send(req{kind: "secret", names: []string{certificateARN(certificateOf(i))}})
		c.ack(c.next())
		clients[i] = c
	}
	return rig, clients
}
