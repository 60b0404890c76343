package pki

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead/fairlead/api/acm"
	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/store"
)

// BenchmarkIssueAndGet is one certificate, P-256, issued and fetched through the
// service, on an embedded store that syncs its files.
func BenchmarkIssueAndGet(b *testing.B) {
	for _, clients := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			c := newCATestOn(b, store.Config{DataDir: b.TempDir()}, &clock{now: time.Now()})
			root := c.root(3650)
			csr := leafCSR(b, "a.example.com")
			in := &acmpca.IssueCertificateRequest{CertificateAuthorityArn: root, Csr: csr, SigningAlgorithm: "SHA256WITHECDSA", Validity: &acmpca.Validity{Type: "DAYS", Value: 30}}
			jobs := make(chan struct{})
			done := make(chan error)
			for range clients {
				go func() {
					for range jobs {
						out, err := c.IssueCertificate(c.ctx, in)
						if err == nil {
							_, err = c.GetCertificate(c.ctx, &acmpca.GetCertificateRequest{CertificateAuthorityArn: root, CertificateArn: *out.CertificateArn})
						}
						if err != nil {
							b.Error(err)
						}
					}
					done <- nil
				}()
			}
			b.ResetTimer()
			for range b.N {
				jobs <- struct{}{}
			}
			close(jobs)
			for range clients {
				<-done
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "certificates/s")
		})
	}
}

// BenchmarkRenewMany is the CPU that the renewal of a certificate costs when
// many that specs name are renewed together, on an embedded store.
func BenchmarkRenewMany(b *testing.B) {
	const many = 500
	r := newACMRigOn(b, newCATestOn(b, store.Config{DataDir: b.TempDir()}, &clock{now: time.Now()}))
	root := r.permit(r.ca.root(3650))
	arns := make([]string, many)
	for i := range arns {
		arns[i] = r.ask(root, fmt.Sprintf("h%d.apps.local", i))
	}
	r.issued()
	r.use(arns...)
	cpu := func() time.Duration {
		var usage syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
			b.Fatal(err)
		}
		return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	var spent time.Duration
	b.ResetTimer()
	for range b.N {
		for _, arn := range arns {
			if err := r.RenewCertificate(r.ctx, &acm.RenewCertificateRequest{CertificateArn: arn}); err != nil {
				b.Fatal(err)
			}
		}
		before := cpu()
		if err := r.step(r.ctx); err != nil {
			b.Fatal(err)
		}
		spent += cpu() - before
	}
	b.ReportMetric(float64(spent.Microseconds())/float64(many*b.N), "µs-CPU/certificate")
}
