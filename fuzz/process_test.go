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

// startProcess runs the broker on a port of the kernel's choosing and waits for its first answer.
// What it logs is appended to logPath. A process that a test forgets ends with the test.
func startProcess(t *testing.T, bin, dir, logPath string, settings ...string) *process {
	t.Helper()
	return startProcessAt(t, "127.0.0.1:0", bin, dir, logPath, settings...)
}

// startProcessAt is startProcess on an address of the caller's, for clients that outlive the process.
func startProcessAt(t *testing.T, listen, bin, dir, logPath string, settings ...string) *process {
	t.Helper()
	p := &process{t: t, bin: bin, dir: dir, logPath: logPath}
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
	t.Cleanup(p.kill)
	deadline := time.After(90 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if addr, err := os.ReadFile(addrFile); err == nil && len(addr) > 0 {
			p.addr = strings.TrimSpace(string(addr))
			return p
		}
		select {
		case <-deadline:
			t.Fatalf("the broker did not start:\n%s", tail(p.log()))
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
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill() // it may have ended by itself
		_ = p.cmd.Wait()         // says that it was killed
	}
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
	return p.cmd.Wait()
}

// verify has the offline check read every file of the data directory.
func (p *process) verify() error {
	if out, err := exec.Command(p.bin, "log", "verify", p.dir).CombinedOutput(); err != nil {
		return fmt.Errorf("log verify: %w\n%s", err, tail(out))
	}
	return nil
}

// alive says whether the process still runs.
func (p *process) alive() bool { return p.cmd.Process.Signal(syscall.Signal(0)) == nil && !p.zombie() }

// zombie: it has ended, and nobody has waited for it yet.
func (p *process) zombie() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	return err == nil && strings.Contains(string(stat), "State:\tZ")
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
