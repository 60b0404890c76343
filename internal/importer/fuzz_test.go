package importer

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/manifest"
)

// Whatever a file holds, reading it ends, and what is carried over is valid and
// can be read again as it was written.

func FuzzDescribe(f *testing.F) { fuzz(f, Describe, "describe") }
func FuzzCloudFormation(f *testing.F) {
	fuzz(f, CloudFormation, "cloudformation-yaml", "cloudformation-json")
}
func FuzzTerraform(f *testing.F)  { fuzz(f, Terraform, "terraform-state", "terraform-show") }
func FuzzKubernetes(f *testing.F) { fuzz(f, Kubernetes, "kubernetes") }

func fuzz(f *testing.F, format Format, archives ...string) {
	for _, name := range archives {
		archive, err := txtar.ParseFile(filepath.Join("testdata", name+".txtar"))
		if err != nil {
			f.Fatal(err)
		}
		inputs, _ := readArchive(archive)
		for _, in := range inputs {
			f.Add(in.Data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		options := Options{Format: format, Parameters: map[string]string{"AWS::Region": "us-east-1"}}
		result, err := Read([]Input{{Name: "in", Data: data}}, options)
		if err != nil {
			return
		}
		for _, r := range result.Resources {
			if faults := awsapi.Validate(r.Spec); len(faults) > 0 {
				t.Errorf("%s was carried over, but %v", r.ID, faults)
			}
		}
		sameInBoth(t, result.Resources)
		var report strings.Builder
		if err := result.WriteReport(&report); err != nil {
			t.Error(err)
		}
		if result.Complete != (len(result.Lost) == 0) || len(result.Carried) != len(result.Resources) {
			t.Error("the result contradicts itself")
		}
	})
}

// sameInBoth writes resources as YAML and as JSON and reads both.
func sameInBoth(t *testing.T, resources []manifest.Resource) {
	t.Helper()
	asYAML, err := manifest.Write(resources, false)
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := manifest.Write(resources, true)
	if err != nil {
		t.Fatal(err)
	}
	if len(resources) == 0 {
		return
	}
	documents, err := parse(asYAML)
	if err != nil {
		t.Fatalf("%v\n%s", err, asYAML)
	}
	list, err := parse(asJSON)
	if err != nil {
		t.Fatal(err)
	}
	var fromYAML, fromJSON []any
	for _, n := range documents {
		fromYAML = append(fromYAML, plain(n))
	}
	for _, n := range list[0].items {
		fromJSON = append(fromJSON, plain(n))
	}
	if diff := cmp.Diff(fromJSON, fromYAML); diff != "" {
		t.Errorf("YAML does not say what JSON says (-JSON +YAML):\n%s", diff)
	}
}

// Small files that would write out to something huge are refused, soon.
func TestBombs(t *testing.T) {
	aliases := "a0: &a0 [x, x, x, x, x, x, x, x]\n"
	for i := range 12 {
		this, last := string(rune('a'+i+1)), string(rune('a'+i))
		if i == 0 {
			last = "a0"
		}
		aliases += this + ": &" + this + " [" + strings.TrimSuffix(strings.Repeat("*"+last+", ", 8), ", ") + "]\n"
	}
	doubling := `{"Conditions": {}, "Resources": {"N0": {"Type": "AWS::AppMesh::VirtualNode", "Properties": {"MeshName": "m", "VirtualNodeName": "nnnnnnnn", "Spec": {}}}`
	for i := range 40 {
		last := strings.Repeat("${N"+string(rune('0'+i))+".VirtualNodeName}", 2)
		doubling += `, "N` + string(rune('0'+i+1)) + `": {"Type": "AWS::AppMesh::VirtualNode", "Properties": {"MeshName": "m", "VirtualNodeName": {"Fn::Sub": "` + last + `"}, "Spec": {}}}`
	}
	doubling += "}}"
	for _, test := range []struct{ name, data, want string }{
		{"aliases", aliases, "more than 1048576 values"},
		{"an alias within itself", "Resources: &a\n  b: *a\n", "nested more than 100 levels"},
		{"deep JSON", strings.Repeat("[", 1000) + strings.Repeat("]", 1000), "nested more than 100 levels"},
		{"deep YAML", "Resources: " + strings.Repeat("{a: ", 1000) + strings.Repeat("}", 1000), "nested more than 100 levels"},
		{"too long", strings.Repeat(" ", MaxBytes+1), "more than 16777216 bytes"},
		{"a name twice in JSON", `{"Resources": {}, "Resources": {}}`, "duplicate"},
		{"a name twice in YAML", "Resources: {}\nResources: {}\n", `"Resources" is given twice`},
		{"an open end", `{"Resources": `, "unexpected EOF"},
		{"nothing", " \n", "is empty"},
		{"something else", `{"services": {}}`, "say which with --from"},
		{"no object", "just words", "must be an object, not a string"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Read([]Input{{Name: "in", Data: []byte(test.data)}}, Options{})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	t.Run("names that double", func(t *testing.T) {
		result, err := Read([]Input{{Name: "in", Data: []byte(doubling)}}, Options{})
		if err != nil || result.Complete {
			t.Errorf("names of 2^40 letters were carried over, %v", err)
		}
	})
}

// References along references, and one long list in many places, end too.
func TestReferencesHaveBounds(t *testing.T) {
	var chain strings.Builder
	chain.WriteString("Resources:\n")
	for i := range 2 * maxCalls {
		fmt.Fprintf(&chain, "  N%d: {Type: 'AWS::AppMesh::Mesh', Properties: {MeshName: !Sub '${N%d.MeshName}', Spec: {}}}\n", i, i+1)
	}
	result, err := Read([]Input{{Name: "in", Data: []byte(chain.String())}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprint(result.Lost); !strings.Contains(text, "nested more than 200 deep") {
		t.Errorf("the chain was followed to its end: %.300s", text)
	}

	many := "Mappings: {A: {B: {C: [" + strings.Repeat("x, ", 10_000) + "x]}}}\n" +
		"Resources: {N: {Type: 'AWS::AppMesh::VirtualNode', Properties: {MeshName: m, VirtualNodeName: n, Spec: {Backends: [" +
		strings.Repeat("!Join ['', !FindInMap [A, B, C]], ", 1000) + "x]}}}}\n"
	if _, err := Read([]Input{{Name: "in", Data: []byte(many)}}, Options{}); err == nil || !strings.Contains(err.Error(), "write out to more than") {
		t.Errorf("got %v", err)
	}
}
