package commitlog

import (
	"errors"
	"math/rand"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-project/millrace/vfs"
)

// opens says whether an operation takes a descriptor.
func opens(op vfs.Op) bool {
	return op.Kind == vfs.OpOpen || op.Kind == vfs.OpCreate || op.Kind == vfs.OpSyncDir || op.Kind == vfs.OpReadDir
}

// TestExhausted: without file descriptors, without room on the disk, or with a disk that fails some
// reads or writes, at any moment, a log refuses what it cannot do and loses nothing; when there are some again it goes on,
// and it is never offline. What was acknowledged is there after a clean stop and after a kill.
func TestExhausted(t *testing.T) {
	causes := map[string]struct {
		err  error
		want func(op vfs.Op) bool
	}{
		"no descriptors":         {syscall.EMFILE, opens},
		"no room":                {syscall.ENOSPC, func(op vfs.Op) bool { return op.Kind == vfs.OpWrite || op.Kind == vfs.OpCreate }},
		"no room for a name":     {syscall.ENOSPC, func(op vfs.Op) bool { return op.Kind == vfs.OpCreate || op.Kind == vfs.OpRename }},
		"no room for half of it": {&vfs.ShortWrite{N: 7, Err: syscall.ENOSPC}, func(op vfs.Op) bool { return op.Kind == vfs.OpWrite }},
		"writes that fail":       {syscall.EIO, func(op vfs.Op) bool { return op.Kind == vfs.OpWrite }},
		"reads that fail":        {syscall.EIO, func(op vfs.Op) bool { return op.Kind == vfs.OpRead || op.Kind == vfs.OpMap }},
	}
	for name, cause := range causes {
		for seed := range int64(25) {
			synctest.Test(t, func(t *testing.T) {
				e := &exhausting{t: t, rng: rand.New(rand.NewSource(seed)), mem: vfs.NewMem(), err: cause.err, want: cause.want}
				e.mem.NowMs = wallClockMs
				e.durability = Durability(seed % 2)
				e.run()
				if t.Failed() {
					t.Fatalf("%s, seed %d", name, seed)
				}
			})
		}
	}
}

type exhausting struct {
	t    *testing.T
	rng  *rand.Rand
	mem  *vfs.Mem
	err  error
	want func(op vfs.Op) bool
	odds atomic.Int32 // of 100 operations so many fail

	durability Durability
	store      *Store
	ends       map[string]int64 // of what was acknowledged
	txns       map[string]*exhaustedTxns
}

// exhaustedTxns is what a log was given by its transactional producer.
type exhaustedTxns struct {
	seq     int32
	first   int64 // offset of the open transaction, -1 without one
	aborted []exhaustedAbort
}

type exhaustedAbort struct{ first, marker int64 }

func (e *exhausting) hook(op vfs.Op) error {
	n := e.odds.Load()
	if n == 0 || !e.want(op) || rand.Int31n(100) >= n {
		return nil
	}
	if op.Kind == vfs.OpCreate && !errors.Is(e.err, syscall.EMFILE) {
		if _, err := e.mem.Stat(op.Name); err == nil {
			return nil // it takes no room
		}
	}
	return e.err
}

func (e *exhausting) open() {
	e.store = mustOpen(e.t, &Options{
		FS: vfs.NewFaulty(e.mem, e.hook), Durability: e.durability, Configure: func(string) *Config { return testConfig() },
		Listener: EventListener{
			Recovered: func(r RecoveryReport) {
				if r.BytesCut > 0 {
					e.t.Errorf("recovery: %+v", r)
				}
			},
			LogOffline: func(name string, err error) { e.t.Errorf("%s is offline: %v", name, err) }},
		idleHandles: 2, // that files are opened often
	})
}

func (e *exhausting) run() {
	e.open()
	e.ends, e.txns = map[string]int64{}, map[string]*exhaustedTxns{}
	for _, name := range []string{"a-0", "b-0"} {
		if _, err := e.store.Create(name, TopicID{1}, testConfig()); err != nil {
			e.t.Fatal(err)
		}
		e.txns[name] = &exhaustedTxns{first: -1}
	}
	for range 6 {
		e.odds.Store([]int32{5, 30, 100}[e.rng.Intn(3)])
		for range 30 {
			e.step()
		}
		e.odds.Store(0)
		e.settle()
		if e.t.Failed() {
			return
		}
		switch e.rng.Intn(3) {
		case 0:
			killed := e.mem.KillClone()
			e.store.Close(1)
			e.mem = killed
			e.open()
		case 1:
			if err := e.store.Close(1); err != nil {
				e.t.Fatal(err)
			}
			e.open()
		}
		e.check()
	}
	if err := e.store.Close(1); err != nil {
		e.t.Error(err)
	}
}

func (e *exhausting) step() {
	l := e.store.Log([]string{"a-0", "b-0"}[e.rng.Intn(2)])
	switch e.rng.Intn(16) {
	case 0:
		time.Sleep(time.Duration(e.rng.Intn(70)) * time.Second)
	case 1:
		if err := l.DeleteBefore(l.StartOffset() + e.rng.Int63n(3)); err != nil && !errors.Is(err, ErrOffsetOutOfRange) && !errors.Is(err, ErrStorage) {
			e.t.Errorf("DeleteBefore: %v", err)
		}
	case 2:
		if v, err := l.Read(l.StartOffset(), l.HighWatermark(), 1000, true); err == nil && v != nil {
			v.Close()
		} else if err != nil && !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.EIO) {
			e.t.Errorf("Read: %v", err)
		}
	case 3, 4:
		e.transact(l)
	default:
		batch := spec{n: 1 + e.rng.Intn(3), value: e.rng.Intn(1200), ts: wallClockMs(), epoch: -1, pid: 5 * int64(e.rng.Intn(2)), pepoch: int16(l.EndOffset() % 30000)}
		entry := Entry{Data: batch.build()}
		l.Append(wallClockMs(), int32(e.rng.Intn(2)), []*Entry{&entry})
		if entry.Err != nil && !errors.Is(entry.Err, ErrStorage) && !errors.Is(entry.Err, ErrInvalidProducerEpoch) {
			e.t.Errorf("Append: %v", entry.Err)
		}
	}
	synctest.Wait()
	e.ends[l.name] = max(e.ends[l.name], l.AcknowledgedOffset())
}

// transact goes on with a transaction or ends it.
func (e *exhausting) transact(l *Log) {
	x := e.txns[l.name]
	entry, b := Entry{}, spec{n: 1, value: e.rng.Intn(500), ts: wallClockMs(), epoch: -1, pid: 7, txn: true, seq: x.seq}
	ends, abort := x.first >= 0 && e.rng.Intn(3) > 0, e.rng.Intn(4) > 0
	if ends {
		entry.Origin, b = FromCoordinator, spec{ts: wallClockMs(), epoch: -1, pid: 7, isMarker: true}
		if !abort {
			b.marker = 1
		}
	}
	entry.Data = b.build()
	l.Append(wallClockMs(), int32(e.rng.Intn(2)), []*Entry{&entry})
	switch {
	case errors.Is(entry.Err, ErrStorage):
	case entry.Err != nil:
		e.t.Errorf("transactional append: %v", entry.Err)
	case !ends:
		x.seq++
		if x.first < 0 {
			x.first = entry.Result.BaseOffset
		}
	default:
		if abort {
			x.aborted = append(x.aborted, exhaustedAbort{x.first, entry.Result.BaseOffset})
		}
		x.first = -1
	}
}

// checkTransactions holds what the log says of transactions against what it was given.
func (e *exhausting) checkTransactions(l *Log) {
	x := e.txns[l.name]
	var want []AbortedTxn
	for _, a := range x.aborted {
		if a.marker >= l.StartOffset() {
			want = append(want, AbortedTxn{ProducerID: 7, FirstOffset: a.first})
		}
	}
	if got, err := l.Aborted(l.StartOffset(), l.EndOffset()); err != nil || !slices.Equal(got, want) {
		e.t.Errorf("%s: aborted %v (%v), want %v", l.name, got, err, want)
	}
	l.mu.Lock()
	first := l.mu.producers.get(7).txnFirstOffset
	l.mu.Unlock()
	if first != x.first {
		e.t.Errorf("%s: a transaction is open from %d, want %d", l.name, first, x.first)
	}
}

// settle waits until everything that was appended is acknowledged and has its recovery point.
func (e *exhausting) settle() {
	time.Sleep(3 * time.Minute)
	synctest.Wait()
	for _, l := range e.store.Logs() {
		if l.AcknowledgedOffset() != l.EndOffset() || l.recovery.Load() != l.EndOffset() {
			e.t.Errorf("%s ends at %d: acknowledged %d, recovery point %d", l.name, l.EndOffset(), l.AcknowledgedOffset(), l.recovery.Load())
		}
		e.ends[l.name] = l.EndOffset()
	}
}

func (e *exhausting) check() {
	for name, end := range e.ends {
		l := e.store.Log(name)
		if l.EndOffset() != end || l.Err() != nil {
			e.t.Errorf("%s ends at %d (%v), want %d", name, l.EndOffset(), l.Err(), end)
			continue
		}
		e.checkTransactions(l)
		next := l.StartOffset()
		for _, b := range readAll(e.t, l, next, end) {
			if b.BaseOffset() > next {
				e.t.Errorf("%s: nothing from %d to %d", name, next, b.BaseOffset())
			}
			next = b.LastOffset() + 1
		}
		if next != end {
			e.t.Errorf("%s: nothing at %d, it ends at %d", name, next, end)
		}
		files := names(e.t, e.mem, "data/"+name)
		for _, f := range files {
			if strings.HasSuffix(f, ".log") && f > "00000000000000000000.log" && len(l.Segments()) == 1 && l.Segments()[0].BaseOffset == 0 {
				e.t.Errorf("%s: files of a roll that failed are there: %v", name, files)
			}
		}
	}
}

// TestDropThatIsRefused: a log whose directory cannot be renamed is gone for its users, and its directory
// is gone a while later; then there may be another of its name.
func TestDropThatIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		f := &faults{want: func(op vfs.Op) bool { return op.Kind == vfs.OpRename && op.Name == "data/t-0" }}
		s := mustOpen(t, &Options{FS: vfs.NewFaulty(mem, f.hook)})
		mustCreate(t, s, "t-0")
		f.set(syscall.ENOSPC)
		if err := s.Delete("t-0"); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		if _, err := s.Create("t-0", TopicID{9}, testConfig()); !errors.Is(err, ErrExists) {
			t.Errorf("another beside the directory of the first: %v", err)
		}
		time.Sleep(time.Minute)
		f.set(nil)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		for _, name := range names(t, mem, "data") {
			if strings.HasPrefix(name, "t-0") {
				t.Errorf("%s is there", name)
			}
		}
		l, err := s.Create("t-0", TopicID{9}, testConfig())
		if err != nil {
			t.Fatal(err)
		}
		fill(t, l, 1)
		if err := s.Close(1); err != nil {
			t.Fatal(err)
		}
	})
}

// TestIndexWithoutRoomInACheckpoint: entries that come while a checkpoint syncs the log, and for which there is no room, are no
// failed sync: the recovery point waits.
func TestIndexWithoutRoomInACheckpoint(t *testing.T) {
	mem := vfs.NewMem()
	var l *Log
	var armed, full atomic.Bool
	s := mustOpen(t, testOptions(vfs.NewFaulty(mem, func(op vfs.Op) error {
		if op.Kind == vfs.OpSync && strings.HasSuffix(op.Name, ".log") && armed.CompareAndSwap(true, false) {
			for range 3 {
				e := Entry{Data: spec{n: 1, value: 400, ts: fixedClock(), epoch: -1}.build()}
				if l.Append(fixedClock(), 0, []*Entry{&e}); e.Err != nil {
					t.Error(e.Err)
				}
			}
			full.Store(true)
		}
		if op.Kind == vfs.OpWrite && strings.HasSuffix(op.Name, ".index") && full.Load() {
			return syscall.ENOSPC
		}
		return nil
	})))
	l = mustCreate(t, s, "t-0")
	l.syncing.Lock() // before the append, which is not to be synced by another
	mustAppend(t, l, spec{n: 1, value: 400, ts: fixedClock(), epoch: -1}.build())
	armed.Store(true)
	offline, err := l.persistLocked(false)
	l.syncing.Unlock()
	if offline || !errors.Is(err, syscall.ENOSPC) || l.recovery.Load() != 0 {
		t.Errorf("offline %v, %v; recovery point %d", offline, err, l.recovery.Load())
	}
	full.Store(false)
	l.checkpoint()
	if l.Err() != nil || l.recovery.Load() != 4 {
		t.Errorf("recovery point %d: %v", l.recovery.Load(), l.Err())
	}
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
}

// TestNoDescriptorForWriteBack: write-back is a help for the sync that follows; without a descriptor there is none.
func TestNoDescriptorForWriteBack(t *testing.T) {
	f := &faults{want: func(op vfs.Op) bool { return opens(op) || op.Kind == vfs.OpWriteback }}
	o := testOptions(vfs.NewFaulty(vfs.NewMem(), f.hook))
	o.Durability = OS
	s := mustOpen(t, o)
	cfg := testConfig()
	cfg.SegmentBytes, cfg.MaxMessageBytes = 64<<20, 4<<20
	l, err := s.Create("t-0", TopicID{1}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for range 9 {
		mustAppend(t, l, spec{n: 1, value: writeBackBytes / 8, ts: fixedClock(), epoch: -1}.build())
	}
	for _, cause := range []error{syscall.EMFILE, syscall.EIO} {
		mustAppend(t, l, spec{n: 1, ts: fixedClock(), epoch: -1}.build())
		l.checkpoint()
		for s.handles.EvictSome() {
		}
		f.set(cause)
		l.startWriteBack()
		f.set(nil)
		if failed := l.Err() != nil; failed != (cause == syscall.EIO) {
			t.Errorf("%v: %v", cause, l.Err())
		}
	}
	_ = s.Close(1)
}
