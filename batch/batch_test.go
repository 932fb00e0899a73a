package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// sample builds a client's batch of n records with values of size bytes.
func sample(t testing.TB, c Codec, n, size int) Batch {
	t.Helper()
	bl := NewBuilder(BuilderOptions{LeaderEpoch: NoLeaderEpoch, Codec: c})
	value := bytes.Repeat([]byte("millrace "), size/9+1)[:size]
	for i := range n {
		bl.Append(1000+int64(i%7), []byte("key"), value, nil)
	}
	b, err := bl.Build(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func plainRules() *Rules {
	return &Rules{NowMs: 1000, BeforeMaxMs: math.MaxInt64, AfterMaxMs: 3600_000, LeaderEpoch: 5, FromClient: true, ZstdAllowed: true, MaxBytes: 1 << 20, TopicPartition: "t-0"}
}

func TestAccessorsAgreeWithHeader(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 1000 {
		b := make(Batch, HeaderSize)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		h := b.Header()
		got := Header{
			BaseOffset: b.BaseOffset(), Length: b.Length(), LeaderEpoch: b.LeaderEpoch(), Magic: b.MagicByte(), CRC: b.CRC(),
			Attributes: b.Attributes(), LastOffsetDelta: b.LastOffsetDelta(), BaseTimestamp: b.BaseTimestamp(), MaxTimestamp: b.MaxTimestamp(),
			ProducerID: b.ProducerID(), ProducerEpoch: b.ProducerEpoch(), BaseSequence: b.BaseSequence(), Count: b.Count(),
		}
		if got != h {
			t.Fatalf("accessors %+v, header %+v", got, h)
		}
		if b.LastOffset() != h.LastOffset() || b.Size() != h.Size() || b.Codec() != h.Codec() || b.TimestampType() != h.TimestampType() ||
			b.IsTransactional() != h.IsTransactional() || b.IsControl() != h.IsControl() || b.HasDeleteHorizon() != h.HasDeleteHorizon() ||
			b.LastSequence() != h.LastSequence() || b.HasProducer() != h.HasProducer() {
			t.Fatalf("derived accessors differ for %x", []byte(b))
		}
	}
}

func TestNextSplits(t *testing.T) {
	a, b := sample(t, None, 3, 10), sample(t, Zstd, 2, 100)
	p := append(append([]byte{}, a...), b...)
	got, rest, err := Next(p)
	if err != nil || !bytes.Equal(got, a) || len(rest) != len(b) {
		t.Fatalf("first: %d bytes, %d left, %v", len(got), len(rest), err)
	}
	if cap(got) != len(got) {
		t.Error("appending to a batch would write into the next one")
	}
	if got, rest, err = Next(rest); err != nil || !bytes.Equal(got, b) || len(rest) != 0 {
		t.Fatalf("second: %d bytes, %v", len(got), err)
	}
	if _, _, err := Next(rest); err != io.EOF {
		t.Errorf("empty: %v", err)
	}
	for n := 1; n < len(a); n++ {
		if _, _, err := Next(a[:n]); !errors.Is(err, ErrShort) {
			t.Fatalf("%d of %d bytes: %v", n, len(a), err)
		}
	}
}

func TestHeadersThatNoBatchHas(t *testing.T) {
	set := func(magic byte, length int32) []byte {
		p := make([]byte, 100)
		p[posMagic] = magic
		binary.BigEndian.PutUint32(p[posLength:], uint32(length))
		return p
	}
	for _, c := range []struct {
		p    []byte
		want error
	}{
		{set(2, 88), nil},
		{set(2, MinLength), nil},
		{set(2, MinLength-1), ErrCorrupt},
		{set(2, -1), ErrCorrupt},
		{set(2, math.MinInt32), ErrCorrupt},
		{make([]byte, 100), ErrCorrupt}, // a preallocated tail
		{set(0, 14), ErrLegacy},
		{set(1, 22), ErrLegacy},
		{set(1, 22)[:40], ErrLegacy},
		{set(3, 88), ErrCorrupt},
		{set(2, 88)[:HeaderSize-1], ErrShort},
		{nil, ErrShort},
	} {
		if _, err := ParseHeader(c.p); !errors.Is(err, c.want) {
			t.Errorf("magic and length % x: %v, want %v", c.p[:min(len(c.p), 17)], err, c.want)
		}
	}
}

func TestSequencesWrap(t *testing.T) {
	for _, c := range []struct{ base, delta, want int32 }{
		{0, 0, 0}, {5, 3, 8}, {math.MaxInt32, 0, math.MaxInt32}, {math.MaxInt32, 1, 0}, {math.MaxInt32 - 1, 4, 2}, {-1, 7, -1},
	} {
		if got := lastSequence(c.base, c.delta); got != c.want {
			t.Errorf("%d + %d = %d, want %d", c.base, c.delta, got, c.want)
		}
	}
}

func TestStampsOutsideOfTheChecksum(t *testing.T) {
	b := sample(t, None, 3, 10)
	crc := b.CRC()
	b.SetBaseOffset(1 << 40)
	b.SetLeaderEpoch(7)
	b.SetTimestamp(CreateTime, b.MaxTimestamp())
	if b.CRC() != crc || b.VerifyCRC() != nil {
		t.Error("an honest batch got another checksum")
	}
	b[posAttributes] = 0x55 // bits without a meaning
	b.SetTimestamp(LogAppendTime, 12345)
	if b.CRC() == crc || b.VerifyCRC() != nil || b.MaxTimestamp() != 12345 || b.TimestampType() != LogAppendTime || b[posAttributes] != 0 {
		t.Errorf("stamped batch %x", []byte(b))
	}
	b[len(b)-1] ^= 1
	if err := b.VerifyCRC(); !errors.Is(err, ErrCRC) {
		t.Errorf("damaged batch: %v", err)
	}
}

func TestValidateStampsInPlaceWithoutAllocating(t *testing.T) {
	r := plainRules()
	b := sample(t, None, 100, 100)
	base := int64(0)
	allocs := testing.AllocsPerRun(100, func() {
		b.SetBaseOffset(0)
		out, err := ValidateAndAssign(b, base, r)
		if err != nil || &out[0] != &b[0] {
			t.Fatalf("%v", err)
		}
		base += 100
	})
	if allocs != 0 {
		t.Errorf("%v allocations for a batch that is kept", allocs)
	}
	if b.BaseOffset() != base-100 || b.LeaderEpoch() != 5 {
		t.Errorf("base offset %d, leader epoch %d", b.BaseOffset(), b.LeaderEpoch())
	}
	// Also where the checksum changes.
	r.TimestampType = LogAppendTime
	allocs = testing.AllocsPerRun(100, func() {
		b.SetBaseOffset(0)
		b.SetTimestamp(CreateTime, 1)
		r.NowMs++
		if _, err := ValidateAndAssign(b, base, r); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations for a batch that is stamped with the append time", allocs)
	}
	if b.MaxTimestamp() != r.NowMs || b.VerifyCRC() != nil {
		t.Errorf("max timestamp %d, now %d", b.MaxTimestamp(), r.NowMs)
	}
}

// Every codec is read back, from each to each, and stamped alike.
func TestRecompressionKeepsTheContent(t *testing.T) {
	for from := None; from <= Zstd; from++ {
		for to := None; to <= Zstd; to++ {
			bl := NewBuilder(BuilderOptions{LeaderEpoch: -1, Codec: from, HasProducer: true, ProducerID: 9, ProducerEpoch: 2, BaseSequence: 17, Transactional: true})
			for i := range 300 {
				bl.Append(int64(990+i%9), nil, bytes.Repeat([]byte{byte(i)}, i*3), []RecordHeader{{Key: "h", Value: []byte{1}}, {Key: "", Value: nil}})
			}
			b, err := bl.Build(nil)
			if err != nil {
				t.Fatal(err)
			}
			want := append(Batch{}, b...)
			want.SetBaseOffset(400)
			want.SetLeaderEpoch(5)
			r := plainRules()
			r.Target = Target{Set: true, Codec: to}
			out, err := ValidateAndAssign(b, 400, r)
			if err != nil {
				t.Fatalf("%s to %s: %v", from, to, err)
			}
			if out.Codec() != to {
				t.Errorf("%s to %s: is %s", from, to, out.Codec())
			}
			got, exp := render(out), strings.Replace(render(want), fmt.Sprintf("Attributes:%d", want.Attributes()), fmt.Sprintf("Attributes:%d", out.Attributes()), 1)
			if got != exp {
				t.Errorf("%s to %s:\n got %.500s\nwant %.500s", from, to, got, exp)
			}
		}
	}
}

func TestRebuiltBatchOverTheLimitIsRefused(t *testing.T) {
	b := sample(t, Gzip, 10, 10_000)
	r := plainRules()
	r.MaxBytes = 5000
	if _, err := ValidateAndAssign(append(Batch{}, b...), 0, r); err != nil {
		t.Fatal(err)
	}
	r.Target = Target{Set: true, Codec: None}
	var v *ValidationError
	if _, err := ValidateAndAssign(b, 0, r); !errors.As(err, &v) || v.Kind != MessageTooLarge {
		t.Errorf("rebuilt: %v", err)
	}
	r.MaxBytes = 50
	if _, err := ValidateAndAssign(b, 0, r); !errors.As(err, &v) || v.Kind != MessageTooLarge {
		t.Errorf("as sent: %v", err)
	}
}

func TestZstdNeedsAClientThatKnowsIt(t *testing.T) {
	r := plainRules()
	r.ZstdAllowed = false
	var v *ValidationError
	if _, err := ValidateAndAssign(sample(t, Zstd, 1, 10), 0, r); !errors.As(err, &v) || v.Kind != UnsupportedCompression {
		t.Errorf("zstd: %v", err)
	}
	if _, err := ValidateAndAssign(sample(t, LZ4, 1, 10), 0, r); err != nil {
		t.Errorf("lz4: %v", err)
	}
}

// A refused batch is as it was.
func TestRefusedBatchIsUnchanged(t *testing.T) {
	cases, answers := kafkaCases(t, "testdata/kafka-validate.tsv.gz")
	for i, f := range cases {
		b, next, r := validateCase(t, f)
		was := bytes.Clone(b)
		if _, err := ValidateAndAssign(b, next, r); err != nil && !bytes.Equal(b, was) {
			t.Errorf("case %d was changed: %v", i, answers[i])
		}
	}
}

func TestBombsAreInvalidRecords(t *testing.T) {
	const size = 8 << 20
	for c := Gzip; c <= Zstd; c++ {
		bomb, err := Compress(nil, make([]byte, size), c, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decompress(nil, bomb, c, size-1); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: one byte over the limit: %v", c, err)
		}
		if p, err := Decompress(nil, bomb, c, size); err != nil || len(p) != size {
			t.Errorf("%s: exactly the limit: %d bytes, %v", c, len(p), err)
		}
		b := make(Batch, HeaderSize, HeaderSize+len(bomb))
		b = append(b, bomb...)
		b.putHeader(&Header{Length: int32(len(b) - LogOverhead), Magic: Magic, Attributes: int16(c), ProducerID: -1, Count: 1})
		r := plainRules()
		r.MaxBytes, r.MaxDecompressed = 0, 1<<20
		var v *ValidationError
		if _, err := ValidateAndAssign(b, 0, r); !errors.As(err, &v) || v.Kind != InvalidRecord || !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", c, err)
		}
		if err := b.Each(1<<20, func(*Record) error { return nil }); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: Each: %v", c, err)
		}
	}
}

// More large batches at a time than may be validated at once: all come through, and the
// places are given back.
func TestLargeBatchesTakeTurns(t *testing.T) {
	big := sample(t, Zstd, 100, 100_000)
	done := make(chan error)
	for range 4 * maxLargeScratches {
		go func() {
			_, err := ValidateAndAssign(bytes.Clone(big), 0, plainRules())
			done <- err
		}()
	}
	for range 4 * maxLargeScratches {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if n := len(largeScratches); n != 0 {
		t.Errorf("%d places are still taken", n)
	}
}

func TestDecompressAppends(t *testing.T) {
	for c := None; c <= Zstd; c++ {
		for _, n := range []int{0, 1, 100, 32 << 10, 64<<10 + 1, 300_000} {
			src := bytes.Repeat([]byte("0123456789abcdef!"), n/17+1)[:n]
			z, err := Compress([]byte("head"), src, c, 0)
			if err != nil || string(z[:4]) != "head" {
				t.Fatalf("%s: %v", c, err)
			}
			p, err := Decompress([]byte("start"), z[4:], c, 0)
			if err != nil || string(p[:5]) != "start" || !bytes.Equal(p[5:], src) {
				t.Errorf("%s: %d bytes came back as %d, %v", c, n, len(p)-5, err)
			}
			if n > 100 && c != None {
				if _, err := Decompress(nil, z[4:len(z)-2], c, 0); err == nil && c != Gzip {
					t.Errorf("%s: %d bytes cut short were read", c, n)
				}
			}
		}
	}
	if _, err := Decompress(nil, []byte{1}, 5, 0); !errors.Is(err, ErrUndecodable) {
		t.Errorf("unknown codec: %v", err)
	}
}

func TestSnappyWithoutFraming(t *testing.T) {
	z := snap(nil, []byte("hello hello hello hello"))
	raw := z[xerialHeaderSize+4:]
	if p, err := Decompress(nil, raw, Snappy, 0); err != nil || string(p) != "hello hello hello hello" {
		t.Errorf("bare block: %q, %v", p, err)
	}
	if p, err := Decompress(nil, append(bytes.Clone(z), z...), Snappy, 0); err != nil || len(p) != 46 {
		t.Errorf("two streams: %q, %v", p, err)
	}
}

func TestControlRecords(t *testing.T) {
	p := AppendEndTxnMarker([]byte("x"), MarkerOptions{BaseOffset: 9, LeaderEpoch: 3, Timestamp: 77, ProducerID: 5, ProducerEpoch: 1, CoordinatorEpoch: 4, Commit: true})
	b, rest, err := Next(p[1:])
	if err != nil || len(rest) != 0 || b.VerifyCRC() != nil {
		t.Fatal(err)
	}
	if !b.IsControl() || !b.IsTransactional() || b.BaseSequence() != -1 || b.Count() != 1 || b.ProducerID() != 5 || b.LeaderEpoch() != 3 {
		t.Errorf("header %+v", b.Header())
	}
	m, err := b.EndTxnMarker()
	if err != nil || m != (EndTxnMarker{Type: Commit, CoordinatorEpoch: 4, Timestamp: 77}) {
		t.Errorf("marker %+v, %v", m, err)
	}
	b = AppendControl(nil, 4, 2, 88, LeaderChange, []byte{0, 0})
	typ, key, value, err := b.ControlRecord()
	if err != nil || typ != LeaderChange || !bytes.Equal(key, []byte{0, 0, 0, 2}) || !bytes.Equal(value, []byte{0, 0}) {
		t.Errorf("%d %x %x %v", typ, key, value, err)
	}
	if _, err := b.EndTxnMarker(); err == nil {
		t.Error("a leader change was taken for a marker")
	}
	if _, _, _, err := sample(t, None, 1, 1).ControlRecord(); err == nil {
		t.Error("a short key was taken for a control record")
	}
}

func TestBuilderRefusesWhatIsNoBatch(t *testing.T) {
	if _, err := NewBuilder(BuilderOptions{}).Build(nil); err == nil {
		t.Error("built a batch without records")
	}
	bl := NewBuilder(BuilderOptions{BaseOffset: 5})
	if bl.Len() != HeaderSize || bl.Count() != 0 {
		t.Errorf("empty builder: %d bytes, %d records", bl.Len(), bl.Count())
	}
	bl.Append(0, nil, nil, nil)
	b, err := bl.Build(make([]byte, 3, 500))
	if err != nil || len(b) != HeaderSize+7 || b.BaseOffset() != 5 || b.ProducerID() != -1 {
		t.Errorf("%x, %v", []byte(b), err)
	}
}

func BenchmarkCRC(b *testing.B) {
	batch := sample(b, None, 600, 100)
	b.SetBytes(int64(len(batch)))
	for b.Loop() {
		if batch.VerifyCRC() != nil {
			b.Fatal()
		}
	}
}

// BenchmarkValidate is the leader's work per record: checksum, walk, stamps.
func BenchmarkValidate(b *testing.B) {
	for c := None; c <= Zstd; c++ {
		b.Run(c.String(), func(b *testing.B) {
			n := 600
			batch := sample(b, c, n, 90)
			r := plainRules()
			b.SetBytes(int64(n * 100))
			for b.Loop() {
				batch.SetBaseOffset(0)
				if _, err := ValidateAndAssign(batch, 1, r); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/record")
		})
	}
}

func BenchmarkEach(b *testing.B) {
	n := 600
	batch := sample(b, None, n, 90)
	for b.Loop() {
		if err := batch.Each(0, func(*Record) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/record")
}

// Batches of every size from nothing pooled, so that each decoder has to make its own room.
func TestDecompressIntoNoRoom(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	for i := range 120 {
		src := make([]byte, r.IntN(1<<(1+i%19)))
		for j := range src {
			src[j] = byte(r.IntN(1 << (i % 9)))
		}
		for c := Gzip; c <= Zstd; c++ {
			z, err := Compress(nil, src, c, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, room := range []int{0, 1, len(src) / 2, len(src), len(src) + 1} {
				p, err := new(scratch).appendDecompressed(make([]byte, 0, room), z, c, len(src)+r.IntN(2))
				if err != nil || !bytes.Equal(p, src) {
					t.Fatalf("%s: %d bytes, room for %d: %d bytes, %v", c, len(src), room, len(p), err)
				}
			}
			if len(src) > 1 {
				if _, err := new(scratch).appendDecompressed(nil, z, c, len(src)-1); !errors.Is(err, ErrTooLarge) {
					t.Fatalf("%s: %d bytes, one too many: %v", c, len(src), err)
				}
			}
		}
	}
}

// A negative timestamp that is not -1 goes in as it is where the batch stays as it is, and is refused
// where it is built anew, as Kafka's builder does.
func TestNegativeTimestampIsNotRebuilt(t *testing.T) {
	build := func() Batch {
		bl := NewBuilder(BuilderOptions{LeaderEpoch: -1})
		bl.Append(-1000, nil, []byte("v"), nil)
		b, err := bl.Build(nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	r := plainRules()
	r.BeforeMaxMs, r.AfterMaxMs = math.MaxInt64, math.MaxInt64
	if _, err := ValidateAndAssign(build(), 0, r); err != nil {
		t.Errorf("kept: %v", err)
	}
	r.Target = Target{Set: true, Codec: Gzip, Level: -1}
	var v *ValidationError
	if _, err := ValidateAndAssign(build(), 0, r); !errors.As(err, &v) || v.Kind != Undecodable {
		t.Errorf("rebuilt: %v", err)
	}
}
