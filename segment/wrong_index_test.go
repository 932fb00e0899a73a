package segment

import (
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"github.com/millrace-project/millrace/vfs"
)

// An offset index that is in order and points too far passes over records: a read that it leads
// there says that index and log disagree, and every other read gives the batch it asked for.
func TestIndexThatPointsTooFar(t *testing.T) {
	rng, _ := seedOf(t)
	p := newPair(t, rng, vfs.NewMem())
	for range 40 {
		p.append()
	}
	p.reopen(true)
	good, err := vfs.ReadFile(p.fs, dir+"/"+FileNames(p.twin.base)[1])
	if err != nil || len(good) < 24 {
		t.Fatalf("an index of %d bytes, %v", len(good), err)
	}
	if err := p.seg.Close(); err != nil {
		t.Fatal(err)
	}
	refused := 0
	size := binary.BigEndian.AppendUint32(make([]byte, 4), uint32(len(p.twin.bytes())))
	pointed := append(good[:len(good):len(good)], size...)
	for at := 0; at < len(good); at += 8 {
		bad := append([]byte(nil), good...)
		copy(bad[at+4:at+8], pointed[at+12:]) // where the next entry points, the last one to the end
		put(t, p.fs, dir+"/"+FileNames(p.twin.base)[1], bad)
		seg, err := Open(p.fs, dir, p.twin.base, -1, p.cfg, true)
		if err != nil {
			t.Fatal(err)
		}
		off := p.twin.base + int64(binary.BigEndian.Uint32(good[at:]))
		for _, b := range p.twin.batches {
			v, err := seg.Read(b.last, rng.Int63n(3000), 1<<40, true)
			if b.last == off {
				if c := (*CorruptError)(nil); !errors.As(err, &c) {
					t.Errorf("offset %d is read past it: %v, %v", off, v, err)
				}
				refused++
			}
			if _, _, _, _, err2 := seg.OffsetForTime(math.MinInt64, b.last); (err == nil) != (err2 == nil) {
				t.Errorf("offset %d: read %v, asked for by time %v", b.last, err, err2)
			}
			if err != nil || v == nil {
				if err == nil {
					t.Errorf("a read of offset %d finds nothing", b.last)
				}
				continue
			}
			head := make([]byte, 8)
			if _, err := v.ReadAt(head, 0); err != nil || int64(binary.BigEndian.Uint64(head)) != b.base {
				t.Errorf("a read of offset %d begins at %d, %v; its batch begins at %d", b.last, binary.BigEndian.Uint64(head), err, b.base)
			}
			last := int64(0) // of what the View has
			for i, pos := 0, int64(0); pos < v.Pos()+v.Len(); i++ {
				last = p.twin.batches[i].last
				pos += int64(len(p.twin.batches[i].data))
			}
			if above, ok := v.Above(); ok && above <= last {
				t.Errorf("records up to %d are said to lie below %d", last, above)
			}
			v.Close()
		}
		var c *CorruptError
		if _, err := seg.ReadNextOffset(); errors.As(err, &c) != (at+8 == len(good)) {
			t.Errorf("entry %d of %d points too far, and the segment ends: %v", at/8, len(good)/8, err)
		}
		seg.Close()
	}
	if refused == 0 {
		t.Error("no entry was tried")
	}
}

// A last batch whose offsets lie beyond what index entries reach is damage that a clean start finds,
// which reads headers alone: not a segment that cannot be sealed.
func TestLastBatchBeyondTheIndexes(t *testing.T) {
	rng, _ := seedOf(t)
	p := newPair(t, rng, vfs.NewMem())
	for range 3 {
		p.append()
	}
	p.reopen(true)
	if err := p.seg.Close(); err != nil {
		t.Fatal(err)
	}
	names := FileNames(p.twin.base)
	log := p.twin.bytes()
	last := p.twin.batches[len(p.twin.batches)-1]
	const lastOffsetDeltaPos, maxTimestampPos = 23, 35
	header := log[len(log)-len(last.data):]
	binary.BigEndian.PutUint64(header[maxTimestampPos:], math.MaxInt64)
	for _, beyond := range []int64{0, 1} {
		binary.BigEndian.PutUint32(header[lastOffsetDeltaPos:], uint32(math.MaxInt32-(last.base-p.twin.base)+beyond))
		put(t, p.fs, dir+"/"+names[0], log)
		put(t, p.fs, dir+"/"+names[1], nil) // or the offset index may say that the header is wrong
		seg, err := Open(p.fs, dir, p.twin.base, -1, p.cfg, false)
		if err != nil {
			t.Fatal(err)
		}
		if c := (*CorruptError)(nil); errors.As(seg.Check(), &c) != (beyond > 0) {
			t.Errorf("a last offset %d beyond what entries reach: %v", beyond, seg.Check())
		}
		if err := seg.Seal(); !errors.Is(err, seg.Check()) {
			t.Errorf("Seal: %v", err)
		}
		seg.Close()
	}
}
