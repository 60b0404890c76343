package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/acmpca"
	"github.com/aws/aws-sdk-go-v2/service/acmpca/types"

	"github.com/fairlead/fairlead/bench/apiload"
	"github.com/fairlead/fairlead/internal/ca"
)

// What is issued, and the baselines: the standard library alone.
const (
	opSignP256  = "bare signer, P-256"
	opIssueP256 = "issue and get, P-256"
	opSignRSA   = "bare signer, RSA-2048"
	opIssueRSA  = "issue and get, RSA-2048"

	burst = 50 // RSA certificates that are requested of ACM at once
)

// issueKinds are the algorithms of authorities; what they issue has a key of
// the same.
var issueKinds = []struct {
	sign, issue string
	algorithm   types.KeyAlgorithm
	signing     types.SigningAlgorithm
}{
	{opSignP256, opIssueP256, types.KeyAlgorithmEcPrime256v1, types.SigningAlgorithmSha256withecdsa},
	{opSignRSA, opIssueRSA, types.KeyAlgorithmRsa2048, types.SigningAlgorithmSha256withrsa},
}

// issueRun measures how fast certificates are issued and fetched, with the
// store on the disk, and the bare signer beside it, turn by turn; then how long
// ACM takes for many requests at once.
func (r *results) issueRun(ctx context.Context, w workplace) error {
	fmt.Fprintln(w.progress, "--- certificates")
	if err := r.issueRates(ctx, w); err != nil {
		return err
	}
	for range r.plan.bursts {
		seconds, err := measureBurst(ctx, w)
		if err != nil {
			return fmt.Errorf("burst: %w", err)
		}
		fmt.Fprintf(w.progress, "%d requests of ACM, all issued in %.2f s\n", burst, seconds)
		r.bursts = append(r.bursts, seconds)
	}
	return nil
}

func (r *results) issueRates(ctx context.Context, w workplace) error {
	f, err := startServer(ctx, w)
	if err != nil {
		return err
	}
	defer f.stop()
	r.issue = apiRuns{}
	for _, kind := range issueKinds {
		algorithm := ca.KeyAlgorithm(kind.algorithm)
		authority, err := f.makeAuthority(ctx, kind.algorithm, kind.signing)
		if err != nil {
			return fmt.Errorf("make %s authority: %w", kind.algorithm, err)
		}
		csr, err := newCSR(algorithm)
		if err != nil {
			return err
		}
		load, err := newIssueLoad(authority, kind.signing, csr)
		if err != nil {
			return err
		}
		for range r.plan.apiRounds {
			bare, err := measureSigner(algorithm, csr, r.plan.apiLength)
			if err != nil {
				return fmt.Errorf("%s: %w", kind.sign, err)
			}
			r.noteIssue(w, kind.sign, bare)
			for _, clients := range apiClients {
				result, err := f.measureIssue(load, clients, r.plan.apiLength)
				if err != nil {
					return fmt.Errorf("%s with %d clients: %w", kind.issue, clients, err)
				}
				r.noteIssue(w, kind.issue, result)
			}
		}
	}
	return nil
}

func (r *results) noteIssue(w workplace, op string, result apiload.Result) {
	fmt.Fprintf(w.progress, "%-24s %3d clients %8.0f/s p50 %.2f p99 %.2f ms\n", op, result.Clients, result.PerSecond, result.Ms.P50, result.Ms.P99)
	run := apiRun{op, result.Clients}
	r.issue[run] = append(r.issue[run], result)
}

// privateCA is the SDK's client with the root key.
func (f *fairlead) privateCA() *acmpca.Client {
	return acmpca.New(acmpca.Options{Region: region, BaseEndpoint: &f.url,
		Credentials: credentials.NewStaticCredentialsProvider(f.key.AccessKeyID, f.key.SecretAccessKey, "")})
}

// makeAuthority makes an active root that ACM may use, and returns its ARN.
func (f *fairlead) makeAuthority(ctx context.Context, algorithm types.KeyAlgorithm, signing types.SigningAlgorithm) (string, error) {
	c := f.privateCA()
	made, err := c.CreateCertificateAuthority(ctx, &acmpca.CreateCertificateAuthorityInput{
		CertificateAuthorityType: types.CertificateAuthorityTypeRoot,
		CertificateAuthorityConfiguration: &types.CertificateAuthorityConfiguration{
			KeyAlgorithm: algorithm, SigningAlgorithm: signing, Subject: &types.ASN1Subject{CommonName: aws.String("Benchmark root")},
		},
	})
	if err != nil {
		return "", err
	}
	arn := made.CertificateAuthorityArn
	ready := &acmpca.GetCertificateAuthorityCsrInput{CertificateAuthorityArn: arn}
	if err := acmpca.NewCertificateAuthorityCSRCreatedWaiter(c).Wait(ctx, ready, time.Minute); err != nil {
		return "", err
	}
	csr, err := c.GetCertificateAuthorityCsr(ctx, ready)
	if err != nil {
		return "", err
	}
	issued, err := c.IssueCertificate(ctx, &acmpca.IssueCertificateInput{
		CertificateAuthorityArn: arn, Csr: []byte(*csr.Csr), SigningAlgorithm: signing, TemplateArn: aws.String("arn:aws:acm-pca:::template/RootCACertificate/V1"),
		Validity: &types.Validity{Type: types.ValidityPeriodTypeYears, Value: aws.Int64(10)},
	})
	if err != nil {
		return "", err
	}
	own, err := c.GetCertificate(ctx, &acmpca.GetCertificateInput{CertificateAuthorityArn: arn, CertificateArn: issued.CertificateArn})
	if err != nil {
		return "", err
	}
	if _, err := c.ImportCertificateAuthorityCertificate(ctx, &acmpca.ImportCertificateAuthorityCertificateInput{CertificateAuthorityArn: arn, Certificate: []byte(*own.Certificate)}); err != nil {
		return "", err
	}
	_, err = c.CreatePermission(ctx, &acmpca.CreatePermissionInput{CertificateAuthorityArn: arn, Principal: aws.String("acm.amazonaws.com"),
		Actions: []types.ActionType{types.ActionTypeIssueCertificate, types.ActionTypeGetCertificate, types.ActionTypeListPermissions}})
	return *arn, err
}

// newCSR is made ahead: what a client's own key costs is not measured. Nothing
// of the server depends on whether CSRs differ.
func newCSR(algorithm ca.KeyAlgorithm) ([]byte, error) {
	key, err := ca.GenerateKey(algorithm)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "web.bench.local"}, DNSNames: []string{"web.bench.local", "web"},
	}, key.Signer())
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// issueLoad is what every client sends, written once: how fast a client writes
// JSON is not what is measured.
type issueLoad struct {
	issue []byte
	get   string // format, for the certificate's ARN
}

func newIssueLoad(authority string, signing types.SigningAlgorithm, csr []byte) (issueLoad, error) {
	body, err := json.Marshal(map[string]any{
		"CertificateAuthorityArn": authority, "Csr": csr, "SigningAlgorithm": signing, "Validity": map[string]any{"Type": "DAYS", "Value": 30},
	})
	return issueLoad{body, `{"CertificateAuthorityArn":"` + authority + `","CertificateArn":"%s"}`}, err
}

func (f *fairlead) measureIssue(load issueLoad, clients int, length time.Duration) (apiload.Result, error) {
	var opened []*apiload.Client
	result, err := apiload.Measure(clients, length, func(int) (apiload.Worker, error) {
		c, err := f.dial("acm-pca")
		if err != nil {
			return nil, err
		}
		opened = append(opened, c)
		return func() error { return load.once(c) }, nil
	})
	for _, c := range opened {
		err = errors.Join(err, c.Close())
	}
	return result, err
}

// once has one certificate issued and fetches it.
func (l issueLoad) once(c *apiload.Client) error {
	answer, err := c.Do(apiload.Request{Method: http.MethodPost, Path: "/", Target: "ACMPrivateCA.IssueCertificate", Body: l.issue})
	if err != nil {
		return err
	}
	_, rest, ok := bytes.Cut(answer, []byte(`"CertificateArn":"`))
	arn, _, ended := bytes.Cut(rest, []byte(`"`))
	if !ok || !ended {
		return fmt.Errorf("IssueCertificate answered %s", answer)
	}
	answer, err = c.Do(apiload.Request{Method: http.MethodPost, Path: "/", Target: "ACMPrivateCA.GetCertificate", Body: fmt.Appendf(nil, l.get, arn)})
	if err == nil && !bytes.Contains(answer, []byte("-----BEGIN CERTIFICATE-----")) {
		err = fmt.Errorf("GetCertificate answered %s", answer)
	}
	return err
}

func (f *fairlead) dial(service string) (*apiload.Client, error) {
	return apiload.Dial(strings.TrimPrefix(f.url, "http://"), apiload.Key{ID: f.key.AccessKeyID, Secret: f.key.SecretAccessKey, Region: region, Service: service})
}

// measureSigner signs on all cores with the standard library alone: it reads
// and verifies a CSR and signs, with no decision, lint, ledger or network.
func measureSigner(algorithm ca.KeyAlgorithm, csrPEM []byte, length time.Duration) (apiload.Result, error) {
	key, err := ca.GenerateKey(algorithm)
	if err != nil {
		return apiload.Result{}, err
	}
	now := time.Now()
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Benchmark root"}, NotBefore: now, NotAfter: now.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key.Signer())
	if err != nil {
		return apiload.Result{}, err
	}
	if root, err = x509.ParseCertificate(der); err != nil {
		return apiload.Result{}, err
	}
	return apiload.Measure(runtime.GOMAXPROCS(0), length, func(int) (apiload.Worker, error) {
		return func() error { return signBare(root, key.Signer(), csrPEM) }, nil
	})
}

func signBare(root *x509.Certificate, key crypto.Signer, csrPEM []byte) error {
	block, _ := pem.Decode(csrPEM)
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return err
	}
	if err := csr.CheckSignature(); err != nil {
		return err
	}
	serial, err := ca.NewSerial(rand.Reader)
	if err != nil {
		return err
	}
	_, err = x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial.Int(), Subject: csr.Subject, DNSNames: csr.DNSNames, NotBefore: root.NotBefore, NotAfter: root.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, root, csr.PublicKey, key)
	return err
}

// measureBurst requests RSA certificates of a new server's ACM, once its keys
// are made ahead, and returns the seconds until all are issued.
func measureBurst(ctx context.Context, w workplace) (float64, error) {
	f, err := startServer(ctx, w, "--log-level", "debug")
	if err != nil {
		return 0, err
	}
	defer f.stop()
	authority, err := f.makeAuthority(ctx, types.KeyAlgorithmEcPrime256v1, types.SigningAlgorithmSha256withecdsa)
	if err != nil {
		return 0, err
	}
	if err := until(ctx, func() (bool, error) {
		text, err := os.ReadFile(filepath.Join(w.out, serverLog))
		return bytes.Contains(text, []byte("RSA keys are made ahead")), err
	}); err != nil {
		return 0, fmt.Errorf("keys made ahead: %w", err)
	}
	c, err := f.dial("acm")
	if err != nil {
		return 0, err
	}
	defer c.Close()
	begun := time.Now()
	for i := range burst {
		body := fmt.Appendf(nil, `{"DomainName":"h%d.bench.local","CertificateAuthorityArn":"%s"}`, i, authority)
		if _, err := c.Do(apiload.Request{Method: http.MethodPost, Path: "/", Target: "CertificateManager.RequestCertificate", Body: body}); err != nil {
			return 0, err
		}
	}
	err = until(ctx, func() (bool, error) {
		answer, err := c.Do(apiload.Request{Method: http.MethodPost, Path: "/", Target: "CertificateManager.ListCertificates", Body: []byte(`{"CertificateStatuses":["ISSUED"]}`)})
		return bytes.Count(answer, []byte(`"CertificateArn"`)) == burst, err
	})
	return time.Since(begun).Seconds(), err
}

// until asks again and again whether something is so, for at most a minute.
func until(ctx context.Context, so func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		if yes, err := so(); yes || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-again.C:
		}
	}
}

// writeIssue is the page's part about certificates.
func (r *results) writeIssue(b *bytes.Buffer) {
	fmt.Fprintf(b, `
## Certificates

IssueCertificate and then GetCertificate of Private CA, signed requests as above, with the store on the disk: one is done
when the certificate is fetched, which is in the ledger and synced by then. Authority and certificate have keys of the
same algorithm. The bare signer reads a CSR, verifies it and signs with the standard library, on all cores in process
and with nothing else to do. Medians over %d rounds of %s.

| | clients | per second | p50 ms | p99 ms |
|---|---:|---:|---:|---:|
`, r.plan.apiRounds, r.plan.apiLength)
	for _, kind := range issueKinds {
		for _, op := range []string{kind.sign, kind.issue} {
			counts := apiClients
			if op == kind.sign {
				counts = []int{runtime.GOMAXPROCS(0)}
			}
			for _, clients := range counts {
				fmt.Fprintf(b, "| %s | %d | %s | %s | %s |\n", op, clients, figure(r.issue.median(op, clients, perSecond)),
					figure(r.issue.median(op, clients, func(r apiload.Result) float64 { return r.Ms.P50 })),
					figure(r.issue.median(op, clients, func(r apiload.Result) float64 { return r.Ms.P99 })))
			}
		}
	}
	fmt.Fprintf(b, "\n%d requests of ACM for RSA-2048 certificates, by one client, with keys that the server has made ahead: all are issued in\n%.2f s, the median of %d servers.\n",
		burst, middle(r.bursts), len(r.bursts))
}
