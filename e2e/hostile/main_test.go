// Package hostile attacks the real binary as strangers, stolen credentials and
// careless users would, and checks that what they break is theirs alone: the
// server stays up and small, other proxies and callers notice nothing, and no
// secret comes out. It follows facts/reliability.md 2 and 4 and design.md 6.
package hostile

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	grpccredentials "google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/envoy"
	"github.com/fairlead/fairlead/internal/meshtest"
)

func TestMain(m *testing.M) { os.Exit(meshtest.Main(m)) }

// twoNodes is a mesh with a client and a server.
const twoNodes = `
mesh: m
spec: {}
---
virtualNode: server
spec:
  listeners: [{portMapping: {port: 8080, protocol: http}}]
  serviceDiscovery: {dns: {hostname: server.example}}
---
virtualService: server.example
spec: {provider: {virtualNode: {virtualNodeName: server}}}
---
virtualNode: client
spec:
  backends: [{virtualService: {virtualServiceName: server.example}}]
`

const (
	serverNode = "mesh/m/virtualNode/server"
	clientNode = "mesh/m/virtualNode/client"
)

// victim is a server with the mesh, and a well-behaved proxy that must notice
// nothing of what a test does.
type victim struct {
	*meshtest.Server
	client meshtest.Key // the key of clientNode
}

func newVictim(t *testing.T, options meshtest.ServerOptions) *victim {
	t.Helper()
	v := &victim{Server: meshtest.StartServer(t, options)}
	v.Apply(t, twoNodes)
	v.client = v.ProxyCredentials(t, clientNode)
	return v
}

// roots are what an agent trusts.
func (v *victim) roots(t testing.TB) *x509.CertPool {
	t.Helper()
	text, err := os.ReadFile(v.CA())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		t.Fatal("the server's authority is no certificate")
	}
	return pool
}

// dial connects to the xDS address, with a key or without.
func (v *victim) dial(t testing.TB, key *meshtest.Key, more ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	options := append([]grpc.DialOption{
		grpc.WithTransportCredentials(grpccredentials.NewTLS(&tls.Config{RootCAs: v.roots(t), MinVersion: tls.VersionTLS12})),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20), grpc.MaxCallSendMsgSize(64<<20)),
		grpc.WithNoProxy(),
	}, more...)
	if key != nil {
		options = append(options, grpc.WithPerRPCCredentials(awsapi.StreamSigner{Region: meshtest.Region,
			Credentials: aws.NewCredentialsCache(credentials.NewStaticCredentialsProvider(key.ID, key.Secret, ""))}))
	}
	conn, err := grpc.NewClient("passthrough:///"+v.XDS, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() }) //nolint:errcheck // some are closed by the test
	return conn
}

type (
	deltaStream = discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	sotwStream  = discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient
)

// openDelta opens a stream that ends with the test, after a minute at most.
func openDelta(t testing.TB, conn *grpc.ClientConn) deltaStream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func openSotW(t testing.TB, conn *grpc.ClientConn) sotwStream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// clusters is the first request of an ordinary proxy.
func clusters(nodeID string) *discoveryv3.DeltaDiscoveryRequest {
	return &discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: nodeID}, TypeUrl: envoy.Cluster.URL(), ResourceNamesSubscribe: []string{"*"}}
}

// ended reads a stream until it ends and returns its status.
func ended(stream interface{ RecvMsg(any) error }) *status.Status {
	for {
		if err := stream.RecvMsg(new(discoveryv3.DeltaDiscoveryResponse)); err != nil {
			return status.Convert(err)
		}
	}
}

// healthy fails the test if a new proxy is not configured or a caller not
// answered within a bound, or the server has panicked.
func (v *victim) healthy(t testing.TB, within time.Duration) {
	t.Helper()
	began := time.Now()
	stream := openDelta(t, v.dial(t, &v.client))
	if err := stream.Send(clusters(clientNode)); err != nil {
		t.Fatalf("a good proxy cannot ask: %v", err)
	}
	answer, err := stream.Recv()
	if err != nil {
		t.Fatalf("a good proxy is not answered: %v", err)
	}
	if len(answer.Resources) == 0 {
		t.Fatal("a good proxy gets no clusters")
	}
	if a := v.Send(t, http.MethodGet, "/v20190125/meshes/m", ""); a.Status != http.StatusOK {
		t.Fatalf("a good caller gets %d %s", a.Status, a.Body)
	}
	if took := time.Since(began); took > within {
		t.Errorf("a good proxy and a good caller waited %s, want at most %s", took, within)
	}
	v.noPanic(t)
}

func (v *victim) noPanic(t testing.TB) {
	t.Helper()
	if !v.Running() {
		t.Fatal("the server has ended")
	}
	for _, line := range strings.Split(v.Log(), "\n") {
		if strings.Contains(line, "panic") || strings.Contains(line, "goroutine ") {
			t.Fatalf("the server panicked: %s", line)
		}
	}
}

// resident is a process's memory in MiB now, and the most it ever was since
// resetPeak.
func resident(t testing.TB, pid int) (now, peak int) {
	t.Helper()
	file, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		kib, _ := strconv.Atoi(fields[1]) //nolint:errcheck // zero of what is no number
		switch fields[0] {
		case "VmRSS:":
			now = kib >> 10
		case "VmHWM:":
			peak = kib >> 10
		}
	}
	return now, peak
}

// resetPeak forgets the peak of a process's memory.
func resetPeak(t testing.TB, pid int) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
}

// bounded runs an attack and fails if the server grows by more than so many MiB.
func (v *victim) bounded(t testing.TB, mib int, attack func()) {
	t.Helper()
	resetPeak(t, v.PID())
	before, _ := resident(t, v.PID())
	attack()
	after, peak := resident(t, v.PID())
	t.Logf("resident memory: %d MiB before, %d at its peak, %d after", before, peak, after)
	if peak-before > mib {
		t.Errorf("the server grew by %d MiB, want at most %d", peak-before, mib)
	}
}

// files is how many file descriptors a process has open.
func files(t testing.TB, pid int) int {
	t.Helper()
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(open)
}

// connect opens TCP connections.
func connect(t testing.TB, address string, n int) []net.Conn {
	t.Helper()
	var conns []net.Conn
	for range n {
		conn, err := net.DialTimeout("tcp", address, 10*time.Second)
		if err != nil {
			t.Fatalf("connection %d: %v", len(conns)+1, err)
		}
		t.Cleanup(func() { conn.Close() }) //nolint:errcheck // the server may have closed it
		conns = append(conns, conn)
	}
	return conns
}

// closedWithin fails the test if the server leaves a connection open.
func closedWithin(t testing.TB, conns []net.Conn, within time.Duration) {
	t.Helper()
	deadline := time.Now().Add(within)
	buffer := make([]byte, 4096)
	for i, conn := range conns {
		if err := conn.SetReadDeadline(deadline); err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := conn.Read(buffer); err == nil {
				continue
			} else if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("connection %d is still open after %s", i+1, within)
			}
			break
		}
	}
}
