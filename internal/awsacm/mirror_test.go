package awsacm

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/acm"
	"github.com/aws/aws-sdk-go-v2/service/acmpca"
	pcatypes "github.com/aws/aws-sdk-go-v2/service/acmpca/types"

	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/iam"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/meshtest"
	"github.com/fairlead/fairlead/internal/store"
)

// TestMoto asks an implementation of ACM and Private CA that is not ours. Its
// roots are as AWS's. Its certificates are signed by their own keys, whatever
// authority is asked, and their chain is of an authority of Amazon's that has not signed
// them: the key is opened and is the certificate's, and then the chain is refused.
func TestMoto(t *testing.T) {
	cfg := motoConfig(t)
	r := newRig(t, openStore(t), cfg, motoAccount)
	r.run()
	root := r.root()
	private := r.request(root, "api.example.com")
	public := *must[*acm.RequestCertificateOutput](t)(r.ACM.RequestCertificate(r.ctx, &acm.RequestCertificateInput{DomainName: ptr("www.example.com")})).CertificateArn
	certificate, key := selfSigned(t)
	imported := *must[*acm.ImportCertificateOutput](t)(r.ACM.ImportCertificate(r.ctx, &acm.ImportCertificateInput{Certificate: certificate, PrivateKey: key})).CertificateArn
	absent := strings.Replace(private, "certificate/", "certificate/0", 1)
	noRoot := strings.Replace(root, "authority/", "authority/0", 1)

	refused, err := r.Fetch(r.ctx, []string{root, private, public, imported, absent, noRoot})
	if err != nil {
		t.Fatal(err)
	}
	for arn, want := range map[string]string{
		private:  "in the chain that AWS gives, C=US,O=Amazon,OU=Server CA 1B,CN=Amazon has not signed what stands below it",
		public:   "its type is AMAZON_ISSUED: ACM gives out the keys of private certificates alone.",
		imported: "its type is IMPORTED: ACM gives out the keys of private certificates alone.",
		absent:   "AWS says ResourceNotFoundException: ",
		noRoot:   "AWS says ResourceNotFoundException: ",
	} {
		if !strings.Contains(refused[arn], want) {
			t.Errorf("%s is refused with %q, want %q", arn, refused[arn], want)
		}
	}
	if len(refused) != 5 {
		t.Errorf("refused: %v", refused)
	}

	own := must[*acmpca.GetCertificateAuthorityCertificateOutput](t)(r.PCA.GetCertificateAuthorityCertificate(r.ctx, &acmpca.GetCertificateAuthorityCertificateInput{CertificateAuthorityArn: &root}))
	a := r.authority(root)
	if !a.Root || a.Status != "ACTIVE" || a.Account != motoAccount || strings.TrimSpace(a.Roots) != strings.TrimSpace(*own.Certificate) || a.NotAfter.IsZero() {
		t.Errorf("the root is %+v", a)
	}
	// Disabled in AWS, it is so here when it is looked at again.
	must[*acmpca.UpdateCertificateAuthorityOutput](t)(r.PCA.UpdateCertificateAuthority(r.ctx, &acmpca.UpdateCertificateAuthorityInput{CertificateAuthorityArn: &root, Status: pcatypes.CertificateAuthorityStatusDisabled}))
	if refused, err := r.Fetch(r.ctx, []string{root}); err != nil || len(refused) > 0 {
		t.Fatalf("%v %v", refused, err)
	}
	if a := r.authority(root); a.Status != "DISABLED" {
		t.Errorf("the root is %+v", a)
	}
	if got := r.calls("ExportCertificate"); got != 1 {
		t.Errorf("%d exports", got)
	}
	if strings.Contains(r.log.String(), "PRIVATE KEY") {
		t.Error("a key is in the log")
	}
}

func (r *rig) authority(arn string) (a *store.Authority) {
	r.t.Helper()
	_, err := r.Store.Read(r.ctx, func(tx *store.Tx) (err error) { a, err = store.GetAuthority(tx, arn); return err })
	if err != nil {
		r.t.Fatal(err)
	}
	return a
}

func ptr(text string) *string { return &text }

// selfSigned is a certificate with its key, PEM.
func selfSigned(t *testing.T) (certificate, key []byte) {
	t.Helper()
	signer := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "a.example.com"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer))
	pkcs8 := must[[]byte](t)(x509.MarshalPKCS8PrivateKey(signer))
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

// TestRenewal has a certificate of another Fairlead's ACM served, as moto renews
// none: exported once, looked at every minute, exported again when it is renewed.
// AWS out of reach changes nothing that is served.
func TestRenewal(t *testing.T) {
	upstream := meshtest.StartServer(t, meshtest.ServerOptions{})
	r := newRig(t, openStore(t), fairleadConfig(t, upstream), meshtest.Account)
	r.run()
	root := r.root()
	r.permit(root)
	arn := r.request(root, "api.apps.local")
	if refused, err := r.Fetch(r.ctx, []string{arn, root}); err != nil || len(refused) > 0 {
		t.Fatalf("%v %v", refused, err)
	}
	r.name(arn)
	first := r.served(arn, func(*mesh.Certificate) bool { return true })
	verify(t, first, "api.apps.local")

	// Looked at again, it is not exported again, and nothing is written.
	described, revision := r.calls("DescribeCertificate"), r.Store.Revision()
	r.clock.add(fresh + time.Second)
	meshtest.Eventually(t, time.Minute, func(context.Context) error {
		if r.calls("DescribeCertificate") == described {
			return errors.New("it was not looked at")
		}
		return nil
	})
	if got := r.served(arn, func(*mesh.Certificate) bool { return true }); got != first || r.calls("ExportCertificate") != 1 {
		t.Errorf("%d exports at revision %d after %d", r.calls("ExportCertificate"), r.Store.Revision(), revision)
	}

	// Renewed in AWS; the event has it looked at before its minute is over.
	must[*acm.RenewCertificateOutput](t)(r.ACM.RenewCertificate(r.ctx, &acm.RenewCertificateInput{CertificateArn: &arn}))
	meshtest.Eventually(t, time.Minute, func(context.Context) error {
		if strings.ReplaceAll(*r.describe(arn).Serial, ":", "") == first.Serial {
			return errors.New("it is not renewed")
		}
		return nil
	})
	answer := must[any](t)(r.putEvent(r.ctx, &awsapi.Request{Principal: iam.Principal{Account: meshtest.Account}, Body: []byte(renewalEvent(arn))}))
	if got := answer.(EventAnswer).Refreshed; len(got) != 1 || got[0] != arn {
		t.Fatalf("looked at: %v", got)
	}
	second := r.served(arn, func(c *mesh.Certificate) bool { return c.Serial != first.Serial })
	verify(t, second, "api.apps.local")
	if second.Key.Equal(first.Key) || r.calls("ExportCertificate") != 2 {
		t.Errorf("after %d exports the key is the old one: %v", r.calls("ExportCertificate"), second.Key.Equal(first.Key))
	}

	// AWS is out of reach: the last good one stays, and everybody can see why.
	upstream.Signal(syscall.SIGTERM)
	<-upstream.Exited()
	r.clock.add(fresh + time.Second)
	meshtest.Eventually(t, time.Minute, func(context.Context) error {
		if r.failures()[arn] == "" {
			return errors.New("no failure is shown")
		}
		return nil
	})
	if got := r.served(arn, func(*mesh.Certificate) bool { return true }); got.Serial != second.Serial {
		t.Errorf("serial %s is served", got.Serial)
	}
	if !strings.Contains(r.log.String(), "what AWS has under an ARN could not be fetched") {
		t.Error("the log does not say so")
	}
	upstream.Restart(t)
	r.clock.add(longestPause)
	meshtest.Eventually(t, time.Minute, func(context.Context) error {
		if failed := r.failures(); len(failed) > 0 {
			return errors.New(failed[arn])
		}
		return nil
	})

	// What no spec names any more is dropped after a day.
	r.name()
	r.clock.add(keepUnnamed + time.Minute)
	meshtest.Eventually(t, time.Minute, func(ctx context.Context) error {
		_, err := r.Store.Read(ctx, func(tx *store.Tx) error { _, err := store.GetCertificate(tx, arn); return err })
		if !errors.Is(err, store.ErrNotFound) {
			return errors.New("it is still there")
		}
		return nil
	})
}

// verify wants a served certificate to be one that Go's TLS takes.
func verify(t *testing.T, served *mesh.Certificate, name string) {
	t.Helper()
	pair := must[tls.Certificate](t)(tls.X509KeyPair([]byte(served.Chain), []byte(served.Key.Reveal())))
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(served.Roots)) {
		t.Fatalf("no roots in %q", served.Roots)
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
		t.Fatal(err)
	}
}

func renewalEvent(arn string) string {
	return `{"version":"0","id":"9c95e8e4-96a4-ef3f-b739-b6aa5b193afb","detail-type":"ACM Certificate Available","source":"aws.acm",
"account":"000000000000","time":"2026-11-25T12:00:00Z","region":"us-east-1","resources":["` + arn + `"],
"detail":{"Action":"RENEWAL","CertificateType":"PRIVATE","CommonName":"api.apps.local","DaysToExpiry":395,"InUse":"TRUE","Exported":"TRUE"}}`
}

// TestOneAsks: of several servers one asks AWS, for all of them, and when it has
// gone another one does.
func TestOneAsks(t *testing.T) {
	cfg, s := motoConfig(t), openStore(t)
	a, b := newRig(t, s, cfg, motoAccount), newRig(t, s, cfg, motoAccount)
	b.clock = a.clock
	b.Now = a.clock.now
	root := a.root()
	stop := a.run()
	if refused, err := a.Fetch(a.ctx, []string{root}); err != nil || len(refused) > 0 {
		t.Fatalf("%v %v", refused, err)
	}
	b.run()
	if refused, err := b.Fetch(b.ctx, []string{root}); err != nil || len(refused) > 0 {
		t.Fatalf("%v %v", refused, err)
	}
	const operation = "DescribeCertificateAuthority"
	if a.calls(operation) != 2 || b.calls(operation) != 0 {
		t.Errorf("one asked %d times, the other %d times", a.calls(operation), b.calls(operation))
	}
	stop()
	a.clock.add(leadLife + time.Second)
	if refused, err := b.Fetch(b.ctx, []string{root}); err != nil || len(refused) > 0 {
		t.Fatalf("%v %v", refused, err)
	}
	if b.calls(operation) != 1 {
		t.Errorf("the other one asked %d times", b.calls(operation))
	}
}

// TestNobodyAnswers: a spec waits for AWS for a bounded time.
func TestNobodyAnswers(t *testing.T) {
	r := newRig(t, openStore(t), fairleadConfig(t, meshtest.StartServer(t, meshtest.ServerOptions{})), meshtest.Account)
	ctx, cancel := context.WithTimeout(r.ctx, 300*time.Millisecond) // nobody runs
	defer cancel()
	_, err := r.Fetch(ctx, []string{"arn:aws:acm:us-east-1:000000000000:certificate/x"})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}
