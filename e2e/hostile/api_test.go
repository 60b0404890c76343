package hostile

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/internal/meshtest"
)

// raw sends bytes to an address and returns the first answer; nil: the server
// closed the connection without one.
func raw(t testing.TB, address, text string) *http.Response {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		return nil
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil
	}
	io.Copy(io.Discard, response.Body) //nolint:errcheck // the status counts
	response.Body.Close()              //nolint:errcheck // likewise
	return response
}

// TestUnsignedRequests: whatever the form of a request, without a signature it
// is answered with an error and nothing else, on an address that web pages
// cannot use.
func TestUnsignedRequests(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{})
	api := strings.TrimPrefix(v.API, "http://")
	const host = "Host: localhost\r\n"
	line := func(l string, more ...string) string { return l + "\r\n" + host + strings.Join(more, "") + "\r\n" }
	for _, test := range []struct {
		name, request string
		want          int
	}{
		{"no signature", line("GET /v20190125/meshes HTTP/1.1"), 403},
		{"a path that is not there", line("GET /nothing HTTP/1.1"), 403},
		{"operator API", line("GET /fairlead/v1/proxies HTTP/1.1"), 403},
		{"console", line("GET /console/ HTTP/1.1"), 403},
		{"TRACE", line("TRACE /v20190125/meshes HTTP/1.1"), 403},
		{"CONNECT", "CONNECT localhost:22 HTTP/1.1\r\n" + host + "\r\n", 400},
		{"OPTIONS *", line("OPTIONS * HTTP/1.1"), 400},
		{"a preflight", line("OPTIONS /v20190125/meshes HTTP/1.1", "Origin: http://evil.example\r\nAccess-Control-Request-Method: PUT\r\n"), 403},
		{"an unknown method", line("FROBNICATE /v20190125/meshes HTTP/1.1"), 403},
		{"the HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 403},
		{"HTTP/0.9", "GET /\r\n\r\n", 400},
		{"an absolute target", line("GET http://localhost/v20190125/meshes HTTP/1.1"), 400},
		{"an absolute target elsewhere", line("GET http://evil.example/v20190125/meshes HTTP/1.1"), 403},
		{"no Host", "GET /v20190125/meshes HTTP/1.1\r\n\r\n", 400},
		{"no Host, HTTP/1.0", "GET /v20190125/meshes HTTP/1.0\r\n\r\n", 403},
		{"two Hosts", line("GET /v20190125/meshes HTTP/1.1", "Host: evil.example\r\n"), 400},
		{"a foreign Host", "GET /v20190125/meshes HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403},
		{"a Host with user", "GET /v20190125/meshes HTTP/1.1\r\nHost: localhost@evil.example\r\n\r\n", 400},
		{"a Host that begins well", "GET /v20190125/meshes HTTP/1.1\r\nHost: localhost.evil.example\r\n\r\n", 403},
		{"a Host that ends well", "GET /v20190125/meshes HTTP/1.1\r\nHost: evilamazonaws.com\r\n\r\n", 403},
		{"both lengths", line("PUT /v20190125/meshes HTTP/1.1", "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n", 403},
		{"two lengths", line("PUT /v20190125/meshes HTTP/1.1", "Content-Length: 2\r\nContent-Length: 3\r\n") + "{}x", 400},
		{"a negative length", line("PUT /v20190125/meshes HTTP/1.1", "Content-Length: -1\r\n"), 400},
		{"a length beyond numbers", line("PUT /v20190125/meshes HTTP/1.1", "Content-Length: 99999999999999999999999\r\n"), 400},
		{"an unknown encoding", line("PUT /v20190125/meshes HTTP/1.1", "Transfer-Encoding: gzip, chunked\r\n"), 501},
		{"a header of 1 MB", line("GET /v20190125/meshes HTTP/1.1", "X-Large: "+strings.Repeat("x", 1<<20)+"\r\n"), 431},
		{"10,000 headers", line("GET /v20190125/meshes HTTP/1.1", strings.Repeat("X-Many: x\r\n", 10_000)), 431},
		{"a header with NUL", line("GET /v20190125/meshes HTTP/1.1", "X-Nul: a\x00b\r\n"), 400},
		{"a folded header", line("GET /v20190125/meshes HTTP/1.1", "X-Fold: a\r\n b\r\n"), 403},
		{"10,000 parameters", line("GET /v20190125/meshes?" + strings.Repeat("a=b&", 10_000) + "a=b HTTP/1.1"), 400},
		{"a target of 1 MB", line("GET /" + strings.Repeat("x", 1<<20) + " HTTP/1.1"), 431},
		{"a percent sign", line("GET /v20190125/meshes/%zz HTTP/1.1"), 400},
		{"a NUL in the path", line("GET /v20190125/meshes/%00 HTTP/1.1"), 403},
		{"two slashes", line("GET //v20190125//meshes HTTP/1.1"), 403},
		{"dots", line("GET /v20190125/../fairlead/v1/proxies HTTP/1.1"), 403},
		{"escaped dots", line("GET /v20190125/%2e%2e/fairlead/v1/proxies HTTP/1.1"), 403},
		{"a semicolon", line("GET /v20190125/..;/fairlead/v1/proxies HTTP/1.1"), 403},
		{"a backslash", line("GET /v20190125\\..\\fairlead HTTP/1.1"), 403},
		{"a method override", line("GET /v20190125/meshes HTTP/1.1", "X-HTTP-Method-Override: DELETE\r\n"), 403},
		{"localhost says who", line("GET /v20190125/meshes HTTP/1.1", "X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\nForwarded: for=127.0.0.1\r\n"), 403},
		{"an upgrade", line("GET /v20190125/meshes HTTP/1.1", "Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"), 403},
	} {
		t.Run(test.name, func(t *testing.T) {
			response := raw(t, api, test.request)
			switch {
			case response == nil:
				t.Errorf("no answer, want %d", test.want)
			case response.StatusCode != test.want:
				t.Errorf("%d, want %d", response.StatusCode, test.want)
			case test.want == http.StatusForbidden && (response.Header.Get("X-Amzn-Errortype") == "" || len(response.Header.Get("X-Amzn-Requestid")) != 36):
				t.Errorf("no error of AWS's form: %v", response.Header)
			default:
				for name := range response.Header {
					if strings.HasPrefix(name, "Access-Control-") {
						t.Errorf("the answer has %s", name)
					}
				}
			}
		})
	}
	v.healthy(t, 10*time.Second)
}

// TestOperationsAddress: what anybody may ask tells no names and no secrets, and
// web pages may not ask.
func TestOperationsAddress(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{})
	ops := strings.TrimPrefix(v.Ops, "http://")
	for _, test := range []struct {
		line, host string
		want       int
	}{
		{"GET /healthz", "localhost", 200}, {"GET /readyz", "127.0.0.1", 200}, {"GET /version", "[::1]", 200}, {"GET /metrics", "localhost:1", 200},
		{"GET /metrics", "evil.example", 403}, {"GET /metrics", "127.0.0.1.evil.example", 403},
		{"GET /debug/pprof/", "localhost", 404}, {"GET /debug/vars", "localhost", 404}, {"GET /", "localhost", 404},
		{"GET /../../etc/passwd", "localhost", 404}, {"GET /metrics/../debug/pprof/", "localhost", 404},
		{"POST /metrics", "localhost", 405}, {"DELETE /healthz", "localhost", 405}, {"OPTIONS *", "localhost", 400},
	} {
		response := raw(t, ops, test.line+" HTTP/1.1\r\nHost: "+test.host+"\r\n\r\n")
		if response == nil || response.StatusCode != test.want && !(test.want == 404 && response.StatusCode/100 == 3) {
			t.Errorf("%s with Host %s: %v, want %d", test.line, test.host, response, test.want)
		}
	}
	page, err := v.Get(t.Context(), "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"server.example", "virtualNode", v.client.ID} {
		if strings.Contains(page, name) {
			t.Errorf("/metrics tells %s", name)
		}
	}
}

// TestNames: names that are special to a path, a file system, a cluster's name
// or a person's eyes either make one resource that can be read back, or are
// refused.
func TestNames(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{})
	for _, name := range []string{
		".", "..", "...", "-", "_", "a b", " a", "a ", "a/b", "a//b", "/", "a%2Fb", "%", "%00", "a\tb", "a\nb", "ä", "日本", "\u202egnp", "a\u0000b",
		"*", "a*b", "a@b", "m@111111111111", "A", "a", strings.Repeat("n", 255), strings.Repeat("n", 256), strings.Repeat("ä", 255), "a_http_80", "cds_egress_m_server_http_8080",
		"<script>", "${jndi:x}", "a;b", "a?b", "a#b", "a+b", "a:b", "a\\b", "'\"", "server", "\xff",
	} {
		body := fmt.Sprintf(`{"virtualNodeName":%s,"spec":{"listeners":[{"portMapping":{"port":80,"protocol":"http"}}],"serviceDiscovery":{"dns":{"hostname":"x.example"}}}}`, quoted(name))
		created := v.Send(t, http.MethodPut, "/v20190125/meshes/m/virtualNodes", body)
		if created.Status != http.StatusOK {
			if created.Status/100 != 4 || created.Code == "" {
				t.Errorf("create %q: %d %s", name, created.Status, created.Body)
			}
			continue
		}
		path := "/v20190125/meshes/m/virtualNodes/" + escaped(name)
		if described := v.Send(t, http.MethodGet, path, ""); described.Status != http.StatusOK || described.Body != created.Body {
			t.Errorf("describe %q: %d %s\ncreated:    %s", name, described.Status, described.Body, created.Body)
		}
		if deleted := v.Send(t, http.MethodDelete, path, ""); deleted.Status != http.StatusOK {
			t.Errorf("delete %q: %d %s", name, deleted.Status, deleted.Body)
		}
	}
	for _, name := range []string{"m@111111111111", "a/b", "..", "m/virtualNode/x", "arn:aws:appmesh:us-east-1:000000000000:mesh/m"} {
		if a := v.Send(t, http.MethodPut, "/v20190125/meshes", `{"meshName":`+quoted(name)+`,"spec":{}}`); a.Status == http.StatusOK && name != ".." {
			t.Errorf("a mesh can have the name %q", name)
		}
	}
	v.healthy(t, 10*time.Second)
}

func quoted(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < 0x20:
			fmt.Fprintf(&b, `\u%04x`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// escaped is a name as a segment of a path, dots too.
func escaped(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
