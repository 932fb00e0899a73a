package groups

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-project/millrace/wire"
)

// twin is what the offsets should be, in two maps.
type twin struct {
	groups  map[string]bool
	offsets map[offsetKey]twinOffset
	pending map[int64]map[offsetKey]twinOffset
	serial  int
}

type twinOffset struct {
	offset   int64
	serial   int // of the commit: a transaction's end does not undo a later one
	commitMs int64
}

func (w *twin) commit(k offsetKey, offset, nowMs int64) {
	w.serial++
	w.groups[k.group] = true
	w.offsets[k] = twinOffset{offset, w.serial, nowMs}
}

func (w *twin) txnCommit(producer int64, k offsetKey, offset, nowMs int64) {
	w.serial++
	w.groups[k.group] = true
	if w.pending[producer] == nil {
		w.pending[producer] = map[offsetKey]twinOffset{}
	}
	w.pending[producer][k] = twinOffset{offset, w.serial, nowMs}
}

func (w *twin) end(producer int64, commit bool) {
	if commit {
		for k, o := range w.pending[producer] {
			if o.serial > w.offsets[k].serial {
				w.offsets[k] = o
			}
		}
	}
	delete(w.pending, producer)
}

func (w *twin) isPending(match func(offsetKey) bool) bool {
	for _, offsets := range w.pending {
		for k := range offsets {
			if match(k) {
				return true
			}
		}
	}
	return false
}

// remove forgets offsets, pending ones too.
func (w *twin) remove(match func(offsetKey) bool) {
	maps.DeleteFunc(w.offsets, func(k offsetKey, _ twinOffset) bool { return match(k) })
	for _, offsets := range w.pending {
		maps.DeleteFunc(offsets, func(k offsetKey, _ twinOffset) bool { return match(k) })
	}
}

func (w *twin) expire(nowMs, retentionMs int64) {
	maps.DeleteFunc(w.offsets, func(k offsetKey, o twinOffset) bool {
		return nowMs-o.commitMs >= retentionMs && !w.isPending(func(p offsetKey) bool { return p == k })
	})
	for id := range w.groups {
		left := w.isPending(func(k offsetKey) bool { return k.group == id })
		for k := range w.offsets {
			left = left || k.group == id
		}
		if !left {
			delete(w.groups, id)
		}
	}
}

// fetch prints as the test kit does.
func (w *twin) fetch(group string, stable bool) string {
	var out []string
	for k, o := range w.offsets {
		if k.group != group {
			continue
		}
		s := fmt.Sprintf("%s %d %d", k.topic, k.partition, o.offset)
		if stable && w.isPending(func(p offsetKey) bool { return p == k }) {
			s = fmt.Sprintf("%s %d %v", k.topic, k.partition, wire.UnstableOffsetCommit)
		}
		out = append(out, s)
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// Random commits, transactions, deletions and expiries of simple groups: the machine answers as the twin does, and a
// machine made from the log alone knows the same.
func TestRandomOffsets(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewSource(seed))
	rounds := 60
	if testing.Short() {
		rounds = 10
	}
	for round := range rounds {
		if !randomOffsets(t, rng, fmt.Sprintf("seed %d round %d", seed, round)) {
			return
		}
	}
}

func randomOffsets(t *testing.T, rng *rand.Rand, where string) bool {
	k := newOffsetsKit(t)
	w := &twin{groups: map[string]bool{}, offsets: map[offsetKey]twinOffset{}, pending: map[int64]map[offsetKey]twinOffset{}}
	var did []string
	for range 300 {
		group, producer := string(rune('f'+rng.Intn(4))), int64(1+rng.Intn(3))
		key := offsetKey{group, topicPartition{string(rune('a' + rng.Intn(4))), int32(rng.Intn(4))}}
		offset := int64(rng.Intn(1000))
		k.now += int64(rng.Intn(40))
		did = append(did, randomOffsetStep(rng, k, w, key, producer, offset))
		ids := slices.Sorted(maps.Keys(k.m.groups))
		if !slices.Equal(ids, slices.Sorted(maps.Keys(w.groups))) {
			t.Errorf("%s: groups %v, the twin has %v", where, ids, w.groups)
		}
		for _, g := range []string{"f", "g", "h", "i"} {
			for _, stable := range []bool{false, true} {
				if got, want := fetch(k.m, g, stable), w.fetch(g, stable); got != want {
					t.Errorf("%s: group %s, stable %v:\n%s\nthe twin:\n%s", where, g, stable, got, want)
				}
			}
		}
		if rng.Intn(10) == 0 {
			if got, want := storedOffsets(k.replayed()), storedOffsets(k.m); got != want {
				t.Errorf("%s: replayed:\n%s\nlive:\n%s", where, got, want)
			}
		}
		if t.Failed() {
			t.Logf("%s", strings.Join(did[max(0, len(did)-20):], "\n"))
			return false
		}
	}
	return true
}

func randomOffsetStep(rng *rand.Rand, k *offsetsKit, w *twin, key offsetKey, producer, offset int64) string {
	same := func(o offsetKey) bool { return o == key }
	switch n := rng.Intn(100); {
	case n < 35:
		k.commit(commitRequest(9, key.group, fmt.Sprintf("%s %d %d", key.topic, key.partition, offset)))
		w.commit(key, offset, k.now)
		return fmt.Sprintf("commit %v %d", key, offset)
	case n < 65:
		k.txnCommit(producer, key.group, key.topic, key.partition, offset)
		w.txnCommit(producer, key, offset, k.now)
		return fmt.Sprintf("commit %v %d by %d", key, offset, producer)
	case n < 80:
		commit := rng.Intn(3) > 0
		k.end(producer, commit)
		w.end(producer, commit)
		return fmt.Sprintf("end of %d, commit %v", producer, commit)
	case n < 88:
		k.delete(key.group, fmt.Sprintf("%s %d", key.topic, key.partition))
		if w.groups[key.group] {
			w.remove(same)
		}
		return fmt.Sprintf("delete %v", key)
	case n < 92:
		if code, recs := k.m.deleteGroup(key.group); code == wire.None {
			k.run(decision{records: recs})
			w.remove(func(o offsetKey) bool { return o.group == key.group })
			delete(w.groups, key.group)
		}
		return "delete group " + key.group
	case n < 94:
		k.img = madeAgain(k.img, key.topic, topicID(fmt.Sprint(key.topic, k.img.LogEnd())))
		k.m.topicsDeleted([]string{key.topic})
		k.dropGone()
		w.remove(func(o offsetKey) bool { return o.topic == key.topic })
		return "delete topic " + key.topic
	default:
		k.now += int64(rng.Intn(800))
		k.run(k.m.expireOffsets())
		w.expire(k.now, k.cfg.OffsetsRetentionMs)
		return "expire"
	}
}

// storedOffsets is stored without the groups: one that lost its last offset has no record, and is not there after a load.
func storedOffsets(m *Machine) string {
	lines := strings.Split(stored(m), "\n")
	lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "group ") })
	slices.SortFunc(lines, cmp.Compare)
	return strings.Join(lines, "\n")
}
