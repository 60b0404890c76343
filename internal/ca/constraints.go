package ca

import (
	"crypto/x509"
	"net"
	"net/url"
	"slices"
	"strings"
)

// checkConstraints holds the names of a certificate against the name
// constraints of every authority above it (RFC 5280 4.2.1.10). Where verifiers
// differ, a permitted name must be permitted by the narrower reading and an
// excluded one is excluded by the wider: none of them refuses what is issued.
func checkConstraints(c *x509.Certificate, chain []*x509.Certificate) error {
	for _, authority := range chain {
		subtrees := constraintsOf(authority)
		if subtrees == 0 {
			continue
		}
		names := namesIn(c)
		if len(names)*subtrees > maxComparisons {
			return faultf(NameConstraints, "%d names and %d name constraints of %s are too many to compare", len(names), subtrees, authority.Subject)
		}
		for _, name := range names {
			permitted, excluded := name.subtrees(authority)
			for _, subtree := range excluded {
				if name.overlaps(subtree) {
					return faultf(NameConstraints, "the %s name %q is excluded by the name constraint %q of %s", name.kind, name.text, subtree, authority.Subject)
				}
			}
			if len(permitted) > 0 && !anyOf(permitted, name.within) {
				return faultf(NameConstraints, "the %s name %q is not permitted by the name constraints %q of %s", name.kind, name.text, permitted, authority.Subject)
			}
		}
	}
	return nil
}

func anyOf(subtrees []string, within func(string) bool) bool {
	for _, s := range subtrees {
		if within(s) {
			return true
		}
	}
	return false
}

// maxComparisons bounds the work that a chain from outside can ask for.
const maxComparisons = 250_000

func constraintsOf(c *x509.Certificate) int {
	return len(c.PermittedDNSDomains) + len(c.ExcludedDNSDomains) + len(c.PermittedIPRanges) + len(c.ExcludedIPRanges) +
		len(c.PermittedEmailAddresses) + len(c.ExcludedEmailAddresses) + len(c.PermittedURIDomains) + len(c.ExcludedURIDomains)
}

// constrained is a name that constraints apply to.
type constrained struct {
	kind string // DNS, URI, IP, e-mail
	text string
	host string // of a URI or e-mail address; a DNS name itself
	ip   net.IP
}

func namesIn(c *x509.Certificate) []constrained {
	var all []constrained
	for _, name := range c.DNSNames {
		all = append(all, constrained{kind: "DNS", text: name, host: strings.ToLower(name)})
	}
	for _, uri := range c.URIs {
		all = append(all, constrained{kind: "URI", text: uri.String(), host: hostOf(uri)})
	}
	addresses := slices.Clone(c.EmailAddresses)
	for _, a := range c.Subject.Names { // the old place for an address, constrained too
		if address, ok := a.Value.(string); ok && a.Type.Equal(oidEmailAddress) {
			addresses = append(addresses, address)
		}
	}
	for _, address := range addresses {
		_, host, _ := strings.Cut(address, "@")
		all = append(all, constrained{kind: "e-mail", text: address, host: strings.ToLower(host)})
	}
	for _, ip := range c.IPAddresses {
		all = append(all, constrained{kind: "IP", text: ip.String(), ip: ip})
	}
	// Some verifiers take the common name for a host if there is no DNS name.
	if name := c.Subject.CommonName; len(c.DNSNames) == 0 && CheckDNSName(name) == nil && strings.Contains(name, ".") {
		all = append(all, constrained{kind: "DNS", text: name, host: strings.ToLower(name)})
	}
	return all
}

// hostOf is empty for a URI that names no host or an address: no constraint
// permits such a one.
func hostOf(uri *url.URL) string {
	host := strings.ToLower(uri.Hostname())
	if net.ParseIP(host) != nil {
		return ""
	}
	return host
}

// subtrees are the constraints of an authority on names of this kind, as text.
func (n constrained) subtrees(a *x509.Certificate) (permitted, excluded []string) {
	switch n.kind {
	case "DNS":
		return a.PermittedDNSDomains, a.ExcludedDNSDomains
	case "URI":
		return a.PermittedURIDomains, a.ExcludedURIDomains
	case "e-mail":
		return a.PermittedEmailAddresses, a.ExcludedEmailAddresses
	}
	return networks(a.PermittedIPRanges), networks(a.ExcludedIPRanges)
}

func networks(ranges []*net.IPNet) []string {
	var all []string
	for _, r := range ranges {
		all = append(all, r.String())
	}
	return all
}

// within says whether every reading of a subtree has the name in it.
func (n constrained) within(subtree string) bool {
	subtree = strings.ToLower(subtree)
	switch n.kind {
	case "IP":
		return n.inNetwork(subtree)
	case "DNS":
		return below(n.host, strings.TrimPrefix(subtree, "."), !strings.HasPrefix(subtree, "."))
	case "e-mail":
		if strings.Contains(subtree, "@") {
			return strings.ToLower(n.text) == subtree
		}
	}
	if n.host == "" {
		return false
	}
	// A URI's or an address's host: itself, or with a dot what lies below.
	if domain, ok := strings.CutPrefix(subtree, "."); ok {
		return below(n.host, domain, false)
	}
	return n.host == subtree
}

// overlaps says whether some reading of a subtree has the name, or one that a
// wildcard stands for, in it.
func (n constrained) overlaps(subtree string) bool {
	subtree = strings.ToLower(subtree)
	if n.kind == "IP" {
		return n.inNetwork(subtree)
	}
	if n.kind == "e-mail" && strings.Contains(subtree, "@") {
		return strings.ToLower(n.text) == subtree
	}
	if n.host == "" {
		return true // it cannot be told
	}
	domain := strings.TrimPrefix(subtree, ".")
	base, wildcard := strings.CutPrefix(n.host, "*.")
	return below(n.host, domain, true) || wildcard && (below(domain, base, true) || below(base, domain, true))
}

// below says whether a name lies in a domain; itself says whether the domain's
// own name does.
func below(name, domain string, itself bool) bool {
	name, domain = strings.TrimSuffix(name, "."), strings.TrimSuffix(domain, ".")
	return domain == "" || itself && name == domain || strings.HasSuffix(name, "."+domain)
}

func (n constrained) inNetwork(text string) bool {
	_, network, err := net.ParseCIDR(text)
	return err == nil && network.Contains(n.ip)
}
