package hostile

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/fairlead/fairlead/internal/meshtest"
)

// call is a request that somebody signs.
type call struct {
	key             meshtest.Key
	service, region string
	method, path    string
	body            string
	signed          map[string]string // further headers, signed
	unsigned        map[string]string // further headers, not signed
	at              time.Time         // zero: now
}

// do sends a call and returns the status, the error's code and the body.
func (v *victim) do(t testing.TB, c call) (status int, code, body string) {
	t.Helper()
	r, err := http.NewRequest(c.method, v.API+c.path, strings.NewReader(c.body))
	if err != nil {
		t.Fatal(err)
	}
	if c.body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for name, value := range c.signed {
		r.Header.Set(name, value)
	}
	if c.at.IsZero() {
		c.at = time.Now()
	}
	sum := sha256.Sum256([]byte(c.body))
	region := c.region
	if region == "" {
		region = meshtest.Region
	}
	if c.key.ID != "" {
		creds := aws.Credentials{AccessKeyID: c.key.ID, SecretAccessKey: c.key.Secret}
		if err := v4.NewSigner().SignHTTP(t.Context(), creds, r, hex.EncodeToString(sum[:]), c.service, region, c.at); err != nil {
			t.Fatal(err)
		}
	}
	for name, value := range c.unsigned {
		r.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", c.method, c.path, err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, response.Header.Get("X-Amzn-Errortype"), string(content)
}

// TestWhoMayCall: every route of both APIs, with every sort of credentials that
// are not the operator's.
func TestWhoMayCall(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{})
	root := v.RootKey(t)
	wrong := meshtest.Key{ID: root.ID, Secret: "wrong"}
	for _, route := range []struct{ service, method, path, body string }{
		{"appmesh", "GET", "/v20190125/meshes", ""},
		{"appmesh", "PUT", "/v20190125/meshes", `{"meshName":"x","spec":{}}`},
		{"appmesh", "GET", "/v20190125/meshes/m/virtualNodes/client", ""},
		{"appmesh", "DELETE", "/v20190125/meshes/m/virtualNodes/client", ""},
		{"appmesh", "PUT", "/v20190125/tag?resourceArn=arn:aws:appmesh:us-east-1:000000000000:mesh/m", `{"tags":[]}`},
		{"fairlead", "GET", "/fairlead/v1/proxies", ""},
		{"fairlead", "GET", "/fairlead/v1/meshes/m/edges", ""},
		{"fairlead", "GET", "/fairlead/v1/meshes/m/problems", ""},
		{"fairlead", "GET", "/fairlead/v1/proxy-credentials", ""},
		{"fairlead", "POST", "/fairlead/v1/proxy-credentials", `{"resource":"mesh/m/virtualNode/server"}`},
		{"fairlead", "DELETE", "/fairlead/v1/proxy-credentials/" + v.client.ID, ""},
		{"fairlead", "DELETE", "/fairlead/v1/proxy-credentials/" + root.ID, ""},
		{"fairlead", "POST", "/fairlead/v1/proxies/accept-shrink", `{"resource":"mesh/m/virtualNode/server"}`},
	} {
		other := map[string]string{"appmesh": "fairlead", "fairlead": "appmesh"}[route.service]
		base := call{key: root, service: route.service, method: route.method, path: route.path, body: route.body}
		for _, test := range []struct {
			name   string
			change func(*call)
			code   string
		}{
			{"nobody", func(c *call) { c.key = meshtest.Key{} }, "MissingAuthenticationTokenException"},
			{"a wrong secret", func(c *call) { c.key = wrong }, "InvalidSignatureException"},
			{"an unknown key", func(c *call) { c.key = meshtest.Key{ID: "AKIAAAAAAAAAAAAAAAAA", Secret: "x"} }, "UnrecognizedClientException"},
			{"a proxy", func(c *call) { c.key = v.client }, "AccessDeniedException"},
			{"another service's scope", func(c *call) { c.service = other }, "InvalidSignatureException"},
			{"sts scope", func(c *call) { c.service = "sts" }, "InvalidSignatureException"},
			{"another region", func(c *call) { c.region = "eu-west-1" }, "InvalidSignatureException"},
			{"ten minutes ago", func(c *call) { c.at = time.Now().Add(-10 * time.Minute) }, "InvalidSignatureException"},
			{"in ten minutes", func(c *call) { c.at = time.Now().Add(10 * time.Minute) }, "InvalidSignatureException"},
			{"an unsigned header of ours", func(c *call) { c.unsigned = map[string]string{"X-Amz-Method": "DELETE"} }, "InvalidSignatureException"},
			{"a session token", func(c *call) { c.signed = map[string]string{"X-Amz-Security-Token": "x"} }, "UnrecognizedClientException"},
		} {
			c := base
			test.change(&c)
			if status, code, body := v.do(t, c); status != http.StatusForbidden || code != test.code {
				t.Errorf("%s %s by %s: %d %s %s, want %s", c.method, c.path, test.name, status, code, body, test.code)
			}
		}
	}
	if status, _, body := v.do(t, call{key: root, service: "fairlead", method: "DELETE", path: "/fairlead/v1/proxy-credentials/" + root.ID}); status != http.StatusNotFound {
		t.Errorf("the root key deletes itself: %d %s", status, body)
	}
	v.healthy(t, 10*time.Second) // with the proxy's key and the root key: neither is gone
}

// TestHostileDocuments: specs that no SDK sends. Each is refused as the caller's
// fault, cheaply.
func TestHostileDocuments(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{})
	node := func(spec string) string { return `{"virtualNodeName":"x","spec":` + spec + `}` }
	deep := func(open, end string, n int) string { return strings.Repeat(open, n) + strings.Repeat(end, n) }
	v.bounded(t, 150, func() {
		for name, body := range map[string]string{
			"nothing": "", "not JSON": "x", "a list": "[]", "null": "null", "a number": "1", "two documents": "{}{}", "a BOM": "\ufeff{}",
			"100,000 lists":            node(`{"listeners":` + deep("[", "]", 100_000) + `}`),
			"100,000 objects":          deep(`{"a":`, "}", 100_000),
			"lists without end":        strings.Repeat("[", 1_000_000),
			"a million unknown fields": "{" + strings.Repeat(`"a":1,`, 150_000) + `"b":1}`,
			"a huge number":            node(`{"listeners":[{"portMapping":{"port":` + strings.Repeat("9", 100_000) + `,"protocol":"http"}}]}`),
			"a huge exponent":          node(`{"listeners":[{"portMapping":{"port":1e999999999,"protocol":"http"}}]}`),
			"a port of -1":             node(`{"listeners":[{"portMapping":{"port":-1,"protocol":"http"}}]}`),
			"a port of 65536":          node(`{"listeners":[{"portMapping":{"port":65536,"protocol":"http"}}]}`),
			"twice the same":           node(`{"listeners":[],"listeners":[]}`),
			"another case":             node(`{"Listeners":[]}`),
			"a mistyped tls":           node(`{"listeners":[{"portMapping":{"port":80,"protocol":"http"},"tsl":{}}]}`),
			"bad UTF-8":                "{\"virtualNodeName\":\"\xff\",\"spec\":{}}",
			"a lone surrogate":         `{"virtualNodeName":"\ud800","spec":{}}`,
			"a name of 1 MB":           `{"virtualNodeName":"` + strings.Repeat("n", 900_000) + `","spec":{}}`,
			"100,000 backends":         node(`{"backends":[` + strings.Repeat(`{"virtualService":{"virtualServiceName":"s"}},`, 20_000) + `{"virtualService":{"virtualServiceName":"s"}}]}`),
		} {
			began := time.Now()
			status, code, answer := v.do(t, call{key: v.RootKey(t), service: "appmesh", method: "PUT", path: "/v20190125/meshes/m/virtualNodes", body: body})
			if status/100 != 4 || code == "" {
				t.Errorf("%s: %d %s %.300s", name, status, code, answer)
			}
			if len(answer) > 64<<10 {
				t.Errorf("%s: the answer has %d bytes", name, len(answer))
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("%s took %s", name, took)
			}
		}
	})
	v.healthy(t, 10*time.Second)
}

// TestRacingCreates: of many creations of one name at once exactly one is made;
// the others get it, or are told that it is there. A client token is good for
// one request of one kind.
func TestRacingCreates(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{})
	root := v.RootKey(t)
	put := func(collection, body string) (int, string, string) {
		return v.do(t, call{key: root, service: "appmesh", method: "PUT", path: "/v20190125/meshes" + collection, body: body})
	}
	var mu sync.Mutex
	var group sync.WaitGroup
	seen := map[string]int{}
	for i := range 32 {
		group.Go(func() {
			status, code, body := put("/m/virtualRouters", fmt.Sprintf(`{"virtualRouterName":"raced","spec":{"listeners":[{"portMapping":{"port":%d,"protocol":"http"}}]}}`, 8000+i))
			mu.Lock()
			defer mu.Unlock()
			if status == http.StatusOK {
				seen["made"]++
			} else if seen[code]++; code != "ConflictException" {
				t.Errorf("%d %s", status, body)
			}
		})
	}
	group.Wait()
	if seen["made"] != 1 {
		t.Errorf("%v: want one that is made", seen)
	}

	const token = `"clientToken":"token-1"`
	first := `{"virtualRouterName":"r",` + token + `,"spec":{"listeners":[{"portMapping":{"port":80,"protocol":"http"}}]}}`
	_, _, made := put("/m/virtualRouters", first)
	if status, _, again := put("/m/virtualRouters", first); status != http.StatusOK || again != made {
		t.Errorf("the same again: %d %s\nfirst: %s", status, again, made)
	}
	if status, code, body := put("/m/virtualRouters", strings.Replace(first, "80", "81", 1)); status == http.StatusOK {
		t.Errorf("another request with the token: %d %s %s", status, code, body)
	}
	for collection, body := range map[string]string{
		"/m/virtualGateways": `{"virtualGatewayName":"r",` + token + `,"spec":{"listeners":[{"portMapping":{"port":80,"protocol":"http"}}]}}`,
		"/m/virtualNodes":    `{"virtualNodeName":"r",` + token + `,"spec":{}}`,
		"":                   `{"meshName":"r",` + token + `,"spec":{}}`,
	} {
		if status, _, answer := put(collection, body); status == http.StatusOK && strings.Contains(answer, "virtualRouterName") {
			t.Errorf("a token of a router answers for %s: %s", collection, answer)
		} else if status/100 == 5 {
			t.Errorf("%s: %d %s", collection, status, answer)
		}
	}
	v.healthy(t, 10*time.Second)
}

// TestReplayedElsewhere: a request that was overheard is good for nothing but
// itself.
func TestReplayedElsewhere(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{})
	root := v.RootKey(t)
	r, err := http.NewRequest(http.MethodGet, v.API+"/v20190125/meshes/m/virtualNodes/client", nil)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(nil)
	creds := aws.Credentials{AccessKeyID: root.ID, SecretAccessKey: root.Secret}
	if err := v4.NewSigner().SignHTTP(t.Context(), creds, r, hex.EncodeToString(sum[:]), "appmesh", meshtest.Region, time.Now()); err != nil {
		t.Fatal(err)
	}
	send := func(change func(*http.Request)) int {
		again := r.Clone(t.Context())
		change(again)
		response, err := http.DefaultClient.Do(again)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		return response.StatusCode
	}
	if status := send(func(*http.Request) {}); status != http.StatusOK {
		t.Fatalf("the request itself: %d", status)
	}
	for name, change := range map[string]func(*http.Request){
		"another method":  func(r *http.Request) { r.Method = http.MethodDelete },
		"another path":    func(r *http.Request) { r.URL.Path = "/v20190125/meshes/m/virtualNodes/server" },
		"an escaped path": func(r *http.Request) { r.URL.RawPath = "/v20190125/meshes/m/virtualNodes/%63lient" },
		"a longer path":   func(r *http.Request) { r.URL.Path += "/" },
		"a query":         func(r *http.Request) { r.URL.RawQuery = "meshOwner=000000000000" },
		"another Host":    func(r *http.Request) { r.Host = "localhost" },
		"a body":          func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(bytes.NewReader([]byte("{}"))), 2 },
		"a content type":  func(r *http.Request) { r.Header.Set("Content-Type", "application/json") },
		"another date": func(r *http.Request) {
			r.Header.Set("X-Amz-Date", time.Now().Add(time.Second).UTC().Format("20060102T150405Z"))
		},
		"a method override": func(r *http.Request) { r.Header.Set("X-Amz-Method-Override", "DELETE") },
	} {
		if status := send(change); status != http.StatusForbidden {
			t.Errorf("%s: %d", name, status)
		}
	}
	v.healthy(t, 10*time.Second)
}

// TestAccountThatRunsWild: a server with low rates tells an account that makes
// too many requests to slow down, for reads and writes apart, and nobody whom it
// does not know is counted.
func TestAccountThatRunsWild(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{Args: []string{"--api-read-rate", "40", "--api-write-rate", "8"}})
	root := v.RootKey(t)
	codes := map[string]int{}
	for range 200 {
		_, code, _ := v.do(t, call{key: meshtest.Key{ID: root.ID, Secret: "wrong"}, service: "appmesh", method: "GET", path: "/v20190125/meshes"})
		codes[code]++
	}
	if codes["InvalidSignatureException"] != 200 {
		t.Errorf("somebody with a wrong secret gets %v", codes)
	}
	for _, test := range []struct {
		name string
		call call
		rate int
	}{
		{"reads", call{key: root, service: "appmesh", method: "GET", path: "/v20190125/meshes"}, 40},
		{"writes", call{key: root, service: "appmesh", method: "PUT", path: "/v20190125/meshes/m", body: `{"spec":{}}`}, 8},
	} {
		began, good, slowed := time.Now(), 0, 0
		for range 5 * test.rate {
			switch status, code, body := v.do(t, test.call); {
			case status == http.StatusOK:
				good++
			case status == http.StatusTooManyRequests && code == "TooManyRequestsException":
				slowed++
			default:
				t.Fatalf("%s: %d %s %s", test.name, status, code, body)
			}
		}
		// On a machine that is slower than the rate, none need be.
		if most := test.rate + int(time.Since(began).Seconds()*float64(test.rate)) + 1; good > most {
			t.Errorf("%s: %d were answered in %s, want at most %d", test.name, good, time.Since(began), most)
		}
		t.Logf("%s: %d answered, %d slowed down in %s", test.name, good, slowed, time.Since(began))
	}
}
