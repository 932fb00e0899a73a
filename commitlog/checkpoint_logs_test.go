package commitlog

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"

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

// The names of deleted logs are remembered until no file has an entry for them, and no longer.
func TestNamesOfDeletedLogsAreForgotten(t *testing.T) {
	mem := vfs.NewMem()
	o := testOptions(mem)
	o.CheckpointIntervalMs, o.HighWatermarkMs = 3_600_000, 3_600_000
	s := mustOpen(t, o)
	kept := mustCreate(t, s, "kept-0")
	for i := range 10 {
		l := mustCreate(t, s, fmt.Sprintf("gone-%d", i))
		mustAppend(t, l, spec{n: 3, ts: fixedClock(), epoch: -1}.build())
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(l.DeleteBefore(2), l.setCleaned(2, l.cuts.Load())); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.checkpoint(s.list()), s.points.writeWatermarks(s)); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if err := s.Delete(fmt.Sprintf("gone-%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(s.points.mu.stale); n != 10 {
		t.Fatalf("%d names are remembered", n)
	}
	if err := s.checkpoint([]*Log{kept}); err != nil {
		t.Fatal(err)
	}
	if n := len(s.points.mu.stale); n != 0 {
		t.Errorf("%d names are remembered", n)
	}
	for _, file := range []string{recoveryPointFile, startOffsetFile, watermarkFile, cleanedFile} {
		if p, err := vfs.ReadFile(mem, s.path(file)); err != nil || strings.Contains(string(p), "gone") {
			t.Errorf("%s has %q, %v", file, p, err)
		}
	}
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
}

// A checkpoint of many logs writes its recovery points while it goes on, so that a kill in it
// leaves what is not reached yet to be read again, and not what was appended to all of them.
func TestKillInACheckpointOfManyLogs(t *testing.T) {
	mem := vfs.NewMem()
	const logs, bytesOfOne = 3*checkpointLeast + 10, 500
	var killed *vfs.Mem
	var mu sync.Mutex
	synced := 0
	o := testOptions(vfs.NewFaulty(mem, func(op vfs.Op) error {
		if op.Kind != vfs.OpSync || filepath.Ext(op.Name) != ".log" {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if synced++; synced == logs {
			killed = mem.KillClone()
		}
		return nil
	}))
	o.Durability = OS
	s := mustOpen(t, o)
	for i := range logs {
		mustAppend(t, mustCreate(t, s, fmt.Sprintf("t-%d", i)), spec{value: bytesOfOne, ts: fixedClock(), epoch: -1}.build())
	}
	if err := s.checkpoint(s.list()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
	if killed == nil {
		t.Fatalf("%d logs were synced, want %d", synced, logs)
	}
	walked := 0
	o = testOptions(killed)
	o.RecoveryWorkers = 1
	o.Listener.Recovered = func(r RecoveryReport) {
		if r.BytesWalked > bytesOfOne && r.End == 1 {
			walked++
		}
	}
	s = mustOpen(t, o)
	if least := logs % checkpointLeast; walked < least || walked > checkpointLeast {
		t.Errorf("%d of %d logs were read again, want from %d to %d", walked, logs, least, checkpointLeast)
	}
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkCheckpoint is what a checkpoint costs a node of 100 000 logs, of which some have grown.
func BenchmarkCheckpoint(b *testing.B) {
	s, err := Open(b.TempDir(), &Options{CheckpointIntervalMs: longestWaitMs, Durability: OS})
	if err != nil {
		b.Fatal(err)
	}
	const logs = 100_000
	for i := range logs {
		if _, err := s.Create(fmt.Sprintf("topic%d-%d", i/1000, i%1000), TopicID{1}, testConfig()); err != nil {
			b.Fatal(err)
		}
	}
	all := s.list()
	for _, grown := range []int{1, 1000, 8000} { // of each a file is open until then
		b.Run(fmt.Sprintf("grown=%d", grown), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				for _, l := range all[:grown] {
					mustAppend(b, l, spec{value: 500, ts: fixedClock(), epoch: -1}.build())
				}
				b.StartTimer()
				if err := s.checkpoint(all[:grown]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	if err := s.Close(1); err != nil {
		b.Fatal(err)
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

// renamedUnsynced is a hook that lets a checkpoint file be renamed, and has the syncs of the directory behind that find
// no descriptor.
type renamedUnsynced struct {
	file atomic.Pointer[string] // nil: no file
	now  atomic.Bool
}

func (h *renamedUnsynced) hook(op vfs.Op) error {
	file := h.file.Load()
	switch {
	case file == nil:
	case op.Kind == vfs.OpRename && op.To == testDir+"/"+*file:
		h.now.Store(true)
	case op.Kind == vfs.OpSyncDir && op.Name == testDir && h.now.Load():
		return syscall.EMFILE
	}
	return nil
}

// After a write that failed behind its rename a checkpoint file has what the next write must not take for granted to be
// absent: a log that is made again under the name of a deleted one inherits nothing from it.
func TestLogMadeAgainAfterAFailedWriteInheritsNothing(t *testing.T) {
	for file, move := range map[string]func(l *Log) error{
		startOffsetFile: func(l *Log) error { return l.DeleteBefore(7) },
		cleanedFile:     func(l *Log) error { return l.setCleaned(7, l.cuts.Load()) },
	} {
		t.Run(file, func(t *testing.T) {
			mem := vfs.NewMem()
			var h renamedUnsynced
			o := testOptions(vfs.NewFaulty(mem, h.hook))
			o.CheckpointIntervalMs, o.HighWatermarkMs = 3_600_000, 3_600_000
			s := mustOpen(t, o)
			l := mustCreate(t, s, "t-0")
			fill := func() {
				for range 10 {
					mustAppend(t, l, spec{n: 1, ts: fixedClock(), epoch: -1}.build())
				}
				if err := l.Sync(); err != nil {
					t.Fatal(err)
				}
			}
			fill()
			if err := s.checkpoint([]*Log{l}); err != nil {
				t.Fatal(err)
			}
			h.file.Store(&file)
			if err := move(l); !errors.Is(err, syscall.EMFILE) {
				t.Fatalf("the write of %s did not fail: %v", file, err)
			}
			h.file.Store(nil)
			if err := s.Delete("t-0"); err != nil {
				t.Fatal(err)
			}
			l = mustCreate(t, s, "t-0")
			fill()
			if err := s.Close(1); err != nil {
				t.Fatal(err)
			}
			s = mustOpen(t, testOptions(mem))
			l = s.Log("t-0")
			if n := len(readAll(t, l, l.StartOffset(), l.EndOffset())); n != 10 || l.StartOffset() != 0 || l.firstDirty() != -1 {
				t.Errorf("start %d, end %d, first dirty offset %d, %d of 10 records", l.StartOffset(), l.EndOffset(), l.firstDirty(), n)
			}
			s.Close(1)
		})
	}
}

// A kill between the two files of the recovery points finds them to be ours, also where the write before had failed
// behind its rename.
func TestRecoveryPointsAreOursAfterAFailedWrite(t *testing.T) {
	mem := vfs.NewMem()
	var h renamedUnsynced
	var killed *vfs.Mem // at the last rename of the recovery points
	file := recoveryPointFile
	o := testOptions(vfs.NewFaulty(mem, func(op vfs.Op) error {
		if op.Kind == vfs.OpRename && op.To == testDir+"/"+file {
			killed = mem.KillClone()
		}
		return h.hook(op)
	}))
	o.CheckpointIntervalMs = 3_600_000
	s := mustOpen(t, o)
	l := mustCreate(t, s, "t-0")
	point := func() error {
		mustAppend(t, l, spec{n: 1, ts: fixedClock(), epoch: -1}.build())
		return s.checkpoint([]*Log{l})
	}
	if err := point(); err != nil {
		t.Fatal(err)
	}
	h.file.Store(&file)
	if err := point(); !errors.Is(err, syscall.EMFILE) {
		t.Fatalf("the write of %s did not fail: %v", file, err)
	}
	h.file.Store(nil)
	if err := point(); err != nil {
		t.Fatal(err)
	}
	if !WroteLast(killed, testDir) {
		t.Error("our recovery points are taken for Kafka's")
	}
	s.Close(1)
}

// What a start after a kill reads again is bounded by the bytes that were appended, also in a segment that is not full and
// before the minute is over.
func TestBytesBringACheckpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		o := testOptions(mem)
		cfg := testConfig()
		cfg.SegmentBytes = 1 << 20
		o.Configure = func(string) *Config { return cfg }
		o.CheckpointBytes = 20_000
		s := mustOpen(t, o)
		l, err := s.Create("t-0", TopicID{1}, cfg)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			mustAppend(t, l, spec{n: 1, value: 1000, ts: fixedClock(), epoch: -1}.build())
			synctest.Wait()
			if i%9 != 0 {
				continue
			}
			after, recovered, _ := startTrace(t, mem.KillClone(), Sync)
			var walked int64
			for _, r := range recovered {
				walked += r.BytesWalked
			}
			if err := after.Close(1); err != nil {
				t.Fatal(err)
			}
			if walked > o.CheckpointBytes {
				t.Fatalf("after %d appends a start reads %d bytes, %d at most", i+1, walked, o.CheckpointBytes)
			}
		}
		if err := s.Close(1); err != nil {
			t.Fatal(err)
		}
	})
}
