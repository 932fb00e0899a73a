package commitlog

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/vfs"
)

func TestOneStoreADirectory(t *testing.T) {
	mem := vfs.NewMem()
	s := mustOpen(t, testOptions(mem))
	if _, err := Open(testDir, testOptions(mem)); !errors.Is(err, vfs.ErrLocked) {
		t.Fatal(err)
	}
	s.Close(1)
	mustOpen(t, testOptions(mem)).Close(1)
}

func TestJournalOfALaterVersionIsRefusedByName(t *testing.T) {
	mem := vfs.NewMem()
	mustOpen(t, testOptions(mem)).Close(1)
	if err := vfs.WriteFileAtomic(mem, "data/millrace.journal", nil); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, testOptions(mem)).Close(1)
	if err := vfs.WriteFileAtomic(mem, "data/millrace.journal", []byte("x")); err != nil {
		t.Fatal(err)
	}
	_, err := Open(testDir, testOptions(mem))
	if !errors.Is(err, ErrFutureFormat) || !strings.Contains(err.Error(), "data/millrace.journal") {
		t.Fatal(err)
	}
	if _, err := mem.Stat("data/.kafka_cleanshutdown"); err != nil {
		t.Fatal("the refused directory was changed: ", err)
	}
}

func TestForeignDirectoryIsRefusedByName(t *testing.T) {
	mem := vfs.NewMem()
	mem.MkdirAll("data/lost+found", 0o755)
	mem.MkdirAll("data/holiday", 0o755)
	if _, err := Open(testDir, testOptions(mem)); err == nil || !strings.Contains(err.Error(), "data/holiday") {
		t.Fatal(err)
	}
}

// TestEpochs goes through assignment, appends, truncation and reopening.
func TestEpochs(t *testing.T) {
	mem := vfs.NewMem()
	s := mustOpen(t, testOptions(mem))
	l := mustCreate(t, s, "t-0")
	write := func(epoch int32, n int) {
		t.Helper()
		e := Entry{Data: spec{n: n, ts: fixedClock(), epoch: -1}.build()}
		if l.Append(fixedClock(), epoch, []*Entry{&e}); e.Err != nil {
			t.Fatal(e.Err)
		}
	}
	if err := l.AssignEpoch(3, 0); err != nil {
		t.Fatal(err)
	}
	write(3, 5)
	write(5, 5)
	write(8, 5)
	check := func(epoch, wantEpoch int32, wantEnd int64) {
		t.Helper()
		if e, end := l.EndOffsetForEpoch(epoch); e != wantEpoch || end != wantEnd {
			t.Errorf("epoch %d: (%d, %d), want (%d, %d)", epoch, e, end, wantEpoch, wantEnd)
		}
	}
	all := func() {
		t.Helper()
		check(2, 2, 0)
		check(3, 3, 5)
		check(4, 3, 5)
		check(5, 5, 10)
		check(8, 8, 15)
		check(9, -1, -1)
	}
	all()
	for range 2 { // clean, then killed
		if err := s.Close(1); err != nil {
			t.Fatal(err)
		}
		s = mustOpen(t, testOptions(mem))
		l = s.Log("t-0")
		all()
		s.Close(1)
		mem.Remove("data/" + cleanShutdownFile)
		s = mustOpen(t, testOptions(mem))
		l = s.Log("t-0")
		all()
	}
	if err := l.TruncateTo(7); err != nil {
		t.Fatal(err)
	}
	check(3, 3, 5) // the batch of epoch 5 was cut as a whole
	check(5, -1, -1)
	if err := l.TruncateAll(100); err != nil {
		t.Fatal(err)
	}
	if _, ok := l.LatestEpoch(); ok || l.StartOffset() != 100 || l.EndOffset() != 100 {
		t.Fatal(l.StartOffset(), l.EndOffset())
	}
	write(9, 5)
	s.Close(1)
	s = mustOpen(t, testOptions(mem))
	if l = s.Log("t-0"); l.StartOffset() != 100 || l.EndOffset() != 105 {
		t.Fatal(l.StartOffset(), l.EndOffset())
	}
	check(9, 9, 105)
	s.Close(1)
}

func TestReplicaKeepsOffsetsAndGaps(t *testing.T) {
	s := mustOpen(t, testOptions(vfs.NewMem()))
	l := mustCreate(t, s, "t-0")
	data := append(spec{base: 3, n: 2, epoch: 4, ts: 7}.build(), spec{base: 10, n: 1, epoch: 6, ts: 9}.build()...)
	r, err := l.AppendReplica(data)
	if err != nil || r.BaseOffset != 3 || r.LastOffset != 10 || l.EndOffset() != 11 {
		t.Fatal(r, err)
	}
	if _, err := l.AppendReplica(data); !errors.Is(err, ErrUnexpectedOffset) {
		t.Fatal(err)
	}
	got := readAll(t, l, 0, 11)
	if len(got) != 2 || !bytes.Equal(bytes.Join([][]byte{got[0], got[1]}, nil), data) {
		t.Fatal("not byte for byte")
	}
	if e, end := l.EndOffsetForEpoch(4); e != 4 || end != 10 {
		t.Fatal(e, end)
	}
	at, err := l.MaxTimestamp()
	if err != nil || at != (TimeOffset{Offset: 10, Timestamp: 9, LeaderEpoch: 6}) {
		t.Fatal(at, err)
	}
	s.Close(1)
}

// files returns the content of every file below dir.
func files(t testing.TB, fs vfs.FS, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	entries, err := fs.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		path := dir + "/" + e.Name()
		if e.IsDir() {
			maps.Copy(all, files(t, fs, path))
			continue
		}
		p, err := vfs.ReadFile(fs, path)
		if err != nil {
			t.Fatal(err)
		}
		all[path] = string(p)
	}
	return all
}

// TestCleanReopenChangesNothing: open and close of a directory leave its
// partitions' files as they are, and what stands there is what a clean stop of
// Kafka leaves.
func TestCleanReopenChangesNothing(t *testing.T) {
	mem := vfs.NewMem()
	s := mustOpen(t, testOptions(mem))
	l := mustCreate(t, s, "t-0")
	empty := mustCreate(t, s, "empty-0")
	if err := empty.AssignEpoch(0, 0); err != nil {
		t.Fatal(err)
	}
	for i := range 12 {
		mustAppend(t, l, spec{n: 1, value: 900, ts: fixedClock() + int64(i), epoch: -1, pid: 3, seq: int32(i)}.build())
	}
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
	before := files(t, mem, testDir)
	want := []string{
		"data/.kafka_cleanshutdown", "data/.lock", "data/empty-0/00000000000000000000.index",
		"data/empty-0/00000000000000000000.log", "data/empty-0/00000000000000000000.timeindex",
		"data/empty-0/leader-epoch-checkpoint", "data/empty-0/partition.metadata",
		"data/log-start-offset-checkpoint", "data/millrace.recovery-point",
		"data/recovery-point-offset-checkpoint", "data/replication-offset-checkpoint",
		"data/t-0/00000000000000000000.index", "data/t-0/00000000000000000000.log", "data/t-0/00000000000000000000.timeindex",
		"data/t-0/00000000000000000004.index", "data/t-0/00000000000000000004.log", "data/t-0/00000000000000000004.snapshot",
		"data/t-0/00000000000000000004.timeindex",
		"data/t-0/00000000000000000008.index", "data/t-0/00000000000000000008.log", "data/t-0/00000000000000000008.snapshot",
		"data/t-0/00000000000000000008.timeindex", "data/t-0/00000000000000000012.snapshot",
		"data/t-0/leader-epoch-checkpoint", "data/t-0/partition.metadata",
	}
	if got := slices.Sorted(maps.Keys(before)); !slices.Equal(got, want) {
		t.Errorf("files %v\nwant %v", got, want)
	}
	if got := before["data/empty-0/leader-epoch-checkpoint"]; got != "0\n1\n0 0\n" {
		t.Errorf("%q", got)
	}
	s = mustOpen(t, testOptions(mem))
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
	for path, content := range files(t, mem, testDir) {
		if strings.Contains(path, "t-0") && before[path] != content {
			t.Errorf("%s changed", path)
		}
	}
}

// FuzzOpen opens a directory whose files were mangled: it must not panic, and
// what is served must be whole batches in order.
func FuzzOpen(f *testing.F) {
	f.Add([]byte{0}, true)
	f.Add([]byte{0, 3, 1, 0, 1, 9, 2, 200, 3, 7, 40, 5}, false)
	f.Add([]byte{1, 5, 0, 0, 2, 8, 1, 1, 3, 4, 0, 60}, true)
	var base map[string]string
	f.Fuzz(func(t *testing.T, script []byte, clean bool) {
		if base == nil {
			base = mangledBase(t)
		}
		mem := vfs.NewMem()
		content := maps.Clone(base)
		mangle(content, script)
		for path, p := range content {
			mem.MkdirAll(path[:strings.LastIndexByte(path, '/')], 0o755)
			if err := vfs.WriteFileAtomic(mem, path, []byte(p)); err != nil {
				t.Fatal(err)
			}
		}
		if !clean {
			mem.Remove("data/" + cleanShutdownFile)
		}
		s, err := Open(testDir, testOptions(mem))
		if err != nil {
			return // refused
		}
		for _, l := range s.Logs() {
			if l.Err() == nil {
				useMangled(t, l, clean)
			}
		}
		_ = s.Close(1)
	})
}

func mangledBase(t testing.TB) map[string]string {
	mem := vfs.NewMem()
	s := mustOpen(t, testOptions(mem))
	l := mustCreate(t, s, "t-0")
	for i := range 12 {
		mustAppend(t, l, spec{n: 2, value: 400, ts: fixedClock() + int64(i), epoch: -1, pid: 3, seq: int32(2 * i), txn: true}.build())
	}
	if _, err := appendAs(l, FromCoordinator, spec{ts: fixedClock(), pid: 3, isMarker: true, epoch: -1}.build()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.Sync(), l.DeleteBefore(3)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
	return files(t, mem, testDir)
}

// mangle changes files by a script of four bytes each: what, which file, where,
// with what.
func mangle(content map[string]string, script []byte) {
	for ; len(script) >= 4 && len(content) > 0; script = script[4:] {
		paths := slices.Sorted(maps.Keys(content))
		path := paths[int(script[1])%len(paths)]
		p := []byte(content[path])
		at := 0
		if len(p) > 0 {
			at = int(script[2]) * len(p) / 256
		}
		switch script[0] % 5 {
		case 0:
			if len(p) > 0 {
				p[at] ^= script[3] | 1
			}
		case 1:
			p = p[:at]
		case 2:
			p = append(p, make([]byte, int(script[3])*8)...)
		case 3:
			delete(content, path)
			continue
		case 4:
			content[fmt.Sprintf("%s%s", path, []string{".deleted", ".swap", ".cleaned"}[int(script[3])%3])] = string(p)
			continue
		}
		content[path] = string(p)
	}
}

// useMangled reads, looks up and appends. After an unclean start everything that
// is served was checked or lies below the recovery point.
func useMangled(t *testing.T, l *Log, clean bool) {
	next := l.StartOffset()
	for next < l.EndOffset() {
		v, err := l.Read(next, l.EndOffset(), 1000, true)
		if err != nil || v == nil {
			break
		}
		p := make([]byte, v.Len())
		_, err = v.ReadAt(p, 0)
		v.Close()
		b, _, berr := batch.Next(p)
		if err != nil || berr != nil || b.LastOffset() < next {
			break
		}
		next = b.LastOffset() + 1
	}
	if _, err := l.Aborted(0, l.EndOffset()); err != nil {
		var corrupt *CorruptError
		if !errors.As(err, &corrupt) && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("aborted: %v", err)
		}
	}
	_, _, _ = l.OffsetForTime(fixedClock()+3, l.EndOffset())
	_, _ = l.MaxTimestamp()
	_, _ = appendAs(l, FromClient, spec{n: 1, ts: fixedClock(), epoch: -1}.build())
	_ = l.TruncateTo(max(l.StartOffset(), l.EndOffset()-5))
	_ = l.Sync()
	_ = clean
}

// TestTruncateInsideABatch: the recovery point on disk is not above the new end,
// where bytes are appended that no checkpoint has covered.
func TestTruncateInsideABatch(t *testing.T) {
	mem := vfs.NewMem()
	s := mustOpen(t, testOptions(mem))
	l := mustCreate(t, s, "t-0")
	for range 3 {
		mustAppend(t, l, spec{n: 10, ts: fixedClock(), epoch: -1}.build())
	}
	l.checkpoint()
	if err := s.points.writeRecovery(s); err != nil {
		t.Fatal(err)
	}
	if err := l.TruncateTo(25); err != nil {
		t.Fatal(err)
	}
	p, err := vfs.ReadFile(mem, "data/"+recoveryPointFile)
	if err != nil || string(p) != "0\n1\nt 0 20\n" || l.EndOffset() != 20 {
		t.Fatalf("recovery points %q (%v), end %d", p, err, l.EndOffset())
	}
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
}
