package mesh

import (
	"cmp"
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/tlspolicy"
)

// What Fairlead's own SDS serves: certificates that the server issues to the
// proxies of an endpoint because its spec names a secret in the mesh's trust
// domain, and the trust in the mesh's own authority.

// ownPrefix begins the names of secrets that an agent has issued.
const ownPrefix = "own-certificate:"

// reservedPath begins the path of names that belong to one endpoint whoever else
// names them: spiffe://TRUSTDOMAIN/mesh/MESH/virtualNode/NODE.
const reservedPath = "/mesh/"

// Why a certificate is not issued to a proxy.
var (
	ErrNotNamed = errors.New("the spec of the endpoint names no such secret, or this server has not seen that it does")
	ErrCSR      = errors.New("the CSR cannot be used")
)

// OwnCertificate is all that a certificate of Fairlead's own SDS says of its
// holder. It is decided by the specs alone.
type OwnCertificate struct {
	URI string // the SPIFFE ID, which is the secret's name in the spec
	DNS string // the endpoint's discovery name; empty: it has none
}

// SecretName is the name by which an Envoy asks its agent for the certificate.
// It says what the certificate says, so that another discovery name brings
// another certificate.
func (c OwnCertificate) SecretName() string {
	return ownPrefix + url.Values{"dns": {c.DNS}, "uri": {c.URI}}.Encode()
}

// IsOwnCertificate says whether a secret's name was made by SecretName.
func IsOwnCertificate(name string) bool { return strings.HasPrefix(name, ownPrefix) }

// ParseOwnCertificate reads what SecretName made.
func ParseOwnCertificate(name string) (c OwnCertificate, ok bool) {
	query, ok := strings.CutPrefix(name, ownPrefix)
	values, err := url.ParseQuery(query)
	return OwnCertificate{URI: values.Get("uri"), DNS: values.Get("dns")}, ok && err == nil
}

// OwnTrust is the name of the trust in the mesh's own authority: the trust
// domain itself, as SPIRE has it.
func OwnTrust(trustDomain string) string { return "spiffe://" + trustDomain }

// trustDomain is the one of a mesh: SPIFFE wants lower case.
func (v *View) trustDomain() string {
	name := ""
	if v.Mesh != nil {
		name = v.Mesh.Mesh.Mesh
	}
	return cmp.Or(v.TrustDomain, strings.ToLower(name)+".fairlead")
}

// ownRefusal says why an endpoint cannot have a certificate in the trust domain;
// empty: it can.
func ownRefusal(secret, trustDomain, mesh string, id ID) string {
	path := strings.TrimPrefix(secret, OwnTrust(trustDomain))
	own := reservedPath + mesh + "/" + id.String()
	switch {
	case path == "":
		return secret + " is the trust bundle; a certificate's name has a path"
	case strings.HasPrefix(path, reservedPath) && path != own:
		return secret + " belongs to another endpoint: names under " + reservedPath + " are of the endpoint that they spell, here " + OwnTrust(trustDomain) + own
	}
	return ""
}

// own notes what is wrong with a certificate or a trust of Fairlead's own SDS.
func (b *builder) own(id ID, field string, c *tlspolicy.Certificate, t *tlspolicy.Trust) {
	if c != nil && c.Source == tlspolicy.SourceOwnSDS {
		if why := ownRefusal(c.Secret, b.trustDomain, b.graph.Name.Mesh, id); why != "" {
			b.problem(id, field+".certificate.sds.secretName", why+": no certificate is issued")
		}
	}
	if t != nil && t.Source == tlspolicy.SourceOwnSDS && t.Secret != OwnTrust(b.trustDomain) {
		b.problem(id, field+".validation.trust.sds.secretName", t.Secret+" is no trust bundle: the one of this mesh is "+OwnTrust(b.trustDomain))
	}
}

// OwnCertificates are those that the proxies of an endpoint may have, each once:
// what its own spec names for its listeners and its client policies.
func (v *View) OwnCertificates(id ID) []OwnCertificate {
	var tls []sdsUse
	var dns string
	switch id.Kind {
	case KindVirtualNode:
		if r := v.VirtualNodes[id.Name]; r != nil && r.Spec != nil {
			tls = nodeSDS(r.Spec)
			dns, _ = discovery(r.Spec.ServiceDiscovery, "")
		}
	case KindVirtualGateway:
		if r := v.VirtualGateways[id.Name]; r != nil && r.Spec != nil {
			tls = gatewaySDS(r.Spec)
		}
	}
	var all []OwnCertificate
	for _, use := range tls {
		if use.trust || sdsSource(use.secret, v.trustDomain()) != tlspolicy.SourceOwnSDS || v.Mesh == nil ||
			ownRefusal(use.secret, v.trustDomain(), v.Mesh.Mesh.Mesh, id) != "" {
			continue
		}
		if c := (OwnCertificate{use.secret, dns}); !slices.Contains(all, c) {
			all = append(all, c)
		}
	}
	return all
}

// NamesOwn says whether any spec names a secret that may be of Fairlead's own
// SDS. Which trust domain is the mesh's own, only a server knows.
func (v *View) NamesOwn() bool {
	return v.namesSDS(func(use sdsUse) bool { return strings.HasPrefix(use.secret, "spiffe://") })
}

// NeedsOwn says whether any spec names a secret in the mesh's trust domain.
func (v *View) NeedsOwn() bool {
	domain := v.trustDomain()
	return v.namesSDS(func(use sdsUse) bool { return sdsSource(use.secret, domain) == tlspolicy.SourceOwnSDS })
}

func (v *View) namesSDS(such func(sdsUse) bool) bool {
	for _, n := range v.VirtualNodes {
		if n.Spec != nil && slices.ContainsFunc(nodeSDS(n.Spec), such) {
			return true
		}
	}
	for _, g := range v.VirtualGateways {
		if g.Spec != nil && slices.ContainsFunc(gatewaySDS(g.Spec), such) {
			return true
		}
	}
	return false
}

// sdsUse is a secret that a spec names.
type sdsUse struct {
	secret string
	trust  bool // not a certificate
}

func nodeSDS(spec *appmesh.VirtualNodeSpec) (all []sdsUse) {
	for i := range spec.Listeners {
		all = append(all, listenerSDS(spec.Listeners[i].TLS)...)
	}
	if spec.BackendDefaults != nil && spec.BackendDefaults.ClientPolicy != nil {
		all = append(all, policySDS(spec.BackendDefaults.ClientPolicy.TLS)...)
	}
	for i := range spec.Backends {
		if s := spec.Backends[i].VirtualService; s != nil && s.ClientPolicy != nil {
			all = append(all, policySDS(s.ClientPolicy.TLS)...)
		}
	}
	return all
}

func gatewaySDS(spec *appmesh.VirtualGatewaySpec) (all []sdsUse) {
	for i := range spec.Listeners {
		all = append(all, listenerSDS(gatewayTLS(spec.Listeners[i].TLS))...)
	}
	if spec.BackendDefaults != nil && spec.BackendDefaults.ClientPolicy != nil {
		all = append(all, policySDS(gatewayPolicy(spec.BackendDefaults.ClientPolicy.TLS))...)
	}
	return all
}

func listenerSDS(tls *appmesh.ListenerTls) (all []sdsUse) {
	if tls == nil {
		return nil
	}
	if c := tls.Certificate; c != nil && c.SDS != nil {
		all = append(all, sdsUse{c.SDS.SecretName, false})
	}
	if v := tls.Validation; v != nil && v.Trust != nil && v.Trust.SDS != nil {
		all = append(all, sdsUse{v.Trust.SDS.SecretName, true})
	}
	return all
}

func policySDS(tls *appmesh.ClientPolicyTls) (all []sdsUse) {
	if tls == nil {
		return nil
	}
	if c := tls.Certificate; c != nil && c.SDS != nil {
		all = append(all, sdsUse{c.SDS.SecretName, false})
	}
	if v := tls.Validation; v != nil && v.Trust != nil && v.Trust.SDS != nil {
		all = append(all, sdsUse{v.Trust.SDS.SecretName, true})
	}
	return all
}
