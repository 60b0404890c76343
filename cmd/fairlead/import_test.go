package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/internal/importer"
)

// imports runs fairlead import with files of its own folder, {name: content}.
func imports(t *testing.T, files map[string]string, stdin string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, content := range files {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out, errs bytes.Buffer
	root := rootCommand()
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&out)
	root.SetErr(&errs)
	root.SetArgs(append([]string{"import"}, args...))
	err = root.ExecuteContext(t.Context())
	return out.String(), errs.String(), err
}

const (
	describedMesh = `{"mesh": {"meshName": "apps", "spec": {"egressFilter": {"type": "DROP_ALL"}}}}`
	meshTemplate  = "Parameters: {Name: {Type: String}}\nResources:\n  M: {Type: 'AWS::AppMesh::Mesh', Properties: {MeshName: !Sub '${Name}', Spec: {}}}\n"
)

func TestImport(t *testing.T) {
	for _, test := range []struct {
		name   string
		files  map[string]string
		stdin  string
		args   string
		code   int
		stdout string // a piece of each
		stderr string
	}{
		{name: "standard input", stdin: describedMesh, args: "-", stdout: "meshName: apps\nspec:\n", stderr: "Carried over: 1"},
		{name: "JSON", stdin: describedMesh, args: "- -o json", stdout: "[\n  {\n    \"meshName\": \"apps\",\n    \"spec\": {\n"},
		{name: "a folder, with a file of somebody else", args: "all", code: 0,
			files:  map[string]string{"all/a/mesh.json": describedMesh, "all/b.yml": "services: {}", "all/notes.txt": "{"},
			stdout: "meshName: apps", stderr: "1 document of an unknown format"},
		{name: "a folder, with a broken file", args: "all", code: 3,
			files:  map[string]string{"all/mesh.json": describedMesh, "all/b.json": "{"},
			stdout: "meshName: apps", stderr: "the file cannot be read"},
		{name: "a parameter", files: map[string]string{"t.yaml": meshTemplate}, args: "t.yaml --parameter Name=x=y", stdout: "meshName: x=y"},
		{name: "a parameter file", files: map[string]string{"t.yaml": meshTemplate, "p.json": `[{"ParameterKey": "Name", "ParameterValue": "filed"}]`},
			args: "t.yaml --parameters p.json", stdout: "meshName: filed"},
		{name: "a parameter before the file's", files: map[string]string{"t.yaml": meshTemplate, "p.yaml": "Parameters: {Name: filed}"},
			args: "t.yaml --parameters p.yaml --parameter Name=given", stdout: "meshName: given"},
		{name: "a parameter that lacks", files: map[string]string{"t.yaml": meshTemplate}, args: "t.yaml", code: 3, stderr: "give --parameter Name=VALUE"},
		{name: "another format", stdin: `{"Resources": {}}`, args: "- --from kubernetes", code: 0, stderr: "Carried over: 0"},

		{name: "nothing", args: "", code: 2, stderr: "takes files"},
		{name: "no such format", args: "- --from helm", code: 2, stderr: `"helm" is not describe`},
		{name: "no such output", args: "- -o xml", code: 2, stderr: `"xml" is not yaml or json`},
		{name: "no parameter", args: "- --parameter Name", code: 2, stderr: "is not NAME=VALUE"},
		{name: "no such file", args: "gone.json", code: 1, stderr: "gone.json: no such file"},
		{name: "an empty folder", files: map[string]string{"all/notes.txt": ""}, args: "all", code: 1, stderr: "has no file whose name ends in"},
		{name: "an unknown document", stdin: `{"services": {}}`, args: "-", code: 1, stderr: "say which with --from"},
		{name: "too big", stdin: strings.Repeat(" ", importer.MaxBytes+1), args: "-", code: 1, stderr: "more than 16777216 bytes"},
		{name: "bad parameters", files: map[string]string{"p.json": `{"Name": {}}`}, args: "- --parameters p.json", code: 1, stderr: "p.json: line 1: a parameter must have a name and a value"},
	} {
		t.Run(test.name, func(t *testing.T) {
			stdout, stderr, err := imports(t, test.files, test.stdin, strings.Fields(test.args)...)
			code, usage := exitCode(0), (*usageError)(nil)
			switch {
			case errors.As(err, &usage):
				code, stderr = 2, err.Error()
			case err != nil && !errors.As(err, &code):
				code, stderr = 1, err.Error()
			}
			if int(code) != test.code || !strings.Contains(stdout, test.stdout) || !strings.Contains(stderr, test.stderr) {
				t.Errorf("exit code %d, want %d\nstdout: %s\nstderr: %s", code, test.code, stdout, stderr)
			}
		})
	}
}

// The report as JSON has the words of the one for people, and is there also when
// nothing is to be said.
func TestImportReport(t *testing.T) {
	_, stderr, err := imports(t, map[string]string{"t.yaml": meshTemplate, "m.json": describedMesh}, "", "t.yaml", "m.json", "--report", "report.json")
	if !errors.Is(err, exitIncomplete) {
		t.Fatalf("got %v", err)
	}
	text, err := os.ReadFile("report.json")
	if err != nil {
		t.Fatal(err)
	}
	var report importer.Result
	if err := json.Unmarshal(text, &report); err != nil {
		t.Fatal(err)
	}
	if len(report.Carried) != 1 || len(report.Lost) == 0 || report.Complete {
		t.Errorf("the report is %s", text)
	}
	for _, f := range report.Lost {
		if !strings.Contains(stderr, f.Message) || !strings.Contains(stderr, f.Source) {
			t.Errorf("the text does not say %+v", f)
		}
	}
	if strings.Contains(string(text), "null") {
		t.Errorf("an empty list is null: %s", text)
	}
}
