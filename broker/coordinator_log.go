package broker

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/replication"
	"github.com/millrace-project/millrace/segment"
	"github.com/millrace-project/millrace/vfs"
	"github.com/millrace-project/millrace/wire"
)

// recordForm is how a coordinator's records stand in its topic. R is a record, E an entry as it is read back.
type recordForm[R, E any] struct {
	topic string
	// encode appends the key and then the value; mid is where the value begins, and tombstone says that there is none.
	encode func(dst []byte, r *R) (out []byte, mid int, tombstone bool, err error)
	// producer is in whose transaction the record is written, nobody = in none.
	producer func(r *R) producer
	entry    func(b batch.Batch, r *batch.Record) (E, error)
	// control is the end of a producer's transaction; nil = there are none in the topic.
	control func(b batch.Batch, commit bool) E
}

// producer is who writes a transaction.
type producer struct {
	id    int64
	epoch int16
	guard commitlog.Guard
}

var nobody = producer{batch.NoProducerID, batch.NoProducerEpoch, commitlog.Unguarded}

// coordinatorLog is one partition of an internal topic, led in one epoch, as its coordinator sees it
// (coordinator.ReplayLog). Its methods may be called from any goroutine; release ends it.
type coordinatorLog[R, E any] struct {
	form      *recordForm[R, E]
	partition *replication.Partition
	epoch     int32
	codec     batch.Codec
	loadBytes int // read at once by Replay, if no batch is larger

	notify atomic.Pointer[func()]
	mu     struct {
		sync.Mutex
		watch    replication.Watch
		watched  bool
		released bool
	}
}

// release stops the reports of progress.
func (g *coordinatorLog[R, E]) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.released = true
	if g.mu.watched {
		g.partition.Unwatch(&g.mu.watch)
	}
	g.notify.Store(nil)
}

// Committed is the high watermark.
func (g *coordinatorLog[R, E]) Committed() int64 { return g.partition.Bound(false) }

// OnCommitted implements coordinator.Log.
func (g *coordinatorLog[R, E]) OnCommitted(fn func()) {
	g.mu.Lock()
	moved := false
	if !g.mu.released {
		g.notify.Store(&fn)
		if !g.mu.watched {
			g.mu.watched = true
			moved = g.partition.Watch(&g.mu.watch, g, 0, false, g.Committed())
		}
	}
	g.mu.Unlock()
	if moved {
		fn()
	}
}

// Hold implements replication.Watcher.
func (g *coordinatorLog[R, E]) Hold() {}

// Woken implements replication.Watcher.
func (g *coordinatorLog[R, E]) Woken(int) {
	if fn := g.notify.Load(); fn != nil {
		(*fn)()
	}
}

// Err is why this node writes to the partition no more.
func (g *coordinatorLog[R, E]) Err() error {
	if err := g.partition.Log().Err(); err != nil {
		return codedError{err}
	}
	if err := g.partition.CheckLeader(g.epoch); err != nil {
		return codedError{err}
	}
	return nil
}

// Append implements coordinator.Log. Records of several decisions share a record batch as far as max.message.bytes lets
// them; those of one stay together, and a transaction's records are in batches of their producer.
func (g *coordinatorLog[R, E]) Append(epoch int32, timestampMs int64, decisions [][]R) (int64, error) {
	if err := g.partition.CheckLeader(epoch); err != nil {
		return 0, codedError{err}
	}
	if err := g.partition.CheckAppend(true); err != nil {
		return 0, codedError{err}
	}
	p := packer[R, E]{form: g.form, maxBytes: g.partition.Log().Config().MaxMessageBytes, codec: g.codec, timestampMs: timestampMs}
	for _, d := range decisions {
		if err := p.add(d); err != nil {
			return 0, err
		}
	}
	if err := p.flush(); err != nil {
		return 0, err
	}
	e := commitlog.Entry{Data: p.data, Guards: p.guards, Origin: commitlog.FromCoordinator, ZstdAllowed: true}
	g.partition.Log().Append(timestampMs, epoch, []*commitlog.Entry{&e})
	switch {
	case errors.Is(e.Err, commitlog.ErrRecordListTooLarge):
		return 0, fmt.Errorf("%w: %w", coordinator.ErrTooLarge, codedError{e.Err})
	case e.Err != nil:
		return 0, codedError{e.Err}
	}
	return e.Result.BaseOffset, nil
}

// codedError is an error of a partition with its code, as coordinators ask for it.
type codedError struct{ error }

// Unwrap gives the error without the code.
func (e codedError) Unwrap() error { return e.error }

// Code implements coordinator.Coded.
func (e codedError) Code() wire.Code {
	if errors.Is(e.error, replication.ErrFencedEpoch) {
		return wire.NotLeaderOrFollower // in the epoch of this log, which is over
	}
	return codeOf(e.error)
}

// tooLarge refuses a decision whose records no batch may hold.
func tooLarge(format string, args ...any) error {
	return codedError{&batch.ValidationError{Kind: batch.MessageTooLarge, Msg: fmt.Sprintf(format, args...)}}
}

// packer makes record batches of decisions.
type packer[R, E any] struct {
	form        *recordForm[R, E]
	maxBytes    int
	codec       batch.Codec
	timestampMs int64

	data     []byte // finished batches
	guards   []commitlog.Guard
	builder  *batch.Builder
	producer producer // whose records the builder takes
	encoded  []pair
	arena    []byte // what encoded points into
}

// pair is where a record's key and value lie in the arena; a value that ends before it begins is a tombstone.
type pair struct{ from, mid, to int }

// add takes the records of one decision into the batch in work, or begins another if they do not fit.
func (p *packer[R, E]) add(decision []R) error {
	if len(decision) == 0 {
		return nil
	}
	if err := p.encode(decision); err != nil {
		return err
	}
	who := p.form.producer(&decision[0])
	size := p.room()
	if p.builder != nil && (p.producer != who || p.builder.Len()+size > p.maxBytes) {
		if err := p.flush(); err != nil {
			return err
		}
	}
	if p.builder == nil {
		p.begin(who)
		if p.builder.Len()+size > p.maxBytes && !p.fitsPacked() {
			return tooLarge("one decision has %d records of %d bytes, max.message.bytes is %d", len(decision), size, p.maxBytes)
		}
	}
	p.put(p.builder)
	return nil
}

func (p *packer[R, E]) begin(who producer) {
	p.producer = who
	// As Kafka's coordinators have it: the first sequence is 0 also where there is no producer.
	p.builder = batch.NewBuilder(batch.BuilderOptions{
		LeaderEpoch: -1, Codec: p.codec, HasProducer: true, ProducerID: who.id, ProducerEpoch: who.epoch,
		Transactional: who != nobody,
	})
}

// encode writes a decision's keys and values into the arena.
func (p *packer[R, E]) encode(decision []R) error {
	p.arena, p.encoded = p.arena[:0], p.encoded[:0]
	for i := range decision {
		at := pair{from: len(p.arena), to: -1}
		var tombstone bool
		var err error
		if p.arena, at.mid, tombstone, err = p.form.encode(p.arena, &decision[i]); err != nil {
			return fmt.Errorf("broker: encode a record of %s: %w", p.form.topic, err)
		}
		if !tombstone {
			at.to = len(p.arena)
		}
		p.encoded = append(p.encoded, at)
	}
	return nil
}

// put gives the encoded records to a builder.
func (p *packer[R, E]) put(b *batch.Builder) {
	for _, at := range p.encoded {
		var value []byte
		if at.to >= 0 {
			value = p.arena[at.mid:at.to:at.to]
		}
		b.Append(p.timestampMs, p.arena[at.from:at.mid:at.mid], value, nil)
	}
}

// recordOverhead bounds what a record takes beside its key and value: length, attributes, deltas, lengths, headers.
const recordOverhead = 5 + 1 + 1 + 5 + 5 + 5 + 1

// room bounds the bytes that the encoded records take in a batch.
func (p *packer[R, E]) room() int { return len(p.arena) + len(p.encoded)*recordOverhead }

// fitsPacked says whether the encoded records fit a batch of their own, when the bound of their size does not tell:
// compressed, or within the last bytes of the limit.
func (p *packer[R, E]) fitsPacked() bool {
	b := batch.NewBuilder(batch.BuilderOptions{Codec: p.codec})
	p.put(b)
	built, err := b.Build(nil)
	return err == nil && len(built) <= p.maxBytes
}

// flush finishes the batch in work.
func (p *packer[R, E]) flush() error {
	if p.builder == nil {
		return nil
	}
	b, err := p.builder.Build(nil)
	p.builder = nil
	if err != nil {
		return tooLarge("%v", err)
	}
	p.data, p.guards = append(p.data, b...), append(p.guards, p.producer.guard)
	return nil
}

// Replay implements coordinator.ReplayLog. It holds no more than what is read at once, and one batch decompressed.
func (g *coordinatorLog[R, E]) Replay(fn func(E) error) (end int64, err error) {
	log := g.partition.Log()
	end = log.EndOffset()
	var buf []byte
	for off := log.StartOffset(); off < end; {
		v, err := log.Read(off, end, g.loadBytes, true)
		if errors.Is(err, commitlog.ErrOffsetOutOfRange) && log.StartOffset() > off {
			off = log.StartOffset() // retention or DeleteRecords was quicker
			continue
		}
		if err != nil {
			return 0, unread(err)
		}
		if v == nil {
			break // compaction took all that was left
		}
		buf, err = readView(buf, v)
		if err != nil {
			return 0, unread(err)
		}
		if off, err = g.form.replay(buf, off, fn); err != nil {
			return 0, err
		}
		if err := g.Err(); err != nil {
			return 0, err
		}
	}
	return end, nil
}

// unread is the error of a log that could not be read, which passes if it is for want of a descriptor.
func unread(err error) error {
	if vfs.IsExhausted(err) {
		return fmt.Errorf("%w: %w", coordinator.ErrPassing, codedError{err})
	}
	return codedError{err}
}

// readView reads a view's bytes into buf, which grows as needed, and closes it.
func readView(buf []byte, v *segment.View) ([]byte, error) {
	buf = slices.Grow(buf[:0], int(v.Len()))[:v.Len()]
	_, err := v.ReadAt(buf, 0)
	return buf, errors.Join(err, v.Close())
}

// replay gives the records of whole batches from off on, and returns the offset that follows them.
func (f *recordForm[R, E]) replay(p []byte, off int64, fn func(E) error) (next int64, err error) {
	for next = off; ; {
		b, tail, err := batch.Next(p)
		if err != nil {
			if next == off {
				return 0, fmt.Errorf("broker: replay at offset %d: %w", off, err)
			}
			return next, nil // the end, or a batch that the limit cut
		}
		p = tail
		if err := b.VerifyCRC(); err != nil {
			return 0, fmt.Errorf("broker: replay at offset %d: %w", b.BaseOffset(), err)
		}
		if b.IsControl() {
			err = f.replayControl(b, off, fn)
		} else {
			err = f.replayRecords(b, off, fn)
		}
		if err != nil {
			return 0, fmt.Errorf("broker: replay at offset %d: %w", b.BaseOffset(), err)
		}
		next = b.LastOffset() + 1
	}
}

func (f *recordForm[R, E]) replayControl(b batch.Batch, off int64, fn func(E) error) error {
	if b.Count() == 0 {
		return nil // the cleaner leaves the marker's batch for the producer's sake, when nothing is left of the transaction
	}
	kind, _, _, err := b.ControlRecord()
	if err != nil {
		return err
	}
	if f.control == nil || kind != batch.Commit && kind != batch.Abort || b.BaseOffset() < off {
		return nil
	}
	return fn(f.control(b, kind == batch.Commit))
}

func (f *recordForm[R, E]) replayRecords(b batch.Batch, off int64, fn func(E) error) error {
	return b.Each(0, func(r *batch.Record) error {
		if r.Offset < off {
			return nil
		}
		e, err := f.entry(b, r)
		if err != nil {
			return fmt.Errorf("record at offset %d: %w", r.Offset, err)
		}
		return fn(e)
	})
}
