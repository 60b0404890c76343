package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/internal/mesh"
)

const (
	dirServedCertificate = dirObject + kindServedCertificate + "/"
	dirServedKey         = dirSecret + kindServedCertificate + "/"
	dirServedAuthority   = dirObject + kindServedAuthority + "/"
	dirServedList        = dirObject + kindServedList + "/"
)

// fetched is how many certificates are read in one request.
const fetched = 32

// trust is what the cache holds of certificates and authorities: of the few
// authorities all, of the certificates those that specs name. Only the goroutine
// that fills the cache uses it.
type trust struct {
	names        map[mesh.Name]arns
	certificates map[string]*certificate // of all named; their Value is nil while there is none
	authorities  map[string]*Object[Authority]
	lists        map[string]*Object[RevocationList]
}

func newTrust() trust {
	return trust{
		names: map[mesh.Name]arns{}, certificates: map[string]*certificate{},
		authorities: map[string]*Object[Authority]{}, lists: map[string]*Object[RevocationList]{},
	}
}

// arns are those that the specs of a mesh name. With own, they name the mesh's
// own authority, too.
type arns struct {
	certificates, authorities map[string]bool
	own                       bool
}

// certificate is one as it lies in the store, opened.
type certificate struct {
	Object[Certificate]
	key         api.Secret
	keyRevision int64
	made        *mesh.Certificate // the newest that went into a view
}

// trustBatch is what a batch brings of certificates and authorities.
type trustBatch struct {
	whole       bool            // what is not in it is not there any more
	served      map[string]bool // ARNs of certificates that were written
	authorities map[string]*Object[Authority]
	lists       map[string]*Object[RevocationList]
}

func newTrustBatch() trustBatch {
	return trustBatch{served: map[string]bool{}, authorities: map[string]*Object[Authority]{}, lists: map[string]*Object[RevocationList]{}}
}

// put takes a key that was written into the batch, if it is of what is served.
func (b *trustBatch) put(kv *mvccpb.KeyValue) error {
	key := string(kv.Key)
	switch {
	case strings.HasPrefix(key, dirServedCertificate), strings.HasPrefix(key, dirServedKey):
		return b.noteCertificate(key)
	case strings.HasPrefix(key, dirServedAuthority):
		return decodeServed(b.authorities, kv)
	case strings.HasPrefix(key, dirServedList):
		return decodeServed(b.lists, kv)
	}
	return nil
}

// remove takes a key that was deleted into the batch.
func (b *trustBatch) remove(key string) error {
	var arn string
	var err error
	switch {
	case strings.HasPrefix(key, dirServedCertificate), strings.HasPrefix(key, dirServedKey):
		err = b.noteCertificate(key)
	case strings.HasPrefix(key, dirServedAuthority):
		arn, err = arnOf(key)
		b.authorities[arn] = nil
	case strings.HasPrefix(key, dirServedList):
		arn, err = arnOf(key)
		b.lists[arn] = nil
	}
	return err
}

func (b *trustBatch) noteCertificate(key string) error {
	arn, err := arnOf(key)
	b.served[arn] = true
	return err
}

// arnOf is the ARN at the end of a key of what is served.
func arnOf(key string) (string, error) {
	at, err := placeOf(key[strings.LastIndexByte(key, '/')+1:])
	if err != nil {
		return "", err
	}
	return at[0], nil
}

func decodeServed[T any](into map[string]*Object[T], kv *mvccpb.KeyValue) error {
	o, err := decodeObject[T](kv)
	if err != nil {
		return err
	}
	into[o.Place[1]] = o
	return nil
}

// settle brings what the meshes name of certificates and authorities into the
// views of a batch. It reads those certificates that were not named before.
func (c *cache) settle(ctx context.Context, b *batch) error {
	t := &c.trust
	changed, renamed := t.take(b, func(name mesh.Name) bool { return c.views[name] == nil })
	if !changed && len(renamed) == 0 && len(b.trust.served) == 0 {
		return nil
	}
	wanted := t.wanted()
	var missing []string
	for arn := range wanted {
		if t.certificates[arn] == nil || b.trust.whole || b.trust.served[arn] {
			missing = append(missing, arn)
		}
	}
	for arn := range t.certificates {
		if !wanted[arn] {
			delete(t.certificates, arn)
		}
	}
	slices.Sort(missing)
	for some := range slices.Chunk(missing, fetched) {
		if err := c.fetch(ctx, b.revision, some); err != nil {
			return err
		}
	}
	for name := range t.names {
		if renamed[name] || changed || len(missing) > 0 {
			c.serve(b, name)
		}
	}
	return nil
}

// take makes what a batch brings the newest, and says whether it has any of
// authorities, and which meshes may name others than before. A mesh that is hidden
// so far has not been looked at.
func (t *trust) take(b *batch, hidden func(mesh.Name) bool) (changed bool, renamed map[mesh.Name]bool) {
	if b.trust.whole {
		clear(t.authorities)
		clear(t.lists)
	}
	if b.fresh {
		clear(t.names)
		clear(t.certificates)
	}
	merge(t.authorities, b.trust.authorities)
	merge(t.lists, b.trust.lists)
	renamed = map[mesh.Name]bool{}
	for name, d := range b.drafts {
		if !d.cloned[mesh.KindVirtualNode] && !d.cloned[mesh.KindVirtualGateway] && d.view.Mesh != nil && !hidden(name) {
			continue // it names what it did
		}
		renamed[name] = true
		delete(t.names, name)
		if d.view.Mesh == nil {
			continue
		}
		if certificates, authorities := d.view.ARNs(); len(certificates)+len(authorities) > 0 || d.view.NamesOwn() {
			t.names[name] = arns{certificates, authorities, d.view.NamesOwn()}
		} else {
			d.view.Certificates, d.view.Authorities, d.view.Own = nil, nil, nil
		}
	}
	return b.trust.whole || len(b.trust.authorities)+len(b.trust.lists) > 0, renamed
}

// wanted are the certificates that any mesh names.
func (t *trust) wanted() map[string]bool {
	all := map[string]bool{}
	for _, n := range t.names {
		maps.Copy(all, n.certificates)
	}
	return all
}

// fetch reads certificates with their keys as of a revision. One that cannot be
// opened is logged, and stays as it was.
func (c *cache) fetch(ctx context.Context, revision int64, arns []string) error {
	var ops []clientv3.Op
	for _, arn := range arns {
		path, err := Place{kindServedCertificate, arn}.path()
		if err != nil {
			return err
		}
		ops = append(ops, clientv3.OpGet(dirObject+path, clientv3.WithRev(revision)), clientv3.OpGet(dirSecret+path, clientv3.WithRev(revision)))
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	response, err := c.client.Txn(call).Then(ops...).Commit()
	if err != nil {
		return storeError("read the certificates that specs name", err)
	}
	for i, arn := range arns {
		record, key := response.Responses[2*i].GetResponseRange().Kvs, response.Responses[2*i+1].GetResponseRange().Kvs
		next := &certificate{}
		if len(record) > 0 {
			if next, err = c.openCertificate(record[0], key); err != nil {
				c.log.Error("a certificate in the store cannot be read; its last good one stays", "arn", arn, "revision", record[0].ModRevision, "error", err)
				if c.trust.certificates[arn] != nil {
					continue
				}
				next = &certificate{}
			}
		}
		if old := c.trust.certificates[arn]; old != nil {
			next.made = old.made
		}
		c.trust.certificates[arn] = next
	}
	return nil
}

func (c *cache) openCertificate(record *mvccpb.KeyValue, key []*mvccpb.KeyValue) (*certificate, error) {
	o, err := decodeObject[Certificate](record)
	if err != nil {
		return nil, err
	}
	opened := &certificate{Object: *o}
	if len(key) == 0 {
		return opened, nil // it is not issued yet
	}
	der, err := c.seal.open(string(key[0].Key), purposeObject, key[0].Value)
	if err != nil {
		return nil, fmt.Errorf("open its key: %w", err)
	}
	opened.key, opened.keyRevision = api.NewSecret(encodeKey(der)), key[0].ModRevision
	return opened, nil
}
