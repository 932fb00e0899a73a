package compaction

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/segment"
	"github.com/millrace-project/millrace/vfs"
)

// benchInput is a log of segments of up to 64 MiB whose keys are drawn from half as many as there are
// records, in batches of 16 KiB before compression.
type benchInput struct {
	valueBytes int
	codec      batch.Codec
	bytes      int
}

func (in benchInput) fill(b *testing.B, l *aLog) (bytes, next int64) {
	const segmentBytes, batchBytes = 64 << 20, 16 << 10
	rng := rand.New(rand.NewPCG(uint64(in.valueBytes), 9))
	pool := make([]byte, 0, 4<<20)
	for len(pool)+200 < cap(pool) {
		if in.codec == batch.None {
			pool = binary.LittleEndian.AppendUint64(pool, rng.Uint64())
		} else {
			pool = fmt.Appendf(pool, `{"order":%d,"customer":"%08x","state":"shipped","amount":%d.%02d,"currency":"EUR","updated":"2026-%02d-%02dT00:00:00Z","note":"%016x"}`,
				rng.IntN(1e9), rng.Uint32(), rng.IntN(1000), rng.IntN(100), 1+rng.IntN(12), 1+rng.IntN(28), rng.Uint64())
		}
	}
	keys := in.bytes / (in.valueBytes + 24) / 2
	off, now := int64(0), time.Now().UnixMilli()
	for bytes < int64(in.bytes) {
		f, err := segment.Create(l.fs, l.dir, off, l.cfg)
		if err != nil {
			b.Fatal(err)
		}
		for f.Size() < segmentBytes-2*batchBytes && bytes < int64(in.bytes) {
			bld := batch.NewBuilder(batch.BuilderOptions{BaseOffset: off, Codec: in.codec})
			base := off
			for bld.Len() < batchBytes-in.valueBytes {
				at := rng.IntN(len(pool) - in.valueBytes)
				bld.Append(now, fmt.Appendf(nil, "key-%012d", rng.IntN(keys)), pool[at:at+in.valueBytes], nil)
				off++
			}
			p, err := bld.Build(nil)
			if err == nil {
				err = f.Append([][]byte{p}, []segment.BatchMeta{{BaseOffset: base, LastOffset: off - 1, MaxTimestamp: now, Size: len(p)}})
			}
			if err != nil {
				b.Fatal(err)
			}
			bytes += int64(len(p))
		}
		l.finish(f, now)
		l.segs = append(l.segs, f)
	}
	return bytes, off
}

func cpuTime(b *testing.B) time.Duration {
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		b.Fatal(err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

// BenchmarkPass cleans logs of files in the directory BENCH_DIR, or in that for temporary files. MB/CPU-s
// is of the log as it was, by the CPU time of the process.
func BenchmarkPass(b *testing.B) {
	for _, c := range []struct {
		name string
		in   benchInput
	}{
		{"1KB", benchInput{1024, batch.None, 256 << 20}},
		{"100B", benchInput{100, batch.None, 256 << 20}},
		{"zstd", benchInput{1024, batch.Zstd, 64 << 20}},
	} {
		b.Run(c.name, func(b *testing.B) {
			dir, err := os.MkdirTemp(os.Getenv("BENCH_DIR"), "pass-")
			if err != nil {
				b.Fatal(err)
			}
			defer os.RemoveAll(dir)
			l := &aLog{t: b, fs: vfs.OS(), dir: dir, cfg: segment.Config{IndexIntervalBytes: 4096, IndexMaxBytes: 10 << 20}}
			defer func() {
				for _, s := range l.segs {
					s.Close()
				}
			}()
			bytes, next := c.in.fill(b, l)
			o := l.options()
			o.Limit, o.NowMs, o.SegmentBytes, o.DeleteRetentionMs = next, time.Now().UnixMilli(), 64<<20, 1<<30
			b.SetBytes(bytes)
			b.ResetTimer()
			used := cpuTime(b)
			var stats Stats
			for range b.N {
				stats = passOver(b, o)
			}
			b.StopTimer()
			b.ReportMetric(float64(bytes)*float64(b.N)/1e6/(cpuTime(b)-used).Seconds(), "MB/CPU-s")
			if stats.RecordsKept != stats.Keys || stats.Keys == 0 {
				b.Errorf("%d records are left of %d keys", stats.RecordsKept, stats.Keys)
			}
		})
	}
}

// passOver makes a pass and throws away what it has written.
func passOver(b *testing.B, o *Options) Stats {
	p, err := Begin(o)
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	for {
		g, err := p.Next()
		if err != nil {
			b.Fatal(err)
		}
		if g == nil {
			return p.Stats()
		}
		if err := g.Cleaned.Unlink(); err != nil {
			b.Fatal(err)
		}
	}
}
