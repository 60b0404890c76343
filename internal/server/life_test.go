package server

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/store"
)

// data is an answer about a resource of any kind.
type data struct {
	Metadata struct {
		ARN           string  `json:"arn"`
		UID           string  `json:"uid"`
		Version       int64   `json:"version"`
		CreatedAt     float64 `json:"createdAt"`
		LastUpdatedAt float64 `json:"lastUpdatedAt"`
	} `json:"metadata"`
	Spec   any `json:"spec"`
	Status struct {
		Status string `json:"status"`
	} `json:"status"`
}

func parse(t *testing.T, a answer) data {
	t.Helper()
	var d data
	if err := json.Unmarshal([]byte(a.body), &d); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	return d
}

// value is a JSON document, to be compared.
func value(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}

// revision is the store's, of all that was acknowledged.
func (h *harness) revision(t *testing.T) int64 {
	t.Helper()
	revision, err := h.store.Read(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exists(mesh.Name{Owner: testAccount, Mesh: "m"}, mesh.ID{Kind: mesh.KindMesh})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

// transactions asserts that f makes that many transactions in the store: each
// that writes is one revision, whatever it writes.
func (h *harness) transactions(t *testing.T, what string, want int64, f func()) {
	t.Helper()
	before := h.revision(t)
	f()
	if got := h.revision(t) - before; got != want {
		t.Errorf("%s: %d transactions, want %d", what, got, want)
	}
}

// written asserts that a record and its change record are of one revision, the
// newest; of a deletion, that there is only the change.
func (h *harness) written(t *testing.T, id mesh.ID, there bool) {
	t.Helper()
	name, newest := mesh.Name{Owner: testAccount, Mesh: "m"}, h.revision(t)
	if err := h.store.WaitFor(t.Context(), newest); err != nil {
		t.Fatal(err)
	}
	if change, ok := h.store.Change(name, id); !ok || change.Revision != newest {
		t.Errorf("the change of %s is of revision %d, want %d", id, change.Revision, newest)
	}
	_, err := h.store.Read(t.Context(), func(tx *store.Tx) error {
		record, err := store.Get[any](tx, name, id)
		if there && err == nil && record.Revision != newest {
			t.Errorf("%s is of revision %d, want %d", id, record.Revision, newest)
		}
		return err
	})
	if (err == nil) != there {
		t.Errorf("%s is there: %v", id, err)
	}
}

// The life of a resource of each kind: what metadata and status say at each
// step, that the same request with the same token is made once, that each step
// is one transaction, and that nothing of it is left for the next of its name.
func TestLifeOfEveryKind(t *testing.T) {
	for _, c := range []struct {
		id                       mesh.ID
		collection, member, spec string
		update                   string
		deletion                 int64 // what it adds to the version
	}{
		{mesh.ID{Kind: mesh.KindMesh}, "/v20190125/meshes", "meshName", `{}`, `{"egressFilter":{"type":"ALLOW_ALL"}}`, 0},
		{mesh.ID{Kind: mesh.KindVirtualNode, Name: "m"}, inM + "/virtualNodes", "virtualNodeName", httpNode("a.local"), `{}`, 1},
		{mesh.ID{Kind: mesh.KindVirtualService, Name: "m"}, inM + "/virtualServices", "virtualServiceName", `{"provider":{"virtualNode":{"virtualNodeName":"blue"}}}`, `{}`, 1},
		{mesh.ID{Kind: mesh.KindVirtualRouter, Name: "m"}, inM + "/virtualRouters", "virtualRouterName", `{"listeners":[{"portMapping":{"port":1,"protocol":"http"}}]}`, `{}`, 1},
		{mesh.ID{Kind: mesh.KindVirtualGateway, Name: "m"}, inM + "/virtualGateways", "virtualGatewayName", `{"listeners":[` + gatewayListener(1, ``) + `]}`, `{"listeners":[` + gatewayListener(2, ``) + `]}`, 1},
		{mesh.ID{Kind: mesh.KindRoute, Parent: "r", Name: "m"}, inM + "/virtualRouter/r/routes", "routeName", httpRoute("blue"), httpRoute("green"), 1},
		{mesh.ID{Kind: mesh.KindGatewayRoute, Parent: "g", Name: "m"}, inM + "/virtualGateway/g/gatewayRoutes", "gatewayRouteName", gatewayRoute("color.local", ""), gatewayRoute("green.local", ""), 1},
	} {
		t.Run(string(c.id.Kind), func(t *testing.T) {
			h := newHarness(t)
			if c.id.Kind != mesh.KindMesh {
				h.makeSmallMesh(t)
			}
			item := c.collection + "/m"
			create := func(token string) string {
				return fmt.Sprintf(`{%q:"m","clientToken":%q,"tags":[{"key":"k","value":"v"}],"spec":%s}`, c.member, token, c.spec)
			}
			update := `{"clientToken":"u","spec":` + c.update + `}`

			var made, again, changed, gone data
			h.transactions(t, "create with tags and token", 1, func() { made = parse(t, h.must(t, "PUT", c.collection, create("t"))) })
			h.written(t, c.id, true)
			h.transactions(t, "the same create", 0, func() { again = parse(t, h.must(t, "PUT", c.collection, create("t"))) })
			if made.Metadata.Version != 1 || made.Status.Status != active || made.Metadata.CreatedAt != made.Metadata.LastUpdatedAt || len(made.Metadata.UID) != 36 {
				t.Errorf("made: %+v", made)
			}
			if diff := cmp.Diff(made, again); diff != "" {
				t.Errorf("the same create answers otherwise:\n%s", diff)
			}
			if a := h.send(t, "PUT", c.collection, create("t2"), nil); a.code != "ConflictException" {
				t.Errorf("another create: %d %s", a.status, a.body)
			}

			h.transactions(t, "update with token", 1, func() { changed = parse(t, h.must(t, "PUT", item, update)) })
			h.written(t, c.id, true)
			h.transactions(t, "the same update", 0, func() { again = parse(t, h.must(t, "PUT", item, update)) })
			if diff := cmp.Diff(changed, again); diff != "" {
				t.Errorf("the same update answers otherwise:\n%s", diff)
			}
			if m := changed.Metadata; m.Version != 2 || m.UID != made.Metadata.UID || m.CreatedAt != made.Metadata.CreatedAt || m.ARN != made.Metadata.ARN || m.LastUpdatedAt < m.CreatedAt {
				t.Errorf("changed: %+v, was %+v", m, made.Metadata)
			}
			if diff := cmp.Diff(value(t, c.update), changed.Spec); diff != "" {
				t.Errorf("the spec is not replaced as a whole (-sent +got):\n%s", diff)
			}

			arn := "resourceArn=" + strings.NewReplacer(":", "%3A", "/", "%2F").Replace(made.Metadata.ARN)
			tag := `{"tags":[{"key":"k","value":"2"},{"key":"l","value":""}]}`
			h.transactions(t, "tag", 1, func() { h.must(t, "PUT", "/v20190125/tag?"+arn, tag) })
			h.written(t, c.id, true)
			h.transactions(t, "the same tags", 0, func() { h.must(t, "PUT", "/v20190125/tag?"+arn, tag) })
			h.transactions(t, "untag", 1, func() { h.must(t, "PUT", "/v20190125/untag?"+arn, `{"tagKeys":["k","none"]}`) })
			h.written(t, c.id, true)
			h.transactions(t, "untag what is not there", 0, func() { h.must(t, "PUT", "/v20190125/untag?"+arn, `{"tagKeys":["k","none"]}`) })
			if now := parse(t, h.must(t, "GET", item, "")); now.Metadata != changed.Metadata {
				t.Errorf("tags have changed the metadata: %+v, was %+v", now.Metadata, changed.Metadata)
			}

			before := float64(time.Now().Add(-time.Second).UnixMilli()) / 1000
			h.transactions(t, "delete", 1, func() { gone = parse(t, h.must(t, "DELETE", item, "")) })
			h.written(t, c.id, false)
			if m := gone.Metadata; gone.Status.Status != deleted || m.Version != 2+c.deletion || m.UID != made.Metadata.UID || m.LastUpdatedAt < before {
				t.Errorf("deleted: %+v", gone)
			}
			h.transactions(t, "delete what is gone", 0, func() {
				for _, method := range []string{"DELETE", "GET", "PUT"} {
					body := map[string]string{"PUT": update}[method]
					if a := h.send(t, method, item, body, nil); a.code != "NotFoundException" {
						t.Errorf("%s of what is gone: %d %s", method, a.status, a.body)
					}
				}
			})
			if a := h.send(t, "GET", "/v20190125/tags?"+arn, "", nil); a.code != "NotFoundException" {
				t.Errorf("tags of what is gone: %d %s", a.status, a.body)
			}

			// Its name is free at once, and remembers neither tags nor tokens.
			if c.id.Kind == mesh.KindMesh {
				h.must(t, "PUT", c.collection, `{"meshName":"m","clientToken":"t"}`)
			} else {
				h.must(t, "PUT", c.collection, fmt.Sprintf(`{%q:"m","clientToken":"t","spec":%s}`, c.member, c.spec))
			}
			if next := parse(t, h.must(t, "GET", item, "")); next.Metadata.Version != 1 || next.Metadata.UID == made.Metadata.UID {
				t.Errorf("made again: %+v", next.Metadata)
			}
			if a := h.must(t, "GET", "/v20190125/tags?"+arn, ""); a.body != `{"tags":[]}` {
				t.Errorf("made again, it has the tags of the one before: %s", a.body)
			}
		})
	}
}

// Specs come back as they were sent, in every answer: nothing is filled in but
// the port of health checks, absent members stay absent and empty ones empty.
func TestSpecsComeBackAsTheyWereSent(t *testing.T) {
	h := newHarness(t)
	h.must(t, "PUT", "/v20190125/meshes", `{"meshName":"m"}`)
	echoed := func(t *testing.T, collection, member, sent string) {
		t.Helper()
		want := filled(value(t, sent))
		for i, a := range []answer{
			h.must(t, "PUT", collection, fmt.Sprintf(`{%q:"x","spec":%s}`, member, sent)),
			h.must(t, "GET", collection+"/x", ""),
			h.must(t, "PUT", collection+"/x", `{"spec":`+sent+`}`),
			h.must(t, "DELETE", collection+"/x", ""),
		} {
			if diff := cmp.Diff(want, parse(t, a).Spec); diff != "" {
				t.Errorf("answer %d (-sent +got):\n%s", i, diff)
			}
		}
	}
	for _, set := range []struct {
		collection, member string
		cases              []ruleCase
	}{
		{inM + "/virtualNodes", "virtualNodeName", nodeCases()},
		{inM + "/virtualGateways", "virtualGatewayName", gatewayCases()},
		{inM + "/virtualRouters", "virtualRouterName", routerCases()},
	} {
		for _, c := range set.cases {
			if c.want == nil {
				t.Run(set.member+"/"+c.name, func(t *testing.T) { echoed(t, set.collection, set.member, c.spec) })
			}
		}
	}
	for _, spec := range []string{
		`{"backends":[]}`, `{"listeners":[],"backends":[]}`, `{"backendDefaults":{}}`, `{"backendDefaults":{"clientPolicy":{}}}`,
		`{"backends":[{"virtualService":{"virtualServiceName":"b","clientPolicy":{"tls":{"ports":[],"validation":{"trust":{"file":{"certificateChain":"/r"}}}}}}}]}`,
		`{"logging":{"accessLog":{"file":{"path":"/dev/stdout","format":{"json":[{"key":"k","value":"%START_TIME%"}]}}}}}`,
	} {
		t.Run(spec, func(t *testing.T) { echoed(t, inM+"/virtualNodes", "virtualNodeName", spec) })
	}
	for _, spec := range []string{`{}`, `{"serviceDiscovery":{}}`, `{"egressFilter":{"type":"DROP_ALL"}}`} {
		t.Run("mesh "+spec, func(t *testing.T) { echoed(t, "/v20190125/meshes", "meshName", spec) })
	}
}

// filled sets the ports of health checks that have none, as App Mesh does.
func filled(spec any) any {
	listeners, _ := spec.(map[string]any)["listeners"].([]any)
	for _, l := range listeners {
		check, ok := l.(map[string]any)["healthCheck"].(map[string]any)
		if ok && check["port"] == nil {
			check["port"] = l.(map[string]any)["portMapping"].(map[string]any)["port"]
		}
	}
	return spec
}
