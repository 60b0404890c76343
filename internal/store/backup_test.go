package store

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead/fairlead/internal/kek"
	"github.com/fairlead/fairlead/internal/mesh"
)

func restore(t *testing.T, config Config, backup []byte) (Restored, error) {
	t.Helper()
	if config.DataDir == "" {
		config.DataDir = filepath.Join(t.TempDir(), "restored")
	}
	return Restore(bounded(t), config, bytes.NewReader(backup), func(int, int) {})
}

// filled is a store with some of everything, its backup, and a data directory
// that has nothing but its key-encryption key.
func filled(t *testing.T, nodes int) (s *Store, backup []byte, empty string) {
	t.Helper()
	s = open(t, Config{DataDir: t.TempDir()})
	put(t, s, demo, meshID, meshSpec{})
	for i := range nodes {
		put(t, s, demo, nodeID(fmt.Sprint("n", i)), nodeSpec{})
	}
	put(t, s, demo, nodeID("gone"), nodeSpec{})
	remove[nodeSpec](t, s, demo, nodeID("gone"))
	if err := s.AcceptShrink(bounded(t), demo, nodeID("a")); err != nil {
		t.Fatal(err)
	}
	for _, kind := range sealedKinds {
		kind.write(t, s)
	}
	var out bytes.Buffer
	if err := s.Backup(bounded(t), &out); err != nil {
		t.Fatal(err)
	}
	return s, out.Bytes(), emptyFor(t, s)
}

func emptyFor(t *testing.T, s *Store) string {
	t.Helper()
	dir := t.TempDir()
	content, err := os.ReadFile(filepath.Join(s.config.DataDir, "kek"))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "kek"), content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestBackupAndRestore(t *testing.T) {
	s, backup, dir := filled(t, 300)
	endpoint, _ := external(t, 0)
	for name, config := range map[string]Config{
		"embedded": {DataDir: dir},
		"external": {DataDir: t.TempDir(), Endpoints: []string{endpoint}, KEKFile: filepath.Join(dir, "kek")},
	} {
		t.Run(name, func(t *testing.T) {
			done, err := restore(t, config, backup)
			if err != nil {
				t.Fatal(err)
			}
			restored := open(t, config)
			if restored.Lineage() == s.Lineage() || restored.Lineage() != done.Lineage || time.Since(done.Made) > time.Minute {
				t.Errorf("lineage %s, restored as %+v from %s", restored.Lineage(), done, s.Lineage())
			}
			// All but what makes it another store is the same.
			was, is := everything(t, s), everything(t, restored)
			for _, other := range []map[string][]byte{was, is} {
				for key := range other {
					if notInBackups(key) {
						delete(other, key)
					}
				}
			}
			if diff := cmp.Diff(was, is); diff != "" || done.Keys != len(is) {
				t.Errorf("%d keys restored (-was +is):\n%s", done.Keys, diff)
			}
			before, _ := s.View(demo)
			after, ok := restored.View(demo)
			if !ok || len(after.VirtualNodes) != 300 || after.Revision <= 0 || len(before.VirtualNodes) != len(after.VirtualNodes) {
				t.Fatalf("view of %d nodes at %d", len(after.VirtualNodes), after.Revision)
			}
			for name, node := range after.VirtualNodes {
				if c, ok := restored.Change(demo, mesh.ID{Kind: mesh.KindVirtualNode, Name: name}); !ok || c.Revision != node.Revision {
					t.Errorf("record %s of revision %d has change %+v", name, node.Revision, c)
				}
			}
			if c, ok := restored.Change(demo, nodeID("gone")); !ok || c.Op != OpDelete {
				t.Errorf("the tombstone is %+v", c)
			}
			if restored.ShrinkAccepted(demo, nodeID("a")) {
				t.Error("a shrink that was accepted of the old store is accepted of the new one")
			}
			for purpose, kind := range sealedKinds {
				if err := kind.read(t, restored, kind.write(t, restored)); err != nil {
					t.Errorf("%s: %v", purpose, err)
				}
			}
			if one, two := derived(t, s), derived(t, restored); bytes.Equal(one, two) {
				t.Error("two stores derive one key")
			}
			if _, err := restore(t, config, backup); !errors.Is(err, ErrLocked) {
				t.Errorf("restored over it: %v", err)
			}
			restored.Close()
			if _, err := restore(t, config, backup); !errors.Is(err, ErrNotEmpty) {
				t.Errorf("restored over it: %v", err)
			}
		})
	}
}

func derived(t *testing.T, s *Store) []byte {
	t.Helper()
	key, err := s.DeriveKey("x")
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestBackupOfAnotherKeyIsRefused, and of none; nothing is written.
func TestBackupOfAnotherKeyIsRefused(t *testing.T) {
	_, backup, _ := filled(t, 1)
	for name, test := range map[string]struct {
		config func(dir string) Config
		want   string
	}{
		"another key": {func(dir string) Config { return Config{DataDir: dir, KEKFile: kekFile(t, 3)} }, "made with another key"},
		"a passphrase": {func(dir string) Config {
			return Config{DataDir: dir, KEK: passphrase(t, "correct horse battery staple")}
		}, "made with another key"},
		"no key": {func(dir string) Config { return Config{DataDir: dir} }, "is missing: put the one there"},
	} {
		dir := t.TempDir()
		if _, err := restore(t, test.config(dir), backup); !errors.Is(err, ErrWrongKEK) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
		onlyLock(t, dir)
	}
}

func onlyLock(t *testing.T, dir string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.Name() != "lock" && f.Name() != "kek" {
			t.Errorf("%s was written", f.Name())
		}
	}
}

// TestSpoiltBackupIsRefused: one bit, or one byte less or more, anywhere.
func TestSpoiltBackupIsRefused(t *testing.T) {
	s, backup, dir := filled(t, 700)
	config := Config{DataDir: dir}
	refused := func(what string, spoilt []byte) {
		t.Helper()
		if _, err := restore(t, config, spoilt); !errors.Is(err, ErrBackup) && !errors.Is(err, ErrWrongKEK) && !errors.Is(err, ErrNewerSchema) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for at := 0; at < len(backup); at += 1 + at/10 {
		spoilt := bytes.Clone(backup)
		spoilt[at] ^= 4
		refused(fmt.Sprintf("byte %d altered", at), spoilt)
		refused(fmt.Sprintf("cut before byte %d", at), backup[:at])
	}
	refused("longer", append(bytes.Clone(backup), 0))
	refused("twice", append(bytes.Clone(backup), backup...))
	var second bytes.Buffer
	if err := s.Backup(bounded(t), &second); err != nil {
		t.Fatal(err)
	}
	refused("put together from two of the same store", append(bytes.Clone(second.Bytes()[:len(backup)/2]), backup[len(backup)/2:]...))
	// Whole chunks of it, in another order: the first one twice.
	head := len(archiveMagic) + 4 + int(backup[len(archiveMagic)+2])<<8 + int(backup[len(archiveMagic)+3])
	chunk := 4 + chunkSize + 16
	if len(backup) < head+2*chunk {
		t.Fatalf("the backup has %d bytes, too few for this test", len(backup))
	}
	refused("a chunk twice", append(bytes.Clone(backup[:head+chunk]), backup[head:]...))
	refused("without its first chunk", append(bytes.Clone(backup[:head]), backup[head+chunk:]...))
	refused("only its first chunk", backup[:head+chunk])
	onlyLock(t, dir)
	if _, err := restore(t, config, backup); err != nil {
		t.Errorf("as it was: %v", err)
	}
}

// TestNoSecretIsInABackup looks for keys and secrets in every form.
func TestNoSecretIsInABackup(t *testing.T) {
	s, backup, dir := filled(t, 10)
	key, err := kek.File{Path: filepath.Join(dir, "kek")}.Read()
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string][]byte{"the key-encryption key": key, "the derivation key": s.derivation, "an object's secret": []byte("secret of one")}
	for _, root := range s.seal.roots.Load().keys {
		secrets["a root key"] = root.secret
	}
	for id, k := range s.cache.keys {
		secrets["access key "+id] = []byte(k.Secret.Reveal())
	}
	// Not in the file, and not in what it holds, which is authentic but for the
	// eyes of whoever has the key-encryption key.
	inside := bytes.Clone(backup)
	in, err := openArchive(bytes.NewReader(backup), func(h archiveHeader) ([]byte, error) { return secrets["a root key"], nil })
	if err != nil {
		t.Fatal(err)
	}
	for records := 0; ; records++ {
		r, err := in.next()
		if errors.Is(err, io.EOF) && records > 10 {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		inside = append(append(inside, r.key...), r.value...)
	}
	for what, secret := range secrets {
		for _, form := range []string{string(secret), hex.EncodeToString(secret), base64.StdEncoding.EncodeToString(secret), base64.RawURLEncoding.EncodeToString(secret)} {
			if bytes.Contains(inside, []byte(form)) {
				t.Errorf("%s is in the backup", what)
			}
		}
	}
}

// TestBackupIsOfOneRevision: what is written while a backup is read is not in it,
// or all of it is.
func TestBackupIsOfOneRevision(t *testing.T) {
	s, _, dir := filled(t, pageSize/2+100) // two keys each: more than a page
	w := &writingWriter{write: func(i int) { put(t, s, demo, nodeID(fmt.Sprint("later", i)), nodeSpec{}) }}
	if err := s.Backup(bounded(t), w); err != nil {
		t.Fatal(err)
	}
	if w.writes < 3 {
		t.Fatalf("the backup came in %d pieces", w.writes)
	}
	if _, err := restore(t, Config{DataDir: dir}, w.Bytes()); err != nil {
		t.Fatal(err)
	}
	view, _ := open(t, Config{DataDir: dir}).View(demo)
	for name := range view.VirtualNodes {
		if strings.HasPrefix(name, "later") {
			t.Errorf("%s was written after the backup began", name)
		}
	}
}

// writingWriter changes the store at each piece of a backup.
type writingWriter struct {
	bytes.Buffer
	write  func(i int)
	writes int
}

func (w *writingWriter) Write(p []byte) (int, error) {
	w.write(w.writes)
	w.writes++
	return w.Buffer.Write(p)
}

// TestInterruptedBackup: a writer that fails ends it, and what it got is no backup.
func TestInterruptedBackup(t *testing.T) {
	s, whole, dir := filled(t, 300)
	for _, room := range []int{0, 10, len(whole) / 2, len(whole) - 1} {
		w := &fullWriter{room: room}
		if err := s.Backup(bounded(t), w); !errors.Is(err, errFull) {
			t.Errorf("room for %d bytes: %v", room, err)
		}
		if _, err := restore(t, Config{DataDir: dir}, w.Bytes()); !errors.Is(err, ErrBackup) {
			t.Errorf("restored from %d bytes: %v", room, err)
		}
	}
}

var errFull = errors.New("no room")

type fullWriter struct {
	bytes.Buffer
	room int
}

func (w *fullWriter) Write(p []byte) (int, error) {
	if len(p) > w.room {
		n, _ := w.Buffer.Write(p[:w.room])
		w.room = 0
		return n, errFull
	}
	w.room -= len(p)
	return w.Buffer.Write(p)
}

// A restore is killed with SIGKILL at any moment of it. There is no store then,
// and the server says so; or there is all of it. Running it again makes it.
func TestRestoreCanBeKilled(t *testing.T) {
	s, backup, _ := filled(t, killedNodes)
	for _, kind := range []string{"embedded", "external"} {
		t.Run(kind, func(t *testing.T) {
			states := map[string]int{}
			takes := time.Hour // the first is not killed
			for i := 0; i < 15 || states["half"] == 0; i++ {
				dir := emptyFor(t, s)
				files := map[string][]byte{"backup": backup}
				if kind == "external" {
					endpoint, _ := external(t, 0)
					files["endpoint"] = []byte(endpoint)
				}
				for name, content := range files {
					if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				began := time.Now()
				if i == 0 {
					killedAt(t, envRestore, dir, takes)
					takes = time.Since(began)
				} else {
					killedAt(t, envRestore, dir, rand.N(takes))
				}
				states[afterKill(t, childConfig(dir))]++
			}
			t.Logf("states after kills: %v", states)
		})
	}
}

const killedNodes = 1500

// afterKill tells what a killed restore has left: nothing, half, or the whole. A
// server refuses half, and running the restore again makes the whole of it.
func afterKill(t *testing.T, config Config) (state string) {
	t.Helper()
	if state = leftBy(t, config); state == "half" {
		if s, err := Open(bounded(t), config); !errors.Is(err, ErrHalfRestored) || !strings.Contains(err.Error(), "run 'fairlead restore' again") {
			t.Fatalf("a server takes half of a store: %v, %v", s, err)
		}
	}
	if state != "whole" {
		if err := restoreFile(bounded(t), config); err != nil {
			t.Fatalf("after %s: %v", state, err)
		}
	}
	s := open(t, config)
	defer s.Close()
	if view, ok := s.View(demo); !ok || len(view.VirtualNodes) != killedNodes {
		t.Errorf("%s: the store is not whole", state)
	}
	return state
}

func leftBy(t *testing.T, config Config) string {
	t.Helper()
	there := func(name string) bool {
		_, err := os.Stat(filepath.Join(config.DataDir, name))
		return err == nil
	}
	half, whole := there("etcd.restore"), there("etcd")
	if len(config.Endpoints) > 0 {
		s := newStore(config)
		client, end, err := s.reach(bounded(t))
		if err != nil {
			t.Fatal(err)
		}
		defer end()
		response, err := client.Get(bounded(t), keyRoot+"meta/", clientv3.WithPrefix())
		if err != nil {
			t.Fatal(err)
		}
		for _, kv := range response.Kvs {
			half, whole = half || string(kv.Key) == keyRestore, whole || string(kv.Key) == keySchema
		}
	}
	switch {
	case whole && half:
		t.Error("there is a store, and half of one")
	case whole:
		return "whole"
	case half:
		return "half"
	}
	return "nothing"
}
