package main

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fairlead/fairlead/internal/ca"
)

// The server's own certificate is good for this host by the authority in the
// data directory, which stays when the server starts again.
func TestOwnCertificate(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	clock := func() time.Time { return now }
	first, err := newOwnCertificate(dir, hostNames("127.0.0.9:1", "mesh.example.com:2"), clock)
	if err != nil {
		t.Fatal(err)
	}
	again, err := newOwnCertificate(dir, hostNames(), clock)
	if err != nil {
		t.Fatal(err)
	}
	if !first.authority.Certificate.Equal(again.authority.Certificate) {
		t.Error("the second start has made another authority")
	}
	info, err := os.Stat(filepath.Join(dir, "server-ca.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v", info.Mode(), err)
	}
	roots, err := readPool(filepath.Join(dir, "server-ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := first.get()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"localhost", "127.0.0.1", "::1", "127.0.0.9", "mesh.example.com"} {
		if _, err := leaf.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: now}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if same, _ := first.get(); same != leaf {
		t.Error("a second handshake got another certificate")
	}
	now = now.Add(serverLeafLife * 3 / 4)
	renewed, err := first.get()
	if err != nil {
		t.Fatal(err)
	}
	if left := renewed.Leaf.NotAfter.Sub(now); left < serverLeafLife-time.Hour {
		t.Errorf("three quarters through its life the certificate has %s left", left)
	}
}

// Certificate files are read again when they change; a change that cannot be
// read keeps the last good one.
func TestCertificateFilesChange(t *testing.T) {
	dir := t.TempDir()
	authority, err := ca.NewRoot("test", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	c := &serverConfig{TLSCert: filepath.Join(dir, "c.pem"), TLSKey: filepath.Join(dir, "k.pem")}
	write := func(name string) {
		leaf, err := authority.Issue(ca.Names{DNS: []string{name}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}}, time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		for file, content := range map[string][]byte{c.TLSCert: leaf.Chain, c.TLSKey: leaf.Key} {
			if err := writeFile(file, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	write("first.example.com")
	server, err := newServerTLS(c, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	address := serveTLS(t, server)
	roots := x509.NewCertPool()
	roots.AddCert(authority.Certificate)
	presented := func() string {
		conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: roots})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].DNSNames[0]
	}
	for _, step := range []struct {
		name string
		do   func()
		want string
	}{
		{"at the start", func() {}, "first.example.com"},
		{"replaced", func() { write("second.example.com") }, "second.example.com"},
		{"spoilt", func() { writeFile(c.TLSCert, []byte("x"), 0o600) }, "second.example.com"}, //nolint:errcheck // or the next check fails
		{"gone", func() { os.Remove(c.TLSCert) }, "second.example.com"},                       //nolint:errcheck // or the next check fails
		{"replaced again", func() { write("third.example.com") }, "third.example.com"},
	} {
		step.do()
		if got := presented(); got != step.want {
			t.Errorf("%s: the server presents %s, want %s", step.name, got, step.want)
		}
	}
}

// With --tls-client-ca a client needs a certificate of that authority.
func TestClientAuthority(t *testing.T) {
	dir := t.TempDir()
	authority, err := ca.NewRoot("clients", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	c := &serverConfig{DataDir: dir, TLSClientCA: filepath.Join(dir, "clients.pem")}
	if err := writeFile(c.TLSClientCA, authority.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	server, err := newServerTLS(c, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	address := serveTLS(t, server)
	roots, err := readPool(filepath.Join(dir, "server-ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	get := func(certificates ...tls.Certificate) error {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: certificates}, DisableKeepAlives: true}}
		response, err := client.Get("https://" + address)
		if err == nil {
			response.Body.Close()
		}
		return err
	}
	issue := func(from *ca.Authority) tls.Certificate {
		leaf, err := from.Issue(ca.Names{DNS: []string{"client"}}, time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(leaf.Chain, leaf.Key)
		if err != nil {
			t.Fatal(err)
		}
		return pair
	}
	other, err := ca.NewRoot("others", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := get(issue(authority)); err != nil {
		t.Errorf("client of the authority: %v", err)
	}
	if err := get(issue(other)); err == nil {
		t.Error("a client of another authority was let in")
	}
	if err := get(); err == nil {
		t.Error("a client without a certificate was let in")
	}
	if err := writeFile(c.TLSClientCA, other.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := get(issue(authority)); err == nil {
		t.Error("a client of the authority that was replaced was let in")
	}
	if err := get(issue(other)); err != nil {
		t.Errorf("client of the new authority: %v", err)
	}
}

func TestHostCheck(t *testing.T) {
	ok := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	loopback := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}
	public := &net.TCPAddr{IP: net.IPv4zero, Port: 1}
	for _, c := range []struct {
		on   net.Addr
		host string
		want bool
	}{
		{loopback, "127.0.0.1:9480", true},
		{loopback, "localhost:9480", true},
		{loopback, "[::1]:9480", true},
		{loopback, "appmesh.us-east-1.amazonaws.com", true},
		{loopback, "evil.example.com:9480", false},
		{loopback, "localhost.evil.example.com", false},
		{loopback, "127.0.0.1.evil.example.com", false},
		{public, "mesh.example.com", true},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = c.host
		w := httptest.NewRecorder()
		checkHost(ok, c.on).ServeHTTP(w, r)
		if got := w.Code == http.StatusNoContent; got != c.want {
			t.Errorf("%s on %s: served is %t, want %t", c.host, c.on, got, c.want)
		}
	}
}

// serveTLS serves HTTP with the server's TLS configuration.
func serveTLS(t *testing.T, s *serverTLS) (address string) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", s.config("http/1.1"))
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Server{Handler: http.NotFoundHandler(), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)}
	go web.Serve(l) //nolint:errcheck // it ends with Close
	t.Cleanup(func() { web.Close() })
	return l.Addr().String()
}
