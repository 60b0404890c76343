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
func signedMessage(t testing.TB, method, target, body string) *message {
	t.Helper()
	return messageBy(t, rootCreds, method+" "+target, body)
}

// messageBy is a good request of someone: line is "METHOD target".
func messageBy(t testing.TB, creds aws.Credentials, line, body string) *message {
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
func signRequest(t testing.TB, creds aws.Credentials, r *http.Request, body string) *message {
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
		{"a date header too", "GET", "60", 0, func(m *message) { m.add("X-Amz-Date", "20261123T181834Z") }, codeIncomplete},
		{"a token header too", "GET", "60", 0, func(m *message) { m.add("X-Amz-Security-Token", "x") }, codeIncomplete},
		{"an algorithm of another name", "GET", "60", 0, func(m *message) { m.target = strings.Replace(m.target, "SHA256", "SHA1", 1) }, codeIncomplete},
		{"no seconds", "GET", "0", 0, nil, codeIncomplete},
		{"seconds that are no number", "GET", "1e1", 0, nil, codeIncomplete},
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

// TestUnknownKeysCostTheSame: what is done for a key that is not there is what
// is done for a wrong signature; the time of an answer does not tell them apart.
func TestUnknownKeysCostTheSame(t *testing.T) {
	cfg := Config{Keys: testKeys{}, Region: testRegion, Account: testAccount, Now: func() time.Time { return signedAt }}
	form := signedForm{method: "GET", path: "/v20190125/meshes", header: http.Header{"Host": {"x"}}.Values, payloadHash: emptyHash}
	work := func(keyID string, hasToken bool) float64 {
		s := signature{keyID: keyID, date: "20261123", region: testRegion, service: "appmesh", time: signedAt, signedHeaders: []string{"host"}, value: strings.Repeat("0", 64), hasToken: hasToken}
		return testing.AllocsPerRun(100, func() {
			if _, err := authenticate(t.Context(), cfg, s, form); err == nil {
				t.Fatal("accepted")
			}
		})
	}
	wrong := work(rootCreds.AccessKeyID, false)
	for name, got := range map[string]float64{"an unknown key": work("AKIANOBODY0000000000", false), "an unknown session": work("ASIANOBODY0000000000", true), "a session without token": work(sessionCreds.AccessKeyID, false)} {
		// The error of the look-up itself is a handful.
		if got < wrong-2 || got > wrong+8 {
			t.Errorf("%s: %.0f allocations, a wrong signature: %.0f", name, got, wrong)
		}
	}
}
