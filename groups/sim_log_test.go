package groups

import (
	"math/rand"
	"slices"
	"sync"
	"time"

	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/wire"
)

// simError is an error of a partition.
type simError wire.Code

func (e simError) Error() string   { return wire.Code(e).String() }
func (e simError) Code() wire.Code { return wire.Code(e) }

// simEntry is a record as bytes, or the end of a transaction.
type simEntry struct {
	off, ms    int64
	key, value []byte // value nil: a tombstone
	producer   *Producer
	commit     bool // without a key: how the producer's transaction ends
}

// simDisk is a partition of __consumer_offsets that outlives its coordinators. What is committed stays; what is not may
// be lost with a change of the leader.
type simDisk struct {
	mu        sync.Mutex
	rng       *rand.Rand
	entries   []simEntry
	ends      []int64 // of decisions: they are written whole or not at all
	committed int64
	epoch     int32
	notify    func()
	stalled   bool // nothing is committed
	refusing  bool // appends are refused: not enough replicas
}

// simLog is a leader's view of the disk.
type simLog struct {
	d     *simDisk
	epoch int32
}

// lead is a change of the leader.
func (d *simDisk) lead() *simLog {
	d.mu.Lock()
	defer d.mu.Unlock()
	if lost := int64(len(d.entries)) - d.committed; lost > 0 && d.rng.Intn(2) == 0 {
		end := d.committed + d.rng.Int63n(lost+1)
		for !slices.Contains(d.ends, end) && end > d.committed {
			end--
		}
		d.entries = d.entries[:end]
	}
	d.epoch++
	d.notify = nil
	d.commitSoon()
	return &simLog{d, d.epoch}
}

// depose is a leader that is one no more.
func (d *simDisk) depose() {
	d.mu.Lock()
	d.epoch++
	notify := d.notify
	d.mu.Unlock()
	if notify != nil {
		notify()
	}
}

func (d *simDisk) commitSoon() {
	if d.stalled {
		return
	}
	end, epoch := int64(len(d.entries)), d.epoch
	time.AfterFunc(time.Duration(d.rng.Intn(20))*time.Millisecond, func() {
		d.mu.Lock()
		if d.epoch == epoch && !d.stalled {
			d.committed = max(d.committed, end)
		}
		notify := d.notify
		d.mu.Unlock()
		if notify != nil {
			notify()
		}
	})
}

// set stalls the disk, or lets it refuse.
func (d *simDisk) set(stalled, refusing bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stalled, d.refusing = stalled, refusing
	d.commitSoon()
}

func (l *simLog) Append(epoch int32, timestampMs int64, decisions [][]Record) (int64, error) {
	d := l.d
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.epoch != epoch:
		return 0, simError(wire.NotLeaderOrFollower)
	case d.refusing:
		return 0, simError(wire.NotEnoughReplicas)
	case d.rng.Intn(100) == 0:
		return 0, simError(wire.MessageTooLarge)
	}
	base := int64(len(d.entries))
	for _, decision := range decisions {
		for _, r := range decision {
			d.entries = append(d.entries, encodeSim(r, int64(len(d.entries)), timestampMs))
		}
		d.ends = append(d.ends, int64(len(d.entries)))
	}
	d.commitSoon()
	return base, nil
}

func encodeSim(r Record, off, timestampMs int64) simEntry {
	e := simEntry{off: off, ms: timestampMs, producer: r.Producer}
	var err error
	if e.key, err = records.AppendKey(nil, r.Key); err != nil {
		panic(err)
	}
	if r.Value != nil {
		var version int16
		switch v := r.Value.(type) {
		case *records.OffsetCommitValue:
			version = 4
			if v.ExpireTimestamp != -1 {
				version = 1
			}
		case *records.GroupMetadataValue:
			version = 3
		}
		if e.value, err = records.AppendValue(nil, r.Value, version); err != nil {
			panic(err)
		}
	}
	return e
}

func (l *simLog) Committed() int64 { l.d.mu.Lock(); defer l.d.mu.Unlock(); return l.d.committed }
func (l *simLog) OnCommitted(fn func()) {
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	if l.d.epoch == l.epoch {
		l.d.notify = fn
	}
}

func (l *simLog) Err() error {
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	if l.d.epoch != l.epoch {
		return simError(wire.NotLeaderOrFollower)
	}
	return nil
}

func (l *simLog) Replay(fn func(Entry) error) (int64, error) {
	l.d.mu.Lock()
	wait := time.Duration(l.d.rng.Intn(300)) * time.Millisecond
	l.d.mu.Unlock()
	time.Sleep(wait)
	entries := l.d.copied()
	for i := range entries {
		if err := fn(entries[i].decode()); err != nil {
			return 0, err
		}
	}
	return int64(len(entries)), nil
}

func (d *simDisk) copied() []simEntry {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]simEntry(nil), d.entries...)
}

func (e *simEntry) decode() Entry {
	out := Entry{Offset: e.off, TimestampMs: e.ms, ProducerID: -1, ProducerEpoch: -1}
	if e.producer != nil {
		out.ProducerID, out.ProducerEpoch, out.Transactional = e.producer.ID, e.producer.Epoch, true
	}
	if e.key == nil {
		out.Control, out.Commit = true, e.commit
		return out
	}
	var err error
	if out.Key, out.Value, err = records.DecodeGroup(e.key, e.value); err != nil {
		panic(err)
	}
	return out
}

// mark writes the end of a transaction, committed.
func (d *simDisk) mark(p Producer, commit bool) {
	d.mu.Lock()
	d.entries = append(d.entries, simEntry{off: int64(len(d.entries)), producer: &p, commit: commit})
	d.committed = int64(len(d.entries))
	d.ends = append(d.ends, d.committed)
	notify := d.notify
	d.mu.Unlock()
	if notify != nil {
		notify()
	}
}

// compacted is the log after a cleaning that has also dropped the tombstones. It ends before the first open transaction.
func compacted(entries []simEntry) []simEntry {
	open, aborted := map[Producer][]int{}, map[int]bool{}
	for i, e := range entries {
		switch {
		case e.key == nil:
			for _, of := range open[*e.producer] {
				aborted[of] = !e.commit
			}
			delete(open, *e.producer)
		case e.producer != nil:
			open[*e.producer] = append(open[*e.producer], i)
		}
	}
	end := len(entries)
	for _, of := range open {
		end = min(end, of[0])
	}
	last := map[string]int{}
	for i, e := range entries[:end] {
		if e.key != nil && !aborted[i] {
			last[string(e.key)] = i
		}
	}
	var out []simEntry
	for i, e := range entries[:end] {
		if e.key == nil || !aborted[i] && last[string(e.key)] == i && e.value != nil {
			out = append(out, e)
		}
	}
	return append(out, entries[end:]...)
}
