package agent

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// stableAfter is how long an Envoy has to live for its restarts to be forgotten.
	stableAfter = 30 * time.Second
	// killAfter is how long Envoy may take to end after SIGTERM.
	killAfter = 5 * time.Second
)

// supervisor keeps one Envoy running. Envoy never outlives the agent: the
// kernel kills it when the thread that started it ends.
type supervisor struct {
	binary string
	args   []string
	limit  int // restarts without a stable time between; -1: none
	out    io.Writer
	log    *slog.Logger

	state atomic.Pointer[processState]
	// changed is told that an Envoy has started or ended.
	changed func()
}

// processState is what is known of the Envoy process.
type processState struct {
	Pid      int // 0: not running
	Started  time.Time
	Restarts int    // since the agent started
	LastExit string // of the one before, or why it did not start
}

func (s *supervisor) current() processState {
	if state := s.state.Load(); state != nil {
		return *state
	}
	return processState{}
}

// run starts Envoy again and again until the context ends, then ends it. An
// error means that Envoy ended more often than it may.
func (s *supervisor) run(ctx context.Context) error {
	runtime.LockOSThread() // for Pdeathsig, see start
	defer runtime.UnlockOSThread()
	restarts, quick := 0, 0
	for {
		began := time.Now()
		exit := s.runOnce(ctx, restarts)
		s.set(processState{Restarts: restarts, LastExit: exit})
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) >= stableAfter {
			quick = 0
		}
		if s.limit >= 0 && quick >= s.limit {
			return fmt.Errorf("run Envoy: %s, after %d restarts (APPNET_ENVOY_RESTART_COUNT)", exit, quick)
		}
		pause := restartPause(quick)
		s.log.Error("Envoy ended; it is started again", "exit", exit, "after", time.Since(began).Round(time.Millisecond), "pause", pause.Round(time.Millisecond))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
		restarts++
		quick++
	}
}

// restartPause grows from a tenth of a second to ten seconds, with jitter.
func restartPause(restarts int) time.Duration {
	pause := 100 * time.Millisecond << min(restarts, 7)
	return pause/2 + rand.N(pause/2)
}

func (s *supervisor) runOnce(ctx context.Context, restarts int) (exit string) {
	cmd := exec.Command(s.binary, s.args...)
	// A pipe of our own, never the file itself: Envoy opens /dev/stdout anew for
	// its access logs, which it may not if the file is a socket, as systemd's
	// journal is, or belongs to another user.
	pipe := struct{ io.Writer }{s.out}
	cmd.Stdout, cmd.Stderr = pipe, pipe
	cmd.Env = envoyEnvironment(os.Environ())
	// A group of its own, so that a Ctrl-C at a terminal reaches the agent alone,
	// which then drains. The death signal is bound to this thread.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		return err.Error()
	}
	pid := cmd.Process.Pid
	s.set(processState{Pid: pid, Started: time.Now(), Restarts: restarts, LastExit: s.current().LastExit})
	s.log.Info("Envoy started", "pid", pid, "restarts", restarts)
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-ended:
			return
		case <-ctx.Done():
		}
		syscall.Kill(-pid, syscall.SIGTERM) //nolint:errcheck // it may have ended already
		select {
		case <-ended:
		case <-time.After(killAfter):
			s.log.Warn("Envoy did not end; it is killed", "pid", pid, "after", killAfter)
			syscall.Kill(-pid, syscall.SIGKILL) //nolint:errcheck // likewise
		}
	}()
	if err := cmd.Wait(); err != nil {
		return err.Error()
	}
	return cmd.ProcessState.String()
}

func (s *supervisor) set(state processState) {
	s.state.Store(&state)
	if s.changed != nil {
		s.changed()
	}
}

// envoyEnvironment leaves the agent's credentials out: Envoy does not need them.
func envoyEnvironment(all []string) []string {
	var kept []string
	for _, variable := range all {
		name, _, _ := strings.Cut(variable, "=")
		switch name {
		case "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN":
		default:
			kept = append(kept, variable)
		}
	}
	return kept
}

// raiseFileLimit lifts the limit on open files, each of which is a connection,
// to what the host allows. Go would lift its own and give Envoy the old one.
func raiseFileLimit() error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read limit of open files: %w", err)
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("raise limit of open files to %d: %w", limit.Max, err)
	}
	return nil
}
