package hostile

import (
	"context"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fairlead/fairlead/internal/envoy"
	"github.com/fairlead/fairlead/internal/meshtest"
)

// TestStreamIdentity: what a stream gets is decided by its key. Whatever node a
// proxy claims to be, now or later, it gets its own configuration or none.
func TestStreamIdentity(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{})
	root := v.RootKey(t)
	const arn = "arn:aws:appmesh:us-east-1:000000000000:"
	wrong := v.client
	wrong.Secret = strings.Repeat("x", len(wrong.Secret))
	for _, test := range []struct {
		name string
		key  *meshtest.Key
		node string
		want codes.Code
	}{
		{"no credentials", nil, clientNode, codes.Unauthenticated},
		{"an unknown key", &meshtest.Key{ID: "AKIAAAAAAAAAAAAAAAAA", Secret: "x"}, clientNode, codes.Unauthenticated},
		{"a wrong secret", &wrong, clientNode, codes.Unauthenticated},
		{"the root key", &root, clientNode, codes.PermissionDenied},
		{"another node", &v.client, serverNode, codes.PermissionDenied},
		{"another mesh", &v.client, "mesh/o/virtualNode/client", codes.PermissionDenied},
		{"another kind", &v.client, "mesh/m/virtualGateway/client", codes.PermissionDenied},
		{"another account's mesh", &v.client, "mesh/m@111111111111/virtualNode/client", codes.PermissionDenied},
		{"another account's ARN", &v.client, "arn:aws:appmesh:us-east-1:111111111111:mesh/m/virtualNode/client", codes.PermissionDenied},
		{"another service's ARN", &v.client, "arn:aws:acm:us-east-1:000000000000:mesh/m/virtualNode/client", codes.InvalidArgument},
		{"an ARN in an ARN", &v.client, arn + arn + clientNode, codes.InvalidArgument},
		{"a path out", &v.client, "mesh/m/virtualNode/../virtualNode/client", codes.PermissionDenied},
		{"escaped", &v.client, "mesh/m/virtualNode%2Fclient", codes.InvalidArgument},
		{"NUL", &v.client, clientNode + "\x00", codes.PermissionDenied},
		{"another case", &v.client, "mesh/m/virtualNode/Client", codes.PermissionDenied},
		{"the wildcard", &v.client, "mesh/m/virtualNode/*", codes.PermissionDenied},
		{"nothing", &v.client, "", codes.InvalidArgument},
		{"its own", &v.client, clientNode, codes.OK},
		{"its own ARN", &v.client, arn + clientNode, codes.OK},
	} {
		t.Run(test.name, func(t *testing.T) {
			conn := v.dial(t, test.key)
			delta := openDelta(t, conn)
			delta.Send(clusters(test.node)) //nolint:errcheck // Recv says why
			_, err := delta.Recv()
			if got := status.Code(err); got != test.want {
				t.Errorf("delta: %v, want %v", err, test.want)
			}
			sotw := openSotW(t, conn)
			sotw.Send(&discoveryv3.DiscoveryRequest{Node: &corev3.Node{Id: test.node}, TypeUrl: envoy.Cluster.URL()}) //nolint:errcheck // likewise
			_, err = sotw.Recv()
			if got := status.Code(err); got != test.want {
				t.Errorf("sotw: %v, want %v", err, test.want)
			}
		})
	}
	v.healthy(t, 10*time.Second)
}

// TestNodeChangesLater: a later request with another node gets nothing of it.
func TestNodeChangesLater(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{})
	key := v.ProxyCredentials(t, serverNode)
	stream := openDelta(t, v.dial(t, &key))
	if err := stream.Send(clusters(serverNode)); err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	const theirs = "cds_egress_m_server_http_8080"
	own := func(r *discoveryv3.DeltaDiscoveryResponse) {
		for _, resource := range r.Resources {
			if resource.Name == theirs {
				t.Errorf("the server node gets the client's %s", resource.Name)
			}
		}
	}
	own(first)
	for _, request := range []*discoveryv3.DeltaDiscoveryRequest{
		{Node: &corev3.Node{Id: clientNode}, TypeUrl: envoy.Cluster.URL(), ResponseNonce: first.Nonce},
		{Node: &corev3.Node{Id: clientNode}, TypeUrl: envoy.Cluster.URL(), ResourceNamesSubscribe: []string{theirs}},
		{Node: &corev3.Node{Id: clientNode}, TypeUrl: envoy.Endpoint.URL(), ResourceNamesSubscribe: []string{theirs}},
		{Node: &corev3.Node{Id: clientNode}, TypeUrl: envoy.Listener.URL(), ResourceNamesSubscribe: []string{"*"}},
	} {
		if err := stream.Send(request); err != nil {
			t.Fatal(err)
		}
	}
	quiet(t, stream, own)
	v.healthy(t, 10*time.Second)
}

// quiet reads a stream until nothing has come for a second.
func quiet(t testing.TB, stream deltaStream, see func(*discoveryv3.DeltaDiscoveryResponse)) {
	t.Helper()
	came := make(chan *discoveryv3.DeltaDiscoveryResponse)
	go func() {
		defer close(came)
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			select {
			case came <- r:
			case <-t.Context().Done():
				return
			}
		}
	}()
	for {
		select {
		case r, open := <-came:
			if !open {
				return
			}
			see(r)
		case <-time.After(time.Second):
			return
		}
	}
}

// TestUnknownMethods: there is nothing but the two methods, however the path is
// written; reflection and health checks are not there.
func TestUnknownMethods(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{})
	const service = "envoy.service.discovery.v3.AggregatedDiscoveryService/"
	for _, method := range []string{
		service + "StreamAggregatedResources", // no slash in front
		"//" + service + "StreamAggregatedResources",
		"/" + service + "/StreamAggregatedResources",
		"/" + strings.ToUpper(service) + "StreamAggregatedResources",
		"/" + service + "streamAggregatedResources",
		"/" + service + "StreamAggregatedResources/",
		"/" + service + "DeltaAggregatedResources?x",
		"/" + service,
		"/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets",
		"/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters",
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
		"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
		"/grpc.health.v1.Health/Check",
		"/grpc.channelz.v1.Channelz/GetServers",
		"/",
	} {
		for _, key := range []*meshtest.Key{nil, &v.client} {
			conn := v.dial(t, key)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
			if err == nil {
				stream.SendMsg(clusters(clientNode)) //nolint:errcheck // RecvMsg says why
				err = stream.RecvMsg(new(discoveryv3.DeltaDiscoveryResponse))
			}
			cancel()
			switch status.Code(err) {
			case codes.Unimplemented, codes.Unauthenticated, codes.Internal:
			default:
				t.Errorf("%s, with a key: %t: %v", method, key != nil, err)
			}
		}
	}
	v.healthy(t, 10*time.Second)
}

// TestWrongProtocol: a request of one protocol on a stream of the other, bytes
// that are no request, and fields of other types.
func TestWrongProtocol(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{})
	conn := v.dial(t, &v.client)
	node := &corev3.Node{Id: clientNode}
	delta := &discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: envoy.Cluster.URL(), ResourceNamesSubscribe: []string{"*"}}
	sotw := &discoveryv3.DiscoveryRequest{Node: node, VersionInfo: "v", TypeUrl: envoy.Cluster.URL(), ResourceNames: []string{"*"}, ResponseNonce: "n"}

	a := openDelta(t, conn)
	a.SendMsg(sotw) //nolint:errcheck // the server's answer counts
	b := openSotW(t, conn)
	b.SendMsg(delta) //nolint:errcheck // likewise
	for name, bytes := range map[string][]byte{
		"empty": {}, "one byte": {0xff}, "a varint without end": {0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80},
		"a length beyond the end": {0x0a, 0xff, 0xff, 0xff, 0xff, 0x07}, "a group": {0x0b, 0x0b, 0x0b}, "field zero": {0x02, 0x00},
		"text": []byte("GET / HTTP/1.1"), "a node that is none": {0x0a, 0x01, 0xff},
	} {
		for _, method := range []string{"StreamAggregatedResources", "DeltaAggregatedResources"} {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true},
				"/envoy.service.discovery.v3.AggregatedDiscoveryService/"+method, grpc.ForceCodec(rawCodec{}))
			if err != nil {
				t.Fatal(err)
			}
			stream.SendMsg(bytes) //nolint:errcheck // RecvMsg says why
			var out []byte
			if err := stream.RecvMsg(&out); err == nil {
				t.Errorf("%s: %s is answered", method, name)
			} else if code := status.Code(err); code == codes.DeadlineExceeded || code == codes.Unknown {
				t.Errorf("%s: %s: %v", method, name, err)
			}
			cancel()
		}
	}
	v.healthy(t, 10*time.Second)
}

// rawCodec sends bytes as they are.
type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error) { return v.([]byte), nil }
func (rawCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = data
	return nil
}
func (rawCodec) Name() string { return "proto" }

// TestDeletedKey: the streams of a key that is deleted end, and it opens no
// other; a proxy with another key of the same endpoint goes on.
func TestDeletedKey(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{})
	stolen := v.ProxyCredentials(t, clientNode)
	open := func(key *meshtest.Key) deltaStream {
		stream := openDelta(t, v.dial(t, key))
		if err := stream.Send(clusters(clientNode)); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		return stream
	}
	thief, good := open(&stolen), open(&v.client)
	silent := openDelta(t, v.dial(t, &stolen)) // authenticated, and has asked for nothing
	if _, err := v.Fairlead(t, "proxy", "credentials", "delete", stolen.ID); err != nil {
		t.Fatal(err)
	}
	deleted := time.Now()
	if got := ended(thief); got.Code() != codes.Unauthenticated || time.Since(deleted) > 5*time.Second {
		t.Errorf("after %s: %v", time.Since(deleted), got)
	}
	silent.Send(clusters(clientNode)) //nolint:errcheck // Recv says why
	if got := ended(silent); got.Code() != codes.Unauthenticated {
		t.Errorf("a stream that was opened before: %v", got)
	}
	again := openDelta(t, v.dial(t, &stolen))
	again.Send(clusters(clientNode)) //nolint:errcheck // likewise
	if got := ended(again); got.Code() != codes.Unauthenticated {
		t.Errorf("a new stream: %v", got)
	}
	if err := good.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: envoy.Endpoint.URL(), ResourceNamesSubscribe: []string{"x"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := good.Recv(); err != nil {
		t.Errorf("the other proxy: %v", err)
	}
	v.healthy(t, 10*time.Second)
}

// TestProxyQuota: an endpoint has as many proxies as its quota allows, and as
// one leaves another may come.
func TestProxyQuota(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{Args: []string{"--quota", "envoys-per-virtual-node=2"}})
	key := v.ProxyCredentials(t, serverNode)
	open := func() (end func(), err error) {
		conn := v.dial(t, &key)
		stream := openDelta(t, conn)
		if err := stream.Send(clusters(serverNode)); err != nil {
			return nil, err
		}
		_, err = stream.Recv()
		return func() { conn.Close() }, err //nolint:errcheck // it ends the stream
	}
	leave, err := open()
	if err == nil {
		_, err = open()
	}
	if err != nil {
		t.Fatalf("within the quota: %v", err)
	}
	if _, err := open(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one too many: got %v, want %s", err, codes.ResourceExhausted)
	}
	leave()
	meshtest.Eventually(t, 10*time.Second, func(context.Context) error {
		_, err := open()
		return err
	})
}
