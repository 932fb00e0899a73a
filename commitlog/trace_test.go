package commitlog

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/millrace-project/millrace/vfs"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestTrace holds the order of writes, syncs and renames against a golden file:
// what is durable before what is a promise of docs/durability.md.
func TestTrace(t *testing.T) {
	var mu sync.Mutex
	var out bytes.Buffer
	pointsWritten := make(chan struct{}, 10)
	starts := false // the last operation renamed the start offsets
	say := func(s string) {
		mu.Lock()
		out.WriteString("# " + s + "\n")
		mu.Unlock()
	}
	fs := vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if op.Kind.Changes() || op.Kind == vfs.OpLock || op.Kind == vfs.OpDropCache {
			out.WriteString(op.String() + "\n")
		}
		if starts && op.Kind == vfs.OpSyncDir {
			pointsWritten <- struct{}{}
		}
		starts = op.Kind == vfs.OpRename && strings.HasSuffix(op.To, startOffsetFile)
		return nil
	})
	o := testOptions(fs)
	o.Durability = OS // so that only what is asked for syncs
	say("open an empty directory")
	s := mustOpen(t, o)
	say("create a log")
	l := mustCreate(t, s, "t-0")
	say("append two entries")
	one := spec{n: 2, value: 500, ts: fixedClock(), epoch: -1}
	l.Append(fixedClock(), 0, []*Entry{{Data: one.build()}, {Data: one.build()}})
	say("sync")
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	say("append two that roll")
	idempotent := one
	idempotent.pid = 7
	l.Append(fixedClock(), 0, []*Entry{{Data: one.build()}, {Data: idempotent.build()}})
	<-pointsWritten // the checkpoint that follows a roll
	say("delete before 3")
	if err := l.DeleteBefore(3); err != nil {
		t.Fatal(err)
	}
	say("delete what lies before 4")
	if err := l.DeleteBefore(4); err != nil {
		t.Fatal(err)
	}
	if err := l.retain(fixedClock()); err != nil {
		t.Fatal(err)
	}
	say("truncate to 6")
	if err := l.TruncateTo(6); err != nil {
		t.Fatal(err)
	}
	say("close")
	if err := s.Close(5); err != nil {
		t.Fatal(err)
	}
	sameAsGolden(t, "testdata/trace.txt", out.String())
}

// sameAsGolden holds a trace against a golden file.
func sameAsGolden(t *testing.T, golden, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the trace differs from %s (-update rewrites it):\n%s", golden, diffLines(string(want), got))
	}
}

// diffLines says where two texts part.
func diffLines(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range w {
		if i >= len(g) || w[i] != g[i] {
			return "line " + w[i] + "\nis now " + strings.Join(g[i:min(len(g), i+5)], "\n       ")
		}
	}
	return "more: " + strings.Join(g[len(w):], "\n")
}
