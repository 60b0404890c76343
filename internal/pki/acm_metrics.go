package pki

import "github.com/prometheus/client_golang/prometheus"

// ACMMetrics counts what authorities were asked for. A nil ACMMetrics counts
// nothing.
type ACMMetrics struct {
	attempts *prometheus.CounterVec
}

// NewACMMetrics registers the counter.
func NewACMMetrics(r prometheus.Registerer) (*ACMMetrics, error) {
	m := &ACMMetrics{prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fairlead_acm_attempts_total",
		Help: "Attempts to have a certificate issued."}, []string{"kind", "result"})}
	return m, r.Register(m.attempts)
}

// The results of an attempt.
const (
	resultIssued     = "issued"
	resultRefused    = "refused"    // by the authority
	resultUnanswered = "unanswered" // or not done for another reason that may pass
)

func (m *ACMMetrics) attempted(c *certificate, result string) {
	if m == nil {
		return
	}
	kind := "request"
	if c.Generation > 0 {
		kind = "renewal"
	}
	m.attempts.WithLabelValues(kind, result).Inc()
}
