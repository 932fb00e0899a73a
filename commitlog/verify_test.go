package commitlog

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/vfs"
)

// closedLog is a directory that was closed cleanly, with several segments, indexes and a producer.
func closedLog(t *testing.T) (fs *vfs.Mem, dir string) {
	t.Helper()
	fs = vfs.NewMem()
	s := mustOpen(t, testOptions(fs))
	l := mustCreate(t, s, "t-0")
	for i := range 40 {
		mustAppend(t, l, spec{n: 3, value: 100, ts: fixedClock() + int64(i), epoch: -1, pid: 7, seq: int32(3 * i)}.build())
	}
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
	return fs, filepath.Join(testDir, "t-0")
}

// lastLog is the name of the active segment's log file.
func lastLog(t *testing.T, fs vfs.FS, dir string) (last string) {
	t.Helper()
	names, err := dirNames(fs, dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if strings.HasSuffix(n, ".log") && n > last {
			last = n
		}
	}
	return last
}

func TestVerifyFindsNothingInACleanLog(t *testing.T) {
	fs, dir := closedLog(t)
	r, err := Verify(fs, dir, VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Findings) != 0 || r.Batches != 40 || r.Records != 120 || r.Start != 0 || r.End != 120 || r.Segments < 3 {
		t.Fatalf("%+v", r)
	}
}

// Any bit that a checksum covers, any length or magic, any index entry: flipped, it is found, in the
// file where it is, and no later than where it is.
func TestVerifyFindsEveryFlippedBit(t *testing.T) {
	fs, dir := closedLog(t)
	names, err := dirNames(fs, dir)
	if err != nil {
		t.Fatal(err)
	}
	flips := 0
	for _, name := range names {
		path := filepath.Join(dir, name)
		was, err := vfs.ReadFile(fs, path)
		if err != nil {
			t.Fatal(err)
		}
		step := 1
		if strings.HasSuffix(name, ".log") {
			step = 7 // every byte of every log takes long
		}
		for pos := 0; pos < len(was); pos += step {
			if !checked(name, was, pos) {
				continue
			}
			bent := append([]byte(nil), was...)
			bent[pos] ^= 1 << (pos % 8)
			rewrite(t, fs, path, bent)
			r, err := Verify(fs, dir, VerifyOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if !r.Bad() {
				t.Fatalf("%s: bit %d of byte %d flipped and not found", name, pos%8, pos)
			}
			flips++
		}
		rewrite(t, fs, path, was)
	}
	if flips < 1000 {
		t.Fatalf("only %d flips were tried", flips)
	}
}

// checked says whether a byte is covered: of a log, all but base offsets and leader epochs, which no
// checksum covers; of the time index, a timestamp may be any that fits.
func checked(name string, p []byte, pos int) bool {
	switch filepath.Ext(name) {
	case ".log":
		for at := 0; at < len(p); {
			h, err := batch.ParseHeader(p[at:])
			if err != nil {
				return false
			}
			if pos < at+h.Size() {
				in := pos - at
				return in >= 16 || in >= 8 && in < 12
			}
			at += h.Size()
		}
		return false
	case ".index", ".timeindex", ".snapshot":
		return true
	}
	return false
}

func rewrite(t *testing.T, fs vfs.FS, path string, p []byte) {
	t.Helper()
	f, err := fs.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(p, 0); err != nil {
		t.Fatal(err)
	}
}

func TestVerifyTellsATornTailFromDamage(t *testing.T) {
	fs, dir := closedLog(t)
	last := lastLog(t, fs, dir)
	path := filepath.Join(dir, last)
	p, err := vfs.ReadFile(fs, path)
	if err != nil {
		t.Fatal(err)
	}
	rewrite(t, fs, path, append(p, spec{n: 3, value: 50, base: 120, ts: 1}.build()[:70]...))
	for _, unclean := range []bool{false, true} {
		r, err := Verify(fs, dir, VerifyOptions{Unclean: unclean})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Findings) != 1 || r.Findings[0].Pos != int64(len(p)) || r.Findings[0].Torn != unclean || r.Bad() == unclean {
			t.Fatalf("unclean %t: %+v", unclean, r.Findings)
		}
		if want := fmt.Sprintf("at byte %d", len(p)); !strings.Contains(r.Findings[0].String(), want) {
			t.Fatalf("%s does not say %q", r.Findings[0], want)
		}
	}
}

// A power cut leaves zeros where a transaction index's entries were not synced: the next start writes them again.
func TestVerifyTellsLostIndexEntriesFromDamage(t *testing.T) {
	fs, dir := closedLog(t)
	last := lastLog(t, fs, dir)
	if err := writeSynced(fs, filepath.Join(dir, strings.TrimSuffix(last, ".log")+".txnindex"), make([]byte, 2*34)); err != nil {
		t.Fatal(err)
	}
	for _, unclean := range []bool{false, true} {
		r, err := Verify(fs, dir, VerifyOptions{Unclean: unclean})
		if err != nil || len(r.Findings) != 1 || r.Findings[0].Torn != unclean {
			t.Errorf("unclean %t: %+v, %v", unclean, r, err)
		}
	}
}

// cleanedDir is the directory of a log that was cleaned and closed.
func cleanedDir(t *testing.T) (fs *vfs.Mem, dir string) {
	t.Helper()
	fs = vfs.NewMem()
	s := mustOpen(t, compactedOptions(fs))
	l := mustCreateCompacted(t, s, "t-0")
	fillHistory(t, l, newRand(t, 5), 120)
	if _, err := l.Compact(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
	return fs, filepath.Join(testDir, "t-0")
}

func TestVerifyKnowsCompactedLogs(t *testing.T) {
	fs, dir := cleanedDir(t)
	r, err := Verify(fs, dir, VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Findings) != 0 || r.Cleaned <= 0 || r.Cleaned > r.End || r.Records >= r.End-r.Start {
		t.Fatalf("%+v", r)
	}
	names, _ := dirNames(fs, dir)
	var logs []string
	for _, name := range names {
		if strings.HasSuffix(name, ".log") {
			logs = append(logs, name)
		}
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	copyFile := func(fs vfs.FS, from, to string) {
		p, err := vfs.ReadFile(fs, path(from))
		if err != nil {
			t.Fatal(err)
		}
		f, err := fs.OpenFile(path(to), os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt(p, 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name    string
		do      func(fs *vfs.Mem)
		bad     bool
		finding string
	}{
		{"a pass was interrupted", func(fs *vfs.Mem) { copyFile(fs, logs[0], logs[0]+".cleaned") }, false, "removes it"},
		{"a swap was interrupted", func(fs *vfs.Mem) { fs.Rename(path(logs[0]), path(logs[0]+".swap")) }, false, "makes it " + logs[0]},
		{"what was swapped is damaged", func(fs *vfs.Mem) {
			fs.Rename(path(logs[0]), path(logs[0]+".swap"))
			f, _ := fs.OpenFile(path(logs[0]+".swap"), os.O_RDWR, 0)
			f.WriteAt([]byte{0x5a}, 30)
			f.Close()
		}, true, logs[0] + ".swap at byte 0"},
		{"segments overlap", func(fs *vfs.Mem) { copyFile(fs, logs[0], "00000000000000000001.log") }, true, "the one before ends at"},
		{"the checkpoint is damaged", func(fs *vfs.Mem) { rewrite(t, fs, filepath.Join(testDir, cleanedFile), []byte("x")) }, false, "start of every log"},
		{"the checkpoint is beyond the end", func(fs *vfs.Mem) {
			rewrite(t, fs, filepath.Join(testDir, cleanedFile), []byte("0\n1\nt 0 100000\n"))
		}, false, "offset 100000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := fs.KillClone()
			c.do(fs)
			r, err := Verify(fs, dir, VerifyOptions{})
			if err != nil {
				t.Fatal(err)
			}
			said := fmt.Sprint(r.Findings)
			if r.Bad() != c.bad || !strings.Contains(said, c.finding) {
				t.Fatalf("bad %t: %s", r.Bad(), said)
			}
		})
	}
}
