package mesh_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/tlspolicy"
)

// describe prints a whole Graph, for people and to compare.
func describe(g *mesh.Graph) string {
	var b strings.Builder
	for _, e := range g.Sorted() {
		b.WriteString(describeEndpoint(e))
	}
	for _, name := range slices.Sorted(maps.Keys(g.Services)) {
		b.WriteString(describeService(g.Services[name]))
	}
	for _, p := range g.Problems {
		fmt.Fprintf(&b, "problem %s %s: %s\n", p.ID, p.Field, p.Message)
	}
	return b.String()
}

func describeEndpoint(e *mesh.Endpoint) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s", e.ID)
	if e.DiscoveryName != "" {
		fmt.Fprintf(&b, " at %s", e.DiscoveryName)
	}
	if e.IPPreference != "" {
		fmt.Fprintf(&b, " %s", e.IPPreference)
	}
	b.WriteString("\n")
	for _, l := range e.Listeners {
		fmt.Fprintf(&b, "  listener %d %s tls %s", l.Port, l.Protocol, l.TLS.Mode)
		if c := l.TLS.Certificate; c != nil {
			fmt.Fprintf(&b, " %s", c.Source)
		}
		if l.TLS.Validation != nil {
			fmt.Fprintf(&b, " wants %s %v", l.TLS.Validation.Trust.Source, l.TLS.Validation.SANs)
		}
		b.WriteString("\n")
	}
	for _, r := range e.GatewayRoutes {
		fmt.Fprintf(&b, "  route %s %s to %s:%d\n", r.Record.ID.Name, r.Protocol, r.Service.Name, r.Port)
	}
	for _, backend := range e.Backends {
		own := ""
		if backend.Own {
			own = ", its own"
		}
		fmt.Fprintf(&b, "  backend %s%s, policy %s%s\n", backend.Service.Name, dialled(backend.Service), policyOf(backend.Policy), own)
		for _, r := range backend.Service.Routes {
			fmt.Fprintf(&b, "    by %s\n", strings.TrimSpace(describeRoute(r)))
		}
	}
	for _, edge := range e.Edges {
		d := edge.Decision
		fmt.Fprintf(&b, "  edge %s through %s: %s, %s\n", edge.Cluster("m"), strings.Join(edge.Services, " "), d.Transport, d.Verdict)
		fmt.Fprintf(&b, "       by %s\n", d.Field)
	}
	names := make([]string, 0, len(e.Origins))
	for _, o := range e.Origins {
		names = append(names, o.ID.String())
	}
	fmt.Fprintf(&b, "  from %s\n", strings.Join(names, " "))
	return b.String()
}

func policyOf(p *tlspolicy.Policy) string {
	switch {
	case p == nil:
		return "none"
	case p.Enforce:
		return fmt.Sprintf("enforced, trust %s, ports %v, names %v", p.Trust.Source, p.Ports, p.SANs)
	}
	return fmt.Sprintf("not enforced, trust %s, ports %v, names %v", p.Trust.Source, p.Ports, p.SANs)
}

func dialled(s *mesh.Service) string {
	var b strings.Builder
	for _, l := range s.Listeners {
		fmt.Fprintf(&b, " %d/%s", l.Port, l.Protocol)
	}
	return b.String()
}

func describeService(s *mesh.Service) string {
	var b strings.Builder
	fmt.Fprintf(&b, "service %s%s", s.Name, dialled(s))
	switch {
	case s.Record == nil:
		b.WriteString(", which nobody made")
	case s.Node != nil:
		fmt.Fprintf(&b, ", provided by %s", s.Node.ID)
	case s.Router != nil:
		fmt.Fprintf(&b, ", provided by %s", s.Router.ID)
	default:
		b.WriteString(", provided by nothing")
	}
	b.WriteString("\n")
	for _, r := range s.Routes {
		b.WriteString(describeRoute(r))
	}
	return b.String()
}

func describeRoute(r *mesh.Route) string {
	var b strings.Builder
	fmt.Fprintf(&b, "  route %s %s to", r.Record.ID.Name, r.Protocol)
	for _, t := range r.Targets {
		fmt.Fprintf(&b, " %s:%d×%d", t.Node.ID.Name, t.Listener.Port, t.Weight)
	}
	b.WriteString("\n")
	return b.String()
}
