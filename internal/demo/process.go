package demo

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// stopWithin is how long a program has to stop by itself.
const stopWithin = 10 * time.Second

// processes are the programs of the demo. Each runs in a process group of its
// own, so that a Ctrl-C at the terminal reaches them through us, in order.
type processes struct {
	logs    string // folder of their logs
	log     *slog.Logger
	running []*process
}

type process struct {
	name   string
	cmd    *exec.Cmd
	log    string
	exited chan struct{} // closed when it has ended
}

// start runs a program. What it writes goes to its log; its standard output
// is passed on line by line to watch, if there is one.
func (p *processes) start(name string, cmd *exec.Cmd, watch func(line string)) (*process, error) {
	if err := os.MkdirAll(p.logs, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder for logs: %w", err)
	}
	path := filepath.Join(p.logs, name+".log")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", name, err)
	}
	cmd.Stderr = file
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	var lines sync.WaitGroup
	if watch == nil {
		cmd.Stdout = file
	} else {
		out, err := cmd.StdoutPipe()
		if err != nil {
			file.Close()
			return nil, fmt.Errorf("read the output of %s: %w", name, err)
		}
		lines.Go(func() { watchLines(out, file, watch) })
	}
	if err := cmd.Start(); err != nil {
		file.Close()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	started := &process{name: name, cmd: cmd, log: path, exited: make(chan struct{})}
	go func() {
		lines.Wait()
		if err := cmd.Wait(); err != nil {
			p.log.Debug("program ended", "program", name, "error", err)
		}
		file.Close()
		close(started.exited)
	}()
	p.running = append(p.running, started)
	return started, nil
}

func watchLines(out io.Reader, copyTo io.Writer, watch func(string)) {
	scanner := bufio.NewScanner(io.TeeReader(out, copyTo))
	for scanner.Scan() {
		watch(scanner.Text())
	}
}

// stopAll ends the programs, the last started first, and waits for them.
func (p *processes) stopAll() {
	var wait sync.WaitGroup
	for i := len(p.running) - 1; i >= 1; i-- { // all but the server
		wait.Go(p.running[i].stop)
	}
	wait.Wait()
	if len(p.running) > 0 {
		p.running[0].stop()
	}
}

func (p *process) stop() {
	p.signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(stopWithin):
		p.signal(syscall.SIGKILL)
		<-p.exited
	}
}

// signal reaches the whole process group; a program that is gone needs none.
func (p *process) signal(s syscall.Signal) {
	select {
	case <-p.exited:
	default:
		_ = syscall.Kill(-p.cmd.Process.Pid, s) // fails only if it ended just now
	}
}

// tails are the last lines of every log, for a failed demo.
func (p *processes) tails() string {
	var b strings.Builder
	for _, process := range p.running {
		content, err := os.ReadFile(process.log)
		if err != nil || len(content) == 0 {
			continue
		}
		lines := bytes.Split(bytes.TrimSpace(content), []byte("\n"))
		fmt.Fprintf(&b, "--- %s\n%s\n", process.name, bytes.Join(lines[max(0, len(lines)-8):], []byte("\n")))
	}
	return b.String()
}

// eventually tries until it succeeds, the program it depends on ends, or time
// runs out; then it returns the last error.
func eventually(ctx context.Context, within time.Duration, on *process, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-on.exited:
			return fmt.Errorf("%s ended: %w", on.name, err)
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}
