package commitlog

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-project/millrace/vfs"
)

// Logs with bytes that are not synced keep their files open, however many they are: others are read beside them.
func TestReadBesideManyUnsyncedLogs(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.Durability, o.idleHandles, o.openHandles = OS, 2, 4
	s := mustOpen(t, o)
	defer s.Close(1)
	quiet := mustCreate(t, s, "quiet-0")
	b := spec{value: 100, ts: fixedClock(), epoch: -1}.build()
	mustAppend(t, quiet, b)
	if err := s.checkpoint(s.list()); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		mustAppend(t, mustCreate(t, s, fmt.Sprintf("busy-%d", i)), b)
	}
	if got := readAll(t, quiet, 0, 1); len(got) != 1 {
		t.Errorf("%d batches were read, want 1", len(got))
	}
}

// What appends keep open until a sync does not grow to the process's bound: a checkpoint comes before.
func TestUnsyncedLogsBringACheckpoint(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.Durability, o.unsyncedHandles = OS, 8
	s := mustOpen(t, o)
	defer s.Close(1)
	for i := range 100 {
		mustAppend(t, mustCreate(t, s, fmt.Sprintf("t-%d", i)), spec{value: 100, ts: fixedClock(), epoch: -1}.build())
	}
	for deadline := time.Now().Add(time.Minute); s.handles.Pins() >= 8; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d files are kept open", s.handles.Pins())
		}
	}
}

// After Close no file is open, not those either that were to be removed or renamed later.
func TestCloseLeavesNothingOpen(t *testing.T) {
	f := &faults{want: func(op vfs.Op) bool { return op.Kind == vfs.OpRename && op.Name == testDir+"/dropped-0" }}
	s := mustOpen(t, testOptions(vfs.NewFaulty(vfs.NewMem(), f.hook)))
	var logs []*Log
	for _, name := range []string{"retained-0", "dropped-0"} {
		l := mustCreate(t, s, name)
		for i := range int64(20) {
			mustAppend(t, l, spec{n: 1, value: 1000, ts: fixedClock() + i, epoch: -1}.build())
		}
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
		readAll(t, l, 0, 20)
		logs = append(logs, l)
	}
	if err := logs[0].DeleteBefore(15); err != nil {
		t.Fatal(err)
	}
	if err := logs[0].retain(fixedClock()); err != nil {
		t.Fatal(err)
	}
	f.set(syscall.ENOSPC)
	if err := s.Delete("dropped-0"); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("delete: %v", err)
	}
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
	if open, idle := s.handles.Open(); open > 0 {
		t.Errorf("%d files are open, %d of them idle", open, idle)
	}
}
