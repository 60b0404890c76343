// Package mesh_test shows whole meshes at work: a real server, agents, stock
// Envoys and applications, seen from outside through requests, Envoy's own
// counters and the operator's commands. The pages it follows are design.md 3 to
// 6 and docs/tls.md.
package mesh_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/fairlead/fairlead/internal/meshtest"
)

func TestMain(m *testing.M) { os.Exit(meshtest.Main(m)) }

// within bounds waits for what takes a moment: the next report of an agent, a
// name in DNS, a certificate read again.
const within = 30 * time.Second

// caller is an application beside a client's proxy.
type caller struct {
	proxy *meshtest.Agent
	tcp   map[string]int // local ports of TCP services, by name
}

// call sends one request to a service and says who answers: "200 blue", a
// status alone, or what went wrong.
func (c caller) call(ctx context.Context, protocol, service string, port int) string {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	host := net.JoinHostPort(service, strconv.Itoa(port))
	switch protocol {
	case "grpc":
		return callGRPC(ctx, c.proxy.Options.Address+":15001", host)
	case "tcp":
		return callTCP(ctx, fmt.Sprintf("%s:%d", c.proxy.Options.Address, c.tcp[service]))
	}
	return callHTTP(ctx, protocol, c.proxy.At(15001, "/"), host, nil)
}

// callHTTP uses a connection of its own.
func callHTTP(ctx context.Context, protocol, url, host string, header http.Header) string {
	answer, body, err := fetch(ctx, protocol, url, host, header)
	if err != nil {
		return "error: " + err.Error()
	}
	if answer.StatusCode != http.StatusOK {
		return strconv.Itoa(answer.StatusCode)
	}
	return "200 " + body
}

func fetch(ctx context.Context, protocol, url, host string, header http.Header) (*http.Response, string, error) {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP1(protocol == "http")
	transport.Protocols.SetUnencryptedHTTP2(protocol == "http2")
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, "", err
	}
	request.Host = host
	for name, values := range header {
		request.Header[name] = values
	}
	answer, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return nil, "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return answer, strings.TrimSpace(string(body)), err
}

func callGRPC(ctx context.Context, address, authority string) string {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority(authority))
	if err != nil {
		return "error: " + err.Error()
	}
	defer conn.Close()
	var header metadata.MD
	if _, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.Header(&header)); err != nil {
		return status.Code(err).String()
	}
	return "200 " + strings.Join(header.Get(meshtest.AppHeader), ",")
}

func callTCP(ctx context.Context, address string) string {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return "error: " + err.Error()
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline) //nolint:errcheck // the read would last longer
	}
	if _, err := io.WriteString(conn, "hello\n"); err != nil {
		return "closed"
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "silent"
	case err != nil:
		return "closed"
	}
	return "200 " + strings.TrimSuffix(line, " hello\n")
}

// broken are the answers of calls that reach no application.
var broken = []string{"503", "Unavailable", "closed"}

// waitAnswer calls until the answer is one of those wanted.
func waitAnswer(t *testing.T, call func(context.Context) string, want ...string) {
	t.Helper()
	meshtest.Eventually(t, within, func(ctx context.Context) error {
		if got := call(ctx); !slices.Contains(want, got) {
			return fmt.Errorf("answered %q, want one of %q", got, want)
		}
		return nil
	})
}

// edgeTo finds the edge of a client to a service's port.
func edgeTo(edges []meshtest.Edge, client, service string, port int) (meshtest.Edge, error) {
	for _, e := range edges {
		if e.Client == client && e.Port == port && slices.Contains(e.Services, service) {
			return e, nil
		}
	}
	return meshtest.Edge{}, fmt.Errorf("no edge from %s to %s port %d in %+v", client, service, port, edges)
}

// load calls all the time, from a few connections, and counts what fails.
type load struct {
	stop   chan struct{}
	done   sync.WaitGroup
	mu     sync.Mutex
	total  int
	failed []string
}

// startLoad calls over and over until Stop.
func startLoad(t *testing.T, call func(context.Context) string, want string) *load {
	t.Helper()
	l := &load{stop: make(chan struct{})}
	for range 2 {
		l.done.Go(func() {
			pause := time.NewTicker(10 * time.Millisecond)
			defer pause.Stop()
			for {
				got := call(t.Context())
				l.mu.Lock()
				l.total++
				if got != want {
					l.failed = append(l.failed, got)
				}
				l.mu.Unlock()
				select {
				case <-l.stop:
					return
				case <-pause.C:
				}
			}
		})
	}
	return l
}

// Stop ends the load; every call must have been answered as wanted.
func (l *load) Stop(t *testing.T) {
	t.Helper()
	close(l.stop)
	l.done.Wait()
	if len(l.failed) > 0 || l.total == 0 {
		t.Errorf("%d of %d calls failed, the first with %q", len(l.failed), l.total, slices.Concat(l.failed, []string{""})[0])
	}
	t.Logf("%d calls, %d failed", l.total, len(l.failed))
}

// show is a value as JSON, for messages.
func show(v any) string {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err.Error()
	}
	return string(text)
}
