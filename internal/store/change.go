package store

import (
	"context"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead/fairlead/internal/mesh"
)

// Op is what a change did.
type Op string

// The operations of a change.
const (
	OpCreate Op = "create"
	OpUpdate Op = "update"
	OpDelete Op = "delete" // the change is the record's tombstone
)

// TombstoneAge is how long a deletion is remembered. A proxy that was away for
// longer finds its removals unexplained, and keeps what it has until someone
// accepts the shrink.
const TombstoneAge = 30 * 24 * time.Hour

const pruneEvery = time.Hour

// Change is the newest change of one record. It is written in the transaction
// that makes the change, and stays when the record is deleted.
type Change struct {
	Op       Op        `json:"op"`
	Version  int64     `json:"version"` // of the record; of a deletion, the last one
	Time     time.Time `json:"time"`
	Actor    string    `json:"actor,omitzero"` // ARN of who asked for it
	Revision int64     `json:"-"`              // of the store, when the change was made
}

func decodeChange(value []byte, revision int64) (*Change, error) {
	c := &Change{Revision: revision}
	if err := json.Unmarshal(value, c); err != nil {
		return nil, fmt.Errorf("read change record: %w", err)
	}
	return c, nil
}

// Change returns the newest change of a record, from the cache. There is none
// if the record never was, or was deleted longer than TombstoneAge ago.
func (s *Store) Change(name mesh.Name, id mesh.ID) (Change, bool) {
	s.cache.mu.RLock()
	defer s.cache.mu.RUnlock()
	c, ok := s.cache.changes[normal(name, id)]
	if !ok {
		return Change{}, false
	}
	return *c, true
}

// Deleted returns the revision of the deletion of a record that is gone, from
// the cache. A record that is there, or of which nothing is known, is not
// deleted.
func (s *Store) Deleted(name mesh.Name, id mesh.ID) (revision int64, ok bool) {
	c, ok := s.Change(name, id)
	if !ok || c.Op != OpDelete {
		return 0, false
	}
	return c.Revision, true
}

func (s *Store) pruneLoop(ctx context.Context) {
	ticker := time.NewTicker(pruneEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := s.Prune(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("old tombstones stay", "error", err)
		}
	}
}

// Prune forgets deletions older than TombstoneAge. The store does it by itself
// every hour. A mesh that is there keeps its newest change, because that is
// the revision of its view, which must not go back.
func (s *Store) Prune(ctx context.Context) error {
	for r, revision := range s.cache.tombstonesBefore(s.now().Add(-TombstoneAge)) {
		path, err := r.path()
		if err != nil {
			return fmt.Errorf("prune tombstones: %w", err)
		}
		key := dirChange + path
		call, cancel := context.WithTimeout(ctx, callTimeout)
		_, err = s.client.Txn(call).
			If(clientv3.Compare(clientv3.ModRevision(key), "=", revision)).
			Then(clientv3.OpDelete(key)).Commit()
		cancel()
		if err != nil {
			return storeError("prune tombstones", err)
		}
	}
	return nil
}

func (c *cache) tombstonesBefore(before time.Time) map[resource]int64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	old := map[resource]int64{}
	for r, change := range c.changes {
		view := c.views[r.mesh]
		newest := view != nil && view.Revision == change.Revision
		if change.Op == OpDelete && change.Time.Before(before) && !newest {
			old[r] = change.Revision
		}
	}
	return old
}
