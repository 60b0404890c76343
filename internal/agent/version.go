package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// versionTimeout bounds the question for Envoy's version.
const versionTimeout = 10 * time.Second

// envoyVersion asks the binary. An Envoy that cannot even say its version will
// not run: better told at once than by restarts.
func envoyVersion(ctx context.Context, binary string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "--version")
	cmd.Env = []string{}
	cmd.WaitDelay = time.Second // what it has started may hold its output open
	out, err := cmd.Output()
	if ctx.Err() == context.DeadlineExceeded {
		err = fmt.Errorf("no answer within %s", versionTimeout)
	}
	if failed, ok := errors.AsType[*exec.ExitError](err); ok && len(failed.Stderr) > 0 {
		err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(failed.Stderr))
	}
	if err != nil {
		return "", fmt.Errorf("run %s --version: %w", binary, err)
	}
	version, ok := shortVersion(string(out))
	if !ok {
		return "", fmt.Errorf("run %s --version: %.100q is not what an Envoy says; is ENVOY_BIN one?", binary, bytes.TrimSpace(out))
	}
	return version, nil
}

// shortVersion is 1.40.0 of "… version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL".
func shortVersion(full string) (version string, ok bool) {
	_, rest, ok := strings.Cut(full, "version: ")
	parts := strings.Split(rest, "/")
	if !ok || len(parts) < 2 || parts[1] == "" {
		return "", false
	}
	return parts[1], true
}
