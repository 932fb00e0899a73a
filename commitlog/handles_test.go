package commitlog

import (
	"fmt"
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
