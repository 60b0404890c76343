package store

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/internal/mesh"
)

// watcher remembers which meshes its owner has yet to look at. However slow the
// owner is, that is at most one entry per mesh.
type watcher struct {
	pending map[mesh.Name]bool // guarded by cache.mu
	wake    chan struct{}      // capacity 1
}

func (w *watcher) tell(names map[mesh.Name]bool) {
	if len(names) == 0 {
		return
	}
	maps.Copy(w.pending, names)
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Watch calls deliver with the latest view of every mesh, then again with that
// of each mesh that changes, until ctx ends; it returns ctx's error. A mesh that
// is gone is delivered as nil. Views between two deliveries are left out. A
// mesh is also delivered, with the same view, when a shrink in it is accepted
// or no longer accepted. deliver is called from this goroutine alone.
func (s *Store) Watch(ctx context.Context, deliver func(name mesh.Name, view *mesh.View)) error {
	c := s.cache
	w := &watcher{pending: map[mesh.Name]bool{}, wake: make(chan struct{}, 1)}
	c.mu.Lock()
	c.watchers[w] = true
	for name := range c.views {
		w.tell(map[mesh.Name]bool{name: true})
	}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.watchers, w)
		c.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.wake:
		}
		type update struct {
			name mesh.Name
			view *mesh.View
		}
		var updates []update
		c.mu.Lock()
		for name := range w.pending {
			updates = append(updates, update{name, c.views[name]})
		}
		clear(w.pending)
		c.mu.Unlock()
		for _, u := range updates {
			deliver(u.name, u.view)
		}
	}
}

// View is the latest view of a mesh in the cache; false if there is no such mesh.
func (s *Store) View(name mesh.Name) (*mesh.View, bool) {
	s.cache.mu.RLock()
	defer s.cache.mu.RUnlock()
	view, ok := s.cache.views[name]
	return view, ok
}

// Meshes are the names of all meshes in the cache, by owner and name.
func (s *Store) Meshes() []mesh.Name {
	s.cache.mu.RLock()
	defer s.cache.mu.RUnlock()
	return slices.SortedFunc(maps.Keys(s.cache.views), func(a, b mesh.Name) int {
		if a.Owner != b.Owner {
			return strings.Compare(a.Owner, b.Owner)
		}
		return strings.Compare(a.Mesh, b.Mesh)
	})
}

// Ready is closed when the cache has been loaded. Open waits for that, so that
// an open store is always ready.
func (s *Store) Ready() <-chan struct{} { return s.cache.ready }

// Revision is how far the cache has come: every write up to it is in the views.
func (s *Store) Revision() int64 {
	s.cache.mu.RLock()
	defer s.cache.mu.RUnlock()
	return s.cache.revision
}

// WaitFor waits until the cache has come to a revision that Write returned, or
// ctx ends, which is ErrUnavailable.
func (s *Store) WaitFor(ctx context.Context, revision int64) error {
	for {
		s.cache.mu.RLock()
		reached, advanced := s.cache.revision >= revision, s.cache.advanced
		s.cache.mu.RUnlock()
		if reached {
			return nil
		}
		select {
		case <-advanced:
		case <-ctx.Done():
			return storeError("wait for the cache", ctx.Err())
		}
	}
}
