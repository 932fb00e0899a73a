package commitlog

import (
	"fmt"
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/vfs"
)

func openReal(t testing.TB, d Durability, cfg *Config) (*Store, *Log) {
	t.Helper()
	s, err := Open(t.TempDir(), &Options{Durability: d})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(1) })
	l, err := s.Create("t-0", TopicID{1}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s, l
}

// BenchmarkAppend appends 64 KiB batches of 100 B records; with Sync, 64 of them
// are outstanding, as with clients that do not wait for each answer.
func BenchmarkAppend(b *testing.B) {
	for _, d := range []Durability{OS, Sync} {
		b.Run(fmt.Sprintf("durability=%v/64KiB", d), func(b *testing.B) {
			_, l := openReal(b, d, nil)
			data := spec{n: 600, value: 100, ts: wallClockMs(), epoch: -1}.build()
			e := &Entry{Data: data}
			entries := []*Entry{e}
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			const outstanding = 64
			for i := 0; b.Loop(); i++ {
				batch.Batch(data).SetBaseOffset(0)
				l.Append(wallClockMs(), 0, entries)
				if e.Err != nil {
					b.Fatal(e.Err)
				}
				if d == Sync && l.EndOffset()-l.SyncedOffset() > 600*outstanding {
					if err := l.Sync(); err != nil {
						b.Fatal(err)
					}
				}
			}
			if err := l.Sync(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkRead takes 64 KiB Views off the tail and out of the middle.
func BenchmarkRead(b *testing.B) {
	_, l := openReal(b, OS, nil)
	data := spec{n: 600, value: 100, ts: wallClockMs(), epoch: -1}.build()
	e := &Entry{Data: data}
	for range 1000 {
		batch.Batch(data).SetBaseOffset(0)
		l.Append(wallClockMs(), 0, []*Entry{e})
	}
	for name, off := range map[string]int64{"tail": l.EndOffset() - 600, "middle": 123456} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				v, err := l.Read(off, l.EndOffset(), 64<<10, true)
				if err != nil {
					b.Fatal(err)
				}
				v.Close()
			}
		})
	}
}

func TestNoAllocations(t *testing.T) {
	for _, d := range []Durability{OS, Sync} {
		t.Run(d.String(), func(t *testing.T) {
			_, l := openReal(t, d, nil)
			plain := spec{n: 10, value: 100, ts: wallClockMs(), epoch: -1}.build()
			seq := int32(0)
			entries := []*Entry{{Data: plain}, {}}
			idempotent := make([][]byte, 3000)
			for i := range idempotent {
				idempotent[i] = spec{n: 1, value: 10, ts: wallClockMs(), epoch: -1, pid: 7, seq: seq}.build()
				seq++
			}
			i := 0
			appendOnce := func() {
				entries[1].Data = idempotent[i]
				i++
				batch.Batch(plain).SetBaseOffset(0)
				l.Append(wallClockMs(), 0, entries)
				if entries[0].Err != nil || entries[1].Err != nil {
					t.Fatal(entries[0].Err, entries[1].Err)
				}
			}
			for range 1000 {
				appendOnce()
			}
			if err := l.Sync(); err != nil {
				t.Fatal(err)
			}
			// The race detector makes sync.Pool forget at random.
			if n := testing.AllocsPerRun(1000, appendOnce); n != 0 && !raceEnabled {
				t.Errorf("%v allocations per append", n)
			}
			off := l.EndOffset() - 10
			for range 2 {
				n := testing.AllocsPerRun(1000, func() {
					v, err := l.Read(off, l.EndOffset(), 64<<10, true)
					if err != nil || v == nil {
						t.Fatal(err)
					}
					v.Close()
				})
				if n != 0 {
					t.Errorf("%v allocations per read at %d", n, off)
				}
				off = 300
			}
		})
	}
}

// TestIdleMemory holds the budget of a log at rest: 5 KB.
func TestIdleMemory(t *testing.T) {
	mem := vfs.NewMem()
	o := testOptions(mem)
	const logs = 500
	s := mustOpen(t, o)
	for i := range logs {
		l := mustCreate(t, s, fmt.Sprintf("t-%d", i))
		mustAppend(t, l, spec{n: 3, value: 100, ts: fixedClock(), epoch: -1}.build())
	}
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
	before := heapInUse()
	s = mustOpen(t, o)
	per := (heapInUse() - before) / logs
	t.Logf("%d bytes per idle log", per)
	if per > 5000 {
		t.Errorf("%d bytes per idle log", per)
	}
	if open, _ := s.handles.Open(); open > 0 {
		s.janitor.closeIdle()
		s.janitor.closeIdle()
		s.janitor.closeIdle()
	}
	if open, idle := s.handles.Open(); open != 0 {
		t.Errorf("%d handles open, %d idle", open, idle)
	}
	s.Close(1)
}
