package batch

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
)

// seedBatches are one batch of each codec, with and without headers, and what is no data batch.
func seedBatches(f *testing.F) []Batch {
	var all []Batch
	for c := None; c <= Zstd; c++ {
		all = append(all, sample(f, c, 3, 20))
		bl := NewBuilder(BuilderOptions{Codec: c, HasProducer: true, ProducerID: 7, BaseSequence: 3, Transactional: true})
		bl.Append(5, nil, nil, []RecordHeader{{Key: "a", Value: []byte("b")}, {Key: ""}})
		bl.Append(-1, []byte{}, []byte("v"), nil)
		b, err := bl.Build(nil)
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, b)
	}
	all = append(all, AppendEndTxnMarker(nil, MarkerOptions{Commit: true}), AppendControl(nil, 1, 2, 3, LeaderChange, []byte{0, 0}))
	return all
}

func FuzzBatchNext(f *testing.F) {
	for _, b := range seedBatches(f) {
		f.Add([]byte(b))
		f.Add(append(bytes.Clone(b), b...))
		f.Add([]byte(b[:len(b)-1]))
	}
	f.Add(make([]byte, 100))
	f.Fuzz(func(t *testing.T, p []byte) {
		left := len(p)
		for {
			b, rest, err := Next(p)
			if err != nil {
				if err == io.EOF != (len(p) == 0) {
					t.Fatalf("%d bytes left: %v", len(p), err)
				}
				return
			}
			h, err := ParseHeader(p)
			if err != nil || h != b.Header() || len(b) != h.Size() || len(b) < HeaderSize || len(b)+len(rest) != left {
				t.Fatalf("%d bytes: a batch of %d, %d left, %v", left, len(b), len(rest), err)
			}
			_ = b.VerifyCRC()
			p, left = rest, len(rest)
		}
	})
}

// limit of decompression in fuzz tests.
const fuzzLimit = 1 << 20

func FuzzEach(f *testing.F) {
	for _, b := range seedBatches(f) {
		f.Add([]byte(b))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		b, _, err := Next(p)
		if err != nil {
			return
		}
		n := int32(0)
		err = b.Each(fuzzLimit, func(rec *Record) error {
			n++
			return nil
		})
		if err == nil && n != max(b.Count(), 0) || n > max(b.Count(), 0) {
			t.Fatalf("%d of %d records, %v", n, b.Count(), err)
		}
		var v *ValidationError
		if err != nil && !errors.As(err, &v) {
			t.Fatalf("error of another kind: %v", err)
		}
		_, _, _, _ = b.ControlRecord()
		_, _ = b.EndTxnMarker()
	})
}

// The quick way through a record and the full one must agree on every byte string.
func FuzzParseRecord(f *testing.F) {
	for _, b := range seedBatches(f) {
		if b.Codec() == None {
			f.Add([]byte(b.Payload()), 0)
		}
	}
	f.Fuzz(func(t *testing.T, p []byte, pos int) {
		if pos < 0 || pos > len(p) {
			return
		}
		var quick, full frame
		n1, r1 := quick.parse(p, pos)
		n2, r2 := full.parseAny(p, pos)
		if r1 != r2 || r1 == "" && (n1 != n2 || quick != full) {
			t.Fatalf("quick %d %q %+v\nfull  %d %q %+v", n1, r1, quick, n2, r2, full)
		}
	})
}

func TestParseRecordWaysAgree(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	small := []byte{0, 0, 0, 1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 0x7f, 0x80, 0x81, 0xff}
	ok := 0
	for range 300_000 {
		p := make([]byte, r.IntN(24))
		for i := range p {
			p[i] = small[r.IntN(len(small))]
		}
		var quick, full frame
		n1, r1 := quick.parse(p, 0)
		n2, r2 := full.parseAny(p, 0)
		if r1 != r2 || r1 == "" && (n1 != n2 || quick != full) {
			t.Fatalf("%x\nquick %d %q %+v\nfull  %d %q %+v", p, n1, r1, quick, n2, r2, full)
		}
		if r1 == "" {
			ok++
		}
	}
	if ok < 100 {
		t.Errorf("only %d records were well formed", ok)
	}
}

// What is accepted is readable, has the offsets that it was given and a right checksum.
func FuzzValidate(f *testing.F) {
	for _, b := range seedBatches(f) {
		for target := range 6 {
			f.Add([]byte(b), int64(100), byte(target), true)
		}
	}
	f.Fuzz(func(t *testing.T, p []byte, next int64, target byte, client bool) {
		b, _, err := Next(bytes.Clone(p))
		if err != nil || next < 0 || next > 1<<50 {
			return
		}
		b.stampCRC()
		r := plainRules()
		r.FromClient, r.MaxDecompressed = client, fuzzLimit
		if target %= 6; target < 5 {
			r.Target = Target{Set: true, Codec: Codec(target)}
		}
		was := bytes.Clone(b)
		out, err := ValidateAndAssign(b, next, r)
		if err != nil {
			var v *ValidationError
			if !errors.As(err, &v) || !bytes.Equal(b, was) {
				t.Fatalf("refused with %v, changed: %v", err, !bytes.Equal(b, was))
			}
			return
		}
		if client && out.BaseOffset() != next || out.LastOffset() != next+int64(out.Count())-1 || out.LeaderEpoch() != r.LeaderEpoch {
			t.Fatalf("next %d: %+v", next, out.Header())
		}
		if err := out.VerifyCRC(); err != nil {
			t.Fatal(err)
		}
		if err := out.Each(0, func(*Record) error { return nil }); err != nil {
			t.Fatalf("accepted, but: %v", err)
		}
	})
}

func FuzzDecompress(f *testing.F) {
	for c := Gzip; c <= Zstd; c++ {
		for _, n := range []int{0, 10, 100_000} {
			z, err := Compress(nil, bytes.Repeat([]byte{'x'}, n), c, 0)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(z, byte(c))
		}
	}
	f.Fuzz(func(t *testing.T, p []byte, codec byte) {
		out, err := Decompress([]byte("head"), p, Codec(codec%6), fuzzLimit)
		if len(out)-4 > fuzzLimit || string(out[:4]) != "head" {
			t.Fatalf("%d bytes of at most %d", len(out)-4, fuzzLimit)
		}
		if err != nil && !errors.Is(err, ErrTooLarge) && !errors.Is(err, ErrUndecodable) {
			t.Fatalf("error of another kind: %v", err)
		}
		if err == nil && cap(out) > 8*fuzzLimit {
			t.Fatalf("%d bytes of memory", cap(out))
		}
	})
}
