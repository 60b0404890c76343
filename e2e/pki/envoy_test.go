package pki

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/acmpca"
	"github.com/aws/aws-sdk-go-v2/service/acmpca/types"

	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/meshtest"
)

const served = "web.example.com"

// issuedFiles is a certificate with its key and root, in files.
type issuedFiles struct{ certificate, key, root string }

// TestEnvoyTakesEveryAlgorithm: for each kind of key a real Envoy serves a
// certificate that Private CA has issued, to Go which verifies it, and verifies
// one itself, that Go serves, by TLS 1.3: under 1.2, its preset as a client, it
// refuses keys on curves that it does not offer, P-384 among them. P-521 it
// refuses under both. With the root of another it refuses all.
func TestEnvoyTakesEveryAlgorithm(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	c := client(t, s)
	dir := must[string](t)(os.MkdirTemp("", "pki")) // sockets have short paths
	t.Cleanup(func() { os.RemoveAll(dir) })
	var all []issuedFiles
	for i, kind := range []struct {
		key     types.KeyAlgorithm
		signing types.SigningAlgorithm
	}{
		{types.KeyAlgorithmRsa2048, types.SigningAlgorithmSha256withrsa},
		{types.KeyAlgorithmRsa3072, types.SigningAlgorithmSha384withrsa},
		{types.KeyAlgorithmRsa4096, types.SigningAlgorithmSha512withrsa},
		{types.KeyAlgorithmEcPrime256v1, types.SigningAlgorithmSha256withecdsa},
		{types.KeyAlgorithmEcSecp384r1, types.SigningAlgorithmSha384withecdsa},
		{types.KeyAlgorithmEcSecp521r1, types.SigningAlgorithmSha512withecdsa},
	} {
		all = append(all, issueFor(t, c, filepath.Join(dir, fmt.Sprint(i)), kind.key, kind.signing))
	}
	for i, f := range all {
		serveTLS(t, filepath.Join(dir, fmt.Sprint("up", i)), f)
	}
	startEnvoy(t, dir, all)
	for i, f := range all {
		other := all[(i+1)%len(all)]
		want := http.StatusOK
		if strings.Contains(f.key, string(types.KeyAlgorithmEcSecp521r1)) {
			want = http.StatusServiceUnavailable
		}
		if status, err := get(t, filepath.Join(dir, fmt.Sprint("in", i)), f.root, "/trusted"); err != nil || status != want {
			t.Errorf("%s: %d %v", f.key, status, err)
		}
		if status, err := get(t, filepath.Join(dir, fmt.Sprint("in", i)), f.root, "/distrusted"); err != nil || status != http.StatusServiceUnavailable {
			t.Errorf("%s under another root: %d %v, want Envoy to refuse it", f.key, status, err)
		}
		if _, err := get(t, filepath.Join(dir, fmt.Sprint("in", i)), other.root, "/trusted"); err == nil {
			t.Errorf("%s: Go takes it under another root", f.key)
		}
	}
}

// issueFor makes a root and a certificate of it, both with keys of one kind.
func issueFor(t *testing.T, c *acmpca.Client, path string, algorithm types.KeyAlgorithm, signing types.SigningAlgorithm) issuedFiles {
	t.Helper()
	root := authorityWith(t, c, algorithm, signing)
	key := must[ca.PrivateKey](t)(ca.GenerateKey(ca.KeyAlgorithm(algorithm)))
	csr := must[[]byte](t)(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: served}, DNSNames: []string{served}}, key.Signer()))
	issued := must[*acmpca.IssueCertificateOutput](t)(c.IssueCertificate(t.Context(), &acmpca.IssueCertificateInput{
		CertificateAuthorityArn: root, Csr: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}), SigningAlgorithm: signing,
		Validity: &types.Validity{Type: types.ValidityPeriodTypeDays, Value: aws.Int64(3)},
	}))
	got := must[*acmpca.GetCertificateOutput](t)(c.GetCertificate(t.Context(), &acmpca.GetCertificateInput{CertificateAuthorityArn: root, CertificateArn: issued.CertificateArn}))
	f := issuedFiles{path + "-" + string(algorithm) + ".pem", path + "-" + string(algorithm) + "-key.pem", path + "-" + string(algorithm) + "-root.pem"}
	for name, text := range map[string][]byte{
		f.certificate: []byte(*got.Certificate), f.root: []byte(*got.CertificateChain),
		f.key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must[[]byte](t)(key.PKCS8())}),
	} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// serveTLS answers 200 on a socket, with a certificate.
func serveTLS(t *testing.T, socket string, f issuedFiles) {
	t.Helper()
	listener := must[net.Listener](t)(new(net.ListenConfig).Listen(t.Context(), "unix", socket))
	server := &http.Server{ErrorLog: log.New(io.Discard, "", 0), // that Envoy refuses is what is wanted
		Handler:   http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{must[tls.Certificate](t)(tls.LoadX509KeyPair(f.certificate, f.key))}}}
	go server.ServeTLS(listener, "", "") //nolint:errcheck // it ends when it is closed
	t.Cleanup(func() { server.Close() })
}

// get asks Envoy on a socket, by TLS, for a path.
func get(t *testing.T, socket, root, path string) (status int, err error) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(must[[]byte](t)(os.ReadFile(root)))
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
		TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: served},
	}
	defer transport.CloseIdleConnections()
	r := must[*http.Request](t)(http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+served+path, nil))
	response, err := transport.RoundTrip(r)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, err
}

type object = map[string]any

// startEnvoy serves each certificate on in<i> and goes on to up<i>, which it
// verifies against its own root, or against the next one's.
func startEnvoy(t *testing.T, dir string, all []issuedFiles) {
	t.Helper()
	var listeners, clusters []object
	for i, f := range all {
		trusted, distrusted := fmt.Sprint("trusted", i), fmt.Sprint("distrusted", i)
		clusters = append(clusters, cluster(trusted, filepath.Join(dir, fmt.Sprint("up", i)), f.root), cluster(distrusted, filepath.Join(dir, fmt.Sprint("up", i)), all[(i+1)%len(all)].root))
		listeners = append(listeners, object{"name": trusted, "address": pipe(filepath.Join(dir, fmt.Sprint("in", i))), "filter_chains": []object{{
			"transport_socket": object{"name": "tls", "typed_config": object{"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
				"common_tls_context": object{"tls_certificates": []object{{"certificate_chain": object{"filename": f.certificate}, "private_key": object{"filename": f.key}}}}}},
			"filters": []object{{"name": "http", "typed_config": object{"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "in",
				"http_filters": []object{{"name": "router", "typed_config": object{"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}},
				"route_config": object{"virtual_hosts": []object{{"name": "all", "domains": []string{"*"}, "routes": []object{
					{"match": object{"prefix": "/trusted"}, "route": object{"cluster": trusted}}, {"match": object{"prefix": "/distrusted"}, "route": object{"cluster": distrusted}}}}}}}}},
		}}})
	}
	file := filepath.Join(dir, "envoy.json")
	text := must[[]byte](t)(json.Marshal(object{"static_resources": object{"listeners": listeners, "clusters": clusters}}))
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	process := meshtest.Start(t, "envoy", exec.Command(meshtest.Envoy(t), "-c", file, "--concurrency", "1", "--disable-hot-restart", "-l", "warning"), func(string) {})
	meshtest.Eventually(t, issuedWithin, func(ctx context.Context) error {
		if !process.Running() {
			t.Fatalf("Envoy ended:\n%s", process.Log())
		}
		c, err := new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, fmt.Sprint("in", len(all)-1)))
		if err != nil {
			return err
		}
		return c.Close()
	})
}

func pipe(path string) object { return object{"pipe": object{"path": path}} }

func cluster(name, socket, root string) object {
	return object{"name": name, "connect_timeout": "5s",
		"load_assignment": object{"cluster_name": name, "endpoints": []object{{"lb_endpoints": []object{{"endpoint": object{"address": pipe(socket)}}}}}},
		"transport_socket": object{"name": "tls", "typed_config": object{"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", "sni": served,
			"common_tls_context": object{"tls_params": object{"tls_maximum_protocol_version": "TLSv1_3"}, "validation_context": object{"trusted_ca": object{"filename": root},
				"match_typed_subject_alt_names": []object{{"san_type": "DNS", "matcher": object{"exact": served}}}}}}}}
}
