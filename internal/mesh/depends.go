package mesh

import "github.com/fairlead/fairlead/internal/tlspolicy"

// Trusting are the endpoints that validate somebody by a root CA: because their
// policies name it, or because a server's certificate chains to it.
func (g *Graph) Trusting(root string) map[ID]bool {
	found := map[ID]bool{}
	for id, e := range g.Endpoints {
		for _, edge := range e.Edges {
			if d := &edge.Decision; d.Transport == tlspolicy.TLS && g.validatesBy(d, root) {
				found[id] = true
				break
			}
		}
	}
	return found
}

func (g *Graph) validatesBy(d *tlspolicy.Decision, root string) bool {
	switch d.Validation {
	case tlspolicy.ByPolicy:
		for _, arn := range d.Trust.ARNs {
			if arn == root {
				return true
			}
		}
	case tlspolicy.ByIssuerRoot:
		c := g.Certificates[d.IssuerOf.ARN]
		return c != nil && c.Root == root
	}
	return false
}

// Serving are the endpoints that present a certificate which chains to a root CA.
func (g *Graph) Serving(root string) map[ID]bool {
	found := map[ID]bool{}
	for id, e := range g.Endpoints {
		for _, l := range e.Listeners {
			if l.TLS.Certificate == nil || l.TLS.Certificate.Source != tlspolicy.SourceACM {
				continue
			}
			if c := g.Certificates[l.TLS.Certificate.ARN]; c != nil && c.Root == root {
				found[id] = true
			}
		}
	}
	return found
}
