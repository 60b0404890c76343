package store

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead/fairlead/internal/mesh"
)

// ShrinkAge is how long an accepted shrink holds.
const ShrinkAge = 10 * time.Minute

// AcceptShrink lets the proxies of a mesh endpoint lose what nothing explains,
// for ShrinkAge. Watchers of the mesh are told when it begins and when it ends.
// It returns when this server knows of it.
func (s *Store) AcceptShrink(ctx context.Context, name mesh.Name, id mesh.ID) error {
	path, err := normal(name, id).path()
	if err != nil {
		return err
	}
	if err := s.room(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	lease, err := s.client.Grant(ctx, int64(ShrinkAge/time.Second))
	if err != nil {
		return storeError("accept shrink", err)
	}
	at := s.now().UTC().Format(time.RFC3339)
	response, err := s.client.Put(ctx, dirShrink+path, at, clientv3.WithLease(lease.ID))
	if err != nil {
		return storeError(fmt.Sprintf("accept shrink of %s", id), err)
	}
	return s.WaitFor(ctx, response.Header.Revision)
}

// ShrinkAccepted tells, from the cache, whether a shrink was accepted in the
// last ShrinkAge.
func (s *Store) ShrinkAccepted(name mesh.Name, id mesh.ID) bool {
	s.cache.mu.RLock()
	defer s.cache.mu.RUnlock()
	return s.cache.shrinks[normal(name, id)]
}
