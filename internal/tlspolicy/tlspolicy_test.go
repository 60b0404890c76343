package tlspolicy

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The inputs as testdata/decisions.txt spells them. Together they are all that
// a valid spec can say of an edge.
var (
	policies     = []string{"none", "other-port", "not-enforced", "enforced"}
	modes        = []Mode{ModeNone, ModeDisabled, ModePermissive, ModeStrict}
	certificates = []Source{SourceACM, SourceOwnSDS, SourceFile, SourceSDS}
	demands      = []string{"no", "yes"}
	clients      = []Source{SourceNone, SourceFile, SourceSDS, SourceOwnSDS}
	nameLists    = []string{"none", "names", "wildcards", "no-names"}
)

// input is one combination, spelled.
type input struct {
	policy, mode, certificate, demands, client, names string
}

func every(yield func(input) bool) {
	for _, p := range policies {
		for _, m := range modes {
			for _, c := range certificates {
				for _, d := range demands {
					for _, own := range clients {
						for _, n := range nameLists {
							client := string(own)
							if own == SourceNone {
								client = "none"
							}
							if !yield(input{p, string(m), string(c), d, client, n}) {
								return
							}
						}
					}
				}
			}
		}
	}
}

func (in input) fields() []string {
	return []string{in.policy, in.mode, in.certificate, in.demands, in.client, in.names}
}

const discovery = "server.apps.local"

func (in input) edge() Edge {
	e := Edge{
		Port:          8080,
		Listener:      Listener{Mode: Mode(in.mode), Field: "listener"},
		DiscoveryName: discovery,
	}
	if e.Listener.Mode != ModeNone {
		e.Listener.Certificate = &Certificate{Source: Source(in.certificate)}
		if in.demands == "yes" {
			e.Listener.Validation = &ListenerValidation{Trust: Trust{Source: SourceFile}}
		}
	}
	if in.policy == "none" {
		return e
	}
	e.Policy = &Policy{Enforce: in.policy != "not-enforced", Trust: Trust{Source: SourceFile, Chain: "/root.pem"}, Field: "policy"}
	if in.policy == "other-port" {
		e.Policy.Ports = []int64{9090}
	}
	if in.client != "none" {
		e.Policy.Certificate = &Certificate{Source: Source(in.client)}
	}
	e.Policy.SANs = map[string][]string{
		"names":     {"a.apps.local", "spiffe://apps.local/a"},
		"wildcards": {"*.apps.local"},
		"no-names":  {"10.0.0.7", "word"},
	}[in.names]
	return e
}

// row is a line of a page: what it fits, and what it says.
type row struct {
	line  string
	cells []string
	says  string
	used  bool
}

func (r *row) fits(fields []string) bool {
	for i, cell := range r.cells {
		if cell != "any" && !slices.Contains(strings.Split(cell, "|"), fields[i]) {
			return false
		}
	}
	return true
}

// pages reads the tables of a file: they are set apart by empty lines.
func pages(t *testing.T, path string) [][]*row {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all [][]*row
	for page := range strings.SplitSeq(string(text), "\n\n") {
		var rows []*row
		for line := range strings.Lines(page) {
			left, right, ok := strings.Cut(line, "→")
			if !ok || strings.HasPrefix(line, "#") {
				continue
			}
			rows = append(rows, &row{line: strings.TrimSpace(line), cells: strings.Fields(left), says: strings.TrimSpace(right)})
		}
		all = append(all, rows)
	}
	return all
}

// TestTotal holds the table to its page: every combination is decided, and as
// the page says; no rule and no row of the page is dead.
func TestTotal(t *testing.T) {
	tables := pages(t, "testdata/decisions.txt")
	for _, difference := range differences(tables) {
		t.Error(difference)
	}
	used := map[string]bool{}
	for in := range every {
		d := Decide(in.edge())
		used[d.Rule] = true
		checkConsistent(t, in, d)
	}
	for _, table := range tables {
		for _, r := range table {
			if !r.used {
				t.Errorf("no edge fits the row %s", r.line)
			}
		}
	}
	for _, r := range rules {
		if !used[r.name] {
			t.Errorf("rule %q is dead", r.name)
		}
	}
}

// TestMutants flips each rule in every way: the page notices.
func TestMutants(t *testing.T) {
	tables := pages(t, "testdata/decisions.txt")
	mutations := map[string]func(*rule){
		"drop":       func(r *rule) { r.policy = 0 },
		"transport":  func(r *rule) { r.transport = map[Transport]Transport{TLS: Plaintext, Plaintext: TLS}[r.transport] },
		"validation": func(r *rule) { r.validation = Unvalidated },
		"verdict":    func(r *rule) { r.verdict = VerdictVerified },
	}
	for i := range rules {
		for name, mutate := range mutations {
			kept := rules[i]
			mutate(&rules[i])
			if rules[i] != kept && !noticed(tables) {
				t.Errorf("rule %q with another %s: nothing notices", kept.name, name)
			}
			rules[i] = kept
		}
	}
}

func noticed(tables [][]*row) (noticed bool) {
	defer func() { noticed = recover() != nil || noticed }()
	return len(differences(tables)) > 0
}

// differences says where Decide and the page disagree.
func differences(tables [][]*row) []string {
	var all []string
	for in := range every {
		d := Decide(in.edge())
		fitting, outcome := rowsFor(tables[0], in), rowsFor(tables[1], in)
		if len(fitting) != 1 || len(outcome) == 0 {
			return append(all, fmt.Sprintf("%v fits %d rows of the first page and %d of the second", in, len(fitting), len(outcome)))
		}
		fitting[0].used, outcome[0].used = true, true
		if got, want := action(in, d), strings.Join(strings.Fields(fitting[0].says), " "); got != want {
			all = append(all, fmt.Sprintf("%v: %s, the page says %s", in, got, want))
		}
		got := string(d.Verdict)
		if d.Verdict == VerdictBroken {
			got += ": " + d.Reason
		}
		if got != outcome[0].says {
			all = append(all, fmt.Sprintf("%v: %s, the page says %s", in, got, outcome[0].says))
		}
	}
	return all
}

func rowsFor(table []*row, in input) []*row {
	var fitting []*row
	for _, r := range table {
		if r.fits(in.fields()) {
			fitting = append(fitting, r)
		}
	}
	return fitting
}

// action spells a decision as the page does.
func action(in input, d Decision) string {
	if d.Transport == Plaintext {
		return "plaintext"
	}
	switch d.Validation {
	case ByIssuerRoot:
		return "tls trust=issuer-root names=" + spellNames(in, d)
	case ByPolicy:
		return "tls trust=policy names=policy|" + spellNames(in, d)
	}
	return "tls trust=none names=" + spellNames(in, d)
}

// spellNames says "discovery" when the names are the policy's list, or the
// discovery name where there is none.
func spellNames(in input, d Decision) string {
	want := []string{discovery}
	if d.Validation == ByPolicy && in.names != "none" {
		want = in.edge().Policy.SANs
		if in.names == "wildcards" && in.policy == "enforced" {
			want = []string{Nobody}
		}
	}
	switch {
	case len(d.SANs) == 0:
		return "any"
	case slices.Equal(d.SANs, want):
		return "discovery"
	}
	return strings.Join(d.SANs, ",")
}

// checkConsistent holds what is true of every decision.
func checkConsistent(t *testing.T, in input, d Decision) {
	t.Helper()
	if (d.Validation == ByPolicy) != (d.Trust != nil) || (d.Validation == ByIssuerRoot) != (d.IssuerOf != nil) {
		t.Errorf("%v: %s does not fit its trust", in, d.Validation)
	}
	if (d.Validation == Unvalidated) != (len(d.SANs) == 0) {
		t.Errorf("%v: validation %s with names %v", in, d.Validation, d.SANs)
	}
	if d.Transport == Plaintext && (in.policy == "enforced" || d.Validation != Unvalidated || d.SNI != "" || d.Certificate != nil) {
		t.Errorf("%v: plaintext %+v", in, d)
	}
	if d.Certificate != nil && d.Validation != ByPolicy {
		t.Errorf("%v: a certificate without the policy that names it", in)
	}
	if (d.Verdict == VerdictPlaintext) != (d.Transport == Plaintext) {
		t.Errorf("%v: %s over %s", in, d.Verdict, d.Transport)
	}
	if d.Reason == "" || d.Field == "" || d.Rule == "" {
		t.Errorf("%v is not explained: %+v", in, d)
	}
}

// TestClosed gives Decide what no valid spec has: it stays closed.
func TestClosed(t *testing.T) {
	strict := Listener{Mode: ModeStrict, Certificate: &Certificate{Source: SourceFile}, Field: "listener"}
	policy := &Policy{Enforce: true, Trust: Trust{Source: SourceFile}, Field: "policy"}
	tests := []struct {
		name  string
		edge  Edge
		field string
	}{
		{"no discovery name", Edge{Policy: policy, Listener: strict}, "listener"},
		{"no certificate", Edge{DiscoveryName: "s.local", Listener: Listener{Mode: ModeStrict, Field: "listener"}}, "listener.certificate"},
		{"a certificate from nowhere", Edge{DiscoveryName: "s.local", Listener: Listener{Mode: ModeStrict, Certificate: &Certificate{}, Field: "listener"}}, "listener.certificate"},
		{"a mode nobody knows", Edge{DiscoveryName: "s.local", Listener: Listener{Mode: "MAYBE", Field: "listener"}}, "listener.certificate"},
		{"a policy without trust", Edge{DiscoveryName: "s.local", Policy: &Policy{Field: "policy"}, Listener: strict}, "policy.validation.trust"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := Decide(test.edge)
			if d.Verdict != VerdictBroken || d.Transport != TLS || d.Field != test.field {
				t.Errorf("%s over %s by %s", d.Verdict, d.Transport, d.Field)
			}
			if d.Validation != Unvalidated && len(d.SANs) == 0 {
				t.Error("any name is accepted")
			}
		})
	}
}

// TestFacts tells what is known of certificates beforehand.
func TestFacts(t *testing.T) {
	policy := Policy{Enforce: true, Trust: Trust{Source: SourceACM, ARNs: []string{"root-1"}}, SANs: []string{"a.apps.local"},
		Certificate: &Certificate{Source: SourceFile}, Field: "policy"}
	listener := Listener{Mode: ModeStrict, Certificate: &Certificate{Source: SourceACM},
		Validation: &ListenerValidation{Trust: Trust{Source: SourceFile}, SANs: []string{"client.apps.local"}}, Field: "listener"}
	tests := []struct {
		name           string
		server, client Facts
		verdict        Verdict
		reason, field  string
	}{
		{"nothing is known", Facts{}, Facts{}, VerdictMutual, "", ""},
		{"all fits", Facts{Root: "root-1", SANs: []string{"*.apps.local"}}, Facts{SANs: []string{"client.apps.local"}}, VerdictMutual, "", ""},
		{"another root", Facts{Root: "root-2"}, Facts{}, VerdictBroken,
			"the server's certificate chains to root-2, which the client's policy does not trust", "policy.validation.trust.acm"},
		{"another server", Facts{SANs: []string{"b.apps.local", "c.apps.local"}}, Facts{}, VerdictBroken,
			"the server's certificate carries b.apps.local, c.apps.local, the client wants a.apps.local", "policy.validation.subjectAlternativeNames"},
		{"a nameless server", Facts{SANs: []string{}}, Facts{}, VerdictBroken,
			"the server's certificate carries no name, the client wants a.apps.local", "policy.validation.subjectAlternativeNames"},
		{"another client", Facts{}, Facts{SANs: []string{"other.apps.local"}}, VerdictBroken,
			"the client's certificate carries other.apps.local, the server wants client.apps.local", "listener.validation.subjectAlternativeNames"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := Decide(Edge{Policy: &policy, Port: 80, Listener: listener, DiscoveryName: discovery, Server: test.server, Client: test.client})
			if d.Verdict != test.verdict {
				t.Errorf("verdict %s, want %s", d.Verdict, test.verdict)
			}
			if test.reason != "" && (d.Reason != test.reason || d.Field != test.field) {
				t.Errorf("%s by %s, want %s by %s", d.Reason, d.Field, test.reason, test.field)
			}
		})
	}
}

// TestServerName: SNI carries host names, never addresses or what is too long
// for one, as a service of Cloud Map can be.
func TestServerName(t *testing.T) {
	longest := strings.Repeat("n", 253)
	for name, want := range map[string]string{discovery: discovery, "127.0.0.2": "", "::1": "", longest: longest, longest + "n": ""} {
		e := input{"enforced", "STRICT", "file", "no", "none", "none"}.edge()
		e.DiscoveryName = name
		if got := Decide(e).SNI; got != want {
			t.Errorf("%s: SNI %q, want %q", name, got, want)
		}
	}
}

func TestMatches(t *testing.T) {
	for _, r := range pages(t, "testdata/names.txt")[0] {
		if got := Matches(r.cells[0], r.cells[1]); got != (r.says == "yes") {
			t.Errorf("%s: got %t", r.line, got)
		}
	}
}

func TestCheckSAN(t *testing.T) {
	tests := map[string]string{
		"a.apps.local":                 "",
		"A-1.b_c.local":                "",
		"*.apps.local":                 "",
		"spiffe://apps.local/a":        "",
		"https://apps.local":           "",
		"a*.apps.local":                "has a wildcard elsewhere than as its whole first label",
		"a.*.local":                    "has a wildcard elsewhere than as its whole first label",
		"*":                            "has a wildcard elsewhere than as its whole first label",
		"*.local":                      "is a bare word; names are fully qualified host names or URIs",
		"localhost":                    "is a bare word; names are fully qualified host names or URIs",
		"":                             "is not a host name",
		"a..local":                     "is not a host name",
		"a b.local":                    "is not a host name",
		"10.0.0.7":                     "is an IP address; names are fully qualified host names or URIs",
		"::1":                          "is an IP address; names are fully qualified host names or URIs",
		"me@apps.local":                "is an e-mail address; names are fully qualified host names or URIs",
		"spiffe:///a":                  "is not a URI with a host",
		"spiffe://apps.local/*":        "is not a URI with a host",
		"spiffe://":                    "is not a URI with a host",
		"://apps.local":                "is not a URI with a host",
		strings.Repeat("a", 64) + ".b": "is not a host name",
	}
	for entry, want := range tests {
		if got := CheckSAN(entry); got != want {
			t.Errorf("%q %s, want %q", entry, got, want)
		}
	}
}

func TestWarnings(t *testing.T) {
	validation := &ListenerValidation{Trust: Trust{Source: SourceFile}}
	tests := []struct {
		name     string
		listener Listener
		fields   []string
	}{
		{"no TLS", Listener{Mode: ModeNone}, nil},
		{"DISABLED says nothing", Listener{Mode: ModeDisabled, Validation: validation}, nil},
		{"STRICT", Listener{Mode: ModeStrict, Certificate: &Certificate{Source: SourceFile}}, nil},
		{"STRICT with validation", Listener{Mode: ModeStrict, Certificate: &Certificate{Source: SourceFile}, Validation: validation}, []string{".validation"}},
		{"PERMISSIVE with validation", Listener{Mode: ModePermissive, Certificate: &Certificate{Source: SourceFile}, Validation: validation}, []string{".mode", ".validation"}},
		{"another SDS", Listener{Mode: ModeStrict, Certificate: &Certificate{Source: SourceSDS}}, []string{".certificate.sds"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var fields []string
			for _, w := range Warnings(test.listener) {
				fields = append(fields, w.Field)
			}
			if diff := cmp.Diff(test.fields, fields); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestGuide: docs/tls.md shows the very tables that hold.
func TestGuide(t *testing.T) {
	guide, err := os.ReadFile("../../docs/tls.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"testdata/decisions.txt", "testdata/names.txt"} {
		page, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(guide), "```\n"+string(page)+"```\n") {
			t.Errorf("docs/tls.md does not show %s as it is", path)
		}
	}
}
