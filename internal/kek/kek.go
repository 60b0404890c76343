// Package kek keeps the key-encryption key of a store: in a file, behind a
// passphrase, in AWS KMS or on a PKCS #11 token. It wraps and unwraps the root
// keys of a store and decides nothing else: what the root keys seal, and when they
// change, is the store's matter. The page it follows is docs/tasks/key-stores.md.
package kek

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"strings"
)

// ErrWrong says that a root key was wrapped with another key-encryption key, or
// for another store, or that what was wrapped has been altered.
var ErrWrong = errors.New("wrong key-encryption key")

// RootSize is the size of a root key, and of a key-encryption key of ours, in bytes.
const RootSize = 32

// Key is a key-encryption key, wherever it is kept.
type Key interface {
	// Wrap encrypts a root key for one store, which its lineage names.
	Wrap(ctx context.Context, root []byte, lineage string) (Wrapped, error)
	// Unwrap is the inverse of Wrap; ErrWrong if that was not this key's, or for
	// another store. Other errors say that the key cannot be used now.
	Unwrap(ctx context.Context, w Wrapped, lineage string) (root []byte, err error)
	// String says where the key is kept, as Parse reads it. It has no secret.
	String() string
}

// Wrapped is a root key, encrypted, and what is needed to decrypt it besides the
// key-encryption key. Nothing in it is secret.
type Wrapped struct {
	Provider string   `json:"provider"` // the word before the colon in what Parse reads
	Key      string   `json:"key,omitzero"`
	Argon2id Argon2id `json:"argon2id,omitzero"`
	Blob     []byte   `json:"blob"`
}

// The providers, as the word before the colon.
const (
	providerFile       = "file"
	providerPassphrase = "passphrase"
	providerKMS        = "aws-kms"
	providerPKCS11     = "pkcs11"
)

// Parse reads where a key-encryption key is kept:
//
//	file:PATH         32 bytes in hex or base64
//	passphrase:PATH   the first line of a file; -: asked for on the terminal; nothing: of FAIRLEAD_KEK_PASSPHRASE
//	aws-kms:KEY       id, ARN or alias/NAME of a symmetric key of AWS KMS
//	pkcs11:…          a URI of RFC 7512 that names an AES key of 256 bits
func Parse(spec string) (Key, error) {
	provider, rest, _ := strings.Cut(spec, ":")
	switch {
	case provider == providerFile && rest != "":
		return File{Path: rest}, nil
	case provider == providerPassphrase:
		return newPassphrase(rest), nil
	case provider == providerKMS && rest != "":
		return KMS{KeyID: rest}, nil
	case provider == providerPKCS11:
		return parsePKCS11(spec)
	}
	return nil, fmt.Errorf("%q is not file:PATH, passphrase:PATH, aws-kms:KEY or pkcs11:…", spec)
}

// of checks that a root key was wrapped by a provider.
func (w Wrapped) of(provider string) error {
	if w.Provider != provider {
		return fmt.Errorf("the root key is wrapped by %s, not by %s: %w", w.Provider, provider, ErrWrong)
	}
	return nil
}

// wrapAES encrypts a root key with a key that is here.
func wrapAES(key, root []byte, provider, lineage string) ([]byte, error) {
	aead, err := newGCM(key)
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, nil, root, bound(provider, lineage)), nil
}

func unwrapAES(key []byte, w Wrapped, lineage string) ([]byte, error) {
	aead, err := newGCM(key)
	if err != nil {
		return nil, err
	}
	root, err := aead.Open(nil, nil, w.Blob, bound(w.Provider, lineage))
	if err != nil {
		return nil, ErrWrong
	}
	return checkRoot(root)
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// bound is what a wrapped root key is bound to.
func bound(provider, lineage string) []byte {
	return []byte("fairlead root key v1\x00" + provider + "\x00" + lineage)
}

func checkRoot(root []byte) ([]byte, error) {
	if len(root) != RootSize {
		return nil, fmt.Errorf("the root key has %d bytes instead of %d: %w", len(root), RootSize, ErrWrong)
	}
	return root, nil
}
