package mesh

import "github.com/fairlead/fairlead/api/appmesh"

// NodeARNs are the ARNs that a spec names: of the certificates of its listeners,
// and of the authorities that its client policies trust. One may come twice.
func NodeARNs(spec *appmesh.VirtualNodeSpec) (certificates, authorities []string) {
	for _, l := range spec.Listeners {
		if l.TLS != nil && l.TLS.Certificate != nil && l.TLS.Certificate.ACM != nil {
			certificates = append(certificates, l.TLS.Certificate.ACM.CertificateArn)
		}
	}
	if spec.BackendDefaults != nil {
		authorities = append(authorities, policyARNs(spec.BackendDefaults.ClientPolicy)...)
	}
	for _, b := range spec.Backends {
		if b.VirtualService != nil {
			authorities = append(authorities, policyARNs(b.VirtualService.ClientPolicy)...)
		}
	}
	return certificates, authorities
}

func policyARNs(p *appmesh.ClientPolicy) []string {
	if p == nil || p.TLS == nil || p.TLS.Validation == nil || p.TLS.Validation.Trust == nil || p.TLS.Validation.Trust.ACM == nil {
		return nil
	}
	return p.TLS.Validation.Trust.ACM.CertificateAuthorityArns
}

// GatewayARNs is NodeARNs of a virtual gateway.
func GatewayARNs(spec *appmesh.VirtualGatewaySpec) (certificates, authorities []string) {
	for _, l := range spec.Listeners {
		if l.TLS != nil && l.TLS.Certificate != nil && l.TLS.Certificate.ACM != nil {
			certificates = append(certificates, l.TLS.Certificate.ACM.CertificateArn)
		}
	}
	if spec.BackendDefaults == nil || spec.BackendDefaults.ClientPolicy == nil {
		return certificates, nil
	}
	tls := spec.BackendDefaults.ClientPolicy.TLS
	if tls != nil && tls.Validation != nil && tls.Validation.Trust != nil && tls.Validation.Trust.ACM != nil {
		authorities = tls.Validation.Trust.ACM.CertificateAuthorityArns
	}
	return certificates, authorities
}

// ARNs are those that all specs of the mesh name, each once.
func (v *View) ARNs() (certificates, authorities map[string]bool) {
	certificates, authorities = map[string]bool{}, map[string]bool{}
	add := func(c, a []string) {
		for _, arn := range c {
			certificates[arn] = true
		}
		for _, arn := range a {
			authorities[arn] = true
		}
	}
	for _, n := range v.VirtualNodes {
		if n.Spec != nil {
			add(NodeARNs(n.Spec))
		}
	}
	for _, g := range v.VirtualGateways {
		if g.Spec != nil {
			add(GatewayARNs(g.Spec))
		}
	}
	return certificates, authorities
}

// ARN names a resource of a mesh that an account has made (facts/appmesh-api.md A.6).
func ARN(partition, region, owner string, name Name, id ID) string {
	segment := name.Mesh
	if owner != name.Owner {
		segment += "@" + name.Owner
	}
	arn := "arn:" + partition + ":appmesh:" + region + ":" + owner + ":mesh/" + segment
	if id.Kind == KindMesh {
		return arn
	}
	return arn + "/" + id.String()
}
