package store

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/fairlead/fairlead/internal/kek"
)

// The sealed form of a secret, version 2:
//
//	1 byte    the version
//	4 bytes   the id of the root key, big-endian
//	1 byte    the length of the purpose
//	…         the purpose
//	60 bytes  the value's data key, AES-256-GCM under the root key: nonce, key, tag
//	rest      the value, AES-256-GCM under its data key: nonce, value, tag
//
// Both ciphertexts are bound to the key in etcd and to the purpose, so that a
// sealed value cannot be moved to another place. A new root key needs only the 60
// bytes written again; what is before them says all that is needed for it, so that
// every sealed value of the store is found and sealed anew without a list of them.
// No other value of the store begins with a byte below a blank.
const (
	sealVersion   = 2
	dataKeySize   = 32
	gcmOverhead   = 12 + 16
	wrappedLength = dataKeySize + gcmOverhead
	maxPurpose    = 64
)

var (
	errUnseal = errors.New("sealed value was made with another key, for another place, or altered")
	// errRoot says that a value is sealed with a root key that is not known here.
	errRoot = errors.New("its root key is not known here: the key-encryption key has been rotated")
)

// sealer seals and opens with the root keys that the store has now.
type sealer struct {
	kek     kek.Key
	lineage string
	roots   atomic.Pointer[rootKeys]
}

// rootKeys are the root keys of the store at one revision of its keyring. They
// do not change.
type rootKeys struct {
	revision int64 // of the keyring in etcd
	current  uint32
	keys     map[uint32]rootKey // by id
}

type rootKey struct {
	secret []byte
	aead   cipher.AEAD
}

// newSealer has one root key.
func newSealer(id uint32, root []byte) (*sealer, error) {
	roots, err := newRootKeys(0, id, map[uint32][]byte{id: root})
	if err != nil {
		return nil, err
	}
	s := &sealer{}
	s.roots.Store(roots)
	return s, nil
}

// newRootKeys takes root keys by their ids; the current one seals.
func newRootKeys(revision int64, current uint32, secrets map[uint32][]byte) (*rootKeys, error) {
	r := &rootKeys{revision: revision, current: current, keys: map[uint32]rootKey{}}
	for id, secret := range secrets {
		aead, err := newGCM(secret)
		if err != nil {
			return nil, fmt.Errorf("use root key %08x: %w", id, err)
		}
		r.keys[id] = rootKey{secret, aead}
	}
	return r, nil
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
	return []byte("fairlead sealed v2\x00" + purpose + "\x00" + key)
}

// seal encrypts value for one key in etcd and one purpose.
func (s *sealer) seal(key, purpose string, value []byte) ([]byte, error) {
	return s.roots.Load().seal(key, purpose, value)
}

// open is the inverse of seal.
func (s *sealer) open(key, purpose string, sealed []byte) ([]byte, error) {
	return s.roots.Load().open(key, purpose, sealed)
}

func (r *rootKeys) seal(key, purpose string, value []byte) ([]byte, error) {
	if len(purpose) > maxPurpose {
		return nil, fmt.Errorf("seal %s: the purpose is too long", purpose)
	}
	dataKey := make([]byte, dataKeySize)
	// crypto/rand.Read never fails: it ends the process instead.
	rand.Read(dataKey)
	aead, err := newGCM(dataKey)
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", purpose, err)
	}
	out := sealedHead(r.current, purpose, len(value))
	out = r.keys[r.current].aead.Seal(out, nil, dataKey, place(key, purpose))
	return aead.Seal(out, nil, value, place(key, purpose)), nil
}

// sealedHead begins a sealed value, with room for the rest.
func sealedHead(root uint32, purpose string, size int) []byte {
	out := append(make([]byte, 0, 6+len(purpose)+wrappedLength+size+gcmOverhead), sealVersion)
	out = binary.BigEndian.AppendUint32(out, root)
	out = append(out, byte(len(purpose)))
	return append(out, purpose...)
}

// sealedValue is a sealed value in its parts.
type sealedValue struct {
	root    uint32
	purpose string
	dataKey []byte // wrapped
	body    []byte
}

func parseSealed(sealed []byte) (v sealedValue, err error) {
	if len(sealed) < 6 {
		return v, fmt.Errorf("%d bytes are too few: %w", len(sealed), errUnseal)
	}
	if sealed[0] != sealVersion {
		return v, fmt.Errorf("unknown version %d: %w", sealed[0], errUnseal)
	}
	v.root = binary.BigEndian.Uint32(sealed[1:])
	rest, length := sealed[6:], int(sealed[5])
	if length > maxPurpose || len(rest) < length+wrappedLength+gcmOverhead {
		return v, fmt.Errorf("%d bytes are too few: %w", len(sealed), errUnseal)
	}
	v.purpose, rest = string(rest[:length]), rest[length:]
	v.dataKey, v.body = rest[:wrappedLength], rest[wrappedLength:]
	return v, nil
}

// unwrap is the data key of a sealed value, which lies at a key.
func (r *rootKeys) unwrap(key string, v sealedValue) ([]byte, error) {
	root, known := r.keys[v.root]
	if !known {
		return nil, fmt.Errorf("root key %08x: %w: %w", v.root, errRoot, errUnseal)
	}
	dataKey, err := root.aead.Open(nil, nil, v.dataKey, place(key, v.purpose))
	if err != nil {
		return nil, errUnseal
	}
	return dataKey, nil
}

func (r *rootKeys) open(key, purpose string, sealed []byte) ([]byte, error) {
	v, err := parseSealed(sealed)
	if err == nil && v.purpose != purpose {
		err = errUnseal
	}
	if err != nil {
		return nil, fmt.Errorf("unseal %s: %w", purpose, err)
	}
	dataKey, err := r.unwrap(key, v)
	if err != nil {
		return nil, fmt.Errorf("unseal %s: %w", purpose, err)
	}
	aead, err := newGCM(dataKey)
	if err != nil {
		return nil, fmt.Errorf("unseal %s: %w", purpose, err)
	}
	value, err := aead.Open(nil, nil, v.body, place(key, purpose))
	if err != nil {
		return nil, fmt.Errorf("unseal %s: %w", purpose, errUnseal)
	}
	return value, nil
}

// isSealed tells a sealed value from every other value of the store.
func isSealed(value []byte) bool { return len(value) > 0 && value[0] == sealVersion }

// rewrap is a sealed value under the current root key; false: it is under that
// already. What is sealed in it is not opened.
func (r *rootKeys) rewrap(key string, sealed []byte) (anew []byte, changed bool, err error) {
	v, err := parseSealed(sealed)
	if err != nil {
		return nil, false, fmt.Errorf("seal %s anew: %w", key, err)
	}
	if v.root == r.current {
		return sealed, false, nil
	}
	dataKey, err := r.unwrap(key, v)
	if err != nil {
		return nil, false, fmt.Errorf("seal %s anew: %w", key, err)
	}
	out := sealedHead(r.current, v.purpose, len(v.body))
	out = r.keys[r.current].aead.Seal(out, nil, dataKey, place(key, v.purpose))
	return append(out, v.body...), true, nil
}
