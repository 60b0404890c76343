package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead/fairlead/internal/iam"
	"github.com/fairlead/fairlead/internal/mesh"
)

// Bounds of the cache's work.
const (
	pageSize   = 2000 // keys read at once when loading
	maxBatch   = 4096 // events applied before views are published
	retryWatch = 200 * time.Millisecond
)

// cache is all of the store in memory, as of one revision. One goroutine reads
// etcd's events and writes it; views are replaced, never changed.
type cache struct {
	client *clientv3.Client
	seal   *sealer
	log    *slog.Logger
	ready  chan struct{} // closed after the first load

	mu       sync.RWMutex
	revision int64                    // everything up to here is in
	views    map[mesh.Name]*mesh.View // only those whose mesh has a record
	hidden   map[mesh.Name]*mesh.View // records without a mesh: none, unless somebody edited etcd
	changes  map[resource]*Change
	shrinks  map[resource]bool
	keys     map[string]iam.Key
	watchers map[*watcher]bool
	// keyWatchers are told of keys that are deleted.
	keyWatchers map[*keyWatcher]bool
	advanced    chan struct{} // closed and replaced when revision moves

	trust trust // of the filling goroutine alone
}

func newCache(client *clientv3.Client, seal *sealer, log *slog.Logger) *cache {
	return &cache{
		client: client, seal: seal, log: log,
		ready:    make(chan struct{}),
		views:    map[mesh.Name]*mesh.View{},
		hidden:   map[mesh.Name]*mesh.View{},
		changes:  map[resource]*Change{},
		shrinks:  map[resource]bool{},
		keys:     map[string]iam.Key{},
		watchers: map[*watcher]bool{}, keyWatchers: map[*keyWatcher]bool{},
		advanced: make(chan struct{}),
		trust:    newTrust(),
	}
}

// batch is a set of events on its way into the cache.
type batch struct {
	revision int64
	fresh    bool // nothing that the cache holds stays
	drafts   map[mesh.Name]*draft
	touched  map[mesh.Name]bool // meshes whose watchers are told
	changes  map[resource]*Change
	shrinks  map[resource]bool
	keys     map[string]*iam.Key // nil: deleted
	trust    trustBatch
}

func newBatch() *batch {
	return &batch{
		drafts: map[mesh.Name]*draft{}, touched: map[mesh.Name]bool{},
		changes: map[resource]*Change{}, shrinks: map[resource]bool{}, keys: map[string]*iam.Key{},
		trust: newTrustBatch(),
	}
}

func (c *cache) draft(b *batch, name mesh.Name) *draft {
	d := b.drafts[name]
	if d == nil {
		// Only the goroutine that is here ever replaces views.
		from := c.views[name]
		if from == nil {
			from = c.hidden[name]
		}
		if b.fresh {
			from = nil
		}
		d = newDraft(from)
		b.drafts[name] = d
	}
	return d
}

// put takes a key that was written into a batch. What cannot be read is logged
// and left out: the mesh keeps the last good record.
func (c *cache) put(b *batch, kv *mvccpb.KeyValue) {
	key := string(kv.Key)
	var err error
	switch {
	case strings.HasPrefix(key, dirRecord):
		var r resource
		if r, err = parsePath(key[len(dirRecord):]); err == nil {
			d := c.draft(b, r.mesh)
			err = d.put(r, kv.Value, kv.ModRevision)
			d.view.Revision = max(d.view.Revision, kv.ModRevision)
		}
	case strings.HasPrefix(key, dirChange):
		var r resource
		var change *Change
		if r, err = parsePath(key[len(dirChange):]); err != nil {
			break
		}
		if change, err = decodeChange(kv.Value, kv.ModRevision); err == nil {
			b.changes[r] = change
			d := c.draft(b, r.mesh)
			d.view.Revision = max(d.view.Revision, kv.ModRevision)
		}
	case strings.HasPrefix(key, dirShrink):
		var r resource
		if r, err = parsePath(key[len(dirShrink):]); err == nil {
			b.shrinks[r] = true
			b.touched[r.mesh] = true
		}
	case strings.HasPrefix(key, dirAccessKey):
		var k iam.Key
		if k, _, err = openKey(c.seal, key, kv.Value); err == nil {
			b.keys[k.ID] = &k
		} else if !errors.Is(err, errRoot) { // a key that was only sealed anew is as good as it was
			b.keys[key[len(dirAccessKey):]] = nil
		}
	case key == keyKeyring:
		if err = c.seal.adopt(context.Background(), kv.Value, kv.ModRevision); err != nil {
			err = fmt.Errorf("the key-encryption key was rotated, and this server can no longer open nor write secrets: restart it with the new one: %w", err)
		}
	default:
		err = b.trust.put(kv)
	}
	if err != nil {
		c.log.Error("a key in the store cannot be read and is left out", "key", key, "revision", kv.ModRevision, "error", err)
	}
}

// remove takes a key that was deleted into a batch.
func (c *cache) remove(b *batch, key string) {
	var r resource
	var err error
	switch {
	case strings.HasPrefix(key, dirRecord):
		if r, err = parsePath(key[len(dirRecord):]); err == nil {
			c.draft(b, r.mesh).remove(r)
		}
	case strings.HasPrefix(key, dirChange):
		if r, err = parsePath(key[len(dirChange):]); err == nil {
			b.changes[r] = nil
		}
	case strings.HasPrefix(key, dirShrink):
		if r, err = parsePath(key[len(dirShrink):]); err == nil {
			b.shrinks[r] = false
			b.touched[r.mesh] = true
		}
	case strings.HasPrefix(key, dirAccessKey):
		b.keys[key[len(dirAccessKey):]] = nil
	default:
		err = b.trust.remove(key)
	}
	if err != nil {
		c.log.Warn("an unknown key was deleted from the store", "key", key, "error", err)
	}
}

// publish makes a batch visible, all of it at once, and tells watchers.
func (c *cache) publish(b *batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.fresh {
		for name := range c.views {
			b.touched[name] = true
		}
		c.revision = 0
		clear(c.views)
		clear(c.hidden)
		clear(c.changes)
	}
	for name, d := range b.drafts {
		old := c.views[name]
		delete(c.views, name)
		delete(c.hidden, name)
		switch {
		case d.view.Mesh != nil:
			c.views[name] = d.view
		case len(resources(name, d.view)) > 0:
			c.hidden[name] = d.view
		}
		if old != nil || d.view.Mesh != nil {
			b.touched[name] = true
		}
	}
	merge(c.changes, b.changes)
	for r, accepted := range b.shrinks {
		if accepted {
			c.shrinks[r] = true
		} else {
			delete(c.shrinks, r)
		}
	}
	for id, k := range b.keys {
		if k == nil {
			c.forgetKey(id)
		} else {
			c.keys[id] = *k
		}
	}
	for w := range c.watchers {
		w.tell(b.touched)
	}
	c.advance(b.revision)
}

func merge[K comparable, V any](into map[K]*V, from map[K]*V) {
	maps.Copy(into, from)
	for k, v := range from {
		if v == nil {
			delete(into, k)
		}
	}
}

func (c *cache) advance(revision int64) {
	if revision <= c.revision {
		return
	}
	c.revision = revision
	close(c.advanced)
	c.advanced = make(chan struct{})
}

// load reads the whole store at one revision and publishes the difference to
// what the cache has.
func (c *cache) load(ctx context.Context) error {
	for {
		kvs, revision, err := c.list(ctx)
		if errors.Is(err, rpctypes.ErrCompacted) {
			continue // it took longer than etcd keeps old revisions
		}
		if err != nil {
			return storeError("list the store", err)
		}
		err = c.replace(ctx, kvs, revision)
		if errors.Is(err, rpctypes.ErrCompacted) {
			continue
		}
		return err
	}
}

// list reads all that the cache holds at one revision. What it does not hold, as
// the ledgers of authorities, may be more than there is memory.
func (c *cache) list(ctx context.Context) (kvs []*mvccpb.KeyValue, revision int64, err error) {
	for _, dir := range []string{keyKeyring, dirRecord, dirChange, dirShrink, dirAccessKey, dirServedAuthority, dirServedList} {
		some, at, err := c.listDir(ctx, dir, revision)
		if err != nil {
			return nil, 0, err
		}
		kvs, revision = append(kvs, some...), at
	}
	return kvs, revision, nil
}

// listDir reads a directory at a revision, which is the newest if it is 0.
func (c *cache) listDir(ctx context.Context, dir string, revision int64) (kvs []*mvccpb.KeyValue, at int64, err error) {
	from, end := dir, clientv3.GetPrefixRangeEnd(dir)
	for {
		call, cancel := context.WithTimeout(ctx, callTimeout)
		response, err := c.client.Get(call, from, clientv3.WithRange(end), clientv3.WithLimit(pageSize), clientv3.WithRev(revision))
		cancel()
		if err != nil {
			return nil, 0, err
		}
		if revision == 0 {
			revision = response.Header.Revision
		}
		kvs = append(kvs, response.Kvs...)
		if !response.More {
			return kvs, revision, nil
		}
		from = string(response.Kvs[len(response.Kvs)-1].Key) + "\x00"
	}
}

// replace makes the cache what kvs say. Records that are unchanged keep their
// pointers, and watchers are told only of meshes that changed.
func (c *cache) replace(ctx context.Context, kvs []*mvccpb.KeyValue, revision int64) error {
	b := newBatch()
	b.revision, b.trust.whole = revision, true
	if revision < c.revision {
		// etcd was put back to an older state under a running server: what has
		// the same revision need not be the same.
		c.log.Error("the store went back to an older revision", "cached", c.revision, "store", revision)
		b.fresh = true
	}
	there := map[string]bool{}
	for _, kv := range kvs { // the keyring first, and then what is sealed
		there[string(kv.Key)] = true
		if b.fresh || !c.has(kv) {
			c.put(b, kv)
		}
	}
	for key := range c.known() {
		if !there[key] {
			c.remove(b, key)
		}
	}
	if err := c.settle(ctx, b); err != nil {
		return err
	}
	c.publish(b)
	select {
	case <-c.ready:
	default:
		close(c.ready)
	}
	return nil
}

// has tells whether the cache holds a change record at its revision; then it
// holds the record as well, since both are written together.
func (c *cache) has(kv *mvccpb.KeyValue) bool {
	path, ok := strings.CutPrefix(string(kv.Key), dirRecord)
	if !ok {
		path, ok = strings.CutPrefix(string(kv.Key), dirChange)
	}
	if !ok {
		return false
	}
	r, err := parsePath(path)
	if err != nil {
		return false
	}
	change := c.changes[r]
	return change != nil && change.Revision == kv.ModRevision
}

// known are the keys of everything that the cache holds.
func (c *cache) known() map[string]bool {
	keys := map[string]bool{}
	add := func(dir string, r resource) {
		if path, err := r.path(); err == nil {
			keys[dir+path] = true
		}
	}
	for _, views := range []map[mesh.Name]*mesh.View{c.views, c.hidden} {
		for name, view := range views {
			for r := range resources(name, view) {
				add(dirRecord, r)
			}
		}
	}
	for r := range c.changes {
		add(dirChange, r)
	}
	for r := range c.shrinks {
		add(dirShrink, r)
	}
	for id := range c.keys {
		keys[dirAccessKey+id] = true
	}
	return keys
}

// run follows etcd until ctx ends. When the watch breaks off, because what it
// needs is compacted or for any other reason, it lists everything again.
func (c *cache) run(ctx context.Context) {
	for {
		err := c.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		c.log.Warn("watch of the store broke off; listing it again", "revision", c.revision, "error", err)
		for c.load(ctx) != nil {
			select {
			case <-ctx.Done():
				return
			case <-time.After(retryWatch):
			}
		}
	}
}

// follow applies etcd's events in their order. Those that are already there are
// published together, and making views takes at most a fifth of the time: the
// busier the store and the larger the meshes, the fewer views are made. After a
// quiet moment a change is published at once.
func (c *cache) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	responses := c.client.Watch(ctx, keyRoot, clientv3.WithPrefix(), clientv3.WithRev(c.revision+1), clientv3.WithProgressNotify())
	var rest time.Time // until then events are only collected
	for first := range responses {
		batched, err := collect(first, responses, rest)
		begun := time.Now()
		b := newBatch()
		for _, response := range batched {
			c.apply(b, response)
		}
		if err := c.settle(ctx, b); err != nil {
			return err
		}
		c.publish(b)
		if err != nil {
			return err
		}
		rest = time.Now().Add(4 * time.Since(begun))
	}
	return errors.New("etcd ended the watch")
}

// collect takes the responses that are there, and those that come until rest.
func collect(first clientv3.WatchResponse, responses clientv3.WatchChan, rest time.Time) ([]clientv3.WatchResponse, error) {
	if err := first.Err(); err != nil {
		return nil, err
	}
	timer := time.NewTimer(time.Until(rest))
	defer timer.Stop()
	batched := []clientv3.WatchResponse{first}
	for events := len(first.Events); events < maxBatch; {
		var response clientv3.WatchResponse
		var open bool
		select {
		case response, open = <-responses:
		default:
			select {
			case response, open = <-responses:
			case <-timer.C:
				return batched, nil
			}
		}
		if !open {
			return batched, nil // the caller sees it next
		}
		if err := response.Err(); err != nil {
			return batched, err
		}
		batched = append(batched, response)
		events += len(response.Events)
	}
	return batched, nil
}

func (c *cache) apply(b *batch, response clientv3.WatchResponse) {
	for _, event := range response.Events {
		if event.Type == mvccpb.DELETE {
			c.remove(b, string(event.Kv.Key))
		} else {
			c.put(b, event.Kv)
		}
	}
	// With events, the header tells how far etcd is, not how far these go.
	through := response.Header.Revision
	if n := len(response.Events); n > 0 {
		through = response.Events[n-1].Kv.ModRevision
	}
	b.revision = max(b.revision, through)
}
