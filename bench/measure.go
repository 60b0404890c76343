package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path/filepath"

	"github.com/fairlead/fairlead/bench/loadrun"
)

var loopback = []net.IP{net.IPv4(127, 0, 0, 1)}

// results are what all runs came to.
type results struct {
	plan   plan
	broad  map[int]*loadrun.Report // by number of proxies; every proxy calls the changed service
	agents *loadrun.Report         // plan.main agents
	narrow *loadrun.Report         // plan.main proxies, of which few call the changed service
	alone  *loadrun.Report         // only those few are connected
	few    int                     // how many they are

	linear      *loadrun.Report // go-control-plane's linear cache over TLS
	linearPlain *loadrun.Report
	linearLarge *loadrun.Report // at plan.large; nil: not run
	bare        *loadrun.Report // bare gRPC stream over TLS
	barePlain   *loadrun.Report
	acks        []float64 // real Envoy: ms from the API's answer to the ACK of a changed EDS cluster
	api         apiRuns
	issue       apiRuns
	renewals    renewals
	bursts      []float64 // seconds from the first of so many requests until all are issued
}

// part is what can be measured alone.
type part struct {
	measure func(*results, context.Context, workplace) error
	limits  func(*results) []limit
	write   func(*results, *bytes.Buffer)
}

func parts() map[string]part {
	return map[string]part{
		"api":   {(*results).apiRun, (*results).apiLimits, (*results).writeAPI},
		"issue": {(*results).issueRun, (*results).issueLimits, (*results).writeIssue},
		"renew": {(*results).renewRun, (*results).renewLimits, (*results).writeRenewals},
	}
}

func measure(ctx context.Context, w workplace, p plan) (*results, error) {
	r := &results{plan: p, broad: map[int]*loadrun.Report{}, few: narrow.proxiesReached(p.main)}
	if p.only != "" {
		return r, parts()[p.only].measure(r, ctx, w)
	}
	steps := []func(context.Context, workplace) error{r.apiRun, r.issueRun, r.renewRun, r.dumpAndEnvoy}
	for _, n := range p.sizes {
		steps = append(steps, r.broadRun(n))
	}
	steps = append(steps, r.baselines, r.agentsRun, r.narrowRuns)
	if p.large > 0 {
		steps = append(steps, r.broadRun(p.large), r.linearAtLarge)
	}
	for _, step := range steps {
		if err := step(ctx, w); err != nil {
			return r, err
		}
	}
	return r, nil
}

// load is a run with what the plan says.
func (p plan) load(name string, n int) load {
	return load{name: name, n: n, rounds: p.rounds, warmup: p.warmup, settle: p.settle, pause: p.pause, once: p.smoke}
}

func (l load) at(f *fairlead) load {
	l.addr, l.pid, l.ca, l.key = f.addr["xds"], f.cmd.Process.Pid, f.ca, f.key
	return l
}

// dumpAndEnvoy measures the real Envoy, and takes from a server what the linear
// cache serves later: the resources of every virtual node, as they are and
// after each change.
func (r *results) dumpAndEnvoy(ctx context.Context, w workplace) error {
	f, err := startFairlead(ctx, w, broad)
	if err != nil {
		return err
	}
	defer f.stop()
	if r.acks, err = envoyAcks(ctx, w, f, max(5, r.plan.rounds)); err != nil {
		return fmt.Errorf("real Envoy: %w", err)
	}
	ids, err := f.identities(ctx, endpoints, allNodes())
	if err != nil {
		return err
	}
	all, err := changes(f.url, broad, endpoints)
	if err != nil {
		return err
	}
	route, outlier, permissive := all[0], all[1], all[2]
	outlierBack, disabled := outlier, permissive
	outlierBack.Request, disabled.Request = *permissive.Undo, *permissive.Undo
	permissive.Undo, disabled.Undo = nil, nil
	for _, step := range []struct {
		dump    string
		changes []loadrun.Change
	}{
		{"base", nil},
		{changeOutlier, []loadrun.Change{outlier}},
		{changeTLS, []loadrun.Change{outlierBack, permissive}},
		{changeRoute, []loadrun.Change{disabled, route}},
	} {
		l := load{name: "dump", n: endpoints, rounds: 1, once: true, identities: ids, changes: step.changes, dump: r.dumpFolder(w, step.dump)}.at(f)
		if _, err := l.run(ctx, w); err != nil {
			return err
		}
	}
	return nil
}

func (r *results) dumpFolder(w workplace, name string) string {
	if name == "" {
		return filepath.Join(w.out, "resources")
	}
	return filepath.Join(w.out, "resources", name)
}

// broadRun measures n proxies that all call the changed service.
func (r *results) broadRun(n int) func(context.Context, workplace) error {
	return func(ctx context.Context, w workplace) error {
		f, err := startFairlead(ctx, w, broad)
		if err != nil {
			return err
		}
		defer f.stop()
		l := r.plan.load(fmt.Sprintf("fairlead-%d", n), n).at(f)
		l.reconnect = n == r.plan.main
		if l.identities, err = f.identities(ctx, n, allNodes()); err != nil {
			return err
		}
		if l.changes, err = changes(f.url, broad, n); err != nil {
			return err
		}
		r.broad[n], err = l.run(ctx, w)
		return err
	}
}

// agentsRun measures proxies that say that they are agents: each push then
// brings a manifest as well.
func (r *results) agentsRun(ctx context.Context, w workplace) error {
	n := r.plan.main
	f, err := startFairlead(ctx, w, broad)
	if err != nil {
		return err
	}
	defer f.stop()
	l := r.plan.load("fairlead-agents", n).at(f)
	l.types, l.metadata = "manifest,cds,eds,lds,rds,sds", `{"fairlead.agent": "bench"}`
	if l.identities, err = f.identities(ctx, n, allNodes()); err != nil {
		return err
	}
	if l.changes, err = changes(f.url, broad, n); err != nil {
		return err
	}
	r.agents, err = l.run(ctx, w)
	return err
}

// narrowRuns measures a change that concerns few proxies, first while all are
// connected, then while only those few are.
func (r *results) narrowRuns(ctx context.Context, w workplace) error {
	n := r.plan.main
	f, err := startFairlead(ctx, w, narrow)
	if err != nil {
		return err
	}
	defer f.stop()
	all, err := changes(f.url, narrow, n)
	if err != nil {
		return err
	}
	// The proxies of the changed node itself get its listener.
	tls := &all[2]
	tls.Types, tls.Expect = "cds,lds", 2*r.few
	l := r.plan.load("fairlead-narrow", n).at(f)
	l.changes = all
	if l.identities, err = f.identities(ctx, n, allNodes()); err != nil {
		return err
	}
	if r.narrow, err = l.run(ctx, w); err != nil {
		return err
	}
	l.name, l.n = "fairlead-alone", 2*r.few
	if l.identities, err = f.identities(ctx, l.n, []string{nodeName(0), nodeName(lonely)}); err != nil {
		return err
	}
	r.alone, err = l.run(ctx, w)
	return err
}

func (r *results) baselines(ctx context.Context, w workplace) (err error) {
	n := r.plan.main
	if r.linear, err = r.linearRun(ctx, w, "linear-tls", n, true); err != nil {
		return err
	}
	if r.linearPlain, err = r.linearRun(ctx, w, "linear-plain", n, false); err != nil {
		return err
	}
	if r.bare, err = r.bareRun(ctx, w, "bare-tls", n, true); err != nil {
		return err
	}
	r.barePlain, err = r.bareRun(ctx, w, "bare-plain", n, false)
	return err
}

func (r *results) linearAtLarge(ctx context.Context, w workplace) (err error) {
	r.linearLarge, err = r.linearRun(ctx, w, "linear-large", r.plan.large, true)
	return err
}

// linearRun measures go-control-plane's linear cache with Fairlead's resources.
func (r *results) linearRun(ctx context.Context, w workplace, name string, n int, tls bool) (*loadrun.Report, error) {
	l := r.plan.load(name, n)
	args := []string{"-resources", r.dumpFolder(w, "")}
	if tls {
		args = append(args, "-tls-cert", w.chain, "-tls-key", w.key)
		l.ca = w.ca
	}
	p, err := start(ctx, filepath.Join(w.out, name+".log"), w.linear, args...)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	l.addr, l.pid = p.addr["xds"], p.cmd.Process.Pid
	for _, change := range changeNames {
		types := "cds"
		if change == changeRoute {
			types = "rds"
		}
		l.changes = append(l.changes, loadrun.Change{Name: change, Types: types,
			Request: loadrun.Request{Method: http.MethodPost, URL: p.addr["admin"] + "/change?name=" + url.QueryEscape(change)}})
	}
	return l.run(ctx, w)
}

// bareRun measures ready-made bytes on bare streams, as many as a route change
// of Fairlead's sends to a proxy.
func (r *results) bareRun(ctx context.Context, w workplace, name string, n int, tls bool) (*loadrun.Report, error) {
	l := r.plan.load(name, n)
	l.mode, l.types = "sotw", "cds"
	size := r.broad[r.plan.main].Change(changeRoute).Median("bytes_per_reached_proxy")
	args := []string{"-size", fmt.Sprint(max(0, int(size)-100))} // the envelope
	if tls {
		args = append(args, "-tls-cert", w.chain, "-tls-key", w.key)
		l.ca = w.ca
	}
	p, err := start(ctx, filepath.Join(w.out, name+".log"), w.bare, args...)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	l.addr, l.pid = p.addr["xds"], p.cmd.Process.Pid
	l.changes = []loadrun.Change{{Name: "message", Types: "cds", Marker: "mk{{.Unique}}",
		Request: loadrun.Request{Method: http.MethodPost, URL: p.addr["admin"] + "/change?marker={{.Marker}}"}}}
	return l.run(ctx, w)
}
