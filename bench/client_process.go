package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// process is a client's own program.
type process struct {
	cmd  *exec.Cmd
	feed func(ctx context.Context, in io.Writer) error // writes its input; nil: it has none
	out  bytes.Buffer
	took time.Duration // from its start to its end
}

// did is what a program did, as it says or as we have seen.
type did struct {
	records int64
	took    time.Duration
	latency *hdrhistogram.Histogram // nil: unknown
}

// stuck is how much longer than a load lasts a program may take before it is given up.
const stuck = 3 * time.Minute

// byProcesses takes a figure of programs that load the target side by side; read turns what one has
// printed into what it did. The slowest gives the time. Their CPU time counts from their start.
func (l *clientLoad) byProcesses(ctx context.Context, all []*process, read func(p *process) (did, error)) (Figure, error) {
	ctx, cancel := context.WithTimeout(ctx, l.duration+stuck)
	defer cancel()
	errs := make([]error, len(all))
	f, err := l.work.driver.measure(ctx, l.target, nil, func(start time.Time) time.Duration {
		var wg sync.WaitGroup
		for i, p := range all {
			wg.Go(func() { errs[i] = p.run(ctx) })
		}
		wg.Wait()
		return time.Since(start)
	})
	if err = errors.Join(append(errs, err)...); err != nil {
		return f, err
	}
	f.Elapsed = 0
	for _, p := range all {
		d, err := read(p)
		if err != nil {
			return f, fmt.Errorf("bench: %s: %w", p.name(), err)
		}
		f.Records += d.records
		f.Elapsed = max(f.Elapsed, d.took)
		if d.latency != nil {
			f.Latency.Merge(d.latency)
		}
		if f.ClientCPU >= 0 {
			f.ClientCPU += p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
		}
	}
	f.Requests, f.Bytes = f.Records, f.Records*int64(l.work.shape.RecordBytes)
	return f, nil
}

func (p *process) name() string { return filepath.Base(p.cmd.Path) }

// run returns when the program has ended; the error has the end of what it said.
func (p *process) run(ctx context.Context) error {
	var said bytes.Buffer
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &said
	var in io.WriteCloser
	if p.feed != nil {
		var err error
		if in, err = p.cmd.StdinPipe(); err != nil {
			return fmt.Errorf("bench: %w", err)
		}
	}
	start := time.Now()
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	ended := context.AfterFunc(ctx, func() { _ = p.cmd.Process.Kill() }) // it may have gone meanwhile
	defer ended()
	var fed error
	if in != nil {
		fed = errors.Join(p.feed(ctx, in), in.Close())
	}
	err := p.cmd.Wait()
	p.took = time.Since(start)
	if err == nil {
		err = fed
	}
	if err != nil {
		const most = 2 << 10
		text := said.Bytes()
		return fmt.Errorf("bench: %s: %w\n%s", p.name(), errors.Join(context.Cause(ctx), err), text[max(0, len(text)-most):])
	}
	return nil
}

// stepped is a histogram of n latencies of which only percentiles are known: those between two of
// them count as the upper one.
func stepped(n int64, percents []float64, at []time.Duration) *hdrhistogram.Histogram {
	h := newHistogram()
	var below int64
	for i, d := range at {
		upTo := min(n, int64(percents[i]/100*float64(n)+0.999999))
		if upTo > below {
			_ = h.RecordValues(min(max(1, d.Nanoseconds()), h.HighestTrackableValue()), upTo-below) // within its range
			below = upTo
		}
	}
	return h
}
