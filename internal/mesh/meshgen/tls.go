package meshgen

import (
	"fmt"
	"maps"
	"math/rand/v2"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
)

// source is where a certificate or a trust bundle comes from.
type source int

const (
	nowhere source = iota
	file
	ownSDS
	otherSDS
	acm
)

// source chooses among what the config allows; most are files.
func (g *generator) source(withACM bool) source {
	var from []source
	if len(g.config.Files) > 0 {
		from = append(from, file, file, file, file)
	}
	if g.config.SDS {
		from = append(from, ownSDS, otherSDS)
	}
	if g.config.ACM && withACM {
		from = append(from, acm)
	}
	if len(from) == 0 {
		return nowhere
	}
	return pick(g, from...)
}

func certificateSecret(s source) string {
	if s == ownSDS {
		return "spiffe://" + Mesh.Mesh + ".fairlead/node"
	}
	return "spiffe://elsewhere.example/node"
}

func trustSecret(s source) string {
	if s == ownSDS {
		return "spiffe://" + Mesh.Mesh + ".fairlead"
	}
	return "spiffe://elsewhere.example"
}

// arns is how many certificates there are, and how many authorities.
const arns = 3

func certificateARN(i int) string {
	return fmt.Sprintf("arn:aws:acm:us-east-1:000000000000:certificate/11111111-1111-4111-8111-%012d", i)
}

func authorityARN(i int) string {
	return fmt.Sprintf("arn:aws:acm-pca:us-east-1:000000000000:certificate-authority/22222222-2222-4222-8222-%012d", i)
}

// held makes the certificates and authorities. What stands for PEM in them is none.
func (g *generator) held() {
	g.view.Own = &mesh.Authority{ARN: "arn:aws:acm-pca:us-east-1:" + Mesh.Owner + ":certificate-authority/33333333-3333-4333-8333-000000000000", Revision: 1, Roots: "own"}
	g.view.Certificates, g.view.Authorities = map[string]*mesh.Certificate{}, map[string]*mesh.Authority{}
	if !g.config.ACM {
		return
	}
	for i := range arns {
		renew(g.Rand, g.view, i)
		a := &mesh.Authority{ARN: authorityARN(i), Revision: g.view.Revision, Roots: fmt.Sprintf("root %d\n", i)}
		if g.maybe(2) {
			a.CRLs = fmt.Sprintf("lists of %d\n", i)
		}
		g.view.Authorities[a.ARN] = a
	}
}

// listenerTLS is a listener's TLS, nil in a third of all.
func (g *generator) listenerTLS() *appmesh.ListenerTls {
	s := g.source(true)
	if s == nowhere || g.maybe(3) {
		return nil
	}
	tls := &appmesh.ListenerTls{
		Mode:        pick(g, appmesh.ListenerTlsModeStrict, appmesh.ListenerTlsModeStrict, appmesh.ListenerTlsModePermissive, appmesh.ListenerTlsModeDisabled),
		Certificate: &appmesh.ListenerTlsCertificate{},
	}
	switch s {
	case acm:
		tls.Certificate.ACM = &appmesh.ListenerTlsAcmCertificate{CertificateArn: certificateARN(g.IntN(arns))}
	case file:
		files := pick(g, g.config.Files...)
		tls.Certificate.File = &appmesh.ListenerTlsFileCertificate{CertificateChain: files.Chain, PrivateKey: files.Key}
	default:
		tls.Certificate.SDS = &appmesh.ListenerTlsSdsCertificate{SecretName: certificateSecret(s)}
	}
	if g.maybe(3) {
		tls.Validation = &appmesh.ListenerTlsValidationContext{Trust: &appmesh.ListenerTlsValidationContextTrust{}}
		switch s := g.source(false); s {
		case nowhere:
			tls.Validation = nil
		case file:
			tls.Validation.Trust.File = &appmesh.TlsValidationContextFileTrust{CertificateChain: pick(g, g.config.Files...).Trust}
			tls.Validation.SubjectAlternativeNames = g.sans(false)
		default:
			tls.Validation.Trust.SDS = &appmesh.TlsValidationContextSdsTrust{SecretName: trustSecret(s)}
			tls.Validation.SubjectAlternativeNames = g.sans(false)
		}
	}
	return tls
}

// clientPolicy is a client policy's TLS; nil where the config allows no trust.
func (g *generator) clientPolicy() *appmesh.ClientPolicyTls {
	s := g.source(true)
	if s == nowhere {
		return nil
	}
	policy := &appmesh.ClientPolicyTls{Validation: &appmesh.TlsValidationContext{Trust: &appmesh.TlsValidationContextTrust{}}}
	if g.maybe(3) {
		policy.Enforce = new(g.maybe(2))
	}
	if g.maybe(4) {
		policy.Ports = some(g, 3, int64(80), 443, 8080, 9090)
	}
	switch trust := policy.Validation.Trust; s {
	case acm:
		trust.ACM = &appmesh.TlsValidationContextAcmTrust{CertificateAuthorityArns: some(g, arns, authorityARN(0), authorityARN(1), authorityARN(2))}
	case file:
		trust.File = &appmesh.TlsValidationContextFileTrust{CertificateChain: pick(g, g.config.Files...).Trust}
	default:
		trust.SDS = &appmesh.TlsValidationContextSdsTrust{SecretName: trustSecret(s)}
	}
	policy.Validation.SubjectAlternativeNames = g.sans(policy.Enforce != nil && !*policy.Enforce)
	if g.maybe(2) {
		policy.Certificate = g.clientCertificate()
	}
	return policy
}

func (g *generator) clientCertificate() *appmesh.ClientTlsCertificate {
	switch s := g.source(false); s {
	case nowhere:
		return nil
	case file:
		files := pick(g, g.config.Files...)
		return &appmesh.ClientTlsCertificate{File: &appmesh.ListenerTlsFileCertificate{CertificateChain: files.Chain, PrivateKey: files.Key}}
	default:
		return &appmesh.ClientTlsCertificate{SDS: &appmesh.ListenerTlsSdsCertificate{SecretName: certificateSecret(s)}}
	}
}

// sans is a list of names, nil in half of all. Wildcards stand only where TLS
// is not enforced.
func (g *generator) sans(wildcards bool) *appmesh.SubjectAlternativeNames {
	if g.maybe(2) {
		return nil
	}
	names := []string{"node-0." + Mesh.Mesh + ".local", "node-1." + Mesh.Mesh + ".local", "a-b_c.d.example", "spiffe://" + Mesh.Mesh + ".fairlead/node"}
	if wildcards {
		names = append(names, "*."+Mesh.Mesh+".local")
	}
	return &appmesh.SubjectAlternativeNames{Match: &appmesh.SubjectAlternativeNameMatchers{Exact: some(g, 3, names...)}}
}

// Renew makes one certificate of a view anew, in a copy of the view: the same
// records, the next revision.
func Renew(rng *rand.Rand, view *mesh.View) *mesh.View {
	next := *view
	next.Certificates = maps.Clone(view.Certificates)
	renew(rng, &next, rng.IntN(arns))
	return &next
}

func renew(rng *rand.Rand, view *mesh.View, i int) {
	view.Revision++
	serial := fmt.Sprintf("%016x", rng.Uint64())
	view.Certificates[certificateARN(i)] = &mesh.Certificate{
		ARN: certificateARN(i), Revision: view.Revision, Serial: serial,
		Chain: "chain " + serial + "\n", Key: api.NewSecret("key of " + serial + "\n"),
		Roots: fmt.Sprintf("root %d\n", i), Root: authorityARN(i),
		Names: []string{"*." + Mesh.Mesh + ".local"},
	}
}
