package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead/fairlead/internal/iam"
)

const purposeIAM = "iam"

// entityKey is where an entity lies. All of it is sealed: who may write to etcd
// must not be able to give anybody a policy.
func entityKey(r iam.Ref) string {
	return dirIAM + url.PathEscape(string(r.Kind)) + "/" + url.PathEscape(r.Account) + "/" + url.PathEscape(r.Name)
}

func parseRef(key string) (iam.Ref, error) {
	parts := strings.Split(strings.TrimPrefix(key, dirIAM), "/")
	if len(parts) != 3 {
		return iam.Ref{}, fmt.Errorf("read key %q: %d parts instead of 3", key, len(parts))
	}
	for i, part := range parts {
		text, err := url.PathUnescape(part)
		if err != nil {
			return iam.Ref{}, fmt.Errorf("read key %q: %w", key, err)
		}
		parts[i] = text
	}
	return iam.Ref{Kind: iam.EntityKind(parts[0]), Account: parts[1], Name: parts[2]}, nil
}

func openEntity(seal *sealer, key string, sealed []byte) (*iam.Entity, error) {
	value, err := seal.open(key, purposeIAM, sealed)
	if err != nil {
		return nil, err
	}
	e := &iam.Entity{}
	// What a newer version has added may take something away: it is not passed over.
	if err := json.Unmarshal(value, e, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	if entityKey(e.Ref) != key {
		return nil, fmt.Errorf("read %s: it holds %s", key, e.ARN())
	}
	if err := e.Check(); err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	return e, nil
}

// Entity finds a user, group, role, policy or account in the cache. It must not
// be changed. The error is ErrNotFound.
func (s *Store) Entity(r iam.Ref) (*iam.Entity, error) {
	s.cache.mu.RLock()
	defer s.cache.mu.RUnlock()
	if e := s.cache.entities[r]; e != nil {
		return e, nil
	}
	return nil, fmt.Errorf("find %s: %w", r.ARN(), ErrNotFound)
}

// Entities are all of a kind, by account and name, as the cache has them.
func (s *Store) Entities(kind iam.EntityKind) []*iam.Entity {
	s.cache.mu.RLock()
	defer s.cache.mu.RUnlock()
	var found []*iam.Entity
	for ref, e := range s.cache.entities {
		if ref.Kind == kind {
			found = append(found, e)
		}
	}
	slices.SortFunc(found, func(a, b *iam.Entity) int {
		return cmp.Or(strings.Compare(a.Account, b.Account), strings.Compare(a.Name, b.Name))
	})
	return found
}

// EditEntity changes an entity: edit gets a copy of what is there, or nil, and
// returns what is to be there, or nil to have it deleted; it may be called more
// than once. edit's error is returned as it is. It returns the outcome, when
// this server knows it.
func (s *Store) EditEntity(ctx context.Context, r iam.Ref, edit func(*iam.Entity) (*iam.Entity, error)) (*iam.Entity, error) {
	return s.editEntity(ctx, r, func(old *iam.Entity, _ *rootKeys) (*iam.Entity, []clientv3.Op, error) {
		e, err := edit(old)
		if err != nil || e != nil || old == nil {
			return e, nil, err
		}
		var ops []clientv3.Op
		for _, k := range old.Keys {
			ops = append(ops, clientv3.OpDelete(dirAccessKey+k.ID))
		}
		return nil, ops, nil
	})
}

func (s *Store) editEntity(ctx context.Context, r iam.Ref, edit func(*iam.Entity, *rootKeys) (*iam.Entity, []clientv3.Op, error)) (*iam.Entity, error) {
	ctx, cancel := context.WithTimeout(ctx, maxWriting)
	defer cancel()
	key := entityKey(r)
	for attempt := range maxAttempts {
		if err := pause(ctx, attempt); err != nil {
			return nil, storeError("write", err)
		}
		response, err := s.client.Get(ctx, key)
		if err != nil {
			return nil, storeError("read", err)
		}
		var old *iam.Entity
		var revision int64
		if len(response.Kvs) > 0 {
			if old, err = openEntity(s.seal, key, response.Kvs[0].Value); err != nil {
				return nil, err
			}
			revision = response.Kvs[0].ModRevision
		}
		// Nothing is written under a root key that a rotation is about to end.
		roots := s.seal.roots.Load()
		e, ops, err := edit(old, roots)
		if err != nil {
			return nil, err
		}
		if e != nil && old == nil {
			if err := s.room(); err != nil { // a change, as of a stolen key, is little to write
				return nil, err
			}
		}
		op, err := s.putEntity(roots, key, e)
		if err != nil {
			return nil, err
		}
		done, err := s.client.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(key), "=", revision), clientv3.Compare(clientv3.ModRevision(keyKeyring), "=", roots.revision)).
			Then(append(ops, op)...).Commit()
		if err != nil {
			return nil, storeError("write", err)
		}
		if done.Succeeded {
			return e, s.WaitFor(ctx, done.Header.Revision)
		}
	}
	return nil, ErrConflict
}

// putEntity is the operation that leaves e, or nothing.
func (s *Store) putEntity(roots *rootKeys, key string, e *iam.Entity) (clientv3.Op, error) {
	if e == nil {
		return clientv3.OpDelete(key), nil
	}
	if e.ID == "" {
		id := make([]byte, 10)
		rand.Read(id) // never fails
		e.ID, e.CreatedAt = entityPrefix(e.Kind)+base32.StdEncoding.EncodeToString(id), s.now().UTC()
	}
	if err := e.Check(); err != nil {
		return clientv3.Op{}, err
	}
	value, err := json.Marshal(e)
	if err != nil {
		return clientv3.Op{}, fmt.Errorf("write %s: %w", e.ARN(), err)
	}
	sealed, err := roots.seal(key, purposeIAM, value)
	return clientv3.OpPut(key, string(sealed)), err
}

// entityPrefix begins the ids of a kind, as AWS's do.
func entityPrefix(kind iam.EntityKind) string {
	return map[iam.EntityKind]string{iam.KindUser: "AIDA", iam.KindRole: "AROA", iam.KindGroup: "AGPA", iam.KindPolicy: "ANPA", iam.KindAccount: "ACCT"}[kind]
}

// CreateUserKey makes an access key of a user. It returns when this server knows
// the key; its secret is never told again. Errors: ErrNotFound, what Check says
// of a key too many.
func (s *Store) CreateUserKey(ctx context.Context, account, user string) (iam.Key, error) {
	var k iam.Key
	_, err := s.editEntity(ctx, iam.Ref{Kind: iam.KindUser, Account: account, Name: user}, func(e *iam.Entity, roots *rootKeys) (*iam.Entity, []clientv3.Op, error) {
		if e == nil {
			return nil, nil, ErrNotFound
		}
		k = newKey(keyPrefix, iam.Principal{Account: account, Kind: iam.User, Name: e.Name, ID: e.ID})
		now := s.now().UTC()
		text, err := keyText(k, now)
		if err != nil {
			return nil, nil, err
		}
		sealed, err := roots.seal(dirAccessKey+k.ID, purposeAccessKey, text)
		if err != nil {
			return nil, nil, err
		}
		e.Keys = append(e.Keys, iam.UserKey{ID: k.ID, CreatedAt: now})
		return e, []clientv3.Op{clientv3.OpPut(dirAccessKey+k.ID, string(sealed))}, nil
	})
	return k, err
}

// DeleteUserKey ends an access key of a user, with all its sessions, on every
// server. The error is ErrNotFound if the user has no such key.
func (s *Store) DeleteUserKey(ctx context.Context, account, user, accessKeyID string) error {
	_, err := s.editEntity(ctx, iam.Ref{Kind: iam.KindUser, Account: account, Name: user}, func(e *iam.Entity, _ *rootKeys) (*iam.Entity, []clientv3.Op, error) {
		if e == nil {
			return nil, nil, ErrNotFound
		}
		left := slices.DeleteFunc(slices.Clone(e.Keys), func(k iam.UserKey) bool { return k.ID == accessKeyID })
		if len(left) == len(e.Keys) {
			return nil, nil, ErrNotFound
		}
		e.Keys = left
		return e, []clientv3.Op{clientv3.OpDelete(dirAccessKey + accessKeyID)}, nil
	})
	return err
}
