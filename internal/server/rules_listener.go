package server

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"github.com/fairlead/fairlead/api/appmesh"
)

// listener is what the rules need of a listener of a virtual node, a virtual
// gateway or a virtual router.
type listener struct {
	path            string
	port            int64
	protocol        string
	pool            string // union member that is set, or empty
	timeout         string
	healthCheckPort *int64
	healthCheckPath *string
	tls             *listenerTLS
}

// listenerTLS is what the rules need of a listener's tls.
type listenerTLS struct {
	path           string
	certificateARN *string                          // of ACM; nil: the certificate is from elsewhere
	sans           *appmesh.SubjectAlternativeNames // of its validation
}

// clientTLS is what the rules need of a client policy.
type clientTLS struct {
	path    string
	enforce bool
	sans    *appmesh.SubjectAlternativeNames
	caARNs  []string
}

func nodeListeners(spec *appmesh.VirtualNodeSpec) []listener {
	var all []listener
	for i := range spec.Listeners {
		in := &spec.Listeners[i]
		l := listener{path: fmt.Sprintf("spec.listeners[%d]", i), pool: member(in.ConnectionPool), timeout: member(in.Timeout)}
		if in.PortMapping != nil {
			l.port, l.protocol = in.PortMapping.Port, string(in.PortMapping.Protocol)
		}
		if in.HealthCheck != nil {
			l.healthCheckPort, l.healthCheckPath = in.HealthCheck.Port, in.HealthCheck.Path
		}
		if in.TLS != nil {
			l.tls = &listenerTLS{path: l.path + ".tls"}
			if c := in.TLS.Certificate; c != nil && c.ACM != nil {
				l.tls.certificateARN = &c.ACM.CertificateArn
			}
			if in.TLS.Validation != nil {
				l.tls.sans = in.TLS.Validation.SubjectAlternativeNames
			}
		}
		all = append(all, l)
	}
	return all
}

func gatewayListeners(spec *appmesh.VirtualGatewaySpec) []listener {
	var all []listener
	for i := range spec.Listeners {
		in := &spec.Listeners[i]
		l := listener{path: fmt.Sprintf("spec.listeners[%d]", i), pool: member(in.ConnectionPool)}
		if in.PortMapping != nil {
			l.port, l.protocol = in.PortMapping.Port, string(in.PortMapping.Protocol)
		}
		if in.HealthCheck != nil {
			l.healthCheckPort, l.healthCheckPath = in.HealthCheck.Port, in.HealthCheck.Path
		}
		if in.TLS != nil {
			l.tls = &listenerTLS{path: l.path + ".tls"}
			if c := in.TLS.Certificate; c != nil && c.ACM != nil {
				l.tls.certificateARN = &c.ACM.CertificateArn
			}
			if in.TLS.Validation != nil {
				l.tls.sans = in.TLS.Validation.SubjectAlternativeNames
			}
		}
		all = append(all, l)
	}
	return all
}

func routerListeners(spec *appmesh.VirtualRouterSpec) []listener {
	var all []listener
	for i, in := range spec.Listeners {
		if in.PortMapping == nil {
			continue
		}
		all = append(all, listener{path: fmt.Sprintf("spec.listeners[%d]", i),
			port: in.PortMapping.Port, protocol: string(in.PortMapping.Protocol)})
	}
	return all
}

func nodePolicies(spec *appmesh.VirtualNodeSpec) []clientTLS {
	var all []clientTLS
	add := func(path string, policy *appmesh.ClientPolicy) {
		if policy == nil || policy.TLS == nil {
			return
		}
		c := clientTLS{path: path + ".clientPolicy.tls", enforce: policy.TLS.Enforce == nil || *policy.TLS.Enforce}
		if v := policy.TLS.Validation; v != nil {
			c.sans = v.SubjectAlternativeNames
			if v.Trust != nil && v.Trust.ACM != nil {
				c.caARNs = v.Trust.ACM.CertificateAuthorityArns
			}
		}
		all = append(all, c)
	}
	if spec.BackendDefaults != nil {
		add("spec.backendDefaults", spec.BackendDefaults.ClientPolicy)
	}
	for i, backend := range spec.Backends {
		if backend.VirtualService != nil {
			add(fmt.Sprintf("spec.backends[%d].virtualService", i), backend.VirtualService.ClientPolicy)
		}
	}
	return all
}

func gatewayPolicies(spec *appmesh.VirtualGatewaySpec) []clientTLS {
	if spec.BackendDefaults == nil || spec.BackendDefaults.ClientPolicy == nil || spec.BackendDefaults.ClientPolicy.TLS == nil {
		return nil
	}
	policy := spec.BackendDefaults.ClientPolicy.TLS
	c := clientTLS{path: "spec.backendDefaults.clientPolicy.tls", enforce: policy.Enforce == nil || *policy.Enforce}
	if v := policy.Validation; v != nil {
		c.sans = v.SubjectAlternativeNames
		if v.Trust != nil && v.Trust.ACM != nil {
			c.caARNs = v.Trust.ACM.CertificateAuthorityArns
		}
	}
	return []clientTLS{c}
}

// poolProtocol: a connection pool is of the listener's protocol.
func poolProtocol(listeners []listener, f *faults) {
	for _, l := range listeners {
		if l.pool != "" && l.pool != l.protocol {
			f.add(l.path+".connectionPool."+l.pool, "the listener's protocol is %s: set connectionPool.%[1]s", l.protocol)
		}
	}
}

// timeoutProtocol: a timeout is of the listener's protocol.
func timeoutProtocol(listeners []listener, f *faults) {
	for _, l := range listeners {
		if l.timeout != "" && l.timeout != l.protocol {
			f.add(l.path+".timeout."+l.timeout, "the listener's protocol is %s: set timeout.%[1]s", l.protocol)
		}
	}
}

// healthCheckPort: a health check asks the port that it is about.
func healthCheckPort(listeners []listener, f *faults) {
	for _, l := range listeners {
		if l.healthCheckPort != nil && *l.healthCheckPort != l.port {
			f.add(l.path+".healthCheck.port", "%d must be the listener's port %d", *l.healthCheckPort, l.port)
		}
	}
}

// healthCheckPath: a path can stand in a request.
func healthCheckPath(listeners []listener, f *faults) {
	for _, l := range listeners {
		if path := l.healthCheckPath; path != nil && !cleanText(*path) {
			f.add(l.path+".healthCheck.path", "%q has control characters", *path)
		}
	}
}

// uniquePorts: two listeners cannot share a port.
func uniquePorts(listeners []listener, f *faults) {
	first := map[int64]string{}
	for _, l := range listeners {
		if before, taken := first[l.port]; taken {
			f.add(l.path+".portMapping.port", "%d is the port of %s already", l.port, before)
			continue
		}
		first[l.port] = l.path
	}
}

// listenerNames: the names that a client certificate may carry can be matched.
func listenerNames(listeners []listener, f *faults) {
	for _, l := range listeners {
		if l.tls != nil {
			names(l.tls.path+".validation", l.tls.sans, true, f)
		}
	}
}

// policyNames: the names that a server certificate may carry can be matched.
func policyNames(policies []clientTLS, f *faults) {
	for _, c := range policies {
		names(c.path+".validation", c.sans, c.enforce, f)
	}
}

// names checks a list of subject alternative names (design.md 4): FQDNs or
// URIs, and a wildcard only where the list is not enforced.
func names(path string, sans *appmesh.SubjectAlternativeNames, enforce bool, f *faults) {
	if sans == nil || sans.Match == nil {
		return
	}
	path += ".subjectAlternativeNames.match.exact"
	if len(sans.Match.Exact) == 0 {
		f.add(path, "an empty list matches no certificate: give a name, or leave subjectAlternativeNames out")
	}
	for i, name := range sans.Match.Exact {
		at := fmt.Sprintf("%s[%d]", path, i)
		rest, wildcard := strings.CutPrefix(name, "*.")
		switch {
		case strings.Contains(name, "://"):
			if u, err := url.Parse(name); err != nil || u.Host == "" || !cleanText(name) {
				f.add(at, "%q is not a URI with a host", name)
			}
		case isIP(name):
			f.add(at, "%q is an IP address: names are DNS names (a.example.com) or URIs", name)
		case strings.Contains(name, "@"):
			f.add(at, "%q is an e-mail address: names are DNS names (a.example.com) or URIs", name)
		case wildcard && enforce:
			f.add(at, "%q has a wildcard: list whole names, or set enforce to false in a client policy", name)
		case !isFQDN(rest):
			f.add(at, "%q is not a fully qualified DNS name (a.example.com) or a URI", name)
		}
	}
}

// isFQDN says whether name has at least two labels, each of letters, digits,
// hyphens and underscores.
func isFQDN(name string) bool {
	return strings.Contains(name, ".") && isHostname(name)
}

func isHostname(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	for _, label := range strings.Split(strings.TrimSuffix(name, "."), ".") {
		if label == "" || len(label) > 63 || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") {
			return false
		}
		for _, c := range []byte(label) {
			if !isNameByte(c) || c == '.' {
				return false
			}
		}
	}
	return true
}

func isIP(name string) bool {
	_, err := netip.ParseAddr(name)
	return err == nil
}

// isNameByte says whether c may stand in the name of a resource (B.12 rule 22).
func isNameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.'
}

// cleanText says whether text can travel in a header or a file name.
func cleanText(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f })
}
