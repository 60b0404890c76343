package awsapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/iam"
)

const (
	testAccount = "000000000000"
	testRegion  = "us-east-1"
)

// rootCreds, proxyCreds and sessionCreds are the keys that testKeys knows.
var (
	rootCreds  = aws.Credentials{AccessKeyID: "FLROOT00000000000000", SecretAccessKey: "root/secret+with=odd/bytes"}
	proxyCreds = aws.Credentials{AccessKeyID: "FLPROXY0000000000000", SecretAccessKey: "the proxy's own secret"}

	sessionCreds = aws.Credentials{AccessKeyID: "ASIASESSION000000000", SecretAccessKey: "the session's secret", SessionToken: "token+of/the=session"}
)

// sessionEnds is when sessionCreds expire.
var sessionEnds = signedAt.Add(time.Minute)

type testKeys struct{}

func (testKeys) Key(_ context.Context, id string) (iam.Key, error) {
	switch id {
	case rootCreds.AccessKeyID:
		return iam.Key{ID: id, Secret: iam.NewSecret(rootCreds.SecretAccessKey), Principal: iam.Principal{Account: testAccount, Kind: iam.Root, AccessKeyID: id}}, nil
	case proxyCreds.AccessKeyID:
		return iam.Key{ID: id, Secret: iam.NewSecret(proxyCreds.SecretAccessKey), Principal: iam.Principal{Account: testAccount, Kind: iam.Proxy, AccessKeyID: id, Resource: "mesh/m/virtualNode/n"}}, nil
	case "FLBROKEN":
		return iam.Key{}, errors.New("the store is away")
	}
	return iam.Key{}, fmt.Errorf("key %s: %w", id, iam.ErrUnknownKey)
}

func (testKeys) SessionKey(_ context.Context, id, token string) (iam.Key, error) {
	if id != sessionCreds.AccessKeyID || token != sessionCreds.SessionToken {
		return iam.Key{}, fmt.Errorf("session %s: %w", id, iam.ErrUnknownKey)
	}
	return iam.Key{ID: id, Secret: iam.NewSecret(sessionCreds.SecretAccessKey), Expires: sessionEnds, Principal: iam.Principal{Account: testAccount, Kind: iam.Root, AccessKeyID: id}}, nil
}

func (testKeys) Entity(ref iam.Ref) (*iam.Entity, error) {
	return nil, fmt.Errorf("%s: there is none", ref.ARN())
}

// echo answers a few operations with what it was asked, so that the tests see
// what came through the wire. Operations that it lacks panic, as a bug would.
type echo struct{ appmesh.Service }

func metadataOf(mesh string, meshOwner *string) *appmesh.ResourceMetadata {
	owner, version, at := testAccount, int64(1), api.Timestamp{Time: time.UnixMilli(1606022091476)}
	if meshOwner != nil {
		owner = *meshOwner
	}
	return &appmesh.ResourceMetadata{ARN: "arn:aws:appmesh:us-east-1:" + testAccount + ":mesh/" + mesh, CreatedAt: at, LastUpdatedAt: at,
		MeshOwner: owner, ResourceOwner: testAccount, UID: "00000000-0000-4000-8000-000000000000", Version: &version}
}

func (echo) CreateMesh(_ context.Context, in *appmesh.CreateMeshInput) (*appmesh.CreateMeshOutput, error) {
	return &appmesh.CreateMeshOutput{Mesh: &appmesh.MeshData{MeshName: in.MeshName, Spec: in.Spec, Metadata: metadataOf(in.MeshName, nil), Status: &appmesh.MeshStatus{}}}, nil
}

func (echo) DescribeMesh(ctx context.Context, in *appmesh.DescribeMeshInput) (*appmesh.DescribeMeshOutput, error) {
	if in.MeshName == "absent" {
		return nil, appmesh.NewNotFoundException("Mesh with name %s is not present for account %s", in.MeshName, PrincipalFrom(ctx).Account)
	}
	if in.MeshName == "broken" {
		return nil, errors.New("etcd: secret detail")
	}
	return &appmesh.DescribeMeshOutput{Mesh: &appmesh.MeshData{MeshName: in.MeshName, Spec: &appmesh.MeshSpec{}, Metadata: metadataOf(in.MeshName, in.MeshOwner)}}, nil
}

func (echo) ListMeshes(_ context.Context, in *appmesh.ListMeshesInput) (*appmesh.ListMeshesOutput, error) {
	return &appmesh.ListMeshesOutput{Meshes: []appmesh.MeshRef{}, NextToken: in.NextToken}, nil
}

func (echo) CreateVirtualNode(_ context.Context, in *appmesh.CreateVirtualNodeInput) (*appmesh.CreateVirtualNodeOutput, error) {
	return &appmesh.CreateVirtualNodeOutput{VirtualNode: nodeData(in.MeshName, in.VirtualNodeName, in.Spec, in.MeshOwner)}, nil
}

func (echo) DescribeVirtualNode(_ context.Context, in *appmesh.DescribeVirtualNodeInput) (*appmesh.DescribeVirtualNodeOutput, error) {
	return &appmesh.DescribeVirtualNodeOutput{VirtualNode: nodeData(in.MeshName, in.VirtualNodeName, &appmesh.VirtualNodeSpec{}, in.MeshOwner)}, nil
}

func nodeData(mesh, name string, spec *appmesh.VirtualNodeSpec, owner *string) *appmesh.VirtualNodeData {
	return &appmesh.VirtualNodeData{MeshName: mesh, VirtualNodeName: name, Spec: spec, Metadata: metadataOf(mesh, owner),
		Status: &appmesh.VirtualNodeStatus{Status: appmesh.VirtualNodeStatusCodeActive}}
}

func (echo) TagResource(context.Context, *appmesh.TagResourceInput) (*appmesh.TagResourceOutput, error) {
	return &appmesh.TagResourceOutput{}, nil
}

func (echo) ListTagsForResource(_ context.Context, in *appmesh.ListTagsForResourceInput) (*appmesh.ListTagsForResourceOutput, error) {
	value := fmt.Sprint(in.ResourceArn)
	return &appmesh.ListTagsForResourceOutput{Tags: []appmesh.TagRef{{Key: "arn", Value: &value}}, NextToken: in.NextToken}, nil
}

// widget is an input of the operator API.
type widget struct {
	Name string `json:"name" required:"true" max:"10"`
	Size int64  `json:"size,omitzero"`
}

// newTestMux serves echo and two operator actions at the given time.
func newTestMux(cfg Config) *Mux {
	cfg.Keys, cfg.Region, cfg.Account = testKeys{}, testRegion, testAccount
	m := NewMux(cfg)
	Mount[appmesh.Service](m, appmesh.SigningName, echo{}, appmesh.Operations)
	m.HandleOperator(http.MethodPost, "/fairlead/v1/widgets", "CreateWidget", func(_ context.Context, r *Request) (any, error) {
		var in widget
		if err := r.Decode(&in); err != nil {
			return nil, err
		}
		return in, nil
	})
	m.HandleOperator(http.MethodGet, "/fairlead/v1/widgets/{name}", "DescribeWidget", func(_ context.Context, r *Request) (any, error) {
		return widget{Name: r.Label("name") + r.Query("suffix")}, nil
	}, "suffix")
	m.HandleAction("sts", "GetCallerIdentity", func(_ context.Context, f *Form) (any, error) {
		if f.Value("Marker") == "panic" {
			panic("a bug")
		}
		return struct{ Arn, Marker string }{f.Principal.ARN(), f.Value("Marker")}, nil
	}, "Marker")
	return m
}

// serveTest starts a server for clients of their own.
func serveTest(t *testing.T, cfg Config) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.Config = NewServer(newTestMux(cfg), nil)
	s.Start()
	t.Cleanup(s.Close)
	return s
}
