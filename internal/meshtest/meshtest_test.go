package meshtest_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/appmesh"

	"github.com/fairlead/fairlead/internal/meshtest"
)

func TestMain(m *testing.M) { os.Exit(meshtest.Main(m)) }

// A server that is killed serves again on the same addresses with all that it
// acknowledged, and with the same root key.
func TestKillKeepsWhatWasAcknowledged(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	client, ctx := s.Client(t), context.Background()
	for i := range 5 {
		name := fmt.Sprintf("mesh-%d", i)
		if _, err := client.CreateMesh(ctx, &appmesh.CreateMeshInput{MeshName: &name}); err != nil {
			t.Fatal(err)
		}
		before := *s
		s.Kill()
		s.Restart(t)
		if s.API != before.API || s.XDS != before.XDS || s.Ops != before.Ops {
			t.Errorf("addresses changed: %s %s %s, before %s %s %s", s.API, s.XDS, s.Ops, before.API, before.XDS, before.Ops)
		}
		out, err := client.DescribeMesh(ctx, &appmesh.DescribeMeshInput{MeshName: &name})
		if err != nil {
			t.Fatal(err)
		}
		if got := aws.ToInt64(out.Mesh.Metadata.Version); got != 1 {
			t.Errorf("version is %d, want 1", got)
		}
	}
	list, err := client.ListMeshes(ctx, &appmesh.ListMeshesInput{})
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Meshes) != 5 {
		t.Errorf("%d meshes are left of 5", len(list.Meshes))
	}
	if code := s.Terminate(t); code != 0 {
		t.Errorf("exit code after SIGTERM is %d, want 0", code)
	}
}
