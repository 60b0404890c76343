package store

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"

	"github.com/fairlead/fairlead/internal/kek"
)

// keyring is how the root keys lie in the store, under keyKeyring: one, or two
// while a rotation of the key-encryption key is under way, the older one first.
// Whatever is sealed is written on the condition that the keyring is as it was
// when it was sealed: once a keyring with a new root key is written, nothing more
// comes in under the old one, whichever server writes.
type keyring struct {
	Roots []wrappedRoot `json:"roots"`
}

// wrappedRoot is a root key, wrapped by the key-encryption key of its time.
type wrappedRoot struct {
	ID      uint32      `json:"id"` // random
	Wrapped kek.Wrapped `json:"wrapped"`
	// Bridge is the root key sealed with the other one of a rotation, so that who
	// has either key-encryption key has both root keys.
	Bridge []byte `json:"bridge,omitzero"`
}

const purposeBridge = "root key"

// bridgePlace is where a bridge would lie if it had a key of its own.
func bridgePlace(lineage string, id uint32) string {
	return fmt.Sprintf("%s/%s/%08x", keyKeyring, lineage, id)
}

func parseKeyring(value []byte) (keyring, error) {
	var k keyring
	if err := json.Unmarshal(value, &k); err != nil {
		return k, fmt.Errorf("read keyring: %w", err)
	}
	if len(k.Roots) < 1 || len(k.Roots) > 2 || len(k.Roots) == 2 && k.Roots[0].ID == k.Roots[1].ID {
		return k, errors.New("read keyring: it does not have one root key, or two with an id each")
	}
	return k, nil
}

func (k keyring) text() ([]byte, error) {
	text, err := json.Marshal(k, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("write keyring: %w", err)
	}
	return text, nil
}

// newKeyring has one new root key.
func newKeyring(ctx context.Context, by kek.Key, lineage string) (k keyring, root []byte, err error) {
	root = newRoot()
	wrapped, err := by.Wrap(ctx, root, lineage)
	if err != nil {
		return k, nil, fmt.Errorf("make a root key: %w", err)
	}
	return keyring{Roots: []wrappedRoot{{ID: newRootID(), Wrapped: wrapped}}}, root, nil
}

// newest is the root key that seals.
func (k keyring) newest() wrappedRoot { return k.Roots[len(k.Roots)-1] }

// newRootID is random, so that a store that was put back to an older state does
// not use an id again.
func newRootID() uint32 {
	var id [4]byte
	rand.Read(id[:]) // never fails
	return binary.BigEndian.Uint32(id[:])
}

func newRoot() []byte {
	root := make([]byte, dataKeySize)
	rand.Read(root) // never fails
	return root
}

// bridge seals each of two root keys with the other one.
func (k keyring) bridge(lineage string, secrets map[uint32][]byte) error {
	for i := range k.Roots {
		mine, other := k.Roots[i].ID, k.Roots[1-i].ID
		by, err := newSealer(other, secrets[other])
		if err != nil {
			return err
		}
		if k.Roots[i].Bridge, err = by.seal(bridgePlace(lineage, mine), purposeBridge, secrets[mine]); err != nil {
			return err
		}
	}
	return nil
}

// unwrapped are the root keys of a keyring, by their ids. What is known of
// them already needs no key-encryption key, nor does what is bridged to it.
func (k keyring) unwrapped(ctx context.Context, by kek.Key, lineage string, known map[uint32]rootKey) (map[uint32][]byte, error) {
	secrets := map[uint32][]byte{}
	for _, root := range k.Roots {
		if key, ok := known[root.ID]; ok {
			secrets[root.ID] = key.secret
		}
	}
	if len(secrets) == 0 {
		var faults []error
		for _, root := range slices.Backward(k.Roots) {
			secret, err := by.Unwrap(ctx, root.Wrapped, lineage)
			if err == nil {
				secrets[root.ID] = secret
				break
			}
			faults = append(faults, err)
		}
		if len(secrets) == 0 {
			return nil, errors.Join(faults...)
		}
	}
	for i, root := range k.Roots {
		if secrets[root.ID] != nil {
			continue
		}
		other := k.Roots[1-i].ID
		across, err := newSealer(other, secrets[other])
		if err != nil {
			return nil, err
		}
		if secrets[root.ID], err = across.open(bridgePlace(lineage, root.ID), purposeBridge, root.Bridge); err != nil {
			return nil, fmt.Errorf("read keyring: %w", err)
		}
	}
	return secrets, nil
}

// adopt takes the keyring of a revision. It is called by one goroutine at a time.
func (s *sealer) adopt(ctx context.Context, value []byte, revision int64) error {
	k, err := parseKeyring(value)
	if err != nil {
		return err
	}
	var known map[uint32]rootKey
	if before := s.roots.Load(); before != nil {
		known = before.keys
	}
	secrets, err := k.unwrapped(ctx, s.kek, s.lineage, known)
	if err != nil {
		return err
	}
	roots, err := newRootKeys(revision, k.newest().ID, secrets)
	if err != nil {
		return err
	}
	s.roots.Store(roots)
	return nil
}
