package mesh

import (
	"encoding/pem"
	"maps"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/internal/tlspolicy"
)

// holdings are the certificates and authorities that the specs of a mesh name;
// nil: it cannot be had.
type holdings struct {
	known        bool // the view has such things at all
	certificates map[string]*Certificate
	authorities  map[string]*Authority
}

func hold(v *View) holdings {
	return holdings{
		known:        v.Certificates != nil || v.Authorities != nil,
		certificates: map[string]*Certificate{},
		authorities:  map[string]*Authority{},
	}
}

// certificate resolves a certificate of ACM. One without a root is none: clients
// without a policy could not validate it.
func (b *builder) certificate(id ID, field string, c *tlspolicy.Certificate) {
	if c == nil || c.Source != tlspolicy.SourceACM {
		return
	}
	found := b.view.Certificates[c.ARN]
	if found != nil && (found.Chain == "" || found.Roots == "") {
		found = nil
	}
	b.held.certificates[c.ARN] = found
	if found == nil && b.held.known {
		c.Missing = true
		b.problem(id, field+".certificate.acm.certificateArn", "the certificate "+c.ARN+" cannot be had: the listener refuses TLS until it can")
	}
}

// authorities resolves the authorities of a trust. One that cannot be had is not
// trusted.
func (b *builder) authorities(id ID, field string, t *tlspolicy.Trust) {
	if t.Source != tlspolicy.SourceACM {
		return
	}
	listed, unlisted := false, ""
	for i, arn := range t.ARNs {
		found := b.view.Authorities[arn]
		if found != nil && found.Roots == "" {
			found = nil
		}
		b.held.authorities[arn] = found
		if found == nil && b.held.known {
			t.Missing = append(t.Missing, arn)
			b.problem(id, index(field+".validation.trust.acm.certificateAuthorityArns", i), "the authority "+arn+" cannot be had: it is not trusted until it can")
		}
		switch {
		case found == nil:
		case found.CRLs == "":
			unlisted = arn
		default:
			listed = true
		}
	}
	if listed && unlisted != "" {
		b.problem(id, field+".validation.trust.acm", "the authority "+unlisted+" comes without complete lists of revoked certificates, and Envoy takes such lists of all or of none: certificates that the others have revoked are accepted on these edges")
	}
}

// facts are what is known of the certificate that a server presents to a client.
func (b *builder) facts(c *tlspolicy.Certificate, p *tlspolicy.Policy) tlspolicy.Facts {
	if c == nil || c.Source != tlspolicy.SourceACM {
		return tlspolicy.Facts{}
	}
	held := b.held.certificates[c.ARN]
	if held == nil {
		return tlspolicy.Facts{}
	}
	return tlspolicy.Facts{Root: b.rootSeenBy(held, p), SANs: held.Names}
}

// foreignRoot stands for a root that is no authority of this server.
const foreignRoot = "a root that is no authority here"

// rootSeenBy names a certificate's root as a policy knows it: two ARNs may stand
// for one root, as those that were taken over from AWS do.
func (b *builder) rootSeenBy(c *Certificate, p *tlspolicy.Policy) string {
	root := c.Root
	if root == "" {
		root = foreignRoot
	}
	if p == nil || p.Trust.Source != tlspolicy.SourceACM || slices.Contains(p.Trust.ARNs, root) {
		return root
	}
	for _, arn := range p.Trust.ARNs {
		if a := b.held.authorities[arn]; a != nil && shareRoot(a.Roots, c.Roots) {
			return arn
		}
	}
	return root
}

// shareRoot says whether two lists of certificates in PEM have one in common.
func shareRoot(x, y string) bool {
	mine := decodeRoots(x)
	return slices.ContainsFunc(decodeRoots(y), func(root string) bool { return slices.Contains(mine, root) })
}

func decodeRoots(text string) (roots []string) {
	rest := []byte(text)
	for {
		block, more := pem.Decode(rest)
		if block == nil {
			return roots
		}
		roots, rest = append(roots, string(block.Bytes)), more
	}
}

// Rebuild makes the Graph of a view, as Build does. last is the Graph of an
// earlier view of the mesh, or nil: after a renewal most of it is taken over.
func Rebuild(last *Graph, view *View) *Graph {
	if last != nil {
		if g, ok := last.Renewed(view); ok {
			return g
		}
	}
	return Build(view)
}

// Renewed is the Graph of a view that differs from g's in nothing but what
// certificates and authorities contain, as after a renewal: it shares all the
// rest with g, the Endpoints above all. False: there is another difference, and
// Build makes the Graph. What Renewed returns is what Build would.
func (g *Graph) Renewed(view *View) (*Graph, bool) {
	last := g.view
	if last == nil || view.TrustDomain != last.TrustDomain || view.Mesh != last.Mesh ||
		(view.Certificates == nil && view.Authorities == nil) != (last.Certificates == nil && last.Authorities == nil) ||
		!maps.Equal(view.VirtualNodes, last.VirtualNodes) || !maps.Equal(view.VirtualServices, last.VirtualServices) ||
		!maps.Equal(view.VirtualRouters, last.VirtualRouters) || !maps.Equal(view.VirtualGateways, last.VirtualGateways) ||
		!maps.Equal(view.Routes, last.Routes) || !maps.Equal(view.GatewayRoutes, last.GatewayRoutes) {
		return nil, false
	}
	next := *g
	next.Revision, next.view = view.Revision, view
	next.Certificates, next.Authorities = make(map[string]*Certificate, len(g.Certificates)), make(map[string]*Authority, len(g.Authorities))
	for arn, was := range g.Certificates {
		is := view.Certificates[arn]
		if is != was && !sameFacts(was, is) {
			return nil, false
		}
		next.Certificates[arn] = is
	}
	if is, was := view.Own, g.Own; is != was {
		if was == nil || is == nil || was.Roots != is.Roots {
			return nil, false
		}
		next.Own = is
	}
	for arn, was := range g.Authorities {
		is := view.Authorities[arn]
		// Which roots a certificate shares with an authority is compared anew.
		if is != was && (was == nil || is == nil || was.Roots != is.Roots || (was.CRLs == "") != (is.CRLs == "")) {
			return nil, false
		}
		next.Authorities[arn] = is
	}
	return &next, true
}

// sameFacts says whether two certificates look the same to whatever is decided
// before a handshake.
func sameFacts(was, is *Certificate) bool {
	return was != nil && is != nil && is.Chain != "" && was.Root == is.Root && was.Roots == is.Roots && slices.Equal(was.Names, is.Names)
}

// IsARN says whether an ID is that of a certificate or an authority, whose name
// is an ARN.
func (id ID) IsARN() bool { return id.Kind == KindCertificate || id.Kind == KindAuthority }

// ARNID is the ID of a certificate or an authority.
func ARNID(arn string) ID {
	if strings.Contains(arn, ":acm-pca:") {
		return ID{Kind: KindAuthority, Name: arn}
	}
	return ID{Kind: KindCertificate, Name: arn}
}
