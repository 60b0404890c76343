package main

import (
	"hash/maphash"
	"sync"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// needs lists what a resource makes an Envoy ask for next.
type needs struct {
	eds     string   // of a cluster: the endpoint set to fetch
	rds     []string // of a listener: the route configurations to fetch
	secrets []string // of either: the secrets to fetch over ADS
}

// needsCache shares what was parsed between all proxies, by content.
type needsCache struct {
	seed maphash.Seed
	m    sync.Map // uint64 -> *needs
}

func (c *needsCache) get(k kind, body []byte) *needs {
	h := maphash.Bytes(c.seed, body)
	if v, ok := c.m.Load(h); ok {
		return v.(*needs)
	}
	n := parseNeeds(k, body)
	c.m.Store(h, n)
	return n
}

// parseNeeds reads a serialised Any. A resource that does not parse needs
// nothing: a simulated proxy never rejects anything.
func parseNeeds(k kind, body []byte) *needs {
	n := &needs{}
	var wrapped anypb.Any
	if proto.Unmarshal(body, &wrapped) != nil {
		return n
	}
	switch k {
	case cds:
		n.ofCluster(&wrapped)
	case lds:
		n.ofListener(&wrapped)
	}
	return n
}

func (n *needs) ofCluster(wrapped *anypb.Any) {
	var c clusterv3.Cluster
	if wrapped.UnmarshalTo(&c) != nil {
		return
	}
	if c.GetType() == clusterv3.Cluster_EDS && overADS(c.GetEdsClusterConfig().GetEdsConfig()) {
		n.eds = c.GetEdsClusterConfig().GetServiceName()
		if n.eds == "" {
			n.eds = c.GetName()
		}
	}
	n.secrets = append(n.secrets, socketSecrets(c.GetTransportSocket())...)
	for _, m := range c.GetTransportSocketMatches() {
		n.secrets = append(n.secrets, socketSecrets(m.GetTransportSocket())...)
	}
}

func (n *needs) ofListener(wrapped *anypb.Any) {
	var l listenerv3.Listener
	if wrapped.UnmarshalTo(&l) != nil {
		return
	}
	chains := l.GetFilterChains()
	if d := l.GetDefaultFilterChain(); d != nil {
		chains = append(chains, d)
	}
	for _, chain := range chains {
		n.secrets = append(n.secrets, socketSecrets(chain.GetTransportSocket())...)
		for _, f := range chain.GetFilters() {
			var h hcmv3.HttpConnectionManager
			if config := f.GetTypedConfig(); config == nil || !config.MessageIs(&h) || config.UnmarshalTo(&h) != nil {
				continue
			}
			if r := h.GetRds(); r != nil && overADS(r.GetConfigSource()) {
				n.rds = append(n.rds, r.GetRouteConfigName())
			}
		}
	}
}

func overADS(source *corev3.ConfigSource) bool { return source.GetAds() != nil }

func socketSecrets(socket *corev3.TransportSocket) []string {
	var up tlsv3.UpstreamTlsContext
	var down tlsv3.DownstreamTlsContext
	var common *tlsv3.CommonTlsContext
	switch config := socket.GetTypedConfig(); {
	case config == nil:
	case config.MessageIs(&up) && config.UnmarshalTo(&up) == nil:
		common = up.GetCommonTlsContext()
	case config.MessageIs(&down) && config.UnmarshalTo(&down) == nil:
		common = down.GetCommonTlsContext()
	}
	if common == nil {
		return nil
	}
	refs := append([]*tlsv3.SdsSecretConfig{}, common.GetTlsCertificateSdsSecretConfigs()...)
	refs = append(refs, common.GetValidationContextSdsSecretConfig(),
		common.GetCombinedValidationContext().GetValidationContextSdsSecretConfig())
	var names []string
	for _, s := range refs {
		if s != nil && overADS(s.GetSdsConfig()) {
			names = append(names, s.GetName())
		}
	}
	return names
}
