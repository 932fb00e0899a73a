package commitlog

import (
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/millrace-project/millrace/segment"
	"github.com/millrace-project/millrace/vfs"
)

// cutBelowPoint is the disk of a killed process of which the log t-0 has lost the batch last, and what follows it,
// although it lies below the recovery point: its bytes are not what was written. The batch has no index entry.
func cutBelowPoint(t *testing.T, last []byte, behind ...[]byte) (disk *vfs.Mem, end int64) {
	t.Helper()
	mem := vfs.NewMem()
	s := mustOpen(t, testOptions(mem))
	l := mustCreate(t, s, "t-0")
	for range 6 {
		mustAppend(t, l, spec{n: 1, value: 400, ts: fixedClock(), epoch: -1}.build())
	}
	mustAppend(t, l, spec{n: 1, value: 10, ts: fixedClock(), epoch: -1}.build()) // which takes the last index entry
	at := l.Segments()[0].Size
	end = l.EndOffset()
	mustAppend(t, l, last)
	for _, b := range behind {
		if _, err := appendAs(l, FromCoordinator, b); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.checkpoint([]*Log{l}); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, spec{n: 1, value: 10, ts: fixedClock(), epoch: -1}.build()) // or there is nothing to be recovered
	disk = mem.KillClone()
	flipBit(t, disk, filepath.Join(testDir, "t-0", segment.FileNames(0)[0]), at+70)
	return disk, end
}

// appendAborted appends a transaction of one batch, and its end.
func appendAborted(t *testing.T, l *Log, pid int64) AbortedTxn {
	t.Helper()
	first := mustAppend(t, l, spec{n: 1, value: 10, ts: fixedClock(), epoch: -1, pid: pid, txn: true}.build()).BaseOffset
	if _, err := appendAs(l, FromCoordinator, spec{ts: fixedClock(), pid: pid, isMarker: true, epoch: -1}.build()); err != nil {
		t.Fatal(err)
	}
	return AbortedTxn{ProducerID: pid, FirstOffset: first}
}

func mustHaveAborted(t *testing.T, l *Log, want ...AbortedTxn) {
	t.Helper()
	if got, err := l.Aborted(0, l.EndOffset()); err != nil || !slices.Equal(got, want) {
		t.Errorf("aborted: %v, %v, want %v", got, err, want)
	}
}

// TestAbortedOfWhatIsCut: where damage has recovery cut below the recovery point, the transaction index does not go
// on saying what it said of the offsets that others get now.
func TestAbortedOfWhatIsCut(t *testing.T) {
	data := spec{n: 1, value: 10, ts: fixedClock(), epoch: -1, pid: 7, txn: true}
	disk, end := cutBelowPoint(t, data.build(), spec{ts: fixedClock(), pid: 7, isMarker: true, epoch: -1}.build())
	s := mustOpen(t, testOptions(disk))
	l := s.Log("t-0")
	if l.Err() != nil || l.EndOffset() != end {
		t.Fatalf("%v, the log ends at %d, want %d", l.Err(), l.EndOffset(), end)
	}
	mustHaveAborted(t, l)
	mustHaveAborted(t, l, appendAborted(t, l, 8)) // its marker lies where that of 7 lay
	if l.Err() != nil {
		t.Error(l.Err())
	}
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
}

// TestPointAboveTheEnd: a recovery point of what was cut says nothing of the batches that come there, also when the
// process is killed before its first checkpoint.
func TestPointAboveTheEnd(t *testing.T) {
	for _, fault := range []error{nil, syscall.ENOSPC} { // of the checkpoint files when it starts
		disk, end := cutBelowPoint(t, spec{n: 10, value: 10, ts: fixedClock(), epoch: -1}.build())
		f := &faults{want: func(op vfs.Op) bool {
			return op.Kind == vfs.OpCreate && strings.Contains(op.Name, "recovery-point")
		}}
		f.set(fault)
		s := mustOpen(t, testOptions(vfs.NewFaulty(disk, f.hook)))
		f.set(nil)
		l := s.Log("t-0")
		if l.Err() != nil || l.EndOffset() != end {
			t.Fatalf("%v, the log ends at %d, want %d", l.Err(), l.EndOffset(), end)
		}
		want := appendAborted(t, l, 7)
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
		s = mustOpen(t, testOptions(disk.KillClone()))
		mustHaveAborted(t, s.Log("t-0"), want)
		if err := s.Close(1); err != nil {
			t.Fatal(err)
		}
	}
}
