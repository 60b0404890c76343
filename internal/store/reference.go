package store

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
)

// User is a mesh endpoint whose spec names a certificate or an authority.
type User struct {
	Mesh  mesh.Name
	ID    mesh.ID
	Owner string // account that made it
}

// referencesOf begins the references to what an ARN names.
func referencesOf(arn string) string { return dirReference + url.PathEscape(arn) + "/" }

// Users are the mesh endpoints whose specs name an ARN, at most limit of them
// (0: all). That there are none stays so: it becomes a condition, and specs that
// name it meanwhile win.
func (tx *Tx) Users(arn string, limit int) ([]User, error) {
	dir := referencesOf(arn)
	response, err := tx.get(dir, clientv3.WithPrefix(), clientv3.WithLimit(int64(limit)))
	if err != nil {
		return nil, err
	}
	if len(response.Kvs) == 0 {
		tx.conditions[dir+"*empty"] = clientv3.Compare(clientv3.CreateRevision(dir), "=", 0).WithPrefix()
	}
	var users []User
	for _, kv := range response.Kvs {
		r, err := parsePath(string(kv.Key[len(dir):]))
		if err != nil {
			return nil, err
		}
		users = append(users, User{r.mesh, r.id, string(kv.Value)})
	}
	return users, nil
}

// AllUsers are the users of all ARNs.
func (tx *Tx) AllUsers() (map[string][]User, error) {
	response, err := tx.get(dirReference, clientv3.WithPrefix())
	if err != nil {
		return nil, err
	}
	users := map[string][]User{}
	for _, kv := range response.Kvs {
		escaped, path, _ := strings.Cut(string(kv.Key[len(dirReference):]), "/")
		arn, err := url.PathUnescape(escaped)
		if err != nil {
			return nil, fmt.Errorf("read reference %q: %w", kv.Key, err)
		}
		r, err := parsePath(path)
		if err != nil {
			return nil, err
		}
		users[arn] = append(users[arn], User{r.mesh, r.id, string(kv.Value)})
	}
	return users, nil
}

// refer stages the references of a record that is written or, with a nil spec,
// deleted, in the place of those that it had.
func (tx *Tx) refer(r resource, path, owner string, spec any) error {
	var old []string
	if kv := tx.got[dirRecord+path]; kv != nil {
		var err error
		if old, err = storedARNs(r.id.Kind, kv.Value); err != nil {
			return fmt.Errorf("read what %s names: %w", path, err)
		}
	}
	for _, arn := range old {
		key := referencesOf(arn) + path
		tx.ops[key] = clientv3.OpDelete(key)
	}
	for _, arn := range specARNs(spec) {
		key := referencesOf(arn) + path
		tx.ops[key] = clientv3.OpPut(key, owner)
	}
	return nil
}

func storedARNs(kind mesh.Kind, value []byte) ([]string, error) {
	switch kind {
	case mesh.KindVirtualNode:
		var v stored[appmesh.VirtualNodeSpec]
		err := json.Unmarshal(value, &v)
		return specARNs(v.Spec), err
	case mesh.KindVirtualGateway:
		var v stored[appmesh.VirtualGatewaySpec]
		err := json.Unmarshal(value, &v)
		return specARNs(v.Spec), err
	}
	return nil, nil
}

// specARNs are those that a spec names; one may come twice.
func specARNs(spec any) []string {
	var certificates, authorities []string
	switch s := spec.(type) {
	case *appmesh.VirtualNodeSpec:
		if s != nil {
			certificates, authorities = mesh.NodeARNs(s)
		}
	case *appmesh.VirtualGatewaySpec:
		if s != nil {
			certificates, authorities = mesh.GatewayARNs(s)
		}
	}
	return slices.DeleteFunc(slices.Concat(certificates, authorities), func(arn string) bool { return arn == "" })
}
