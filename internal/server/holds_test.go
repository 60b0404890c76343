package server

import (
	"context"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/fairlead/fairlead/api/appmesh"
)

// whole is a mesh as its API tells it.
type whole struct {
	nodes, services, routers, gateways map[string]bool
	live                               map[string]bool // uids
}

// checkMesh reads a mesh back and checks that every reference in it holds, and
// that each resource is as its newest version was written.
func checkMesh(t *testing.T, ctx context.Context, s *Service, made *writtenVersions) {
	t.Helper()
	fail := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	m := whole{map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}}
	asWritten := func(metadata *appmesh.ResourceMetadata, spec any) {
		t.Helper()
		text, err := json.Marshal(spec, json.Deterministic(true))
		fail(err)
		m.live[metadata.UID] = true
		versions := made.specs[metadata.UID]
		if *metadata.Version != int64(len(versions)) || versions[*metadata.Version] != string(text) {
			t.Errorf("%s is version %d: %s\nof %d: %s", metadata.ARN, *metadata.Version, text, len(versions), versions[int64(len(versions))])
		}
	}

	nodes, err := s.ListVirtualNodes(ctx, &appmesh.ListVirtualNodesInput{MeshName: "m"})
	fail(err)
	for _, ref := range nodes.VirtualNodes {
		m.nodes[ref.VirtualNodeName] = true
		if ref.VirtualNodeName == "keeper" {
			continue
		}
		out, err := s.DescribeVirtualNode(ctx, &appmesh.DescribeVirtualNodeInput{MeshName: "m", VirtualNodeName: ref.VirtualNodeName})
		fail(err)
		asWritten(out.VirtualNode.Metadata, out.VirtualNode.Spec)
	}
	routers, err := s.ListVirtualRouters(ctx, &appmesh.ListVirtualRoutersInput{MeshName: "m"})
	fail(err)
	for _, ref := range routers.VirtualRouters {
		m.routers[ref.VirtualRouterName] = true
		out, err := s.DescribeVirtualRouter(ctx, &appmesh.DescribeVirtualRouterInput{MeshName: "m", VirtualRouterName: ref.VirtualRouterName})
		fail(err)
		asWritten(out.VirtualRouter.Metadata, out.VirtualRouter.Spec)
		routes, err := s.ListRoutes(ctx, &appmesh.ListRoutesInput{MeshName: "m", VirtualRouterName: ref.VirtualRouterName})
		fail(err)
		for _, r := range routes.Routes {
			route, err := s.DescribeRoute(ctx, &appmesh.DescribeRouteInput{MeshName: "m", VirtualRouterName: ref.VirtualRouterName, RouteName: r.RouteName})
			fail(err)
			asWritten(route.Route.Metadata, route.Route.Spec)
			m.checkRoute(t, out.VirtualRouter.Spec, route.Route)
		}
	}
	services, err := s.ListVirtualServices(ctx, &appmesh.ListVirtualServicesInput{MeshName: "m"})
	fail(err)
	for _, ref := range services.VirtualServices {
		m.services[ref.VirtualServiceName] = true
		out, err := s.DescribeVirtualService(ctx, &appmesh.DescribeVirtualServiceInput{MeshName: "m", VirtualServiceName: ref.VirtualServiceName})
		fail(err)
		asWritten(out.VirtualService.Metadata, out.VirtualService.Spec)
		p := out.VirtualService.Spec.Provider
		if p.VirtualNode != nil && !m.nodes[p.VirtualNode.VirtualNodeName] || p.VirtualRouter != nil && !m.routers[p.VirtualRouter.VirtualRouterName] {
			t.Errorf("service %s has a provider that is gone: %+v", ref.VirtualServiceName, p)
		}
	}
	gateways, err := s.ListVirtualGateways(ctx, &appmesh.ListVirtualGatewaysInput{MeshName: "m"})
	fail(err)
	for _, ref := range gateways.VirtualGateways {
		m.gateways[ref.VirtualGatewayName] = true
		out, err := s.DescribeVirtualGateway(ctx, &appmesh.DescribeVirtualGatewayInput{MeshName: "m", VirtualGatewayName: ref.VirtualGatewayName})
		fail(err)
		asWritten(out.VirtualGateway.Metadata, out.VirtualGateway.Spec)
		routes, err := s.ListGatewayRoutes(ctx, &appmesh.ListGatewayRoutesInput{MeshName: "m", VirtualGatewayName: ref.VirtualGatewayName})
		fail(err)
		for _, r := range routes.GatewayRoutes {
			route, err := s.DescribeGatewayRoute(ctx, &appmesh.DescribeGatewayRouteInput{MeshName: "m", VirtualGatewayName: ref.VirtualGatewayName, GatewayRouteName: r.GatewayRouteName})
			fail(err)
			asWritten(route.GatewayRoute.Metadata, route.GatewayRoute.Spec)
			if name := route.GatewayRoute.Spec.HttpRoute.Action.Target.VirtualService.VirtualServiceName; !m.services[name] {
				t.Errorf("gateway route %s leads to service %s, which is gone", r.GatewayRouteName, name)
			}
		}
	}
	// All that was made and not deleted is there: none hangs below a parent that is gone.
	for uid := range made.specs {
		if _, gone := made.ends[uid]; !gone && !m.live[uid] {
			t.Errorf("%s was made, not deleted, and is not there: %v", uid, made.specs[uid])
		}
	}
}

func (m whole) checkRoute(t *testing.T, router *appmesh.VirtualRouterSpec, route *appmesh.RouteData) {
	t.Helper()
	if name := route.Spec.HttpRoute.Action.WeightedTargets[0].VirtualNode; !m.nodes[name] {
		t.Errorf("route %s leads to node %s, which is gone", route.RouteName, name)
	}
	port := route.Spec.HttpRoute.Match.Port
	if port == nil && len(router.Listeners) > 1 {
		t.Errorf("route %s matches no port, and its router has %d listeners", route.RouteName, len(router.Listeners))
	}
	found := port == nil
	for _, l := range router.Listeners {
		found = found || l.PortMapping.Port == *port
	}
	if !found {
		t.Errorf("route %s matches port %d, and its router has %d listeners, of others", route.RouteName, *port, len(router.Listeners))
	}
}
