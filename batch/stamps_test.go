package batch

import (
	"bytes"
	"math/rand"
	"slices"
	"testing"

	"github.com/klauspost/compress/snappy"
)

type stampOf struct{ off, ts int64 }

// TestEachStampAgreesWithEach: the same records and the same verdict, also where bytes of the records are damaged.
func TestEachStampAgreesWithEach(t *testing.T) {
	rng := rand.New(rand.NewSource(1))
	refused := 0
	for round := range 3000 {
		o := BuilderOptions{BaseOffset: rng.Int63n(1 << 40)}
		if rng.Intn(4) == 0 {
			o.TimestampType, o.LogAppendTime = LogAppendTime, 77
		}
		bl := NewBuilder(o)
		off := o.BaseOffset
		for range 1 + rng.Intn(20) {
			var headers []RecordHeader
			for range rng.Intn(3) {
				headers = append(headers, RecordHeader{Key: "h", Value: make([]byte, rng.Intn(3))})
			}
			bl.AppendAt(off, rng.Int63n(1<<45), make([]byte, rng.Intn(100)), bytes.Repeat([]byte("v"), rng.Intn(9000)), headers)
			off += 1 + rng.Int63n(1<<uint(rng.Intn(25)))
		}
		plain, err := bl.Build(nil)
		if err != nil {
			t.Fatal(err)
		}
		p := slices.Clone(plain.Payload())
		if round%2 == 1 { // mostly in the heads of the first records
			p[rng.Intn(min(len(p), 1+rng.Intn(300)))] ^= byte(1 << rng.Intn(8))
		}
		switch rng.Intn(8) {
		case 0:
			p = append(p, 0)
		case 1:
			p = p[:rng.Intn(len(p)+1)]
		}
		codec := Codec(rng.Intn(5))
		var packed []byte
		if codec == Snappy && rng.Intn(2) == 0 {
			packed = snappy.Encode(nil, p)
		} else if packed, err = Compress(nil, p, codec, 0); err != nil {
			t.Fatal(err)
		}
		if codec == Gzip && rng.Intn(2) == 0 { // members one behind the other, and something behind them
			half, _ := Compress(nil, p[:len(p)/2], Gzip, 0)
			rest, _ := Compress(nil, p[len(p)/2:], Gzip, 0)
			packed = append(append(half, rest...), "no member"[:rng.Intn(9)]...)
		}
		if rng.Intn(8) == 0 {
			packed = packed[:rng.Intn(len(packed)+1)]
		}
		b := append(slices.Clone(plain[:HeaderSize]), packed...)
		h := plain.Header()
		h.Attributes = h.Attributes&^attrCodec | int16(codec)
		h.Length = int32(len(b) - LogOverhead)
		b.PutHeader(&h)

		var each, stamps []stampOf
		eachErr := b.Each(0, func(rec *Record) error { each = append(each, stampOf{rec.Offset, rec.Timestamp}); return nil })
		err = b.EachStamp(func(off, ts int64) error { stamps = append(stamps, stampOf{off, ts}); return nil })
		if (err == nil) != (eachErr == nil) || err == nil && !slices.Equal(each, stamps) || len(stamps) < len(each) {
			t.Fatalf("round %d, %s: %d records, %v; Each has %d, %v", round, codec, len(stamps), err, len(each), eachErr)
		}
		if err != nil {
			refused++
		}
	}
	if refused < 500 || refused > 2500 {
		t.Errorf("%d of 3000 batches were refused", refused)
	}
}
