package ca

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Names are the subject alternative names of a leaf of Fairlead's own profile.
type Names struct {
	DNS  []string
	URIs []string // SPIFFE ids
	IPs  []net.IP
}

// maxLeafNames is far above what a host has: a server's own certificate has all
// addresses of its host.
const maxLeafNames = 1000

// LeafRequest is everything that a leaf of Fairlead's own profile follows from:
// P-256, for servers and clients, with the caller's names. A CSR could give
// only the key (CSR.PublicKey).
type LeafRequest struct {
	PublicKey crypto.PublicKey
	Names     Names
	Now       time.Time
	Life      time.Duration
	Serial    Serial
}

// Leaf is an issued certificate and its key, PEM. The chain is the leaf and the
// authorities between it and the root: the root does not travel.
type Leaf struct {
	Chain []byte
	Key   []byte
}

// IssueLeaf makes a certificate of Fairlead's own profile, DER. It never lives
// longer than its authority.
func (a *Authority) IssueLeaf(r LeafRequest) ([]byte, error) {
	if err := a.issuer.checkState(r.Now); err != nil {
		return nil, err
	}
	if AlgorithmOf(r.PublicKey) != P256 {
		return nil, faultf(MalformedCSR, "the key of a leaf must be P-256 (%s)", P256)
	}
	s, err := signingFor(DefaultSigning(a.issuer.public), a.issuer.public)
	if err != nil {
		return nil, err
	}
	san, err := r.Names.encode()
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(r.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("encode the key of a leaf: %w", err)
	}
	bits, err := keyBits(spki)
	if err != nil {
		return nil, err
	}
	now := r.Now.UTC().Truncate(time.Second)
	notAfter := now.Add(r.Life)
	if notAfter.After(a.issuer.notAfter) {
		notAfter = a.issuer.notAfter
	}
	d := &draft{
		serial: r.Serial, signing: s, issuer: a.issuer.name, subject: emptyName,
		notBefore: now.Add(-ownBackdate), notAfter: notAfter.UTC().Truncate(time.Second), spki: spki,
		extensions: []pkix.Extension{
			basicConstraintsExtension(false, -1, true),
			akiExtension(a.issuer.keyID),
			skiExtension(ownKeyID(bits)),
			keyUsageExtension(x509.KeyUsageDigitalSignature),
			ekuExtension([]string{serverAuth, clientAuth}, false),
			{Id: oidSAN, Critical: true, Value: san}, // there is no subject
		},
		profile: profile{pathLen: -1, own: true},
	}
	return d.sign(&a.issuer, a.key, a.throwaway)
}

// Issue makes a new P-256 key and a leaf for it (IssueLeaf), valid from now for
// life.
func (a *Authority) Issue(names Names, now time.Time, life time.Duration) (*Leaf, error) {
	key, err := GenerateKey(P256)
	if err != nil {
		return nil, err
	}
	serial, err := NewSerial(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := a.IssueLeaf(LeafRequest{PublicKey: key.Public(), Names: names, Now: now, Life: life, Serial: serial})
	if err != nil {
		return nil, fmt.Errorf("issue from %s: %w", a.Certificate.Subject, err)
	}
	encoded, err := encodeKey(key.Signer())
	if err != nil {
		return nil, err
	}
	chain := EncodePEM(der)
	for i, c := range a.issuer.chain {
		if i < len(a.issuer.chain)-1 || !selfIssued(c) {
			chain = append(chain, EncodePEM(c.Raw)...)
		}
	}
	return &Leaf{Chain: chain, Key: encoded}, nil
}

// encode checks each name: one that different peers read differently is not
// issued.
func (n Names) encode() ([]byte, error) {
	if count := len(n.DNS) + len(n.URIs) + len(n.IPs); count == 0 || count > maxLeafNames {
		return nil, faultf(InvalidArgs, "a leaf must have 1 to %d names, not %d", maxLeafNames, count)
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, name := range n.DNS {
			addName(b, tagDNS, []byte(name), CheckDNSName(name))
		}
		for _, id := range n.URIs {
			addName(b, tagURI, []byte(id), CheckSPIFFEID(id))
		}
		for _, ip := range n.IPs {
			address, ok := netip.AddrFromSlice(ip)
			if !ok {
				b.SetError(faultf(InvalidArgs, "an IP address has %d bytes; it must have 4 or 16", len(ip)))
				return
			}
			addName(b, tagIP, address.Unmap().AsSlice(), nil)
		}
	})
	return b.Bytes()
}

func addName(b *cryptobyte.Builder, tag cbasn1.Tag, value []byte, bad error) {
	if bad != nil {
		b.SetError(bad)
		return
	}
	b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes(value) })
}

var (
	dnsLabel      = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$`)
	trustDomain   = regexp.MustCompile(`^[a-z0-9._-]{1,255}$`)
	spiffeSegment = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)
)

// CheckDNSName wants a host name, or one whose first label is a whole wildcard:
// never a part of one (v*.example.com), which Envoy accepts and Go refuses.
func CheckDNSName(name string) error {
	rest, wildcard := strings.CutPrefix(name, "*.")
	labels := strings.Split(rest, ".")
	bad := len(name) > 253 || wildcard && len(labels) < 2 || !wildcard && net.ParseIP(name) != nil
	for _, label := range labels {
		bad = bad || !dnsLabel.MatchString(label)
	}
	if bad {
		return faultf(InvalidArgs, "%.260q is no DNS name for a certificate: labels of letters, digits, - and _, no final dot, and * only as the whole first label above two others", name)
	}
	return nil
}

// CheckSPIFFEID wants a SPIFFE id in its one canonical form: no escapes, no
// empty or dot segments, no port, query or fragment, lower-case trust domain,
// at most 2048 bytes (the SPIFFE-ID standard, 2).
func CheckSPIFFEID(id string) error {
	rest, ok := strings.CutPrefix(id, "spiffe://")
	domain, path, hasPath := strings.Cut(rest, "/")
	bad := !ok || len(id) > 2048 || !trustDomain.MatchString(domain)
	if hasPath {
		for segment := range strings.SplitSeq(path, "/") {
			bad = bad || !spiffeSegment.MatchString(segment) || segment == "." || segment == ".."
		}
	}
	if bad {
		return faultf(InvalidArgs, "%.260q is no canonical SPIFFE id: spiffe://trust-domain/path of letters, digits, '.', '-' and '_', the trust domain in lower case", id)
	}
	return nil
}
