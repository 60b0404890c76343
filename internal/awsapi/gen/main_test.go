package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// models are the model files and the packages that are made of them.
var models = map[string]string{"appmesh.json": "appmesh", "acm.json": "acm", "acm-pca.json": "acmpca"}

// TestGeneratedCodeIsCurrent: the packages are what the generator makes of the
// models that are checked in, no more and no less.
func TestGeneratedCodeIsCurrent(t *testing.T) {
	for file, pkg := range models {
		t.Run(pkg, func(t *testing.T) { checkCurrent(t, file, pkg) })
	}
}

func checkCurrent(t *testing.T, file, pkg string) {
	files, err := generate(readModel(t, file), file, pkg)
	if err != nil {
		t.Fatal(err)
	}
	folder := "../../../api/" + pkg
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(want, got) {
			t.Errorf("%s is not what the generator makes; run go generate ./internal/awsapi/gen (-generated +checked in):\n%s", name, cmp.Diff(string(want), string(got)))
		}
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if _, generated := files[entry.Name()]; strings.HasSuffix(entry.Name(), "_gen.go") && !generated {
			t.Errorf("%s is left over", entry.Name())
		}
	}
}

// TestUnknownKeysFail: what the generator does not know it must not lose.
func TestUnknownKeysFail(t *testing.T) {
	raw := string(readModel(t, "appmesh.json"))
	for _, test := range []struct{ name, old, new, want string }{
		{"top level", `"operations":`, `"novelties":{},"operations":`, `unknown field "novelties"`},
		{"of an operation", `"name":"CreateMesh"`, `"name":"CreateMesh","endpoint":{"hostPrefix":"x"}`, `unknown field "endpoint"`},
		{"of a shape", `"type":"structure"`, `"type":"structure","sealed":true`, `unknown field "sealed"`},
		{"of a member", `"idempotencyToken":true`, `"idempotencyToken":true,"hostLabel":true`, `unknown field "hostLabel"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			compact := strings.NewReplacer(`": `, `":`, "\n", "", "  ", "").Replace(raw)
			changed := strings.Replace(compact, test.old, test.new, 1)
			if changed == compact {
				t.Fatalf("the model has no %s", test.old)
			}
			if _, err := generate([]byte(changed), "appmesh.json", "appmesh"); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

// TestDeadExceptionsFail: an entry of a table of exceptions that nothing uses
// any more is an error, and so is a pattern that has changed under its own.
func TestDeadExceptionsFail(t *testing.T) {
	pointers["MeshSpec.nothing"] = true
	defer delete(pointers, "MeshSpec.nothing")
	if _, err := generate(readModel(t, "appmesh.json"), "appmesh.json", "appmesh"); err == nil || !strings.Contains(err.Error(), "MeshSpec.nothing is dead") {
		t.Errorf("got %v", err)
	}
	raw := bytes.Replace(readModel(t, "acm.json"), []byte(`"(\\*\\.)?(((?!-)[A-Za-z0-9-]{0,62}`), []byte(`"(\\*\\.)?(([A-Za-z0-9-]{0,62}`), 1)
	raw = bytes.Replace(raw, []byte(`((?!-)[A-Za-z0-9-]{1,62}`), []byte(`([A-Za-z0-9-]{1,62}`), 1)
	if _, err := generate(raw, "acm.json", "acm"); err == nil || !strings.Contains(err.Error(), "DomainNameString is dead") {
		t.Errorf("got %v", err)
	}
}

// TestPatterns: RE2's words for what it cannot read mean the same.
func TestPatterns(t *testing.T) {
	g := generator{used: map[string]bool{}}
	name := regexp.MustCompile(g.pattern("DomainNameString", patterns["DomainNameString"].model))
	long := strings.Repeat("a", 63)
	for text, want := range map[string]bool{
		"example.com": true, "*.example.com": true, "a.bc": true, "A-1.b-c.dE": true, long + ".com": true, "x." + long: true, "a--b.cd": true,
		"": false, "localhost": false, "a.b": false, "-a.com": false, "a-.com": false, "a.-com": false, "a.com-": false, "a..com": false,
		long + "a.com": false, "x." + long + "a": false, "*.com*": false, "a.*.com": false, "a_b.com": false, "a.com\n": false, " a.com": false,
	} {
		if name.MatchString(text) != want {
			t.Errorf("%q: want %v", text, want)
		}
	}
	for model, want := range map[string]string{`\w+`: `^\w+$`, `a|b`: `^(?:a|b)$`, `[\u0009\u0020-\u00FF]*`: `^[\x{0009}\x{0020}-\x{00FF}]*$`} {
		if got := g.pattern("Other", model); got != want {
			t.Errorf("%s: got %s, want %s", model, got, want)
		}
	}
}

func readModel(t *testing.T, file string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("models", file))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestModelsAreNamed: the note on where the models come from is about these.
func TestModelsAreNamed(t *testing.T) {
	note, err := os.ReadFile("models/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for file := range models {
		if sum := fmt.Sprintf("| %x |", sha256.Sum256(readModel(t, file))); !strings.Contains(string(note), sum) {
			t.Errorf("models/README.md does not say %s of %s", sum, file)
		}
	}
	there, err := filepath.Glob("models/*.json")
	if err != nil || len(there) != len(models) {
		t.Errorf("models: %v, %v", there, err)
	}
}
