package segment

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/millrace-project/millrace/index"
	"github.com/millrace-project/millrace/vfs"
)

// list returns the names of a directory.
func list(t testing.TB, fs vfs.FS, dir string) (names []string) {
	t.Helper()
	entries, err := fs.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// cleanedPair is a cleaned segment with batches and an aborted transaction.
func cleanedPair(t *testing.T, fs vfs.FS, handles *vfs.Handles) (*Segment, *twin) {
	t.Helper()
	rng, _ := seedOf(t)
	if err := fs.MkdirAll("d", 0o755); err != nil {
		t.Fatal(err)
	}
	cfg := Config{IndexIntervalBytes: 300, IndexMaxBytes: 1 << 20, Handles: handles}
	s, err := CreateCleaned(fs, "d", 1000, cfg)
	if err != nil {
		t.Fatal(err)
	}
	tw := &twin{base: 1000}
	for range 40 {
		bs := tw.grow(rng, 100)
		if err := appendBatches(s, bs); err != nil {
			t.Fatal(err)
		}
		tw.batches = append(tw.batches, bs...)
	}
	if err := s.AppendAborted(index.TxnEntry{ProducerID: 5, FirstOffset: 1001, LastOffset: tw.next() - 1, LastStableOffset: tw.next()}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Seal(), s.SyncAll()); err != nil {
		t.Fatal(err)
	}
	return s, tw
}

func checkBytes(t *testing.T, s *Segment, tw *twin) {
	t.Helper()
	for i := range tw.batches {
		b := &tw.batches[i]
		v, err := s.Read(b.base, int64(len(b.data)), 1<<31-1, true)
		if err != nil || v == nil {
			t.Fatalf("read %d: %v", b.base, err)
		}
		p := make([]byte, v.Len())
		if _, err := v.ReadAt(p, 0); err != nil || !bytes.Equal(p, b.data) {
			t.Fatalf("read %d: other bytes, %v", b.base, err)
		}
		v.Close()
	}
	aborted, _, err := s.Aborted(tw.base, tw.next())
	if err != nil || len(aborted) != 1 || aborted[0].ProducerID != 5 {
		t.Fatalf("aborted transactions %v, %v", aborted, err)
	}
}

// TestCleanedSegmentTakesItsNames follows the files from .cleaned to their final
// names, to .deleted and away, with reads at every step and no handle kept open.
func TestCleanedSegmentTakesItsNames(t *testing.T) {
	fs := vfs.NewMem()
	handles := vfs.NewHandles(0, 64) // each use opens by name
	s, tw := cleanedPair(t, fs, handles)
	stem := "00000000000000001000"
	for _, suffix := range []string{".cleaned", ".swap", ".cleaned", ".swap", "", ""} {
		if err := s.Rename(suffix); err != nil {
			t.Fatal(err)
		}
		want := []string{stem + ".index" + suffix, stem + ".log" + suffix, stem + ".timeindex" + suffix, stem + ".txnindex" + suffix}
		if got := list(t, fs, "d"); !slices.Equal(got, want) {
			t.Fatalf("with suffix %q: %v", suffix, got)
		}
		if s.Suffix() != suffix || filepath.Base(s.Path()) != stem+".log"+suffix {
			t.Fatalf("suffix %q, path %s, want %q", s.Suffix(), s.Path(), suffix)
		}
		if err := s.SetModTimeMs(1_234_567); err != nil {
			t.Fatal(err)
		}
		if ms, err := s.ModTimeMs(); err != nil || ms != 1_234_567 {
			t.Fatal(ms, err)
		}
		checkBytes(t, s, tw)
	}
	reopened, err := Open(fs, "d", 1000, -1, s.cfg, true)
	if err != nil {
		t.Fatal(err)
	}
	checkBytes(t, reopened, tw)
	reopened.Close()
	if err := s.MarkDeleted(); err != nil {
		t.Fatal(err)
	}
	checkBytes(t, s, tw)
	if err := s.Unlink(); err != nil {
		t.Fatal(err)
	}
	if got := list(t, fs, "d"); len(got) != 0 {
		t.Fatalf("%v after Unlink", got)
	}
}

// TestCreateCleanedReplacesLeftovers: a pass that was ended by a crash may have left
// files of the same name, also such as the new one does not make.
func TestCreateCleanedReplacesLeftovers(t *testing.T) {
	fs := vfs.NewMem()
	s, _ := cleanedPair(t, fs, nil)
	s.Close()
	fresh, err := CreateCleaned(fs, "d", 1000, Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	if fresh.Size() != 0 || fresh.NextOffset() != 1000 {
		t.Fatal(fresh.Size(), fresh.NextOffset())
	}
	for _, name := range list(t, fs, "d") {
		if info, err := fs.Stat("d/" + name); err != nil || info.Size() != 0 || strings.Contains(name, "txn") {
			t.Fatalf("%s: %d bytes left, %v", name, info.Size(), err)
		}
	}
}

// TestRenameGoesOnAfterAnError fails each rename in turn: a second call does the rest.
func TestRenameGoesOnAfterAnError(t *testing.T) {
	for failing := range 4 {
		n, armed := 0, false
		fs := vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op) error {
			if op.Kind != vfs.OpRename || !armed {
				return nil
			}
			if n++; n == failing+1 {
				return syscall.ENOSPC
			}
			return nil
		})
		s, tw := cleanedPair(t, fs, vfs.NewHandles(0, 64))
		armed = true
		if err := s.Rename(".swap"); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		checkBytes(t, s, tw)
		if err := s.Rename(".swap"); err != nil {
			t.Fatal(err)
		}
		checkBytes(t, s, tw)
		for _, name := range list(t, fs, "d") {
			if !strings.HasSuffix(name, ".swap") {
				t.Fatalf("after failure %d: %v", failing, list(t, fs, "d"))
			}
		}
		s.Close()
	}
}

// TestReadsBesideRenames opens files by name all the time, on the real file system,
// while they get other names.
func TestReadsBesideRenames(t *testing.T) {
	t.Chdir(t.TempDir())
	s, tw := cleanedPair(t, vfs.OS(), vfs.NewHandles(0, 64))
	defer s.Close()
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Add(1)
		go func() {
			defer readers.Done()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				b := &tw.batches[i%len(tw.batches)]
				v, err := s.Read(b.base, 1, 1<<31-1, true)
				if err != nil || v == nil {
					t.Errorf("read %d: %v", b.base, err)
					return
				}
				v.Close()
				if _, _, err := s.Aborted(tw.base, tw.next()); err != nil {
					t.Error(err)
					return
				}
			}
		}()
	}
	for i := range 300 {
		if err := s.Rename([]string{".swap", "", ".cleaned"}[i%3]); err != nil {
			t.Error(err)
			break
		}
	}
	if err := s.MarkDeleted(); err != nil {
		t.Error(err)
	}
	close(stop)
	readers.Wait()
	if _, err := os.Stat("d/00000000000000001000.log.deleted"); err != nil {
		t.Fatal(err)
	}
}
