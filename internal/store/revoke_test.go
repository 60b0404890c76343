package store

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/fairlead/fairlead/internal/iam"
)

// TestWatchRevocations: a deleted key is told of once the cache has forgotten
// it.
func TestWatchRevocations(t *testing.T) {
	s := open(t, Config{})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	told := make(chan string, 4)
	ended := make(chan error, 1)
	go func() {
		ended <- s.WatchRevocations(ctx, func(id string) {
			if _, err := s.Key(ctx, id); !errors.Is(err, iam.ErrUnknownKey) {
				t.Errorf("key %s is revoked and still known: %v", id, err)
			}
			told <- id
		})
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for watching := 0; watching == 0 && ctx.Err() == nil; <-tick.C {
		s.cache.mu.RLock()
		watching = len(s.cache.keyWatchers)
		s.cache.mu.RUnlock()
	}
	kept, err := s.CreateProxyKey(ctx, account, "mesh/m/virtualNode/kept")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		k, err := s.CreateProxyKey(ctx, account, "mesh/m/virtualNode/n")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.DeleteProxyKey(ctx, k.ID); err != nil {
			t.Fatal(err)
		}
		select {
		case id := <-told:
			if id != k.ID || id == kept.ID {
				t.Errorf("told of %s, want %s", id, k.ID)
			}
		case <-ctx.Done():
			t.Fatal("nobody is told of a deleted key")
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
