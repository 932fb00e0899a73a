package fuzz

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"

	"github.com/millrace-project/millrace/batch"
)

// maxDecompressed is what targets let a batch decompress to.
const maxDecompressed = 1 << 20

func batchTargets() []*Target {
	return []*Target{
		{
			Name: "batch", About: "batches one after another as in a log file: split, checksum, records, control records; the counts agree",
			Seed: seedBatches, Fix: fixBatches, Check: checkBatches, MaxAlloc: 64 << 20,
		},
		{
			Name: "batch-validate", About: "a producer's batch is held to the rules and stamped; what is accepted can be read and has the offsets that it was given",
			Seed: seedBatch, Fix: fixBatches, Check: checkValidate, Writes: true, MaxAlloc: 64 << 20,
		},
		{
			Name: "decompress", About: "compressed bytes of each codec, with a limit that holds",
			Seed: seedCompressed, Check: checkDecompress, MaxAlloc: 64 << 20,
		},
	}
}

// seedBatch makes one batch of any kind.
func seedBatch(rng *rand.Rand) []byte {
	if rng.IntN(12) == 0 {
		return batch.AppendEndTxnMarker(nil, batch.MarkerOptions{BaseOffset: rng.Int64N(1000), LeaderEpoch: 2, Timestamp: 1_700_000_000_000, ProducerID: rng.Int64N(5), ProducerEpoch: 1, Commit: rng.IntN(2) == 0})
	}
	o := batch.BuilderOptions{BaseOffset: rng.Int64N(1000), LeaderEpoch: int32(rng.IntN(3)) - 1, Codec: batch.Codec(rng.IntN(5))}
	if rng.IntN(2) == 0 {
		o.HasProducer, o.ProducerID, o.ProducerEpoch, o.BaseSequence = true, rng.Int64N(5), int16(rng.IntN(3)), int32(rng.IntN(100))
		o.Transactional = rng.IntN(2) == 0
	}
	bl := batch.NewBuilder(o)
	for range 1 + rng.IntN(6) {
		var headers []batch.RecordHeader
		for range rng.IntN(3) {
			headers = append(headers, batch.RecordHeader{Key: string(letters(rng, 4)), Value: letters(rng, 8)})
		}
		key := letters(rng, 6)
		if rng.IntN(4) == 0 {
			key = nil
		}
		bl.Append(1_700_000_000_000+rng.Int64N(1000), key, letters(rng, 200), headers)
	}
	b, err := bl.Build(nil)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return b
}

func letters(rng *rand.Rand, most int) []byte {
	p := make([]byte, rng.IntN(most+1))
	for i := range p {
		p[i] = 'a' + byte(rng.IntN(4))
	}
	return p
}

func seedBatches(rng *rand.Rand) (p []byte) {
	for range 1 + rng.IntN(3) {
		p = append(p, seedBatch(rng)...)
	}
	return p
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// fixBatches gives each batch the checksum of what it holds.
func fixBatches(p []byte) {
	for len(p) > batch.HeaderSize {
		n := int64(12) + int64(int32(binary.BigEndian.Uint32(p[8:])))
		if n < batch.HeaderSize || n > int64(len(p)) {
			return
		}
		binary.BigEndian.PutUint32(p[17:], crc32.Checksum(p[21:n], castagnoli))
		p = p[n:]
	}
}

func checkBatches(p []byte) (outcome string, err error) {
	for {
		left := len(p)
		b, rest, err := batch.Next(p)
		if err != nil {
			if (err == io.EOF) != (left == 0) {
				return "", fmt.Errorf("%d bytes left: %w", left, err)
			}
			return outcome + err.Error(), nil
		}
		h, err := batch.ParseHeader(p)
		if err != nil || h != b.Header() || len(b)+len(rest) != left || len(b) < batch.HeaderSize {
			return "", fmt.Errorf("of %d bytes a batch of %d and a rest of %d, header: %v", left, len(b), len(rest), err)
		}
		if err := b.VerifyCRC(); err != nil {
			outcome += "checksum "
		}
		said, err := checkRecords(b)
		if err != nil {
			return "", err
		}
		outcome += said + "; "
		p = rest
	}
}

func checkRecords(b batch.Batch) (outcome string, err error) {
	n := int32(0)
	err = b.Each(maxDecompressed, func(*batch.Record) error { n++; return nil })
	if err := checkStamps(b, n, err); err != nil {
		return "", err
	}
	var v *batch.ValidationError
	switch {
	case err == nil && n != max(b.Count(), 0) || n > max(b.Count(), 0):
		return "", fmt.Errorf("%d records of %d were handed out, error: %v", n, b.Count(), err)
	case err != nil && !errors.As(err, &v):
		return "", fmt.Errorf("an error of another kind: %w", err)
	case err != nil:
		outcome = err.Error()
	}
	if t, _, _, err := b.ControlRecord(); err == nil {
		outcome += fmt.Sprintf(" control %v", t)
	}
	if m, err := b.EndTxnMarker(); err == nil {
		outcome += fmt.Sprintf(" marker %v", m.Type)
	}
	return fmt.Sprintf("%s codec %v", outcome, b.Codec()), nil
}

// checkStamps holds the records that are decoded as a stream against the n that Each has handed out
// before its error.
func checkStamps(b batch.Batch, n int32, each error) error {
	if errors.Is(each, batch.ErrTooLarge) || b.Count() <= 0 {
		return nil // a stream has no such limit, and is not read where there are no records
	}
	stamps := int32(0)
	err := b.EachStamp(func(int64, int64) error { stamps++; return nil })
	if (err == nil) != (each == nil) || stamps < n || err == nil && stamps != n {
		return fmt.Errorf("%d records as a stream, %v; else %d, %w", stamps, err, n, each)
	}
	return nil
}

// checkValidate takes the rules from the input's own length, so that all of them have their turn.
func checkValidate(p []byte) (outcome string, err error) {
	b, _, err := batch.Next(p)
	if err != nil {
		return "no batch: " + err.Error(), nil
	}
	const next = 1 << 33
	r := &batch.Rules{NowMs: 1_700_000_000_500, BeforeMaxMs: 1 << 62, AfterMaxMs: 3_600_000, MaxDecompressed: maxDecompressed, LeaderEpoch: 7, FromClient: len(b)%3 > 0, ZstdAllowed: len(b)%5 > 0, RequireKey: len(b)%7 == 0, TopicPartition: "t-0"}
	if target := len(b) % 11; target < 5 {
		r.Target = batch.Target{Set: true, Codec: batch.Codec(target)}
	}
	was := bytes.Clone(b)
	out, err := batch.ValidateAndAssign(b, next, r)
	if err != nil {
		if v := (*batch.ValidationError)(nil); !errors.As(err, &v) || !bytes.Equal(b, was) {
			return "", fmt.Errorf("refused, changed: %v, with: %w", !bytes.Equal(b, was), err)
		}
		return err.Error(), nil
	}
	if out.BaseOffset() != next && r.FromClient || out.LastOffset() != next+int64(out.Count())-1 || out.LeaderEpoch() != r.LeaderEpoch {
		return "", fmt.Errorf("appended at %d: %+v", int64(next), out.Header())
	}
	if err := out.VerifyCRC(); err != nil {
		return "", fmt.Errorf("what was accepted has a wrong checksum: %w", err)
	}
	if err := checkOffsets(was, out, r.FromClient); err != nil {
		return "", fmt.Errorf("what was accepted cannot be read: %w", err)
	}
	return fmt.Sprintf("accepted codec %v", out.Codec()), nil
}

// checkOffsets holds the records of out, made of was, to the offsets that a client's batch gives
// them: one after another, and as they were where neither is compressed.
func checkOffsets(was, out batch.Batch, fromClient bool) error {
	var want []int64
	if was.Codec() == batch.None && out.Codec() == batch.None {
		err := was.Each(0, func(rec *batch.Record) error {
			want = append(want, out.BaseOffset()+rec.Offset-was.BaseOffset())
			return nil
		})
		if err != nil {
			return err
		}
	}
	n := 0
	return out.Each(0, func(rec *batch.Record) error {
		off := out.BaseOffset() + int64(n)
		if n < len(want) {
			off = want[n]
		}
		if n++; rec.Offset != off && fromClient {
			return fmt.Errorf("offset %d, want %d", rec.Offset, off)
		}
		return nil
	})
}

func seedCompressed(rng *rand.Rand) []byte {
	c := batch.Codec(1 + rng.IntN(4))
	z, err := batch.Compress([]byte{byte(c)}, bytes.Repeat(letters(rng, 300), 1+rng.IntN(50)), c, 0)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return z
}

func checkDecompress(p []byte) (outcome string, err error) {
	if len(p) == 0 {
		return "", nil
	}
	c := batch.Codec(p[0] % 6)
	out, err := batch.Decompress([]byte("head"), p[1:], c, maxDecompressed)
	switch {
	case len(out)-4 > maxDecompressed || string(out[:4]) != "head":
		return "", fmt.Errorf("%d bytes, at most %d were asked for", len(out)-4, maxDecompressed)
	case err != nil && !errors.Is(err, batch.ErrTooLarge) && !errors.Is(err, batch.ErrUndecodable):
		return "", fmt.Errorf("an error of another kind: %w", err)
	}
	return fmt.Sprintf("codec %v: %v", c, err), nil
}
