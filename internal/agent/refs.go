package agent

import (
	"fmt"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead/fairlead/internal/envoy"
)

// references are what a resource names.
type references struct {
	ads []envoy.Ref // over the same stream as itself
	// file and provider are the secrets that Envoy asks the agent for, and the
	// provider of `sds` secrets.
	file, provider []string
	key            bool // it carries a private key itself
}

// findReferences reads a resource (a serialised Any) and finds all that it
// names, wherever in it that stands. Extensions that this binary does not know
// are passed over.
func findReferences(t envoy.Type, encoded []byte) (references, error) {
	var packed anypb.Any
	if err := proto.Unmarshal(encoded, &packed); err != nil {
		return references{}, fmt.Errorf("read resource: %w", err)
	}
	if packed.TypeUrl != t.URL() {
		return references{}, fmt.Errorf("read resource: it is a %s, not a %s", packed.TypeUrl, t.URL())
	}
	message, err := packed.UnmarshalNew()
	if err != nil {
		return references{}, fmt.Errorf("read resource: %w", err)
	}
	var w walker
	w.walk(message.ProtoReflect())
	for _, list := range []*[]string{&w.found.file, &w.found.provider} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	slices.SortFunc(w.found.ads, func(a, b envoy.Ref) int {
		if a.Type != b.Type {
			return int(a.Type) - int(b.Type)
		}
		return strings.Compare(a.Name, b.Name)
	})
	w.found.ads = slices.Compact(w.found.ads)
	return w.found, nil
}

type walker struct{ found references }

func (w *walker) walk(m protoreflect.Message) {
	w.note(m.Interface())
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		if field.Message() == nil || field.IsMap() && field.MapValue().Message() == nil {
			return true
		}
		switch {
		case field.IsMap():
			value.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				w.walk(v.Message())
				return true
			})
		case field.IsList():
			for i := range value.List().Len() {
				w.walk(value.List().Get(i).Message())
			}
		default:
			w.walk(value.Message())
		}
		return true
	})
}

func (w *walker) note(m proto.Message) {
	ref := func(t envoy.Type, name string) {
		if name != "" {
			w.found.ads = append(w.found.ads, envoy.Ref{Type: t, Name: name})
		}
	}
	switch m := m.(type) {
	case *anypb.Any:
		if inner, err := m.UnmarshalNew(); err == nil {
			w.walk(inner.ProtoReflect())
		}
	case *tlsv3.SdsSecretConfig:
		w.noteSecret(m)
	case *tlsv3.TlsCertificate:
		w.found.key = w.found.key || isInline(m.GetPrivateKey()) || isInline(m.GetPkcs12())
	case *clusterv3.Cluster:
		if m.GetType() == clusterv3.Cluster_EDS && m.GetEdsClusterConfig().GetEdsConfig().GetAds() != nil {
			name := m.GetEdsClusterConfig().GetServiceName()
			if name == "" {
				name = m.Name
			}
			ref(envoy.Endpoint, name)
		}
	case *hcmv3.Rds:
		if m.GetConfigSource().GetAds() != nil {
			ref(envoy.Route, m.GetRouteConfigName())
		}
	case *routev3.RouteAction:
		ref(envoy.Cluster, m.GetCluster())
	case *routev3.WeightedCluster_ClusterWeight:
		ref(envoy.Cluster, m.GetName())
	case *routev3.RouteAction_RequestMirrorPolicy:
		ref(envoy.Cluster, m.GetCluster())
	case *tcpproxyv3.TcpProxy:
		ref(envoy.Cluster, m.GetCluster())
	case *tcpproxyv3.TcpProxy_WeightedCluster_ClusterWeight:
		ref(envoy.Cluster, m.GetName())
	}
}

// noteSecret sorts a secret by who serves it.
func (w *walker) noteSecret(m *tlsv3.SdsSecretConfig) {
	source := m.GetSdsConfig()
	if source.GetAds() != nil {
		w.found.ads = append(w.found.ads, envoy.Ref{Type: envoy.Secret, Name: m.GetName()})
		return
	}
	for _, service := range source.GetApiConfigSource().GetGrpcServices() {
		switch service.GetEnvoyGrpc().GetClusterName() {
		case envoy.AgentCluster:
			w.found.file = append(w.found.file, m.GetName())
		case envoy.SDSCluster:
			w.found.provider = append(w.found.provider, m.GetName())
		}
	}
}

func isInline(source *corev3.DataSource) bool {
	return len(source.GetInlineBytes()) > 0 || source.GetInlineString() != ""
}
