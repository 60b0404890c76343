package hostile

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/internal/meshtest"
)

// TestHalfOpenXDS: connections that stop at every step of the way to a stream
// are closed by the server, and a good proxy does not wait for them.
func TestHalfOpenXDS(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{})
	v.healthy(t, 10*time.Second)
	before := files(t, v.PID())

	const each = 300
	var all []net.Conn
	v.bounded(t, 100, func() {
		all = append(all, connect(t, v.XDS, each)...) // no ClientHello
		hello := clientHello(t)
		for i, conn := range connect(t, v.XDS, each) { // the half of one, and a whole one
			if _, err := conn.Write(hello[:len(hello)/(1+i%2)]); err != nil {
				t.Fatal(err)
			}
			all = append(all, conn)
		}
		for range 50 { // handshake, then silence
			conn := handshake(t, v)
			all = append(all, conn)
		}
		for _, conn := range connect(t, v.XDS, 20) { // plaintext
			if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: "+v.XDS+"\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			all = append(all, conn)
		}
		v.healthy(t, 10*time.Second)
	})
	closedWithin(t, all, 20*time.Second)
	meshtest.Eventually(t, 10*time.Second, func(context.Context) error {
		if now := files(t, v.PID()); now > before+20 {
			return fmt.Errorf("the server has %d files open, it had %d", now, before)
		}
		return nil
	})
	v.noPanic(t)
}

// http2Preface opens a connection: the preface and a SETTINGS frame.
const http2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// TestConnectionWithoutStream: a whole HTTP/2 connection that opens no stream is
// closed as well, if later.
func TestConnectionWithoutStream(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{})
	var all []net.Conn
	for range 50 {
		conn := handshake(t, v)
		if _, err := io.WriteString(conn, http2Preface); err != nil {
			t.Fatal(err)
		}
		all = append(all, conn)
	}
	v.healthy(t, 10*time.Second)
	closedWithin(t, all, 60*time.Second)
}

func handshake(t testing.TB, v *victim) net.Conn {
	t.Helper()
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	conn, err := tls.DialWithDialer(dialer, "tcp", v.XDS, &tls.Config{RootCAs: v.roots(t), NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() }) //nolint:errcheck // the server may have closed it
	return conn
}

// clientHello is what Go's client would send.
func clientHello(t testing.TB) []byte {
	t.Helper()
	client, server := net.Pipe()
	defer server.Close()
	go tls.Client(client, &tls.Config{ServerName: "localhost", NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12}).Handshake() //nolint:errcheck // it is cut off
	buffer := make([]byte, 16<<10)
	n, err := server.Read(buffer)
	if err != nil {
		t.Fatal(err)
	}
	client.Close() //nolint:errcheck // a pipe
	return bytes.Clone(buffer[:n])
}

// TestHalfOpenAPI: the same for the API and the operations address: silence,
// slow headers, slow bodies, pipelines.
func TestHalfOpenAPI(t *testing.T) {
	t.Parallel()
	v := newVictim(t, meshtest.ServerOptions{})
	api, ops := strings.TrimPrefix(v.API, "http://"), strings.TrimPrefix(v.Ops, "http://")
	for _, address := range []string{api, ops} {
		before := files(t, v.PID())
		var all []net.Conn
		v.bounded(t, 100, func() {
			all = append(all, connect(t, address, 300)...)
			for _, conn := range connect(t, address, 300) {
				if _, err := io.WriteString(conn, "GET /v20190125/meshes HTTP/1.1\r\nHost: localhost\r\nX-Slow: "); err != nil {
					t.Fatal(err)
				}
				all = append(all, conn)
			}
			for _, conn := range connect(t, address, 50) { // pipelined, never read
				if _, err := io.WriteString(conn, strings.Repeat("GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n", 200)); err != nil {
					t.Fatal(err)
				}
			}
			v.healthy(t, 10*time.Second)
		})
		closedWithin(t, all, 20*time.Second)
		if now := files(t, v.PID()); now > before+100 {
			t.Errorf("the server has %d files open, it had %d", now, before)
		}
	}
	v.noPanic(t)
}
