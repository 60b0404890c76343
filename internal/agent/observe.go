package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	jsonv2 "github.com/go-json-experiment/json"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/fairlead/fairlead/internal/edge"
	"github.com/fairlead/fairlead/internal/envoy"
)

const (
	// reportEvery is how often counters that have changed are reported, and
	// repeatEvery how often the same is said again.
	reportEvery = 3 * time.Second
	repeatEvery = 30 * time.Second
	// lookEvery is how often Envoy is looked at while it is not ready.
	lookEvery = 250 * time.Millisecond
)

// reportedStats matches at least what edge.Wanted wants.
const reportedStats = `^(cluster\.cds_egress_|listener\..*\.ssl\.)`

// observer looks at Envoy and reports to the server: at once when readiness or
// a secret changes, else every few seconds.
type observer struct {
	agent  *Agent
	wake   chan struct{}
	rebase chan baselines

	report  edge.Report
	started time.Time // of the Envoy that the counters are of
	said    string    // what was reported of readiness and secrets
	sent    time.Time
	// uncounted is set while counters are newer than what was reported.
	uncounted bool
	ready     bool
}

func newObserver(a *Agent) *observer {
	return &observer{agent: a, wake: make(chan struct{}, 1), rebase: make(chan baselines, 64)}
}

// baselines are the clusters and listeners whose counters tell something else
// from now on: they, or the trust of clusters, have changed. They are called as in
// Envoy's counters.
type baselines struct{ changed, retrusted []string }

func (b baselines) empty() bool { return len(b.changed)+len(b.retrusted) == 0 }

// poke has the observer look now.
func (o *observer) poke() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// run observes until the context ends.
func (o *observer) run(ctx context.Context) {
	for {
		pause := reportEvery
		if !o.ready {
			pause = lookEvery
		}
		var b baselines
		select {
		case <-o.wake:
		case b = <-o.rebase:
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		o.look(ctx, b)
	}
}

func (o *observer) look(ctx context.Context, b baselines) {
	a := o.agent
	process := a.envoy.current()
	if !process.Started.Equal(o.started) {
		o.report.Baseline, o.report.Trusted, o.report.Counters = nil, nil, nil // they start from 0 again
		o.started = process.Started
	}
	state := a.readiness(ctx)
	if state.ready != o.ready {
		a.log.Info("readiness", "ready", state.ready, "why", strings.Join(state.why, "; "))
		o.ready = state.ready
	}
	o.report.Ready, o.report.Problems = state.ready, slices.Concat(state.why, state.problems, a.rejections(), a.config.Warnings)
	o.report.EnvoyVersion, o.report.Secrets = a.version, a.secretReports()
	said := fmt.Sprint(o.report.Ready, o.report.Problems, o.report.Secrets, a.relay.state.Load().connection.connected)
	since := a.now().Sub(o.sent)
	if said == o.said && since < reportEvery && b.empty() {
		return
	}
	counted := process.Pid != 0 && o.count(ctx, b)
	if said == o.said && since < repeatEvery && !(counted && since >= reportEvery) {
		return
	}
	report, err := reportStruct(&o.report)
	if err != nil {
		a.log.Error("no report", "why", err)
		return
	}
	o.said, o.sent, o.uncounted = said, a.now(), false
	a.relay.sendNewest(report)
}

// count reads the counters, lets those of what has changed start anew,
// and says whether there is anything new in them.
func (o *observer) count(ctx context.Context, b baselines) (changed bool) {
	counters, err := o.agent.admin.counters(ctx, reportedStats, edge.Wanted)
	if err != nil {
		return false // readiness says so
	}
	changed = o.uncounted || !b.empty() || !maps.Equal(counters, o.report.Counters)
	o.report.Counters = counters
	for _, owner := range b.changed {
		o.report.Rebase(owner)
	}
	for _, owner := range b.retrusted {
		o.report.Retrust(owner)
	}
	o.uncounted = changed
	return changed
}

// rejections are those without a NACK: what Envoy refused of a configuration that
// the server takes for accepted, as an Envoy that started again may.
func (a *Agent) rejections() []string {
	var said []string
	for ref, message := range a.relay.state.Load().untold {
		said = append(said, fmt.Sprintf("Envoy rejects %s %s: %s", ref.Type, ref.Name, message))
	}
	slices.Sort(said)
	return said
}

func (a *Agent) secretReports() []edge.SecretStatus {
	var reports []edge.SecretStatus
	for _, s := range a.files.states() {
		report := edge.SecretStatus{Name: s.Name, Loaded: s.Loaded, Error: s.Problem}
		if !s.Expires.IsZero() {
			report.NotAfter = s.Expires.Unix()
		}
		reports = append(reports, report)
	}
	for _, s := range a.relay.state.Load().secrets {
		report := edge.SecretStatus{Name: s.name, Loaded: s.held}
		if !s.expires.IsZero() {
			report.NotAfter = s.expires.Unix()
		}
		reports = append(reports, report)
	}
	for _, c := range closedStatus(a.relay.state.Load(), a.config.Envoy.SDSSocket) {
		reports = append(reports, edge.SecretStatus{Name: c.Secret, Error: c.Why})
	}
	return reports
}

func reportStruct(r *edge.Report) (*structpb.Struct, error) {
	encoded, err := jsonv2.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode report: %w", err)
	}
	var report structpb.Struct
	if err := protojson.Unmarshal(encoded, &report); err != nil {
		return nil, fmt.Errorf("encode report: %w", err)
	}
	return &report, nil
}

// sendNewest has the relay send a report; one that waits is overtaken.
func (r *relay) sendNewest(report *structpb.Struct) {
	select {
	case <-r.report:
	default:
	}
	select {
	case r.report <- report:
	default:
	}
}

// statOwners are the names under which Envoy counts for clusters and listeners:
// cluster.NAME, listener.ADDRESS.
func statOwners(resources []*envoy.Resource) []string {
	owners := map[string]bool{}
	for _, r := range resources {
		switch r.Type {
		case envoy.Cluster:
			owners["cluster."+r.Name] = true
		case envoy.Listener:
			if prefix := listenerStats(r); prefix != "" {
				owners["listener."+prefix] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(owners))
}

func listenerStats(r *envoy.Resource) string {
	var packed anypb.Any
	var l listenerv3.Listener
	if proto.Unmarshal(r.Any, &packed) != nil || packed.UnmarshalTo(&l) != nil {
		return ""
	}
	if l.StatPrefix != "" {
		return l.StatPrefix
	}
	at := l.GetAddress().GetSocketAddress()
	return strings.ReplaceAll(at.GetAddress(), ":", "_") + "_" + strconv.Itoa(int(at.GetPortValue()))
}
