package awsapi

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

// raw is a message as bytes: rest is what comes behind the headers.
func (m *message) raw(rest string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", m.method, m.target)
	for _, h := range m.headers {
		fmt.Fprintf(&b, "%s: %s\r\n", h[0], h[1])
	}
	b.WriteString("\r\n" + rest)
	return b.Bytes()
}

// exchange sends bytes over a connection of their own and returns what comes
// back: "200", "403 SomeException" or, from the HTTP parser, the status alone;
// and the body.
func exchange(t *testing.T, address string, request []byte) (outcome, body string) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(request); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: http.MethodPut})
	if err != nil {
		return "no answer: " + err.Error(), ""
	}
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return "half an answer: " + err.Error(), ""
	}
	outcome = fmt.Sprint(response.StatusCode)
	if code := response.Header.Get("X-Amzn-Errortype"); code != "" {
		outcome += " " + code
		var e errorBody
		if response.Header.Get("Content-Type") != "application/json" {
			return outcome, string(content)
		}
		if err := json.Unmarshal(content, &e); err != nil || e.Type != code || e.Message == "" || len(response.Header.Get("X-Amzn-Requestid")) != 36 {
			t.Errorf("%s: the body %s does not go with the headers %v", outcome, content, response.Header)
		}
	}
	return outcome, string(content)
}

// mutant is a message that is being changed.
type mutant struct {
	*message
	rest string // sent instead of the body; empty: the body
}

// TestSignatureMutations changes one thing of a good request and sends it over
// a real connection. Only what no decision rests on may change, and then the
// request does what it did.
func TestSignatureMutations(t *testing.T) {
	const (
		bad        = "403 " + codeBadSignature
		incomplete = "403 " + codeIncomplete
		missing    = "403 " + codeMissingToken
		unknown    = "403 " + codeUnknownClient
		request    = "400 " + codeBadRequest
		unparsed   = "400" // by net/http
		accepted   = "200"
	)
	now := func() time.Time { return signedAt }
	server := serveTest(t, Config{Now: now})
	address := strings.TrimPrefix(server.URL, "http://")
	good := func() *mutant {
		return &mutant{message: signedMessage(t, "PUT", "/v20190125/meshes/m%2Fx/virtualNodes?meshOwner=111111111111", nodeBody)}
	}
	_, unchanged := exchange(t, address, good().raw(nodeBody))
	for _, test := range []struct {
		name   string
		mutate func(*mutant)
		want   string
	}{
		{"as signed", func(m *mutant) {}, accepted},
		{"user agent added", func(m *mutant) { m.add("User-Agent", "x") }, accepted},
		{"sdk headers added unsigned", func(m *mutant) { m.add("Amz-Sdk-Request", "attempt=1") }, accepted},
		{"trace id added unsigned", func(m *mutant) { m.add("X-Amzn-Trace-Id", "x") }, accepted},
		{"spaces within a header", func(m *mutant) { m.swap("Authorization", ", Signed", ",   Signed") }, accepted},

		{"no signature", func(m *mutant) { m.drop("Authorization") }, missing},
		{"empty Authorization", func(m *mutant) { m.set("Authorization", "") }, incomplete},
		{"Basic", func(m *mutant) { m.set("Authorization", "Basic eDp5") }, incomplete},
		{"Bearer", func(m *mutant) { m.set("Authorization", "Bearer x") }, incomplete},
		{"SigV4a", func(m *mutant) { m.swap("Authorization", "AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256") }, incomplete},
		{"two signatures", func(m *mutant) { m.add("Authorization", m.get("Authorization")) }, incomplete},
		{"signature in the query too", func(m *mutant) { m.target += "&X-Amz-Signature=0" }, incomplete},
		{"another amz parameter in the query", func(m *mutant) { m.target += "&x-amz-date=20261123T181834Z" }, incomplete},
		{"no Credential", func(m *mutant) { m.swap("Authorization", "Credential", "Credentials") }, incomplete},
		{"two Credentials", func(m *mutant) { m.swap("Authorization", "SignedHeaders", "Credential=x, SignedHeaders") }, incomplete},
		{"something else in it", func(m *mutant) { m.swap("Authorization", "SignedHeaders", "Extra=x, SignedHeaders") }, incomplete},
		{"no date header", func(m *mutant) { m.drop("X-Amz-Date") }, incomplete},
		{"two date headers", func(m *mutant) { m.add("X-Amz-Date", m.get("X-Amz-Date")) }, incomplete},
		{"not a date", func(m *mutant) { m.set("X-Amz-Date", "Mon, 23 Nov 2026 18:18:34 GMT") }, incomplete},

		{"one bit of the signature", func(m *mutant) { flipLast(m.message) }, bad},
		{"upper-case signature", func(m *mutant) { upperSignature(m.message) }, incomplete},
		{"short signature", func(m *mutant) {
			m.set("Authorization", strings.TrimSuffix(m.get("Authorization"), m.get("Authorization")[len(m.get("Authorization"))-1:]))
		}, incomplete},
		{"another second", func(m *mutant) { m.set("X-Amz-Date", "20261123T181835Z") }, bad},
		{"another day in the scope", func(m *mutant) { m.swap("Authorization", "/20261123/", "/20261122/") }, bad},
		{"another region", func(m *mutant) { m.swap("Authorization", "/us-east-1/", "/eu-west-1/") }, bad},
		{"another service", func(m *mutant) { m.swap("Authorization", "/appmesh/", "/fairlead/") }, bad},
		{"another terminator", func(m *mutant) { m.swap("Authorization", "/aws4_request", "/aws5_request") }, incomplete},
		{"scope too long", func(m *mutant) { m.swap("Authorization", "/aws4_request", "/x/aws4_request") }, incomplete},
		{"unknown key", func(m *mutant) { m.swap("Authorization", rootCreds.AccessKeyID, "FLNOBODY") }, unknown},
		{"another's key", func(m *mutant) { m.swap("Authorization", rootCreds.AccessKeyID, proxyCreds.AccessKeyID) }, bad},
		{"token added unsigned", func(m *mutant) { m.add("X-Amz-Security-Token", "x") }, bad},

		{"method", func(m *mutant) { m.method = "DELETE" }, bad},
		{"path", func(m *mutant) { m.target = strings.Replace(m.target, "/m%2Fx/", "/m/", 1) }, bad},
		{"escape in the path decoded", func(m *mutant) { m.target = strings.Replace(m.target, "%2F", "/", 1) }, bad},
		{"escape in the path in lower case", func(m *mutant) { m.target = strings.Replace(m.target, "%2F", "%2f", 1) }, bad},
		{"path escaped more", func(m *mutant) { m.target = strings.Replace(m.target, "virtual", "%76irtual", 1) }, bad},
		{"double slash", func(m *mutant) { m.target = "/" + m.target }, bad},
		{"dot segment", func(m *mutant) { m.target = "/." + m.target }, bad},
		{"query value", func(m *mutant) { m.target = strings.Replace(m.target, "=1", "=2", 1) }, bad},
		{"query parameter added", func(m *mutant) { m.target += "&a=b" }, bad},
		{"query dropped", func(m *mutant) { m.target, _, _ = strings.Cut(m.target, "?") }, bad},
		{"broken escape in the query", func(m *mutant) { m.target += "%" }, request},
		{"host", func(m *mutant) { m.set("Host", "127.0.0.2:9480") }, bad},
		{"host without its port", func(m *mutant) { m.set("Host", "127.0.0.1") }, bad},
		{"body", func(m *mutant) { m.body = strings.Replace(m.body, `"n"`, `"o"`, 1) }, bad},
		{"content type", func(m *mutant) { m.set("Content-Type", "application/json; charset=utf-8") }, bad},
		{"second content type", func(m *mutant) { m.add("Content-Type", "text/plain") }, bad},
		{"payload hash", func(m *mutant) { m.set("X-Amz-Content-Sha256", emptyHash) }, bad},
		{"payload unsigned", func(m *mutant) { m.set("X-Amz-Content-Sha256", unsignedPayload) }, bad},
		{"payload streamed", func(m *mutant) { m.set("X-Amz-Content-Sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD") }, bad},
		{"a target added unsigned", func(m *mutant) { m.add("X-Amz-Target", "CertificateManager.ListCertificates") }, "400 " + codeBadSignature},
		{"host not signed", func(m *mutant) { m.swap("Authorization", "host;", "") }, bad},
		{"date not signed", func(m *mutant) { m.swap("Authorization", ";x-amz-date", "") }, bad},
		{"content type not signed", func(m *mutant) { m.swap("Authorization", "content-type;", "") }, bad},
		{"payload hash not signed", func(m *mutant) { m.swap("Authorization", "x-amz-content-sha256;", "") }, bad},
		{"signed headers out of order", func(m *mutant) {
			m.swap("Authorization", "content-length;content-type", "content-type;content-length")
		}, incomplete},
		{"signed header twice", func(m *mutant) { m.swap("Authorization", "host;", "host;host;") }, incomplete},
		{"signed header in upper case", func(m *mutant) { m.swap("Authorization", "host", "Host") }, incomplete},
		{"signed header that is not there", func(m *mutant) { m.swap("Authorization", "x-amz-date", "x-amz-date;x-nothing") }, bad},

		{"a path with dots", func(m *mutant) { m.target = strings.Replace(m.target, "/meshes", "/x/../meshes", 1) }, bad},
		{"a path with escaped dots", func(m *mutant) { m.target = strings.Replace(m.target, "/meshes", "/x/%2e%2e/meshes", 1) }, bad},
		{"a trailing slash", func(m *mutant) { m.target = strings.Replace(m.target, "?", "/?", 1) }, bad},
		{"a NUL in the path", func(m *mutant) { m.target = strings.Replace(m.target, "meshes", "me\x00shes", 1) }, unparsed},
		{"an escaped NUL in the path", func(m *mutant) { m.target = strings.Replace(m.target, "meshes", "meshes%00", 1) }, bad},
		{"a space in the path", func(m *mutant) { m.target = strings.Replace(m.target, "meshes", "mesh es", 1) }, unparsed},
		{"UTF-8 in the path", func(m *mutant) { m.target = strings.Replace(m.target, "m%2Fx", "m\u00e9", 1) }, bad},
		{"a semicolon in the path", func(m *mutant) { m.target = strings.Replace(m.target, "m%2Fx", "m%2Fx;a=b", 1) }, bad},
		{"a fragment", func(m *mutant) { m.target += "#x" }, bad},
		{"an absolute target", func(m *mutant) { m.target = "http://127.0.0.1:9480" + m.target }, request},
		{"an absolute target elsewhere", func(m *mutant) { m.target = "http://evil.example" + m.target }, request},
		{"a target without its slash", func(m *mutant) { m.target = m.target[1:] }, unparsed},
		{"a plus sign in the query", func(m *mutant) { m.target += "+" }, bad},
		{"an escaped plus sign in the query", func(m *mutant) { m.target += "%2B" }, bad},
		{"a semicolon in the query", func(m *mutant) { m.target += ";a=b" }, bad},
		{"a query parameter twice", func(m *mutant) { m.target += "&meshOwner=111111111111" }, bad},
		{"a query parameter without name", func(m *mutant) { m.target += "&=x" }, request},
		{"an empty query parameter", func(m *mutant) { m.target += "&" }, request},
		{"UTF-8 in the query", func(m *mutant) { m.target += "\u00e9" }, bad},
		{"10,000 query parameters", func(m *mutant) { m.target += strings.Repeat("&a=b", 10_000) }, request},
		{"the query escaped more", func(m *mutant) { m.target = strings.Replace(m.target, "=1", "=%31", 1) }, accepted},
		{"a date and a token in the query", func(m *mutant) { m.target += "&X-Amz-Security-Token=x" }, incomplete},

		{"two Hosts", func(m *mutant) { m.add("Host", "127.0.0.1:9480") }, unparsed},
		{"no Host", func(m *mutant) { m.drop("Host") }, unparsed},
		{"a Host in capitals", func(m *mutant) { m.set("Host", "LOCALHOST:9480") }, bad},
		{"a forwarded Host", func(m *mutant) { m.add("X-Forwarded-Host", "evil.example") }, accepted},
		{"a signed header twice", func(m *mutant) { m.add("X-Amz-Content-Sha256", m.get("X-Amz-Content-Sha256")) }, bad},
		{"a second token", func(m *mutant) { m.add("X-Amz-Security-Token", "x"); m.add("X-Amz-Security-Token", "y") }, incomplete},
		{"an empty token unsigned", func(m *mutant) { m.add("X-Amz-Security-Token", "") }, bad},
		{"headers in another order", func(m *mutant) { slices.Reverse(m.headers) }, accepted},
		{"header names in capitals", func(m *mutant) {
			for i := range m.headers {
				m.headers[i][0] = strings.ToUpper(m.headers[i][0])
			}
		}, accepted},
		{"spaces around a value", func(m *mutant) { m.set("X-Amz-Date", "  "+m.get("X-Amz-Date")+" ") }, accepted},
		{"a tab within a value", func(m *mutant) { m.set("Content-Type", "application/json;\tx=y") }, bad},
		{"a folded header", func(m *mutant) { m.set("Content-Type", "application/json\r\n ") }, accepted},
		{"a NUL in a header", func(m *mutant) { m.add("X-Nul", "a\x00b") }, unparsed},
		{"a name with a space", func(m *mutant) { m.add("X-Amz-Date ", "x") }, unparsed},
		{"an underscore for a dash", func(m *mutant) { m.add("X_Amz_Target", "x") }, accepted},
		{"CBOR claimed unsigned", func(m *mutant) { m.add("Smithy-Protocol", "rpc-v2-cbor") }, "400 " + codeBadSignature},
		{"a method override", func(m *mutant) { m.add("X-HTTP-Method-Override", "DELETE") }, accepted},
		{"a method override of ours", func(m *mutant) { m.add("X-Amz-Method-Override", "DELETE") }, bad},
		{"a method in lower case", func(m *mutant) { m.method = "put" }, bad},
		{"Expect", func(m *mutant) { m.add("Expect", "nothing") }, "417"},
		{"a scope in capitals", func(m *mutant) { m.swap("Authorization", "/appmesh/", "/AppMesh/") }, bad},
		{"the preview's scope", func(m *mutant) { m.swap("Authorization", "/appmesh/", "/appmesh-preview/") }, bad},
		{"a date of lower precision", func(m *mutant) { m.set("X-Amz-Date", "20261123T1818Z") }, incomplete},
		{"a date with fractions", func(m *mutant) { m.set("X-Amz-Date", "20261123T181834.5Z") }, bad},
		{"a Date of another day", func(m *mutant) { m.add("Date", "Mon, 23 Nov 2020 18:18:34 GMT") }, accepted},
		{"a non-hexadecimal signature", func(m *mutant) { m.swap("Authorization", "Signature="+m.signature()[:1], "Signature=z") }, incomplete},
		{"a signature of zeros", func(m *mutant) { m.swap("Authorization", m.signature(), strings.Repeat("0", 64)) }, bad},

		{"no body", func(m *mutant) { m.body = ""; m.set("Content-Length", "0") }, bad},
		{"a body cut short", func(m *mutant) { m.set("Content-Length", fmt.Sprint(len(m.body)-1)) }, bad},
		{"a longer body", func(m *mutant) { m.body += " "; m.set("Content-Length", fmt.Sprint(len(m.body))) }, bad},
		{"two lengths", func(m *mutant) { m.add("Content-Length", "1") }, unparsed},
		{"a length with a sign", func(m *mutant) { m.set("Content-Length", "+"+m.get("Content-Length")) }, unparsed},
		{"chunks", func(m *mutant) { m.drop("Content-Length"); m.chunk("") }, request},
		{"chunks and a length", func(m *mutant) { m.chunk("") }, request},
		{"chunks with a trailer", func(m *mutant) { m.drop("Content-Length"); m.chunk("X-Amz-Target: x\r\n") }, request},
		{"an announced trailer", func(m *mutant) {
			m.drop("Content-Length")
			m.add("Trailer", "X-Amz-Date")
			m.chunk("X-Amz-Date: 20261123T181834Z\r\n")
		}, request},
		{"another coding", func(m *mutant) { m.add("Transfer-Encoding", "gzip, chunked") }, "501"},
		{"identity", func(m *mutant) { m.add("Transfer-Encoding", "identity") }, "501"},
		{"gzip claimed", func(m *mutant) { m.add("Content-Encoding", "gzip") }, "415 UnsupportedMediaTypeException"},
		{"a request behind it", func(m *mutant) { m.rest = m.body + "DELETE /v20190125/meshes/m HTTP/1.1\r\nHost: x\r\n\r\n" }, accepted},
	} {
		m := good()
		test.mutate(m)
		if m.rest == "" {
			m.rest = m.body
		}
		got, body := exchange(t, address, m.raw(m.rest))
		if got != test.want {
			t.Errorf("%s: got %s %s, want %s", test.name, got, body, test.want)
		}
		if test.want == accepted && body != unchanged {
			t.Errorf("%s: the request does something else: %s", test.name, body)
		}
	}
}

func (m *mutant) signature() string {
	_, signature, _ := strings.Cut(m.get("Authorization"), "Signature=")
	return signature
}

// chunk sends the body as one chunk, with trailers.
func (m *mutant) chunk(trailers string) {
	m.add("Transfer-Encoding", "chunked")
	m.rest = fmt.Sprintf("%x\r\n%s\r\n0\r\n%s\r\n", len(m.body), m.body, trailers)
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

// TestRandomMutations changes a byte anywhere. What is still accepted does what
// it did: the byte was one that no decision rests on.
func TestRandomMutations(t *testing.T) {
	random := rand.New(rand.NewPCG(4, 2026))
	mux := newTestMux(Config{Now: func() time.Time { return signedAt }})
	good := signedMessage(t, "PUT", "/v20190125/meshes/m%2Fx/virtualNodes?meshOwner=111111111111", nodeBody)
	good.add("X-Unsigned", strings.Repeat("u", 40))
	unchanged := good.send(t, mux).body
	text := good.raw(nodeBody)
	const special = " \t\x00a/%&=;,:?\r\n\xff"
	accepted, refused, unparsed := 0, 0, 0
	for range 20_000 {
		changed := slices.Clone(text)
		at := random.IntN(len(changed))
		switch random.IntN(3) {
		case 0:
			changed[at] = byte(random.IntN(256))
		case 1:
			changed = slices.Delete(changed, at, at+1)
		default:
			changed = slices.Insert(changed, at, special[random.IntN(len(special))])
		}
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(changed)))
		if err != nil {
			unparsed++
			continue
		}
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r.WithContext(t.Context()))
		if w.Code != http.StatusOK {
			refused++
			continue
		}
		accepted++
		if got := w.Body.String(); got != unchanged {
			t.Fatalf("a changed request does something else: %s\n%q", got, changed)
		}
	}
	t.Logf("%d accepted, %d refused, %d no HTTP", accepted, refused, unparsed)
	if refused < 10_000 || accepted > 4000 {
		t.Errorf("%d accepted, %d refused, %d no HTTP", accepted, refused, unparsed)
	}
}
