package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/millrace-project/millrace/commitlog"
)

// engineWork is the log engine in this process, without network or broker: what it costs to get
// records to disk and back. Its target is itself.
type engineWork struct {
	work
	durability commitlog.Durability
	dir        string
	store      *commitlog.Store
	logs       []*commitlog.Log
}

func newEngineWork(name string, s Shape, d commitlog.Durability) engineWork {
	return engineWork{work: newWork(name, s), durability: d}
}

// InProcess names what is measured: it is no target that a plan has.
func (w *engineWork) InProcess() string { return "engine" }

// Prepare opens a store in a directory below the target's, with a log a partition.
func (w *engineWork) Prepare(_ context.Context, t *Target, run string) (err error) {
	if w.contents == nil {
		if w.contents, err = w.shape.contents(); err != nil {
			return err
		}
	}
	if w.dir, err = os.MkdirTemp(t.Dir, "millrace-engine-"); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	if w.store, err = commitlog.Open(w.dir, &commitlog.Options{Durability: w.durability}); err != nil {
		return err
	}
	for p := range w.shape.Partitions {
		l, err := w.store.Create(fmt.Sprintf("%s-%d", run, p), commitlog.TopicID{1}, nil)
		if err != nil {
			return err
		}
		w.logs = append(w.logs, l)
	}
	return nil
}

// Clean closes the store and removes its directory.
func (w *engineWork) Clean(context.Context, *Target) (err error) {
	if w.store != nil {
		err = w.store.Close(-1)
	}
	if w.dir != "" {
		err = errors.Join(err, os.RemoveAll(w.dir))
	}
	w.store, w.logs, w.dir, w.producers = nil, nil, "", nil
	return err
}

// Verify reads the logs back.
func (w *engineWork) Verify(context.Context, *Target) error {
	for p, l := range w.logs {
		v := newVerification(w.contents, w.producers, p)
		for buf := []byte(nil); v.next < l.EndOffset(); {
			before := v.next
			var err error
			if buf, err = readRecords(l, v.next, 8<<20, buf); err == nil {
				err = v.batches(buf)
			}
			if err == nil && v.next == before {
				err = errors.New("there is no whole batch")
			}
			if err != nil {
				return fmt.Errorf("bench: log %d, offset %d: %w", p, v.next, err)
			}
		}
		if err := v.whole(l.AcknowledgedOffset()); err != nil {
			return fmt.Errorf("bench: log %d: %w", p, err)
		}
	}
	return nil
}

// readRecords reads from an offset on into buf where that has room. Nothing comes at the end.
func readRecords(l *commitlog.Log, off int64, most int, buf []byte) ([]byte, error) {
	v, err := l.Read(off, l.EndOffset(), most, true)
	if v == nil {
		return buf[:0], err
	}
	defer v.Close()
	n := int(v.Len())
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	_, err = v.ReadAt(buf[:n], 0)
	return buf[:n], err
}

// measure has each worker do one thing after the other for d. All CPU time of this process counts as
// the engine's: the load takes little of it.
func (w *engineWork) measure(ctx context.Context, d time.Duration, workers []func() (carried, error)) (Figure, error) {
	tallies := make([]*tally, len(workers))
	for i := range tallies {
		tallies[i] = new(tally)
		tallies[i].init()
	}
	own := &Target{Name: w.InProcess(), PID: os.Getpid(), Dir: w.dir}
	f, err := w.driver.measure(ctx, own, tallies, func(start time.Time) time.Duration {
		during, cancel := context.WithDeadline(ctx, start.Add(d))
		defer cancel()
		var working sync.WaitGroup
		for i, work := range workers {
			working.Go(func() {
				for during.Err() == nil {
					begun := time.Now()
					what, err := work()
					if err = tallies[i].add(true, false, what, time.Since(begun), err); err != nil {
						tallies[i].failed(err)
						return
					}
				}
			})
		}
		working.Wait()
		return time.Since(start)
	})
	f.ClientCPU = -1
	for i := range f.Samples {
		f.Samples[i].ClientCPU = -1
	}
	return f, err
}

// engineAppendWork appends: with sync, each append waits until it is on disk, and so many of them
// wait at once as there are connections times requests in flight.
type engineAppendWork struct{ engineWork }

func newEngineAppendWork(d commitlog.Durability) func(name string, s Shape) Workload {
	return func(name string, s Shape) Workload { return &engineAppendWork{newEngineWork(name, s, d)} }
}

// Run appends for d.
func (w *engineAppendWork) Run(ctx context.Context, _ *Target, d time.Duration) (Figure, error) {
	workers := make([]func() (carried, error), w.shape.Connections*w.shape.InFlight)
	for i := range workers {
		workers[i] = w.appender(i).append
	}
	return w.measure(ctx, d, workers)
}

// appender is one producer, who appends to the logs in turns.
type appender struct {
	*engineWork
	producers []*producer // by log
	next      int         // log
	frames    [distinctBatches][]byte
	entry     [1]*commitlog.Entry
}

func (w *engineWork) appender(i int) *appender {
	a := &appender{engineWork: w, next: i % len(w.logs), producers: make([]*producer, len(w.logs))}
	for p := range a.producers {
		a.producers[p] = &producer{id: int64(len(w.producers)), first: (13*i + 7*p) % distinctBatches}
	}
	w.producers = append(w.producers, a.producers)
	a.entry[0] = &commitlog.Entry{ZstdAllowed: true}
	return a
}

// append appends the next batch and waits until it is acknowledged.
func (a *appender) append() (carried, error) {
	l, p := a.logs[a.next], a.producers[a.next]
	a.next = (a.next + 1) % len(a.logs)
	t, size := a.contents.nth(p, p.sent)
	frame := &a.frames[(int64(p.first)+p.sent)%distinctBatches]
	if *frame == nil {
		*frame = append(append(make([]byte, 0, size), t.header[:]...), t.payload...)
	}
	now := time.Now()
	a.contents.appendHeader((*frame)[:0], p, p.sent, t, now) // over the one that was stamped before
	a.entry[0].Data = *frame
	p.sent++
	l.Append(now.UnixMilli(), 0, a.entry[:])
	err := a.entry[0].Err
	if err == nil && a.durability == commitlog.Sync {
		err = l.Sync()
	}
	if err != nil {
		return carried{}, err
	}
	p.acked++
	return carried{records: int64(a.contents.records), bytes: int64(size), written: int64(size)}, nil
}

// engineReadWork reads logs that were written before into a buffer, each reader from one end to the
// other and again.
type engineReadWork struct{ engineWork }

func newEngineReadWork(name string, s Shape) Workload {
	s = s.withDefaults()
	s.BatchBytes, s.RecordBytes = s.readBatchBytes(), min(s.RecordBytes, s.readBatchBytes())
	return &engineReadWork{newEngineWork(name, s, commitlog.OS)}
}

// Prepare makes the logs and fills them.
func (w *engineReadWork) Prepare(ctx context.Context, t *Target, run string) error {
	if err := w.engineWork.Prepare(ctx, t, run); err != nil {
		return err
	}
	a := w.appender(0)
	for filled := int64(0); filled < w.shape.FillBytes || a.next != 0; {
		what, err := a.append()
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		filled += what.bytes
	}
	return nil
}

// Run reads for d.
func (w *engineReadWork) Run(ctx context.Context, _ *Target, d time.Duration) (Figure, error) {
	workers := make([]func() (carried, error), w.shape.Connections)
	for i := range workers {
		p := i % len(w.logs)
		l, r := w.logs[p], reading{partition: int32(p), end: w.logs[p].EndOffset()}
		r.off = part(r.end, int64(w.contents.records), i/len(w.logs), w.shape.Connections/len(w.logs)+1)
		var buf []byte
		workers[i] = func() (what carried, err error) {
			if r.off >= r.end {
				r.off = 0
			}
			if buf, err = readRecords(l, r.off, w.shape.FetchBytes, buf); err != nil {
				return what, err
			}
			r.answers++
			err = r.take(buf, r.answers%checkSumsEvery == 1, &what)
			return what, err
		}
	}
	return w.measure(ctx, d, workers)
}
