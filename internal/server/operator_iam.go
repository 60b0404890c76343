package server

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/iam"
	"github.com/fairlead/fairlead/internal/iam/policy"
	"github.com/fairlead/fairlead/internal/store"
)

func (o *Operator) mountIAM(mux *awsapi.Mux) {
	mux.HandleOperator(http.MethodPost, "/fairlead/v1/iam/{kind}", "CreateEntity", o.createEntity)
	mux.HandleOperator(http.MethodGet, "/fairlead/v1/iam/{kind}", "ListEntities", o.listEntities, "account")
	mux.HandleOperator(http.MethodGet, "/fairlead/v1/iam/{kind}/{name}", "GetEntity", o.getEntity, "account")
	mux.HandleOperator(http.MethodPut, "/fairlead/v1/iam/{kind}/{name}", "UpdateEntity", o.updateEntity, "account")
	mux.HandleOperator(http.MethodDelete, "/fairlead/v1/iam/{kind}/{name}", "DeleteEntity", o.deleteEntity, "account")
	mux.HandleOperator(http.MethodPost, "/fairlead/v1/iam/user/{name}/keys", "CreateAccessKey", o.createUserKey, "account")
	mux.HandleOperator(http.MethodPut, "/fairlead/v1/iam/user/{name}/keys/{id}", "UpdateAccessKey", o.updateUserKey, "account")
	mux.HandleOperator(http.MethodDelete, "/fairlead/v1/iam/user/{name}/keys/{id}", "DeleteAccessKey", o.deleteUserKey, "account")
	mux.HandleOperator(http.MethodPost, "/fairlead/v1/iam-simulation", "SimulatePolicy", o.simulate)
}

// EntityInput makes an entity. Which members a kind has is said by iam.Entity.
type EntityInput struct {
	Account    string   `json:"account,omitzero" min:"12" max:"12"` // absent: the server's
	Name       string   `json:"name" required:"true" min:"1" max:"64"`
	Document   string   `json:"document,omitzero" max:"10240"`
	Trust      string   `json:"trust,omitzero" max:"10240"`
	MaxSession int64    `json:"maxSession,omitzero"` // seconds
	Policies   []string `json:"policies,omitzero"`
	Groups     []string `json:"groups,omitzero"`
	Boundary   string   `json:"boundary,omitzero" max:"64"`
}

// EntityChange changes what it has members for.
type EntityChange struct {
	Document   *string  `json:"document,omitzero" max:"10240"`
	Trust      *string  `json:"trust,omitzero" max:"10240"`
	MaxSession *int64   `json:"maxSession,omitzero"`
	Attach     []string `json:"attach,omitzero"` // policies
	Detach     []string `json:"detach,omitzero"`
	Join       []string `json:"join,omitzero"` // groups
	Leave      []string `json:"leave,omitzero"`
	Boundary   *string  `json:"boundary,omitzero" max:"64"` // empty: none any more
}

// Entity describes one.
type Entity struct {
	Kind       string         `json:"kind"`
	Account    string         `json:"account"`
	Name       string         `json:"name"`
	ARN        string         `json:"arn"`
	ID         string         `json:"id"`
	CreatedAt  api.Timestamp  `json:"createdAt"`
	Document   string         `json:"document,omitzero"`
	Trust      string         `json:"trust,omitzero"`
	MaxSession int64          `json:"maxSession,omitzero"`
	Policies   []string       `json:"policies,omitzero"`
	Groups     []string       `json:"groups,omitzero"`
	Boundary   string         `json:"boundary,omitzero"`
	Keys       []UserKeyState `json:"keys,omitzero"`
}

// UserKeyState is an access key of a user; its secret is there once, when it is
// made.
type UserKeyState struct {
	AccessKeyID     string        `json:"accessKeyId"`
	SecretAccessKey string        `json:"secretAccessKey,omitzero"`
	Disabled        bool          `json:"disabled,omitzero"`
	CreatedAt       api.Timestamp `json:"createdAt,omitzero"`
}

// EntityList is all of a kind.
type EntityList struct {
	Entities []Entity `json:"entities"`
}

func describeEntity(e *iam.Entity) Entity {
	d := Entity{Kind: string(e.Kind), Account: e.Account, Name: e.Name, ARN: e.ARN(), ID: e.ID, CreatedAt: api.Timestamp{Time: e.CreatedAt}, Document: e.Document,
		Trust: e.Trust, MaxSession: e.MaxSession, Policies: e.Policies, Groups: e.Groups, Boundary: e.Boundary}
	for _, k := range e.Keys {
		d.Keys = append(d.Keys, UserKeyState{AccessKeyID: k.ID, Disabled: k.Disabled, CreatedAt: api.Timestamp{Time: k.CreatedAt}})
	}
	return d
}

func noEntity(r iam.Ref) error {
	return appmesh.NewNotFoundException("There is no %s %s in account %s", r.Kind, r.Name, r.Account)
}

func (o *Operator) kind(r *awsapi.Request) (iam.EntityKind, error) {
	kind := iam.EntityKind(r.Label("kind"))
	if !slices.Contains(iam.EntityKinds(), kind) {
		return "", appmesh.NewNotFoundException("%.40q is not account, user, group, role or policy", string(kind))
	}
	return kind, nil
}

// ref is the entity that a request's path names.
func (o *Operator) ref(r *awsapi.Request, kind iam.EntityKind) iam.Ref {
	return iam.Ref{Kind: kind, Account: cmp.Or(r.Query("account"), o.Account), Name: r.Label("name")}
}

// check says what is wrong with an entity as it is to be, for the caller.
func (o *Operator) check(e *iam.Entity) error {
	if err := e.Check(); err != nil {
		return appmesh.NewBadRequestException("%v", err)
	}
	if e.Account != o.Account || e.Kind == iam.KindAccount && e.Name == o.Account {
		known := iam.Ref{Kind: iam.KindAccount, Account: o.Account, Name: e.Account}
		if _, err := o.Store.Entity(known); err != nil {
			return appmesh.NewBadRequestException("account: there is no account %s beside the server's own %s; make it with: fairlead iam create account %[1]s", e.Account, o.Account)
		}
	}
	for kind, names := range e.Uses() {
		for _, name := range names {
			if _, err := o.Store.Entity(iam.Ref{Kind: kind, Account: e.Account, Name: name}); err != nil {
				return appmesh.NewBadRequestException("There is no %s %.64q in account %s", kind, name, e.Account)
			}
		}
	}
	return nil
}

func (o *Operator) createEntity(ctx context.Context, r *awsapi.Request) (any, error) {
	kind, err := o.kind(r)
	if err != nil {
		return nil, err
	}
	var in EntityInput
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	made := iam.Entity{Ref: iam.Ref{Kind: kind, Account: cmp.Or(in.Account, o.Account), Name: in.Name}, Document: in.Document, Trust: in.Trust, MaxSession: in.MaxSession,
		Policies: in.Policies, Groups: in.Groups, Boundary: in.Boundary}
	if kind == iam.KindRole && made.MaxSession == 0 {
		made.MaxSession = roleSession
	}
	if kind == iam.KindAccount && in.Name == o.Account {
		return nil, appmesh.NewConflictException("The account %s is there already: it is the server's own", in.Name)
	}
	if err := o.check(&made); err != nil {
		return nil, err
	}
	e, err := o.Store.EditEntity(ctx, made.Ref, func(old *iam.Entity) (*iam.Entity, error) {
		if old != nil {
			return nil, appmesh.NewConflictException("There is a %s %s in account %s already", kind, made.Name, made.Account)
		}
		e := made
		return &e, nil
	})
	return o.edited(ctx, r, "made", made.Ref, e, err)
}

// edited is the end of every change.
func (o *Operator) edited(ctx context.Context, r *awsapi.Request, what string, ref iam.Ref, e *iam.Entity, err error) (any, error) {
	if err != nil {
		return nil, o.failure(ctx, err)
	}
	o.Log.InfoContext(ctx, "entity "+what, "entity", ref.ARN(), "actor", r.Principal.ARN())
	if e == nil {
		return nil, nil
	}
	return describeEntity(e), nil
}

func (o *Operator) listEntities(_ context.Context, r *awsapi.Request) (any, error) {
	kind, err := o.kind(r)
	if err != nil {
		return nil, err
	}
	list := EntityList{Entities: []Entity{}}
	for _, e := range o.Store.Entities(kind) {
		if of := r.Query("account"); of != "" && of != e.Account {
			continue
		}
		list.Entities = append(list.Entities, describeEntity(e))
	}
	return list, nil
}

func (o *Operator) getEntity(_ context.Context, r *awsapi.Request) (any, error) {
	kind, err := o.kind(r)
	if err != nil {
		return nil, err
	}
	e, err := o.Store.Entity(o.ref(r, kind))
	if err != nil {
		return nil, noEntity(o.ref(r, kind))
	}
	return describeEntity(e), nil
}

func (o *Operator) updateEntity(ctx context.Context, r *awsapi.Request) (any, error) {
	kind, err := o.kind(r)
	if err != nil {
		return nil, err
	}
	var in EntityChange
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	ref := o.ref(r, kind)
	e, err := o.Store.EditEntity(ctx, ref, func(e *iam.Entity) (*iam.Entity, error) {
		if e == nil {
			return nil, noEntity(ref)
		}
		if err := in.apply(e); err != nil {
			return nil, err
		}
		return e, o.check(e)
	})
	return o.edited(ctx, r, "changed", ref, e, err)
}

func (in *EntityChange) apply(e *iam.Entity) error {
	set := func(to, from *string) {
		if from != nil {
			*to = *from
		}
	}
	set(&e.Document, in.Document)
	set(&e.Trust, in.Trust)
	set(&e.Boundary, in.Boundary)
	if in.MaxSession != nil {
		e.MaxSession = *in.MaxSession
	}
	for _, change := range []struct {
		list      *[]string
		add, drop []string
	}{{&e.Policies, in.Attach, in.Detach}, {&e.Groups, in.Join, in.Leave}} {
		for _, name := range change.drop {
			at := slices.Index(*change.list, name)
			if at < 0 {
				return appmesh.NewNotFoundException("%.64q is not attached to %s", name, e.ARN())
			}
			*change.list = slices.Delete(*change.list, at, at+1)
		}
		for _, name := range change.add {
			if !slices.Contains(*change.list, name) {
				*change.list = append(*change.list, name)
			}
		}
	}
	return nil
}

func (o *Operator) deleteEntity(ctx context.Context, r *awsapi.Request) (any, error) {
	kind, err := o.kind(r)
	if err != nil {
		return nil, err
	}
	ref := o.ref(r, kind)
	if user := o.userOf(ref); user != "" {
		return nil, appmesh.NewResourceInUseException("%s is in use by %s", ref.ARN(), user)
	}
	e, err := o.Store.EditEntity(ctx, ref, func(e *iam.Entity) (*iam.Entity, error) {
		if e == nil {
			return nil, noEntity(ref)
		}
		return nil, nil
	})
	return o.edited(ctx, r, "deleted", ref, e, err)
}

// userOf is what refers to an entity, so that it must stay; else empty. What
// begins to do so at the same moment is denied what it asks for from then on.
func (o *Operator) userOf(ref iam.Ref) string {
	for _, kind := range iam.EntityKinds() {
		for _, e := range o.Store.Entities(kind) {
			if ref.Kind == iam.KindAccount && e.Account == ref.Name || e.Account == ref.Account && slices.Contains(e.Uses()[ref.Kind], ref.Name) {
				return e.ARN()
			}
		}
	}
	return ""
}

func (o *Operator) createUserKey(ctx context.Context, r *awsapi.Request) (any, error) {
	ref := o.ref(r, iam.KindUser)
	if user, err := o.Store.Entity(ref); err == nil && len(user.Keys) >= iam.MaxUserKeys {
		return nil, appmesh.NewLimitExceededException("The user %s has %d access keys: delete one first", ref.Name, iam.MaxUserKeys)
	}
	key, err := o.Store.CreateUserKey(ctx, ref.Account, ref.Name)
	if errors.Is(err, store.ErrNotFound) {
		return nil, noEntity(ref)
	}
	if err != nil {
		return nil, o.failure(ctx, err)
	}
	o.Log.InfoContext(ctx, "access key made", "user", ref.ARN(), "access_key_id", key.ID, "actor", r.Principal.ARN())
	return UserKeyState{AccessKeyID: key.ID, SecretAccessKey: key.Secret.Reveal()}, nil
}

// KeyChange enables or disables an access key.
type KeyChange struct {
	Disabled *bool `json:"disabled" required:"true"`
}

func noKey(ref iam.Ref, id string) error {
	return appmesh.NewNotFoundException("The user %s has no access key %.40s", ref.Name, id)
}

func (o *Operator) updateUserKey(ctx context.Context, r *awsapi.Request) (any, error) {
	var in KeyChange
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	ref, id := o.ref(r, iam.KindUser), r.Label("id")
	e, err := o.Store.EditEntity(ctx, ref, func(e *iam.Entity) (*iam.Entity, error) {
		if e == nil {
			return nil, noEntity(ref)
		}
		at := slices.IndexFunc(e.Keys, func(k iam.UserKey) bool { return k.ID == id })
		if at < 0 {
			return nil, noKey(ref, id)
		}
		e.Keys[at].Disabled = *in.Disabled
		return e, nil
	})
	return o.edited(ctx, r, "changed", ref, e, err)
}

func (o *Operator) deleteUserKey(ctx context.Context, r *awsapi.Request) (any, error) {
	ref, id := o.ref(r, iam.KindUser), r.Label("id")
	err := o.Store.DeleteUserKey(ctx, ref.Account, ref.Name, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, noKey(ref, id)
	}
	return o.edited(ctx, r, "changed", ref, nil, err)
}

// Simulation asks what a principal's policies come to.
type Simulation struct {
	Principal string            `json:"principal" required:"true" max:"300"` // ARN of a user or role
	Action    string            `json:"action" required:"true" max:"200"`
	Resource  string            `json:"resource,omitzero" max:"2048"` // absent: *
	Context   []SimulationValue `json:"context,omitzero"`
}

// SimulationValue is a condition key of the request, and one or more values.
type SimulationValue struct {
	Key    string   `json:"key" required:"true" min:"3" max:"256"`
	Values []string `json:"values" required:"true"`
}

// Simulated is the decision: allowed, explicitDeny or implicitDeny.
type Simulated struct {
	Decision  string `json:"decision"`
	Because   string `json:"because"`
	Statement string `json:"statement"`
}

func (o *Operator) simulate(_ context.Context, r *awsapi.Request) (any, error) {
	var in Simulation
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	ref, ok := iam.RefOf(in.Principal)
	e, err := o.Store.Entity(ref)
	if !ok || err != nil || ref.Kind != iam.KindUser && ref.Kind != iam.KindRole {
		return nil, appmesh.NewNotFoundException("%.300s is not the ARN of a user or role that is there", in.Principal)
	}
	p := iam.Principal{Account: ref.Account, Kind: iam.User, Name: ref.Name, ID: e.ID}
	if ref.Kind == iam.KindRole {
		p.Kind, p.Assumed = iam.RoleSession, &iam.Assumed{Session: "simulation"}
	}
	call := iam.Call{Action: in.Action, Resource: cmp.Or(in.Resource, "*"), Values: policy.Values{}}
	if fields := strings.SplitN(call.Resource, ":", 6); len(fields) == 6 {
		call.Account = fields[4]
	}
	for _, v := range in.Context {
		key := strings.ToLower(v.Key)
		call.Values[key] = append(call.Values[key], v.Values...)
	}
	d, err := iam.Decide(o.Store, p, call)
	switch {
	case err != nil:
		return Simulated{"implicitDeny", "because " + err.Error(), "no statement"}, nil
	case d.Allowed:
		return Simulated{"allowed", d.Because(), d.Decider()}, nil
	case d.Explicit:
		return Simulated{"explicitDeny", d.Because(), d.Decider()}, nil
	}
	return Simulated{"implicitDeny", d.Because(), d.Decider()}, nil
}
