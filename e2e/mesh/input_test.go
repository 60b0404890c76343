package mesh_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/appmesh"
	"github.com/aws/aws-sdk-go-v2/service/appmesh/types"

	"github.com/fairlead/fairlead/internal/meshtest"
)

const blueListener = `{"portMapping": {"port": 8080, "protocol": "http"}%s}`

func blueUpdate(listener string) string {
	return `{"spec": {"listeners": [` + fmt.Sprintf(blueListener, listener) + `], "serviceDiscovery": {"dns": {"hostname": "blue.local"}}}}`
}

// requests are what nobody should send, and the answer of which a person can
// tell what to mend. All go to the virtual node that serves meanwhile.
var requests = []struct {
	name   string
	body   string
	header http.Header // besides; a signature is of the root key if unsigned is false
	sign   bool
	change func(*http.Request) // after signing
	status int
	says   []string
}{
	{name: "malformed JSON", body: `{"spec": {"listeners": [}`, sign: true, status: 400, says: []string{"spec.listeners"}},
	{name: "an unknown field", body: blueUpdate(`, "tsl": {"mode": "STRICT"}`), sign: true, status: 400, says: []string{"spec.listeners[0].tsl"}},
	{name: "a field in the wrong case", body: blueUpdate(`, "TLS": {"mode": "STRICT"}`), sign: true, status: 400, says: []string{"spec.listeners[0].TLS"}},
	{name: "a field twice", body: `{"spec": {}, "spec": {}}`, sign: true, status: 400, says: []string{"spec"}},
	{name: "an unknown mode", body: blueUpdate(`, "tls": {"mode": "strict", "certificate": {"file": {"certificateChain": "/c", "privateKey": "/k"}}}`),
		sign: true, status: 400, says: []string{"spec.listeners[0].tls.mode", "strict"}},
	{name: "no certificate", body: blueUpdate(`, "tls": {"mode": "STRICT"}`), sign: true, status: 400, says: []string{"spec.listeners[0].tls.certificate"}},
	{name: "two faults", body: `{"spec": {"listeners": [{"portMapping": {"port": 0, "protocol": "udp"}}], "serviceDiscovery": {"dns": {"hostname": "blue.local"}}}}`,
		sign: true, status: 400, says: []string{"spec.listeners[0].portMapping.port", "spec.listeners[0].portMapping.protocol", "udp"}},
	{name: "text behind the document", body: blueUpdate("") + "}", sign: true, status: 400},
	{name: "10 MB", body: `{"spec": {"` + strings.Repeat("x", 10<<20) + `": 1}}`, sign: true, status: 413},
	{name: "a hundred thousand brackets", body: `{"spec": ` + strings.Repeat("[", 100_000), sign: true, status: 400, says: []string{"nested"}},
	{name: "unsigned", body: blueUpdate(""), status: 403, says: []string{"Missing"}},
	{name: "a body that was not signed", body: blueUpdate(""), sign: true, status: 403, says: []string{"ignature"},
		change: func(r *http.Request) {
			r.Body = io.NopCloser(strings.NewReader(strings.Replace(blueUpdate(""), "8080", "8081", 1)))
		}},
	{name: "a path that was not signed", body: blueUpdate(""), sign: true, status: 403, says: []string{"ignature"},
		change: func(r *http.Request) { r.URL.Path = strings.Replace(r.URL.Path, "blue", "client", 1) }},
	{name: "a signature of somebody else", body: blueUpdate(""), sign: true, status: 403, says: []string{"UnrecognizedClient"},
		change: func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "Credential=A", "Credential=AKIAZ", 1))
		}},
}

// TestBadInput sends the API, the streams and the agents what they must refuse,
// while a TLS edge is in use: each gets an answer that says what is wrong, and
// nobody else notices.
func TestBadInput(t *testing.T) {
	s := newStage(t, "mode: STRICT")
	waitAnswer(t, s.call, "200 blue")
	s.server.WaitSettled(t, 2)
	before := state(t, s)
	l := startLoad(t, s.call, "200 blue")
	for _, r := range requests {
		t.Run("request/"+r.name, func(t *testing.T) {
			request, err := http.NewRequest(http.MethodPut, s.server.API+"/v20190125/meshes/m/virtualNodes/blue", strings.NewReader(r.body))
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Content-Type", "application/json")
			if r.sign {
				s.server.Sign(t, request, r.body, "appmesh")
			}
			if r.change != nil {
				r.change(request)
			}
			status, body, err := meshtest.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			if status != r.status {
				t.Errorf("status %d, want %d: %.300s", status, r.status, body)
			}
			var answer struct {
				Type    string `json:"__type"`
				Message string `json:"message"`
			}
			if err := json.Unmarshal([]byte(body), &answer); err != nil || answer.Type == "" || answer.Message == "" || len(answer.Message) > 2000 {
				t.Errorf("the answer is no error of AWS's shape: %v %.300s", err, body)
			}
			for _, part := range r.says {
				if !strings.Contains(answer.Message+answer.Type, part) {
					t.Errorf("%s: %q does not say %q", answer.Type, answer.Message, part)
				}
			}
		})
	}
	t.Run("request/an expression that only Go knows", func(t *testing.T) { refuseExpression(t, s.server) })
	for name, at := range map[string]string{"API": s.server.API, "xDS": "http://" + s.server.XDS, "operations": s.server.Ops} {
		t.Run("bytes to "+name, func(t *testing.T) { throwBytes(t, strings.TrimPrefix(at, "http://")) })
	}
	testBadAgents(t, s)
	l.Stop(t)
	if after := state(t, s); after != before {
		t.Errorf("something has changed: %s, before: %s", after, before)
	}
}

// state is the nodes' versions, and the proxies' streams with what they reject.
func state(t *testing.T, s stage) string {
	t.Helper()
	client := s.server.Client(t)
	out := ""
	for _, node := range []string{"blue", "client"} {
		got, err := client.DescribeVirtualNode(t.Context(), &appmesh.DescribeVirtualNodeInput{MeshName: aws.String("m"), VirtualNodeName: &node})
		if err != nil {
			t.Fatal(err)
		}
		out += fmt.Sprintf("%s version %d; ", node, *got.VirtualNode.Metadata.Version)
	}
	proxies, err := s.server.Proxies(t)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range proxies {
		out += fmt.Sprintf("%s from %s settled %t; ", p.Resource, p.Address, p.Settled)
	}
	return out + fmt.Sprint(trouble(proxies), rejections(t, map[string]*meshtest.Agent{"blue": s.proxy, "client": s.client.proxy}))
}

// refuseExpression sends what Go's regular expressions have and Envoy's have
// not: accepted, it would cost a client its whole route table.
func refuseExpression(t *testing.T, s *meshtest.Server) {
	client := s.Client(t)
	if _, err := client.CreateVirtualRouter(t.Context(), &appmesh.CreateVirtualRouterInput{MeshName: aws.String("m"), VirtualRouterName: aws.String("r"),
		Spec: &types.VirtualRouterSpec{Listeners: []types.VirtualRouterListener{{PortMapping: &types.PortMapping{Port: aws.Int32(8080), Protocol: types.PortProtocolHttp}}}}}); err != nil {
		t.Fatal(err)
	}
	for _, expression := range []string{`/\p{Letter}+`, `/\x{100}`, `/a{2,1}`} {
		_, err := client.CreateRoute(t.Context(), &appmesh.CreateRouteInput{MeshName: aws.String("m"), VirtualRouterName: aws.String("r"), RouteName: aws.String("x"),
			Spec: &types.RouteSpec{HttpRoute: &types.HttpRoute{
				Match:  &types.HttpRouteMatch{Path: &types.HttpPathMatch{Regex: &expression}},
				Action: &types.HttpRouteAction{WeightedTargets: []types.WeightedTarget{{VirtualNode: aws.String("blue"), Weight: 1}}}}}})
		if err == nil || !strings.Contains(err.Error(), "spec.httpRoute.match.path.regex") {
			t.Errorf("%s: %v", expression, err)
		}
	}
}

// throwBytes sends what is no request; the server may answer or hang up, and
// must be there afterwards.
func throwBytes(t *testing.T, address string) {
	for _, junk := range [][]byte{
		bytes.Repeat([]byte{0}, 1<<16),
		[]byte("GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 4<<20) + "\r\n\r\n"),
		[]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + strings.Repeat("\xff", 1<<16)),
		[]byte("\x16\x03\x01\xff\xff" + strings.Repeat("\x01", 1<<16)),
		[]byte("POST /v20190125/meshes HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nzzz\r\n"),
	} {
		conn, err := net.DialTimeout("tcp", address, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil { // some wait for more
			t.Fatal(err)
		}
		go conn.Write(junk)                               //nolint:errcheck // it may hang up before the end
		io.Copy(io.Discard, io.LimitReader(conn, 64<<10)) //nolint:errcheck // whatever it says
		conn.Close()
	}
}

// testBadAgents starts agents that the server must refuse.
func testBadAgents(t *testing.T, s stage) {
	n := meshtest.NewNetwork(t)
	s.server.Apply(t, inMesh+"\n---\n{virtualNode: gone, spec: {}}")
	gone := s.server.ProxyCredentials(t, "mesh/m/virtualNode/gone")
	s.server.Apply(t, inMesh+"\n---\n{virtualNode: gone, spec: null}")
	blue := s.server.ProxyCredentials(t, "mesh/m/virtualNode/blue")
	deleted := s.server.ProxyCredentials(t, "mesh/m/virtualNode/blue")
	if _, err := s.server.Fairlead(t, "proxy", "credentials", "delete", deleted.ID); err != nil {
		t.Fatal(err)
	}
	root := s.server.RootKey(t)
	stranger := meshtest.NewAuthority(t, "stranger")

	for _, a := range []struct {
		name     string
		resource string
		key      meshtest.Key
		env      []string
		says     []string // in its log and status
	}{
		{"another's name", "mesh/m/virtualNode/client", blue, nil, []string{"refuses this proxy", "mesh/m/virtualNode/blue"}},
		{"a node that does not exist", "mesh/m/virtualNode/ghost", blue, nil, []string{"refuses this proxy"}},
		{"its own node, which is gone", "mesh/m/virtualNode/gone", gone, nil, []string{"does not serve mesh/m/virtualNode/gone"}},
		{"a key that was deleted", "mesh/m/virtualNode/blue", deleted, nil, []string{"does not accept this proxy's credentials", "fairlead proxy credentials create mesh/m/virtualNode/blue"}},
		{"a wrong secret", "mesh/m/virtualNode/blue", meshtest.Key{ID: blue.ID, Secret: "x" + blue.Secret[1:]}, nil, []string{"does not accept this proxy's credentials", "ignature"}},
		{"the root key", "mesh/m/virtualNode/blue", root, nil, []string{"refuses this proxy"}},
		{"another authority than the server's", "mesh/m/virtualNode/blue", blue, []string{"FAIRLEAD_CA_FILE=" + stranger.Root}, []string{"the server's certificate is not accepted", "FAIRLEAD_CA_FILE"}},
	} {
		t.Run("agent/"+a.name, func(t *testing.T) {
			agent := meshtest.StartAgent(t, s.server, meshtest.AgentOptions{Resource: a.resource, Key: &a.key, Address: n.Address(t, ""), DNS: n.DNS.Address(), Env: a.env})
			meshtest.Eventually(t, within, func(ctx context.Context) error {
				status, err := agent.Status(ctx, "/status")
				if err != nil {
					return err
				}
				for _, part := range a.says {
					if !strings.Contains(status, part) || !strings.Contains(agent.Log(), part) {
						return fmt.Errorf("status or log do not say %q: %s\n%s", part, status, agent.Log())
					}
				}
				return nil
			})
			if _, err := agent.Admin(t.Context(), "/ready"); err == nil {
				t.Error("it says that it is ready")
			}
			if !agent.Running() {
				t.Error("it has given up")
			}
			agent.KillAll()
		})
	}
	t.Run("agent/a name that is none", func(t *testing.T) {
		agent := meshtest.StartAgent(t, s.server, meshtest.AgentOptions{Resource: "mesh/m/virtualNodes/blue", Key: &blue, Address: n.Address(t, "")})
		select {
		case <-agent.Exited():
		case <-time.After(within):
			t.Fatal("it runs")
		}
		if log := agent.Log(); !strings.Contains(log, "APPMESH_RESOURCE_ARN") || !strings.Contains(log, "mesh/m/virtualNodes/blue") {
			t.Errorf("it ended with %s", log)
		}
	})
	if _, err := s.server.Fairlead(t, "proxy", "credentials", "create", "mesh/m/virtualNode/ghost"); err == nil || !strings.Contains(err.Error(), "ghost") {
		t.Errorf("credentials for a node that does not exist: %v", err)
	}
	proxies, err := s.server.Proxies(t)
	if err != nil || len(proxies) != 2 || slices.ContainsFunc(proxies, func(p meshtest.ProxyStatus) bool { return p.Held != "" }) {
		t.Errorf("proxies: %v %s", err, show(proxies))
	}
}
