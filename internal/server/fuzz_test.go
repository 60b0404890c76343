package server

import (
	"strings"
	"testing"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/iam"
	"github.com/fairlead/fairlead/internal/mesh"
)

// FuzzARN: an ARN is refused with a message, or is the one of what it names.
func FuzzARN(f *testing.F) {
	s := &Service{Region: testRegion}
	for _, resource := range []string{"", "mesh/m", "mesh/m@111111111111", "mesh/m/virtualNode/a", "mesh/m/virtualRouter/r/route/x", "mesh/m/virtualGateway/g/gatewayRoute/x", "mesh//virtualNode/", "/"} {
		f.Add("arn:aws:appmesh:eu-west-1:" + testAccount + ":" + resource)
	}
	f.Add("arn:aws:appmesh:eu-west-1:111111111111:mesh/m")
	f.Fuzz(func(t *testing.T, arn string) {
		ctx := awsapi.WithPrincipal(t.Context(), iam.Principal{Account: testAccount, Kind: iam.Root})
		at, err := s.parseARN(ctx, arn)
		if err != nil {
			if e, ok := err.(*api.Exception); !ok || e.Status != 400 && e.Status != 403 {
				t.Fatalf("%q: %v", arn, err)
			}
			return
		}
		// A mesh of one's own may be written with its owner, too.
		plain := strings.Replace(arn, "mesh/"+at.mesh.Mesh+"@"+testAccount, "mesh/"+at.mesh.Mesh, 1)
		if again := s.arn(at, testAccount); again != arn && again != plain {
			t.Fatalf("%q names %+v, whose ARN is %q", arn, at, again)
		}
	})
}

// FuzzRules: no spec that satisfies the service model breaks a rule's code, and
// what is filled in passes, too.
func FuzzRules(f *testing.F) {
	for _, k := range ruledKinds() {
		for _, c := range k.cases {
			f.Add([]byte(c.spec))
		}
	}
	f.Fuzz(func(t *testing.T, spec []byte) {
		if node, ok := valid(spec, virtualNodeRules); ok {
			if found := check(virtualNodeRules, mesh.FilledNode(node)); len(found) > 0 {
				t.Errorf("filled in, it is refused: %v", found)
			}
			nodeCertificates(node)
		}
		if gateway, ok := valid(spec, virtualGatewayRules); ok {
			if found := check(virtualGatewayRules, mesh.FilledGateway(gateway)); len(found) > 0 {
				t.Errorf("filled in, it is refused: %v", found)
			}
			gatewayCertificates(gateway)
		}
		valid(spec, virtualRouterRules)
		valid(spec, virtualServiceRules)
		if route, ok := valid(spec, routeRules); ok {
			if _, targets := weightedTargets(route); len(targets) == 0 {
				t.Error("a route without targets is accepted")
			}
		}
		if route, ok := valid(spec, gatewayRouteRules); ok {
			if target, _, _ := gatewayTarget(route); target == nil || target.VirtualService == nil {
				t.Error("a gateway route without target is accepted")
			}
		}
		valid[appmesh.MeshSpec](spec, meshRules)
	})
}

// valid reads a spec as a request's is read. A spec that passes has no faults.
func valid[S any](text []byte, rules []rule[S]) (*S, bool) {
	spec := new(S)
	if awsapi.DecodeValid(text, spec) != nil {
		return nil, false
	}
	return spec, check(rules, spec).err() == nil
}

// FuzzNamedARN: what passes as the ARN of a certificate has all its parts, is of
// this region, and makes one key of the store.
func FuzzNamedARN(f *testing.F) {
	for _, seed := range []string{aCertificate + "1", anAuthority + "1", "", ":::::", "arn:aws:acm:eu-west-1::certificate/", "arn:aws:acm:eu-west-1:1:certificate/\x00/../x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, arn string) {
		about := &candidate{fields: strings.SplitN(arn, ":", 6), region: testRegion, wantedService: "acm", wantedResource: "certificate"}
		if refuseARN(about) != "" {
			return
		}
		if !strings.HasPrefix(arn, "arn:aws:acm:eu-west-1:") || len(about.fields) != 6 || !strings.HasPrefix(about.fields[5], "certificate/") || len(arn) > 1000 && len(about.fields[4]) < 100 {
			t.Errorf("%q passes", arn)
		}
	})
}
