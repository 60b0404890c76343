package meshtest_test

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/appmesh"
	"github.com/aws/aws-sdk-go-v2/service/appmesh/types"
	"github.com/aws/smithy-go"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/fairlead/fairlead/internal/meshtest"
)

// startEtcd is an etcd that somebody else runs.
func startEtcd(t *testing.T) (endpoint string) {
	t.Helper()
	// The path of a socket has at most 108 bytes, which t.TempDir may exceed.
	dir, err := os.MkdirTemp("", "etcd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := embed.NewConfig()
	c.Dir = filepath.Join(dir, "data")
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:1"}
	c.AdvertisePeerUrls, c.ListenPeerUrls, c.InitialCluster = []url.URL{peer}, nil, c.Name+"="+peer.String()
	client := url.URL{Scheme: "unix", Path: filepath.Join(dir, "s")}
	c.AdvertiseClientUrls, c.ListenClientUrls = []url.URL{client}, []url.URL{client}
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	c.TickMs, c.ElectionMs, c.UnsafeNoFsync = 20, 100, true
	server, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Server.HardStop() // Close alone waits for watches to end
		server.Close()
	})
	<-server.Server.ReadyNotify()
	return client.String()
}

// Two servers on one etcd are one control plane: the same root key, each sees
// what the other has acknowledged, and they cannot race each other into a mesh
// with a reference that leads nowhere.
func TestTwoServersOnOneEtcd(t *testing.T) {
	endpoint := startEtcd(t)
	kek := filepath.Join(t.TempDir(), "kek")
	if err := os.WriteFile(kek, []byte(strings.Repeat("0f", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	options := meshtest.ServerOptions{Args: []string{"--etcd-endpoints", endpoint, "--kek-file", kek}}
	one := meshtest.StartServer(t, options)
	two := meshtest.StartServer(t, options)
	first := one.Client(t)
	second := one.Client(t, func(o *appmesh.Options) { o.BaseEndpoint = &two.API })
	ctx := t.Context()
	if _, err := os.Stat(two.Credentials()); err == nil {
		t.Error("the second server has written credentials, too")
	}
	if _, err := first.CreateMesh(ctx, &appmesh.CreateMeshInput{MeshName: aws.String("m")}); err != nil {
		t.Fatal(err)
	}
	if _, err := second.DescribeMesh(ctx, &appmesh.DescribeMeshInput{MeshName: aws.String("m")}); err != nil {
		t.Fatalf("what one server acknowledged, the other does not see: %v", err)
	}
	for round := range 20 {
		name := aws.String(fmt.Sprintf("n%d", round))
		if _, err := first.CreateVirtualNode(ctx, &appmesh.CreateVirtualNodeInput{MeshName: aws.String("m"), VirtualNodeName: name, Spec: &types.VirtualNodeSpec{}}); err != nil {
			t.Fatal(err)
		}
		// A service for the node by one server, the node's end by the other.
		var made, deleted error
		var both sync.WaitGroup
		both.Go(func() {
			_, made = first.CreateVirtualService(ctx, &appmesh.CreateVirtualServiceInput{MeshName: aws.String("m"), VirtualServiceName: name,
				Spec: &types.VirtualServiceSpec{Provider: &types.VirtualServiceProviderMemberVirtualNode{Value: types.VirtualNodeServiceProvider{VirtualNodeName: name}}}})
		})
		both.Go(func() {
			_, deleted = second.DeleteVirtualNode(ctx, &appmesh.DeleteVirtualNodeInput{MeshName: aws.String("m"), VirtualNodeName: name})
		})
		both.Wait()
		if (made == nil) == (deleted == nil) {
			t.Errorf("round %d: exactly one should have won: create %v, delete %v", round, made, deleted)
		}
		for err, code := range map[error]string{made: "NotFoundException", deleted: "ResourceInUseException"} {
			if e, ok := errors.AsType[smithy.APIError](err); err != nil && (!ok || e.ErrorCode() != code) {
				t.Errorf("round %d: %v, want %s", round, err, code)
			}
		}
	}
}
