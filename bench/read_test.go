package bench

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-project/millrace/batch"
)

// logOf is a partition's bytes: batches of a producer from an offset on.
func logOf(c *contents, p *producer, off int64, batches int) []byte {
	var log []byte
	for n := range int64(batches) {
		tmpl, size := c.nth(p, n)
		log = append(c.appendHeader(log, p, n, tmpl, time.UnixMilli(1)), tmpl.payload...)
		batch.Batch(log[len(log)-size:]).SetBaseOffset(off)
		off += int64(c.records)
	}
	return log
}

// A reader under load finds gaps at once, damage when it looks, and does not count half a batch.
func TestReadingFindsWhatIsWrong(t *testing.T) {
	c := testContents(t, contentOptions{recordBytes: 100, batchBytes: 1000, redundancy: 1})
	const batches = 3
	good := logOf(c, &producer{id: 4}, 70, batches)
	size := len(good) / batches
	take := func(p []byte, off int64, sums bool) (reading, carried, error) {
		r, what := reading{off: off}, carried{}
		err := r.take(p, sums, &what)
		return r, what, err
	}
	r, what, err := take(good, 70, true)
	if err != nil || r.off != 70+batches*int64(c.records) || what != (carried{records: batches * int64(c.records), bytes: int64(len(good))}) {
		t.Errorf("at %d, %+v: %v", r.off, what, err)
	}
	r, what, err = take(good[:2*size+size/2], 70, true)
	if err != nil || r.off != 70+2*int64(c.records) || what.bytes != int64(2*size) {
		t.Errorf("two and a half batches: at %d, %+v: %v", r.off, what, err)
	}
	if _, _, err := take(append(append([]byte{}, good[:size]...), good[2*size:]...), 70, false); err == nil || !strings.Contains(err.Error(), "was due") {
		t.Errorf("a gap: %v", err)
	}
	if _, _, err := take(good, 71, false); err == nil {
		t.Error("a batch before the offset that was asked for")
	}
	bad := append([]byte{}, good...)
	bad[2*size+100] ^= 1
	if _, _, err := take(bad, 70, true); !errors.Is(err, batch.ErrCRC) {
		t.Errorf("damage: %v", err)
	}
}

// Slots go from where they begin to the end of their partition and begin anew at its beginning, or
// end there; together they begin all over it, at batches.
func TestConsumersSpreadAndWrap(t *testing.T) {
	w := newConsumeWork("c", Shape{Partitions: 2, Connections: 6, InFlight: 1}).(*consumeWork)
	w.contents, w.ends = &contents{records: 10}, []int64{1000, 70}
	var begins []int64
	for i := range 6 {
		s := w.source(i, 6, 1)
		if want := int32(i % 2); s.slots[0].partition != want {
			t.Errorf("connection %d reads partition %d, want %d", i, s.slots[0].partition, want)
		}
		begins = append(begins, s.slots[0].off)
	}
	if want := []int64{0, 0, 250, 10, 500, 30}; !slices.Equal(begins, want) {
		t.Errorf("they begin at %d, want %d", begins, want)
	}
	s := &consumeSource{topic: "t", slots: []reading{{off: 1000, end: 1000}}}
	var out outbox
	if !s.next(&out, 0, time.Time{}) || s.slots[0].off != 0 {
		t.Errorf("a reader at its end goes on at %d", s.slots[0].off)
	}
	s.slots[0].off, s.once = 1000, true
	if s.next(&out, 1, time.Time{}) {
		t.Error("a reader that reads once goes on at its end")
	}
}

// Cold readers share what was there before, each batch with one of them.
func TestColdReadersShareTheLog(t *testing.T) {
	w := newTailWork("b", Shape{Partitions: 2, Cold: 5}).(*tailWork)
	w.contents, w.begin = &contents{records: 10}, []int64{1000, 70}
	read := []int64{0, 0}
	for i := range 5 {
		r := w.coldSource(i, nil).slots[0]
		if r.off%10 != 0 || r.end%10 != 0 || r.off > r.end || r.end > w.begin[r.partition] {
			t.Errorf("reader %d: from %d to %d of partition %d", i, r.off, r.end, r.partition)
		}
		read[r.partition] += r.end - r.off
	}
	if !slices.Equal(read, w.begin) {
		t.Errorf("%d offsets read, want %d", read, w.begin)
	}
}

// A latency of the tail begins when the batch was due, not when it left, and belongs to that batch.
func TestTailLatenciesBeginWhenDue(t *testing.T) {
	w := newTailWork("t", Shape{Rate: 100, RecordBytes: 100}).(*tailWork)
	w.contents, w.begin = testContents(t, contentOptions{recordBytes: 100, batchBytes: 250, redundancy: 1}), []int64{40}
	p := &producer{id: 4}
	tl := newTailing(w, time.Second, [][]*producer{{p}})
	for n := range int64(3) {
		tl.wrote(piece{0, p, n}, tl.start.Add(time.Duration(n)*10*time.Millisecond))
	}
	s := tl.reader(1 << 20)
	l := newLane(s, 1)
	s.tally = &l.tally
	log := logOf(w.contents, p, 40, 3)
	var what carried
	if err := s.take(0, log, tl.start.Add(25*time.Millisecond), &what); err != nil {
		t.Fatal(err)
	}
	var f = Figure{Latency: newHistogram()}
	l.tally.drain(&f, newHistogram())
	for q, want := range map[float64]time.Duration{1: 5 * time.Millisecond, 50: 15 * time.Millisecond, 100: 25 * time.Millisecond} {
		if got := f.Quantile(q); got < want*99/100 || got > want*101/100 {
			t.Errorf("p%g %v, want %v", q, got, want)
		}
	}
	if err := s.take(0, log, tl.start, &what); err == nil || !strings.Contains(err.Error(), "a batch at offset 40") {
		t.Errorf("the same batches again: %v", err)
	}
	p.acked = 5
	tl.writerEnded()
	if want := 2 * int64(w.contents.records); s.missing() != want {
		t.Errorf("%d records are missing, want %d", s.missing(), want)
	}
}

// A reader of the tail names in a session only what has moved on, and everything to a target that
// keeps no sessions.
func TestTailSessions(t *testing.T) {
	w := newTailWork("t", Shape{Rate: 100, RecordBytes: 100, Partitions: 3}).(*tailWork)
	w.contents, w.begin = testContents(t, contentOptions{recordBytes: 100, batchBytes: 1, redundancy: 1}), []int64{0, 0, 0}
	p := &producer{id: 4}
	for _, c := range []struct {
		sessionID int32
		epoch     int32
		named     int
	}{{77, 1, 1}, {0, -1, 3}} {
		s := newTailing(w, time.Second, [][]*producer{{p, p, p}}).reader(1 << 20)
		s.tally = &newLane(s, 1).tally
		var out outbox
		if s.next(&out, 0, time.Time{}); len(s.places) != 3 || s.sessionEpoch != 0 {
			t.Errorf("the first request names %d partitions in epoch %d", len(s.places), s.sessionEpoch)
		}
		if _, err := s.answered(0, fetchAnswer(c.sessionID, 1, logOf(w.contents, p, 0, 2)), time.Now()); err != nil {
			t.Fatal(err)
		}
		s.next(&out, 1, time.Time{})
		if len(s.places) != c.named || s.sessionEpoch != c.epoch || s.sessionID != c.sessionID || s.off[1] != 2 {
			t.Errorf("session %d: the next request names %+v in epoch %d", s.sessionID, s.places, s.sessionEpoch)
		}
	}
}
