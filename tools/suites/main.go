// Command suites runs the test suites of the repository: those named as
// arguments, or all of them. It counts what passed and failed, names what could
// not run on this machine, and ends with one line that says so.
//
// It exits 0 if everything ran and passed, 1 if something failed, and 3 if
// nothing failed but something did not run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// suite is one part of the tests.
type suite struct {
	name string
	run  func(context.Context, *runner) error
}

// The suites, the quickest to fail first. e2e comes by itself because its cases
// start servers and Envoys and watch the clock.
var suites = []suite{
	{"lint", lint},
	{"unit", unit},
	{"teeth", teeth},
	{"fuzz", fuzz},
	{"demo", demo},
	{"bench", bench},
	{"e2e", e2e},
}

// runner is one run of the suites: what this machine can do, and the count.
type runner struct {
	root     bool // may make network namespaces and file systems
	race     bool // there is a C compiler, which go test -race needs
	fuzzTime time.Duration
	timeout  time.Duration // of one package's tests

	passed, failed, skipped int
	notRun                  []string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	_, noCompiler := exec.LookPath("gcc")
	r := &runner{root: os.Geteuid() == 0, race: noCompiler == nil}
	flag.DurationVar(&r.fuzzTime, "fuzztime", 3*time.Second, "how long each fuzz target runs")
	flag.DurationVar(&r.timeout, "timeout", 15*time.Minute, "how long the tests of one package may take")
	flag.Parse()
	chosen, err := choose(flag.Args())
	if err == nil {
		err = prepare()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "suites:", err)
		os.Exit(2)
	}
	os.Exit(r.runAll(ctx, chosen))
}

func choose(names []string) ([]suite, error) {
	var chosen []suite
	for _, s := range suites {
		if len(names) == 0 || slices.Contains(names, s.name) {
			chosen = append(chosen, s)
		}
	}
	if len(names) > 0 && len(chosen) != len(names) {
		return nil, fmt.Errorf("unknown suite in %q", names)
	}
	return chosen, nil
}

// prepare goes to the top of the repository and puts the pinned tools on PATH.
func prepare() error {
	top, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("find the repository: %w", err)
	}
	dir := strings.TrimSpace(string(top))
	if err := os.Chdir(dir); err != nil {
		return err
	}
	bin := filepath.Join(dir, ".tools", "bin")
	return errors.Join(
		os.Setenv("PATH", bin+":"+os.Getenv("PATH")+":/usr/sbin:/sbin"),
		os.Setenv("ENVOY_BIN", filepath.Join(bin, "envoy")),
	)
}

// runAll runs suites one after the other; one that fails does not keep the
// next from running. It returns the exit status.
func (r *runner) runAll(ctx context.Context, chosen []suite) int {
	for _, s := range chosen {
		fmt.Printf("=== %s\n", s.name)
		began, failedBefore := time.Now(), r.failed
		if err := s.run(ctx, r); err != nil {
			r.failed++
			fmt.Printf("--- FAIL: suite %s: %v\n", s.name, err)
		}
		verdict := "ok"
		if r.failed > failedBefore {
			verdict = "FAIL"
		}
		fmt.Printf("=== %s %s (%s)\n", s.name, verdict, time.Since(began).Round(time.Second))
	}
	if len(r.notRun) > 0 {
		fmt.Println("\ndid not run:")
		for _, what := range r.notRun {
			fmt.Println("  " + what)
		}
	}
	fmt.Printf("\n%d passed, %d failed", r.passed, r.failed)
	if r.skipped > 0 {
		fmt.Printf(", %d skipped", r.skipped)
	}
	fmt.Println()
	switch {
	case r.failed > 0:
		return 1
	case len(r.notRun) > 0 || r.skipped > 0:
		return 3
	}
	return 0
}

// count records a check that is not a Go test.
func (r *runner) count(name string, err error) {
	if err != nil {
		r.failed++
		fmt.Printf("--- FAIL: %s: %v\n", name, err)
		return
	}
	r.passed++
	fmt.Printf("ok  \t%s\n", name)
}

// command prepares a program that ends with the context, by SIGINT first so
// that it can stop what it has started.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	cmd.Stderr = os.Stderr
	return cmd
}

// check runs a program that prints something, or fails, only if something is
// wrong.
func (r *runner) check(ctx context.Context, what, name string, args ...string) {
	cmd := command(ctx, name, args...)
	cmd.Stderr = nil
	out, err := cmd.CombinedOutput()
	if err == nil && len(out) > 0 {
		err = errors.New("there is something to mend")
	}
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, out)
	}
	r.count(what, err)
}
