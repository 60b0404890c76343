package store

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Place is where an object lies: its kind, then what identifies it, from the
// whole to the part: {"authority", account, id}. Objects are what is kept beside
// the records of meshes: authorities, certificates, what they have issued. A
// shorter Place names all objects below it.
type Place []string

func (p Place) path() (string, error) {
	if len(p) == 0 {
		return "", errors.New("an object lies nowhere")
	}
	parts := make([]string, len(p))
	for i, part := range p {
		if part == "" {
			return "", fmt.Errorf("place %q has an empty part", []string(p))
		}
		parts[i] = url.PathEscape(part)
	}
	return strings.Join(parts, "/"), nil
}

func placeOf(path string) (Place, error) {
	var p Place
	for part := range strings.SplitSeq(path, "/") {
		text, err := url.PathUnescape(part)
		if err != nil {
			return nil, fmt.Errorf("read place %q: %w", path, err)
		}
		p = append(p, text)
	}
	return p, nil
}

// Object is what lies at a place.
type Object[T any] struct {
	Place    Place
	Value    *T
	Revision int64 // of its newest write
}

// GetObject reads what lies at a place, and makes its content a condition of
// the transaction. If nothing does the error is ErrNotFound, and that becomes
// the condition.
func GetObject[T any](tx *Tx, at Place) (*Object[T], error) {
	path, err := at.path()
	if err != nil {
		return nil, err
	}
	kv, err := tx.read(dirObject + path)
	if err != nil {
		return nil, err
	}
	if kv == nil {
		return nil, ErrNotFound
	}
	return decodeObject[T](kv)
}

// ListObjects reads at most limit (0: all) of the objects below a place, in the
// order of their escaped places, from the one behind a place below it on; nil
// is the beginning. It is no condition: read what a write relies on with
// GetObject.
func ListObjects[T any](tx *Tx, below, behind Place, limit int) ([]*Object[T], error) {
	path, err := below.path()
	if err != nil {
		return nil, err
	}
	dir := dirObject + path + "/"
	from := dir
	if behind != nil {
		last, err := behind.path()
		if err != nil {
			return nil, err
		}
		from = dirObject + last + "\x00"
	}
	response, err := tx.get(from, clientv3.WithRange(clientv3.GetPrefixRangeEnd(dir)), clientv3.WithLimit(int64(limit)))
	if err != nil {
		return nil, err
	}
	objects := make([]*Object[T], 0, len(response.Kvs))
	for _, kv := range response.Kvs {
		o, err := decodeObject[T](kv)
		if err != nil {
			return nil, err
		}
		objects = append(objects, o)
	}
	return objects, nil
}

func decodeObject[T any](kv *mvccpb.KeyValue) (*Object[T], error) {
	at, err := placeOf(string(kv.Key[len(dirObject):]))
	if err != nil {
		return nil, err
	}
	value := new(T)
	if err := json.Unmarshal(kv.Value, value); err != nil {
		return nil, fmt.Errorf("read object at %q: %w", []string(at), err)
	}
	return &Object[T]{Place: at, Value: value, Revision: kv.ModRevision}, nil
}

// ReadAhead reads what lies at places, and the secrets of others, in one request
// for many, so that GetObject and Secret need not ask for each. It makes the
// same conditions as they do.
func (tx *Tx) ReadAhead(objects, secrets []Place) error {
	var keys []string
	for dir, places := range map[string][]Place{dirObject: objects, dirSecret: secrets} {
		for _, at := range places {
			path, err := at.path()
			if err != nil {
				return err
			}
			if _, known := tx.got[dir+path]; !known {
				keys = append(keys, dir+path)
			}
		}
	}
	slices.Sort(keys)
	for some := range slices.Chunk(slices.Compact(keys), externalKeys) {
		ops := make([]clientv3.Op, len(some))
		for i, key := range some {
			ops[i] = clientv3.OpGet(key, tx.asOf()...)
		}
		response, err := tx.do(clientv3.OpTxn(nil, ops, nil))
		if err != nil {
			return err
		}
		read := response.Txn()
		if tx.revision == 0 {
			tx.revision = read.Header.Revision
		}
		for i, key := range some {
			var kv *mvccpb.KeyValue
			if kvs := read.Responses[i].GetResponseRange().Kvs; len(kvs) > 0 {
				kv = kvs[0]
			}
			tx.note(key, kv)
		}
	}
	return nil
}

// PutObject stages an object, made or changed. The transaction must have read
// the place with GetObject, or a change made meanwhile would be lost.
func PutObject[T any](tx *Tx, at Place, value *T) error {
	key, err := tx.readBefore(dirObject, at)
	if err != nil {
		return err
	}
	text, err := json.Marshal(value, json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("write object at %q: %w", []string(at), err)
	}
	tx.ops[key] = clientv3.OpPut(key, string(text))
	return nil
}

// MakeObject stages an object at a place where nothing lies, and does not read to
// know it: that becomes the condition. If something lies there after all the
// transaction ends in ErrConflict, so the place must be one that nobody else
// comes upon: a random one.
func MakeObject[T any](tx *Tx, at Place, value *T) error {
	path, err := at.path()
	if err != nil {
		return err
	}
	tx.note(dirObject+path, nil)
	return PutObject(tx, at, value)
}

// Expect makes it a condition that an object is as it was at its revision, which
// the caller remembers from before, and reads nothing. If that is wrong the
// transaction runs again: it must read the object then.
func (tx *Tx) Expect(at Place, revision int64) error {
	path, err := at.path()
	if err != nil {
		return err
	}
	key := dirObject + path
	tx.conditions[key] = clientv3.Compare(clientv3.ModRevision(key), "=", revision)
	return nil
}

// DeleteObject stages the end of an object and of the secret at its place. The
// transaction must have read the place with GetObject.
func (tx *Tx) DeleteObject(at Place) error {
	key, err := tx.readBefore(dirObject, at)
	if err != nil {
		return err
	}
	tx.ops[key] = clientv3.OpDelete(key)
	secret := dirSecret + strings.TrimPrefix(key, dirObject)
	tx.ops[secret] = clientv3.OpDelete(secret)
	return nil
}

// PutSecret stages the secret of an object, sealed for this place and no other.
// It is written with the object: the transaction must have read it.
func (tx *Tx) PutSecret(at Place, secret []byte) error {
	key, err := tx.readBefore(dirObject, at)
	if err != nil {
		return err
	}
	return tx.putSealed(dirSecret+strings.TrimPrefix(key, dirObject), purposeObject, secret)
}

// Secret opens the secret of an object. If there is none the error is
// ErrNotFound. It must not be logged.
func (tx *Tx) Secret(at Place) ([]byte, error) {
	path, err := at.path()
	if err != nil {
		return nil, err
	}
	key := dirSecret + path
	kv, err := tx.read(key)
	if err != nil {
		return nil, err
	}
	if kv == nil {
		return nil, ErrNotFound
	}
	return tx.seal.open(key, purposeObject, kv.Value)
}

// readBefore is the key of a place that the transaction has read.
func (tx *Tx) readBefore(dir string, at Place) (string, error) {
	path, err := at.path()
	if err != nil {
		return "", err
	}
	if _, ok := tx.got[dir+path]; !ok {
		return "", fmt.Errorf("write object at %q: it was not read in this transaction", []string(at))
	}
	return dir + path, nil
}
