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
	s.FillBytes = 4 << 20
	s.Idle = min(s.Idle, 20)
}

func TestWorkloadsAgainstABroker(t *testing.T) {
	target := startTarget(t, "millrace.durability=os", "log.segment.delete.delay.ms=0")
	for _, e := range Catalogue() {
		t.Run(e.Name, func(t *testing.T) {
			f := runOnce(t, target, e.New(small), 150*time.Millisecond)
			t.Logf("%s: %d requests, %.1f MB/s, p99 %v, %d bytes of disk", e.Name, f.Requests, f.MBPerSecond(), f.Quantile(99), f.DiskBytes)
		})
	}
}
