package agent

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/envoy"
)

// TestRenewalThroughTheAgent renews a certificate of the server: Envoy serves the
// new one, keeps it if the next is broken, and has it again after it died while
// the server was away. None of the keys is in anything that can be read.
func TestRenewalThroughTheAgent(t *testing.T) {
	c := newControl(t)
	p := newProxy(t, "unix://"+c.socket, map[string]string{"ENVOY_LOG_LEVEL": "debug"})
	c.start(lineage[:8])
	authority := newAuthority(t)
	var keys []string
	issue := func() (*ca.Leaf, *big.Int) {
		leaf, err := authority.Issue(ca.Names{DNS: []string{"node.local"}}, time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, string(leaf.Key))
		block, _ := pem.Decode(leaf.Chain)
		parsed, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return leaf, parsed.SerialNumber
	}
	const name = "arn:aws:acm:us-east-1:000000000000:certificate/1"
	l, word := listener(t, "acm", p.bind, 8441, "rds", &tlsv3.SdsSecretConfig{Name: name, SdsConfig: overADS}), table(t, "rds", "one")
	publish := func(revision int64, chain, key []byte) *envoy.Config {
		return c.publish(revision, lineage, l, word, resource(t, envoy.Secret, name, &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_TlsCertificate{
			TlsCertificate: &tlsv3.TlsCertificate{CertificateChain: inline(chain), PrivateKey: inline(key)}}}))
	}
	roots := x509.NewCertPool()
	roots.AddCert(authority.Certificate)
	serves := func(when string, serial *big.Int) {
		t.Helper()
		eventually(t, 20*time.Second, func() error {
			conn, err := tls.Dial("tcp", p.bind+":8441", &tls.Config{RootCAs: roots, ServerName: "node.local"})
			if err != nil {
				return fmt.Errorf("%s: %w", when, err)
			}
			defer conn.Close()
			if got := conn.ConnectionState().PeerCertificates[0].SerialNumber; got.Cmp(serial) != 0 {
				return fmt.Errorf("%s: it serves %x, not %x", when, got, serial)
			}
			return nil
		})
	}
	first, serial := issue()
	p.start()
	c.waitSettled(publish(1, first.Chain, first.Key))
	p.waitReady()
	serves("at first", serial)
	if s := p.status().Secrets; len(s) != 1 || s[0].Name != name || !s[0].Loaded || s[0].NotAfter == "" {
		t.Errorf("secrets: %+v", s)
	}

	second, serial := issue()
	c.waitSettled(publish(2, second.Chain, second.Key))
	serves("renewed", serial)
	third, _ := issue()
	c.waitSettled(publish(3, third.Chain, first.Key))
	serves("broken", serial)
	c.mu.Lock()
	if message := c.rejected["secret "+name]; message == "" {
		t.Error("the server did not hear of the broken certificate")
	} else {
		t.Logf("Envoy says: %s", message)
	}
	c.mu.Unlock()
	p.waitReady()

	c.stop()
	kill(t, p.status().EnvoyPid)
	serves("a new Envoy without the server", serial)
	p.waitReady()

	seen := p.log.String() + fmt.Sprint(c.rejected, c.reports, c.settled)
	for _, page := range []string{p.url(9902, "/status"), p.url(9901, "/certs"), p.url(9901, "/stats"), p.url(9901, "/listeners"), p.url(9901, "/config_dump")} {
		_, body := get(page)
		seen += body
	}
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
	for i, key := range keys {
		block, _ := pem.Decode([]byte(key))
		if block == nil {
			continue
		}
		tail := block.Bytes[len(block.Bytes)-24:]
		for _, form := range []string{key, strings.Split(key, "\n")[1], string(tail), hex.EncodeToString(tail), base64.StdEncoding.EncodeToString(block.Bytes)} {
			if strings.Contains(seen, form) {
				t.Errorf("key %d can be read", i)
			}
		}
		onlyConfiguration(t, p.config.StateDir, []byte(key))
	}
}

// TestRetrusted: of what Envoy accepts, a secret that has changed says that the
// trust of the clusters that name it has; the first one, and the same again, not.
func TestRetrusted(t *testing.T) {
	f := newFeeder(t)
	const trust = "trust:arn"
	c := resource(t, envoy.Cluster, "c", &clusterv3.Cluster{Name: "c", TransportSocket: &corev3.TransportSocket{Name: "tls",
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: pack(t, &tlsv3.UpstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
			ValidationContextType: &tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig{
				ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: trust, SdsConfig: overADS}}}})}}})
	f.send(envoy.Cluster, []*envoy.Resource{c, cluster(t, "other", 1)})
	version := func(v string) []*envoy.Resource {
		r := resource(t, envoy.Secret, trust, &tlsv3.Secret{Name: trust})
		r.Version = v
		return []*envoy.Resource{r}
	}
	f.send(envoy.Secret, version("1"))
	for _, step := range []struct {
		version string
		want    int
	}{{"1", 0}, {"1", 0}, {"2", 1}, {"2", 0}, {"1", 1}} {
		if got := f.envoyAccepted(version(step.version)); len(got) != step.want || step.want > 0 && got[0].Name != "c" {
			t.Errorf("version %s: %v", step.version, got)
		}
	}
	if s := f.serverSecrets(); len(s) != 1 || !s[0].held {
		t.Errorf("%+v", s)
	}
	f.envoyGone()
	if s := f.serverSecrets(); len(s) != 1 || s[0].held {
		t.Errorf("without Envoy: %+v", s)
	}
}
