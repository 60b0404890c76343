package manifest

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/internal/mesh"
)

// colors is a mesh with every kind of reference.
const colors = `
{meshName: a}
---
meshName: a
virtualNodeName: web
spec:
  listeners: [{portMapping: {port: 80, protocol: http}}, {portMapping: {port: 81, protocol: grpc}}]
  backends:
  - {virtualService: {virtualServiceName: color.local}}
  - {virtualService: {virtualServiceName: "arn:aws:appmesh:us-east-1:000000000000:mesh/a/virtualService/web.local"}}
---
{meshName: a, virtualNodeName: blue, spec: {}}
---
{meshName: a, virtualRouterName: color, spec: {listeners: [{portMapping: {port: 80, protocol: http}}]}}
---
{meshName: a, virtualRouterName: color, routeName: r, spec: {httpRoute: {match: {prefix: /}, action: {weightedTargets: [{virtualNode: blue, weight: 3}, {virtualNode: web, weight: 0}]}}}}
---
{meshName: a, virtualRouterName: color, routeName: g, spec: {grpcRoute: {match: {}, action: {weightedTargets: [{virtualNode: blue, weight: 1}]}}}}
---
{meshName: a, virtualServiceName: color.local, spec: {provider: {virtualRouter: {virtualRouterName: color}}}}
---
{meshName: a, virtualServiceName: web.local, spec: {provider: {virtualNode: {virtualNodeName: web}}}}
---
{meshName: a, virtualServiceName: none.local, spec: {}}
---
{meshName: a, virtualGatewayName: edge, spec: {listeners: [{portMapping: {port: 80, protocol: http}}]}}
---
{meshName: a, virtualGatewayName: edge, gatewayRouteName: r, spec: {http2Route: {match: {prefix: /}, action: {target: {virtualService: {virtualServiceName: web.local}}}}}}
`

func TestReferences(t *testing.T) {
	var got []string
	for _, r := range read(t, colors) {
		got = append(got, strings.TrimRight(r.Name()+": "+Summary(r), " "))
		for _, ref := range References(r) {
			line := "  " + ref.To.String() + " " + ref.Field
			if ref.Loose {
				line += " (loose)"
			}
			got = append(got, strings.TrimRight(line, " "))
		}
	}
	want := strings.Split(`mesh/a:
virtualNode/web: http:80,grpc:81
  virtualService/color.local spec.backends[0].virtualService (loose)
  virtualService/web.local spec.backends[1].virtualService (loose)
virtualNode/blue:
virtualRouter/color: http:80
virtualRouter/color/route/r: blue=3,web=0
  virtualRouter/color
  virtualNode/blue spec.httpRoute.action.weightedTargets[0]
  virtualNode/web spec.httpRoute.action.weightedTargets[1]
virtualRouter/color/route/g: blue=1
  virtualRouter/color
  virtualNode/blue spec.grpcRoute.action.weightedTargets[0]
virtualService/color.local: virtualRouter/color
  virtualRouter/color spec.provider.virtualRouter
virtualService/web.local: virtualNode/web
  virtualNode/web spec.provider.virtualNode
virtualService/none.local:
virtualGateway/edge: http:80
virtualGateway/edge/gatewayRoute/r: virtualService/web.local
  virtualGateway/edge
  virtualService/web.local spec.http2Route.action.target.virtualService`, "\n")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWithDependants(t *testing.T) {
	all := read(t, colors)
	for _, test := range []struct {
		of   []mesh.ID
		want string
	}{
		{[]mesh.ID{{Kind: mesh.KindVirtualNode, Name: "web"}}, "virtualGateway/edge/gatewayRoute/r virtualService/web.local virtualRouter/color/route/r virtualNode/web"},
		{[]mesh.ID{{Kind: mesh.KindVirtualRouter, Name: "color"}}, "virtualService/color.local virtualRouter/color/route/r virtualRouter/color/route/g virtualRouter/color"},
		{[]mesh.ID{{Kind: mesh.KindVirtualService, Name: "color.local"}}, "virtualService/color.local"},
		{[]mesh.ID{{Kind: mesh.KindVirtualGateway, Name: "edge"}}, "virtualGateway/edge/gatewayRoute/r virtualGateway/edge"},
		{[]mesh.ID{{Kind: mesh.KindMesh, Name: "a"}}, "virtualGateway/edge/gatewayRoute/r virtualGateway/edge virtualService/web.local virtualService/none.local virtualService/color.local " +
			"virtualRouter/color/route/r virtualRouter/color/route/g virtualRouter/color virtualNode/web virtualNode/blue mesh/a"},
		{nil, ""},
	} {
		doomed := WithDependants(all, test.of)
		Sort(doomed)
		var got []string
		for _, r := range slices.Backward(doomed) {
			got = append(got, r.Name())
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%v:\n got %s\nwant %s", test.of, strings.Join(got, " "), test.want)
		}
	}
}

func TestBothListeners(t *testing.T) {
	router := func(ports string) Resource {
		return read(t, "{meshName: a, virtualRouterName: r, spec: {listeners: ["+ports+"]}}")[0]
	}
	one, two, other := "{portMapping: {port: 1, protocol: http}}", "{portMapping: {port: 2, protocol: http}}", "{portMapping: {port: 1, protocol: http2}}"
	for _, test := range []struct {
		server, file, want string
		more               bool
	}{
		{one, two, "http:1,http:2", true},
		{one + "," + two, two, "http:1,http:2", false},
		{one, other, "http:1", false},
		{one, other + "," + two, "http:1,http:2", true},
	} {
		got, more := BothListeners(router(test.server), router(test.file))
		if Summary(got) != test.want || more != test.more {
			t.Errorf("%s to %s: %s, %t", test.server, test.file, Summary(got), more)
		}
	}
	if _, more := BothListeners(router(one), read(t, colors)[1]); more {
		t.Error("a virtual node is no router")
	}
}
