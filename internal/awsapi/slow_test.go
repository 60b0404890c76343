package awsapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// serveTLS starts a server that speaks HTTP/2 too.
func serveTLS(t *testing.T, cfg Config) (address string, client *tls.Config) {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.Config = NewServer(newTestMux(cfg), nil)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), s.Client().Transport.(*http.Transport).TLSClientConfig
}

// slowRequest is the head of a request whose body is yet to come, signed in a
// way that only the key shows to be wrong.
func slowRequest(length int) (head string, fields []hpack.HeaderField) {
	date := time.Now().UTC().Format(timeFormat)
	authorization := algorithm + " Credential=" + rootCreds.AccessKeyID + "/" + date[:8] + "/" + testRegion + "/appmesh/aws4_request, SignedHeaders=content-type;host;x-amz-date, Signature=" + strings.Repeat("0", 64)
	head = fmt.Sprintf("PUT /v20190125/meshes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nX-Amz-Date: %s\r\nAuthorization: %s\r\nContent-Length: %d\r\n\r\n", date, authorization, length)
	fields = []hpack.HeaderField{{Name: ":method", Value: "PUT"}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: "localhost"}, {Name: ":path", Value: "/v20190125/meshes"},
		{Name: "content-type", Value: "application/json"}, {Name: "x-amz-date", Value: date}, {Name: "authorization", Value: authorization}, {Name: "content-length", Value: fmt.Sprint(length)}}
	return head, fields
}

func encodeFields(t *testing.T, fields []hpack.HeaderField) []byte {
	t.Helper()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, f := range fields {
		if err := encoder.WriteField(f); err != nil {
			t.Error(err)
		}
	}
	return block.Bytes()
}

func dialTCP(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// drip sends a byte now and then until the connection is closed.
func drip(conn net.Conn) {
	ticker := time.NewTicker(300 * time.Millisecond)
	defer ticker.Stop()
	for range ticker.C {
		if _, err := conn.Write([]byte("x")); err != nil {
			return
		}
	}
}

// TestSlowClientsAreCut: whoever stops, or hardly moves, anywhere on the way to a
// whole request is cut off within ten seconds, over HTTP/1.1 and HTTP/2.
func TestSlowClientsAreCut(t *testing.T) {
	t.Parallel()
	plain := strings.TrimPrefix(serveTest(t, Config{}).URL, "http://")
	secure, trust := serveTLS(t, Config{})
	dial := func(t *testing.T, protocols ...string) net.Conn {
		if protocols == nil {
			return dialTCP(t, plain)
		}
		config := trust.Clone()
		config.NextProtos = protocols
		conn, err := tls.Dial("tcp", secure, config)
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	write := func(t *testing.T, conn net.Conn, text string) net.Conn {
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	head, fields := slowRequest(1000)
	preface := func(t *testing.T) (net.Conn, *http2.Framer) {
		conn := write(t, dial(t, "h2"), http2.ClientPreface)
		framer := http2.NewFramer(conn, conn)
		if err := framer.WriteSettings(); err != nil {
			t.Fatal(err)
		}
		return conn, framer
	}
	var cut sync.WaitGroup
	for name, open := range map[string]func(*testing.T) net.Conn{
		"silence":                func(t *testing.T) net.Conn { return dial(t) },
		"half a header":          func(t *testing.T) net.Conn { return write(t, dial(t), head[:50]) },
		"a header that drips":    func(t *testing.T) net.Conn { c := write(t, dial(t), head[:50]); go drip(c); return c },
		"no body":                func(t *testing.T) net.Conn { return write(t, dial(t), head) },
		"half a body":            func(t *testing.T) net.Conn { return write(t, dial(t), head+strings.Repeat("x", 500)) },
		"a body that drips":      func(t *testing.T) net.Conn { c := write(t, dial(t), head); go drip(c); return c },
		"TLS, silence":           func(t *testing.T) net.Conn { return dial(t, "http/1.1") },
		"TLS, a body that drips": func(t *testing.T) net.Conn { c := write(t, dial(t, "http/1.1"), head); go drip(c); return c },
		"half a handshake": func(t *testing.T) net.Conn {
			c, _ := net.Dial("tcp", secure)
			return write(t, c, "\x16\x03\x01\x02\x00\x01")
		},
		"HTTP/2, no preface":     func(t *testing.T) net.Conn { return dial(t, "h2") },
		"HTTP/2, half a preface": func(t *testing.T) net.Conn { return write(t, dial(t, "h2"), http2.ClientPreface[:10]) },
		"HTTP/2, no request":     func(t *testing.T) net.Conn { c, _ := preface(t); return c },
		"HTTP/2, half a header": func(t *testing.T) net.Conn {
			c, _ := preface(t)
			return write(t, c, "\x00\x01\x00\x01\x04\x00\x00\x00\x01xx")
		},
		"HTTP/2, headers without end": func(t *testing.T) net.Conn { c, f := preface(t); headers(t, f, fields, false); return c },
		"HTTP/2, half a body": func(t *testing.T) net.Conn {
			c, f := preface(t)
			headers(t, f, fields, true)
			if err := f.WriteData(1, false, make([]byte, 500)); err != nil {
				t.Fatal(err)
			}
			return c
		},
	} {
		conn, began := open(t), time.Now()
		cut.Go(func() {
			defer conn.Close()
			// Twice the bound: the machine may be busy.
			if err := conn.SetReadDeadline(began.Add(20 * time.Second)); err != nil {
				t.Error(err)
			}
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: the connection is still open after 20 s", name)
			}
			t.Logf("%s: cut after %s", name, time.Since(began).Round(10*time.Millisecond))
		})
	}
	cut.Wait()
}

// headers opens stream 1; end says whether the header is whole.
func headers(t *testing.T, f *http2.Framer, fields []hpack.HeaderField, end bool) {
	t.Helper()
	if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: encodeFields(t, fields), EndHeaders: end}); err != nil {
		t.Fatal(err)
	}
}

// TestSlowBodyOnALivingConnection: on HTTP/2 a body that does not come ends its
// own stream, though the connection lives.
func TestSlowBodyOnALivingConnection(t *testing.T) {
	t.Parallel()
	address, trust := serveTLS(t, Config{})
	config := trust.Clone()
	config.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", address, config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	f := http2.NewFramer(conn, conn)
	if err := f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	_, fields := slowRequest(1000)
	headers(t, f, fields, true)
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	status := ""
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatalf("after status %q: %v", status, err)
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				err = f.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !frame.IsAck() {
				err = f.WritePing(true, frame.Data)
			}
		case *http2.MetaHeadersFrame:
			status = frame.PseudoValue("status")
		case *http2.RSTStreamFrame:
			if status != "408" {
				t.Errorf("the stream ended with status %q", status)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestAuthorityIsTheHost: HTTP/2 has two places for the host of a request, and
// both must say the same.
func TestAuthorityIsTheHost(t *testing.T) {
	t.Parallel()
	address, trust := serveTLS(t, Config{Now: func() time.Time { return signedAt }})
	good := signedMessage(t, "GET", "/v20190125/meshes", "")
	for _, test := range []struct {
		name            string
		authority, host string // "-": not sent
		more            [][2]string
		want            string
	}{
		{"as signed", "127.0.0.1:9480", "-", nil, "200"},
		{"in Host alone", "-", "127.0.0.1:9480", nil, "200"},
		{"in both", "127.0.0.1:9480", "127.0.0.1:9480", nil, "200"},
		{"another authority", "evil.example", "-", nil, "403"},
		{"another authority beside the signed Host", "evil.example", "127.0.0.1:9480", nil, "400"},
		{"another Host beside the signed authority", "127.0.0.1:9480", "evil.example", nil, "400"},
		{"an announced trailer", "127.0.0.1:9480", "-", [][2]string{{"trailer", "x-amz-target"}}, "400"},
		{"a method override", "127.0.0.1:9480", "-", [][2]string{{"x-amz-method", "DELETE"}}, "403"},
	} {
		config := trust.Clone()
		config.NextProtos = []string{"h2"}
		conn, err := tls.Dial("tcp", address, config)
		if err != nil {
			t.Fatal(err)
		}
		fields := []hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "https"}, {Name: ":path", Value: good.target}}
		if test.authority != "-" {
			fields = append(fields, hpack.HeaderField{Name: ":authority", Value: test.authority})
		}
		if test.host != "-" {
			fields = append(fields, hpack.HeaderField{Name: "host", Value: test.host})
		}
		for _, h := range good.headers {
			if !strings.EqualFold(h[0], "host") {
				fields = append(fields, hpack.HeaderField{Name: strings.ToLower(h[0]), Value: h[1]})
			}
		}
		for _, h := range test.more {
			fields = append(fields, hpack.HeaderField{Name: h[0], Value: h[1]})
		}
		if got := oneStream(t, conn, fields); got != test.want {
			t.Errorf("%s: status %s, want %s", test.name, got, test.want)
		}
		conn.Close()
	}
}

// oneStream sends a request without a body and returns the answer's status.
func oneStream(t *testing.T, conn net.Conn, fields []hpack.HeaderField) string {
	t.Helper()
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	f := http2.NewFramer(conn, conn)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := errors.Join(conn.SetDeadline(time.Now().Add(20*time.Second)), f.WriteSettings(),
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: encodeFields(t, fields), EndHeaders: true, EndStream: true})); err != nil {
		t.Fatal(err)
	}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			return frame.PseudoValue("status")
		case *http2.RSTStreamFrame:
			return "reset: " + frame.ErrCode.String()
		}
	}
}

// TestSlowOperationIsNotASlowClient: the time that a client has for its request
// ends with the request; the operation has its own.
func TestSlowOperationIsNotASlowClient(t *testing.T) {
	t.Parallel()
	const short = 200 * time.Millisecond
	mux := newTestMux(Config{})
	mux.HandleOperator(http.MethodPost, "/fairlead/v1/slow", "Slow", func(ctx context.Context, _ *Request) (any, error) {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(4 * short):
			return widget{Name: "done"}, nil
		}
	})
	for _, http2 := range []bool{false, true} {
		s := httptest.NewUnstartedServer(nil)
		s.Config = NewServer(mux, nil)
		s.Config.ReadTimeout, s.Config.ReadHeaderTimeout = short, short
		s.EnableHTTP2 = http2
		s.StartTLS()
		t.Cleanup(s.Close)
		for range 2 { // on one connection
			body := []byte("{}")
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/fairlead/v1/slow", bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/json")
			if err := v4.NewSigner().SignHTTP(t.Context(), rootCreds, r, hashOf(body), OperatorService, testRegion, time.Now()); err != nil {
				t.Fatal(err)
			}
			answer, err := s.Client().Do(r)
			if err != nil {
				t.Fatalf("HTTP/2 %v: %v", http2, err)
			}
			content, err := io.ReadAll(answer.Body)
			answer.Body.Close()
			if err != nil || answer.StatusCode != http.StatusOK {
				t.Errorf("HTTP/2 %v: %d %s %v", http2, answer.StatusCode, content, err)
			}
		}
	}
}

// TestDeafReaderIsCut: a client that asks and does not take its answer holds
// nothing for long.
func TestDeafReaderIsCut(t *testing.T) {
	t.Parallel()
	mux := newTestMux(Config{Now: func() time.Time { return signedAt }})
	mux.HandleOperator(http.MethodGet, "/fairlead/v1/large", "GetLarge", func(context.Context, *Request) (any, error) {
		return widget{Name: strings.Repeat("x", 32<<20)}, nil
	})
	done := make(chan struct{})
	s := httptest.NewUnstartedServer(nil)
	s.Config = NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mux.ServeHTTP(w, r)
		close(done)
	}), nil)
	s.Start()
	t.Cleanup(s.Close)
	conn := dialTCP(t, s.Listener.Addr().String())
	defer conn.Close()
	if _, err := conn.Write(signedMessage(t, "GET", "/fairlead/v1/large", "").raw("")); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	select {
	case <-done:
		t.Logf("cut after %s", time.Since(began))
	case <-time.After(20 * time.Second):
		t.Error("the server still writes after 20 s")
	}
}
