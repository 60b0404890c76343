package store

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead/fairlead/internal/iam"
)

const purposeAccessKey = "access key"

// keyPrefix begins the ids of keys that are good until they are deleted.
const keyPrefix = "AKIA"

// sealedKey is an access key as it lies sealed in the store. All of it is
// sealed: who may write to etcd must not be able to make a proxy's key root.
type sealedKey struct {
	Account   string    `json:"account"`
	Kind      iam.Kind  `json:"kind"`
	Resource  string    `json:"resource,omitzero"`
	Secret    string    `json:"secret"`
	CreatedAt time.Time `json:"createdAt"`
}

// ProxyKey describes the key of a proxy, without its secret.
type ProxyKey struct {
	ID        string
	Resource  string // as in iam.Principal
	CreatedAt time.Time
}

// newKey makes an access key that looks as AWS's do: an id of 20 characters,
// of which prefix are the first four, and a secret of 40.
func newKey(prefix string, p iam.Principal) iam.Key {
	id, secret := make([]byte, 10), make([]byte, 30)
	rand.Read(id) // never fails
	rand.Read(secret)
	p.AccessKeyID = prefix + base32.StdEncoding.EncodeToString(id)
	return iam.Key{ID: p.AccessKeyID, Secret: iam.NewSecret(base64.StdEncoding.EncodeToString(secret)), Principal: p}
}

// keyText is an access key as it is sealed.
func keyText(k iam.Key, now time.Time) ([]byte, error) {
	value, err := json.Marshal(&sealedKey{
		Account: k.Principal.Account, Kind: k.Principal.Kind, Resource: k.Principal.Resource,
		Secret: k.Secret.Reveal(), CreatedAt: now.UTC(),
	})
	if err != nil {
		return nil, fmt.Errorf("write access key %s: %w", k.ID, err)
	}
	return value, nil
}

func openKey(seal *sealer, key string, sealed []byte) (iam.Key, time.Time, error) {
	id := key[len(dirAccessKey):]
	value, err := seal.open(key, purposeAccessKey, sealed)
	if err != nil {
		return iam.Key{}, time.Time{}, fmt.Errorf("read access key %s: %w", id, err)
	}
	var k sealedKey
	if err := json.Unmarshal(value, &k); err != nil {
		return iam.Key{}, time.Time{}, fmt.Errorf("read access key %s: %w", id, err)
	}
	return iam.Key{ID: id, Secret: iam.NewSecret(k.Secret), Principal: iam.Principal{
		Account: k.Account, Kind: k.Kind, AccessKeyID: id, Resource: k.Resource,
	}}, k.CreatedAt, nil
}

// Key finds an access key in the cache. It returns iam.ErrUnknownKey if there
// is none.
func (s *Store) Key(_ context.Context, accessKeyID string) (iam.Key, error) {
	s.cache.mu.RLock()
	defer s.cache.mu.RUnlock()
	k, ok := s.cache.keys[accessKeyID]
	if !ok {
		return iam.Key{}, fmt.Errorf("find access key %q: %w", accessKeyID, iam.ErrUnknownKey)
	}
	return k, nil
}

// CreateProxyKey makes a key for the proxies of one resource, written as in
// iam.Principal. It returns when this server knows the key. The secret is
// never told again.
func (s *Store) CreateProxyKey(ctx context.Context, account, resource string) (iam.Key, error) {
	k := newKey(keyPrefix, iam.Principal{Account: account, Kind: iam.Proxy, Resource: resource})
	text, err := keyText(k, s.now())
	if err != nil {
		return iam.Key{}, err
	}
	revision, err := s.Write(ctx, func(tx *Tx) error { return tx.putSealed(dirAccessKey+k.ID, purposeAccessKey, text) })
	if err != nil {
		return iam.Key{}, fmt.Errorf("write access key: %w", err)
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := s.WaitFor(call, revision); err != nil {
		return iam.Key{}, err
	}
	return k, nil
}

// ListProxyKeys describes the keys of all proxies, in the order of their ids.
func (s *Store) ListProxyKeys(ctx context.Context) ([]ProxyKey, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	response, err := s.client.Get(ctx, dirAccessKey, clientv3.WithPrefix())
	if err != nil {
		return nil, storeError("list access keys", err)
	}
	var keys []ProxyKey
	for _, kv := range response.Kvs {
		k, createdAt, err := openKey(s.seal, string(kv.Key), kv.Value)
		if err != nil {
			return nil, err
		}
		if k.Principal.Kind == iam.Proxy {
			keys = append(keys, ProxyKey{ID: k.ID, Resource: k.Principal.Resource, CreatedAt: createdAt})
		}
	}
	return keys, nil
}

// DeleteProxyKey ends a proxy's key. It returns when this server has forgotten
// it. The root key and unknown ones are ErrNotFound. It is little to write, and
// done on a full disk too: a stolen key must go.
func (s *Store) DeleteProxyKey(ctx context.Context, accessKeyID string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	response, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(dirAccessKey+accessKeyID), ">", 0),
			clientv3.Compare(clientv3.Value(keyRootKey), "!=", accessKeyID)).
		Then(clientv3.OpDelete(dirAccessKey + accessKeyID)).Commit()
	if err != nil {
		return storeError("delete access key", err)
	}
	if !response.Succeeded {
		return fmt.Errorf("delete access key %q: %w", accessKeyID, ErrNotFound)
	}
	return s.WaitFor(ctx, response.Header.Revision)
}
