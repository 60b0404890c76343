package agent

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

// reapAfter leaves the children that somebody here waits for to them: a program
// that finds credentials, for one.
const reapAfter = time.Second

// reap collects the orphans that the kernel gives to the first process of a
// container. Envoy itself is waited for by the supervisor and left alone.
func reap(ctx context.Context, own func() int) {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	defer signal.Stop(children)
	due := time.After(reapAfter)
	for {
		select {
		case <-children:
			if due == nil {
				due = time.After(reapAfter)
			}
		case <-due:
			due = nil
			reapZombies(os.Getpid(), own)
		case <-ctx.Done():
			return
		}
	}
}

// reapZombies waits for each ended child but one.
func reapZombies(parent int, own func() int) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return // no /proc: orphans stay, which harms nobody but the process table
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == own() || !isZombieOf(pid, parent) {
			continue
		}
		var status syscall.WaitStatus
		syscall.Wait4(pid, &status, syscall.WNOHANG, nil) //nolint:errcheck // somebody else was faster
	}
}

// isZombieOf reads /proc/PID/stat: "pid (name) state parent …", where the name
// may hold anything.
func isZombieOf(pid, parent int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return false
	}
	fields := bytes.Fields(stat[end+1:])
	return len(fields) > 1 && string(fields[0]) == "Z" && string(fields[1]) == strconv.Itoa(parent)
}
