package main

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/fairlead/fairlead/bench/loadrun"
)

const pageHead = `# Benchmarks

This page is written by

    make bench

on %s: %s, clients and server on the same machine, loopback only. It takes some thirteen minutes; the
numbers hold for this machine and this run, so compare within the page. Latencies are medians over %d
rounds; p50, p99 and max are over the proxies.

The mesh of all rows but those of the API and of certificates has %d virtual nodes and %d virtual services, every virtual node has %d backends. Every simulated
proxy (bench/xdsload) has a TCP connection, a TLS session, a key of its own and a signed delta stream, and
acknowledges what it gets as Envoy does. "Request" is from just before the API call until the proxy has the change,
store and fsync included; "answer" is from the API's answer. "Agents" are the same, but say that they
are Fairlead's agents: they get a manifest ahead of each push.

- **one route**: a header match of the route of the changed service; each proxy gets that service's route table.
- **outlier detection** of the changed service's virtual node: each client gets the cluster, and its endpoints again.
- **TLS DISABLED to PERMISSIVE** on that virtual node: each client gets the cluster, the node's own proxies the listener.

Baselines, in the same run with the same client: *linear cache* is go-control-plane's server over one LinearCache per
virtual node and type, holding exactly the resources that Fairlead serves, changed by a function call: no
API, no store, no mesh, no signatures; *bare stream* sends the same ready-made bytes to every gRPC stream and reads nothing.
`

// page is docs/benchmarks.md.
func (r *results) page(missed []string) []byte {
	var b bytes.Buffer
	main := r.broad[r.plan.main]
	fmt.Fprintf(&b, pageHead, main.When.Format(time.DateOnly), main.Machine, r.plan.rounds, endpoints, endpoints, backends)
	r.writeLimits(&b, missed)
	r.writeAPI(&b)
	r.writeIssue(&b)
	r.writeRenewals(&b)
	r.writeChanges(&b)
	r.writeConnects(&b)
	r.writeNarrow(&b)
	slices.Sort(r.acks)
	fmt.Fprintf(&b, `
## A real Envoy

Envoy 1.40 with a Cloud Map backend (an EDS cluster); outlier detection of that backend changes. Envoy acknowledges
a changed EDS cluster only when it has been sent the endpoints again; without them it waits 15 seconds. From the API's
answer to the ACK, %d rounds: %.1f / %.1f / %.1f ms (min, median, max).
`, len(r.acks), r.acks[0], r.acks[len(r.acks)/2], r.acks[len(r.acks)-1])
	return b.Bytes()
}

// partPage is the part of the page that -only shows.
func (r *results) partPage(missed []string) []byte {
	var b bytes.Buffer
	r.writeLimits(&b, missed)
	parts()[r.plan.only].write(r, &b)
	return b.Bytes()
}

func (r *results) writeLimits(b *bytes.Buffer, missed []string) {
	verdict := "All limits hold."
	if len(missed) > 0 {
		verdict = fmt.Sprintf("**Missed: %d.**", len(missed))
	}
	if noisy, all := r.noisy(); noisy > 0 {
		verdict += fmt.Sprintf(" **Something else used the machine during %d of the %d rounds; the limits are for a quiet one.**", noisy, all)
	}
	fmt.Fprintf(b, `
## What must hold

%s

| | measured | limit | |
|---|---:|---:|---|
`, verdict)
	for _, l := range r.limits() {
		mark := "holds"
		if !l.holds() {
			mark = "**missed**"
		}
		fmt.Fprintf(b, "| %s | %s %s | %s%s %s | %s |\n", l.what, figure(l.got), l.unit, l.sense(), figure(l.limit), l.unit, mark)
	}
}

// figure has about three digits, and no exponent.
func figure(v float64) string {
	switch size := max(v, -v); {
	case size >= 100 || v == float64(int64(v)):
		return fmt.Sprintf("%.0f", v)
	case size >= 1:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

// row is a server under a number of proxies.
type row struct {
	name   string
	report *loadrun.Report
}

func (r *results) rows() []row {
	var rows []row
	for _, n := range r.plan.sizes {
		rows = append(rows, row{"Fairlead, TLS", r.broad[n]})
	}
	rows = append(rows, row{"Fairlead, TLS, agents", r.agents}, row{"linear cache, TLS", r.linear}, row{"linear cache, plain", r.linearPlain},
		row{"bare stream, TLS", r.bare}, row{"bare stream, plain", r.barePlain})
	if r.plan.large > 0 {
		rows = append(rows, row{"Fairlead, TLS", r.broad[r.plan.large]}, row{"linear cache, TLS", r.linearLarge})
	}
	return rows
}

func (r *results) writeChanges(b *bytes.Buffer) {
	fmt.Fprint(b, `
## A change that concerns every proxy

Milliseconds, p50 / p99 / max over the proxies; bytes are the payload of all responses that a proxy gets.

| server | proxies | change | from the request | from the answer | bytes per proxy | server CPU s | client CPU s |
|---|---:|---|---:|---:|---:|---:|---:|
`)
	for _, row := range r.rows() {
		for _, c := range row.report.Changes {
			fmt.Fprintf(b, "| %s | %d | %s | %s / %s / %s | %s / %s / %s | %.0f | %.3f | %.3f |\n", row.name, row.report.Proxies, c.Name,
				figure(c.Median("received_p50_ms")), figure(c.Median("received_p99_ms")), figure(c.Median("received_max_ms")),
				figure(c.Median("answered_p50_ms")), figure(c.Median("answered_p99_ms")), figure(c.Median("answered_max_ms")),
				c.Median("bytes_per_reached_proxy"), c.Median("server_cpu_s"), c.Median("client_cpu_s"))
		}
	}
}

func (r *results) writeConnects(b *bytes.Buffer) {
	fmt.Fprint(b, `
## First configuration and memory

At most 256 proxies connect at a time. Memory is resident memory after it all, less before, over the proxies; it
says little below 1,000 proxies, because a Go heap grows in steps. Fairlead's address always speaks TLS, so it has no plain row.

| server | proxies | all configured in s | bytes per proxy | server CPU s | RSS before → after, peak MiB | KiB per proxy | refused or broken |
|---|---:|---:|---:|---:|---:|---:|---:|
`)
	line := func(name string, n int, c loadrun.Connect, perProxy string) {
		fmt.Fprintf(b, "| %s | %d | %.2f | %.0f | %.2f | %.0f → %.0f, %.0f | %s | %d |\n", name, n, c.AllSyncedMs/1000, c.BytesPer,
			c.Cost.ServerCPU, c.RSSBefore, c.RSSAfter, c.IdleCost.ServerHWM, perProxy, c.Retries)
	}
	for _, row := range r.rows() {
		c := row.report.Connect
		line(row.name, row.report.Proxies, c, fmt.Sprintf("%.0f", c.RSSPerProxyK))
		if again := row.report.Reconnect; again != nil {
			line(row.name+", all cut and reconnecting at once", row.report.Proxies, *again, "")
		}
	}
}

func (r *results) writeNarrow(b *bytes.Buffer) {
	fmt.Fprintf(b, `
## A change that concerns few

The same mesh, but only one virtual node (%d proxies) may call the changed service. Beside it the same with only
the proxies connected that are concerned (those %d, and the %d of the changed node).

| change | proxies | p99 ms | bytes per proxy | bytes to all others | server CPU s |
|---|---:|---:|---:|---:|---:|
`, r.few, r.few, r.few)
	for _, name := range changeNames {
		for _, report := range []*loadrun.Report{r.narrow, r.alone} {
			c := report.Change(name)
			fmt.Fprintf(b, "| %s | %d of %d | %s | %.0f | %.0f | %.3f |\n", name, c.Expect, report.Proxies,
				figure(c.Median("received_p99_ms")), c.Median("bytes_per_reached_proxy"), c.Median("bytes_to_the_others"), c.Median("server_cpu_s"))
		}
	}
}
