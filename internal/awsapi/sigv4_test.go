package awsapi

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/go-json-experiment/json"
)

// signedAt is the time of the signatures in these tests.
var signedAt = time.Date(2026, 11, 23, 18, 18, 34, 0, time.UTC)

// TestVectors has signatures of AWS's own test suite for Signature Version 4.
func TestVectors(t *testing.T) {
	for _, v := range []struct {
		name, method, query, want string
	}{
		{"get-vanilla", "GET", "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
		{"get-vanilla-query-order-key-case", "GET", "Param2=value2&Param1=value1", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"},
		{"post-vanilla", "POST", "", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
	} {
		at := time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC)
		header := http.Header{"Host": {"example.amazonaws.com"}, "X-Amz-Date": {at.Format(timeFormat)}}
		query, err := parseQuery(v.query)
		if err != nil {
			t.Fatal(err)
		}
		form := signedForm{method: v.method, path: "/", query: query, header: header.Values, payloadHash: emptyHash}
		s := signature{date: "20150830", region: "us-east-1", service: "service", time: at}
		if got := sign("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", s, form.canonicalRequest([]string{"host", "x-amz-date"})); got != v.want {
			t.Errorf("%s: got %s, want %s", v.name, got, v.want)
		}
	}
}

// message is an HTTP request as text, to be tampered with.
type message struct {
	method, target string
	headers        [][2]string
	body           string
}

// signedMessage is a good request: the Go SDK's signer made its signature.
func signedMessage(t *testing.T, method, target, body string) *message {
	t.Helper()
	return messageBy(t, rootCreds, method+" "+target, body)
}

// messageBy is a good request of someone: line is "METHOD target".
func messageBy(t *testing.T, creds aws.Credentials, line, body string) *message {
	t.Helper()
	method, target, _ := strings.Cut(line, " ")
	u, err := url.ParseRequestURI(target)
	if err != nil {
		t.Fatal(err)
	}
	u.Scheme, u.Host = "http", "127.0.0.1:9480"
	r := &http.Request{Method: method, URL: u, Host: u.Host, Header: http.Header{}, ContentLength: int64(len(body))}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set("X-Amz-Content-Sha256", hashOf([]byte(body)))
	return signRequest(t, creds, r, body)
}

// signRequest signs for the service that the path belongs to.
func signRequest(t *testing.T, creds aws.Credentials, r *http.Request, body string) *message {
	t.Helper()
	service := "appmesh"
	if strings.HasPrefix(r.URL.Path, "/fairlead/") {
		service = OperatorService
	}
	if err := v4.NewSigner().SignHTTP(context.Background(), creds, r, hashOf([]byte(body)), service, testRegion, signedAt); err != nil {
		t.Fatal(err)
	}
	m := &message{method: r.Method, target: r.URL.RequestURI(), body: body, headers: [][2]string{{"Host", r.Host}}}
	if body != "" {
		m.headers = append(m.headers, [2]string{"Content-Length", fmt.Sprint(len(body))})
	}
	for name, values := range r.Header {
		m.headers = append(m.headers, [2]string{name, values[0]})
	}
	return m
}

func (m *message) set(name, value string) {
	m.drop(name)
	m.add(name, value)
}

func (m *message) add(name, value string) { m.headers = append(m.headers, [2]string{name, value}) }

func (m *message) drop(name string) {
	m.headers = slices.DeleteFunc(m.headers, func(h [2]string) bool { return strings.EqualFold(h[0], name) })
}

func (m *message) get(name string) string {
	for _, h := range m.headers {
		if strings.EqualFold(h[0], name) {
			return h[1]
		}
	}
	return ""
}

// swap replaces text in a header.
func (m *message) swap(name, old, with string) {
	m.set(name, strings.Replace(m.get(name), old, with, 1))
}

// answered is what came back, with the parts that every answer has checked.
type answered struct {
	status        int
	code, message string
	header        http.Header
	body          string
}

// send parses the text as the HTTP server does and serves it.
func (m *message) send(t *testing.T, handler http.Handler) answered {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", m.method, m.target)
	for _, h := range m.headers {
		fmt.Fprintf(&b, "%s: %s\r\n", h[0], h[1])
	}
	b.WriteString("\r\n" + m.body)
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(b.String())))
	if err != nil {
		t.Fatalf("the HTTP parser refuses the request: %v", err)
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r.WithContext(t.Context()))
	a := answered{status: w.Code, header: w.Header(), body: w.Body.String()}
	if len(a.header.Get("x-amzn-RequestId")) != 36 {
		t.Errorf("the answer has no x-amzn-RequestId: %v", a.header)
	}
	if a.status != http.StatusOK {
		var e errorBody
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Type != a.header.Get("x-amzn-ErrorType") || e.Type == "" || e.Message == "" {
			t.Errorf("the body %s (%v) does not agree with the header x-amzn-ErrorType: %s", a.body, err, a.header.Get("x-amzn-ErrorType"))
		}
		a.code, a.message = e.Type, e.Message
	}
	return a
}

const nodeBody = `{"virtualNodeName":"n","spec":{"serviceDiscovery":{"dns":{"hostname":"n.example"}}}}`

// TestSignatureMutations changes one thing of a good request. Only what no
// decision rests on may change.
func TestSignatureMutations(t *testing.T) {
	const (
		bad        = codeBadSignature
		incomplete = codeIncomplete
		missing    = codeMissingToken
		unknown    = codeUnknownClient
	)
	for _, test := range []struct {
		name   string
		mutate func(*message)
		want   string // code; empty: accepted
	}{
		{"as signed", func(m *message) {}, ""},
		{"user agent added", func(m *message) { m.add("User-Agent", "x") }, ""},
		{"sdk headers added unsigned", func(m *message) { m.add("Amz-Sdk-Request", "attempt=1") }, ""},
		{"trace id added unsigned", func(m *message) { m.add("X-Amzn-Trace-Id", "x") }, ""},
		{"spaces within a header", func(m *message) { m.swap("Authorization", ", Signed", ",   Signed") }, ""},

		{"no signature", func(m *message) { m.drop("Authorization") }, missing},
		{"empty Authorization", func(m *message) { m.set("Authorization", "") }, incomplete},
		{"Basic", func(m *message) { m.set("Authorization", "Basic eDp5") }, incomplete},
		{"Bearer", func(m *message) { m.set("Authorization", "Bearer x") }, incomplete},
		{"SigV4a", func(m *message) { m.swap("Authorization", "AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256") }, incomplete},
		{"two signatures", func(m *message) { m.add("Authorization", m.get("Authorization")) }, incomplete},
		{"signature in the query too", func(m *message) { m.target += "&X-Amz-Signature=0" }, incomplete},
		{"another amz parameter in the query", func(m *message) { m.target += "&x-amz-date=20261123T181834Z" }, incomplete},
		{"no Credential", func(m *message) { m.swap("Authorization", "Credential", "Credentials") }, incomplete},
		{"two Credentials", func(m *message) { m.swap("Authorization", "SignedHeaders", "Credential=x, SignedHeaders") }, incomplete},
		{"something else in it", func(m *message) { m.swap("Authorization", "SignedHeaders", "Extra=x, SignedHeaders") }, incomplete},
		{"no date header", func(m *message) { m.drop("X-Amz-Date") }, incomplete},
		{"two date headers", func(m *message) { m.add("X-Amz-Date", m.get("X-Amz-Date")) }, incomplete},
		{"not a date", func(m *message) { m.set("X-Amz-Date", "Mon, 23 Nov 2026 18:18:34 GMT") }, incomplete},

		{"one bit of the signature", func(m *message) { flipLast(m) }, bad},
		{"upper-case signature", func(m *message) { upperSignature(m) }, incomplete},
		{"short signature", func(m *message) {
			m.set("Authorization", strings.TrimSuffix(m.get("Authorization"), m.get("Authorization")[len(m.get("Authorization"))-1:]))
		}, incomplete},
		{"another second", func(m *message) { m.set("X-Amz-Date", "20261123T181835Z") }, bad},
		{"another day in the scope", func(m *message) { m.swap("Authorization", "/20261123/", "/20261122/") }, bad},
		{"another region", func(m *message) { m.swap("Authorization", "/us-east-1/", "/eu-west-1/") }, bad},
		{"another service", func(m *message) { m.swap("Authorization", "/appmesh/", "/fairlead/") }, bad},
		{"another terminator", func(m *message) { m.swap("Authorization", "/aws4_request", "/aws5_request") }, incomplete},
		{"scope too long", func(m *message) { m.swap("Authorization", "/aws4_request", "/x/aws4_request") }, incomplete},
		{"unknown key", func(m *message) { m.swap("Authorization", rootCreds.AccessKeyID, "FLNOBODY") }, unknown},
		{"another's key", func(m *message) { m.swap("Authorization", rootCreds.AccessKeyID, proxyCreds.AccessKeyID) }, bad},
		{"token added unsigned", func(m *message) { m.add("X-Amz-Security-Token", "x") }, bad},

		{"method", func(m *message) { m.method = "DELETE" }, bad},
		{"path", func(m *message) { m.target = strings.Replace(m.target, "/m%2Fx/", "/m/", 1) }, bad},
		{"escape in the path decoded", func(m *message) { m.target = strings.Replace(m.target, "%2F", "/", 1) }, bad},
		{"escape in the path in lower case", func(m *message) { m.target = strings.Replace(m.target, "%2F", "%2f", 1) }, bad},
		{"path escaped more", func(m *message) { m.target = strings.Replace(m.target, "virtual", "%76irtual", 1) }, bad},
		{"double slash", func(m *message) { m.target = "/" + m.target }, bad},
		{"dot segment", func(m *message) { m.target = "/." + m.target }, bad},
		{"query value", func(m *message) { m.target = strings.Replace(m.target, "=1", "=2", 1) }, bad},
		{"query parameter added", func(m *message) { m.target += "&a=b" }, bad},
		{"query dropped", func(m *message) { m.target, _, _ = strings.Cut(m.target, "?") }, bad},
		{"broken escape in the query", func(m *message) { m.target += "%" }, codeBadRequest},
		{"host", func(m *message) { m.set("Host", "127.0.0.2:9480") }, bad},
		{"host without its port", func(m *message) { m.set("Host", "127.0.0.1") }, bad},
		{"body", func(m *message) { m.body = strings.Replace(m.body, `"n"`, `"o"`, 1) }, bad},
		{"content type", func(m *message) { m.set("Content-Type", "application/json; charset=utf-8") }, bad},
		{"second content type", func(m *message) { m.add("Content-Type", "text/plain") }, bad},
		{"payload hash", func(m *message) { m.set("X-Amz-Content-Sha256", emptyHash) }, bad},
		{"payload unsigned", func(m *message) { m.set("X-Amz-Content-Sha256", unsignedPayload) }, bad},
		{"payload streamed", func(m *message) { m.set("X-Amz-Content-Sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD") }, bad},
		{"a target added unsigned", func(m *message) { m.add("X-Amz-Target", "CertificateManager.ListCertificates") }, bad},
		{"host not signed", func(m *message) { m.swap("Authorization", "host;", "") }, bad},
		{"date not signed", func(m *message) { m.swap("Authorization", ";x-amz-date", "") }, bad},
		{"content type not signed", func(m *message) { m.swap("Authorization", "content-type;", "") }, bad},
		{"payload hash not signed", func(m *message) { m.swap("Authorization", "x-amz-content-sha256;", "") }, bad},
		{"signed headers out of order", func(m *message) {
			m.swap("Authorization", "content-length;content-type", "content-type;content-length")
		}, incomplete},
		{"signed header twice", func(m *message) { m.swap("Authorization", "host;", "host;host;") }, incomplete},
		{"signed header in upper case", func(m *message) { m.swap("Authorization", "host", "Host") }, incomplete},
		{"signed header that is not there", func(m *message) { m.swap("Authorization", "x-amz-date", "x-amz-date;x-nothing") }, bad},
	} {
		t.Run(test.name, func(t *testing.T) {
			mux := newTestMux(Config{Now: func() time.Time { return signedAt }})
			m := signedMessage(t, "PUT", "/v20190125/meshes/m%2Fx/virtualNodes?meshOwner=111111111111", nodeBody)
			test.mutate(m)
			a := m.send(t, mux)
			if a.code != test.want || test.want != "" && test.want != codeBadRequest && a.status != http.StatusForbidden {
				t.Errorf("got %d %s (%s), want %s", a.status, a.code, a.message, test.want)
			}
		})
	}
}

func flipLast(m *message) {
	a := []byte(m.get("Authorization"))
	a[len(a)-1] ^= 1 // 0…9, a…f stay hexadecimal but for one: see below
	if c := a[len(a)-1]; c == '`' || c == 'g' {
		a[len(a)-1] = '0'
	}
	m.set("Authorization", string(a))
}

func upperSignature(m *message) {
	before, signature, _ := strings.Cut(m.get("Authorization"), "Signature=")
	m.set("Authorization", before+"Signature="+strings.ToUpper(signature)[:63]+"A")
}

func TestWindow(t *testing.T) {
	for _, test := range []struct {
		clock time.Duration // ours, from the signature's time
		want  string        // of the message; empty: accepted
	}{
		{-5 * time.Minute, ""},
		{-5*time.Minute - time.Second, "Signature not yet current: 20261123T181834Z is still later than 20261123T181833Z (20261123T181333Z + 5 min.)"},
		{5 * time.Minute, ""},
		{5*time.Minute + time.Second, "Signature expired: 20261123T181834Z is now earlier than 20261123T181835Z (20261123T182335Z - 5 min.)"},
	} {
		now := signedAt.Add(test.clock)
		a := signedMessage(t, "GET", "/v20190125/meshes", "").send(t, newTestMux(Config{Now: func() time.Time { return now }}))
		if a.message != test.want {
			t.Errorf("clock %s: got %d %q, want %q", test.clock, a.status, a.message, test.want)
		}
		if got := a.header.Get("Date"); got != now.Format(http.TimeFormat) {
			t.Errorf("clock %s: the answer's Date is %s", test.clock, got)
		}
	}
}

func presigned(t *testing.T, method, target string) *message {
	t.Helper()
	r, err := http.NewRequest(method, "http://127.0.0.1:9480"+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	uri, header, err := v4.NewSigner().PresignHTTP(context.Background(), rootCreds, r, emptyHash, "appmesh", testRegion, signedAt)
	if err != nil {
		t.Fatal(err)
	}
	return &message{method: method, target: strings.TrimPrefix(uri, "http://127.0.0.1:9480"), headers: [][2]string{{"Host", header.Get("Host")}}}
}

func TestPresigned(t *testing.T) {
	for _, test := range []struct {
		name, method string
		expires      string
		after        time.Duration
		mutate       func(*message)
		want         string
	}{
		{"good", "GET", "60", 0, nil, ""},
		{"on its last second", "GET", "60", time.Minute, nil, ""},
		{"too late", "GET", "60", time.Minute + time.Second, nil, codeBadSignature},
		{"too early", "GET", "60", -5*time.Minute - time.Second, nil, codeBadSignature},
		{"a week", "GET", "604800", 604800 * time.Second, nil, ""},
		{"more than a week", "GET", "604801", 0, nil, codeIncomplete},
		{"for ever", "GET", "-1", 0, nil, codeIncomplete},
		{"not for PUT", "PUT", "60", 0, nil, codeIncomplete},
		{"longer than signed", "GET", "60", 0, func(m *message) { m.target = strings.Replace(m.target, "Expires=60", "Expires=61", 1) }, codeBadSignature},
		{"other path", "GET", "60", 0, func(m *message) { m.target = strings.Replace(m.target, "meshes", "meshes/x", 1) }, codeBadSignature},
		{"parameter added", "GET", "60", 0, func(m *message) { m.target += "&limit=1" }, codeBadSignature},
		{"parameter repeated", "GET", "60", 0, func(m *message) { m.target += "&X-Amz-Expires=60" }, codeIncomplete},
		{"token added", "GET", "60", 0, func(m *message) { m.target += "&X-Amz-Security-Token=x" }, codeUnknownClient},
		{"unsigned header that must be signed", "GET", "60", 0, func(m *message) { m.add("X-Amz-Target", "x") }, codeBadSignature},
		{"with a body", "GET", "60", 0, func(m *message) { m.body = "{}"; m.add("Content-Length", "2") }, codeBadSignature},
	} {
		t.Run(test.name, func(t *testing.T) {
			now := signedAt.Add(test.after)
			m := presigned(t, test.method, "/v20190125/meshes?nextToken=a%20b&X-Amz-Expires="+test.expires)
			if test.mutate != nil {
				test.mutate(m)
			}
			if a := m.send(t, newTestMux(Config{Now: func() time.Time { return now }})); a.code != test.want {
				t.Errorf("got %d %s (%s), want %s", a.status, a.code, a.message, test.want)
			}
		})
	}
}
