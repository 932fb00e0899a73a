package twin

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Step is one thing that both brokers are asked at the same time.
type Step struct {
	Name   string
	Conn   int    // which connection of the sequence
	Label  string // under which a new producer id or fetch session is remembered
	Client *string

	Build  func(s *Side) []kmsg.Request       // several are written at once
	Silent func(i int) bool                   // whether request i (acks=0) gets no answer
	Raw    func(s *Side) (p []byte, n []Call) // bytes as they are, and the answers to expect
	Settle func(s *Side) error                // not compared: waits until the broker has got there

	Learn    func(s *Side, resp kmsg.Response) // takes what later requests need out of the answer
	Deferred bool                              // the answer is not waited for: a later step collects it
	Collect  []int                             // connections whose answers are due now, in the order of reading
	Alone    bool                              // no other sequence does such a step at the same time
	Insist   bool                              // CONCURRENT_TRANSACTIONS is no answer: the request is sent again
	Counted  bool                              // which partitions a member is assigned is not determined, how many are is
}

// topic is what the generator believes of one topic of its sequence. Beliefs steer the draw
// (which offsets are worth asking for); no answer is checked against them.
type topic struct {
	name       string
	partitions int32
	end        []int64
	compact    bool
	loose      bool // the broker compresses or stamps itself
	maxBytes   int
	deleted    bool
}

type generator struct {
	r        *rand.Rand
	prefix   string
	topics   []*topic
	steps    []Step
	sessions []*session
	pids     []*pid
	names    int

	groups      []*group
	groupTopics []*topic // only groups use them, nothing else changes them
	txns        []*txnProducer
	txnTopics   []*topic           // only transactions use them
	asked       map[partition]bool // has been sent a batch of a transaction
	outsiders   []string           // labels of producers without a transactional id
	ends        []int              // the number of steps after each move: there nothing is under way
}

type session struct {
	label   string
	epoch   int32
	version int16
	parts   []partition
}

type partition struct {
	topic *topic
	index int32
}

type pid struct {
	label string
	epoch int16 // above the one that the broker gave
	seq   map[partition]int32
	sent  []sent
}

type sent struct {
	at    partition
	batch Batch
}

// generate draws the steps of one sequence. The same seed and number give the same steps. Only
// moves whose name begins with only are drawn. tag becomes a part of all names.
func generate(seed uint64, number int, only, tag string) *generator {
	g := &generator{r: rand.New(rand.NewPCG(seed, uint64(number))), prefix: fmt.Sprintf("tw%s%d-%d", tag, seed, number), asked: map[partition]bool{}}
	g.createGood()
	length := 10 + g.r.IntN(20)
	for range length {
		g.pick(only)
		g.ends = append(g.ends, len(g.steps))
	}
	return g
}

// half returns the end of a move in the middle of the sequence.
func (g *generator) half() int { return g.ends[len(g.ends)/2] }

// allTopics are those that the sequence has created.
func (g *generator) allTopics() []*topic { return slices.Concat(g.topics, g.groupTopics, g.txnTopics) }

// moves with their weights: the main path most often, each rare corner often enough that a
// thousand sequences come by it at every version.
var moves = []struct {
	weight int
	name   string
	move   func(*generator)
}{
	{6, "apiVersions", (*generator).apiVersions},
	{8, "metadata", (*generator).metadata},
	{4, "metadataAutoCreate", (*generator).metadataAutoCreate},
	{3, "createGood", (*generator).createGood},
	{8, "createBad", (*generator).createBad},
	{4, "deleteTopics", (*generator).deleteTopics},
	{4, "createPartitions", (*generator).createPartitions},
	{6, "deleteRecords", (*generator).deleteRecords},
	{8, "describeConfigs", (*generator).describeConfigs},
	{8, "incrementalAlterConfigs", (*generator).incrementalAlterConfigs},
	{3, "alterConfigs", (*generator).alterConfigs},
	{3, "describeCluster", (*generator).describeCluster},
	{2, "listConfigResources", (*generator).listConfigResources},
	{5, "describeTopicPartitions", (*generator).describeTopicPartitions},
	{3, "findCoordinator", (*generator).findCoordinator},
	{24, "produceGood", (*generator).produceGood},
	{22, "produceBad", (*generator).produceBad},
	{6, "produceNoAcks", (*generator).produceNoAcks},
	{14, "produceIdempotent", (*generator).produceIdempotent},
	{3, "producePipelined", (*generator).producePipelined},
	{22, "fetchOnce", (*generator).fetchOnce},
	{20, "fetchSession", (*generator).fetchSession},
	{16, "listOffsets", (*generator).listOffsets},
	{8, "offsetForLeaderEpoch", (*generator).offsetForLeaderEpoch},
	{5, "initProducerID", (*generator).initProducerID},
	{4, "malformed", (*generator).malformed},
	{34, "groupClassic", (*generator).groupClassic},
	{34, "groupConsumer", (*generator).groupConsumer},
	{9, "groupMixed", (*generator).groupMixed},
	{24, "groupOffsets", (*generator).groupOffsets},
	{14, "groupShow", (*generator).groupShow},
	{5, "groupDelete", (*generator).groupDelete},
	{5, "groupConfigs", (*generator).groupConfigs},
	{7, "txnInit", (*generator).txnInit},
	{8, "txnAdd", (*generator).txnAdd},
	{12, "txnProduce", (*generator).txnProduce},
	{9, "txnProduceWrong", (*generator).txnProduceWrong},
	{7, "txnOffsets", (*generator).txnOffsets},
	{6, "txnOffsetsWrong", (*generator).txnOffsetsWrong},
	{10, "txnEnd", (*generator).txnEnd},
	{6, "txnEndWrong", (*generator).txnEndWrong},
	{1, "txnTimesOut", (*generator).txnTimesOut},
	{6, "txnShow", (*generator).txnShow},
	{7, "txnRead", (*generator).txnRead},
	{5, "txnMarkers", (*generator).txnMarkers},
}

func (g *generator) pick(only string) {
	sum := 0
	for _, m := range moves {
		if strings.HasPrefix(m.name, only) {
			sum += m.weight
		}
	}
	at := g.r.IntN(sum)
	for _, m := range moves {
		if !strings.HasPrefix(m.name, only) {
			continue
		}
		if at -= m.weight; at < 0 {
			m.move(g)
			return
		}
	}
}

func (g *generator) version(lo, hi int16) int16 { return lo + int16(g.r.IntN(int(hi-lo)+1)) }
func (g *generator) chance(percent int) bool    { return g.r.IntN(100) < percent }

func one[T any](g *generator, of ...T) T { return of[g.r.IntN(len(of))] }

func (g *generator) conn() int { return g.r.IntN(2) }

// request adds a step of one request.
func (g *generator) request(name string, version int16, build func(s *Side) kmsg.Request) *Step {
	g.steps = append(g.steps, Step{Name: fmt.Sprintf("%s v%d", name, version), Conn: g.conn(), Build: func(s *Side) []kmsg.Request {
		req := build(s)
		req.SetVersion(version)
		return []kmsg.Request{req}
	}})
	return &g.steps[len(g.steps)-1]
}

func (g *generator) settle(name string, fn func(s *Side) error) {
	g.steps = append(g.steps, Step{Name: name, Settle: fn})
}

func (g *generator) newName() string {
	g.names++
	if g.chance(25) { // so that other names can collide with it
		return fmt.Sprintf("%s.t%d", g.prefix, g.names)
	}
	return fmt.Sprintf("%s-t%d", g.prefix, g.names)
}

// live returns a topic that the sequence believes to exist.
func (g *generator) live() *topic {
	var alive []*topic
	for _, t := range g.topics {
		if !t.deleted {
			alive = append(alive, t)
		}
	}
	if len(alive) == 0 {
		g.createGood()
		return g.topics[len(g.topics)-1]
	}
	return alive[g.r.IntN(len(alive))]
}

func (g *generator) partition() partition {
	t := g.live()
	return partition{t, int32(g.r.IntN(int(t.partitions)))}
}

// strange returns a partition that may not exist.
func (g *generator) strange() partition {
	switch g.r.IntN(4) {
	case 0:
		return partition{&topic{name: g.prefix + "-none", partitions: 1, end: []int64{0}}, 0}
	case 1:
		return partition{g.live(), one[int32](g, 7, 1000, -1)}
	case 2:
		for _, t := range g.topics {
			if t.deleted {
				return partition{t, 0}
			}
		}
	}
	return g.partition()
}

func (g *generator) loose(name string) bool {
	for _, t := range g.topics {
		if t.name == name && t.loose {
			return true
		}
	}
	return false
}

func (t *topic) endOf(index int32) int64 {
	if index < 0 || int(index) >= len(t.end) {
		return 0
	}
	return t.end[index]
}

func (t *topic) grow(index int32, n int64) {
	if index >= 0 && int(index) < len(t.end) {
		t.end[index] += n
	}
}

// offset returns an offset around what the partition holds, seldom far from it.
func (g *generator) offset(p partition) int64 {
	end := p.topic.endOf(p.index)
	switch g.r.IntN(12) {
	case 0:
		return end + 1 + int64(g.r.IntN(3))
	case 1:
		return one[int64](g, -1, -5, 1<<40)
	case 2, 3:
		return end
	case 4, 5, 6:
		return 0
	}
	return g.r.Int64N(end + 1)
}
