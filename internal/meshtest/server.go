package meshtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/appmesh"
)

// startWithin is what a server gets until its ready line.
const startWithin = 60 * time.Second

// ServerOptions changes how a server is started. The zero value is one on an
// embedded store in a folder of its own, on free ports of 127.0.0.1.
type ServerOptions struct {
	DataDir string   // empty: a new one
	Args    []string // after those that meshtest gives
	Env     []string
	Debug   bool // log at level debug
}

// Server is a running control plane.
type Server struct {
	*Process
	API     string // URL
	XDS     string // host:port
	Ops     string // URL
	DataDir string
	options ServerOptions
}

// StartServer starts a server and waits until it serves.
func StartServer(t testing.TB, options ServerOptions) *Server {
	t.Helper()
	if options.DataDir == "" {
		options.DataDir = t.TempDir()
	}
	s := &Server{DataDir: options.DataDir, options: options}
	s.start(t, "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0")
	return s
}

func (s *Server) start(t testing.TB, api, xds, ops string) {
	t.Helper()
	args := []string{"server", "--data-dir", s.DataDir, "--account-id", Account, "--region", Region,
		"--api-address", api, "--xds-address", xds, "--ops-address", ops}
	if s.options.Debug {
		args = append(args, "--log-level", "debug")
	}
	cmd := exec.Command(Binary(t), append(args, s.options.Args...)...)
	cmd.Env = environment(s.options.Env...)
	ready := make(chan string, 1)
	s.Process = Start(t, "server", cmd, func(line string) {
		if strings.HasPrefix(line, "ready ") {
			ready <- line
		}
	})
	select {
	case line := <-ready:
		s.parse(t, line)
	case <-s.exited:
		t.Fatalf("the server ended:\n%s", s.Log())
	case <-time.After(startWithin):
		t.Fatalf("the server was not ready within %s", startWithin)
	}
}

// parse reads "ready api=http://… xds=… ops=http://…".
func (s *Server) parse(t testing.TB, line string) {
	t.Helper()
	for _, word := range strings.Fields(line)[1:] {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "api":
			s.API = value
		case "xds":
			s.XDS = value
		case "ops":
			s.Ops = value
		}
	}
	if s.API == "" || s.XDS == "" || s.Ops == "" {
		t.Fatalf("the ready line %q lacks an address", line)
	}
}

// Restart starts the server again, on the same ports and the same data, after
// it was killed or terminated.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.start(t, address(s.API), s.XDS, address(s.Ops))
}

// RestartWith is Restart with another data directory: another store behind the
// same addresses. Clients made before have the old root key.
func (s *Server) RestartWith(t testing.TB, dataDir string) {
	t.Helper()
	s.DataDir = dataDir
	s.Restart(t)
}

// address is the host:port of a URL.
func address(url string) string {
	_, rest, _ := strings.Cut(url, "://")
	return rest
}

// CA is the file that agents trust the server by.
func (s *Server) CA() string { return filepath.Join(s.DataDir, "server-ca.pem") }

// Credentials is the file with the root key.
func (s *Server) Credentials() string { return filepath.Join(s.DataDir, "credentials") }

// AWSEnv makes an AWS client of any language talk to the server.
func (s *Server) AWSEnv() []string {
	return environment(
		"AWS_ENDPOINT_URL="+s.API, "AWS_REGION="+Region, "AWS_DEFAULT_REGION="+Region,
		"AWS_SHARED_CREDENTIALS_FILE="+s.Credentials(), "AWS_CONFIG_FILE=/nonexistent", "AWS_EC2_METADATA_DISABLED=true", "AWS_PAGER=")
}

// Client is a client with the root key. It does not retry: a test wants to see
// the first answer.
func (s *Server) Client(t testing.TB, options ...func(*appmesh.Options)) *appmesh.Client {
	t.Helper()
	cfg, err := config.LoadDefaultConfig(context.Background(), config.WithRegion(Region), config.WithSharedConfigFiles(nil),
		config.WithSharedCredentialsFiles([]string{s.Credentials()}), config.WithSharedConfigProfile("default"))
	if err != nil {
		t.Fatalf("load the root key: %v", err)
	}
	once := func(o *appmesh.Options) {
		o.BaseEndpoint = aws.String(s.API)
		o.Retryer = aws.NopRetryer{}
	}
	return appmesh.NewFromConfig(cfg, append([]func(*appmesh.Options){once}, options...)...)
}

// Fairlead runs an operator command as a user would and returns its standard
// output; an error has its standard error.
func (s *Server) Fairlead(t testing.TB, args ...string) ([]byte, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, Binary(t), args...)
	cmd.Env = s.AWSEnv()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("fairlead %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.Bytes(), nil
}

// JSON runs an operator command with -o json and reads its answer into out.
func (s *Server) JSON(t testing.TB, out any, args ...string) error {
	t.Helper()
	answer, err := s.Fairlead(t, append(args, "-o", "json")...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("read the answer of fairlead %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// Key is an access key.
type Key struct {
	ID     string `json:"accessKeyId"`
	Secret string `json:"secretAccessKey"`
}

// ProxyCredentials makes credentials for a proxy of "mesh/M/virtualNode/N".
func (s *Server) ProxyCredentials(t testing.TB, resource string) Key {
	t.Helper()
	var key Key
	if err := s.JSON(t, &key, "proxy", "credentials", "create", resource); err != nil {
		t.Fatal(err)
	}
	return key
}

// Get reads a page of the operations address, or any other URL, which must
// answer 200.
func (s *Server) Get(ctx context.Context, path string) (string, error) {
	return Get(ctx, s.Ops+path)
}

// Get returns the body of an answer; any status but 200 is an error.
func Get(ctx context.Context, url string) (string, error) {
	status, body, err := Fetch(ctx, url)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("GET %s: %d %s", url, status, body)
	}
	return body, err
}

// Fetch returns status and body of an answer.
func Fetch(ctx context.Context, url string) (status int, body string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	return Do(request)
}

// Do sends a request within 20 seconds and reads the whole answer.
func Do(request *http.Request) (status int, body string, err error) {
	ctx, cancel := context.WithTimeout(request.Context(), 20*time.Second)
	defer cancel()
	response, err := http.DefaultClient.Do(request.WithContext(ctx))
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(io.LimitReader(response.Body, 16<<20))
	if err != nil {
		return response.StatusCode, "", fmt.Errorf("read %s: %w", request.URL, err)
	}
	return response.StatusCode, strings.TrimSpace(string(content)), nil
}
