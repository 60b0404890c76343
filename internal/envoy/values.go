package envoy

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairlead/fairlead/api/appmesh"
)

// longest is the longest duration sent: Envoy refuses what its timers cannot hold.
const longest = 10 * 365 * 24 * time.Hour

// duration reads a spec's duration; nil if absent. Zero switches a timeout off.
func duration(d *appmesh.Duration) *durationpb.Duration {
	if d == nil || d.Value == nil {
		return nil
	}
	unit := time.Second
	if d.Unit != nil && *d.Unit == appmesh.DurationUnitMs {
		unit = time.Millisecond
	}
	if *d.Value > int64(longest/unit) {
		return durationpb.New(longest)
	}
	return durationpb.New(time.Duration(*d.Value) * unit)
}

// positive reads a duration where Envoy takes no zero: then it is Envoy's default.
func positive(d *appmesh.Duration) *durationpb.Duration {
	p := duration(d)
	if p.AsDuration() <= 0 {
		return nil
	}
	return p
}

// count reads a number of the spec into Envoy's narrower one.
func count(n int64) *wrapperspb.UInt32Value {
	return wrapperspb.UInt32(uint32(min(max(n, 0), unlimited)))
}

func deref[T any](p *T) T {
	var zero T
	if p == nil {
		return zero
	}
	return *p
}

// ads is the config source of everything that comes over the same stream.
func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}
}
