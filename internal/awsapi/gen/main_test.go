package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const modelFile = "models/appmesh.json"

// TestGeneratedCodeIsCurrent: api/appmesh is what the generator makes of the
// model that is checked in, no more and no less.
func TestGeneratedCodeIsCurrent(t *testing.T) {
	raw := readModel(t)
	files, err := generate(raw, "appmesh.json", "appmesh")
	if err != nil {
		t.Fatal(err)
	}
	const folder = "../../../api/appmesh"
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
	raw := string(readModel(t))
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

// TestDeadExceptionsFail: an entry of the table of exceptions that nothing uses
// any more is an error.
func TestDeadExceptionsFail(t *testing.T) {
	pointers["MeshSpec.nothing"] = true
	defer delete(pointers, "MeshSpec.nothing")
	if _, err := generate(readModel(t), "appmesh.json", "appmesh"); err == nil || !strings.Contains(err.Error(), "MeshSpec.nothing is dead") {
		t.Errorf("got %v", err)
	}
}

func readModel(t *testing.T) []byte {
	t.Helper()
	raw, err := os.ReadFile(modelFile)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestModelIsNamed: the note on where the model comes from is about this model.
func TestModelIsNamed(t *testing.T) {
	note, err := os.ReadFile("models/README.md")
	if err != nil {
		t.Fatal(err)
	}
	if sum := fmt.Sprintf("sha256 %x", sha256.Sum256(readModel(t))); !strings.Contains(string(note), sum) {
		t.Errorf("models/README.md does not say %s", sum)
	}
}
