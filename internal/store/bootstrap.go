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

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead/fairlead/internal/iam"
)

// schema is the number of the layout that this version writes. A version that
// changes it converts what is older and refuses what is newer.
const schema = 2

// bootstrap makes a new store's schema number, lineage, keyring and root access key
// in one transaction, which only one of several servers wins, and adopts it.
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
	if meta[keyRestore] != nil {
		return fmt.Errorf("open store: %w into this etcd: run 'fairlead restore' again, it begins anew", ErrHalfRestored)
	}
	number, err := strconv.Atoi(string(meta[keySchema].GetValue()))
	if err != nil {
		return fmt.Errorf("read schema number: %w", err)
	}
	if number > schema {
		return fmt.Errorf("open store of schema %d, this version knows up to %d: %w", number, schema, ErrNewerSchema)
	}
	s.lineage = string(meta[keyLineage].GetValue())
	if number == 1 {
		if meta, err = s.convert(ctx, meta); err != nil {
			return fmt.Errorf("convert the store from schema 1: %w", err)
		}
	}
	if err := s.unlockSecrets(ctx, meta); err != nil {
		return err
	}
	return s.keepCredentials(ctx, string(meta[keyRootKey].GetValue()))
}

// unlockSecrets opens the keyring with the key-encryption key, and what must be
// read of secrets before anything else.
func (s *Store) unlockSecrets(ctx context.Context, meta map[string]*mvccpb.KeyValue) error {
	seal := &sealer{kek: s.kek, lineage: s.lineage}
	err := seal.adopt(ctx, meta[keyKeyring].GetValue(), meta[keyKeyring].GetModRevision())
	if errors.Is(err, ErrWrongKEK) {
		return fmt.Errorf("open store: its secrets are sealed with another key than the one in %s%s: %w", s.kek, s.rotationHint(), err)
	}
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	s.seal = seal
	s.derivation, err = seal.open(keyDerive, purposeDerive, meta[keyDerive].GetValue())
	return err
}

// foundEmbedded makes a new embedded store in a directory beside its place, and
// moves it there when it is whole. An etcd that was killed while it wrote its
// first entries would never become its own leader.
func (s *Store) foundEmbedded(ctx context.Context) error {
	place := s.etcdDir()
	if _, err := os.Stat(place); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := os.Stat(s.restoreDir()); err == nil {
		return fmt.Errorf("open store: %w into %s: run 'fairlead restore' again, it begins anew", ErrHalfRestored, s.config.DataDir)
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
func (s *Store) meta(ctx context.Context) (map[string]*mvccpb.KeyValue, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	response, err := s.client.Get(ctx, keyRoot+"meta/", clientv3.WithPrefix())
	if err != nil {
		return nil, storeError("read what the first start made", err)
	}
	meta := map[string]*mvccpb.KeyValue{}
	for _, kv := range response.Kvs {
		meta[string(kv.Key)] = kv
	}
	return meta, nil
}

// found makes a new store. The root key goes into a file beside the credentials
// before the transaction and becomes the credentials after it, so that a crash
// between the two loses nothing.
func (s *Store) found(ctx context.Context) error {
	root := newKey(keyPrefix, iam.Principal{Account: s.config.Account, Kind: iam.Root})
	text, err := keyText(root, s.now())
	if err != nil {
		return err
	}
	lineage := newLineage()
	ring, secret, err := newKeyring(ctx, s.kek, lineage)
	if err != nil {
		return err
	}
	seal, err := newSealer(ring.newest().ID, secret)
	if err != nil {
		return err
	}
	sealedRoot, sealErr := seal.seal(dirAccessKey+root.ID, purposeAccessKey, text)
	derivation, deriveErr := seal.seal(keyDerive, purposeDerive, newRoot())
	keyring, err := ring.text()
	if err := errors.Join(sealErr, deriveErr, err); err != nil {
		return fmt.Errorf("make a new store: %w", err)
	}
	if err := writeFile(s.credentialsPath()+".new", credentialsFile(root)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = s.client.Txn(ctx).
		If(nothingYet()).
		Then(
			clientv3.OpPut(keySchema, strconv.Itoa(schema)),
			clientv3.OpPut(keyLineage, lineage),
			clientv3.OpPut(keyKeyring, string(keyring)),
			clientv3.OpPut(keyDerive, string(derivation)),
			clientv3.OpPut(keyRootKey, root.ID),
			clientv3.OpPut(dirAccessKey+root.ID, string(sealedRoot)),
		).Commit()
	return storeError("make a new store", err)
}

// nothingYet is the condition that neither a store nor half of a restored one is
// there.
func nothingYet() clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(keyRoot), "=", 0).WithPrefix()
}

func newLineage() string {
	lineage := make([]byte, 16)
	rand.Read(lineage) // never fails
	return hex.EncodeToString(lineage)
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
