package awsapi

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/appmesh"
	"github.com/aws/aws-sdk-go-v2/service/appmesh/types"
	"github.com/google/go-cmp/cmp"
)

const venv = "../../.tools/venv/bin/"

// oddNames need care on the way through a path and a signature.
var oddNames = []string{"plain", "a/b", "my mesh", "a+b:c", "é~*", "a%2Fb", "...", "a=b&c?d#e"}

const boto3Sees = `create {"mesh": {"meshName": "a/b", "metadata": {"arn": "arn:aws:appmesh:us-east-1:000000000000:mesh/a/b", "createdAt": "2020-11-22T05:14:51.476000+00:00", "lastUpdatedAt": "2020-11-22T05:14:51.476000+00:00", "meshOwner": "000000000000", "resourceOwner": "000000000000", "uid": "00000000-0000-4000-8000-000000000000", "version": 1}, "spec": {"egressFilter": {"type": "ALLOW_ALL"}}, "status": {}}}
describe {"mesh": "a/b"}
describe {"mesh": "my mesh"}
describe {"mesh": "a+b:c"}
describe {"mesh": "\u00e9~*"}
describe {"mesh": "a%2Fb"}
describe {"mesh": "..."}
node {"node": "a+b:c|my/no de"}
list {"meshes": [], "nextToken": "a b+c/d=e&f"}
tags {"tags": [{"key": "arn", "value": "arn:aws:appmesh:us-east-1:000000000000:mesh/a/b"}]}
tag {}
absent NotFoundException 404 NotFoundException Mesh with name absent is not present for account 000000000000
invalid BadRequestException 400 BadRequestException 3 validation errors detected: spec.listeners[0].portMapping.port must be at most 65535, not 70000; spec.listeners[0].portMapping.protocol must be one of http, tcp, http2, grpc, not "udp"; virtualNodeName must be at most 255 characters long, not 256
panic InternalServerErrorException 500 InternalServerErrorException internal error; the server's log has its cause under the id of this request
region ClientError 403 InvalidSignatureException Credential should be scoped to a valid region, not 'eu-west-1': this server's region is 'us-east-1'.
secret ClientError 403 InvalidSignatureException The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.
key ClientError 403 UnrecognizedClientException The security token included in the request is invalid.
token ClientError 403 UnrecognizedClientException The security token included in the request is invalid.
store ServiceUnavailableException 503 ServiceUnavailableException access keys cannot be looked up now; try again
presigned a/b
`

func TestBoto3(t *testing.T) {
	server := serveTest(t, Config{})
	cmd := exec.CommandContext(t.Context(), venv+"python", "testdata/clients.py", server.URL, rootCreds.AccessKeyID, rootCreds.SecretAccessKey)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("boto3 (make tools installs it): %v\n%s", err, out)
	}
	if diff := cmp.Diff(strings.Split(boto3Sees, "\n"), strings.Split(string(out), "\n")); diff != "" {
		t.Errorf("what boto3 sees (-want +got):\n%s", diff)
	}
}

func TestCLI(t *testing.T) {
	server := serveTest(t, Config{})
	aws := func(arguments ...string) (string, string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), venv+"aws", append([]string{"appmesh", "--output", "json"}, arguments...)...)
		cmd.Env = append(os.Environ(), "AWS_ENDPOINT_URL="+server.URL, "AWS_REGION="+testRegion, "AWS_DEFAULT_REGION="+testRegion,
			"AWS_ACCESS_KEY_ID="+rootCreds.AccessKeyID, "AWS_SECRET_ACCESS_KEY="+rootCreds.SecretAccessKey, "AWS_CONFIG_FILE=/dev/null")
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
			t.Fatalf("aws CLI (make tools installs it): %v", err)
		}
		return string(out), stderr.String()
	}
	out, _ := aws("create-virtual-node", "--mesh-name", "my mesh", "--virtual-node-name", "a/b+c", "--spec", `{"serviceDiscovery":{"dns":{"hostname":"x"}}}`, "--query", "virtualNode.[meshName,virtualNodeName,spec]")
	if got, want := strings.Join(strings.Fields(out), ""), `["mymesh","a/b+c",{"serviceDiscovery":{"dns":{"hostname":"x"}}}]`; got != want {
		t.Errorf("create-virtual-node: got %s, want %s", got, want)
	}
	if _, stderr := aws("describe-mesh", "--mesh-name", "absent"); !strings.Contains(stderr, "(NotFoundException) when calling the DescribeMesh operation: Mesh with name absent is not present") {
		t.Errorf("describe-mesh of an absent mesh: %s", stderr)
	}
}

func goClient(endpoint string, attempts int) *sdk.Client {
	return sdk.New(sdk.Options{
		BaseEndpoint: aws.String(endpoint), Region: testRegion, RetryMaxAttempts: attempts,
		Credentials: credentials.StaticCredentialsProvider{Value: rootCreds},
	})
}

func TestGoSDK(t *testing.T) {
	server := serveTest(t, Config{})
	client := goClient(server.URL, 1)
	ctx := t.Context()
	for _, name := range oddNames {
		out, err := client.DescribeVirtualNode(ctx, &sdk.DescribeVirtualNodeInput{MeshName: &name, VirtualNodeName: aws.String(name + " node"), MeshOwner: aws.String("111111111111")})
		if err != nil {
			t.Errorf("describe %q: %v", name, err)
			continue
		}
		got := []string{*out.VirtualNode.MeshName, *out.VirtualNode.VirtualNodeName, *out.VirtualNode.Metadata.MeshOwner}
		if diff := cmp.Diff([]string{name, name + " node", "111111111111"}, got); diff != "" {
			t.Errorf("describe %q (-want +got):\n%s", name, diff)
		}
	}
	created, err := client.CreateMesh(ctx, &sdk.CreateMeshInput{MeshName: aws.String("ä"), Spec: &types.MeshSpec{EgressFilter: &types.EgressFilter{Type: types.EgressFilterTypeDropAll}}})
	if err != nil || created.Mesh.Spec.EgressFilter.Type != types.EgressFilterTypeDropAll || created.Mesh.Metadata.CreatedAt.UnixMilli() != 1606022091476 {
		t.Errorf("create: %+v, %v", created, err)
	}
	_, err = client.DescribeMesh(ctx, &sdk.DescribeMeshInput{MeshName: aws.String("absent")})
	if _, typed := errors.AsType[*types.NotFoundException](err); !typed {
		t.Errorf("an absent mesh: %v is not the SDK's NotFoundException", err)
	}
	token := "a b+c/d=e&f%é"
	listed, err := client.ListMeshes(ctx, &sdk.ListMeshesInput{NextToken: &token, Limit: aws.Int32(100)})
	if err != nil || *listed.NextToken != token {
		t.Errorf("list: %+v, %v", listed, err)
	}
	_, err = client.ListMeshes(ctx, &sdk.ListMeshesInput{Limit: aws.Int32(101)})
	bad, typed := errors.AsType[*types.BadRequestException](err)
	if !typed || *bad.Message != "limit must be at most 100, not 101" {
		t.Errorf("limit 101: %v", err)
	}
}
