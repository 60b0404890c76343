package importer

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/tlspolicy"
)

// Issuable is a certificate of ACM that resources name, as it would have to be
// issued anew for their clients to accept it as before.
type Issuable struct {
	ARN string
	// Names are discovery names of the nodes, host names of the gateways, and
	// those that clients ask for beside them. Empty: the resources do not say.
	Names []string
	// Authorities are the root CAs that all its clients trust; one must be at the
	// top of it. Nil: no client says whom it trusts.
	Authorities []string
	// Trouble is why no certificate does for all clients; empty: one does.
	Trouble string
}

// issuables collects what resources say of each certificate, by ARN.
type issuables map[string]*Issuable

func (all issuables) of(l *mesh.Listener) *Issuable {
	c := l.TLS.Certificate
	if c == nil || c.ARN == "" {
		return nil
	}
	if all[c.ARN] == nil {
		all[c.ARN] = &Issuable{ARN: c.ARN}
	}
	return all[c.ARN]
}

// served adds the names of the certificates that an endpoint has.
func (all issuables) served(e *mesh.Endpoint) {
	for _, l := range e.Listeners {
		i := all.of(l)
		if i == nil {
			continue
		}
		if e.DiscoveryName != "" {
			i.name(e.DiscoveryName)
		}
		for _, r := range e.GatewayRoutes {
			i.name(hostnames(r.Record.Spec)...)
		}
	}
}

// called adds what a client wants of the certificates of those it calls. All
// endpoints must have been served.
func (all issuables) called(client string, e *mesh.Endpoint) {
	for _, edge := range e.Edges {
		i, d := all.of(edge.Listener), edge.Decision
		if i == nil || d.Transport != tlspolicy.TLS {
			continue
		}
		if d.Validation == tlspolicy.ByPolicy && d.Trust.Source == tlspolicy.SourceACM {
			i.trust(client, d.Trust.ARNs)
		}
		if len(d.SANs) == 0 || slices.ContainsFunc(d.SANs, func(entry string) bool {
			return slices.ContainsFunc(i.Names, func(name string) bool { return tlspolicy.Matches(entry, name) })
		}) {
			continue
		}
		hosts := slices.DeleteFunc(slices.Clone(d.SANs), func(entry string) bool { return strings.Contains(entry, "://") || entry == tlspolicy.Nobody })
		if len(hosts) == 0 {
			i.trouble("%s accepts %s, and a certificate of ACM has host names only", client, strings.Join(d.SANs, ", "))
			continue
		}
		i.name(hosts[0])
	}
}

func (i *Issuable) name(names ...string) {
	for _, name := range names {
		if !slices.ContainsFunc(i.Names, func(has string) bool { return strings.EqualFold(has, name) }) {
			i.Names = append(i.Names, name)
		}
	}
}

// trust keeps the authorities that this client trusts, too.
func (i *Issuable) trust(client string, arns []string) {
	if i.Authorities == nil {
		i.Authorities = slices.Compact(slices.Sorted(slices.Values(arns)))
		return
	}
	before := i.Authorities
	i.Authorities = slices.DeleteFunc(slices.Clone(before), func(arn string) bool { return !slices.Contains(arns, arn) })
	if len(i.Authorities) == 0 {
		i.trouble("%s trusts none of %s, which its other clients trust", client, strings.Join(before, ", "))
	}
}

func (i *Issuable) trouble(format string, args ...any) {
	if i.Trouble == "" {
		i.Trouble = fmt.Sprintf(format, args...)
	}
}

// hostnames are the names under which a gateway route is reached.
func hostnames(spec *appmesh.GatewayRouteSpec) []string {
	var match *appmesh.GatewayRouteHostnameMatch
	switch {
	case spec.HttpRoute != nil && spec.HttpRoute.Match != nil:
		match = spec.HttpRoute.Match.Hostname
	case spec.Http2Route != nil && spec.Http2Route.Match != nil:
		match = spec.Http2Route.Match.Hostname
	case spec.GrpcRoute != nil && spec.GrpcRoute.Match != nil:
		match = spec.GrpcRoute.Match.Hostname
	}
	switch {
	case match != nil && match.Exact != nil:
		return []string{*match.Exact}
	case match != nil && match.Suffix != nil:
		return []string{"*." + strings.TrimPrefix(*match.Suffix, ".")}
	}
	return nil
}
