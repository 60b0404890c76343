package meshtest

import (
	"bufio"
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// readyWithin is what an Envoy gets to be configured.
const readyWithin = 60 * time.Second

// AgentOptions says what proxy to start.
type AgentOptions struct {
	Resource string      // mesh/M/virtualNode/N or mesh/M/virtualGateway/N
	Address  string      // 127.x.y.z, where the proxy binds everything (direct mode)
	Apps     map[int]int // port in the spec → port of the application on 127.0.0.1
	// TCPEgress opens local ports for TCP backends: "service:port=localport".
	TCPEgress []string
	DNS       string // host:port of the resolver; empty: the system's
	XDS       string // empty: the server's
	StateDir  string // empty: a new one
	Key       *Key   // empty: new credentials
	Env       []string
}

// Agent is a running agent with its Envoy.
type Agent struct {
	*Process
	Options AgentOptions
	server  *Server
}

// StartAgent starts an agent with a real Envoy in direct mode. It does not
// wait: WaitReady does.
func StartAgent(t testing.TB, s *Server, options AgentOptions) *Agent {
	t.Helper()
	if options.Key == nil {
		key := s.ProxyCredentials(t, options.Resource)
		options.Key = &key
	}
	if options.StateDir == "" {
		options.StateDir = t.TempDir()
	}
	if options.XDS == "" {
		options.XDS = s.XDS
	}
	a := &Agent{Options: options, server: s}
	a.Start(t)
	return a
}

// Start starts the agent again after it has ended, with the same options.
func (a *Agent) Start(t testing.TB) {
	t.Helper()
	o := a.Options
	cmd := exec.Command(Binary(t), "agent")
	cmd.Env = environment(
		"APPMESH_RESOURCE_ARN="+o.Resource,
		"APPMESH_XDS_ENDPOINT="+o.XDS,
		"FAIRLEAD_CA_FILE="+a.server.CA(),
		"AWS_REGION="+Region,
		"AWS_ACCESS_KEY_ID="+o.Key.ID,
		"AWS_SECRET_ACCESS_KEY="+o.Key.Secret,
		"AWS_EC2_METADATA_DISABLED=true",
		"FAIRLEAD_BIND_ADDRESS="+o.Address,
		"FAIRLEAD_STATE_DIR="+o.StateDir,
		"ENVOY_BIN="+Envoy(t),
		"ENVOY_CONCURRENCY=1",
		"LISTENER_DRAIN_WAIT_TIME_S=5")
	if o.DNS != "" {
		cmd.Env = append(cmd.Env, "FAIRLEAD_DNS_RESOLVER="+o.DNS)
	}
	var ports []string
	for port, app := range o.Apps {
		ports = append(ports, fmt.Sprintf("%d=%d", port, app))
	}
	if len(ports) > 0 {
		cmd.Env = append(cmd.Env, "FAIRLEAD_APP_PORTS="+strings.Join(ports, ","))
	}
	if len(o.TCPEgress) > 0 {
		cmd.Env = append(cmd.Env, "FAIRLEAD_TCP_EGRESS="+strings.Join(o.TCPEgress, ","))
	}
	cmd.Env = append(cmd.Env, o.Env...)
	a.Process = Start(t, "agent of "+o.Resource, cmd, nil)
}

// At is a URL on the proxy's address.
func (a *Agent) At(port int, path string) string {
	return "http://" + a.Options.Address + ":" + strconv.Itoa(port) + path
}

// Admin reads a page that the agent serves of its Envoy on port 9901.
func (a *Agent) Admin(ctx context.Context, path string) (string, error) {
	return Get(ctx, a.At(9901, path))
}

// Status reads a page of the agent's own API on port 9902.
func (a *Agent) Status(ctx context.Context, path string) (string, error) {
	return Get(ctx, a.At(9902, path))
}

// WaitReady waits until the agent says that its proxy is ready.
func (a *Agent) WaitReady(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), readyWithin)
	defer cancel()
	err := poll(ctx, a.Process, func(ctx context.Context) error {
		_, err := a.Admin(ctx, "/ready")
		return err
	})
	if err != nil {
		t.Fatalf("wait for %s: %v", a.Name, err)
	}
}

// Counters are the Envoy's counters and gauges whose names match a regular
// expression (empty: all).
func (a *Agent) Counters(ctx context.Context, filter string) (map[string]int64, error) {
	page, err := a.Admin(ctx, "/stats?filter="+url.QueryEscape(filter))
	if err != nil {
		return nil, err
	}
	counters := map[string]int64{}
	lines := bufio.NewScanner(strings.NewReader(page))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		if n, err := strconv.ParseInt(value, 10, 64); err == nil { // histograms are no numbers
			counters[name] = n
		}
	}
	return counters, lines.Err()
}

// EnvoyPID is the process id of the agent's Envoy; 0 if it has none now.
func (a *Agent) EnvoyPID(t testing.TB) int {
	t.Helper()
	pid := a.PID()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range tasks {
		children, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		for _, child := range strings.Fields(string(children)) {
			name, err := os.ReadFile("/proc/" + child + "/comm")
			if n, bad := strconv.Atoi(child); err == nil && bad == nil && strings.HasPrefix(string(name), "envoy") {
				return n
			}
		}
	}
	return 0
}
