package server

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/awsapi"
)

// ruleCase is a spec that satisfies the service model, the rule that it is
// about, and what is wrong with it: nothing, or all faults. The API reference
// quotes the first fault of each rule.
type ruleCase struct {
	rule string
	name string
	spec string
	want []string
}

func nodeCases() []ruleCase {
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
	check := func(more string) string {
		return listener(`,"healthCheck":{"healthyThreshold":2,"unhealthyThreshold":2,"intervalMillis":5000,"timeoutMillis":2000,"protocol":"http"` + more + `}`)
	}
	ejection := func(interval string) string {
		return listener(`,"outlierDetection":{"maxServerErrors":1,"maxEjectionPercent":0,"interval":` + interval + `,"baseEjectionDuration":{"unit":"s","value":1}}`)
	}
	backend := func(names ...string) string {
		for i, name := range names {
			names[i] = `{"virtualService":{"virtualServiceName":"` + name + `"}}`
		}
		return `{"backends":[` + strings.Join(names, ",") + `]}`
	}
	logTo := func(path string) string { return `{"logging":{"accessLog":{"file":{"path":"` + path + `"}}}}` }
	hostname := func(name string) string {
		return `{"listeners":[{"portMapping":{"port":1,"protocol":"tcp"}}],"serviceDiscovery":{"dns":{"hostname":"` + name + `"}}}`
	}
	const names = `.subjectAlternativeNames.match.exact`
	const inListener, inPolicy = `spec.listeners[0].tls.validation` + names, `spec.backendDefaults.clientPolicy.tls.validation` + names
	return []ruleCase{
		{"pool-protocol", "of the protocol", listener(`,"connectionPool":{"http":{"maxConnections":1}}`), nil},
		{"pool-protocol", "of another", listener(`,"connectionPool":{"grpc":{"maxRequests":1}}`), []string{
			`spec.listeners[0].connectionPool.grpc: the listener's protocol is http: set connectionPool.http`}},
		{"timeout-protocol", "of the protocol", listener(`,"timeout":{"http":{"idle":{"unit":"s","value":0}}}`), nil},
		{"timeout-protocol", "of another, like the pool", listener(`,"connectionPool":{"grpc":{"maxRequests":1}},"timeout":{"tcp":{}}`), []string{
			`spec.listeners[0].connectionPool.grpc: the listener's protocol is http: set connectionPool.http`,
			`spec.listeners[0].timeout.tcp: the listener's protocol is http: set timeout.http`}},
		{"timeout-protocol", "of another", listener(`,"timeout":{"tcp":{}}`), []string{`spec.listeners[0].timeout.tcp: the listener's protocol is http: set timeout.http`}},

		{"health-check-port", "its own port", check(`,"port":8080`), nil},
		{"health-check-port", "left out", check(``), nil},
		{"health-check-port", "another port", check(`,"port":81`), []string{`spec.listeners[0].healthCheck.port: 81 must be the listener's port 8080`}},
		{"health-check-path", "a path", check(`,"path":"/ping?x=1"`), nil},
		{"health-check-path", "two lines", check(`,"path":"/a\nb"`), []string{`spec.listeners[0].healthCheck.path: "/a\nb" has control characters`}},

		{"discovery-needs-listener", "a pure client", `{}`, nil},
		{"discovery-needs-listener", "discovery alone", `{` + dns + `}`, []string{`Service Discovery can't be set without a listener.`}},
		{"listener-needs-discovery", "both", listener(``), nil},
		{"listener-needs-discovery", "a listener alone", `{"listeners":[{"portMapping":{"port":1,"protocol":"tcp"}}]}`,
			[]string{`spec.serviceDiscovery: must be set: clients need it to find the node's listeners`}},
		{"hostname", "an IP address", hostname("127.0.0.7"), nil},
		{"hostname", "an IPv6 address", hostname("2001:db8::7"), nil},
		{"hostname", "with underscores and a dot at its end", hostname("_a.b_c.local."), nil},
		{"hostname", "with a space", hostname("a b"), []string{`spec.serviceDiscovery.dns.hostname: "a b" is neither a DNS name nor an IP address`}},
		{"listener-ports", "two ports", `{"listeners":[{"portMapping":{"port":1,"protocol":"tcp"}},{"portMapping":{"port":2,"protocol":"http"}}],` + dns + `}`, nil},
		{"listener-ports", "one twice", `{"listeners":[{"portMapping":{"port":1,"protocol":"tcp"}},{"portMapping":{"port":1,"protocol":"http"}}],` + dns + `}`,
			[]string{`spec.listeners[1].portMapping.port: 1 is the port of spec.listeners[0] already`}},

		{"duration", "whole ones", listener(`,"timeout":{"http":{"idle":{"unit":"s","value":0},"perRequest":{"unit":"ms","value":1500}}}`), nil},
		{"duration", "half ones", listener(`,"timeout":{"http":{"idle":{"value":3},"perRequest":{"unit":"ms"}}}`), []string{
			`spec.listeners[0].timeout.http.perRequest.value: must be set: a duration needs its unit and its value`,
			`spec.listeners[0].timeout.http.idle.unit: must be set: a duration needs its unit and its value`}},
		{"duration", "300 years", listener(`,"timeout":{"http":{"idle":{"unit":"s","value":9460800000}}}`), []string{
			`spec.listeners[0].timeout.http.idle.value: 9460800000 is more than the 9145440000 seconds that a proxy can count`}},
		{"ejection-time", "a millisecond", ejection(`{"unit":"ms","value":1}`), nil},
		{"ejection-time", "no time", ejection(`{"unit":"s","value":0}`), []string{`spec.listeners[0].outlierDetection.interval.value: 0 must be more than 0`}},

		{"backend-once", "two backends", backend("s", "t"), nil},
		{"backend-once", "one twice", backend("s", "s"), []string{`spec.backends[1].virtualService.virtualServiceName: "s" is spec.backends[0] already`}},
		{"backend-name", "a name", backend("service-b.local"), nil},
		{"backend-name", "an ARN", backend("arn:aws:appmesh:us-west-2:111122223333:mesh/m@444455556666/virtualService/b.local"), nil},
		{"backend-name", "an ARN of something else", backend("arn:aws:appmesh:us-west-2:111122223333:mesh/m/virtualNode/b"), []string{
			`spec.backends[0].virtualService.virtualServiceName: "arn:aws:appmesh:us-west-2:111122223333:mesh/m/virtualNode/b" is not the ARN of a virtual service`}},
		{"backend-name", "a URL", backend("http://b"), []string{
			`spec.backends[0].virtualService.virtualServiceName: "http://b" may have letters, digits, hyphens, underscores and dots only`}},

		{"listener-names", "names of client certificates", validation(`["a.example.com","spiffe://td/web"]`), nil},
		{"listener-names", "no names at all", validation(`[]`), []string{inListener + `: an empty list matches no certificate: give a name, or leave subjectAlternativeNames out`}},
		{"listener-names", "names that are none", validation(`["10.0.0.1","me@example.com","web","*.example.com","spiffe:///web"]`), []string{
			inListener + `[0]: "10.0.0.1" is an IP address: names are DNS names (a.example.com) or URIs`,
			inListener + `[1]: "me@example.com" is an e-mail address: names are DNS names (a.example.com) or URIs`,
			inListener + `[2]: "web" is not a fully qualified DNS name (a.example.com) or a URI`,
			inListener + `[3]: "*.example.com" has a wildcard: list whole names, or set enforce to false in a client policy`,
			inListener + `[4]: "spiffe:///web" is not a URI with a host`}},
		{"policy-names", "a whole name", policy(``, `["a.example.com"]`), nil},
		{"policy-names", "a wildcard, not enforced", policy(`"enforce":false,`, `["*.example.com"]`), nil},
		{"policy-names", "a wildcard, enforced by default", policy(``, `["*.example.com"]`), []string{
			inPolicy + `[0]: "*.example.com" has a wildcard: list whole names, or set enforce to false in a client policy`}},
		{"policy-names", "a wildcard, enforced", policy(`"enforce":true,`, `["*.example.com"]`), []string{
			inPolicy + `[0]: "*.example.com" has a wildcard: list whole names, or set enforce to false in a client policy`}},
		{"policy-names", "more than a label of stars", policy(`"enforce":false,`, `["*","*.*.com","a.*.com"]`), []string{
			inPolicy + `[0]: "*" is not a fully qualified DNS name (a.example.com) or a URI`,
			inPolicy + `[1]: "*.*.com" is not a fully qualified DNS name (a.example.com) or a URI`,
			inPolicy + `[2]: "a.*.com" is not a fully qualified DNS name (a.example.com) or a URI`}},
		{"policy-names", "of a backend's own policy", `{"backends":[{"virtualService":{"virtualServiceName":"s","clientPolicy":{"tls":{"validation":{"trust":{"file":{"certificateChain":"/r"}},
			"subjectAlternativeNames":{"match":{"exact":["a"]}}}}}}}]}`, []string{
			`spec.backends[0].virtualService.clientPolicy.tls.validation` + names + `[0]: "a" is not a fully qualified DNS name (a.example.com) or a URI`}},
		{"log-path", "a device", logTo("/dev/stdout"), nil},
		{"log-path", "two lines", logTo(`/a\nb`), []string{`spec.logging.accessLog.file.path: "/a\nb" has control characters`}},
	}
}

func gatewayCases() []ruleCase {
	listener := func(more string) string { return `{"listeners":[` + gatewayListener(80, more) + `]}` }
	check := func(more string) string {
		return listener(`,"healthCheck":{"healthyThreshold":2,"unhealthyThreshold":2,"intervalMillis":5000,"timeoutMillis":2000,"protocol":"http"` + more + `}`)
	}
	withNames := func(names string) string {
		return listener(`,"tls":{"mode":"STRICT","certificate":{"file":{"certificateChain":"/c","privateKey":"/k"}},
			"validation":{"trust":{"sds":{"secretName":"r"}},"subjectAlternativeNames":{"match":{"exact":` + names + `}}}}`)
	}
	policy := func(names string) string {
		return strings.Replace(listener(``), `{"listeners"`, `{"backendDefaults":{"clientPolicy":{"tls":{"validation":{"trust":{"file":{"certificateChain":"/r"}},
			"subjectAlternativeNames":{"match":{"exact":`+names+`}}}}}},"listeners"`, 1)
	}
	logTo := func(path string) string {
		return strings.Replace(listener(``), `{"listeners"`, `{"logging":{"accessLog":{"file":{"path":"`+path+`"}}},"listeners"`, 1)
	}
	return []ruleCase{
		{"gateway-listener", "one listener", listener(``), nil},
		{"gateway-listener", "none", `{"listeners":[]}`, []string{`spec.listeners: a virtual gateway needs a listener`}},
		{"listener-ports", "two ports", `{"listeners":[` + gatewayListener(80, ``) + `,` + gatewayListener(81, ``) + `]}`, nil},
		{"listener-ports", "one twice", `{"listeners":[` + gatewayListener(80, ``) + `,` + gatewayListener(80, ``) + `]}`,
			[]string{`spec.listeners[1].portMapping.port: 80 is the port of spec.listeners[0] already`}},
		{"pool-protocol", "of the protocol", listener(`,"connectionPool":{"http":{"maxConnections":1}}`), nil},
		{"pool-protocol", "of another", listener(`,"connectionPool":{"http2":{"maxRequests":1}}`),
			[]string{`spec.listeners[0].connectionPool.http2: the listener's protocol is http: set connectionPool.http`}},
		{"health-check-port", "its own port", check(`,"port":80`), nil},
		{"health-check-port", "left out", check(``), nil},
		{"health-check-port", "another port", check(`,"port":81`), []string{`spec.listeners[0].healthCheck.port: 81 must be the listener's port 80`}},
		{"health-check-path", "a path", check(`,"path":"/ping"`), nil},
		{"health-check-path", "two lines", check(`,"path":"/a\rb"`), []string{`spec.listeners[0].healthCheck.path: "/a\rb" has control characters`}},
		{"listener-names", "a name", withNames(`["a.example.com"]`), nil},
		{"listener-names", "a bare word", withNames(`["a"]`), []string{`spec.listeners[0].tls.validation.subjectAlternativeNames.match.exact[0]: "a" is not a fully qualified DNS name (a.example.com) or a URI`}},
		{"policy-names", "a name", policy(`["a.example.com"]`), nil},
		{"policy-names", "a bare word", policy(`["a"]`), []string{`spec.backendDefaults.clientPolicy.tls.validation.subjectAlternativeNames.match.exact[0]: "a" is not a fully qualified DNS name (a.example.com) or a URI`}},
		{"log-path", "a device", logTo("/dev/stdout"), nil},
		{"log-path", "two lines", logTo(`/a\nb`), []string{`spec.logging.accessLog.file.path: "/a\nb" has control characters`}},
	}
}

func gatewayListener(port int, more string) string {
	return fmt.Sprintf(`{"portMapping":{"port":%d,"protocol":"http"}%s}`, port, more)
}

func routerCases() []ruleCase {
	return []ruleCase{
		{"listener-ports", "two ports", `{"listeners":[{"portMapping":{"port":1,"protocol":"tcp"}},{"portMapping":{"port":2,"protocol":"tcp"}}]}`, nil},
		{"listener-ports", "none", `{}`, nil},
		{"listener-ports", "one twice", `{"listeners":[{"portMapping":{"port":1,"protocol":"tcp"}},{"portMapping":{"port":1,"protocol":"http"}}]}`,
			[]string{`spec.listeners[1].portMapping.port: 1 is the port of spec.listeners[0] already`}},
	}
}

func serviceCases() []ruleCase {
	const arn = `arn:aws:appmesh:us-west-2:111122223333:mesh/m/virtualNode/a`
	return []ruleCase{
		{"reference-by-name", "a name", `{"provider":{"virtualNode":{"virtualNodeName":"a"}}}`, nil},
		{"reference-by-name", "no provider", `{}`, nil},
		{"reference-by-name", "an ARN", `{"provider":{"virtualNode":{"virtualNodeName":"` + arn + `"}}}`, []string{`spec.provider.virtualNode.virtualNodeName: "` + arn + `" is an ARN: give the resource's name`}},
		{"reference-by-name", "a router's ARN", `{"provider":{"virtualRouter":{"virtualRouterName":"` + arn + `"}}}`, []string{`spec.provider.virtualRouter.virtualRouterName: "` + arn + `" is an ARN: give the resource's name`}},
	}
}

func routeCases() []ruleCase {
	const to = `"action":{"weightedTargets":[{"virtualNode":"a","weight":1}]}`
	route := func(match, more string) string { return `{"httpRoute":{"match":` + match + `,` + to + more + `}}` }
	grpc := func(match string) string { return `{"grpcRoute":{"match":` + match + `,` + to + `}}` }
	targets := func(list string) string { return `{"tcpRoute":{"action":{"weightedTargets":` + list + `}}}` }
	retry := func(more string) string {
		return route(`{"prefix":"/"}`, `,"retryPolicy":{"maxRetries":0,"perRetryTimeout":{"unit":"s","value":1}`+more+`}`)
	}
	return []ruleCase{
		{"route-kind", "one", route(`{"prefix":"/"}`, ``), nil},
		{"route-kind", "none", `{}`, []string{`spec: exactly one of httpRoute, http2Route, grpcRoute, tcpRoute must be set, but none is`}},
		{"route-kind", "two", `{"httpRoute":{"match":{"prefix":"/"},` + to + `},"tcpRoute":{` + to + `}}`,
			[]string{`spec: exactly one of httpRoute, http2Route, grpcRoute, tcpRoute must be set, but httpRoute and tcpRoute are`}},

		{"weights", "of 100", targets(`[{"virtualNode":"a","weight":60},{"virtualNode":"b","weight":40}]`), nil},
		{"weights", "one is enough", targets(`[{"virtualNode":"a","weight":1}]`), nil},
		{"weights", "one target parked", targets(`[{"virtualNode":"a","weight":1},{"virtualNode":"b","weight":0}]`), nil},
		{"weights", "of more", targets(`[{"virtualNode":"a","weight":60},{"virtualNode":"b","weight":41}]`),
			[]string{`spec.tcpRoute.action.weightedTargets: the weights add up to 101, which must be 1 to 100`}},
		{"weights", "of nothing", targets(`[{"virtualNode":"a","weight":0}]`),
			[]string{`spec.tcpRoute.action.weightedTargets: the weights add up to 0, which must be 1 to 100`}},
		{"target-once", "two ports of a target", targets(`[{"virtualNode":"a","weight":1,"port":1},{"virtualNode":"a","weight":2,"port":2}]`), nil},
		{"target-once", "twice", targets(`[{"virtualNode":"a","weight":1},{"virtualNode":"a","weight":2}]`),
			[]string{`spec.tcpRoute.action.weightedTargets[1].virtualNode: "a" is a target already: add its weights`}},
		{"reference-by-name", "a name", targets(`[{"virtualNode":"a","weight":1}]`), nil},
		{"reference-by-name", "an ARN", targets(`[{"virtualNode":"arn:aws:appmesh:us-west-2:111122223333:mesh/m/virtualNode/a","weight":1}]`), []string{
			`spec.tcpRoute.action.weightedTargets[0].virtualNode: "arn:aws:appmesh:us-west-2:111122223333:mesh/m/virtualNode/a" is an ARN: give the resource's name`}},

		{"match-criterion", "a port alone", route(`{"port":80}`, ``), nil},
		{"match-criterion", "any gRPC call", grpc(`{}`), nil},
		{"match-criterion", "nothing", route(`{}`, ``), []string{`spec.httpRoute.match: at least one criterion must be set`}},
		{"path-match", "a regular expression", route(`{"path":{"regex":"/v[0-9]+/.*"}}`, ``), nil},
		{"path-match", "prefix and path", route(`{"prefix":"/a","path":{"exact":"/b"}}`, ``), []string{`spec.httpRoute.match: prefix and path exclude each other`}},
		{"path-match", "path of both kinds", route(`{"path":{"exact":"/b","regex":".*"}}`, ``), []string{`spec.httpRoute.match.path: exactly one of exact, regex must be set, but exact and regex are`}},
		{"path-match", "no slash", route(`{"prefix":"a"}`, ``), []string{`spec.httpRoute.match.prefix: "a" must begin with /`}},
		{"path-match", "no slash in an exact path", route(`{"path":{"exact":"a"}}`, ``), []string{`spec.httpRoute.match.path.exact: "a" must begin with /`}},
		{"path-match", "a regular expression that is none", route(`{"path":{"regex":"a(b"}}`, ``), []string{"spec.httpRoute.match.path.regex: \"a(b\" is not an RE2 expression: missing closing ): `a(b`"}},
		{"header-match", "a range, a name alone", route(`{"headers":[{"name":"x","match":{"range":{"start":-1,"end":2}}},{"name":":authority"}]}`, ``), nil},
		{"header-match", "an empty range", route(`{"headers":[{"name":"x","match":{"range":{"start":2,"end":2}}}]}`, ``),
			[]string{`spec.httpRoute.match.headers[0].match.range: end 2 must be more than start 2`}},
		{"header-match", "a name with a space", route(`{"headers":[{"name":"x y"}]}`, ``), []string{`spec.httpRoute.match.headers[0].name: "x y" cannot be the name of a header`}},
		{"header-match", "an empty range of metadata", grpc(`{"metadata":[{"name":"x","match":{"range":{"start":3,"end":2}}}]}`),
			[]string{`spec.grpcRoute.match.metadata[0].match.range: end 2 must be more than start 3`}},
		{"query-match", "a name alone", route(`{"queryParameters":[{"name":"q"}]}`, ``), nil},
		{"query-match", "no value", route(`{"queryParameters":[{"name":"q","match":{"exact":""}}]}`, ``), []string{
			`spec.httpRoute.match.queryParameters[0].match.exact: "" cannot be matched: to match any value, leave match out`}},
		{"grpc-names", "a package", grpc(`{"serviceName":"a.b.Color","methodName":"Get"}`), nil},
		{"grpc-names", "a path", grpc(`{"serviceName":"a/b"}`), []string{`spec.grpcRoute.match.serviceName: "a/b" cannot be the name of a gRPC service`}},
		{"grpc-method", "with its service", grpc(`{"serviceName":"Color","methodName":"Get"}`), nil},
		{"grpc-method", "without", grpc(`{"methodName":"Get"}`), []string{`spec.grpcRoute.match.methodName: "Get" needs serviceName beside it`}},

		{"retry-event", "one of TCP", retry(`,"tcpRetryEvents":["connection-error"]`), nil},
		{"retry-event", "none", retry(``), []string{`spec.httpRoute.retryPolicy: names no event: set httpRetryEvents, tcpRetryEvents or (gRPC) grpcRetryEvents`}},
		{"retry-event-name", "all of HTTP", retry(`,"httpRetryEvents":["server-error","gateway-error","client-error","stream-error"]`), nil},
		{"retry-event-name", "one that does not exist", retry(`,"httpRetryEvents":["oops"]`), []string{
			`spec.httpRoute.retryPolicy.httpRetryEvents[0]: "oops" is not one of server-error, gateway-error, client-error, stream-error`}},
		{"retry-count", "many", strings.Replace(retry(`,"httpRetryEvents":["server-error"]`), `"maxRetries":0`, `"maxRetries":2147483647`, 1), nil},
		{"retry-count", "too many", strings.Replace(retry(`,"httpRetryEvents":["server-error"]`), `"maxRetries":0`, `"maxRetries":2147483648`, 1), []string{
			`spec.httpRoute.retryPolicy.maxRetries: 2147483648 is more than 2147483647`}},
		{"duration", "whole ones", route(`{"prefix":"/"}`, `,"timeout":{"perRequest":{"unit":"s","value":20},"idle":{"unit":"ms","value":0}}`), nil},
		{"duration", "half ones", route(`{"prefix":"/"}`, `,"timeout":{"perRequest":{"unit":"s"}},"retryPolicy":{"maxRetries":1,"perRetryTimeout":{"value":1},"httpRetryEvents":["server-error"]}`), []string{
			`spec.httpRoute.timeout.perRequest.value: must be set: a duration needs its unit and its value`,
			`spec.httpRoute.retryPolicy.perRetryTimeout.unit: must be set: a duration needs its unit and its value`}},
	}
}

func gatewayRouteCases() []ruleCase {
	const target = `"target":{"virtualService":{"virtualServiceName":"s"}}`
	route := func(match, rewrite string) string {
		if rewrite != "" {
			rewrite = `"rewrite":` + rewrite + `,`
		}
		return `{"httpRoute":{"match":` + match + `,"action":{` + rewrite + target + `}}}`
	}
	grpc := func(match string) string { return `{"grpcRoute":{"match":` + match + `,"action":{` + target + `}}}` }
	return []ruleCase{
		{"route-kind", "one", route(`{"prefix":"/"}`, ``), nil},
		{"route-kind", "none", `{"priority":0}`, []string{`spec: exactly one of httpRoute, http2Route, grpcRoute must be set, but none is`}},
		{"reference-by-name", "a name", route(`{"prefix":"/"}`, ``), nil},
		{"reference-by-name", "an ARN", strings.Replace(route(`{"prefix":"/"}`, ``), `"s"`, `"arn:aws:appmesh:us-west-2:111122223333:mesh/m/virtualService/s"`, 1), []string{
			`spec.httpRoute.action.target.virtualService.virtualServiceName: "arn:aws:appmesh:us-west-2:111122223333:mesh/m/virtualService/s" is an ARN: give the resource's name`}},
		{"match-criterion", "a host name", route(`{"hostname":{"exact":"www.example.com"}}`, ``), nil},
		{"match-criterion", "gRPC metadata", grpc(`{"metadata":[{"name":"x"}]}`), nil},
		{"match-criterion", "a header alone", route(`{"headers":[{"name":"x"}]}`, ``), []string{`spec.httpRoute.match: at least one of prefix, path and hostname must be set`}},
		{"match-criterion", "gRPC of a port alone", grpc(`{"port":1}`), []string{`spec.grpcRoute.match: at least one of serviceName, hostname and metadata must be set`}},
		{"reserved", "beside it", route(`{"prefix":"/aws"}`, ``), nil},
		{"reserved", "a prefix", route(`{"prefix":"/aws-appmesh-x"}`, ``), []string{`spec.httpRoute.match.prefix: "/aws-appmesh-x" is reserved: paths that begin with /aws-appmesh or /aws-app-mesh are`}},
		{"reserved", "an exact path", route(`{"path":{"exact":"/aws-app-mesh/x"}}`, ``), []string{`spec.httpRoute.match.path.exact: "/aws-app-mesh/x" is reserved: paths that begin with /aws-appmesh or /aws-app-mesh are`}},
		{"reserved", "a gRPC service", grpc(`{"serviceName":"aws.app-mesh.x"}`), []string{
			`spec.grpcRoute.match.serviceName: "aws.app-mesh.x" is reserved: names that begin with aws.appmesh or aws.app-mesh are`}},
		{"path-match", "an exact path", route(`{"path":{"exact":"/a"}}`, ``), nil},
		{"path-match", "prefix and path", route(`{"prefix":"/a","path":{"exact":"/b"}}`, ``), []string{`spec.httpRoute.match: prefix and path exclude each other`}},
		{"path-match", "no slash", route(`{"prefix":"a"}`, ``), []string{`spec.httpRoute.match.prefix: "a" must begin with /`}},
		{"hostname-match", "a suffix", route(`{"hostname":{"suffix":".example.com"}}`, ``), nil},
		{"hostname-match", "of both kinds", route(`{"hostname":{"exact":"a.b","suffix":".b"}}`, ``), []string{`spec.httpRoute.match.hostname: exactly one of exact, suffix must be set, but exact and suffix are`}},
		{"hostname-match", "of no kind", grpc(`{"hostname":{}}`), []string{`spec.grpcRoute.match.hostname: exactly one of exact, suffix must be set, but none is`}},
		{"hostname-match", "with a port", route(`{"hostname":{"exact":"a.b:80"}}`, ``), []string{`spec.httpRoute.match.hostname.exact: "a.b:80" is not a host name`}},
		{"header-match", "a range", route(`{"prefix":"/","headers":[{"name":"x","match":{"range":{"start":1,"end":2}}}]}`, ``), nil},
		{"header-match", "an empty range", route(`{"prefix":"/","headers":[{"name":"x","match":{"range":{"start":2,"end":1}}}]}`, ``), []string{
			`spec.httpRoute.match.headers[0].match.range: end 1 must be more than start 2`}},
		{"header-match", "an empty range of metadata", grpc(`{"metadata":[{"name":"x","match":{"range":{"start":2,"end":1}}}]}`), []string{
			`spec.grpcRoute.match.metadata[0].match.range: end 1 must be more than start 2`}},
		{"query-match", "a value", route(`{"prefix":"/","queryParameters":[{"name":"q","match":{"exact":"1"}}]}`, ``), nil},
		{"query-match", "no value", route(`{"prefix":"/","queryParameters":[{"name":"q","match":{"exact":""}}]}`, ``), []string{
			`spec.httpRoute.match.queryParameters[0].match.exact: "" cannot be matched: to match any value, leave match out`}},
		{"grpc-names", "a package", grpc(`{"serviceName":"a.b.Color"}`), nil},
		{"grpc-names", "a path", grpc(`{"serviceName":"/a"}`), []string{`spec.grpcRoute.match.serviceName: "/a" cannot be the name of a gRPC service`}},
		{"prefix-rewrite", "a value", route(`{"prefix":"/a/"}`, `{"prefix":{"value":"/b/"}}`), nil},
		{"prefix-rewrite", "the default, off", route(`{"prefix":"/a"}`, `{"prefix":{"defaultPrefix":"DISABLED"}}`), nil},
		{"prefix-rewrite", "both kinds", route(`{"prefix":"/a/"}`, `{"prefix":{"defaultPrefix":"DISABLED","value":"/b/"}}`), []string{
			`spec.httpRoute.action.rewrite.prefix: exactly one of defaultPrefix, value must be set, but defaultPrefix and value are`}},
		{"prefix-rewrite", "of a path", route(`{"path":{"exact":"/a"}}`, `{"prefix":{"value":"/b/"}}`), []string{`spec.httpRoute.action.rewrite.prefix: is possible only where match.prefix is set`}},
		{"prefix-rewrite", "without slashes", route(`{"prefix":"/a"}`, `{"prefix":{"value":"b"}}`), []string{
			`spec.httpRoute.action.rewrite.prefix.value: "b" must begin and end with /`,
			`spec.httpRoute.action.rewrite.prefix.value: "b" needs a match.prefix that ends with /, not "/a"`}},
		{"path-rewrite", "a path", route(`{"path":{"exact":"/a"}}`, `{"path":{"exact":"/b"}}`), nil},
		{"path-rewrite", "with a prefix", route(`{"prefix":"/a/"}`, `{"prefix":{"defaultPrefix":"DISABLED"},"path":{"exact":"/b"}}`), []string{`spec.httpRoute.action.rewrite: prefix and path exclude each other`}},
		{"path-rewrite", "no slash", route(`{"path":{"exact":"/a"}}`, `{"path":{"exact":"b"}}`), []string{`spec.httpRoute.action.rewrite.path.exact: "b" must begin with /`}},
	}
}

func TestVirtualNodeRules(t *testing.T)    { checkRules(t, virtualNodeRules, nodeCases()) }
func TestVirtualGatewayRules(t *testing.T) { checkRules(t, virtualGatewayRules, gatewayCases()) }
func TestVirtualRouterRules(t *testing.T)  { checkRules(t, virtualRouterRules, routerCases()) }
func TestVirtualServiceRules(t *testing.T) { checkRules(t, virtualServiceRules, serviceCases()) }
func TestRouteRules(t *testing.T)          { checkRules(t, routeRules, routeCases()) }
func TestGatewayRouteRules(t *testing.T)   { checkRules(t, gatewayRouteRules, gatewayRouteCases()) }

// checkRules decodes each spec as a request would be, which it must survive,
// and compares the faults, all of them. Every rule has a case that it accepts
// and one that it refuses, or the test fails.
func checkRules[S any](t *testing.T, rules []rule[S], cases []ruleCase) {
	t.Helper()
	accepted, refused := map[string]bool{}, map[string]bool{}
	for _, c := range cases {
		t.Run(c.rule+"/"+c.name, func(t *testing.T) {
			spec := new(S)
			if err := awsapi.DecodeValid([]byte(c.spec), spec); err != nil {
				t.Fatalf("the spec breaks the service model: %v", err)
			}
			var got []string
			found := map[string]bool{}
			for _, f := range check(rules, spec) {
				found[f.rule] = true
				got = append(got, strings.TrimPrefix(f.path+": "+f.message, ": "))
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
			if len(c.want) > 0 && !found[c.rule] {
				t.Errorf("it is not the rule %s that refuses it", c.rule)
			}
			accepted[c.rule] = accepted[c.rule] || len(found) == 0
			refused[c.rule] = refused[c.rule] || found[c.rule]
		})
	}
	known := map[string]bool{}
	for _, r := range rules {
		if known[r.id] {
			t.Errorf("two rules are called %s", r.id)
		}
		known[r.id] = true
		if !accepted[r.id] || !refused[r.id] {
			t.Errorf("rule %s has an accepted case: %t, a refused one: %t; it needs both", r.id, accepted[r.id], refused[r.id])
		}
		if r.source == "" || r.says == "" {
			t.Errorf("rule %s does not say what it is, or why", r.id)
		}
	}
	for _, c := range cases {
		if !known[c.rule] {
			t.Errorf("case %q is about the rule %q, which there is not", c.name, c.rule)
		}
	}
}

// However much is wrong, and however long it is, the message is short.
func TestFaultsAreBounded(t *testing.T) {
	spec := &appmesh.VirtualNodeSpec{}
	for range 1000 {
		spec.Backends = append(spec.Backends, appmesh.Backend{VirtualService: &appmesh.VirtualServiceBackend{VirtualServiceName: strings.Repeat("ä", 1000)}})
	}
	err := check(virtualNodeRules, spec).err()
	if err == nil || len(err.Error()) > 25_000 || !strings.Contains(err.Error(), "; and 1979 more") || !utf8.ValidString(err.Error()) {
		t.Errorf("%d bytes: %.2000s", len(err.Error()), err)
	}
}

func TestResourceNames(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "blue_green-1.local": true, "..a": true,
		"": false, ".": false, "..": false, "a/b": false, "a@b": false, "a b": false, "ä": false, "a%2Fb": false,
		"arn:aws:appmesh:us-east-1:000000000000:mesh/m": false, strings.Repeat("a", 256): false,
	} {
		var f faults
		resourceName(&f, "meshName", name)
		if got := len(f) == 0; got != want {
			t.Errorf("%q: accepted is %t, want %t", name, got, want)
		}
	}
}
