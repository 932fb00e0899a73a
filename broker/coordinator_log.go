package broker

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/groups"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/replication"
	"github.com/millrace-project/millrace/segment"
	"github.com/millrace-project/millrace/wire"
)

// groupLog is one partition of __consumer_offsets, led in one epoch, as groups see it. Its methods may be called from
// any goroutine; release ends it.
type groupLog struct {
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

func newGroupLog(p *replication.Partition, epoch int32, codec batch.Codec, loadBytes int) *groupLog {
	return &groupLog{partition: p, epoch: epoch, codec: codec, loadBytes: loadBytes}
}

// release stops the reports of progress.
func (g *groupLog) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.released = true
	if g.mu.watched {
		g.partition.Unwatch(&g.mu.watch)
	}
	g.notify.Store(nil)
}

// Committed is the high watermark.
func (g *groupLog) Committed() int64 { return g.partition.Bound(false) }

// OnCommitted implements coordinator.Log.
func (g *groupLog) OnCommitted(fn func()) {
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

// Woken implements replication.Watcher.
func (g *groupLog) Woken(int) {
	if fn := g.notify.Load(); fn != nil {
		(*fn)()
	}
}

// Err is why this node writes to the partition no more.
func (g *groupLog) Err() error {
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
func (g *groupLog) Append(epoch int32, timestampMs int64, decisions [][]groups.Record) (int64, error) {
	if err := g.partition.CheckLeader(epoch); err != nil {
		return 0, codedError{err}
	}
	if err := g.partition.CheckAppend(true); err != nil {
		return 0, codedError{err}
	}
	p := packer{maxBytes: g.partition.Log().Config().MaxMessageBytes, codec: g.codec, timestampMs: timestampMs}
	for _, d := range decisions {
		if err := p.add(d); err != nil {
			return 0, err
		}
	}
	if err := p.flush(); err != nil {
		return 0, err
	}
	e := commitlog.Entry{Data: p.data, Origin: commitlog.FromCoordinator, ZstdAllowed: true}
	g.partition.Log().Append(timestampMs, epoch, []*commitlog.Entry{&e})
	if e.Err != nil {
		return 0, codedError{e.Err}
	}
	return e.Result.BaseOffset, nil
}

// codedError is an error of a partition with its code, as groups ask for it.
type codedError struct{ error }

// Unwrap gives the error without the code.
func (e codedError) Unwrap() error { return e.error }

// Code implements groups.Coded.
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
type packer struct {
	maxBytes    int
	codec       batch.Codec
	timestampMs int64

	data     []byte // finished batches
	builder  *batch.Builder
	producer groups.Producer // whose records the builder takes
	encoded  []pair
	arena    []byte // what encoded points into
}

// pair is where a record's key and value lie in the arena; a value that ends before it begins is a tombstone.
type pair struct{ from, mid, to int }

var nobody = groups.Producer{ID: batch.NoProducerID, Epoch: batch.NoProducerEpoch}

// add takes the records of one decision into the batch in work, or begins another if they do not fit.
func (p *packer) add(decision []groups.Record) error {
	if len(decision) == 0 {
		return nil
	}
	if err := p.encode(decision); err != nil {
		return err
	}
	who := nobody
	if decision[0].Producer != nil {
		who = *decision[0].Producer
	}
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

func (p *packer) begin(who groups.Producer) {
	p.producer = who
	// As Kafka's coordinators have it: the first sequence is 0 also where there is no producer.
	p.builder = batch.NewBuilder(batch.BuilderOptions{
		LeaderEpoch: -1, Codec: p.codec, HasProducer: true, ProducerID: who.ID, ProducerEpoch: who.Epoch,
		Transactional: who != nobody,
	})
}

// encode writes a decision's keys and values into the arena.
func (p *packer) encode(decision []groups.Record) error {
	p.arena, p.encoded = p.arena[:0], p.encoded[:0]
	for i := range decision {
		r := &decision[i]
		at := pair{from: len(p.arena), to: -1}
		var err error
		if p.arena, err = records.AppendKey(p.arena, r.Key); err == nil {
			if at.mid = len(p.arena); r.Value != nil {
				p.arena, err = records.AppendValue(p.arena, r.Value, valueVersion(r.Value))
				at.to = len(p.arena)
			}
		}
		if err != nil {
			return fmt.Errorf("broker: encode a record of %s: %w", topicConsumerOffsets, err)
		}
		p.encoded = append(p.encoded, at)
	}
	return nil
}

// valueVersion is the version in which Kafka 4.2 writes a record of __consumer_offsets.
func valueVersion(v records.Message) int16 {
	switch v := v.(type) {
	case *records.OffsetCommitValue:
		if v.ExpireTimestamp != -1 {
			return 1 // the only one that has it
		}
		return 4
	case *records.GroupMetadataValue:
		return 3
	}
	return v.Schema().MinVersion
}

// put gives the encoded records to a builder.
func (p *packer) put(b *batch.Builder) {
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
func (p *packer) room() int { return len(p.arena) + len(p.encoded)*recordOverhead }

// fitsPacked says whether the encoded records fit a batch of their own, when the bound of their size does not tell:
// compressed, or within the last bytes of the limit.
func (p *packer) fitsPacked() bool {
	b := batch.NewBuilder(batch.BuilderOptions{Codec: p.codec})
	p.put(b)
	built, err := b.Build(nil)
	return err == nil && len(built) <= p.maxBytes
}

// flush finishes the batch in work.
func (p *packer) flush() error {
	if p.builder == nil {
		return nil
	}
	b, err := p.builder.Build(nil)
	p.builder = nil
	if err != nil {
		return tooLarge("%v", err)
	}
	p.data = append(p.data, b...)
	return nil
}

// Replay implements groups.Log. It holds no more than what is read at once, and one batch decompressed.
func (g *groupLog) Replay(fn func(groups.Entry) error) (end int64, err error) {
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
			return 0, codedError{err}
		}
		if v == nil {
			break // compaction took all that was left
		}
		buf, err = readView(buf, v)
		if err != nil {
			return 0, codedError{err}
		}
		if off, err = replay(buf, off, fn); err != nil {
			return 0, err
		}
		if err := g.Err(); err != nil {
			return 0, err
		}
	}
	return end, nil
}

// readView reads a view's bytes into buf, which grows as needed, and closes it.
func readView(buf []byte, v *segment.View) ([]byte, error) {
	buf = slices.Grow(buf[:0], int(v.Len()))[:v.Len()]
	_, err := v.ReadAt(buf, 0)
	return buf, errors.Join(err, v.Close())
}

// replay gives the records of whole batches from off on, and returns the offset that follows them.
func replay(p []byte, off int64, fn func(groups.Entry) error) (next int64, err error) {
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
			err = replayControl(b, off, fn)
		} else {
			err = replayRecords(b, off, fn)
		}
		if err != nil {
			return 0, fmt.Errorf("broker: replay at offset %d: %w", b.BaseOffset(), err)
		}
		next = b.LastOffset() + 1
	}
}

func replayControl(b batch.Batch, off int64, fn func(groups.Entry) error) error {
	kind, _, _, err := b.ControlRecord()
	if err != nil {
		return err
	}
	if kind != batch.Commit && kind != batch.Abort || b.BaseOffset() < off {
		return nil
	}
	return fn(groups.Entry{
		Offset: b.BaseOffset(), TimestampMs: b.MaxTimestamp(), ProducerID: b.ProducerID(), ProducerEpoch: b.ProducerEpoch(),
		Transactional: true, Control: true, Commit: kind == batch.Commit,
	})
}

func replayRecords(b batch.Batch, off int64, fn func(groups.Entry) error) error {
	return b.Each(0, func(r *batch.Record) error {
		if r.Offset < off {
			return nil
		}
		e := groups.Entry{
			Offset: r.Offset, TimestampMs: r.Timestamp,
			ProducerID: b.ProducerID(), ProducerEpoch: b.ProducerEpoch(), Transactional: b.IsTransactional(),
		}
		var err error
		if e.Key, e.Value, err = records.DecodeGroup(r.Key, r.Value); unknownType(err, r.Key) {
			e.Key, e.Value = nil, nil // groups pass over it, as Kafka does
		} else if err != nil {
			return fmt.Errorf("record at offset %d: %w", r.Offset, err)
		}
		return fn(e)
	})
}

// unknownType tells a record whose type a newer Kafka has from one in a version that is not known, which nobody may
// pass over.
func unknownType(err error, key []byte) bool {
	if !errors.Is(err, records.ErrUnknown) {
		return false
	}
	_, _, err = records.DecodeGroup(key, nil)
	return errors.Is(err, records.ErrUnknown)
}
