package awsacm

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts what AWS was asked. Nil Metrics count nothing.
type Metrics struct {
	calls   *prometheus.CounterVec
	failing prometheus.Gauge

	mu  sync.Mutex
	bad map[string]bool // ARNs whose last look failed
}

// NewMetrics registers them.
func NewMetrics(r prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fairlead_aws_calls_total",
			Help: "Calls of ACM and AWS Private CA."}, []string{"operation", "result"}),
		failing: prometheus.NewGauge(prometheus.GaugeOpts{Name: "fairlead_aws_failing",
			Help: "Certificates and authorities in AWS whose last look failed, on the server that asks."}),
		bad: map[string]bool{},
	}
	if err := r.Register(m.calls); err != nil {
		return nil, err
	}
	return m, r.Register(m.failing)
}

func (m *Metrics) called(operation string, err error) {
	if m == nil {
		return
	}
	result := "ok"
	if err != nil {
		result = "failed"
	}
	m.calls.WithLabelValues(operation, result).Inc()
}

func (m *Metrics) looked(arn string, err error) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.bad[arn] = true
	} else {
		delete(m.bad, arn)
	}
	m.failing.Set(float64(len(m.bad)))
}
