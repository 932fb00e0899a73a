package segment

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/vfs"
)

// ofMiB appends a batch of records of 1 MiB, before they are compressed, and returns it.
func ofMiB(t *testing.T, s *Segment, mib int, c batch.Codec) batch.Batch {
	t.Helper()
	bl := batch.NewBuilder(batch.BuilderOptions{BaseOffset: s.NextOffset(), LeaderEpoch: 3, Codec: c})
	value := make([]byte, 1<<20)
	for i := range mib {
		bl.Append(1000+int64(i), nil, value, nil)
	}
	b, err := bl.Build(nil)
	if err != nil {
		t.Fatal(err)
	}
	m := BatchMeta{BaseOffset: b.BaseOffset(), LastOffset: b.LastOffset(), MaxTimestamp: b.MaxTimestamp(), Size: len(b)}
	if err := s.Append([][]byte{b}, []BatchMeta{m}); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestTimeInALargeBatch: a record is found by its time in batches of any size, as Kafka leaves them, and many who look
// for one at a time do not take the memory for so many batches.
func TestTimeInALargeBatch(t *testing.T) {
	const mib, many = 110, 12
	codecs := []batch.Codec{batch.Gzip, batch.Snappy, batch.LZ4, batch.Zstd}
	var segs []*Segment
	for _, c := range codecs {
		fs := vfs.NewMem()
		if err := fs.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		s, err := Create(fs, dir, 100, kafkaConfig())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		ofMiB(t, s, mib, c)
		segs = append(segs, s)
	}
	look := func(i int) {
		ok, off, ts, epoch, err := segs[i].OffsetForTime(1000+mib-1, 0)
		if !ok || off != 100+mib-1 || ts != 1000+mib-1 || epoch != 3 || err != nil {
			t.Errorf("%s: offset %d, time %d, epoch %d, found %v, %v", codecs[i], off, ts, epoch, ok, err)
		}
		if ts, off, _, err := segs[i].OffsetOfMaxTimestamp(); ts != 1000+mib-1 || off != 100+mib-1 || err != nil {
			t.Errorf("%s: the largest time %d at %d, %v", codecs[i], ts, off, err)
		}
	}
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	before := int64(m.HeapAlloc)
	var most int64
	var over atomic.Bool
	var sampler, readers sync.WaitGroup
	sampler.Go(func() {
		for ; !over.Load(); time.Sleep(2 * time.Millisecond) {
			runtime.ReadMemStats(&m)
			most = max(most, int64(m.HeapAlloc)-before)
		}
	})
	for i := range many {
		readers.Go(func() { look(i % len(codecs)) })
	}
	readers.Wait()
	over.Store(true)
	sampler.Wait()
	t.Logf("%d MiB at most", most>>20)
	if most > 3*mib<<20 {
		t.Errorf("%d who look at batches of %d MiB took %d MiB", many, mib, most>>20)
	}
}
