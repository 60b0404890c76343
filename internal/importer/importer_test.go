package importer

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/fairlead/fairlead/api/appmesh"

	"github.com/fairlead/fairlead/internal/manifest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden compares what is read with what testdata/*.txtar says. An archive
// has prose, which may have lines "option NAME=VALUE"; inputs, which are files of
// any other name; "documents.yaml", what is written; and "report".
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			inputs, options := readArchive(archive)
			documents, report := imported(t, inputs, options)
			wanted := 0
			for i, f := range archive.Files {
				got, ok := map[string]string{"documents.yaml": documents, "report": report}[f.Name]
				if !ok {
					continue
				}
				wanted++
				if *update {
					archive.Files[i].Data = []byte(got)
				} else if diff := cmp.Diff(strings.Split(string(f.Data), "\n"), strings.Split(got, "\n")); diff != "" {
					t.Errorf("%s (-want +got):\n%s", f.Name, diff)
				}
			}
			if wanted != 2 {
				t.Errorf("%s wants no documents or no report", file)
			}
			if *update {
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func readArchive(archive *txtar.Archive) ([]Input, Options) {
	options := Options{Parameters: map[string]string{}}
	for line := range strings.Lines(string(archive.Comment)) {
		setting, ok := strings.CutPrefix(strings.TrimSpace(line), "option ")
		if !ok {
			continue
		}
		name, value, _ := strings.Cut(setting, "=")
		if name == "mesh" {
			options.Mesh = value
		} else {
			options.Parameters[name] = value
		}
	}
	var inputs []Input
	for _, f := range archive.Files {
		if f.Name != "documents.yaml" && f.Name != "report" {
			inputs = append(inputs, Input{Name: f.Name, Data: f.Data})
		}
	}
	return inputs, options
}

func imported(t *testing.T, inputs []Input, options Options) (documents, report string) {
	t.Helper()
	result, err := Read(inputs, options)
	if err != nil {
		t.Fatal(err)
	}
	written, err := manifest.Write(result.Resources, false)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := result.WriteReport(&b); err != nil {
		t.Fatal(err)
	}
	return string(written), b.String()
}

// Texts that YAML or a terminal could take for something else arrive as they are.
func TestOddTexts(t *testing.T) {
	for _, odd := range []string{
		"y", "no", "~", "null", "true", "0123", "0x10", "1e3", "1_000", "1:30", ".inf", "2024-01-01", "=", "<<", "!x", "&a", "*a", "a: b", "# c",
		" x ", "-", "---", "two\nlines\n", "\t", "\u0001", "\u001b[31m", "\u007f", "\u0085", "\u2028", "\ufeff", "\uffff", "é", "😀", `"'\`, "${x}",
	} {
		encoded, err := json.Marshal(odd)
		if err != nil {
			t.Fatal(err)
		}
		in := `{"route": {"meshName": "m", "virtualRouterName": "r", "routeName": "x", "spec": {"httpRoute": {"match": {"prefix": "/", "headers": [{"name": "h", "match": {"exact": ` +
			string(encoded) + `}}]}, "action": {"weightedTargets": [{"virtualNode": "n", "weight": 1}]}}}}}`
		result, err := Read([]Input{{Name: "in", Data: []byte(in)}}, Options{})
		if err != nil || len(result.Resources) != 1 {
			t.Errorf("%q: %v, %+v", odd, err, result)
			continue
		}
		spec := result.Resources[0].Spec.(*appmesh.RouteSpec)
		if got := *spec.HttpRoute.Match.Headers[0].Match.Exact; got != odd {
			t.Errorf("%q arrived as %q", odd, got)
		}
		sameInBoth(t, result.Resources)
	}
	named := Result{Carried: []string{"mesh/\u001b[31m\nLost: 0"}, Lost: []Finding{{Message: "a\nb"}}}
	var report strings.Builder
	if err := named.WriteReport(&report); err != nil {
		t.Fatal(err)
	}
	if text := report.String(); strings.Contains(text, "\u001b") || strings.Contains(text, "a\nb") || strings.Contains(text, "\nLost") {
		t.Errorf("a name speaks for the report: %q", text)
	}
}
