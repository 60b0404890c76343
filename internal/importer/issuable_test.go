package importer

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// virtualNode is a virtual node with a service of its own, as aws appmesh
// describe-virtual-node has it: certificate is its listener's ARN, policy its
// backend defaults for all the services that it calls.
func virtualNode(name, certificate, policy string, calls ...string) string {
	tls, defaults, backends := "", "", []string{}
	if certificate != "" {
		tls = fmt.Sprintf(`, "tls": {"mode": "STRICT", "certificate": {"acm": {"certificateArn": %q}}}`, certificate)
	}
	if policy != "" {
		defaults = fmt.Sprintf(`, "backendDefaults": {"clientPolicy": {"tls": %s}}`, policy)
	}
	for _, called := range calls {
		backends = append(backends, fmt.Sprintf(`{"virtualService": {"virtualServiceName": "%s.local"}}`, called))
	}
	return fmt.Sprintf(`{"virtualNode": {"meshName": "m", "virtualNodeName": %q, "spec": {"listeners": [{"portMapping": {"port": 80, "protocol": "http"}%s}],
		"serviceDiscovery": {"dns": {"hostname": "%s.example.com"}}%s, "backends": [%s]}}}
		{"virtualService": {"meshName": "m", "virtualServiceName": "%s.local", "spec": {"provider": {"virtualNode": {"virtualNodeName": %q}}}}}
		`, name, tls, name, defaults, strings.Join(backends, ", "), name, name)
}

// trusting is a client policy that trusts root CAs, and wants one of some names.
func trusting(authorities string, names ...string) string {
	match := ""
	if len(names) > 0 {
		match = `, "subjectAlternativeNames": {"match": {"exact": ["` + strings.Join(names, `", "`) + `"]}}`
	}
	return `{"validation": {"trust": {"acm": {"certificateAuthorityArns": ["` + strings.ReplaceAll(authorities, " ", `", "`) + `"]}}` + match + `}}`
}

func virtualGateway(certificate, hostname string) string {
	return fmt.Sprintf(`{"virtualGateway": {"meshName": "m", "virtualGatewayName": "g", "spec": {"listeners": [{"portMapping": {"port": 443, "protocol": "http"},
		"tls": {"mode": "STRICT", "certificate": {"acm": {"certificateArn": %q}}}}]}}}
		{"gatewayRoute": {"meshName": "m", "virtualGatewayName": "g", "gatewayRouteName": "r", "spec": {"httpRoute": {
		"match": {%s}, "action": {"target": {"virtualService": {"virtualServiceName": "a.local"}}}}}}}
		`, certificate, hostname)
}

func TestIssuable(t *testing.T) {
	for _, test := range []struct {
		name  string
		files string
		want  []Issuable
	}{
		{"nobody calls it", virtualNode("a", "C", ""), []Issuable{{ARN: "C", Names: []string{"a.example.com"}}}},
		{"no policy", virtualNode("a", "C", "") + virtualNode("b", "", "", "a"), []Issuable{{ARN: "C", Names: []string{"a.example.com"}}}},
		{"one for two nodes, two for one client", virtualNode("a", "C", "") + virtualNode("b", "C", "") + virtualNode("c", "D", trusting("R"), "a", "b"),
			[]Issuable{{ARN: "C", Names: []string{"a.example.com", "b.example.com"}, Authorities: []string{"R"}}, {ARN: "D", Names: []string{"c.example.com"}}}},
		{"what all clients trust", virtualNode("a", "C", "") + virtualNode("b", "", trusting("S R"), "a") + virtualNode("c", "", trusting("T S"), "a"),
			[]Issuable{{ARN: "C", Names: []string{"a.example.com"}, Authorities: []string{"S"}}}},
		{"nothing that all clients trust", virtualNode("a", "C", "") + virtualNode("b", "", trusting("R"), "a") + virtualNode("c", "", trusting("S"), "a"),
			[]Issuable{{ARN: "C", Names: []string{"a.example.com"}, Authorities: []string{}, Trouble: "mesh/m/virtualNode/c trusts none of R, which its other clients trust"}}},
		{"a client that asks for the discovery name", virtualNode("a", "C", "") + virtualNode("b", "", trusting("R", "x.example.com", "A.example.com"), "a"),
			[]Issuable{{ARN: "C", Names: []string{"a.example.com"}, Authorities: []string{"R"}}}},
		{"a client that asks for other names", virtualNode("a", "C", "") + virtualNode("b", "", trusting("R", "spiffe://m/a", "x.example.com", "y.example.com"), "a"),
			[]Issuable{{ARN: "C", Names: []string{"a.example.com", "x.example.com"}, Authorities: []string{"R"}}}},
		{"a client that asks for a URI", virtualNode("a", "C", "") + virtualNode("b", "", trusting("R", "spiffe://m/a"), "a"),
			[]Issuable{{ARN: "C", Names: []string{"a.example.com"}, Authorities: []string{"R"}, Trouble: "mesh/m/virtualNode/b accepts spiffe://m/a, and a certificate of ACM has host names only"}}},
		{"a policy for another port", virtualNode("a", "C", "") + virtualNode("b", "", strings.Replace(trusting("R"), "{", `{"ports": [81], `, 1), "a"),
			[]Issuable{{ARN: "C", Names: []string{"a.example.com"}}}},
		{"a gateway", virtualNode("a", "", "") + virtualGateway("G", `"hostname": {"exact": "www.example.org"}`), []Issuable{{ARN: "G", Names: []string{"www.example.org"}}}},
		{"a gateway for a domain", virtualNode("a", "", "") + virtualGateway("G", `"hostname": {"suffix": ".example.org"}`), []Issuable{{ARN: "G", Names: []string{"*.example.org"}}}},
		{"a gateway without a name", virtualNode("a", "", "") + virtualGateway("G", `"prefix": "/"`), []Issuable{{ARN: "G"}}},
		{"no certificate of ACM", virtualNode("a", "", "") + virtualNode("b", "", trusting("R"), "a"), nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			result, err := Read([]Input{{Name: "described", Data: []byte(test.files)}}, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if len(result.Lost) > 0 {
				t.Fatalf("not carried over: %v", result.Lost)
			}
			if diff := cmp.Diff(test.want, result.Issuable); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
