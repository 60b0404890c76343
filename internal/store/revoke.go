package store

import (
	"context"
	"maps"
	"slices"
)

// keyWatcher remembers which deleted keys its owner has yet to hear of.
type keyWatcher struct {
	pending map[string]bool // guarded by cache.mu
	wake    chan struct{}   // capacity 1
}

// WatchRevocations calls revoked with each access key that is deleted, on this
// server or another, until ctx ends; it returns ctx's error. revoked is called
// from this goroutine alone, after Key has begun to return iam.ErrUnknownKey.
func (s *Store) WatchRevocations(ctx context.Context, revoked func(accessKeyID string)) error {
	c := s.cache
	w := &keyWatcher{pending: map[string]bool{}, wake: make(chan struct{}, 1)}
	c.mu.Lock()
	c.keyWatchers[w] = true
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.keyWatchers, w)
		c.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.wake:
		}
		c.mu.Lock()
		ids := slices.Sorted(maps.Keys(w.pending))
		clear(w.pending)
		c.mu.Unlock()
		for _, id := range ids {
			revoked(id)
		}
	}
}

// forgetKey takes a key out of the cache. It is called with the lock held.
func (c *cache) forgetKey(id string) {
	if _, known := c.keys[id]; !known {
		return
	}
	delete(c.keys, id)
	for w := range c.keyWatchers {
		w.pending[id] = true
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}
