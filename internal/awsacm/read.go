package awsacm

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/store"
)

const (
	maxPEM  = 256 << 10 // of a chain
	maxLong = 10        // certificates in a chain
)

// errNoRoot says that a chain ends before its root.
var errNoRoot = errors.New("the chain that AWS gives does not end in a root")

// exported is what ACM has given out.
type exported struct {
	certificate, chain string // PEM
	key                crypto.PublicKey
}

// read wants the key to be the certificate's and the chain to lead from it to a
// root, and returns what is served of it.
func (e exported) read() (*store.Certificate, error) {
	leaves, err := parsePEM(e.certificate)
	if err != nil {
		return nil, fmt.Errorf("read the certificate that AWS gives: %w", err)
	}
	if len(leaves) != 1 {
		return nil, fmt.Errorf("AWS gives %d certificates for one", len(leaves))
	}
	leaf := leaves[0]
	if key, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !key.Equal(e.key) {
		return nil, errors.New("the key that AWS gives is not the certificate's")
	}
	chain, err := parsePEM(e.chain)
	if err != nil {
		return nil, fmt.Errorf("read the chain that AWS gives: %w", err)
	}
	below := leaf
	for _, above := range chain {
		if err := below.CheckSignatureFrom(above); err != nil {
			return nil, fmt.Errorf("in the chain that AWS gives, %s has not signed what stands below it: %w", ca.DescribeName(above.RawSubject), err)
		}
		below = above
	}
	if len(chain) == 0 || !isRoot(below) {
		return nil, errNoRoot
	}
	s := &store.Certificate{
		Serial: strings.ReplaceAll(ca.DescribeSerial(leaf.SerialNumber), ":", ""), Names: leaf.DNSNames,
		NotBefore: leaf.NotBefore.UTC(), NotAfter: leaf.NotAfter.UTC(),
		Chain: string(ca.EncodePEM(leaf.Raw)), Roots: string(ca.EncodePEM(below.Raw)),
		NoCRLs: "its authority is AWS's, which proxies get no CRLs of",
	}
	for _, uri := range leaf.URIs {
		s.Names = append(s.Names, uri.String())
	}
	for _, above := range chain[:len(chain)-1] {
		s.Chain += string(ca.EncodePEM(above.Raw))
	}
	return s, nil
}

// readRoot reads a root authority's certificate, PEM: itself and its end.
func readRoot(text string) (root string, notAfter time.Time, err error) {
	all, err := parsePEM(text)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("read the authority's certificate that AWS gives: %w", err)
	}
	if len(all) != 1 || !isRoot(all[0]) {
		return "", time.Time{}, errors.New("AWS says that the authority is a root, and gives a certificate that is none")
	}
	return string(ca.EncodePEM(all[0].Raw)), all[0].NotAfter.UTC(), nil
}

func isRoot(c *x509.Certificate) bool {
	return c.IsCA && bytes.Equal(c.RawIssuer, c.RawSubject) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

// parsePEM reads certificates. White space around them is AWS's habit, anything
// else is refused.
func parsePEM(text string) ([]*x509.Certificate, error) {
	if len(text) > maxPEM {
		return nil, fmt.Errorf("it has %d bytes; at most %d", len(text), maxPEM)
	}
	var all []*x509.Certificate
	for rest := bytes.TrimSpace([]byte(text)); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		block, behind := pem.Decode(rest)
		if block == nil || block.Type != "CERTIFICATE" || !bytes.HasPrefix(rest, []byte("-----BEGIN")) {
			return nil, errors.New("it is not PEM of certificates")
		}
		if len(all) == maxLong {
			return nil, fmt.Errorf("it has more than %d certificates", maxLong)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		all, rest = append(all, c), behind
	}
	return all, nil
}
