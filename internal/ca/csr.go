package ca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// CSR is a certificate signing request whose signature was verified: who made
// it holds the key.
type CSR struct {
	request *x509.CertificateRequest
}

// maxPEM bounds a CSR and a certificate, in bytes (the model's limit).
const maxPEM = 32768

// maxCSRExtensions bounds the work that a request can ask for.
const maxCSRExtensions = 150

// ParseCSR reads one PEM block of at most 32,768 bytes. It verifies the
// request's signature and wants a key that a certificate may have: RSA of 2048
// to 4096 bits, P-256, P-384 or P-521.
func ParseCSR(text []byte) (*CSR, error) {
	if len(text) > maxPEM {
		return nil, faultf(MalformedCSR, "the CSR has %d bytes; at most %d", len(text), maxPEM)
	}
	block, rest := pem.Decode(bytes.TrimSpace(text))
	if block == nil || block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST" {
		return nil, faultf(MalformedCSR, "the CSR is not a PEM block CERTIFICATE REQUEST")
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, faultf(MalformedCSR, "the CSR has %d bytes after its PEM block; send one block", len(rest))
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, faultf(MalformedCSR, "the CSR cannot be read: %v", err)
	}
	if err := checkKeyStrength(request.PublicKey); err != nil {
		return nil, faultf(MalformedCSR, "the CSR's public key %v", err)
	}
	if weak(request.SignatureAlgorithm) {
		return nil, faultf(MalformedCSR, "the CSR is signed with %s; sign it with SHA-256 or stronger", request.SignatureAlgorithm)
	}
	if err := request.CheckSignature(); err != nil {
		return nil, faultf(MalformedCSR, "the CSR's signature is not by its key")
	}
	if n := len(request.Extensions); n > maxCSRExtensions {
		return nil, faultf(MalformedCSR, "the CSR asks for %d extensions; at most %d", n, maxCSRExtensions)
	}
	return &CSR{request}, nil
}

// PublicKey is the key that the CSR proves possession of.
func (c *CSR) PublicKey() crypto.PublicKey { return c.request.PublicKey }

// weak are the signatures whose hash is broken, and those not known.
func weak(a x509.SignatureAlgorithm) bool {
	switch a {
	case x509.UnknownSignatureAlgorithm, x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.DSAWithSHA256, x509.ECDSAWithSHA1:
		return true
	}
	return false
}

// checkKeyStrength says what is wrong with a subject's key. More than 4096 bits
// of RSA are refused too: each handshake would pay for them.
func checkKeyStrength(public crypto.PublicKey) error {
	switch key := public.(type) {
	case *rsa.PublicKey:
		if n := key.N.BitLen(); n < 2048 || n > 4096 {
			return fmt.Errorf("is RSA of %d bits; it must have 2048 to 4096", n)
		}
		if key.E < 65537 || key.E%2 == 0 {
			return fmt.Errorf("is RSA with the exponent %d; it must be odd and at least 65537", key.E)
		}
	case *ecdsa.PublicKey:
		if AlgorithmOf(key) == "" {
			return fmt.Errorf("is on the curve %s; use P-256, P-384 or P-521", key.Curve.Params().Name)
		}
	default:
		return fmt.Errorf("is of an unsupported kind; use RSA or ECDSA")
	}
	return nil
}

// CSRExtensions are what an authority's own CSR may ask its parent for.
type CSRExtensions struct {
	KeyUsage x509.KeyUsage       // zero: absent
	SIA      []AccessDescription // SubjectInformationAccess
}

// AuthorityCSR makes the CSR of an authority, PEM with no newline at its end
// (certificates.md A.3). Keep the bytes: ECDSA signatures are random, and a
// second one for the same authority looks to clients like another authority.
func AuthorityCSR(key PrivateKey, algorithm SigningAlgorithm, subject *Subject, asked CSRExtensions) ([]byte, error) {
	s, err := signingFor(algorithm, key.Public())
	if err != nil {
		return nil, err
	}
	name, err := subject.Encode()
	if err != nil {
		return nil, err
	}
	if bytes.Equal(name, emptyName) {
		return nil, faultf(InvalidArgs, "the subject of an authority must have at least one attribute")
	}
	extensions := []pkix.Extension{basicConstraintsExtension(true, -1, true)}
	if asked.KeyUsage != 0 {
		extensions = append(extensions, keyUsageExtension(asked.KeyUsage))
	}
	if len(asked.SIA) > 0 {
		extension, err := siaExtension(asked.SIA)
		if err != nil {
			return nil, err
		}
		extensions = append(extensions, extension)
	}
	return makeAuthorityCSR(key, s, name, extensions)
}

func makeAuthorityCSR(key PrivateKey, s signing, name []byte, extensions []pkix.Extension) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		RawSubject: name, SignatureAlgorithm: s.x509, ExtraExtensions: extensions,
	}, key.Signer())
	if err != nil {
		return nil, fmt.Errorf("make CSR of authority: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	return bytes.TrimSuffix(text, []byte("\n")), nil
}

// emptyName is a distinguished name without attributes.
var emptyName = []byte{byte(cbasn1.SEQUENCE), 0}

// keyBits are the bits of a SubjectPublicKeyInfo that identify its key.
func keyBits(spki []byte) ([]byte, error) {
	input := cryptobyte.String(spki)
	var info, algorithm cryptobyte.String
	var key []byte
	if !input.ReadASN1(&info, cbasn1.SEQUENCE) || !info.ReadASN1(&algorithm, cbasn1.SEQUENCE) || !info.ReadASN1BitStringAsBytes(&key) {
		return nil, fmt.Errorf("read public key: not a SubjectPublicKeyInfo")
	}
	return key, nil
}
