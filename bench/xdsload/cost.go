package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead/fairlead/bench/loadrun"
)

// cost is a reading of who has used how many seconds of CPU until now.
type cost struct {
	at                   time.Time
	server, client, host float64
}

const userHz = 100 // of /proc/stat, on every Linux there is

// readCost reads what it can; what cannot be read is zero.
func readCost(pid int) cost {
	c := cost{at: time.Now()}
	if pid > 0 {
		// The kernel's clock of another process's CPU time, to the nanosecond:
		// what MAKE_PROCESS_CPUCLOCK of <linux/posix-timers.h> makes.
		var t unix.Timespec
		if unix.ClockGettime(int32(^pid<<3|2), &t) == nil {
			c.server = float64(t.Nano()) / 1e9
		}
	}
	var used syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &used) == nil {
		c.client = float64(used.Utime.Nano()+used.Stime.Nano()) / 1e9
	}
	if b, err := os.ReadFile("/proc/stat"); err == nil {
		line, _, _ := bytes.Cut(b, []byte("\n"))
		for i, field := range strings.Fields(string(line))[1:] {
			if v, err := strconv.ParseFloat(field, 64); err == nil && i != 3 && i != 4 && i < 8 { // not idle, iowait, guest
				c.host += v / userHz
			}
		}
	}
	return c
}

// memory is a field of /proc/PID/status in MiB.
func memory(pid int, field string) float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			kib, _ := strconv.ParseFloat(strings.Fields(v)[0], 64) // the kernel writes a number
			return kib / 1024
		}
	}
	return 0
}

func (c cost) until(now cost, pid int) loadrun.Cost {
	r := loadrun.Cost{Seconds: now.at.Sub(c.at).Seconds(), ServerCPU: now.server - c.server, ClientCPU: now.client - c.client}
	r.OtherCPU = max(0, now.host-c.host-r.ServerCPU-r.ClientCPU)
	if pid > 0 {
		r.ServerRSS, r.ServerHWM = memory(pid, "VmRSS"), memory(pid, "VmHWM")
	}
	return r
}

// take reads and zeroes the counters.
func (t *traffic) take() loadrun.Flow {
	r := loadrun.Flow{Messages: map[string]int64{}, Bytes: map[string]int64{}}
	for k := range kindName {
		if n := t.messages[k].Swap(0); n > 0 {
			r.Messages[kindName[k]] = n
		}
		if n := t.bytes[k].Swap(0); n > 0 {
			r.Bytes[kindName[k]] = n
			r.AllBytes += n
		}
	}
	return r
}
