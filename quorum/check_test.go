package quorum

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/vfs"
)

// checkDirs writes a metadata log of ten topics, in segments of a few batches where segmentBytes says so, and returns
// what a clean stop leaves of it and what a kill does.
func checkDirs(t *testing.T, segmentBytes int64) (stopped, killed *vfs.Mem) {
	t.Helper()
	files := vfs.NewMem()
	format(t, files, "/d")
	n := mustOpen(t, files, "/d", func(o *Options) { o.SegmentBytes = segmentBytes })
	for i := range 10 {
		value, err := records.AppendMetadata(nil, &records.TopicRecord{Name: fmt.Sprint("topic", i), TopicID: records.UUID(bytes.Repeat([]byte{byte(i + 1)}, 16))}, 0)
		if err != nil {
			t.Fatal(err)
		}
		n.append(t, [][]byte{value})
		n.settle(t)
	}
	killed = files.KillClone()
	n.close(t)
	return files, killed
}

func logFiles(t *testing.T, files vfs.FS) (names []string) {
	t.Helper()
	entries, err := files.ReadDir(filepath.Join("/d", LogName))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if filepath.Ext(e.Name()) == ".log" {
			names = append(names, filepath.Join("/d", LogName, e.Name()))
		}
	}
	return names
}

// tree is the content of every file below dir.
func tree(t *testing.T, files vfs.FS, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	entries, err := files.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		if e.IsDir() {
			maps.Copy(out, tree(t, files, name))
			continue
		}
		p, err := vfs.ReadFile(files, name)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = string(p)
	}
	return out
}

// rewrite edits a file of a copy of the directory.
func rewrite(t *testing.T, files *vfs.Mem, name string, edit func(p []byte) []byte) *vfs.Mem {
	t.Helper()
	files = files.KillClone()
	p, err := vfs.ReadFile(files, name)
	if err != nil {
		t.Fatal(err)
	}
	if err := vfs.WriteFileAtomic(files, name, edit(bytes.Clone(p))); err != nil {
		t.Fatal(err)
	}
	return files
}

// refused: the directory does not open, the error names file and byte, and nothing was touched.
func refused(t *testing.T, what string, files *vfs.Mem, file string, pos int64) {
	t.Helper()
	before := tree(t, files, "/d")
	_, err := openNode(files, "/d")
	var corrupt *commitlog.CorruptError
	switch {
	case !errors.As(err, &corrupt):
		t.Errorf("%s: %v", what, err)
	case corrupt.File != file || corrupt.Pos != pos:
		t.Errorf("%s: %v; want %s, byte %d", what, err, file, pos)
	}
	if !maps.Equal(before, tree(t, files, "/d")) {
		t.Errorf("%s: the refusal changed the directory", what)
	}
}

// starts of the batches of p, and its size.
func starts(t *testing.T, p []byte) (at []int64) {
	t.Helper()
	for pos := int64(0); ; {
		at = append(at, pos)
		b, rest, err := batch.Next(p)
		if err != nil {
			return at
		}
		pos, p = pos+int64(b.Size()), rest
	}
}

func TestTornTailStarts(t *testing.T) {
	_, killed := checkDirs(t, 0)
	name := logFiles(t, killed)[0]
	for n := range 200 {
		files := rewrite(t, killed, name, func(p []byte) []byte {
			return p[:len(p)-n]
		})
		mustOpen(t, files, "/d").close(t)
	}
	for _, junk := range []string{strings.Repeat("\x00", 700), strings.Repeat("?", 100)} {
		mustOpen(t, rewrite(t, killed, name, func(p []byte) []byte { return append(p, junk...) }), "/d").close(t)
	}
	stopped, _ := checkDirs(t, 0)
	for n := 1; n < 200; n++ { // a clean stop leaves no tail
		var at []int64
		files := rewrite(t, stopped, name, func(p []byte) []byte {
			at = starts(t, p[:len(p)-n])
			return p[:len(p)-n]
		})
		refused(t, fmt.Sprintf("%d bytes less", n), files, name, at[len(at)-1])
	}
}

// A bit that is not what it was is found wherever it is, but for leader epochs, which nothing covers.
func TestFlippedBitIsRefused(t *testing.T) {
	seed := rand.Int63()
	rng := rand.New(rand.NewSource(seed))
	for _, segmentBytes := range []int64{0, 300} {
		stopped, killed := checkDirs(t, segmentBytes)
		for dir, base := range map[string]*vfs.Mem{"stopped": stopped, "killed": killed} {
			names := logFiles(t, base)
			for k, name := range names {
				p, err := vfs.ReadFile(base, name)
				if err != nil {
					t.Fatal(err)
				}
				at := starts(t, p)
				tail := at[len(at)-2]
				for range 40 {
					i := rng.Int63n(int64(len(p)))
					if dir == "killed" && k == len(names)-1 && i >= tail {
						continue // may be a torn tail
					}
					j := 0
					for at[j+1] <= i {
						j++
					}
					if in := i - at[j]; in >= 12 && in < 16 {
						continue
					}
					files := rewrite(t, base, name, func(p []byte) []byte {
						p[i] ^= 1 << rng.Intn(8)
						return p
					})
					refused(t, fmt.Sprintf("seed %d, %s, byte %d of %s", seed, dir, i, name), files, name, at[j])
				}
			}
		}
	}
}

// Recovery cuts a batch whose offsets index entries cannot reach, whatever its checksum says: here it is refused.
func TestOffsetsOutOfReachAreRefused(t *testing.T) {
	stopped, killed := checkDirs(t, 0)
	for what, files := range map[string]*vfs.Mem{"stopped": stopped, "killed": killed} {
		name := logFiles(t, files)[0]
		at := int64(0)
		bad := rewrite(t, files, name, func(p []byte) []byte {
			all := starts(t, p)
			at = all[len(all)-2]
			b := batch.Batch(p[at:])
			const lastOffsetDeltaPos, crcPos, coveredPos = 23, 17, 21
			binary.BigEndian.PutUint32(b[lastOffsetDeltaPos:], uint32(math.MaxInt32-b.BaseOffset()+1))
			binary.BigEndian.PutUint32(b[crcPos:], crc32.Checksum(b[coveredPos:], crc32.MakeTable(crc32.Castagnoli)))
			return p
		})
		refused(t, what, bad, name, at)
	}
}

// What a power cut leaves of writes that no sync had reached is no damage; the same hole is where what follows it says
// that it was on disk.
func TestHoles(t *testing.T) {
	_, killed := checkDirs(t, 0)
	name := logFiles(t, killed)[0]
	var at []int64
	hole := func(p []byte) []byte {
		at = starts(t, p)
		clear(p[at[5]:at[6]])
		return p
	}
	files := rewrite(t, killed, name, hole)
	n := mustOpen(t, files, "/d")
	if got := len(n.content(t)); got != 1+3+4+1 { // "@0", the first election, four topics, the second election
		t.Errorf("%d records", got)
	}
	n.close(t)
	n = mustOpen(t, killed, "/d") // a second election behind them
	n.settle(t)
	killed = killed.KillClone()
	n.close(t)
	refused(t, "an election behind a hole", rewrite(t, killed, name, hole), name, at[5])
}

func TestSnapshotKnowsWhatWasCommitted(t *testing.T) {
	files := vfs.NewMem()
	format(t, files, "/d")
	n := mustOpen(t, files, "/d")
	n.append(t, vals("a", "b"))
	n.settle(t)
	if err := n.q.WriteSnapshot(Snapshot{5, 1, nowMs}, values("A", "B")); err != nil {
		t.Fatal(err)
	}
	killed := files.KillClone()
	n.close(t)
	name := logFiles(t, killed)[0]
	var at []int64
	files = rewrite(t, killed, name, func(p []byte) []byte {
		at = starts(t, p)
		return p[:len(p)-1]
	})
	refused(t, "below the snapshot", files, name, at[1])
}

// The directory of a partition is made after its topic's creation was committed. One that only has such a name says nothing.
func TestPartitionKnowsWhatWasCommitted(t *testing.T) {
	_, killed := checkDirs(t, 0)
	name := logFiles(t, killed)[0]
	var at []int64
	torn := rewrite(t, killed, name, func(p []byte) []byte {
		at = starts(t, p)
		return p[:len(p)-1]
	})
	const segment = "00000000000000000000.log"
	for _, c := range []struct {
		dir, file, content string
		ok                 bool
	}{
		{"topic8-0", partitionMetadata, "version: 0\n", true},
		{"topic9-0.0123456789abcdef0123456789abcdef-stray", partitionMetadata, "version: 0\n", true},
		{"backup-1", "notes.txt", "what was copied", true},
		{"topic9-0", "", "", true},
		{"topic9-0", segment, "", true},
		{"topic9-0", segment, "records", false},
		{"topic9-0", partitionMetadata, "version: 0\n", false},
	} {
		files := torn.KillClone()
		dir := filepath.Join("/d", c.dir)
		if err := files.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if c.file != "" {
			if err := vfs.WriteFileAtomic(files, filepath.Join(dir, c.file), []byte(c.content)); err != nil {
				t.Fatal(err)
			}
		}
		if what := c.dir + "/" + c.file; !c.ok {
			refused(t, what, files, name, at[len(at)-2])
		} else if err := Check(files, "/d"); err != nil {
			t.Errorf("%s: %v", what, err)
		} else if c.file != partitionMetadata {
			mustOpen(t, files, "/d").close(t)
		}
	}
}

func TestMissingPartsOfTheLog(t *testing.T) {
	stopped, killed := checkDirs(t, 300)
	for dir, base := range map[string]*vfs.Mem{"stopped": stopped, "killed": killed} {
		names := logFiles(t, base)
		if len(names) < 4 {
			t.Fatal(names)
		}
		remove := func(gone ...string) *vfs.Mem {
			files := base.KillClone()
			for _, name := range gone {
				if err := files.Remove(name); err != nil {
					t.Fatal(err)
				}
			}
			return files
		}
		refused(t, dir+": all", remove(names...), names[0], 0)
		refused(t, dir+": the first", remove(names[0]), names[1], 0)
		if dir == "stopped" {
			refused(t, dir+": the second", remove(names[1]), names[2], 0)
			last := len(names) - 1
			p, err := vfs.ReadFile(base, names[last-1])
			if err != nil {
				t.Fatal(err)
			}
			refused(t, dir+": the last", remove(names[last]), names[last-1], int64(len(p)))
		}
		twice := base.KillClone()
		p, err := vfs.ReadFile(base, names[1])
		if err != nil {
			t.Fatal(err)
		}
		second := filepath.Join("/d", LogName, fmt.Sprintf("%020d.log", 7_000))
		if err := vfs.WriteFileAtomic(twice, second, p); err != nil {
			t.Fatal(err)
		}
		if err := Check(twice, "/d"); (err == nil) != (dir == "killed") {
			t.Errorf("%s: a segment in the wrong place: %v", dir, err)
		}
	}
}

// Kafka writes the clean-shutdown marker before it closes the metadata log: a tail that a power cut tore between the two
// is cut. Ours is written last of all: a torn tail beside it is damage.
func TestTornTailBesideTheMarker(t *testing.T) {
	for _, torn := range []string{"an end that is missing", "a sector that is missing"} {
		for _, kafka := range []bool{false, true} {
			files, _ := checkDirs(t, 0)
			name := logFiles(t, files)[0]
			p, err := vfs.ReadFile(files, name)
			if err != nil {
				t.Fatal(err)
			}
			b, _, err := batch.Next(p)
			if err != nil {
				t.Fatal(err)
			}
			b = bytes.Clone(b)
			binary.BigEndian.PutUint64(b, 13) // the log's end
			if b[len(b)-1]++; torn == "an end that is missing" {
				b = b[:40]
			}
			if err := vfs.WriteFileAtomic(files, name, append(p, b...)); err != nil {
				t.Fatal(err)
			}
			if kafka {
				if err := files.Remove("/d/millrace.recovery-point"); err != nil {
					t.Fatal(err)
				}
			}
			n, err := openNode(files, "/d")
			if (err == nil) != kafka {
				t.Fatalf("%s, Kafka's marker %v: %v", torn, kafka, err)
			}
			if err == nil {
				if got := n.content(t); len(got) != 15 || !strings.HasPrefix(got[14], "13 c:") { // "@0", three control records, ten topics, this election
					t.Errorf("%s: what is left: %q", torn, got)
				}
				n.close(t)
			}
		}
	}
}

// FuzzCheck: no content of the log makes the check panic or write.
func FuzzCheck(f *testing.F) {
	f.Add([]byte{}, true)
	f.Add(make([]byte, 600), false)
	files := vfs.NewMem()
	format(f, files, "/d")
	p, err := vfs.ReadFile(files, filepath.Join("/d", bootstrapName))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p, false)
	f.Fuzz(func(t *testing.T, p []byte, clean bool) {
		files := vfs.NewMem()
		if err := files.MkdirAll(filepath.Join("/d", LogName), 0o755); err != nil {
			t.Fatal(err)
		}
		write := func(name string, p []byte) {
			h, err := files.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
			if err == nil {
				_, err = h.WriteAt(p, 0)
			}
			if err != nil {
				t.Fatal(err)
			}
			h.Close()
		}
		write(filepath.Join("/d", LogName, fmt.Sprintf("%020d.log", 0)), p)
		if clean {
			write(filepath.Join("/d", cleanMarker), nil)
		}
		before := tree(t, files, "/d")
		_ = Check(files, "/d")
		if !maps.Equal(before, tree(t, files, "/d")) {
			t.Error("the check wrote")
		}
	})
}
