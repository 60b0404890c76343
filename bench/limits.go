package main

import (
	"fmt"
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

	// Of the API; these are what must be reached.
	createOfBare  = 0.7 // of the rate of a bare etcd transaction, with one client
	createOfHTTP  = 0.7 // of the rate of the same over HTTP without signature, JSON or rules
	createsAt64   = 3000
	describesAt64 = 8000

	// Of certificates.
	issuedAt64   = 2000
	burstSeconds = 2
	renewedMs    = 50
	fleetMs      = 500
)

// limit is a figure and what it must not exceed, or must reach.
type limit struct {
	what       string
	got, limit float64
	unit       string
	least      bool // it must be reached
}

// holds is false for what could not be measured, NaN.
func (l limit) holds() bool {
	if l.least {
		return l.got >= l.limit
	}
	return l.got <= l.limit
}

func (l limit) sense() string {
	if l.least {
		return "at least "
	}
	return ""
}

// apiLimits are those of the API.
func (r *results) apiLimits() []limit {
	return []limit{
		{"Create with 1 client, of the bare etcd transaction's rate", r.api.share(opEtcd, 1), createOfBare, "", true},
		{"Create with 1 client, of the rate of the same transaction over bare HTTP", r.api.share(opHTTP, 1), createOfHTTP, "", true},
		{"Create with 64 clients", r.api.median(opCreate, 64, perSecond), createsAt64, "/s", true},
		{"Describe with 64 clients", r.api.median(opDescribe, 64, perSecond), describesAt64, "/s", true},
	}
}

// issueLimits are those of certificates.
func (r *results) issueLimits() []limit {
	return []limit{
		{"P-256 certificates issued and fetched, 64 clients", r.issue.median(opIssueP256, 64, perSecond), issuedAt64, "/s", true},
		{fmt.Sprintf("%d RSA certificates requested of ACM, all issued", burst), middle(r.bursts), burstSeconds, "s", false},
	}
}

// limits are all that must hold, with what was measured.
func (r *results) limits() []limit {
	if r.plan.only != "" {
		return parts()[r.plan.only].limits(r)
	}
	all := slices.Concat(r.apiLimits(), r.issueLimits(), r.renewLimits())
	n := r.plan.main
	main := r.broad[n]
	for _, name := range changeNames {
		// Both clocks start just before the request: the linear cache has sent
		// most of a change before it answers.
		allowed := max(latencyMs, latencyRatio*r.linear.Change(name).Median("received_p99_ms"))
		all = append(all,
			limit{fmt.Sprintf("%s: p99 at %d proxies", name, n), main.Change(name).Median("received_p99_ms"), allowed, "ms", false},
			limit{fmt.Sprintf("%s: server CPU at %d proxies", name, n), main.Change(name).Median("server_cpu_s"), cpuSeconds, "s", false},
			limit{fmt.Sprintf("%s: bytes to proxies that it does not concern", name), r.narrow.Change(name).Median("bytes_to_the_others"), 0, "B", false},
			limit{fmt.Sprintf("%s: CPU that %d bystanders cost", name, n-2*r.few),
				r.narrow.Change(name).Median("server_cpu_s") - r.alone.Change(name).Median("server_cpu_s"), cpuNoiseSeconds, "s", false})
	}
	all = append(all,
		limit{fmt.Sprintf("resident memory per proxy at %d proxies, TLS", n), main.Connect.RSSPerProxyK, rssPerProxyKiB, "KiB", false},
		limit{"cluster change to ACK of a real Envoy, slowest", slices.Max(r.acks), acknowledgedInMs, "ms", false})
	if again := main.Reconnect; again != nil {
		all = append(all,
			limit{fmt.Sprintf("%d proxies reconnect at once, all configured", n), again.AllSyncedMs, reconnectMs, "ms", false},
			limit{"streams refused or broken meanwhile", float64(again.Retries), 0, "", false})
	}
	if large := r.broad[r.plan.large]; large != nil {
		for _, name := range changeNames {
			all = append(all, limit{fmt.Sprintf("%s: p99 at %d proxies", name, r.plan.large), large.Change(name).Median("received_p99_ms"), largeMs, "ms", false})
		}
		all = append(all, limit{fmt.Sprintf("resident memory at %d proxies", r.plan.large), residentMiB(large), largeRSSMiB, "MiB", false})
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
	if r.plan.only != "" {
		return 0, 0 // nobody has looked
	}
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
			missed = append(missed, strings.TrimSpace(fmt.Sprintf("%s: %.4g %s, limit %s%.4g", l.what, l.got, l.unit, l.sense(), l.limit)))
		}
	}
	return missed
}
