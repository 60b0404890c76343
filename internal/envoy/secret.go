package envoy

import (
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/tlspolicy"
)

// secret is what the server itself sends as one: exactly one of its members.
type secret struct {
	certificate string   // ARN: its chain and key
	issuer      string   // ARN of a certificate: what it chains to
	authorities []string // ARNs: trust
	own         string   // trust domain: trust in the mesh's own authority
}

func (s secret) name() string {
	switch {
	case s.certificate != "":
		return mesh.CertificateSecret(s.certificate)
	case s.issuer != "":
		return mesh.IssuerSecret(s.issuer)
	case s.own != "":
		return mesh.OwnTrust(s.own)
	}
	return mesh.TrustSecret(s.authorities)
}

// need notes that the endpoint's proxies are to hold a secret.
func (a *assembly) need(s secret) {
	name := s.name()
	if !slices.ContainsFunc(a.secrets, func(known secret) bool { return known.name() == name }) {
		a.secrets = append(a.secrets, s)
	}
}

// needEdge notes what an edge's TLS names.
func (a *assembly) needEdge(d *tlspolicy.Decision) {
	switch {
	case d.Transport != tlspolicy.TLS:
	case d.Validation == tlspolicy.ByPolicy && d.Trust.Source == tlspolicy.SourceACM:
		a.need(secret{authorities: d.Trust.ARNs})
	case d.Validation == tlspolicy.ByPolicy && a.sources().ownTrust(d.Trust), d.Validation == tlspolicy.ByIssuerRoot && d.IssuerOf.Source == tlspolicy.SourceOwnSDS:
		a.need(secret{own: a.graph.TrustDomain})
	case d.Validation == tlspolicy.ByIssuerRoot:
		a.need(secret{issuer: d.IssuerOf.ARN})
	}
}

// heldSecret is a secret that was built, and what from: PEM that decides it.
type heldSecret struct {
	first, second string
	resource      *Resource
	used          uint64 // generation
}

// addSecrets adds what was found needed. Only that is ever in a Config: a proxy
// gets no other secret, whatever it asks for.
func (a *assembly) addSecrets() error {
	for _, s := range a.secrets {
		var err error
		switch {
		case s.certificate != "":
			err = a.certificateSecret(s)
		case s.issuer != "":
			c := a.graph.Certificates[s.issuer]
			a.origin(mesh.ARNID(c.ARN), c.Revision)
			err = a.trustSecret(s.name(), mesh.ARNID(c.ARN), c.Roots, c.CRLs)
		case s.own != "":
			own := a.graph.Own
			a.origin(mesh.ARNID(own.ARN), own.Revision)
			err = a.trustSecret(s.name(), mesh.ARNID(own.ARN), own.Roots, own.CRLs)
		default:
			err = a.authoritiesSecret(s)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// certificateSecret adds a chain with its key, which the chain stands for: the
// public key is in it.
func (a *assembly) certificateSecret(s secret) error {
	c := a.graph.Certificates[s.certificate]
	a.origin(mesh.ARNID(c.ARN), c.Revision)
	return a.secret(s.name(), mesh.ARNID(c.ARN), c.Chain, "", func() *tlsv3.Secret {
		return &tlsv3.Secret{Type: &tlsv3.Secret_TlsCertificate{
			TlsCertificate: &tlsv3.TlsCertificate{CertificateChain: inline([]byte(c.Chain)), PrivateKey: inline([]byte(c.Key.Reveal()))},
		}}
	})
}

// authoritiesSecret adds the trust in those authorities of a policy that can be
// had.
func (a *assembly) authoritiesSecret(s secret) error {
	var roots, lists strings.Builder
	all := true
	arns := sorted(s.authorities)
	for _, arn := range arns {
		authority := a.graph.Authorities[arn]
		if authority == nil {
			continue
		}
		a.origin(mesh.ARNID(arn), authority.Revision)
		appendPEM(&roots, authority.Roots)
		appendPEM(&lists, authority.CRLs)
		all = all && authority.CRLs != ""
	}
	if !all {
		// An Envoy that has the lists of one authority wants those of each.
		lists.Reset()
	}
	return a.trustSecret(s.name(), mesh.ARNID(arns[0]), roots.String(), lists.String())
}

func (a *assembly) trustSecret(name string, blame mesh.ID, roots, lists string) error {
	return a.secret(name, blame, roots, lists, func() *tlsv3.Secret {
		context := &tlsv3.CertificateValidationContext{TrustedCa: inline([]byte(roots))}
		if lists != "" {
			context.Crl = inline([]byte(lists))
		}
		return &tlsv3.Secret{Type: &tlsv3.Secret_ValidationContext{ValidationContext: context}}
	})
}

// secret adds what make builds, or what it built for the same PEM before: one
// Resource for all proxies that need it. Of a name only the newest content is
// remembered, so that keys which were renewed are forgotten.
func (a *assembly) secret(name string, blame mesh.ID, first, second string, make func() *tlsv3.Secret) error {
	b := a.builder
	h := b.secrets[name]
	if h == nil || h.first != first || h.second != second {
		d := &draft{}
		m := make()
		m.Name = name
		encoded := d.serialise(content{Message: m})
		if d.err != nil {
			return d.err
		}
		h = &heldSecret{first: first, second: second,
			resource: &Resource{Ref: Ref{Secret, name}, Version: version(encoded, blame), Any: encoded, Origin: blame}}
		b.secrets[name] = h
	}
	h.used = b.generation
	a.config.Resources[Secret] = append(a.config.Resources[Secret], h.resource)
	return nil
}

// origin notes what a secret was made from: a proxy may lose it only for a
// reason, as any other resource.
func (a *assembly) origin(id mesh.ID, revision int64) {
	if o := (mesh.Origin{ID: id, Revision: revision}); !slices.Contains(a.config.Origins, o) {
		a.config.Origins = append(a.config.Origins, o)
	}
}

func inline(data []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: data}}
}

// appendPEM keeps one block per line where a text does not end in one.
func appendPEM(b *strings.Builder, text string) {
	b.WriteString(text)
	if text != "" && !strings.HasSuffix(text, "\n") {
		b.WriteByte('\n')
	}
}

func sorted(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return slices.Compact(list)
}
