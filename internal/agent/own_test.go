package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/xds"
)

// TestOwnSecrets: a certificate is asked for once it is named, with a new key
// each time, and again at half its life; what fails is tried again soon, and takes
// the last good one from nobody.
func TestOwnSecrets(t *testing.T) {
	now := time.Now()
	authority := newAuthority(t)
	var broken error
	var asked []xds.IssueRequest
	var logs bytes.Buffer
	log := slog.New(slog.NewTextHandler(&logs, nil))
	files := newFileSecrets(func() time.Time { return now }, log)
	o := &ownSecrets{resource: "mesh/m/virtualNode/n", secrets: files, log: log, now: func() time.Time { return now },
		issue: func(_ context.Context, r xds.IssueRequest) (xds.Issued, error) {
			asked = append(asked, r)
			if broken != nil {
				return xds.Issued{}, broken
			}
			csr, err := ca.ParseCSR([]byte(r.CSR))
			if err != nil {
				return xds.Issued{}, err
			}
			serial, _ := ca.NewSerial(strings.NewReader(strings.Repeat("serial", 10)))
			der, err := authority.IssueLeaf(ca.LeafRequest{PublicKey: csr.PublicKey(), Names: ca.Names{URIs: []string{"spiffe://m.fairlead/n"}}, Now: now, Life: time.Hour, Serial: serial})
			return xds.Issued{Chain: string(ca.EncodePEM(der)), Life: 3600}, err
		}}
	errands := map[string]*errand{}
	step := func(what string, requests int, pause time.Duration) {
		t.Helper()
		got := o.work(t.Context(), errands)
		if len(asked) != requests || got < pause/4 || got > pause {
			t.Errorf("%s: %d requests and a pause of %s, want %d and at most %s", what, len(asked), got, requests, pause)
		}
	}
	name := mesh.OwnCertificate{URI: "spiffe://m.fairlead/n", DNS: "n.local"}.SecretName()
	step("nothing is named", 0, time.Hour)
	files.want([]string{name})
	if s := files.states()[0]; s.Loaded || s.Problem == "" {
		t.Errorf("before it is issued: %+v", s)
	}
	broken = errors.New("not now")
	step("refused", 1, issuePause)
	if s := files.states()[0]; s.Loaded || !strings.Contains(s.Problem, "not now") || s.Files.Chain != "spiffe://m.fairlead/n" {
		t.Errorf("refused: %+v", s)
	}
	now, broken = now.Add(issuePause), nil
	step("issued", 2, 30*time.Minute)
	first := keyOf(t, files, name)
	now = now.Add(20 * time.Minute)
	step("nothing is due", 2, 10*time.Minute)
	now, broken = now.Add(10*time.Minute), errors.New("the server is not reached")
	step("renewal is refused", 3, issuePause)
	if s := files.states()[0]; !s.Loaded || !strings.Contains(s.Problem, "the server is not reached") || !bytes.Equal(keyOf(t, files, name), first) {
		t.Errorf("renewal refused: %+v", s)
	}
	now, broken = now.Add(issuePause), nil
	step("renewed", 4, 30*time.Minute)
	if bytes.Equal(keyOf(t, files, name), first) {
		t.Error("the key of before is used again")
	}
	for _, r := range asked {
		block, _ := pem.Decode([]byte(r.CSR))
		csr, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil || len(csr.DNSNames)+len(csr.URIs)+len(csr.Subject.Names) > 0 || r.Resource != "mesh/m/virtualNode/n" || r.Secret != name {
			t.Errorf("asked for %+v: %v", r, err)
		}
	}
	if strings.Contains(logs.String(), "PRIVATE") {
		t.Error("a key is in the log")
	}
	files.want(nil)
	step("named no longer", 4, time.Hour)
	if len(errands) > 0 {
		t.Errorf("errands: %v", errands)
	}
}

// TestOwnSecretsDistrustTheAnswer: a certificate of another key is not served.
func TestOwnSecretsDistrustTheAnswer(t *testing.T) {
	other, err := newAuthority(t).Issue(ca.Names{DNS: []string{"n.local"}}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	files := newFileSecrets(time.Now, discard())
	name := mesh.OwnCertificate{URI: "spiffe://m.fairlead/n"}.SecretName()
	files.want([]string{name})
	for _, answer := range []xds.Issued{{Chain: string(other.Chain), Life: 3600}, {Life: 3600}, {Chain: "x"}, {}} {
		o := &ownSecrets{secrets: files, log: discard(), now: time.Now, issue: func(context.Context, xds.IssueRequest) (xds.Issued, error) { return answer, nil }}
		o.work(t.Context(), map[string]*errand{})
		if s := files.states()[0]; s.Loaded || !strings.Contains(s.Problem, "no certificate for this proxy's key") {
			t.Errorf("%.40q: %+v", answer.Chain, s)
		}
	}
}

func keyOf(t *testing.T, files *fileSecrets, name string) []byte {
	t.Helper()
	content, _, _ := files.get(name)
	var secret tlsv3.Secret
	if err := content.UnmarshalTo(&secret); err != nil {
		t.Fatal(err)
	}
	c := secret.GetTlsCertificate()
	if _, err := tls.X509KeyPair(c.GetCertificateChain().GetInlineBytes(), c.GetPrivateKey().GetInlineBytes()); err != nil {
		t.Fatal(err)
	}
	return c.GetPrivateKey().GetInlineBytes()
}
