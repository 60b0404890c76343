package ca

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"hash"
)

const (
	// exportIterations of PBKDF2 cost some 20 ms a key. The passphrase is
	// random and used once; for one that a person chose it would be too few.
	exportIterations = 50_000
	// maxIterations bounds the work that a key from outside can ask for.
	maxIterations = 1_000_000
	maxSalt       = 128
)

// Object identifiers of PBES2 (RFC 8018).
var (
	oidPBES2      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
	oidHMACSHA1   = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 7}
	oidHMACSHA256 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}
	oidAES256CBC  = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}
)

type encryptedKey struct {
	Algorithm pkix.AlgorithmIdentifier
	Data      []byte
}

type pbes2 struct {
	Derivation, Encryption pkix.AlgorithmIdentifier
}

type pbkdf2Parameters struct {
	Salt       []byte
	Iterations int
	KeyLength  int                      `asn1:"optional"`
	PRF        pkix.AlgorithmIdentifier `asn1:"optional"` // HMAC-SHA1 if absent
}

// CheckPassphrase wants what ExportCertificate does: 4 to 128 bytes and none of
// the characters #, $ and %.
func CheckPassphrase(passphrase []byte) error {
	if n := len(passphrase); n < 4 || n > 128 {
		return faultf(InvalidRequest, "the passphrase must have 4 to 128 bytes")
	}
	if bytes.ContainsAny(passphrase, "#$%") {
		return faultf(InvalidRequest, "the passphrase must not have the characters #, $ or %%")
	}
	return nil
}

// EncryptKey is the key under a passphrase, as ExportCertificate returns it:
// PEM, PBES2 with PBKDF2 (HMAC-SHA256) and AES-256-CBC.
func EncryptKey(key PrivateKey, passphrase []byte) ([]byte, error) {
	if err := CheckPassphrase(passphrase); err != nil {
		return nil, err
	}
	plain, err := key.PKCS8()
	if err != nil {
		return nil, err
	}
	random := make([]byte, 20+aes.BlockSize)
	if _, err := rand.Read(random); err != nil {
		return nil, fmt.Errorf("encrypt key: %w", err)
	}
	salt, iv := random[:20], random[20:]
	secret, err := pbkdf2.Key(sha256.New, string(passphrase), salt, exportIterations, 32)
	if err != nil {
		return nil, fmt.Errorf("encrypt key: %w", err)
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, fmt.Errorf("encrypt key: %w", err)
	}
	pad := aes.BlockSize - len(plain)%aes.BlockSize
	data := append(plain, bytes.Repeat([]byte{byte(pad)}, pad)...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(data, data)
	der, err := encodeEncrypted(data, salt, iv)
	if err != nil {
		return nil, fmt.Errorf("encrypt key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der}), nil
}

func encodeEncrypted(data, salt, iv []byte) ([]byte, error) {
	derivation, err := asn1.Marshal(pbkdf2Parameters{
		Salt: salt, Iterations: exportIterations,
		PRF: pkix.AlgorithmIdentifier{Algorithm: oidHMACSHA256, Parameters: asn1.NullRawValue},
	})
	if err != nil {
		return nil, err
	}
	vector, err := asn1.Marshal(iv)
	if err != nil {
		return nil, err
	}
	parameters, err := asn1.Marshal(pbes2{
		Derivation: pkix.AlgorithmIdentifier{Algorithm: oidPBKDF2, Parameters: asn1.RawValue{FullBytes: derivation}},
		Encryption: pkix.AlgorithmIdentifier{Algorithm: oidAES256CBC, Parameters: asn1.RawValue{FullBytes: vector}},
	})
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(encryptedKey{pkix.AlgorithmIdentifier{Algorithm: oidPBES2, Parameters: asn1.RawValue{FullBytes: parameters}}, data})
}

// DecryptKey reads what EncryptKey or AWS's ExportCertificate wrote (that has
// HMAC-SHA1). Whatever is wrong with passphrase or key, the error is the same:
// it must not tell how far decryption came.
func DecryptKey(text, passphrase []byte) (PrivateKey, error) {
	wrong := faultf(InvalidParameter, "the encrypted private key cannot be read: it is not PBES2 with PBKDF2 and AES-256-CBC, or the passphrase is another")
	if len(text) > 2*maxImportKey {
		return PrivateKey{}, faultf(InvalidParameter, "the encrypted private key has %d bytes; at most %d", len(text), 2*maxImportKey)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "ENCRYPTED PRIVATE KEY" {
		return PrivateKey{}, wrong
	}
	plain, ok := decrypt(block.Bytes, passphrase)
	if !ok {
		return PrivateKey{}, wrong
	}
	key, err := ParsePrivateKey(plain)
	if err != nil {
		return PrivateKey{}, wrong
	}
	return key, nil
}

func decrypt(der, passphrase []byte) ([]byte, bool) {
	var outer encryptedKey
	var scheme pbes2
	var derivation pbkdf2Parameters
	var iv []byte
	if !unmarshal(der, &outer) || !outer.Algorithm.Algorithm.Equal(oidPBES2) ||
		!unmarshal(outer.Algorithm.Parameters.FullBytes, &scheme) ||
		!scheme.Derivation.Algorithm.Equal(oidPBKDF2) || !unmarshal(scheme.Derivation.Parameters.FullBytes, &derivation) ||
		!scheme.Encryption.Algorithm.Equal(oidAES256CBC) || !unmarshal(scheme.Encryption.Parameters.FullBytes, &iv) {
		return nil, false
	}
	var digest func() hash.Hash
	switch prf := derivation.PRF.Algorithm; {
	case len(prf) == 0 || prf.Equal(oidHMACSHA1):
		digest = sha1.New
	case prf.Equal(oidHMACSHA256):
		digest = sha256.New
	default:
		return nil, false
	}
	n := derivation.Iterations
	if n < 1 || n > maxIterations || len(derivation.Salt) > maxSalt || derivation.KeyLength != 0 && derivation.KeyLength != 32 ||
		len(iv) != aes.BlockSize || len(outer.Data) == 0 || len(outer.Data)%aes.BlockSize != 0 {
		return nil, false
	}
	secret, err := pbkdf2.Key(digest, string(passphrase), derivation.Salt, n, 32)
	if err != nil {
		return nil, false
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, false
	}
	plain := make([]byte, len(outer.Data))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, outer.Data)
	pad := int(plain[len(plain)-1])
	if pad < 1 || pad > aes.BlockSize || !bytes.HasSuffix(plain, bytes.Repeat([]byte{byte(pad)}, pad)) {
		return nil, false
	}
	return plain[:len(plain)-pad], true
}

func unmarshal(der []byte, into any) bool {
	rest, err := asn1.Unmarshal(der, into)
	return err == nil && len(rest) == 0
}
