package store

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/fairlead/fairlead/internal/mesh"
)

const (
	// SeenFor is how long a proxy counts that has gone, or whose server has.
	SeenFor = 5 * time.Minute
	// perNote bounds the sightings in one transaction: an external etcd takes 128
	// operations.
	perNote = 100
	// leadFor is how long nobody leads after the leader was killed, in seconds.
	leadFor = 5
)

// Sightings are what this server has seen of its proxies, in the store. They lie
// under a lease that it keeps, so that they outlive it by SeenFor. One goroutine
// uses it.
type Sightings struct {
	store *Store
	id    string // of this server, in keys
	lease clientv3.LeaseID
	kept  context.CancelFunc
	lost  <-chan *clientv3.LeaseKeepAliveResponse
}

// ErrForgotten says that the store has forgotten all that this server had seen,
// because it was not heard of for SeenFor: it is to note everything again.
var ErrForgotten = errors.New("what this server has seen is forgotten")

// NewSightings begins with nothing seen.
func (s *Store) NewSightings() *Sightings { return &Sightings{store: s, id: uuid.NewString()} }

func sightingKey(s *mesh.Sighting, server string) (string, error) {
	path, err := normal(s.Mesh, s.Endpoint).path()
	if err != nil {
		return "", err
	}
	return dirSighting + path + "/" + url.PathEscape(s.Instance) + "/" + server, nil
}

func decodeSighting(kv *mvccpb.KeyValue) (s mesh.Sighting, err error) {
	key := string(kv.Key[len(dirSighting):])
	parts := strings.Split(key, "/")
	if len(parts) < 3 {
		return s, fmt.Errorf("read sighting %q: its key is too short", kv.Key)
	}
	r, err := parsePath(strings.Join(parts[:len(parts)-2], "/"))
	if err != nil {
		return s, err
	}
	if s.Instance, err = url.PathUnescape(parts[len(parts)-2]); err != nil {
		return s, fmt.Errorf("read sighting %q: %w", kv.Key, err)
	}
	s.Mesh, s.Endpoint = r.mesh, r.id
	if err := json.Unmarshal(kv.Value, &s); err != nil {
		return s, fmt.Errorf("read sighting %q: %w", kv.Key, err)
	}
	return s, nil
}

// Note writes what is new of proxies: those that are connected, and those that have
// ended. It may be called again with the same.
func (n *Sightings) Note(ctx context.Context, news []mesh.Sighting) error {
	if err := n.keep(ctx); err != nil {
		return err
	}
	ended := clientv3.NoLease
	for len(news) > 0 {
		some := news[:min(len(news), perNote)]
		news = news[len(some):]
		var ops []clientv3.Op
		for i := range some {
			key, err := sightingKey(&some[i], n.id)
			if err != nil {
				return err
			}
			lease := n.lease
			if !some[i].Ended.IsZero() {
				if ended == clientv3.NoLease {
					if ended, err = n.grant(ctx); err != nil {
						return err
					}
				}
				lease = ended
			}
			value, err := json.Marshal(&some[i], json.Deterministic(true))
			if err != nil {
				return fmt.Errorf("write sighting: %w", err)
			}
			ops = append(ops, clientv3.OpPut(key, string(value), clientv3.WithLease(lease)))
		}
		call, cancel := context.WithTimeout(ctx, callTimeout)
		_, err := n.store.client.Txn(call).Then(ops...).Commit()
		cancel()
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			n.end()
			return ErrForgotten
		}
		if err != nil {
			return storeError("note what proxies hold", err)
		}
	}
	return nil
}

func (n *Sightings) grant(ctx context.Context) (clientv3.LeaseID, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	response, err := n.store.client.Grant(ctx, int64(SeenFor/time.Second))
	if err != nil {
		return clientv3.NoLease, storeError("make a lease", err)
	}
	return response.ID, nil
}

// keep has a lease, which the client renews, or says that it was lost.
func (n *Sightings) keep(ctx context.Context) error {
	if n.lease != clientv3.NoLease {
		return n.alive()
	}
	lease, err := n.grant(ctx)
	if err != nil {
		return err
	}
	renewing, stop := context.WithCancel(context.WithoutCancel(ctx))
	lost, err := n.store.client.KeepAlive(renewing, lease)
	if err != nil {
		stop()
		return storeError("keep a lease", err)
	}
	n.lease, n.kept, n.lost = lease, stop, lost
	return nil
}

// Alive is ErrForgotten if the lease was lost.
func (n *Sightings) Alive() error {
	if n.lease == clientv3.NoLease {
		return nil
	}
	return n.alive()
}

func (n *Sightings) alive() error {
	for {
		select {
		case _, ok := <-n.lost:
			if !ok {
				n.end()
				return ErrForgotten
			}
		default:
			return nil
		}
	}
}

func (n *Sightings) end() {
	n.kept()
	n.lease, n.kept, n.lost = clientv3.NoLease, nil, nil
}

// Close stops renewing the lease: what was seen counts for SeenFor.
func (n *Sightings) Close() {
	if n.lease != clientv3.NoLease {
		n.end()
	}
}

// Sightings are what all servers have seen of the proxies of a mesh. It is no
// condition: evidence does not go back.
func (tx *Tx) Sightings(name mesh.Name) ([]mesh.Sighting, error) {
	var all []mesh.Sighting
	for _, kind := range []mesh.Kind{mesh.KindVirtualNode, mesh.KindVirtualGateway} {
		path, err := collection(name, kind, "")
		if err != nil {
			return nil, err
		}
		dir := dirSighting + path
		for from, more := dir, true; more; {
			response, err := tx.get(from, clientv3.WithRange(clientv3.GetPrefixRangeEnd(dir)), clientv3.WithLimit(pageSize))
			if err != nil {
				return nil, err
			}
			for _, kv := range response.Kvs {
				s, err := decodeSighting(kv)
				if err != nil {
					return nil, err
				}
				all = append(all, s)
				from = string(kv.Key) + "\x00"
			}
			more = response.More
		}
	}
	return all, nil
}

// Await makes the revision of this transaction one that somebody waits for, under
// a name: servers note which proxies have acknowledged it. It replaces what was
// awaited under the name.
func (tx *Tx) Await(name string) {
	key := dirAwaited + url.PathEscape(name)
	tx.ops[key] = clientv3.OpPut(key, "")
}

// StopAwaiting stages that nobody waits under a name any more.
func (tx *Tx) StopAwaiting(name string) {
	key := dirAwaited + url.PathEscape(name)
	tx.ops[key] = clientv3.OpDelete(key)
}

// AwaitedUnder is the revision that is awaited under a name; 0: none.
func (tx *Tx) AwaitedUnder(name string) (int64, error) {
	kv, err := tx.read(dirAwaited + url.PathEscape(name))
	if err != nil || kv == nil {
		return 0, err
	}
	return kv.ModRevision, nil
}

// Awaited is the newest revision that somebody waits for, from the cache; 0: nobody
// does.
func (s *Store) Awaited() (newest int64) {
	s.cache.mu.RLock()
	defer s.cache.mu.RUnlock()
	for _, revision := range s.cache.awaited {
		newest = max(newest, revision)
	}
	return newest
}

// Lead calls do on one of the servers of a store at a time, with a context that
// ends when this one leads no more, until ctx ends. What do writes must be right
// even so: a server that was away may still believe that it leads.
func (s *Store) Lead(ctx context.Context, what string, do func(ctx context.Context)) {
	for ctx.Err() == nil {
		if err := s.leadOnce(ctx, what, do); err != nil && ctx.Err() == nil {
			s.log.Warn("this server cannot find out whether it leads", "what", what, "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(retryWatch):
			}
		}
	}
}

func (s *Store) leadOnce(ctx context.Context, what string, do func(ctx context.Context)) error {
	session, err := concurrency.NewSession(s.client, concurrency.WithTTL(leadFor), concurrency.WithContext(ctx))
	if err != nil {
		return storeError("make a session", err)
	}
	election := concurrency.NewElection(session, dirLeader+what)
	if err := election.Campaign(ctx, ""); err != nil {
		return storeError("wait to lead", err)
	}
	leading, end := context.WithCancel(ctx)
	defer end()
	go func() {
		select {
		case <-session.Done():
			end()
		case <-leading.Done():
		}
	}()
	do(leading)
	// Another server need not wait for the lease to end.
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if _, err := s.client.Revoke(bounded, session.Lease()); err != nil && ctx.Err() == nil {
		return storeError("lead no more", err)
	}
	return nil
}

// Awaited is Store.Awaited.
func (n *Sightings) Awaited() int64 { return n.store.Awaited() }
