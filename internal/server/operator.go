package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/iam"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/store"
	"github.com/fairlead/fairlead/internal/xds"
)

// Operator is Fairlead's own API, under /fairlead/v1/.
type Operator struct {
	Store   *store.Store
	Account string // owner of the meshes
	Graphs  Graphs
	Proxies *xds.Server
	Now     func() time.Time
	Log     *slog.Logger
}

// Mount routes the operator API.
func (o *Operator) Mount(mux *awsapi.Mux) {
	mux.HandleOperator(http.MethodPost, "/fairlead/v1/proxy-credentials", "CreateProxyCredentials", o.createCredentials)
	mux.HandleOperator(http.MethodGet, "/fairlead/v1/proxy-credentials", "ListProxyCredentials", o.listCredentials)
	mux.HandleOperator(http.MethodDelete, "/fairlead/v1/proxy-credentials/{id}", "DeleteProxyCredentials", o.deleteCredentials)
	mux.HandleOperator(http.MethodPost, "/fairlead/v1/proxies/accept-shrink", "AcceptShrink", o.acceptShrink)
	mux.HandleOperator(http.MethodGet, "/fairlead/v1/proxies", "ListProxies", o.proxies)
	mux.HandleOperator(http.MethodGet, "/fairlead/v1/backup", "CreateBackup", o.backup)
	mux.HandleOperator(http.MethodGet, "/fairlead/v1/meshes/{mesh}/edges", "ListEdges", o.edges)
	mux.HandleOperator(http.MethodGet, "/fairlead/v1/meshes/{mesh}/problems", "ListProblems", o.problems)
}

// ProxyCredentials is a proxy's own access key. The secret is told once, when
// the key is made.
type ProxyCredentials struct {
	AccessKeyID     string        `json:"accessKeyId"`
	SecretAccessKey string        `json:"secretAccessKey,omitzero"`
	Resource        string        `json:"resource"` // mesh/M/virtualNode/N
	CreatedAt       api.Timestamp `json:"createdAt,omitzero"`
}

// ProxyCredentialsList is all of them, without secrets.
type ProxyCredentialsList struct {
	Credentials []ProxyCredentials `json:"credentials"`
}

// ResourceInput names a mesh endpoint.
type ResourceInput struct {
	Resource string `json:"resource" required:"true" min:"1" max:"1000"`
}

// resource reads and normalises the mesh endpoint that a request names. It must
// exist: a key for a misspelt name would open nothing.
func (o *Operator) resource(ctx context.Context, r *awsapi.Request) (location, string, error) {
	var in ResourceInput
	if err := r.Decode(&in); err != nil {
		return location{}, "", err
	}
	name, id, err := iam.ParseResource(in.Resource, o.Account)
	if err != nil {
		return location{}, "", err
	}
	at := location{name, id}
	_, err = o.Store.Read(ctx, func(tx *store.Tx) error {
		if err := exists(tx, "Mesh", location{name, mesh.ID{Kind: mesh.KindMesh, Name: name.Mesh}}); err != nil {
			return err
		}
		return exists(tx, map[mesh.Kind]string{mesh.KindVirtualNode: "VirtualNode", mesh.KindVirtualGateway: "VirtualGateway"}[id.Kind], at)
	})
	if err != nil {
		return location{}, "", o.failure(ctx, err)
	}
	return at, iam.ResourceName(name, id, o.Account), nil
}

func (o *Operator) createCredentials(ctx context.Context, r *awsapi.Request) (any, error) {
	_, resource, err := o.resource(ctx, r)
	if err != nil {
		return nil, err
	}
	key, err := o.Store.CreateProxyKey(ctx, o.Account, resource)
	if err != nil {
		return nil, o.failure(ctx, err)
	}
	o.Log.InfoContext(ctx, "proxy credentials made", "resource", resource, "access_key_id", key.ID, "actor", r.Principal.ARN())
	return ProxyCredentials{AccessKeyID: key.ID, SecretAccessKey: key.Secret.Reveal(), Resource: resource}, nil
}

func (o *Operator) listCredentials(ctx context.Context, _ *awsapi.Request) (any, error) {
	keys, err := o.Store.ListProxyKeys(ctx)
	if err != nil {
		return nil, o.failure(ctx, err)
	}
	out := ProxyCredentialsList{Credentials: []ProxyCredentials{}}
	for _, k := range keys {
		out.Credentials = append(out.Credentials, ProxyCredentials{AccessKeyID: k.ID, Resource: k.Resource, CreatedAt: api.Timestamp{Time: k.CreatedAt}})
	}
	slices.SortFunc(out.Credentials, func(a, b ProxyCredentials) int {
		return strings.Compare(a.Resource+" "+a.AccessKeyID, b.Resource+" "+b.AccessKeyID)
	})
	return out, nil
}

func (o *Operator) deleteCredentials(ctx context.Context, r *awsapi.Request) (any, error) {
	id := r.Label("id")
	err := o.Store.DeleteProxyKey(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, appmesh.NewNotFoundException("There are no proxy credentials with the access key id %s", id)
	}
	if err != nil {
		return nil, o.failure(ctx, err)
	}
	o.Log.InfoContext(ctx, "proxy credentials deleted", "access_key_id", id, "actor", r.Principal.ARN())
	return nil, nil
}

// ShrinkAccepted answers the release of a held removal.
type ShrinkAccepted struct {
	Resource string        `json:"resource"`
	Until    api.Timestamp `json:"until"`
}

func (o *Operator) acceptShrink(ctx context.Context, r *awsapi.Request) (any, error) {
	var in ResourceInput
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	// The endpoint may be what was lost: it need not exist.
	name, id, err := iam.ParseResource(in.Resource, o.Account)
	if err != nil {
		return nil, err
	}
	if err := o.Store.AcceptShrink(ctx, name, id); err != nil {
		return nil, o.failure(ctx, err)
	}
	o.Log.WarnContext(ctx, "shrink accepted", "mesh", name.Mesh, "endpoint", id.String(), "actor", r.Principal.ARN())
	return ShrinkAccepted{Resource: iam.ResourceName(name, id, o.Account), Until: api.Timestamp{Time: o.Now().Add(store.ShrinkAge)}}, nil
}

// backup streams the store of one revision.
func (o *Operator) backup(ctx context.Context, r *awsapi.Request) (any, error) {
	o.Log.InfoContext(ctx, "backup", "actor", r.Principal.ARN())
	return awsapi.Stream(func(ctx context.Context, w io.Writer) error {
		err := o.Store.Backup(ctx, w)
		if errors.Is(err, store.ErrRotating) {
			return appmesh.NewConflictException("%v", err)
		}
		if err != nil {
			return o.failure(ctx, err)
		}
		return nil
	}), nil
}

// failure is Service.failure without a Service.
func (o *Operator) failure(ctx context.Context, err error) error {
	return (&Service{Log: o.Log}).failure(ctx, err)
}
