package verbs

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fairlead/fairlead/internal/manifest"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/mesh/meshgen"
	"github.com/fairlead/fairlead/internal/meshtest"
)

func TestApplyIsIdempotent(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	dir := write(t, colors)
	same(t, "first apply", each("created", colorsInOrder)+"8 created, 0 unchanged", must(t, s, "", "apply", "-f", dir))
	// The server has filled in the port of blue's health check.
	same(t, "second apply", each("unchanged", colorsInOrder)+"8 unchanged", must(t, s, "", "apply", "-f", dir))
	same(t, "with --prune", each("unchanged", colorsInOrder)+"8 unchanged", must(t, s, "", "apply", "-f", dir, "--prune"))
	for _, name := range []string{"mesh/apps", "virtualNode/blue", "virtualRouter/color/route/all"} {
		if v := version(t, s, "apps", name); v != 1 {
			t.Errorf("%s has version %d; nothing was to be written", name, v)
		}
	}
	if out := must(t, s, "", "export"); !strings.Contains(out, "port: 8080\n        protocol: http\n        timeoutMillis: 2000") {
		t.Errorf("the server did not fill in the health check's port:\n%s", out)
	}
}

func TestApplyUpdates(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	dir := write(t, colors)
	must(t, s, "", "apply", "-f", dir)
	before := must(t, s, "", "export")

	edit := func(file, old, new string) {
		path := filepath.Join(dir, file)
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), old) {
			t.Fatalf("%s has no %s: %v", file, old, err)
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(text), old, new)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	edit("a.yaml", "weight: 90", "weight: 50")
	edit("a.yaml", "virtualServiceName: color.local\nspec", "virtualServiceName: more.local\nspec")
	edit("z/10-mesh.yml", "team", "crew")
	same(t, "dry run", `--- mesh/apps
+++ mesh/apps DIR/z/10-mesh.yml:2
@@ -2,5 +2,5 @@
   egressFilter:
     type: DROP_ALL
 tags:
-  - key: team
+  - key: crew
     value: "007"
--- virtualRouter/color/route/all (mesh apps)
+++ virtualRouter/color/route/all (mesh apps) DIR/a.yaml:7 (document 2)
@@ -3,7 +3,7 @@
     action:
       weightedTargets:
         - virtualNode: blue
-          weight: 90
+          weight: 50
         - virtualNode: green
           weight: 10
     match:
--- (new)
+++ virtualService/more.local (mesh apps) DIR/a.yaml:15 (document 3)
@@ -0,0 +1,4 @@
+spec:
+  provider:
+    virtualRouter:
+      virtualRouterName: color
--- virtualService/color.local (mesh apps)
+++ (deleted)
@@ -1,4 +0,0 @@
-spec:
-  provider:
-    virtualRouter:
-      virtualRouterName: color
dry run, nothing was changed: 1 created, 2 updated, 1 deleted, 5 unchanged
`, strings.ReplaceAll(must(t, s, "", "apply", "-f", dir, "--dry-run", "--prune"), dir, "DIR"))
	same(t, "after the dry run", before, must(t, s, "", "export"))

	// The gateway route needs color.local still: it is not pruned.
	a := fairlead(t, s, "", "apply", "-f", dir, "--prune")
	if a.code != 1 || !strings.Contains(a.err, "failed virtualService/color.local (mesh apps): ResourceInUseException") {
		t.Errorf("exit code %d\n%s%s", a.code, a.out, a.err)
	}
	edit("a.yaml", "{virtualServiceName: color.local}", "{virtualServiceName: more.local}")
	same(t, "apply", `unchanged mesh/apps
unchanged virtualNode/blue (mesh apps)
unchanged virtualNode/green (mesh apps)
unchanged virtualRouter/color (mesh apps)
unchanged virtualRouter/color/route/all (mesh apps)
unchanged virtualService/more.local (mesh apps)
unchanged virtualGateway/edge (mesh apps)
updated virtualGateway/edge/gatewayRoute/all (mesh apps)
deleted virtualService/color.local (mesh apps)
1 updated, 1 deleted, 7 unchanged
`, must(t, s, "", "apply", "-f", dir, "--prune"))
	if v := version(t, s, "apps", "mesh/apps"); v != 1 {
		t.Errorf("the mesh has version %d: other tags are no other version", v)
	}
}

// TestApplyFindsAnOrder: changes that the server takes in one order only.
func TestApplyFindsAnOrder(t *testing.T) {
	const nodes = `
{meshName: m}
---
{meshName: m, virtualNodeName: n, spec: {listeners: [{portMapping: {port: 1, protocol: http}}], serviceDiscovery: {dns: {hostname: n}}}}
---
`
	const listener, route = "{portMapping: {port: PORT, protocol: http}}", `
---
{meshName: m, virtualRouterName: r, routeName: NAME, spec: {httpRoute: {match: {prefix: /, port: PORT}, action: {weightedTargets: [{virtualNode: n, weight: 1}]}}}}`
	router := func(ports ...string) string {
		var listeners []string
		for _, port := range ports {
			listeners = append(listeners, strings.ReplaceAll(listener, "PORT", port))
		}
		return "{meshName: m, virtualRouterName: r, spec: {listeners: [" + strings.Join(listeners, ", ") + "]}}"
	}
	routeTo := func(name, port string) string {
		return strings.NewReplacer("NAME", name, "PORT", port).Replace(route)
	}
	service := func(provider string) string {
		return "\n---\n{meshName: m, virtualServiceName: s.local, spec: {provider: " + provider + "}}"
	}
	for _, test := range []struct{ name, before, after string }{
		{"a listener goes, its route moves", router("80", "81") + routeTo("a", "80") + routeTo("b", "81"), router("80") + routeTo("a", "80") + routeTo("b", "80")},
		{"a listener goes, its route too", router("80", "81") + routeTo("a", "80") + routeTo("b", "81"), router("80") + routeTo("a", "80")},
		{"router and routes move to another port", router("80") + routeTo("a", "80"), router("81") + routeTo("a", "81")},
		{"router and routes change ports", router("80", "81") + routeTo("a", "80") + routeTo("b", "81"), router("81", "82") + routeTo("a", "81") + routeTo("b", "82")},
		{"a service leaves a router, which goes", router("80") + routeTo("a", "80") + service("{virtualRouter: {virtualRouterName: r}}"), service("{virtualNode: {virtualNodeName: n}}")[4:]},
		{"everything goes", router("80") + routeTo("a", "80") + service("{virtualRouter: {virtualRouterName: r}}"), "{meshName: m2}"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := meshtest.StartServer(t, meshtest.ServerOptions{})
			must(t, s, nodes+test.before, "apply", "-f", "-")
			must(t, s, nodes+test.after, "apply", "-f", "-", "--prune")
			if out := must(t, s, nodes+test.after, "apply", "-f", "-", "--prune"); !strings.Contains(out, " unchanged\n") || strings.Contains(out, "updated") {
				t.Errorf("a second run had something to do:\n%s", out)
			}
			other := meshtest.StartServer(t, meshtest.ServerOptions{})
			must(t, other, nodes+test.after, "apply", "-f", "-")
			same(t, "the mesh", must(t, other, "", "export", "m"), must(t, s, "", "export", "m"))
		})
	}
}

// TestApplyGoesOn: what the server refuses keeps back only what needs it, and
// the pruning.
func TestApplyGoesOn(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	must(t, s, "{meshName: m}\n---\n{meshName: m, virtualNodeName: old, spec: {}}", "apply", "-f", "-")
	a := fairlead(t, s, `{meshName: m}
---
{meshName: m, virtualNodeName: bad, spec: {serviceDiscovery: {dns: {hostname: x}}}}
---
{meshName: m, virtualServiceName: needs.local, spec: {provider: {virtualNode: {virtualNodeName: bad}}}}
---
{meshName: m, virtualNodeName: good, spec: {}}
---
{meshName: m, virtualServiceName: fine.local, spec: {provider: {virtualNode: {virtualNodeName: good}}}}
`, "apply", "-f", "-", "--prune")
	if a.code != 1 {
		t.Errorf("exit code %d", a.code)
	}
	same(t, "standard output", "unchanged mesh/m\ncreated virtualNode/good (mesh m)\ncreated virtualService/fine.local (mesh m)\n2 created, 1 unchanged", a.out)
	same(t, "standard error", `nothing is pruned: 1 resources would be, were all others as the files say
failed virtualNode/bad (mesh m): standard input:3 (document 2): BadRequestException: Service Discovery can't be set without a listener.
failed virtualService/needs.local (mesh m): standard input:5 (document 3): NotFoundException: VirtualNode with name bad is not present under mesh m for account 000000000000
fairlead: 2 of 6 changes could not be made`, a.err)
}

// TestRefusedTagsSpendNoVersion: a change of spec and tags whose tags the server
// refuses is not made by half, however often it is tried.
func TestRefusedTagsSpendNoVersion(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	must(t, s, "{meshName: m}\n---\n{meshName: m, virtualNodeName: n, spec: {}}", "apply", "-f", "-")
	a := fairlead(t, s, `{meshName: m, spec: {egressFilter: {type: DROP_ALL}}}
---
{meshName: m, virtualNodeName: n, spec: {backends: []}, tags: [{key: "aws:mine", value: ""}]}`, "apply", "-f", "-")
	if a.code != 1 || !strings.Contains(a.err, "failed virtualNode/n (mesh m): standard input:3 (document 2): BadRequestException: ") {
		t.Errorf("%+v", a)
	}
	if v := version(t, s, "m", "virtualNode/n"); v != 1 {
		t.Errorf("version %d", v)
	}
}

// TestApplyRandomMeshes exports meshes that use all of the API, applies the
// export to an empty server, and prunes one mesh into another.
func TestApplyRandomMeshes(t *testing.T) {
	s, other := meshtest.StartServer(t, meshtest.ServerOptions{}), meshtest.StartServer(t, meshtest.ServerOptions{})
	for seed := range uint64(3) {
		view := meshgen.Config{Nodes: 6, SDS: true, Files: []meshgen.Files{{Chain: "/a.pem", Key: "/a.key", Trust: "/root.pem"}}}.View(rand.New(rand.NewPCG(seed, 5)))
		text, err := manifest.Write(resourcesOf(view), seed%2 == 1)
		if err != nil {
			t.Fatal(err)
		}
		must(t, s, "{meshName: random}", "apply", "-f", "-", "--prune")
		if left := must(t, s, "", "get", "all", "-m", "random", "-o", "name"); left != "mesh/random\n" {
			t.Fatalf("pruning left:\n%s", left)
		}
		fairlead(t, s, string(text), "apply", "-f", "-") // its warnings are the generator's
		if out := fairlead(t, s, string(text), "apply", "-f", "-", "--prune"); out.code != 0 || strings.Contains(out.out, "ted") {
			t.Errorf("seed %d: a second run had something to do, or failed:\n%s%s", seed, out.out, out.err)
		}
		exported := must(t, s, "", "export")
		if n := strings.Count(exported, "meshName: "); n != len(resourcesOf(view)) {
			t.Errorf("seed %d: %d resources of %d were exported", seed, n, len(resourcesOf(view)))
		}
		fairlead(t, other, exported, "apply", "-f", "-")
		same(t, "the other server's export", exported, must(t, other, "", "export"))
		must(t, other, "", "delete", "mesh", "random", "--cascade")
		if left := must(t, other, "", "export"); left != "" {
			t.Errorf("--cascade left:\n%s", left)
		}
	}
}

func resourcesOf(view *mesh.View) []manifest.Resource {
	list := []manifest.Resource{{Mesh: meshgen.Mesh.Mesh, ID: mesh.ID{Kind: mesh.KindMesh, Name: meshgen.Mesh.Mesh}, Spec: view.Mesh.Spec}}
	add := func(id mesh.ID, spec any) {
		list = append(list, manifest.Resource{Mesh: meshgen.Mesh.Mesh, ID: id, Spec: spec, Tags: map[string]string{"kind": string(id.Kind)}})
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
	return list // in no order: maps have none
}

// manyNodes are the documents of a mesh m of 801 resources.
func manyNodes() string {
	var many strings.Builder
	many.WriteString("{meshName: m}\n")
	for i := range 400 {
		fmt.Fprintf(&many, "---\n{meshName: m, virtualServiceName: s%d.local, spec: {provider: {virtualNode: {virtualNodeName: n%[1]d}}}}\n---\n{meshName: m, virtualNodeName: n%[1]d, spec: {}}\n", i)
	}
	return many.String()
}

// startApply returns a running apply of manyNodes that has made its first node.
func startApply(t *testing.T, s *meshtest.Server) *meshtest.Process {
	t.Helper()
	cmd := exec.Command(meshtest.Binary(t), "apply", "-f", "-")
	cmd.Env, cmd.Stdin = s.AWSEnv(), strings.NewReader(manyNodes())
	begun := make(chan struct{})
	var once sync.Once
	p := meshtest.Start(t, "apply", cmd, func(line string) {
		if strings.HasPrefix(line, "created virtualNode/") {
			once.Do(func() { close(begun) })
		}
	})
	select {
	case <-begun:
	case <-p.Exited():
		t.Fatalf("apply ended before it made anything:\n%s", p.Log())
	}
	return p
}

// finishApply does the rest of an apply that was cut off.
func finishApply(t *testing.T, s *meshtest.Server) {
	t.Helper()
	rest := must(t, s, manyNodes(), "apply", "-f", "-")
	if !strings.Contains(rest, "unchanged virtualNode/") || !strings.Contains(rest, "created virtualService/") {
		t.Errorf("the second run did all or nothing:\n%.300s", rest)
	}
	if n := strings.Count(must(t, s, "", "get", "all", "-m", "m", "-o", "name"), "\n"); n != 801 {
		t.Errorf("%d resources in the end", n)
	}
}

// TestApplyInterrupted: Ctrl-C ends apply between two writes; a second run does
// the rest.
func TestApplyInterrupted(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	p := startApply(t, s)
	if code := p.Terminate(t); code != 1 || !strings.Contains(p.Log(), "fairlead: interrupted at ") {
		t.Errorf("exit code %d\n%s", code, p.Log())
	}
	finishApply(t, s)
}

// TestApplyWhileTheServerDies: apply stops at a server that is killed; a second
// run does the rest.
func TestApplyWhileTheServerDies(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	p := startApply(t, s)
	s.Kill()
	<-p.Exited()
	if !strings.Contains(p.Log(), "fairlead: stopped at ") {
		t.Errorf("apply said:\n%s", p.Log())
	}
	s.Restart(t)
	finishApply(t, s)
}

// TestApplyTwiceAtOnce: two pipelines may apply the same files.
func TestApplyTwiceAtOnce(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			if _, err := s.Fairlead(t, "apply", "-f", write(t, map[string]string{"m.yaml": manyNodes()})); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	if out := must(t, s, manyNodes(), "apply", "-f", "-", "--prune"); !strings.HasSuffix(out, "\n801 unchanged\n") {
		t.Errorf("in the end: %.300s", out)
	}
}

// TestOwners: the account may be named or left out; both mean the same mesh, of
// which --prune must not lose anything.
func TestOwners(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	const text = `{meshName: m}
---
{meshName: m, meshOwner: "000000000000", virtualNodeName: n, spec: {}}
---
{meshName: m, virtualNodeName: o, spec: {}}
`
	must(t, s, text, "apply", "-f", "-")
	if out := must(t, s, text, "apply", "-f", "-", "--prune"); !strings.HasSuffix(out, "\n3 unchanged\n") {
		t.Errorf("again: %s", out)
	}
	a := fairlead(t, s, `{meshName: m, meshOwner: "111122223333", virtualNodeName: n, spec: {}}`, "apply", "-f", "-", "--prune")
	if a.code != 1 || !strings.Contains(a.err, "ForbiddenException") {
		t.Errorf("another account: %+v", a)
	}
}

// TestApplyThroughABadNetwork: of three requests one is turned away, and of
// another the answer is lost. Everything is done, and nothing twice.
func TestApplyThroughABadNetwork(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	backend, err := url.Parse(s.API)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(backend)
		r.Out.Host = r.In.Host // is signed
	}}
	busy := func(w http.ResponseWriter, status int, code string) {
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"__type": %q, "message": "try again"}`, code)
	}
	var count atomic.Int64
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch count.Add(1) % 3 {
		case 0:
			busy(w, http.StatusTooManyRequests, "TooManyRequestsException")
		case 1:
			proxy.ServeHTTP(httptest.NewRecorder(), r)
			busy(w, http.StatusServiceUnavailable, "ServiceUnavailableException")
		default:
			proxy.ServeHTTP(w, r)
		}
	}))
	defer front.Close()
	const before, after = `{meshName: m, tags: [{key: a, value: "1"}]}
---
{meshName: m, virtualNodeName: n, spec: {}}
---
{meshName: m, virtualNodeName: old, spec: {}}`, `{meshName: m, tags: [{key: b, value: "1"}]}
---
{meshName: m, virtualNodeName: n, spec: {backends: [{virtualService: {virtualServiceName: s}}]}}`
	same(t, "create", "created mesh/m\ncreated virtualNode/n (mesh m)\ncreated virtualNode/old (mesh m)\n3 created, 0 unchanged",
		must(t, s, before, "apply", "-f", "-", "--endpoint-url", front.URL))
	same(t, "update", "updated mesh/m\nupdated virtualNode/n (mesh m)\ndeleted virtualNode/old (mesh m)\n2 updated, 1 deleted, 0 unchanged",
		must(t, s, after, "apply", "-f", "-", "--prune", "--endpoint-url", front.URL))
	if v := version(t, s, "m", "virtualNode/n"); v != 2 {
		t.Errorf("one create and one update made version %d", v)
	}
	if out := must(t, s, after, "apply", "-f", "-", "--prune"); !strings.HasSuffix(out, "\n2 unchanged\n") {
		t.Errorf("not all was done:\n%s", out)
	}
}

// TestExportWorksWithTheAWSCLI: each exported document is what the AWS CLI
// reads for its create command.
func TestExportWorksWithTheAWSCLI(t *testing.T) {
	s, other := meshtest.StartServer(t, meshtest.ServerOptions{}), meshtest.StartServer(t, meshtest.ServerOptions{})
	must(t, s, "", "apply", "-f", write(t, colors))
	var documents []json.RawMessage
	if err := json.Unmarshal([]byte(must(t, s, "", "export", "apps", "-o", "json")), &documents); err != nil {
		t.Fatal(err)
	}
	commands := []string{"mesh", "virtual-node", "virtual-node", "virtual-router", "route", "virtual-service", "virtual-gateway", "gateway-route"}
	if len(documents) != len(commands) {
		t.Fatalf("%d documents", len(documents))
	}
	for i, d := range documents {
		cmd := exec.Command(meshtest.Tool(t, "aws"), "appmesh", "create-"+commands[i], "--cli-input-json", string(d))
		cmd.Env = other.AWSEnv()
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("create-%s: %v\n%s\n%s", commands[i], err, out, d)
		}
	}
	same(t, "what the AWS CLI made", must(t, s, "", "export"), must(t, other, "", "export"))
}
