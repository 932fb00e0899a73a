package batch

import (
	"bytes"
	"errors"
	"math"
	"testing"
)

func walkedBatch(t testing.TB, c Codec) (Batch, []byte) {
	t.Helper()
	bl := NewBuilder(BuilderOptions{BaseOffset: 40, Codec: c})
	bl.AppendAt(40, 1000, []byte("a"), []byte("1"), nil)
	bl.AppendAt(43, 900, nil, []byte("2"), []RecordHeader{{Key: "h", Value: []byte("x")}})
	bl.AppendAt(300, 123456789, []byte("b"), nil, nil)
	b, err := bl.Build(nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Decompress(nil, b.Payload(), c, 0)
	if err != nil {
		t.Fatal(err)
	}
	return b, p
}

func TestWalkSeesWhatEachSees(t *testing.T) {
	for c := None; c <= Zstd; c++ {
		b, p := walkedBatch(t, c)
		var recs []Record
		if err := b.Each(0, func(r *Record) error { recs = append(recs, *r); return nil }); err != nil {
			t.Fatal(err)
		}
		var w Walk
		n, end := 0, 0
		for w.Reset(b, p); w.Next(); n++ {
			r := recs[n]
			from, to := w.Span()
			if b.BaseOffset()+int64(w.OffsetDelta()) != r.Offset || b.BaseTimestamp()+w.TimestampDelta() != r.Timestamp ||
				w.HasKey() != (r.Key != nil) || w.HasValue() != (r.Value != nil) || from != end {
				t.Errorf("%s, record %d: %+v", c, n, r)
			}
			end = to
		}
		if w.Err() != nil || n != len(recs) || end != len(p) {
			t.Errorf("%s: %d records, %v", c, n, w.Err())
		}
	}
}

// Offsets that do not rise, or lie beyond the batch, may be in an uncompressed batch of a client.
func TestWalkHoldsOffsetsToTheirOrder(t *testing.T) {
	for _, c := range []struct {
		deltas []int32
		last   int32
		good   int // records
	}{
		{[]int32{0, 1, 2}, 2, 3}, {[]int32{0, 3}, 7, 2}, {[]int32{5, 7}, 7, 2},
		{[]int32{0, 0, 1}, 2, 1}, {[]int32{1, 0, 2}, 2, 1}, {[]int32{-1, 0}, 1, 0}, {[]int32{0, 2}, 1, 1}, {[]int32{math.MaxInt32}, 0, 0},
	} {
		var p []byte
		for _, d := range c.deltas {
			rec := appendField(appendField(appendVarint(appendVarlong([]byte{0}, 0), d), []byte("k")), nil)
			rec = appendVarint(rec, 0)
			p = append(appendVarint(p, int32(len(rec))), rec...)
		}
		b := Batch(append(make([]byte, HeaderSize), p...))
		b.PutHeader(&Header{Magic: 2, Length: int32(len(b) - LogOverhead), Count: int32(len(c.deltas)), LastOffsetDelta: c.last})
		var w Walk
		n := 0
		for w.Reset(b, p); w.Next(); {
			n++
		}
		if n != c.good || (w.Err() == nil) != (c.good == len(c.deltas)) {
			t.Errorf("%v of %d: %d records, %v", c.deltas, c.last, n, w.Err())
		}
	}
}

func TestWalkSaysWhatIsWrong(t *testing.T) {
	b, p := walkedBatch(t, None)
	for name, bad := range map[string][]byte{"short": p[:len(p)-1], "long": append(bytes.Clone(p), 0)} {
		var w Walk
		for w.Reset(b, bad); w.Next(); {
		}
		var invalid *ValidationError
		if !errors.As(w.Err(), &invalid) {
			t.Errorf("%s: %v", name, w.Err())
		}
	}
}

func TestAppendShifted(t *testing.T) {
	b, p := walkedBatch(t, None)
	for _, shift := range []int64{0, -1, 63, -86_400_000, 1 << 60, -1 << 62} {
		var w, again Walk
		for w.Reset(b, p); w.Next(); {
			from, to := w.Span()
			rec := AppendShifted([]byte("x"), p[from:to], shift)[1:]
			one := bytes.Clone(b)
			Batch(one).PutHeader(&Header{Count: 1, Magic: Magic, Length: MinLength, LastOffsetDelta: b.LastOffsetDelta()})
			again.Reset(one, rec)
			if !again.Next() || again.TimestampDelta() != w.TimestampDelta()+shift || again.OffsetDelta() != w.OffsetDelta() ||
				!bytes.Equal(again.Key(), w.Key()) || again.HasValue() != w.HasValue() || again.f.headerCount != w.f.headerCount || again.Next() || again.Err() != nil {
				t.Errorf("shift %d: % x: %v", shift, rec, again.Err())
			}
		}
	}
}
