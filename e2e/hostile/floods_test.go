package hostile

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/fairlead/fairlead/internal/envoy"
	"github.com/fairlead/fairlead/internal/meshtest"
	"github.com/fairlead/fairlead/internal/xds"
)

// names makes n different names of some length.
func names(n, length int, salt string) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s%0*d", salt, length-len(salt), i)
	}
	return out
}

// flood sends until the server ends the stream; what it ended with is returned.
func flood(stream deltaStream, requests func(i int) *discoveryv3.DeltaDiscoveryRequest, n int) error {
	for i := range n {
		if err := stream.Send(requests(i)); errors.Is(err, io.EOF) {
			return ended(stream).Err()
		} else if err != nil {
			return err
		}
	}
	return nil
}

// TestGreedyStreams: one stolen key, many streams, each asking for as much as it
// can. The server's memory stays bounded and others are served.
func TestGreedyStreams(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{})
	v.healthy(t, 10*time.Second)
	key := v.ProxyCredentials(t, serverNode)
	types := []envoy.Type{envoy.Cluster, envoy.Endpoint, envoy.Listener, envoy.Route, envoy.Secret}
	v.bounded(t, 200, func() {
		for s := range 24 {
			stream := openDelta(t, v.dial(t, &key))
			if err := stream.Send(clusters(serverNode)); err != nil {
				t.Fatal(err)
			}
			err := flood(stream, func(i int) *discoveryv3.DeltaDiscoveryRequest {
				kind := types[i%len(types)]
				return &discoveryv3.DeltaDiscoveryRequest{TypeUrl: kind.URL(),
					ResourceNamesSubscribe: names(1000, 2000, fmt.Sprintf("s%d-%d-", s, i))}
			}, 60)
			if s == 0 {
				t.Logf("the first stream ended: %v", err)
			}
		}
	})
	v.healthy(t, 10*time.Second)
}

// TestUnsubscribingForEver: names that a wildcard stream gives up are answered,
// and must not pile up while it reads nothing.
func TestUnsubscribingForEver(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{})
	key := v.ProxyCredentials(t, serverNode)
	v.bounded(t, 150, func() {
		for s := range 4 {
			stream := openDelta(t, v.dial(t, &key))
			if err := stream.Send(clusters(serverNode)); err != nil {
				t.Fatal(err)
			}
			flood(stream, func(i int) *discoveryv3.DeltaDiscoveryRequest { //nolint:errcheck // it may be cut off
				return &discoveryv3.DeltaDiscoveryRequest{TypeUrl: envoy.Cluster.URL(),
					ResourceNamesUnsubscribe: names(1500, 2000, fmt.Sprintf("s%d-%d-", s, i))}
			}, 40)
		}
	})
	v.healthy(t, 10*time.Second)
}

// TestTooMuchInOneRequest: bounds of one request, each with its own answer.
func TestTooMuchInOneRequest(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{})
	node := &corev3.Node{Id: clientNode}
	large := func(n int) *structpb.Struct {
		return &structpb.Struct{Fields: map[string]*structpb.Value{"x": structpb.NewStringValue(strings.Repeat("x", n))}}
	}
	nested := structpb.NewStringValue("x")
	for range 9000 {
		nested = structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{nested}})
	}
	versions := map[string]string{}
	for _, n := range names(100_000, 10, "v") {
		versions[n] = "1"
	}
	for _, test := range []struct {
		name    string
		request *discoveryv3.DeltaDiscoveryRequest
		want    []codes.Code
	}{
		{"metadata of 1 MB", &discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: clientNode, Metadata: large(1 << 20)}, TypeUrl: envoy.Cluster.URL()}, []codes.Code{codes.OK, codes.InvalidArgument}},
		{"metadata of 10 MB", &discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: clientNode, Metadata: large(10 << 20)}, TypeUrl: envoy.Cluster.URL()}, []codes.Code{codes.ResourceExhausted}},
		{"metadata in 9,000 levels", &discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: clientNode, Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{"x": nested}}}, TypeUrl: envoy.Cluster.URL()}, []codes.Code{codes.OK, codes.InvalidArgument}},
		{"100,000 names", &discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: envoy.Cluster.URL(), ResourceNamesSubscribe: names(100_000, 10, "n")}, []codes.Code{codes.ResourceExhausted, codes.InvalidArgument, codes.Internal}},
		{"100,000 held versions", &discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: envoy.Cluster.URL(), InitialResourceVersions: versions}, []codes.Code{codes.ResourceExhausted, codes.InvalidArgument, codes.Internal}},
		{"a name of 900 kB", &discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: envoy.Cluster.URL(), ResourceNamesSubscribe: names(1, 900_000, "n")}, []codes.Code{codes.ResourceExhausted, codes.InvalidArgument, codes.Internal}},
		{"a nonce of 1 MB", &discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: envoy.Cluster.URL(), ResponseNonce: strings.Repeat("n", 1<<20)}, []codes.Code{codes.ResourceExhausted, codes.InvalidArgument, codes.Internal}},
		{"an error of 3 MB for a nonce from nowhere", &discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: envoy.Cluster.URL(), ResponseNonce: "zz", ErrorDetail: &rpcstatus.Status{Message: strings.Repeat("e", 3<<20)}}, []codes.Code{codes.OK}},
		{"odd names", &discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: envoy.Cluster.URL(), ResourceNamesSubscribe: []string{"", "*", "\x00", "\n", "../..", strings.Repeat("*", 100), "🙂"}}, []codes.Code{codes.OK}},
	} {
		t.Run(test.name, func(t *testing.T) {
			stream := openDelta(t, v.dial(t, &v.client))
			stream.Send(test.request) //nolint:errcheck // Recv says why
			_, err := stream.Recv()
			got := codes.OK
			if err != nil {
				got = status.Code(err)
			}
			ok := false
			for _, want := range test.want {
				ok = ok || got == want
			}
			if !ok {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
	v.healthy(t, 10*time.Second)
}

// TestDeaf: streams that send thousands of requests of every sort and read
// nothing.
func TestDeaf(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{})
	key := v.ProxyCredentials(t, serverNode)
	v.bounded(t, 150, func() {
		conn := v.dial(t, &key)
		for s := range 30 {
			stream := openDelta(t, conn)
			stream.Send(clusters(serverNode))                              //nolint:errcheck // the flood says why
			flood(stream, func(i int) *discoveryv3.DeltaDiscoveryRequest { //nolint:errcheck // it may be cut off
				r := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: envoy.Type(i % envoy.NumTypes).URL(), ResponseNonce: fmt.Sprint(s, i)}
				switch i % 4 {
				case 0:
					r.ResourceNamesSubscribe = []string{"lds_ingress_0.0.0.0_15000", "*", "x"}
				case 1:
					r.ErrorDetail = &rpcstatus.Status{Message: "no"}
				case 2:
					r.TypeUrl = "type.googleapis.com/" + strings.Repeat("unknown", i%100)
				}
				return r
			}, 2000)
		}
		v.healthy(t, 20*time.Second)
	})
	v.healthy(t, 10*time.Second)
}

// TestReports: reports are kept for people to see. What is no report, too large
// or absurd harms nobody, and what is shown is still readable.
func TestReports(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{})
	key := v.ProxyCredentials(t, serverNode)
	text := func(n int) *structpb.Value { return structpb.NewStringValue(strings.Repeat("\x1b[31m<script>", n)) }
	object := func(name string, v *structpb.Value) *structpb.Struct {
		return &structpb.Struct{Fields: map[string]*structpb.Value{name: v}}
	}
	many := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for _, n := range names(50_000, 30, "cluster.") {
		many.Fields[n] = structpb.NewNumberValue(1e300)
	}
	stream := openDelta(t, v.dial(t, &key))
	if err := stream.Send(clusters(serverNode)); err != nil {
		t.Fatal(err)
	}
	v.bounded(t, 150, func() {
		for _, report := range []*structpb.Struct{
			{}, nil,
			object("ready", text(1)), object("counters", structpb.NewStringValue("x")),
			object("counters", structpb.NewStructValue(object("x", structpb.NewNumberValue(math.NaN())))),
			object("counters", structpb.NewStructValue(object("x", structpb.NewNumberValue(math.Inf(1))))),
			object("counters", structpb.NewStructValue(object("x", structpb.NewNumberValue(-1)))),
			object("counters", structpb.NewStructValue(object("x", structpb.NewNumberValue(1e300)))),
			object("counters", structpb.NewStructValue(many)),
			object("problems", structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{text(20_000)}})),
			object("secrets", structpb.NewNumberValue(7)),
			object("x", text(250_000)),
			object("ready", nil),
		} {
			for _, url := range []string{xds.ReportURL, xds.ManifestURL} {
				if err := stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: url, Node: &corev3.Node{Id: clientNode, Metadata: report}}); err != nil {
					t.Fatalf("%v: %v", ended(stream).Err(), err)
				}
			}
			if _, err := v.Proxies(t); err != nil {
				t.Errorf("proxy list, after a report %.100v: %v", report, err)
			}
			if _, err := v.Edges(t, "m"); err != nil {
				t.Errorf("edges, after a report %.100v: %v", report, err)
			}
		}
	})
	out, err := v.Fairlead(t, "proxy", "list")
	if err != nil || strings.ContainsRune(string(out), '\x1b') {
		t.Errorf("proxy list passes a proxy's escape sequences on to the terminal: %v\n%q", err, out)
	}
	// Without a report, the manifest is all that a stranger to agents can ask for.
	v.healthy(t, 10*time.Second)
}

// TestManyStreams: one key cannot take the server's memory by opening streams.
func TestManyStreams(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{})
	key := v.ProxyCredentials(t, serverNode)
	refused := 0
	v.bounded(t, 400, func() {
		for range 40 {
			conn := v.dial(t, &key, grpc.WithInitialWindowSize(64<<10))
			for range 90 {
				stream := openDelta(t, conn)
				stream.Send(clusters(serverNode)) //nolint:errcheck // Recv says why
				if _, err := stream.Recv(); err != nil {
					refused++
				}
			}
		}
	})
	t.Logf("%d of 3600 streams were refused", refused)
	v.healthy(t, 10*time.Second)
}
