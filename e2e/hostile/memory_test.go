package hostile

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/fairlead/fairlead/internal/envoy"
	"github.com/fairlead/fairlead/internal/meshtest"
)

// push sends a head and as much of an endless body as the server takes, and
// returns the answer's status, 0 without one, and what it has taken.
func push(t testing.TB, address, head string) (status, taken int) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		t.Error(err)
		return 0, 0
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Error(err)
		return 0, 0
	}
	answered := make(chan int, 1)
	go func() {
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			answered <- 0
			return
		}
		answered <- response.StatusCode
	}()
	if _, err := io.WriteString(conn, head); err == nil {
		chunk := []byte(strings.Repeat("x", 64<<10))
		for taken < 100<<20 {
			n, err := conn.Write(chunk)
			taken += n
			if err != nil {
				break
			}
		}
	}
	return <-answered, taken
}

// TestHugeBodies: a body of 100 MB is refused before it is read, whoever sends it.
func TestHugeBodies(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{})
	api := strings.TrimPrefix(v.API, "http://")
	const line = "PUT /v20190125/meshes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
	length := fmt.Sprintf("Content-Length: %d\r\n\r\n", 100<<20)
	// Buffers of both sockets hold some megabytes that nobody has read.
	const buffers = 16 << 20
	for _, test := range []struct {
		name, head string
		want       int
	}{
		{"unsigned", line + length, 403},
		{"signed by a stranger", line + plausible(time.Now()) + length, 413},
		{"that is announced", line + plausible(time.Now()) + "Expect: 100-continue\r\n" + length, 413},
		{"in chunks", line + plausible(time.Now()) + "Transfer-Encoding: chunked\r\n\r\n6400000\r\n", 400},
		{"in another encoding", line + plausible(time.Now()) + "Transfer-Encoding: gzip\r\n" + length, 501},
		{"of no length", line + plausible(time.Now()) + "\r\n", 403},
	} {
		status, taken := push(t, api, test.head)
		// The answer can be lost if the server closes while bytes arrive.
		if status != test.want && status != 0 || taken > buffers {
			t.Errorf("%s: status %d, want %d; %d bytes were taken", test.name, status, test.want, taken)
		}
	}
	v.healthy(t, 10*time.Second)
}

// TestManyHostileClients: all at once, for a while; the whole process stays under
// 512 MB, and good clients notice nothing.
func TestManyHostileClients(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{})
	api, root := strings.TrimPrefix(v.API, "http://"), v.RootKey(t)
	proxy := v.ProxyCredentials(t, serverNode)
	deep := `{"virtualNodeName":"x","spec":{"listeners":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + "}}"
	many := "{" + strings.Repeat(`"a":1,`, 150_000) + `"b":1}`
	big := `{"virtualNodeName":"` + strings.Repeat("n", 3<<20) + `","spec":{}}`
	document := func(body string) func() {
		return func() {
			if status, code, _ := v.do(t, call{key: root, service: "appmesh", method: "PUT", path: "/v20190125/meshes/m/virtualNodes", body: body}); status/100 != 4 && status != 503 {
				t.Errorf("a hostile document: %d %s", status, code)
			}
		}
	}
	request := func(text string) func() {
		return func() {
			if r := raw(t, api, text); r != nil && r.StatusCode/100 != 4 {
				t.Errorf("%.60q: %d", text, r.StatusCode)
			}
		}
	}
	const host = " HTTP/1.1\r\nHost: localhost\r\n"
	attacks := []func(){
		document(deep), document(many), document(big), document(strings.Repeat("[", 1<<20)),
		request("GET /v20190125/meshes?" + strings.Repeat("a=b&", 10_000) + "a=b" + host + "\r\n"),
		request("GET /v20190125/meshes" + host + "X-Large: " + strings.Repeat("x", 1<<20) + "\r\n\r\n"),
		request("POST /" + host + "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 50000\r\n" + plausible(time.Now()) + "\r\n" + strings.Repeat("a=b&&", 10_000)),
		func() {
			push(t, api, "PUT /v20190125/meshes"+host+"Content-Type: application/json\r\n"+plausible(time.Now())+"Content-Length: 4194304\r\n\r\n")
		},
		func() {
			push(t, api, "PUT /v20190125/meshes"+host+plausible(time.Now())+fmt.Sprintf("Content-Length: %d\r\n\r\n", 100<<20))
		},
		func() {
			stream := openDelta(t, v.dial(t, &proxy))
			stream.Send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: serverNode}, TypeUrl: envoy.Cluster.URL(), ResourceNamesSubscribe: names(100_000, 10, "n")}) //nolint:errcheck // Recv says why
			stream.Recv()                                                                                                                                                      //nolint:errcheck // it is refused
		},
	}
	idle := connect(t, api, 300)
	for _, conn := range idle {
		io.WriteString(conn, "PUT /v20190125/meshes"+host+plausible(time.Now())+"Content-Length: 100000\r\n\r\n"+strings.Repeat("x", 70_000)) //nolint:errcheck // it may be cut off
	}
	var group sync.WaitGroup
	for i, attack := range attacks {
		for range 6 {
			group.Go(func() {
				for range 4 {
					attack()
				}
			})
		}
		if i%3 == 0 {
			v.healthy(t, 20*time.Second)
		}
	}
	group.Wait()
	v.healthy(t, 20*time.Second)
	_, peak := resident(t, v.PID())
	t.Logf("the server never had more than %d MiB", peak)
	if peak >= 512 {
		t.Errorf("the server had %d MiB, want less than 512", peak)
	}
	closedWithin(t, idle, 20*time.Second)
}
