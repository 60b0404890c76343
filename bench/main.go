// Command bench measures Fairlead as docs/benchmarks.md tells: simulated
// proxies connect to a server, changes are made through the API, and the time,
// bytes, CPU and memory that they cost are put beside two baselines from the
// same run and beside the limits that must hold. It writes that page, and exits
// 1 if a limit is missed. It decides nothing about the server.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/fairlead/fairlead/internal/ca"
)

// workplace is where things are.
type workplace struct {
	out        string // folder of everything that a run writes, the page aside
	fairlead   string // binaries
	xdsload    string
	linear     string
	bare       string
	etcd       string
	envoy      string
	ca         string // of the baselines' certificate; files
	chain, key string
	progress   io.Writer
}

// plan is how much to measure.
type plan struct {
	sizes  []int // numbers of proxies
	main   int   // the size that the limits are for and the baselines run at
	large  int   // the largest, 0: none
	rounds int
	warmup int
	settle time.Duration
	pause  time.Duration
	smoke  bool
	only   string // one of parts

	apiRounds int
	apiLength time.Duration // of one operation by so many clients
	bursts    int           // of requests for RSA certificates
	renewals  int           // of one certificate
}

var fullPlan = plan{sizes: []int{100, 1000}, main: 1000, large: 10_000, rounds: 7, warmup: 1, settle: 5 * time.Second, pause: time.Second,
	apiRounds: 5, apiLength: 2 * time.Second, bursts: 3, renewals: 100}

// smokePlan goes through all parts quickly, to see that they work.
var smokePlan = plan{sizes: []int{200}, main: 200, rounds: 1, warmup: 0, settle: 200 * time.Millisecond, pause: 300 * time.Millisecond, smoke: true,
	apiRounds: 1, apiLength: 200 * time.Millisecond, bursts: 1, renewals: 2}

func main() {
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	size := flag.Int("main", fullPlan.main, "proxies in the run that the limits are for")
	smoke := flag.Bool("smoke", false, "few proxies, one round, no limits, no page: only see that it works")
	large := flag.Int("large", fullPlan.large, "proxies in the largest run (0: leave it out)")
	rounds := flag.Int("rounds", fullPlan.rounds, "measured rounds of each change")
	binary := flag.String("fairlead", "./fairlead", "the binary to measure")
	page := flag.String("page", "docs/benchmarks.md", "where to write the result")
	only := flag.String("only", "", `"api", "issue" or "renew": only the rows of the API, of certificates or of their renewal, to standard output instead of the page`)
	flag.Parse()
	if _, ok := parts()[*only]; *only != "" && !ok {
		log.Fatalf("-only %q: there are api, issue and renew", *only)
	}
	p := fullPlan
	p.large, p.rounds, p.main, p.sizes = *large, *rounds, *size, []int{100, *size}
	if *smoke {
		p = smokePlan
	}
	p.only = *only
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx, p, *binary, *page); err != nil {
		log.Fatal(err)
	}
}

func bench(ctx context.Context, p plan, binary, page string) (err error) {
	w, err := prepare(binary)
	if err != nil {
		return err
	}
	defer func() {
		if err == nil {
			err = os.RemoveAll(w.out)
		}
	}()
	r, err := measure(ctx, w, p)
	if err != nil {
		return fmt.Errorf("%w (see %s)", err, w.out)
	}
	if p.smoke {
		fmt.Println("every part of the benchmark works; a smoke run measures nothing")
		return nil
	}
	missed := r.missed()
	if p.only != "" {
		fmt.Print(string(r.partPage(missed)))
	} else if err := os.WriteFile(page, r.page(missed), 0o644); err != nil {
		return err
	} else {
		fmt.Printf("written to %s\n", page)
	}
	if len(missed) > 0 {
		for _, m := range missed {
			fmt.Println("missed:", m)
		}
		return errors.New("limits were missed")
	}
	return nil
}

// prepare builds what is measured with and makes a certificate for the baselines.
func prepare(binary string) (workplace, error) {
	if err := os.MkdirAll("bench/out", 0o755); err != nil {
		return workplace{}, err
	}
	out, err := os.MkdirTemp("bench/out", "run-")
	if err != nil {
		return workplace{}, err
	}
	if out, err = filepath.Abs(out); err != nil {
		return workplace{}, err
	}
	in := func(name string) string { return filepath.Join(out, name) }
	w := workplace{out: out, xdsload: in("xdsload"), linear: in("linearcache"), bare: in("barestream"), etcd: in("bareetcd"),
		ca: in("ca.pem"), chain: in("chain.pem"), key: in("key.pem"), progress: os.Stderr, envoy: os.Getenv("ENVOY_BIN")}
	if w.envoy == "" {
		if w.envoy, err = filepath.Abs(".tools/bin/envoy"); err != nil {
			return workplace{}, err
		}
	}
	if w.fairlead, err = filepath.Abs(binary); err != nil {
		return workplace{}, err
	}
	for _, args := range [][]string{
		{"build", "-o", w.xdsload, "./bench/xdsload"},
		{"build", "-o", w.bare, "./bench/baseline/barestream"},
		{"build", "-o", w.etcd, "./bench/baseline/bareetcd"},
		{"build", "-C", "bench/baseline/linearcache", "-o", w.linear, "."},
	} {
		if said, err := exec.Command("go", args...).CombinedOutput(); err != nil {
			return workplace{}, fmt.Errorf("go %v: %w\n%s", args, err, said)
		}
	}
	return w, certify(w)
}

func certify(w workplace) error {
	now := time.Now()
	authority, err := ca.NewRoot("Benchmark CA", now, 24*time.Hour)
	if err != nil {
		return err
	}
	leaf, err := authority.Issue(ca.Names{DNS: []string{"localhost"}, IPs: loopback}, now, 12*time.Hour)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(w.ca, authority.PEM(), 0o600),
		os.WriteFile(w.chain, leaf.Chain, 0o600),
		os.WriteFile(w.key, leaf.Key, 0o600),
	)
}
