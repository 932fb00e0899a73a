package compaction

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/index"
	"github.com/millrace-project/millrace/segment"
	"github.com/millrace-project/millrace/vfs"
)

// seeded returns a source of randomness whose seed is printed when the test fails; SEED sets it.
func seeded(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("SEED=%d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 1))
}

// rec is a record as a reader sees it; a nil key or value is null.
type rec struct {
	off, ts    int64
	key, value []byte
	header     string
}

// bat is a batch, decoded.
type bat struct {
	base, last   int64
	leaderEpoch  int32
	codec        batch.Codec
	appendTime   bool
	txn, control bool
	horizon      int64 // -1 is none
	baseTime     int64 // only of a batch without records
	maxTime      int64
	pid          int64
	epoch        int16
	seq          int32
	recs         []rec
	kind         batch.ControlType // if control, and it has a record
	bytes        []byte            // what it is decoded from
}

// seg is a segment, decoded.
type seg struct {
	base    int64
	batches []bat
	aborted []index.TxnEntry
}

// encode builds the batch.
func (b *bat) encode(t testing.TB) []byte {
	t.Helper()
	o := batch.BuilderOptions{BaseOffset: b.base, LeaderEpoch: b.leaderEpoch, Codec: b.codec, HasProducer: b.pid >= 0,
		ProducerEpoch: b.epoch, BaseSequence: b.seq, Transactional: b.txn, Control: b.control}
	if o.HasProducer {
		o.ProducerID = b.pid
	}
	if b.appendTime {
		o.TimestampType, o.LogAppendTime = batch.LogAppendTime, b.maxTime
	}
	bl := batch.NewBuilder(o)
	for _, r := range b.recs {
		var headers []batch.RecordHeader
		if r.header != "" {
			headers = append(headers, batch.RecordHeader{Key: r.header, Value: []byte("v")})
		}
		ts := r.ts
		if b.appendTime {
			ts += r.off%3 - 7 // says nothing
		}
		bl.AppendAt(r.off, ts, r.key, r.value, headers)
	}
	p, err := bl.Build(nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// decode is the way back.
func decode(t testing.TB, p batch.Batch) bat {
	t.Helper()
	if err := p.VerifyCRC(); err != nil {
		t.Fatalf("batch at %d: %v", p.BaseOffset(), err)
	}
	b := bat{base: p.BaseOffset(), last: p.LastOffset(), leaderEpoch: p.LeaderEpoch(), codec: p.Codec(), appendTime: p.TimestampType() == batch.LogAppendTime,
		txn: p.IsTransactional(), control: p.IsControl(), horizon: -1, maxTime: p.MaxTimestamp(), pid: p.ProducerID(), epoch: p.ProducerEpoch(), seq: p.BaseSequence(),
		bytes: bytes.Clone(p)}
	if p.HasDeleteHorizon() {
		if b.horizon = p.BaseTimestamp(); b.horizon < 0 {
			t.Fatalf("batch at %d: delete horizon %d", b.base, b.horizon)
		}
	}
	err := p.Each(0, func(r *batch.Record) error {
		one := rec{off: r.Offset, ts: r.Timestamp, key: bytes.Clone(r.Key), value: bytes.Clone(r.Value)}
		if len(r.Headers) > 0 {
			one.header = r.Headers[0].Key
		}
		b.recs = append(b.recs, one)
		return nil
	})
	if err != nil {
		t.Fatalf("batch at %d: %v", b.base, err)
	}
	if len(b.recs) == 0 {
		b.baseTime = p.BaseTimestamp()
	} else if b.control {
		if b.kind, _, _, err = p.ControlRecord(); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func (b bat) String() string {
	s := fmt.Sprintf("[%d-%d] epoch %d %s lat=%t txn=%t control=%t(%d) horizon=%d base=%d max=%d producer=%d/%d/%d:", b.base, b.last, b.leaderEpoch, b.codec,
		b.appendTime, b.txn, b.control, b.kind, b.horizon, b.baseTime, b.maxTime, b.pid, b.epoch, b.seq)
	for _, r := range b.recs {
		s += fmt.Sprintf(" %d@%d:%q=%q(%t)%s", r.off, r.ts, r.key, r.value, r.value == nil, r.header)
	}
	return s
}

func (s *seg) String() string {
	out := fmt.Sprintf("segment %d, aborted %v\n", s.base, s.aborted)
	for _, b := range s.batches {
		out += "  " + b.String() + "\n"
	}
	return out
}

// aLog is a log's sealed segments, as files.
type aLog struct {
	t    testing.TB
	fs   vfs.FS
	dir  string
	cfg  segment.Config
	segs []*segment.Segment
}

func newLog(t testing.TB) *aLog {
	l := &aLog{t: t, fs: vfs.NewMem(), dir: "/log", cfg: segment.Config{IndexIntervalBytes: 200, IndexMaxBytes: 1 << 20}}
	if err := l.fs.MkdirAll(l.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, s := range l.segs {
			s.Close()
		}
	})
	return l
}

// add writes a sealed segment.
func (l *aLog) add(s *seg, modMs int64) *segment.Segment {
	l.t.Helper()
	f, err := segment.Create(l.fs, l.dir, s.base, l.cfg)
	if err != nil {
		l.t.Fatal(err)
	}
	for i := range s.batches {
		b := &s.batches[i]
		if b.bytes == nil {
			b.bytes = b.encode(l.t)
		}
		m := segment.BatchMeta{BaseOffset: b.base, LastOffset: b.last, MaxTimestamp: b.maxTime, Size: len(b.bytes)}
		if err := f.Append([][]byte{b.bytes}, []segment.BatchMeta{m}); err != nil {
			l.t.Fatal(err)
		}
	}
	for _, e := range s.aborted {
		if err := f.AppendAborted(e); err != nil {
			l.t.Fatal(err)
		}
	}
	l.finish(f, modMs)
	l.segs = append(l.segs, f)
	return f
}

func (l *aLog) finish(f *segment.Segment, modMs int64) {
	l.t.Helper()
	for _, err := range []error{f.Seal(), f.SyncAll(), f.SetModTimeMs(modMs)} {
		if err != nil {
			l.t.Fatal(err)
		}
	}
}

// load decodes a segment.
func (l *aLog) load(f *segment.Segment) *seg {
	l.t.Helper()
	s := &seg{base: f.BaseOffset()}
	err := f.Scan(func(h batch.Header, pos int64) error {
		p := make([]byte, h.Size())
		if _, err := f.ReadAt(p, pos); err != nil {
			return err
		}
		s.batches = append(s.batches, decode(l.t, p))
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
	if s.aborted, _, err = f.Aborted(0, math.MaxInt64); err != nil {
		l.t.Fatal(err)
	}
	return s
}

// swap lets a group's cleaned segment take the sources' place.
func (l *aLog) swap(g *Group) {
	l.t.Helper()
	at := slices.Index(l.segs, g.Sources[0])
	for _, s := range g.Sources {
		if err := s.Unlink(); err != nil {
			l.t.Fatal(err)
		}
	}
	for _, suffix := range []string{SwapSuffix, ""} {
		if err := g.Cleaned.Rename(suffix); err != nil {
			l.t.Fatal(err)
		}
	}
	l.segs = slices.Replace(l.segs, at, at+len(g.Sources), g.Cleaned)
}

func (l *aLog) options() *Options {
	return &Options{FS: l.fs, Dir: l.dir, Sources: slices.Clone(l.segs), Segment: l.cfg, SegmentBytes: 1 << 30}
}

// run does a whole pass and swaps each group.
func (l *aLog) run(o *Options) (*Pass, []*Group) {
	l.t.Helper()
	p, err := Begin(o)
	if err != nil {
		l.t.Fatal(err)
	}
	defer p.Close()
	var groups []*Group
	for {
		g, err := p.Next()
		if err != nil {
			l.t.Fatal(err)
		}
		if g == nil {
			return p, groups
		}
		l.swap(g)
		groups = append(groups, g)
	}
}

// plain returns a batch of records, one a key=value; "k" without = is a tombstone.
func plain(base, ts int64, kvs ...string) bat {
	b := bat{base: base, last: base + int64(len(kvs)) - 1, horizon: -1, maxTime: ts, pid: -1, epoch: -1, seq: -1}
	for i, kv := range kvs {
		key, value, ok := bytes.Cut([]byte(kv), []byte("="))
		r := rec{off: base + int64(i), ts: ts, key: key, value: value}
		if !ok {
			r.value = nil
		} else if value == nil {
			r.value = []byte{}
		}
		b.recs = append(b.recs, r)
	}
	return b
}

// contents lists offset:key=value of all records.
func (l *aLog) contents() (out []string) {
	for _, f := range l.segs {
		for _, b := range l.load(f).batches {
			for _, r := range b.recs {
				s := fmt.Sprintf("%d:%s", r.off, r.key)
				if r.value != nil {
					s += "=" + string(r.value)
				}
				out = append(out, s)
			}
		}
	}
	return out
}
