package mesh_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/internal/meshtest"
)

// routes are two nodes behind a router, with a route for each kind of match,
// and a gateway in front of it.
const routes = `
{mesh: m, spec: {}}
---
{virtualNode: blue, spec: {listeners: [{portMapping: {port: 8080, protocol: http}}], serviceDiscovery: {dns: {hostname: blue.local}}}}
---
{virtualNode: green, spec: {listeners: [{portMapping: {port: 8080, protocol: http}}], serviceDiscovery: {dns: {hostname: green.local}}}}
---
{virtualRouter: color, spec: {listeners: [{portMapping: {port: 8080, protocol: http}}]}}
---
virtualService: color.local
spec: {provider: {virtualRouter: {virtualRouterName: color}}}
---
{virtualService: blue.local, spec: {provider: {virtualNode: {virtualNodeName: blue}}}}
---
{route: weighted, virtualRouter: color, spec: {priority: 100, httpRoute: {match: {prefix: /}, action: {weightedTargets: [{virtualNode: blue, weight: 75}, {virtualNode: green, weight: 25}]}}}}
---
route: header
virtualRouter: color
spec:
  priority: 1
  httpRoute:
    match: {prefix: /, headers: [{name: x-color, match: {exact: green}}]}
    action: {weightedTargets: [{virtualNode: green, weight: 1}]}
---
route: no-header
virtualRouter: color
spec:
  priority: 2
  httpRoute:
    match: {prefix: /only, headers: [{name: x-user, invert: true}]}
    action: {weightedTargets: [{virtualNode: green, weight: 1}]}
---
route: range
virtualRouter: color
spec:
  priority: 3
  httpRoute:
    match: {prefix: /, headers: [{name: x-age, match: {range: {start: 10, end: 20}}}]}
    action: {weightedTargets: [{virtualNode: green, weight: 1}]}
---
route: method
virtualRouter: color
spec:
  priority: 4
  httpRoute:
    match: {path: {regex: "/v[0-9]+/.*"}, method: GET, queryParameters: [{name: q, match: {exact: "1"}}]}
    action: {weightedTargets: [{virtualNode: green, weight: 1}]}
---
{route: blue, virtualRouter: color, spec: {priority: 5, httpRoute: {match: {prefix: /blue}, action: {weightedTargets: [{virtualNode: blue, weight: 1}]}}}}
---
{virtualNode: client, spec: {backends: [{virtualService: {virtualServiceName: color.local}}]}}
---
{virtualGateway: front, spec: {listeners: [{portMapping: {port: 8088, protocol: http}}]}}
---
{gatewayRoute: color, virtualGateway: front, spec: {httpRoute: {match: {prefix: /color}, action: {target: {virtualService: {virtualServiceName: color.local}}}}}}
---
{gatewayRoute: blue, virtualGateway: front, spec: {httpRoute: {match: {prefix: /blue}, action: {target: {virtualService: {virtualServiceName: blue.local}}}}}}
`

// TestRoutes sends requests through a router and a gateway.
func TestRoutes(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	n := meshtest.NewNetwork(t)
	s.Apply(t, strings.TrimSpace(routes))
	proxy := func(kind, name string) *meshtest.Agent {
		app := meshtest.StartApp(t, name)
		return meshtest.StartAgent(t, s, meshtest.AgentOptions{Resource: "mesh/m/" + kind + "/" + name, Address: n.Address(t, name+".local"),
			Apps: map[int]int{8080: app.Port}, DNS: n.DNS.Address()})
	}
	proxies := []*meshtest.Agent{proxy("virtualNode", "blue"), proxy("virtualNode", "green"), proxy("virtualNode", "client"), proxy("virtualGateway", "front")}
	for _, p := range proxies {
		p.WaitReady(t)
	}
	client, front := proxies[2].At(15001, ""), proxies[3].At(8088, "")

	header := func(name, value string) http.Header { return http.Header{name: {value}} }
	for _, r := range []struct {
		name, at, path, host string
		header               http.Header
		want                 string // answer, and the path that the application saw
	}{
		{"a header's value", client, "/", "color.local:8080", header("X-Color", "green"), "200 green /"},
		{"a header that must not be there", client, "/only/x", "color.local:8080", nil, "200 green /only/x"},
		{"the first of a range", client, "/", "color.local:8080", header("X-Age", "10"), "200 green /"},
		{"path, method and parameter", client, "/v1/x?q=1", "color.local:8080", nil, "200 green /v1/x?q=1"},
		{"a prefix", client, "/blue/x", "color.local:8080", nil, "200 blue /blue/x"},
		{"the service without its port", client, "/blue/x", "color.local", nil, "200 blue /blue/x"},
		{"a service that is no backend", client, "/", "blue.local:8080", nil, "404"},
		{"gateway: a prefix is cut off", front, "/blue/x", "www.example.com", nil, "200 blue /x"},
		{"gateway: through the router", front, "/color/only/x", "www.example.com", nil, "200 green /only/x"},
		{"gateway: a header", front, "/color", "www.example.com", header("X-Color", "green"), "200 green /"},
		{"gateway: nothing matches", front, "/red", "www.example.com", nil, "404"},
	} {
		t.Run(r.name, func(t *testing.T) {
			waitAnswer(t, func(ctx context.Context) string { return seen(ctx, r.at+r.path, r.host, r.header) }, r.want)
		})
	}
	t.Run("the end of a range is not in it", func(t *testing.T) {
		tally := map[string]int{}
		for range 40 {
			tally[seen(t.Context(), client+"/", "color.local:8080", header("X-Age", "20"))]++
		}
		if tally["200 blue /"] == 0 {
			t.Errorf("answers %v: the route of the range takes its end", tally)
		}
	})
	for name, url := range map[string]string{"node": client + "/", "gateway": front + "/color"} {
		t.Run("weights, "+name, func(t *testing.T) { wantWeights(t, url) })
	}
	t.Run("new weights", func(t *testing.T) {
		s.Apply(t, "{mesh: m, spec: {}}\n---\n{route: weighted, virtualRouter: color, spec: {priority: 100, httpRoute: {match: {prefix: /}, action: {weightedTargets: [{virtualNode: blue, weight: 0}, {virtualNode: green, weight: 5}]}}}}")
		s.WaitSettled(t, 4)
		for range 20 {
			waitAnswer(t, func(ctx context.Context) string { return seen(ctx, client+"/", "color.local:8080", nil) }, "200 green /")
		}
	})
}

// seen is an answer with the path that the application saw.
func seen(ctx context.Context, url, host string, header http.Header) string {
	answer, body, err := fetch(ctx, "http", url, host, header)
	switch {
	case err != nil:
		return "error: " + err.Error()
	case answer.StatusCode != http.StatusOK:
		return fmt.Sprint(answer.StatusCode)
	}
	return "200 " + body + " " + answer.Header.Get("X-Echo-Path")
}

// wantWeights wants 75 of 100 answers of blue. Of 1000, fewer than 680 or more
// than 820 would come once in a million runs.
func wantWeights(t *testing.T, url string) {
	t.Helper()
	const calls = 1000
	blue := 0
	for range calls {
		switch got := seen(t.Context(), url, "color.local:8080", nil); {
		case got == "200 blue /":
			blue++
		case !slices.Contains([]string{"200 green /"}, got):
			t.Fatalf("answered %q", got)
		}
	}
	if blue < 680 || blue > 820 {
		t.Errorf("%d of %d answers are blue's, want about 750", blue, calls)
	}
	t.Logf("%d of %d answers are blue's", blue, calls)
}
