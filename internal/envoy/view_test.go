package envoy

import (
	"fmt"
	"slices"
	"strings"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	filelogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairlead/fairlead/internal/mesh"
)

// A view is a config as a person reads it: a line or a few per thing. It takes
// every field it shows out of the message, and shows whatever is left as it is:
// nothing in a config can hide from a golden file.
type view struct{ out strings.Builder }

func (v *view) line(depth int, format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	v.out.WriteString(strings.Repeat("  ", depth) + strings.Join(strings.Fields(line), " ") + "\n")
}

// rest shows what nobody has shown yet.
func (v *view) rest(depth int, m proto.Message) {
	if proto.Size(m) > 0 {
		v.line(depth, "REST %s", prototext.MarshalOptions{}.Format(m))
	}
}

func viewOf(c *Config, problems []mesh.Problem) string {
	v := &view{}
	for _, list := range c.Resources {
		for _, r := range list {
			v.message(decode(r))
			if r.Origin != c.Endpoint {
				v.line(1, "blame %s", r.Origin)
			}
		}
	}
	for _, p := range problems {
		v.line(0, "problem %s %s: %s", p.ID, p.Field, p.Message)
	}
	return v.out.String()
}

// message shows a resource's message, and takes it apart.
func (v *view) message(m proto.Message) {
	switch m := m.(type) {
	case *listenerv3.Listener:
		v.listener(m)
	case *clusterv3.Cluster:
		v.cluster(m)
	case *endpointv3.ClusterLoadAssignment:
		v.line(0, "endpoints %s %s", m.ClusterName, endpoints(m))
	case *routev3.RouteConfiguration:
		v.table(m)
	case *tlsv3.Secret:
		v.secret(m)
	default:
		v.rest(0, m)
	}
}

// secret shows what a secret is made of, but for the key.
func (v *view) secret(s *tlsv3.Secret) {
	pem := func(d *corev3.DataSource) string {
		return strings.ReplaceAll(strings.TrimSuffix(string(d.GetInlineBytes()), "\n"), "\n", "|")
	}
	v.line(0, "secret %s", s.Name)
	if c := s.GetTlsCertificate(); c != nil {
		key := "none"
		if len(c.PrivateKey.GetInlineBytes()) > 0 {
			key = "redacted"
		}
		v.line(1, "chain=%s key=%s", pem(c.CertificateChain), key)
		c.CertificateChain, c.PrivateKey = nil, nil
		v.rest(1, c)
	}
	if c := s.GetValidationContext(); c != nil {
		v.line(1, "roots=%s crl=%s", pem(c.TrustedCa), pem(c.Crl))
		c.TrustedCa, c.Crl = nil, nil
		v.rest(1, c)
	}
	s.Name, s.Type = "", nil
	v.rest(1, s)
}

func decode(r *Resource) proto.Message {
	var packed anypb.Any
	if err := proto.Unmarshal(r.Any, &packed); err != nil {
		panic(err)
	}
	return unpack(&packed)
}

// extensionNames are the names that extensions have always had.
var extensionNames = map[string]string{
	"FileAccessLog": "envoy.access_loggers.file", "Router": "envoy.filters.http.router",
	"OriginalDst": "envoy.filters.listener.original_dst", "TlsInspector": "envoy.filters.listener.tls_inspector",
	"HttpConnectionManager": "envoy.filters.network.http_connection_manager", "TcpProxy": "envoy.filters.network.tcp_proxy",
	"Config": "envoy.filters.network.direct_response", "PreviousHostsPredicate": "envoy.retry_host_predicates.previous_hosts",
	"UpstreamTlsContext": "envoy.transport_sockets.tls", "DownstreamTlsContext": "envoy.transport_sockets.tls",
}

// extension shows an extension by its type, and by its name if that is not its own.
func extension(name string, config *anypb.Any) string {
	kind := string(config.MessageName().Name())
	if extensionNames[kind] != name {
		return fmt.Sprintf("%s called %q", kind, name)
	}
	return kind
}

func unpack(a *anypb.Any) proto.Message {
	m, err := a.UnmarshalNew()
	if err != nil {
		panic(err)
	}
	return m
}

func (v *view) listener(l *listenerv3.Listener) {
	at := []string{socket(l.Address)}
	for _, a := range l.AdditionalAddresses {
		at = append(at, socket(a.Address))
	}
	v.line(0, "listener %s at %s stats=%s %s", l.Name, strings.Join(at, ","), l.StatPrefix, strings.ToLower(l.TrafficDirection.String()))
	for _, f := range l.ListenerFilters {
		on := ""
		if f.FilterDisabled != nil {
			on = "only " + ports(f.FilterDisabled.GetNotMatch())
		}
		v.line(1, "first %s %s", extension(f.Name, f.GetTypedConfig()), on)
	}
	if l.ListenerFiltersTimeout != nil {
		v.line(1, "wait %s then go on: %v", span(l.ListenerFiltersTimeout), l.ContinueOnListenerFiltersTimeout)
	}
	for _, c := range l.FilterChains {
		match := ""
		if m := c.FilterChainMatch; m != nil {
			if m.DestinationPort != nil {
				match += fmt.Sprintf(" port=%d", m.DestinationPort.Value)
			}
			if m.TransportProtocol != "" {
				match += " transport=" + m.TransportProtocol
			}
			if len(m.ServerNames) > 0 {
				match += " names=" + strings.Join(m.ServerNames, ",")
			}
			m.DestinationPort, m.TransportProtocol, m.ServerNames = nil, "", nil
			v.rest(2, m)
		}
		v.line(1, "chain %s%s", c.Name, match)
		v.socketTLS(c.TransportSocket)
		for _, f := range c.Filters {
			v.filter(f)
		}
		c.Name, c.FilterChainMatch, c.TransportSocket, c.Filters = "", nil, nil, nil
		v.rest(2, c)
	}
	l.Name, l.Address, l.AdditionalAddresses, l.StatPrefix, l.TrafficDirection = "", nil, nil, "", 0
	l.ListenerFilters, l.ListenerFiltersTimeout, l.ContinueOnListenerFiltersTimeout, l.FilterChains = nil, nil, false, nil
	v.rest(1, l)
}

func ports(p *listenerv3.ListenerFilterChainMatchPredicate) string {
	var list []string
	for _, r := range append(slices.Clone(p.GetOrMatch().GetRules()), p) {
		if d := r.GetDestinationPortRange(); d != nil {
			list = append(list, fmt.Sprintf("%d", d.Start))
			if d.End != d.Start+1 {
				list = append(list, fmt.Sprintf("to %d", d.End))
			}
		}
	}
	return "port " + strings.Join(list, ",")
}

func (v *view) filter(f *listenerv3.Filter) {
	if name := extension(f.Name, f.GetTypedConfig()); strings.Contains(name, "called") {
		v.line(2, "%s", name)
	}
	switch m := unpack(f.GetTypedConfig()).(type) {
	case *hcmv3.HttpConnectionManager:
		normal := m.NormalizePath.GetValue() && m.MergeSlashes && m.PathWithEscapedSlashesAction == hcmv3.HttpConnectionManager_KEEP_UNCHANGED
		filters := []string{}
		for _, h := range m.HttpFilters {
			filters = append(filters, extension(h.Name, h.GetTypedConfig()))
		}
		v.conventional(2, "rds from", m.GetRds().GetConfigSource(), ads())
		v.line(2, "http stats=%s routes=%s upgrade=%s normal-paths=%v filters=%s", m.StatPrefix, m.GetRds().GetRouteConfigName(),
			m.UpgradeConfigs[0].UpgradeType, normal, strings.Join(filters, ","))
		for _, log := range m.AccessLog {
			v.conventional(3, "logger", log, &accesslogv3.AccessLog{Name: extensionNames["FileAccessLog"], ConfigType: log.ConfigType})
			v.accessLog(unpack(log.GetTypedConfig()).(*filelogv3.FileAccessLog))
		}
		if m.Tracing == nil {
			v.line(2, "untraced")
		}
		m.StatPrefix, m.RouteSpecifier, m.HttpFilters, m.Tracing, m.UpgradeConfigs, m.AccessLog = "", nil, nil, nil, nil, nil
		m.NormalizePath, m.MergeSlashes, m.PathWithEscapedSlashesAction = nil, false, 0
		v.rest(2, m)
	case *tcpv3.TcpProxy:
		to := m.GetCluster()
		for _, w := range m.GetWeightedClusters().GetClusters() {
			to += fmt.Sprintf(" %s:%d", w.Name, w.Weight)
		}
		v.line(2, "tcp stats=%s → %s%s", m.StatPrefix, to, opt(" idle=", m.IdleTimeout))
		m.StatPrefix, m.ClusterSpecifier, m.IdleTimeout = "", nil, nil
		v.rest(2, m)
	default:
		v.line(2, "filter %s %s", f.Name, m)
	}
}

// conventional shows a message only if it is not what it always is.
func (v *view) conventional(depth int, what string, got, always proto.Message) {
	if !proto.Equal(got, always) {
		v.line(depth, "%s %s", what, prototext.MarshalOptions{}.Format(got))
	}
}

func (v *view) accessLog(l *filelogv3.FileAccessLog) {
	format := l.GetLogFormat()
	v.line(3, "log %s text=%q json=%v", l.Path, format.GetTextFormatSource().GetInlineString(), format.GetJsonFormat().AsMap())
	l.Path, l.AccessLogFormat = "", nil
	v.rest(3, l)
}

// socketTLS shows a transport socket; none is a line as well.
func (v *view) socketTLS(s *corev3.TransportSocket) {
	if s == nil {
		v.line(2, "plaintext")
		return
	}
	if name := extension(s.Name, s.GetTypedConfig()); strings.Contains(name, "called") {
		v.line(2, "%s", name)
	}
	switch m := unpack(s.GetTypedConfig()).(type) {
	case *tlsv3.DownstreamTlsContext:
		client := "client certificate not asked for"
		if m.RequireClientCertificate.GetValue() {
			client = "client certificate required"
		}
		v.line(2, "tls %s resumption=%v,%v %s", client, !m.GetDisableStatelessSessionResumption(), !m.DisableStatefulSessionResumption, v.common(m.CommonTlsContext))
		m.CommonTlsContext, m.RequireClientCertificate, m.SessionTicketKeysType, m.DisableStatefulSessionResumption = nil, nil, nil, false
		v.rest(2, m)
	case *tlsv3.UpstreamTlsContext:
		v.line(2, "tls sni=%s %s", m.Sni, v.common(m.CommonTlsContext))
		m.CommonTlsContext, m.Sni = nil, ""
		v.rest(2, m)
	}
}

func (v *view) common(c *tlsv3.CommonTlsContext) string {
	s := "min=" + c.TlsParams.GetTlsMinimumProtocolVersion().String()
	if curves := c.TlsParams.GetEcdhCurves(); len(curves) > 0 {
		s += " curves=" + strings.Join(curves, ",")
	}
	if len(c.AlpnProtocols) > 0 {
		s += " alpn=" + strings.Join(c.AlpnProtocols, ",")
	}
	for _, cert := range c.TlsCertificates {
		s += fmt.Sprintf(" certificate=%s+%s", cert.CertificateChain.GetFilename(), cert.PrivateKey.GetFilename())
	}
	for _, secret := range c.TlsCertificateSdsSecretConfigs {
		s += " certificate=" + sds(secret)
	}
	validation := c.GetValidationContext()
	if combined := c.GetCombinedValidationContext(); combined != nil {
		validation = combined.DefaultValidationContext
		s += " trust=" + sds(combined.ValidationContextSdsSecretConfig)
	}
	if validation != nil {
		if validation.TrustedCa != nil {
			s += " trust=" + validation.TrustedCa.GetFilename()
		}
		var names []string
		for _, m := range validation.MatchTypedSubjectAltNames {
			names = append(names, strings.ToLower(m.SanType.String())+text(m.Matcher))
		}
		s += " names=[" + strings.Join(names, " ") + "]"
		validation.TrustedCa, validation.MatchTypedSubjectAltNames = nil, nil
		v.rest(2, validation)
	} else {
		s += " unvalidated"
	}
	return s
}

func sds(s *tlsv3.SdsSecretConfig) string {
	if proto.Equal(s.SdsConfig, ads()) {
		return s.Name + "@ads"
	}
	source := s.SdsConfig.GetApiConfigSource()
	if source == nil {
		return s.Name + "@" + prototext.MarshalOptions{}.Format(s.SdsConfig)
	}
	return fmt.Sprintf("%s@%s(%s)", s.Name, source.GrpcServices[0].GetEnvoyGrpc().ClusterName, span(s.SdsConfig.InitialFetchTimeout))
}

func (v *view) cluster(c *clusterv3.Cluster) {
	how := "?"
	if c.ClusterDiscoveryType != nil {
		how = strings.ToLower(c.GetType().String())
	}
	family := ""
	if c.DnsLookupFamily != 0 {
		family = " family=" + c.DnsLookupFamily.String()
	}
	v.line(0, "cluster %s %s%s connect=%s%s%s → %s", c.Name, how, family, span(c.ConnectTimeout), limitsOf(c), protocolOf(c), endpoints(c.LoadAssignment))
	v.socketTLS(c.TransportSocket)
	for _, h := range c.HealthChecks {
		v.line(2, "probe %s", prototext.MarshalOptions{}.Format(h))
	}
	if c.OutlierDetection != nil {
		v.line(2, "eject %s", prototext.MarshalOptions{}.Format(c.OutlierDetection))
	}
	if c.GetType() == clusterv3.Cluster_EDS {
		v.conventional(2, "eds", c.EdsClusterConfig, &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads()})
		c.EdsClusterConfig = nil
	}
	if c.IgnoreHealthOnHostRemoval != (len(c.HealthChecks) > 0) {
		v.line(2, "health on removal ignored: %v", c.IgnoreHealthOnHostRemoval)
	}
	if (c.GetType() == clusterv3.Cluster_ORIGINAL_DST) != (c.LbPolicy == clusterv3.Cluster_CLUSTER_PROVIDED) {
		v.line(2, "balance %s", c.LbPolicy)
	}
	c.IgnoreHealthOnHostRemoval = false
	if c.LbPolicy == clusterv3.Cluster_CLUSTER_PROVIDED {
		c.LbPolicy = 0
	}
	c.Name, c.ClusterDiscoveryType, c.ConnectTimeout, c.CircuitBreakers, c.LoadAssignment = "", nil, nil, nil, nil
	c.TransportSocket, c.HealthChecks, c.OutlierDetection, c.TypedExtensionProtocolOptions, c.DnsLookupFamily = nil, nil, nil, nil, 0
	v.rest(2, c)
}

func limitsOf(c *clusterv3.Cluster) string {
	out := ""
	for _, t := range c.GetCircuitBreakers().GetThresholds() {
		for i, n := range []*wrapperspb.UInt32Value{t.MaxConnections, t.MaxPendingRequests, t.MaxRequests, t.MaxRetries} {
			if n.GetValue() != unlimited {
				out += fmt.Sprintf(" max-%s=%d", []string{"connections", "pending", "requests", "retries"}[i], n.GetValue())
			}
		}
	}
	if len(c.GetCircuitBreakers().GetThresholds()) != 1 {
		out += " limits?"
	}
	return out
}

func protocolOf(c *clusterv3.Cluster) string {
	for _, a := range c.TypedExtensionProtocolOptions {
		options := unpack(a).(*httpv3.HttpProtocolOptions)
		if options.GetExplicitHttpConfig().GetHttp2ProtocolOptions() != nil {
			return " http2"
		}
		if as := options.GetUseDownstreamProtocolConfig(); as.GetHttpProtocolOptions() != nil && as.GetHttp2ProtocolOptions() != nil {
			return " as-downstream"
		}
		return " ?"
	}
	return ""
}

func endpoints(a *endpointv3.ClusterLoadAssignment) string {
	if a == nil {
		return "elsewhere"
	}
	var list []string
	for _, locality := range a.GetEndpoints() {
		for _, e := range locality.LbEndpoints {
			list = append(list, socket(e.GetEndpoint().Address))
		}
	}
	return "[" + strings.Join(list, " ") + "]"
}

func (v *view) table(t *routev3.RouteConfiguration) {
	remove := ""
	if len(t.RequestHeadersToRemove) > 0 {
		remove = " strip=" + strings.Join(t.RequestHeadersToRemove, ",")
	}
	if t.IgnorePortInHostMatching {
		remove += " ports-in-hosts-ignored"
	}
	v.line(0, "routes %s%s", t.Name, remove)
	for _, h := range t.VirtualHosts {
		v.line(1, "host %q %v", h.Name, h.Domains)
		for _, r := range h.Routes {
			v.route(r)
		}
		h.Name, h.Domains, h.Routes = "", nil, nil
		v.rest(1, h)
	}
	t.Name, t.VirtualHosts, t.RequestHeadersToRemove, t.IgnorePortInHostMatching = "", nil, nil, false
	v.rest(1, t)
}

func (v *view) route(r *routev3.Route) {
	name := ""
	if r.Name != "" {
		name = r.Name + ": "
	}
	v.line(2, "%s%s → %s", name, matchOf(r.Match), v.action(r))
	if len(r.RequestHeadersToRemove) > 0 {
		v.line(3, "strip %s", strings.Join(r.RequestHeadersToRemove, ","))
	}
	for _, h := range r.RequestHeadersToAdd {
		v.line(3, "add %s: %s (%s)", h.Header.Key, h.Header.Value, h.AppendAction)
	}
	r.Name, r.Match, r.Action, r.RequestHeadersToAdd, r.RequestHeadersToRemove = "", nil, nil, nil, nil
	v.rest(3, r)
}

func matchOf(m *routev3.RouteMatch) string {
	s := ""
	switch p := m.PathSpecifier.(type) {
	case *routev3.RouteMatch_Prefix:
		s = p.Prefix + "*"
	case *routev3.RouteMatch_Path:
		s = "=" + p.Path
	case *routev3.RouteMatch_SafeRegex:
		s = "~" + p.SafeRegex.Regex
	}
	for _, h := range m.Headers {
		not := ""
		if h.InvertMatch {
			not = "not "
		}
		what := text(h.GetStringMatch())
		switch {
		case h.GetRangeMatch() != nil:
			what = fmt.Sprintf(" in [%d,%d)", h.GetRangeMatch().Start, h.GetRangeMatch().End)
		case h.GetPresentMatch():
			what = " present"
		}
		s += fmt.Sprintf(" {%s%s%s}", not, h.Name, what)
	}
	for _, q := range m.QueryParameters {
		if q.GetPresentMatch() {
			s += fmt.Sprintf(" {?%s}", q.Name)
		} else {
			s += fmt.Sprintf(" {?%s%s}", q.Name, text(q.GetStringMatch()))
		}
	}
	return s
}

func text(m *matcherv3.StringMatcher) string {
	switch p := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		return "=" + p.Exact
	case *matcherv3.StringMatcher_Prefix:
		return "=" + p.Prefix + "*"
	case *matcherv3.StringMatcher_Suffix:
		return "=*" + p.Suffix
	case *matcherv3.StringMatcher_SafeRegex:
		return "~" + p.SafeRegex.Regex
	}
	return "?"
}

func (v *view) action(r *routev3.Route) string {
	if d := r.GetDirectResponse(); d != nil {
		return fmt.Sprint(d.Status)
	}
	a := r.GetRoute()
	s := a.GetCluster()
	for _, w := range a.GetWeightedClusters().GetClusters() {
		s += " " + w.Name + ":" + number(w.Weight)
	}
	s += opt(" timeout=", a.Timeout) + opt(" idle=", a.IdleTimeout)
	if p := a.RetryPolicy; p != nil {
		s += fmt.Sprintf(" retry=%d×%s", p.NumRetries.GetValue(), p.RetryOn)
		if len(p.RetriableStatusCodes) > 0 {
			s += fmt.Sprint(p.RetriableStatusCodes)
		}
		s += opt(" each=", p.PerTryTimeout)
		if len(p.RetryHostPredicate) == 1 && p.HostSelectionRetryMaxAttempts == 5 {
			s += " elsewhere"
		}
		for _, predicate := range p.RetryHostPredicate {
			if name := extension(predicate.Name, predicate.GetTypedConfig()); name != "PreviousHostsPredicate" {
				s += " " + name
			}
		}
		p.NumRetries, p.RetryOn, p.RetriableStatusCodes, p.PerTryTimeout, p.RetryHostPredicate, p.HostSelectionRetryMaxAttempts = nil, "", nil, nil, nil, 0
		v.rest(2, p)
	}
	if a.PrefixRewrite != "" {
		s += " rewrite-prefix=" + a.PrefixRewrite
	}
	if a.RegexRewrite != nil {
		s += fmt.Sprintf(" rewrite-path=%s:%s", a.RegexRewrite.Pattern.Regex, a.RegexRewrite.Substitution)
	}
	if a.GetHostRewriteLiteral() != "" {
		s += " rewrite-host=" + a.GetHostRewriteLiteral()
	}
	a.ClusterSpecifier, a.Timeout, a.IdleTimeout, a.RetryPolicy, a.PrefixRewrite, a.RegexRewrite, a.HostRewriteSpecifier = nil, nil, nil, nil, "", nil, nil
	v.rest(2, a)
	return s
}

func socket(a *corev3.Address) string {
	s := a.GetSocketAddress()
	dual := ""
	if s.Ipv4Compat {
		dual = "(+ipv4)"
	}
	return fmt.Sprintf("%s:%d%s", s.Address, s.GetPortValue(), dual)
}

func number(n *wrapperspb.UInt32Value) string {
	if n == nil {
		return "?"
	}
	return fmt.Sprint(n.Value)
}

func span(d *durationpb.Duration) string { return d.AsDuration().String() }

func opt(name string, d *durationpb.Duration) string {
	if d == nil {
		return ""
	}
	return name + span(d)
}
