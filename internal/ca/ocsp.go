package ca

import (
	"bytes"
	"crypto"
	"crypto/fips140"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/ocsp"
)

// maxOCSPRequest bounds a request, in bytes: one certificate is asked for, and
// RFC 5019 wants a GET's to fit in 255.
const maxOCSPRequest = 2048

// OCSPRequest asks for one certificate's status.
type OCSPRequest struct {
	Serial *big.Int
	// Hash is the one that the client names the authority with; an answer
	// must use it too.
	Hash              crypto.Hash
	nameHash, keyHash []byte
}

// ParseOCSPRequest reads a request in DER. Of several certificates asked for it
// takes the first (RFC 5019 2.1.1: there is one); a nonce is ignored, since
// answers are made beforehand.
func ParseOCSPRequest(der []byte) (*OCSPRequest, error) {
	if len(der) > maxOCSPRequest {
		return nil, faultf(InvalidRequest, "the OCSP request has %d bytes; at most %d", len(der), maxOCSPRequest)
	}
	r, err := ocsp.ParseRequest(der)
	if err != nil {
		return nil, faultf(InvalidRequest, "the OCSP request cannot be read: %v", err)
	}
	if r.SerialNumber.Sign() <= 0 || r.SerialNumber.BitLen() > 160 {
		return nil, faultf(InvalidRequest, "the OCSP request's serial is not a positive number of at most 20 bytes")
	}
	return &OCSPRequest{Serial: r.SerialNumber, Hash: r.HashAlgorithm, nameHash: r.IssuerNameHash, keyHash: r.IssuerKeyHash}, nil
}

// Asks says whether a request is about certificates of this authority.
func (a *Authority) Asks(r *OCSPRequest) bool {
	name, key, err := a.ocspHashes(r.Hash)
	return err == nil && bytes.Equal(name, r.nameHash) && bytes.Equal(key, r.keyHash)
}

func (a *Authority) ocspHashes(hash crypto.Hash) (name, key []byte, err error) {
	switch hash {
	case crypto.SHA256, crypto.SHA384, crypto.SHA512:
	case crypto.SHA1: // a name here, what RFC 5019 2.1.1 asks for; fips140=only has none
		if fips140.Enforced() {
			return nil, nil, fmt.Errorf("the hash SHA-1 is not available in FIPS mode")
		}
	default:
		return nil, nil, fmt.Errorf("the hash %s is not supported", hash)
	}
	bits, err := keyBits(a.Certificate.RawSubjectPublicKeyInfo)
	if err != nil {
		return nil, nil, err
	}
	sum := func(b []byte) []byte {
		h := hash.New()
		h.Write(b)
		return h.Sum(nil)
	}
	return sum(a.Certificate.RawSubject), sum(bits), nil
}

// Status is what an OCSP answer says of one certificate.
type Status struct {
	Serial  *big.Int
	Known   bool     // issued by this authority
	Revoked *Revoked // nil: good, if known
}

// SignOCSP makes the answer about one certificate, DER. It holds for every
// request with that hash, so it may be made beforehand and served until it
// ends.
func (a *Authority) SignOCSP(s Status, hash crypto.Hash, thisUpdate, nextUpdate time.Time) ([]byte, error) {
	if _, _, err := a.ocspHashes(hash); err != nil {
		return nil, faultf(InvalidRequest, "sign OCSP answer: %v", err)
	}
	if !nextUpdate.After(thisUpdate) {
		return nil, fmt.Errorf("sign OCSP answer: its next update %s is not after this one %s", stamp(nextUpdate), stamp(thisUpdate))
	}
	algorithm, err := signingFor(DefaultSigning(a.issuer.public), a.issuer.public)
	if err != nil {
		return nil, err
	}
	answer := ocsp.Response{
		SerialNumber: s.Serial, Status: ocsp.Good, IssuerHash: hash, SignatureAlgorithm: algorithm.x509,
		ThisUpdate: thisUpdate.UTC().Truncate(time.Second), NextUpdate: nextUpdate.UTC().Truncate(time.Second),
	}
	switch {
	case s.Revoked != nil:
		code, ok := reasonCodes[s.Revoked.Reason]
		if !ok {
			return nil, fmt.Errorf("sign OCSP answer: %s was revoked for the unknown reason %q", DescribeSerial(s.Serial), s.Revoked.Reason)
		}
		answer.Status, answer.RevokedAt, answer.RevocationReason = ocsp.Revoked, s.Revoked.At.UTC().Truncate(time.Second), code
	case !s.Known:
		answer.Status = ocsp.Unknown
	}
	der, err := ocsp.CreateResponse(a.Certificate, a.Certificate, answer, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign OCSP answer of %s: %w", a.Certificate.Subject, err)
	}
	read, err := ocsp.ParseResponse(der, a.Certificate) // verifies the signature
	if err != nil {
		return nil, fmt.Errorf("read the OCSP answer of %s just signed: %w", a.Certificate.Subject, err)
	}
	if read.Status != answer.Status || read.SerialNumber.Cmp(s.Serial) != 0 {
		return nil, fmt.Errorf("the OCSP answer of %s just signed is not the one that was decided", a.Certificate.Subject)
	}
	return der, nil
}

// The unsigned answers of RFC 6960 2.3.
func OCSPMalformed() []byte    { return bytes.Clone(ocsp.MalformedRequestErrorResponse) }
func OCSPUnauthorized() []byte { return bytes.Clone(ocsp.UnauthorizedErrorResponse) } // not our authority
func OCSPTryLater() []byte     { return bytes.Clone(ocsp.TryLaterErrorResponse) }
