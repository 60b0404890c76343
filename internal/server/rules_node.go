package server

import (
	"fmt"
	"strings"

	"github.com/fairlead/fairlead/api/appmesh"
)

var virtualNodeRules = []rule[appmesh.VirtualNodeSpec]{
	{"B.12 2: a connection pool and a timeout are of the listener's protocol",
		func(s *appmesh.VirtualNodeSpec, f *faults) { poolMatchesProtocol(nodeListeners(s), f) }},
	{"B.12 3: a health check asks its listener's port",
		func(s *appmesh.VirtualNodeSpec, f *faults) { healthCheckPort(nodeListeners(s), f) }},
	{"B.12 4: service discovery and listeners need each other", nodeDiscovery},
	{"B.3: the ports of a node's listeners are unique",
		func(s *appmesh.VirtualNodeSpec, f *faults) { uniquePorts(nodeListeners(s), f) }},
	{"B.12 19: a listener's validation lists names that can be matched",
		func(s *appmesh.VirtualNodeSpec, f *faults) { listenerNames(nodeListeners(s), f) }},
	{"B.12 19: a client policy lists names that can be matched",
		func(s *appmesh.VirtualNodeSpec, f *faults) { policyNames(nodePolicies(s), f) }},
	{"B.1: a duration has a unit and a value", nodeDurations},
	{"B.3: a hostname can be resolved", nodeHostname},
	{"A.6, issue 170 of the roadmap: a backend is listed once", nodeBackends},
	{"B.3: an access log has a path that a file can have",
		func(s *appmesh.VirtualNodeSpec, f *faults) {
			if s.Logging != nil && s.Logging.AccessLog != nil && s.Logging.AccessLog.File != nil {
				accessLog(s.Logging.AccessLog.File.Path, f)
			}
		}},
}

var virtualGatewayRules = []rule[appmesh.VirtualGatewaySpec]{
	{"B.4: a gateway has a listener", func(s *appmesh.VirtualGatewaySpec, f *faults) {
		if len(s.Listeners) == 0 {
			f.add("spec.listeners", "a virtual gateway needs a listener")
		}
	}},
	{"B.12 2: a connection pool is of the listener's protocol",
		func(s *appmesh.VirtualGatewaySpec, f *faults) { poolMatchesProtocol(gatewayListeners(s), f) }},
	{"B.12 3: a health check asks its listener's port",
		func(s *appmesh.VirtualGatewaySpec, f *faults) { healthCheckPort(gatewayListeners(s), f) }},
	{"B.4: the ports of a gateway's listeners are unique",
		func(s *appmesh.VirtualGatewaySpec, f *faults) { uniquePorts(gatewayListeners(s), f) }},
	{"B.12 19: a listener's validation lists names that can be matched",
		func(s *appmesh.VirtualGatewaySpec, f *faults) { listenerNames(gatewayListeners(s), f) }},
	{"B.12 19: a client policy lists names that can be matched",
		func(s *appmesh.VirtualGatewaySpec, f *faults) { policyNames(gatewayPolicies(s), f) }},
	{"B.4: an access log has a path that a file can have",
		func(s *appmesh.VirtualGatewaySpec, f *faults) {
			if s.Logging != nil && s.Logging.AccessLog != nil && s.Logging.AccessLog.File != nil {
				accessLog(s.Logging.AccessLog.File.Path, f)
			}
		}},
}

var virtualRouterRules = []rule[appmesh.VirtualRouterSpec]{
	{"B.5: the ports of a router's listeners are unique",
		func(s *appmesh.VirtualRouterSpec, f *faults) { uniquePorts(routerListeners(s), f) }},
}

var (
	virtualServiceRules []rule[appmesh.VirtualServiceSpec]
	meshRules           []rule[appmesh.MeshSpec]
)

func nodeDiscovery(s *appmesh.VirtualNodeSpec, f *faults) {
	switch {
	case s.ServiceDiscovery != nil && len(s.Listeners) == 0:
		f.add("", "Service Discovery can't be set without a listener.") // verbatim, facts A.3
	case s.ServiceDiscovery == nil && len(s.Listeners) > 0:
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
			positive(f, path+".outlierDetection.interval", o.Interval)
			positive(f, path+".outlierDetection.baseEjectionDuration", o.BaseEjectionDuration)
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

func nodeBackends(s *appmesh.VirtualNodeSpec, f *faults) {
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
		if name == "" || len(name) > maxNameLength+maxARNPrefix {
			f.add(fmt.Sprintf("spec.backends[%d].virtualService.virtualServiceName", i), "%q is not the name of a virtual service", name)
		}
	}
}

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

// resourceName checks the name of a new resource (B.12 rule 22).
func resourceName(f *faults, member, name string) {
	switch {
	case name == "." || name == "..":
		f.add(member, "%q is not a name", name)
	case len(name) > maxNameLength:
		f.add(member, "a name has at most %d characters, this one %d", maxNameLength, len(name))
	case strings.HasPrefix(name, "arn:"):
		f.add(member, "%q is an ARN: give the resource's name", name)
	case strings.ContainsFunc(name, func(r rune) bool { return r > 0x7f || !isNameByte(byte(r)) }):
		f.add(member, "%q may have letters, digits, hyphens, underscores and dots only", name)
	}
}
