package pki

import (
	"fmt"
	"testing"
	"time"

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
