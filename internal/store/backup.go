package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// notInBackups are the keys that a backup has in its header or that a restored
// store makes anew. What lies under a lease is left out too: it is of a moment.
func notInBackups(key string) bool {
	switch key {
	case keySchema, keyLineage, keyKeyring, keyRestore:
		return true
	}
	return strings.HasPrefix(key, dirShrink)
}

// Backup writes the store of one revision, encrypted and authenticated by a key
// that the key-encryption key opens, which is not in it. Secrets are sealed in it
// once more as they are in the store. Nothing is written before the store was
// read once; an error after that means that what was written is not whole, which
// whoever reads it will find. ErrRotating while there are two key-encryption keys.
func (s *Store) Backup(ctx context.Context, w io.Writer) error {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	response, err := s.client.Get(call, keyKeyring)
	if err != nil {
		return storeError("back up the store", err)
	}
	if len(response.Kvs) == 0 {
		return fmt.Errorf("back up the store: it has lost its keyring: %w", ErrUnavailable)
	}
	revision := response.Header.Revision // everything that was acknowledged is in it
	k, err := parseKeyring(response.Kvs[0].Value)
	if err != nil {
		return err
	}
	if len(k.Roots) != 1 {
		return fmt.Errorf("back up the store: %w: end it first", ErrRotating)
	}
	roots := s.seal.roots.Load()
	root, known := roots.keys[k.newest().ID]
	if !known {
		return fmt.Errorf("back up the store: %w", errRoot)
	}
	out, err := newArchive(w, archiveHeader{Schema: schema, Lineage: s.lineage, Revision: revision, Made: s.now().UTC(), Keyring: k}, root.secret)
	if err != nil {
		return fmt.Errorf("back up the store: %w", err)
	}
	err = s.scan(ctx, revision, func(kv *mvccpb.KeyValue) error {
		if kv.Lease != 0 || notInBackups(string(kv.Key)) {
			return nil
		}
		return out.put(archived{key: string(kv.Key), revision: kv.ModRevision, value: kv.Value})
	})
	if errors.Is(err, rpctypes.ErrCompacted) {
		return fmt.Errorf("back up the store: the backup was taken too slowly, its revision %d is compacted: %w", revision, err)
	}
	if err != nil {
		return fmt.Errorf("back up the store: %w", err)
	}
	return out.close()
}
