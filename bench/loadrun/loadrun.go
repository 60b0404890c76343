// Package loadrun is what goes into a run of xdsload and what comes out of it,
// as JSON. It decides nothing.
package loadrun

import (
	"cmp"
	"slices"
	"time"
)

// Report is what a run came to.
type Report struct {
	Label     string         `json:"label,omitempty"`
	When      time.Time      `json:"when"`
	Machine   string         `json:"machine"`
	Proxies   int            `json:"proxies"`
	Mode      string         `json:"mode"`
	TLS       bool           `json:"tls"`
	Connect   Connect        `json:"connect"`
	Changes   []ChangeResult `json:"changes"`
	Reconnect *Connect       `json:"reconnect,omitempty"`
	Retries   int64          `json:"stream_retries"` // streams that broke or were refused
	FirstFail string         `json:"first_error,omitempty"`
}

// Connect is the bringing up of all proxies.
type Connect struct {
	Synced       int       `json:"synced"`
	AllSyncedMs  float64   `json:"all_synced_ms"` // from the first dial to the last proxy's last ACK
	PerProxyMs   Quantiles `json:"per_proxy_ms"`  // stream open to last ACK of the first configuration
	Received     Flow      `json:"received"`      // payload bytes, before HTTP/2 and TLS
	BytesPer     float64   `json:"bytes_per_proxy"`
	Cost         Cost      `json:"cost"`
	RSSBefore    float64   `json:"server_rss_before_mib"`
	RSSAfter     float64   `json:"server_rss_after_mib"`
	RSSPerProxyK float64   `json:"server_rss_per_proxy_kib"`
	IdleCost     Cost      `json:"idle_cost"` // over the settle time
	Retries      int64     `json:"stream_retries"`
}

// ChangeResult is a change, round after round.
type ChangeResult struct {
	Name   string `json:"name"`
	Expect int    `json:"expect"`
	// Disturbed is how many rounds were made again because something else was
	// using the machine. If there was never quiet, the quietest are reported.
	Disturbed int               `json:"disturbed"`
	Rounds    []Round           `json:"rounds"`
	Summary   map[string]Spread `json:"summary"` // over the rounds
}

// Round is one change and its way to the proxies.
type Round struct {
	Round      int       `json:"round"`
	Reached    int       `json:"reached"`
	TriggerMs  float64   `json:"trigger_ms"`  // until the server answered
	ReceivedMs Quantiles `json:"received_ms"` // from just before the request
	AnsweredMs Quantiles `json:"answered_ms"` // the same from the server's answer; 0 if it came before
	AckedMs    Quantiles `json:"acked_ms"`    // from just before the request until the ACK is handed over
	Received   Flow      `json:"received"`
	BytesPer   float64   `json:"bytes_per_reached_proxy"`
	OtherBytes int64     `json:"bytes_to_the_others"`
	Cost       Cost      `json:"cost"`
}

// Flow is what the proxies received, by type.
type Flow struct {
	Messages map[string]int64 `json:"messages"`
	Bytes    map[string]int64 `json:"bytes"`
	AllBytes int64            `json:"all_bytes"`
}

// Quantiles are over proxies.
type Quantiles struct {
	Min float64 `json:"min"`
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// QuantilesOf sorts v.
func QuantilesOf(v []float64) Quantiles {
	if len(v) == 0 {
		return Quantiles{}
	}
	slices.Sort(v)
	at := func(q float64) float64 { return v[min(len(v)-1, int(q*float64(len(v))))] }
	return Quantiles{v[0], at(.5), at(.9), at(.99), v[len(v)-1]}
}

// Spread is over rounds.
type Spread struct {
	Min    float64 `json:"min"`
	Median float64 `json:"median"`
	Max    float64 `json:"max"`
}

func spreadOf(rounds []Round, f func(Round) float64) Spread {
	var v []float64
	for _, r := range rounds {
		v = append(v, f(r))
	}
	if len(v) == 0 {
		return Spread{}
	}
	slices.Sort(v)
	return Spread{v[0], v[len(v)/2], v[len(v)-1]}
}

// figures are what a change is summed up by.
var figures = map[string]func(Round) float64{
	"trigger_ms":              func(r Round) float64 { return r.TriggerMs },
	"received_p50_ms":         func(r Round) float64 { return r.ReceivedMs.P50 },
	"received_p99_ms":         func(r Round) float64 { return r.ReceivedMs.P99 },
	"received_max_ms":         func(r Round) float64 { return r.ReceivedMs.Max },
	"answered_p50_ms":         func(r Round) float64 { return r.AnsweredMs.P50 },
	"answered_p99_ms":         func(r Round) float64 { return r.AnsweredMs.P99 },
	"answered_max_ms":         func(r Round) float64 { return r.AnsweredMs.Max },
	"acked_p99_ms":            func(r Round) float64 { return r.AckedMs.P99 },
	"bytes_per_reached_proxy": func(r Round) float64 { return r.BytesPer },
	"bytes_to_the_others":     func(r Round) float64 { return float64(r.OtherBytes) },
	"server_cpu_s":            func(r Round) float64 { return r.Cost.ServerCPU },
	"client_cpu_s":            func(r Round) float64 { return r.Cost.ClientCPU },
	"other_cpu_s":             func(r Round) float64 { return r.Cost.OtherCPU },
	"server_rss_mib":          func(r Round) float64 { return r.Cost.ServerRSS },
}

// KeepQuietest keeps n rounds, those in which other programs used least CPU.
func (c *ChangeResult) KeepQuietest(n int) {
	if len(c.Rounds) <= n {
		return
	}
	slices.SortStableFunc(c.Rounds, func(a, b Round) int { return cmp.Compare(a.Cost.OtherCPU, b.Cost.OtherCPU) })
	c.Disturbed = len(c.Rounds) - n
	c.Rounds = c.Rounds[:n]
}

// SumUp fills in the summary.
func (c *ChangeResult) SumUp() {
	c.Summary = map[string]Spread{}
	for name, figure := range figures {
		c.Summary[name] = spreadOf(c.Rounds, figure)
	}
}

// Quiet says whether next to nothing else used the machine meanwhile.
func (r Round) Quiet() bool { return r.Cost.OtherCPU < 0.1*r.Cost.Seconds }

// Cost is what was spent meanwhile.
type Cost struct {
	Seconds   float64 `json:"seconds"` // how long it was measured for
	ServerCPU float64 `json:"server_cpu_s"`
	ClientCPU float64 `json:"client_cpu_s"`
	OtherCPU  float64 `json:"other_cpu_s"` // the rest of the machine: large means a disturbed run
	ServerRSS float64 `json:"server_rss_mib"`
	ServerHWM float64 `json:"server_peak_rss_mib"`
}

// Change is something to do to the server, round after round.
type Change struct {
	Name    string  `json:"name"`
	Request Request `json:"request"`
	// Undo takes it back after each round; it is not measured.
	Undo *Request `json:"undo,omitempty"`
	// Marker is a string that a response must contain to count; empty: the
	// next response of one of the types counts. It is a template, as the
	// requests' URLs and bodies are: .Round counts from 1 (0 and below: warm-up),
	// .Unique differs in every round of every run, .Marker is the marker.
	Marker string `json:"marker,omitempty"`
	Types  string `json:"types"`            // short names, comma separated
	Expect int    `json:"expect,omitempty"` // proxies that it must reach; 0: all
}

// Request is an HTTP request, signed by xdsload if it has credentials.
type Request struct {
	Method string `json:"method"`
	URL    string `json:"url"`
	Body   string `json:"body,omitempty"`
}

// Identity is a proxy and the key that opens its stream.
type Identity struct {
	Resource        string `json:"resource"`
	AccessKeyID     string `json:"accessKeyId"`
	SecretAccessKey string `json:"secretAccessKey"`
}

// Change finds a change by name; one that was not made is empty.
func (r *Report) Change(name string) ChangeResult {
	if r != nil {
		for _, c := range r.Changes {
			if c.Name == name {
				return c
			}
		}
	}
	return ChangeResult{Name: name}
}

// Median is the median over the rounds of a figure in the summary.
func (c ChangeResult) Median(figure string) float64 { return c.Summary[figure].Median }
