package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"path/filepath"
	"slices"
	"strings"
)

// pkg is a package of the repository and what there is to run in it.
type pkg struct {
	ImportPath   string
	Dir          string
	TestGoFiles  []string
	XTestGoFiles []string

	rootTests   []string // tests in files with the tag root
	fuzzTargets []string
}

func (p pkg) testFiles() []string { return append(slices.Clone(p.TestGoFiles), p.XTestGoFiles...) }

func (p pkg) hasTests() bool { return len(p.testFiles()) > 0 }

// listPackages lists the packages of the main module, with the files that need
// root among them.
func listPackages(ctx context.Context) ([]pkg, error) {
	plain, err := goList(ctx)
	if err != nil {
		return nil, err
	}
	unprivileged := map[string]bool{}
	for _, p := range plain {
		for _, f := range p.testFiles() {
			unprivileged[filepath.Join(p.Dir, f)] = true
		}
	}
	all, err := goList(ctx, "-tags", rootTag)
	if err != nil {
		return nil, err
	}
	for i := range all {
		p := &all[i]
		for _, f := range p.testFiles() {
			path := filepath.Join(p.Dir, f)
			tests, fuzzTargets, err := functions(path)
			if err != nil {
				return nil, err
			}
			p.fuzzTargets = append(p.fuzzTargets, fuzzTargets...)
			if !unprivileged[path] {
				p.rootTests = append(p.rootTests, tests...)
			}
		}
	}
	return all, nil
}

func goList(ctx context.Context, flags ...string) ([]pkg, error) {
	args := append([]string{"list", "-json=ImportPath,Dir,TestGoFiles,XTestGoFiles"}, flags...)
	out, err := command(ctx, "go", append(args, "./...")...).Output()
	if err != nil {
		return nil, fmt.Errorf("list packages: %w", err)
	}
	var packages []pkg
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages, nil
		} else if err != nil {
			return nil, fmt.Errorf("read the list of packages: %w", err)
		}
		packages = append(packages, p)
	}
}

// functions names the tests and the fuzz targets in a file.
func functions(path string) (tests, fuzzTargets []string, err error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, nil, err
	}
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		switch {
		case !ok || f.Recv != nil || f.Name.Name == "TestMain":
		case strings.HasPrefix(f.Name.Name, "Test"):
			tests = append(tests, f.Name.Name)
		case strings.HasPrefix(f.Name.Name, "Fuzz"):
			fuzzTargets = append(fuzzTargets, f.Name.Name)
		}
	}
	return tests, fuzzTargets, nil
}

// lines are what a program prints.
func lines(ctx context.Context, name string, args ...string) ([]string, error) {
	out, err := command(ctx, name, args...).Output()
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", name, err)
	}
	var found []string
	for scanner := bufio.NewScanner(bytes.NewReader(out)); scanner.Scan(); {
		found = append(found, scanner.Text())
	}
	return found, nil
}
