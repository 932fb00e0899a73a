package segment

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math/rand"
	"testing"
	"time"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/vfs"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// rec is a record of the twin.
type rec struct{ off, ts int64 }

// twinBatch is a batch of the twin: its bytes and what it says, kept apart.
type twinBatch struct {
	data       []byte
	base, last int64
	maxTs      int64
	recs       []rec
}

func (b *twinBatch) meta() BatchMeta {
	return BatchMeta{BaseOffset: b.base, LastOffset: b.last, MaxTimestamp: b.maxTs, Size: len(b.data)}
}

// makeBatch builds an uncompressed batch; gaps makes offsets jump as compaction does.
func makeBatch(rng *rand.Rand, base, ts int64, records, valueSize int, gaps bool) twinBatch {
	t := twinBatch{base: base, maxTs: -1}
	var body []byte
	off := base
	baseTs := ts
	for i := range records {
		recTs := ts + int64(rng.Intn(7)) - 3
		if recTs < 0 {
			recTs = 0
		}
		if gaps && i > 0 {
			off += int64(rng.Intn(3))
		}
		r := []byte{0}
		r = binary.AppendVarint(r, recTs-baseTs)
		r = binary.AppendVarint(r, off-base)
		r = binary.AppendVarint(r, -1)
		r = binary.AppendVarint(r, int64(valueSize))
		v := make([]byte, valueSize)
		rng.Read(v)
		r = append(r, v...)
		r = binary.AppendVarint(r, 0)
		body = binary.AppendVarint(body, int64(len(r)))
		body = append(body, r...)
		t.recs = append(t.recs, rec{off, recTs})
		t.maxTs = max(t.maxTs, recTs)
		t.last = off
		off++
	}
	p := make([]byte, batch.HeaderSize, batch.HeaderSize+len(body))
	p = append(p, body...)
	be := binary.BigEndian
	be.PutUint64(p, uint64(base))
	be.PutUint32(p[8:], uint32(len(p)-12))
	be.PutUint32(p[12:], 7) // leader epoch
	p[16] = 2
	be.PutUint32(p[23:], uint32(t.last-base))
	be.PutUint64(p[27:], uint64(baseTs))
	be.PutUint64(p[35:], uint64(t.maxTs))
	be.PutUint64(p[43:], ^uint64(0))
	be.PutUint16(p[51:], ^uint16(0))
	be.PutUint32(p[53:], ^uint32(0))
	be.PutUint32(p[57:], uint32(records))
	be.PutUint32(p[17:], crc32.Checksum(p[21:], castagnoli))
	t.data = p
	return t
}

// twin is a segment as a list.
type twin struct {
	base    int64
	batches []twinBatch
}

func (t *twin) next() int64 {
	if len(t.batches) == 0 {
		return t.base
	}
	return t.batches[len(t.batches)-1].last + 1
}

func (t *twin) bytes() []byte {
	var p []byte
	for i := range t.batches {
		p = append(p, t.batches[i].data...)
	}
	return p
}

// at returns the first batch whose last offset is at least off, and its position.
func (t *twin) at(off int64) (b *twinBatch, pos int64) {
	for i := range t.batches {
		if t.batches[i].last >= off {
			return &t.batches[i], pos
		}
		pos += int64(len(t.batches[i].data))
	}
	return nil, pos
}

func (t *twin) read(off, maxBytes, maxPos int64, minOne bool) (b *twinBatch, pos, n int64) {
	size := int64(len(t.bytes()))
	maxPos = min(maxPos, size)
	if b, pos = t.at(off); b == nil || pos+int64(len(b.data)) > maxPos || (maxBytes <= 0 && !minOne) {
		return nil, 0, 0
	}
	n = min(maxBytes, maxPos-pos)
	if n < int64(len(b.data)) {
		if !minOne {
			return nil, 0, 0
		}
		n = int64(len(b.data))
	}
	return b, pos, n
}

func (t *twin) forTime(ts, start int64) (ok bool, off, recTs int64) {
	for i := range t.batches {
		for _, r := range t.batches[i].recs {
			if r.ts >= ts && r.off >= start {
				return true, r.off, r.ts
			}
		}
	}
	return false, 0, 0
}

func (t *twin) maxTime() (ts, off int64) {
	ts, off = -1, t.base
	for i := range t.batches {
		if b := &t.batches[i]; b.maxTs > ts {
			ts, off = b.maxTs, b.last
		}
	}
	return ts, off
}

func (t *twin) truncate(off int64) (cut int64) {
	for i := range t.batches {
		if t.batches[i].last >= off {
			for j := i; j < len(t.batches); j++ {
				cut += int64(len(t.batches[j].data))
			}
			t.batches = t.batches[:i]
			return cut
		}
	}
	return 0
}

// grow makes batches for one append.
func (t *twin) grow(rng *rand.Rand, ts int64) []twinBatch {
	next := t.next()
	var out []twinBatch
	for range 1 + rng.Intn(4) {
		value := 10 + rng.Intn(100)
		if rng.Intn(6) == 0 {
			value = rng.Intn(9000)
		}
		if rng.Intn(5) == 0 {
			next += int64(rng.Intn(20)) // a follower's log has gaps after compaction
		}
		b := makeBatch(rng, next, ts, 1+rng.Intn(6), value, rng.Intn(3) == 0)
		next = b.last + 1
		out = append(out, b)
	}
	return out
}

func appendBatches(s *Segment, bs []twinBatch) error {
	var bufs [][]byte
	var metas []BatchMeta
	for i := range bs {
		bufs = append(bufs, bs[i].data)
		metas = append(metas, bs[i].meta())
	}
	return s.Append(bufs, metas)
}

func seedOf(t *testing.T) (*rand.Rand, int64) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewSource(seed)), seed
}

// rounds is how often a random test goes: less in a short run.
func rounds(n int) int {
	if testing.Short() {
		return n / 5
	}
	return n
}

// pair is a segment and its twin.
type pair struct {
	t    *testing.T
	rng  *rand.Rand
	fs   vfs.FS
	cfg  Config
	seg  *Segment
	twin twin
	ts   int64
}

const dir = "t-0"

func newPair(t *testing.T, rng *rand.Rand, fs vfs.FS) *pair {
	base := int64(rng.Intn(3)) * 1000
	cfg := Config{IndexIntervalBytes: 256 << rng.Intn(5), IndexMaxBytes: 10 << 20, Handles: vfs.NewHandles(rng.Intn(4), 20), TruncateWait: time.Millisecond}
	p := &pair{t: t, rng: rng, fs: fs, cfg: cfg, twin: twin{base: base}, ts: int64(rng.Intn(1000))}
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	seg, err := Create(fs, dir, base, cfg)
	if err != nil {
		t.Fatal(err)
	}
	p.seg = seg
	return p
}

func (p *pair) append() {
	p.ts += int64(p.rng.Intn(20)) - 4
	bs := p.twin.grow(p.rng, max(p.ts, 0))
	if err := appendBatches(p.seg, bs); err != nil {
		p.t.Fatalf("append: %v", err)
	}
	p.twin.batches = append(p.twin.batches, bs...)
}

func (p *pair) reopen(sealed bool) {
	if err := p.seg.Seal(); err != nil {
		p.t.Fatalf("seal: %v", err)
	}
	p.seg.Close()
	seg, err := Open(p.fs, dir, p.twin.base, -1, p.cfg, sealed)
	if err != nil {
		p.t.Fatalf("open: %v", err)
	}
	if err := seg.Check(); err != nil {
		p.t.Fatalf("check: %v", err)
	}
	p.seg = seg
}

func (p *pair) checkRead() {
	off := p.twin.base + int64(p.rng.Intn(int(p.twin.next()-p.twin.base)+3)) - 1
	maxBytes := int64(p.rng.Intn(20000))
	maxPos := int64(p.rng.Intn(int(p.seg.Size()) + 100))
	if p.rng.Intn(2) == 0 {
		maxPos = p.seg.Size()
	}
	minOne := p.rng.Intn(2) == 0
	b, pos, n := p.twin.read(off, maxBytes, maxPos, minOne)
	v, err := p.seg.Read(off, maxBytes, maxPos, minOne)
	if err != nil {
		p.t.Fatalf("read %d: %v", off, err)
	}
	if (v == nil) != (b == nil) {
		p.t.Fatalf("read(%d, %d, %d, %v): view %v, twin %v", off, maxBytes, maxPos, minOne, v, b)
	}
	if v == nil {
		return
	}
	defer v.Close()
	if v.Pos() != pos || v.Len() != n || v.BaseOffset() != b.base {
		p.t.Fatalf("read(%d, %d, %d, %v): pos %d len %d base %d, twin %d %d %d", off, maxBytes, maxPos, minOne, v.Pos(), v.Len(), v.BaseOffset(), pos, n, b.base)
	}
	got := make([]byte, n)
	if _, err := v.ReadAt(got, 0); err != nil || !bytes.Equal(got, p.twin.bytes()[pos:pos+n]) {
		p.t.Fatalf("view's bytes differ (%v)", err)
	}
}

func (p *pair) checkTimes() {
	ts, off := p.twin.maxTime()
	if gotTs, gotOff, err := p.seg.MaxTimestamp(); gotTs != ts || gotOff != off || err != nil {
		p.t.Fatalf("max timestamp %d at %d, %v, twin %d at %d", gotTs, gotOff, err, ts, off)
	}
	first, ok := p.seg.FirstTimestamp()
	if want := len(p.twin.batches) > 0; ok != want || (ok && first != p.twin.batches[0].maxTs) {
		p.t.Fatalf("first timestamp %d %v", first, ok)
	}
	ask := ts + 5 - int64(p.rng.Intn(60))
	start := p.twin.base + int64(p.rng.Intn(int(p.twin.next()-p.twin.base)+1))
	ok, wantOff, wantTs := p.twin.forTime(ask, start)
	gotOK, gotOff, gotTs, _, err := p.seg.OffsetForTime(ask, start)
	if err != nil || gotOK != ok || (ok && (gotOff != wantOff || gotTs != wantTs)) {
		p.t.Fatalf("offset for time %d from %d: %v %d %d (%v), twin %v %d %d", ask, start, gotOK, gotOff, gotTs, err, ok, wantOff, wantTs)
	}
	if len(p.twin.batches) == 0 {
		return
	}
	_, want, _ := p.twin.forTime(ts, 0)
	if _, got, _, err := p.seg.OffsetOfMaxTimestamp(); err != nil || got != want {
		p.t.Fatalf("offset of max timestamp %d (%v), twin %d", got, err, want)
	}
}

func (p *pair) checkAll() {
	if got := p.seg.NextOffset(); got >= 0 && got != p.twin.next() {
		p.t.Fatalf("next offset %d, twin %d", got, p.twin.next())
	}
	if got, err := p.seg.ReadNextOffset(); err != nil || got != p.twin.next() {
		p.t.Fatalf("read next offset %d (%v), twin %d", got, err, p.twin.next())
	}
	if got := p.seg.Size(); got != int64(len(p.twin.bytes())) {
		p.t.Fatalf("size %d, twin %d", got, len(p.twin.bytes()))
	}
	off := p.twin.base + int64(p.rng.Intn(int(p.twin.next()-p.twin.base)+3))
	_, want := p.twin.at(off)
	if got, err := p.seg.PositionOf(off); err != nil || got != want {
		p.t.Fatalf("position of %d: %d (%v), twin %d", off, got, err, want)
	}
}
