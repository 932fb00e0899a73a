package segment

import (
	"fmt"
	"testing"

	"github.com/millrace-project/millrace/vfs"
)

// kafkaConfig is Kafka's defaults.
func kafkaConfig() Config { return Config{IndexIntervalBytes: 4096, IndexMaxBytes: 10 << 20} }

func withHandles(h *vfs.Handles) Config {
	cfg := kafkaConfig()
	cfg.Handles = h
	return cfg
}

// TestTwin does the same random operations to a segment and to a list.
func TestTwin(t *testing.T) {
	rng, _ := seedOf(t)
	for round := range rounds(60) {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			p := newPair(t, rng, vfs.NewMem())
			for range 150 {
				p.step()
			}
			p.seg.Close()
			if open, idle := p.cfg.Handles.Open(); open != 0 || idle != 0 {
				t.Fatalf("%d handles open, %d idle, after Close", open, idle)
			}
		})
	}
}

func (p *pair) step() {
	p.t.Helper()
	sealed := p.seg.Sealed()
	switch p.rng.Intn(14) {
	case 0, 1, 2, 3:
		if !sealed {
			p.append()
		}
	case 4, 5, 6, 7:
		p.checkRead()
	case 8:
		p.checkTimes()
	case 9:
		off := p.twin.base + int64(p.rng.Intn(int(p.twin.next()-p.twin.base)+2))
		if p.rng.Intn(3) > 0 {
			off = max(p.twin.next()-int64(p.rng.Intn(6)), p.twin.base)
		}
		want := p.twin.truncate(off)
		if cut, err := p.seg.TruncateTo(off); err != nil || cut != want {
			p.t.Fatalf("truncate to %d: cut %d (%v), twin %d", off, cut, err, want)
		}
	case 10:
		if err := p.seg.SyncAll(); err != nil {
			p.t.Fatal(err)
		}
	case 11:
		if err := p.seg.Trim(); err != nil {
			p.t.Fatal(err)
		}
		p.cfg.Handles.CloseIdle()
		p.cfg.Handles.CloseIdle()
	case 12:
		p.reopen(p.rng.Intn(2) == 0)
	case 13:
		if err := p.seg.FlushIndexes(); err != nil {
			p.t.Fatal(err)
		}
	}
	p.checkAll()
}
