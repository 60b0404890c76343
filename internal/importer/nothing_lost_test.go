package importer

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"golang.org/x/tools/txtar"

	"github.com/fairlead/fairlead/internal/manifest"
)

// silent says of which places in the golden inputs a change need not be seen:
// those of what is the source system's own or not App Mesh's, of a resource that
// is left out anyway, and of what a template does not come to.
var silent = map[string]string{
	"describe": `\.(metadata\.(createdAt|lastUpdatedAt|arn|uid|version)|status\.status)$` + // the server's own
		`|^nodes.json#[234]` + // deleted, and left out
		`|\.(colour|nickname)$` + // reported whole
		`|^mesh.json#0 tags\[1\]` + // AWS's own tag
		`|^rest.json#0 \[[56]\]`, // a list, and tags of nobody
	"cloudformation-yaml": ` (AWSTemplateFormatVersion|Transform|Parameters|Mappings|Conditions|Outputs)` +
		`|Resources\.(Namespace|Endpoint|Certificate|Root|Task|More|ApiDiscovery|Fn::ForEach::Nodes)\b` + // not App Mesh's
		`|Resources\.(Second|Third|Fourth|Fifth|Route)\b` + // left out
		`|\.DeletionPolicy$|\.DependsOn$` + // when a stack is deleted, and the order, which follows from the references
		`|Type\.Fn::If\[2\]|Validation\.Fn::If\[1\]|Port\.Fn::Select\[1\]`, // the other branch
	"cloudformation-json": `Resources\.[A-F]\b|Conditions|Fn::Split\[1\]$`,
	"terraform-state": ` (terraform_version|serial|lineage|outputs|check_results)` +
		`|resources\[[019]\]` + // a data source, a VPC, what there is not
		`|\.(name|provider|private|each|module|index_key|schema_version)$|\.dependencies|\.sensitive_attributes` + // Terraform's own
		`|attributes\.(arn|created_date|id|last_updated_date|tags\b)` + // the server's own, and tags that are in tags_all
		`|resources\[3\]\.instances\[[12]\]`, // deposed, and left out
	"terraform-show": ` (format_version|terraform_version)|outputs|\.(address|name|index|provider_name|schema_version)$|depends_on|sensitive_values|values\.region$|^(plan.json|old.tfstate)`,
	"kubernetes": `\.status\b|[sS]elector\.|metadata\.uid|labels\.app$|last-applied-configuration$` + // what a selector selects is reported whole
		`|\.podSelector\b|\.logging\.` + // reported whole
		`|^mesh.yaml#1|^apps.yaml#0 apiVersion|^apps.yaml#7` + // a Namespace, the list, an older version
		`|^apps.yaml#4 spec\.routes\[1\]`, // left out
}

// TestNothingIsLost puts a member into every object of every input and changes
// every scalar, one at a time: each time the documents or the report must change.
func TestNothingIsLost(t *testing.T) {
	for name, expression := range silent {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(filepath.Join("testdata", name+".txtar"))
			if err != nil {
				t.Fatal(err)
			}
			inputs, options := readArchive(archive)
			nodes := make([][]*node, len(inputs))
			for i, in := range inputs {
				if nodes[i], err = parse(in.Data); err != nil {
					t.Fatal(err)
				}
				inputs[i].Data = marshal(t, nodes[i])
			}
			before := outcome(t, inputs, options)
			quiet := regexp.MustCompile(expression)
			changes := 0
			for i, documents := range nodes {
				saved := inputs[i].Data
				for number, document := range documents {
					mutate(document, "", func(path string) {
						changes++
						inputs[i].Data = marshal(t, documents)
						if same := outcome(t, inputs, options) == before; same && !quiet.MatchString(fmt.Sprintf("%s#%d %s", inputs[i].Name, number, path)) {
							t.Errorf("%s#%d: nothing says that %s has changed", inputs[i].Name, number, path)
						}
					})
				}
				inputs[i].Data = saved
			}
			if changes < 20 {
				t.Errorf("only %d changes were tried", changes)
			}
		})
	}
}

// mutate makes one change after the other, shows each, and takes it back.
func mutate(n *node, path string, show func(path string)) {
	switch n.kind {
	case object:
		n.members = append(n.members, member{"zz", newText("zz", 0)})
		show(path + ".zz")
		n.members = n.members[:len(n.members)-1]
		for _, m := range n.members {
			mutate(m.value, strings.TrimPrefix(path+"."+m.name, "."), show)
		}
	case list:
		for i, item := range n.items {
			mutate(item, place{path: path}.item(i, nil).path, show)
		}
	case text:
		saved := n.text
		n.text += "zz"
		show(path)
		n.text = saved
	case number:
		saved := n.text
		n.text = strings.TrimPrefix(n.text+"1", "0")
		show(path)
		n.text = saved
	case boolean:
		saved := n.text
		n.text = map[string]string{"true": "false", "false": "true"}[saved]
		show(path)
		n.text = saved
	}
}

func marshal(t *testing.T, documents []*node) []byte {
	t.Helper()
	var out []byte
	for _, n := range documents {
		b, err := json.Marshal(plain(n), json.Deterministic(true))
		if err != nil {
			t.Fatal(err)
		}
		out = append(append(out, b...), '\n')
	}
	return out
}

// outcome is everything that comes of inputs.
func outcome(t *testing.T, inputs []Input, options Options) string {
	t.Helper()
	result, err := Read(inputs, options)
	if err != nil {
		return err.Error()
	}
	documents, err := manifest.Write(result.Resources, false)
	if err != nil {
		t.Fatal(err)
	}
	var report strings.Builder
	if err := result.WriteReport(&report); err != nil {
		t.Fatal(err)
	}
	return string(documents) + report.String()
}
