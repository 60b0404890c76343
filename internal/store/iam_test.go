package store

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead/fairlead/internal/iam"
)

func TestEntities(t *testing.T) {
	config := Config{DataDir: t.TempDir(), Account: account, UnsafeNoFsync: true}
	s := open(t, config)
	ctx := t.Context()
	ref := iam.Ref{Kind: iam.KindUser, Account: account, Name: "alice"}
	make := func(ref iam.Ref) *iam.Entity {
		t.Helper()
		e, err := s.EditEntity(ctx, ref, func(*iam.Entity) (*iam.Entity, error) { return &iam.Entity{Ref: ref}, nil })
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	made := make(ref)
	var secrets []string
	for range iam.MaxUserKeys {
		key, err := s.CreateUserKey(ctx, account, "alice")
		if err != nil {
			t.Fatal(err)
		}
		if found, err := s.Key(ctx, key.ID); err != nil || !found.Secret.Equal(key.Secret) || found.Principal.ARN() != ref.ARN() || found.Principal.ID != made.ID {
			t.Errorf("%+v, %v", found, err)
		}
		secrets = append(secrets, key.Secret.Reveal())
	}
	// However many ask at once, there are two.
	var fewer atomic.Int32
	e, err := s.Entity(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteUserKey(ctx, account, "alice", e.Keys[0].ID); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := s.CreateUserKey(ctx, account, "alice"); err == nil {
				fewer.Add(1)
			}
		})
	}
	all.Wait()
	if e, err = s.Entity(ref); err != nil || len(e.Keys) != iam.MaxUserKeys || fewer.Load() != 1 {
		t.Errorf("%d keys were made, the user has %v, %v", fewer.Load(), e.Keys, err)
	}
	// Nothing of it can be read in etcd, and nothing can be put in the place of another.
	raw, err := s.client.Get(ctx, keyRoot, clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range raw.Kvs {
		for _, secret := range append(secrets, made.ID) {
			if bytes.Contains(kv.Value, []byte(secret)) {
				t.Errorf("%s shows %s", kv.Key, secret)
			}
		}
	}
	other := iam.Ref{Kind: iam.KindUser, Account: account, Name: "mallory"}
	sealed, err := s.client.Get(ctx, entityKey(ref))
	if err != nil {
		t.Fatal(err)
	}
	put, err := s.client.Put(ctx, entityKey(other), string(sealed.Kvs[0].Value))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.WaitFor(ctx, put.Header.Revision); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Entity(other); !errors.Is(err, ErrNotFound) {
		t.Errorf("a copy of another: %v", err)
	}
	if _, err := s.client.Delete(ctx, entityKey(other)); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if done, err := RotateKEK(ctx, config, Rotation{}); err != nil || !done.Done || len(done.Lost) > 0 {
		t.Fatalf("rotate: %+v, %v", done, err)
	}
	s = open(t, config)
	again, err := s.Entity(ref)
	if err != nil || again.ID != made.ID || len(again.Keys) != iam.MaxUserKeys {
		t.Errorf("after a rotation and a restart: %+v, %v", again, err)
	}
	keys := again.Keys
	if _, err := s.EditEntity(ctx, ref, func(*iam.Entity) (*iam.Entity, error) { return nil, nil }); err != nil {
		t.Fatal(err)
	}
	make(ref)
	for _, k := range keys {
		if _, err := s.Key(ctx, k.ID); !errors.Is(err, iam.ErrUnknownKey) {
			t.Errorf("a key of a deleted user: %v", err)
		}
	}
	if _, err := s.EditEntity(ctx, iam.Ref{Kind: iam.KindPolicy, Account: account, Name: "p"}, func(*iam.Entity) (*iam.Entity, error) {
		return &iam.Entity{Ref: iam.Ref{Kind: iam.KindPolicy, Account: account, Name: "p"}, Document: "{}"}, nil
	}); err == nil || !strings.Contains(err.Error(), "has no Statement") {
		t.Errorf("a policy that is none: %v", err)
	}
}
