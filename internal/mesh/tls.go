package mesh

import (
	"slices"
	"strconv"
	"strings"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/tlspolicy"
)

// listenerTLS reads the TLS of the listener with index i.
func (b *builder) listenerTLS(id ID, i int, tls *appmesh.ListenerTls) tlspolicy.Listener {
	field := index("spec.listeners", i) + ".tls"
	l := readListener(id.String()+" "+field, tls, b.trustDomain)
	if l.Mode != tlspolicy.ModeNone && l.Mode != tlspolicy.ModeDisabled {
		b.certificate(id, field, l.Certificate)
		b.own(id, field, l.Certificate, nil)
		if l.Validation != nil {
			b.own(id, field, nil, &l.Validation.Trust)
		}
	}
	return l
}

func readListener(field string, tls *appmesh.ListenerTls, trustDomain string) tlspolicy.Listener {
	l := tlspolicy.Listener{Mode: tlspolicy.ModeNone, Field: field}
	if tls == nil {
		return l
	}
	l.Mode = tlspolicy.Mode(tls.Mode)
	if c := tls.Certificate; c != nil {
		switch {
		case c.ACM != nil:
			l.Certificate = &tlspolicy.Certificate{Source: tlspolicy.SourceACM, ARN: c.ACM.CertificateArn}
		case c.File != nil:
			l.Certificate = fileCertificate(c.File)
		case c.SDS != nil:
			l.Certificate = sdsCertificate(c.SDS, trustDomain)
		}
	}
	if v := tls.Validation; v != nil {
		l.Validation = &tlspolicy.ListenerValidation{SANs: exactSANs(v.SubjectAlternativeNames)}
		if t := v.Trust; t != nil {
			l.Validation.Trust = trust(nil, t.File, t.SDS, trustDomain)
		}
	}
	return l
}

// policy reads a client policy; one without tls is none.
func (b *builder) policy(id ID, field string, tls *appmesh.ClientPolicyTls) *tlspolicy.Policy {
	if tls == nil {
		return nil
	}
	p := &tlspolicy.Policy{
		Enforce: tls.Enforce == nil || *tls.Enforce,
		Ports:   tls.Ports,
		Field:   id.String() + " " + field,
	}
	if c := tls.Certificate; c != nil {
		switch {
		case c.File != nil:
			p.Certificate = fileCertificate(c.File)
		case c.SDS != nil:
			p.Certificate = sdsCertificate(c.SDS, b.trustDomain)
		}
	}
	if v := tls.Validation; v != nil {
		p.SANs = exactSANs(v.SubjectAlternativeNames)
		if t := v.Trust; t != nil {
			p.Trust = trust(t.ACM, t.File, t.SDS, b.trustDomain)
			b.authorities(id, field, &p.Trust)
		}
	}
	b.own(id, field, p.Certificate, &p.Trust)
	return p
}

func trust(acm *appmesh.TlsValidationContextAcmTrust, file *appmesh.TlsValidationContextFileTrust,
	sds *appmesh.TlsValidationContextSdsTrust, trustDomain string) tlspolicy.Trust {
	switch {
	case acm != nil:
		return tlspolicy.Trust{Source: tlspolicy.SourceACM, ARNs: acm.CertificateAuthorityArns}
	case file != nil:
		return tlspolicy.Trust{Source: tlspolicy.SourceFile, Chain: file.CertificateChain}
	case sds != nil:
		return tlspolicy.Trust{Source: sdsSource(sds.SecretName, trustDomain), Secret: sds.SecretName}
	}
	return tlspolicy.Trust{}
}

func fileCertificate(c *appmesh.ListenerTlsFileCertificate) *tlspolicy.Certificate {
	return &tlspolicy.Certificate{Source: tlspolicy.SourceFile, Chain: c.CertificateChain, Key: c.PrivateKey}
}

func sdsCertificate(c *appmesh.ListenerTlsSdsCertificate, trustDomain string) *tlspolicy.Certificate {
	return &tlspolicy.Certificate{Source: sdsSource(c.SecretName, trustDomain), Secret: c.SecretName}
}

// sdsSource tells Fairlead's own secrets, which lie in the mesh's trust domain,
// from another provider's.
func sdsSource(secret, trustDomain string) tlspolicy.Source {
	rest, ok := strings.CutPrefix(secret, "spiffe://"+trustDomain)
	if ok && (rest == "" || rest[0] == '/') {
		return tlspolicy.SourceOwnSDS
	}
	return tlspolicy.SourceSDS
}

func exactSANs(s *appmesh.SubjectAlternativeNames) []string {
	if s == nil || s.Match == nil {
		return nil
	}
	return s.Match.Exact
}

// gatewayTLS and gatewayPolicy put a gateway's shapes, which differ from a
// node's by name only, into the node's.
func gatewayTLS(tls *appmesh.VirtualGatewayListenerTls) *appmesh.ListenerTls {
	if tls == nil {
		return nil
	}
	out := &appmesh.ListenerTls{Mode: appmesh.ListenerTlsMode(tls.Mode)}
	if c := tls.Certificate; c != nil {
		out.Certificate = &appmesh.ListenerTlsCertificate{
			ACM:  (*appmesh.ListenerTlsAcmCertificate)(c.ACM),
			File: (*appmesh.ListenerTlsFileCertificate)(c.File),
			SDS:  (*appmesh.ListenerTlsSdsCertificate)(c.SDS),
		}
	}
	if v := tls.Validation; v != nil {
		out.Validation = &appmesh.ListenerTlsValidationContext{SubjectAlternativeNames: v.SubjectAlternativeNames}
		if t := v.Trust; t != nil {
			out.Validation.Trust = &appmesh.ListenerTlsValidationContextTrust{
				File: (*appmesh.TlsValidationContextFileTrust)(t.File),
				SDS:  (*appmesh.TlsValidationContextSdsTrust)(t.SDS),
			}
		}
	}
	return out
}

func gatewayPolicy(tls *appmesh.VirtualGatewayClientPolicyTls) *appmesh.ClientPolicyTls {
	if tls == nil {
		return nil
	}
	out := &appmesh.ClientPolicyTls{Enforce: tls.Enforce, Ports: tls.Ports}
	if c := tls.Certificate; c != nil {
		out.Certificate = &appmesh.ClientTlsCertificate{
			File: (*appmesh.ListenerTlsFileCertificate)(c.File),
			SDS:  (*appmesh.ListenerTlsSdsCertificate)(c.SDS),
		}
	}
	if v := tls.Validation; v != nil {
		out.Validation = &appmesh.TlsValidationContext{SubjectAlternativeNames: v.SubjectAlternativeNames}
		if t := v.Trust; t != nil {
			out.Validation.Trust = &appmesh.TlsValidationContextTrust{
				ACM:  (*appmesh.TlsValidationContextAcmTrust)(t.ACM),
				File: (*appmesh.TlsValidationContextFileTrust)(t.File),
				SDS:  (*appmesh.TlsValidationContextSdsTrust)(t.SDS),
			}
		}
	}
	return out
}

// samePolicy says whether two policies mean the same, wherever they stand.
func samePolicy(a, b *tlspolicy.Policy) bool {
	switch {
	case a == b:
		return true
	case a == nil || b == nil:
		return false
	}
	return a.Enforce == b.Enforce &&
		slices.Equal(a.Ports, b.Ports) &&
		slices.Equal(a.SANs, b.SANs) &&
		a.Trust.Source == b.Trust.Source && slices.Equal(a.Trust.ARNs, b.Trust.ARNs) &&
		a.Trust.Chain == b.Trust.Chain && a.Trust.Secret == b.Trust.Secret &&
		(a.Certificate == b.Certificate ||
			a.Certificate != nil && b.Certificate != nil && *a.Certificate == *b.Certificate)
}

func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

func index(field string, i int) string { return field + "[" + strconv.Itoa(i) + "]" }

func decimal(n int64) string { return strconv.FormatInt(n, 10) }
