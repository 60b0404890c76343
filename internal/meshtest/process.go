package meshtest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// endWithin is what a process gets to end by itself.
const endWithin = 15 * time.Second

// logLines is how much of a process's log is printed when its test fails.
const logLines = 200

// Process is a running program. It runs in a process group of its own and is
// killed with the test; its log is printed if the test fails.
type Process struct {
	Name   string
	cmd    *exec.Cmd
	log    *logBuffer
	exited chan struct{}
}

// Start runs a program, as the user that its SysProcAttr names, if it has one.
// Lines of its standard output go to watch as well, if it is not nil.
func Start(t testing.TB, name string, cmd *exec.Cmd, watch func(line string)) *Process {
	t.Helper()
	p := &Process{Name: name, cmd: cmd, log: &logBuffer{}, exited: make(chan struct{})}
	cmd.Stderr = p.log
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid, cmd.SysProcAttr.Pdeathsig = true, syscall.SIGKILL
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		lines := bufio.NewScanner(io.TeeReader(out, p.log))
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			if watch != nil {
				watch(lines.Text())
			}
		}
		io.Copy(io.Discard, out) //nolint:errcheck // a line too long; the log has it
		fmt.Fprintf(p.log, "[%s ended: %v]\n", name, cmd.Wait())
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.KillAll()
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, p.log.tail(logLines))
		}
	})
	return p
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Log is all that the process has written so far, up to a bound.
func (p *Process) Log() string { return p.log.tail(1 << 30) }

// Running says whether the process has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// Exited is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Signal sends a signal to the process alone, not to its children.
func (p *Process) Signal(s syscall.Signal) {
	if p.Running() {
		syscall.Kill(p.PID(), s) //nolint:errcheck // fails only if it ended just now
	}
}

// Stop freezes the process (SIGSTOP); Continue thaws it.
func (p *Process) Stop() { p.Signal(syscall.SIGSTOP) }

// Continue goes on after Stop.
func (p *Process) Continue() { p.Signal(syscall.SIGCONT) }

// Kill ends the process as a crash does, and waits. Children live on.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	<-p.exited
}

// KillAll ends the process and its children as a crash does, and waits.
func (p *Process) KillAll() {
	syscall.Kill(-p.PID(), syscall.SIGKILL) //nolint:errcheck // nothing is left of the group
	<-p.exited
}

// Terminate asks the process to end and returns its exit code. It fails the
// test if the process needs too long.
func (p *Process) Terminate(t testing.TB) int {
	t.Helper()
	p.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(endWithin):
		t.Errorf("%s did not end within %s of SIGTERM", p.Name, endWithin)
		p.KillAll()
	}
	return p.cmd.ProcessState.ExitCode()
}

// logBuffer keeps what a process writes, up to a bound.
type logBuffer struct {
	mu   sync.Mutex
	data bytes.Buffer
}

const maxLog = 32 << 20

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.data.Len() > maxLog {
		b.data.Next(maxLog / 2)
	}
	return b.data.Write(p)
}

func (b *logBuffer) tail(lines int) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := strings.Split(strings.TrimRight(b.data.String(), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
