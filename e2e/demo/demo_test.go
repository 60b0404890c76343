// Package demo_test runs fairlead demo as a user does and looks at what it
// says and at what it leaves behind: nothing.
package demo_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead/fairlead/internal/meshtest"
)

func TestMain(m *testing.M) { os.Exit(meshtest.Main(m)) }

// endsWithin is how long the demo has, from a signal to its end too.
const endsWithin = 2 * time.Minute

// run is a demo with a temporary folder of its own: all of its processes have
// the name of it in their environment.
type run struct {
	cmd  *exec.Cmd
	temp string

	mu  sync.Mutex
	out bytes.Buffer
}

// Write takes what the demo says.
func (r *run) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.Write(p)
}

func (r *run) said() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.String()
}

func start(t *testing.T, args ...string) *run {
	t.Helper()
	r := &run{temp: t.TempDir()}
	r.cmd = exec.Command(meshtest.Binary(t), append([]string{"demo"}, args...)...)
	r.cmd.Dir = r.temp
	r.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + r.temp, "TMPDIR=" + r.temp, "ENVOY_BIN=" + meshtest.Envoy(t)}
	r.cmd.Stdout, r.cmd.Stderr = r, r
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, pid := range r.processes(t) {
			syscall.Kill(pid, syscall.SIGKILL) //nolint:errcheck // it has ended meanwhile
		}
		if t.Failed() {
			t.Logf("the demo said:\n%s", r.said())
		}
	})
	return r
}

// wait waits for the end and returns the exit status.
func (r *run) wait(t *testing.T) int {
	t.Helper()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.cmd.Wait() //nolint:errcheck // the exit status says it
	}()
	select {
	case <-ended:
		return r.cmd.ProcessState.ExitCode()
	case <-time.After(endsWithin):
		t.Fatalf("the demo did not end within %s", endsWithin)
		return 0
	}
}

// processes are those of the run.
func (r *run) processes(t *testing.T) []int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	var found []int
	for _, file := range files {
		environ, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(environ, []byte(r.temp)) {
			continue // it has ended, or is another user's
		}
		var pid int
		if _, err := fmt.Sscanf(file, "/proc/%d/environ", &pid); err == nil {
			found = append(found, pid)
		}
	}
	return found
}

// wantNothingLeft wants no process and no file.
func (r *run) wantNothingLeft(t *testing.T) {
	t.Helper()
	for _, pid := range r.processes(t) {
		command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // for the message
		t.Errorf("left behind: process %d: %s", pid, bytes.ReplaceAll(command, []byte{0}, []byte(" ")))
	}
	err := filepath.WalkDir(r.temp, func(path string, _ os.DirEntry, err error) error {
		if err == nil && path != r.temp {
			t.Errorf("left behind: %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// children is how many programs of each name run.
func (r *run) children(t *testing.T) map[string]int {
	t.Helper()
	names := map[string]int{}
	for _, pid := range r.processes(t) {
		if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil {
			names[strings.TrimSpace(string(name))]++
		}
	}
	return names
}

// TestDemo wants the demo to end well and to say what the issue promises.
func TestDemo(t *testing.T) {
	began := time.Now()
	r := start(t)
	if code := r.wait(t); code != 0 {
		t.Errorf("exit status %d", code)
	}
	said := r.said()
	for _, part := range []string{"listener.0.0.0.0_15000.ssl.handshake: ", "ssl.fail_verify_error: ",
		"encrypted, server verified", "mutual", "broken", "EDGE", "VERDICT", "WHY", "HANDSHAKES"} {
		if !strings.Contains(said, part) {
			t.Errorf("it does not say %q", part)
		}
	}
	if strings.Contains(said, "predicted") {
		t.Error("a verdict is predicted only")
	}
	r.wantNothingLeft(t)
	t.Logf("%s", time.Since(began).Round(time.Millisecond))
}

// TestInterrupted ends the demo at every stage, as Ctrl-C and as a service
// manager do: nothing is left behind.
func TestInterrupted(t *testing.T) {
	for _, c := range []struct {
		name   string
		args   []string
		when   func(*run, *testing.T) bool
		signal syscall.Signal
		code   []int
	}{
		{"as the server starts", nil, func(r *run, t *testing.T) bool { return r.children(t)["fairlead"] > 1 }, syscall.SIGINT, []int{1, 130}},
		{"as Envoys start", nil, func(r *run, t *testing.T) bool { return r.children(t)["envoy"] > 1 }, syscall.SIGINT, []int{1, 130}},
		{"as Envoys start, SIGTERM", nil, func(r *run, t *testing.T) bool { return r.children(t)["envoy"] > 2 }, syscall.SIGTERM, []int{1, 143}},
		{"in the middle of requests", nil, func(r *run, _ *testing.T) bool { return strings.Contains(r.said(), "4. Requests") }, syscall.SIGINT, []int{1, 130}},
		{"--keep", []string{"--keep"}, func(r *run, _ *testing.T) bool { return strings.Contains(r.said(), "Still running") }, syscall.SIGINT, []int{0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := start(t, c.args...)
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for late := time.After(endsWithin); !c.when(r, t); {
				select {
				case <-tick.C:
				case <-late:
					t.Fatal("the demo does not get so far")
				}
			}
			if err := r.cmd.Process.Signal(c.signal); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			code := r.wait(t)
			if !slices.Contains(c.code, code) {
				t.Errorf("exit status %d, want one of %v", code, c.code)
			}
			if took := time.Since(began); took > 15*time.Second {
				t.Errorf("it took %s to end", took)
			}
			r.wantNothingLeft(t)
			t.Logf("ended with %d after %s", code, time.Since(began).Round(time.Millisecond))
		})
	}
}
