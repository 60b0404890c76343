package pki

import (
	"crypto/x509"

	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/ca"
)

// text is a member that may be absent.
func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func set(b *bool) bool { return b != nil && *b }

func subjectOf(s *acmpca.ASN1Subject) *ca.Subject {
	if s == nil {
		return nil
	}
	out := &ca.Subject{
		Country: text(s.Country), Organization: text(s.Organization), OrganizationalUnit: text(s.OrganizationalUnit),
		DistinguishedNameQualifier: text(s.DistinguishedNameQualifier), State: text(s.State), CommonName: text(s.CommonName),
		SerialNumber: text(s.SerialNumber), Locality: text(s.Locality), Title: text(s.Title), Surname: text(s.Surname),
		GivenName: text(s.GivenName), Initials: text(s.Initials), Pseudonym: text(s.Pseudonym), GenerationQualifier: text(s.GenerationQualifier),
	}
	for _, c := range s.CustomAttributes {
		out.Custom = append(out.Custom, ca.Attribute{OID: c.ObjectIdentifier, Value: c.Value})
	}
	return out
}

func keyUsageOf(u *acmpca.KeyUsage) x509.KeyUsage {
	if u == nil {
		return 0
	}
	var out x509.KeyUsage
	for _, k := range []struct {
		asked *bool
		usage x509.KeyUsage
	}{
		{u.DigitalSignature, x509.KeyUsageDigitalSignature},
		{u.NonRepudiation, x509.KeyUsageContentCommitment},
		{u.KeyEncipherment, x509.KeyUsageKeyEncipherment},
		{u.DataEncipherment, x509.KeyUsageDataEncipherment},
		{u.KeyAgreement, x509.KeyUsageKeyAgreement},
		{u.KeyCertSign, x509.KeyUsageCertSign},
		{u.CRLSign, x509.KeyUsageCRLSign},
		{u.EncipherOnly, x509.KeyUsageEncipherOnly},
		{u.DecipherOnly, x509.KeyUsageDecipherOnly},
	} {
		if set(k.asked) {
			out |= k.usage
		}
	}
	return out
}

func csrExtensionsOf(e *acmpca.CsrExtensions) ca.CSRExtensions {
	if e == nil {
		return ca.CSRExtensions{}
	}
	out := ca.CSRExtensions{KeyUsage: keyUsageOf(e.KeyUsage)}
	for _, d := range e.SubjectInformationAccess {
		var a ca.AccessDescription
		if m := d.AccessMethod; m != nil {
			a.OID = text(m.CustomObjectIdentifier)
			if m.AccessMethodType != nil {
				a.Method = string(*m.AccessMethodType)
			}
		}
		if d.AccessLocation != nil {
			a.Location = generalNameOf(*d.AccessLocation)
		}
		out.SIA = append(out.SIA, a)
	}
	return out
}

func generalNameOf(n acmpca.GeneralName) ca.GeneralName {
	out := ca.GeneralName{
		Email: text(n.Rfc822Name), DNS: text(n.DnsName), DirectoryName: subjectOf(n.DirectoryName),
		URI: text(n.UniformResourceIdentifier), IP: text(n.IpAddress), RegisteredID: text(n.RegisteredId),
	}
	if n.OtherName != nil {
		out.OtherName = &ca.OtherName{TypeID: n.OtherName.TypeId, Value: text(n.OtherName.Value)}
	}
	if n.EdiPartyName != nil {
		out.EDIParty = &ca.EDIPartyName{NameAssigner: text(n.EdiPartyName.NameAssigner), PartyName: text(n.EdiPartyName.PartyName)}
	}
	return out
}

func passthroughOf(a *acmpca.ApiPassthrough) *ca.Passthrough {
	if a == nil {
		return nil
	}
	out := &ca.Passthrough{Subject: subjectOf(a.Subject)}
	e := a.Extensions
	if e == nil {
		return out
	}
	x := &ca.Extensions{KeyUsage: keyUsageOf(e.KeyUsage)}
	for _, p := range e.CertificatePolicies {
		policy := ca.Policy{OID: p.CertPolicyId}
		for _, q := range p.PolicyQualifiers {
			if q.Qualifier != nil {
				policy.CPSURIs = append(policy.CPSURIs, text(q.Qualifier.CpsUri))
			}
		}
		x.Policies = append(x.Policies, policy)
	}
	for _, u := range e.ExtendedKeyUsage {
		usage := ca.ExtendedKeyUsage{OID: text(u.ExtendedKeyUsageObjectIdentifier)}
		if u.ExtendedKeyUsageType != nil {
			usage.Type = string(*u.ExtendedKeyUsageType)
		}
		x.EKU = append(x.EKU, usage)
	}
	for _, n := range e.SubjectAlternativeNames {
		x.SANs = append(x.SANs, generalNameOf(n))
	}
	for _, c := range e.CustomExtensions {
		x.Custom = append(x.Custom, ca.CustomExtension{OID: c.ObjectIdentifier, Critical: set(c.Critical), Value: c.Value})
	}
	out.Extensions = x
	return out
}

func validityOf(v acmpca.Validity) ca.Validity {
	return ca.Validity{Type: ca.ValidityType(v.Type), Value: v.Value}
}
