package store

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead/fairlead/internal/iam"
	"github.com/fairlead/fairlead/internal/kek"
)

func passphrase(t testing.TB, text string) kek.Key {
	t.Helper()
	path := filepath.Join(t.TempDir(), "passphrase")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := kek.Parse("passphrase:" + path)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sealedKinds writes one of each kind of sealed value, by its purpose, and tells
// whether it can be read.
var sealedKinds = map[string]struct {
	write func(*testing.T, *Store) (key string)
	read  func(*testing.T, *Store, string) error
}{
	purposeAccessKey: {
		func(t *testing.T, s *Store) string {
			k, err := s.CreateProxyKey(bounded(t), account, "mesh/demo/virtualNode/a")
			if err != nil {
				t.Fatal(err)
			}
			return dirAccessKey + k.ID
		},
		func(t *testing.T, s *Store, key string) error {
			_, _, err := openKey(s.seal, key, valueOf(t, s, key))
			return err
		},
	},
	purposeObject: {
		func(t *testing.T, s *Store) string {
			putThing(t, s, Place{"thing", "one"}, &thing{N: 1}, []byte("secret of one"))
			return dirSecret + "thing/one"
		},
		func(t *testing.T, s *Store, _ string) error {
			_, err := s.Read(bounded(t), func(tx *Tx) error {
				secret, err := tx.Secret(Place{"thing", "one"})
				if err == nil && string(secret) != "secret of one" {
					t.Errorf("the secret is %q", secret)
				}
				return err
			})
			return err
		},
	},
	purposeDerive: {
		func(*testing.T, *Store) string { return keyDerive }, // the first start has made it
		func(t *testing.T, s *Store, key string) error {
			_, err := s.seal.open(key, purposeDerive, valueOf(t, s, key))
			return err
		},
	},
}

func valueOf(t *testing.T, s *Store, key string) []byte {
	t.Helper()
	response, err := s.client.Get(bounded(t), key)
	if err != nil || len(response.Kvs) != 1 {
		t.Fatalf("read %s: %v", key, err)
	}
	return response.Kvs[0].Value
}

// declared are the purposes that the code of this package has, and the functions
// that seal.
func declared(t *testing.T) (purposes, sealing []string) {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			ast.Inspect(d, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.ValueSpec:
					if strings.HasPrefix(n.Names[0].Name, "purpose") && len(n.Values) == 1 {
						text, err := strconv.Unquote(n.Values[0].(*ast.BasicLit).Value)
						if err != nil {
							t.Fatal(err)
						}
						purposes = append(purposes, text)
					}
				case *ast.CallExpr:
					if f, ok := n.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "seal" {
						sealing = append(sealing, d.(*ast.FuncDecl).Name.Name)
					}
				}
				return true
			})
		}
	}
	slices.Sort(purposes)
	slices.Sort(sealing)
	return purposes, slices.Compact(sealing)
}

// TestEverySealedKindIsKnown: whoever seals something new adds it to sealedKinds,
// and writes it by Tx.putSealed, which makes the keyring a condition.
func TestEverySealedKindIsKnown(t *testing.T) {
	purposes, sealing := declared(t)
	want := []string{purposeSession, purposeBridge} // these do not lie at a key of their own
	for purpose := range sealedKinds {
		want = append(want, purpose)
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, purposes); diff != "" {
		t.Errorf("kinds of sealed values (-tested +in the code):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"CreateSession", "bridge", "convert", "found", "putSealed", "seal"}, sealing); diff != "" {
		t.Errorf("functions that seal (-known +in the code): write secrets by Tx.putSealed\n%s", diff)
	}
}

// everything reads all keys of the store at this moment.
func everything(t *testing.T, s *Store) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	if err := s.scan(bounded(t), 0, func(kv *mvccpb.KeyValue) error {
		all[string(kv.Key)] = kv.Value
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// TestRotate goes from one provider to another and back, with one of each kind.
func TestRotate(t *testing.T) {
	dir := t.TempDir()
	config := Config{DataDir: dir}
	s := open(t, config)
	put(t, s, demo, meshID, meshSpec{})
	at := map[string]string{}
	for purpose, kind := range sealedKinds {
		at[purpose] = kind.write(t, s)
	}
	derived, err := s.DeriveKey("x")
	if err != nil {
		t.Fatal(err)
	}
	session, token := sessionOf(t, s)
	s.Close()

	first := kek.Key(kek.File{Path: filepath.Join(dir, "kek")})
	keys := []kek.Key{first, passphrase(t, "correct horse battery staple"), kek.File{Path: kekFile(t, 9)}, passphrase(t, "another one, as long")}
	for i, to := range keys[1:] {
		config.KEK = keys[i]
		before := open(t, config)
		roots := before.seal.roots.Load()
		was := everything(t, before)
		before.Close()
		counted := 0
		done, err := RotateKEK(bounded(t), config, Rotation{To: to, Progress: func(n int) { counted = n }})
		if err != nil || !done.Done || len(done.Lost) > 0 || done.Secrets != len(sealedKinds)+1 || counted != done.Secrets {
			t.Fatalf("rotate to %s: %+v, %d counted, %v", to, done, counted, err)
		}
		// The old key is of no use, in no form.
		if _, err := Open(bounded(t), config); !errors.Is(err, ErrWrongKEK) || !strings.Contains(err.Error(), keys[i].String()) {
			t.Errorf("open with the old key: %v", err)
		}
		config.KEK = to
		s := open(t, config)
		for purpose, kind := range sealedKinds {
			if err := kind.read(t, s, at[purpose]); err != nil {
				t.Errorf("%s after rotating to %s: %v", purpose, to, err)
			}
		}
		now := everything(t, s)
		for key, value := range now {
			switch {
			case isSealed(value):
				if _, err := roots.open(key, "", value); err == nil || bytes.Equal(value, was[key]) {
					t.Errorf("%s is as it was", key)
				}
				v, err := parseSealed(value)
				if err != nil || v.root != s.seal.roots.Load().current {
					t.Errorf("%s is under root key %08x, %v", key, v.root, err)
				}
			case len(value) > 0 && value[0] < ' ':
				t.Errorf("%s begins as no value does: %x", key, value[:1])
			}
			old := []byte{byte(roots.current >> 24), byte(roots.current >> 16), byte(roots.current >> 8), byte(roots.current)}
			if bytes.Contains(value, old) {
				t.Errorf("%s still names the old root key", key)
			}
		}
		if again, err := s.DeriveKey("x"); err != nil || !bytes.Equal(again, derived) {
			t.Errorf("another derived key after a rotation: %v", err)
		}
		if _, err := s.SessionKey(bounded(t), session.ID, token); !errors.Is(err, iam.ErrUnknownKey) {
			t.Errorf("a session that was sealed by the old root key: %v", err)
		}
		s.Close()
	}
	// Once more the same: there is nothing to do.
	if done, err := RotateKEK(bounded(t), config, Rotation{To: config.KEK}); err != nil || !done.Done || done.Secrets != 0 {
		t.Errorf("rotate to the same key: %+v, %v", done, err)
	}
}

func sessionOf(t *testing.T, s *Store) (iam.Key, string) {
	t.Helper()
	parent := iam.Key{}
	for _, k := range s.cache.keys {
		parent = k
	}
	key, token, err := s.CreateSession(bounded(t), parent.ID, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.SessionKey(bounded(t), key.ID, token); err != nil {
		t.Fatal(err)
	}
	return key, token
}

func TestRotateRefuses(t *testing.T) {
	dir := t.TempDir()
	to := kek.File{Path: kekFile(t, 9)}
	config := Config{DataDir: dir}
	if _, err := RotateKEK(bounded(t), config, Rotation{To: to}); !errors.Is(err, ErrNotFound) {
		t.Errorf("without a store: %v", err)
	}
	s := open(t, config)
	if _, err := RotateKEK(bounded(t), config, Rotation{To: to}); !errors.Is(err, ErrLocked) {
		t.Errorf("while a server has it open: %v", err)
	}
	s.Close()
	wrong := Config{DataDir: dir, KEKFile: kekFile(t, 3)}
	if _, err := RotateKEK(bounded(t), wrong, Rotation{To: to}); !errors.Is(err, ErrWrongKEK) || !strings.Contains(err.Error(), wrong.KEKFile) {
		t.Errorf("with a wrong old key: %v", err)
	}
	if _, err := RotateKEK(bounded(t), config, Rotation{To: passphrase(t, "short")}); err == nil || !strings.Contains(err.Error(), "too short") {
		t.Errorf("to a short passphrase: %v", err)
	}
	if _, err := RotateKEK(bounded(t), config, Rotation{To: to, KeepOld: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := RotateKEK(bounded(t), config, Rotation{To: kek.File{Path: kekFile(t, 4)}}); !errors.Is(err, ErrRotating) {
		t.Errorf("to a third key: %v", err)
	}
	s = open(t, config)
	if err := s.Backup(bounded(t), new(bytes.Buffer)); !errors.Is(err, ErrRotating) {
		t.Errorf("backup meanwhile: %v", err)
	}
}

// TestRotateUnderLoad: servers of one etcd read and write while the key goes from
// one to another, and are restarted with the new one before the old one ends.
func TestRotateUnderLoad(t *testing.T) {
	endpoint, _ := external(t, 0)
	config := Config{Endpoints: []string{endpoint}, KEKFile: kekFile(t, 7)}
	to := passphrase(t, "correct horse battery staple")
	servers := []*Store{open(t, config), open(t, config)}
	ctx, stop := context.WithCancel(bounded(t))
	var group sync.WaitGroup
	var mu sync.Mutex
	written := map[string]string{}
	for i, s := range servers {
		group.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				place, secret := Place{"thing", fmt.Sprintf("%d-%d", i, n)}, fmt.Sprintf("secret %d of %d", n, i)
				_, err := s.Write(ctx, func(tx *Tx) error {
					if err := MakeObject(tx, place, &thing{N: n}); err != nil {
						return err
					}
					return tx.PutSecret(place, []byte(secret))
				})
				if err != nil && ctx.Err() == nil {
					t.Errorf("write: %v", err)
					return
				}
				if err == nil {
					mu.Lock()
					written[place[1]] = secret
					mu.Unlock()
				}
			}
		})
	}
	some := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(written)
	}
	grow := func(by int) {
		for from := some(); some() < from+by && !t.Failed(); {
			if err := servers[0].Ping(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	grow(300)
	done, err := RotateKEK(bounded(t), config, Rotation{To: to, KeepOld: true})
	if err != nil || done.Done {
		t.Fatalf("%+v, %v", done, err)
	}
	t.Logf("%d secrets sealed anew under load", done.Secrets)
	// Both keys open the store now.
	withNew := config
	withNew.KEK = to
	open(t, withNew).Close()
	open(t, config).Close()
	grow(100)
	if done, err = RotateKEK(bounded(t), config, Rotation{To: to}); err != nil || !done.Done {
		t.Fatalf("%+v, %v", done, err)
	}
	grow(100)
	stop()
	group.Wait()
	if _, err := Open(bounded(t), Config{DataDir: t.TempDir(), Endpoints: config.Endpoints, KEKFile: config.KEKFile}); !errors.Is(err, ErrWrongKEK) {
		t.Errorf("open with the old key: %v", err)
	}
	for _, s := range append(servers, open(t, withNew)) {
		for place, want := range written {
			if _, err := s.Read(bounded(t), func(tx *Tx) error {
				secret, err := tx.Secret(Place{"thing", place})
				if err == nil && string(secret) != want {
					t.Errorf("%s is %q, not %q", place, secret, want)
				}
				return err
			}); err != nil {
				t.Fatalf("%s: %v", place, err)
			}
		}
		if len(s.cache.keys) != 1 {
			t.Errorf("a server knows %d access keys, not 1", len(s.cache.keys))
		}
	}
	t.Logf("%d secrets were written meanwhile", len(written))
}

// A server that was cut off for a whole rotation keeps the access keys that it
// knows, and writes no secret that nobody could open.
func TestServerThatMissesARotation(t *testing.T) {
	endpoint, _ := external(t, 0)
	config := Config{Endpoints: []string{endpoint}, KEKFile: kekFile(t, 7)}
	to := kek.File{Path: kekFile(t, 9)}
	s := open(t, config)
	s.stop() // it hears nothing more
	s.tasks.Wait()
	for _, k := range []Rotation{{To: to}} {
		if done, err := RotateKEK(bounded(t), config, k); err != nil || !done.Done {
			t.Fatalf("%+v, %v", done, err)
		}
	}
	if err := s.cache.load(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if len(s.cache.keys) != 1 {
		t.Errorf("it knows %d access keys, not 1", len(s.cache.keys))
	}
	if _, err := s.CreateProxyKey(bounded(t), account, "mesh/demo/virtualNode/a"); !errors.Is(err, ErrConflict) {
		t.Errorf("it writes a secret: %v", err)
	}
	if err := s.Backup(bounded(t), new(bytes.Buffer)); !errors.Is(err, errRoot) {
		t.Errorf("it makes a backup: %v", err)
	}
	// The file at its place is replaced: it opens the keyring by that.
	content, err := os.ReadFile(to.Path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config.KEKFile, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.cache.load(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(bounded(t), func(tx *Tx) error { return tx.putSealed("/fairlead/test", purposeObject, nil) }); err != nil {
		t.Errorf("with the new key in its place: %v", err)
	}
}

// TestSwappedSecretsAreDetected: of each kind, two sealed values that somebody has
// swapped in etcd do not open.
func TestSwappedSecretsAreDetected(t *testing.T) {
	s := open(t, Config{})
	for purpose, kind := range sealedKinds {
		t.Run(purpose, func(t *testing.T) {
			key := kind.write(t, s)
			for other, kind := range sealedKinds {
				from := kind.write(t, s)
				if other == purpose && from == key {
					continue
				}
				right := valueOf(t, s, key)
				if _, err := s.client.Put(bounded(t), key, string(valueOf(t, s, from))); err != nil {
					t.Fatal(err)
				}
				if err := sealedKinds[purpose].read(t, s, key); !errors.Is(err, errUnseal) {
					t.Errorf("with the value of %s: %v", from, err)
				}
				if _, err := s.client.Put(bounded(t), key, string(right)); err != nil {
					t.Fatal(err)
				}
				if err := sealedKinds[purpose].read(t, s, key); err != nil {
					t.Errorf("with its own: %v", err)
				}
			}
		})
	}
	// And what opens with no root key does not hold up a rotation.
	dir := s.config.DataDir
	if _, err := s.client.Put(bounded(t), dirSecret+"thing/two", string(valueOf(t, s, dirSecret+"thing/one"))); err != nil {
		t.Fatal(err)
	}
	s.Close()
	done, err := RotateKEK(bounded(t), Config{DataDir: dir}, Rotation{})
	if diff := cmp.Diff([]string{dirSecret + "thing/two"}, done.Lost); err != nil || !done.Done || diff != "" {
		t.Errorf("%+v, %v\n%s", done, err, diff)
	}
	open(t, Config{DataDir: dir})
	if _, err := os.Stat(filepath.Join(dir, "kek.next")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the new file did not take the place of the old: %v", err)
	}
}

// A store of schema 1, as the version before this one wrote it.
func TestConvertSchema1(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Config{DataDir: dir})
	putThing(t, s, Place{"thing", "one"}, &thing{N: 1}, []byte("secret of one"))
	key, err := kek.File{Path: filepath.Join(dir, "kek")}.Read()
	if err != nil {
		t.Fatal(err)
	}
	ops := []clientv3.Op{
		clientv3.OpPut(keySchema, "1"), clientv3.OpDelete(keyKeyring), clientv3.OpDelete(keyDerive),
		clientv3.OpPut(keyCanary1, string(seal1(t, key, keyCanary1, "canary", []byte("fairlead")))),
	}
	for at, value := range everything(t, s) {
		if !isSealed(value) || at == keyDerive {
			continue
		}
		v, err := parseSealed(value)
		if err != nil {
			t.Fatal(err)
		}
		opened, err := s.seal.open(at, v.purpose, value)
		if err != nil {
			t.Fatal(err)
		}
		ops = append(ops, clientv3.OpPut(at, string(seal1(t, key, at, v.purpose, opened))))
	}
	if _, err := s.client.Txn(bounded(t)).Then(ops...).Commit(); err != nil {
		t.Fatal(err)
	}
	s.Close()

	if _, err := Open(bounded(t), Config{DataDir: dir, KEKFile: kekFile(t, 3)}); !errors.Is(err, ErrWrongKEK) {
		t.Errorf("with a wrong key: %v", err)
	}
	for range 2 { // the second finds it converted
		s = open(t, Config{DataDir: dir})
		if err := sealedKinds[purposeObject].read(t, s, ""); err != nil {
			t.Error(err)
		}
		if len(s.cache.keys) != 1 {
			t.Errorf("%d access keys", len(s.cache.keys))
		}
		s.Close()
	}
}

// seal1 seals as schema 1 did.
func seal1(t *testing.T, key []byte, at, purpose string, value []byte) []byte {
	t.Helper()
	bound := []byte("fairlead sealed v1\x00" + purpose + "\x00" + at)
	by, err := newGCM(key)
	if err != nil {
		t.Fatal(err)
	}
	dataKey := newRoot()
	out := by.Seal([]byte{1}, nil, dataKey, bound)
	if by, err = newGCM(dataKey); err != nil {
		t.Fatal(err)
	}
	return by.Seal(out, nil, value, bound)
}

// TestKeysAreNotToldOfInErrors: what goes wrong with a key does not show it.
func TestKeysAreNotToldOfInErrors(t *testing.T) {
	config := Config{DataDir: t.TempDir()}
	open(t, config).Close()
	secret := "the passphrase that nobody may see"
	config.KEK = passphrase(t, secret)
	_, wrong := Open(bounded(t), config)
	raw := bytes.Repeat([]byte{0xab}, 32)
	file := filepath.Join(t.TempDir(), "kek")
	if err := os.WriteFile(file, []byte(hex.EncodeToString(raw)), 0o600); err != nil {
		t.Fatal(err)
	}
	config.KEK = kek.File{Path: file}
	_, other := Open(bounded(t), config)
	_, rotated := RotateKEK(bounded(t), config, Rotation{To: passphrase(t, secret)})
	for _, err := range []error{wrong, other, rotated} {
		if err == nil {
			t.Fatal("a wrong key is taken")
		}
		for _, form := range []string{secret, hex.EncodeToString([]byte(secret)), string(raw), hex.EncodeToString(raw)} {
			if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), form) {
				t.Errorf("%v shows a key", err)
			}
		}
	}
}

// A rotation is killed with SIGKILL at any moment of it, again and again. At each
// moment one of the two keys opens the store and everything in it; in the end it
// finishes.
func TestRotationCanBeKilled(t *testing.T) {
	dir := t.TempDir()
	const secrets = 1500
	s := open(t, Config{DataDir: dir})
	for n := range secrets / 50 {
		if _, err := s.Write(bounded(t), func(tx *Tx) error {
			for i := range 50 {
				at := Place{"thing", fmt.Sprint(n*50 + i)}
				if err := errors.Join(MakeObject(tx, at, &thing{}), tx.PutSecret(at, []byte(at[1]))); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	states := map[string]int{}
	takes := time.Hour // the first is not killed
	for i := 0; i < 15 || states["two keys"] == 0; i++ {
		began := time.Now()
		if i == 0 {
			killedAt(t, envRotate, dir, takes)
			takes = time.Since(began)
		} else if killedAt(t, envRotate, dir, rand.N(takes)) {
			states["finished"]++
		}
		s, err := Open(bounded(t), Config{DataDir: dir})
		if errors.Is(err, ErrWrongKEK) { // killed between the last transaction and the rename
			if !strings.Contains(err.Error(), "run 'fairlead kek rotate' again") {
				t.Fatalf("open: %v", err)
			}
			states["new key not in its place"]++
			s, err = Open(bounded(t), Config{DataDir: dir, KEKFile: filepath.Join(dir, "kek.next")})
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(s.seal.roots.Load().keys) == 2 {
			states["two keys"]++
		}
		if _, err := s.Read(bounded(t), func(tx *Tx) error {
			for n := range secrets {
				if secret, err := tx.Secret(Place{"thing", fmt.Sprint(n)}); err != nil || string(secret) != fmt.Sprint(n) {
					return fmt.Errorf("secret %d is %q: %w", n, secret, err)
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	t.Logf("states after kills: %v", states)
	if done, err := RotateKEK(bounded(t), Config{DataDir: dir}, Rotation{}); err != nil || !done.Done || len(done.Lost) > 0 {
		t.Errorf("in the end: %+v, %v", done, err)
	}
	if s := open(t, Config{DataDir: dir}); len(s.seal.roots.Load().keys) != 1 {
		t.Error("in the end there are two keys")
	}
}
