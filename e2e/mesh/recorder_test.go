package mesh_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statusv3 "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/envoy"
	"github.com/fairlead/fairlead/internal/meshtest"
)

// recorder is a proxy that opens a signed delta stream of its own, asks as Envoy
// does for what it is told of, and looks after each message for what refers to
// something that is not there. If it is picky it refuses every sixteenth cluster,
// in Envoy's words, and has what that cluster was before.
type recorder struct {
	resource string
	picky    bool
	stream   discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient

	mu       sync.Mutex
	held     [envoy.NumTypes]map[string][]envoy.Ref // content: what it refers to
	asked    [envoy.NumTypes]map[string]bool
	messages int
	removed  int
	refused  int
	faults   []string
	ended    error
}

// record connects as a proxy of a mesh endpoint, in direct mode at an address or
// in interception mode.
func record(t *testing.T, s *meshtest.Server, resource, bind string, picky bool) *recorder {
	t.Helper()
	r := &recorder{resource: resource, picky: picky}
	for k := range r.held {
		r.held[k], r.asked[k] = map[string][]envoy.Ref{}, map[string]bool{}
	}
	pem, err := os.ReadFile(s.CA())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	key := s.ProxyCredentials(t, resource)
	conn, err := grpc.NewClient(s.XDS, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots})),
		grpc.WithPerRPCCredentials(awsapi.StreamSigner{Region: meshtest.Region, Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: key.ID, SecretAccessKey: key.Secret}, nil
		})}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.stream, err = discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	metadata := map[string]any{}
	if bind != "" {
		metadata[envoy.MetadataBindAddress] = bind
	}
	fields, err := structpb.NewStruct(metadata)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []envoy.Type{envoy.Cluster, envoy.Listener} {
		if err := r.stream.Send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: resource, Metadata: fields}, TypeUrl: kind.URL()}); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.run()
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		conn.Close() //nolint:errcheck // ends with the test
	})
	return r
}

func (r *recorder) run() {
	for {
		message, err := r.stream.Recv()
		if err == nil {
			err = r.take(message)
		}
		if err != nil {
			r.mu.Lock()
			r.ended = err
			r.mu.Unlock()
			return
		}
	}
}

// take applies a message and answers it.
func (r *recorder) take(message *discoveryv3.DeltaDiscoveryResponse) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.messages++
	kind, ok := typeOf(message.TypeUrl)
	if !ok {
		return fmt.Errorf("unknown type %s", message.TypeUrl)
	}
	answer := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: message.TypeUrl, ResponseNonce: message.Nonce}
	for _, resource := range message.Resources {
		if r.refuses(kind, resource) {
			r.refused++
			if answer.ErrorDetail == nil {
				answer.ErrorDetail = &statusv3.Status{Code: int32(codes.Internal), Message: "Error adding/updating cluster(s) "}
			}
			answer.ErrorDetail.Message += resource.Name + ": not today\n"
			continue
		}
		refs, err := references(resource.Resource)
		if err != nil {
			return err
		}
		r.held[kind][resource.Name] = refs
	}
	for _, name := range message.RemovedResources {
		delete(r.held[kind], name)
		r.removed++
	}
	r.look(kind, message)
	if err := r.stream.Send(answer); err != nil {
		return err
	}
	return r.ask()
}

// refuses decides by content: what is refused is refused for good.
func (r *recorder) refuses(kind envoy.Type, resource *discoveryv3.Resource) bool {
	if !r.picky || kind != envoy.Cluster {
		return false
	}
	sum := fnv.New32a()
	sum.Write(resource.Resource.Value) //nolint:errcheck // never fails
	return sum.Sum32()%16 == 0
}

func typeOf(url string) (envoy.Type, bool) {
	for kind := envoy.Type(0); kind < envoy.NumTypes; kind++ {
		if kind.URL() == url {
			return kind, true
		}
	}
	return 0, false
}

// look finds references to clusters and secrets that are not there: Envoy would
// answer 503. Tables and endpoints are asked for by who refers to them.
func (r *recorder) look(kind envoy.Type, message *discoveryv3.DeltaDiscoveryResponse) {
	for from := range r.held {
		for _, name := range slices.Sorted(maps.Keys(r.held[from])) {
			for _, ref := range r.held[from][name] {
				if ref.Type != envoy.Cluster {
					continue
				}
				if _, there := r.held[envoy.Cluster][ref.Name]; !there {
					r.faults = append(r.faults, fmt.Sprintf("%s: after message %d of %s (%d sent, removed %q): %s %s refers to cluster %s, which is not there",
						r.resource, r.messages, kind, len(message.Resources), message.RemovedResources, envoy.Type(from), name, ref.Name))
				}
			}
		}
	}
}

// ask subscribes to what is referred to, and no longer to what is not.
func (r *recorder) ask() error {
	for _, kind := range []envoy.Type{envoy.Endpoint, envoy.Route, envoy.Secret} {
		wanted := map[string]bool{}
		for from := range r.held {
			for _, refs := range r.held[from] {
				for _, ref := range refs {
					if ref.Type == kind {
						wanted[ref.Name] = true
					}
				}
			}
		}
		request := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: kind.URL()}
		for name := range wanted {
			if !r.asked[kind][name] {
				request.ResourceNamesSubscribe = append(request.ResourceNamesSubscribe, name)
			}
		}
		for name := range r.asked[kind] {
			if !wanted[name] {
				request.ResourceNamesUnsubscribe = append(request.ResourceNamesUnsubscribe, name)
				delete(r.held[kind], name)
			}
		}
		if len(request.ResourceNamesSubscribe)+len(request.ResourceNamesUnsubscribe) == 0 {
			continue
		}
		r.asked[kind] = wanted
		if err := r.stream.Send(request); err != nil {
			return err
		}
	}
	return nil
}

// whole says whether the proxy holds all that it has asked for.
func (r *recorder) whole() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended != nil {
		return fmt.Errorf("%s: the stream has ended: %w", r.resource, r.ended)
	}
	for kind := range r.asked {
		for name := range r.asked[kind] {
			if _, there := r.held[kind][name]; !there {
				return fmt.Errorf("%s waits for %s %s", r.resource, envoy.Type(kind), name)
			}
		}
	}
	return nil
}

// references are what a resource, or anything packed in it, refers to over ADS.
func references(packed *anypb.Any) ([]envoy.Ref, error) {
	message, err := packed.UnmarshalNew()
	if err != nil {
		return nil, err
	}
	var refs []envoy.Ref
	err = walk(message, func(m proto.Message) {
		add := func(kind envoy.Type, name string) {
			if name != "" {
				refs = append(refs, envoy.Ref{Type: kind, Name: name})
			}
		}
		switch m := m.(type) {
		case *routev3.RouteAction:
			add(envoy.Cluster, m.GetCluster())
		case *routev3.WeightedCluster_ClusterWeight:
			add(envoy.Cluster, m.GetName())
		case *routev3.RouteAction_RequestMirrorPolicy:
			add(envoy.Cluster, m.GetCluster())
		case *tcpv3.TcpProxy:
			add(envoy.Cluster, m.GetCluster())
		case *tcpv3.TcpProxy_WeightedCluster_ClusterWeight:
			add(envoy.Cluster, m.GetName())
		case *hcmv3.Rds:
			add(envoy.Route, m.GetRouteConfigName())
		case *tlsv3.SdsSecretConfig:
			if m.GetSdsConfig().GetAds() != nil {
				add(envoy.Secret, m.GetName())
			}
		case *clusterv3.Cluster:
			if m.GetType() == clusterv3.Cluster_EDS {
				add(envoy.Endpoint, m.GetName())
			}
		}
	})
	return refs, err
}

// walk visits a message and all messages in it, packed ones too.
func walk(message proto.Message, visit func(proto.Message)) error {
	if packed, ok := message.(*anypb.Any); ok {
		inner, err := packed.UnmarshalNew()
		if err != nil {
			return err
		}
		return walk(inner, visit)
	}
	visit(message)
	var errs []error
	message.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsMap():
			if field.MapValue().Message() != nil {
				value.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					errs = append(errs, walk(v.Message().Interface(), visit))
					return true
				})
			}
		case field.Message() == nil:
		case field.IsList():
			for i := range value.List().Len() {
				errs = append(errs, walk(value.List().Get(i).Message().Interface(), visit))
			}
		default:
			errs = append(errs, walk(value.Message().Interface(), visit))
		}
		return true
	})
	return errors.Join(errs...)
}

// waitWhole waits until no recorder waits for anything.
func waitWhole(t *testing.T, recorders []*recorder) {
	t.Helper()
	meshtest.Eventually(t, 30*time.Second, func(context.Context) error {
		for _, r := range recorders {
			if err := r.whole(); err != nil {
				return err
			}
		}
		return nil
	})
}
