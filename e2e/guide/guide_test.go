// Package guide runs what the pages of docs/ tell readers to run: the blocks
// marked sh, in one shell for each tour, against real Envoys and real AWS
// clients, on addresses of its own.
package guide

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead/fairlead/internal/meshtest"
)

const docs = "../../docs/"

func TestMain(m *testing.M) { os.Exit(meshtest.Main(m)) }

// tour is the pages whose commands follow each other.
var tour = []string{
	"run-a-server", "run-a-proxy", "encrypt-an-edge", "go-mutual", "rotate-a-file-certificate", "go-mutual-without-files",
	"see-who-talks-to-whom", "apply-files", "import-from-app-mesh", "private-ca", "certificates", "rotate-a-root", "keep-certificate-arns", "who-may-do-what", "key-stores", "back-up", "accept-a-shrink",
	"real-acm", "spire", "cert-manager", // nothing to run: they need AWS, SPIRE, Kubernetes
}

func TestTasks(t *testing.T) {
	entries, err := os.ReadDir(docs + "tasks")
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(tour) {
		t.Errorf("docs/tasks has %d pages, the tour runs %d", len(entries), len(tour))
	}
	script := "set -euo pipefail\n"
	for _, name := range tour {
		page, err := os.ReadFile(docs + "tasks/" + name + ".md")
		if err != nil {
			t.Fatal(err)
		}
		script += "echo '=== " + name + "'\nset -x\n" + shell(string(page)) + "{ set +x; } 2> /dev/null\n"
	}
	run(t, t.TempDir(), elsewhere(t, script))
}

// TestQuickstart runs the page from a clone, as it says.
func TestQuickstart(t *testing.T) {
	page, err := os.ReadFile(docs + "quickstart.md")
	if err != nil {
		t.Fatal(err)
	}
	clone, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	run(t, clone, elsewhere(t, "set -euo pipefail\nset -x\n"+shell(string(page))))
}

// shell are a page's blocks marked sh.
func shell(page string) string {
	var script strings.Builder
	for _, block := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllStringSubmatch(page, -1) {
		script.WriteString(block[1])
	}
	return script.String()
}

// elsewhere moves a script from the default ports and the addresses of the
// pages to free ones: other tests run on the same machine.
func elsewhere(t *testing.T, script string) string {
	t.Helper()
	network := meshtest.NewNetwork(t)
	first := network.Address(t, "")
	prefix := first[:strings.LastIndex(first, ".")+1]
	script = regexp.MustCompile(`127\.0\.0\.(\d\d)\b`).ReplaceAllString(script, prefix+"$1")
	ports := map[string]string{}
	script = regexp.MustCompile(`\b(948[0-2]|1808\d)\b`).ReplaceAllStringFunc(script, func(port string) string {
		if ports[port] == "" {
			ports[port] = freePort(t)
		}
		return ports[port]
	})
	for port, name := range map[string]string{"9480": "API", "9481": "XDS", "9482": "OPS"} {
		if ports[port] != "" {
			script = "export FAIRLEAD_" + name + "_ADDRESS=127.0.0.1:" + ports[port] + "\n" + script
		}
	}
	return script
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// run runs a script in a folder as a user would, with nothing of ours in the
// environment.
func run(t *testing.T, dir, script string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + strings.Join([]string{filepath.Dir(meshtest.Binary(t)), filepath.Dir(meshtest.Tool(t, "aws")), os.Getenv("PATH")}, ":"),
		"ENVOY_BIN=" + meshtest.Envoy(t), "ENVOY_CONCURRENCY=1", "HOME=" + home(t), "TMPDIR=/tmp",
		"AWS_EC2_METADATA_DISABLED=true", "AWS_PAGER=", "AWS_CONFIG_FILE=/nonexistent",
	}
	for _, variable := range os.Environ() {
		if strings.HasPrefix(variable, "GO") {
			cmd.Env = append(cmd.Env, variable) // the quickstart builds
		}
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) //nolint:errcheck // what a failed script leaves behind
	if err != nil {
		logs, _ := filepath.Glob(filepath.Join(dir, "*.log"))
		for _, log := range logs {
			text, _ := os.ReadFile(log)
			t.Logf("%s:\n%s", filepath.Base(log), lastLines(string(text), 40))
		}
		t.Fatalf("the commands of the pages: %v\n%s", err, lastLines(out.String(), 60))
	}
}

// home is the user's own: the Go command keeps its cache there.
func home(t *testing.T) string {
	t.Helper()
	dir, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// TestEnvoysOwnWords looks in the Envoy binary for what
// docs/troubleshooting.md quotes of it.
func TestEnvoysOwnWords(t *testing.T) {
	page, err := os.ReadFile(docs + "troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(page), "## Envoy's own words")
	quotes := regexp.MustCompile("(?m)^### `([^`]+)`").FindAllStringSubmatch(section, -1)
	if !found || len(quotes) == 0 {
		t.Fatal("the section has no entries")
	}
	binary, err := filepath.EvalSymlinks(meshtest.Envoy(t))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	for _, quote := range quotes {
		if !bytes.Contains(text, []byte(quote[1])) {
			t.Errorf("Envoy does not say %q", quote[1])
		}
	}
}
