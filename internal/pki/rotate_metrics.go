package pki

import "github.com/prometheus/client_golang/prometheus"

// RotationMetrics shows how the rotations of roots stand, on the server that carries
// them on. A nil RotationMetrics shows nothing.
type RotationMetrics struct {
	rotations *prometheus.GaugeVec
	waiting   *prometheus.GaugeVec
}

// NewRotationMetrics registers the gauges.
func NewRotationMetrics(r prometheus.Registerer) (*RotationMetrics, error) {
	m := &RotationMetrics{
		prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "fairlead_ca_rotations",
			Help: "Rotations of roots that are under way."}, []string{"step"}),
		prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "fairlead_ca_rotation_waits",
			Help: "What rotations of roots wait for."}, []string{"for"}),
	}
	if err := r.Register(m.rotations); err != nil {
		return nil, err
	}
	return m, r.Register(m.waiting)
}

// rotationCount is what RotationMetrics shows.
type rotationCount struct {
	steps   map[Step]int
	waiting map[string]int
}

func (c *rotationCount) add(o *rotation, w Waits) {
	if c.steps == nil {
		c.steps, c.waiting = map[Step]int{}, map[string]int{}
	}
	step := o.Step
	if o.Paused {
		step = "paused"
	}
	c.steps[step]++
	c.waiting["proxy"] += len(w.Proxies)
	c.waiting["authority"] += len(w.Authorities)
	c.waiting["certificate"] += len(w.Certificates)
	c.waiting["issued"] += len(w.Issued)
}

func (m *RotationMetrics) none() { m.show(rotationCount{}) }

func (m *RotationMetrics) show(c rotationCount) {
	if m == nil {
		return
	}
	m.rotations.Reset()
	m.waiting.Reset()
	for step, n := range c.steps {
		m.rotations.WithLabelValues(string(step)).Set(float64(n))
	}
	for what, n := range c.waiting {
		m.waiting.WithLabelValues(what).Set(float64(n))
	}
}
