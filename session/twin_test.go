package session

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"
)

// twin is the sessions of Kafka's description, written as plainly as possible: lists, copies,
// linear searches.
type twin struct {
	slots    int
	sessions []*twinSession
	ids      func() uint32
}

type twinSession struct {
	id             int32
	ids, follower  bool
	created, used  int64
	sizeWhenUsed   int
	evictableByAll bool
	epoch          int32
	parts          []twinPart
}

type twinPart struct {
	want       Partition
	hw, start  int64
	identifier string
}

func twinID(k Key, ids bool) string {
	if ids {
		return fmt.Sprintf("%x/%d", k.TopicID, k.Partition)
	}
	return fmt.Sprintf("%s/%d", k.Topic, k.Partition)
}

func (t *twin) find(id int32) *twinSession {
	for _, s := range t.sessions {
		if s.id == id {
			return s
		}
	}
	return nil
}

func (t *twin) remove(id int32) {
	t.sessions = slices.DeleteFunc(t.sessions, func(s *twinSession) bool { return s.id == id })
}

func (s *twinSession) add(p Partition) {
	id := twinID(p.Key, s.ids)
	for i := range s.parts {
		if s.parts[i].identifier == id {
			s.parts[i].want = p
			return
		}
	}
	s.parts = append(s.parts, twinPart{want: p, hw: -1, start: -1, identifier: id})
}

func (s *twinSession) wants() []Partition {
	var out []Partition
	for _, p := range s.parts {
		out = append(out, p.want)
	}
	return out
}

// fetch does a whole request; results says what reading each partition gives.
func (t *twin) fetch(nowMs int64, req *Request, results func(Partition) Result) (int32, []Partition, []bool, error) {
	if req.Epoch <= 0 {
		if req.SessionID != 0 {
			t.remove(req.SessionID)
		}
		listed := make([]bool, len(req.Partitions))
		for i := range listed {
			listed[i] = true
		}
		if req.Epoch < 0 {
			return 0, req.Partitions, listed, nil
		}
		return t.create(nowMs, req, results), req.Partitions, listed, nil
	}
	s := t.find(req.SessionID)
	switch {
	case s == nil:
		return 0, nil, nil, ErrNotFound
	case s.epoch != req.Epoch:
		return 0, nil, nil, ErrInvalidEpoch
	case s.ids != req.UsesTopicIDs:
		return 0, nil, nil, ErrTopicIDMismatch
	}
	for _, p := range req.Partitions {
		s.add(p)
	}
	for _, k := range req.Forgotten {
		s.parts = slices.DeleteFunc(s.parts, func(p twinPart) bool { return p.identifier == twinID(k, s.ids) })
	}
	if len(s.parts) == 0 {
		t.remove(s.id)
		listed := make([]bool, len(req.Partitions))
		for i := range listed {
			listed[i] = true
		}
		return 0, req.Partitions, listed, nil
	}
	s.used, s.sizeWhenUsed, s.evictableByAll = nowMs, len(s.parts), nowMs-s.created > 120_000
	if s.epoch++; s.epoch < 0 {
		s.epoch = 1
	}
	wants := s.wants()
	var listed []bool
	var stay, rotate []twinPart
	for _, p := range s.parts {
		r := results(p.want)
		list := r.Bytes > 0 || r.HighWatermark != p.hw || r.LogStartOffset != p.start || r.Failed || r.Diverging || r.PreferredReplica
		listed = append(listed, list)
		p.hw, p.start = r.HighWatermark, r.LogStartOffset
		if r.Failed {
			p.hw = -1
		}
		if r.Bytes > 0 {
			rotate = append(rotate, p)
		} else {
			stay = append(stay, p)
		}
	}
	s.parts = append(stay, rotate...)
	return s.id, wants, listed, nil
}

func (t *twin) create(nowMs int64, req *Request, results func(Partition) Result) int32 {
	s := &twinSession{ids: req.UsesTopicIDs, follower: req.Follower, created: nowMs, used: nowMs, epoch: 1}
	for _, p := range req.Partitions {
		s.add(p)
	}
	for i := range s.parts {
		p := &s.parts[i]
		r := results(p.want)
		p.hw, p.start = r.HighWatermark, r.LogStartOffset
		if r.Failed {
			p.hw = -1
		}
	}
	s.sizeWhenUsed = len(s.parts)
	if len(t.sessions) >= t.slots {
		victim := t.victim(nowMs, s)
		if victim == nil {
			return 0
		}
		t.remove(victim.id)
	}
	for s.id == 0 || t.find(s.id) != nil {
		s.id = int32(t.ids() & 0x7fffffff)
	}
	t.sessions = append(t.sessions, s)
	return s.id
}

func (t *twin) victim(nowMs int64, s *twinSession) *twinSession {
	if len(t.sessions) == 0 {
		return nil
	}
	byUse := slices.Clone(t.sessions)
	slices.SortFunc(byUse, func(a, b *twinSession) int {
		return cmp.Or(cmp.Compare(a.used, b.used), cmp.Compare(a.id, b.id))
	})
	if nowMs-byUse[0].used > 120_000 {
		return byUse[0]
	}
	rank := func(s *twinSession) int {
		if s.follower {
			return 1
		}
		return 0
	}
	var may []*twinSession
	for _, o := range t.sessions {
		if o.evictableByAll || s.follower && !o.follower {
			may = append(may, o)
		}
	}
	compare := func(a, b *twinSession) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.sizeWhenUsed, b.sizeWhenUsed), cmp.Compare(a.id, b.id))
	}
	slices.SortFunc(may, compare)
	if len(may) == 0 || compare(s, may[0]) < 0 { // s has id 0 still
		return nil
	}
	return may[0]
}

func TestAgainstTwin(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for round := range 200 {
		rng := rand.New(rand.NewPCG(seed, uint64(round)))
		slots := rng.IntN(6)
		// Few ids, so that they collide.
		idSeed := rng.Uint64()
		ids := func() func() uint32 {
			r := rand.New(rand.NewPCG(idSeed, 1))
			return func() uint32 { return r.Uint32() & 0x8000001f }
		}
		c, tw := NewCache(slots, ids()), &twin{slots: slots, ids: ids()}
		type client struct{ id, epoch int32 }
		clients := make([]client, 8)
		now := int64(0)
		for step := range 300 {
			now += rng.Int64N(20_000)
			k := rng.IntN(len(clients))
			cl := &clients[k]
			req := randomRequest(rng, cl.id, cl.epoch)
			salt := rng.Uint64()
			results := func(p Partition) Result { return resultOf(salt, p) }
			wantID, wantParts, wantListed, wantErr := tw.fetch(now, req, results)
			x := new(Context)
			err := c.Begin(now, req, x)
			if err != wantErr {
				t.Fatalf("round %d step %d: Begin(%+v): %v, want %v", round, step, req, err, wantErr)
			}
			if err != nil {
				*cl = client{}
				continue
			}
			if got := x.Partitions(); len(got)+len(wantParts) > 0 && !reflect.DeepEqual(got, wantParts) {
				t.Fatalf("round %d step %d: reads %v, want %v", round, step, got, wantParts)
			}
			var rs []Result
			for _, p := range x.Partitions() {
				rs = append(rs, results(p))
			}
			id, listed, err := x.Finish(now, rs)
			if err != nil || id != wantID || len(listed)+len(wantListed) > 0 && !reflect.DeepEqual(listed, wantListed) {
				t.Fatalf("round %d step %d: Finish: %d %v %v, want %d %v", round, step, id, listed, err, wantID, wantListed)
			}
			switch {
			case id == 0:
				*cl = client{}
			case req.Epoch == 0:
				*cl = client{id, 1}
			default:
				cl.epoch++
			}
			if st := c.Stats(); st.Sessions != len(tw.sessions) {
				t.Fatalf("round %d step %d: %d sessions, want %d", round, step, st.Sessions, len(tw.sessions))
			}
		}
	}
}

func randomRequest(rng *rand.Rand, id, epoch int32) *Request {
	req := &Request{SessionID: id, Epoch: epoch, UsesTopicIDs: id%2 == 0, Follower: rng.IntN(5) == 0}
	switch rng.IntN(20) {
	case 0:
		req.Epoch = -1
	case 1:
		req.Epoch = 0
	case 2:
		req.Epoch += int32(rng.IntN(3)) - 1
	case 3:
		req.SessionID = rng.Int32N(40)
	case 4:
		req.UsesTopicIDs = !req.UsesTopicIDs
	}
	key := func() Key {
		n := rng.IntN(5)
		k := Key{Partition: int32(rng.IntN(2))}
		if req.UsesTopicIDs {
			k.TopicID[3] = byte(n)
			k.Topic = fmt.Sprint("resolved", rng.IntN(2))
		} else {
			k.Topic = fmt.Sprint("t", n)
		}
		return k
	}
	seen := map[string]bool{}
	for range rng.IntN(5) {
		k := key()
		if id := twinID(k, req.UsesTopicIDs); !seen[id] {
			seen[id] = true
			req.Partitions = append(req.Partitions, Partition{Key: k, FetchOffset: rng.Int64N(100), MaxBytes: rng.Int32N(100), CurrentLeaderEpoch: -1, LastFetchedEpoch: -1})
		}
	}
	for range rng.IntN(4) {
		req.Forgotten = append(req.Forgotten, key())
	}
	return req
}

// resultOf is what a partition gives in one step: the same to cache and twin.
func resultOf(salt uint64, p Partition) Result {
	rng := rand.New(rand.NewPCG(salt, uint64(p.FetchOffset)<<8|uint64(p.Partition)<<4|uint64(p.TopicID[3])+uint64(len(p.Topic))))
	return Result{
		HighWatermark: rng.Int64N(3), LogStartOffset: rng.Int64N(2), Bytes: max(0, rng.Int64N(20)-14),
		Failed: rng.IntN(12) == 0, Diverging: rng.IntN(15) == 0, PreferredReplica: rng.IntN(15) == 0,
	}
}
