package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// rootTag marks the files whose tests need root.
const rootTag = "root"

// spireTag marks those that need SPIRE: make test-spire runs them.
const spireTag = "spire"

// guide runs the commands of the user's pages, which take these programs.
// tools/packages.sh installs them, as root.
const guide = "e2e/guide"

var guidePrograms = []string{"curl", "openssl"}

func lint(ctx context.Context, r *runner) error {
	files, err := lines(ctx, "git", "ls-files", "--cached", "--others", "--exclude-standard", "*.go")
	if err != nil {
		return err
	}
	files = slices.DeleteFunc(files, func(name string) bool { _, err := os.Stat(name); return err != nil })
	r.check(ctx, "gofmt -l", "gofmt", append([]string{"-l"}, files...)...)
	r.check(ctx, "go vet", "go", "vet", "-tags", rootTag+","+spireTag, "./...")
	r.check(ctx, "go vet, linear cache", "go", "vet", "-C", "bench/baseline/linearcache", "./...")
	r.check(ctx, "staticcheck", "staticcheck", "-tags", rootTag+","+spireTag, "./...")
	return nil
}

func unit(ctx context.Context, r *runner) error {
	if err := r.goTestSplit(ctx, func(pkg string) bool { return !isE2E(pkg) }); err != nil {
		return err
	}
	return r.pkcs11(ctx)
}

// pkcs11 tests what only a build with cgo has, on a token of SoftHSM.
func (r *runner) pkcs11(ctx context.Context) error {
	if _, err := exec.LookPath("softhsm2-util"); err != nil || !r.race {
		r.notRun = append(r.notRun, "keys on a PKCS #11 token: needs gcc and softhsm2-util")
		return nil
	}
	// With -race, goTest uses cgo.
	return r.goTest(ctx, "-race", "-tags", "pkcs11", "-run", "PKCS11", "./internal/kek")
}

func e2e(ctx context.Context, r *runner) error {
	// Never from the cache: go does not see that these tests run other programs.
	return r.goTestSplit(ctx, isE2E, "-p", "1", "-count", "1")
}

func isE2E(pkg string) bool { return strings.Contains(pkg+"/", "/e2e/") }

// goTestSplit tests the packages that it chooses, with the race detector if
// there is one, with the tests that need root if we are root.
func (r *runner) goTestSplit(ctx context.Context, choose func(pkg string) bool, flags ...string) error {
	packages, err := listPackages(ctx)
	if err != nil {
		return err
	}
	var paths []string
	for _, p := range packages {
		if !choose(p.ImportPath) || !p.hasTests() {
			continue
		}
		if missing := missingPrograms(p.ImportPath); len(missing) > 0 {
			r.notRun = append(r.notRun, fmt.Sprintf("%s: needs %s", p.ImportPath, strings.Join(missing, " and ")))
			continue
		}
		paths = append(paths, p.ImportPath)
		if !r.root {
			for _, test := range p.rootTests {
				r.notRun = append(r.notRun, fmt.Sprintf("%s.%s: needs root", p.ImportPath, test))
			}
		}
	}
	if len(paths) == 0 {
		return fmt.Errorf("there is no test")
	}
	flags = append(flags, "-timeout", r.timeout.String())
	if r.root {
		flags = append(flags, "-tags", rootTag)
	}
	if r.race {
		flags = append(flags, "-race")
	} else {
		r.notRun = append(r.notRun, "the race detector: needs gcc")
	}
	return r.goTest(ctx, append(flags, paths...)...)
}

// missingPrograms names what a package's tests run and this machine lacks.
func missingPrograms(importPath string) (missing []string) {
	if !strings.HasSuffix(importPath, guide) {
		return nil
	}
	for _, name := range guidePrograms {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	return missing
}

// teeth shows that each guard's test bites: built without the guard, by the tag
// in tools/teeth.txt, the test must fail.
func teeth(ctx context.Context, r *runner) error {
	table, err := os.ReadFile("tools/teeth.txt")
	if err != nil {
		return err
	}
	for _, line := range strings.Split(string(table), "\n") {
		row := strings.Fields(line)
		if len(row) == 0 || strings.HasPrefix(row[0], "#") {
			continue
		}
		if len(row) != 3 {
			return fmt.Errorf("tools/teeth.txt: %q is not tag, package and test", line)
		}
		tag, pkg, test := row[0], row[1], row[2]
		outcome, err := quietTest(ctx, "-tags", tag, "-run", test, "-timeout", "5m", pkg)
		switch {
		case err != nil:
		case outcome.broken != "":
			err = fmt.Errorf("does not build with the guard off:\n%s", outcome.broken)
		case outcome.failed == 0:
			err = fmt.Errorf("%d tests passed with the guard off and none failed", outcome.passed)
		}
		r.count(fmt.Sprintf("teeth: without %s, %s in %s fails", strings.TrimPrefix(tag, "unguarded_"), test, pkg), err)
	}
	return nil
}

// fuzz runs every fuzz target for a while. Their corpora run with the unit tests.
func fuzz(ctx context.Context, r *runner) error {
	packages, err := listPackages(ctx)
	if err != nil {
		return err
	}
	targets := 0
	for _, p := range packages {
		for _, target := range p.fuzzTargets {
			targets++
			outcome, err := quietTest(ctx, "-run", "^$", "-fuzz", "^"+target+"$", "-fuzztime", r.fuzzTime.String(),
				"-fuzzminimizetime", "20x", p.ImportPath) // by default it may minimise one input all the time
			if err == nil && (outcome.failed > 0 || outcome.broken != "") {
				err = fmt.Errorf("%s\n%s", outcome.broken, outcome.output)
			}
			r.count(fmt.Sprintf("fuzz: %s in %s for %s", target, p.ImportPath, r.fuzzTime), err)
		}
	}
	if targets == 0 {
		return fmt.Errorf("there is no fuzz target")
	}
	return nil
}

func demo(ctx context.Context, r *runner) error {
	cmd := command(ctx, "./fairlead", "demo")
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, out)
	}
	r.count("fairlead demo", err)
	return nil
}

// bench runs the benchmarks small: all of their parts, none of their limits.
func bench(ctx context.Context, r *runner) error {
	cmd := command(ctx, "go", "run", "./bench", "-smoke")
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, out)
	}
	r.count("bench -smoke", err)
	return nil
}
