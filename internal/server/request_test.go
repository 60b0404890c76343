package server

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// requestCase is a request to a mesh as moreMesh makes it, the rule that it is
// about, and the answer: none is success. The API reference quotes the first
// refusal of each rule.
type requestCase struct {
	rule    string
	name    string
	path    string // "GET …", else PUT
	body    string
	code    string
	message string
}

// namedRule is a rule as the API reference lists it.
type namedRule struct {
	id, source, says string
}

// wireRules are the rules that are in no table: the service model states them,
// or they are about how a request names what it wants.
var wireRules = []namedRule{
	{"union", "B.12 1", "exactly one member of a union is set"},
	{"weight", "B.12 7", "a route has 1 to 10 weighted targets, of weights from 0 to 100"},
	{"priority", "B.12 8", "a priority is 0 to 1000"},
	{"listener-trust", "B.12 18", "a listener's validation takes its trust from a file or SDS, not from ACM"},
	{"authority-count", "B.12 20", "a client policy trusts 1 to 3 certificate authorities"},
	{"mesh-name", "B.12 22", "a mesh is given by its name, which has no / and no @"},
	{"path-name", "A.5", "a path names resources by their names, not their ARNs"},
	{"mesh-owner", "B.12 25", "an owner has 12 digits, and is the caller"},
	{"quota", "B.12 24", "there are not more resources than a quota allows"},
	{"tag-count", "A.7", "a resource has at most 50 tags"},
	{"tag-size", "A.7", "the key of a tag has 1 to 128 characters, its value up to 256"},
}

const inM = "/v20190125/meshes/m"

func tagsOf(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf(`{"key":"k%d","value":""}`, i))
	}
	return `[` + strings.Join(all, ",") + `]`
}

func requestRuleCases() []requestCase {
	const notFound, bad = "NotFoundException", "BadRequestException"
	node := func(name, more string) string { return `{"virtualNodeName":"` + name + `","spec":{}` + more + `}` }
	tagged := func(name, tags string) string { return node(name, `,"tags":`+tags) }
	route := func(name, spec string) string { return `{"routeName":"` + name + `","spec":` + spec + `}` }
	gateway := func(name, spec string) string { return `{"gatewayRouteName":"` + name + `","spec":` + spec + `}` }
	provider := func(name, kind, of string) string {
		return `{"virtualServiceName":"` + name + `","spec":{"provider":{"` + kind + `":{"` + kind + `Name":"` + of + `"}}}}`
	}
	weighted := func(targets ...string) string {
		return `{"tcpRoute":{"action":{"weightedTargets":[` + strings.Join(targets, ",") + `]}}}`
	}
	trust := func(in, trust string) string {
		return `{"virtualNodeName":"` + in + `","spec":{"listeners":[{"portMapping":{"port":8080,"protocol":"http"},"tls":{"mode":"STRICT","certificate":{"file":{"certificateChain":"/c","privateKey":"/k"}},
			"validation":{"trust":` + trust + `}}}],"serviceDiscovery":{"dns":{"hostname":"b"}}}}`
	}
	authorities := func(n int) string {
		return `{"spec":{"backendDefaults":{"clientPolicy":{"tls":{"validation":{"trust":{"acm":{"certificateAuthorityArns":[` +
			strings.TrimSuffix(strings.Repeat(`"arn:aws:acm-pca:eu-west-1:123456789012:certificate-authority/1",`, n), ",") + `]}}}}}}}}`
	}
	const nodes, services, routes, routes2, gatewayRoutes = inM + "/virtualNodes", inM + "/virtualServices", inM + "/virtualRouter/r/routes", inM + "/virtualRouter/two/routes", inM + "/virtualGateway/g/gatewayRoutes"
	matching := func(port int, of string) string {
		return strings.Replace(of, `"prefix":"/"`, fmt.Sprintf(`"prefix":"/","port":%d`, port), 1)
	}
	return append(certificateCases(), []requestCase{
		{"name", "of all that is allowed", nodes, node("a-B_1.local", ``), "", ""},
		{"name", "with a slash", nodes, node("a/b", ``), bad, `virtualNodeName: \"a/b\" may have letters, digits, hyphens, underscores and dots only`},
		{"name", "an ARN", nodes, node("arn:aws:appmesh:eu-west-1:123456789012:mesh/m/virtualNode/a", ``), bad, `is an ARN: give the resource's name`},
		{"name", "and what else is wrong with a request", nodes, `{"virtualNodeName":"a b","clientToken":"ä","tags":[{"key":"aws:x","value":""}],"spec":{"serviceDiscovery":{"dns":{"hostname":"a"}}}}`, bad,
			`virtualNodeName: \"a b\" may have letters, digits, hyphens, underscores and dots only; clientToken: \"ä\" may have up to 36 letters, digits, hyphens and underscores; tags[0].key: \"aws:x\" is reserved: keys that begin with aws: are; Service Discovery can't be set without a listener.`},
		{"client-token", "a UUID", nodes, node("token", `,"clientToken":"0b1f0e1c-7c9a-4c41-8a7b-2d1a9a6b8c3d"`), "", ""},
		{"client-token", "of 37 characters", nodes, node("a", `,"clientToken":"`+strings.Repeat("a", 37)+`"`), bad, `clientToken: \"` + strings.Repeat("a", 37) + `\" may have up to 36 letters, digits, hyphens and underscores`},
		{"tag-once", "two tags", nodes, tagged("tags", `[{"key":"a","value":""},{"key":"A","value":""}]`), "", ""},
		{"tag-once", "one twice", nodes, tagged("a", `[{"key":"a","value":""},{"key":"a","value":"1"}]`), bad, `tags[1].key: \"a\" is given twice`},
		{"tag-reserved", "not quite", nodes, tagged("aws", `[{"key":"awsx","value":"aws:"}]`), "", ""},
		{"tag-reserved", "aws:", nodes, tagged("a", `[{"key":"AWS:x","value":""}]`), bad, `tags[0].key: \"AWS:x\" is reserved: keys that begin with aws: are`},
		{"tag-of-fairlead", "somebody else's", nodes, tagged("fairlead", `[{"key":"fairlead","value":""}]`), "", ""},
		{"tag-of-fairlead", "a misspelt one", nodes, tagged("a", `[{"key":"fairlead:tls-san-mach","value":"literal"}]`), bad, `tags[0].key: \"fairlead:tls-san-mach\" is not known to this version, which would ignore it`},
		{"tag-count", "50", nodes, tagged("fifty", tagsOf(50)), "", ""},
		{"tag-count", "51", nodes, tagged("a", tagsOf(51)), bad, `tags must have at most 50 items, not 51`},
		{"tag-size", "as large as can be", nodes, tagged("large", `[{"key":"`+strings.Repeat("😀", 128)+`","value":"`+strings.Repeat("😀", 256)+`"},{"key":"k","value":""}]`), "", ""},
		{"tag-size", "a key of 129", nodes, tagged("a", `[{"key":"`+strings.Repeat("😀", 129)+`","value":""}]`), bad, `tags[0].key must be at most 128 characters long, not 129`},
		{"tag-size", "a value of 257", nodes, tagged("a", `[{"key":"k","value":"`+strings.Repeat("v", 257)+`"}]`), bad, `tags[0].value must be at most 256 characters long, not 257`},
		{"tag-size", "no key", nodes, tagged("a", `[{"key":"","value":""}]`), bad, `tags[0].key`},

		{"mesh-name", "its name", "GET " + inM, "", "", ""},
		{"mesh-name", "an ARN", "GET /v20190125/meshes/arn:aws:appmesh:eu-west-1:123456789012:mesh%2Fm", "", bad, `meshName: \"arn:aws:appmesh:eu-west-1:123456789012:mesh/m\" is not the name of a mesh: give its name, not its ARN`},
		{"mesh-name", "a new mesh as shared ones are called", "/v20190125/meshes", `{"meshName":"m@111111111111"}`, bad, `meshName: \"m@111111111111\" is not the name of a mesh`},
		{"path-name", "its name", "GET " + nodes + "/blue", "", "", ""},
		{"path-name", "an ARN", "GET " + nodes + "/arn:aws:appmesh:eu-west-1:123456789012:mesh%2Fm%2FvirtualNode%2Fblue", "", bad, `the virtualNode in the path: \"arn:aws:appmesh:eu-west-1:123456789012:mesh/m/virtualNode/blue\" is an ARN: give the resource's name`},
		{"path-name", "the ARN of a router", "GET " + inM + "/virtualRouter/arn:aws:appmesh:eu-west-1:123456789012:mesh%2Fm%2FvirtualRouter%2Fr/routes", "", bad, `is an ARN: give the resource's name`},
		{"mesh-owner", "oneself", "GET " + nodes + "?meshOwner=123456789012", "", "", ""},
		{"mesh-owner", "somebody else", nodes + "?meshOwner=111111111111", node("a", ``), "ForbiddenException", "meshOwner 111111111111: account 111111111111 has shared no mesh with account 123456789012"},
		{"mesh-owner", "no account", "GET " + nodes + "?meshOwner=alice-and-bob", "", bad, "meshOwner"},
		{"mesh-owner", "twelve letters", "GET " + nodes + "?meshOwner=abcdefghijkl", "", bad, `meshOwner: \"abcdefghijkl\" does not have 12 digits`},
		{"quota", "the last gateway", inM + "/virtualGateways", `{"virtualGatewayName":"last","spec":{"listeners":[` + gatewayListener(80, ``) + `]}}`, "", ""},
		{"quota", "one more", inM + "/virtualGateways", `{"virtualGatewayName":"more","spec":{"listeners":[` + gatewayListener(80, ``) + `]}}`, "LimitExceededException", "mesh m of account 123456789012: the quota virtual-gateways-per-mesh allows 3. Raise it with --quota virtual-gateways-per-mesh=… on every server, or delete what is not needed"},

		{"union", "one member", nodes, `{"virtualNodeName":"union","spec":` + httpNode("a.local") + `}`, "", ""},
		{"union", "two", nodes, `{"virtualNodeName":"a","spec":{"listeners":[{"portMapping":{"port":1,"protocol":"tcp"}}],"serviceDiscovery":{"dns":{"hostname":"a"},"awsCloudMap":{"namespaceName":"a","serviceName":"b"}}}}`, bad, `spec.serviceDiscovery must have exactly one of awsCloudMap, dns, not awsCloudMap and dns`},
		{"weight", "one of nothing", routes2, route("weight", `{"tcpRoute":{"match":{"port":2},"action":{"weightedTargets":[{"virtualNode":"two","port":2,"weight":100},{"virtualNode":"tcp","weight":0}]}}}`), "", ""},
		{"weight", "101", routes, route("a", weighted(`{"virtualNode":"blue","weight":101}`)), bad, `spec.tcpRoute.action.weightedTargets[0].weight must be at most 100, not 101`},
		{"weight", "less than nothing", routes, route("a", weighted(`{"virtualNode":"blue","weight":-1}`)), bad, `weight must be at least 0, not -1`},
		{"weight", "eleven targets", routes, route("a", weighted(slices.Repeat([]string{`{"virtualNode":"blue","weight":1}`}, 11)...)), bad, `spec.tcpRoute.action.weightedTargets must have at most 10 items, not 11`},
		{"priority", "the lowest", routes, route("priority", strings.Replace(httpRoute("blue"), `{`, `{"priority":1000,`, 1)), "", ""},
		{"priority", "lower", routes, route("a", strings.Replace(httpRoute("blue"), `{`, `{"priority":1001,`, 1)), bad, `spec.priority must be at most 1000, not 1001`},
		{"listener-trust", "a file", nodes, trust("trust", `{"file":{"certificateChain":"/r"}}`), "", ""},
		{"listener-trust", "ACM", nodes, trust("a", `{"acm":{"certificateAuthorityArns":["arn:aws:acm-pca:eu-west-1:123456789012:certificate-authority/1"]}}`), bad, `spec.listeners[0].tls.validation.trust.acm is not a known field`},
		{"authority-count", "four", nodes + "/client", authorities(4), bad, `spec.backendDefaults.clientPolicy.tls.validation.trust.acm.certificateAuthorityArns must have at most 3 items, not 4`},
		{"authority-count", "none", nodes + "/client", authorities(0), bad, `certificateAuthorityArns must have at least 1 items, not 0`},
		{"authority-count", "none, of a file", nodes + "/client", `{"spec":{"backendDefaults":{"clientPolicy":{"tls":{"validation":{"trust":{"file":{"certificateChain":"/r"}}}}}}}}`, "", ""},

		{"parent", "there", "GET " + routes, "", "", ""},
		{"parent", "node in no mesh", "/v20190125/meshes/no/virtualNodes", node("a", ``), notFound, "Mesh with name no is not present for account 123456789012"},
		{"parent", "list of no mesh", "GET /v20190125/meshes/no/virtualNodes", "", notFound, "Mesh with name no is not present for account 123456789012"},
		{"parent", "list of no router", "GET " + inM + "/virtualRouter/no/routes", "", notFound, "VirtualRouter with name no is not present under mesh m for account 123456789012"},
		{"parent", "route in no router", inM + "/virtualRouter/no/routes", route("a", httpRoute("blue")), notFound, "VirtualRouter with name no is not present under mesh m for account 123456789012"},
		{"parent", "gateway route in no gateway", inM + "/virtualGateway/no/gatewayRoutes", gateway("a", gatewayRoute("color.local", "")), notFound, "VirtualGateway with name no is not present under mesh m for account 123456789012"},
		{"there", "described", "GET " + routes + "/x", "", "", ""},
		{"there", "update of no node", nodes + "/no", `{"spec":{}}`, notFound, "VirtualNode with name no is not present under mesh m for account 123456789012"},
		{"there", "no route", "GET " + routes + "/no", "", notFound, "Route with name no is not present under r of mesh m for account 123456789012"},
		{"taken", "another mesh's name", "/v20190125/meshes", `{"meshName":"blue"}`, "", ""},
		{"taken", "the same kind's", nodes, node("blue", ``), "ConflictException", "VirtualNode with name blue already exists under mesh m for account 123456789012"},
		{"taken", "a mesh's", "/v20190125/meshes", `{"meshName":"m"}`, "ConflictException", "Mesh with name m already exists for account 123456789012"},

		{"backend-exists", "a backend that nobody has made", nodes, `{"virtualNodeName":"b","spec":{"backends":[{"virtualService":{"virtualServiceName":"later.local"}}]}}`, "", ""},
		{"provider-exists", "none", services, `{"virtualServiceName":"none","spec":{}}`, "", ""},
		{"provider-exists", "a node that is there", services, provider("p", "virtualNode", "blue"), "", ""},
		{"provider-exists", "no node", services, provider("a", "virtualNode", "no"), notFound, "VirtualNode with name no is not present under mesh m for account 123456789012"},
		{"provider-exists", "no router", services, provider("a", "virtualRouter", "no"), notFound, "VirtualRouter with name no is not present under mesh m for account 123456789012"},

		{"route-targets", "there", routes, route("green", httpRoute("green")), "", ""},
		{"route-targets", "no node", routes, route("a", httpRoute("no")), notFound, "VirtualNode with name no is not present under mesh m for account 123456789012"},
		{"route-targets", "a node without listener", routes, route("a", httpRoute("bare")), bad, "spec.httpRoute.action.weightedTargets[0].virtualNode: virtual node bare has no listener"},
		{"route-targets", "a node with two", routes, route("a", httpRoute("two")), bad, "spec.httpRoute.action.weightedTargets[0].port: must be set: virtual node two has 2 listeners"},
		{"route-targets", "a port that is none", routes, route("a", strings.Replace(httpRoute("two"), `"weight"`, `"port":3,"weight"`, 1)), bad, "spec.httpRoute.action.weightedTargets[0].port: 3 is no listener of virtual node two"},
		{"route-targets", "of another kind", inM + "/virtualRouter/free/routes", route("a", strings.Replace(httpRoute("blue"), "httpRoute", "http2Route", 1)), bad, "spec.http2Route.action.weightedTargets[0].virtualNode: the route is of kind http2, but the listener of virtual node blue on port 8080 is http"},
		{"route-listener", "of the router's kind", routes, route("kind", httpRoute("blue")), "", ""},
		{"route-listener", "of another kind", routes, route("a", strings.Replace(httpRoute("blue"), "httpRoute", "http2Route", 1)), bad, "spec.http2Route: the route is of kind http2, but the router's listener on port 8080 is http"},
		{"route-listener", "and its target's", routes, route("a", strings.Replace(httpRoute("blue"), "httpRoute", "http2Route", 1)), bad, "is http; spec.http2Route.action.weightedTargets[0].virtualNode: the route is of kind http2, but the listener of virtual node blue on port 8080 is http"},
		{"route-listener", "a port that is none", routes2, route("a", matching(3, httpRoute("blue"))), bad, "spec.httpRoute: the route matches port 3, which is no listener of the router"},
		{"route-port", "given", routes2, route("port", matching(1, httpRoute("blue"))), "", ""},
		{"route-port", "left out", routes2, route("a", httpRoute("blue")), bad, "Route must define a port match criteria if the Virtual Router has multiple listeners"},
		{"router-ports", "a second listener when all routes match a port", inM + "/virtualRouters/two", twoRouters(`{"portMapping":{"port":4,"protocol":"grpc"}}`), "", ""},
		{"router-ports", "a second listener for routes without port", inM + "/virtualRouters/r", twoRouters(), bad, "All Routes for this Virtual Router must define a port match before adding multiple listeners to this Virtual Router. 4 Route(s) are missing port. Listing up to 5 route names: [green, kind, priority, x]"},
		{"router-routes", "another port", inM + "/virtualRouters/r", `{"spec":{"listeners":[{"portMapping":{"port":9090,"protocol":"http"}}]}}`, "", ""},
		{"router-routes", "another protocol", inM + "/virtualRouters/r", `{"spec":{"listeners":[{"portMapping":{"port":8080,"protocol":"grpc"}}]}}`, bad, "spec.listeners: route x is of kind http, but the router's listener on port 8080 is grpc"},
		{"router-routes", "without the port of a route", inM + "/virtualRouters/two", `{"spec":{"listeners":[{"portMapping":{"port":2,"protocol":"tcp"}}]}}`, bad, "spec.listeners: route port matches port 1, which is no listener of the router"},
		{"router-routes", "without any", inM + "/virtualRouters/two", `{"spec":{}}`, bad, "spec.listeners: route port matches port 1, which is no listener of the router"},

		{"gateway-target", "there", gatewayRoutes, gateway("target", gatewayRoute("green.local", "")), "", ""},
		{"gateway-target", "no service", gatewayRoutes, gateway("a", gatewayRoute("no", "")), notFound, "VirtualService with name no is not present under mesh m for account 123456789012"},
		{"gateway-target", "one port of two", gatewayRoutes, gateway("a", gatewayRoute("two.local", "")), bad, "spec.httpRoute.action.target.port: must be set: the provider of virtual service two.local has 2 listeners"},
		{"gateway-target", "a port that is none", gatewayRoutes, gateway("a", gatewayRoute("two.local", `"port":3,`)), bad, "spec.httpRoute.action.target.port: 3 is no listener of the provider of virtual service two.local"},
		{"gateway-port", "given", inM + "/virtualGateway/two/gatewayRoutes", gateway("given", matching(2, gatewayRoute("color.local", ""))), "", ""},
		{"gateway-port", "left out", inM + "/virtualGateway/two/gatewayRoutes", gateway("a", gatewayRoute("color.local", "")), bad, "spec.httpRoute.match.port: must be set: virtual gateway two has 2 listeners"},
		{"gateway-port", "a port that is none", gatewayRoutes, gateway("a", matching(3, gatewayRoute("color.local", ""))), bad, "spec.httpRoute.match.port: 3 is no listener of virtual gateway g"},
	}...)
}

func twoRouters(more ...string) string {
	return `{"spec":{"listeners":[` + strings.Join(append([]string{`{"portMapping":{"port":1,"protocol":"http"}}`, `{"portMapping":{"port":2,"protocol":"tcp"}}`}, more...), ",") + `]}}`
}

// existenceRules are about what must be there, or must not.
var existenceRules = []namedRule{
	{"parent", "A.5", "the mesh, and the virtual router or gateway, of a resource exist"},
	{"there", "A.5", "what is described, updated, deleted or tagged exists: an update makes nothing"},
	{"taken", "A.5", "names are unique for each mesh and kind, of routes within their virtual router or gateway; the same request with the same client token is answered as before"},
}

// referenceRules are the references of all kinds.
func referenceRules() []namedRule {
	all := slices.Concat(existenceRules, named(virtualServices.references), named(virtualRouters.references), named(routes.references), named(gatewayRoutes.references))
	for _, r := range []int{len(meshes.references), len(virtualNodes.references), len(virtualGateways.references)} {
		if r > 0 {
			panic("a kind has references that are not listed here")
		}
	}
	for _, r := range slices.Concat(certificateRules, authorityRules, []certificateRule{arnCount}) {
		all = append(all, namedRule{r.id, r.source, r.says})
	}
	return append(all, namedRule{"backend-exists", "A.5", "a backend need not exist: until it does, nothing leads there"})
}

func named[S any](references []reference[S]) []namedRule {
	var all []namedRule
	for _, r := range references {
		all = append(all, namedRule{r.id, r.source, r.says})
	}
	return all
}

func namedRules[S any](rules []rule[S]) []namedRule {
	var all []namedRule
	for _, r := range rules {
		all = append(all, namedRule{r.id, r.source, r.says})
	}
	return all
}

// Every rule on requests has one that it accepts and one that it refuses, with
// a message that says what, where and why.
func TestRequestRules(t *testing.T) {
	h := newHarness(t)
	h.service.Quotas = Quotas{"virtual-gateways-per-mesh": 3}
	h.makeSmallMesh(t)
	makeTrust(t, h.store)
	for _, r := range []struct{ path, body string }{
		{"/virtualNodes", `{"virtualNodeName":"client","spec":{}}`},
		{"/virtualNodes", `{"virtualNodeName":"bare","spec":{}}`},
		{"/virtualNodes", `{"virtualNodeName":"tcp","spec":` + strings.Replace(httpNode("tcp.local"), `"http"`, `"tcp"`, 1) + `}`},
		{"/virtualNodes", `{"virtualNodeName":"two","spec":{"listeners":[{"portMapping":{"port":1,"protocol":"http"}},{"portMapping":{"port":2,"protocol":"tcp"}}],"serviceDiscovery":{"dns":{"hostname":"two.local"}}}}`},
		{"/virtualServices", `{"virtualServiceName":"two.local","spec":{"provider":{"virtualNode":{"virtualNodeName":"two"}}}}`},
		{"/virtualRouters", strings.Replace(twoRouters(), `{`, `{"virtualRouterName":"two",`, 1)},
		{"/virtualRouters", `{"virtualRouterName":"free","spec":{}}`},
		{"/virtualGateways", `{"virtualGatewayName":"two","spec":{"listeners":[` + gatewayListener(1, ``) + `,` + gatewayListener(2, ``) + `]}}`},
	} {
		h.must(t, "PUT", inM+r.path, r.body)
	}
	accepted, refused := map[string]bool{"backend-exists": false}, map[string]bool{"backend-exists": true}
	for _, c := range requestRuleCases() {
		t.Run(c.rule+"/"+c.name, func(t *testing.T) {
			method, path := "PUT", c.path
			if rest, get := strings.CutPrefix(path, "GET "); get {
				method, path = "GET", rest
			}
			a := h.send(t, method, path, c.body, nil)
			if a.code != c.code || !strings.Contains(a.body, c.message) {
				t.Errorf("got %d %s %s\nwant %s %s", a.status, a.code, a.body, c.code, c.message)
			}
			if c.code == "" {
				accepted[c.rule] = true
			} else {
				refused[c.rule] = true
			}
		})
	}
	known := map[string]bool{}
	for _, r := range slices.Concat(namedRules(requestRules), wireRules, referenceRules()) {
		known[r.id] = true
		if !accepted[r.id] || !refused[r.id] {
			t.Errorf("rule %s has an accepted case: %t, a refused one: %t; it needs both", r.id, accepted[r.id], refused[r.id])
		}
	}
	for id := range accepted {
		if !known[id] {
			t.Errorf("a case is about the rule %q, which there is not", id)
		}
	}
}

// The numbers of B.12 are all somebody's. 23 comes with sharing.
func TestEveryRuleOfTheFacts(t *testing.T) {
	all := slices.Concat(namedRules(requestRules), wireRules, referenceRules(), namedRules(virtualNodeRules), namedRules(virtualGatewayRules),
		namedRules(virtualRouterRules), namedRules(virtualServiceRules), namedRules(routeRules), namedRules(gatewayRouteRules))
	found := map[int]bool{}
	for _, r := range all {
		for _, number := range regexp.MustCompile(`B\.12 (\d+)`).FindAllStringSubmatch(r.source, -1) {
			n, err := strconv.Atoi(number[1])
			if err != nil {
				t.Fatal(err)
			}
			found[n] = true
		}
	}
	for n := 1; n <= 25; n++ {
		if found[n] != (n != 23) {
			t.Errorf("rule %d of B.12: a rule is its: %t", n, found[n])
		}
	}
}
