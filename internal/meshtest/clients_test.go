package meshtest_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/appmesh"
	"github.com/aws/smithy-go"

	"github.com/fairlead/fairlead/internal/meshtest"
)

// everyKind is what the two clients below make, describe, update, list and
// delete, in an order in which it can be made: kind, its arguments, its spec.
const everyKind = `
import json, sys
NODE = {"listeners": [{"portMapping": {"port": 8080, "protocol": "http"},
                       "healthCheck": {"healthyThreshold": 2, "unhealthyThreshold": 2, "intervalMillis": 5000, "timeoutMillis": 2000, "protocol": "http", "path": "/"},
                       "tls": {"mode": "STRICT", "certificate": {"file": {"certificateChain": "/c.pem", "privateKey": "/k.pem"}}}}],
        "serviceDiscovery": {"dns": {"hostname": "blue.local"}}}
ROUTE = {"httpRoute": {"match": {"prefix": "/"}, "action": {"weightedTargets": [{"virtualNode": "blue", "weight": 100}]}}}
GATEWAY_ROUTE = {"httpRoute": {"match": {"prefix": "/"}, "action": {"target": {"virtualService": {"virtualServiceName": "color.local"}}}}}
KINDS = [
    ("mesh", {"meshName": "m"}, {"egressFilter": {"type": "ALLOW_ALL"}}),
    ("virtual_node", {"meshName": "m", "virtualNodeName": "blue"}, NODE),
    ("virtual_router", {"meshName": "m", "virtualRouterName": "r"}, {"listeners": [{"portMapping": {"port": 8080, "protocol": "http"}}]}),
    ("route", {"meshName": "m", "virtualRouterName": "r", "routeName": "x"}, ROUTE),
    ("virtual_service", {"meshName": "m", "virtualServiceName": "color.local"}, {"provider": {"virtualRouter": {"virtualRouterName": "r"}}}),
    ("virtual_gateway", {"meshName": "m", "virtualGatewayName": "g"}, {"listeners": [{"portMapping": {"port": 80, "protocol": "http"}}]}),
    ("gateway_route", {"meshName": "m", "virtualGatewayName": "g", "gatewayRouteName": "gr"}, GATEWAY_ROUTE),
]
def camel(kind):
    first, *rest = kind.split("_")
    return first + "".join(w.capitalize() for w in rest)
def plural(kind):
    return kind + ("es" if kind == "mesh" else "s")
def check(data, spec, version, status="ACTIVE"):
    want = json.loads(json.dumps(spec))
    for l in want.get("listeners", []):
        if "healthCheck" in l:
            l["healthCheck"]["port"] = l["portMapping"]["port"]
    assert data["spec"] == want, (data["spec"], want)
    assert data["metadata"]["version"] == version, data["metadata"]
    assert data["status"]["status"] == status, data["status"]
def life(call):
    for kind, names, spec in KINDS:
        check(call("create", kind, names, spec)[camel(kind)], spec, 1)
        check(call("describe", kind, names, None)[camel(kind)], spec, 1)
        check(call("update", kind, names, spec)[camel(kind)], spec, 2)
        parents = dict(list(names.items())[:-1])
        found = call("list", plural(kind), parents, None)[plural(camel(kind))]
        assert len(found) == 1 and found[0]["version"] == 2, found
    for kind, names, spec in reversed(KINDS):
        check(call("delete", kind, names, None)[camel(kind)], spec, 2 if kind == "mesh" else 3, "DELETED")
`

// All seven kinds through boto3, as a user has it.
func TestBoto3(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	python(t, s, everyKind+`
import boto3
client = boto3.client("appmesh")
def call(verb, kind, names, spec):
    arguments = dict(names)
    if spec is not None:
        arguments["spec"] = spec
    return getattr(client, verb + "_" + kind)(**arguments)
life(call)
# A typed exception, and tags.
try:
    client.describe_mesh(meshName="m")
    sys.exit("the mesh is still there")
except client.exceptions.NotFoundException as e:
    assert "Mesh with name m is not present" in str(e), e
arn = client.create_mesh(meshName="tagged", tags=[{"key": "a", "value": "1"}])["mesh"]["metadata"]["arn"]
client.tag_resource(resourceArn=arn, tags=[{"key": "b", "value": ""}])
assert client.list_tags_for_resource(resourceArn=arn)["tags"] == [{"key": "a", "value": "1"}, {"key": "b", "value": ""}]
`)
}

// All seven kinds through the aws command.
func TestAWSCLI(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	python(t, s, everyKind+`
import re, subprocess
def dashes(name):
    return re.sub("([A-Z])", lambda m: "-" + m.group(1).lower(), name)
def call(verb, kind, names, spec):
    command = [sys.argv[1], "appmesh", verb + "-" + kind.replace("_", "-")]
    for name, value in names.items():
        command += ["--" + dashes(name), value]
    if spec is not None:
        command += ["--spec", json.dumps(spec)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
life(call)
`, meshtest.Tool(t, "aws"))
}

func python(t *testing.T, s *meshtest.Server, program string, args ...string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "program.py")
	if err := os.WriteFile(file, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), meshtest.Tool(t, "python"), append([]string{file}, args...)...)
	cmd.Env = s.AWSEnv()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func TestOperatorCommands(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	client, ctx := s.Client(t), t.Context()
	if _, err := client.CreateMesh(ctx, &appmesh.CreateMeshInput{MeshName: aws.String("m")}); err != nil {
		t.Fatal(err)
	}
	gateway := []byte(`{"virtualGatewayName":"g","spec":{"listeners":[{"portMapping":{"port":80,"protocol":"http"}}]}}`)
	python(t, s, "import boto3, json\nboto3.client('appmesh').create_virtual_gateway(meshName='m', **json.loads('"+string(gateway)+"'))")

	file := filepath.Join(t.TempDir(), "credentials")
	for _, c := range []struct {
		args string
		code int
		want string // in standard output if the code is 0, else in standard error
	}{
		{"proxy credentials create mesh/m/virtualGateway/g", 0, "# mesh/m/virtualGateway/g\n[default]\naws_access_key_id = AKIA"},
		{"proxy credentials create arn:aws:appmesh:us-east-1:000000000000:mesh/m/virtualGateway/g -o json", 0, `"resource": "mesh/m/virtualGateway/g"`},
		{"proxy credentials create mesh/m/virtualGateway/g --output-file " + file, 0, ""},
		{"proxy credentials create mesh/m/virtualGateway/g --output-file " + file, 1, "exists already: remove it, or name another file"},
		{"proxy credentials create mesh/m/virtualGateway/no", 1, "NotFoundException: VirtualGateway with name no is not present under mesh m"},
		{"proxy credentials create mesh/m/route/x", 1, "only virtual nodes and virtual gateways have proxies"},
		{"proxy credentials create", 2, "takes one argument: mesh/MESH/virtualNode/NAME"},
		{"proxy credentials list", 0, "mesh/m/virtualGateway/g"},
		{"proxy credentials delete AKIANOTTHERE", 1, "NotFoundException"},
		{"proxy list", 0, "RESOURCE   ADDRESS"},
		{"proxy accept-shrink mesh/m/virtualNode/lost", 0, "mesh/m/virtualNode/lost may shrink until"},
		{"edges m", 0, "no edges"},
		{"edges m -o json", 0, `"edges": []`},
		{"edges no", 1, "Mesh with name no is not present"},
		{"edges m -o yaml", 2, `"yaml" is not text or json`},
		{"problems m", 0, "No problems in mesh m."},
		{"edge m", 2, `unknown command "edge"`},
		{"proxy lst", 2, `unknown command "lst"`},
		{"version", 0, "fairlead "},
		{"--help", 0, "fairlead agent"},
		{"completion bash", 0, "bash completion"},
		{"edges m --endpoint-url http://127.0.0.1:1", 1, "Is it running there?"},
		{"edges m --endpoint-url 127.0.0.1:1", 2, "is not http://HOST:PORT"},
		{"edges m --endpoint-url " + s.Ops, 1, "is it Fairlead's API address?"},
	} {
		stdout, stderr, code := run(t, s, strings.Fields(c.args))
		said := stdout
		if c.code != 0 {
			said = stderr
		}
		if code != c.code || !strings.Contains(said, c.want) {
			t.Errorf("fairlead %s: exit code %d\n%s%s\nwant %d %q", c.args, code, stdout, stderr, c.code, c.want)
		}
		if c.code == 0 && stderr != "" || c.code != 0 && stdout != "" {
			t.Errorf("fairlead %s: the wrong stream was written to:\n%s%s", c.args, stdout, stderr)
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("credentials file: %v %v", info, err)
	}
	proxyKeyCallsNothing(t, s)
}

// The key of a proxy is good for its stream alone, and for nothing once it is
// deleted.
func proxyKeyCallsNothing(t *testing.T, s *meshtest.Server) {
	t.Helper()
	key := s.ProxyCredentials(t, "mesh/m/virtualGateway/g")
	proxy := s.Client(t, func(o *appmesh.Options) {
		o.Credentials = credentials.NewStaticCredentialsProvider(key.ID, key.Secret, "")
	})
	wants := func(code string) {
		t.Helper()
		_, err := proxy.ListMeshes(t.Context(), &appmesh.ListMeshesInput{})
		if e, ok := errors.AsType[smithy.APIError](err); !ok || e.ErrorCode() != code {
			t.Errorf("ListMeshes with a proxy's key: %v, want %s", err, code)
		}
	}
	wants("AccessDeniedException")
	var list struct {
		Credentials []struct {
			ID     string `json:"accessKeyId"`
			Secret string `json:"secretAccessKey"`
		} `json:"credentials"`
	}
	if err := s.JSON(t, &list, "proxy", "credentials", "list"); err != nil {
		t.Fatal(err)
	}
	if len(list.Credentials) != 4 || list.Credentials[0].Secret != "" {
		t.Errorf("list of credentials: %+v", list)
	}
	if _, err := s.Fairlead(t, "proxy", "credentials", "delete", key.ID); err != nil {
		t.Error(err)
	}
	wants("UnrecognizedClientException")
}

// run is Server.Fairlead with both streams and the exit code.
func run(t *testing.T, s *meshtest.Server, args []string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), meshtest.Binary(t), args...)
	cmd.Env = s.AWSEnv()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// The pages of the operations address.
func TestOperations(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ready", "/version": "", "/metrics": "fairlead_xds_held_proxies 0"} {
		if got, err := s.Get(t.Context(), path); err != nil || !strings.Contains(got, want) {
			t.Errorf("%s: %v %.300s", path, err, got)
		}
	}
	if s.Terminate(t) != 0 {
		t.Errorf("the server did not end well")
	}
	var lines []string
	for line := range strings.Lines(s.Log()) {
		if strings.HasPrefix(line, "ready ") {
			lines = append(lines, line)
		}
	}
	if len(lines) != 1 {
		t.Errorf("ready lines: %q", lines)
	}
}

// What cannot be started says why and what to do, and exits 1.
func TestServerThatCannotStart(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	stopped := meshtest.StartServer(t, meshtest.ServerOptions{})
	stopped.Kill()
	wrong := filepath.Join(t.TempDir(), "kek")
	if err := os.WriteFile(wrong, []byte(strings.Repeat("ab", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	addresses := "--api-address 127.0.0.1:0 --xds-address 127.0.0.1:0 --ops-address 127.0.0.1:0 "
	for _, c := range []struct{ args, want string }{
		{addresses + "--data-dir " + s.DataDir, "in use by another server: stop it, or give this one another --data-dir"},
		{"--api-address " + strings.TrimPrefix(s.API, "http://") + " --data-dir " + other, "address already in use"},
		{addresses + "--account-id 111111111111 --data-dir " + stopped.DataDir, `this store was made for account "000000000000"`},
		{addresses + "--tls-cert /no/cert --tls-key /no/key --data-dir " + other, "no such file"},
	} {
		_, stderr, code := run(t, s, append([]string{"server"}, strings.Fields(c.args)...))
		if code == 0 || !strings.Contains(stderr, c.want) {
			t.Errorf("fairlead server %s: exit code %d, %s\nwant %q", c.args, code, stderr, c.want)
		}
	}
	s.Kill()
	_, stderr, code := run(t, s, append([]string{"server", "--data-dir", s.DataDir, "--kek-file", wrong}, strings.Fields(addresses)...))
	if code != 1 || !strings.Contains(stderr, "give the store's own with --kek or --kek-file") {
		t.Errorf("with a wrong key: exit code %d, %s", code, stderr)
	}
}
