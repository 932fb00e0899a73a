package bench

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/millrace-project/millrace"
)

// startTarget runs a broker in this process.
func startTarget(t *testing.T, settings ...string) *Target {
	t.Helper()
	dir := t.TempDir()
	var opts []millrace.Option
	for _, s := range settings {
		key, value, _ := strings.Cut(s, "=")
		opts = append(opts, millrace.Set(key, value))
	}
	b, err := millrace.Start(dir, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return &Target{Name: "millrace", Addr: b.Addr(), Dir: dir}
}

// runOnce takes one verified figure of a workload.
func runOnce(t *testing.T, target *Target, w Workload, d time.Duration) Figure {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := w.Prepare(ctx, target, "test"); err != nil {
		t.Fatal(err)
	}
	f, err := w.Run(ctx, target, d)
	if err != nil {
		t.Fatal(err)
	}
	if f.Errors > 0 {
		t.Fatalf("%d errors: %s", f.Errors, f.Error)
	}
	if err := w.Verify(ctx, target); err != nil {
		t.Fatal(err)
	}
	if err := w.Clean(ctx, target); err != nil {
		t.Fatal(err)
	}
	if f.Requests == 0 || f.Records == 0 || f.Bytes == 0 || f.Latency.TotalCount() == 0 || f.Elapsed < d {
		t.Errorf("%s: %d requests, %d records, %d bytes, %d latencies in %v", w.Name(), f.Requests, f.Records, f.Bytes, f.Latency.TotalCount(), f.Elapsed)
	}
	return f
}

// small makes a workload's shape fit a test.
func small(s *Shape) {
	s.FillBytes = 2 << 20
	s.Idle = min(s.Idle, 20)
}

func TestWorkloadsAgainstABroker(t *testing.T) {
	everyWorkload(t, startTarget(t, "millrace.durability=os", "log.segment.delete.delay.ms=0"))
}

// The limit must keep what it is given too: figures of one that cheats would be no limit.
func TestWorkloadsAgainstTheLimit(t *testing.T) {
	dir := t.TempDir()
	s, err := ListenLimit(Limit{Addr: "127.0.0.1:0", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background()) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	everyWorkload(t, &Target{Name: "limit", Addr: s.Addr(), Dir: dir})
}

func everyWorkload(t *testing.T, target *Target) {
	for _, e := range Catalogue() {
		t.Run(e.Name, func(t *testing.T) {
			w := e.New(small)
			f := runOnce(t, target, w, 50*time.Millisecond)
			switch w := w.(type) {
			case *tailWork:
				// What was sent is what was read, by each reader; cold readers read the rest besides.
				want := f.Requests * int64(w.contents.records) * int64(max(1, w.shape.Readers))
				if w.shape.Cold == 0 && f.Records != want || f.Records < want {
					t.Errorf("%d records read, %d written and read", f.Records, want)
				}
				// One for each batch that a reader got, and one for each that was due and never left.
				batches, due := f.Requests*int64(max(1, w.shape.Readers)), int64(w.shape.Rate*f.Elapsed.Seconds())+1
				if n := f.Latency.TotalCount(); n < batches || n > batches+max(0, due-f.Requests) {
					t.Errorf("%d latencies of %d batches; %d of %d that were due left", n, batches, f.Requests, due)
				}
				if readers := int64(max(1, w.shape.Readers)); w.shape.Cold == 0 && f.Written*readers != f.Bytes {
					t.Errorf("%d bytes written, %d read by %d readers", f.Written, f.Bytes, readers)
				}
			case *consumeWork:
				if f.Written != 0 {
					t.Errorf("%d bytes written", f.Written)
				}
			case *produceWork:
				if f.Written != f.Bytes {
					t.Errorf("%d bytes written of %d", f.Written, f.Bytes)
				}
				if want := f.Requests * int64(w.contents.records) * int64(w.shape.PerRequest); f.Records != want {
					t.Errorf("%d records in %d requests, want %d", f.Records, f.Requests, want)
				}
			}
		})
	}
}

// A rate is kept to: as many requests as were due, whatever is in flight.
func TestRateIsKeptTo(t *testing.T) {
	target := startTarget(t, "millrace.durability=os", "log.segment.delete.delay.ms=0")
	for _, w := range []Workload{
		newProduceWork("paced", Shape{Connections: 3, RecordBytes: 100, InFlight: 100, Rate: 600}),
		newConsumeWork("paced-too", Shape{Connections: 3, RecordBytes: 100, InFlight: 100, FetchBytes: 1000, FillBytes: 100_000, Rate: 600}),
	} {
		f := runOnce(t, target, w, 500*time.Millisecond)
		// A stop that comes late lets a few more become due.
		if got := f.Latency.TotalCount(); got < 299 || got > 301+int64((f.Elapsed-500*time.Millisecond)*600/time.Second) {
			t.Errorf("%s: %d requests in %v at 600 a second", w.Name(), got, f.Elapsed)
		}
		if o, ok := w.(interface{ OpenLoop() bool }); !ok || !o.OpenLoop() {
			t.Errorf("%s: a workload with a rate is no open loop", w.Name())
		}
	}
}

func TestTailNeedsWhatItMeasuresBy(t *testing.T) {
	for want, s := range map[string]Shape{"rate": {}, "directory": {Rate: 100, Cold: 1}} {
		err := newTailWork("tail", s).Prepare(t.Context(), &Target{Name: "x", Addr: "127.0.0.1:1"}, "1")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", s, err, want)
		}
	}
}
