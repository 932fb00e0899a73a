package fuzz

import (
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// keyed is what a compacted topic has to hold, told by those who wrote to it. Each key has one
// writer, who sends one write of it after another.
type keyed struct {
	seed maphash.Seed

	mu struct {
		sync.Mutex
		latest  map[string]write           // the acknowledged write of a key with the greatest offset
		places  map[place]uint64           // what an acknowledged offset held
		doubt   map[string]map[uint64]bool // writes of a key that were sent and not answered: hash → is a tombstone
		aborted map[uint64]bool            // writes in transactions that were aborted
	}
}

// write is a record as far as it matters here.
type write struct {
	at   place
	key  string
	hash uint64 // of the key, the value and the headers
	gone bool   // a tombstone
}

func newKeyed() *keyed {
	k := &keyed{seed: maphash.MakeSeed()}
	k.mu.latest, k.mu.places = map[string]write{}, map[place]uint64{}
	k.mu.doubt, k.mu.aborted = map[string]map[uint64]bool{}, map[uint64]bool{}
	return k
}

func (k *keyed) write(partition int32, off int64, key, value []byte, headers []kgo.RecordHeader) write {
	var h maphash.Hash
	h.SetSeed(k.seed)
	maphash.WriteComparable(&h, [2]int{len(key), len(value)})
	h.Write(key)
	h.Write(value)
	for _, x := range headers {
		maphash.WriteComparable(&h, [2]string{x.Key, string(x.Value)})
	}
	return write{place{partition, off}, string(key), h.Sum64(), value == nil}
}

func (k *keyed) of(r *kgo.Record) write {
	return k.write(r.Partition, r.Offset, r.Key, r.Value, r.Headers)
}

// sent notes a write before it is sent: from here on it may be in the log.
func (k *keyed) sent(r *kgo.Record) {
	w := k.of(r)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.mu.doubt[w.key] == nil {
		k.mu.doubt[w.key] = map[uint64]bool{}
	}
	k.mu.doubt[w.key][w.hash] = w.gone
}

// acked notes that writes are in the log for good.
func (k *keyed) acked(rs ...*kgo.Record) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range rs {
		w := k.of(r)
		delete(k.mu.doubt[w.key], w.hash)
		k.mu.places[w.at] = w.hash
		if was, ok := k.mu.latest[w.key]; !ok || was.at.off < w.at.off {
			k.mu.latest[w.key] = w
		}
	}
}

// dropped notes that the transaction of these writes was aborted: no reader of what is committed may see them.
func (k *keyed) dropped(rs ...*kgo.Record) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range rs {
		w := k.of(r)
		delete(k.mu.doubt[w.key], w.hash)
		k.mu.aborted[w.hash] = true
	}
}

// shown says what is wrong with a record that a reader was shown, whatever else there is.
func (k *keyed) shown(w write) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.shownLocked(w)
}

func (k *keyed) shownLocked(w write) error {
	if was, ok := k.mu.places[w.at]; ok {
		if was != w.hash {
			return fmt.Errorf("partition %d offset %d was told to hold another record than that of key %s", w.at.partition, w.at.off, w.key)
		}
		return nil
	}
	if k.mu.aborted[w.hash] {
		return fmt.Errorf("partition %d offset %d: a write of key %s is shown whose transaction was aborted", w.at.partition, w.at.off, w.key)
	}
	if _, ok := k.mu.doubt[w.key][w.hash]; !ok {
		return fmt.Errorf("partition %d offset %d holds a write of key %s that nobody sent, or that was acknowledged elsewhere", w.at.partition, w.at.off, w.key)
	}
	return nil
}

// keyedCheck narrows what check asks.
type keyedCheck struct {
	// tombstonesGo: a tombstone may have gone, and its key with it.
	tombstonesGo bool
	// excused says that what is written at a place cannot be read.
	excused func(at place) bool
}

// check holds everything that the topic's partitions hold, in the order of offsets, against what was told: the latest
// acknowledged write of each key is there and is its latest, unless one follows that was never answered.
func (k *keyed) check(found []write, o keyedCheck) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	last := map[string]write{}
	reached := map[int32]int64{}
	for _, w := range found {
		if before, ok := reached[w.at.partition]; ok && w.at.off <= before {
			errs = append(errs, fmt.Errorf("partition %d: offset %d comes after %d", w.at.partition, w.at.off, before))
		}
		reached[w.at.partition] = w.at.off
		if err := k.shownLocked(w); err != nil {
			errs = append(errs, err)
		}
		last[w.key] = w
	}
	for key, want := range k.mu.latest {
		got, ok := last[key]
		switch {
		case o.excused != nil && o.excused(want.at):
		case ok && got.at == want.at: // and of one hash, or it would not have been shown
		case ok && got.at.off > want.at.off: // one that was not answered, or it would not have been shown
		case ok:
			errs = append(errs, fmt.Errorf("key %s: the latest write was acknowledged at partition %d offset %d, and is gone; the latest there is at offset %d", key, want.at.partition, want.at.off, got.at.off))
		case o.tombstonesGo && (want.gone || slices.Contains(values(k.mu.doubt[key]), true)):
		default:
			errs = append(errs, fmt.Errorf("key %s: the latest write was acknowledged at partition %d offset %d (tombstone: %t), and no write of the key is left", key, want.at.partition, want.at.off, want.gone))
		}
	}
	if len(errs) > 10 {
		errs = append(errs[:10], fmt.Errorf("and %d more", len(errs)-10))
	}
	return errors.Join(errs...)
}

func values(m map[uint64]bool) (out []bool) {
	for _, v := range m {
		out = append(out, v)
	}
	return out
}

// repeated returns the keys of which more than one write is left among those that a cleaner has been over.
func repeated(found []write, cleaned func(at place) bool) map[string][]write {
	of := map[string][]write{}
	for _, w := range found {
		if cleaned(w.at) {
			of[w.key] = append(of[w.key], w)
		}
	}
	for key, ws := range of {
		if len(ws) < 2 {
			delete(of, key)
		}
	}
	return of
}

// The check finds what a cleaner may do wrong.
func TestKeyedCheckFindsFaults(t *testing.T) {
	rec := func(off int64, key, value string) *kgo.Record {
		r := &kgo.Record{Offset: off, Key: []byte(key)}
		if value != "" {
			r.Value = []byte(value)
		}
		return r
	}
	k := newKeyed()
	all := []*kgo.Record{rec(0, "a", "1"), rec(1, "b", "1"), rec(2, "a", "2"), rec(3, "c", "1"), rec(4, "c", ""), rec(5, "d", "1")}
	for _, r := range all {
		k.sent(r)
	}
	k.acked(all...)
	k.sent(rec(0, "b", "2"))
	k.sent(rec(0, "d", ""))
	k.sent(rec(0, "e", "1"))
	k.dropped(rec(0, "e", "1"))
	for _, c := range []struct {
		name   string
		found  []*kgo.Record
		o      keyedCheck
		passes bool
	}{
		{"nothing cleaned", all, keyedCheck{}, true},
		{"cleaned", []*kgo.Record{all[1], all[2], all[4], all[5]}, keyedCheck{}, true},
		{"with a write that was not answered", []*kgo.Record{all[1], all[2], all[4], all[5], rec(6, "b", "2")}, keyedCheck{}, true},
		{"tombstones gone", []*kgo.Record{all[1], all[2], all[5]}, keyedCheck{tombstonesGo: true}, true},
		{"a tombstone that was not answered took its key away", []*kgo.Record{all[1], all[2]}, keyedCheck{tombstonesGo: true}, true},
		{"the latest cannot be read", []*kgo.Record{all[1], all[4], all[5]}, keyedCheck{excused: func(at place) bool { return at.off == 2 }}, true},
		{"a tombstone gone too early", []*kgo.Record{all[1], all[2], all[5]}, keyedCheck{}, false},
		{"a key lost", []*kgo.Record{all[2], all[4], all[5]}, keyedCheck{tombstonesGo: true}, false},
		{"the latest lost, the one before kept", []*kgo.Record{all[0], all[1], all[4], all[5]}, keyedCheck{}, false},
		{"a deleted key back", []*kgo.Record{all[1], all[2], all[3], all[5]}, keyedCheck{tombstonesGo: true}, false},
		{"an offset changed", []*kgo.Record{all[1], all[2], all[4], rec(6, "d", "1")}, keyedCheck{}, false},
		{"a value changed", []*kgo.Record{all[1], rec(2, "a", "3"), all[4], all[5]}, keyedCheck{}, false},
		{"aborted writes shown", append(slices.Clone(all), rec(6, "e", "1")), keyedCheck{}, false},
		{"a record twice", []*kgo.Record{all[1], all[2], all[2], all[4], all[5]}, keyedCheck{}, false},
		{"an answered write after the one that was not", []*kgo.Record{all[2], all[4], all[5], rec(1, "b", "2")}, keyedCheck{}, false},
	} {
		var found []write
		for _, r := range c.found {
			found = append(found, k.of(r))
		}
		if err := k.check(found, c.o); (err == nil) != c.passes {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if got := repeated([]write{k.of(all[0]), k.of(all[1]), k.of(all[2])}, func(at place) bool { return at.off < 3 }); len(got) != 1 || len(got["a"]) != 2 {
		t.Errorf("written more than once: %v", got)
	}
}
