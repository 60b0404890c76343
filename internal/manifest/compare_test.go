package manifest

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
)

// read reads documents that must be good.
func read(t *testing.T, text string) []Resource {
	t.Helper()
	resources, err := Read("x.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return resources
}

func TestSameSpec(t *testing.T) {
	node := func(spec string) any {
		return read(t, "{meshName: a, virtualNodeName: n, spec: "+spec+"}")[0].Spec
	}
	check := "{portMapping: {port: 80, protocol: http}, healthCheck: {protocol: http, healthyThreshold: 2, unhealthyThreshold: 2, timeoutMillis: 2000, intervalMillis: 5000%s}}"
	with := func(port string) any { return node("{listeners: [" + strings.Replace(check, "%s", port, 1) + "]}") }
	for name, test := range map[string]struct {
		file, server any
		want         bool
	}{
		"empty":                             {node("{}"), node("{}"), true},
		"the server fills in the port":      {with(""), with(", port: 80"), true},
		"another port":                      {with(", port: 81"), with(", port: 80"), false},
		"a port that the server lacks":      {with(", port: 80"), with(""), false},
		"order of members":                  {node("{backends: [], listeners: []}"), node("{listeners: [], backends: []}"), true},
		"an empty list is echoed":           {node("{backends: []}"), node("{}"), false},
		"null counts as absent":             {node("{backends: null}"), node("{}"), true},
		"order of a list":                   {node("{backends: [{virtualService: {virtualServiceName: a}}, {virtualService: {virtualServiceName: b}}]}"), node("{backends: [{virtualService: {virtualServiceName: b}}, {virtualService: {virtualServiceName: a}}]}"), false},
		"false is not absent, as on a wire": {node("{backendDefaults: {clientPolicy: {tls: {enforce: false, validation: {trust: {sds: {secretName: a}}}}}}}"), node("{backendDefaults: {clientPolicy: {tls: {validation: {trust: {sds: {secretName: a}}}}}}}"), false},
	} {
		got, err := SameSpec(test.file, test.server)
		if err != nil || got != test.want {
			t.Errorf("%s: %t, %v", name, got, err)
		}
	}
}

func TestTagChanges(t *testing.T) {
	type tags = map[string]string
	for _, test := range []struct {
		file, server tags
		set          tags
		remove       []string
	}{
		{nil, tags{"a": "1"}, nil, nil},
		{tags{}, tags{"b": "1", "a": "1"}, tags{}, []string{"a", "b"}},
		{tags{"a": "1"}, tags{"a": "1"}, tags{}, nil},
		{tags{"a": "2", "b": ""}, tags{"a": "1", "c": "1"}, tags{"a": "2", "b": ""}, []string{"c"}},
	} {
		set, remove := TagChanges(test.file, test.server)
		if diff := cmp.Diff(test.set, set) + cmp.Diff(test.remove, remove); diff != "" {
			t.Errorf("%v over %v: %s", test.file, test.server, diff)
		}
	}
}

func TestDiff(t *testing.T) {
	server := read(t, `{meshName: a, virtualNodeName: n, spec: {backends: [
		{virtualService: {virtualServiceName: a}}, {virtualService: {virtualServiceName: b}}, {virtualService: {virtualServiceName: c}}]}, tags: [{key: k, value: v}]}`)[0]
	file := read(t, `{meshName: a, virtualNodeName: n, spec: {backends: [
		{virtualService: {virtualServiceName: a}}, {virtualService: {virtualServiceName: B}}, {virtualService: {virtualServiceName: c}}]}}`)[0]
	for _, test := range []struct {
		before, after *Resource
		want          string
	}{
		{&server, &file, `--- virtualNode/n (mesh a)
+++ virtualNode/n (mesh a) x.yaml:1
@@ -3,7 +3,7 @@
     - virtualService:
         virtualServiceName: a
     - virtualService:
-        virtualServiceName: b
+        virtualServiceName: B
     - virtualService:
         virtualServiceName: c
 tags:
`},
		{nil, &Resource{Mesh: "a", ID: mesh.ID{Kind: mesh.KindMesh, Name: "a"}, Spec: &appmesh.MeshSpec{}, Source: "x.yaml:9"}, "--- (new)\n+++ mesh/a x.yaml:9\n@@ -0,0 +1,1 @@\n+spec: {}\n"},
		{&Resource{Mesh: "a", ID: mesh.ID{Kind: mesh.KindMesh, Name: "a"}, Spec: &appmesh.MeshSpec{}}, nil, "--- mesh/a\n+++ (deleted)\n@@ -1,1 +0,0 @@\n-spec: {}\n"},
	} {
		got, err := Diff(test.before, test.after)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

// TestUnifiedIsFaithful: kept and removed lines are the old text, kept and added
// ones the new one, whatever the two are.
func TestUnifiedIsFaithful(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	text := func(n int) []string {
		lines := []string{}
		for range n {
			lines = append(lines, string(rune('a'+rng.IntN(4))))
		}
		return lines
	}
	for range 500 {
		before, after := text(rng.IntN(12)), text(rng.IntN(12))
		old, new := []string{}, []string{}
		for _, e := range compareLines(before, after) {
			if e.sign != '+' {
				old = append(old, e.text)
			}
			if e.sign != '-' {
				new = append(new, e.text)
			}
		}
		if !slices.Equal(before, old) || !slices.Equal(after, new) {
			t.Fatalf("%v to %v: %v", before, after, compareLines(before, after))
		}
	}
	if edits := compareLines(text(3000), text(3000)); len(edits) < 3000 {
		t.Errorf("large texts: %d lines", len(edits))
	}
}
