package bench

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"time"

	"github.com/millrace-project/millrace/batch"
)

// distinctBatches is how many different batches a load sends in turns. Fewer would stay in the
// caches of the CPU and flatter whoever reads them.
const distinctBatches = 64

// Where a batch's header holds what differs from one sending to the next (docs/format/record-batch.md).
const (
	crcPos           = 17
	attributesPos    = 21
	baseTimestampPos = 27
	maxTimestampPos  = 35
	producerIDPos    = 43
	producerEpochPos = 51
	baseSequencePos  = 53
)

// attrTransactional is that bit of the attributes' second byte.
const attrTransactional = 1 << 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// contents are the batches that a load sends: the same bytes to every target. They are read by any
// number of connections and never written: what differs from one sending to the next (producer,
// sequence, time) lies in the header, which is stamped on a copy.
type contents struct {
	records   int32 // in each batch
	templates [distinctBatches]template
}

type template struct {
	header  [batch.HeaderSize]byte
	payload []byte
	crc     uint32 // of the payload alone
	shift   *crcShift
}

// contentOptions describe the batches.
type contentOptions struct {
	recordBytes int // of a record's value
	keyBytes    int // of its key; 0: null
	batchBytes  int // before compression; a batch holds at least one record
	codec       batch.Codec
	redundancy  int // a value compresses to about one part in so many; 1: not at all
	seed        uint64
}

func newContents(o contentOptions) (*contents, error) {
	c := &contents{}
	shifts := map[int]*crcShift{}
	value, key := make([]byte, o.recordBytes), make([]byte, o.keyBytes)
	for i := range c.templates {
		rng := rand.New(rand.NewPCG(o.seed, uint64(i)))
		bld := batch.NewBuilder(batch.BuilderOptions{Codec: o.codec, LeaderEpoch: -1, HasProducer: true})
		for n := 0; n == 0 || n+o.recordBytes+o.keyBytes <= o.batchBytes; n += o.recordBytes + o.keyBytes + 8 {
			fillValue(rng, value, o.redundancy)
			if o.keyBytes == 0 {
				bld.Append(0, nil, value, nil)
				continue
			}
			fillValue(rng, key, 1)
			bld.Append(0, key, value, nil)
		}
		b, err := bld.Build(nil)
		if err != nil {
			return nil, fmt.Errorf("bench: building a batch: %w", err)
		}
		t := &c.templates[i]
		copy(t.header[:], b)
		t.payload = b.Payload()
		t.crc = crc32.Checksum(t.payload, castagnoli)
		if shifts[len(t.payload)] == nil {
			shifts[len(t.payload)] = newCRCShift(len(t.payload))
		}
		t.shift = shifts[len(t.payload)]
		c.records = b.Count()
	}
	return c, nil
}

// fillValue draws the first part of a value and repeats it.
func fillValue(rng *rand.Rand, value []byte, redundancy int) {
	drawn := value[:(len(value)+redundancy-1)/redundancy]
	for len(drawn) > 0 {
		var word [8]byte
		binary.LittleEndian.PutUint64(word[:], rng.Uint64())
		drawn = drawn[copy(drawn, word[:]):]
	}
	for n := (len(value) + redundancy - 1) / redundancy; n < len(value); {
		n += copy(value[n:], value[:n])
	}
}

// producer is one idempotent producer on one partition: what it has sent, what was acknowledged.
type producer struct {
	id    int64
	epoch int16
	first int   // the template that its first batch is of
	sent  int64 // batches; the sender's
	acked int64 // batches; the receiver's
	cut   bool  // its connection broke, as it was to: what was not acknowledged may be there

	transactional bool // its batches are of transactions
}

// size of the batch that the producer sends as its nth, and the batch's template.
func (c *contents) nth(p *producer, n int64) (*template, int) {
	t := &c.templates[(int64(p.first)+n)%distinctBatches]
	return t, batch.HeaderSize + len(t.payload)
}

// sequence is the nth batch's: sequences count records and go on at 0 after the largest int32.
func (c *contents) sequence(n int64) int32 { return int32(n * int64(c.records) & 0x7fffffff) }

// appendHeader appends the header of the producer's nth batch, with a checksum that holds for it
// and the template's payload.
func (c *contents) appendHeader(dst []byte, p *producer, n int64, t *template, now time.Time) []byte {
	dst = append(dst, t.header[:]...)
	h := dst[len(dst)-batch.HeaderSize:]
	ms := uint64(now.UnixMilli())
	binary.BigEndian.PutUint64(h[baseTimestampPos:], ms)
	binary.BigEndian.PutUint64(h[maxTimestampPos:], ms)
	binary.BigEndian.PutUint64(h[producerIDPos:], uint64(p.id))
	binary.BigEndian.PutUint16(h[producerEpochPos:], uint16(p.epoch))
	binary.BigEndian.PutUint32(h[baseSequencePos:], uint32(c.sequence(n)))
	if p.transactional {
		h[attributesPos+1] |= attrTransactional
	}
	binary.BigEndian.PutUint32(h[crcPos:], t.shift.join(crc32.Checksum(h[attributesPos:], castagnoli), t.crc))
	return dst
}

var errContent = errors.New("not the records that were sent")

// check compares a batch that came back with the nth that the producer sent: its records, their
// number, the sequence. A target that compressed them anew is not found out to be right.
func (c *contents) check(b batch.Batch, p *producer, n int64) error {
	t, _ := c.nth(p, n)
	switch {
	case b.BaseSequence() != c.sequence(n):
		return fmt.Errorf("producer %d: sequence %d where %d was due", p.id, b.BaseSequence(), c.sequence(n))
	case b.Count() != c.records || !bytes.Equal(b.Payload(), t.payload):
		return fmt.Errorf("producer %d, sequence %d: %w", p.id, b.BaseSequence(), errContent)
	}
	return b.VerifyCRC()
}

// crcShift is what so many bytes behind it do to a CRC-32C, a table a byte of the sum. The sum is
// linear over GF(2), so the sum of a header and that of a payload give that of both without
// reading the payload again (as zlib's crc32_combine does with matrices).
type crcShift [4][256]uint32

func newCRCShift(n int) *crcShift {
	var bit [32]uint32
	zeros := make([]byte, n)
	for i := range bit {
		bit[i] = ^crc32.Update(^(uint32(1) << i), castagnoli, zeros)
	}
	s := &crcShift{}
	for i := range s {
		for v := range s[i] {
			for j := range 8 {
				if v>>j&1 == 1 {
					s[i][v] ^= bit[8*i+j]
				}
			}
		}
	}
	return s
}

// join is the checksum of the bytes of head and then those of tail, whose number the shift is for.
func (s *crcShift) join(head, tail uint32) uint32 {
	return s[0][byte(head)] ^ s[1][byte(head>>8)] ^ s[2][byte(head>>16)] ^ s[3][byte(head>>24)] ^ tail
}
