// Package process runs one broker as a child process for the interop tests: it waits until the
// broker answers, stops it politely or kills it, and reads the CPU time that the kernel charged
// it. It knows nothing of what the broker is: packages kafka and subject do.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Broker is one running broker. Its methods may be called from any goroutine.
type Broker struct {
	Name string // "kafka" or "millrace", for messages
	Addr string // HOST:PORT of the client listener
	Dir  string // log directory (the one with meta.properties)
	Log  string // file with the process's output

	cmd    *exec.Cmd
	exited chan struct{}
	err    error // why it exited; read after exited is closed
}

// Start runs cmd with its output in logFile and returns when ready reports true.
// The broker is killed when that takes longer than wait.
func Start(name, addr, dir, logFile string, cmd *exec.Cmd, wait time.Duration, ready func(*Broker) bool) (*Broker, error) {
	out, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	b := &Broker{Name: name, Addr: addr, Dir: dir, Log: logFile, cmd: cmd, exited: make(chan struct{})}
	go func() {
		b.err = cmd.Wait()
		close(b.exited)
	}()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(wait)
	for {
		select {
		case <-b.exited:
			return nil, fmt.Errorf("%s exited at its start: %v\n%s", name, b.err, tail(logFile))
		case <-deadline:
			b.Kill()
			return nil, fmt.Errorf("%s did not answer within %v\n%s", name, wait, tail(logFile))
		case <-tick.C:
			if ready(b) {
				return b, nil
			}
		}
	}
}

// Answers reports whether the broker answers a request: a listener that only accepts may not have
// started yet.
func Answers(b *Broker) bool {
	c, err := net.DialTimeout("tcp", b.Addr, time.Second)
	if err != nil {
		return false
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return false
	}
	apiVersions := []byte{0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff} // version 0, no client id
	if _, err := c.Write(apiVersions); err != nil {
		return false
	}
	var answer [8]byte
	_, err = io.ReadFull(c, answer[:])
	return err == nil && answer[7] == 1
}

// PID returns the process id.
func (b *Broker) PID() int { return b.cmd.Process.Pid }

// Running reports whether the process is still there.
func (b *Broker) Running() bool {
	select {
	case <-b.exited:
		return false
	default:
		return true
	}
}

// Stop sends SIGTERM and waits until the broker has gone; it is killed after a minute.
func (b *Broker) Stop() error {
	if !b.Running() {
		return nil
	}
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-b.exited:
	case <-time.After(time.Minute):
		b.Kill()
		return fmt.Errorf("%s did not stop within a minute\n%s", b.Name, tail(b.Log))
	}
	var exit *exec.ExitError
	if errors.As(b.err, &exit) && exit.ExitCode() != 128+int(syscall.SIGTERM) { // the JVM exits with 143
		return fmt.Errorf("%s stopped with %v\n%s", b.Name, b.err, tail(b.Log))
	}
	return nil
}

// Kill ends the broker with SIGKILL and waits until it has gone.
func (b *Broker) Kill() {
	if b.Running() {
		_ = b.cmd.Process.Kill() // it may have gone meanwhile
		<-b.exited
	}
}

// CPU returns the user and system time that the process has used, from /proc/PID/stat.
func (b *Broker) CPU() (time.Duration, error) {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(b.PID()), "stat"))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", b.PID(), len(fields))
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	const ticksPerSecond = 100 // USER_HZ, the same on every Linux port of Go
	return time.Duration(user+system) * time.Second / ticksPerSecond, errors.Join(err1, err2)
}

// The ports that brokers under test get: below the kernel's own range, so that no client
// connection takes one between FreePorts and the listener's bind.
const (
	firstPort = 22000
	lastPort  = 22199
)

var nextPort atomic.Int64

// FreePorts returns n consecutive ports on loopback that nobody listens on.
func FreePorts(n int) (int, error) {
	span := int64(lastPort - firstPort + 1)
	for range span {
		at := (int64(os.Getpid())*8 + nextPort.Add(int64(n)) - int64(n)) % span
		port := firstPort + int(at)
		if port+n-1 <= lastPort && allFree(port, n) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no %d free ports in %d–%d", n, firstPort, lastPort)
}

func allFree(port, n int) bool {
	for p := port; p < port+n; p++ {
		l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", fmt.Sprintf("127.0.0.1:%d", p))
		if err != nil {
			return false
		}
		l.Close()
	}
	return true
}

func tail(name string) string {
	const n = 4 << 10
	p, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	return string(p[max(0, len(p)-n):])
}
