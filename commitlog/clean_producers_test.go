package commitlog

import (
	"context"
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/vfs"
)

// The cleaner lets a producer's batch go when the log has a later one of it. If that one is cut
// away, the snapshot at the segment's base knows the producer, although the broker was killed
// before it had written it.
func TestProducerWhoseLastBatchIsCut(t *testing.T) {
	cfg := testConfig()
	cfg.Delete, cfg.Compact = false, true
	options := func(mem *vfs.Mem) *Options {
		o := testOptions(mem)
		o.Durability, o.Cleaner.Disabled = OS, true
		o.Configure = func(string) *Config { return cfg }
		return o
	}
	of := func(pid int64, seq int32) []byte {
		return spec{n: 1, value: 10, ts: fixedClock(), epoch: -1, pid: pid, seq: seq}.build()
	}
	mem := vfs.NewMem()
	s := mustOpen(t, options(mem))
	l, err := s.Create("t-0", TopicID{1}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, of(7, 0))
	mustAppend(t, l, of(0, 0)) // of the same key
	l.mu.Lock()
	err = l.rollLocked(2, fixedClock())
	l.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, of(0, 0))
	mustAppend(t, l, of(7, 1))
	killed := mem.KillClone()
	s.Close(1)

	s = mustOpen(t, options(killed))
	l = s.Log("t-0")
	l.OnAdvance(func() {}) // the high watermark is the test's
	l.SetHighWatermark(3)
	_, err = s.cleaner.exclusive(context.Background(), l, func(c *compactor, pace *pacer) (CompactionReport, error) {
		return c.clean(l, l.allCleanable(), pace)
	})
	if err != nil {
		t.Fatal(err)
	}
	if list := readAll(t, l, 0, 2); len(list) != 1 || list[0].HasProducer() {
		t.Fatalf("the cleaner has left %d batches of two", len(list))
	}
	if err := l.TruncateTo(3); err != nil {
		t.Fatal(err)
	}
	if p := l.ActiveProducers(); len(p) != 1 || p[0].ProducerID != 7 || p[0].LastSequence != 0 {
		t.Errorf("when its last batch is cut, the producer is known as %+v", p)
	}
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
}

// A value goes because of a later one in a transaction that is committed: its marker is on disk
// then, also where it lies above the last stable offset, since another transaction began before.
func TestMarkerAboveTheStableOffset(t *testing.T) {
	options := func(mem *vfs.Mem) *Options {
		o := compactedOptions(mem)
		o.Durability = OS
		return o
	}
	of := func(pid int64) batch.BuilderOptions {
		return batch.BuilderOptions{HasProducer: pid > 0, ProducerID: pid, Transactional: pid > 0}
	}
	mem := vfs.NewMem()
	s := mustOpen(t, options(mem))
	l := mustCreateCompacted(t, s, "t-0")
	defer s.Close(1)
	mustAppend(t, l, keyed(t, of(0), fixedClock(), "old", "k"))
	mustAppend(t, l, keyed(t, of(8), fixedClock(), "new", "k"))
	l.mu.Lock()
	err := l.rollLocked(2, fixedClock())
	l.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	l.checkpoint()
	mustAppend(t, l, keyed(t, of(9), fixedClock(), "x", "other")) // its transaction stays open
	if _, err := appendAs(l, FromCoordinator, marker(8, 0, true)); err != nil {
		t.Fatal(err)
	}
	report, err := s.cleaner.exclusive(context.Background(), l, func(c *compactor, pace *pacer) (CompactionReport, error) {
		return c.clean(l, l.allCleanable(), pace)
	})
	if err != nil || report.RecordsRead != 2 || report.RecordsKept != 1 {
		t.Fatalf("%+v %v", report, err)
	}
	for seed := range int64(20) {
		s := mustOpen(t, options(mem.CrashClone(newRand(t, seed))))
		if end := s.Log("t-0").EndOffset(); end < 4 {
			t.Errorf("the old value is gone, and after a power cut the new one is not committed: the log ends at %d", end)
		}
		s.Close(1)
	}
}
