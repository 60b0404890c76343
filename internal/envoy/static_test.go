package envoy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

const envoyTimeout = 30 * time.Second

// static is a config as an Envoy's whole static bootstrap, with files that exist
// in the place of those of the spec.
func static(t *testing.T, c *Config) []byte {
	t.Helper()
	return bootstrap(t, c, func(s *corev3.TransportSocket) { realFiles(t, s) })
}

// bootstrap is a config as a static bootstrap: what would come over ADS stands in
// its place. files may change the TLS.
func bootstrap(t *testing.T, c *Config, files func(*corev3.TransportSocket)) []byte {
	t.Helper()
	if files == nil {
		files = func(*corev3.TransportSocket) {}
	}
	s := &bootstrapv3.Bootstrap_StaticResources{Clusters: []*clusterv3.Cluster{localProvider(SDSCluster), localProvider(AgentCluster)}}
	for _, r := range c.Resources[Cluster] {
		cluster := decode(r).(*clusterv3.Cluster)
		if cluster.GetType() == clusterv3.Cluster_EDS {
			cluster.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
			cluster.EdsClusterConfig = nil
			cluster.LoadAssignment = decode(c.Resource(Ref{Endpoint, r.Name})).(*endpointv3.ClusterLoadAssignment)
		}
		inlineSecrets(c, cluster.TransportSocket)
		files(cluster.TransportSocket)
		s.Clusters = append(s.Clusters, cluster)
	}
	for _, r := range c.Resources[Listener] {
		listener := decode(r).(*listenerv3.Listener)
		for _, chain := range listener.FilterChains {
			inlineSecrets(c, chain.TransportSocket)
			files(chain.TransportSocket)
			for _, f := range chain.Filters {
				manager, ok := unpack(f.GetTypedConfig()).(*hcmv3.HttpConnectionManager)
				if !ok {
					continue
				}
				table := decode(c.Resource(Ref{Route, manager.GetRds().RouteConfigName})).(*routev3.RouteConfiguration)
				manager.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: table}
				f.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: (&draft{}).pack(manager)}
			}
		}
		s.Listeners = append(s.Listeners, listener)
	}
	// The agent's bootstrap allows programs of this size, as App Mesh's did.
	layer, err := structpb.NewStruct(map[string]any{"re2.max_program_size.error_level": 1000})
	if err != nil {
		t.Fatal(err)
	}
	out, err := proto.Marshal(&bootstrapv3.Bootstrap{
		Node:            &corev3.Node{Id: c.Endpoint.String(), Cluster: "test"},
		StaticResources: s,
		LayeredRuntime: &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{{
			Name: "static_layer_0", LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: layer},
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// realFiles puts files that exist in the place of the spec's: Envoy reads them
// when it validates.
func realFiles(t *testing.T, s *corev3.TransportSocket) {
	t.Helper()
	if s == nil {
		return
	}
	context, common := openSocket(s)
	certificate, key := keyPair(t)
	for _, c := range common.TlsCertificates {
		c.CertificateChain, c.PrivateKey = inline(certificate), inline(key)
	}
	if v := common.GetValidationContext(); v.GetTrustedCa() != nil {
		v.TrustedCa, v.Crl = inline(certificate), nil
	}
	s.ConfigType = &corev3.TransportSocket_TypedConfig{TypedConfig: (&draft{}).pack(context)}
}

// openSocket unpacks a TLS transport socket.
func openSocket(s *corev3.TransportSocket) (context proto.Message, common *tlsv3.CommonTlsContext) {
	context = unpack(s.GetTypedConfig())
	switch c := context.(type) {
	case *tlsv3.DownstreamTlsContext:
		return c, c.CommonTlsContext
	case *tlsv3.UpstreamTlsContext:
		return c, c.CommonTlsContext
	}
	panic("no TLS")
}

// inlineSecrets puts the secrets that would come over ADS into the socket itself.
func inlineSecrets(c *Config, s *corev3.TransportSocket) {
	if s == nil {
		return
	}
	context, common := openSocket(s)
	found := func(config *tlsv3.SdsSecretConfig) *tlsv3.Secret {
		if config.GetSdsConfig().GetAds() == nil {
			return nil
		}
		return decode(c.Resource(Ref{Secret, config.Name})).(*tlsv3.Secret)
	}
	for _, config := range common.TlsCertificateSdsSecretConfigs {
		if secret := found(config); secret != nil {
			common.TlsCertificates, common.TlsCertificateSdsSecretConfigs = []*tlsv3.TlsCertificate{secret.GetTlsCertificate()}, nil
		}
	}
	if combined := common.GetCombinedValidationContext(); combined != nil {
		if secret := found(combined.ValidationContextSdsSecretConfig); secret != nil {
			whole := proto.CloneOf(combined.DefaultValidationContext)
			proto.Merge(whole, secret.GetValidationContext())
			common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: whole}
		}
	}
	s.ConfigType = &corev3.TransportSocket_TypedConfig{TypedConfig: (&draft{}).pack(context)}
}

// keyPair is a self-signed certificate and its key, in PEM.
func keyPair(t *testing.T) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: []string{"test.local"},
		NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: encoded})
}

// localProvider is a provider of secrets on the proxy's host.
func localProvider(name string) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                          name,
		ClusterDiscoveryType:          &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		TypedExtensionProtocolOptions: (&draft{}).http2(),
		LoadAssignment: &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{
			LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
				Address: &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: "/nonexistent/" + name + ".sock"}}},
			}}}},
		}}},
	}
}
