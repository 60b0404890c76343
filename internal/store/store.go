// Package store keeps the records of all meshes in etcd: guarded transactions,
// change records, sealed access keys, and a watched cache that gives consistent
// views. It decides what may be written at the same time as what, never what a
// valid record is (package server) nor what it means (package mesh). etcd is
// spoken to nowhere else. It follows docs/architecture.md.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/semaphore"

	"github.com/fairlead/fairlead/internal/kek"
)

var (
	// ErrNotFound says that no such record exists.
	ErrNotFound = errors.New("not found")
	// ErrConflict says that others kept changing what a transaction relied on
	// until it gave up. Nothing was written.
	ErrConflict = errors.New("too many concurrent changes")
	// ErrUnavailable says that etcd did not answer, or refused to write. What
	// was being written may have been written or not.
	ErrUnavailable = errors.New("store unavailable")
	// ErrFull says that the disk of the embedded etcd has no room. Nothing was
	// written; reads go on.
	ErrFull = errors.New("disk is full")
	// ErrTooLarge says that etcd refuses a request of that size. Nothing was
	// written.
	ErrTooLarge = errors.New("record too large for the store")
	// ErrLocked says that another server has the data directory open.
	ErrLocked = errors.New("data directory is in use by another server")
	// ErrNewerSchema says that a newer Fairlead has written the store.
	ErrNewerSchema = errors.New("store was written by a newer version")
	// ErrWrongKEK says that the store's secrets are sealed with another
	// key-encryption key.
	ErrWrongKEK = kek.ErrWrong
	// ErrRotating says that a rotation of the key-encryption key is under way.
	ErrRotating = errors.New("a rotation of the key-encryption key is under way")
	// ErrNotEmpty says that a backup is to be restored over something.
	ErrNotEmpty = errors.New("there is a store already")
	// ErrHalfRestored says that a restore was interrupted.
	ErrHalfRestored = errors.New("a restore has not finished")
	// ErrBackup says that a backup is damaged, altered, or not whole.
	ErrBackup = errors.New("not a whole backup")
)

// Config says where the store is and who opens it.
type Config struct {
	// DataDir holds the embedded etcd, its key-encryption key and the
	// credentials of the root key. It is made if missing, mode 0700.
	DataDir string
	// Endpoints are the URLs of an external etcd. Empty: the embedded one.
	Endpoints []string
	// KEK is the key-encryption key. Nil: the one in KEKFile.
	KEK kek.Key
	// KEKFile holds the key-encryption key, 32 bytes in hex or base64. Empty:
	// DataDir/kek, made if missing; an external etcd must be given one.
	KEKFile string
	// Account owns the root key: 12 digits. Empty: 000000000000.
	Account string
	// Now is the clock of change records. Nil: time.Now.
	Now func() time.Time
	// Log receives what nobody can be answered with. Nil: nothing is logged.
	Log *slog.Logger
	// UnsafeNoFsync makes the embedded etcd forget to sync its files. Only for
	// control runs, which show that the crash tests would notice.
	UnsafeNoFsync bool
}

// Store is an open store. Its methods may be called at the same time.
type Store struct {
	config  Config
	now     func() time.Time
	log     *slog.Logger
	client  *clientv3.Client
	close   func() // ends the client, and the embedded etcd if there is one
	kek     kek.Key
	seal    *sealer
	lineage string
	cache   *cache
	// derivation is what DeriveKey derives from.
	derivation []byte

	full    atomic.Bool         // as room last saw it, to say so once
	turns   *semaphore.Weighted // see seat
	writers *semaphore.Weighted // see seat

	stop   context.CancelFunc // ends the goroutines in tasks
	tasks  sync.WaitGroup
	unlock func()
	closed sync.Once
}

// Open starts the embedded etcd or connects to an external one, makes what the
// first start makes, and loads the cache. It returns when all records are
// loaded, or when ctx ends.
func Open(ctx context.Context, config Config) (*Store, error) {
	s, err := lockStore(config)
	if err != nil {
		return nil, err
	}
	if err := s.open(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// newStore is a store without data directory and connection.
func newStore(config Config) *Store {
	s := &Store{config: config, now: config.Now, log: config.Log, close: func() {}, unlock: func() {},
		turns: semaphore.NewWeighted(1), writers: semaphore.NewWeighted(everybody)}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.config.Account == "" {
		s.config.Account = "000000000000"
	}
	return s
}

// lockStore is a store that has its data directory and no connection to etcd yet.
func lockStore(config Config) (*Store, error) {
	s := newStore(config)
	if err := os.MkdirAll(config.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	unlock, err := lockDir(config.DataDir)
	if err != nil {
		return nil, err
	}
	s.unlock = unlock
	return s, nil
}

func (s *Store) open(ctx context.Context) error {
	var err error
	if s.kek, err = s.loadKEK(); err != nil {
		return err
	}
	client, end, err := s.connect(ctx)
	if err != nil {
		return err
	}
	s.client, s.close = client, end
	ready := s.bootstrap
	if s.embedded() {
		ready = s.adopt // foundEmbedded has made it if there was none
	}
	if err := ready(ctx); err != nil {
		return err
	}
	s.cache = newCache(s.client, s.seal, s.log)
	if err := s.cache.load(ctx); err != nil {
		return fmt.Errorf("load the store: %w", err)
	}
	background, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.tasks.Go(func() { s.cache.run(background) })
	s.tasks.Go(func() { s.pruneLoop(background) })
	return nil
}

func (s *Store) connect(ctx context.Context) (client *clientv3.Client, end func(), err error) {
	if !s.embedded() {
		return dialEtcd(s.config.Endpoints, s.log)
	}
	if err := s.foundEmbedded(ctx); err != nil {
		return nil, nil, err
	}
	return s.startEtcd(ctx, s.etcdDir())
}

func (s *Store) etcdDir() string { return filepath.Join(s.config.DataDir, "etcd") }

func (s *Store) startEtcd(ctx context.Context, dir string) (client *clientv3.Client, end func(), err error) {
	return startEtcd(ctx, dir, s.config.UnsafeNoFsync, s.log)
}

func (s *Store) embedded() bool { return len(s.config.Endpoints) == 0 }

// Close ends watches and the embedded etcd. What was acknowledged stays.
func (s *Store) Close() {
	s.closed.Do(func() {
		if s.stop != nil {
			s.stop()
		}
		s.close()
		s.tasks.Wait()
		s.unlock()
	})
}

// Lineage is the random id that the store got when it was made: 32 hexadecimal
// digits. A store restored from a backup gets another one.
func (s *Store) Lineage() string { return s.lineage }

// Ping asks etcd for one linearizable read. It returns ErrUnavailable, or nil.
func (s *Store) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := s.client.Get(ctx, keySchema, clientv3.WithCountOnly())
	return storeError("ping the store", err)
}
