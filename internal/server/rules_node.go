package server

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/fairlead/fairlead/api/appmesh"
)

var virtualNodeRules = []rule[appmesh.VirtualNodeSpec]{
	{"pool-protocol", "B.12 2", "a connection pool is of the listener's protocol",
		func(s *appmesh.VirtualNodeSpec, f *faults) { poolProtocol(nodeListeners(s), f) }},
	{"timeout-protocol", "B.12 2", "a timeout is of the listener's protocol",
		func(s *appmesh.VirtualNodeSpec, f *faults) { timeoutProtocol(nodeListeners(s), f) }},
	{"health-check-port", "B.12 3", "a health check asks the listener's own port; left out, it is filled in",
		func(s *appmesh.VirtualNodeSpec, f *faults) { healthCheckPort(nodeListeners(s), f) }},
	{"health-check-path", "B.3", "the path of a health check is visible text",
		func(s *appmesh.VirtualNodeSpec, f *faults) { healthCheckPath(nodeListeners(s), f) }},
	{"discovery-needs-listener", "B.12 4", "service discovery needs a listener", discoveryNeedsListener},
	{"listener-needs-discovery", "B.12 4", "a listener needs service discovery", listenerNeedsDiscovery},
	{"listener-ports", "B.3", "the ports of listeners are unique",
		func(s *appmesh.VirtualNodeSpec, f *faults) { uniquePorts(nodeListeners(s), f) }},
	{"listener-names", "B.12 19", "a listener's validation lists whole DNS names or URIs that a client certificate can have",
		func(s *appmesh.VirtualNodeSpec, f *faults) { listenerNames(nodeListeners(s), f) }},
	{"policy-names", "B.12 19", "a client policy lists DNS names or URIs that a server certificate can have; *.example.com only where it does not enforce TLS",
		func(s *appmesh.VirtualNodeSpec, f *faults) { policyNames(nodePolicies(s), f) }},
	{"duration", "B.1", "a duration has a unit and a value that a proxy can count", nodeDurations},
	{"ejection-time", "B.3", "outlier detection takes more than no time", ejectionTimes},
	{"hostname", "B.3", "the host name of DNS service discovery is a DNS name or an IP address", nodeHostname},
	{"backend-once", "A.6, issue 170 of the roadmap", "a backend is listed once", backendOnce},
	{"backend-name", "A.5", "a backend is the name or the ARN of a virtual service", backendName},
	{"log-path", "B.3", "the path of an access log is visible text",
		func(s *appmesh.VirtualNodeSpec, f *faults) {
			if s.Logging != nil && s.Logging.AccessLog != nil && s.Logging.AccessLog.File != nil {
				accessLog(s.Logging.AccessLog.File.Path, f)
			}
		}},
}

var virtualGatewayRules = []rule[appmesh.VirtualGatewaySpec]{
	{"gateway-listener", "B.4", "a virtual gateway has a listener", func(s *appmesh.VirtualGatewaySpec, f *faults) {
		if len(s.Listeners) == 0 {
			f.add("spec.listeners", "a virtual gateway needs a listener")
		}
	}},
	{"pool-protocol", "B.12 2", "a connection pool is of the listener's protocol",
		func(s *appmesh.VirtualGatewaySpec, f *faults) { poolProtocol(gatewayListeners(s), f) }},
	{"health-check-port", "B.12 3", "a health check asks the listener's own port; left out, it is filled in",
		func(s *appmesh.VirtualGatewaySpec, f *faults) { healthCheckPort(gatewayListeners(s), f) }},
	{"health-check-path", "B.4", "the path of a health check is visible text",
		func(s *appmesh.VirtualGatewaySpec, f *faults) { healthCheckPath(gatewayListeners(s), f) }},
	{"listener-ports", "B.4", "the ports of listeners are unique",
		func(s *appmesh.VirtualGatewaySpec, f *faults) { uniquePorts(gatewayListeners(s), f) }},
	{"listener-names", "B.12 19", "a listener's validation lists whole DNS names or URIs that a client certificate can have",
		func(s *appmesh.VirtualGatewaySpec, f *faults) { listenerNames(gatewayListeners(s), f) }},
	{"policy-names", "B.12 19", "a client policy lists DNS names or URIs that a server certificate can have; *.example.com only where it does not enforce TLS",
		func(s *appmesh.VirtualGatewaySpec, f *faults) { policyNames(gatewayPolicies(s), f) }},
	{"log-path", "B.4", "the path of an access log is visible text",
		func(s *appmesh.VirtualGatewaySpec, f *faults) {
			if s.Logging != nil && s.Logging.AccessLog != nil && s.Logging.AccessLog.File != nil {
				accessLog(s.Logging.AccessLog.File.Path, f)
			}
		}},
}

var virtualRouterRules = []rule[appmesh.VirtualRouterSpec]{
	{"listener-ports", "B.5", "the ports of listeners are unique",
		func(s *appmesh.VirtualRouterSpec, f *faults) { uniquePorts(routerListeners(s), f) }},
}

var virtualServiceRules = []rule[appmesh.VirtualServiceSpec]{
	{"reference-by-name", "A.5", "a provider is given by its name, not its ARN", func(s *appmesh.VirtualServiceSpec, f *faults) {
		switch p := s.Provider; {
		case p == nil:
		case p.VirtualNode != nil:
			byName(f, "spec.provider.virtualNode.virtualNodeName", p.VirtualNode.VirtualNodeName)
		case p.VirtualRouter != nil:
			byName(f, "spec.provider.virtualRouter.virtualRouterName", p.VirtualRouter.VirtualRouterName)
		}
	}},
}

// meshRules: what a mesh's spec may be, the service model states.
var meshRules []rule[appmesh.MeshSpec]

// byName refuses ARNs where App Mesh takes names only. No name has a colon.
func byName(f *faults, path, name string) {
	if strings.HasPrefix(name, "arn:") {
		f.add(path, "%q is an ARN: give the resource's name", name)
	}
}

func discoveryNeedsListener(s *appmesh.VirtualNodeSpec, f *faults) {
	if s.ServiceDiscovery != nil && len(s.Listeners) == 0 {
		f.add("", "Service Discovery can't be set without a listener.") // verbatim, facts A.3
	}
}

func listenerNeedsDiscovery(s *appmesh.VirtualNodeSpec, f *faults) {
	if s.ServiceDiscovery == nil && len(s.Listeners) > 0 {
		f.add("spec.serviceDiscovery", "must be set: clients need it to find the node's listeners")
	}
}

func nodeHostname(s *appmesh.VirtualNodeSpec, f *faults) {
	if s.ServiceDiscovery == nil || s.ServiceDiscovery.DNS == nil {
		return
	}
	if name := s.ServiceDiscovery.DNS.Hostname; !isHostname(name) && !isIP(name) {
		f.add("spec.serviceDiscovery.dns.hostname", "%q is neither a DNS name nor an IP address", name)
	}
}

func nodeDurations(s *appmesh.VirtualNodeSpec, f *faults) {
	for i, l := range s.Listeners {
		path := fmt.Sprintf("spec.listeners[%d]", i)
		if o := l.OutlierDetection; o != nil {
			wholeDuration(f, path+".outlierDetection.interval", o.Interval)
			wholeDuration(f, path+".outlierDetection.baseEjectionDuration", o.BaseEjectionDuration)
		}
		t := l.Timeout
		if t == nil {
			continue
		}
		if t.GRPC != nil {
			wholeDuration(f, path+".timeout.grpc.perRequest", t.GRPC.PerRequest)
			wholeDuration(f, path+".timeout.grpc.idle", t.GRPC.Idle)
		}
		httpTimeout(f, path+".timeout.http", t.HTTP)
		httpTimeout(f, path+".timeout.http2", t.HTTP2)
		if t.TCP != nil {
			wholeDuration(f, path+".timeout.tcp.idle", t.TCP.Idle)
		}
	}
}

func ejectionTimes(s *appmesh.VirtualNodeSpec, f *faults) {
	for i, l := range s.Listeners {
		if o := l.OutlierDetection; o != nil {
			path := fmt.Sprintf("spec.listeners[%d].outlierDetection", i)
			positive(f, path+".interval", o.Interval)
			positive(f, path+".baseEjectionDuration", o.BaseEjectionDuration)
		}
	}
}

func httpTimeout(f *faults, path string, t *appmesh.HttpTimeout) {
	if t != nil {
		wholeDuration(f, path+".perRequest", t.PerRequest)
		wholeDuration(f, path+".idle", t.Idle)
	}
}

// positive: Envoy refuses outlier detection every 0 s.
func positive(f *faults, path string, d *appmesh.Duration) {
	if d != nil && d.Value != nil && *d.Value == 0 {
		f.add(path+".value", "0 must be more than 0")
	}
}

func backendOnce(s *appmesh.VirtualNodeSpec, f *faults) {
	first := map[string]int{}
	for i, backend := range s.Backends {
		if backend.VirtualService == nil {
			continue
		}
		name := backend.VirtualService.VirtualServiceName
		if before, taken := first[name]; taken {
			f.add(fmt.Sprintf("spec.backends[%d].virtualService.virtualServiceName", i), "%q is spec.backends[%d] already", name, before)
			continue
		}
		first[name] = i
	}
}

// backendName: the service need not exist, but it must be possible that it does.
func backendName(s *appmesh.VirtualNodeSpec, f *faults) {
	for i, backend := range s.Backends {
		if backend.VirtualService == nil {
			continue
		}
		name := backend.VirtualService.VirtualServiceName
		path := fmt.Sprintf("spec.backends[%d].virtualService.virtualServiceName", i)
		if strings.HasPrefix(name, "arn:") {
			if !serviceARN.MatchString(name) || len(name) > maxNameLength+maxARNPrefix {
				f.add(path, "%.300q is not the ARN of a virtual service", name)
			}
			continue
		}
		resourceName(f, path, name)
	}
}

// serviceARN is the form of a virtual service's ARN; of which account and
// region it may be, is for the mesh to say.
var serviceARN = regexp.MustCompile(`^arn:[^:/]+:appmesh:[^:/]*:[0-9]{12}:mesh/[^/:]+/virtualService/[^/:]+$`)

func accessLog(path string, f *faults) {
	if !cleanText(path) {
		f.add("spec.logging.accessLog.file.path", "%q has control characters", path)
	}
}

// Names of resources have at most 255 characters (B.1); where a name may be an
// ARN, it is longer by what stands before it.
const (
	maxNameLength = 255
	maxARNPrefix  = 512
)

// resourceName checks the name that a resource has or can have (B.12 rule 22).
func resourceName(f *faults, member, name string) {
	switch {
	case name == "" || name == "." || name == "..":
		f.add(member, "%q is not a name", name)
	case len(name) > maxNameLength:
		f.add(member, "a name has at most %d characters, this one %d", maxNameLength, len(name))
	case strings.HasPrefix(name, "arn:"):
		byName(f, member, name)
	case strings.ContainsFunc(name, func(r rune) bool { return r > 0x7f || !isNameByte(byte(r)) }):
		f.add(member, "%q may have letters, digits, hyphens, underscores and dots only", name)
	}
}
