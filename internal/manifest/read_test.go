package manifest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/mesh/meshgen"
)

func TestRead(t *testing.T) {
	text := `# a comment
meshName: apps
---
---
meshName: apps
meshOwner: "111122223333"
virtualNodeName: web
spec:
  listeners:
  - portMapping: &http {port: 8080, protocol: http}
tags:
- {key: on, value: "yes"}
- {key: y, value: no}
...
---
- meshName: apps
  virtualRouterName: r
  spec: {listeners: [{portMapping: *http}]}
- meshName: apps
  virtualRouterName: r
  routeName: all
  spec: {priority: 0x10}
  tags: []
`
	got, err := Read("apps.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	port := appmesh.PortMapping{Port: 8080, Protocol: "http"}
	priority := int64(16)
	want := []Resource{
		{Mesh: "apps", ID: mesh.ID{Kind: mesh.KindMesh, Name: "apps"}, Spec: &appmesh.MeshSpec{}, Source: "apps.yaml:2 (document 1)"},
		{
			Mesh: "apps", MeshOwner: "111122223333", ID: mesh.ID{Kind: mesh.KindVirtualNode, Name: "web"},
			Spec: &appmesh.VirtualNodeSpec{Listeners: []appmesh.Listener{{PortMapping: &port}}},
			Tags: map[string]string{"on": "yes", "y": "no"}, Source: "apps.yaml:5 (document 2)",
		},
		{
			Mesh: "apps", ID: mesh.ID{Kind: mesh.KindVirtualRouter, Name: "r"},
			Spec: &appmesh.VirtualRouterSpec{Listeners: []appmesh.VirtualRouterListener{{PortMapping: &port}}}, Source: "apps.yaml:16 (document 3)",
		},
		{
			Mesh: "apps", ID: mesh.ID{Kind: mesh.KindRoute, Parent: "r", Name: "all"},
			Spec: &appmesh.RouteSpec{Priority: &priority}, Tags: map[string]string{}, Source: "apps.yaml:19 (document 4)",
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestReadJSON(t *testing.T) {
	text := "\ufeff\n {\"meshName\": \"a\"}\n[\n{\"meshName\": \"b\"}, {\"meshName\": \"\\u263a\",\n\"spec\": null}]\n"
	got, err := Read("-", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range got {
		names = append(names, r.String()+" "+r.Source)
	}
	want := []string{"mesh/a -:2 (document 1)", "mesh/b -:4 (document 2)", "mesh/☺ -:4 (document 3)"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestReadRefuses: what each document is told, all of it.
func TestReadRefuses(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"a: [", "x.yaml: is not valid YAML: line 1: did not find expected node content"},
		{"meshName: a\n  b: c", "x.yaml: is not valid YAML: line 2: mapping values are not allowed in this context"},
		{"{meshName: a, spec: *no}", "x.yaml: is not valid YAML: unknown anchor 'no' referenced"},
		{"text", "x.yaml:1: is not an object: a document is the create request of one resource, with meshName and spec"},
		{"[[1]]", "x.yaml:1: is not an object: a document is the create request of one resource, with meshName and spec"},
		{"Resources: {}", "x.yaml:1: has no meshName: a document is the create request of one resource (fairlead import reads other formats)"},
		{"{meshName: a, clientToken: b}", "x.yaml:1: clientToken must be removed: the command makes a new one for each request"},
		{"{meshName: a, routeName: r}", "x.yaml:1: names a route but not its virtualRouter: virtualRouterName is required"},
		{"{meshName: a, gatewayRouteName: r}", "x.yaml:1: names a gatewayRoute but not its virtualGateway: virtualGatewayName is required"},
		{"{meshName: a, virtualNodeName: n, routeName: r}", "x.yaml:1: is one resource per document, and no resource has routeName and virtualNodeName together"},
		{`{meshName: a, meshOwner: "111122223333"}`, "x.yaml:1: meshOwner must be removed: a mesh is made in the caller's account"},
		{"{meshName: a, virtualNodeName: n}", "x.yaml:1: spec is required"},
		{"{meshName: a, virtualNodeName: null, spec: {}}", "x.yaml:1: virtualNodeName is required"},
		{`{meshName: a, virtualNodeName: "", spec: {}}`, "x.yaml:1: virtualNodeName must be at least 1 characters long, not 0"},
		{"{meshName: a, virtualnodeName: n}", "x.yaml:1: virtualnodeName is not a known field; did you mean virtualNodeName?"},
		{"{meshName: a, virtualNodeName: n, meshOwner: 111122223333, spec: {}}", "x.yaml:1: meshOwner must be a string, not a number 111122223333"},
		{"{meshName: a, meshName: b}", `x.yaml:1: line 1: "meshName" is given twice`},
		{`{"meshName": "a", "meshName": "b"}`, `x.yaml:1: line 1: "meshName" is given twice`},
		{"{meshName: a, tags: {a: b}}", "x.yaml:1: tags must be a list, not an object"},
		{"{meshName: a, tags: [{key: a, value: b}, {key: a, value: b}]}", `x.yaml:1: tags[1].key "a" is given twice`},
		{"{meshName: a, tags: [{key: a}]}", "x.yaml:1: tags[0].value is required"},
		{"{meshName: a, spec: !Ref b}", "x.yaml:1: line 1: the YAML tag !Ref is not supported here (fairlead import reads CloudFormation templates)"},
		{"{meshName: a, spec: !!binary aGk=}", "x.yaml:1: line 1: the YAML tag !!binary is not supported here (fairlead import reads CloudFormation templates)"},
		{"{meshName: a, spec: {<<: {a: b}}}", "x.yaml:1: line 1: << is not supported: write the members out, or use an alias for a whole value"},
		{"{meshName: a, spec: {[a]: b}}", "x.yaml:1: line 1: the name of a member must be text"},
		{"{meshName: a, spec: .nan}", "x.yaml:1: line 1: .nan is not a number as JSON has it"},
		{"{meshName: a, spec: 99999999999999999999}", "x.yaml:1: spec must be an object, not a number 99999999999999999999"},
		{"meshName: a\nspec: &a\n  b: *a", "x.yaml:1: line 2: is nested more than 100 levels deep"},
		{
			"{meshName: a, virtualNodeName: n, spec: {listeners: [{portMapping: {port: 70000, protocol: web}}], backend: 1}}\n---\n{meshName: b, spec: {egressFilter: {}}}",
			"x.yaml:1 (document 1): spec.backend is not a known field; did you mean backends?\n" +
				"x.yaml:1 (document 1): spec.listeners[0].portMapping.port must be at most 65535, not 70000\n" +
				"x.yaml:1 (document 1): spec.listeners[0].portMapping.protocol must be one of http, tcp, http2, grpc, not \"web\"\n" +
				"x.yaml:3 (document 2): spec.egressFilter.type is required",
		},
	} {
		got, err := Read("x.yaml", []byte(test.text))
		if err == nil || err.Error() != test.want {
			t.Errorf("%s:\n got %v %v\nwant %s", test.text, got, err, test.want)
		}
	}
}

func TestReadBounds(t *testing.T) {
	// Nine lines that stand for a thousand million strings.
	bomb := "meshName: a\na0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
	for i := range 9 {
		bomb += fmt.Sprintf("a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i), 10), ","))
	}
	long := "meshName: a\na: &a " + strings.Repeat("x", MaxDocument/2) + "\nb: [" + strings.Repeat("*a,", 10000) + "]\n"
	for name, test := range map[string]struct{ file, text, want string }{
		"aliases of aliases": {"x", bomb, "has more than 1048576 bytes as JSON"},
		"aliases of a text":  {"x", long, "has more than 1048576 bytes as JSON"},
		"a large document":   {"x.json", `{"meshName": "` + strings.Repeat("x", MaxDocument) + `"}`, "has more than 1048576 bytes as JSON"},
		"a large file":       {"x", strings.Repeat("# much ado\n", MaxFile/11+1), "has 8388611 bytes; at most 8388608 are read"},
		"deep YAML":          {"x", strings.Repeat("[", 100000), "is not valid YAML: exceeded max depth of 10000"},
		"deep JSON":          {"x.json", strings.Repeat("[", 100000), "is not valid JSON: "},
		"many faults":        {"x", strings.Repeat("{}\n---\n", 1000), "x: and 900 more"},
		"half a JSON file":   {"x.json", `[{"meshName": "a"},`, "is not valid JSON: "},
	} {
		if _, err := Read(test.file, []byte(test.text)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %.300v, want %s", name, err, test.want)
		}
	}
}

func TestUnique(t *testing.T) {
	one, err := Read("one.yaml", []byte("{meshName: a}"))
	if err != nil {
		t.Fatal(err)
	}
	two, err := Read("two.yaml", []byte("{meshName: b}\n---\n{meshName: a}"))
	if err != nil {
		t.Fatal(err)
	}
	err = Unique(append(one, two...))
	if want := "two.yaml:3 (document 2): mesh/a is in one.yaml:1 already"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := Unique(append(one, two[0])); err != nil {
		t.Error(err)
	}
}

// resourcesOf are all resources of a view.
func resourcesOf(view *mesh.View) []Resource {
	list := []Resource{{Mesh: meshgen.Mesh.Mesh, ID: mesh.ID{Kind: mesh.KindMesh, Name: meshgen.Mesh.Mesh}, Spec: view.Mesh.Spec}}
	add := func(id mesh.ID, spec any) {
		list = append(list, Resource{Mesh: meshgen.Mesh.Mesh, ID: id, Spec: spec, Tags: map[string]string{"kind": string(id.Kind), "n": "1"}})
	}
	for _, r := range view.VirtualNodes {
		add(r.ID, r.Spec)
	}
	for _, r := range view.VirtualServices {
		add(r.ID, r.Spec)
	}
	for _, r := range view.VirtualRouters {
		add(r.ID, r.Spec)
	}
	for _, r := range view.VirtualGateways {
		add(r.ID, r.Spec)
	}
	for _, r := range view.Routes {
		add(r.ID, r.Spec)
	}
	for _, r := range view.GatewayRoutes {
		add(r.ID, r.Spec)
	}
	Sort(list)
	return list
}

// TestWrittenIsRead: whatever a mesh has is the same after it was written and read.
func TestWrittenIsRead(t *testing.T) {
	for seed := range uint64(20) {
		want := resourcesOf(meshgen.View(rand.New(rand.NewPCG(seed, 7)), 10))
		for _, asJSON := range []bool{false, true} {
			again(t, want, asJSON)
		}
	}
}

func again(t *testing.T, want []Resource, asJSON bool) {
	t.Helper()
	text, err := Write(want, asJSON)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Read("written", text)
	if err != nil {
		t.Fatalf("what was written is not read: %v\n%s", err, text)
	}
	for i := range want {
		if i >= len(got) {
			t.Fatalf("%d resources were written, %d read", len(want), len(got))
		}
		want, got := want[i], got[i]
		want.Source, got.Source = "", ""
		if len(want.Tags) == 0 {
			want.Tags = nil // an empty list is not written
		}
		same, err := SameSpec(want.Spec, served(got.Spec))
		if err != nil {
			t.Fatal(err)
		}
		want.Spec, got.Spec = nil, nil
		if diff := cmp.Diff(want, got); diff != "" || !same {
			t.Errorf("json %t: same spec %t, (-written +read):\n%s\n%s", asJSON, same, diff, text)
		}
	}
}

// TestTextStaysText: YAML has many ways to read a word as something else.
func TestTextStaysText(t *testing.T) {
	want := Resource{Mesh: "0x10", ID: mesh.ID{Kind: mesh.KindVirtualNode, Name: "0o17"}, Spec: &appmesh.VirtualNodeSpec{}, Tags: map[string]string{}}
	for _, text := range []string{
		"yes", "no", "on", "y", "null", "~", "true", "1", "1e3", "0x1F", "0o7", "010", "1_000", ".inf", "2001-01-01", "12:30:45", "=", "<<", "*a", "&a", "!a", "%a", "@a", "`a", "- a", "a: b", "a #b",
		"{a", "[a", "'", `"`, "a\nb", " a", "a ", "\t", "---", "...", "?", ":", "|", ">", "\u0085", "\u2028", "\ufeff", "☺", "a\\b", "#",
	} {
		want.Tags["k"+text] = text
	}
	again(t, []Resource{want}, false)
	again(t, []Resource{want}, true)
}

func FuzzRead(f *testing.F) {
	f.Add("x.yaml", []byte("meshName: a\nspec: &x {egressFilter: {type: DROP_ALL}}\n---\n- {meshName: b, spec: *x}\n"))
	f.Add("x.json", []byte(`[{"meshName": "a", "virtualNodeName": "n", "spec": {}, "tags": [{"key": "k", "value": "v"}]}]`))
	f.Add("-", []byte(`{"meshName": "a", "virtualRouterName": "r", "routeName": "x", "spec": {"httpRoute": {"match": {"prefix": "/"}, "action": {"weightedTargets": [{"virtualNode": "n", "weight": 1}]}}}}`))
	f.Add("-", []byte("{meshName: a, spec: {a: 0x1, b: .5, c: 1e3, d: ~, e: !!str 1, f: 2001-01-01}}"))
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		resources, err := Read(name, data)
		if err != nil {
			return
		}
		again(t, resources, false)
		again(t, resources, true)
	})
}
