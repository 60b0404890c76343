package store

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A derived key is the same after a restart and on every server of a store, and
// another for each purpose, store and key-encryption key.
func TestDeriveKey(t *testing.T) {
	derive := func(s *Store, purpose string) []byte {
		t.Helper()
		key, err := s.DeriveKey(purpose)
		if err != nil {
			t.Fatal(err)
		}
		if len(key) != dataKeySize {
			t.Errorf("key for %s has %d bytes", purpose, len(key))
		}
		return key
	}
	dir := t.TempDir()
	s := open(t, Config{DataDir: dir})
	first, other := derive(s, "a"), derive(s, "b")
	s.Close()
	if again := derive(open(t, Config{DataDir: dir}), "a"); !bytes.Equal(first, again) {
		t.Error("another key after a restart")
	}
	if bytes.Equal(first, other) {
		t.Error("one key for two purposes")
	}

	endpoint, _ := external(t, 0)
	kek := filepath.Join(t.TempDir(), "kek")
	if err := os.WriteFile(kek, []byte(strings.Repeat("0f", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	replicas := Config{Endpoints: []string{endpoint}, KEKFile: kek}
	one, two := derive(open(t, replicas), "a"), derive(open(t, replicas), "a")
	if !bytes.Equal(one, two) {
		t.Error("two servers of one store derive different keys")
	}
	// Another store with the same key-encryption key.
	if elsewhere := derive(open(t, Config{KEKFile: kek}), "a"); bytes.Equal(one, elsewhere) {
		t.Error("two stores derive one key")
	}
}
