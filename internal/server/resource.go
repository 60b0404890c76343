package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/store"
)

// kind is what the generic operations need to know of the resources with spec S.
type kind[S any] struct {
	kind       mesh.Kind
	noun       string // as App Mesh's messages say it: VirtualNode
	nameMember string // of the create request: virtualNodeName
	quota      string // on how many there may be, by its name in quotas
	rules      []rule[S]
	// fill completes a spec in the one place where App Mesh does; nil: nowhere.
	// It returns a new spec if it changes anything.
	fill func(*S) *S
	// certificates are the ARNs of certificates and authorities in a spec.
	certificates func(*S) []namedARN
	// within refuses specs that are larger than a quota allows.
	within func(limits Quotas, at location, spec *S) error
	// references are on the resources that a spec names.
	references []reference[S]
	// unused refuses a deletion while other resources need this one.
	unused func(tx *store.Tx, at location) error
	// warnings are about specs that are valid and still not what one would want.
	warnings func(*Service, *mesh.Record[S]) []string
}

// location is where a resource stands.
type location struct {
	mesh mesh.Name
	id   mesh.ID
}

// request is what creates and updates of all kinds have in common.
type request[S any] struct {
	mesh  string
	owner *string // meshOwner
	id    mesh.ID
	spec  *S
	tags  []appmesh.TagRef
	token *string
	// newName is the member that names what is to be made; empty in an update.
	newName string
}

// locator is a resource, or a list, as a request names it.
type locator struct {
	mesh  string
	owner *string // meshOwner
	id    mesh.ID
}

// location checks a name as far as that is possible without the store.
func (l locator) location(ctx context.Context) (location, error) {
	name, err := meshName(ctx, l.mesh, l.owner)
	if err != nil {
		return location{}, err
	}
	var f faults
	byName(&f, "the "+string(l.id.Kind)+" in the path", l.id.Name)
	byName(&f, "what the "+string(l.id.Kind)+" belongs to", l.id.Parent)
	return location{name, l.id}, f.err()
}

// prepare checks all of a request that can be checked without the store.
func (k *kind[S]) prepare(ctx context.Context, limits Quotas, in *request[S]) (location, error) {
	from := locator{in.mesh, in.owner, in.id}
	if in.newName != "" {
		from.id.Name = "" // has rules of its own
	}
	at, err := from.location(ctx)
	if err != nil {
		return location{}, err
	}
	at.id = in.id
	found := check(requestRules, &asked{in.newName, in.id.Name, in.tags, in.token})
	found = append(found, check(k.rules, in.spec)...)
	if err := found.err(); err != nil {
		return location{}, err
	}
	if k.within != nil {
		if err := k.within(limits, at, in.spec); err != nil {
			return location{}, err
		}
	}
	if k.fill != nil {
		in.spec = k.fill(in.spec)
	}
	return at, nil
}

// create makes a resource, or returns the one that the same request made before.
func create[S any](ctx context.Context, s *Service, k *kind[S], in request[S]) (*mesh.Record[S], error) {
	in.newName = k.nameMember
	hash, err := requestHash("create", in)
	if err != nil {
		return nil, s.failure(ctx, err)
	}
	at, err := k.prepare(ctx, s.Quotas, &in)
	if err != nil {
		return nil, err
	}
	now, token := s.now(), tokenOf(in.token, hash)
	record := &mesh.Record[S]{
		Mesh: at.mesh, ID: at.id, UID: uuid.NewString(), Version: 1, CreatedAt: now, UpdatedAt: now,
		ResourceOwner: account(ctx), Spec: in.spec, Tags: tagMap(in.tags),
	}
	if err := k.fetched(ctx, s, in.spec, record.ResourceOwner); err != nil {
		return nil, err
	}
	var result *mesh.Record[S]
	err = s.write(ctx, func(tx *store.Tx) error {
		if err := k.parents(tx, at); err != nil {
			return err
		}
		existing, err := store.Get[S](tx, at.mesh, at.id)
		if err == nil {
			result = existing
			return k.repeated(tx, at, token)
		}
		if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if err := k.room(tx, s.Quotas, at); err != nil {
			return err
		}
		if err := refer(k.references, tx, at, in.spec); err != nil {
			return err
		}
		if k.certificates != nil {
			if err := s.certified(tx, record.ResourceOwner, k.certificates(in.spec), nil); err != nil {
				return err
			}
		}
		result = record
		return store.Put(tx, record, token...)
	})
	if err != nil {
		return nil, s.failure(ctx, err)
	}
	k.warn(ctx, s, result)
	return result, nil
}

// update replaces the spec of a resource as a whole.
func update[S any](ctx context.Context, s *Service, k *kind[S], in request[S]) (*mesh.Record[S], error) {
	hash, err := requestHash("update", in)
	if err != nil {
		return nil, s.failure(ctx, err)
	}
	at, err := k.prepare(ctx, s.Quotas, &in)
	if err != nil {
		return nil, err
	}
	if err := k.fetched(ctx, s, in.spec, account(ctx)); err != nil {
		return nil, err
	}
	token := tokenOf(in.token, hash)
	var result *mesh.Record[S]
	err = s.write(ctx, func(tx *store.Tx) error {
		existing, err := k.get(tx, at)
		if err != nil {
			return err
		}
		replay, err := replayed(tx, at, token)
		if err != nil {
			return err
		}
		if replay == store.Repeated {
			result = existing
			return nil
		}
		if replay == store.Reused {
			return reused()
		}
		if err := refer(k.references, tx, at, in.spec); err != nil {
			return err
		}
		if k.certificates != nil {
			if err := s.certified(tx, existing.ResourceOwner, k.certificates(in.spec), k.certificates(existing.Spec)); err != nil {
				return err
			}
		}
		next := *existing
		next.Spec, next.Version, next.UpdatedAt = in.spec, existing.Version+1, s.now()
		result = &next
		return store.Put(tx, result, token...)
	})
	if err != nil {
		return nil, s.failure(ctx, err)
	}
	k.warn(ctx, s, result)
	return result, nil
}

// describe reads a resource.
func describe[S any](ctx context.Context, s *Service, k *kind[S], of locator) (*mesh.Record[S], error) {
	at, err := of.location(ctx)
	if err != nil {
		return nil, err
	}
	var result *mesh.Record[S]
	_, err = s.Store.Read(ctx, func(tx *store.Tx) error {
		result, err = k.get(tx, at)
		return err
	})
	if err != nil {
		return nil, s.failure(ctx, err)
	}
	return result, nil
}

// remove deletes a resource that nothing needs, and returns what it was. Its
// version counts the deletion as App Mesh's guide shows, but for a mesh.
func remove[S any](ctx context.Context, s *Service, k *kind[S], of locator) (*mesh.Record[S], error) {
	at, err := of.location(ctx)
	if err != nil {
		return nil, err
	}
	var result *mesh.Record[S]
	err = s.write(ctx, func(tx *store.Tx) error {
		existing, err := k.get(tx, at)
		if err != nil {
			return err
		}
		if k.unused != nil {
			if err := k.unused(tx, at); err != nil {
				return err
			}
		}
		last := *existing
		last.UpdatedAt = s.now()
		if k.kind != mesh.KindMesh {
			last.Version++
		}
		result = &last
		return store.Delete(tx, at.mesh, at.id)
	})
	if err != nil {
		return nil, s.failure(ctx, err)
	}
	return result, nil
}

// list returns one page of the resources of a kind, by name, and the token of
// the next page.
func list[S any](ctx context.Context, s *Service, k *kind[S], of locator, p page) ([]*mesh.Record[S], *string, error) {
	at, err := of.location(ctx)
	if err != nil {
		return nil, nil, err
	}
	tokens, err := s.pageTokens(ctx, at)
	if err != nil {
		return nil, nil, s.failure(ctx, err)
	}
	after, err := tokens.after(p.token)
	if err != nil {
		return nil, nil, err
	}
	var found []*mesh.Record[S]
	_, err = s.Store.Read(ctx, func(tx *store.Tx) error {
		if err := k.parents(tx, at); err != nil {
			return err
		}
		found, err = store.Page[S](tx, at.mesh, k.kind, at.id.Parent, after, p.size()+1)
		return err
	})
	if err != nil {
		return nil, nil, s.failure(ctx, err)
	}
	if len(found) <= p.size() {
		return found, nil, nil
	}
	found = found[:p.size()] // there is one more: so there is a next page
	return found, tokens.Next(found[len(found)-1].ID.Name), nil
}

// get reads a resource that must exist, with what it stands in.
func (k *kind[S]) get(tx *store.Tx, at location) (*mesh.Record[S], error) {
	record, err := store.Get[S](tx, at.mesh, at.id)
	if !errors.Is(err, store.ErrNotFound) {
		return record, err
	}
	if err := k.parents(tx, at); err != nil {
		return nil, err
	}
	return nil, absent(k.noun, at)
}

// parents checks that the mesh, and the virtual router or gateway, exist.
func (k *kind[S]) parents(tx *store.Tx, at location) error {
	if k.kind == mesh.KindMesh {
		return nil
	}
	if err := exists(tx, "Mesh", location{at.mesh, mesh.ID{Kind: mesh.KindMesh, Name: at.mesh.Mesh}}); err != nil {
		return err
	}
	switch k.kind {
	case mesh.KindRoute:
		return exists(tx, "VirtualRouter", location{at.mesh, mesh.ID{Kind: mesh.KindVirtualRouter, Name: at.id.Parent}})
	case mesh.KindGatewayRoute:
		return exists(tx, "VirtualGateway", location{at.mesh, mesh.ID{Kind: mesh.KindVirtualGateway, Name: at.id.Parent}})
	}
	return nil
}

// exists checks that a resource is there, whatever its spec.
func exists(tx *store.Tx, noun string, at location) error {
	found, err := tx.Exists(at.mesh, at.id)
	if err == nil && !found {
		return absent(noun, at)
	}
	return err
}

// repeated is nil if the resource at hand was made by this very request.
func (k *kind[S]) repeated(tx *store.Tx, at location, token []store.Token) error {
	replay, err := replayed(tx, at, token)
	if err != nil || replay == store.Repeated {
		return err
	}
	return k.taken(at)
}

func replayed(tx *store.Tx, at location, token []store.Token) (store.Replay, error) {
	if len(token) == 0 {
		return store.Fresh, nil
	}
	return store.Replayed(tx, at.mesh, at.id, token[0])
}

// reused is App Mesh's documented answer to a client token used twice.
func reused() error {
	return appmesh.NewConflictException("The request contains a client token that was used for a previous update resource call with different specifications. Try the request again with a new client token.")
}

// write runs a transaction on behalf of the caller.
func (s *Service) write(ctx context.Context, fn func(tx *store.Tx) error) error {
	_, err := s.Store.Write(ctx, func(tx *store.Tx) error {
		tx.Actor = awsapi.PrincipalFrom(ctx).ARN()
		return fn(tx)
	})
	return err
}

// need reads a resource that another one relies on.
func need[S any](tx *store.Tx, noun string, at location) (*mesh.Record[S], error) {
	record, err := store.Get[S](tx, at.mesh, at.id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, absent(noun, at)
	}
	return record, err
}

// absent is App Mesh's message about what is not there (facts A.3).
func absent(noun string, at location) error {
	switch {
	case at.id.Kind == mesh.KindMesh:
		return appmesh.NewNotFoundException("%s with name %s is not present for account %s", noun, at.mesh.Mesh, at.mesh.Owner)
	case at.id.Parent != "":
		return appmesh.NewNotFoundException("%s with name %s is not present under %s of mesh %s for account %s", noun, at.id.Name, at.id.Parent, at.mesh.Mesh, at.mesh.Owner)
	}
	return appmesh.NewNotFoundException("%s with name %s is not present under mesh %s for account %s", noun, at.id.Name, at.mesh.Mesh, at.mesh.Owner)
}

// taken is the answer to the second create of a name.
func (k *kind[S]) taken(at location) error {
	if k.kind == mesh.KindMesh {
		return appmesh.NewConflictException("%s with name %s already exists for account %s", k.noun, at.mesh.Mesh, at.mesh.Owner)
	}
	return appmesh.NewConflictException("%s with name %s already exists under mesh %s for account %s", k.noun, at.id.Name, at.mesh.Mesh, at.mesh.Owner)
}

// warn tells the caller and the log what a valid spec will lead to.
func (k *kind[S]) warn(ctx context.Context, s *Service, r *mesh.Record[S]) {
	if k.warnings == nil {
		return
	}
	header, _ := ctx.Value(headerKey{}).(http.Header)
	for _, text := range k.warnings(s, r) {
		s.Log.WarnContext(ctx, text, "mesh", r.Mesh.Mesh, "resource", r.ID.String())
		if header != nil {
			header.Add(WarningHeader, text)
		}
	}
}

// now is the time of a write, to the millisecond: what answers carry.
func (s *Service) now() time.Time { return s.Now().UTC().Truncate(time.Millisecond) }

// tokenOf is what the store remembers of a client token: nothing, or one Token.
func tokenOf(client *string, requestHash string) []store.Token {
	if client == nil {
		return nil
	}
	sum := sha256.Sum256([]byte(*client))
	return []store.Token{{Client: hex.EncodeToString(sum[:]), Request: requestHash}}
}

// requestHash tells one request from another that reuses its client token.
func requestHash[S any](operation string, in request[S]) (string, error) {
	tags := map[string]string{}
	for _, tag := range in.tags {
		tags[tag.Key] = pointed(tag.Value)
	}
	content, err := json.Marshal(struct {
		Operation string
		ID        mesh.ID
		Spec      *S
		Tags      map[string]string
	}{operation, in.id, in.spec, tags}, json.Deterministic(true))
	if err != nil {
		return "", fmt.Errorf("hash request: %w", err)
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:]), nil
}

func pointed(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// metadata is what every answer about a resource has.
func (s *Service) metadata(at location, uid string, version int64, times [2]time.Time, owner string) *appmesh.ResourceMetadata {
	return &appmesh.ResourceMetadata{
		ARN: s.arn(at, owner), UID: uid, Version: &version, MeshOwner: at.mesh.Owner, ResourceOwner: owner,
		CreatedAt: api.Timestamp{Time: times[0]}, LastUpdatedAt: api.Timestamp{Time: times[1]},
	}
}

// metadataOf is the metadata of a record.
func metadataOf[S any](s *Service, r *mesh.Record[S]) *appmesh.ResourceMetadata {
	return s.metadata(location{r.Mesh, r.ID}, r.UID, r.Version, [2]time.Time{r.CreatedAt, r.UpdatedAt}, r.ResourceOwner)
}
