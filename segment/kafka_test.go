package segment

import (
	"bytes"
	"embed"
	"errors"
	"path"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/index"
	"github.com/millrace-project/millrace/vfs"
)

// kafkaFiles are segments that Apache Kafka 4.2.0 wrote and closed cleanly.
//
//go:embed testdata/kafka-4.2
var kafkaFiles embed.FS

// eachKafkaSegment copies Kafka's files into a fresh file system and calls fn.
func eachKafkaSegment(t *testing.T, fn func(t *testing.T, fs *vfs.Mem, base int64, files map[string][]byte)) {
	const root = "testdata/kafka-4.2"
	dirs, err := kafkaFiles.ReadDir(root)
	if err != nil || len(dirs) == 0 {
		t.Fatal("no testdata:", err)
	}
	for _, d := range dirs {
		t.Run(d.Name(), func(t *testing.T) {
			fs := vfs.NewMem()
			fs.MkdirAll(dir, 0o755)
			files := map[string][]byte{}
			entries, _ := kafkaFiles.ReadDir(path.Join(root, d.Name()))
			var base int64
			for _, e := range entries {
				p, err := kafkaFiles.ReadFile(path.Join(root, d.Name(), e.Name()))
				if err != nil {
					t.Fatal(err)
				}
				stem, ext, _ := strings.Cut(e.Name(), ".")
				files["."+ext] = p
				base, _ = strconv.ParseInt(stem, 10, 64)
				put(t, fs, dir+"/"+e.Name(), p)
			}
			fn(t, fs, base, files)
		})
	}
}

func put(t *testing.T, fs vfs.FS, name string, p []byte) {
	t.Helper()
	if err := vfs.WriteFileAtomic(fs, name, p); err != nil {
		t.Fatal(err)
	}
}

func sameAsKafka(t *testing.T, fs vfs.FS, base int64, files map[string][]byte) {
	t.Helper()
	for _, name := range FileNames(base) {
		_, ext, _ := strings.Cut(name, ".")
		want, there := files["."+ext]
		got, err := vfs.ReadFile(fs, dir+"/"+name)
		if there != (err == nil) || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes (%v), Kafka's has %d", name, len(got), err, len(want))
		}
	}
}

// TestKafkaIndexesByAppend appends Kafka's batches one by one: the files are
// Kafka's, byte for byte.
func TestKafkaIndexesByAppend(t *testing.T) {
	eachKafkaSegment(t, func(t *testing.T, _ *vfs.Mem, base int64, files map[string][]byte) {
		fs := vfs.NewMem()
		fs.MkdirAll(dir, 0o755)
		s, err := Create(fs, dir, base, kafkaConfig())
		if err != nil {
			t.Fatal(err)
		}
		for rest := files[".log"]; len(rest) > 0; {
			b, r, err := batch.Next(rest)
			if err != nil {
				t.Fatal(err)
			}
			m := BatchMeta{BaseOffset: b.BaseOffset(), LastOffset: b.LastOffset(), MaxTimestamp: b.MaxTimestamp(), Size: b.Size()}
			if err := s.Append([][]byte{b}, []BatchMeta{m}); err != nil {
				t.Fatal(err)
			}
			rest = r
		}
		for _, e := range kafkaAborted(t, base, files) {
			if err := s.AppendAborted(e); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(s.Seal(), s.SyncAll(), s.Close()); err != nil {
			t.Fatal(err)
		}
		sameAsKafka(t, fs, base, files)
	})
}

// kafkaAborted reads what Kafka's transaction index says.
func kafkaAborted(t *testing.T, base int64, files map[string][]byte) []index.TxnEntry {
	fs := vfs.NewMem()
	if p, ok := files[".txnindex"]; ok {
		put(t, fs, "x", p)
	}
	x := index.OpenTxn(fs, vfs.NewHandles(1, 4), "x", base, false)
	defer x.Close()
	entries, complete, err := x.Collect(0, 1<<40)
	if err != nil || complete || len(entries) != len(files[".txnindex"])/34 {
		t.Fatal(len(entries), complete, err)
	}
	return entries
}

// TestKafkaSegmentsOpen opens Kafka's files as they are, and as a killed Kafka
// leaves them: with zeros preallocated behind the entries.
func TestKafkaSegmentsOpen(t *testing.T) {
	eachKafkaSegment(t, func(t *testing.T, fs *vfs.Mem, base int64, files map[string][]byte) {
		for _, padded := range []bool{false, true} {
			for _, sealed := range []bool{true, false} {
				if padded {
					put(t, fs, dir+"/"+FileNames(base)[1], append(bytes.Clone(files[".index"]), make([]byte, 1<<20)...))
					put(t, fs, dir+"/"+FileNames(base)[2], append(bytes.Clone(files[".timeindex"]), make([]byte, 12*80000)...))
				}
				s, err := Open(fs, dir, base, -1, kafkaConfig(), sealed)
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Check(); err != nil {
					t.Fatal(err)
				}
				records := 0
				err = s.Scan(func(h batch.Header, _ int64) error {
					records += int(h.Count)
					return nil
				})
				next, err2 := s.ReadNextOffset()
				if err != nil || err2 != nil || int64(records) != next-base {
					t.Fatalf("%d records, next offset %d, %v, %v", records, next, err, err2)
				}
				if err := errors.Join(s.Seal(), s.SyncAll(), s.Close()); err != nil {
					t.Fatal(err)
				}
				if !sealed {
					sameAsKafka(t, fs, base, files)
				}
			}
		}
	})
}

// TestKafkaSegmentsRecover rebuilds Kafka's indexes from the log, whole and
// from each recovery point.
func TestKafkaSegmentsRecover(t *testing.T) {
	eachKafkaSegment(t, func(t *testing.T, fs *vfs.Mem, base int64, files map[string][]byte) {
		aborted := kafkaAborted(t, base, files)
		for _, from := range []RecoverFrom{{Whole: true}, {Offset: base}, {Offset: base + 60}, {Offset: base + 120}, {Offset: base + 1000}} {
			if from.Whole {
				fs.Remove(dir + "/" + FileNames(base)[3])
			}
			s, err := Open(fs, dir, base, -1, kafkaConfig(), from.Whole)
			if err != nil {
				t.Fatal(err)
			}
			first := true
			from.OnCut = func(why *CorruptError, n int64) { t.Errorf("%d bytes cut: %v", n, why) }
			size, err := s.Recover(from, func(b batch.Batch, pos int64) error {
				if first && !from.Whole && from.Offset >= base+1000 && pos == 0 {
					t.Errorf("recovery from %d starts at the beginning", from.Offset)
				}
				first = false
				if !b.IsControl() {
					return nil
				}
				for _, e := range aborted {
					if e.LastOffset == b.BaseOffset() {
						return s.AppendAborted(e)
					}
				}
				return nil
			})
			if err != nil || size != int64(len(files[".log"])) {
				t.Fatal(size, err)
			}
			if err := errors.Join(s.Seal(), s.SyncAll(), s.Close()); err != nil {
				t.Fatal(err)
			}
			sameAsKafka(t, fs, base, files)
		}
	})
}
