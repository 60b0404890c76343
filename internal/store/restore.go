package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead/fairlead/internal/kek"
)

// Restored says what a backup held.
type Restored struct {
	Keys     int
	Made     time.Time // when the backup was made
	Revision int64     // of the store that it was made from
	Lineage  string    // of the new store
}

// restoring is what lies at keyRestore: the run that writes, and the backup.
type restoring struct {
	Run  string `json:"run"`
	Salt []byte `json:"salt"`
}

// Restore makes a new store of a backup: in a data directory without one, or in
// an external etcd that has none. The whole backup is read and verified before
// anything is written. The new store has a lineage of its own, so that no proxy
// takes it for the old one. If it is killed there is no store: the server says so,
// and running it again begins anew. Errors: ErrBackup, ErrWrongKEK, ErrNotEmpty.
func Restore(ctx context.Context, config Config, backup io.Reader, progress func(written, keys int)) (done Restored, err error) {
	s, err := lockStore(config)
	if err != nil {
		return done, err
	}
	defer s.Close()
	if _, err := os.Stat(s.etcdDir()); err == nil && s.embedded() {
		return done, fmt.Errorf("restore into %s: %w", config.DataDir, ErrNotEmpty)
	}
	if s.kek, err = s.kekOfBackup(); err != nil {
		return done, err
	}
	header, keys, root, err := s.readBackup(ctx, backup)
	if err != nil {
		return done, fmt.Errorf("read the backup: %w", err)
	}
	done = Restored{Keys: len(keys), Made: header.Made, Revision: header.Revision, Lineage: newLineage()}
	meta, err := s.newMeta(ctx, header, root, done.Lineage)
	if err != nil {
		return done, err
	}
	into := intoEtcd{store: s, salt: header.Salt, progress: progress}
	if !s.embedded() {
		if s.client, s.close, err = dialEtcd(config.Endpoints, s.log); err != nil {
			return done, err
		}
		return done, into.write(ctx, keys, meta)
	}
	if err := s.room(); err != nil {
		return done, fmt.Errorf("restore into %s: %w", config.DataDir, err)
	}
	if err := os.RemoveAll(s.restoreDir()); err != nil {
		return done, fmt.Errorf("drop an interrupted restore: %w", err)
	}
	client, end, err := s.startEtcd(ctx, s.restoreDir())
	if err != nil {
		return done, err
	}
	s.client = client
	err = into.write(ctx, keys, meta)
	end()
	if err != nil {
		return done, err
	}
	return done, rename(s.restoreDir(), s.etcdDir())
}

// restoreDir is where an embedded store is written until it is whole.
func (s *Store) restoreDir() string { return s.etcdDir() + ".restore" }

// kekOfBackup is the key that the store of the backup had: a new one is not made.
func (s *Store) kekOfBackup() (kek.Key, error) {
	if path := s.kekPath(); s.config.KEK == nil && s.config.KEKFile == "" && s.embedded() {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read key-encryption key: %s is missing: put the one there that the store of the backup had: %w", path, ErrWrongKEK)
		}
	}
	return s.loadKEK()
}

// readBackup reads all of a backup. What it returns is authentic and whole.
func (s *Store) readBackup(ctx context.Context, backup io.Reader) (header archiveHeader, keys []archived, root []byte, err error) {
	in, err := openArchive(backup, func(h archiveHeader) ([]byte, error) {
		if h.Schema != schema {
			return nil, fmt.Errorf("it is of schema %d, this version knows %d: %w", h.Schema, schema, ErrNewerSchema)
		}
		if len(h.Keyring.Roots) != 1 {
			return nil, fmt.Errorf("its header does not have one root key: %w", ErrBackup)
		}
		secrets, err := h.Keyring.unwrapped(ctx, s.kek, h.Lineage, nil)
		if errors.Is(err, ErrWrongKEK) {
			return nil, fmt.Errorf("it was made with another key than the one in %s, or its header was altered: %w", s.kek, err)
		}
		root = secrets[h.Keyring.newest().ID]
		return root, err
	})
	if err != nil {
		return header, nil, nil, err
	}
	for {
		record, err := in.next()
		if errors.Is(err, io.EOF) {
			return in.header, inOrder(keys), root, nil
		}
		if err != nil {
			return header, nil, nil, err
		}
		if !strings.HasPrefix(record.key, keyRoot) || notInBackups(record.key) {
			return header, nil, nil, fmt.Errorf("it has a key that no backup has, %q: %w", record.key, ErrBackup)
		}
		keys = append(keys, record)
	}
}

// inOrder sorts keys as they were written. A record and its change stay together,
// since they were written together.
func inOrder(keys []archived) []archived {
	slices.SortStableFunc(keys, func(a, b archived) int {
		return cmp.Or(cmp.Compare(a.revision, b.revision), cmp.Compare(pairOf(a.key), pairOf(b.key)))
	})
	return keys
}

// pairOf is the same for a record and its change.
func pairOf(key string) string {
	if path, ok := strings.CutPrefix(key, dirChange); ok {
		return dirRecord + path
	}
	return key
}

// newMeta is what makes a restored store one: its own lineage, and the root key
// wrapped for that.
func (s *Store) newMeta(ctx context.Context, header archiveHeader, root []byte, lineage string) ([]clientv3.Op, error) {
	wrapped, err := s.kek.Wrap(ctx, root, lineage)
	if err != nil {
		return nil, fmt.Errorf("wrap the root key for the new store: %w", err)
	}
	text, err := keyring{Roots: []wrappedRoot{{ID: header.Keyring.newest().ID, Wrapped: wrapped}}}.text()
	if err != nil {
		return nil, err
	}
	return []clientv3.Op{
		clientv3.OpPut(keySchema, strconv.Itoa(schema)), clientv3.OpPut(keyLineage, lineage),
		clientv3.OpPut(keyKeyring, string(text)), clientv3.OpDelete(keyRestore),
	}, nil
}

// intoEtcd writes a backup into an etcd that has no store.
type intoEtcd struct {
	store    *Store
	salt     []byte // of the backup
	progress func(written, keys int)
	mine     string // what lies at keyRestore while this run writes
}

// write marks the etcd as one into which a store is restored, writes the keys, and
// takes the mark away in the transaction that makes it a store.
func (e *intoEtcd) write(ctx context.Context, keys []archived, meta []clientv3.Op) error {
	if err := e.begin(ctx); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	for written := 0; written < len(keys); {
		n := batchOf(keys[written:])
		ops := make([]clientv3.Op, n)
		for i, k := range keys[written : written+n] {
			ops[i] = clientv3.OpPut(k.key, string(k.value))
		}
		if err := e.commit(ctx, ops); err != nil {
			return err
		}
		written += n
		e.progress(written, len(keys))
	}
	return e.commit(ctx, meta)
}

// batchOf is how many of the keys make the next transaction.
func batchOf(keys []archived) int {
	bytes := 0
	for i, k := range keys {
		bytes += len(k.key) + len(k.value)
		if i == 0 || pairOf(k.key) == pairOf(keys[i-1].key) {
			continue // never only half of a pair
		}
		if i >= maxOps-1 || bytes > maxBytes {
			return i
		}
	}
	return len(keys)
}

// begin puts the mark, or takes over that of a run that was killed: that one's
// transactions fail from then on, and what it has written goes.
func (e *intoEtcd) begin(ctx context.Context) error {
	run := make([]byte, 16)
	rand.Read(run) // never fails
	mark, err := json.Marshal(restoring{Run: hex.EncodeToString(run), Salt: e.salt})
	if err != nil {
		return err
	}
	e.mine = string(mark)
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	response, err := e.store.client.Txn(call).If(nothingYet()).Then(clientv3.OpPut(keyRestore, e.mine)).Else(clientv3.OpGet(keyRestore)).Commit()
	if err != nil || response.Succeeded {
		return storeError("mark the etcd", err)
	}
	left := response.Responses[0].GetResponseRange().GetKvs()
	if len(left) == 0 {
		return fmt.Errorf("this etcd is not empty: %w", ErrNotEmpty)
	}
	response, err = e.store.client.Txn(call).
		If(clientv3.Compare(clientv3.ModRevision(keyRestore), "=", left[0].ModRevision), clientv3.Compare(clientv3.CreateRevision(keySchema), "=", 0)).
		Then(clientv3.OpPut(keyRestore, e.mine)).Commit()
	if err == nil && !response.Succeeded {
		return fmt.Errorf("somebody else restores into this etcd at this moment: %w", ErrConflict)
	}
	if err != nil {
		return storeError("mark the etcd", err)
	}
	return e.dropLeft(ctx)
}

// dropLeft deletes what an interrupted run has written, a page at a time.
func (e *intoEtcd) dropLeft(ctx context.Context) error {
	var ops []clientv3.Op
	if err := e.store.scan(ctx, 0, func(kv *mvccpb.KeyValue) error {
		if string(kv.Key) == keyRestore {
			return nil
		}
		if ops = append(ops, clientv3.OpDelete(string(kv.Key))); len(ops) < maxOps {
			return nil
		}
		err := e.commit(ctx, ops)
		ops = nil
		return err
	}); err != nil {
		return err
	}
	return e.commit(ctx, ops)
}

// commit writes while the mark is this run's.
func (e *intoEtcd) commit(ctx context.Context, ops []clientv3.Op) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	response, err := e.store.client.Txn(ctx).If(clientv3.Compare(clientv3.Value(keyRestore), "=", e.mine)).Then(ops...).Commit()
	if err != nil {
		return storeError("restore", err)
	}
	if !response.Succeeded {
		return fmt.Errorf("restore: somebody else restores into this etcd: %w", ErrConflict)
	}
	return nil
}
