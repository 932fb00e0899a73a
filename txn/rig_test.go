package txn

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/wire"
)

// diskLog is a partition of __transaction_state: what is appended is encoded, and committed a moment later.
type diskLog struct {
	mu        sync.Mutex
	entries   [][2][]byte
	committed int64
	notify    func()
	err       error
	refuse    error // of the next append
	full      error // of every append
	delay     time.Duration
}

func (l *diskLog) Append(_ int32, _ int64, batches [][]Record) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.refuse; err != nil {
		l.refuse = nil
		return 0, err
	}
	if l.full != nil {
		return 0, l.full
	}
	base := int64(len(l.entries))
	for _, b := range batches {
		for _, r := range b {
			l.entries = append(l.entries, encode(r))
		}
	}
	end := int64(len(l.entries))
	time.AfterFunc(l.delay, func() {
		l.mu.Lock()
		l.committed = max(l.committed, end)
		fn := l.notify
		l.mu.Unlock()
		fn()
	})
	return base, nil
}

func encode(r Record) [2][]byte {
	key := records.NewTransactionLogKey()
	key.TransactionalID = r.ID
	k, err := records.AppendKey(nil, key)
	if err != nil {
		panic(err)
	}
	if r.Value == nil {
		return [2][]byte{k, nil}
	}
	v, err := records.AppendValue(nil, r.Value, r.Version)
	if err != nil {
		panic(err)
	}
	return [2][]byte{k, v}
}

func (l *diskLog) Committed() int64      { l.mu.Lock(); defer l.mu.Unlock(); return l.committed }
func (l *diskLog) OnCommitted(fn func()) { l.mu.Lock(); defer l.mu.Unlock(); l.notify = fn }
func (l *diskLog) Err() error            { l.mu.Lock(); defer l.mu.Unlock(); return l.err }

func (l *diskLog) Replay(fn func(Entry) error) (int64, error) {
	l.mu.Lock()
	entries := l.entries
	l.mu.Unlock()
	for _, e := range entries {
		k, v, err := records.DecodeTransaction(e[0], e[1])
		if err != nil {
			return 0, err
		}
		entry := Entry{ID: k.(*records.TransactionLogKey).TransactionalID}
		if v != nil {
			entry.Value = v.(*records.TransactionLogValue)
		}
		if err := fn(entry); err != nil {
			return 0, err
		}
	}
	return int64(len(entries)), nil
}

// crash is the log as a restart finds it: what was committed, and perhaps more.
func (l *diskLog) crash(more int) *diskLog {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := min(int(l.committed)+more, len(l.entries))
	return &diskLog{entries: l.entries[:n:n], committed: int64(n), delay: l.delay}
}

// rig is a coordinator over one log, with markers that are written a moment later.
type rig struct {
	t       *testing.T
	cfg     Config
	log     *diskLog
	c       *Coordinator
	version atomic.Int32 // transaction.version
	nextID  int64
	epoch   int32
	hold    atomic.Bool  // markers stay unwritten
	setBy   atomic.Int64 // ms, of the clock
	mu      sync.Mutex
	markers []Marker
	held    func([]Partition, error) // of the last that stayed unwritten
	newest  map[Partition]int16      // the epoch that partitions know of every producer
	alive   int                      // of the coordinator: markers of an earlier one do not come back
}

func newRig(t *testing.T) *rig {
	r := &rig{
		t: t, log: &diskLog{delay: time.Millisecond}, nextID: 100,
		cfg: Config{MaxTimeoutMs: 900_000, ExpirationMs: 604_800_000, ExpiryCheckMs: 3_600_000},
	}
	r.version.Store(2)
	r.start()
	return r
}

func (r *rig) start() {
	r.epoch++
	r.c = New(Options{
		Config: r.cfg, NowMs: func() int64 { return time.Now().UnixMilli() + r.setBy.Load() },
		Version: func() int16 { return int16(r.version.Load()) }, Markers: r,
		ProducerID: func(done func(int64, error)) { r.nextID++; done(r.nextID, nil) }, TimeoutMs: 30_000,
	})
	r.c.SetPartitions(1)
	r.c.Lead(0, r.epoch, r.log)
	synctest.Wait()
}

func (r *rig) restart(more int) {
	r.mu.Lock()
	r.alive++
	r.mu.Unlock()
	old := r.c
	r.log = r.log.crash(more)
	old.Close()
	r.start()
}

// Write implements Markers.
func (r *rig) Write(m Marker, done func([]Partition, error)) {
	r.mu.Lock()
	alive := r.alive
	r.mu.Unlock()
	if r.hold.Load() {
		r.held = done
		return
	}
	time.AfterFunc(time.Millisecond, func() {
		r.mu.Lock()
		refuses := func(p Partition) bool { return m.Epoch < r.newest[p] }
		var newer []Partition
		for _, p := range m.Partitions {
			if refuses(p) {
				newer = append(newer, p)
			}
		}
		m.Partitions = slices.DeleteFunc(slices.Clone(m.Partitions), refuses)
		if r.alive == alive && len(m.Partitions) > 0 {
			r.markers = append(r.markers, m)
		}
		r.mu.Unlock()
		done(newer, nil)
	})
}

// written is how many markers are.
func (r *rig) written() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.markers)
}

type answered struct {
	Identity
	code wire.Code
}

func (a answered) String() string { return fmt.Sprintf("%d/%d %v", a.ProducerID, a.Epoch, a.code) }

func (r *rig) init(id string, expected *Identity) answered {
	out := make(chan answered, 1)
	r.c.InitProducerID(id, 60_000, false, expected, func(p Identity, c wire.Code) { out <- answered{p, c} })
	return <-out
}

func (r *rig) add(id string, p Identity, ps ...Partition) wire.Code {
	out := make(chan wire.Code, 1)
	r.c.AddPartitions(id, p, ps, int16(r.version.Load()), func(c wire.Code) { out <- c })
	return <-out
}

func (r *rig) end(id string, p Identity, commit bool, version int16) answered {
	out := make(chan answered, 1)
	r.c.EndTxn(id, p, commit, version, func(p Identity, c wire.Code) { out <- answered{p, c} })
	return <-out
}

// state is what DescribeTransactions says.
func (r *rig) state(id string) string {
	time.Sleep(10 * time.Millisecond)
	synctest.Wait()
	s, err := r.c.For(id)
	if err != nil {
		return err.Error()
	}
	out := make(chan string, 1)
	s.Submit(id, func(m *Machine) coordinator.Decision[Record] {
		text := "none"
		if t := m.txns[id]; t != nil {
			text = fmt.Sprintf("%v %d/%d", t.state, t.producerID, t.epoch)
		}
		return coordinator.Decision[Record]{Then: func(error) { out <- text }}
	}, func(err error) { out <- err.Error() })
	return <-out
}

// failAppend has the next append fail.
func (r *rig) failAppend(err error) {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	r.log.refuse = err
}

// fill has every append fail from now on, until it is nil.
func (r *rig) fill(err error) {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	r.log.full = err
}

// slow has what is appended from now on committed after d.
func (r *rig) slow(d time.Duration) {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	r.log.delay = d
}

// put sets the state of an id as its record says.
func (r *rig) put(t *transaction) {
	r.log.mu.Lock()
	r.log.entries = append(r.log.entries, encode(t.record(2)))
	r.log.committed = int64(len(r.log.entries))
	r.log.mu.Unlock()
	r.restart(0)
}

func (r *rig) expect(what string, got, want any) {
	r.t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		r.t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func inBubble(t *testing.T, fn func(r *rig)) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		fn(r)
		r.c.Close()
	})
}

var (
	p0, p1     = Partition{"a", 0}, Partition{"b", 1}
	errNoSpace = errors.New("no space")
)

func partitionsOf(m Marker) map[Partition]struct{} {
	out := map[Partition]struct{}{}
	for _, p := range m.Partitions {
		out[p] = struct{}{}
	}
	return out
}

func same(a, b map[Partition]struct{}) bool { return maps.Equal(a, b) }
