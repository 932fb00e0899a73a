package fuzz

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Options of a search.
type Options struct {
	Targets  []*Target
	Seed     uint64
	Duration time.Duration // of all targets together, which share it evenly; 0: as long as the inputs last
	Inputs   int64         // for each worker of each target; 0: as many as the time allows
	Workers  int           // processes that search one target at the same time
	Deadline time.Duration // for one input
	Dir      string        // where the inputs of findings are written
	Command  []string      // starts a worker, with WorkerArgs behind it
	Progress func(Status)  // called a few times a second and at the end of each target; nil: not. One call at a time, of Found too
	Found    func(f *Finding, file string)
}

// Status is how far the search of one target is.
type Status struct {
	Target   string
	Number   int // of Total, from 1
	Total    int
	Inputs   int64
	Outcomes int // the most that one worker saw
	Findings int
	Elapsed  time.Duration
	Done     bool
}

// maxFindings of one target end its search, and so do as many processes of a worker that inputs
// ended: what comes then is most likely the same again.
const maxFindings = 20

// Run searches the targets one after another, each by some processes, and returns how many findings
// there were.
func Run(ctx context.Context, o Options) (findings int, err error) {
	tmp, err := os.MkdirTemp("", "millrace-fuzz-")
	if err != nil {
		return 0, fmt.Errorf("fuzz: %w", err)
	}
	defer os.RemoveAll(tmp)
	for i, t := range o.Targets {
		s := &search{t: t, o: o, tmp: tmp, began: time.Now(), share: o.Duration / time.Duration(len(o.Targets))}
		s.mu.status = Status{Target: t.Name, Number: i + 1, Total: len(o.Targets)}
		s.mu.inputs = make([]int64, o.Workers)
		s.mu.known = map[string]bool{}
		err := s.run(ctx)
		findings += s.mu.status.Findings
		if err != nil || ctx.Err() != nil {
			return findings, err
		}
	}
	return findings, nil
}

// search is the search of one target.
type search struct {
	t     *Target
	o     Options
	tmp   string
	began time.Time
	share time.Duration // of the whole time
	stop  func()        // ends the search of this target

	calls sync.Mutex // of Progress and Found, one at a time

	mu struct {
		sync.Mutex
		status Status
		inputs []int64 // by worker
		known  map[string]bool
	}
}

func (s *search) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.stop = cancel
	errs := make([]error, s.o.Workers)
	var all sync.WaitGroup
	for i := range s.o.Workers {
		all.Go(func() {
			if errs[i] = s.worker(ctx, i); errs[i] != nil {
				cancel()
			}
		})
	}
	all.Wait()
	s.mu.Lock()
	s.mu.status.Done = true
	s.mu.Unlock()
	s.progress()
	return errors.Join(errs...)
}

// worker keeps one process searching until the search is over. One that an input ends is followed by
// another with other inputs.
func (s *search) worker(ctx context.Context, i int) error {
	var before int64
	for restart := 0; ctx.Err() == nil && restart < maxFindings; restart++ {
		left := s.share - time.Since(s.began)
		if s.share > 0 && left <= 0 {
			return nil
		}
		inputs := s.o.Inputs
		if inputs > 0 {
			if inputs -= before; inputs <= 0 {
				return nil
			}
		}
		wo := WorkerOptions{Seed: s.o.Seed, Stream: uint64(i + restart*s.o.Workers), Inputs: inputs, Deadline: s.o.Deadline, Current: filepath.Join(s.tmp, strconv.Itoa(i))}
		if s.share > 0 {
			wo.Duration = left
		}
		n, done, err := s.process(ctx, i, before, wo)
		if before += n; done || err != nil || ctx.Err() != nil {
			return err
		}
		before++ // that which ended it
	}
	return nil
}

// process runs one process to its end. done says that it ended by itself, as it should.
func (s *search) process(ctx context.Context, i int, before int64, wo WorkerOptions) (inputs int64, done bool, err error) {
	cmd := exec.CommandContext(ctx, s.o.Command[0], append(s.o.Command[1:len(s.o.Command):len(s.o.Command)], WorkerArgs(s.t, wo)...)...)
	var stderr headWriter
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe() // its end is how an orphan learns of it
	if err != nil {
		return 0, false, fmt.Errorf("fuzz: %w", err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return 0, false, fmt.Errorf("fuzz: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return 0, false, fmt.Errorf("fuzz: start a worker: %w", err)
	}
	hung := false
	silence := time.AfterFunc(s.o.Deadline+time.Minute, func() { _ = cmd.Process.Kill() })
	for dec := json.NewDecoder(stdout); ; {
		var m message
		if dec.Decode(&m) != nil {
			break
		}
		silence.Reset(s.o.Deadline + time.Minute)
		if m.Finding != nil {
			hung = hung || m.Finding.Kind == "hang"
			if err := s.found(m.Finding); err != nil {
				return inputs, false, err
			}
			continue
		}
		inputs, done = m.Inputs, done || m.Done
		s.mu.Lock()
		s.mu.inputs[i] = before + m.Inputs
		s.mu.status.Outcomes = max(s.mu.status.Outcomes, m.Outcomes)
		s.mu.Unlock()
		s.progress()
	}
	_, _ = io.Copy(io.Discard, stdout)
	silence.Stop()
	err = cmd.Wait()
	if done || hung || ctx.Err() != nil {
		return inputs, done, nil
	}
	return inputs, false, s.crashed(wo, err, stderr.String())
}

// crashed makes a finding of the end of a process: a fatal error of the runtime, or a panic in a
// goroutine that the target started.
func (s *search) crashed(wo WorkerOptions, end error, stderr string) error {
	p, err := readCurrent(wo.Current)
	if err != nil {
		return fmt.Errorf("fuzz: a worker ended before its first input: %v\n%s", end, stderr)
	}
	what, _, _ := strings.Cut(stderr, "\n")
	return s.found(s.t.finding("crash", fmt.Sprintf("%v: %s", end, stderr), panicKey(what, stderr), p))
}

// found writes a finding's input to a file, once for each cause.
func (s *search) found(f *Finding) error {
	s.mu.Lock()
	known := s.mu.known[f.Key]
	s.mu.known[f.Key] = true
	if !known {
		s.mu.status.Findings++
	}
	if s.mu.status.Findings >= maxFindings {
		s.stop()
	}
	s.mu.Unlock()
	if known {
		return nil
	}
	if err := os.MkdirAll(s.o.Dir, 0o755); err != nil {
		return fmt.Errorf("fuzz: %w", err)
	}
	sum := sha256.Sum256(f.Input)
	file := filepath.Join(s.o.Dir, fmt.Sprintf("%s-%x", f.Target, sum[:6]))
	if err := errors.Join(os.WriteFile(file, f.Input, 0o644), os.WriteFile(file+".txt", []byte(f.Kind+": "+f.Detail+"\n"), 0o644)); err != nil {
		return fmt.Errorf("fuzz: %w", err)
	}
	if s.o.Found != nil {
		s.calls.Lock()
		defer s.calls.Unlock()
		s.o.Found(f, file)
	}
	return nil
}

func (s *search) progress() {
	if s.o.Progress == nil {
		return
	}
	s.mu.Lock()
	st := s.mu.status
	for _, n := range s.mu.inputs {
		st.Inputs += n
	}
	s.mu.Unlock()
	st.Elapsed = time.Since(s.began)
	s.calls.Lock()
	defer s.calls.Unlock()
	s.o.Progress(st)
}

// WorkerArgs are the arguments that say to a worker what it does; ParseWorkerArgs reads them.
func WorkerArgs(t *Target, o WorkerOptions) []string {
	p, err := json.Marshal(o)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return []string{t.Name, string(p)}
}

// ParseWorkerArgs reads what WorkerArgs gave: the name of a target, and what to do with it.
func ParseWorkerArgs(args []string) (target string, o WorkerOptions, err error) {
	if len(args) != 2 {
		return "", o, fmt.Errorf("fuzz: a worker has two arguments, here are %d", len(args))
	}
	if err := json.Unmarshal([]byte(args[1]), &o); err != nil {
		return "", o, fmt.Errorf("fuzz: a worker's options: %w", err)
	}
	return args[0], o, nil
}

// headWriter keeps the first 64 KiB: where a process says why it dies.
type headWriter struct{ p []byte }

func (h *headWriter) Write(p []byte) (int, error) {
	h.p = append(h.p, p[:min(len(p), 64<<10-len(h.p))]...)
	return len(p), nil
}

func (h *headWriter) String() string { return string(h.p) }
