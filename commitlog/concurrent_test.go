package commitlog

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/millrace-project/millrace/batch"
)

// TestConcurrent appends, reads, rolls, deletes and configures at once: a reader
// below the high watermark sees whole batches with consecutive offsets.
func TestConcurrent(t *testing.T) {
	for _, d := range []Durability{Sync, OS} {
		t.Run(d.String(), func(t *testing.T) {
			cfg := testConfig()
			cfg.SegmentBytes, cfg.FileDeleteDelayMs = 16<<10, 0
			s, l := openReal(t, d, cfg)
			const writers, each = 4, 150
			var done atomic.Bool
			var work, readers sync.WaitGroup
			for range writers {
				work.Add(1)
				go func() {
					defer work.Done()
					entries := []*Entry{{}, {}}
					for range each {
						for _, e := range entries {
							e.Data = spec{n: 3, value: 100, ts: wallClockMs(), epoch: -1}.build()
						}
						l.Append(wallClockMs(), 0, entries)
						for _, e := range entries {
							if e.Err != nil {
								t.Error(e.Err)
							}
						}
					}
				}()
			}
			for i := range 3 {
				readers.Add(1)
				go func() {
					defer readers.Done()
					follow(t, l, &done, i == 0)
				}()
			}
			readers.Add(1)
			go func() {
				defer readers.Done()
				for !done.Load() {
					s.janitor.checkpointSoon()
					_, _, err := l.OffsetForTime(wallClockMs()-1, l.HighWatermark())
					if err != nil {
						t.Error(err)
					}
					l.Segments()
					l.Configure(cfg)
				}
			}()
			work.Wait()
			if err := l.Sync(); err != nil {
				t.Error(err)
			}
			done.Store(true)
			readers.Wait()
			if l.EndOffset() != writers*each*6 {
				t.Errorf("end %d", l.EndOffset())
			}
		})
	}
}

// follow reads to the end as a consumer does; one that deletes what it has read
// makes the others start again at the start offset.
func follow(t *testing.T, l *Log, done *atomic.Bool, deletes bool) {
	off := int64(0)
	for {
		last := done.Load()
		hw := l.HighWatermark()
		v, err := l.Read(off, hw, 5000, true)
		if errors.Is(err, ErrOffsetOutOfRange) {
			off = l.StartOffset()
			continue
		}
		if err != nil {
			t.Error(err)
			return
		}
		if v == nil {
			if last {
				return
			}
			continue
		}
		p := make([]byte, v.Len())
		if _, err := v.ReadAt(p, 0); err != nil {
			t.Error(err)
		}
		v.Close()
		for {
			b, rest, err := batch.Next(p)
			if err != nil {
				break // the rest of a batch that did not fit
			}
			p = rest
			if b.VerifyCRC() != nil || b.BaseOffset() > off || b.LastOffset() < off || b.LastOffset() >= hw {
				t.Errorf("batch %d-%d read at %d below %d", b.BaseOffset(), b.LastOffset(), off, hw)
				return
			}
			off = b.LastOffset() + 1
		}
		if deletes && off%50 == 0 {
			if err := l.DeleteBefore(off - off%3); err != nil {
				t.Error(err)
			}
		}
	}
}
