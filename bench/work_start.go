package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/batch"
)

// startWork stops the target cleanly and starts it on what it holds, as often as fits a run. A start
// is over with the first answer to a Metadata request that names a broker.
type startWork struct{ work }

func newStartWork(name string, s Shape) Workload { return &startWork{newWork(name, s)} }

// Cold says that a run begins with a process that has just been started: no warm-up can change it.
func (w *startWork) Cold() bool { return true }

// Prepare makes nothing: the target holds what it holds.
func (w *startWork) Prepare(_ context.Context, t *Target, _ string) error {
	return restartable(t, w.name)
}

// restartable says why a target cannot be stopped and started.
func restartable(t *Target, workload string) error {
	if t.Restart == nil {
		return fmt.Errorf("%w: %s wants a target that the bench has started and that keeps what it is given, which %s is not", errNotServed, workload, t.Name)
	}
	return nil
}

// Run starts the target again and again.
func (w *startWork) Run(ctx context.Context, t *Target, d time.Duration) (Figure, error) {
	f := newStartFigure()
	for begun := time.Now(); f.Requests == 0 || time.Since(begun) < d; {
		took, err := t.Restart(ctx, false, func(ctx context.Context) error { return namesBroker(ctx, t.Addr) })
		if err != nil {
			return f, err
		}
		f.started(t, took)
	}
	return f, nil
}

// Verify has nothing to read back: what ended each start was an answer.
func (w *startWork) Verify(context.Context, *Target) error { return nil }

// namesBroker is nil when the target answers a Metadata request, and names a broker in it.
func namesBroker(ctx context.Context, addr string) error {
	req := kmsg.NewPtrMetadataRequest()
	req.SetVersion(4)
	req.Topics = []kmsg.MetadataRequestTopic{} // none; nil asks for all
	resp, err := ask(ctx, addr, req)
	if err == nil && len(resp.(*kmsg.MetadataResponse).Brokers) == 0 {
		err = errors.New("bench: it knows of no broker yet")
	}
	return err
}

// newStartFigure is one whose requests are starts.
func newStartFigure() Figure {
	return Figure{ClientCPU: -1, RSS: -1, DiskBytes: -1, Latency: newHistogram()}
}

// started enters a start that is over: the process's CPU time and memory are of it alone.
func (f *Figure) started(t *Target, took time.Duration) {
	f.Requests++
	f.Elapsed += took
	record(f.Latency, took)
	f.RSS = max(f.RSS, residentBytes(t.PID))
	if cpu, err := cpuTime(t.PID); err != nil || cpu < 0 || f.ServerCPU < 0 {
		f.ServerCPU = -1
	} else {
		f.ServerCPU += cpu
	}
}

// recoverWork kills the target while all partitions of a topic are written to, and starts it again.
// That is over when every partition has told its end and given its last batch.
type recoverWork struct{ work }

func newRecoverWork(name string, s Shape) Workload { return &recoverWork{newWork(name, s)} }

// Cold says that a run measures a process that has just been started.
func (w *recoverWork) Cold() bool { return true }

// Prepare makes the topic and fills it.
func (w *recoverWork) Prepare(ctx context.Context, t *Target, run string) error {
	if err := restartable(t, w.name); err != nil {
		return err
	}
	if err := w.prepare(ctx, t, run); err != nil {
		return err
	}
	return w.fill(ctx, t, w.shape.FillBytes)
}

// Run writes for d, kills the target and starts it.
func (w *recoverWork) Run(ctx context.Context, t *Target, d time.Duration) (Figure, error) {
	f := newStartFigure()
	lanes, err := w.produceLanes(ctx, t)
	if err != nil {
		return f, err
	}
	// The load must not look at what changes with the process, nor at anything of its own that the
	// target's death ends.
	load, over := w.driver, make(chan struct{})
	load.end = over
	loaded := make(chan error, 1)
	var before Figure
	go func() {
		var err error
		before, err = load.drive(ctx, &Target{Name: t.Name, Addr: t.Addr}, lanes, w.shape.Rate, time.Hour)
		loaded <- err
	}()
	var took time.Duration
	if err = pause(ctx, d); err == nil {
		took, err = t.Restart(ctx, true, func(ctx context.Context) error { return w.lastBatches(ctx, t.Addr) })
	}
	close(over)
	if err = errors.Join(err, <-loaded); err != nil {
		return f, err
	}
	if before.Requests == 0 {
		return f, fmt.Errorf("bench: nothing was answered before %s was killed: %s", t.Name, before.Error)
	}
	f.started(t, took)
	if dead := int64(len(lanes)); before.Errors > dead { // each lane ends with one
		f.Errors, f.Error = before.Errors-dead, before.Error
	}
	for _, own := range w.producers[len(w.producers)-len(lanes):] {
		for _, p := range own {
			p.cut = true
		}
	}
	f.Records, f.Bytes = w.acknowledged()
	return f, nil
}

// acknowledged is what the target must hold of the topic.
func (w *work) acknowledged() (records, bytes int64) {
	for _, own := range w.producers {
		for _, p := range own {
			for n := int64(0); p != nil && n < p.acked; n++ {
				_, size := w.contents.nth(p, n)
				records += int64(w.contents.records)
				bytes += int64(size)
			}
		}
	}
	return records, bytes
}

// lastBatches is nil when every partition has told its end and given the batch before it.
func (w *recoverWork) lastBatches(ctx context.Context, addr string) error {
	ends, err := listEnds(ctx, addr, w.topic, w.shape.Partitions)
	if err != nil {
		return err
	}
	conn, err := dialCaller(ctx, addr)
	if err != nil {
		return err
	}
	defer conn.conn.Close()
	const atOnce, batchBytes, answerBytes = 100, 1 << 20, 128 << 20
	var places []place
	for p, end := range ends {
		if end > 0 { // what is lost is found when all is read back
			places = append(places, place{int32(p), end - 1, batchBytes})
		}
		if len(places) < atOnce && p+1 < len(ends) || len(places) == 0 {
			continue
		}
		body, err := conn.call(func(out *outbox, correlation int32) {
			out.fetch(correlation, w.topic, fetchOptions{maxWaitMs: 100, minBytes: 1, maxBytes: answerBytes, sessionEpoch: -1}, places)
		})
		if err != nil {
			return err
		}
		if err := checkLast(body, len(places), ends); err != nil {
			return err
		}
		places = places[:0]
	}
	return nil
}

// checkLast checks that an answer has the last batch of so many partitions.
func checkLast(body []byte, partitions int, ends []int64) error {
	var bad error
	_, err := fetched(body, func(partition int32, _ int64, records []byte, err error) {
		partitions--
		if err == nil && (partition < 0 || int(partition) >= len(ends)) {
			err = errors.New("it was not asked for")
		}
		var b batch.Batch
		if err == nil {
			b, _, err = batch.Next(records)
		}
		if err == nil && b.LastOffset()+1 != ends[partition] {
			err = fmt.Errorf("its last batch ends at %d, the log at %d", b.LastOffset()+1, ends[partition])
		}
		if err == nil {
			err = b.VerifyCRC()
		}
		if err != nil && bad == nil {
			bad = fmt.Errorf("bench: partition %d: %w", partition, err)
		}
	})
	if err = errors.Join(err, bad); err == nil && partitions != 0 {
		err = fmt.Errorf("bench: %d partitions did not answer", partitions)
	}
	return err
}
