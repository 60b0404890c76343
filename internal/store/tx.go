package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/semaphore"

	"github.com/fairlead/fairlead/internal/mesh"
)

// Bounds on running a transaction again after a conflict.
const (
	maxAttempts = 100
	maxPause    = 20 * time.Millisecond
	maxWriting  = 10 * time.Second
)

// errNotForetold says that a transaction needs to know what the cache cannot
// tell; see Tx.foretold.
var errNotForetold = errors.New("the cache does not tell")

// errRetry says that a transaction has to run again.
var errRetry = errors.New("the revision that was read is compacted")

// Tx is a transaction. All its reads are of one revision, and all of them are
// conditions of its writes: if anything that it read has changed meanwhile, it
// runs again. Reads do not see what the transaction itself has staged.
type Tx struct {
	// Actor goes into the change records of what the transaction writes: the
	// ARN of who asks for it.
	Actor string

	ctx      context.Context
	client   *clientv3.Client
	cache    *cache
	seal     *sealer
	now      time.Time
	revision int64 // of all reads; 0 before the first

	got        map[string]*mvccpb.KeyValue // by record key; nil: not there
	conditions map[string]clientv3.Cmp     // by record key and sort of condition
	ops        map[string]clientv3.Op      // by key
	// sole: the store is the embedded etcd. It has one member, which answers a
	// write only after it has applied it, so that what it has applied is all that
	// was acknowledged: a read need not ask through its log.
	sole bool
	// foretold: nothing is read. What the cache has is taken to be there, what it
	// has not to be absent, and the conditions of the writes say whether that was
	// so. A Create needs no more.
	foretold bool
}

// Write runs fn until what it read is still true when its writes are made, and
// returns the revision of the writes. If fn writes nothing, it is the revision
// that was read. An error of fn ends it and is returned as it is; such an error
// is founded on a consistent view. Writes come in one etcd transaction, never
// twice. Errors: ErrConflict, ErrUnavailable, ErrFull,
// ErrTooLarge, those of fn.
func (s *Store) Write(ctx context.Context, fn func(tx *Tx) error) (revision int64, err error) {
	return s.transact(ctx, fn, true)
}

func (s *Store) transact(caller context.Context, fn func(tx *Tx) error, writes bool) (revision int64, err error) {
	ctx, cancel := context.WithTimeout(caller, maxWriting)
	defer cancel()
	var seat seat
	defer func() { seat.leave() }()
	for attempt := range maxAttempts {
		err := pause(ctx, attempt)
		if err == nil && writes {
			err = s.takeSeat(ctx, &seat, attempt)
		}
		switch {
		case err != nil && caller.Err() == nil:
			return 0, ErrConflict // ours was the time that is over, lost to others
		case err != nil:
			return 0, storeError("write", err)
		}
		tx := s.begin(ctx)
		if writes && attempt == 0 {
			tx = s.foretell(ctx)
		}
		err = fn(tx)
		if tx.foretold && (err != nil || len(tx.ops) == 0) {
			// The cache may be behind, and what is told to a caller is founded on reads.
			tx = s.begin(ctx)
			err = fn(tx)
		}
		if errors.Is(err, errRetry) {
			continue
		} else if attempt > 0 && errors.Is(err, ErrUnavailable) && ctx.Err() != nil && caller.Err() == nil {
			return 0, ErrConflict // the time was over while it read
		} else if err != nil {
			return 0, err
		}
		if len(tx.ops) == 0 {
			return tx.revision, nil
		}
		if err := s.room(); err != nil {
			return 0, err
		}
		revision, ok, err := tx.commit()
		if err != nil {
			return 0, err
		}
		if ok {
			return revision, nil
		}
	}
	return 0, ErrConflict
}

// Read runs fn on one consistent revision, which it returns. Its reads see every
// write that was acknowledged before. fn must not write.
func (s *Store) Read(ctx context.Context, fn func(tx *Tx) error) (revision int64, err error) {
	return s.transact(ctx, func(tx *Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		if len(tx.ops) > 0 {
			return errors.New("read the store: the transaction writes")
		}
		return nil
	}, false)
}

// patience is how often a transaction is beaten before it asks to be alone.
const patience = 4

// seat is a transaction's place among those of this server that write. At first
// it is one of many. Once beaten it waits for its turn among the beaten, so that a record
// that many write is written by one after the other; beaten more than patience
// allows, it waits until it is the only one, and has but the other servers to
// fear. Nobody starves.
type seat struct {
	turn, among *semaphore.Weighted // what is held; nil: nothing
	weight      int64               // of among
}

// everybody is more than there are transactions at one time.
const everybody = 1 << 30

func (s *Store) takeSeat(ctx context.Context, p *seat, attempt int) error {
	if attempt == 1 {
		p.leave() // or who wants to be alone would wait for who waits for a turn
		if err := s.turns.Acquire(ctx, 1); err != nil {
			return err
		}
		p.turn = s.turns
	}
	weight := int64(1)
	if attempt > patience {
		weight = everybody
	}
	if p.weight == weight {
		return nil
	}
	if p.among != nil {
		p.among.Release(p.weight)
		p.among, p.weight = nil, 0
	}
	if err := s.writers.Acquire(ctx, weight); err != nil {
		return err
	}
	p.among, p.weight = s.writers, weight
	return nil
}

func (p *seat) leave() {
	if p.among != nil {
		p.among.Release(p.weight)
	}
	if p.turn != nil {
		p.turn.Release(1)
	}
	*p = seat{}
}

func (s *Store) begin(ctx context.Context) *Tx {
	return &Tx{
		ctx: ctx, client: s.client, cache: s.cache, seal: s.seal, now: s.now().UTC(),
		got:        map[string]*mvccpb.KeyValue{},
		conditions: map[string]clientv3.Cmp{},
		ops:        map[string]clientv3.Op{},
		sole:       s.embedded(),
	}
}

// foretell begins a transaction that reads nothing.
func (s *Store) foretell(ctx context.Context) *Tx {
	tx := s.begin(ctx)
	tx.foretold = true
	s.cache.mu.RLock()
	defer s.cache.mu.RUnlock()
	tx.revision = s.cache.revision
	return tx
}

// pause waits a random time that grows with the attempts, so that writers of
// one record come apart.
func pause(ctx context.Context, attempt int) error {
	if attempt == 0 {
		return ctx.Err()
	}
	limit := min(maxPause, time.Millisecond<<min(attempt, 10))
	timer := time.NewTimer(rand.N(limit))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

func (tx *Tx) commit() (revision int64, ok bool, err error) {
	ctx, cancel := context.WithTimeout(tx.ctx, callTimeout)
	defer cancel()
	conditions := slices.Collect(maps.Values(tx.conditions))
	if !guardConditions {
		conditions = nil
	}
	response, err := tx.client.Txn(ctx).
		If(conditions...).
		Then(slices.Collect(maps.Values(tx.ops))...).
		Commit()
	if err != nil {
		return 0, false, storeError("write", err)
	}
	return response.Header.Revision, response.Succeeded, nil
}

// get reads at the transaction's revision; its first read decides which.
func (tx *Tx) get(key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	response, err := tx.do(clientv3.OpGet(key, append(opts, tx.asOf()...)...))
	if err != nil {
		return nil, err
	}
	read := response.Get()
	if tx.revision == 0 {
		tx.revision = read.Header.Revision
	}
	return read, nil
}

// asOf makes a read one of the transaction's revision.
func (tx *Tx) asOf() (opts []clientv3.OpOption) {
	if tx.revision > 0 {
		opts = append(opts, clientv3.WithRev(tx.revision))
	}
	if tx.sole {
		opts = append(opts, clientv3.WithSerializable())
	}
	return opts
}

// do sends etcd something to read.
func (tx *Tx) do(op clientv3.Op) (response clientv3.OpResponse, err error) {
	if tx.foretold {
		return response, errNotForetold
	}
	ctx, cancel := context.WithTimeout(tx.ctx, callTimeout)
	defer cancel()
	response, err = tx.client.Do(ctx, op)
	if errors.Is(err, rpctypes.ErrCompacted) {
		return response, errRetry
	}
	if err != nil {
		return response, storeError("read", err)
	}
	return response, nil
}

// record reads one record and makes its content a condition.
func (tx *Tx) record(path string) (*mvccpb.KeyValue, error) {
	key := dirRecord + path
	if _, known := tx.got[key]; tx.foretold && !known {
		r, err := parsePath(path)
		if err != nil {
			return nil, err
		}
		if !tx.cache.holds(r) {
			tx.note(key, nil)
		}
	}
	return tx.read(key)
}

// read reads one key and makes its content a condition.
func (tx *Tx) read(key string) (*mvccpb.KeyValue, error) {
	if kv, ok := tx.got[key]; ok {
		return kv, nil
	}
	response, err := tx.get(key)
	if err != nil {
		return nil, err
	}
	var kv *mvccpb.KeyValue
	if len(response.Kvs) > 0 {
		kv = response.Kvs[0]
	}
	tx.note(key, kv)
	return kv, nil
}

// note remembers what was read under a record's key, and conditions on it.
func (tx *Tx) note(key string, kv *mvccpb.KeyValue) {
	tx.got[key] = kv
	if kv == nil {
		tx.conditions[key] = clientv3.Compare(clientv3.CreateRevision(key), "=", 0)
		return
	}
	tx.conditions[key] = clientv3.Compare(clientv3.ModRevision(key), "=", kv.ModRevision)
}

// Exists tells whether a record is there. That it stays there, or stays away,
// becomes a condition; that it stays as it is, does not.
func (tx *Tx) Exists(name mesh.Name, id mesh.ID) (bool, error) {
	r := normal(name, id)
	path, err := r.path()
	if err != nil {
		return false, err
	}
	key := dirRecord + path
	if kv, ok := tx.got[key]; ok {
		return kv != nil, nil
	}
	if tx.foretold && tx.cache.holds(r) {
		tx.conditions[key] = clientv3.Compare(clientv3.CreateRevision(key), ">", 0)
		return true, nil
	}
	response, err := tx.get(key, clientv3.WithKeysOnly())
	if err != nil {
		return false, err
	}
	var created int64
	if len(response.Kvs) > 0 {
		created = response.Kvs[0].CreateRevision
	}
	tx.conditions[key] = clientv3.Compare(clientv3.CreateRevision(key), "=", created)
	return created != 0, nil
}

// Empty tells whether a mesh has no record of a kind; with a parent, whether
// the parent has none. That it stays so becomes a condition.
func (tx *Tx) Empty(name mesh.Name, kind mesh.Kind, parent string) (bool, error) {
	path, err := collection(name, kind, parent)
	if err != nil {
		return false, err
	}
	dir := dirRecord + path
	response, err := tx.get(dir, clientv3.WithPrefix(), clientv3.WithLimit(1), clientv3.WithKeysOnly())
	if err != nil {
		return false, err
	}
	if len(response.Kvs) > 0 {
		// Something is there: stays so as long as this one is not deleted.
		key := string(response.Kvs[0].Key)
		if _, ok := tx.conditions[key]; !ok {
			tx.conditions[key] = clientv3.Compare(clientv3.CreateRevision(key), "=", response.Kvs[0].CreateRevision)
		}
		return false, nil
	}
	tx.conditions[dir+"*empty"] = clientv3.Compare(clientv3.CreateRevision(dir), "=", 0).WithPrefix()
	return true, nil
}

// list reads a collection from a path in it on, all or as many as limit. That
// nothing in it is made, changed or deleted becomes a condition: each of these
// writes a change record, so that one comparison over those says it all.
func (tx *Tx) list(path, from string, limit int) ([]*mvccpb.KeyValue, error) {
	response, err := tx.get(dirRecord+from, clientv3.WithRange(clientv3.GetPrefixRangeEnd(dirRecord+path)), clientv3.WithLimit(int64(limit)))
	if err != nil {
		return nil, err
	}
	dir := dirChange + path
	tx.conditions[dir] = clientv3.Compare(clientv3.ModRevision(dir), "<", tx.revision+1).WithPrefix()
	for _, kv := range response.Kvs {
		tx.got[string(kv.Key)] = kv
	}
	return response.Kvs, nil
}

// stage adds a write and its change record. The record must have been read, or
// a change made meanwhile would be lost.
func (tx *Tx) stage(path string, op func(key string) clientv3.Op, change Change) error {
	key := dirRecord + path
	kv, ok := tx.got[key]
	if !ok {
		return fmt.Errorf("write %s: it was not read in this transaction", path)
	}
	// A record that was only listed has no condition of its own yet.
	tx.note(key, kv)
	change.Time, change.Actor = tx.now, tx.Actor
	value, err := json.Marshal(&change)
	if err != nil {
		return fmt.Errorf("write change record of %s: %w", path, err)
	}
	tx.ops[key] = op(key)
	tx.ops[dirChange+path] = clientv3.OpPut(dirChange+path, string(value))
	return nil
}

// putSealed stages a secret, sealed for its key and purpose. That the keyring is
// as it was becomes a condition: nothing is written under a root key that a
// rotation is about to end.
func (tx *Tx) putSealed(key, purpose string, value []byte) error {
	roots := tx.seal.roots.Load()
	sealed, err := roots.seal(key, purpose, value)
	if err != nil {
		return err
	}
	tx.ops[key] = clientv3.OpPut(key, string(sealed))
	tx.conditions[keyKeyring] = clientv3.Compare(clientv3.ModRevision(keyKeyring), "=", roots.revision)
	return nil
}
