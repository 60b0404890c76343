package envoy

import (
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"golang.org/x/tools/txtar"

	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/mesh/meshgen"
	"github.com/fairlead/fairlead/internal/tlspolicy"
)

// TestSANMatcher holds what Envoy is told to tlspolicy.Matches. Envoy applies a
// matcher to the SANs of its type, and an expression to the whole of a SAN's
// text; it reads RE2, as Go does.
func TestSANMatcher(t *testing.T) {
	hosts := []string{
		"a.apps.local", "A.Apps.LOCAL", "b.apps.local", "*.apps.local", "*.APPS.local", "v*.apps.local", "a*.apps.local", "*a.apps.local",
		"x.a.apps.local", "*.a.apps.local", "apps.local", "*.local", "a.appsxlocal", "aaapps.local", "a.apps.local.evil.com",
		"under_score.apps.local", "a..apps.local", ".apps.local", "*", tlspolicy.Nobody, "*.invalid", "nobody.*", "xn--a.apps.local",
	}
	uris := []string{"spiffe://m/a", "spiffe://m/A", "spiffe://m/a/b", "spiffe://*/a", "https://a.apps.local"}
	for _, entry := range append([]string{"127.0.0.1"}, append(hosts, uris...)...) {
		if tlspolicy.CheckSAN(entry) != "" && entry != tlspolicy.Nobody && entry != "127.0.0.1" {
			continue // the API takes no such entry
		}
		m := sanMatcher(entry)
		for _, san := range append(hosts, uris...) {
			got := false
			switch isURI := strings.Contains(san, "://"); m.SanType {
			case tlsv3.SubjectAltNameMatcher_URI:
				got = isURI && m.Matcher.GetExact() == san
			case tlsv3.SubjectAltNameMatcher_DNS:
				got = !isURI && regexp.MustCompile(`\A(?:`+m.Matcher.GetSafeRegex().Regex+`)\z`).MatchString(san)
			}
			want := tlspolicy.Matches(entry, san) && (entry != tlspolicy.Nobody || san == tlspolicy.Nobody)
			if got != want {
				t.Errorf("entry %q, SAN %q: Envoy matches %v, tlspolicy.Matches %v (%v)", entry, san, got, want, m)
			}
		}
	}
	if m := sanMatcher("127.0.0.1"); m.SanType != tlsv3.SubjectAltNameMatcher_IP_ADDRESS || m.Matcher.GetExact() != "127.0.0.1" {
		t.Errorf("an address is matched by %v", m)
	}
}

// TestEnvoyTakesRandomMeshes has a real Envoy check whole configs of random
// meshes.
func TestEnvoyTakesRandomMeshes(t *testing.T) {
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 4))
		graph := mesh.Build(meshgen.View(rng, 6))
		endpoints := graph.Sorted()
		b := NewBuilder()
		for i := range 3 {
			e := endpoints[rng.IntN(len(endpoints))]
			config, _, err := b.Build(graph, e.ID, shapes[i])
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			validate(t, config)
		}
	}
}

// TestLongNames: the longest host that a SAN list takes, and the longest
// expression that a route takes, fit the program size that Envoy allows.
func TestLongNames(t *testing.T) {
	label := strings.Repeat("a", 62)
	host := strings.Join([]string{label, label, label, label}, ".") // 251
	archive := txtar.Parse([]byte(`
-- virtualNode/b.yaml --
listeners:
- portMapping: {port: 80, protocol: http}
  tls: {mode: STRICT, certificate: {file: {certificateChain: /c, privateKey: /k}}}
serviceDiscovery: {dns: {hostname: b.local}}
-- virtualService/b.yaml --
provider: {virtualRouter: {virtualRouterName: r}}
-- virtualRouter/r.yaml --
listeners: [{portMapping: {port: 80, protocol: http}}]
-- virtualRouter/r/route/long.yaml --
httpRoute:
  match: {path: {regex: "/` + strings.Repeat("[a-z]", 50) + `"}}
  action: {weightedTargets: [{virtualNode: b, weight: 1}]}
-- virtualNode/a.yaml --
backends:
- virtualService:
    virtualServiceName: b
    clientPolicy:
      tls:
        enforce: false
        validation:
          trust: {file: {certificateChain: /ca}}
          subjectAlternativeNames: {match: {exact: ["` + host + `", "*.` + host[2:] + `"]}}
`))
	config, _, err := NewBuilder().Build(mesh.Build(readMesh(t, archive)), mesh.ID{Kind: mesh.KindVirtualNode, Name: "a"}, Shape{})
	if err != nil {
		t.Fatal(err)
	}
	validate(t, config)
}

// TestAgentServesFiles: nothing but TLS settings differs between a proxy with an
// agent and one without, and no file is read where an agent is.
func TestAgentServesFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		graph := mesh.Build(readMesh(t, archive))
		b := NewBuilder()
		for _, e := range graph.Sorted() {
			with, _, err := b.Build(graph, e.ID, Shape{Agent: true})
			if err != nil {
				t.Fatal(err)
			}
			without, _, err := b.Build(graph, e.ID, Shape{})
			if err != nil {
				t.Fatal(err)
			}
			withoutTLS := func(view string) string {
				var lines []string
				for line := range strings.Lines(view) {
					if !strings.HasPrefix(strings.TrimSpace(line), "tls ") {
						lines = append(lines, line)
					}
				}
				return strings.Join(lines, "")
			}
			if a, b := withoutTLS(viewOf(with, nil)), withoutTLS(viewOf(without, nil)); a != b {
				t.Errorf("%s %s differs:\n%s\n%s", file, e.ID, a, b)
			}
			if shown := viewOf(with, nil); strings.Contains(shown, "certificate=/") || strings.Contains(shown, "trust=/") {
				t.Errorf("%s %s: Envoy reads files itself", file, e.ID)
			}
		}
	}
}
