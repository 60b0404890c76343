// Package imports_test carries one mesh over from each of the languages that
// App Mesh users have it in, into a real server.
package imports_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/internal/meshtest"
)

func TestMain(m *testing.M) { os.Exit(meshtest.Main(m)) }

// document is a create request of the API.
type document map[string]any

func (d document) name(member string) string {
	s, _ := d[member].(string)
	return s
}

// The four files say the same: so do the documents that come of them, the server
// takes them in their order, and what aws appmesh describe-… then says of them
// comes to the same documents again.
func TestOneMeshInFourLanguages(t *testing.T) {
	want := withoutTags(importDocuments(t, "", "testdata/describe.json"))
	for _, file := range []string{"describe.json", "cloudformation.yaml", "terraform.tfstate", "kubernetes.yaml"} {
		t.Run(file, func(t *testing.T) {
			documents := importDocuments(t, "", "testdata/"+file)
			if diff := cmp.Diff(want, withoutTags(documents)); diff != "" {
				t.Errorf("not the same mesh as in describe.json (-describe +%s):\n%s", file, diff)
			}
			s := meshtest.StartServer(t, meshtest.ServerOptions{})
			described := ""
			for _, d := range documents {
				create(t, s, d)
				described += describe(t, s, d)
			}
			if diff := cmp.Diff(documents, importDocuments(t, described, "-")); diff != "" {
				t.Errorf("what is described comes to other documents (-applied +described):\n%s", diff)
			}
		})
	}
}

// importDocuments runs fairlead import, which must carry over everything.
func importDocuments(t *testing.T, stdin, path string) []document {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), meshtest.Binary(t), "import", path, "-o", "json")
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = strings.NewReader(stdin), &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("fairlead import %s: %v\n%s", path, err, &stderr)
	}
	var documents []document
	if err := json.Unmarshal(out, &documents); err != nil {
		t.Fatalf("the documents are not JSON: %v\n%s", err, out)
	}
	if len(documents) != 8 {
		t.Fatalf("%d documents, not 8\n%s", len(documents), &stderr)
	}
	return documents
}

// withoutTags are documents without what Kubernetes has nothing for.
func withoutTags(documents []document) []document {
	var all []document
	for _, d := range documents {
		bare := document{}
		for name, value := range d {
			if name != "tags" {
				bare[name] = value
			}
		}
		all = append(all, bare)
	}
	return all
}

// kinds are the members that hold the names of resources, the most special
// first, with the collection and the verb of the CLI.
var kinds = []struct{ member, parent, collection, verb string }{
	{"routeName", "virtualRouterName", "routes", "route"},
	{"gatewayRouteName", "virtualGatewayName", "gatewayRoutes", "gateway-route"},
	{"virtualNodeName", "", "virtualNodes", "virtual-node"},
	{"virtualServiceName", "", "virtualServices", "virtual-service"},
	{"virtualRouterName", "", "virtualRouters", "virtual-router"},
	{"virtualGatewayName", "", "virtualGateways", "virtual-gateway"},
	{"meshName", "", "", "mesh"},
}

func kindOf(d document) int {
	for i, k := range kinds {
		if d.name(k.member) != "" {
			return i
		}
	}
	return -1
}

// create sends a document to the API as it is.
func create(t *testing.T, s *meshtest.Server, d document) {
	t.Helper()
	k := kinds[kindOf(d)]
	path := "/v20190125/meshes"
	switch {
	case k.parent != "":
		path += "/" + url.PathEscape(d.name("meshName")) + "/" + strings.TrimSuffix(k.parent, "Name") + "/" + url.PathEscape(d.name(k.parent)) + "/" + k.collection
	case k.collection != "":
		path += "/" + url.PathEscape(d.name("meshName")) + "/" + k.collection
	}
	body := document{k.member: d[k.member], "spec": d["spec"]}
	if d["tags"] != nil {
		body["tags"] = d["tags"]
	}
	encoded, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	if a := s.Send(t, http.MethodPut, path, string(encoded)); a.Status != http.StatusOK {
		t.Fatalf("create %s %s: %d %s\n%s", k.verb, d.name(k.member), a.Status, a.Body, encoded)
	}
}

// describe is what the AWS CLI says of a resource, and its tags beside it.
func describe(t *testing.T, s *meshtest.Server, d document) string {
	t.Helper()
	k := kinds[kindOf(d)]
	args := []string{"describe-" + k.verb}
	for _, member := range []string{"meshName", k.parent, k.member} {
		flag := map[string]string{
			"meshName": "--mesh-name", "virtualRouterName": "--virtual-router-name", "virtualGatewayName": "--virtual-gateway-name",
		}[member]
		if flag == "" {
			flag = "--" + k.verb + "-name"
		}
		if member != "" && !slices.Contains(args, flag) {
			args = append(args, flag, d.name(member))
		}
	}
	var described map[string]json.RawMessage
	unmarshal(t, appmesh(t, s, args...), &described)
	var resource struct{ Metadata struct{ ARN string } }
	for _, member := range described {
		unmarshal(t, member, &resource)
	}
	var tags map[string]json.RawMessage
	unmarshal(t, appmesh(t, s, "list-tags-for-resource", "--resource-arn", resource.Metadata.ARN), &tags)
	described["tags"] = tags["tags"]
	out, err := json.Marshal(described)
	if err != nil {
		t.Fatal(err)
	}
	return string(out) + "\n"
}

func unmarshal(t *testing.T, data []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
}

func appmesh(t *testing.T, s *meshtest.Server, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), meshtest.Tool(t, "aws"), append([]string{"appmesh"}, args...)...)
	cmd.Env = s.AWSEnv()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("aws appmesh %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}
