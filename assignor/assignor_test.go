package assignor

import (
	"fmt"
	"maps"
	"math/rand"
	"runtime"
	"slices"
	"testing"
)

// randomSpec makes a small group. racks 0: none is known.
func randomSpec(rng *rand.Rand, racks int) *Spec {
	s := &Spec{Topics: map[[16]byte]Topic{}, Homogeneous: rng.Intn(2) == 0}
	var ids [][16]byte
	for range 1 + rng.Intn(4) {
		t := Topic{Partitions: int32(1 + rng.Intn(8))}
		rng.Read(t.ID[:])
		if racks > 0 && rng.Intn(8) > 0 {
			seed, width := rng.Int63(), 1+rng.Intn(2)
			t.Racks = func(p int32) []string {
				in := rand.New(rand.NewSource(seed + int64(p)))
				out := make([]string, width)
				for i := range out {
					out[i] = fmt.Sprint("r", in.Intn(racks))
				}
				return out
			}
		}
		ids = append(ids, t.ID)
		s.Topics[t.ID] = t
	}
	subscription := func() map[[16]byte]struct{} {
		out := map[[16]byte]struct{}{ids[0]: {}}
		for _, id := range ids[1:] {
			if rng.Intn(2) == 0 {
				out[id] = struct{}{}
			}
		}
		return out
	}
	all := subscription()
	for i := range 1 + rng.Intn(6) {
		m := Member{ID: fmt.Sprintf("m%d", i), Topics: all, Current: Assignment{}}
		if !s.Homogeneous {
			m.Topics = subscription()
		}
		if racks > 0 && rng.Intn(6) > 0 {
			m.Rack = fmt.Sprint("r", rng.Intn(racks))
		}
		if rng.Intn(4) == 0 {
			m.InstanceID = fmt.Sprint("i", 9-i)
		}
		s.Members = append(s.Members, m)
	}
	return s
}

// next is the spec after a change, with the target as what members have.
func next(rng *rand.Rand, s *Spec, target map[string]Assignment) *Spec {
	n := *s
	n.Newest = ""
	n.Members = nil
	for _, m := range s.Members {
		m.Current = target[m.ID]
		n.Members = append(n.Members, m)
	}
	switch rng.Intn(4) {
	case 0:
		if len(n.Members) > 1 {
			i := rng.Intn(len(n.Members))
			n.Members = slices.Delete(n.Members, i, i+1)
		}
	case 1:
		n.Newest = fmt.Sprint("n", rng.Intn(100))
		if !slices.ContainsFunc(n.Members, func(m Member) bool { return m.ID == n.Newest }) {
			joins := n.Members[rng.Intn(len(n.Members))]
			joins.ID, joins.InstanceID, joins.Current = n.Newest, "", Assignment{}
			n.Members = append(n.Members, joins)
		}
	case 2:
		n.Topics = maps.Clone(n.Topics)
		for id, t := range n.Topics {
			t.Partitions += int32(rng.Intn(3))
			n.Topics[id] = t
		}
	}
	slices.SortFunc(n.Members, func(a, b Member) int { return compareStrings(a.ID, b.ID) })
	return &n
}

// chainSpec makes a group in which each member subscribes to two neighbouring topics, so that balance goes a long way.
func chainSpec(rng *rand.Rand, racks int) *Spec {
	s := &Spec{Topics: map[[16]byte]Topic{}}
	var ids [][16]byte
	for range 3 + rng.Intn(6) {
		t := Topic{Partitions: int32(1 + rng.Intn(12))}
		rng.Read(t.ID[:])
		shift := rng.Intn(racks)
		t.Racks = func(p int32) []string { return []string{fmt.Sprint("r", (int(p)*5+shift)%racks)} }
		ids = append(ids, t.ID)
		s.Topics[t.ID] = t
	}
	for i := range 3 + rng.Intn(12) {
		at := rng.Intn(len(ids) - 1)
		s.Members = append(s.Members, Member{
			ID: fmt.Sprintf("m%d", i), Rack: fmt.Sprint("r", rng.Intn(racks)),
			Topics: map[[16]byte]struct{}{ids[at]: {}, ids[at+1]: {}}, Current: Assignment{},
		})
	}
	slices.SortFunc(s.Members, func(a, b Member) int { return compareStrings(a.ID, b.ID) })
	return s
}

// Random groups through random changes: a dumb check of everything that the package promises.
func TestInvariants(t *testing.T) {
	for seed := range int64(500) {
		rng := rand.New(rand.NewSource(seed))
		checkChanges(t, seed, rng, randomSpec(rng, int(seed%4)))
	}
}

// Where subscriptions overlap, members that have exchanged partitions may be able to balance further: that is done at once,
// not the next time. The seeds are such groups; the last two balance twice more.
func TestBalanceGoesOnAfterRacks(t *testing.T) {
	for _, seed := range []int64{4842, 9795, 10939, 13415} {
		rng := rand.New(rand.NewSource(seed))
		checkChanges(t, seed, rng, randomSpec(rng, int(seed%4)))
	}
	for _, seed := range []int64{6, 221, 311, 314, 546, 843, 37269, 171015} {
		rng := rand.New(rand.NewSource(seed))
		checkChanges(t, seed, rng, chainSpec(rng, 2+int(seed%3)))
	}
}

// checkChanges takes a group through random changes.
func checkChanges(t *testing.T, seed int64, rng *rand.Rand, s *Spec) {
	t.Helper()
	for step := range 5 {
		for _, a := range []Assignor{Uniform{}, Range{}} {
			got, err := a.Assign(s)
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if err := checkTarget(s, a, got); err != nil {
				t.Fatalf("seed %d step %d %s: %v\n%s", seed, step, a.Name(), err, show(s, got))
			}
		}
		target, _ := Uniform{}.Assign(s)
		s = next(rng, s, target)
	}
}

func show(s *Spec, got map[string]Assignment) (out string) {
	for _, m := range s.Members {
		out += fmt.Sprintf("%s instance %q rack %q had %v has %v\n", m.ID, m.InstanceID, m.Rack, m.Current, got[m.ID])
	}
	for id, topic := range s.Topics {
		out += fmt.Sprintf("%x: %d partitions", id[:2], topic.Partitions)
		for p := range topic.Partitions {
			if topic.Racks != nil {
				out += fmt.Sprint(" ", topic.Racks(p))
			}
		}
		out += "\n"
	}
	return out
}

func checkTarget(s *Spec, a Assignor, got map[string]Assignment) error {
	owner, err := owners(s, got)
	if err != nil {
		return err
	}
	for _, m := range s.Members {
		for id := range m.Topics {
			for p := range s.Topics[id].Partitions {
				if _, ok := owner[part{id, p}]; !ok {
					return fmt.Errorf("%x-%d is nobody's", id[:2], p)
				}
			}
		}
	}
	bare := *s
	bare.Topics = map[[16]byte]Topic{}
	for id, t := range s.Topics {
		bare.Topics[id] = Topic{ID: id, Partitions: t.Partitions}
	}
	plain, err := a.Assign(&bare)
	if err != nil {
		return err
	}
	if err := balanced(s, a, plain, got); err != nil {
		return err
	}
	if a.Name() == "range" {
		if got, most := local(s, got), mostLocalRange(s, plain); got != most {
			return fmt.Errorf("%d partitions are at a member in the rack of a replica, %d could be", got, most)
		}
	} else {
		most, fewest := best(s, got)
		if local(s, got) != most || racksMatter(s) && movedKinds(s, got) != fewest {
			return fmt.Errorf("%d partitions are at a member in the rack of a replica, %d could be; %d moved to another kind of member, %d have to", local(s, got), most, movedKinds(s, got), fewest)
		}
		again := *s
		again.Members = slices.Clone(s.Members)
		for i := range again.Members {
			again.Members[i].Current = got[again.Members[i].ID]
		}
		twice, _ := a.Assign(&again)
		if !equal(got, twice) {
			return fmt.Errorf("assigned again, nothing having changed, it is\n%s", show(s, twice))
		}
	}
	return nil
}

type part struct {
	topic [16]byte
	p     int32
}

// owners inverts a target, and refuses what is assigned twice, not subscribed, not there, or out of order.
func owners(s *Spec, got map[string]Assignment) (map[part]string, error) {
	out := map[part]string{}
	if len(got) != len(s.Members) {
		return nil, fmt.Errorf("%d of %d members have a target", len(got), len(s.Members))
	}
	for _, m := range s.Members {
		for id, parts := range got[m.ID] {
			if _, ok := m.Topics[id]; !ok || len(parts) == 0 || !slices.IsSorted(parts) {
				return nil, fmt.Errorf("%s has %v of %x", m.ID, parts, id[:2])
			}
			for _, p := range parts {
				if other, twice := out[part{id, p}]; twice || p < 0 || p >= s.Topics[id].Partitions {
					return nil, fmt.Errorf("%s has %x-%d, %s too", m.ID, id[:2], p, other)
				}
				out[part{id, p}] = m.ID
			}
		}
	}
	return out, nil
}

func racksMatter(s *Spec) bool {
	t, _ := newTable(s)
	return t.racks != nil
}

func count(a Assignment) (n int) {
	for _, parts := range a {
		n += len(parts)
	}
	return n
}

// balanced compares with plain, which is the target without racks.
func balanced(s *Spec, a Assignor, plain, got map[string]Assignment) error {
	least, most, differs := 1<<30, 0, false
	for id, x := range got {
		least, most = min(least, count(x)), max(most, count(x))
		if a.Name() == "range" {
			for topic := range s.Topics {
				if len(x[topic]) != len(plain[id][topic]) {
					return fmt.Errorf("%s has %d of %x, without racks %d", id, len(x[topic]), topic[:2], len(plain[id][topic]))
				}
			}
		}
		differs = differs || count(x) != count(plain[id])
	}
	if a.Name() == "uniform" && !s.Homogeneous && differs && unevenness(got) >= unevenness(plain) {
		return fmt.Errorf("other numbers than without racks, and no better balanced")
	}
	if a.Name() == "uniform" && s.Homogeneous && most > least+1 {
		return fmt.Errorf("from %d to %d partitions", least, most)
	}
	if a.Name() == "range" && s.Homogeneous {
		for x := range s.Topics {
			for y := range s.Topics {
				if s.Topics[x].Partitions == s.Topics[y].Partitions && len(s.Members[0].Topics) == len(s.Topics) {
					for id := range got {
						if !slices.Equal(got[id][x], got[id][y]) {
							return fmt.Errorf("%s has %v of %x and %v of %x", id, got[id][x], x[:2], got[id][y], y[:2])
						}
					}
				}
			}
		}
	}
	return nil
}

// unevenness is less the better numbers of partitions, of which there are as many in all, are balanced.
func unevenness(target map[string]Assignment) (n int) {
	for _, a := range target {
		n += count(a) * count(a)
	}
	return n
}

func equal(a, b map[string]Assignment) bool {
	return maps.EqualFunc(a, b, func(x, y Assignment) bool { return maps.EqualFunc(x, y, slices.Equal[[]int32]) })
}

func isLocal(s *Spec, m *Member, id [16]byte, p int32) bool {
	racks := s.Topics[id].Racks
	return m.Rack != "" && racks != nil && slices.Contains(racks(p), m.Rack)
}

func local(s *Spec, got map[string]Assignment) (n int) {
	for i := range s.Members {
		m := &s.Members[i]
		for id, parts := range got[m.ID] {
			for _, p := range parts {
				if isLocal(s, m, id, p) {
					n++
				}
			}
		}
	}
	return n
}

// Who is not needed elsewhere keeps what it has: a member that joins takes its share and nothing else moves.
func TestRacksKeepWhatIsLocal(t *testing.T) {
	s := rackSpec(60, 600, 2, 3)
	before, _ := Uniform{}.Assign(s)
	for i := range s.Members {
		s.Members[i].Current = before[s.Members[i].ID]
	}
	joins := s.Members[0]
	joins.ID, joins.Current = "z", Assignment{}
	s.Members = append(s.Members, joins)
	after, err := Uniform{}.Assign(s)
	if err != nil {
		t.Fatal(err)
	}
	moved := 0
	for _, m := range s.Members {
		for id, parts := range after[m.ID] {
			for _, p := range parts {
				if !slices.Contains(m.Current[id], p) {
					moved++
				}
			}
		}
	}
	// 600 over 61: z gets 9 and 10 of the rest, at most one each, give one up.
	if n := count(after["z"]); moved > n+2 || local(s, after) != 600 {
		t.Errorf("%d partitions moved for %d of the new member; %d are local", moved, n, local(s, after))
	}
}

// allocated is how many bytes it takes to assign.
func allocated(t *testing.T, a Assignor, s *Spec) (got map[string]Assignment, bytes uint64) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got, err := a.Assign(s)
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatal(err)
	}
	return got, after.TotalAlloc - before.TotalAlloc
}

// Racks in which no replica is make nobody local, however many there are: they cost nothing.
func TestRacksWithoutReplicas(t *testing.T) {
	for _, a := range []Assignor{Uniform{}, Range{}} {
		s := rackSpec(5000, 100, 1, 2)
		for i := range s.Members[2:] {
			s.Members[2+i].Rack = fmt.Sprint("nowhere-", i)
		}
		got, bytes := allocated(t, a, s)
		if n := local(s, got); n != 2 {
			t.Errorf("%s: %d partitions are local", a.Name(), n)
		}
		if bytes > 8<<20 {
			t.Errorf("%s takes %d bytes", a.Name(), bytes)
		}
	}
}

// Where members are of very many kinds, for each subscribes to something else, racks are left alone.
func TestMembersOfManyKinds(t *testing.T) {
	s := rackSpec(2000, 1200, 1, 2)
	s.Homogeneous = false
	for i := range s.Members {
		s.Members[i].Topics = maps.Clone(s.Members[i].Topics)
		maps.DeleteFunc(s.Members[i].Topics, func(id [16]byte, _ struct{}) bool { return i>>id[1]&1 == 0 && id[1] < 11 })
	}
	got, bytes := allocated(t, Uniform{}, s)
	if bytes > 8<<20 {
		t.Errorf("%d bytes", bytes)
	}
	for id, topic := range s.Topics {
		topic.Racks = nil
		s.Topics[id] = topic
	}
	if plain, _ := (Uniform{}).Assign(s); !equal(got, plain) {
		t.Error("racks were looked at")
	}
}

// One search for a circle is bounded like all of them: here ways become longer by one arc a round.
func TestSearchForACircleIsBounded(t *testing.T) {
	const n = 60
	x := &exchange{least: -1}
	for i := range int32(n) {
		worth := filled(n, -1)
		worth[i], worth[max(i-1, 0)] = 0, 1
		x.owner, x.home, x.class, x.worth = append(x.owner, i), append(x.home, -1), append(x.class, i), append(x.worth, worth)
		x.node, x.size = append(x.node, i), append(x.size, 1)
	}
	x.steps = exchangeSteps - 3*n*n // the arcs, the pairs and a round
	if x.run(); x.steps > exchangeSteps+n*n {
		t.Errorf("%d steps more than there are", x.steps-exchangeSteps)
	}
}

func TestUnknownTopicIsAnError(t *testing.T) {
	s := &Spec{Members: []Member{{ID: "a", Topics: map[[16]byte]struct{}{{1}: {}}}}, Homogeneous: true}
	for _, a := range []Assignor{Uniform{}, Range{}} {
		if _, err := a.Assign(s); err == nil {
			t.Errorf("%s assigns a topic that is not there", a.Name())
		}
	}
	for _, a := range []Assignor{Uniform{}, Range{}} {
		if got, err := a.Assign(&Spec{Homogeneous: true}); err != nil || len(got) != 0 {
			t.Errorf("%s of nobody: %v, %v", a.Name(), got, err)
		}
	}
}

// A group may say that all subscribe to the same while one does not yet: nobody is given what it does not subscribe to.
func TestNotAsHomogeneousAsSaid(t *testing.T) {
	one, two := [16]byte{1}, [16]byte{2}
	s := &Spec{
		Topics: map[[16]byte]Topic{one: {ID: one, Partitions: 5}, two: {ID: two, Partitions: 3}},
		Members: []Member{
			{ID: "a"}, {ID: "b", Topics: map[[16]byte]struct{}{one: {}, two: {}}, Current: Assignment{one: {0, 1}}},
			{ID: "c", Topics: map[[16]byte]struct{}{two: {}}},
		},
		Homogeneous: true,
	}
	for _, a := range []Assignor{Uniform{}, Range{}} {
		got, err := a.Assign(s)
		if err != nil {
			t.Fatal(err)
		}
		if owner, err := owners(s, got); err != nil || len(owner) != 8 {
			t.Errorf("%s: %v, %v", a.Name(), got, err)
		}
	}
}

// rackSpec is members in racks that take turns, and topics of 100 partitions with that many replicas.
func rackSpec(members, partitions, replicas, racks int) *Spec {
	s := &Spec{Topics: map[[16]byte]Topic{}, Homogeneous: true}
	all := map[[16]byte]struct{}{}
	for i := range partitions / 100 {
		topic := Topic{ID: [16]byte{byte(i >> 8), byte(i), 1}, Partitions: 100}
		if racks > 0 {
			topic.Racks = func(p int32) []string {
				out := make([]string, replicas)
				for r := range out {
					out[r] = fmt.Sprint("r", (int(p)*7+r+i)%racks)
				}
				return out
			}
		}
		s.Topics[topic.ID], all[topic.ID] = topic, struct{}{}
	}
	for i := range members {
		m := Member{ID: fmt.Sprintf("member-%04d", i), Topics: all}
		if racks > 0 {
			m.Rack = fmt.Sprint("r", i%racks)
		}
		s.Members = append(s.Members, m)
	}
	return s
}

// 1000 members, 10 000 partitions: from nothing, and after one member has left.
func BenchmarkAssign(b *testing.B) {
	for _, a := range []Assignor{Uniform{}, Range{}} {
		for _, racks := range []int{0, 3, 10, 100} {
			for _, mixed := range []bool{false, true} {
				s := rackSpec(1000, 10_000, 2, racks)
				if mixed {
					s.Homogeneous = false
					few := maps.Clone(s.Members[0].Topics)
					maps.DeleteFunc(few, func(id [16]byte, _ struct{}) bool { return id[1]%2 == 0 })
					for i := range s.Members {
						if i/10%2 == 0 {
							s.Members[i].Topics = few
						}
					}
				}
				name := fmt.Sprintf("%s/racks=%d/mixed=%v", a.Name(), racks, mixed)
				b.Run(name+"/fresh", func(b *testing.B) {
					for b.Loop() {
						a.Assign(s)
					}
				})
				got, err := a.Assign(s)
				if err != nil {
					b.Fatal(err)
				}
				left := *s
				left.Members = slices.Clone(s.Members[1:])
				for i := range left.Members {
					left.Members[i].Current = got[left.Members[i].ID]
				}
				b.Run(name+"/left", func(b *testing.B) {
					for b.Loop() {
						a.Assign(&left)
					}
				})
			}
		}
	}
}
