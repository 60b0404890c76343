package server

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

// Each quota allows what it says and refuses one more, with its name, its limit
// and what is full; what is deleted makes room, and a repeated request is none.
func TestQuotas(t *testing.T) {
	const m = "/v20190125/meshes/m"
	router, gateway := `{"listeners":[{"portMapping":{"port":8080,"protocol":"http"}}]}`, `{"listeners":[{"portMapping":{"port":80,"protocol":"http"}}]}`
	for _, c := range []struct {
		quota, path, name, spec string
		there                   int // of the kind, in smallMesh
		item                    string
		want                    string
	}{
		{"meshes", "/v20190125/meshes", "meshName", `{}`, 1, "/v20190125/meshes/new0", "account 123456789012: the quota meshes allows 2."},
		{"virtual-nodes-per-mesh", m + "/virtualNodes", "virtualNodeName", `{}`, 2, m + "/virtualNodes/new0", "mesh m of account 123456789012: the quota virtual-nodes-per-mesh allows 3."},
		{"virtual-services-per-mesh", m + "/virtualServices", "virtualServiceName", `{}`, 2, m + "/virtualServices/new0", "mesh m of account 123456789012: the quota virtual-services-per-mesh allows 3."},
		{"virtual-routers-per-mesh", m + "/virtualRouters", "virtualRouterName", router, 1, m + "/virtualRouters/new0", "mesh m of account 123456789012: the quota virtual-routers-per-mesh allows 2."},
		{"virtual-gateways-per-mesh", m + "/virtualGateways", "virtualGatewayName", gateway, 1, m + "/virtualGateways/new0", "mesh m of account 123456789012: the quota virtual-gateways-per-mesh allows 2."},
		{"routes-per-virtual-router", m + "/virtualRouter/r/routes", "routeName", httpRoute("blue"), 1, m + "/virtualRouter/r/routes/new0", "virtual router r of mesh m of account 123456789012: the quota routes-per-virtual-router allows 2."},
		{"gateway-routes-per-virtual-gateway", m + "/virtualGateway/g/gatewayRoutes", "gatewayRouteName", gatewayRoute("color.local", ""), 1, m + "/virtualGateway/g/gatewayRoutes/new0", "virtual gateway g of mesh m of account 123456789012: the quota gateway-routes-per-virtual-gateway allows 2."},
	} {
		t.Run(c.quota, func(t *testing.T) {
			h := newHarness(t)
			h.service.Quotas = Quotas{c.quota: c.there + 1}
			h.makeSmallMesh(t)
			body := func(i int) string {
				return fmt.Sprintf(`{%q:"new%d","clientToken":"t%[2]d","spec":%s}`, c.name, i, c.spec)
			}
			h.must(t, "PUT", c.path, body(0))
			a := h.send(t, "PUT", c.path, body(1), nil)
			if a.status != 400 || a.code != "LimitExceededException" || !strings.Contains(a.body, c.want) {
				t.Errorf("one more: %d %s %s\nwant LimitExceededException %s", a.status, a.code, a.body, c.want)
			}
			h.must(t, "PUT", c.path, body(0)) // the same request again is no new resource
			h.must(t, "DELETE", c.item, "")
			h.must(t, "PUT", c.path, body(1))
		})
	}
}

func TestBackendsQuota(t *testing.T) {
	h := newHarness(t)
	h.service.Quotas = Quotas{backendsQuota: 2}
	h.must(t, "PUT", "/v20190125/meshes", `{"meshName":"m"}`)
	backends := func(n int) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf(`{"virtualService":{"virtualServiceName":"s%d"}}`, i))
		}
		return `{"virtualNodeName":"a","spec":{"backends":[` + strings.Join(all, ",") + `]}}`
	}
	const create = "/v20190125/meshes/m/virtualNodes"
	const want = "spec.backends has 3: virtual node a: the quota backends-per-virtual-node allows 2."
	if a := h.send(t, "PUT", create, backends(3), nil); a.code != "LimitExceededException" || !strings.Contains(a.body, want) {
		t.Errorf("create: %d %s", a.status, a.body)
	}
	h.must(t, "PUT", create, backends(2))
	update := strings.Replace(backends(3), `"virtualNodeName":"a",`, "", 1)
	if a := h.send(t, "PUT", create+"/a", update, nil); a.code != "LimitExceededException" || !strings.Contains(a.body, want) {
		t.Errorf("update: %d %s", a.status, a.body)
	}
}

// Creates that race at two servers end at the quota, all of it.
func TestQuotaHoldsInARace(t *testing.T) {
	const limit, writers, each = 12, 8, 4
	replicas := newReplicas(t, 2)
	replicas[0].must(t, "PUT", "/v20190125/meshes", `{"meshName":"m"}`)
	for _, h := range replicas {
		h.service.Quotas = Quotas{"virtual-nodes-per-mesh": limit}
	}
	var mu sync.Mutex
	answers := map[string]int{}
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := range each {
				a := replicas[(w+i)%2].send(t, "PUT", "/v20190125/meshes/m/virtualNodes", fmt.Sprintf(`{"virtualNodeName":"n%d-%d","spec":{}}`, w, i), nil)
				mu.Lock()
				answers[fmt.Sprint(a.status, a.code)]++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if answers["200"] != limit || answers["400LimitExceededException"] != writers*each-limit {
		t.Errorf("answers are %v, want %d × 200 and the rest LimitExceededException", answers, limit)
	}
	if a := replicas[1].must(t, "GET", "/v20190125/meshes/m/virtualNodes", ""); strings.Count(a.body, `"virtualNodeName"`) != limit {
		t.Errorf("there are %d nodes, want %d", strings.Count(a.body, `"virtualNodeName"`), limit)
	}
}

// Every kind names a quota that there is.
func TestQuotaNames(t *testing.T) {
	for _, name := range []string{meshes.quota, virtualNodes.quota, virtualServices.quota, virtualRouters.quota, virtualGateways.quota, routes.quota, gatewayRoutes.quota, backendsQuota} {
		if Quotas(nil).limit(name) < 1000 {
			t.Errorf("quota %q allows %d", name, Quotas(nil).limit(name))
		}
	}
	if got, err := ParseQuotas([]string{"meshes=7"}); err != nil || got.limit("meshes") != 7 || got.limit("virtual-nodes-per-mesh") != 20_000 {
		t.Errorf("meshes=7: %v, %v", got, err)
	}
}
