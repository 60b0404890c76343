package store

import (
	"fmt"
	"net/url"
	"time"

	"github.com/go-json-experiment/json"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead/fairlead/internal/mesh"
)

// stored is how a record lies in the store. What its key says is not repeated.
type stored[S any] struct {
	UID           string            `json:"uid"`
	Version       int64             `json:"version"`
	CreatedAt     time.Time         `json:"createdAt"`
	UpdatedAt     time.Time         `json:"updatedAt"`
	ResourceOwner string            `json:"resourceOwner,omitzero"`
	Spec          *S                `json:"spec,omitzero"`
	Tags          map[string]string `json:"tags,omitzero"`
	Tokens        []Token           `json:"tokens,omitzero"`
}

// maxTokens bounds the tokens that a record remembers: that of its creation and
// the newest of its updates.
const maxTokens = 9

// Token remembers that a write with a client's idempotency token was made.
// Client and Request are hashes: of the token, and of all that was asked for.
type Token struct {
	Client  string `json:"client"`
	Request string `json:"request"`
	Version int64  `json:"version"` // of the record that the write made; set by Put
}

// Replay tells what a client token means for a record.
type Replay int

const (
	// Fresh: the record does not know the token.
	Fresh Replay = iota
	// Repeated: the same request was made before, with the same token.
	Repeated
	// Reused: the token was used for a different request.
	Reused
)

func decodeRecord[S any](r resource, value []byte, revision int64) (*mesh.Record[S], []Token, error) {
	var v stored[S]
	if err := json.Unmarshal(value, &v); err != nil {
		return nil, nil, fmt.Errorf("read record %s of %s/%s: %w", r.id, r.mesh.Owner, r.mesh.Mesh, err)
	}
	return &mesh.Record[S]{
		Mesh: r.mesh, ID: r.id, UID: v.UID, Version: v.Version,
		CreatedAt: v.CreatedAt, UpdatedAt: v.UpdatedAt, ResourceOwner: v.ResourceOwner,
		Spec: v.Spec, Tags: v.Tags, Revision: revision,
	}, v.Tokens, nil
}

// Get reads a record, and makes its content a condition of the transaction. If
// it does not exist the error is ErrNotFound, and that becomes the condition.
func Get[S any](tx *Tx, name mesh.Name, id mesh.ID) (*mesh.Record[S], error) {
	r := normal(name, id)
	path, err := r.path()
	if err != nil {
		return nil, err
	}
	kv, err := tx.record(path)
	if err != nil {
		return nil, err
	}
	if kv == nil {
		return nil, ErrNotFound
	}
	record, _, err := decodeRecord[S](r, kv.Value, kv.ModRevision)
	return record, err
}

// List reads all records of a kind in a mesh, in the order of their escaped
// names; with a parent, only those below it. Of kind mesh: all meshes of an
// owner, or of everybody if the owner is empty. That nothing in the list
// changes becomes a condition.
func List[S any](tx *Tx, name mesh.Name, kind mesh.Kind, parent string) ([]*mesh.Record[S], error) {
	path, err := collection(name, kind, parent)
	if err != nil {
		return nil, err
	}
	kvs, err := tx.list(path, path, 0)
	if err != nil {
		return nil, err
	}
	return decodeRecords[S](kvs)
}

// Page is List of at most limit records: those behind a name, which is empty
// for the first page. It costs what the page has, not what the list has.
func Page[S any](tx *Tx, name mesh.Name, kind mesh.Kind, parent, after string, limit int) ([]*mesh.Record[S], error) {
	path, err := collection(name, kind, parent)
	if err != nil {
		return nil, err
	}
	from := path
	if after != "" {
		from += url.PathEscape(after) + "\x00"
	}
	kvs, err := tx.list(path, from, limit)
	if err != nil {
		return nil, err
	}
	return decodeRecords[S](kvs)
}

func decodeRecords[S any](kvs []*mvccpb.KeyValue) ([]*mesh.Record[S], error) {
	records := make([]*mesh.Record[S], 0, len(kvs))
	for _, kv := range kvs {
		r, err := parsePath(string(kv.Key[len(dirRecord):]))
		if err != nil {
			return nil, err
		}
		record, _, err := decodeRecord[S](r, kv.Value, kv.ModRevision)
		if err != nil {
			return nil, err
		}
		records = append(records, record)
	}
	return records, nil
}

// Put stages a record, made or changed, with its change record. The transaction
// must have read it with Get or List. A token, if given, is remembered with it;
// tokens remembered before stay. The record's Revision is not used.
func Put[S any](tx *Tx, record *mesh.Record[S], tokens ...Token) error {
	path, err := normal(record.Mesh, record.ID).path()
	if err != nil {
		return err
	}
	change := Change{Op: OpUpdate, Version: record.Version}
	known, err := tx.tokens(path)
	if err != nil {
		return err
	}
	if tx.got[dirRecord+path] == nil {
		change.Op = OpCreate
	}
	for _, t := range tokens {
		t.Version = record.Version
		known = append(known, t)
	}
	if len(known) > maxTokens {
		known = append(known[:1:1], known[len(known)-maxTokens+1:]...)
	}
	value, err := json.Marshal(&stored[S]{
		UID: record.UID, Version: record.Version,
		CreatedAt: record.CreatedAt.UTC(), UpdatedAt: record.UpdatedAt.UTC(), ResourceOwner: record.ResourceOwner,
		Spec: record.Spec, Tags: record.Tags, Tokens: known,
	})
	if err != nil {
		return fmt.Errorf("write record %s: %w", record.ID, err)
	}
	if err := tx.refer(normal(record.Mesh, record.ID), path, record.ResourceOwner, record.Spec); err != nil {
		return err
	}
	return tx.stage(path, func(key string) clientv3.Op { return clientv3.OpPut(key, string(value)) }, change)
}

// Delete stages the deletion of a record, with its tombstone. The transaction
// must have read it with Get or List.
func Delete(tx *Tx, name mesh.Name, id mesh.ID) error {
	r := normal(name, id)
	path, err := r.path()
	if err != nil {
		return err
	}
	kv := tx.got[dirRecord+path]
	if kv == nil {
		return fmt.Errorf("delete %s: it was not read in this transaction: %w", path, ErrNotFound)
	}
	var v stored[struct{}]
	if err := json.Unmarshal(kv.Value, &v); err != nil {
		return fmt.Errorf("delete %s: %w", path, err)
	}
	change := Change{Op: OpDelete, Version: v.Version}
	tx.dropFences(r)
	if err := tx.refer(r, path, "", nil); err != nil {
		return err
	}
	return tx.stage(path, func(key string) clientv3.Op { return clientv3.OpDelete(key) }, change)
}

// Replayed tells whether a record, which the transaction reads for this, was
// already written with a token. A record that does not exist knows no token.
func Replayed(tx *Tx, name mesh.Name, id mesh.ID, token Token) (Replay, error) {
	path, err := normal(name, id).path()
	if err != nil {
		return Fresh, err
	}
	if _, err := tx.record(path); err != nil {
		return Fresh, err
	}
	known, err := tx.tokens(path)
	if err != nil {
		return Fresh, err
	}
	for _, t := range known {
		if t.Client == token.Client && t.Request == token.Request {
			return Repeated, nil
		}
		if t.Client == token.Client {
			return Reused, nil
		}
	}
	return Fresh, nil
}

// tokens are those of a record that was read.
func (tx *Tx) tokens(path string) ([]Token, error) {
	kv := tx.got[dirRecord+path]
	if kv == nil {
		return nil, nil
	}
	var v stored[struct{}]
	if err := json.Unmarshal(kv.Value, &v); err != nil {
		return nil, fmt.Errorf("read tokens of %s: %w", path, err)
	}
	return v.Tokens, nil
}
