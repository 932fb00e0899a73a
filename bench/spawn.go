package bench

import (
	"bufio"
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A script of peers is run as `sh SCRIPT start DIR [KEY=VALUE]…` with the port to listen on in
// PORT, the next one free too. It keeps everything in DIR, prints lines KEY=VALUE — address,
// directory, version, pid last — and becomes the broker, or stays until SIGTERM has stopped it. One
// that prints protocol=NAME does not speak Kafka's: it is there to be loaded by its own clients.
//
//go:embed peers/*.sh
var peers embed.FS

const (
	kindMillrace   = "millrace"
	kindLimit      = "limit"       // many frames a read
	kindLimitPlain = "limit-plain" // two reads and a write a frame
	kindLimitSync  = "limit-sync"  // many frames a read, answered when they are on disk
)

const (
	startTime = 5 * time.Minute // a peer may have to be fetched first
	stopTime  = time.Minute
)

// Kinds names what Spawn can start.
func Kinds() []string {
	kinds := []string{kindMillrace, kindLimit, kindLimitPlain, kindLimitSync}
	files, err := peers.ReadDir("peers")
	if err != nil {
		panic("BUG: bench: " + err.Error())
	}
	for _, f := range files {
		if kind := strings.TrimSuffix(f.Name(), ".sh"); !bytes.Contains(script(kind), []byte("protocol=")) {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

// script is the peer's; nil: there is none of that name.
func script(kind string) []byte {
	p, err := peers.ReadFile("peers/" + kind + ".sh")
	if err != nil {
		return nil
	}
	return p
}

// SpawnOptions say where targets are started.
type SpawnOptions struct {
	Dir    string       // each target has a directory of its name in it; the caller removes it
	Binary string       // the millrace for the kinds millrace and limit
	Note   func(string) // is told what a start waits for; nil: nobody
}

// Spawned is a target that this process has started and stops.
type Spawned struct {
	Target
	Version string // as the target says; empty: it does not

	command func() (*exec.Cmd, error) // makes the process to be run
	speaks  bool                      // it prints lines
	log     string                    // file with its output
	cmd     *exec.Cmd
	stopped bool // by Stop
	exited  chan struct{}
	err     error // why it exited; read after exited is closed
}

// Start starts the target and returns when it answers. It is stopped again when ctx ends before.
func (sp Spawn) Start(ctx context.Context, o SpawnOptions) (*Spawned, error) {
	dir, err := filepath.Abs(filepath.Join(o.Dir, sp.Name))
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	port, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	limit := strings.HasPrefix(sp.Kind, kindLimit)
	s := &Spawned{
		Target:  Target{Name: sp.Name, Addr: loopback(port), Dir: filepath.Join(dir, "data"), Configs: sp.Configs},
		command: func() (*exec.Cmd, error) { return sp.command(o, dir, port) },
		speaks:  limit || script(sp.Kind) != nil,
		log:     filepath.Join(dir, "output.log"),
	}
	if !limit {
		s.Restart = s.restart
	}
	if o.Note != nil {
		o.Note(fmt.Sprintf("starting %s", sp))
	}
	if _, err := s.start(ctx, s.Answers, 20*time.Millisecond); err != nil {
		return nil, err
	}
	return s, nil
}

// start runs the process and returns how long it took until ready was nil, which is tried every so
// often. A process that never was is stopped.
func (s *Spawned) start(ctx context.Context, ready func(context.Context) error, every time.Duration) (time.Duration, error) {
	cmd, err := s.command()
	if err != nil {
		return 0, err
	}
	s.cmd, s.stopped, s.exited, s.err = cmd, false, make(chan struct{}), nil
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	begun := time.Now()
	told, err := s.run()
	if err != nil {
		s.stopped = true // there is nothing to stop
		return 0, err
	}
	if err := s.await(ctx, told, ready, every); err != nil {
		if s.Running() == nil {
			err = errors.Join(err, s.Stop())
		}
		return 0, err
	}
	return time.Since(begun), nil
}

// restart is the Target's Restart.
func (s *Spawned) restart(ctx context.Context, kill bool, ready func(context.Context) error) (time.Duration, error) {
	if err := s.Running(); err != nil {
		return 0, err
	}
	if kill {
		s.stopped = true
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
		<-s.exited
	} else if err := s.Stop(); err != nil {
		return 0, err
	}
	return s.start(ctx, ready, time.Millisecond)
}

// command is what runs the target, everything of it in dir.
func (sp Spawn) command(o SpawnOptions, dir string, port int) (*exec.Cmd, error) {
	data := filepath.Join(dir, "data")
	binary := o.Binary
	switch {
	case sp.Kind == kindLimit || sp.Kind == kindLimitPlain || sp.Kind == kindLimitSync:
		args := []string{"bench", "limit", "--listen", loopback(port), "--data-dir", data}
		if form, ok := strings.CutPrefix(sp.Kind, kindLimit+"-"); ok {
			args = append(args, "--"+form)
		}
		return exec.Command(binary, args...), nil
	case script(sp.Kind) != nil:
		file := filepath.Join(dir, sp.Kind+".sh")
		if err := os.WriteFile(file, script(sp.Kind), 0o755); err != nil {
			return nil, fmt.Errorf("bench: %w", err)
		}
		cmd := exec.Command("sh", append([]string{file, "start", dir}, sp.Settings...)...)
		cmd.Env = append(os.Environ(), fmt.Sprintf("PORT=%d", port))
		return cmd, nil
	case strings.ContainsRune(sp.Kind, '/'):
		binary = sp.Kind
	}
	cmd := exec.Command(binary, "serve", "--data-dir", data, "--listen", loopback(port))
	// What a workload has deleted makes room before the next one needs it, and no group waits for
	// more members than there are; peers are told the same.
	for _, kv := range append([]string{"log.segment.delete.delay.ms=1000", "group.initial.rebalance.delay.ms=0"}, sp.Settings...) {
		cmd.Args = append(cmd.Args, "--set", kv)
	}
	return cmd, nil
}

// run starts the process in a group of its own, so that a terminal's interrupt reaches us alone and
// nothing that a script started is left behind. What it prints as KEY=VALUE comes by the channel,
// which is closed at the end of its output.
func (s *Spawned) run() (<-chan string, error) {
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		log.Close()
		return nil, fmt.Errorf("bench: %w", err)
	}
	s.cmd.Stderr = log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		log.Close()
		return nil, fmt.Errorf("bench: starting %s: %w", s.Name, err)
	}
	s.PID = s.cmd.Process.Pid
	told := make(chan string, 16)
	go func() {
		defer close(s.exited)
		defer log.Close()
		for in := bufio.NewScanner(out); in.Scan(); {
			fmt.Fprintln(log, in.Text())
			select {
			case told <- in.Text():
			default: // nobody listens any longer
			}
		}
		_, _ = io.Copy(log, out) // after a line that was too long
		close(told)
		s.err = s.cmd.Wait()
	}()
	return told, nil
}

// await returns when the target has said what it has to say and is ready.
func (s *Spawned) await(ctx context.Context, told <-chan string, ready func(context.Context) error, every time.Duration) error {
	for speaks := s.speaks; speaks; {
		select {
		case line, more := <-told:
			if !more {
				<-s.exited
				return s.died()
			}
			done, err := s.learn(line)
			if err != nil {
				return err
			}
			speaks = !done
		case <-ctx.Done():
			return fmt.Errorf("bench: %s has not said its address: %w\n%s", s.Name, context.Cause(ctx), tail(s.log))
		}
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-s.exited:
			return s.died()
		case <-ctx.Done():
			return fmt.Errorf("bench: %s was not ready: %w\n%s", s.Name, err, tail(s.log))
		case <-tick.C:
		}
	}
}

// learn takes one line; the pid is the last that a target says.
func (s *Spawned) learn(line string) (last bool, err error) {
	key, value, ok := strings.Cut(line, "=")
	if !ok {
		return false, nil
	}
	switch key {
	case "address":
		s.Addr = value
	case "directory":
		s.Dir = value
	case "version":
		s.Version = value
	case "pid":
		if s.PID, err = strconv.Atoi(value); err != nil {
			return false, fmt.Errorf("bench: %s says pid=%s", s.Name, value)
		}
		return true, nil
	}
	return false, nil
}

func (s *Spawned) died() error {
	return fmt.Errorf("bench: %s has ended (%v)\n%s", s.Name, s.err, tail(s.log))
}

// Running is nil while the process is there, and says how it ended after.
func (s *Spawned) Running() error {
	select {
	case <-s.exited:
		return s.died()
	default:
		return nil
	}
}

// Stop stops the target with SIGTERM, or after a minute with everything that it has started by
// SIGKILL. The error says how it ended, when that was not well or before Stop. A second call does
// nothing; no two may be at work at once.
func (s *Spawned) Stop() error {
	if s.stopped {
		return nil
	}
	s.stopped = true
	if err := s.Running(); err != nil {
		return err
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have gone meanwhile
	select {
	case <-s.exited:
	case <-time.After(stopTime):
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
		<-s.exited
		return fmt.Errorf("bench: %s did not stop within %v and was killed\n%s", s.Name, stopTime, tail(s.log))
	}
	// A shell, and a JVM, end by SIGTERM with 128 + 15.
	var exit *exec.ExitError
	if errors.As(s.err, &exit) && exit.ExitCode() != 128+int(syscall.SIGTERM) {
		return s.died()
	}
	return nil
}

func tail(file string) string {
	const most = 4 << 10
	p, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return string(p[max(0, len(p)-most):])
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// freePorts returns the first of n consecutive ports of loopback that nobody listens on, below the
// range from which Linux takes those of outgoing connections: none can slip in before the target binds it.
func freePorts(n int) (int, error) {
	const first, last = 23000, 29999
	for port := first + os.Getpid()%1000; port+n <= last; port += n {
		if free(port, n) {
			return port, nil
		}
	}
	return 0, errors.New("bench: no free ports")
}

func free(port, n int) bool {
	return !slices.ContainsFunc(make([]struct{}, n), func(struct{}) bool {
		l, err := net.Listen("tcp", loopback(port))
		port++
		if err != nil {
			return true
		}
		l.Close()
		return false
	})
}
