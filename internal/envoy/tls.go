package envoy

import (
	"net/netip"
	"regexp"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/tlspolicy"
)

const tlsSocket = "envoy.transport_sockets.tls"

// secretTimeout bounds how long an Envoy holds listeners back for a secret of a
// local provider. It is never zero, which would be for ever; afterwards only the
// chain without its secret refuses.
const secretTimeout = time.Second

// sources says who serves secrets to a proxy.
type sources struct {
	agent bool // the agent serves those of files
}

// unavailable says why a certificate or trust of this source cannot be had;
// empty: it can. What is unavailable is built closed, never as plaintext.
func unavailable(source tlspolicy.Source) string {
	switch source {
	case tlspolicy.SourceFile, tlspolicy.SourceSDS, tlspolicy.SourceOwnSDS:
		return ""
	case tlspolicy.SourceACM:
		return "certificates from ACM are not served yet"
	}
	return "no source of it is given"
}

// refusal says why an edge's TLS cannot be built; empty: it can.
func refusal(d *tlspolicy.Decision) string {
	if d.Transport != tlspolicy.TLS {
		return ""
	}
	if d.Certificate != nil {
		if why := unavailable(d.Certificate.Source); why != "" {
			return "the client's certificate: " + why
		}
	}
	switch {
	case d.Validation == tlspolicy.Unvalidated:
		return ""
	case d.Validation == tlspolicy.ByIssuerRoot:
		return "the root of the server's certificate: certificates from ACM and from Fairlead's own SDS are not served yet"
	case d.Trust == nil:
		return "the trust: no source of it is given"
	}
	if why := unavailable(d.Trust.Source); why != "" {
		return "the trust: " + why
	}
	return ""
}

// upstreamTLS is a client's half of a TLS edge that refusal lets pass.
func (d *draft) upstreamTLS(dec *tlspolicy.Decision, protocol appmesh.PortProtocol, s sources) *corev3.TransportSocket {
	common := &tlsv3.CommonTlsContext{TlsParams: tlsParams()}
	if isHTTP2(protocol) {
		common.AlpnProtocols = []string{"h2"}
	}
	s.certificate(common, dec.Certificate)
	if dec.Validation != tlspolicy.Unvalidated {
		s.validate(common, dec.Trust, dec.SANs)
	}
	return d.socket(&tlsv3.UpstreamTlsContext{CommonTlsContext: common, Sni: dec.SNI})
}

// downstreamTLS is a listener's TLS.
func (d *draft) downstreamTLS(l *tlspolicy.Listener, protocol appmesh.PortProtocol, s sources) *corev3.TransportSocket {
	common := &tlsv3.CommonTlsContext{TlsParams: tlsParams()}
	switch {
	case isHTTP2(protocol):
		common.AlpnProtocols = []string{"h2"}
	case protocol == appmesh.PortProtocolHttp:
		common.AlpnProtocols = []string{"http/1.1"}
	}
	s.certificate(common, l.Certificate)
	downstream := &tlsv3.DownstreamTlsContext{CommonTlsContext: common}
	if l.Validation != nil {
		s.validate(common, &l.Validation.Trust, l.Validation.SANs)
		downstream.RequireClientCertificate = wrapperspb.Bool(true)
		// A resumed session would skip the check of the client's certificate.
		downstream.SessionTicketKeysType = &tlsv3.DownstreamTlsContext_DisableStatelessSessionResumption{DisableStatelessSessionResumption: true}
		downstream.DisableStatefulSessionResumption = true
	}
	return d.socket(downstream)
}

func (d *draft) socket(context interface {
	validated
	proto.Message
}) *corev3.TransportSocket {
	d.check(context)
	return &corev3.TransportSocket{Name: tlsSocket, ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: d.pack(context)}}
}

func tlsParams() *tlsv3.TlsParameters {
	return &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2}
}

func (s sources) certificate(common *tlsv3.CommonTlsContext, c *tlspolicy.Certificate) {
	switch {
	case c == nil:
	case c.Source == tlspolicy.SourceFile && !s.agent:
		common.TlsCertificates = []*tlsv3.TlsCertificate{{CertificateChain: file(c.Chain), PrivateKey: file(c.Key)}}
	case c.Source == tlspolicy.SourceFile:
		common.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{secretFrom(AgentCluster, FileCertificateName(c.Chain, c.Key))}
	default:
		common.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{secretFrom(SDSCluster, c.Secret)}
	}
}

// validate demands a certificate that chains to the trust and, if names are
// given, carries one of them.
func (s sources) validate(common *tlsv3.CommonTlsContext, t *tlspolicy.Trust, names []string) {
	context := &tlsv3.CertificateValidationContext{}
	for _, name := range names {
		context.MatchTypedSubjectAltNames = append(context.MatchTypedSubjectAltNames, sanMatcher(name))
	}
	if t.Source == tlspolicy.SourceFile && !s.agent {
		context.TrustedCa = file(t.Chain)
		common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: context}
		return
	}
	secret := secretFrom(SDSCluster, t.Secret)
	if t.Source == tlspolicy.SourceFile {
		secret = secretFrom(AgentCluster, FileTrustName(t.Chain))
	}
	common.ValidationContextType = &tlsv3.CommonTlsContext_CombinedValidationContext{
		CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
			DefaultValidationContext:         context,
			ValidationContextSdsSecretConfig: secret,
		},
	}
}

func file(path string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: path}}
}

// secretFrom is a secret of a provider on the proxy's own host, by a static cluster.
func secretFrom(cluster, name string) *tlsv3.SdsSecretConfig {
	return &tlsv3.SdsSecretConfig{Name: name, SdsConfig: &corev3.ConfigSource{
		ResourceApiVersion:  corev3.ApiVersion_V3,
		InitialFetchTimeout: durationpb.New(secretTimeout),
		ConfigSourceSpecifier: &corev3.ConfigSource_ApiConfigSource{ApiConfigSource: &corev3.ApiConfigSource{
			ApiType:             corev3.ApiConfigSource_GRPC,
			TransportApiVersion: corev3.ApiVersion_V3,
			GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
				EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: cluster},
			}}},
		}},
	}}
}

// sanMatcher is tlspolicy.Matches as Envoy spells it. Host names are regular
// expressions because Envoy's exact match would also take a partial wildcard
// (v*.apps.local); they see the text of the SAN, and case does not count in them.
func sanMatcher(name string) *tlsv3.SubjectAltNameMatcher {
	switch {
	case strings.Contains(name, "://"):
		return &tlsv3.SubjectAltNameMatcher{SanType: tlsv3.SubjectAltNameMatcher_URI, Matcher: exactly(name)}
	case isAddress(name):
		return &tlsv3.SubjectAltNameMatcher{SanType: tlsv3.SubjectAltNameMatcher_IP_ADDRESS, Matcher: exactly(name)}
	}
	return &tlsv3.SubjectAltNameMatcher{SanType: tlsv3.SubjectAltNameMatcher_DNS, Matcher: &matcherv3.StringMatcher{
		MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: hostPattern(name)}},
	}}
}

func hostPattern(name string) string {
	label, rest, dotted := strings.Cut(name, ".")
	switch {
	case !dotted || name == tlspolicy.Nobody:
		return "(?i)" + regexp.QuoteMeta(name)
	case label == "*":
		return `(?i)(\*|[a-z0-9_-]+)\.` + regexp.QuoteMeta(rest)
	}
	return `(?i)(` + regexp.QuoteMeta(label) + `|\*)\.` + regexp.QuoteMeta(rest)
}

func exactly(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: s}}
}

func isAddress(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

func isHTTP2(p appmesh.PortProtocol) bool {
	return p == appmesh.PortProtocolHttp2 || p == appmesh.PortProtocolGrpc
}
