package meshtest

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/discovery"
)

// Network is a /24 of the loopback range with a DNS server: every proxy of a
// test gets an address of its own. No other test has the same.
type Network struct {
	DNS  *discovery.Server
	a, b byte
	next byte
}

// NewNetwork takes a free one. Its DNS server listens on host 2.
func NewNetwork(t testing.TB) *Network {
	t.Helper()
	for range 100 {
		var random [2]byte
		rand.Read(random[:]) // never fails
		n := &Network{a: 64 + random[0]%128, b: random[1], next: 10}
		dns, err := discovery.Start(n.address(2)+":0", nil)
		if err != nil {
			continue
		}
		// Whoever holds this socket has the network.
		claim, err := net.Listen("tcp", n.address(1)+":64999")
		if err != nil {
			dns.Close() //nolint:errcheck // another one is tried
			continue
		}
		n.DNS = dns
		t.Cleanup(func() {
			claim.Close() //nolint:errcheck // ends with the test
			dns.Close()   //nolint:errcheck // ends with the test
		})
		return n
	}
	t.Fatal("no free loopback network was found")
	return nil
}

func (n *Network) address(host byte) string { return fmt.Sprintf("127.%d.%d.%d", n.a, n.b, host) }

// Address is the next free address, and the name's in DNS if it is not empty.
func (n *Network) Address(t testing.TB, hostname string) string {
	t.Helper()
	address := n.address(n.next)
	n.next++
	if hostname != "" {
		if err := n.DNS.Set(hostname, address); err != nil {
			t.Fatalf("set %s in DNS: %v", hostname, err)
		}
	}
	return address
}

// App is an HTTP application. It answers every request with its name, and
// echoes what it got in headers: X-Echo-Path, X-Echo-Host, X-Echo-Method,
// X-Echo-Proto. The
// request header X-Status asks for another status than 200, X-Delay for a
// delay (10ms).
type App struct {
	Name string
	Port int
}

// StartApp serves on a free port of 127.0.0.1, HTTP/1.1 and cleartext HTTP/2.
func StartApp(t testing.TB, name string) *App {
	t.Helper()
	return StartAppAt(t, name, listenLocal(t, name))
}

// StartAppAt is StartApp on a listener that the test has made, in a network
// namespace perhaps.
func StartAppAt(t testing.TB, name string, listener net.Listener) *App {
	t.Helper()
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: echo(name), Protocols: &protocols}
	go server.Serve(listener)            //nolint:errcheck // it ends with Close
	t.Cleanup(func() { server.Close() }) //nolint:errcheck // ends with the test
	return &App{Name: name, Port: listener.Addr().(*net.TCPAddr).Port}
}

func echo(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if delay, err := time.ParseDuration(r.Header.Get("X-Delay")); err == nil {
			select {
			case <-time.After(delay):
			case <-r.Context().Done():
			}
		}
		h := w.Header()
		h.Set("X-Echo-Path", r.URL.RequestURI())
		h.Set("X-Echo-Host", r.Host)
		h.Set("X-Echo-Method", r.Method)
		h.Set("X-Echo-Proto", r.Proto)
		if status, err := strconv.Atoi(r.Header.Get("X-Status")); err == nil {
			w.WriteHeader(status)
		}
		fmt.Fprintln(w, name)
	})
}

// Authority issues certificates into files, as an operator would lay them on
// the hosts of proxies.
type Authority struct {
	*ca.Authority
	dir  string
	Root string // file with the authority's certificate
}

// Certificate is a leaf in files.
type Certificate struct{ Chain, Key string }

// NewAuthority makes an authority in a folder of its own.
func NewAuthority(t testing.TB, name string) *Authority {
	t.Helper()
	authority, err := ca.NewRoot(name, time.Now(), 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	a := &Authority{Authority: authority, dir: t.TempDir()}
	a.Root = a.write(t, "root.pem", authority.PEM())
	return a
}

// Issue makes a certificate for DNS names and URIs (those with "://").
func (a *Authority) Issue(t testing.TB, names ...string) Certificate {
	t.Helper()
	leaf, err := a.Authority.Issue(splitNames(names), time.Now(), 12*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	var random [4]byte
	rand.Read(random[:]) // never fails
	id := strconv.FormatUint(uint64(binary.BigEndian.Uint32(random[:])), 36)
	return Certificate{Chain: a.write(t, id+".pem", leaf.Chain), Key: a.write(t, id+".key", leaf.Key)}
}

func (a *Authority) write(t testing.TB, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func splitNames(names []string) ca.Names {
	var all ca.Names
	for _, name := range names {
		if strings.Contains(name, "://") {
			all.URIs = append(all.URIs, name)
		} else {
			all.DNS = append(all.DNS, name)
		}
	}
	return all
}
