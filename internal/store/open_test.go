package store

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/iam"
	"github.com/fairlead/fairlead/internal/kek"
	"github.com/fairlead/fairlead/internal/mesh"
)

// external starts an etcd that clients reach through a socket, as one that
// somebody else runs, and returns its endpoint and what stops it.
func external(t testing.TB, quota int64) (endpoint string, stop func()) {
	t.Helper()
	// The path of a socket has at most 108 bytes, which t.TempDir may exceed.
	dir, err := os.MkdirTemp("", "etcd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	log, _ := zapToSlog(slog.New(slog.DiscardHandler))
	c := embed.NewConfig()
	c.Dir = filepath.Join(dir, "data")
	c.Name = "external"
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:1"}
	c.AdvertisePeerUrls, c.ListenPeerUrls, c.InitialCluster = []url.URL{peer}, nil, c.Name+"="+peer.String()
	client := url.URL{Scheme: "unix", Path: filepath.Join(dir, "s")}
	c.AdvertiseClientUrls, c.ListenClientUrls = []url.URL{client}, []url.URL{client}
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(log)
	c.TickMs, c.ElectionMs = 20, 100
	c.QuotaBackendBytes = quota
	c.UnsafeNoFsync = true
	server, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	<-server.Server.ReadyNotify()
	stop = sync.OnceFunc(func() {
		server.Server.HardStop() // Close alone waits for watches to end
		server.Close()
	})
	t.Cleanup(stop)
	return client.String(), stop
}

// kekFile makes a key-encryption key of 32 equal bytes.
func kekFile(t testing.TB, b byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kek")
	text := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, 32))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// sockets are the inodes of this process's sockets.
func sockets(t *testing.T) map[string]bool {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, entry := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + entry.Name()); err == nil && strings.HasPrefix(target, "socket:") {
			found[target] = true
		}
	}
	return found
}

func TestEmbeddedStoreListensNowhere(t *testing.T) {
	before := sockets(t)
	open(t, Config{})
	for socket := range sockets(t) {
		if !before[socket] {
			t.Errorf("the embedded store has opened %s", socket)
		}
	}
}

func TestCleanStartAndStopIsQuiet(t *testing.T) {
	var logged bytes.Buffer
	log := slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelWarn}))
	config := Config{DataDir: t.TempDir(), Log: log}
	open(t, config).Close()
	open(t, config).Close()
	// What etcd says of a slow machine is true and says nothing of ours.
	slow := regexp.MustCompile(`took too long|slow fdatasync|slow network|overloaded`)
	for line := range strings.Lines(logged.String()) {
		if !slow.MatchString(line) {
			t.Errorf("logged: %s", line)
		}
	}
}

func TestSecondServerOnADataDirectoryIsRefused(t *testing.T) {
	config := Config{DataDir: t.TempDir()}
	first := open(t, config)
	if _, err := Open(bounded(t), config); !errors.Is(err, ErrLocked) {
		t.Errorf("second open: %v", err)
	}
	put(t, first, demo, mesh.ID{Kind: mesh.KindMesh}, appmesh.MeshSpec{})
	first.Close()
	second := open(t, config)
	if _, ok := second.View(demo); !ok {
		t.Error("what the first server wrote is not there")
	}
}

func TestWrongKEKIsRefused(t *testing.T) {
	dir := t.TempDir()
	open(t, Config{DataDir: dir}).Close()
	file := filepath.Join(dir, "kek")
	right, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		spoil func() error
		want  string
	}{
		{"another one", func() error { return os.WriteFile(file, bytes.Repeat([]byte("ab"), 32), 0o600) }, file},
		{"missing", func() error { return os.Remove(file) }, file + " is missing"},
		{"not a key", func() error { return os.WriteFile(file, []byte("hello"), 0o600) }, "does not hold 32 bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := test.spoil(); err != nil {
				t.Fatal(err)
			}
			_, err := Open(bounded(t), Config{DataDir: dir})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("open: %v; want %q", err, test.want)
			}
			if _, statErr := os.Stat(file); test.name == "missing" && !errors.Is(statErr, fs.ErrNotExist) {
				t.Error("a new key was made beside an old store")
			}
		})
	}
	if err := os.WriteFile(file, right, 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, Config{DataDir: dir})
}

func TestNewerSchemaIsRefused(t *testing.T) {
	config := Config{DataDir: t.TempDir()}
	s := open(t, config)
	if _, err := s.client.Put(bounded(t), keySchema, "3"); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := Open(bounded(t), config); !errors.Is(err, ErrNewerSchema) {
		t.Errorf("open: %v", err)
	}
}

func TestLostCredentialsAreWrittenAgain(t *testing.T) {
	for _, lost := range []string{"removed", "crash before the rename"} {
		t.Run(lost, func(t *testing.T) {
			config := Config{DataDir: t.TempDir()}
			path := filepath.Join(config.DataDir, "credentials")
			open(t, config).Close()
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if lost == "removed" {
				err = os.Remove(path)
			} else {
				err = os.Rename(path, path+".new")
			}
			if err != nil {
				t.Fatal(err)
			}
			open(t, config)
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
				t.Errorf("credentials are %q, %v; want %q", got, err, want)
			}
			if _, err := os.Stat(path + ".new"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the intermediate file is still there: %v", err)
			}
		})
	}
}

// Eight servers start at once on one new external etcd.
func TestOneOfManyServersMakesTheRootKey(t *testing.T) {
	endpoint, _ := external(t, 0)
	file := kekFile(t, 7)
	const servers = 8
	stores := make([]*Store, servers)
	dirs := make([]string, servers)
	var group sync.WaitGroup
	for i := range servers {
		dirs[i] = t.TempDir()
		group.Go(func() {
			s, err := Open(bounded(t), Config{DataDir: dirs[i], Endpoints: []string{endpoint}, KEKFile: file, Account: account})
			if err != nil {
				t.Error(err)
				return
			}
			stores[i] = s
		})
	}
	group.Wait()
	if t.Failed() {
		return
	}
	var credentials []string
	for i, s := range stores {
		t.Cleanup(s.Close)
		if s.Lineage() != stores[0].Lineage() || len(s.Lineage()) != 32 {
			t.Errorf("lineages %q and %q", s.Lineage(), stores[0].Lineage())
		}
		if content, err := os.ReadFile(filepath.Join(dirs[i], "credentials")); err == nil {
			credentials = append(credentials, string(content))
		}
		if _, err := os.Stat(filepath.Join(dirs[i], "credentials.new")); err == nil {
			t.Errorf("server %d left its unused credentials", i)
		}
	}
	response, err := stores[0].client.Get(bounded(t), dirAccessKey, clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	if len(response.Kvs) != 1 || len(credentials) != 1 {
		t.Fatalf("%d keys in the store and %d credentials files, want one", len(response.Kvs), len(credentials))
	}
	id := strings.TrimPrefix(string(response.Kvs[0].Key), dirAccessKey)
	for _, s := range stores {
		k, err := s.Key(bounded(t), id)
		if err != nil {
			t.Fatal(err)
		}
		if k.Principal.Kind != iam.Root || string(credentialsFile(k)) != credentials[0] {
			t.Errorf("root key is %+v, not that of the credentials file", k)
		}
	}
}

func TestExternalStoreNeedsItsKEK(t *testing.T) {
	endpoint, _ := external(t, 0)
	right := Config{DataDir: t.TempDir(), Endpoints: []string{endpoint}, KEKFile: kekFile(t, 7)}
	open(t, right).Close()
	without, wrong := right, right
	without.KEKFile = ""
	wrong.KEKFile = kekFile(t, 8)
	if _, err := Open(bounded(t), without); err == nil || !strings.Contains(err.Error(), "needs a KEK file") {
		t.Errorf("without: %v", err)
	}
	if _, err := Open(bounded(t), wrong); !errors.Is(err, ErrWrongKEK) || !strings.Contains(err.Error(), wrong.KEKFile) {
		t.Errorf("wrong: %v", err)
	}
}

func TestNoSecretLiesInTheDataDirectoryInClear(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Config{DataDir: dir})
	ctx := bounded(t)
	var secrets [][]byte
	for i := range 20 {
		k, err := s.CreateProxyKey(ctx, account, fmt.Sprintf("mesh/demo/virtualNode/n%d", i))
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, []byte(k.Secret.Reveal()))
	}
	for id, k := range s.cache.keys {
		secrets = append(secrets, []byte(k.Secret.Reveal()))
		_ = id
	}
	key, err := kek.File{Path: filepath.Join(dir, "kek")}.Read()
	if err != nil {
		t.Fatal(err)
	}
	secrets = append(secrets, key, s.derivation)
	for _, root := range s.seal.roots.Load().keys {
		secrets = append(secrets, root.secret)
	}
	s.Close()
	files := 0
	err = filepath.WalkDir(filepath.Join(dir, "etcd"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		content, err := os.ReadFile(path)
		for _, secret := range secrets {
			if bytes.Contains(content, secret) {
				t.Errorf("%s holds a secret in clear", path)
			}
		}
		return err
	})
	if err != nil || files < 2 {
		t.Fatalf("looked at %d files: %v", files, err)
	}
}

func TestUnreachableStoreIsUnavailable(t *testing.T) {
	endpoint, stop := external(t, 0)
	s := open(t, Config{Endpoints: []string{endpoint}, KEKFile: kekFile(t, 7)})
	revision := put(t, s, demo, mesh.ID{Kind: mesh.KindMesh}, appmesh.MeshSpec{})
	if err := s.WaitFor(bounded(t), revision); err != nil {
		t.Fatal(err)
	}
	if err := s.Ping(bounded(t)); err != nil {
		t.Fatal(err)
	}
	stop()
	ctx, cancel := context.WithCancel(bounded(t))
	_, err := s.Write(ctx, func(tx *Tx) error {
		cancel() // whoever asked does not wait either
		_, err := Get[appmesh.MeshSpec](tx, demo, mesh.ID{Kind: mesh.KindMesh})
		return err
	})
	if !errors.Is(err, ErrUnavailable) {
		t.Errorf("write: %v", err)
	}
	if _, ok := s.View(demo); !ok {
		t.Error("the view is gone with the connection")
	}
}

// A full etcd refuses writes; reads and views go on.
func TestFullStoreIsUnavailable(t *testing.T) {
	endpoint, _ := external(t, 1<<20)
	s := open(t, Config{Endpoints: []string{endpoint}, KEKFile: kekFile(t, 7)})
	put(t, s, demo, mesh.ID{Kind: mesh.KindMesh}, appmesh.MeshSpec{})
	tags := map[string]string{"fill": strings.Repeat("x", 100_000)}
	var err error
	for i := 0; i < 100 && err == nil; i++ {
		_, err = s.Write(bounded(t), func(tx *Tx) error {
			id := nodeID(fmt.Sprint("n", i))
			if _, err := Get[appmesh.VirtualNodeSpec](tx, demo, id); !errors.Is(err, ErrNotFound) {
				return fmt.Errorf("get: %w", err)
			}
			return Put(tx, &mesh.Record[appmesh.VirtualNodeSpec]{Mesh: demo, ID: id, Version: 1, Tags: tags})
		})
	}
	if !errors.Is(err, ErrUnavailable) {
		t.Errorf("after filling it: %v", err)
	}
	if _, err := s.Read(bounded(t), func(tx *Tx) error {
		_, err := List[appmesh.VirtualNodeSpec](tx, demo, mesh.KindVirtualNode, "")
		return err
	}); err != nil {
		t.Errorf("read: %v", err)
	}
}

// Of an embedded store that lost its files, the server says so and ends; it does
// not begin anew, and does not wait for ever.
func TestStoreThatLostItsFilesIsRefused(t *testing.T) {
	for _, test := range []struct {
		lost   string
		damage func(etcd string) error
	}{
		{"everything but the directory", func(etcd string) error { return os.RemoveAll(filepath.Join(etcd, "member")) }},
		{"the content of the log", func(etcd string) error {
			logs, err := filepath.Glob(filepath.Join(etcd, "member", "wal", "*.wal"))
			for _, log := range logs {
				err = errors.Join(err, os.Truncate(log, 0))
			}
			return err
		}},
	} {
		t.Run(test.lost, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, Config{DataDir: dir})
			put(t, s, demo, mesh.ID{Kind: mesh.KindMesh}, appmesh.MeshSpec{})
			s.Close()
			if err := test.damage(filepath.Join(dir, "etcd")); err != nil {
				t.Fatal(err)
			}
			opened, err := Open(bounded(t), Config{DataDir: dir})
			if err == nil {
				opened.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), filepath.Join(dir, "etcd")) || !strings.Contains(err.Error(), "restore a backup") {
				t.Errorf("open: %v", err)
			}
		})
	}
}
