// Command xdsload connects N simulated Envoys to an xDS (ADS) server and
// measures how long the first full configuration takes, how long a change takes
// to reach every proxy, how many bytes that costs, and what the server spends.
// It decides nothing about the server. README.md is its page.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/fairlead/fairlead/bench/loadrun"
)

func main() {
	log.SetFlags(log.Ltime)
	o, err := parseFlags()
	if err != nil {
		log.Fatalf("xdsload: %v", err)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	rep := loadrun.Report{Label: o.label, When: time.Now().UTC(), Proxies: o.n, Mode: "sotw", TLS: o.ca != "",
		Machine: fmt.Sprintf("%d CPUs, %s", runtime.NumCPU(), runtime.Version())}
	if o.delta {
		rep.Mode = "delta"
	}
	err = measure(ctx, o, &rep)
	if writeErr := write(o.out, &rep); writeErr != nil {
		log.Fatalf("xdsload: %v", writeErr)
	}
	if err != nil {
		log.Fatalf("xdsload: %v", err)
	}
}

// measure fills in the report, as far as it gets.
func measure(ctx context.Context, o *options, rep *loadrun.Report) error {
	f, err := newFleet(o)
	if err != nil {
		return err
	}
	defer func() {
		rep.Retries = f.retries.Load()
		if text := f.firstErr.Load(); text != nil {
			rep.FirstFail = *text
		}
	}()
	rep.Connect, err = f.connect(ctx, o.parallel)
	c := rep.Connect
	log.Printf("connected: %d of %d synced in %.0f ms, %.0f bytes each, server %.2f CPU s, RSS %.0f MiB (%+.0f KiB a proxy)",
		c.Synced, o.n, c.AllSyncedMs, c.BytesPer, c.Cost.ServerCPU, c.RSSAfter, c.RSSPerProxyK)
	if err != nil {
		return err
	}
	for _, c := range o.changes {
		done, err := f.change(ctx, c)
		rep.Changes = append(rep.Changes, done)
		if err != nil {
			return err
		}
	}
	if o.dump != "" {
		if err := f.dumpAll(); err != nil {
			return err
		}
	}
	if !o.reconnect {
		return nil
	}
	f.hangUp()
	again, err := f.connect(ctx, 0)
	rep.Reconnect = &again
	log.Printf("reconnected: %d of %d synced in %.0f ms, %d streams refused or broken, server %.2f CPU s, RSS %.0f MiB",
		again.Synced, o.n, again.AllSyncedMs, again.Retries, again.Cost.ServerCPU, again.RSSAfter)
	return err
}

// change makes one change in as many rounds as wanted.
func (f *fleet) change(ctx context.Context, c loadrun.Change) (rep loadrun.ChangeResult, err error) {
	o := f.opt
	rep = loadrun.ChangeResult{Name: c.Name, Expect: c.Expect}
	defer rep.SumUp()
	base := time.Now().UnixMilli()
	for i, quiet := 1-o.warmup, 0; quiet < o.rounds && i <= 2*o.rounds; i++ {
		data := roundData{Round: i, Unique: strconv.FormatInt(base+int64(i), 36)}
		// The marker names the round, so that nothing older counts.
		if data.Marker, err = expand(c.Marker, data); err != nil {
			return rep, err
		}
		r, err := f.round(ctx, c, c.Request, data)
		log.Printf("%s %d: %d reached, after the answer p50 %.1f p99 %.1f max %.1f ms (answer %.1f ms), %.0f bytes each, %d to others, server %.3f CPU s, other load %.2f CPU s",
			c.Name, i, r.Reached, r.AnsweredMs.P50, r.AnsweredMs.P99, r.AnsweredMs.Max, r.TriggerMs, r.BytesPer, r.OtherBytes, r.Cost.ServerCPU, r.Cost.OtherCPU)
		if i >= 1 {
			rep.Rounds = append(rep.Rounds, r)
		}
		if err != nil {
			return rep, err
		}
		if i >= 1 && (o.once || r.Quiet()) {
			quiet++
		}
		if c.Undo == nil {
			continue
		}
		data.Marker = ""
		if _, err := f.round(ctx, c, *c.Undo, data); err != nil {
			return rep, fmt.Errorf("undo: %w", err)
		}
	}
	rep.KeepQuietest(o.rounds)
	return rep, nil
}

func write(path string, rep *loadrun.Report) error {
	out, err := json.MarshalIndent(rep, "", "  ")
	if err != nil {
		return err
	}
	out = append(out, '\n')
	if path == "-" {
		_, err = os.Stdout.Write(out)
		return err
	}
	return os.WriteFile(path, out, 0o644)
}
