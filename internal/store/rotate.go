package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead/fairlead/internal/kek"
)

// Bounds of one transaction of a rotation or a restore, which any etcd takes.
const (
	maxOps   = 100
	maxBytes = 512 << 10
)

// nextSuffix is behind the name of the file of a key-encryption key that a
// rotation is about to put in its place.
const nextSuffix = ".next"

// Rotation is a change of the key-encryption key.
type Rotation struct {
	// To is the new key. Nil: a new file that takes the place of the old one.
	To kek.Key
	// KeepOld ends it before the old key is of no use any more. Running it again
	// without that ends it.
	KeepOld bool
	// Progress, if not nil, is told how many secrets are sealed anew.
	Progress func(secrets int)
}

// Rotated says what a rotation has done.
type Rotated struct {
	Secrets int      // sealed anew, in this run
	Lost    []string // keys of etcd whose secrets no root key opens; they stay as they are
	Done    bool     // the old key is of no use any more
}

// RotateKEK seals every secret of a store under a new root key, which the new
// key-encryption key wraps. It may be killed at any moment: until it has finished,
// both keys open the store, and running it again goes on. Servers of an external
// etcd may run meanwhile; an embedded store must not be open. What is sealed is
// found by its form, not by a list of what there is.
func RotateKEK(ctx context.Context, config Config, r Rotation) (done Rotated, err error) {
	s := newStore(config)
	if s.embedded() {
		if _, err := os.Stat(s.etcdDir()); err != nil {
			return done, fmt.Errorf("rotate key-encryption key: %s has no store: %w", s.config.DataDir, ErrNotFound)
		}
		if s, err = lockStore(config); err != nil {
			return done, err
		}
	}
	defer s.Close()
	if s.kek, err = s.loadKEK(); err != nil {
		return done, err
	}
	to, err := s.nextKEK(r.To)
	if err != nil {
		return done, err
	}
	client, end, err := s.reach(ctx)
	if err != nil {
		return done, err
	}
	s.client, s.close = client, end
	if done, err = s.rotate(ctx, to, r); err != nil || !done.Done || r.To != nil {
		return done, err
	}
	return done, rename(s.kekPath()+nextSuffix, s.kekPath())
}

// reach connects to a store that is there.
func (s *Store) reach(ctx context.Context) (*clientv3.Client, func(), error) {
	if s.embedded() {
		return s.startEtcd(ctx, s.etcdDir())
	}
	return dialEtcd(s.config.Endpoints, s.log)
}

// nextKEK is the key to rotate to: if none is named, a new file beside the old.
func (s *Store) nextKEK(named kek.Key) (kek.Key, error) {
	if named != nil {
		return named, nil
	}
	if _, isFile := s.kek.(kek.File); !isFile || !s.embedded() {
		return nil, errors.New("rotate key-encryption key: name the new one: only a file of an embedded store is made anew by itself")
	}
	path := s.kekPath() + nextSuffix
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := writeFile(path, kek.NewFileContent()); err != nil {
			return nil, fmt.Errorf("make key-encryption key: %w", err)
		}
	}
	return kek.File{Path: path}, nil
}

// rotationHint says what to do about a rotation that was killed before the new
// file took the place of the old one.
func (s *Store) rotationHint() string {
	if _, err := os.Stat(s.kekPath() + nextSuffix); err != nil {
		return ""
	}
	return fmt.Sprintf("; a rotation to %s has not finished: run 'fairlead kek rotate' again", s.kekPath()+nextSuffix)
}

func (s *Store) rotate(ctx context.Context, to kek.Key, r Rotation) (done Rotated, err error) {
	roots, began, err := s.beginRotation(ctx, to)
	if err != nil {
		return done, fmt.Errorf("rotate key-encryption key: %w", err)
	}
	if !began {
		return Rotated{Done: true}, nil
	}
	for {
		sealed, lost, err := s.rewrapAll(ctx, roots, func(n int) {
			if r.Progress != nil {
				r.Progress(done.Secrets + n)
			}
		})
		done.Secrets, done.Lost = done.Secrets+sealed, lost
		if err != nil {
			return done, fmt.Errorf("rotate key-encryption key: %w", err)
		}
		if sealed == 0 {
			break // one round over all has found nothing under the old root key
		}
	}
	if r.KeepOld {
		return done, nil
	}
	done.Done = true
	return done, s.endRotation(ctx, roots.revision)
}

// beginRotation writes a keyring of two root keys, or finds the one that an
// earlier run has written. False: there is nothing to do, the store is the new
// key's alone.
func (s *Store) beginRotation(ctx context.Context, to kek.Key) (roots *rootKeys, began bool, err error) {
	meta, err := s.meta(ctx)
	if err != nil {
		return nil, false, err
	}
	if meta[keyRestore] != nil {
		return nil, false, ErrHalfRestored
	}
	if number := string(meta[keySchema].GetValue()); number != fmt.Sprint(schema) {
		return nil, false, fmt.Errorf("the store is of schema %q, not %d: start a server of this version on it first", number, schema)
	}
	s.lineage = string(meta[keyLineage].GetValue())
	ring, err := parseKeyring(meta[keyKeyring].GetValue())
	if err != nil {
		return nil, false, err
	}
	switch _, err := to.Unwrap(ctx, ring.newest().Wrapped, s.lineage); {
	case err == nil && len(ring.Roots) == 1:
		return nil, false, nil
	case errors.Is(err, ErrWrongKEK) && len(ring.Roots) == 2:
		return nil, false, fmt.Errorf("%w, to another one than %s: end it first, with the key that it goes to: %w", ErrRotating, to, err)
	case err != nil && !errors.Is(err, ErrWrongKEK):
		return nil, false, err
	case err == nil:
		return s.takeRoots(ctx, to, meta[keyKeyring].GetValue(), meta[keyKeyring].GetModRevision())
	}
	secrets, err := ring.unwrapped(ctx, s.kek, s.lineage, nil)
	if err != nil {
		return nil, false, fmt.Errorf("open the store with the old key, %s: %w", s.kek, err)
	}
	root := newRoot()
	wrapped, err := to.Wrap(ctx, root, s.lineage)
	if err != nil {
		return nil, false, err
	}
	next := wrappedRoot{ID: newRootID(), Wrapped: wrapped}
	ring.Roots = append(ring.Roots, next)
	secrets[next.ID] = root
	if err := ring.bridge(s.lineage, secrets); err != nil {
		return nil, false, err
	}
	text, err := ring.text()
	if err != nil {
		return nil, false, err
	}
	revision, err := s.replaceKeyring(ctx, text, meta[keyKeyring].GetModRevision())
	if err != nil {
		return nil, false, err
	}
	return s.takeRoots(ctx, to, text, revision)
}

func (s *Store) takeRoots(ctx context.Context, by kek.Key, keyring []byte, revision int64) (*rootKeys, bool, error) {
	seal := &sealer{kek: by, lineage: s.lineage}
	if err := seal.adopt(ctx, keyring, revision); err != nil {
		return nil, false, err
	}
	return seal.roots.Load(), true, nil
}

// replaceKeyring writes a keyring in the place of the one of a revision.
func (s *Store) replaceKeyring(ctx context.Context, text []byte, was int64) (revision int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	response, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(keyKeyring), "=", was)).
		Then(clientv3.OpPut(keyKeyring, string(text))).Commit()
	if err != nil {
		return 0, storeError("write keyring", err)
	}
	if !response.Succeeded {
		return 0, fmt.Errorf("somebody else rotates it at this moment: run it again: %w", ErrConflict)
	}
	return response.Header.Revision, nil
}

// endRotation drops the old root key, and the bridge that leads from it.
func (s *Store) endRotation(ctx context.Context, was int64) error {
	meta, err := s.meta(ctx)
	if err != nil {
		return err
	}
	ring, err := parseKeyring(meta[keyKeyring].GetValue())
	if err != nil {
		return err
	}
	if meta[keyKeyring].GetModRevision() != was {
		return fmt.Errorf("end the rotation: somebody else rotates it at this moment: run it again: %w", ErrConflict)
	}
	last := ring.newest()
	last.Bridge = nil
	text, err := keyring{Roots: []wrappedRoot{last}}.text()
	if err != nil {
		return err
	}
	_, err = s.replaceKeyring(ctx, text, was)
	return err
}

// rewrapAll seals everything that is sealed under another root key than the
// newest anew, in one round over the store. What others change meanwhile they
// seal with the newest.
func (s *Store) rewrapAll(ctx context.Context, roots *rootKeys, progress func(int)) (sealed int, lost []string, err error) {
	batch := rewrapping{client: s.client, keyring: roots.revision}
	err = s.scan(ctx, 0, func(kv *mvccpb.KeyValue) error {
		if !isSealed(kv.Value) {
			return nil
		}
		anew, changed, err := roots.rewrap(string(kv.Key), kv.Value)
		if err != nil {
			lost = append(lost, string(kv.Key))
			return nil
		}
		if !changed {
			return nil
		}
		sealed++
		if err := batch.add(ctx, kv, anew); err != nil {
			return err
		}
		progress(sealed)
		return nil
	})
	if err != nil {
		return sealed, lost, err
	}
	return sealed, lost, batch.flush(ctx)
}

// rewrapping collects values that are sealed anew until they are a transaction.
type rewrapping struct {
	client  *clientv3.Client
	keyring int64 // revision that it must have
	ops     []clientv3.Op
	bytes   int
}

func (b *rewrapping) add(ctx context.Context, kv *mvccpb.KeyValue, anew []byte) error {
	if b.bytes += len(anew); len(b.ops) >= maxOps || b.bytes > maxBytes {
		if err := b.flush(ctx); err != nil {
			return err
		}
		b.bytes = len(anew)
	}
	key := string(kv.Key)
	// Each has its own condition: one that somebody has changed meanwhile does not
	// hold up the others. The next round looks at it again.
	b.ops = append(b.ops, clientv3.OpTxn(
		[]clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", kv.ModRevision)},
		[]clientv3.Op{clientv3.OpPut(key, string(anew), clientv3.WithIgnoreLease())}, nil))
	return nil
}

func (b *rewrapping) flush(ctx context.Context) error {
	if len(b.ops) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	response, err := b.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(keyKeyring), "=", b.keyring)).
		Then(b.ops...).Commit()
	b.ops, b.bytes = b.ops[:0], 0
	if err == nil && !response.Succeeded {
		return fmt.Errorf("somebody else has ended this rotation: %w", ErrConflict)
	}
	return storeError("write secrets", err)
}

// scan reads all keys of the store at a revision (0: now) in pages.
func (s *Store) scan(ctx context.Context, revision int64, each func(*mvccpb.KeyValue) error) error {
	from, end := keyRoot, clientv3.GetPrefixRangeEnd(keyRoot)
	for {
		call, cancel := context.WithTimeout(ctx, callTimeout)
		response, err := s.client.Get(call, from, clientv3.WithRange(end), clientv3.WithLimit(pageSize), clientv3.WithRev(revision))
		cancel()
		if err != nil {
			return storeError("read the store", err)
		}
		for _, kv := range response.Kvs {
			if err := each(kv); err != nil {
				return err
			}
		}
		if !response.More {
			return nil
		}
		from = string(response.Kvs[len(response.Kvs)-1].Key) + "\x00"
	}
}
