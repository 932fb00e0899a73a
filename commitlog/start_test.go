package commitlog

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/vfs"
)

// startTrace opens the store on fs, with 1 worker, and returns what it recovered and every change and
// sync that opening made.
func startTrace(t *testing.T, fs vfs.FS, d Durability) (s *Store, recovered []RecoveryReport, ops []vfs.Op) {
	t.Helper()
	var mu sync.Mutex
	o := testOptions(vfs.NewFaulty(fs, func(op vfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if op.Kind.Changes() && op.Kind != vfs.OpCreate { // an index is opened so, also one that exists
			ops = append(ops, op)
		}
		return nil
	}))
	o.Durability, o.RecoveryWorkers = d, 1
	o.Listener.Recovered = func(r RecoveryReport) { recovered = append(recovered, r) }
	s = mustOpen(t, o)
	mu.Lock()
	defer mu.Unlock()
	return s, recovered, slices.Clone(ops)
}

// A start after a kill reads what lies beyond the recovery points and nothing else: of the logs that
// end at theirs none is walked, and nothing of them is written or synced.
func TestStartAfterAKillLeavesLogsAtRestAlone(t *testing.T) {
	synctest.Test(t, startAfterAKillLeavesLogsAtRestAlone)
}

func startAfterAKillLeavesLogsAtRestAlone(t *testing.T) {
	mem := vfs.NewMem()
	o := testOptions(mem)
	s := mustOpen(t, o)
	var logs []*Log
	for i := range 8 {
		l := mustCreate(t, s, fmt.Sprintf("t-%d", i))
		for range 3 * i { // none at all, less than an index entry, several segments
			mustAppend(t, l, spec{n: 2, value: 300, ts: fixedClock(), epoch: -1}.build())
		}
		logs = append(logs, l)
	}
	synctest.Wait() // for the checkpoints that rolls have called for
	if err := s.checkpoint(logs); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, logs[5], spec{n: 1, value: 10, ts: fixedClock(), epoch: -1}.build())
	if err := logs[5].Sync(); err != nil {
		t.Fatal(err)
	}
	after, recovered, ops := startTrace(t, mem.KillClone(), Sync)
	if len(recovered) != 1 || recovered[0].Log != "t-5" || recovered[0].BytesWalked > 4096 {
		t.Errorf("recovered %+v, want t-5 and little of it", recovered)
	}
	for _, op := range ops {
		if strings.Contains(op.Name, "t-") && !strings.Contains(op.Name, "t-5") {
			t.Errorf("a log at rest was changed or synced: %v", op)
		}
	}
	for i, l := range logs {
		want := 3 * i
		if i == 5 {
			want++
		}
		got := after.Log(l.Name())
		if n := len(readAll(t, got, 0, got.EndOffset())); got.EndOffset() != l.EndOffset() || n != want {
			t.Errorf("%s: end %d, want %d; %d batches, want %d", l.Name(), got.EndOffset(), l.EndOffset(), n, want)
		}
	}
	if err := after.Close(1); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
}

// What a start after a kill reads of a log does not grow with what lies below the recovery point: not its
// records, and not their headers to find the producers, whose state a snapshot has. That holds also for a
// kill when a checkpoint has been through with the log, but not yet written the file of recovery points.
func TestStartAfterAKillReadsNoMoreOfALargeLog(t *testing.T) {
	for name, c := range map[string]struct{ ended, checkpoint bool }{
		"records":                       {},
		"in a checkpoint":               {checkpoint: true},
		"in a checkpoint, transactions": {checkpoint: true, ended: true},
	} {
		t.Run(name, func(t *testing.T) {
			few, _ := readsOfAStart(t, 10, c.ended, c.checkpoint)
			many, producers := readsOfAStart(t, 200, c.ended, c.checkpoint)
			if many > few {
				t.Errorf("%d reads of a log of 200 batches, %d of one of 10", many, few)
			}
			if len(producers) == 0 || producers[0].LastSequence != 200 {
				t.Errorf("producers %+v", producers)
			}
		})
	}
}

// readsOfAStart counts the reads of the log by a start after a kill: below batches lie below the recovery
// point in the file, one above it, and a transaction that ended there if wanted. With checkpoint the log's
// own part of the next checkpoint was done.
func readsOfAStart(t *testing.T, below int, ended, checkpoint bool) (reads int, producers []ProducerInfo) {
	mem := vfs.NewMem()
	o := testOptions(mem)
	o.Configure = nil
	s := mustOpen(t, o)
	l, err := s.Create("t-0", TopicID{1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	one := spec{n: 1, value: 5000, ts: fixedClock(), epoch: -1, pid: 7} // an index entry each
	add := func() {
		mustAppend(t, l, one.build())
		one.seq++
	}
	for range below {
		add()
	}
	l.checkpoint()
	if err := s.points.writeRecovery(s); err != nil {
		t.Fatal(err)
	}
	add()
	if ended {
		mustAppend(t, l, spec{n: 1, value: 50, ts: fixedClock(), epoch: -1, pid: 9, txn: true}.build())
		if _, err := appendAs(l, FromCoordinator, spec{pid: 9, isMarker: true, marker: batch.Abort, ts: fixedClock(), epoch: -1}.build()); err != nil {
			t.Fatal(err)
		}
	}
	if checkpoint {
		l.checkpoint()
		l.tidySnapshots() // the end of an earlier round may come so late
	}
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	want := l.EndOffset()
	var mu sync.Mutex
	o = testOptions(vfs.NewFaulty(mem.KillClone(), func(op vfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if op.Kind == vfs.OpRead && strings.HasSuffix(op.Name, ".log") {
			reads++
		}
		return nil
	}))
	o.Configure = nil
	l = mustOpen(t, o).Log("t-0")
	if l.EndOffset() != want {
		t.Fatalf("the log ends at %d, want %d", l.EndOffset(), want)
	}
	return reads, l.ActiveProducers()
}

// A killed process may have cut a log and not synced that. What it cut off does not come back once the
// next one has stopped cleanly, which says that all logs are as it closed them.
func TestCleanStopAfterAKillMakesCutsDurable(t *testing.T) {
	mem := vfs.NewMem()
	s := mustOpen(t, testOptions(mem))
	one := spec{n: 1, value: 100, ts: fixedClock(), epoch: -1}
	l := mustCreate(t, s, "t-0")
	mustAppend(t, l, one.build())
	l.checkpoint()
	if err := s.points.writeRecovery(s); err != nil {
		t.Fatal(err)
	}
	killed := mem.KillClone()
	f, err := killed.OpenFile(testDir+"/t-0/00000000000000000000.log", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	one.base, one.epoch = 1, 0
	_, err = f.WriteAt(one.build(), size)
	if err := errors.Join(err, f.Sync(), f.Truncate(size), f.Close()); err != nil {
		t.Fatal(err)
	}
	again, recovered, _ := startTrace(t, killed, Sync)
	if len(recovered) > 0 || again.Log("t-0").EndOffset() != 1 {
		t.Fatalf("recovered %+v, the log ends at %d", recovered, again.Log("t-0").EndOffset())
	}
	if err := again.Close(1); err != nil {
		t.Fatal(err)
	}
	rng := newRand(t, 4)
	for range 20 {
		cut, _, _ := startTrace(t, killed.CrashClone(rng), Sync)
		if end := cut.Log("t-0").EndOffset(); end != 1 {
			t.Fatalf("the log ends at %d, it was closed at 1", end)
		}
	}
}

// What a start makes anew of a log (indexes, snapshots, leader epochs) is written by the next
// checkpoint, which alone moves the recovery point: the start waits for the log's own sync. What
// comes of it then is what it would have been, also when a power cut comes first.
func TestStartAfterAKillSyncsRecordsOnly(t *testing.T) {
	mem := vfs.NewMem()
	s := mustOpen(t, testOptions(mem))
	l := mustCreate(t, s, "t-0")
	big := spec{n: 4, value: 100, ts: fixedClock(), epoch: 3, pid: 7}
	add := func(l *Log) {
		big.base = l.EndOffset()
		if _, err := appendAs(l, FromReplica, big.build()); err != nil {
			t.Fatal(err)
		}
		big.seq += 4
		big.ts++
	}
	for range 4 {
		add(l)
	}
	l.checkpoint()
	if err := s.points.writeRecovery(s); err != nil {
		t.Fatal(err)
	}
	point := l.EndOffset()
	big.epoch++ // which the file of leader epochs does not know
	for range 4 {
		add(l)
	}
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	killed := mem.KillClone()
	again, recovered, ops := startTrace(t, killed, Sync)
	if len(recovered) != 1 {
		t.Fatalf("recovered %+v", recovered)
	}
	for _, op := range ops {
		if strings.Contains(op.Name, "t-0") && (op.Kind != vfs.OpSync || !strings.HasSuffix(op.Name, ".log")) {
			t.Errorf("the start did more than sync the log: %v", op)
		}
	}
	got := again.Log("t-0")
	if got.recovery.Load() != point {
		t.Errorf("the recovery point is %d after the start, want %d as in the file", got.recovery.Load(), point)
	}
	want := got.ActiveProducers()
	rng := newRand(t, 1)
	for range 50 { // whatever the power cut takes
		cut, _, _ := startTrace(t, killed.CrashClone(rng), Sync)
		l := cut.Log("t-0")
		if l.EndOffset() != got.EndOffset() || len(readAll(t, l, 0, l.EndOffset())) != 8 {
			t.Fatalf("after a power cut behind the start the log ends at %d, want %d", l.EndOffset(), got.EndOffset())
		}
		if epoch, _ := l.epoch.cache.latest(); epoch != 4 || !slices.Equal(l.ActiveProducers(), want) {
			t.Fatalf("after a power cut behind the start: leader epoch %d, producers %v", epoch, l.ActiveProducers())
		}
		cut.Close(1)
	}
	got.checkpoint()
	if got.recovery.Load() != got.EndOffset() {
		t.Errorf("the checkpoint moved the recovery point to %d, want %d", got.recovery.Load(), got.EndOffset())
	}
	if err := again.points.writeRecovery(again); err != nil {
		t.Fatal(err)
	}
	if _, recovered, _ := startTrace(t, killed.CrashClone(rng), Sync); len(recovered) != 0 {
		t.Errorf("after the checkpoint there was something to recover: %+v", recovered)
	}
}

// Index entries of aborted transactions that lie below the recovery point and were made anew are
// durable before the start ends: nobody walks those batches again.
func TestStartKeepsAbortedTransactionsDurable(t *testing.T) {
	mem := vfs.NewMem()
	s := mustOpen(t, testOptions(mem))
	l := mustCreate(t, s, "t-0")
	seq := int32(0)
	abort := func() {
		mustAppend(t, l, spec{n: 1, value: 50, ts: fixedClock(), epoch: -1, pid: 9, seq: seq, txn: true}.build())
		seq++
		if _, err := appendAs(l, FromCoordinator, spec{pid: 9, isMarker: true, marker: batch.Abort, ts: fixedClock(), epoch: -1}.build()); err != nil {
			t.Fatal(err)
		}
	}
	for range 6 {
		abort()
	}
	l.checkpoint()
	if err := s.points.writeRecovery(s); err != nil {
		t.Fatal(err)
	}
	abort()
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	rng := newRand(t, 2)
	for round := range 40 {
		killed := mem.KillClone()
		f, err := killed.OpenFile(testDir+"/t-0/00000000000000000000.log", os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		size, _ := f.Size()
		f.WriteAt(make([]byte, 40), size) // the segment is read from its beginning then
		f.Close()
		for range 2 {
			again, recovered, _ := startTrace(t, killed, Sync)
			if n := len(allAborted(t, again.Log("t-0"))); n != 7 || len(recovered) != 1 {
				t.Fatalf("round %d: %d aborted transactions are known, want 7; recovered %+v", round, n, recovered)
			}
			killed = killed.CrashClone(rng)
		}
	}
}

// What a start publishes as synced is on disk, its file's name too: a segment may have begun after
// the recovery point, and its directory not been synced before the kill.
func TestStartAfterAKillMakesNamesDurable(t *testing.T) {
	mem := vfs.NewMem()
	o := testOptions(mem)
	o.Durability = OS
	s := mustOpen(t, o)
	l := mustCreate(t, s, "t-0")
	one := spec{n: 2, value: 100, ts: fixedClock(), epoch: -1}
	mustAppend(t, l, one.build())
	l.checkpoint()
	if err := s.points.writeRecovery(s); err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	err := l.rollLocked(l.end.Load(), fixedClock())
	l.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, one.build())
	killed := mem.KillClone()
	rng := newRand(t, 3)
	startTrace(t, killed, OS)
	for range 20 {
		again, _, _ := startTrace(t, killed.CrashClone(rng), OS)
		if end := again.Log("t-0").EndOffset(); end != 4 {
			t.Fatalf("the log ends at %d after a power cut behind the start, 4 were synced", end)
		}
	}
}

// allAborted returns the aborted transactions of the whole log.
func allAborted(t *testing.T, l *Log) []AbortedTxn {
	t.Helper()
	txns, err := l.Aborted(0, l.EndOffset())
	if err != nil {
		t.Fatal(err)
	}
	return txns
}

// A killed process may have left a checkpoint file whose new name is not durable. A start makes it so before it tells
// anyone what the file says.
func TestStartAfterAKillMakesCheckpointFilesDurable(t *testing.T) {
	mem := vfs.NewMem()
	var killed *vfs.Mem
	renamed := false
	s := mustOpen(t, testOptions(vfs.NewFaulty(mem, func(op vfs.Op) error {
		if op.Kind == vfs.OpSyncDir && renamed && killed == nil {
			killed = mem.KillClone()
		}
		renamed = renamed || op.Kind == vfs.OpRename && strings.HasSuffix(op.To, startOffsetFile)
		return nil
	})))
	l := mustCreate(t, s, "t-0")
	mustAppend(t, l, spec{n: 8, value: 10, ts: fixedClock(), epoch: -1}.build())
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := l.DeleteBefore(5); err != nil {
		t.Fatal(err)
	}
	s, _, _ = startTrace(t, killed, Sync)
	told := s.Log("t-0").StartOffset()
	rng := newRand(t, 14)
	for range 20 {
		cut, _, _ := startTrace(t, killed.CrashClone(rng), Sync)
		if start := cut.Log("t-0").StartOffset(); told != 5 || start != told {
			t.Fatalf("the start offset was %d after a kill, and is %d after a power cut", told, start)
		}
		cut.Close(1)
	}
}

// A killed process may have written a snapshot of the producers and not synced it. A start that believes it makes it
// durable: once the recovery point has passed it, nothing else has what retention has let go of.
func TestStartAfterAKillMakesSnapshotsDurable(t *testing.T) {
	mem := vfs.NewMem()
	var killed *vfs.Mem
	var armed atomic.Bool
	s := mustOpen(t, testOptions(vfs.NewFaulty(mem, func(op vfs.Op) error {
		if op.Kind == vfs.OpSync && strings.HasSuffix(op.Name, snapshotSuffix) && armed.CompareAndSwap(true, false) {
			killed = mem.KillClone()
		}
		return nil
	})))
	l := mustCreate(t, s, "t-0")
	for seq := range int32(40) {
		mustAppend(t, l, spec{n: 1, value: 1, ts: fixedClock(), epoch: -1, pid: 1 + int64(seq%20), seq: seq / 20}.build())
		if seq == 20 {
			if err := s.checkpoint([]*Log{l}); err != nil {
				t.Fatal(err)
			}
		}
	}
	want, end := l.ActiveProducers(), l.EndOffset()
	roll(t, l)
	armed.Store(true)
	if err := s.checkpoint([]*Log{l}); err != nil {
		t.Fatal(err)
	}
	if killed == nil {
		t.Fatal("no snapshot was written")
	}
	s, _, _ = startTrace(t, killed, Sync)
	l = s.Log("t-0")
	if got := l.ActiveProducers(); !slices.Equal(got, want) {
		t.Fatalf("producers after a kill: %+v, want %+v", got, want)
	}
	if err := s.checkpoint([]*Log{l}); err != nil {
		t.Fatal(err)
	}
	l.SetHighWatermark(end)
	if err := l.DeleteBefore(end); err != nil {
		t.Fatal(err)
	}
	if err := l.retain(fixedClock()); err != nil {
		t.Fatal(err)
	}
	for seed := range int64(50) {
		again, _, _ := startTrace(t, killed.CrashClone(newRand(t, seed)), Sync)
		if got := again.Log("t-0").ActiveProducers(); !slices.Equal(got, want) {
			t.Fatalf("producers after a power cut behind the start: %+v, want %+v", got, want)
		}
	}
}
