package xds

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairlead/fairlead/internal/envoy"
)

// Metrics counts what streams do. A nil Metrics counts nothing.
type Metrics struct {
	streams    *prometheus.GaugeVec
	messages   *prometheus.CounterVec
	resources  *prometheus.CounterVec
	rejections *prometheus.CounterVec
	panics     *prometheus.CounterVec
	slowed     prometheus.Counter
	unknown    prometheus.Counter
	held       prometheus.Gauge
	refused    *prometheus.CounterVec
}

// NewMetrics registers the counters.
func NewMetrics(r prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		streams: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "fairlead_xds_streams",
			Help: "Open ADS streams."}, []string{"protocol"}),
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fairlead_xds_messages_total",
			Help: "Discovery responses sent."}, []string{"type"}),
		resources: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fairlead_xds_resources_total",
			Help: "Resources sent."}, []string{"type"}),
		rejections: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fairlead_xds_rejections_total",
			Help: "Resources that a proxy rejected."}, []string{"type"}),
		panics: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fairlead_xds_panics_total",
			Help: "Panics that were contained."}, []string{"in"}),
		slowed: prometheus.NewCounter(prometheus.CounterOpts{Name: "fairlead_xds_slow_streams_total",
			Help: "Streams cut off because the proxy did not take a message in time."}),
		unknown: prometheus.NewCounter(prometheus.CounterOpts{Name: "fairlead_xds_unknown_type_requests_total",
			Help: "Requests for resource types that are not served."}),
		held: prometheus.NewGauge(prometheus.GaugeOpts{Name: "fairlead_xds_held_proxies",
			Help: "Proxies that are sent nothing because they would lose what no change explains."}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fairlead_xds_refused_streams_total",
			Help: "Streams refused, by gRPC status."}, []string{"code"}),
	}
	for _, c := range []prometheus.Collector{m.streams, m.messages, m.resources, m.rejections, m.panics, m.slowed, m.unknown, m.held, m.refused} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *Metrics) opened(p Protocol) {
	if m != nil {
		m.streams.WithLabelValues(string(p)).Inc()
	}
}

func (m *Metrics) closed(p Protocol) {
	if m != nil {
		m.streams.WithLabelValues(string(p)).Dec()
	}
}

func (m *Metrics) sent(r *response) {
	if m == nil {
		return
	}
	label := "manifest"
	if r.kind < envoy.NumTypes {
		label = envoy.Type(r.kind).String()
	}
	m.messages.WithLabelValues(label).Inc()
	m.resources.WithLabelValues(label).Add(float64(len(r.resources)))
}

func (m *Metrics) rejected(t envoy.Type) {
	if m != nil {
		m.rejections.WithLabelValues(t.String()).Inc()
	}
}

func (m *Metrics) panicked(where string) {
	if m != nil {
		m.panics.WithLabelValues(where).Inc()
	}
}

func (m *Metrics) slow() {
	if m != nil {
		m.slowed.Inc()
	}
}

func (m *Metrics) unknownType() {
	if m != nil {
		m.unknown.Inc()
	}
}

func (m *Metrics) hold(n int) {
	if m != nil {
		m.held.Add(float64(n))
	}
}

func (m *Metrics) refuse(code string) {
	if m != nil {
		m.refused.WithLabelValues(code).Inc()
	}
}
