package envoy

import (
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"

	"github.com/fairlead/fairlead/api/appmesh"
)

// hostSelectionAttempts is how often a retry looks for a host not tried before.
const hostSelectionAttempts = 5

// defaultRetry is what App Mesh does for a route without a policy, and for a
// virtual node as provider.
func (d *draft) defaultRetry() *routev3.RetryPolicy {
	return d.retry(retries{
		on:    []string{"unavailable", "reset", "connect-failure", "refused-stream"},
		codes: []uint32{503},
		max:   2,
	})
}

func (d *draft) httpRetry(p *appmesh.HttpRetryPolicy) *routev3.RetryPolicy {
	if p == nil {
		return d.defaultRetry()
	}
	r := retries{max: deref(p.MaxRetries), timeout: p.PerRetryTimeout}
	r.events(p.HttpRetryEvents, p.TcpRetryEvents)
	return d.retry(r)
}

func (d *draft) grpcRetry(p *appmesh.GrpcRetryPolicy) *routev3.RetryPolicy {
	if p == nil {
		return d.defaultRetry()
	}
	r := retries{max: deref(p.MaxRetries), timeout: p.PerRetryTimeout}
	for _, e := range p.GrpcRetryEvents {
		r.on = append(r.on, string(e)) // Envoy's words
	}
	r.events(p.HttpRetryEvents, p.TcpRetryEvents)
	return d.retry(r)
}

// retries are the retries of a policy of any kind.
type retries struct {
	on      []string
	codes   []uint32
	max     int64
	timeout *appmesh.Duration
}

func (r *retries) events(http []string, tcp []appmesh.TcpRetryPolicyEvent) {
	for _, e := range http {
		r.on = append(r.on, httpEvents[e].on...)
		r.codes = append(r.codes, httpEvents[e].codes...)
	}
	if len(tcp) > 0 {
		r.on = append(r.on, "connect-failure")
	}
}

// httpEvents says what each event of the API stands for.
var httpEvents = map[string]struct {
	on    []string
	codes []uint32
}{
	"server-error":  {[]string{"reset"}, []uint32{500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511}},
	"gateway-error": {[]string{"reset"}, []uint32{502, 503, 504}},
	"client-error":  {nil, []uint32{409}},
	"stream-error":  {[]string{"refused-stream"}, nil},
}

// eventOrder makes equal policies equal bytes.
var eventOrder = []string{
	"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable",
	"reset", "connect-failure", "refused-stream", "retriable-status-codes",
}

// retry spells a policy. A policy of no retries is none.
func (d *draft) retry(r retries) *routev3.RetryPolicy {
	if r.max <= 0 {
		return nil
	}
	if len(r.codes) > 0 {
		r.on = append(r.on, "retriable-status-codes")
	}
	slices.Sort(r.codes)
	slices.SortFunc(r.on, func(a, b string) int { return slices.Index(eventOrder, a) - slices.Index(eventOrder, b) })
	return &routev3.RetryPolicy{
		RetryOn:              strings.Join(slices.Compact(r.on), ","),
		NumRetries:           count(r.max),
		PerTryTimeout:        positive(r.timeout),
		RetriableStatusCodes: slices.Compact(r.codes),
		RetryHostPredicate: []*routev3.RetryPolicy_RetryHostPredicate{{
			Name: "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{
				TypedConfig: d.pack(&previoushostsv3.PreviousHostsPredicate{}),
			},
		}},
		HostSelectionRetryMaxAttempts: hostSelectionAttempts,
	}
}
