package bench

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/millrace-project/millrace/batch"
)

// keyedRecords are a seeded sequence of records whose keys are drawn from a fixed set: the same seed
// gives the same bytes, so that every target cleans the same log, and what it must leave is known
// without keeping it. Record n has offset n in a new partition.
type keyedRecords struct {
	shape Shape
	seed  uint64
	count int64 // records in all
	keys  int
	pool  []byte // that values are cut from
}

const (
	recordsPerKey  = 2 // on average: about half of the records are out of date
	keyedOverhead  = 8 // of a record beside key and value, about
	keyedFirstMs   = 1_700_000_000_000
	keyedPoolBytes = 4 << 20
)

func newKeyedRecords(s Shape, seed uint64, size int64) *keyedRecords {
	k := &keyedRecords{shape: s, seed: seed}
	k.count = max(1, size/int64(s.RecordBytes+s.KeyBytes+keyedOverhead))
	k.keys = int(max(1, k.count/recordsPerKey))
	k.pool = make([]byte, keyedPoolBytes+s.RecordBytes)
	fillValue(rand.New(rand.NewPCG(seed, 1)), k.pool, 1)
	return k
}

// keyedDraw draws the records one after the other.
type keyedDraw struct {
	*keyedRecords
	rng   *rand.Rand
	next  int64 // record
	text  []byte
	value []byte
}

func (k *keyedRecords) draw() *keyedDraw {
	return &keyedDraw{keyedRecords: k, rng: rand.New(rand.NewPCG(k.seed, 2)), value: make([]byte, k.shape.RecordBytes)}
}

// record gives the next one: the number of its key, and where in the pool its value begins.
func (d *keyedDraw) record() (key, at int) {
	d.next++
	return d.rng.IntN(d.keys), d.rng.IntN(keyedPoolBytes)
}

// keyText is the key of that number. It is valid until the next call.
func (d *keyedDraw) keyText(key int) []byte {
	d.text = strconv.AppendInt(d.text[:0], int64(key), 10)
	for len(d.text) < d.shape.KeyBytes {
		d.text = append(d.text, '.')
	}
	return d.text
}

// valueAt is the value that begins there. It is valid until the next call.
func (d *keyedDraw) valueAt(at int) []byte {
	drawn := (len(d.value) + d.shape.Redundancy - 1) / d.shape.Redundancy
	for n := copy(d.value, d.pool[at:at+drawn]); n < len(d.value); {
		n += copy(d.value[n:], d.value[:n])
	}
	return d.value
}

// batch builds the next one in the memory of dst where it has room; nil when all records were drawn.
func (d *keyedDraw) batch(dst []byte) (batch.Batch, error) {
	if d.next == d.count {
		return nil, nil
	}
	bld := batch.NewBuilder(batch.BuilderOptions{Codec: d.shape.Codec, LeaderEpoch: -1})
	size := d.shape.RecordBytes + d.shape.KeyBytes
	for n := 0; (n == 0 || n+size <= d.shape.BatchBytes) && d.next < d.count; n += size + keyedOverhead {
		ms := keyedFirstMs + d.next
		key, at := d.record()
		bld.Append(ms, d.keyText(key), d.valueAt(at), nil)
	}
	return bld.Build(dst[:0])
}

// keyedSource sends the batches of a draw to a partition.
type keyedSource struct {
	topic     string
	partition int32
	draw      *keyedDraw
	built     []byte
	err       error // why no more can be built; to be read when the lane has ended
}

func (s *keyedSource) next(out *outbox, n int64, _ time.Time) bool {
	b, err := s.draw.batch(s.built)
	if s.err = err; b == nil {
		return false
	}
	s.built = b
	out.request(int32(n), produceRequest(s.topic, s.partition, -1, b))
	return true
}

func (s *keyedSource) answered(_ int64, body []byte, _ time.Time) (carried, error) {
	var refusals error
	err := produced(body, func(_ int32, err error) { refusals = errors.Join(refusals, err) })
	if err == nil {
		err = refusals
	}
	return carried{}, err
}

// keyedVerification holds what a cleaner has left of a partition against what it had to leave:
// below the active segment the last record of each key there and no other, and from there on all.
type keyedVerification struct {
	draw   *keyedDraw
	active int64   // base offset of the segment that no cleaner touches
	last   []int64 // by key, the offset of its last record below that; -1: there is none
}

func (k *keyedRecords) verification(active int64) *keyedVerification {
	v := &keyedVerification{draw: k.draw(), active: active, last: make([]int64, k.keys)}
	for i := range v.last {
		v.last[i] = -1
	}
	for d := k.draw(); d.next < min(active, k.count); {
		off := d.next
		key, _ := d.record()
		v.last[key] = off
	}
	return v
}

// read reads the partition from its beginning to its end.
func (v *keyedVerification) read(conn *caller, topic string, partition int32, end int64) error {
	if end != v.draw.count {
		return fmt.Errorf("it ends at offset %d, where %d records were written", end, v.draw.count)
	}
	for next := int64(0); next < end; {
		records, err := conn.records(topic, partition, next)
		if err != nil {
			return err
		}
		before := next
		if next, err = v.batches(records, next); err != nil {
			return err
		}
		if next == before {
			return fmt.Errorf("nothing to read from offset %d on, where the end is said to be %d", next, end)
		}
	}
	return v.skipped(end)
}

// batches looks at the whole ones and returns the offset after them.
func (v *keyedVerification) batches(records []byte, next int64) (int64, error) {
	for {
		b, rest, err := batch.Next(records)
		if errors.Is(err, io.EOF) || errors.Is(err, batch.ErrShort) {
			return next, nil
		}
		if err == nil {
			err = b.VerifyCRC()
		}
		if err == nil {
			err = b.Each(0, v.record)
		}
		if err != nil {
			return next, err
		}
		next = b.LastOffset() + 1
		records = rest
	}
}

func (v *keyedVerification) record(rec *batch.Record) error {
	if rec.Offset < v.draw.next || rec.Offset >= v.draw.count {
		return fmt.Errorf("a record at offset %d where %d was due", rec.Offset, v.draw.next)
	}
	if err := v.skipped(rec.Offset); err != nil {
		return err
	}
	key, at := v.draw.record()
	switch {
	case !bytes.Equal(rec.Key, v.draw.keyText(key)) || !bytes.Equal(rec.Value, v.draw.valueAt(at)):
		return fmt.Errorf("offset %d: %w", rec.Offset, errContent)
	case !v.stays(key, rec.Offset):
		return fmt.Errorf("offset %d: a record of key %d, which has a later one at offset %d", rec.Offset, key, v.last[key])
	}
	return nil
}

// skipped draws the records below off that were not there, none of which may be one that stays.
func (v *keyedVerification) skipped(off int64) error {
	for v.draw.next < off {
		at := v.draw.next
		if key, _ := v.draw.record(); v.stays(key, at) {
			return fmt.Errorf("offset %d: the last record of key %d is not there", at, key)
		}
	}
	return nil
}

func (v *keyedVerification) stays(key int, off int64) bool {
	return off >= v.active || v.last[key] == off
}
