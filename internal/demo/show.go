package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead/fairlead/internal/tlspolicy"
)

const colorRequests, redRequests = 20, 3

func (d *Demo) sendRequests(ctx context.Context) error {
	answers := map[string]int{}
	for range colorRequests {
		status, body, err := fetch(ctx, "http://"+d.network.at(gatewayHost, listenerPort)+"/color")
		if err != nil {
			return err
		}
		answers[fmt.Sprintf("%d %s", status, body)]++
	}
	d.say("   %d × GET /color → %s", colorRequests, tally(answers))
	if answers["200 blue"]+answers["200 green"] != colorRequests {
		return fmt.Errorf("not every request to /color was answered by blue or green: %s", tally(answers))
	}
	clear(answers)
	for range redRequests {
		status, body, err := fetch(ctx, "http://"+d.network.at(gatewayHost, listenerPort)+"/red")
		if err != nil {
			return err
		}
		answers[fmt.Sprintf("%d %s", status, body)]++
		if status != http.StatusServiceUnavailable {
			return fmt.Errorf("GET /red was answered %d: a node that the gateway cannot verify was reached", status)
		}
	}
	d.say("   %d × GET /red → %s", redRequests, tally(answers))
	return nil
}

func tally(answers map[string]int) string {
	var parts []string
	for answer, n := range answers {
		parts = append(parts, fmt.Sprintf("%d × %q", n, answer))
	}
	sort.Strings(parts)
	return strings.Join(parts, ", ")
}

// failures are the counters that a user looks at when TLS does not work.
var failures = regexp.MustCompile(`ssl\..*(fail|error)`)

func (d *Demo) showCounters(ctx context.Context) error {
	for _, p := range d.proxies {
		page, err := d.admin(ctx, p.host, "/stats?filter=%5C.ssl%5C.")
		if err != nil {
			return err
		}
		d.say("   %s", p.name)
		shown := 0
		for _, line := range strings.Split(page, "\n") {
			name, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
			if !ok {
				continue
			}
			handshake := strings.HasSuffix(name, ".ssl.handshake")
			if handshake && (value != "0" || strings.HasPrefix(name, "listener.0.0.0.0_15000.")) || failures.MatchString(name) && value != "0" {
				d.say("     %s: %s", name, value)
				shown++
			}
		}
		if shown == 0 {
			d.say("     no TLS yet")
		}
	}
	return nil
}

// expected are the verdicts that the counters must show.
var expected = map[string]tlspolicy.Verdict{
	"blue": tlspolicy.VerdictVerified, "green": tlspolicy.VerdictMutual, "red": tlspolicy.VerdictBroken,
}

// showEdges waits until the agents have reported what their Envoys counted,
// prints the table and compares it with the Envoys' own counters.
func (d *Demo) showEdges(ctx context.Context) error {
	var rows []edgeRow
	err := eventually(ctx, 30*time.Second, d.server.process, func(ctx context.Context) error {
		answer, err := d.operate(ctx, "edges", meshName, "-o", "json")
		if err != nil {
			return err
		}
		if rows, err = parseEdges(answer); err != nil {
			return err
		}
		return check(rows)
	})
	if table, tableErr := d.operate(ctx, "edges", meshName); tableErr == nil {
		d.say("%s", strings.TrimRight(string(table), "\n"))
	}
	if err != nil {
		return err
	}
	return d.confirm(ctx)
}

type edgeRow struct {
	Server   string            `json:"server"`
	Verdict  tlspolicy.Verdict `json:"verdict"`
	Observed bool              `json:"observed"`
}

func parseEdges(answer []byte) ([]edgeRow, error) {
	var page struct {
		Edges []edgeRow `json:"edges"`
	}
	if err := json.Unmarshal(answer, &page); err != nil {
		return nil, fmt.Errorf("read the edges: %w", err)
	}
	return page.Edges, nil
}

// check compares the verdicts that were observed with those expected.
func check(rows []edgeRow) error {
	seen := map[string]bool{}
	for _, row := range rows {
		name := row.Server[strings.LastIndex(row.Server, "/")+1:]
		if !row.Observed || row.Verdict != expected[name] {
			return fmt.Errorf("%w: %s is %q (observed: %t), expected %q", errVerdicts, row.Server, row.Verdict, row.Observed, expected[name])
		}
		seen[name] = true
	}
	if len(seen) != len(expected) {
		return fmt.Errorf("%w: %d of %d edges", errVerdicts, len(seen), len(expected))
	}
	return nil
}

// confirm reads the counters that carry each verdict from the Envoys
// themselves, past the server.
func (d *Demo) confirm(ctx context.Context) error {
	client, err := d.counters(ctx, gatewayHost)
	if err != nil {
		return err
	}
	server, err := d.counters(ctx, greenHost)
	if err != nil {
		return err
	}
	cluster := func(node, counter string) int {
		return client[fmt.Sprintf("cluster.cds_egress_%s_%s_http_%d.ssl.%s", meshName, node, listenerPort, counter)]
	}
	const listener = "listener.0.0.0.0_15000.ssl."
	for _, fact := range []struct {
		ok   bool
		what string
	}{
		{cluster("blue", "handshake") > 0 && cluster("blue", "fail_verify_error") == 0, "the gateway's handshakes with blue"},
		{cluster("green", "handshake") > 0, "the gateway's handshakes with green"},
		{server[listener+"handshake"] > 0 && server[listener+"no_certificate"] == 0, "green's handshakes, each with a client certificate"},
		{cluster("red", "handshake") == 0 && cluster("red", "fail_verify_error") > 0, "the gateway's refusals of red's certificate"},
	} {
		if !fact.ok {
			return fmt.Errorf("%w: %s", errVerdicts, fact.what)
		}
	}
	d.say("\nAll three verdicts are in the Envoys' own counters.")
	return nil
}

func (d *Demo) counters(ctx context.Context, host byte) (map[string]int, error) {
	page, err := d.admin(ctx, host, "/stats?filter=%5C.ssl%5C.")
	if err != nil {
		return nil, err
	}
	counters := map[string]int{}
	for _, line := range strings.Split(page, "\n") {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if n, err := strconv.Atoi(value); err == nil { // histograms are no numbers
			counters[name] = n
		}
	}
	return counters, nil
}
