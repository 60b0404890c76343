package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead/fairlead/internal/iam"
)

// schema is the number of the layout that this version writes. A version that
// changes it converts what is older and refuses what is newer.
const schema = 1

const (
	purposeCanary = "canary"
	canary        = "fairlead"
)

// bootstrap makes a new store's schema number, lineage, canary and root key in
// one transaction, which only one of several servers wins, and adopts it.
func (s *Store) bootstrap(ctx context.Context) error {
	meta, err := s.meta(ctx)
	if err != nil {
		return err
	}
	if len(meta) == 0 {
		if err := s.found(ctx); err != nil {
			return err
		}
	}
	return s.adopt(ctx)
}

// adopt checks that this version can use the store that is there, with this
// key. Only the server that made the root key writes the credentials file.
func (s *Store) adopt(ctx context.Context) error {
	meta, err := s.meta(ctx)
	if err != nil {
		return err
	}
	if len(meta) == 0 {
		return fmt.Errorf("open store: %s has lost its content; restore a backup: %w", s.etcdDir(), ErrUnavailable)
	}
	number, err := strconv.Atoi(string(meta[keySchema]))
	if err != nil {
		return fmt.Errorf("read schema number: %w", err)
	}
	if number > schema {
		return fmt.Errorf("open store of schema %d, this version knows up to %d: %w", number, schema, ErrNewerSchema)
	}
	if opened, err := s.seal.open(keyCanary, purposeCanary, meta[keyCanary]); err != nil || !bytes.Equal(opened, []byte(canary)) {
		return fmt.Errorf("open store: its secrets are sealed with another key than the one in %s: %w", s.kekPath(), ErrWrongKEK)
	}
	s.lineage = string(meta[keyLineage])
	return s.keepCredentials(ctx, string(meta[keyRootKey]))
}

// foundEmbedded makes a new embedded store in a directory beside its place, and
// moves it there when it is whole. An etcd that was killed while it wrote its
// first entries would never become its own leader.
func (s *Store) foundEmbedded(ctx context.Context) error {
	place := s.etcdDir()
	if _, err := os.Stat(place); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.room(); err != nil {
		return fmt.Errorf("make a new store: %w", err)
	}
	if _, err := os.Stat(s.credentialsPath()); err == nil {
		s.log.Warn("there are credentials but no store: making a new one, with new credentials", "dir", place)
	}
	made := place + ".new"
	// What is there is half of a first start, that nobody was told of.
	if err := os.RemoveAll(made); err != nil {
		return fmt.Errorf("make a new store: %w", err)
	}
	client, end, err := s.startEtcd(ctx, made)
	if err != nil {
		return err
	}
	s.client = client
	err = s.bootstrap(ctx)
	end()
	if err != nil {
		return err
	}
	return rename(made, place)
}

// meta reads what the first start made; of a new store, nothing.
func (s *Store) meta(ctx context.Context) (map[string][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	response, err := s.client.Get(ctx, keyRoot+"meta/", clientv3.WithPrefix())
	if err != nil {
		return nil, storeError("read what the first start made", err)
	}
	meta := map[string][]byte{}
	for _, kv := range response.Kvs {
		meta[string(kv.Key)] = kv.Value
	}
	return meta, nil
}

// found makes a new store. The root key goes into a file beside the credentials
// before the transaction and becomes the credentials after it, so that a crash
// between the two loses nothing.
func (s *Store) found(ctx context.Context) error {
	root := newKey(keyPrefix, iam.Principal{Account: s.config.Account, Kind: iam.Root})
	sealedRoot, err := s.sealKey(root, s.now())
	if err != nil {
		return err
	}
	sealedCanary, err := s.seal.seal(keyCanary, purposeCanary, []byte(canary))
	if err != nil {
		return err
	}
	lineage := make([]byte, 16)
	rand.Read(lineage) // never fails
	if err := writeFile(s.credentialsPath()+".new", credentialsFile(root)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(keySchema), "=", 0)).
		Then(
			clientv3.OpPut(keySchema, strconv.Itoa(schema)),
			clientv3.OpPut(keyLineage, hex.EncodeToString(lineage)),
			clientv3.OpPut(keyCanary, string(sealedCanary)),
			clientv3.OpPut(keyRootKey, root.ID),
			clientv3.OpPut(dirAccessKey+root.ID, string(sealedRoot)),
		).Commit()
	return storeError("make a new store", err)
}

// keepCredentials makes the credentials file of the server that made the root
// key. With an embedded store that is this one: a lost file is written again.
func (s *Store) keepCredentials(ctx context.Context, rootID string) error {
	path := s.credentialsPath()
	made := path + ".new"
	content, err := os.ReadFile(made)
	switch {
	case err == nil && bytes.Contains(content, []byte(rootID)):
		s.log.Info("root key is ready", "file", path)
		return rename(made, path)
	case err == nil:
		// Another server was first.
		if err := os.Remove(made); err != nil {
			return fmt.Errorf("drop unused credentials: %w", err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("read credentials: %w", err)
	}
	if _, err := os.Stat(path); err == nil || !s.embedded() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	key := dirAccessKey + rootID
	response, err := s.client.Get(ctx, key)
	if err != nil {
		return storeError("read root key", err)
	}
	if len(response.Kvs) == 0 {
		return fmt.Errorf("read root key %s: %w", rootID, ErrNotFound)
	}
	root, _, err := openKey(s.seal, key, response.Kvs[0].Value)
	if err != nil {
		return err
	}
	s.log.Warn("credentials file was missing and is written again", "file", path)
	return writeFile(path, credentialsFile(root))
}

func (s *Store) credentialsPath() string {
	return filepath.Join(s.config.DataDir, "credentials")
}

func (s *Store) kekPath() string {
	if s.config.KEKFile != "" {
		return s.config.KEKFile
	}
	return filepath.Join(s.config.DataDir, "kek")
}

// credentialsFile is the root key as AWS tools read it.
func credentialsFile(root iam.Key) []byte {
	return fmt.Appendf(nil, "[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", root.ID, root.Secret.Reveal())
}
