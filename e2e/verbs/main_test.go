// Package verbs runs the operators' verbs as users do, against real servers:
// apply, get, describe, delete and export.
package verbs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/internal/meshtest"
)

func TestMain(m *testing.M) { os.Exit(meshtest.Main(m)) }

// answer is what a command said.
type answer struct {
	code     int
	out, err string
}

// fairlead runs a command with the root key and something on standard input.
func fairlead(t *testing.T, s *meshtest.Server, in string, args ...string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, meshtest.Binary(t), args...)
	cmd.Env = s.AWSEnv()
	cmd.Stdin = strings.NewReader(in)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit, failed := errors.AsType[*exec.ExitError](err); failed && exit.ExitCode() >= 0 {
		return answer{exit.ExitCode(), out.String(), errs.String()}
	}
	if err != nil {
		t.Fatalf("fairlead %s: %v\n%s", strings.Join(args, " "), err, errs.String())
	}
	return answer{0, out.String(), errs.String()}
}

// must runs a command that must succeed and returns its standard output.
func must(t *testing.T, s *meshtest.Server, in string, args ...string) string {
	t.Helper()
	a := fairlead(t, s, in, args...)
	if a.code != 0 || a.err != "" {
		t.Fatalf("fairlead %s: exit code %d\n%s%s", strings.Join(args, " "), a.code, a.out, a.err)
	}
	return a.out
}

// same compares what was said with what was to be said.
func same(t *testing.T, what, want, got string) {
	t.Helper()
	if diff := cmp.Diff(strings.Split(strings.TrimSpace(want), "\n"), strings.Split(strings.TrimSpace(got), "\n")); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// write writes files into a new folder.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// version is a resource's, by its name as get -o name has it.
func version(t *testing.T, s *meshtest.Server, in, name string) int64 {
	t.Helper()
	var resource struct {
		Metadata struct {
			Version int64 `json:"version"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal([]byte(must(t, s, "", "get", name, "-m", in, "-o", "json")), &resource); err != nil {
		t.Fatal(err)
	}
	return resource.Metadata.Version
}

// colors is a mesh with every kind in it, its documents in no useful order.
var colors = map[string]string{
	"z/10-mesh.yml": `
meshName: apps
spec: {egressFilter: {type: DROP_ALL}}
tags: [{key: team, value: "007"}]
`,
	"a.yaml": `
meshName: apps
virtualGatewayName: edge
gatewayRouteName: all
spec: {httpRoute: {match: {prefix: /}, action: {target: {virtualService: {virtualServiceName: color.local}}}}}
---
meshName: apps
virtualRouterName: color
routeName: all
spec:
  httpRoute:
    match: {prefix: /}
    action: {weightedTargets: [{virtualNode: blue, weight: 90}, {virtualNode: green, weight: 10}]}
---
meshName: apps
virtualServiceName: color.local
spec: {provider: {virtualRouter: {virtualRouterName: color}}}
`,
	"b.json": `[
  {"meshName": "apps", "virtualRouterName": "color", "spec": {"listeners": [{"portMapping": {"port": 8080, "protocol": "http"}}]}},
  {"meshName": "apps", "virtualGatewayName": "edge", "spec": {"listeners": [{"portMapping": {"port": 9000, "protocol": "http"}}]}}
]`,
	"nodes.yaml": `
meshName: apps
virtualNodeName: green
spec:
  listeners: [{portMapping: {port: 8080, protocol: http}}]
  serviceDiscovery: {dns: {hostname: green.local}}
---
meshName: apps
virtualNodeName: blue
spec:
  backends: [{virtualService: {virtualServiceName: nowhere.local}}]
  listeners:
  - portMapping: {port: 8080, protocol: http}
    healthCheck: {protocol: http, path: /ping, healthyThreshold: 2, unhealthyThreshold: 2, timeoutMillis: 2000, intervalMillis: 5000}
  serviceDiscovery: {dns: {hostname: blue.local}}
`,
	".hidden.yaml": "this is not read",
	"readme.txt":   "nor is this",
}

const colorsInOrder = `mesh/apps
virtualNode/blue (mesh apps)
virtualNode/green (mesh apps)
virtualRouter/color (mesh apps)
virtualRouter/color/route/all (mesh apps)
virtualService/color.local (mesh apps)
virtualGateway/edge (mesh apps)
virtualGateway/edge/gatewayRoute/all (mesh apps)
`

// each puts a verb before every line.
func each(verb, lines string) string {
	return regexp.MustCompile(`(?m)^`).ReplaceAllString(strings.TrimSpace(lines), verb+" ") + "\n"
}
