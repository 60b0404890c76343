package crash

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/appmesh"
)

// startTime bounds a server's start, on a machine that does other things too.
const startTime = 30 * time.Second

// binary builds the server.
func binary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fairlead")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", path, "../../cmd/fairlead")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the server: %v\n%s", err, out)
	}
	return path
}

// process is a running server.
type process struct {
	command *exec.Cmd
	client  *appmesh.Client
	log     string // file
}

// start runs a server on a data directory until it is ready.
func start(ctx context.Context, binary, dir, log string, flags ...string) (*process, error) {
	p := &process{log: log}
	p.command = exec.CommandContext(ctx, binary, append([]string{"server", "--data-dir", dir,
		"--api-address", "127.0.0.1:0", "--xds-address", "127.0.0.1:0", "--ops-address", "127.0.0.1:0"}, flags...)...)
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	p.command.Stderr = file
	stdout, err := p.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.command.Start(); err != nil {
		return nil, fmt.Errorf("start the server: %w", err)
	}
	late := time.AfterFunc(startTime, func() { p.command.Process.Kill() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	late.Stop()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the server did not get ready: %w\n%s", err, tail(log)), p.kill())
	}
	endpoint, _, ok := strings.Cut(strings.TrimPrefix(line, "ready api="), " ")
	if !ok {
		return nil, errors.Join(fmt.Errorf("the server printed %q", line), p.kill())
	}
	if !strings.Contains(endpoint, "://") {
		endpoint = "http://" + endpoint
	}
	p.client, err = client(ctx, endpoint, filepath.Join(dir, "credentials"))
	return p, err
}

// kill ends the server with SIGKILL. When it returns nothing of it runs any more.
func (p *process) kill() error {
	if err := p.command.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill the server: %w", err)
	}
	var exit *exec.ExitError
	if err := p.command.Wait(); err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("wait for the server: %w", err)
	}
	return nil
}

// client is an SDK client that tries every request once: what it did not get an
// answer for may have been done or not, and the history must say so.
func client(ctx context.Context, endpoint, credentials string) (*appmesh.Client, error) {
	c, err := config.LoadDefaultConfig(ctx,
		config.WithRegion("us-east-1"),
		config.WithSharedCredentialsFiles([]string{credentials}),
		config.WithSharedConfigFiles(nil),
		config.WithSharedConfigProfile("default"),
		config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }),
	)
	if err != nil {
		return nil, fmt.Errorf("load credentials: %w", err)
	}
	return appmesh.NewFromConfig(c, func(o *appmesh.Options) { o.BaseEndpoint = aws.String(endpoint) }), nil
}

func tail(path string) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(content[max(0, len(content)-4000):])
}
