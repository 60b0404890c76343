package server

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/appmesh"
	"github.com/aws/aws-sdk-go-v2/service/appmesh/types"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// request bodies of a small mesh, in an order in which it can be made.
var smallMesh = []struct{ path, item, body string }{
	{"/v20190125/meshes", "/m", `{"meshName":"m"}`},
	{"/v20190125/meshes/m/virtualNodes", "/blue", `{"virtualNodeName":"blue","spec":` + httpNode("blue.local") + `}`},
	{"/v20190125/meshes/m/virtualNodes", "/green", `{"virtualNodeName":"green","spec":` + httpNode("green.local") + `}`},
	{"/v20190125/meshes/m/virtualRouters", "/r", `{"virtualRouterName":"r","spec":{"listeners":[{"portMapping":{"port":8080,"protocol":"http"}}]}}`},
	{"/v20190125/meshes/m/virtualRouter/r/routes", "/x", `{"routeName":"x","spec":` + httpRoute("blue") + `}`},
	{"/v20190125/meshes/m/virtualServices", "/color.local", `{"virtualServiceName":"color.local","spec":{"provider":{"virtualRouter":{"virtualRouterName":"r"}}}}`},
	{"/v20190125/meshes/m/virtualServices", "/green.local", `{"virtualServiceName":"green.local","spec":{"provider":{"virtualNode":{"virtualNodeName":"green"}}}}`},
	{"/v20190125/meshes/m/virtualGateways", "/g", `{"virtualGatewayName":"g","spec":{"listeners":[{"portMapping":{"port":80,"protocol":"http"}}]}}`},
	{"/v20190125/meshes/m/virtualGateway/g/gatewayRoutes", "/gr", `{"gatewayRouteName":"gr","spec":` + gatewayRoute("color.local", "") + `}`},
}

func httpNode(hostname string) string {
	return `{"listeners":[{"portMapping":{"port":8080,"protocol":"http"}}],"serviceDiscovery":{"dns":{"hostname":"` + hostname + `"}}}`
}

func httpRoute(node string) string {
	return `{"httpRoute":{"match":{"prefix":"/"},"action":{"weightedTargets":[{"virtualNode":"` + node + `","weight":1}]}}}`
}

func gatewayRoute(service, port string) string {
	return `{"httpRoute":{"match":{"prefix":"/"},"action":{"target":{` + port + `"virtualService":{"virtualServiceName":"` + service + `"}}}}}`
}

func (h *harness) makeSmallMesh(t *testing.T) {
	t.Helper()
	for _, r := range smallMesh {
		h.must(t, "PUT", r.path, r.body)
	}
}

// deletionCases are deletions in smallMesh, in this order, and why each is
// refused, if it is.
var deletionCases = []struct{ delete, want string }{
	{"m", "Mesh m for account 123456789012 has active VirtualNodes, please delete VirtualNodes before deleting the Mesh"},
	{"blue", "VirtualNode with name blue cannot be deleted because it is the target of one or more routes."},
	{"green", "VirtualNode with name green cannot be deleted because it is a VirtualService provider"},
	{"r", "VirtualRouter with name r has active Routes, please delete Routes before deleting the VirtualRouter"},
	{"color.local", "VirtualService color.local is being referenced in the following: GATEWAY_ROUTE: [gr]"},
	{"g", "VirtualGateway with name g has active GatewayRoutes, please delete GatewayRoutes before deleting the VirtualGateway"},
	{"x", ""},
	{"r", "VirtualRouter with name r cannot be deleted because it is a VirtualService provider"},
	{"blue", ""},
	{"gr", ""},
	{"g", ""},
	{"color.local", ""},
	{"r", ""},
	{"green.local", ""},
	{"m", "Mesh m for account 123456789012 has active VirtualNodes, please delete VirtualNodes before deleting the Mesh"},
	{"green", ""},
	{"m", ""},
}

// What the rows of smallMesh are, is refused to be deleted while something
// needs it, and goes in the opposite order.
func TestDeleteOrder(t *testing.T) {
	h := newHarness(t)
	h.makeSmallMesh(t)
	at := func(name string) string {
		for _, r := range smallMesh {
			if r.item == "/"+name {
				return r.path + r.item
			}
		}
		t.Fatalf("no %s", name)
		return ""
	}
	for _, c := range deletionCases {
		a := h.send(t, "DELETE", at(c.delete), "", nil)
		switch {
		case c.want == "" && a.status != http.StatusOK:
			t.Errorf("delete %s: %d %s", c.delete, a.status, a.body)
		case c.want == "" && !strings.Contains(a.body, `"status":{"status":"DELETED"}`):
			t.Errorf("delete %s: status is not DELETED: %s", c.delete, a.body)
		case c.want != "" && (a.code != "ResourceInUseException" || a.status != http.StatusConflict || !strings.Contains(a.body, c.want)):
			t.Errorf("delete %s: got %d %s %s, want ResourceInUseException %q", c.delete, a.status, a.code, a.body, c.want)
		}
		if c.want == "" {
			if a := h.send(t, "GET", at(c.delete), "", nil); a.code != "NotFoundException" {
				t.Errorf("describe %s after its deletion: %d %s", c.delete, a.status, a.body)
			}
		}
	}
}

// A mesh is in use by what is in it, whatever that is.
func TestMeshInUse(t *testing.T) {
	h := newHarness(t)
	h.must(t, "PUT", "/v20190125/meshes", `{"meshName":"m"}`)
	for _, c := range []struct{ collection, body, nouns string }{
		{"/virtualNodes", `{"virtualNodeName":"x","spec":{}}`, "VirtualNodes"},
		{"/virtualServices", `{"virtualServiceName":"x","spec":{}}`, "VirtualServices"},
		{"/virtualRouters", `{"virtualRouterName":"x","spec":{}}`, "VirtualRouters"},
		{"/virtualGateways", `{"virtualGatewayName":"x","spec":{"listeners":[` + gatewayListener(80, ``) + `]}}`, "VirtualGateways"},
	} {
		h.must(t, "PUT", inM+c.collection, c.body)
		want := "Mesh m for account 123456789012 has active " + c.nouns + ", please delete " + c.nouns + " before deleting the Mesh"
		if a := h.send(t, "DELETE", inM, "", nil); a.code != "ResourceInUseException" || !strings.Contains(a.body, want) {
			t.Errorf("with %s: %d %s", c.nouns, a.status, a.body)
		}
		h.must(t, "DELETE", inM+c.collection+"/x", "")
	}
	h.must(t, "DELETE", inM, "")
}

// A resource through the SDK: what metadata says at each step, and that the
// spec comes back as it was sent, but for the port of the health check.
func TestLifeOfANode(t *testing.T) {
	h := newHarness(t)
	ctx := t.Context()
	if _, err := h.client.CreateMesh(ctx, &sdk.CreateMeshInput{MeshName: aws.String("m")}); err != nil {
		t.Fatal(err)
	}
	sent := &types.VirtualNodeSpec{
		Listeners: []types.Listener{{
			PortMapping: &types.PortMapping{Port: aws.Int32(8080), Protocol: types.PortProtocolHttp},
			HealthCheck: &types.HealthCheckPolicy{HealthyThreshold: aws.Int32(2), UnhealthyThreshold: aws.Int32(3), IntervalMillis: aws.Int64(5000), TimeoutMillis: aws.Int64(2000), Protocol: types.PortProtocolHttp},
		}},
		ServiceDiscovery: &types.ServiceDiscoveryMemberDns{Value: types.DnsServiceDiscovery{Hostname: aws.String("a.local")}},
		Backends:         []types.Backend{},
	}
	created, err := h.client.CreateVirtualNode(ctx, &sdk.CreateVirtualNodeInput{MeshName: aws.String("m"), VirtualNodeName: aws.String("a"), Spec: sent})
	if err != nil {
		t.Fatal(err)
	}
	first := created.VirtualNode.Metadata
	if got, want := aws.ToString(first.Arn), "arn:aws:appmesh:eu-west-1:123456789012:mesh/m/virtualNode/a"; got != want {
		t.Errorf("arn is %s, want %s", got, want)
	}
	if *first.Version != 1 || *first.MeshOwner != testAccount || *first.ResourceOwner != testAccount || len(*first.Uid) != 36 || !first.CreatedAt.Equal(*first.LastUpdatedAt) {
		t.Errorf("metadata of a new node: %+v", first)
	}
	if created.VirtualNode.Status.Status != types.VirtualNodeStatusCodeActive {
		t.Errorf("status is %s, want ACTIVE", created.VirtualNode.Status.Status)
	}
	want := *sent
	want.Listeners = []types.Listener{sent.Listeners[0]}
	check := *sent.Listeners[0].HealthCheck
	check.Port = aws.Int32(8080)
	want.Listeners[0].HealthCheck = &check
	described, err := h.client.DescribeVirtualNode(ctx, &sdk.DescribeVirtualNodeInput{MeshName: aws.String("m"), VirtualNodeName: aws.String("a"), MeshOwner: aws.String(testAccount)})
	if err != nil {
		t.Fatal(err)
	}
	ignore := []cmp.Option{cmpopts.IgnoreUnexported(types.VirtualNodeSpec{}, types.Listener{}, types.PortMapping{}, types.HealthCheckPolicy{}, types.ServiceDiscoveryMemberDns{}, types.DnsServiceDiscovery{})}
	if diff := cmp.Diff(&want, described.VirtualNode.Spec, ignore...); diff != "" {
		t.Errorf("spec (-want +got):\n%s", diff)
	}

	// An update replaces the spec as a whole.
	updated, err := h.client.UpdateVirtualNode(ctx, &sdk.UpdateVirtualNodeInput{MeshName: aws.String("m"), VirtualNodeName: aws.String("a"), Spec: &types.VirtualNodeSpec{}})
	if err != nil {
		t.Fatal(err)
	}
	second := updated.VirtualNode.Metadata
	if *second.Version != 2 || *second.Uid != *first.Uid || !second.CreatedAt.Equal(*first.CreatedAt) || second.LastUpdatedAt.Before(*first.LastUpdatedAt) {
		t.Errorf("metadata after an update: %+v", second)
	}
	if diff := cmp.Diff(&types.VirtualNodeSpec{}, updated.VirtualNode.Spec, ignore...); diff != "" {
		t.Errorf("spec after an update (-want +got):\n%s", diff)
	}
	gone, err := h.client.DeleteVirtualNode(ctx, &sdk.DeleteVirtualNodeInput{MeshName: aws.String("m"), VirtualNodeName: aws.String("a")})
	if err != nil {
		t.Fatal(err)
	}
	if gone.VirtualNode.Status.Status != types.VirtualNodeStatusCodeDeleted || *gone.VirtualNode.Metadata.Version != 3 {
		t.Errorf("deleted node: %+v %+v", gone.VirtualNode.Status, gone.VirtualNode.Metadata)
	}
	again, err := h.client.CreateVirtualNode(ctx, &sdk.CreateVirtualNodeInput{MeshName: aws.String("m"), VirtualNodeName: aws.String("a"), Spec: &types.VirtualNodeSpec{}})
	if err != nil {
		t.Fatal(err)
	}
	if m := again.VirtualNode.Metadata; *m.Version != 1 || *m.Uid == *first.Uid {
		t.Errorf("metadata of a node made again under its name: %+v", m)
	}
}

// A mesh may have no spec, in any of the forms that clients send.
func TestMeshWithoutSpec(t *testing.T) {
	h := newHarness(t)
	for i, body := range []string{`{"meshName":"m0"}`, `{"meshName":"m1","spec":{}}`, `{"meshName":"m2","spec":null}`} {
		a := h.must(t, "PUT", "/v20190125/meshes", body)
		if !strings.Contains(a.body, `"spec":{}`) {
			t.Errorf("%s: answer has no empty spec: %s", body, a.body)
		}
		if a := h.must(t, "PUT", fmt.Sprintf("/v20190125/meshes/m%d", i), `{"clientToken":"t"}`); !strings.Contains(a.body, `"version":2`) {
			t.Errorf("update without spec: %s", a.body)
		}
	}
}

// The same request with the same token is made once.
func TestClientTokens(t *testing.T) {
	h := newHarness(t)
	h.must(t, "PUT", "/v20190125/meshes", `{"meshName":"m"}`)
	const create, item = "/v20190125/meshes/m/virtualNodes", "/v20190125/meshes/m/virtualNodes/a"
	for _, step := range []struct{ name, path, body, want string }{
		{"create", create, `{"virtualNodeName":"a","clientToken":"t1","spec":{}}`, `"version":1`},
		{"the same again", create, `{"virtualNodeName":"a","clientToken":"t1","spec":{}}`, `"version":1`},
		{"members in another order", create, `{"spec":{},"clientToken":"t1","virtualNodeName":"a"}`, `"version":1`},
		{"other tags", create, `{"virtualNodeName":"a","clientToken":"t1","spec":{},"tags":[{"key":"k","value":"v"}]}`, `VirtualNode with name a already exists under mesh m for account 123456789012`},
		{"another token", create, `{"virtualNodeName":"a","clientToken":"t2","spec":{}}`, `VirtualNode with name a already exists under mesh m for account 123456789012`},
		{"no token", create, `{"virtualNodeName":"a","spec":{}}`, `VirtualNode with name a already exists under mesh m for account 123456789012`},
		{"update", item, `{"clientToken":"u1","spec":{"backends":[]}}`, `"version":2`},
		{"the same update again", item, `{"clientToken":"u1","spec":{"backends":[]}}`, `"version":2`},
		{"its token for another update", item, `{"clientToken":"u1","spec":{}}`, `The request contains a client token that was used for a previous update resource call with different specifications. Try the request again with a new client token.`},
		{"its token for another's update", "/v20190125/meshes/m", `{"clientToken":"u1"}`, `"version":2`},
		{"update without token", item, `{"spec":{}}`, `"version":3`},
		{"and again", item, `{"spec":{}}`, `"version":4`},
		{"the first create, late", create, `{"virtualNodeName":"a","clientToken":"t1","spec":{}}`, `"version":4`},
	} {
		if a := h.send(t, "PUT", step.path, step.body, nil); !strings.Contains(a.body, step.want) {
			t.Errorf("%s: got %d %s, want %s", step.name, a.status, a.body, step.want)
		}
	}
}

// Pages hold what they are asked to, and all of them together hold everything.
func TestPages(t *testing.T) {
	h := newHarness(t)
	ctx := t.Context()
	var want []string
	for i := range 7 {
		name := fmt.Sprintf("mesh-%d", i)
		want = append(want, name)
		h.must(t, "PUT", "/v20190125/meshes", `{"meshName":"`+name+`"}`)
	}
	var got []string
	pages := sdk.NewListMeshesPaginator(h.client, &sdk.ListMeshesInput{}, func(o *sdk.ListMeshesPaginatorOptions) { o.Limit = 3 })
	sizes := []int{}
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(page.Meshes))
		for _, m := range page.Meshes {
			got = append(got, *m.MeshName)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("meshes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]int{3, 3, 1}, sizes); diff != "" {
		t.Errorf("page sizes (-want +got):\n%s", diff)
	}

	// A second page without a limit has all the rest; a foreign token is refused.
	first, err := h.client.ListMeshes(ctx, &sdk.ListMeshesInput{Limit: aws.Int32(2)})
	if err != nil {
		t.Fatal(err)
	}
	rest, err := h.client.ListMeshes(ctx, &sdk.ListMeshesInput{NextToken: first.NextToken})
	if err != nil || len(rest.Meshes) != 5 || rest.NextToken != nil {
		t.Errorf("rest: %d meshes, token %v, error %v", len(rest.Meshes), rest.NextToken, err)
	}
	for _, token := range []string{"x", "", *first.NextToken} {
		_, err := h.client.ListVirtualNodes(ctx, &sdk.ListVirtualNodesInput{MeshName: aws.String("mesh-1"), NextToken: aws.String(token)})
		if code, _ := exception(err); token != "" && code != "BadRequestException" {
			t.Errorf("token %q of another list: %v", token, err)
		}
	}
	for _, limit := range []int32{0, 101} {
		_, err := h.client.ListMeshes(ctx, &sdk.ListMeshesInput{Limit: aws.Int32(limit)})
		if code, _ := exception(err); code != "BadRequestException" {
			t.Errorf("limit %d: %v", limit, err)
		}
	}
}

func TestTags(t *testing.T) {
	h := newHarness(t)
	h.makeSmallMesh(t)
	const arn = "arn%3Aaws%3Aappmesh%3Aeu-west-1%3A123456789012%3Amesh%2F"
	list := func(resource string) string {
		return h.must(t, "GET", "/v20190125/tags?resourceArn="+arn+resource, "").body
	}
	for _, resource := range []string{"m", "m%2FvirtualNode%2Fblue", "m%2FvirtualService%2Fcolor.local", "m%2FvirtualRouter%2Fr", "m%2FvirtualRouter%2Fr%2Froute%2Fx", "m%2FvirtualGateway%2Fg", "m%2FvirtualGateway%2Fg%2FgatewayRoute%2Fgr"} {
		h.must(t, "PUT", "/v20190125/tag?resourceArn="+arn+resource, `{"tags":[{"key":"b","value":"1"},{"key":"a","value":""}]}`)
		h.must(t, "PUT", "/v20190125/tag?resourceArn="+arn+resource, `{"tags":[{"key":"b","value":"2"}]}`)
		if got, want := list(resource), `{"tags":[{"key":"a","value":""},{"key":"b","value":"2"}]}`; got != want {
			t.Errorf("tags of %s: %s, want %s", resource, got, want)
		}
		h.must(t, "PUT", "/v20190125/untag?resourceArn="+arn+resource, `{"tagKeys":["a","none"]}`)
		if got, want := list(resource), `{"tags":[{"key":"b","value":"2"}]}`; got != want {
			t.Errorf("tags of %s: %s, want %s", resource, got, want)
		}
	}
	if a := h.must(t, "GET", "/v20190125/meshes/m/virtualNodes/blue", ""); !strings.Contains(a.body, `"version":1`) {
		t.Errorf("tagging has changed the version: %s", a.body)
	}
	var many []string
	for i := range 50 {
		many = append(many, fmt.Sprintf(`{"key":"k%d","value":"v"}`, i))
	}
	for _, c := range []struct{ name, resource, body, code, message string }{
		{"too many", "m", `{"tags":[` + strings.Join(many, ",") + `]}`, "TooManyTagsException", "has at most 50 tags"},
		{"reserved", "m", `{"tags":[{"key":"aws:x","value":""}]}`, "BadRequestException", `tags[0].key: \"aws:x\" is reserved`},
		{"unknown key of Fairlead's", "m", `{"tags":[{"key":"fairlead:tls-san-mach","value":"literal"}]}`, "BadRequestException", `tags[0].key: \"fairlead:tls-san-mach\" is not known to this version`},
		{"twice", "m", `{"tags":[{"key":"a","value":""},{"key":"a","value":"1"}]}`, "BadRequestException", `tags[1].key: \"a\" is given twice`},
		{"without value", "m", `{"tags":[{"key":"a"}]}`, "BadRequestException", `tags[0].value`},
		{"of what is not there", "m%2FvirtualNode%2Fno", `{"tags":[]}`, "NotFoundException", "VirtualNode with name no is not present under mesh m for account 123456789012"},
		{"of no resource", "m%2Fno%2Fno", `{"tags":[]}`, "BadRequestException", "is an invalid ARN"},
	} {
		if a := h.send(t, "PUT", "/v20190125/tag?resourceArn="+arn+c.resource, c.body, nil); a.code != c.code || !strings.Contains(a.body, c.message) {
			t.Errorf("%s: got %d %s, want %s %s", c.name, a.status, a.body, c.code, c.message)
		}
	}
	foreign := strings.Replace(arn, testAccount, "111111111111", 1) + "m"
	if a := h.send(t, "GET", "/v20190125/tags?resourceArn="+foreign, "", nil); a.code != "AccessDeniedException" || !strings.Contains(a.body, "Invalid account id in the ARN provided : 111111111111") {
		t.Errorf("tags of another account's mesh: %d %s %s", a.status, a.code, a.body)
	}
}

// What is wrong on the wire is refused where it is wrong, and nothing is made.
func TestBadRequests(t *testing.T) {
	h := newHarness(t)
	const path = "/v20190125/meshes"
	for _, c := range []struct {
		name    string
		body    string
		change  func(*http.Request)
		status  int
		code    string
		message string
	}{
		{"unsigned", `{"meshName":"m"}`, func(r *http.Request) { r.Header.Del("Authorization") }, 403, "MissingAuthenticationTokenException", ""},
		{"a wrong signature", `{"meshName":"m"}`, func(r *http.Request) {
			a := r.Header.Get("Authorization")
			r.Header.Set("Authorization", a[:len(a)-4]+"0000")
		}, 403, "InvalidSignatureException", ""},
		{"a signature of another query", `{"meshName":"m"}`, func(r *http.Request) { r.URL.RawQuery = "x=1" }, 403, "InvalidSignatureException", ""},
		{"an unknown field", `{"meshName":"m","spec":{"egressFiler":{}}}`, nil, 400, "BadRequestException", `spec.egressFiler`},
		{"a mistyped tls is no plaintext", `{"meshName":"m","spec":{"egressFilter":{"type":"ALLOW_ALL","tsl":1}}}`, nil, 400, "BadRequestException", `spec.egressFilter.tsl`},
		{"malformed JSON", `{"meshName":"m"`, nil, 400, "", ``},
		{"trailing data", `{"meshName":"m"}{}`, nil, 400, "", ``},
		{"a name twice", `{"meshName":"m","meshName":"n"}`, nil, 400, "", ``},
		{"all faults at once", `{"meshName":"","spec":{"egressFilter":{"type":"ALL"},"serviceDiscovery":{"ipPreference":"v6"}}}`, nil, 400, "BadRequestException", `egressFilter.type`},
		{"10 MB", `{"meshName":"` + strings.Repeat("m", 10<<20) + `"}`, nil, 413, "", ``},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := h.send(t, "PUT", path, c.body, c.change)
			if a.status != c.status || c.code != "" && a.code != c.code || !strings.Contains(a.body, c.message) || len(a.body) > 4096 {
				t.Errorf("got %d %s %.500s, want %d %s %s", a.status, a.code, a.body, c.status, c.code, c.message)
			}
			if a.header.Get("X-Amzn-Requestid") == "" {
				t.Error("no request id")
			}
		})
	}
	if a := h.must(t, "GET", path, ""); a.body != `{"meshes":[]}` {
		t.Errorf("something was made: %s", a.body)
	}
}

// A valid spec that will surprise is answered with a warning.
func TestWarnings(t *testing.T) {
	h := newHarness(t)
	h.must(t, "PUT", "/v20190125/meshes", `{"meshName":"m"}`)
	node := func(mode string) string {
		return `{"virtualNodeName":"n-` + mode + `","spec":{"listeners":[{"portMapping":{"port":8080,"protocol":"http"},"tls":{"mode":"` + mode + `",
			"certificate":{"file":{"certificateChain":"/c","privateKey":"/k"}},"validation":{"trust":{"file":{"certificateChain":"/r"}}}}}],"serviceDiscovery":{"dns":{"hostname":"a"}}}}`
	}
	for mode, want := range map[string]int{"PERMISSIVE": 2, "STRICT": 1, "DISABLED": 0} {
		a := h.must(t, "PUT", "/v20190125/meshes/m/virtualNodes", node(mode))
		if got := a.header.Values(WarningHeader); len(got) != want {
			t.Errorf("%s with validation: %d warnings, want %d: %q", mode, len(got), want, got)
		}
	}
}
