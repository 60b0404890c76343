package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/iam"
)

// written is what one version of a resource was made as: uid and version to spec.
type writtenVersions struct {
	mu    sync.Mutex
	specs map[string]map[int64]string // by uid
	ends  map[string]int64            // versions of deletions, by uid
}

func (w *writtenVersions) add(t *testing.T, m *appmesh.ResourceMetadata, spec any, deleted bool) {
	text, err := json.Marshal(spec, json.Deterministic(true))
	if err != nil {
		t.Error(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if deleted {
		if before, twice := w.ends[m.UID]; twice {
			t.Errorf("%s was deleted twice, as %d and %d", m.ARN, before, *m.Version)
		}
		w.ends[m.UID] = *m.Version
		return
	}
	if w.specs[m.UID] == nil {
		w.specs[m.UID] = map[int64]string{}
	}
	if _, twice := w.specs[m.UID][*m.Version]; twice {
		t.Errorf("version %d of %s was made twice: an update is lost", *m.Version, m.ARN)
	}
	w.specs[m.UID][*m.Version] = string(text)
}

// writer does what a careless team's scripts do to a few resources.
type writer struct {
	*Service
	ctx   context.Context
	rng   *rand.Rand
	made  *writtenVersions
	mesh  string
	fails map[string]int
}

// pick is one of n resources of a kind.
func (w *writer) pick(kind string, n int) string { return kind + strconv.Itoa(w.rng.IntN(n)) }

func (w *writer) service() string { return w.pick("service", 4) + ".local" }

func (w *writer) node() *appmesh.VirtualNodeSpec {
	return &appmesh.VirtualNodeSpec{
		Listeners:        []appmesh.Listener{{PortMapping: &appmesh.PortMapping{Port: 8080, Protocol: appmesh.PortProtocolHttp}}},
		ServiceDiscovery: &appmesh.ServiceDiscovery{DNS: &appmesh.DnsServiceDiscovery{Hostname: w.pick("host", 1000)}},
	}
}

// router has one listener or two: with two, all its routes must match a port.
func (w *writer) router() *appmesh.VirtualRouterSpec {
	spec := &appmesh.VirtualRouterSpec{}
	for i := range 1 + w.rng.IntN(2) {
		spec.Listeners = append(spec.Listeners, appmesh.VirtualRouterListener{PortMapping: &appmesh.PortMapping{Port: int64(8080 + i), Protocol: appmesh.PortProtocolHttp}})
	}
	return spec
}

func (w *writer) route() *appmesh.RouteSpec {
	prefix, weight := "/"+w.pick("p", 1000), int64(1)
	match := &appmesh.HttpRouteMatch{Prefix: &prefix}
	if port := int64(8080 + w.rng.IntN(2)); w.rng.IntN(3) > 0 {
		match.Port = &port
	}
	return &appmesh.RouteSpec{HttpRoute: &appmesh.HttpRoute{Match: match, Action: &appmesh.HttpRouteAction{
		WeightedTargets: []appmesh.WeightedTarget{{VirtualNode: w.pick("node", 4), Weight: &weight}},
	}}}
}

func (w *writer) provider() *appmesh.VirtualServiceSpec {
	if w.rng.IntN(2) == 0 {
		return &appmesh.VirtualServiceSpec{Provider: &appmesh.VirtualServiceProvider{VirtualNode: &appmesh.VirtualNodeServiceProvider{VirtualNodeName: w.pick("node", 4)}}}
	}
	return &appmesh.VirtualServiceSpec{Provider: &appmesh.VirtualServiceProvider{VirtualRouter: &appmesh.VirtualRouterServiceProvider{VirtualRouterName: w.pick("router", 2)}}}
}

func (w *writer) gateway() *appmesh.VirtualGatewaySpec {
	return &appmesh.VirtualGatewaySpec{Listeners: []appmesh.VirtualGatewayListener{{PortMapping: &appmesh.VirtualGatewayPortMapping{Port: int64(1 + w.rng.IntN(1000)), Protocol: "http"}}}}
}

func (w *writer) gatewayRoute() *appmesh.GatewayRouteSpec {
	prefix := "/" + w.pick("p", 1000)
	spec := &appmesh.HttpGatewayRoute{Match: &appmesh.HttpGatewayRouteMatch{Prefix: &prefix}}
	port := int64(8080) // the one that every provider has
	spec.Action = &appmesh.HttpGatewayRouteAction{Target: &appmesh.GatewayRouteTarget{Port: &port, VirtualService: &appmesh.GatewayRouteVirtualService{VirtualServiceName: w.service()}}}
	return &appmesh.GatewayRouteSpec{HttpRoute: spec}
}

// step does one thing to one resource, and remembers what it was told.
func (w *writer) step(t *testing.T) {
	m, verb := w.mesh, w.rng.IntN(4)
	var err error
	switch w.rng.IntN(7) {
	case 0:
		_, err = w.DeleteMesh(w.ctx, &appmesh.DeleteMeshInput{MeshName: m})
	case 1:
		name, spec := w.pick("node", 4), w.node()
		err = act(w, t, verb, func() (*appmesh.CreateVirtualNodeOutput, error) {
			return w.CreateVirtualNode(w.ctx, &appmesh.CreateVirtualNodeInput{MeshName: m, VirtualNodeName: name, Spec: spec})
		}, func() (*appmesh.UpdateVirtualNodeOutput, error) {
			return w.UpdateVirtualNode(w.ctx, &appmesh.UpdateVirtualNodeInput{MeshName: m, VirtualNodeName: name, Spec: spec})
		}, func() (*appmesh.DeleteVirtualNodeOutput, error) {
			return w.DeleteVirtualNode(w.ctx, &appmesh.DeleteVirtualNodeInput{MeshName: m, VirtualNodeName: name})
		}, "virtualNode/"+name)
	case 2:
		name, spec := w.pick("router", 2), w.router()
		err = act(w, t, verb, func() (*appmesh.CreateVirtualRouterOutput, error) {
			return w.CreateVirtualRouter(w.ctx, &appmesh.CreateVirtualRouterInput{MeshName: m, VirtualRouterName: name, Spec: spec})
		}, func() (*appmesh.UpdateVirtualRouterOutput, error) {
			return w.UpdateVirtualRouter(w.ctx, &appmesh.UpdateVirtualRouterInput{MeshName: m, VirtualRouterName: name, Spec: spec})
		}, func() (*appmesh.DeleteVirtualRouterOutput, error) {
			return w.DeleteVirtualRouter(w.ctx, &appmesh.DeleteVirtualRouterInput{MeshName: m, VirtualRouterName: name})
		}, "virtualRouter/"+name)
	case 3:
		parent, name, spec := w.pick("router", 2), w.pick("route", 3), w.route()
		err = act(w, t, verb, func() (*appmesh.CreateRouteOutput, error) {
			return w.CreateRoute(w.ctx, &appmesh.CreateRouteInput{MeshName: m, VirtualRouterName: parent, RouteName: name, Spec: spec})
		}, func() (*appmesh.UpdateRouteOutput, error) {
			return w.UpdateRoute(w.ctx, &appmesh.UpdateRouteInput{MeshName: m, VirtualRouterName: parent, RouteName: name, Spec: spec})
		}, func() (*appmesh.DeleteRouteOutput, error) {
			return w.DeleteRoute(w.ctx, &appmesh.DeleteRouteInput{MeshName: m, VirtualRouterName: parent, RouteName: name})
		}, "virtualRouter/"+parent+"/route/"+name)
	case 4:
		name, spec := w.service(), w.provider()
		err = act(w, t, verb, func() (*appmesh.CreateVirtualServiceOutput, error) {
			return w.CreateVirtualService(w.ctx, &appmesh.CreateVirtualServiceInput{MeshName: m, VirtualServiceName: name, Spec: spec})
		}, func() (*appmesh.UpdateVirtualServiceOutput, error) {
			return w.UpdateVirtualService(w.ctx, &appmesh.UpdateVirtualServiceInput{MeshName: m, VirtualServiceName: name, Spec: spec})
		}, func() (*appmesh.DeleteVirtualServiceOutput, error) {
			return w.DeleteVirtualService(w.ctx, &appmesh.DeleteVirtualServiceInput{MeshName: m, VirtualServiceName: name})
		}, "virtualService/"+name)
	case 5:
		name, spec := w.pick("gateway", 2), w.gateway()
		err = act(w, t, verb, func() (*appmesh.CreateVirtualGatewayOutput, error) {
			return w.CreateVirtualGateway(w.ctx, &appmesh.CreateVirtualGatewayInput{MeshName: m, VirtualGatewayName: name, Spec: spec})
		}, func() (*appmesh.UpdateVirtualGatewayOutput, error) {
			return w.UpdateVirtualGateway(w.ctx, &appmesh.UpdateVirtualGatewayInput{MeshName: m, VirtualGatewayName: name, Spec: spec})
		}, func() (*appmesh.DeleteVirtualGatewayOutput, error) {
			return w.DeleteVirtualGateway(w.ctx, &appmesh.DeleteVirtualGatewayInput{MeshName: m, VirtualGatewayName: name})
		}, "virtualGateway/"+name)
	case 6:
		parent, name, spec := w.pick("gateway", 2), w.pick("route", 3), w.gatewayRoute()
		err = act(w, t, verb, func() (*appmesh.CreateGatewayRouteOutput, error) {
			return w.CreateGatewayRoute(w.ctx, &appmesh.CreateGatewayRouteInput{MeshName: m, VirtualGatewayName: parent, GatewayRouteName: name, Spec: spec})
		}, func() (*appmesh.UpdateGatewayRouteOutput, error) {
			return w.UpdateGatewayRoute(w.ctx, &appmesh.UpdateGatewayRouteInput{MeshName: m, VirtualGatewayName: parent, GatewayRouteName: name, Spec: spec})
		}, func() (*appmesh.DeleteGatewayRouteOutput, error) {
			return w.DeleteGatewayRoute(w.ctx, &appmesh.DeleteGatewayRouteInput{MeshName: m, VirtualGatewayName: parent, GatewayRouteName: name})
		}, "virtualGateway/"+parent+"/gatewayRoute/"+name)
	}
	code := "ok"
	if e, ok := errors.AsType[*api.Exception](err); ok {
		code = e.Code
	} else if err != nil {
		t.Errorf("an error that no caller understands: %v", err)
	}
	w.fails[code]++
}

// act does one of four things to a resource, and remembers what came of it.
func act[C, U, D any](w *writer, t *testing.T, verb int, create func() (*C, error), update func() (*U, error), remove func() (*D, error), path string) error {
	switch verb {
	case 0:
		out, err := create()
		return w.remember(t, out, err, false)
	case 1:
		out, err := update()
		return w.remember(t, out, err, false)
	case 2:
		out, err := remove()
		return w.remember(t, out, err, true)
	}
	value := strconv.Itoa(w.rng.IntN(1000))
	_, err := w.TagResource(w.ctx, &appmesh.TagResourceInput{ResourceArn: "arn:aws:appmesh:" + testRegion + ":" + testAccount + ":mesh/" + w.mesh + "/" + path,
		Tags: []appmesh.TagRef{{Key: w.pick("key", 10), Value: &value}}})
	return err
}

// remember keeps what an output says.
func (w *writer) remember(t *testing.T, out any, err error, deleted bool) error {
	if err != nil {
		return err
	}
	m, spec := parts(out)
	w.made.add(t, m, spec, deleted)
	return nil
}

// parts are the metadata and the spec of an output of any kind.
func parts(out any) (*appmesh.ResourceMetadata, any) {
	switch o := out.(type) {
	case *appmesh.CreateVirtualNodeOutput:
		return o.VirtualNode.Metadata, o.VirtualNode.Spec
	case *appmesh.UpdateVirtualNodeOutput:
		return o.VirtualNode.Metadata, o.VirtualNode.Spec
	case *appmesh.DeleteVirtualNodeOutput:
		return o.VirtualNode.Metadata, nil
	case *appmesh.CreateVirtualRouterOutput:
		return o.VirtualRouter.Metadata, o.VirtualRouter.Spec
	case *appmesh.UpdateVirtualRouterOutput:
		return o.VirtualRouter.Metadata, o.VirtualRouter.Spec
	case *appmesh.DeleteVirtualRouterOutput:
		return o.VirtualRouter.Metadata, nil
	case *appmesh.CreateRouteOutput:
		return o.Route.Metadata, o.Route.Spec
	case *appmesh.UpdateRouteOutput:
		return o.Route.Metadata, o.Route.Spec
	case *appmesh.DeleteRouteOutput:
		return o.Route.Metadata, nil
	case *appmesh.CreateVirtualServiceOutput:
		return o.VirtualService.Metadata, o.VirtualService.Spec
	case *appmesh.UpdateVirtualServiceOutput:
		return o.VirtualService.Metadata, o.VirtualService.Spec
	case *appmesh.DeleteVirtualServiceOutput:
		return o.VirtualService.Metadata, nil
	case *appmesh.CreateVirtualGatewayOutput:
		return o.VirtualGateway.Metadata, o.VirtualGateway.Spec
	case *appmesh.UpdateVirtualGatewayOutput:
		return o.VirtualGateway.Metadata, o.VirtualGateway.Spec
	case *appmesh.DeleteVirtualGatewayOutput:
		return o.VirtualGateway.Metadata, nil
	case *appmesh.CreateGatewayRouteOutput:
		return o.GatewayRoute.Metadata, o.GatewayRoute.Spec
	case *appmesh.UpdateGatewayRouteOutput:
		return o.GatewayRoute.Metadata, o.GatewayRoute.Spec
	case *appmesh.DeleteGatewayRouteOutput:
		return o.GatewayRoute.Metadata, nil
	}
	panic(fmt.Sprintf("no parts of %T", out))
}

// A hundred writers at two servers on one etcd make, change, tag and delete the
// same few resources. Afterwards every reference holds, versions have no gaps,
// no update is lost, and what is there is what was written last.
func TestHundredWriters(t *testing.T) {
	const writers, steps, taggers = 100, 12, 45
	replicas := newReplicas(t, 2)
	ctx := awsapi.WithPrincipal(t.Context(), iam.Principal{Account: testAccount, Kind: iam.Root})
	one := replicas[0].service
	if _, err := one.CreateMesh(ctx, &appmesh.CreateMeshInput{MeshName: "m"}); err != nil {
		t.Fatal(err)
	}
	if _, err := one.CreateVirtualNode(ctx, &appmesh.CreateVirtualNodeInput{MeshName: "m", VirtualNodeName: "keeper", Spec: &appmesh.VirtualNodeSpec{}}); err != nil {
		t.Fatal(err)
	}
	made := &writtenVersions{specs: map[string]map[int64]string{}, ends: map[string]int64{}}
	var mu sync.Mutex
	total := map[string]int{}
	meshTags := map[string]string{}
	var all sync.WaitGroup
	for i := range writers {
		all.Go(func() {
			w := &writer{Service: replicas[i%2].service, ctx: ctx, rng: rand.New(rand.NewPCG(uint64(i), 4)), made: made, mesh: "m", fails: map[string]int{}}
			var last string
			for n := range steps {
				w.step(t)
				if i >= taggers {
					continue
				}
				value := strconv.Itoa(n)
				_, err := w.TagResource(ctx, &appmesh.TagResourceInput{ResourceArn: "arn:aws:appmesh:" + testRegion + ":" + testAccount + ":mesh/m",
					Tags: []appmesh.TagRef{{Key: "writer" + strconv.Itoa(i), Value: &value}}})
				switch e, ok := errors.AsType[*api.Exception](err); {
				case err == nil:
					last = value
				case !ok || e.Code != "TooManyRequestsException":
					t.Errorf("tag the mesh: %v", err)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for code, n := range w.fails {
				total[code] += n
			}
			if last != "" {
				meshTags["writer"+strconv.Itoa(i)] = last
			}
		})
	}
	all.Wait()
	t.Logf("answers: %v", total)
	for _, code := range slices.Sorted(maps.Keys(total)) {
		if !slices.Contains([]string{"ok", "NotFoundException", "ConflictException", "ResourceInUseException", "BadRequestException", "TooManyRequestsException"}, code) {
			t.Errorf("%d × %s", total[code], code)
		}
	}
	if total["ok"] < writers*steps/10 || total["TooManyRequestsException"] > writers*steps/20 {
		t.Errorf("too little was done to show anything: %v", total)
	}
	checkVersions(t, made)
	checkMesh(t, ctx, replicas[1].service, made)
	tags, err := one.ListTagsForResource(ctx, &appmesh.ListTagsForResourceInput{ResourceArn: "arn:aws:appmesh:" + testRegion + ":" + testAccount + ":mesh/m"})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, tag := range tags.Tags {
		got[tag.Key] = *tag.Value
	}
	if diff := cmp.Diff(meshTags, got); diff != "" {
		t.Errorf("tags of the mesh: one is lost (-acknowledged +got):\n%s", diff)
	}
}

// checkVersions: of each resource, 1 to the newest, each once, the deletion last.
func checkVersions(t *testing.T, made *writtenVersions) {
	t.Helper()
	for uid, versions := range made.specs {
		for v := range int64(len(versions)) {
			if _, ok := versions[v+1]; !ok {
				t.Errorf("%s has %d versions, but not %d", uid, len(versions), v+1)
			}
		}
		if end, gone := made.ends[uid]; gone && end != int64(len(versions))+1 {
			t.Errorf("%s has %d versions, and was deleted as version %d", uid, len(versions), end)
		}
	}
	for uid := range made.ends {
		if made.specs[uid] == nil {
			t.Errorf("%s was deleted, and never made", uid)
		}
	}
}
