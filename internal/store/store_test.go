package store

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
)

const account = "111122223333"

var demo = mesh.Name{Owner: account, Mesh: "demo"}

func bounded(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func open(t testing.TB, config Config) *Store {
	t.Helper()
	if config.DataDir == "" {
		config.DataDir = t.TempDir()
	}
	config.Account = account
	s, err := Open(bounded(t), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func nodeID(name string) mesh.ID { return mesh.ID{Kind: mesh.KindVirtualNode, Name: name} }

// put makes or changes a record, whatever was there.
func put[S any](t testing.TB, s *Store, name mesh.Name, id mesh.ID, spec S) int64 {
	t.Helper()
	revision, err := s.Write(bounded(t), func(tx *Tx) error {
		version := int64(1)
		switch old, err := Get[S](tx, name, id); {
		case err == nil:
			version = old.Version + 1
		case err != ErrNotFound:
			return err
		}
		return Put(tx, &mesh.Record[S]{Mesh: name, ID: id, UID: "u", Version: version, Spec: &spec})
	})
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

func TestOpenMakesWhatAFirstStartNeeds(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	start := time.Now()
	s := open(t, Config{DataDir: dir})
	t.Logf("open took %v", time.Since(start))
	for _, file := range []string{"credentials", "kek", "lock"} {
		info, err := os.Stat(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", file, info.Mode().Perm())
		}
	}
	credentials, err := os.ReadFile(filepath.Join(dir, "credentials"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(credentials), "[default]\naws_access_key_id = AKIA") {
		t.Errorf("credentials begin with %q", credentials[:30])
	}
	revision := put(t, s, demo, mesh.ID{Kind: mesh.KindMesh}, appmesh.MeshSpec{})
	if err := s.WaitFor(bounded(t), revision); err != nil {
		t.Fatal(err)
	}
	view, ok := s.View(demo)
	if !ok || view.Revision != revision || view.Mesh.Version != 1 {
		t.Errorf("view is %+v, want revision %d", view, revision)
	}
	start = time.Now()
	s.Close()
	t.Logf("close took %v", time.Since(start))
}
