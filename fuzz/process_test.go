package fuzz

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process is the real binary, running in a process of its own.
type process struct {
	t       *testing.T
	bin     string
	dir     string
	addr    string
	logPath string
	cmd     *exec.Cmd
	ended   chan struct{} // closed when the process is gone
	end     error         // how it ended; valid once ended is closed
}

// buildBinary builds the broker as it is shipped.
func buildBinary(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "millrace")
	cmd := exec.Command("go", "build", "-o", bin, "../cmd/millrace")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the broker: %v\n%s", err, out)
	}
	return bin
}

// startProcess runs the broker on a port of the kernel's choosing and waits until it listens.
// What it logs is appended to logPath. A process that a test forgets ends with the test.
func startProcess(t *testing.T, bin, dir, logPath string, settings ...string) *process {
	t.Helper()
	return startProcessAt(t, "127.0.0.1:0", bin, dir, logPath, settings...)
}

// startProcessAt is startProcess on an address of the caller's, for clients that outlive the process.
func startProcessAt(t *testing.T, listen, bin, dir, logPath string, settings ...string) *process {
	t.Helper()
	p, err := runProcess(t, listen, bin, dir, logPath, settings...)
	if err != nil {
		t.Fatalf("the broker did not start: %v\n%s", err, tail(p.log()))
	}
	return p
}

// startLimit is how long a broker may take until it listens, on a machine that is busy.
const startLimit = 90 * time.Second

// runProcess is startProcessAt for those who know what to do with a broker that does not start:
// that is an error, at once where the process has ended.
func runProcess(t *testing.T, listen, bin, dir, logPath string, settings ...string) (*process, error) {
	t.Helper()
	p := &process{t: t, bin: bin, dir: dir, logPath: logPath, ended: make(chan struct{})}
	addrFile := filepath.Join(t.TempDir(), "addr")
	args := []string{"serve", "--data-dir", dir, "--listen", listen, "--addr-file", addrFile}
	for _, s := range settings {
		args = append(args, "--set", s)
	}
	p.cmd = exec.Command(bin, args...)
	logFile, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer logFile.Close()
	p.cmd.Stdout, p.cmd.Stderr = logFile, logFile
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.end = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(p.kill)
	deadline := time.After(startLimit)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if addr, err := os.ReadFile(addrFile); err == nil && len(addr) > 0 {
			p.addr = strings.TrimSpace(string(addr))
			return p, nil
		}
		select {
		case <-p.ended:
			return p, fmt.Errorf("the process has ended: %v", p.end)
		case <-deadline:
			return p, fmt.Errorf("nothing listens after %v", startLimit)
		case <-tick.C:
		}
	}
}

func (p *process) log() []byte {
	out, err := os.ReadFile(p.logPath)
	if err != nil {
		p.t.Error(err)
	}
	return out
}

func tail(p []byte) []byte { return p[max(0, len(p)-4000):] }

// kill ends the process as a power switch would end it, if it still runs.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	<-p.ended
}

// stop stops the broker as an operator would.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	late := time.AfterFunc(time.Minute, func() {
		_ = p.cmd.Process.Signal(syscall.SIGQUIT) // its stacks go to its log
	})
	defer late.Stop()
	<-p.ended
	return p.end
}

// verify has the offline check read every file of the data directory.
func (p *process) verify() error {
	if out, err := exec.Command(p.bin, "log", "verify", p.dir).CombinedOutput(); err != nil {
		return fmt.Errorf("log verify: %w\n%s", err, tail(out))
	}
	return nil
}

// alive says whether the process still runs.
func (p *process) alive() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// usage is what a process takes of the machine.
type usage struct {
	rss, peak int64 // bytes
	threads   int
	sockets   int
}

var errNoProc = errors.New("no /proc here")

// usage asks the kernel; errNoProc where there is nothing to ask.
func (p *process) usage() (usage, error) {
	proc := fmt.Sprintf("/proc/%d/", p.cmd.Process.Pid)
	status, err := os.ReadFile(proc + "status")
	if err != nil {
		return usage{}, errNoProc
	}
	number := func(key string) int64 {
		m := regexp.MustCompile(`(?m)^` + key + `:\s+(\d+)`).FindSubmatch(status)
		if m == nil {
			return 0
		}
		n, _ := strconv.ParseInt(string(m[1]), 10, 64) // digits only
		return n
	}
	u := usage{rss: number("VmRSS") << 10, peak: number("VmHWM") << 10, threads: int(number("Threads"))}
	fds, err := os.ReadDir(proc + "fd")
	if err != nil {
		return usage{}, err
	}
	for _, fd := range fds {
		if to, err := os.Readlink(proc + "fd/" + fd.Name()); err == nil && strings.HasPrefix(to, "socket:") {
			u.sockets++
		}
	}
	return u, nil
}

// A broker that refuses to start is noticed when it ends, not when the time for a start is over.
func TestStartOfAProcessThatEnds(t *testing.T) {
	dir, bin := t.TempDir(), buildBinary(t)
	began := time.Now()
	p, err := runProcess(t, "127.0.0.1:0", bin, filepath.Join(dir, "data"), filepath.Join(dir, "broker.log"), "log.segment.bytes=none")
	if err == nil || p.alive() || !strings.Contains(string(p.log()), "log.segment.bytes") {
		t.Fatalf("%v\n%s", err, tail(p.log()))
	}
	if took := time.Since(began); took > startLimit/2 {
		t.Errorf("it took %v to see it", took)
	}
	if err := p.stop(); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("stopping it: %v", err)
	}
	p.kill()
}
