package ca

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
)

// checkLinks wants each certificate of a chain but the first to be an authority
// that signed the one before it, and the first to be one too.
func checkLinks(chain []*x509.Certificate) error {
	for i, c := range chain {
		if err := checkAuthority(c); err != nil {
			return err
		}
		if i > 0 {
			if err := checkSigned(chain[i-1], c); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkAuthority wants a certificate that may sign others.
func checkAuthority(c *x509.Certificate) error {
	switch {
	case !c.BasicConstraintsValid || !c.IsCA:
		return faultf(InvalidState, "%s is no authority: its BasicConstraints do not say CA:TRUE", c.Subject)
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return faultf(InvalidState, "%s may not sign certificates: its key usage lacks keyCertSign", c.Subject)
	case hasUnhandledConstraints(c):
		return faultf(InvalidState, "%s has name constraints on kinds of names other than DNS, URI, IP and e-mail, which cannot be enforced here", c.Subject)
	}
	return nil
}

func hasUnhandledConstraints(c *x509.Certificate) bool {
	for _, id := range c.UnhandledCriticalExtensions {
		if id.Equal(oidNameConstraints) {
			return true
		}
	}
	return false
}

// checkSigned wants a certificate to be signed by an authority, under its name.
func checkSigned(child, parent *x509.Certificate) error {
	if !bytes.Equal(child.RawIssuer, parent.RawSubject) {
		return faultf(MalformedCertificate, "the issuer of %s is %s, but the next certificate in the chain is that of %s", child.Subject, child.Issuer, parent.Subject)
	}
	if weak(child.SignatureAlgorithm) {
		return faultf(MalformedCertificate, "%s is signed with %s; SHA-256 or stronger is needed", child.Subject, child.SignatureAlgorithm)
	}
	if err := parent.CheckSignature(child.SignatureAlgorithm, child.RawTBSCertificate, child.Signature); err != nil {
		return faultf(MalformedCertificate, "%s is not signed by the key of %s, the next certificate in the chain", child.Subject, parent.Subject)
	}
	return nil
}

// roomBelow is how many authorities may stand below the first of a chain, by
// the path lengths of all; negative if nothing limits them.
func roomBelow(chain []*x509.Certificate) (int, error) {
	room, above := -1, 0
	for i, c := range chain {
		if i > 0 && !selfIssued(chain[i-1]) {
			above++
		}
		if c.MaxPathLen < 0 || c.MaxPathLen == 0 && !c.MaxPathLenZero {
			continue
		}
		left := c.MaxPathLen - above
		if left < 0 {
			return 0, faultf(InvalidState, "the path length %d of %s is too short for the chain below it", c.MaxPathLen, c.Subject)
		}
		if room < 0 || left < room {
			room = left
		}
	}
	return room, nil
}

func selfIssued(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, c.RawIssuer) }

// selfSigned says whether a certificate is signed by its own key.
func selfSigned(c *x509.Certificate) bool {
	return selfIssued(c) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

// parseCertificates reads PEM certificates and nothing else, at most so many.
// What names the text in errors.
func parseCertificates(kind Kind, what string, text []byte, most int) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for rest := bytes.TrimSpace(text); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		var block *pem.Block
		if !bytes.HasPrefix(rest, []byte("-----BEGIN ")) {
			return nil, faultf(kind, "%s is not PEM: there is something else before or between the certificates, or it is DER", what)
		}
		before := rest
		block, rest = pem.Decode(rest)
		// The decoder skips a block that it cannot read.
		skipped := bytes.Count(before[:len(before)-len(rest)], []byte("-----BEGIN ")) > 1
		switch {
		case block == nil || skipped:
			return nil, faultf(kind, "%s is not valid PEM after certificate %d", what, len(all))
		case block.Type != "CERTIFICATE":
			return nil, faultf(kind, "%s has a PEM block %.40q; only CERTIFICATE belongs there", what, block.Type)
		case len(all) == most:
			return nil, faultf(kind, "%s has more than %d certificates", what, most)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, faultf(kind, "certificate %d of %s cannot be read: %v", len(all)+1, what, err)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, faultf(kind, "%s is empty", what)
	}
	return all, nil
}
