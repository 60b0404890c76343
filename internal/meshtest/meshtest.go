// Package meshtest starts the real thing for tests: the fairlead binary as
// server and agents, stock Envoys, applications, a DNS server and certificates
// from files, all on loopback addresses and without root. It decides nothing
// and fakes nothing; what a test asserts it reads from the outside, as a user
// would. The page it follows is design.md 3.
package meshtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"
)

// Account and Region are those of every test's server.
const (
	Account = "000000000000"
	Region  = "us-east-1"
)

// Binary is the fairlead binary: FAIRLEAD_BIN, else one that is built once per
// test process, with the test's own build tags: go test -tags unguarded_… tests
// a product without that guard. Main removes it.
func Binary(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("FAIRLEAD_BIN"); path != "" {
		return path
	}
	dir, err := builtBinary()
	if err != nil {
		t.Fatalf("build fairlead: %v", err)
	}
	return filepath.Join(dir, "fairlead")
}

// builtIn is the folder of the binary that builtBinary has built, for Main.
var builtIn string

var builtBinary = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "fairlead-test-"); err != nil {
		return "", err
	}
	builtIn = dir
	build := exec.Command("go", "build", "-tags", buildTags(), "-o", dir, "github.com/fairlead/fairlead/cmd/fairlead")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return dir, nil
})

// buildTags are the tags that this test was built with.
func buildTags() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, setting := range info.Settings {
		if setting.Key == "-tags" {
			return setting.Value
		}
	}
	return ""
}

// Main runs the tests of a package that uses Binary, and cleans up:
//
//	func TestMain(m *testing.M) { os.Exit(meshtest.Main(m)) }
func Main(m *testing.M) int {
	code := m.Run()
	if builtIn != "" {
		os.RemoveAll(builtIn) //nolint:errcheck // a file in the temporary folder
	}
	return code
}

// Envoy is the Envoy to use: ENVOY_BIN, else the one that make pins into
// .tools/bin, else the one on PATH.
func Envoy(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("ENVOY_BIN"); path != "" {
		return path
	}
	if root, err := moduleRoot(); err == nil {
		if path := filepath.Join(root, ".tools/bin/envoy"); exists(path) {
			return path
		}
	}
	path, err := exec.LookPath("envoy")
	if err != nil {
		t.Fatalf("find Envoy: %v; run make tools, or set ENVOY_BIN", err)
	}
	return path
}

// Tool is a program of the Python environment that make sets up: python, aws.
func Tool(t testing.TB, name string) string {
	t.Helper()
	root, err := moduleRoot()
	if err != nil {
		t.Fatalf("find the module: %v", err)
	}
	path := filepath.Join(root, ".tools/venv/bin", name)
	if !exists(path) {
		t.Fatalf("%s is not there: run make tools", path)
	}
	return path
}

func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; !exists(filepath.Join(dir, "go.mod")); dir = filepath.Dir(dir) {
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod above the working directory")
		}
	}
	return dir, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Eventually tries until it succeeds; it fails the test with the last error
// when time runs out.
func Eventually(t testing.TB, within time.Duration, try func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	if err := poll(ctx, nil, try); err != nil {
		t.Fatalf("not within %s: %v", within, err)
	}
}

// poll tries until it succeeds, ctx ends, or the process that it depends on.
func poll(ctx context.Context, on *Process, try func(context.Context) error) error {
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	var exited <-chan struct{}
	if on != nil {
		exited = on.exited
	}
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-exited:
			return fmt.Errorf("%s ended: %w", on.Name, err)
		case <-tick.C:
		}
	}
}

// environment is the test's own without what would change the programs, and
// with some more.
func environment(more ...string) []string {
	var kept []string
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		for _, prefix := range []string{"AWS_", "APPMESH_", "APPNET_", "FAIRLEAD_", "ENVOY_", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"} {
			if strings.HasPrefix(name, prefix) {
				name = ""
				break
			}
		}
		if name != "" {
			kept = append(kept, variable)
		}
	}
	return append(kept, more...)
}
