package server

import (
	"fmt"
	"slices"

	"github.com/fairlead/fairlead/api/appmesh"
)

// certificate is an ARN of a certificate or of its authority in a spec.
type certificate struct {
	path string
	arn  string
	noun string
}

func nodeCertificates(spec *appmesh.VirtualNodeSpec) []certificate {
	return append(listenerCertificates(nodeListeners(spec)), policyAuthorities(nodePolicies(spec))...)
}

func gatewayCertificates(spec *appmesh.VirtualGatewaySpec) []certificate {
	return append(listenerCertificates(gatewayListeners(spec)), policyAuthorities(gatewayPolicies(spec))...)
}

func listenerCertificates(listeners []listener) []certificate {
	var all []certificate
	for _, l := range listeners {
		if l.tls != nil && l.tls.certificateARN != "" {
			all = append(all, certificate{l.tls.path + ".certificate.acm.certificateArn", l.tls.certificateARN, "certificate"})
		}
	}
	return all
}

func policyAuthorities(policies []clientTLS) []certificate {
	var all []certificate
	for _, c := range policies {
		for i, arn := range c.caARNs {
			path := fmt.Sprintf("%s.validation.trust.acm.certificateAuthorityArns[%d]", c.path, i)
			all = append(all, certificate{path, arn, "certificate authority"})
		}
	}
	return all
}

// CertificatesInUse are the ARNs of the mesh endpoints whose listeners name a
// certificate, by the certificate's ARN, of all meshes, as the cache has them.
func (s *Service) CertificatesInUse() map[string][]string {
	users := map[string][]string{}
	for _, name := range s.Store.Meshes() {
		view, ok := s.Store.View(name)
		if !ok {
			continue
		}
		for _, node := range view.VirtualNodes {
			s.addUser(users, location{name, node.ID}, node.ResourceOwner, listenerCertificates(nodeListeners(node.Spec)))
		}
		for _, gateway := range view.VirtualGateways {
			s.addUser(users, location{name, gateway.ID}, gateway.ResourceOwner, listenerCertificates(gatewayListeners(gateway.Spec)))
		}
	}
	for _, arns := range users {
		slices.Sort(arns)
	}
	return users
}

func (s *Service) addUser(users map[string][]string, at location, owner string, named []certificate) {
	for _, c := range named {
		if arn := s.arn(at, owner); !slices.Contains(users[c.arn], arn) {
			users[c.arn] = append(users[c.arn], arn)
		}
	}
}

// knownCertificates refuses what no certificate store holds: this server has
// none yet.
func knownCertificates(all []certificate) error {
	if len(all) == 0 {
		return nil
	}
	first := all[0]
	return appmesh.NewNotFoundException("%s: the %s %.300s does not exist: this server holds no ACM certificates and no certificate authorities. Use a certificate from file or SDS", first.path, first.noun, first.arn)
}
