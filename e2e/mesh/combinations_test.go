package mesh_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/internal/meshtest"
	"github.com/fairlead/fairlead/internal/tlspolicy"
)

// serverTLS is all that a server's listener can say of TLS.
type serverTLS struct {
	mode        string // none, DISABLED, PERMISSIVE, STRICT
	certificate string // file, sds, acm
	carries     string // exact, wildcard, uri, other: the certificate's SAN
	validation  string // none, file, sds
	wants       string // none, match, other: the validation's SAN list
}

// clientTLS is all that a client's policy can say.
type clientTLS struct {
	policy      string // none, enforced, optional, listed, unlisted (ports)
	trust       string // file, sds, acm
	names       string // none, match, other, wildcard: its SAN list
	certificate string // none, file, sds
}

const (
	matrixServer = "server.mesh.local"
	matrixClient = "client.mesh.local"
)

// carried are the names of the server's certificates.
var carried = map[string]string{"exact": matrixServer, "wildcard": "*.mesh.local", "uri": "spiffe://mesh.test/server", "other": "elsewhere.test"}

// accepted are the SAN lists of clients and, but for the wildcard, of servers.
var (
	accepted = map[string][]string{"match": {matrixServer, carried["uri"]}, "other": {"nobody.test"}, "wildcard": {"*.mesh.local"}}
	wanted   = map[string][]string{"match": {matrixClient}, "other": {"nobody.test"}}
)

// everyServer are the servers that a valid spec can describe and that differ.
func everyServer() (all []serverTLS) {
	for _, mode := range []string{"none", "DISABLED", "PERMISSIVE", "STRICT"} {
		for _, certificate := range []string{"file", "sds", "acm"} {
			for _, name := range []string{"exact", "wildcard", "uri", "other"} {
				for _, validation := range []string{"none", "file", "sds"} {
					for _, wants := range []string{"none", "match", "other"} {
						if validation == "none" && wants != "none" || mode == "none" && (certificate != "file" || name != "exact" || validation != "none") {
							continue
						}
						all = append(all, serverTLS{mode, certificate, name, validation, wants})
					}
				}
			}
		}
	}
	return all
}

// everyClient are the clients that a valid spec can describe and that differ: a
// list with a wildcard needs a policy that does not enforce.
func everyClient() (all []clientTLS) {
	all = append(all, clientTLS{policy: "none"})
	for _, policy := range []string{"enforced", "optional", "listed", "unlisted"} {
		for _, trust := range []string{"file", "sds", "acm"} {
			for _, names := range []string{"none", "match", "other", "wildcard"} {
				for _, certificate := range []string{"none", "file", "sds"} {
					if names != "wildcard" || policy == "optional" {
						all = append(all, clientTLS{policy, trust, names, certificate})
					}
				}
			}
		}
	}
	return all
}

func (s serverTLS) values() []string {
	return []string{"mode " + s.mode, "from " + s.certificate, "carries " + s.carries, "validation " + s.validation, "wants " + s.wants}
}

func (c clientTLS) values() []string {
	return []string{"policy " + c.policy, "trust " + c.trust, "names " + c.names, "presents " + c.certificate}
}

// pairs are all pairs of the values of one combination.
func pairs(values []string) (all []string) {
	for i, a := range values {
		for _, b := range values[i+1:] {
			all = append(all, a+", "+b)
		}
	}
	return all
}

// round is a server with one listener's TLS for each of a few, and a client with
// one backend for each policy. All of them meet.
type round struct {
	servers []serverTLS
	clients []clientTLS
}

// pairs are those that come to meet when a server, or a client, joins a round.
func (r round) pairs() map[string]bool {
	all := map[string]bool{}
	for _, s := range r.servers {
		for _, p := range pairs(s.values()) {
			all[p] = true
		}
		for _, c := range r.clients {
			for _, p := range pairs(append(s.values(), c.values()...)) {
				all[p] = true
			}
			all[fmt.Sprint(s, c)] = true // rather a new combination than an old one
		}
		all[fmt.Sprint(s)] = true
	}
	return all
}

// healthy is a round of what people want to have: nearly all of it encrypts,
// which few of all combinations do.
var healthy = round{
	servers: []serverTLS{{"STRICT", "file", "exact", "none", "none"}, {"STRICT", "acm", "wildcard", "none", "none"},
		{"PERMISSIVE", "sds", "exact", "sds", "match"}, {"STRICT", "acm", "exact", "file", "none"}},
	clients: []clientTLS{{policy: "none"}, {"unlisted", "file", "match", "file"}, {"enforced", "file", "none", "file"},
		{"listed", "acm", "match", "sds"}, {"optional", "sds", "wildcard", "file"}, {"enforced", "sds", "match", "sds"}},
}

// rounds chooses combinations after the healthy ones, those first that have the
// most pairs which no other had. The choice is the same each time.
func rounds(count, servers, clients int) []round {
	all, seen := []round{healthy}, healthy.pairs()
	gain := func(r round) (n int) {
		for p := range r.pairs() {
			if !seen[p] {
				n++
			}
		}
		return n
	}
	for len(all) < count {
		var r round
		for range servers {
			s := best(everyServer(), r.servers, func(s serverTLS) int { return gain(round{servers: append(slices.Clone(r.servers), s)}) })
			r.servers = append(r.servers, s)
		}
		for range clients {
			c := best(everyClient(), r.clients, func(c clientTLS) int { return gain(round{r.servers, append(slices.Clone(r.clients), c)}) })
			r.clients = append(r.clients, c)
		}
		for p := range r.pairs() {
			seen[p] = true
		}
		all = append(all, r)
	}
	return all
}

// best is what has the highest score of those not taken.
func best[T comparable](from, taken []T, score func(T) int) (found T) {
	highest := -1
	for _, candidate := range from {
		if n := score(candidate); n > highest && !slices.Contains(taken, candidate) {
			found, highest = candidate, n
		}
	}
	return found
}

// material is what the specs of a matrix name: one authority's certificates,
// from each source.
type material struct {
	root         string // ARN
	rootFile     string
	certificates map[string]string               // ARNs, by what they carry
	files        map[string]meshtest.Certificate // by what they carry; "client" is the client's
}

// yaml is the listener's tls; empty: none.
func (s serverTLS) yaml(m material) string {
	if s.mode == "none" {
		return ""
	}
	certificate := map[string]string{
		"file": fileYAML(m.files[s.carries]), "sds": "{sds: {secretName: cert-" + s.carries + "}}",
		"acm": `{acm: {certificateArn: "` + m.certificates[s.carries] + `"}}`}[s.certificate]
	out := "mode: " + s.mode + ", certificate: " + certificate
	if s.validation != "none" {
		out += ", validation: {trust: " + m.trust(s.validation) + sansYAML(wanted[s.wants]) + "}"
	}
	return out
}

// yaml is the policy's tls; empty: none.
func (c clientTLS) yaml(m material, ports []string) string {
	if c.policy == "none" {
		return ""
	}
	out := "validation: {trust: " + m.trust(c.trust) + sansYAML(accepted[c.names]) + "}"
	out += map[string]string{"optional": ", enforce: false", "listed": ", ports: [" + strings.Join(ports, ", ") + "]", "unlisted": ", ports: [9]"}[c.policy]
	switch c.certificate {
	case "file":
		out += ", certificate: " + fileYAML(m.files["client"])
	case "sds":
		out += ", certificate: {sds: {secretName: cert-client}}"
	}
	return out
}

func (m material) trust(source string) string {
	return map[string]string{"file": "{file: {certificateChain: " + m.rootFile + "}}", "sds": "{sds: {secretName: roots}}",
		"acm": `{acm: {certificateAuthorityArns: ["` + m.root + `"]}}`}[source]
}

func fileYAML(c meshtest.Certificate) string {
	return fmt.Sprintf("{file: {certificateChain: %s, privateKey: %s}}", c.Chain, c.Key)
}

func sansYAML(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return `, subjectAlternativeNames: {match: {exact: ["` + strings.Join(names, `", "`) + `"]}}`
}

// edge is the combination as the table of decisions reads it, with all that is
// known of both certificates.
func (m material) edge(s serverTLS, c clientTLS) tlspolicy.Edge {
	source := map[string]tlspolicy.Source{"file": tlspolicy.SourceFile, "sds": tlspolicy.SourceSDS, "acm": tlspolicy.SourceACM}
	e := tlspolicy.Edge{Port: 8080, DiscoveryName: matrixServer, Listener: tlspolicy.Listener{Mode: tlspolicy.Mode(s.mode)}}
	if s.mode != "none" {
		e.Listener.Certificate = &tlspolicy.Certificate{Source: source[s.certificate]}
		e.Server = tlspolicy.Facts{Root: m.root, SANs: []string{carried[s.carries]}}
	}
	if s.validation != "none" {
		e.Listener.Validation = &tlspolicy.ListenerValidation{Trust: tlspolicy.Trust{Source: source[s.validation]}, SANs: wanted[s.wants]}
	}
	if c.policy == "none" {
		return e
	}
	e.Policy = &tlspolicy.Policy{Enforce: c.policy != "optional", Trust: tlspolicy.Trust{Source: source[c.trust]}, SANs: accepted[c.names]}
	if c.trust == "acm" {
		e.Policy.Trust.ARNs = []string{m.root}
	}
	switch c.policy {
	case "listed":
		e.Policy.Ports = []int64{e.Port}
	case "unlisted":
		e.Policy.Ports = []int64{9}
	}
	if c.certificate != "none" {
		e.Policy.Certificate = &tlspolicy.Certificate{Source: source[c.certificate]}
		e.Client.SANs = []string{matrixClient}
	}
	return e
}

// TestRoundsCoverPairs: what the matrix runs has every pair of values that a
// valid spec can have.
func TestRoundsCoverPairs(t *testing.T) {
	met, combinations, verdicts := map[string]bool{}, map[string]bool{}, map[tlspolicy.Verdict]int{}
	for _, r := range rounds(matrixRounds, serversPerRound, clientsPerRound) {
		maps.Copy(met, r.pairs())
		for _, s := range r.servers {
			for _, c := range r.clients {
				combinations[fmt.Sprint(s, c)] = true
				verdicts[reads(s, c)]++
			}
		}
	}
	for _, s := range everyServer() {
		for _, c := range everyClient() {
			for _, p := range pairs(append(s.values(), c.values()...)) {
				if !met[p] {
					met[p] = true
					t.Errorf("no combination has %s", p)
				}
			}
		}
	}
	if len(combinations) < 120 {
		t.Errorf("%d different combinations, want at least 120", len(combinations))
	}
	t.Logf("%d of %d combinations, with every pair of values: %v", len(combinations), len(everyServer())*len(everyClient()), verdicts)
}

// reads is what the documentation says of a combination, in plain words and apart
// from the table.
func reads(s serverTLS, c clientTLS) tlspolicy.Verdict {
	enforces, applies := c.policy == "enforced" || c.policy == "listed", c.policy != "none" && c.policy != "unlisted"
	if s.mode == "none" || s.mode == "DISABLED" {
		if enforces {
			return tlspolicy.VerdictBroken
		}
		return tlspolicy.VerdictPlaintext
	}
	hosts := s.carries == "exact" || s.carries == "wildcard"
	fits := map[string]bool{"none": hosts, "match": hosts || s.carries == "uri", "other": false, "wildcard": hosts}[c.names]
	if !applies { // the discovery name, if the server's root is known
		fits = hosts || s.certificate != "acm"
	}
	presents := applies && c.certificate != "none" && s.wants != "other"
	switch {
	case !fits, s.validation != "none" && !presents:
		return tlspolicy.VerdictBroken
	case s.validation != "none":
		return tlspolicy.VerdictMutual
	case applies, s.certificate == "acm":
		return tlspolicy.VerdictVerified
	}
	return tlspolicy.VerdictUnverified
}

// TestEveryCombination: the one table decides each combination as the
// documentation reads.
func TestEveryCombination(t *testing.T) {
	count := map[tlspolicy.Verdict]int{}
	for _, s := range everyServer() {
		for _, c := range everyClient() {
			d := tlspolicy.Decide(material{root: "arn"}.edge(s, c))
			if want := reads(s, c); d.Verdict != want {
				t.Errorf("%+v to %+v: %s (%s), want %s", c, s, d.Verdict, d.Reason, want)
			}
			count[d.Verdict]++
		}
	}
	t.Logf("decided: %v", count)
}
