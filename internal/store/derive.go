package store

import (
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
)

const purposeDerive = "derivation"

// DeriveKey returns a key of 32 bytes for one purpose. All servers of a store
// derive the same one, today, after a restart and after a rotation of the
// key-encryption key; stores and purposes never share one. Whoever had the old
// key-encryption key and the store has it for ever: it is for what opens nothing,
// such as paging tokens. It must not be logged.
func (s *Store) DeriveKey(purpose string) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, s.derivation, nil, "fairlead derived v2\x00"+s.lineage+"\x00"+purpose, dataKeySize)
	if err != nil {
		return nil, fmt.Errorf("derive key for %s: %w", purpose, err)
	}
	return key, nil
}
