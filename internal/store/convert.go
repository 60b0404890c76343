package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead/fairlead/internal/kek"
)

// Schema 1 had no root keys: the key-encryption key, always of a file, sealed the
// data keys itself, and a sealed value did not say its purpose. Its canary told a
// wrong key.
const (
	keyCanary1   = keyRoot + "meta/canary"
	sealVersion1 = 1
)

// convert makes a store of schema 1 one of schema 2 in one transaction. Servers
// of the older version must not be running. It returns what meta returns.
func (s *Store) convert(ctx context.Context, meta map[string]*mvccpb.KeyValue) (map[string]*mvccpb.KeyValue, error) {
	file, ok := s.kek.(kek.File)
	if !ok {
		return nil, fmt.Errorf("its key-encryption key is in a file: start once with --kek-file: %w", ErrWrongKEK)
	}
	old, err := file.Read()
	if err != nil {
		return nil, err
	}
	if canary, err := open1(old, keyCanary1, "canary", meta[keyCanary1].GetValue()); err != nil || string(canary) != "fairlead" {
		return nil, fmt.Errorf("open store: its secrets are sealed with another key than the one in %s: %w", s.kek, ErrWrongKEK)
	}
	ring, secret, err := newKeyring(ctx, s.kek, s.lineage)
	if err != nil {
		return nil, err
	}
	seal, err := newSealer(ring.newest().ID, secret)
	if err != nil {
		return nil, err
	}
	derivation, sealErr := seal.seal(keyDerive, purposeDerive, newRoot())
	text, err := ring.text()
	if err := errors.Join(sealErr, err); err != nil {
		return nil, err
	}
	ops := []clientv3.Op{
		clientv3.OpPut(keySchema, strconv.Itoa(schema)), clientv3.OpPut(keyKeyring, string(text)),
		clientv3.OpPut(keyDerive, string(derivation)), clientv3.OpDelete(keyCanary1),
	}
	conditions := []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(keySchema), "=", meta[keySchema].GetModRevision())}
	for dir, purpose := range map[string]string{dirAccessKey: purposeAccessKey, dirSecret: purposeObject} {
		response, err := s.client.Get(ctx, dir, clientv3.WithPrefix())
		if err != nil {
			return nil, storeError("read secrets", err)
		}
		for _, kv := range response.Kvs {
			key := string(kv.Key)
			value, err := open1(old, key, purpose, kv.Value)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", key, err)
			}
			sealed, err := seal.seal(key, purpose, value)
			if err != nil {
				return nil, err
			}
			ops = append(ops, clientv3.OpPut(key, string(sealed)))
			conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(key), "=", kv.ModRevision))
		}
	}
	if _, err := s.client.Txn(ctx).If(conditions...).Then(ops...).Commit(); err != nil {
		return nil, storeError("write secrets", err)
	}
	s.log.Info("the store was converted", "schema", schema, "secrets", len(ops)-4)
	return s.meta(ctx)
}

// open1 opens a sealed value of schema 1.
func open1(key []byte, at, purpose string, sealed []byte) ([]byte, error) {
	if len(sealed) < 1+wrappedLength+gcmOverhead || sealed[0] != sealVersion1 {
		return nil, errUnseal
	}
	bound := []byte("fairlead sealed v1\x00" + purpose + "\x00" + at)
	by, err := newGCM(key)
	if err != nil {
		return nil, err
	}
	dataKey, err := by.Open(nil, nil, sealed[1:1+wrappedLength], bound)
	if err != nil {
		return nil, errUnseal
	}
	if by, err = newGCM(dataKey); err != nil {
		return nil, err
	}
	value, err := by.Open(nil, nil, sealed[1+wrappedLength:], bound)
	if err != nil {
		return nil, errUnseal
	}
	return value, nil
}
