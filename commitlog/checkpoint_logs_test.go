package commitlog

import (
	"fmt"
	"slices"
	"testing"

	"github.com/millrace-project/millrace/vfs"
)

// The checkpoint files have the logs that there are, by topic and partition, whatever came and went
// since they were last written.
func TestCheckpointsFollowTheLogs(t *testing.T) {
	mem := vfs.NewMem()
	s := mustOpen(t, testOptions(mem))
	check := func(want ...OffsetEntry) {
		t.Helper()
		if err := s.points.writeRecovery(s); err != nil {
			t.Fatal(err)
		}
		got, err := ReadOffsetCheckpoint(mem, s.path(recoveryPointFile))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("the file has %v (%v), want %v", got, err, want)
		}
	}
	mustCreate(t, s, "t-10")
	mustCreate(t, s, "t-9")
	check(OffsetEntry{"t", 9, 0}, OffsetEntry{"t", 10, 0})
	mustCreate(t, s, "a-3")
	check(OffsetEntry{"a", 3, 0}, OffsetEntry{"t", 9, 0}, OffsetEntry{"t", 10, 0})
	if err := s.Delete("t-9"); err != nil {
		t.Fatal(err)
	}
	check(OffsetEntry{"a", 3, 0}, OffsetEntry{"t", 10, 0})
	l := mustCreate(t, s, "t-9")
	mustAppend(t, l, spec{n: 2, value: 10, ts: fixedClock(), epoch: -1}.build())
	l.checkpoint()
	check(OffsetEntry{"a", 3, 0}, OffsetEntry{"t", 9, 2}, OffsetEntry{"t", 10, 0})
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkWatermarks is what the file of high watermarks costs, which is written every few seconds.
func BenchmarkWatermarks(b *testing.B) {
	s, err := Open(testDir, testOptions(vfs.NewMem()))
	if err != nil {
		b.Fatal(err)
	}
	const logs = 100_000
	for i := range logs {
		l, err := newLog(s, fmt.Sprintf("topic%d-%d", i/1000, i%1000), TopicID{1}, testConfig())
		if err != nil {
			b.Fatal(err)
		}
		s.mu.Lock()
		s.setLocked(l.name, l)
		s.mu.Unlock()
	}
	for b.Loop() {
		if err := s.points.writeWatermarks(s); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*logs), "ns/log")
}
