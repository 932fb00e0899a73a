package commitlog

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/compaction"
	"github.com/millrace-project/millrace/vfs"
)

// keyed builds a batch with one record for each key; those with a "-" in front are
// tombstones.
func keyed(t testing.TB, o batch.BuilderOptions, ts int64, value string, keys ...string) []byte {
	t.Helper()
	o.LeaderEpoch = -1
	bl := batch.NewBuilder(o)
	for _, k := range keys {
		if key, ok := strings.CutPrefix(k, "-"); ok {
			bl.Append(ts, []byte(key), nil, nil)
			continue
		}
		bl.Append(ts, []byte(k), []byte(value), nil)
	}
	b, err := bl.Build(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func marker(pid int64, epoch int16, commit bool) []byte {
	return batch.AppendEndTxnMarker(nil, batch.MarkerOptions{
		LeaderEpoch: -1, Timestamp: fixedClock(), ProducerID: pid, ProducerEpoch: epoch, Commit: commit,
	})
}

// mustAppendAt appends under a leader epoch.
func mustAppendAt(t testing.TB, l *Log, leaderEpoch int32, origin Origin, data []byte) {
	t.Helper()
	e := Entry{Data: data, Origin: origin}
	if l.Append(fixedClock(), leaderEpoch, []*Entry{&e}); e.Err != nil {
		t.Fatal(e.Err)
	}
}

// fillHistory writes what keeps a cleaner busy: keys written again and again, plain
// and idempotent producers, transactions committed and aborted, some open at the end,
// under several leader epochs.
func fillHistory(t testing.TB, l *Log, rng *rand.Rand, steps int) {
	t.Helper()
	seq := map[int64]int32{}
	open := map[int64]bool{}
	value := strings.Repeat("v", 80)
	epoch := int32(0)
	for i := range steps {
		if i%40 == 39 {
			epoch++
			if err := l.AssignEpoch(epoch, l.EndOffset()); err != nil {
				t.Fatal(err)
			}
		}
		var keys []string
		for range 1 + rng.Intn(3) {
			keys = append(keys, fmt.Sprintf("key-%d", rng.Intn(12)))
		}
		o := batch.BuilderOptions{}
		switch kind := rng.Intn(5); {
		case kind == 0:
			o.HasProducer, o.ProducerID = true, int64(1+rng.Intn(3))
		case kind == 1 && i < steps/2: // producers that are silent in the second half
			o.HasProducer, o.ProducerID = true, int64(10+rng.Intn(3))
		case kind <= 3:
			o.HasProducer, o.Transactional, o.ProducerID = true, true, int64(100+rng.Intn(4))
			if i < steps-10 && open[o.ProducerID] && rng.Intn(2) == 0 {
				mustAppendAt(t, l, epoch, FromCoordinator, marker(o.ProducerID, 0, rng.Intn(2) == 0))
				open[o.ProducerID] = false
				continue
			}
			open[o.ProducerID] = true
		}
		if o.HasProducer {
			o.BaseSequence = seq[o.ProducerID]
			seq[o.ProducerID] += int32(len(keys))
		}
		mustAppendAt(t, l, epoch, FromClient, keyed(t, o, fixedClock()+int64(i), value, keys...))
		if i < steps*3/4 {
			for id := range open { // none stays open for long
				if open[id] && rng.Intn(3) == 0 {
					mustAppendAt(t, l, epoch, FromCoordinator, marker(id, 0, rng.Intn(2) == 0))
					open[id] = false
				}
			}
		}
	}
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
}

// keptState is what compaction and a restart must leave as it was.
type keptState struct {
	producers          []ProducerInfo
	epochs             string
	start, end, stable int64
	latest             string
}

func keptOf(t testing.TB, l *Log) keptState {
	t.Helper()
	l.SetHighWatermark(l.EndOffset()) // all of it is synced
	st := keptState{
		producers: l.ActiveProducers(), epochs: string(encodeEpochs(nil, l.epoch.cache)),
		start: l.StartOffset(), end: l.EndOffset(), stable: l.StableOffset(), latest: latestCommitted(t, l),
	}
	slices.SortFunc(st.producers, func(a, b ProducerInfo) int { return int(a.ProducerID - b.ProducerID) })
	return st
}

// latestCommitted lists the last committed record of each key, in the manner of a
// consumer with read_committed.
func latestCommitted(t testing.TB, l *Log) string {
	t.Helper()
	latest := map[string]string{}
	upTo := l.StableOffset()
	for off := l.StartOffset(); off < upTo; {
		v, txns, err := l.ReadCommitted(off, upTo, 1000, true)
		if err != nil {
			t.Fatal(err)
		}
		if v == nil {
			break
		}
		p := make([]byte, v.Len())
		if _, err := v.ReadAt(p, 0); err != nil {
			t.Fatal(err)
		}
		v.Close()
		off = consume(t, p, off, txns, func(rec *batch.Record) {
			latest[string(rec.Key)] = fmt.Sprintf("%s at %d, %d bytes", rec.Key, rec.Offset, len(rec.Value))
		})
	}
	var lines []string
	for _, line := range latest {
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// consume hands fn the records that a consumer with read_committed delivers, and
// returns the offset to go on at.
func consume(t testing.TB, p []byte, off int64, txns []AbortedTxn, fn func(rec *batch.Record)) (next int64) {
	t.Helper()
	slices.SortFunc(txns, func(a, b AbortedTxn) int { return int(a.FirstOffset - b.FirstOffset) })
	aborting := map[int64]bool{}
	next = off
	for len(p) > 0 {
		b, rest, err := batch.Next(p)
		if errors.Is(err, batch.ErrShort) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		p = rest
		for len(txns) > 0 && txns[0].FirstOffset <= b.LastOffset() {
			aborting[txns[0].ProducerID] = true
			txns = txns[1:]
		}
		next = b.LastOffset() + 1
		h := b.Header()
		if h.IsControl() {
			if m, err := b.EndTxnMarker(); err == nil && m.Type == batch.Abort {
				delete(aborting, h.ProducerID)
			}
			continue
		}
		if h.IsTransactional() && aborting[h.ProducerID] {
			continue
		}
		err = b.Each(0, func(rec *batch.Record) error {
			if rec.Offset >= off {
				fn(rec)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return next
}

// check holds the log against the state. Where the producers were read from the log
// again, what only their removed records and markers said is not known any more.
func (st *keptState) check(t testing.TB, l *Log, replayed bool) {
	t.Helper()
	got, want := keptOf(t, l), *st
	if replayed {
		got.producers, want.producers = lasting(got.producers), lasting(want.producers)
	}
	if !slices.Equal(got.producers, want.producers) {
		t.Fatalf("producers are\n%+v, were\n%+v", got.producers, want.producers)
	}
	if got.epochs != want.epochs {
		t.Fatalf("leader epochs are %q, were %q", got.epochs, want.epochs)
	}
	if got.start != want.start || got.end != want.end || got.stable != want.stable {
		t.Fatalf("log is [%d, %d) and stable below %d, was [%d, %d) and %d", got.start, got.end, got.stable, want.start, want.end, want.stable)
	}
	if got.latest != want.latest {
		t.Fatalf("the last committed record of each key is\n%s\nwas\n%s", got.latest, want.latest)
	}
}

func lasting(infos []ProducerInfo) []ProducerInfo {
	out := slices.Clone(infos)
	for i := range out {
		out[i].LastTimestamp, out[i].CoordinatorEpoch = 0, 0
	}
	return out
}

// TestCompactionKeepsTheLogsState compacts histories of all kinds of producers until
// nothing is left to do, and cuts the power after each pass: producers, leader epochs
// and the last stable offset are as before, also where no snapshot of the producers
// is left and all is read from what compaction kept; sequences go on.
func TestCompactionKeepsTheLogsState(t *testing.T) {
	for _, seed := range seeds(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := newRand(t, seed)
			var now atomic.Int64
			now.Store(fixedClock())
			mem := vfs.NewMem()
			cfg := compactedConfig()
			cfg.DeleteRetentionMs = 1000
			options := func(fs vfs.FS) *Options {
				o := compactedOptions(fs)
				o.NowMs = now.Load
				o.Configure = func(string) *Config { return cfg }
				return o
			}
			s := mustOpen(t, options(mem))
			l, err := s.Create("t-0", TopicID{1}, cfg)
			if err != nil {
				t.Fatal(err)
			}
			fillHistory(t, l, rng, 160)
			st := keptOf(t, l)
			if len(st.producers) < 6 || len(l.epoch.cache.entries) < 3 {
				t.Fatalf("history without %+v", st)
			}
			size := logBytes(l)
			for pass := range 4 {
				report, err := l.Compact(context.Background(), nil)
				if err != nil {
					t.Fatal(err)
				}
				if pass == 0 && (report.RecordsKept >= report.RecordsRead || report.SegmentsBefore < 4) {
					t.Fatalf("%+v", report)
				}
				st.check(t, l, false)
				for _, without := range []bool{false, true} {
					crashed := mem.CrashClone(rng)
					if without {
						removeSnapshots(t, crashed)
					}
					again := mustOpen(t, options(crashed))
					st.check(t, again.Log("t-0"), without)
					goesOn(t, again.Log("t-0"), st.producers)
					again.Close(1)
				}
				now.Add(1500)
			}
			if got := logBytes(l); got > size*2/3 {
				t.Fatalf("%d bytes of %d are left", got, size)
			}
			if err := s.Close(1); err != nil {
				t.Fatal(err)
			}
			s = mustOpen(t, options(mem))
			st.check(t, s.Log("t-0"), false)
			s.Close(1)
		})
	}
}

func logBytes(l *Log) (n int64) {
	for _, info := range l.Segments() {
		n += info.Size
	}
	return n
}

func removeSnapshots(t testing.TB, fs vfs.FS) {
	t.Helper()
	for _, name := range logFiles(t, fs, "t-0") {
		if strings.HasSuffix(name, ".snapshot") {
			if err := fs.Remove(filepath.Join(testDir, "t-0", name)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// goesOn appends what each idempotent producer sends next, after a batch that leaves
// out a sequence number was refused.
func goesOn(t testing.TB, l *Log, producers []ProducerInfo) {
	t.Helper()
	for _, p := range producers {
		if p.ProducerID >= 100 {
			continue
		}
		for _, skip := range []int32{1, 0} {
			data := keyed(t, batch.BuilderOptions{HasProducer: true, ProducerID: p.ProducerID, BaseSequence: p.LastSequence + 1 + skip}, fixedClock(), "x", "k")
			_, err := appendAs(l, FromClient, data)
			if skip == 1 && !errors.Is(err, ErrOutOfOrderSequence) || skip == 0 && err != nil {
				t.Fatalf("producer %d, last sequence %d, next but %d: %v", p.ProducerID, p.LastSequence, skip, err)
			}
		}
	}
}

// TestCompactReportsAndProgress: on demand, with an offset map that is too small for
// one pass, and whatever the share of dirty bytes.
func TestCompactInSeveralPasses(t *testing.T) {
	o := compactedOptions(vfs.NewMem())
	o.Cleaner.MapBytes = 16 * 40
	s := mustOpen(t, o)
	defer s.Close(1)
	l := mustCreateCompacted(t, s, "t-0")
	for i := range 600 {
		mustAppend(t, l, keyed(t, batch.BuilderOptions{}, fixedClock(), strings.Repeat("v", 100), fmt.Sprintf("key-%d", i%150)))
	}
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	before := logBytes(l)
	var last CompactionProgress
	calls := 0
	report, err := l.Compact(context.Background(), func(p CompactionProgress) {
		calls++
		if p.Log != "t-0" || p.Done > p.Total || p.Pass < last.Pass || p.Pass == last.Pass && (p.Phase < last.Phase || p.Phase == last.Phase && p.Done < last.Done) {
			t.Errorf("%+v after %+v", p, last)
		}
		last = p
	})
	if err != nil {
		t.Fatal(err)
	}
	if calls < 10 || last.Phase != 2 || last.Pass != report.Passes {
		t.Fatalf("%d calls, the last %+v", calls, last)
	}
	if report.Passes < 3 || report.FirstDirty != 0 || report.End != 600 || report.BytesBefore != before || report.BytesAfter != logBytes(l) {
		t.Fatalf("%+v, %d bytes before and %d after", report, before, logBytes(l))
	}
	if n := len(readAll(t, l, 0, l.EndOffset())); n != 150 {
		t.Fatalf("%d records of 150 keys are left", n)
	}
	// With nothing dirty there is one pass, which finds nothing to do.
	again, err := l.Compact(context.Background(), nil)
	if err != nil || again.Passes != 1 || again.RecordsRead != 150 || again.RecordsKept != 150 {
		t.Fatalf("%+v, %v", again, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := l.Compact(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	plain := mustCreate(t, s, "plain-0")
	if _, err := plain.Compact(context.Background(), nil); !errors.Is(err, ErrNotCompacted) {
		t.Fatal(err)
	}
}

// TestCompactionBesideEverything lets passes run beside appends, readers at all
// offsets, retention, and truncations, in a store that unlinks at once.
func TestCompactionBesideEverything(t *testing.T) {
	for _, truncate := range []bool{false, true} {
		t.Run(fmt.Sprintf("truncate=%t", truncate), func(t *testing.T) {
			o := compactedOptions(vfs.NewMem())
			cfg := compactedConfig()
			cfg.FileDeleteDelayMs, cfg.Delete = 0, true
			o.Configure = func(string) *Config { return cfg }
			s := mustOpen(t, o)
			l, err := s.Create("t-0", TopicID{1}, cfg)
			if err != nil {
				t.Fatal(err)
			}
			b := &beside{t: t, l: l, truncate: truncate, records: map[int64]string{}, cut: map[string]bool{}}
			var others sync.WaitGroup
			stop := make(chan struct{})
			for i := range 3 {
				others.Go(func() { b.read(rand.New(rand.NewSource(int64(i))), stop) })
			}
			others.Go(func() { b.retain(stop) })
			appending := make(chan struct{})
			others.Go(func() {
				defer close(appending)
				b.append(rand.New(rand.NewSource(99)))
			})
			passes := 0
			for done := false; !done || passes < 5; passes++ {
				select {
				case <-appending:
					done = true
				default:
				}
				_, err := l.Compact(context.Background(), nil)
				if err != nil && !errors.Is(err, compaction.ErrStopped) {
					t.Fatal(err)
				}
			}
			close(stop)
			others.Wait()
			if err := l.Err(); err != nil {
				t.Fatal(err)
			}
			b.final()
			if err := s.Close(1); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// beside is what runs beside passes.
type beside struct {
	t        *testing.T
	l        *Log
	truncate bool

	mu      sync.Mutex
	records map[int64]string // offset → key and value; without truncations they never change
	cut     map[string]bool  // keys whose last record was cut off: a pass may have removed those before it
}

func (b *beside) append(rng *rand.Rand) {
	for i := range 800 {
		key := fmt.Sprintf("key-%d", rng.Intn(20))
		value := strings.Repeat(fmt.Sprint(i, " "), 10+rng.Intn(20))
		data := keyed(b.t, batch.BuilderOptions{}, fixedClock(), value, key)
		b.mu.Lock()
		b.records[b.l.EndOffset()] = key + "=" + value
		delete(b.cut, key)
		if r, err := appendAs(b.l, FromClient, data); err != nil || b.records[r.BaseOffset] != key+"="+value {
			b.t.Errorf("append: %+v %v", r, err)
		}
		if b.truncate && rng.Intn(60) == 0 {
			if err := b.l.TruncateTo(max(b.l.StartOffset(), b.l.EndOffset()-rng.Int63n(40))); err != nil {
				b.t.Error(err)
			}
			for off, rec := range b.records {
				if off >= b.l.EndOffset() {
					key, _, _ := strings.Cut(rec, "=")
					b.cut[key] = true
					delete(b.records, off)
				}
			}
		}
		b.mu.Unlock()
		if rng.Intn(20) == 0 {
			if err := b.l.Sync(); err != nil {
				b.t.Error(err)
			}
		}
	}
}

func (b *beside) retain(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		if off := b.l.HighWatermark() - 400; off > 0 {
			if err := b.l.DeleteBefore(off); err != nil && !errors.Is(err, ErrOffsetOutOfRange) {
				b.t.Error(err)
			}
		}
		if err := b.l.retain(fixedClock()); err != nil {
			b.t.Error(err)
		}
	}
}

func (b *beside) read(rng *rand.Rand, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		start, end := b.l.StartOffset(), b.l.EndOffset()
		off := start + rng.Int63n(max(end-start, 1))
		for range 10 {
			v, err := b.l.Read(off, end, 1+rng.Intn(1000), true)
			if err != nil {
				if !errors.Is(err, ErrOffsetOutOfRange) && !b.truncate {
					b.t.Errorf("read %d: %v", off, err)
				}
				break
			}
			if v == nil {
				break
			}
			off = b.view(v, off)
		}
	}
}

// view checks what a View has and returns where to go on.
func (b *beside) view(v interface {
	Len() int64
	ReadAt(p []byte, at int64) (int, error)
	Close() error
}, off int64) int64 {
	defer v.Close()
	p := make([]byte, v.Len())
	if _, err := v.ReadAt(p, 0); err != nil {
		if !b.truncate {
			b.t.Errorf("read %d: %v", off, err)
		}
		return off
	}
	next := off
	for len(p) > 0 {
		bt, rest, err := batch.Next(p)
		if err != nil {
			break // cut by the size asked for
		}
		p = rest
		if err := bt.VerifyCRC(); err != nil {
			b.t.Errorf("read %d: %v", off, err)
		}
		if bt.LastOffset() < next {
			b.t.Errorf("read %d: batch that ends at %d", next, bt.LastOffset())
		}
		next = bt.LastOffset() + 1
		if b.truncate {
			continue
		}
		b.mu.Lock()
		err = bt.Each(0, func(rec *batch.Record) error {
			if got := string(rec.Key) + "=" + string(rec.Value); got != b.records[rec.Offset] {
				return fmt.Errorf("record %d is another one", rec.Offset)
			}
			return nil
		})
		b.mu.Unlock()
		if err != nil {
			b.t.Error(err)
		}
	}
	return next
}

// final looks for the latest record of each key.
func (b *beside) final() {
	start, end := b.l.StartOffset(), b.l.EndOffset()
	found := map[int64]bool{}
	for _, bt := range readAll(b.t, b.l, start, end) {
		bt.Each(0, func(rec *batch.Record) error {
			found[rec.Offset] = true
			return nil
		})
	}
	latest := map[string]int64{}
	for off, rec := range b.records {
		key, _, _ := strings.Cut(rec, "=")
		if off < end && off >= latest[key] {
			latest[key] = off
		}
	}
	for key, off := range latest {
		if off >= start && !found[off] && !b.cut[key] {
			b.t.Errorf("the last record of %s, at %d, is gone", key, off)
		}
	}
}

// cleanerCheckpoint is what cleaner-offset-checkpoint says, -1 where it says nothing of the log.
func cleanerCheckpoint(t testing.TB, fs vfs.FS, topic string) int64 {
	t.Helper()
	entries, err := ReadOffsetCheckpoint(fs, filepath.Join(testDir, cleanedFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Topic == topic {
			return e.Offset
		}
	}
	return -1
}

// cleanedLog is a log that was cleaned up to its end, which it returns.
func cleanedLog(t testing.TB, s *Store, name string) (l *Log, end int64) {
	t.Helper()
	l = mustCreateCompacted(t, s, name)
	for i := range 100 {
		mustAppend(t, l, keyed(t, batch.BuilderOptions{}, fixedClock(), strings.Repeat("v", 100), fmt.Sprintf("key-%d", i%10)))
	}
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	if r, err := l.Compact(context.Background(), nil); err != nil || r.End != 100 {
		t.Fatalf("%+v %v", r, err)
	}
	return l, 100
}

func TestCleanerCheckpoint(t *testing.T) {
	mem := vfs.NewMem()
	var cutAt, said []int64 // what the file says whenever a log of t-0 is cut
	fs := vfs.NewFaulty(mem, func(op vfs.Op) error {
		if op.Kind == vfs.OpTruncate && strings.HasSuffix(op.Name, ".log") || op.Kind == vfs.OpRename && strings.HasSuffix(op.To, ".log.deleted") {
			cutAt, said = append(cutAt, op.Pos), append(said, cleanerCheckpoint(t, mem, "t"))
		}
		return nil
	})
	s := mustOpen(t, compactedOptions(fs))
	l, end := cleanedLog(t, s, "t-0")
	cleanedLog(t, s, "other-0")
	if got := cleanerCheckpoint(t, mem, "t"); got != end || l.firstDirty() != end {
		t.Fatalf("file says %d, the log %d, want %d", got, l.firstDirty(), end)
	}
	cutAt, said = nil, nil
	if err := l.TruncateTo(95); err != nil {
		t.Fatal(err)
	}
	if len(said) == 0 || slices.Max(said) > 95 {
		t.Fatalf("cuts at %v while the file said %v", cutAt, said)
	}
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, compactedOptions(fs))
	if l = s.Log("t-0"); l.firstDirty() != 95 || s.Log("other-0").firstDirty() != end {
		t.Fatalf("after a restart %d and %d", l.firstDirty(), s.Log("other-0").firstDirty())
	}
	if err := l.TruncateAll(7); err != nil {
		t.Fatal(err)
	}
	if got := cleanerCheckpoint(t, mem, "t"); got != -1 || l.firstDirty() != -1 {
		t.Fatalf("after all was truncated the file says %d, the log %d", got, l.firstDirty())
	}
	if err := s.Delete("other-0"); err != nil {
		t.Fatal(err)
	}
	if l = mustCreateCompacted(t, s, "other-0"); l.firstDirty() != -1 || cleanerCheckpoint(t, mem, "other") != -1 {
		t.Fatal("a new log inherits a checkpoint")
	}
	s.Close(1)
}

// TestBadCleanerCheckpoint: it costs work, no data, and the listener is told.
func TestBadCleanerCheckpoint(t *testing.T) {
	for _, c := range []struct {
		name, content string
		dirty         int64
		told          string
	}{
		{"torn", "0\n1\nt 0", -1, cleanedFile + " at byte 4"},
		{"another version", "1\n0\n", -1, "version"},
		{"beyond the end", "0\n1\nt 0 101\n", -1, ""},
		{"negative", "0\n1\nt 0 -5\n", -1, ""},
		{"of a log that is gone", "0\n2\ngone 3 5\nt 0 40\n", 40, ""},
		{"empty", "", -1, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			mem := vfs.NewMem()
			s := mustOpen(t, compactedOptions(mem))
			cleanedLog(t, s, "t-0")
			if err := s.Close(1); err != nil {
				t.Fatal(err)
			}
			rewrite(t, mem, filepath.Join(testDir, cleanedFile), []byte(c.content))
			told := ""
			o := compactedOptions(mem)
			o.Listener.JanitorError = func(name string, err error) { told += name + err.Error() }
			s = mustOpen(t, o)
			l := s.Log("t-0")
			if l.firstDirty() != c.dirty || c.told == "" && told != "" || !strings.Contains(told, c.told) {
				t.Fatalf("first dirty %d, told %q", l.firstDirty(), told)
			}
			if r, err := l.Compact(context.Background(), nil); err != nil || r.End != 100 || r.FirstDirty != max(c.dirty, 0) {
				t.Fatalf("%+v %v", r, err)
			}
			if got := cleanerCheckpoint(t, mem, "t"); got != 100 {
				t.Fatalf("the file says %d", got)
			}
			s.Close(1)
		})
	}
}

// TestCheckpointBeyondALostTail: what the log grows to after it has lost its end is
// not clean because the file has said so of what was there before.
func TestCheckpointBeyondALostTail(t *testing.T) {
	mem := vfs.NewMem()
	s := mustOpen(t, compactedOptions(mem))
	l, _ := cleanedLog(t, s, "t-0")
	last := (*l.segs.Load())[len(*l.segs.Load())-2]
	path, size := last.Path(), last.Size()
	s.Close(1)
	for _, name := range logFiles(t, mem, "t-0") {
		if base, ok := segmentBase(name, ".log"); ok && base == 100 {
			for _, file := range []string{".log", ".index", ".timeindex"} {
				mem.Remove(filepath.Join(testDir, "t-0", fmt.Sprintf("%020d", base)+file))
			}
		}
	}
	p, err := vfs.ReadFile(mem, path)
	if err != nil {
		t.Fatal(err)
	}
	rewrite(t, mem, path, p[:size-10])
	mem.Remove(filepath.Join(testDir, cleanShutdownFile))
	mem.Remove(filepath.Join(testDir, recoveryPointFile))
	for range 2 {
		s = mustOpen(t, compactedOptions(mem))
		l = s.Log("t-0")
		if l.EndOffset() >= 100 || l.firstDirty() != -1 || cleanerCheckpoint(t, mem, "t") != -1 {
			t.Fatalf("end %d, first dirty %d, file %d", l.EndOffset(), l.firstDirty(), cleanerCheckpoint(t, mem, "t"))
		}
		s.Close(1)
	}
}

// TestTruncateIntoAGap: compaction has removed what lies right below the offset. The
// log ends there all the same, also after a restart, so that no offset is given twice.
func TestTruncateIntoAGap(t *testing.T) {
	for _, off := range []int64{75, 90, 91, 99} {
		t.Run(fmt.Sprint(off), func(t *testing.T) {
			mem := vfs.NewMem()
			s := mustOpen(t, compactedOptions(mem))
			l := mustCreateCompacted(t, s, "t-0")
			for i := range 100 { // the last of each key are at 20, 50 and 90 to 92
				key := map[int]string{20: "a", 50: "b", 90: "c", 91: "d", 92: "e"}[i]
				if key == "" {
					key = []string{"a", "b", "c", "d", "e"}[min(i/20, 4)]
					if i > 20 && key == "a" || i > 50 && key == "b" {
						key = "c"
					}
					if i > 92 {
						key = "f"
					}
				}
				mustAppend(t, l, keyed(t, batch.BuilderOptions{}, fixedClock(), strings.Repeat("v", 100), key))
			}
			if err := l.Sync(); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Compact(context.Background(), nil); err != nil {
				t.Fatal(err)
			}
			var want []batch.Batch
			for _, b := range readAll(t, l, 0, 100) {
				if b.LastOffset() < off {
					want = append(want, b)
				}
			}
			if err := l.TruncateTo(off); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if l.EndOffset() != off || l.StartOffset() != 0 {
					t.Fatalf("log is [%d, %d)", l.StartOffset(), l.EndOffset())
				}
				if got := readAll(t, l, 0, off); !sameBatchBytes(got, want) {
					t.Fatalf("%d batches, want %d", len(got), len(want))
				}
				if err := s.Close(1); err != nil {
					t.Fatal(err)
				}
				s = mustOpen(t, compactedOptions(mem))
				l = s.Log("t-0")
			}
			if r := mustAppend(t, l, keyed(t, batch.BuilderOptions{}, fixedClock(), "v", "a")); r.BaseOffset != off {
				t.Fatalf("the next record is at %d", r.BaseOffset)
			}
			s.Close(1)
		})
	}
}
