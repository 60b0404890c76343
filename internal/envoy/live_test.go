package envoy

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/fairlead/fairlead/internal/mesh"
)

// startEnvoy runs a real Envoy with a config as its static bootstrap, and
// returns when it accepts connections at address.
func startEnvoy(t *testing.T, config []byte, address string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "envoy.pb")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var output strings.Builder
	command := exec.CommandContext(ctx, envoyBinary(t), "-c", file, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warn")
	command.Stdout, command.Stderr = &output, &output
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = command.Wait() // it was killed
		if t.Failed() {
			t.Logf("envoy:\n%s", output.String())
		}
	})
	deadline := time.After(envoyTimeout)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return
		}
		select {
		case <-deadline:
			t.Fatalf("envoy does not listen: %v", err)
		case <-tick.C:
		}
	}
}

// freePort is a port that was free at an address.
func freePort(t *testing.T, address string) int {
	t.Helper()
	l, err := net.Listen("tcp", address+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// serve answers requests at a listener until the test ends.
func serve(t *testing.T, l net.Listener, handler http.HandlerFunc) {
	t.Helper()
	server := &http.Server{Handler: handler, ErrorLog: log.New(io.Discard, "", 0)}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
}

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address+":0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func portOf(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

// get asks for a path and returns the status and, of a 200, the body.
func get(t *testing.T, url, host string, header http.Header) string {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Host = host
	for k, v := range header {
		request.Header[k] = v
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Sprint(response.StatusCode)
	}
	return string(body)
}

// gatewaySpec wants the ports of the gateway and of two servers.
const gatewaySpec = `
-- virtualGateway/g.yaml --
listeners: [{portMapping: {port: %d, protocol: http}}]
-- virtualNode/blue.yaml --
listeners: [{portMapping: {port: %d, protocol: http}}]
serviceDiscovery: {dns: {hostname: 127.0.0.1}}
-- virtualNode/green.yaml --
listeners: [{portMapping: {port: %d, protocol: http}}]
serviceDiscovery: {dns: {hostname: 127.0.0.1}}
-- virtualService/blue.local.yaml --
provider: {virtualNode: {virtualNodeName: blue}}
-- virtualService/green.local.yaml --
provider: {virtualNode: {virtualNodeName: green}}
-- virtualGateway/g/gatewayRoute/blue.yaml --
httpRoute:
  match: {prefix: /blue}
  action: {target: {virtualService: {virtualServiceName: blue.local}}}
-- virtualGateway/g/gatewayRoute/green.yaml --
httpRoute:
  match: {prefix: /green}
  action:
    target: {virtualService: {virtualServiceName: green.local}}
    rewrite: {hostname: {defaultTargetHostname: DISABLED}, prefix: {defaultPrefix: DISABLED}}
-- virtualGateway/g/gatewayRoute/regex.yaml --
httpRoute:
  match: {path: {regex: "/v[0-9]+/.*"}}
  action:
    target: {virtualService: {virtualServiceName: blue.local}}
    rewrite: {path: {exact: /new}}
-- virtualGateway/g/gatewayRoute/host.yaml --
httpRoute:
  match: {hostname: {suffix: example.com}, prefix: /only/}
  action: {target: {virtualService: {virtualServiceName: blue.local}}}
`

// TestLiveGateway sends requests through a gateway's real Envoy and looks at
// what its servers see.
func TestLiveGateway(t *testing.T) {
	const bind = "127.97.13.7"
	blue, green := listen(t, "127.0.0.1"), listen(t, "127.0.0.1")
	for name, l := range map[string]net.Listener{"blue": blue, "green": green} {
		serve(t, l, func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s %s%s%s", name, r.Host, r.URL.Path, r.Header.Get(serviceHeader))
		})
	}
	edge := freePort(t, bind)
	spec := fmt.Sprintf(gatewaySpec, edge, portOf(blue), portOf(green))
	graph := mesh.Build(readMesh(t, txtar.Parse([]byte(spec))))
	config, problems, err := NewBuilder().Build(graph, mesh.ID{Kind: mesh.KindVirtualGateway, Name: "g"}, Shape{Bind: bind})
	if err != nil || len(problems) > 0 {
		t.Fatal(problems, err)
	}
	at := net.JoinHostPort(bind, strconv.Itoa(edge))
	startEnvoy(t, static(t, config), at)

	spoof := http.Header{"X-App-Mesh-Virtual-Service": {"green.local"}}
	tests := []struct {
		name, path, host string
		header           http.Header
		want             string
	}{
		{"prefix becomes /", "/blue/x/y", "outside", nil, "blue blue.local/x/y"},
		{"the bare prefix too", "/blue", "outside", nil, "blue blue.local/"},
		{"slashes are merged first", "//blue//x", "outside", nil, "blue blue.local/x"},
		{"host and prefix stay, the header is gone", "/green/x", "outside", nil, "green outside/green/x"},
		{"a host that is another service does not mislead", "/green/x", "blue.local", nil, "green blue.local/green/x"},
		{"a header from outside does not mislead", "/blue/x", "outside", spoof, "blue blue.local/x"},
		{"nor does it reach the server", "/green/x", "outside", spoof, "green outside/green/x"},
		{"the whole path of a regex", "/v2/anything", "outside", nil, "blue blue.local/new"},
		{"a suffix of the host", "/only/x", "www.EXAMPLE.com", nil, "blue blue.local/x"},
		{"the suffix itself, with a port", "/only/x", "example.com:8080", nil, "blue blue.local/x"},
		{"routes for all hosts there", "/blue/x", "www.example.com", nil, "blue blue.local/x"},
		{"but not elsewhere", "/only/x", "example.org", nil, "404"},
		{"nothing matches", "/", "outside", nil, "404"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := get(t, "http://"+at+tt.path, tt.host, tt.header); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// issuer signs certificates for a test.
type issuer struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
}

func newIssuer(t *testing.T) *issuer {
	i := &issuer{t: t, dir: t.TempDir()}
	i.cert, i.key = i.sign(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, "ca")
	return i
}

// sign makes NAME.pem and NAME.key in the issuer's folder.
func (i *issuer) sign(template *x509.Certificate, name string) (*x509.Certificate, *ecdsa.PrivateKey) {
	i.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		i.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.Subject.CommonName = name
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	parent, signer := i.cert, i.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(crand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		i.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		i.t.Fatal(err)
	}
	encoded, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		i.t.Fatal(err)
	}
	for suffix, block := range map[string]*pem.Block{".pem": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "EC PRIVATE KEY", Bytes: encoded}} {
		if err := os.WriteFile(i.path(name+suffix), pem.EncodeToMemory(block), 0o600); err != nil {
			i.t.Fatal(err)
		}
	}
	return cert, key
}

func (i *issuer) path(name string) string { return filepath.Join(i.dir, name) }

// TestLiveSANs connects a client's real Envoy to servers whose certificates
// have one SAN each: the policy lists a.apps.local.
func TestLiveSANs(t *testing.T) {
	const bind = "127.97.13.8"
	ca := newIssuer(t)
	ca.sign(&x509.Certificate{DNSNames: []string{"client.apps.local"}, KeyUsage: x509.KeyUsageDigitalSignature}, "client")
	clients := x509.NewCertPool()
	clients.AddCert(ca.cert)
	tests := []struct{ service, san, want string }{
		{"exact", "a.apps.local", "hello client"},
		{"case", "A.APPS.Local", "hello client"},
		{"wildcard", "*.apps.local", "hello client"},
		{"partial-wildcard", "a*.apps.local", "503"},
		{"other", "b.apps.local", "503"},
		{"deeper", "x.a.apps.local", "503"},
		{"parent", "apps.local", "503"},
	}
	spec := "-- virtualNode/client.yaml --\nbackends:\n"
	for _, tt := range tests {
		spec += fmt.Sprintf(`- virtualService:
    virtualServiceName: %s
    clientPolicy:
      tls:
        certificate: {file: {certificateChain: %s, privateKey: %s}}
        validation:
          trust: {file: {certificateChain: %s}}
          subjectAlternativeNames: {match: {exact: [a.apps.local]}}
`, tt.service, ca.path("client.pem"), ca.path("client.key"), ca.path("ca.pem"))
	}
	for _, tt := range tests {
		cert, key := ca.sign(&x509.Certificate{DNSNames: []string{tt.san}, KeyUsage: x509.KeyUsageDigitalSignature}, tt.service)
		l := listen(t, "127.0.0.1")
		serve(t, tls.NewListener(l, &tls.Config{
			Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}},
			ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: clients,
		}), func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "hello ", r.TLS.PeerCertificates[0].Subject.CommonName)
		})
		spec += fmt.Sprintf(`
-- virtualNode/%[1]s.yaml --
listeners:
- portMapping: {port: %[2]d, protocol: http}
  tls: {mode: STRICT, certificate: {file: {certificateChain: /c, privateKey: /k}}}
serviceDiscovery: {dns: {hostname: 127.0.0.1}}
-- virtualService/%[1]s.yaml --
provider: {virtualNode: {virtualNodeName: %[1]s}}
`, tt.service, portOf(l))
	}
	graph := mesh.Build(readMesh(t, txtar.Parse([]byte(spec))))
	config, _, err := NewBuilder().Build(graph, mesh.ID{Kind: mesh.KindVirtualNode, Name: "client"}, Shape{Bind: bind})
	if err != nil {
		t.Fatal(err)
	}
	startEnvoy(t, bootstrap(t, config, nil), bind+":15001")
	for _, tt := range tests {
		t.Run(tt.service, func(t *testing.T) {
			if got := get(t, "http://"+bind+":15001/", tt.service, nil); got != tt.want {
				t.Errorf("a server with SAN %s: %q, want %q", tt.san, got, tt.want)
			}
		})
	}
}

// TestLivePermissive dials a PERMISSIVE tcp listener in three ways: with TLS, in
// plaintext, and waiting for the server to speak first.
func TestLivePermissive(t *testing.T) {
	const bind = "127.97.13.9"
	ca := newIssuer(t)
	ca.sign(&x509.Certificate{DNSNames: []string{"db.local"}, KeyUsage: x509.KeyUsageDigitalSignature}, "db")
	application := listen(t, "127.0.0.1")
	t.Cleanup(func() { application.Close() })
	go func() {
		for {
			conn, err := application.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(conn, "220 ready")
			conn.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, conn) // or what was not read would reset the connection
			conn.Close()
		}
	}()
	port := freePort(t, bind)
	spec := fmt.Sprintf(`
-- virtualNode/db.yaml --
listeners:
- portMapping: {port: %d, protocol: tcp}
  tls: {mode: PERMISSIVE, certificate: {file: {certificateChain: %s, privateKey: %s}}}
serviceDiscovery: {dns: {hostname: db.local}}
`, port, ca.path("db.pem"), ca.path("db.key"))
	graph := mesh.Build(readMesh(t, txtar.Parse([]byte(spec))))
	config, _, err := NewBuilder().Build(graph, mesh.ID{Kind: mesh.KindVirtualNode, Name: "db"}, Shape{
		Bind: bind, AppPorts: fmt.Sprintf("%d=%d", port, portOf(application)),
	})
	if err != nil {
		t.Fatal(err)
	}
	at := net.JoinHostPort(bind, strconv.Itoa(port))
	startEnvoy(t, bootstrap(t, config, nil), at)
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)

	for name, greet := range map[string]func(net.Conn) net.Conn{
		"tls":                 func(c net.Conn) net.Conn { return tls.Client(c, &tls.Config{RootCAs: roots, ServerName: "db.local"}) },
		"plaintext":           func(c net.Conn) net.Conn { fmt.Fprintln(c, "EHLO me"); return c },
		"server speaks first": func(c net.Conn) net.Conn { return c },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", at)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(10 * time.Second))
			line, err := io.ReadAll(greet(conn))
			if string(line) != "220 ready\n" {
				t.Errorf("read %q, %v", line, err)
			}
		})
	}
}
