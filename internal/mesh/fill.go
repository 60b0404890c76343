package mesh

import (
	"slices"

	"github.com/fairlead/fairlead/api/appmesh"
)

// The port of a health check is the only member of a spec that App Mesh fills
// in: it is its listener's. Clients compare all the rest with what they have
// sent (facts/appmesh-api.md A.6). The specs that are given stay as they are.

// FilledNode is a virtual node's spec as it is kept.
func FilledNode(spec *appmesh.VirtualNodeSpec) *appmesh.VirtualNodeSpec {
	filled := *spec
	filled.Listeners = slices.Clone(spec.Listeners)
	for i, l := range filled.Listeners {
		if l.HealthCheck != nil && l.HealthCheck.Port == nil && l.PortMapping != nil {
			check := *l.HealthCheck
			check.Port = &l.PortMapping.Port
			filled.Listeners[i].HealthCheck = &check
		}
	}
	return &filled
}

// FilledGateway is a virtual gateway's spec as it is kept.
func FilledGateway(spec *appmesh.VirtualGatewaySpec) *appmesh.VirtualGatewaySpec {
	filled := *spec
	filled.Listeners = slices.Clone(spec.Listeners)
	for i, l := range filled.Listeners {
		if l.HealthCheck != nil && l.HealthCheck.Port == nil && l.PortMapping != nil {
			check := *l.HealthCheck
			check.Port = &l.PortMapping.Port
			filled.Listeners[i].HealthCheck = &check
		}
	}
	return &filled
}
