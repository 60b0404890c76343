package redirect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// lockWait is how long, in seconds, a command waits for another one that holds
// the lock of iptables.
const lockWait = "10"

// family is iptables or its twin for IPv6.
type family struct {
	name string // as status prints it
	tool string
	ipv6 bool
}

var families = []family{{"IPv4", "iptables", false}, {"IPv6", "ip6tables", true}}

// Enable puts the rules in force; again, it replaces them by these. Without
// IPv6 the twins of an earlier Enable are removed.
func Enable(ctx context.Context, c Config) error {
	for _, f := range families {
		if f.ipv6 && !c.IPv6 {
			if err := f.disable(ctx); err != nil && !errors.Is(err, errNoFamily) {
				return err
			}
			continue
		}
		inForce, err := f.save(ctx)
		if err != nil {
			return err
		}
		if err := f.restore(ctx, c.enableScript(inForce, f.ipv6)); err != nil {
			return fmt.Errorf("enable the redirection of %s: %w", f.name, err)
		}
	}
	return nil
}

// Disable removes rules and chains of both families; where there are none it
// does nothing.
func Disable(ctx context.Context) error {
	for _, f := range families {
		if err := f.disable(ctx); err != nil && !(f.ipv6 && errors.Is(err, errNoFamily)) {
			return err
		}
	}
	return nil
}

// Status writes what is in force, as iptables would be told it. It returns
// whether anything is redirected.
func Status(ctx context.Context, out io.Writer) (enabled bool, err error) {
	for _, f := range families {
		inForce, err := f.save(ctx)
		if f.ipv6 && errors.Is(err, errNoFamily) {
			continue
		}
		if err != nil {
			return enabled, err
		}
		var rules []string
		jumped := false
		for _, line := range inForce {
			jumped = jumped || isJump(line)
			if isJump(line) || isOurs(line) {
				rules = append(rules, line)
			}
		}
		state := "disabled"
		if jumped {
			state, enabled = "enabled", true
		}
		if _, err := fmt.Fprintf(out, "%s: %s\n", f.name, state); err != nil {
			return enabled, fmt.Errorf("write status: %w", err)
		}
		for _, rule := range rules {
			if _, err := fmt.Fprintf(out, "  %s -t nat %s\n", f.tool, rule); err != nil {
				return enabled, fmt.Errorf("write status: %w", err)
			}
		}
	}
	return enabled, nil
}

func (f family) disable(ctx context.Context) error {
	inForce, err := f.save(ctx)
	if err != nil {
		return err
	}
	script := disableScript(inForce)
	if script == "" {
		return nil
	}
	if err := f.restore(ctx, script); err != nil {
		return fmt.Errorf("disable the redirection of %s: %w", f.name, err)
	}
	return nil
}

// errNoFamily: this host has no iptables for the family, or its kernel has no
// table nat for it. Where nobody asked for IPv6 that is no error: there can be
// no rules either.
var errNoFamily = errors.New("not available")

// save is table nat as lines.
func (f family) save(ctx context.Context) ([]string, error) {
	out, err := run(ctx, "", f.tool+"-save", "-t", "nat")
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) || errors.Is(err, exec.ErrNotFound) {
		return nil, fmt.Errorf("read the rules of %s: %w: %w", f.name, errNoFamily, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read the rules of %s: %w", f.name, err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n"), nil
}

// restore applies a script as one transaction.
func (f family) restore(ctx context.Context, script string) error {
	_, err := run(ctx, script, f.tool+"-restore", "--noflush", "--wait="+lockWait)
	return err
}

func run(ctx context.Context, input, name string, args ...string) ([]byte, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("iptables needs root: run it with sudo, or in a container as user 0 with the capability NET_ADMIN")
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, fmt.Errorf("%w: install the package iptables", err)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = strings.NewReader(input), &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}
