package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// event is a line of go test -json, and of go build -json before it.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
}

// outcome is what a go test came to.
type outcome struct {
	passed, failed, skipped int
	broken                  string // what the compiler said
	output                  string // of the tests that failed
}

// goTest runs go test and prints what it prints without -v: a line for each
// package, the output of what failed.
func (r *runner) goTest(ctx context.Context, args ...string) error {
	o, err := runTests(ctx, os.Stdout, args...)
	r.passed += o.passed
	r.failed += o.failed
	r.skipped += o.skipped
	return err
}

// quietTest runs go test and prints nothing.
func quietTest(ctx context.Context, args ...string) (outcome, error) {
	return runTests(ctx, io.Discard, args...)
}

func runTests(ctx context.Context, out io.Writer, args ...string) (outcome, error) {
	cmd := command(ctx, "go", append([]string{"test", "-json"}, args...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	for _, a := range args {
		if a == "-race" {
			cmd.Env = append(cmd.Env, "CGO_ENABLED=1")
		}
	}
	events, err := cmd.StdoutPipe()
	if err != nil {
		return outcome{}, err
	}
	if err := cmd.Start(); err != nil {
		return outcome{}, fmt.Errorf("start go test: %w", err)
	}
	o, readErr := follow(events, out)
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return o, ctx.Err()
	case readErr != nil:
		return o, readErr
	case errors.As(err, &exit) && o.failed > 0:
		return o, nil // it is in the count
	case errors.As(err, &exit) && o.broken != "":
		fmt.Fprint(out, o.broken)
		o.failed++
		return o, nil
	}
	return o, err
}

// follow reads events to the end.
func follow(events io.Reader, out io.Writer) (o outcome, err error) {
	said := map[string]*strings.Builder{} // by package and test, until it has ended
	scanner := bufio.NewScanner(events)
	scanner.Buffer(nil, 16<<20)
	for scanner.Scan() {
		var e event
		if err := json.Unmarshal(scanner.Bytes(), &e); err != nil {
			o.broken += scanner.Text() + "\n" // not JSON: go itself complains
			continue
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "build-output":
			o.broken += e.Output
		case "output":
			if said[key] == nil {
				said[key] = new(strings.Builder)
			}
			said[key].WriteString(e.Output)
		case "pass", "fail", "skip":
			o.end(e, said[key], out)
			delete(said, key)
		}
	}
	if err := scanner.Err(); err != nil {
		return o, fmt.Errorf("read the output of go test: %w", err)
	}
	return o, nil
}

// end counts a test or package that has ended and prints what is worth it.
func (o *outcome) end(e event, said *strings.Builder, out io.Writer) {
	text := ""
	if said != nil {
		text = said.String()
	}
	if e.Test == "" {
		if e.Action == "fail" && o.failed == 0 {
			o.failed++ // it ended outside of any test: a panic, a timeout, the compiler
		}
		if e.Action == "fail" {
			o.output += text
			fmt.Fprint(out, text)
			return
		}
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "ok ") {
				fmt.Fprint(out, line)
			}
		}
		return
	}
	switch e.Action {
	case "pass":
		o.passed++
	case "skip":
		o.skipped++
		fmt.Fprint(out, text)
	case "fail":
		o.failed++
		o.output += text
		fmt.Fprint(out, text)
	}
}
