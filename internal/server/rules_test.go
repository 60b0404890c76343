package server

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/internal/awsapi"
)

// Specs that satisfy the service model, and what else is wrong with them. An
// empty list means that nothing is.
func TestVirtualNodeRules(t *testing.T) {
	const dns = `"serviceDiscovery":{"dns":{"hostname":"a.local"}}`
	listener := func(more string) string {
		return `{"listeners":[{"portMapping":{"port":8080,"protocol":"http"}` + more + `}],` + dns + `}`
	}
	validation := func(names string) string {
		return listener(`,"tls":{"mode":"STRICT","certificate":{"file":{"certificateChain":"/c","privateKey":"/k"}},
			"validation":{"trust":{"file":{"certificateChain":"/r"}},"subjectAlternativeNames":{"match":{"exact":` + names + `}}}}`)
	}
	policy := func(enforce, names string) string {
		return `{"backendDefaults":{"clientPolicy":{"tls":{` + enforce + `"validation":{"trust":{"file":{"certificateChain":"/r"}},
			"subjectAlternativeNames":{"match":{"exact":` + names + `}}}}}}}`
	}
	checkRules(t, virtualNodeRules, []ruleCase{
		{"a pure client", `{}`, nil},
		{"a whole listener", listener(`,"connectionPool":{"http":{"maxConnections":1}},"timeout":{"http":{"idle":{"unit":"s","value":0}}},
			"healthCheck":{"healthyThreshold":2,"unhealthyThreshold":2,"intervalMillis":5000,"timeoutMillis":2000,"protocol":"http","port":8080}`), nil},
		{"an IP address as hostname", `{"listeners":[{"portMapping":{"port":1,"protocol":"tcp"}}],"serviceDiscovery":{"dns":{"hostname":"127.0.0.7"}}}`, nil},

		{"discovery without a listener", `{` + dns + `}`, []string{`Service Discovery can't be set without a listener.`}},
		{"a listener without discovery", `{"listeners":[{"portMapping":{"port":1,"protocol":"tcp"}}]}`,
			[]string{`spec.serviceDiscovery: must be set: clients need it to find the node's listeners`}},
		{"hostname that cannot be", `{"listeners":[{"portMapping":{"port":1,"protocol":"tcp"}}],"serviceDiscovery":{"dns":{"hostname":"a b"}}}`,
			[]string{`spec.serviceDiscovery.dns.hostname: "a b" is neither a DNS name nor an IP address`}},
		{"pool and timeout of another protocol", listener(`,"connectionPool":{"grpc":{"maxRequests":1}},"timeout":{"tcp":{}}`), []string{
			`spec.listeners[0].connectionPool.grpc: the listener's protocol is http: set connectionPool.http`,
			`spec.listeners[0].timeout.tcp: the listener's protocol is http: set timeout.http`}},
		{"health check of another port", listener(`,"healthCheck":{"healthyThreshold":2,"unhealthyThreshold":2,"intervalMillis":5000,"timeoutMillis":2000,"protocol":"http","port":81}`),
			[]string{`spec.listeners[0].healthCheck.port: 81 must be the listener's port 8080`}},
		{"a port twice", `{"listeners":[{"portMapping":{"port":1,"protocol":"tcp"}},{"portMapping":{"port":1,"protocol":"http"}}],` + dns + `}`,
			[]string{`spec.listeners[1].portMapping.port: 1 is the port of spec.listeners[0] already`}},
		{"half a duration", listener(`,"timeout":{"http":{"idle":{"value":3},"perRequest":{"unit":"ms"}}}`), []string{
			`spec.listeners[0].timeout.http.perRequest.value: must be set: a duration needs its unit and its value`,
			`spec.listeners[0].timeout.http.idle.unit: must be set: a duration needs its unit and its value`}},
		{"outlier detection every 0 s", listener(`,"outlierDetection":{"maxServerErrors":1,"maxEjectionPercent":0,"interval":{"unit":"s","value":0},"baseEjectionDuration":{"unit":"s","value":1}}`),
			[]string{`spec.listeners[0].outlierDetection.interval.value: 0 must be more than 0`}},
		{"a backend twice", `{"backends":[{"virtualService":{"virtualServiceName":"s"}},{"virtualService":{"virtualServiceName":"s"}}]}`,
			[]string{`spec.backends[1].virtualService.virtualServiceName: "s" is spec.backends[0] already`}},

		{"names of client certificates", validation(`["a.example.com","spiffe://td/web"]`), nil},
		{"no names at all", validation(`[]`), []string{`spec.listeners[0].tls.validation.subjectAlternativeNames.match.exact: an empty list matches no certificate: give a name, or leave subjectAlternativeNames out`}},
		{"names that are none", validation(`["10.0.0.1","me@example.com","web","*.example.com","spiffe:///web"]`), []string{
			`spec.listeners[0].tls.validation.subjectAlternativeNames.match.exact[0]: "10.0.0.1" is an IP address: names are DNS names (a.example.com) or URIs`,
			`spec.listeners[0].tls.validation.subjectAlternativeNames.match.exact[1]: "me@example.com" is an e-mail address: names are DNS names (a.example.com) or URIs`,
			`spec.listeners[0].tls.validation.subjectAlternativeNames.match.exact[2]: "web" is not a fully qualified DNS name (a.example.com) or a URI`,
			`spec.listeners[0].tls.validation.subjectAlternativeNames.match.exact[3]: "*.example.com" has a wildcard: list whole names, or set enforce to false in a client policy`,
			`spec.listeners[0].tls.validation.subjectAlternativeNames.match.exact[4]: "spiffe:///web" is not a URI with a host`}},
		{"a wildcard, enforced by default", policy(``, `["*.example.com"]`), []string{
			`spec.backendDefaults.clientPolicy.tls.validation.subjectAlternativeNames.match.exact[0]: "*.example.com" has a wildcard: list whole names, or set enforce to false in a client policy`}},
		{"a wildcard, not enforced", policy(`"enforce":false,`, `["*.example.com"]`), nil},
		{"more than a label of stars", policy(`"enforce":false,`, `["*","*.*.com","a.*.com"]`), []string{
			`spec.backendDefaults.clientPolicy.tls.validation.subjectAlternativeNames.match.exact[0]: "*" is not a fully qualified DNS name (a.example.com) or a URI`,
			`spec.backendDefaults.clientPolicy.tls.validation.subjectAlternativeNames.match.exact[1]: "*.*.com" is not a fully qualified DNS name (a.example.com) or a URI`,
			`spec.backendDefaults.clientPolicy.tls.validation.subjectAlternativeNames.match.exact[2]: "a.*.com" is not a fully qualified DNS name (a.example.com) or a URI`}},
	})
}

func TestVirtualGatewayRules(t *testing.T) {
	checkRules(t, virtualGatewayRules, []ruleCase{
		{"one listener", `{"listeners":[{"portMapping":{"port":80,"protocol":"http2"},"connectionPool":{"http2":{"maxRequests":1}}}]}`, nil},
		{"no listener", `{"listeners":[]}`, []string{`spec.listeners: a virtual gateway needs a listener`}},
		{"a port twice", `{"listeners":[{"portMapping":{"port":80,"protocol":"http"}},{"portMapping":{"port":80,"protocol":"grpc"}}]}`,
			[]string{`spec.listeners[1].portMapping.port: 80 is the port of spec.listeners[0] already`}},
		{"pool of another protocol", `{"listeners":[{"portMapping":{"port":80,"protocol":"grpc"},"connectionPool":{"http2":{"maxRequests":1}}}]}`,
			[]string{`spec.listeners[0].connectionPool.http2: the listener's protocol is grpc: set connectionPool.grpc`}},
	})
}

func TestRouteRules(t *testing.T) {
	const to = `"action":{"weightedTargets":[{"virtualNode":"a","weight":1}]}`
	route := func(match, more string) string { return `{"httpRoute":{"match":` + match + `,` + to + more + `}}` }
	targets := func(list string) string {
		return `{"tcpRoute":{"action":{"weightedTargets":` + list + `}}}`
	}
	checkRules(t, routeRules, []ruleCase{
		{"a prefix", route(`{"prefix":"/"}`, ``), nil},
		{"a port alone", route(`{"port":80}`, ``), nil},
		{"any gRPC call", `{"grpcRoute":{"match":{},` + to + `}}`, nil},
		{"of no kind", `{}`, []string{`spec: exactly one of httpRoute, http2Route, grpcRoute, tcpRoute must be set, but none is`}},
		{"of two kinds", `{"httpRoute":{"match":{"prefix":"/"},` + to + `},"tcpRoute":{` + to + `}}`,
			[]string{`spec: exactly one of httpRoute, http2Route, grpcRoute, tcpRoute must be set, but httpRoute and tcpRoute are`}},

		{"weights of 100", targets(`[{"virtualNode":"a","weight":60},{"virtualNode":"b","weight":40}]`), nil},
		{"weights of more", targets(`[{"virtualNode":"a","weight":60},{"virtualNode":"b","weight":41}]`),
			[]string{`spec.tcpRoute.action.weightedTargets: the weights add up to 101, which must be 1 to 100`}},
		{"weights of nothing", targets(`[{"virtualNode":"a","weight":0}]`),
			[]string{`spec.tcpRoute.action.weightedTargets: the weights add up to 0, which must be 1 to 100`}},
		{"a target twice", targets(`[{"virtualNode":"a","weight":1},{"virtualNode":"a","weight":2}]`),
			[]string{`spec.tcpRoute.action.weightedTargets[1].virtualNode: "a" is a target already: add its weights`}},
		{"two ports of a target", targets(`[{"virtualNode":"a","weight":1,"port":1},{"virtualNode":"a","weight":2,"port":2}]`), nil},

		{"no criterion", route(`{}`, ``), []string{`spec.httpRoute.match: at least one criterion must be set`}},
		{"prefix and path", route(`{"prefix":"/a","path":{"exact":"/b"}}`, ``), []string{`spec.httpRoute.match: prefix and path exclude each other`}},
		{"path of both kinds", route(`{"path":{"exact":"/b","regex":".*"}}`, ``), []string{`spec.httpRoute.match.path: exactly one of exact, regex must be set, but exact and regex are`}},
		{"no slash", route(`{"prefix":"a"}`, ``), []string{`spec.httpRoute.match.prefix: "a" must begin with /`}},
		{"a regular expression that is none", route(`{"path":{"regex":"a(b"}}`, ``), []string{"spec.httpRoute.match.path.regex: \"a(b\" is not an RE2 expression: missing closing ): `a(b`"}},
		{"an empty range", route(`{"headers":[{"name":"x","match":{"range":{"start":2,"end":2}}}]}`, ``),
			[]string{`spec.httpRoute.match.headers[0].match.range: end 2 must be more than start 2`}},
		{"a header with a space", route(`{"headers":[{"name":"x y"}]}`, ``), []string{`spec.httpRoute.match.headers[0].name: "x y" cannot be the name of a header`}},
		{"a method without its service", `{"grpcRoute":{"match":{"methodName":"Get"},` + to + `}}`,
			[]string{`spec.grpcRoute.match.methodName: "Get" needs serviceName beside it`}},

		{"a retry policy", route(`{"prefix":"/"}`, `,"retryPolicy":{"maxRetries":0,"perRetryTimeout":{"unit":"s","value":1},"httpRetryEvents":["gateway-error"]}`), nil},
		{"retries for nothing", route(`{"prefix":"/"}`, `,"retryPolicy":{"maxRetries":1,"perRetryTimeout":{"unit":"s","value":1}}`),
			[]string{`spec.httpRoute.retryPolicy: names no event: set httpRetryEvents, tcpRetryEvents or (gRPC) grpcRetryEvents`}},
		{"an event that does not exist", route(`{"prefix":"/"}`, `,"retryPolicy":{"maxRetries":1,"perRetryTimeout":{"unit":"s"},"httpRetryEvents":["oops"]}`), []string{
			`spec.httpRoute.retryPolicy.httpRetryEvents[0]: "oops" is not one of server-error, gateway-error, client-error, stream-error`,
			`spec.httpRoute.retryPolicy.perRetryTimeout.value: must be set: a duration needs its unit and its value`}},
	})
}

func TestGatewayRouteRules(t *testing.T) {
	route := func(match, rewrite string) string {
		if rewrite != "" {
			rewrite = `"rewrite":` + rewrite + `,`
		}
		return `{"httpRoute":{"match":` + match + `,"action":{` + rewrite + `"target":{"virtualService":{"virtualServiceName":"s"}}}}}`
	}
	grpc := func(match string) string {
		return `{"grpcRoute":{"match":` + match + `,"action":{"target":{"virtualService":{"virtualServiceName":"s"}}}}}`
	}
	checkRules(t, gatewayRouteRules, []ruleCase{
		{"a prefix", route(`{"prefix":"/a/"}`, ``), nil},
		{"a host name", route(`{"hostname":{"suffix":".example.com"}}`, ``), nil},
		{"a prefix rewritten", route(`{"prefix":"/a/"}`, `{"prefix":{"value":"/b/"}}`), nil},
		{"nothing", route(`{}`, ``), []string{`spec.httpRoute.match: at least one of prefix, path and hostname must be set`}},
		{"a reserved prefix", route(`{"prefix":"/aws-appmesh-x"}`, ``), []string{`spec.httpRoute.match.prefix: "/aws-appmesh-x" is reserved: paths that begin with /aws-appmesh or /aws-app-mesh are`}},
		{"a host name of both kinds", route(`{"hostname":{"exact":"a.b","suffix":".b"}}`, ``), []string{`spec.httpRoute.match.hostname: exactly one of exact, suffix must be set, but exact and suffix are`}},
		{"gRPC of nothing", grpc(`{"port":1}`), []string{`spec.grpcRoute.match: at least one of serviceName, hostname and metadata must be set`}},
		{"a reserved service", grpc(`{"serviceName":"aws.appmesh.x"}`), []string{`spec.grpcRoute.match.serviceName: "aws.appmesh.x" is reserved: names that begin with aws.appmesh or aws.app-mesh are`}},
		{"both rewrites", route(`{"prefix":"/a/"}`, `{"prefix":{"defaultPrefix":"DISABLED"},"path":{"exact":"/b"}}`), []string{`spec.httpRoute.action.rewrite: prefix and path exclude each other`}},
		{"both kinds of prefix rewrite", route(`{"prefix":"/a/"}`, `{"prefix":{"defaultPrefix":"DISABLED","value":"/b/"}}`), []string{`spec.httpRoute.action.rewrite.prefix: exactly one of defaultPrefix, value must be set, but defaultPrefix and value are`}},
		{"prefix rewrite of a path", route(`{"path":{"exact":"/a"}}`, `{"prefix":{"value":"/b/"}}`), []string{`spec.httpRoute.action.rewrite.prefix: is possible only where match.prefix is set`}},
		{"prefixes without slashes", route(`{"prefix":"/a"}`, `{"prefix":{"value":"b"}}`), []string{
			`spec.httpRoute.action.rewrite.prefix.value: "b" must begin and end with /`,
			`spec.httpRoute.action.rewrite.prefix.value: "b" needs a match.prefix that ends with /, not "/a"`}},
	})
}

type ruleCase struct {
	name string
	spec string
	want []string
}

// checkRules decodes each spec as a request would be, which it must survive,
// and compares the faults, all of them.
func checkRules[S any](t *testing.T, rules []rule[S], cases []ruleCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			spec := new(S)
			if err := awsapi.DecodeValid([]byte(c.spec), spec); err != nil {
				t.Fatalf("the spec breaks the service model: %v", err)
			}
			var got []string
			for _, f := range check(rules, spec) {
				got = append(got, strings.TrimPrefix(f.path+": "+f.message, ": "))
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
		})
	}
}

func TestResourceNames(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "blue_green-1.local": true, "..a": true,
		".": false, "..": false, "a/b": false, "a@b": false, "a b": false, "ä": false, "a%2Fb": false,
		"arn:aws:appmesh:us-east-1:000000000000:mesh/m": false, strings.Repeat("a", 256): false,
	} {
		var f faults
		resourceName(&f, "meshName", name)
		if got := len(f) == 0; got != want {
			t.Errorf("%q: accepted is %t, want %t", name, got, want)
		}
	}
}
