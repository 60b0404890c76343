package clients_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead/fairlead/internal/meshtest"
)

// call is one call that a client is to make, once, without trying again.
type call struct {
	Operation string          `json:"operation"`
	Input     json.RawMessage `json:"input"` // members as the API's JSON has them
	Key       string          `json:"key"`
	Secret    string          `json:"secret"`
	Region    string          `json:"region"`
	Unsigned  bool            `json:"unsigned"`
	PageSize  int             `json:"pageSize"` // not 0: to the end, with the client's own paginator
	Presign   bool            `json:"presign"`  // only return the URL
}

// answer is what the client made of it.
type answer struct {
	// Output is what the client returned, in the API's names. Times, which every
	// client but the CLI has a type for, are milliseconds since the epoch.
	Output  json.RawMessage `json:"output"`
	Error   *refusal        `json:"error"`
	Status  int             `json:"status"`
	Request string          `json:"request"` // its id
	Pages   int             `json:"pages"`   // requests that were sent
	URL     string          `json:"url"`     // of a presigned request
}

// refusal is an error as a program sees it.
type refusal struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	// Typed: it is the class or type that the client has for this error of App
	// Mesh. The CLI has none.
	Typed *bool `json:"typed"`
}

// driver makes calls with one AWS client.
type driver func(ctx context.Context, c call) (answer, error)

// clients are the four that must see the same. Each driver talks to one server.
var clients = []struct {
	name     string
	presigns bool
	start    func(t *testing.T, s *meshtest.Server) driver
}{
	{"aws-sdk-go-v2", true, goSDK},
	{"boto3", true, func(t *testing.T, s *meshtest.Server) driver {
		return program(t, s, tool(t, "venv/bin/python"), "testdata/boto3_driver.py", s.API)
	}},
	{"CLI", false, func(t *testing.T, s *meshtest.Server) driver {
		return program(t, s, tool(t, "venv/bin/python"), "testdata/cli_driver.py", s.API)
	}},
	{"JavaScript", true, func(t *testing.T, s *meshtest.Server) driver {
		return program(t, s, tool(t, "bin/node"), "testdata/javascript_driver.mjs", s.API, tool(t, "javascript"))
	}},
}

// tool is the path of what tools/install.sh has installed.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../../.tools", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// program drives a client in another language: one call a line, one answer a
// line.
func program(t *testing.T, s *meshtest.Server, args ...string) driver {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = s.AWSEnv()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	said := t.Output()
	cmd.Stderr = said
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v (make tools installs it)", err)
	}
	t.Cleanup(func() { stop(t, cmd, in) })
	answers := bufio.NewReader(out)
	return func(_ context.Context, c call) (got answer, err error) {
		line, err := json.Marshal(c)
		if err != nil {
			return answer{}, err
		}
		if _, err := in.Write(append(line, '\n')); err != nil {
			return answer{}, fmt.Errorf("%s ended: %w", args[1], err)
		}
		if line, err = answers.ReadBytes('\n'); err != nil {
			return answer{}, fmt.Errorf("%s ended over %s %s: %w", args[1], c.Operation, c.Input, err)
		}
		return got, json.Unmarshal(line, &got)
	}
}

// stop lets a program end by itself at the end of its input.
func stop(t *testing.T, cmd *exec.Cmd, in io.Closer) {
	t.Helper()
	in.Close() //nolint:errcheck // fails only if the program has ended
	late := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
	defer late.Stop()
	if err := cmd.Wait(); err != nil {
		t.Errorf("%s: %v", cmd.Args[1], err)
	}
}
