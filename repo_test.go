// Package fairlead has no code of its own: its tests hold the rules that the
// repository as a whole keeps, who may import what above all
// (docs/architecture.md).
package fairlead

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const module = "github.com/fairlead/fairlead"

// layers says which packages of ours a package may import, directly or through
// others. Below a line stands what is further from the user: imports go
// downwards only. A package that is not here fails the test.
var layers = map[string]string{
	"cmd/fairlead":          "*",
	"internal/demo":         "*",
	"internal/meshtest":     "*",
	"e2e":                   "*",
	"bench":                 "bench/adswire bench/apiload bench/loadrun internal/ca internal/awsapi internal/iam internal/mesh internal/tlspolicy api",
	"bench/xdsload":         "bench/adswire bench/loadrun internal/awsapi internal/iam internal/mesh internal/tlspolicy api",
	"bench/loadrun":         "",
	"bench/apiload":         "bench/loadrun",
	"bench/adswire":         "",
	"tools/suites":          "",
	"internal/server":       "internal/xds internal/edge internal/store internal/kek internal/awsapi internal/iam internal/ca internal/envoy internal/mesh internal/tlspolicy api",
	"internal/pki":          "internal/ca internal/store internal/kek internal/awsapi internal/iam internal/mesh internal/tlspolicy api",
	"internal/awsacm":       "internal/ca internal/store internal/kek internal/awsapi internal/iam internal/mesh internal/tlspolicy api",
	"internal/agent":        "internal/xds internal/edge internal/store internal/kek internal/awsapi internal/iam internal/envoy internal/mesh internal/tlspolicy api",
	"internal/xds":          "internal/edge internal/store internal/kek internal/awsapi internal/iam internal/envoy internal/mesh internal/tlspolicy api",
	"internal/awsapi":       "internal/iam internal/mesh internal/tlspolicy api",
	"internal/manifest":     "internal/awsapi internal/iam internal/mesh internal/tlspolicy api",
	"internal/store":        "internal/kek internal/iam internal/mesh internal/tlspolicy api",
	"internal/edge":         "internal/mesh internal/tlspolicy api",
	"internal/iam":          "internal/mesh internal/tlspolicy api",
	"internal/envoy":        "internal/mesh internal/tlspolicy api",
	"internal/mesh":         "internal/tlspolicy api",
	"internal/mesh/meshgen": "internal/mesh internal/tlspolicy api", // for tests
	"internal/tlspolicy":    "api",
	"internal/ca":           "",
	"internal/kek":          "",
	"internal/importer":     "internal/manifest internal/awsapi internal/iam internal/mesh internal/tlspolicy api",
	"internal/discovery":    "",
	"internal/redirect":     "",
	"api":                   "",

	"internal/awsapi/gen": "",

	"bench/baseline/barestream": "bench/adswire",
	"bench/baseline/bareetcd":   "bench/apiload bench/loadrun",
}

// fences say who alone may import somebody else's modules, and why.
var fences = []struct {
	modules string // regular expression on import paths
	allowed string
	why     string
}{
	{`^go\.etcd\.io/`, "internal/store bench/baseline/bareetcd", "only the store knows etcd"},
	{`^github\.com/envoyproxy/`, "internal/envoy internal/xds internal/agent internal/meshtest e2e bench", "Envoy's messages end where resources and streams are made"},
	{`^k8s\.io/`, "", "no Kubernetes before the controller"},
	{`^github\.com/spf13/cobra`, "cmd/fairlead", "only the command line is a command line"},
	{`^github\.com/aws/aws-sdk-go-v2/service/`, "cmd/fairlead internal/awsacm internal/kek internal/demo internal/meshtest e2e bench", "SDK clients are for callers of the API, and for AWS itself"},
	{`^(os/exec|net/http)$`, "cmd internal/demo internal/meshtest internal/agent internal/awsapi internal/server internal/pki internal/awsacm internal/xds internal/store internal/redirect internal/ca internal/discovery e2e bench tools", "the pure packages touch nothing outside"},
	{`^encoding/json$`, "internal/awsapi/gen internal/agent internal/demo internal/meshtest internal/store internal/edge internal/xds internal/iam cmd e2e bench tools", "JSON from outside goes through awsapi's strict decoder"},
	{`^(context|log/slog|math/rand(/v2)?|crypto/rand|os)$`, "cmd internal/demo internal/meshtest internal/agent internal/awsapi internal/server internal/pki internal/awsacm internal/xds internal/store internal/redirect internal/ca internal/kek internal/discovery internal/iam internal/mesh/meshgen api e2e bench tools", "pure code has no context, no logger, no randomness"},
}

// generated directories and what makes them again. OUT stands for the folder
// to write to.
var generators = []struct {
	dir     string
	command string
}{
	{"api/appmesh", "go run ./internal/awsapi/gen -model internal/awsapi/gen/models/appmesh.json -package appmesh -out OUT"},
	{"api/acm", "go run ./internal/awsapi/gen -model internal/awsapi/gen/models/acm.json -package acm -out OUT"},
	{"api/acmpca", "go run ./internal/awsapi/gen -model internal/awsapi/gen/models/acm-pca.json -package acmpca -out OUT"},
}

// goPackage is what go list says of a package of this module.
type goPackage struct {
	ImportPath   string
	Name         string
	Dir          string
	Doc          string
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
	Imports      []string
	Deps         []string
}

// short is the package's folder in the repository.
func (p goPackage) short() string {
	return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-deps=false", "-json=ImportPath,Name,Dir,Doc,GoFiles,TestGoFiles,XTestGoFiles,Imports,Deps", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var packages []goPackage
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		packages = append(packages, p)
	}
}

// within says whether a package is one of a list, or lies below one.
func within(pkg, list string) bool {
	return slices.ContainsFunc(strings.Fields(list), func(allowed string) bool {
		return allowed == "*" || pkg == allowed || strings.HasPrefix(pkg, allowed+"/")
	})
}

func TestImportsGoDownwards(t *testing.T) {
	for _, p := range listPackages(t) {
		name := p.short()
		if name == "" {
			continue
		}
		allowed, known := layers[name]
		if !known {
			if within(name, "api e2e") {
				allowed = layers[strings.Split(name, "/")[0]]
			} else {
				t.Errorf("%s is not in the table of layers: add it where it belongs", name)
				continue
			}
		}
		for _, dep := range p.Deps {
			dep, ours := strings.CutPrefix(dep, module+"/")
			if ours && dep != name && !within(dep, allowed) && !(within(name, "api") && dep == "api") {
				t.Errorf("%s depends on %s, which is not below it", name, dep)
			}
		}
	}
}

func TestFences(t *testing.T) {
	for _, fence := range fences {
		modules := regexp.MustCompile(fence.modules)
		for _, p := range listPackages(t) {
			if within(p.short(), fence.allowed) {
				continue
			}
			for _, imported := range p.Imports {
				if modules.MatchString(imported) {
					t.Errorf("%s imports %s: %s", p.short(), imported, fence.why)
				}
			}
		}
	}
}

// TestPackageComments wants a reader to learn from each package's comment what
// it decides.
func TestPackageComments(t *testing.T) {
	for _, p := range listPackages(t) {
		if len(p.GoFiles) == 0 || within(p.short(), "api/appmesh") {
			continue
		}
		if p.Doc == "" {
			t.Errorf("%s has no package comment", p.short())
		}
	}
}

func TestPackageNames(t *testing.T) {
	banned := []string{"util", "utils", "common", "helper", "helpers", "misc", "types", "shared", "base"}
	packages := listPackages(t)
	ours := 0
	for _, p := range packages {
		if slices.Contains(banned, path.Base(p.ImportPath)) || regexp.MustCompile(`^v\d+$`).MatchString(p.Name) {
			t.Errorf("%s: the name says nothing about what is in it", p.short())
		}
		// Generated types, generators and what only tests import do not count.
		if within(p.short(), "internal api cmd") && !within(p.short(), "api/acm api/acmpca api/appmesh internal/awsapi/gen internal/mesh/meshgen internal/meshtest") {
			ours++
		}
	}
	if ours > 25 {
		t.Errorf("%d packages; 25 are enough", ours)
	}
}

// goFile is a hand-written Go file, parsed.
type goFile struct {
	path   string
	text   string
	syntax *ast.File
	files  *token.FileSet
	test   bool
}

func (f goFile) line(p token.Pos) int { return f.files.Position(p).Line }

// goFiles are the hand-written Go files of all modules in the repository.
func goFiles(t *testing.T) []goFile {
	t.Helper()
	var found []goFile
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != "." && strings.HasPrefix(d.Name(), ".") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		f := goFile{path: filepath.ToSlash(name), text: string(text), files: token.NewFileSet(), test: strings.HasSuffix(name, "_test.go")}
		f.syntax, err = parser.ParseFile(f.files, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		if !ast.IsGenerated(f.syntax) {
			found = append(found, f)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestFilesAndFunctionsAreShort(t *testing.T) {
	const fileLines, functionLines = 600, 70
	for _, f := range goFiles(t) {
		if f.test {
			continue
		}
		if n := strings.Count(f.text, "\n"); n > fileLines {
			t.Errorf("%s has %d lines; at most %d", f.path, n, fileLines)
		}
		for _, d := range f.syntax.Decls {
			function, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := f.line(function.End()) - f.line(function.Pos()) + 1; n > functionLines {
				t.Errorf("%s: %s has %d lines; at most %d", f.path, function.Name.Name, n, functionLines)
			}
		}
	}
}

// pure packages decide, from their arguments alone.
const pure = "internal/mesh internal/tlspolicy internal/envoy internal/edge internal/manifest internal/importer"

// banned are expressions that must not be in the code, where and why.
var banned = []struct {
	expression string
	where      string // packages; "*" is everywhere
	except     string
	tests      bool // in tests neither
	why        string
}{
	{`\btime\.(Now|Since|Until|After|Tick|NewTimer|Sleep)\(`, pure, "", false, "time is an argument of a decision"},
	{`\bInsecureSkipVerify\b`, "*", "", true, "every peer is verified"},
	{`\bACCEPT_UNTRUSTED\b`, "*", "", false, "a validation that accepts anything is none"},
	{`\bMatchSubjectAltNames\b`, "*", "", false, "untyped SAN matchers match names of every kind"},
	{`\bjson\.NewDecoder\(`, "cmd internal", "internal/awsapi", false, "one strict decoder for documents from outside"},
	{`^func init\(\)`, "cmd internal", "", true, "nothing registers itself"},
	{`\bt\.Skip`, "*", "", true, "what cannot run is named by tools/suites, not skipped"},
	{`\btime\.Sleep\(`, "cmd internal e2e", "", true, "wait for the event"},
	{`stretchr/testify|golang/mock|uber-go/mock`, "*", "", true, "go-cmp and the real thing"},
	{`\b(TODO|FIXME|XXX)\b`, "*", "", true, "open work is an issue"},
}

func TestBannedExpressions(t *testing.T) {
	for _, f := range goFiles(t) {
		if f.path == "repo_test.go" {
			continue
		}
		folder := path.Dir(f.path)
		for _, b := range banned {
			if !within(folder, b.where) || within(folder, b.except) || f.test && !b.tests {
				continue
			}
			expression := regexp.MustCompile(b.expression)
			for i, line := range strings.Split(f.text, "\n") {
				code, comment, _ := strings.Cut(line, "//")
				if expression.MatchString(code) || strings.Contains(b.expression, "TODO") && expression.MatchString(comment) {
					t.Errorf("%s:%d: %s: %s", f.path, i+1, strings.TrimSpace(line), b.why)
				}
			}
		}
	}
}

func TestGeneratedFilesAreWhatTheGeneratorMakes(t *testing.T) {
	for _, g := range generators {
		out := t.TempDir()
		args := strings.Fields(strings.Replace(g.command, "OUT", out, 1))
		if said, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", g.command, err, said)
			continue
		}
		if diff := cmp.Diff(filesIn(t, out), filesIn(t, g.dir)); diff != "" {
			t.Errorf("%s is not what %s makes (-made +there):\n%s", g.dir, g.command, diff)
		}
	}
}

func filesIn(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), "_gen.go") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		found[e.Name()] = string(text)
	}
	return found
}

// TestLicences wants every module that the product is built from to be under a
// permissive licence: the words of one must be in its licence file, and those
// of a copyleft or source-available one must not.
func TestLicences(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}} {{.Dir}}{{end}}", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	rows := strings.Split(strings.TrimSpace(string(out)), "\n")
	slices.Sort(rows)
	permissive := regexp.MustCompile(`(?i)Apache License|Permission is hereby granted, free of charge|Redistribution and use in source and binary forms|Permission to use, copy, modify, and(/or)? distribute`)
	refused := regexp.MustCompile(`(?i)GNU (AFFERO |LESSER )?GENERAL PUBLIC LICENSE|Business Source License|Server Side Public License|Mozilla Public License|Elastic License`)
	for _, row := range slices.Compact(rows) {
		name, dir, ok := strings.Cut(row, " ")
		if !ok || name == module {
			continue
		}
		text := licenceIn(t, dir)
		if !permissive.MatchString(text) || refused.MatchString(text) {
			t.Errorf("%s: its licence is not one of the permissive ones", name)
		}
	}
}

func licenceIn(t *testing.T, dir string) string {
	t.Helper()
	// A module in a folder of a repository carries the repository's licence.
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var text string
	for _, e := range entries {
		if !regexp.MustCompile(`(?i)^(licen[cs]e|copying)`).MatchString(e.Name()) || e.IsDir() {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		text += string(b)
	}
	return text
}

// TestGuardsHaveTeeth wants a row in tools/teeth.txt for every guard that a
// build tag can switch off, and a guard for every row.
func TestGuardsHaveTeeth(t *testing.T) {
	tag := regexp.MustCompile(`\bunguarded_\w+`)
	inCode := map[string]bool{}
	for _, f := range goFiles(t) {
		for line := range strings.Lines(f.text) {
			if strings.HasPrefix(line, "//go:build ") {
				for _, name := range tag.FindAllString(line, -1) {
					inCode[name] = true
				}
			}
		}
	}
	table, err := os.ReadFile("tools/teeth.txt")
	if err != nil {
		t.Fatal(err)
	}
	inTable := map[string]bool{}
	for _, name := range tag.FindAllString(string(table), -1) {
		inTable[name] = true
	}
	if diff := cmp.Diff(inCode, inTable); diff != "" {
		t.Errorf("guards in the code and in tools/teeth.txt differ (-code +table):\n%s", diff)
	}
}
