package store

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
)

// The sealed form of a secret, version 1:
//
//	1 byte    the version
//	60 bytes  the value's data key, AES-256-GCM under the key-encryption key: nonce, key, tag
//	rest      the value, AES-256-GCM under its data key: nonce, value, tag
//
// Both are bound to the key in etcd and to the purpose, so that a sealed value
// cannot be moved to another place. A new key-encryption key needs only the 60
// bytes written again.
const (
	sealVersion   = 1
	dataKeySize   = 32
	gcmOverhead   = 12 + 16
	wrappedLength = dataKeySize + gcmOverhead
)

var errUnseal = errors.New("sealed value was made with another key, for another place, or altered")

type sealer struct {
	kek cipher.AEAD
	// root is what other keys are derived from, itself derived from the
	// key-encryption key, so that no two algorithms use one key.
	root []byte
}

func newSealer(kek []byte) (*sealer, error) {
	aead, err := newGCM(kek)
	if err != nil {
		return nil, fmt.Errorf("use key-encryption key: %w", err)
	}
	root, err := hkdf.Extract(sha256.New, kek, []byte("fairlead derivation root v1"))
	if err != nil {
		return nil, fmt.Errorf("use key-encryption key: %w", err)
	}
	return &sealer{kek: aead, root: root}, nil
}

func newGCM(key []byte) (cipher.AEAD, error) {
	if len(key) != dataKeySize {
		return nil, fmt.Errorf("key has %d bytes instead of %d", len(key), dataKeySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func place(key, purpose string) []byte {
	return []byte("fairlead sealed v1\x00" + purpose + "\x00" + key)
}

// seal encrypts value for one key in etcd and one purpose.
func (s *sealer) seal(key, purpose string, value []byte) ([]byte, error) {
	dataKey := make([]byte, dataKeySize)
	// crypto/rand.Read never fails: it ends the process instead.
	rand.Read(dataKey)
	aead, err := newGCM(dataKey)
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", purpose, err)
	}
	out := append(make([]byte, 0, 1+wrappedLength+len(value)+gcmOverhead), sealVersion)
	out = s.kek.Seal(out, nil, dataKey, place(key, purpose))
	return aead.Seal(out, nil, value, place(key, purpose)), nil
}

// open is the inverse of seal.
func (s *sealer) open(key, purpose string, sealed []byte) ([]byte, error) {
	if len(sealed) < 1+wrappedLength+gcmOverhead {
		return nil, fmt.Errorf("unseal %s: %d bytes are too few: %w", purpose, len(sealed), errUnseal)
	}
	if sealed[0] != sealVersion {
		return nil, fmt.Errorf("unseal %s: unknown version %d: %w", purpose, sealed[0], errUnseal)
	}
	dataKey, err := s.kek.Open(nil, nil, sealed[1:1+wrappedLength], place(key, purpose))
	if err != nil {
		return nil, fmt.Errorf("unseal %s: %w", purpose, errUnseal)
	}
	aead, err := newGCM(dataKey)
	if err != nil {
		return nil, fmt.Errorf("unseal %s: %w", purpose, err)
	}
	value, err := aead.Open(nil, nil, sealed[1+wrappedLength:], place(key, purpose))
	if err != nil {
		return nil, fmt.Errorf("unseal %s: %w", purpose, errUnseal)
	}
	return value, nil
}
