package envoy

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/tlspolicy"
)

const tlsSocket = "envoy.transport_sockets.tls"

// secretTimeout bounds how long an Envoy holds listeners back for a secret of a
// local provider. It is never zero, which would be for ever; afterwards only the
// chain without its secret refuses.
const secretTimeout = time.Second

// sources says who serves secrets to a proxy, and which the server itself has.
type sources struct {
	agent    bool // the agent serves those of files, and those of its own
	provider bool // a provider of the host's has every `sds` secret
	graph    *mesh.Graph
	dns      string // the discovery name of the endpoint whose proxy this is
}

func (a *assembly) sources() sources {
	return sources{a.shape.Agent, a.shape.Provider, a.graph, a.endpoint.DiscoveryName}
}

// own says whether a certificate is one that the agent has issued.
func (s sources) own(c *tlspolicy.Certificate) bool {
	return c != nil && c.Source == tlspolicy.SourceOwnSDS && s.agent && !s.provider
}

// ownTrust says whether a trust is that of the mesh's own authority.
func (s sources) ownTrust(t *tlspolicy.Trust) bool {
	return t.Source == tlspolicy.SourceOwnSDS && !s.provider
}

// noOwn is why nothing of the mesh's own authority can be had.
const noOwn = "the mesh's own authority is not there"

// keyOf adds to a key what sources decide of a certificate.
func (s sources) keyOf(k *key, c *tlspolicy.Certificate) *key {
	dns := ""
	if s.own(c) {
		dns = s.dns
	}
	return k.bool(s.agent).bool(s.provider).str(dns)
}

// noSource is why a certificate or trust is not there that a spec, wrong as it
// is, takes from nowhere.
const noSource = "no source of it is given"

// lacksCertificate says why a certificate cannot be had; empty: it can. What
// cannot be had is built closed, never as plaintext.
func (s sources) lacksCertificate(c *tlspolicy.Certificate) string {
	switch {
	case c == nil, c.Source == tlspolicy.SourceNone:
		return noSource
	case c.Source == tlspolicy.SourceACM && s.graph.Certificates[c.ARN] == nil:
		return c.ARN + " cannot be had"
	}
	return ""
}

// lacksTrust says why a trust cannot be had; empty: it can, in part at least.
func (s sources) lacksTrust(t *tlspolicy.Trust) string {
	switch {
	case t == nil, t.Source == tlspolicy.SourceNone:
		return noSource
	case t.Source == tlspolicy.SourceACM && !slices.ContainsFunc(t.ARNs, func(arn string) bool { return s.graph.Authorities[arn] != nil }):
		return strings.Join(t.ARNs, ", ") + " cannot be had"
	case s.ownTrust(t) && t.Secret != mesh.OwnTrust(s.graph.TrustDomain):
		return t.Secret + " is not the mesh's trust bundle"
	case s.ownTrust(t) && s.graph.Own == nil:
		return noOwn
	}
	return ""
}

// refusal says why an edge's TLS cannot be built; empty: it can.
func (s sources) refusal(d *tlspolicy.Decision) string {
	if d.Transport != tlspolicy.TLS {
		return ""
	}
	if d.Certificate != nil {
		if why := s.lacksCertificate(d.Certificate); why != "" {
			return "the client's certificate: " + why
		}
	}
	what, why := "the trust: ", ""
	switch {
	case d.Validation == tlspolicy.Unvalidated:
	case d.Validation == tlspolicy.ByPolicy:
		why = s.lacksTrust(d.Trust)
	case d.IssuerOf != nil && d.IssuerOf.Source == tlspolicy.SourceACM:
		what, why = "the root of the server's certificate: ", s.lacksCertificate(d.IssuerOf)
	case s.graph.Own == nil:
		what, why = "the root of the server's certificate: ", noOwn
	}
	if why == "" {
		return ""
	}
	return what + why
}

// upstreamTLS is a client's half of a TLS edge that refusal lets pass.
func (d *draft) upstreamTLS(dec *tlspolicy.Decision, protocol appmesh.PortProtocol, s sources) *corev3.TransportSocket {
	common := &tlsv3.CommonTlsContext{TlsParams: tlsParams()}
	common.TlsParams.EcdhCurves = upstreamCurves()
	if isHTTP2(protocol) {
		common.AlpnProtocols = []string{"h2"}
	}
	d.certificate(common, dec.Certificate, s)
	switch dec.Validation {
	case tlspolicy.Unvalidated:
	case tlspolicy.ByPolicy:
		d.validate(common, dec.Trust, dec.SANs, s)
	case tlspolicy.ByIssuerRoot:
		name := mesh.OwnTrust(s.graph.TrustDomain)
		if dec.IssuerOf.Source == tlspolicy.SourceACM {
			name = mesh.IssuerSecret(dec.IssuerOf.ARN)
		}
		validateBy(common, d.secretOverADS(name), dec.SANs)
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
	d.certificate(common, l.Certificate, s)
	downstream := &tlsv3.DownstreamTlsContext{CommonTlsContext: common}
	if l.Validation != nil {
		d.validate(common, &l.Validation.Trust, l.Validation.SANs, s)
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

// upstreamCurves are Envoy's own and P-384. Its preset as a client is TLS 1.2,
// where a certificate's own curve must be among them: it would refuse those of
// ACM on P-384.
func upstreamCurves() []string { return []string{"X25519", "P-256", "P-384"} }

func tlsParams() *tlsv3.TlsParameters {
	return &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2}
}

func (d *draft) certificate(common *tlsv3.CommonTlsContext, c *tlspolicy.Certificate, s sources) {
	switch {
	case c == nil:
	case c.Source == tlspolicy.SourceACM:
		common.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{d.secretOverADS(mesh.CertificateSecret(c.ARN))}
	case c.Source == tlspolicy.SourceFile && !s.agent:
		common.TlsCertificates = []*tlsv3.TlsCertificate{{CertificateChain: file(c.Chain), PrivateKey: file(c.Key)}}
	case c.Source == tlspolicy.SourceFile:
		common.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{secretFrom(AgentCluster, FileCertificateName(c.Chain, c.Key))}
	case s.own(c):
		name := mesh.OwnCertificate{URI: c.Secret, DNS: s.dns}.SecretName()
		common.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{secretFrom(AgentCluster, name)}
	default:
		common.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{secretFrom(SDSCluster, c.Secret)}
	}
}

// validate demands a certificate that chains to the trust and, if names are
// given, carries one of them.
func (d *draft) validate(common *tlsv3.CommonTlsContext, t *tlspolicy.Trust, names []string, s sources) {
	switch {
	case t.Source == tlspolicy.SourceFile && !s.agent:
		context := matching(names)
		context.TrustedCa = file(t.Chain)
		common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: context}
	case t.Source == tlspolicy.SourceFile:
		validateBy(common, secretFrom(AgentCluster, FileTrustName(t.Chain)), names)
	case t.Source == tlspolicy.SourceACM:
		validateBy(common, d.secretOverADS(mesh.TrustSecret(t.ARNs)), names)
	case s.ownTrust(t):
		validateBy(common, d.secretOverADS(mesh.OwnTrust(s.graph.TrustDomain)), names)
	default:
		validateBy(common, secretFrom(SDSCluster, t.Secret), names)
	}
}

// validateBy takes the trust from a secret; the names stand beside it.
func validateBy(common *tlsv3.CommonTlsContext, secret *tlsv3.SdsSecretConfig, names []string) {
	common.ValidationContextType = &tlsv3.CommonTlsContext_CombinedValidationContext{
		CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
			DefaultValidationContext:         matching(names),
			ValidationContextSdsSecretConfig: secret,
		},
	}
}

func matching(names []string) *tlsv3.CertificateValidationContext {
	context := &tlsv3.CertificateValidationContext{}
	for _, name := range names {
		context.MatchTypedSubjectAltNames = append(context.MatchTypedSubjectAltNames, sanMatcher(name))
	}
	return context
}

func file(path string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: path}}
}

// secretOverADS is a secret of the server, over the stream that brings what names
// it. It has Envoy's own timeout, 15 s: every subscription is answered at once, so
// that it can only pass while the stream is broken; and then the listener or
// cluster before serves on, which one without its secret would not.
func (d *draft) secretOverADS(name string) *tlsv3.SdsSecretConfig {
	return &tlsv3.SdsSecretConfig{Name: d.ref(Secret, name), SdsConfig: ads()}
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
