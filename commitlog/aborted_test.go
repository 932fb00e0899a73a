package commitlog

import (
	"errors"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/segment"
	"github.com/millrace-project/millrace/vfs"
)

// TestAbortBesideAnIndexOutOfReach: the marker of an aborted transaction, for which the transaction index has to be known, is
// written or refused where that cannot be read; the log stays online, and no aborted transaction is forgotten.
func TestAbortBesideAnIndexOutOfReach(t *testing.T) {
	causes := map[string]struct {
		err  error
		want func(op vfs.Op) bool
	}{
		"no descriptor": {syscall.EMFILE, opens},
		"read fails":    {syscall.EIO, func(op vfs.Op) bool { return op.Kind == vfs.OpRead || op.Kind == vfs.OpMap }},
		"stat fails":    {syscall.EIO, func(op vfs.Op) bool { return op.Kind == vfs.OpStat }},
	}
	for name, cause := range causes {
		for _, known := range []bool{true, false} { // the entries of the index were looked at in this process
			mem := vfs.NewMem()
			f := &faults{want: func(op vfs.Op) bool { return strings.HasSuffix(op.Name, ".txnindex") && cause.want(op) }}
			s := mustOpen(t, testOptions(vfs.NewFaulty(mem, f.hook)))
			l := mustCreate(t, s, "t-0")
			data := spec{n: 1, value: 5, ts: fixedClock(), epoch: -1, pid: 5, txn: true}
			marker := spec{ts: fixedClock(), pid: 5, isMarker: true, marker: 0, epoch: -1}
			abort := func() error { _, err := appendAs(l, FromCoordinator, marker.build()); return err }
			var want []AbortedTxn
			begin := func() {
				want = append(want, AbortedTxn{ProducerID: 5, FirstOffset: mustAppend(t, l, data.build()).BaseOffset})
				data.seq++
			}
			begin()
			if err := abort(); err != nil {
				t.Fatal(err)
			}
			if !known {
				if err := s.Close(1); err != nil {
					t.Fatal(err)
				}
				s = mustOpen(t, testOptions(s.fs))
				l = s.Log("t-0")
			}
			begin()
			l.checkpoint()
			for s.handles.EvictSome() {
			}
			f.set(cause.err)
			err := abort()
			if err != nil && (known || !errors.Is(err, ErrStorage) || errors.Is(err, ErrOffline)) {
				t.Errorf("%s, known %v: the marker: %v", name, known, err)
			}
			f.set(nil)
			if l.Err() != nil {
				t.Fatalf("%s, known %v: the log is offline: %v", name, known, l.Err())
			}
			if err != nil {
				if err := abort(); err != nil {
					t.Fatal(err)
				}
			}
			if err := l.Sync(); err != nil {
				t.Fatal(err)
			}
			check := func(l *Log) {
				t.Helper()
				got, err := l.Aborted(0, l.EndOffset())
				if err != nil || !slices.Equal(got, want) || l.EndOffset() != 4 {
					t.Errorf("%s, known %v: aborted in %d records: %v %v, want %v", name, known, l.EndOffset(), got, err, want)
				}
				v, got, err := l.ReadCommitted(0, l.EndOffset(), 1<<20, true)
				if err != nil || v == nil || !slices.Equal(got, want) {
					t.Fatalf("%s, known %v: aborted with a read: %v %v, want %v", name, known, got, err, want)
				}
				v.Close()
			}
			check(l)
			killed := mustOpen(t, testOptions(mem.KillClone()))
			check(killed.Log("t-0"))
			for _, s := range []*Store{s, killed} {
				if err := s.Close(1); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// TestReadCommittedAsksFewIndexes: the aborted transactions of a short read at the beginning of a long log are asked of the
// segments near it, and damage in the index of one that is far away is none of its business.
func TestReadCommittedAsksFewIndexes(t *testing.T) {
	const n = 200
	mem := vfs.NewMem()
	var opened atomic.Int32
	s := mustOpen(t, testOptions(vfs.NewFaulty(mem, func(op vfs.Op) error {
		if strings.HasSuffix(op.Name, ".txnindex") && op.Kind == vfs.OpOpen {
			opened.Add(1)
		}
		return nil
	})))
	l := mustCreate(t, s, "t-0")
	data := spec{n: 1, value: 300, ts: fixedClock(), epoch: -1, pid: 5, txn: true}
	var want []AbortedTxn
	for i := range n {
		if i > 0 {
			roll(t, l)
		}
		for range 4 {
			want = append(want, AbortedTxn{ProducerID: 5, FirstOffset: mustAppend(t, l, data.build()).BaseOffset})
			data.seq++
			marker := spec{ts: fixedClock(), pid: 5, isMarker: true, marker: 0, epoch: -1}
			if _, err := appendAs(l, FromCoordinator, marker.build()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, testOptions(s.fs))
	l = s.Log("t-0")
	read := func(off int64, maxBytes int) {
		t.Helper()
		v, got, err := l.ReadCommitted(off, l.EndOffset(), maxBytes, true)
		if err != nil || v == nil {
			t.Fatalf("read at %d: %v", off, err)
		}
		p := make([]byte, v.Len())
		if _, err := v.ReadAt(p, 0); err != nil {
			t.Fatal(err)
		}
		v.Close()
		end := off
		for b, rest, err := batch.Next(p); err == nil; b, rest, err = batch.Next(rest) {
			end = b.LastOffset() + 1
		}
		lo, _ := slices.BinarySearchFunc(want, off-1, func(a AbortedTxn, off int64) int { return int(a.FirstOffset - off) })
		hi, _ := slices.BinarySearchFunc(want, end, func(a AbortedTxn, off int64) int { return int(a.FirstOffset - off) })
		if len(got) > hi-lo+4 || len(got) < hi-lo || !slices.Equal(got[:hi-lo], want[lo:hi]) {
			t.Fatalf("read of [%d, %d): %d aborted, %v; want %v and a few behind", off, end, len(got), got[:min(len(got), 5)], want[lo:hi])
		}
	}
	opened.Store(0)
	read(0, 500)
	if got := opened.Load(); got > 3 {
		t.Errorf("a short read opened %d transaction indexes", got)
	}
	last := l.Segments()[n-1].BaseOffset
	name := "data/t-0/" + segment.FileNames(last)[3]
	f, err := mem.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(5); err != nil {
		t.Fatal(err)
	}
	f.Close()
	for off := int64(0); off < 100; off++ {
		read(off, 100+int(off)*20)
	}
	s.Close(1)
}
