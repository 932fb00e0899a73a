package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-project/millrace/batch"
)

// tailWork writes at a fixed rate and reads what is written as it comes. Its latencies are from the
// moment at which a batch was due to be sent to that at which a reader had it. Cold readers may go
// over what was there before, each over a part of its own, once.
type tailWork struct {
	work
	begin []int64 // the partitions' ends before the tail
}

func newTailWork(name string, s Shape) Workload { return &tailWork{work: newWork(name, s)} }

// Prepare makes the topic, and for cold readers what they read, which it drops from the page cache.
func (w *tailWork) Prepare(ctx context.Context, t *Target, run string) error {
	if w.shape.Rate <= 0 {
		return fmt.Errorf("bench: %s needs a rate: without one its latencies are those of a queue", w.name)
	}
	if w.shape.Cold > 0 && t.Dir == "" {
		return fmt.Errorf("bench: %s has cold readers and must know the directory of %s, to make it cold", w.name, t.Name)
	}
	if err := w.prepare(ctx, t, run); err != nil {
		return err
	}
	if w.shape.Cold > 0 {
		if err := w.fill(ctx, t, w.shape.FillBytes); err != nil {
			return err
		}
		if err := chill(t.Dir); err != nil {
			return err
		}
	}
	var err error
	w.begin, err = endOffsets(ctx, t.Addr, w.topic, w.shape.Partitions)
	return err
}

// chill writes back what is below a directory and drops it from the page cache.
func chill(dir string) error {
	if err := settle(dir); err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			err = evict(path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // deleted meanwhile
		}
		return err
	})
}

// Run writes and reads for d, and until everything that was written has been read.
func (w *tailWork) Run(ctx context.Context, t *Target, d time.Duration) (Figure, error) {
	// A partition has one writer, so that its nth batch is known by its offset.
	connections := min(w.shape.Connections, w.shape.Partitions)
	producers, err := w.newProducers(ctx, t, connections, func(c, p int) bool { return p%connections == c })
	if err != nil {
		return Figure{}, err
	}
	tail := newTailing(w, d, producers)
	var lanes []*lane
	for _, own := range producers {
		s := newProduceSource(&w.work, own, w.shape.InFlight)
		s.dueOf, s.mute = tail.wrote, true
		l := newLane(s, w.shape.InFlight)
		l.untimed, l.ended = true, tail.writerEnded
		lanes = append(lanes, l)
	}
	var readers []*tailSource
	for range max(1, w.shape.Readers) {
		s := tail.reader(int32(w.shape.FetchBytes))
		l := newLane(s, 1)
		l.counted, s.tally = false, &l.tally
		readers, lanes = append(readers, s), append(lanes, l)
	}
	for i := range w.shape.Cold {
		l := newLane(w.coldSource(i, tail.over), 1)
		l.counted = false
		lanes = append(lanes, l)
	}
	f, err := w.driver.drive(ctx, t, lanes, w.shape.Rate, d)
	for i, s := range readers {
		if missing := s.missing(); missing > 0 && err == nil {
			f.Errors += missing
			if f.Error == "" {
				f.Error = fmt.Sprintf("reader %d did not get the last %d records", i, missing)
			}
		}
	}
	return f, err
}

// coldSource reads one of equal parts of what was there before the tail.
func (w *tailWork) coldSource(i int, over <-chan struct{}) *consumeSource {
	p := i % w.shape.Partitions
	n := (w.shape.Cold - p + w.shape.Partitions - 1) / w.shape.Partitions // that share the partition
	records := int64(w.contents.records)
	r := reading{partition: int32(p), off: part(w.begin[p], records, i/w.shape.Partitions, n), end: part(w.begin[p], records, i/w.shape.Partitions+1, n)}
	return &consumeSource{topic: w.topic, fetchBytes: 1 << 20, slots: []reading{r}, once: true, stopped: over}
}

// tailing is what writers tell readers besides what goes through the target: when each batch was due.
type tailing struct {
	topic     string
	records   int64
	begin     []int64
	producers []*producer      // by partition
	due       [][]atomic.Int64 // by partition and batch: ns since start
	start     time.Time
	end       []int64 // by partition; to be read when over is closed
	over      chan struct{}
	mu        struct {
		sync.Mutex
		writers int // that go on
	}
}

func newTailing(w *tailWork, d time.Duration, producers [][]*producer) *tailing {
	partitions := w.shape.Partitions
	tl := &tailing{
		topic: w.topic, records: int64(w.contents.records), begin: w.begin, start: time.Now(), over: make(chan struct{}),
		producers: make([]*producer, partitions), due: make([][]atomic.Int64, partitions), end: make([]int64, partitions),
	}
	tl.mu.writers = len(producers)
	// The schedule says how many batches a partition can get; a writer's first round may give some
	// partitions one more than others.
	const late = 10 * time.Second // and the load may end late, on a machine that is busy
	most := int(w.shape.Rate*(d+late).Seconds()*1.2)*w.shape.PerRequest/partitions + 100
	for p := range partitions {
		tl.due[p] = make([]atomic.Int64, most)
		for _, own := range producers {
			if own[p] != nil {
				tl.producers[p] = own[p]
			}
		}
	}
	return tl
}

func (t *tailing) wrote(p piece, due time.Time) {
	if slots := t.due[p.partition]; p.n < int64(len(slots)) {
		slots[p.n].Store(int64(due.Sub(t.start)))
	}
}

// writerEnded lets the readers end when the last writer has all its answers.
func (t *tailing) writerEnded() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.writers--; t.mu.writers > 0 {
		return
	}
	for p, pr := range t.producers {
		t.end[p] = t.begin[p] + pr.acked*t.records
	}
	close(t.over)
}

func (t *tailing) reader(fetchBytes int32) *tailSource {
	s := &tailSource{tailing: t, fetchBytes: fetchBytes, off: make([]int64, len(t.begin))}
	copy(s.off, t.begin)
	for p := range s.off {
		s.changed = append(s.changed, int32(p))
	}
	s.all = s.changed
	return s
}

// tailSource reads all partitions at their ends by long polls, as consumers do: in a fetch session,
// in which a request names only the partitions that have moved on.
type tailSource struct {
	*tailing
	tally      *tally // takes the latencies
	fetchBytes int32
	off        []int64 // by partition
	all        []int32
	changed    []int32 // since the request before
	places     []place

	sessionID, sessionEpoch int32
	deadline                time.Time // set when the writers have ended
}

func (s *tailSource) next(out *outbox, n int64, _ time.Time) bool {
	select {
	case <-s.over:
		if s.deadline.IsZero() {
			s.deadline = time.Now().Add(10 * time.Second)
		}
		if s.missing() == 0 || time.Now().After(s.deadline) {
			return false
		}
	default:
	}
	s.places = s.places[:0]
	for _, p := range s.changed {
		s.places = append(s.places, place{p, s.off[p], s.fetchBytes})
	}
	out.fetch(int32(n), s.topic, fetchOptions{maxWaitMs: 500, minBytes: 1, maxBytes: max(s.fetchBytes, 50<<20), sessionID: s.sessionID, sessionEpoch: s.sessionEpoch}, s.places)
	return true
}

// missing is how many records the reader has not got; only when over is closed.
func (s *tailSource) missing() (n int64) {
	for p, end := range s.end {
		n += end - s.off[p]
	}
	return n
}

func (s *tailSource) answered(_ int64, body []byte, now time.Time) (carried, error) {
	var what carried
	var bad error
	s.changed = s.changed[:0:0] // all must stay whole
	sessionID, err := fetched(body, func(partition int32, _ int64, records []byte, err error) {
		if err == nil && (partition < 0 || int(partition) >= len(s.off)) {
			err = fmt.Errorf("bench: an answer for partition %d, which was not asked for", partition)
		}
		if err == nil && len(records) > 0 {
			s.changed = append(s.changed, partition)
			err = s.take(partition, records, now, &what)
		}
		bad = errors.Join(bad, err)
	})
	if err = errors.Join(err, bad); err != nil {
		return what, err
	}
	if sessionID == 0 { // the target keeps no sessions
		s.sessionEpoch, s.changed = -1, s.all
		return what, nil
	}
	s.sessionID = sessionID
	s.sessionEpoch++
	return what, nil
}

func (s *tailSource) take(partition int32, records []byte, now time.Time, what *carried) error {
	for {
		b, rest, err := batch.Next(records)
		if errors.Is(err, io.EOF) || errors.Is(err, batch.ErrShort) {
			return nil
		}
		if err == nil && b.BaseOffset() != s.off[partition] {
			err = fmt.Errorf("a batch at offset %d", b.BaseOffset())
		}
		n := (s.off[partition] - s.begin[partition]) / s.records
		if err == nil && n >= int64(len(s.due[partition])) {
			err = errors.New("more batches than the rate gives")
		}
		if err != nil {
			return fmt.Errorf("bench: tail of partition %d, offset %d: %w", partition, s.off[partition], err)
		}
		s.tally.observe(now.Sub(s.start.Add(time.Duration(s.due[partition][n].Load()))))
		s.off[partition] = b.LastOffset() + 1
		what.records += int64(b.Count())
		what.bytes += int64(len(b))
		records = rest
	}
}
