package commitlog

import (
	"fmt"
	"math/rand"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace-project/millrace/vfs"
)

// TestFullIndexRolls: a log rolls when an index has no room, whether its batches
// come one by one or many in one append.
func TestFullIndexRolls(t *testing.T) {
	for _, together := range []int{1, 7, 100} {
		for _, c := range []struct {
			name   string
			stepMs int64
			want   int64 // batches in a segment: all but the first have an entry
		}{
			{"offset index", 0, 31},
			{"time index", 1, 20},
		} {
			t.Run(fmt.Sprintf("%s by %d", c.name, together), func(t *testing.T) {
				mem := vfs.NewMem()
				s := mustOpen(t, testOptions(mem))
				cfg := testConfig()
				cfg.SegmentBytes, cfg.IndexIntervalBytes, cfg.IndexMaxBytes = 1<<20, 0, 240
				l, err := s.Create("t-0", TopicID{1}, cfg)
				if err != nil {
					t.Fatal(err)
				}
				ts := fixedClock()
				for range 200 / together {
					entries := make([]*Entry, together)
					for i := range entries {
						entries[i] = &Entry{Data: spec{n: 1, ts: ts, epoch: -1}.build()}
						ts += c.stepMs
					}
					l.Append(ts, 0, entries)
					for _, e := range entries {
						if e.Err != nil {
							t.Fatal(e.Err)
						}
					}
				}
				for i, seg := range l.Segments() {
					if seg.BaseOffset != int64(i)*c.want {
						t.Fatalf("segment %d begins at %d, want one for each %d batches", i, seg.BaseOffset, c.want)
					}
				}
				if err := s.Close(1); err != nil {
					t.Fatal(err)
				}
				for _, name := range names(t, mem, "data/t-0") {
					info, err := mem.Stat("data/t-0/" + name)
					if err != nil {
						t.Fatal(err)
					}
					if strings.HasSuffix(name, "index") && info.Size() > 240 {
						t.Errorf("%s has %d bytes, more than segment.index.bytes", name, info.Size())
					}
				}
			})
		}
	}
}

// indexEntries is the length of a log's first offset index, in entries.
func indexEntries(t *testing.T, mem *vfs.Mem) int {
	t.Helper()
	info, err := mem.Stat("data/t-0/00000000000000000000.index")
	if err != nil {
		t.Fatal(err)
	}
	return int(info.Size() / 8)
}

// TestLoadBySettings: logs load by their own settings, which for the metadata log
// alone are known before; the loaded segment keeps to them.
func TestLoadBySettings(t *testing.T) {
	dense := func(string) *Config {
		c := testConfig()
		c.SegmentBytes, c.IndexIntervalBytes = 1<<20, 0
		return c
	}
	for _, kill := range []bool{false, true} {
		mem := vfs.NewMem()
		o := testOptions(mem)
		o.First, o.NoCheckpoint = []string{"meta-0"}, []string{"meta-0"}
		s := mustOpen(t, o)
		meta := mustCreate(t, s, "meta-0")
		if err := s.Load(dense); err != nil {
			t.Fatal(err)
		}
		l, err := s.Create("t-0", TopicID{1}, dense("t-0"))
		if err != nil {
			t.Fatal(err)
		}
		add := func(l *Log) { mustAppend(t, l, spec{n: 1, ts: fixedClock(), epoch: -1}.build()) }
		for range 10 {
			add(l)
		}
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
		add(meta)
		if kill {
			mem = mem.KillClone() // the index is made anew
		} else if err := s.Close(1); err != nil {
			t.Fatal(err)
		}
		o.FS = mem
		s = mustOpen(t, o)
		if s.Log("t-0") != nil || s.Log("meta-0").EndOffset() != 1 {
			t.Fatal("Open loads what First names, and no more")
		}
		add(s.Log("meta-0"))
		if err := s.Load(dense); err != nil {
			t.Fatal(err)
		}
		l = s.Log("t-0")
		l.Configure(testConfig()) // for the next segment
		for range 10 {
			add(l)
		}
		if err := s.Close(1); err != nil {
			t.Fatal(err)
		}
		// Not the first batch, and not the first after the start.
		if got := indexEntries(t, mem); got != 18 {
			t.Errorf("kill %v: %d index entries, want 18", kill, got)
		}
	}
}

// TestCloseBeforeLoad: a start that ends before the logs are loaded leaves a clean
// directory clean and an unclean one unclean, and the checkpoint files alone.
func TestCloseBeforeLoad(t *testing.T) {
	mem := vfs.NewMem()
	s := mustOpen(t, testOptions(mem))
	l := mustCreate(t, s, "t-0")
	mustAppend(t, l, spec{n: 3, ts: fixedClock(), epoch: -1}.build())
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	killed := mem.KillClone()
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
	for _, mem := range []*vfs.Mem{mem, killed} {
		before, _ := vfs.ReadFile(mem, "data/"+recoveryPointFile)
		o := testOptions(mem)
		o.First = []string{"meta-0"}
		var clean []bool
		for range 2 {
			s := mustOpen(t, o)
			_, ok := s.CleanShutdown()
			clean = append(clean, ok)
			if err := s.Close(7); err != nil {
				t.Fatal(err)
			}
		}
		if clean[0] != clean[1] || clean[0] != (mem != killed) {
			t.Errorf("clean: %v", clean)
		}
		if after, _ := vfs.ReadFile(mem, "data/"+recoveryPointFile); string(after) != string(before) {
			t.Errorf("recovery points %q are now %q", before, after)
		}
		s := mustOpen(t, testOptions(mem))
		if end := s.Log("t-0").EndOffset(); end != 3 {
			t.Errorf("end %d", end)
		}
		s.Close(1)
	}
}

// TestRefusedOpenLeavesTheMarker: what refuses a directory before a log was touched leaves a clean directory clean.
func TestRefusedOpenLeavesTheMarker(t *testing.T) {
	for _, refused := range []string{"data/foo", "data/" + startOffsetFile} {
		for _, marker := range []string{`{"version":0,"brokerEpoch":1}`, ""} { // "": of Kafka before 3.8
			mem := vfs.NewMem()
			s := mustOpen(t, testOptions(mem))
			mustAppend(t, mustCreate(t, s, "t-0"), spec{n: 3, ts: fixedClock(), epoch: -1}.build())
			if err := s.Close(1); err != nil {
				t.Fatal(err)
			}
			if err := vfs.WriteFileAtomic(mem, "data/"+cleanShutdownFile, []byte(marker)); err != nil {
				t.Fatal(err)
			}
			if refused == "data/foo" {
				if err := mem.MkdirAll(refused, 0o755); err != nil {
					t.Fatal(err)
				}
			} else if err := vfs.WriteFileAtomic(mem, refused, []byte("?")); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(testDir, testOptions(mem)); err == nil {
				t.Fatalf("%s was overlooked", refused)
			}
			cut := mem.CrashClone(rand.New(rand.NewSource(1)))
			if p, err := vfs.ReadFile(cut, "data/"+cleanShutdownFile); err != nil || string(p) != marker {
				t.Errorf("%s: the marker is %q, %v", refused, p, err)
			}
			if err := mem.RemoveAll(refused); err != nil {
				t.Fatal(err)
			}
			s = mustOpen(t, testOptions(mem))
			if _, clean := s.CleanShutdown(); !clean {
				t.Errorf("%s: not clean", refused)
			}
			s.Close(1)
		}
	}
}

// TestSnapshotOfTheLastStopStays until the next load, as in Kafka.
func TestSnapshotOfTheLastStopStays(t *testing.T) {
	mem := vfs.NewMem()
	snapshots := func() (offs []int64) {
		for _, name := range names(t, mem, "data/t-0") {
			if digits, ok := strings.CutSuffix(name, snapshotSuffix); ok {
				off, err := strconv.ParseInt(digits, 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				offs = append(offs, off)
			}
		}
		return offs
	}
	check := func(when string, want ...int64) {
		t.Helper()
		if got := snapshots(); !slices.Equal(got, want) {
			t.Fatalf("%s: snapshots %v, want %v", when, got, want)
		}
	}
	s := mustOpen(t, testOptions(mem))
	l := mustCreate(t, s, "t-0")
	add := func(n int) {
		for range n {
			mustAppend(t, l, spec{n: 1, value: 900, ts: fixedClock(), epoch: -1}.build())
		}
	}
	again := func() {
		t.Helper()
		if err := s.Close(1); err != nil {
			t.Fatal(err)
		}
		s = mustOpen(t, testOptions(mem))
		l = s.Log("t-0")
	}
	add(6) // 4 in a segment
	again()
	check("first stop", 4, 6)
	add(1)
	l.checkpoint() // not a time at which Kafka takes one
	add(3)
	if err := s.checkpoint([]*Log{l}); err != nil {
		t.Fatal(err)
	}
	check("second run", 4, 6, 8, 10)
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
	check("second stop", 4, 6, 8, 10)
	s = mustOpen(t, testOptions(mem))
	l = s.Log("t-0")
	check("third start", 4, 8, 10)
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
}
