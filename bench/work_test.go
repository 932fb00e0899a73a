package bench

import (
	"context"
	"errors"
	"slices"
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

// verified takes a figure without errors, of what was then found to be there.
func verified(t *testing.T, target *Target, w Workload, d time.Duration) Figure {
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
	return f
}

// runOnce takes one verified figure of a workload.
func runOnce(t *testing.T, target *Target, w Workload, d time.Duration) Figure {
	t.Helper()
	f := verified(t, target, w, d)
	bytes, least := f.Bytes > 0, d
	switch w.(type) {
	case *commitsWork:
		bytes = true // is not about batches
	case *groupsWork:
		bytes, least = true, 0 // nor takes as long as it is told
	case *compactionWork, *besideCleanerWork:
		least = 0
	}
	if f.Requests == 0 || f.Records == 0 || !bytes || f.Latency.TotalCount() == 0 || f.Elapsed < least {
		t.Errorf("%s: %d requests, %d records, %d bytes, %d latencies in %v", w.Name(), f.Requests, f.Records, f.Bytes, f.Latency.TotalCount(), f.Elapsed)
	}
	return f
}

// small makes a workload's shape fit a test.
func small(s *Shape) {
	s.FillBytes = 2 << 20
	s.Idle = min(s.Idle, 20)
	s.Groups = min(s.Groups, 20)
	s.CommitEvery = 10 * time.Millisecond
}

func TestWorkloadsAgainstABroker(t *testing.T) {
	everyWorkload(t, startTarget(t, "millrace.durability=os", "log.segment.delete.delay.ms=0", "group.initial.rebalance.delay.ms=0"), "start", "recover")
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
	everyWorkload(t, &Target{Name: "limit", Addr: s.Addr(), Dir: dir}, "groups", "groups-consumer", "commits", "transactions", "exactly-once",
		"compaction", "compaction-100b", "compaction-zstd", "beside-cleaner", "start", "recover")
}

// everyWorkload runs all but those that the target does not serve, which must say so.
func everyWorkload(t *testing.T, target *Target, lacks ...string) {
	for _, e := range Catalogue() {
		t.Run(e.Name, func(t *testing.T) {
			target := target
			w := e.New(func(s *Shape) {
				small(s)
				if e.Name == "compaction-zstd" || e.Name == "beside-cleaner" {
					s.FillBytes = 8 << 20 // segments are of 1 MiB at least, and each log must have two
				}
			})
			if _, own := w.(inProcess); own {
				target = &Target{Dir: t.TempDir()}
			}
			if slices.Contains(lacks, e.Name) {
				if err := w.Prepare(t.Context(), target, "test"); !errors.Is(err, errNotServed) {
					t.Errorf("%v, want that it is not served", err)
				}
				if err := w.Clean(t.Context(), target); err != nil {
					t.Error(err)
				}
				return
			}
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
			case *compactionWork:
				if left := float64(f.DiskBytes) / float64(f.Written); f.Requests != 1 || f.Written != f.Bytes || left < 0.4 || left > 0.8 {
					t.Errorf("%d logs, %d bytes of %d written, %d left", f.Requests, f.Bytes, f.Written, f.DiskBytes)
				}
			case *groupsWork:
				if want := 2 * int64(w.shape.Groups); f.Requests != want || f.Latency.TotalCount() != want {
					t.Errorf("%d groups became stable, %d latencies, want %d of each", f.Requests, f.Latency.TotalCount(), want)
				}
			case *commitsWork:
				if f.Records != f.Requests {
					t.Errorf("%d offsets in %d requests", f.Records, f.Requests)
				}
			case *copyWork:
				if want := f.Requests * int64(w.contents.records); f.Records != want || f.Written != 2*f.Bytes {
					t.Errorf("%d records read, %d written; %d bytes written, %d read", f.Records, want, f.Written, f.Bytes)
				}
			case *transactionsWork:
				if want := f.Requests * int64(w.contents.records) * int64(w.shape.PerRequest); f.Records != want || f.Written != f.Bytes {
					t.Errorf("%d records in %d requests, want %d; %d bytes of %d", f.Records, f.Requests, want, f.Bytes, f.Written)
				}
				if n := f.Latency.TotalCount(); n > f.Requests || !w.transactional && n < f.Requests {
					t.Errorf("%d latencies of %d requests", n, f.Requests)
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
