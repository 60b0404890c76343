package envoy

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	"sigs.k8s.io/yaml"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden compares what is built with what testdata/*.txtar says. An archive
// has prose; the specs of a mesh named m, each a file called as its resource; and
// files "want <endpoint> <shape>" with the view of its config. Every config also
// passes a real Envoy's validation.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			golden(t, file)
		})
	}
}

func golden(t *testing.T, file string) {
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	graph := mesh.Build(readMesh(t, archive))
	builder := NewBuilder()
	wants := 0
	for i, f := range archive.Files {
		want, ok := strings.CutPrefix(f.Name, "want ")
		if !ok {
			continue
		}
		wants++
		config, problems := buildWanted(t, builder, graph, want)
		got := viewOf(config, problems)
		if *update {
			archive.Files[i].Data = []byte(got)
		} else if diff := cmp.Diff(strings.Split(string(f.Data), "\n"), strings.Split(got, "\n")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", f.Name, diff)
		}
		validate(t, config)
	}
	if wants == 0 {
		t.Errorf("%s wants nothing", file)
	}
	if *update {
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// buildWanted builds for "virtualNode/a bind=127.0.0.2 agent".
func buildWanted(t *testing.T, b *Builder, g *mesh.Graph, want string) (*Config, []mesh.Problem) {
	t.Helper()
	words := strings.Fields(want)
	kind, name, _ := strings.Cut(words[0], "/")
	var shape Shape
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "agent":
			shape.Agent = true
		case "bind":
			shape.Bind = value
		case "app":
			shape.AppAddress = value
		case "app-ports":
			shape.AppPorts = value
		case "tcp-egress":
			shape.TCPEgress = value
		default:
			t.Fatalf("unknown word %q", word)
		}
	}
	shape, err := shape.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	config, problems, err := b.Build(g, mesh.ID{Kind: mesh.Kind(kind), Name: name}, shape)
	if err != nil {
		t.Fatal(err)
	}
	return config, problems
}

// readMesh makes a view of the archive's specs. Their order is their revision.
func readMesh(t *testing.T, archive *txtar.Archive) *mesh.View {
	t.Helper()
	view := &mesh.View{
		Mesh:            &mesh.Record[appmesh.MeshSpec]{Mesh: mesh.Name{Mesh: "m"}, ID: mesh.ID{Kind: mesh.KindMesh, Name: "m"}, Spec: &appmesh.MeshSpec{}},
		VirtualNodes:    map[string]*mesh.Record[appmesh.VirtualNodeSpec]{},
		VirtualServices: map[string]*mesh.Record[appmesh.VirtualServiceSpec]{},
		VirtualRouters:  map[string]*mesh.Record[appmesh.VirtualRouterSpec]{},
		VirtualGateways: map[string]*mesh.Record[appmesh.VirtualGatewaySpec]{},
		Routes:          map[mesh.ID]*mesh.Record[appmesh.RouteSpec]{},
		GatewayRoutes:   map[mesh.ID]*mesh.Record[appmesh.GatewayRouteSpec]{},
		Certificates:    map[string]*mesh.Certificate{},
		Authorities:     map[string]*mesh.Authority{},
	}
	for i, f := range archive.Files {
		path, ok := strings.CutSuffix(f.Name, ".yaml")
		if !ok {
			continue
		}
		view.Revision = int64(i + 1)
		switch parts := strings.Split(path, "/"); {
		case path == "mesh":
			view.Mesh = readRecord[appmesh.MeshSpec](t, f, view.Mesh.ID, view.Revision)
		case len(parts) == 4 && parts[2] == "route":
			id := mesh.ID{Kind: mesh.KindRoute, Parent: parts[1], Name: parts[3]}
			view.Routes[id] = readRecord[appmesh.RouteSpec](t, f, id, view.Revision)
		case len(parts) == 4 && parts[2] == "gatewayRoute":
			id := mesh.ID{Kind: mesh.KindGatewayRoute, Parent: parts[1], Name: parts[3]}
			view.GatewayRoutes[id] = readRecord[appmesh.GatewayRouteSpec](t, f, id, view.Revision)
		case parts[0] == "virtualNode":
			view.VirtualNodes[parts[1]] = readRecord[appmesh.VirtualNodeSpec](t, f, mesh.ID{Kind: mesh.KindVirtualNode, Name: parts[1]}, view.Revision)
		case parts[0] == "virtualService":
			view.VirtualServices[parts[1]] = readRecord[appmesh.VirtualServiceSpec](t, f, mesh.ID{Kind: mesh.KindVirtualService, Name: parts[1]}, view.Revision)
		case parts[0] == "virtualRouter":
			view.VirtualRouters[parts[1]] = readRecord[appmesh.VirtualRouterSpec](t, f, mesh.ID{Kind: mesh.KindVirtualRouter, Name: parts[1]}, view.Revision)
		case parts[0] == "virtualGateway":
			view.VirtualGateways[parts[1]] = readRecord[appmesh.VirtualGatewaySpec](t, f, mesh.ID{Kind: mesh.KindVirtualGateway, Name: parts[1]}, view.Revision)
		case parts[0] == "certificate":
			readCertificate(t, f, view, parts[1])
		case parts[0] == "authority":
			readAuthority(t, f, view, parts[1])
		default:
			t.Fatalf("%s is no resource", f.Name)
		}
	}
	return view
}

// The ARNs of the archives' certificates and authorities, by number.
const (
	certificatePrefix = "arn:aws:acm:us-east-1:000000000000:certificate/"
	authorityPrefix   = "arn:aws:acm-pca:us-east-1:000000000000:certificate-authority/"
)

// readCertificate takes a certificate in: words stand for PEM.
func readCertificate(t *testing.T, f txtar.File, view *mesh.View, number string) {
	t.Helper()
	var c struct {
		Chain, Roots, CRLs, Root string
		Names                    []string
	}
	if err := yaml.UnmarshalStrict(f.Data, &c); err != nil {
		t.Fatalf("%s: %v", f.Name, err)
	}
	arn := certificatePrefix + number
	view.Certificates[arn] = &mesh.Certificate{ARN: arn, Revision: view.Revision, Chain: c.Chain, Key: api.NewSecret("the key of " + c.Chain),
		Roots: c.Roots, CRLs: c.CRLs, Root: c.Root, Names: c.Names}
}

func readAuthority(t *testing.T, f txtar.File, view *mesh.View, number string) {
	t.Helper()
	var a struct{ Roots, CRLs string }
	if err := yaml.UnmarshalStrict(f.Data, &a); err != nil {
		t.Fatalf("%s: %v", f.Name, err)
	}
	arn := authorityPrefix + number
	view.Authorities[arn] = &mesh.Authority{ARN: arn, Revision: view.Revision, Roots: a.Roots, CRLs: a.CRLs}
}

func readRecord[S any](t *testing.T, f txtar.File, id mesh.ID, revision int64) *mesh.Record[S] {
	t.Helper()
	encoded, err := yaml.YAMLToJSONStrict(f.Data)
	if err != nil {
		t.Fatalf("%s: %v", f.Name, err)
	}
	spec := new(S)
	decoder := json.NewDecoder(strings.NewReader(string(encoded)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(spec); err != nil {
		t.Fatalf("%s: %v", f.Name, err)
	}
	return &mesh.Record[S]{Mesh: mesh.Name{Mesh: "m"}, ID: id, Version: 1, Revision: revision, Spec: spec}
}

// validate has a real Envoy check a config.
func validate(t *testing.T, c *Config) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "envoy.pb")
	if err := os.WriteFile(file, static(t, c), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), envoyTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, envoyBinary(t), "--mode", "validate", "-c", file, "--log-level", "warn", "--disable-hot-restart").CombinedOutput()
	if err != nil {
		t.Errorf("envoy refuses %s: %v\n%s\n%s", c.Endpoint, err, out, viewOf(c, nil))
	} else if strings.Contains(string(out), "eprecated") {
		t.Errorf("envoy warns about %s:\n%s", c.Endpoint, out)
	}
}

func envoyBinary(t *testing.T) string {
	t.Helper()
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(filepath.Dir(strings.TrimSpace(string(mod))), ".tools", "bin", "envoy")
	if _, err := os.Stat(binary); err != nil {
		t.Fatal(fmt.Errorf("%w (make tools installs it)", err))
	}
	return binary
}
