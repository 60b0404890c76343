package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"strings"
)

// KeyAlgorithm is a kind and size of key, by the name that ACM and Private CA
// have for it.
type KeyAlgorithm string

// The algorithms that keys are made with.
const (
	RSA2048 KeyAlgorithm = "RSA_2048"
	RSA3072 KeyAlgorithm = "RSA_3072"
	RSA4096 KeyAlgorithm = "RSA_4096"
	P256    KeyAlgorithm = "EC_prime256v1"
	P384    KeyAlgorithm = "EC_secp384r1"
	P521    KeyAlgorithm = "EC_secp521r1"
)

var keyAlgorithms = []struct {
	name  KeyAlgorithm
	bits  int            // RSA
	curve elliptic.Curve // ECDSA
}{
	{RSA2048, 2048, nil},
	{RSA3072, 3072, nil},
	{RSA4096, 4096, nil},
	{P256, 0, elliptic.P256()},
	{P384, 0, elliptic.P384()},
	{P521, 0, elliptic.P521()},
}

// Hyphenated is the name as ACM describes certificates with it: RSA-2048.
func (a KeyAlgorithm) Hyphenated() string { return strings.Replace(string(a), "_", "-", 1) }

// AlgorithmOf names the algorithm of a public key. It is empty for a key that
// no certificate here may have.
func AlgorithmOf(public crypto.PublicKey) KeyAlgorithm {
	for _, a := range keyAlgorithms {
		switch key := public.(type) {
		case *rsa.PublicKey:
			if a.bits != 0 && key.N.BitLen() == a.bits {
				return a.name
			}
		case *ecdsa.PublicKey:
			if a.curve != nil && key.Curve == a.curve {
				return a.name
			}
		}
	}
	return ""
}

// PrivateKey is a private key that prints as nothing under every verb.
type PrivateKey struct{ signer crypto.Signer }

const redacted = "[REDACTED]"

// Format is redacted under every verb.
func (PrivateKey) Format(f fmt.State, _ rune) { fmt.Fprint(f, redacted) }

// MarshalText is redacted, for loggers and JSON.
func (PrivateKey) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// GenerateKey makes a key. Its randomness is the system's: crypto/rsa and
// crypto/ecdsa take no other.
func GenerateKey(algorithm KeyAlgorithm) (PrivateKey, error) {
	for _, a := range keyAlgorithms {
		if a.name != algorithm {
			continue
		}
		var signer crypto.Signer
		var err error
		if a.curve != nil {
			signer, err = ecdsa.GenerateKey(a.curve, rand.Reader)
		} else {
			signer, err = rsa.GenerateKey(rand.Reader, a.bits)
		}
		if err != nil {
			return PrivateKey{}, fmt.Errorf("generate %s key: %w", algorithm, err)
		}
		return PrivateKey{signer}, nil
	}
	return PrivateKey{}, faultf(InvalidArgs, "key algorithm %q is not supported; use one of %s", algorithm, algorithmNames())
}

func algorithmNames() string {
	var names []string
	for _, a := range keyAlgorithms {
		names = append(names, string(a.name))
	}
	return strings.Join(names, ", ")
}

// ParsePrivateKey reads a key as PKCS8 wrote it.
func ParsePrivateKey(der []byte) (PrivateKey, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		// The cause may quote what it could not read: part of a key.
		return PrivateKey{}, faultf(InvalidParameter, "the private key is not PKCS #8")
	}
	return newPrivateKey(parsed)
}

func newPrivateKey(parsed any) (PrivateKey, error) {
	signer, ok := parsed.(crypto.Signer)
	if !ok || AlgorithmOf(signer.Public()) == "" {
		return PrivateKey{}, faultf(InvalidParameter, "the private key is of a kind or size that is not supported; use one of %s", algorithmNames())
	}
	return PrivateKey{signer}, nil
}

// PKCS8 is the key in DER: the one way out. Keep it out of every log.
func (k PrivateKey) PKCS8() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.signer)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return der, nil
}

// Signer signs with the key.
func (k PrivateKey) Signer() crypto.Signer { return k.signer }

// Public is the public half.
func (k PrivateKey) Public() crypto.PublicKey { return k.signer.Public() }

// Algorithm names the kind and size of the key.
func (k PrivateKey) Algorithm() KeyAlgorithm { return AlgorithmOf(k.signer.Public()) }

// SigningAlgorithm is how an authority signs, by Private CA's name.
type SigningAlgorithm string

// The signing algorithms.
const (
	SHA256WithECDSA SigningAlgorithm = "SHA256WITHECDSA"
	SHA384WithECDSA SigningAlgorithm = "SHA384WITHECDSA"
	SHA512WithECDSA SigningAlgorithm = "SHA512WITHECDSA"
	SHA256WithRSA   SigningAlgorithm = "SHA256WITHRSA"
	SHA384WithRSA   SigningAlgorithm = "SHA384WITHRSA"
	SHA512WithRSA   SigningAlgorithm = "SHA512WITHRSA"
)

type signing struct {
	name   SigningAlgorithm
	x509   x509.SignatureAlgorithm
	hash   crypto.Hash
	family string
	oid    asn1.ObjectIdentifier
}

var signingAlgorithms = []signing{
	{SHA256WithECDSA, x509.ECDSAWithSHA256, crypto.SHA256, "ECDSA", asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}},
	{SHA384WithECDSA, x509.ECDSAWithSHA384, crypto.SHA384, "ECDSA", asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}},
	{SHA512WithECDSA, x509.ECDSAWithSHA512, crypto.SHA512, "ECDSA", asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 4}},
	{SHA256WithRSA, x509.SHA256WithRSA, crypto.SHA256, "RSA", asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}},
	{SHA384WithRSA, x509.SHA384WithRSA, crypto.SHA384, "RSA", asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 12}},
	{SHA512WithRSA, x509.SHA512WithRSA, crypto.SHA512, "RSA", asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 13}},
}

// CheckSigning says whether a key can sign with an algorithm: the family must
// be the key's, the hash is the caller's choice.
func CheckSigning(algorithm SigningAlgorithm, public crypto.PublicKey) error {
	_, err := signingFor(algorithm, public)
	return err
}

func signingFor(algorithm SigningAlgorithm, public crypto.PublicKey) (signing, error) {
	family := familyOf(public)
	for _, s := range signingAlgorithms {
		if s.name != algorithm {
			continue
		}
		if s.family != family {
			return signing{}, faultf(InvalidArgs, "signing algorithm %s does not fit the authority's %s key; use SHA256, SHA384 or SHA512 with %s", algorithm, AlgorithmOf(public), family)
		}
		return s, nil
	}
	return signing{}, faultf(InvalidArgs, "signing algorithm %q is not supported; use SHA256, SHA384 or SHA512 with %s", algorithm, family)
}

func familyOf(public crypto.PublicKey) string {
	if _, ok := public.(*rsa.PublicKey); ok {
		return "RSA"
	}
	return "ECDSA"
}

// DefaultSigning is the algorithm of an authority's own: SHA-2 of the strength
// of its key.
func DefaultSigning(public crypto.PublicKey) SigningAlgorithm {
	switch AlgorithmOf(public) {
	case P256:
		return SHA256WithECDSA
	case P384:
		return SHA384WithECDSA
	case P521:
		return SHA512WithECDSA
	default:
		return SHA256WithRSA
	}
}

// sign signs a message and returns the signature.
func (s signing) sign(key crypto.Signer, message []byte) ([]byte, error) {
	digest := s.hash.New()
	digest.Write(message)
	signature, err := key.Sign(rand.Reader, digest.Sum(nil), s.hash)
	if err != nil {
		return nil, fmt.Errorf("sign with %s: %w", s.name, err)
	}
	return signature, nil
}
