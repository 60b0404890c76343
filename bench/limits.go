package main

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/bench/loadrun"
)

// The limits, for 2 cores with the clients beside the server.
const (
	latencyMs        = 100  // p99 of a change, or
	latencyRatio     = 1.5  // times the linear cache's, whichever is more
	largeMs          = 1000 // p99 of a change at plan.large
	largeRSSMiB      = 1.1 * 1024
	reconnectMs      = 3000
	rssPerProxyKiB   = 110
	cpuSeconds       = 0.15 // of the server, for a change
	cpuNoiseSeconds  = 0.02
	acknowledgedInMs = 50
)

// limit is a figure and what it must not exceed.
type limit struct {
	what       string
	got, limit float64
	unit       string
}

func (l limit) holds() bool { return !math.IsNaN(l.got) && l.got <= l.limit }

// limits are all that must hold, with what was measured.
func (r *results) limits() []limit {
	n := r.plan.main
	main := r.broad[n]
	var all []limit
	for _, name := range changeNames {
		// Both clocks start just before the request: the linear cache has sent
		// most of a change before it answers.
		allowed := max(latencyMs, latencyRatio*r.linear.Change(name).Median("received_p99_ms"))
		all = append(all,
			limit{fmt.Sprintf("%s: p99 at %d proxies", name, n), main.Change(name).Median("received_p99_ms"), allowed, "ms"},
			limit{fmt.Sprintf("%s: server CPU at %d proxies", name, n), main.Change(name).Median("server_cpu_s"), cpuSeconds, "s"},
			limit{fmt.Sprintf("%s: bytes to proxies that it does not concern", name), r.narrow.Change(name).Median("bytes_to_the_others"), 0, "B"},
			limit{fmt.Sprintf("%s: CPU that %d bystanders cost", name, n-2*r.few),
				r.narrow.Change(name).Median("server_cpu_s") - r.alone.Change(name).Median("server_cpu_s"), cpuNoiseSeconds, "s"})
	}
	all = append(all,
		limit{fmt.Sprintf("resident memory per proxy at %d proxies, TLS", n), main.Connect.RSSPerProxyK, rssPerProxyKiB, "KiB"},
		limit{"cluster change to ACK of a real Envoy, slowest", slices.Max(r.acks), acknowledgedInMs, "ms"})
	if again := main.Reconnect; again != nil {
		all = append(all,
			limit{fmt.Sprintf("%d proxies reconnect at once, all configured", n), again.AllSyncedMs, reconnectMs, "ms"},
			limit{"streams refused or broken meanwhile", float64(again.Retries), 0, ""})
	}
	if large := r.broad[r.plan.large]; large != nil {
		for _, name := range changeNames {
			all = append(all, limit{fmt.Sprintf("%s: p99 at %d proxies", name, r.plan.large), large.Change(name).Median("received_p99_ms"), largeMs, "ms"})
		}
		all = append(all, limit{fmt.Sprintf("resident memory at %d proxies", r.plan.large), residentMiB(large), largeRSSMiB, "MiB"})
	}
	return all
}

// residentMiB is the most that was resident while all proxies were connected
// and quiet.
func residentMiB(r *loadrun.Report) float64 {
	most := r.Connect.RSSAfter
	for _, c := range r.Changes {
		most = max(most, c.Summary["server_rss_mib"].Max)
	}
	return most
}

// noisy is how many of the reported rounds something else disturbed.
func (r *results) noisy() (noisy, all int) {
	for _, row := range append(r.rows(), row{"", r.narrow}, row{"", r.alone}) {
		for _, c := range row.report.Changes {
			for _, round := range c.Rounds {
				all++
				if !round.Quiet() {
					noisy++
				}
			}
		}
	}
	return noisy, all
}

// missed names the limits that do not hold.
func (r *results) missed() []string {
	var missed []string
	for _, l := range r.limits() {
		if !l.holds() {
			missed = append(missed, strings.TrimSpace(fmt.Sprintf("%s: %.4g %s, limit %.4g", l.what, l.got, l.unit, l.limit)))
		}
	}
	return missed
}
