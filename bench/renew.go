package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/acmpca/types"
	"golang.org/x/sync/errgroup"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/bench/apiload"
	"github.com/fairlead/fairlead/bench/loadrun"
)

const (
	changeRenewal = "one certificate"
	changeFleet   = "a certificate each"
	// holders are the virtual nodes that share the certificate, beside the real
	// Envoy's; a tenth of the proxies are theirs.
	holders = 10
	// envoyAddress is where the real Envoy's listener is.
	envoyAddress = "127.0.0.77"
)

// renewals are what renewing certificates took.
type renewals struct {
	one       *loadrun.Report // plan.main proxies, a tenth of which have the certificate
	handshake []float64       // real Envoy: ms from the API's answer to the first handshake with the new one
	fleet     *loadrun.Report // plan.main proxies with a certificate each
	bare      *loadrun.Report // the same of a bare stream that signs with the standard library
}

// renewRun measures how soon renewed certificates are served.
func (r *results) renewRun(ctx context.Context, w workplace) error {
	for _, step := range []func(context.Context, workplace) error{r.renewOne, r.renewFleet, r.renewBare} {
		if err := step(ctx, w); err != nil {
			return err
		}
	}
	return nil
}

// renewOne renews one certificate again and again, while all proxies are
// connected and a real Envoy serves it.
func (r *results) renewOne(ctx context.Context, w workplace) error {
	f, err := startFairlead(ctx, w, narrow)
	if err != nil {
		return err
	}
	defer f.stop()
	nodes := []string{narrator}
	for i := 1; i <= holders; i++ {
		nodes = append(nodes, nodeName(i))
	}
	arn, err := f.certify(ctx, nodes)
	if err != nil {
		return err
	}
	stop, err := startNarrator(ctx, w, f)
	if err != nil {
		return err
	}
	defer stop()
	watch, err := f.watchRenewals(arn)
	if err != nil {
		return err
	}
	defer watch.server.Close()
	n := r.plan.main
	l := r.plan.load("renewals", n).at(f)
	l.rounds, l.pause, l.key = r.plan.renewals, r.plan.pause/4, aws.Credentials{}
	mine, err := f.identities(ctx, n/10, nodes[1:])
	if err != nil {
		return err
	}
	rest, err := f.identities(ctx, n-n/10, allNodes()[holders+1:])
	if err != nil {
		return err
	}
	l.identities = append(mine, rest...)
	l.changes = []loadrun.Change{{Name: changeRenewal, Types: "sds", Expect: n / 10, Request: loadrun.Request{Method: http.MethodPost, URL: watch.url}}}
	r.renewals.one, err = l.run(ctx, w)
	watch.all.Wait()
	r.renewals.handshake = watch.took
	slices.Sort(watch.took)
	return errors.Join(err, watch.err)
}

// certify has one certificate issued for virtual nodes, and makes their
// listeners serve it and nothing else.
func (f *fairlead) certify(ctx context.Context, nodes []string) (arn string, err error) {
	authority, err := f.makeAuthority(ctx, types.KeyAlgorithmEcPrime256v1, types.SigningAlgorithmSha256withecdsa)
	if err != nil {
		return "", err
	}
	c, err := f.dial("acm")
	if err != nil {
		return "", err
	}
	defer c.Close()
	var names []string
	for _, node := range nodes {
		names = append(names, node+".bench.local")
	}
	if arn, err = requestCertificate(c, authority, names); err != nil {
		return "", err
	}
	if err := allIssued(ctx, c, 1); err != nil {
		return "", err
	}
	for i, node := range nodes {
		spec := nodeSpec(names[i], narrow.backendsOf(i))
		if node == narrator {
			spec = nodeSpec(names[i], []string{cloud + ".bench.local"})
		}
		strict(spec, arn)
		if err := f.do(ctx, http.MethodPut, meshPath("/virtualNodes/"+node), map[string]any{"spec": spec}, nil); err != nil {
			return "", err
		}
	}
	return arn, nil
}

func strict(spec *appmesh.VirtualNodeSpec, arn string) {
	spec.Listeners[0].TLS = &appmesh.ListenerTls{Mode: "STRICT", Certificate: &appmesh.ListenerTlsCertificate{
		ACM: &appmesh.ListenerTlsAcmCertificate{CertificateArn: arn}}}
}

// requestCertificate has keys on P-256: for RSA, the server's reserve of keys
// would be measured.
func requestCertificate(c *apiload.Client, authority string, names []string) (arn string, err error) {
	body, err := json.Marshal(map[string]any{"DomainName": names[0], "SubjectAlternativeNames": names, "CertificateAuthorityArn": authority, "KeyAlgorithm": "EC_prime256v1"})
	if err != nil {
		return "", err
	}
	answer, err := c.Do(apiload.Request{Method: http.MethodPost, Path: "/", Target: "CertificateManager.RequestCertificate", Body: body})
	if err != nil {
		return "", err
	}
	var out struct{ CertificateArn string }
	err = json.Unmarshal(answer, &out)
	return out.CertificateArn, err
}

// allIssued waits until n certificates are.
func allIssued(ctx context.Context, c *apiload.Client, n int) error {
	return until(ctx, func() (bool, error) {
		answer, err := c.Do(apiload.Request{Method: http.MethodPost, Path: "/", Target: "CertificateManager.ListCertificates",
			Body: []byte(`{"CertificateStatuses":["ISSUED"],"MaxItems":1000,"Includes":{"keyTypes":["EC_prime256v1"]}}`)})
		return bytes.Count(answer, []byte(`"CertificateArn"`)) >= n, err
	})
}

func renewCertificate(c *apiload.Client, arn string) error {
	_, err := c.Do(apiload.Request{Method: http.MethodPost, Path: "/", Target: "CertificateManager.RenewCertificate", Body: fmt.Appendf(nil, `{"CertificateArn":%q}`, arn)})
	return err
}

// startNarrator starts the real Envoy.
func startNarrator(ctx context.Context, w workplace, f *fairlead) (stop func(), err error) {
	ids, err := f.identities(ctx, 1, []string{narrator})
	if err != nil {
		return nil, err
	}
	_, listener, stopRelay, err := startRelay(f, ids[0])
	if err != nil {
		return nil, err
	}
	envoy, err := startEnvoy(w, listener.Addr().(*net.TCPAddr).Port)
	if err != nil {
		stopRelay()
		return nil, err
	}
	return func() {
		_ = envoy.Process.Kill() // fails only if it has ended
		_ = envoy.Wait()         // it was killed
		stopRelay()
	}, nil
}

// trustOf is what a client needs to verify a certificate.
func trustOf(c *apiload.Client, arn string) (*tls.Config, error) {
	answer, err := c.Do(apiload.Request{Method: http.MethodPost, Path: "/", Target: "CertificateManager.GetCertificate", Body: fmt.Appendf(nil, `{"CertificateArn":%q}`, arn)})
	if err != nil {
		return nil, err
	}
	var out struct{ CertificateChain string }
	if err := json.Unmarshal(answer, &out); err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(out.CertificateChain))
	return &tls.Config{RootCAs: roots, ServerName: narrator + ".bench.local", MinVersion: tls.VersionTLS12}, nil
}

// servedSerial is the serial number of what the real Envoy presents on a new
// connection.
func servedSerial(ctx context.Context, trust *tls.Config) (string, error) {
	dialer := tls.Dialer{Config: trust}
	conn, err := dialer.DialContext(ctx, "tcp", fmt.Sprintf("%s:%d", envoyAddress, port))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.Text(16), nil
}

// renewalWatch renews when its URL is called, and looks how long it takes until
// the real Envoy serves what is new.
type renewalWatch struct {
	url    string
	server *http.Server
	trust  *tls.Config

	mu   sync.Mutex // held until it is served
	all  sync.WaitGroup
	took []float64
	err  error
}

func (f *fairlead) watchRenewals(arn string) (*renewalWatch, error) {
	c, err := f.dial("acm")
	if err != nil {
		return nil, err
	}
	trust, err := trustOf(c, arn)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	watch := &renewalWatch{url: "http://" + listener.Addr().String(), trust: trust}
	watch.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		watch.mu.Lock()
		before, err := watch.firstSerial(r.Context())
		if err == nil {
			err = renewCertificate(c, arn)
		}
		answered := time.Now()
		if err != nil {
			watch.mu.Unlock()
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		watch.all.Go(func() {
			defer watch.mu.Unlock()
			watch.served(before, answered)
		})
	})}
	go watch.server.Serve(listener) //nolint:errcheck // it is closed
	return watch, nil
}

// firstSerial waits for the real Envoy to come up.
func (watch *renewalWatch) firstSerial(ctx context.Context) (serial string, err error) {
	return serial, until(ctx, func() (bool, error) {
		var refused error
		serial, refused = servedSerial(ctx, watch.trust)
		return refused == nil, nil
	})
}

// served makes one connection after the other until one has another serial
// number than before.
func (watch *renewalWatch) served(before string, answered time.Time) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		serial, err := servedSerial(ctx, watch.trust)
		if err != nil {
			watch.err = fmt.Errorf("real Envoy, after a renewal: %w", err)
			return
		}
		if serial != before {
			watch.took = append(watch.took, float64(time.Since(answered).Microseconds())/1000)
			return
		}
	}
}

// renewFleet renews as many certificates as there are proxies, one of each.
func (r *results) renewFleet(ctx context.Context, w workplace) error {
	f, err := startServer(ctx, w)
	if err != nil {
		return err
	}
	defer f.stop()
	n := r.plan.main
	if err := f.makeFleet(ctx, n); err != nil {
		return fmt.Errorf("make the fleet: %w", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := f.do(r.Context(), http.MethodPost, "/fairlead/v1/certificates/renew", map[string]any{"all": true}, nil); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
		}
	})}
	go server.Serve(listener) //nolint:errcheck // it is closed
	defer server.Close()
	l := r.plan.load("fleet", n).at(f)
	l.key = aws.Credentials{}
	var nodes []string
	for i := range n {
		nodes = append(nodes, fleetNode(i))
	}
	if l.identities, err = f.identities(ctx, n, nodes); err != nil {
		return err
	}
	l.changes = []loadrun.Change{{Name: changeFleet, Types: "sds", Expect: n, Request: loadrun.Request{Method: http.MethodPost, URL: "http://" + listener.Addr().String()}}}
	r.renewals.fleet, err = l.run(ctx, w)
	return err
}

func fleetNode(i int) string { return fmt.Sprintf("fleet-%04d", i) }

// makeFleet makes n virtual nodes with a certificate each.
func (f *fairlead) makeFleet(ctx context.Context, n int) error {
	if err := f.do(ctx, http.MethodPut, "/v20190125/meshes", map[string]any{"meshName": meshName}, nil); err != nil {
		return err
	}
	authority, err := f.makeAuthority(ctx, types.KeyAlgorithmEcPrime256v1, types.SigningAlgorithmSha256withecdsa)
	if err != nil {
		return err
	}
	c, err := f.dial("acm")
	if err != nil {
		return err
	}
	defer c.Close()
	arns := make([]string, n)
	for i := range arns {
		if arns[i], err = requestCertificate(c, authority, []string{fleetNode(i) + ".bench.local"}); err != nil {
			return err
		}
	}
	if err := allIssued(ctx, c, n); err != nil {
		return err
	}
	var all errgroup.Group
	all.SetLimit(8)
	for i, arn := range arns {
		all.Go(func() error {
			spec := nodeSpec(fleetNode(i)+".bench.local", nil)
			strict(spec, arn)
			return f.do(ctx, http.MethodPut, meshPath("/virtualNodes"), map[string]any{"virtualNodeName": fleetNode(i), "spec": spec}, nil)
		})
	}
	return all.Wait()
}

// renewBare measures bare streams that each get a new key and certificate.
func (r *results) renewBare(ctx context.Context, w workplace) error {
	p, err := start(ctx, filepath.Join(w.out, "bare-keys.log"), w.bare, "-keys", "-tls-cert", w.chain, "-tls-key", w.key)
	if err != nil {
		return err
	}
	defer p.stop()
	l := r.plan.load("bare-keys", r.plan.main)
	l.mode, l.types, l.ca, l.addr, l.pid = "sotw", "cds", w.ca, p.addr["xds"], p.cmd.Process.Pid
	l.changes = []loadrun.Change{{Name: changeFleet, Types: "cds", Request: loadrun.Request{Method: http.MethodPost, URL: p.addr["admin"] + "/change"}}}
	r.renewals.bare, err = l.run(ctx, w)
	return err
}

// quantile is that share of sorted values.
func quantile(sorted []float64, share float64) float64 {
	return sorted[min(len(sorted)-1, int(share*float64(len(sorted))))]
}

// renewLimits are those of renewals.
func (r *results) renewLimits() []limit {
	v := r.renewals
	return []limit{
		{"certificate renewed, to the first handshake of a real Envoy with it: p99", quantile(v.handshake, 0.99), renewedMs, "ms", false},
		{"certificate renewed: bytes to proxies that do not have it", v.one.Change(changeRenewal).Median("bytes_to_the_others"), 0, "B", false},
		{fmt.Sprintf("%d proxies with a certificate each, all renewed: p99", r.plan.main), v.fleet.Change(changeFleet).Median("received_p99_ms"), fleetMs, "ms", false},
	}
}

// writeRenewals is the page's part about renewals.
func (r *results) writeRenewals(b *bytes.Buffer) {
	v, n := r.renewals, r.plan.main
	one, fleet, bare := v.one.Change(changeRenewal), v.fleet.Change(changeFleet), v.bare.Change(changeFleet)
	fmt.Fprintf(b, `
## Renewed certificates

Keys on P-256: new key, CSR, signature, ledger, store and delivery are in these figures.

- **One certificate**, by RenewCertificate of ACM, %d times, while %d proxies are connected, of which %d have it, and a real Envoy serves it: from the API's
  answer to the first handshake with the new certificate %.1f / %.1f / %.1f ms (p50, p99, max). The simulated proxies have it
  %.1f ms after the answer (p99). App Mesh took up to 35 minutes.
- **A certificate each**: %d proxies of as many virtual nodes, all renewed by one call, that of fairlead acm renew --all: from before
  the call until a proxy has its own, p99 over the proxies, median over %d rounds: %.0f ms. The bare stream, which makes a key and signs for each
  proxy with the standard library and keeps nothing: %.0f ms.
`, len(v.handshake), n, n/10, quantile(v.handshake, 0.5), quantile(v.handshake, 0.99), v.handshake[len(v.handshake)-1], one.Median("answered_p99_ms"),
		n, len(fleet.Rounds), fleet.Median("received_p99_ms"), bare.Median("received_p99_ms"))
}
