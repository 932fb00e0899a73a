package quorum

import (
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/millrace-project/millrace/vfs"
)

// A snapshot has its name only when its bytes are durable, and is counted only when its name is.
func TestTraceOfASnapshot(t *testing.T) {
	files := vfs.NewMem()
	format(t, files, "/d")
	var mu sync.Mutex
	var trace []string
	traced := vfs.NewFaulty(files, func(op vfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if !op.Kind.Changes() || !strings.Contains(op.Name, snapshotSuffix) && op.Kind != vfs.OpSyncDir {
			return nil
		}
		line := op.Kind.String() + " " + filepath.Base(op.Name)
		if op.To != "" {
			line += " " + filepath.Base(op.To)
		}
		trace = append(trace, line)
		return nil
	})
	n := mustOpen(t, traced, "/d")
	defer n.close(t)
	n.append(t, vals("a", "b"))
	n.settle(t)
	mu.Lock()
	trace = nil
	mu.Unlock()
	at := Snapshot{End: n.q.Committed(), Epoch: n.q.Epoch(), TimestampMs: nowMs}
	if err := n.q.WriteSnapshot(at, values("a", "b")); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	got := slices.Compact(trace)
	mu.Unlock()
	name := snapshotID{at.End, at.Epoch}.name()
	want := []string{
		"remove " + name + partSuffix, // one that a kill has left
		"create " + name + partSuffix, "write " + name + partSuffix, "sync " + name + partSuffix,
		"rename " + name + partSuffix + " " + name, "syncdir " + LogName,
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
