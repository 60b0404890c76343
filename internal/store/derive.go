package store

import (
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
)

// DeriveKey returns a key of 32 bytes for one purpose. All servers of a store
// derive the same one, today and after a restart; stores, purposes and
// key-encryption keys never share one. It must not be logged.
func (s *Store) DeriveKey(purpose string) ([]byte, error) {
	key, err := hkdf.Expand(sha256.New, s.seal.root, "fairlead derived v1\x00"+s.lineage+"\x00"+purpose, dataKeySize)
	if err != nil {
		return nil, fmt.Errorf("derive key for %s: %w", purpose, err)
	}
	return key, nil
}
