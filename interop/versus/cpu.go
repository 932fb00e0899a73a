package main

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/millrace-project/millrace/bench"
)

// cpuTimes is what the machine and this process have used at one moment.
type cpuTimes struct {
	busy, all time.Duration // of all cores; 0 where unknown
	self      time.Duration
}

// readCPU reads the first line of /proc/stat (proc(5)): user, nice, system, idle, iowait, irq,
// softirq, steal, in hundredths of a second. Where there is none, all stays 0.
func readCPU() cpuTimes {
	var t cpuTimes
	var use syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &use) == nil {
		t.self = time.Duration(use.Utime.Nano() + use.Stime.Nano())
	}
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return t
	}
	line, _, _ := bytes.Cut(stat, []byte("\n"))
	for i, f := range bytes.Fields(line) {
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil || i > 8 {
			continue
		}
		const idle, iowait = 4, 5
		t.all += time.Duration(n) * 10 * time.Millisecond
		if i != idle && i != iowait {
			t.busy += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return t
}

// others is the share of the machine that went to neither the broker nor this process: the
// kernel's write-back, and whatever else ran. -1 where it is unknown.
func (t cpuTimes) others(end cpuTimes, res bench.Result) float64 {
	all := end.all - t.all
	if all <= 0 || res.BrokerCPU < 0 {
		return -1
	}
	return max(0, float64(end.busy-t.busy-(end.self-t.self)-res.BrokerCPU)/float64(all))
}
