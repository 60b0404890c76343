package verbs

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/internal/meshtest"
)

func TestGet(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	must(t, s, "", "apply", "-f", write(t, colors))
	must(t, s, "{meshName: other}", "apply", "-f", "-")

	ages := regexp.MustCompile(`\b\d+s\b`)
	table := func(args ...string) string { return ages.ReplaceAllString(must(t, s, "", args...), "AGED") }
	same(t, "all", `MESH   EGRESS     AGE
apps   DROP_ALL   AGED

VIRTUALNODE   LISTENERS   AGE
blue          http:8080   AGED
green         http:8080   AGED

VIRTUALROUTER   LISTENERS   AGE
color           http:8080   AGED

ROUTER   ROUTE   TARGETS            AGE
color    all     blue=90,green=10   AGED

VIRTUALSERVICE   PROVIDER              AGE
color.local      virtualRouter/color   AGED

VIRTUALGATEWAY   LISTENERS   AGE
edge             http:9000   AGED

GATEWAY   GATEWAYROUTE   TARGET                       AGE
edge      all            virtualService/color.local   AGED
`, table("get", "all", "-m", "apps"))
	same(t, "meshes", "MESH    EGRESS     AGE\napps    DROP_ALL   AGED\nother   -          AGED", table("get", "meshes"))
	wide := strings.Join(strings.Fields(regexp.MustCompile(`[0-9a-f-]{36}`).ReplaceAllString(table("get", "VN", "green", "-m", "apps", "-o", "wide"), "UUID")), " ")
	same(t, "one, wide", "VIRTUALNODE LISTENERS AGE VERSION CHANGED UID ARN green http:8080 AGED 1 AGED UUID arn:aws:appmesh:us-east-1:000000000000:mesh/apps/virtualNode/green", wide)

	names := must(t, s, "", "get", "all", "-m", "apps", "-o", "name")
	same(t, "names", strings.ReplaceAll(colorsInOrder, " (mesh apps)", ""), names)
	// What one command prints another one reads.
	same(t, "names again", names, must(t, s, "", append([]string{"get", "-m", "apps", "-o", "name"}, strings.Fields(names)...)...))
	for _, route := range [][]string{{"route", "all"}, {"routes", "color/all"}, {"virtualRouter/color/route/all"}, {"route/all"}, {"route/color/all"}} {
		same(t, "a route", "virtualRouter/color/route/all", must(t, s, "", append([]string{"get", "-m", "apps", "-o", "name"}, route...)...))
	}

	var one map[string]any
	if err := json.Unmarshal([]byte(must(t, s, "", "get", "gr", "all", "-m", "apps", "-o", "json")), &one); err != nil || one["gatewayRouteName"] != "all" || one["status"] == nil {
		t.Errorf("one resource: %v, %v", one, err)
	}
	for _, args := range [][]string{{"virtualnodes"}, {"vn", "blue", "green"}} {
		var list []map[string]any
		if err := json.Unmarshal([]byte(must(t, s, "", append([]string{"get", "-m", "apps", "-o", "json"}, args...)...)), &list); err != nil || len(list) != 2 || list[0]["virtualNodeName"] != "blue" {
			t.Errorf("%v: %v, %v", args, list, err)
		}
	}
	if out := must(t, s, "", "get", "vn", "-m", "other", "-o", "json"); out != "[]\n" {
		t.Errorf("none: %s", out)
	}
	if out := must(t, s, "", "get", "vn", "-m", "apps", "-o", "yaml"); strings.Count(out, "\n---\n") != 1 || !strings.HasPrefix(out, "meshName: apps\n") {
		t.Errorf("yaml:\n%s", out)
	}
	if out := must(t, s, "", "get", "all", "-m", "apps"); strings.Contains(out, "\x1b") {
		t.Error("colours")
	}
}

func TestDescribe(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	must(t, s, "", "apply", "-f", write(t, colors))
	out := must(t, s, "", "describe", "virtualnode", "blue", "-m", "apps")
	for _, want := range []string{
		"resource: virtualNode/blue\nmesh: apps\narn: arn:aws:appmesh:us-east-1:000000000000:mesh/apps/virtualNode/blue\n",
		"version: 1\n", "tags: {}\n",
		"references:\n  - resource: virtualService/nowhere.local\n    field: spec.backends[0].virtualService\n    missing: true\n",
		"referencedBy:\n  - resource: virtualRouter/color/route/all\n    field: spec.httpRoute.action.weightedTargets[0]\n",
		"problems:\n  - field: spec.backends[0].virtualService.virtualServiceName\n    message: virtual service nowhere.local does not exist\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("describe lacks %q:\n%s", want, out)
		}
	}
	if out := must(t, s, "", "describe", "mesh", "apps"); !strings.Contains(out, "tags:\n  team: \"007\"\n") || !strings.Contains(out, "  - resource: virtualGateway/edge\n") {
		t.Errorf("the mesh:\n%s", out)
	}
}

func TestDelete(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	dir := write(t, colors)
	must(t, s, "", "apply", "-f", dir)
	before := must(t, s, "", "export")

	a := fairlead(t, s, "", "delete", "virtualnode", "blue", "-m", "apps")
	if a.code != 1 {
		t.Errorf("exit code %d", a.code)
	}
	same(t, "refused", `failed virtualNode/blue (mesh apps): ResourceInUseException: VirtualNode with name blue cannot be deleted because it is the target of one or more routes. (--cascade deletes what needs it first)
fairlead: 1 of 1 resources could not be deleted`, a.err)
	same(t, "dry run", "would delete virtualRouter/color/route/all (mesh apps)\nwould delete virtualNode/blue (mesh apps)",
		must(t, s, "", "delete", "vn/blue", "-m", "apps", "--cascade", "--dry-run"))
	a = fairlead(t, s, "", "delete", "vn", "green", "absent", "-m", "apps", "--cascade")
	if a.code != 1 || !strings.Contains(a.err, "look at virtualNode/absent (mesh apps): NotFoundException: ") {
		t.Errorf("one that is not there: exit code %d, %s", a.code, a.err)
	}
	same(t, "nothing was deleted", before, must(t, s, "", "export"))

	same(t, "a router", `deleted virtualGateway/edge/gatewayRoute/all (mesh apps)
deleted virtualService/color.local (mesh apps)
deleted virtualRouter/color/route/all (mesh apps)
deleted virtualRouter/color (mesh apps)`, must(t, s, "", "delete", "vr", "color", "-m", "apps", "--cascade"))
	same(t, "what files name", `deleted virtualGateway/edge (mesh apps)
deleted virtualNode/green (mesh apps)
deleted virtualNode/blue (mesh apps)
deleted mesh/apps`, must(t, s, "", "delete", "-f", dir))
	same(t, "again", "", must(t, s, "", "delete", "-f", dir))

	must(t, s, "", "apply", "-f", dir)
	must(t, s, "{meshName: other}", "apply", "-f", "-")
	must(t, s, "", "delete", "mesh", "apps", "--cascade")
	same(t, "the other mesh", "mesh/other", must(t, s, "", "get", "mesh", "-o", "name"))
}

// TestExitCodes: 2 for a command line that makes no sense, 1 for what the
// server or the files refuse.
func TestExitCodes(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	must(t, s, "", "apply", "-f", write(t, colors))
	must(t, s, `{meshName: apps, virtualRouterName: more, spec: {listeners: [{portMapping: {port: 8080, protocol: http}}]}}
---
{meshName: apps, virtualRouterName: more, routeName: all, spec: {httpRoute: {match: {prefix: /}, action: {weightedTargets: [{virtualNode: blue, weight: 1}]}}}}`, "apply", "-f", "-")
	empty := t.TempDir()
	for _, test := range []struct {
		args string
		code int
		want string
	}{
		{"get", 2, "takes KIND"},
		{"get pods", 2, `"pods" is not a kind of resource`},
		{"get vn", 2, "--mesh is required"},
		{"get all", 2, "--mesh is required"},
		{"get all x -m apps", 2, "takes no names"},
		{"get vn a/b -m apps", 2, `"a/b" is not the name of a virtualNode`},
		{"get vn/ -m apps", 2, "is missing"},
		{"get vn -m apps -o xml", 2, `"xml" is not text, wide, json, yaml or name`},
		{"get vn -m apps -o", 2, "flag needs an argument"},
		{"get route all -m apps", 2, "route all is in color and in more: name it color/all"},
		{"get vn absent -m apps", 1, "NotFoundException: VirtualNode with name absent is not present under mesh apps"},
		{"get route absent -m apps", 1, "NotFoundException: no virtualRouter of mesh apps has a route absent"},
		{"get vn -m absent", 1, "NotFoundException: Mesh with name absent is not present"},
		{"describe vn -m apps", 2, "takes the name of one resource"},
		{"describe vn a b -m apps", 2, "takes the name of one resource"},
		{"delete", 2, "takes KIND"},
		{"delete vn -m apps", 2, "the names are missing"},
		{"delete vn a -m apps -f x", 2, "takes KIND"},
		{"apply", 2, "--filename is required"},
		{"apply x -f y", 2, "takes no arguments"},
		{"apply -f " + empty, 1, "there are no resources in " + empty},
		{"apply -f " + empty + "/absent", 1, "no such file"},
		{"apply -f -", 1, "there are no resources in standard input"},
		{"apply --prune -f -", 1, "there are no resources in standard input"},
		{"export absent", 1, "read mesh absent: NotFoundException"},
		{"export -o wide", 2, `"wide" is not yaml or json`},
		{"get mesh --endpoint-url nowhere", 2, `endpoint "nowhere" is not http://HOST:PORT`},
		{"get mesh --endpoint-url http://127.0.0.1:1", 1, "reach the server at http://127.0.0.1:1"},
	} {
		a := fairlead(t, s, "", strings.Fields(test.args)...)
		if a.code != test.code || a.out != "" || !strings.Contains(a.err, test.want) {
			t.Errorf("fairlead %s: exit code %d, want %d %s\n%s%s", test.args, a.code, test.code, test.want, a.out, a.err)
		}
	}
	// What is there is shown, what is not is told.
	a := fairlead(t, s, "", "get", "vn", "absent", "blue", "-m", "apps", "-o", "name")
	if a.code != 1 || a.out != "virtualNode/blue\n" || !strings.Contains(a.err, "absent is not present") {
		t.Errorf("one of two: %+v", a)
	}
}

// TestFaultsOfAllFiles: everything that is wrong with any document is told at
// once, and nothing is written.
func TestFaultsOfAllFiles(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	dir := write(t, map[string]string{
		"a.yaml": "{meshName: m}\n---\n{meshName: m, virtualNodeName: n, spec: {listener: []}}",
		"b.json": `{"meshName": "m", "virtualServiceName": "s", "spec": {"provider": {"virtualNode": {}}}}`,
		"c.yml":  "a: [",
	})
	a := fairlead(t, s, "", "apply", "-f", dir)
	if a.code != 1 || a.out != "" {
		t.Errorf("exit code %d, %s", a.code, a.out)
	}
	same(t, "faults", `fairlead: DIR/a.yaml:3 (document 2): spec.listener is not a known field; did you mean listeners?
DIR/b.json:1: spec.provider.virtualNode.virtualNodeName is required
DIR/c.yml: is not valid YAML: line 1: did not find expected node content`, strings.ReplaceAll(a.err, dir, "DIR"))
	same(t, "meshes", "", must(t, s, "", "export"))
}

// TestFolders: a folder may be a link, and what begins with a dot is not read:
// Kubernetes mounts a ConfigMap as links into a folder behind a link.
func TestFolders(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	dir := write(t, map[string]string{"..2026/m.yaml": "{meshName: m}"})
	for old, link := range map[string]string{"..2026": "..data", "..data/m.yaml": "m.yaml", ".": "self"} {
		if err := os.Symlink(old, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	same(t, "the folder", "created mesh/m\n1 created, 0 unchanged", must(t, s, "", "apply", "-f", dir))
	same(t, "a link to it", "unchanged mesh/m\n1 unchanged", must(t, s, "", "apply", "-f", filepath.Join(dir, "self")))
	a := fairlead(t, s, "", "apply", "-f", dir, "-f", filepath.Join(dir, "m.yaml"))
	if a.code != 1 || !strings.Contains(a.err, "mesh/m is in "+dir+"/m.yaml:1 already") {
		t.Errorf("a file twice: %+v", a)
	}
}

// TestEndpoint: the flag goes before Fairlead's variable, that before App
// Mesh's, and that before the one of all of AWS.
func TestEndpoint(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	const nowhere = "http://127.0.0.1:1"
	all := []string{"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_APP_MESH", "AWS_ENDPOINT_URL_FAIRLEAD"}
	for n := range len(all) + 1 {
		env := slices.DeleteFunc(s.AWSEnv(), func(v string) bool { return strings.HasPrefix(v, "AWS_ENDPOINT_URL") })
		for i, name := range all[:min(n+1, len(all))] {
			url := nowhere
			if i == n {
				url = s.API
			}
			env = append(env, name+"="+url)
		}
		cmd := exec.Command(meshtest.Binary(t), "get", "meshes")
		if n == len(all) {
			cmd.Args = append(cmd.Args, "--endpoint-url", s.API)
		}
		cmd.Env = env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("step %d: %v\n%s", n, err, out)
		}
	}
}

// TestCompletion asks as the shells' scripts do.
func TestCompletion(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	must(t, s, "", "apply", "-f", write(t, colors))
	for _, test := range []struct{ args, want string }{
		{"get ", "all mesh virtualnode virtualrouter route virtualservice virtualgateway gatewayroute :4"},
		{"delete virtualnode -m apps ", "blue green :4"},
		{"describe route -m apps ", "color/all :4"},
		{"get vn -m ", "apps :4"},
		{"get vn -m apps blue ", "green :4"},
		{"get vn -o ", "text wide json yaml name :4"},
		{"export ", "apps :4"},
		{"get vn -m absent ", ":4"},
	} {
		args := append([]string{"__complete"}, strings.Split(test.args, " ")...)
		if got := strings.Join(strings.Fields(fairlead(t, s, "", args...).out), " "); got != test.want {
			t.Errorf("%s: %s, want %s", test.args, got, test.want)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if out := must(t, s, "", "completion", shell); !strings.Contains(out, "__complete") {
			t.Errorf("%s: %.200s", shell, out)
		}
	}
}
