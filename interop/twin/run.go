// Package twin sends the same requests to two brokers and compares what they answer, field by
// field: the oracle is Apache Kafka, the other is Millrace (or a second Kafka, which shows that the
// harness itself finds nothing). A sequence of requests is drawn from a seed, so a difference can
// be had again by its seed and number. What may differ is written in Differences and nowhere else.
package twin

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Options of a run.
type Options struct {
	Seed      uint64
	From      int // number of the first sequence
	Sequences int
	Workers   int                                  // sequences at a time; 4 when 0
	Only      string                               // the moves to draw, by the beginning of their names; all when empty
	Tag       string                               // a part of all names: transactional ids stay, so a run that is had again at the same brokers needs another
	Log       func(format string, args ...any)     // nil = silent
	Between   func() error                         // called when all sequences are half done; nil = they run in one go
	LeaveOut  func(step string) bool               // steps not to ask, by name; nil = ask all
	Steps     bool                                 // log each step with the first side's answer
	Known     func(step, difference string) string // names a difference that is expected, "" if it is not; nil = none is
}

// Found is one difference, with what is needed to have it again.
type Found struct {
	Sequence, Step int
	Name           string // what was asked
	Difference     string // place and both values
	First, Second  string // both answers
}

// Report is what a run has seen.
type Report struct {
	Sequences, Requests int
	Found               []Found
	Covered             map[[2]int16]int // requests sent by API key and version
	NamedSeen           map[string]int   // expected differences that were met
}

// Run draws and runs the sequences against both brokers (named for the report).
func Run(first, second [2]string, o Options) (*Report, error) {
	if o.Workers == 0 {
		o.Workers = 4
	}
	var all []*sequence
	alone := new(sync.Mutex)
	for n := range o.Sequences {
		s := newSequence(first, second, o, o.From+n)
		s.alone = alone
		all = append(all, s)
	}
	r := &Report{Covered: map[[2]int16]int{}, NamedSeen: map[string]int{}}
	if o.Between == nil {
		return r, r.phase(all, o, func(s *sequence) (int, int) { return 0, len(s.gen.steps) })
	}
	err := r.phase(all, o, func(s *sequence) (int, int) { return 0, s.gen.half() })
	if err == nil {
		err = o.Between()
	}
	if err == nil {
		err = r.phase(all, o, func(s *sequence) (int, int) { return s.gen.half(), len(s.gen.steps) })
	}
	return r, err
}

// phase runs a part of each sequence, several sequences at a time.
func (r *Report) phase(all []*sequence, o Options, part func(*sequence) (from, to int)) error {
	var mu sync.Mutex
	var failed error
	queue := make(chan *sequence)
	var wg sync.WaitGroup
	for range o.Workers {
		wg.Go(func() {
			for s := range queue {
				if s.over {
					continue
				}
				err := s.run(part(s))
				mu.Lock()
				r.add(s)
				if err != nil && failed == nil {
					failed = fmt.Errorf("seed %d sequence %d: %w", o.Seed, s.number, err)
				}
				if o.Log != nil && r.Sequences%100 == 0 {
					o.Log("%d sequences, %d requests, %d differences", r.Sequences, r.Requests, len(r.Found))
				}
				mu.Unlock()
			}
		})
	}
	for _, s := range all {
		queue <- s
	}
	close(queue)
	wg.Wait()
	return failed
}

func (r *Report) add(s *sequence) {
	if s.over {
		r.Sequences++
	}
	r.Requests += s.requests
	r.Found = append(r.Found, s.found...)
	for k, n := range s.covered {
		r.Covered[k] += n
	}
	for k, n := range s.named {
		r.NamedSeen[k] += n
	}
	s.requests, s.found = 0, nil
	s.covered, s.named = map[[2]int16]int{}, map[string]int{}
}

// Summary groups the differences by what they say, the most frequent first.
func (r *Report) Summary() string {
	type group struct {
		first Found
		n     int
	}
	groups := map[string]*group{}
	for _, f := range r.Found {
		api, _, _ := strings.Cut(f.Name, " ")
		place := strings.Map(func(c rune) rune {
			if c >= '0' && c <= '9' {
				return -1
			}
			return c
		}, f.Difference)
		key := api + ": " + place
		if groups[key] == nil {
			groups[key] = &group{first: f}
		}
		groups[key].n++
	}
	keys := make([]string, 0, len(groups))
	for k := range groups {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(i, j int) bool { return groups[keys[i]].n > groups[keys[j]].n })
	var b strings.Builder
	for _, k := range keys {
		g := groups[k]
		fmt.Fprintf(&b, "%d times, first in sequence %d step %d: %s\n  %.1200s\n  first:  %.700s\n  second: %.700s\n", g.n, g.first.Sequence, g.first.Step, g.first.Name, g.first.Difference, g.first.First, g.first.Second)
	}
	return b.String()
}

// slow is when a step is worth a line: no wait that a request asks for is so long.
const slow = 2 * time.Second

// sequence is one sequence being run.
type sequence struct {
	a, b     *Side
	o        Options
	number   int
	gen      *generator
	found    []Found
	requests int
	covered  map[[2]int16]int
	named    map[string]int
	pending  map[int]sentStep // by connection: asked and not yet collected
	alone    *sync.Mutex      // of all sequences: held in steps that are to be alone
	over     bool             // all steps are done, or one has differed
	cleaned  bool
}

func newSequence(first, second [2]string, o Options, n int) *sequence {
	return &sequence{a: NewSide(first[0], first[1]), b: NewSide(second[0], second[1]), o: o, number: n,
		gen: generate(o.Seed, n, o.Only, o.Tag), covered: map[[2]int16]int{}, named: map[string]int{}, pending: map[int]sentStep{}}
}

// sentStep is a step whose requests have gone out to both sides.
type sentStep struct {
	number int
	step   *Step
	calls  map[*Side][]Call
}

// readOnly APIs change nothing at the broker: after a difference there the sequence goes on.
var readOnly = map[kmsg.Key]bool{
	kmsg.ApiVersions: true, kmsg.Metadata: true, kmsg.ListOffsets: true, kmsg.OffsetForLeaderEpoch: true, kmsg.DescribeConfigs: true,
	kmsg.DescribeCluster: true, kmsg.DescribeTopicPartitions: true, kmsg.FindCoordinator: true,
	kmsg.DescribeGroups: true, kmsg.ConsumerGroupDescribe: true, kmsg.ListGroups: true, kmsg.OffsetFetch: true, kmsg.ListConfigResources: true,
	kmsg.ListTransactions: true, kmsg.DescribeTransactions: true, kmsg.DescribeProducers: true,
}

// run stops at the first difference in what changes the broker: what follows would only be its consequences.
func (s *sequence) run(from, to int) error {
	defer s.a.Close()
	defer s.b.Close()
	if from > 0 {
		if errA, errB := both(s.a, s.b, func(d *Side) error {
			return errors.Join(d.awaitTopics(s.gen.allTopics()), d.awaitGroups(), d.awaitTxns())
		}); errA != nil || errB != nil {
			return fmt.Errorf("after the restart: %w", errors.Join(errA, errB))
		}
	}
	for i := from; i < to && !s.over; i++ {
		st := &s.gen.steps[i]
		if s.o.LeaveOut != nil && s.o.LeaveOut(st.Name) {
			continue
		}
		began := time.Now()
		goOn, err := s.step(i, st)
		if d := time.Since(began); d > slow && s.o.Log != nil {
			s.o.Log("sequence %d step %d took %v: %s", s.number, i, d, st.Name)
		}
		if err != nil {
			_, _ = both(s.a, s.b, func(d *Side) error { return d.cleanUp(s.gen) }) // so that the sequence can be had again
			return fmt.Errorf("step %d %s: %w", i, st.Name, err)
		}
		s.over = !goOn
	}
	if to < len(s.gen.steps) && !s.over {
		return nil
	}
	if s.over && s.cleaned {
		return nil
	}
	s.over, s.cleaned = true, true
	errA, errB := both(s.a, s.b, func(d *Side) error { return d.cleanUp(s.gen) })
	if errA != nil {
		return errA
	}
	return errB
}

// both runs fn for the two sides at the same time.
func both(a, b *Side, fn func(*Side) error) (errA, errB error) {
	var wg sync.WaitGroup
	wg.Go(func() { errA = fn(a) })
	errB = fn(b)
	wg.Wait()
	return errA, errB
}

func (s *sequence) step(i int, st *Step) (bool, error) {
	if st.Settle != nil {
		errA, errB := both(s.a, s.b, st.Settle)
		if (errA == nil) != (errB == nil) {
			s.report(i, st, fmt.Sprintf("%s: %v; %s: %v", s.a.Name, errA, s.b.Name, errB), "", "")
			return false, nil
		}
		return errA == nil, errA
	}
	if st.Collect != nil {
		return s.collect(st.Collect)
	}
	if st.Alone {
		s.alone.Lock()
		defer s.alone.Unlock()
	}
	out := sentStep{number: i, step: st, calls: map[*Side][]Call{}}
	var mu sync.Mutex
	errA, errB := both(s.a, s.b, func(d *Side) error {
		cs, raw := s.calls(d, st)
		mu.Lock()
		out.calls[d] = cs
		mu.Unlock()
		return d.link(st.Conn).write(cs, raw)
	})
	if errA != nil || errB != nil {
		return false, fmt.Errorf("%s: %v; %s: %v", s.a.Name, errA, s.b.Name, errB)
	}
	if st.Deferred {
		s.pending[st.Conn] = out
		return true, nil
	}
	return s.receive(out)
}

// collect reads the answers that deferred steps have left for later. All are read, also after a difference.
func (s *sequence) collect(conns []int) (bool, error) {
	goOn := true
	for _, conn := range conns {
		out, ok := s.pending[conn]
		if !ok {
			return false, fmt.Errorf("BUG: nothing was asked on connection %d", conn)
		}
		delete(s.pending, conn)
		ok, err := s.receive(out)
		if err != nil {
			return false, err
		}
		goOn = goOn && ok
	}
	return goOn, nil
}

// receive reads the answers of both sides and compares them. It reports whether the sequence may go on.
func (s *sequence) receive(out sentStep) (bool, error) {
	st := out.step
	answers := map[*Side][]Answer{}
	var mu sync.Mutex
	errA, errB := both(s.a, s.b, func(d *Side) error {
		as, err := d.link(st.Conn).answers(out.calls[d])
		if st.Insist {
			as, err = d.insist(st.Conn, out.calls[d], as, err)
		}
		for j := range as {
			if as[j].Response != nil && as[j].Err == nil {
				d.learn(as[j].Response, st.Label)
				if st.Learn != nil {
					st.Learn(d, as[j].Response)
				}
				s.own(as[j].Response)
			}
		}
		mu.Lock()
		answers[d] = as
		mu.Unlock()
		return err
	})
	if errA != nil || errB != nil {
		return false, fmt.Errorf("%s: %v; %s: %v", s.a.Name, errA, s.b.Name, errB)
	}
	for j, c := range out.calls[s.a] {
		s.requests++
		s.covered[[2]int16{c.Key, c.Vers}]++
		x, y := answers[s.a][j], answers[s.b][j]
		if s.o.Steps && s.o.Log != nil {
			s.o.Log("sequence %d step %d: %s: %.500s", s.number, out.number, st.Name, x.String())
		}
		d := newComparer(s.a, s.b, kmsg.NameForKey(c.Key), st, s.gen.loose).diff(&x, &y)
		if d == "" {
			continue
		}
		if why := namedDifference(st.Name); why != "" {
			s.named[why]++
			continue
		}
		s.report(out.number, st, fmt.Sprintf("answer %d: %s", j, d), x.String(), y.String())
		if !readOnly[kmsg.Key(c.Key)] || x.Closed != y.Closed {
			return false, nil
		}
	}
	return true, nil
}

func (s *sequence) calls(d *Side, st *Step) (cs []Call, raw []byte) {
	if st.Raw != nil {
		raw, cs = st.Raw(d)
		return cs, raw
	}
	l := d.link(st.Conn)
	client := st.Client
	if client == nil {
		client = kmsg.StringPtr("twin")
	}
	for j, req := range st.Build(d) {
		l.correlation++
		c := Call{Frame: frame(req, l.correlation, client), Key: req.Key(), Vers: req.GetVersion()}
		c.Silent = st.Silent != nil && st.Silent(j)
		cs = append(cs, c)
	}
	return cs, nil
}

// own takes other sequences' topics, and Kafka's own, out of answers that name all topics.
func (s *sequence) own(resp kmsg.Response) {
	ours := func(name string) bool {
		return strings.HasPrefix(name, s.gen.prefix+"-") || strings.HasPrefix(name, s.gen.prefix+".")
	}
	switch r := resp.(type) {
	case *kmsg.MetadataResponse:
		r.Topics = slices.DeleteFunc(r.Topics, func(t kmsg.MetadataResponseTopic) bool {
			return t.Topic != nil && !ours(*t.Topic) && (t.ErrorCode == 0 || strings.HasPrefix(*t.Topic, "tw"))
		})
		if len(r.Topics) == 0 {
			r.Topics = nil
		}
	case *kmsg.ListGroupsResponse:
		r.Groups = slices.DeleteFunc(r.Groups, func(l kmsg.ListGroupsResponseGroup) bool { return !ours(l.Group) })
		if len(r.Groups) == 0 {
			r.Groups = nil
		}
	case *kmsg.ListTransactionsResponse:
		r.TransactionStates = slices.DeleteFunc(r.TransactionStates, func(t kmsg.ListTransactionsResponseTransactionState) bool { return !ours(t.TransactionalID) })
		if len(r.TransactionStates) == 0 {
			r.TransactionStates = nil
		}
	case *kmsg.ListConfigResourcesResponse:
		r.ConfigResources = slices.DeleteFunc(r.ConfigResources, func(c kmsg.ListConfigResourcesResponseConfigResource) bool {
			return (c.Type == int8(kmsg.ConfigResourceTypeTopic) || c.Type == int8(kmsg.ConfigResourceTypeGroupConfig)) && !ours(c.Name)
		})
		if len(r.ConfigResources) == 0 {
			r.ConfigResources = nil
		}
	}
}

func (s *sequence) report(i int, st *Step, d, x, y string) {
	s.found = append(s.found, Found{Sequence: s.number, Step: i, Name: st.Name, Difference: d, First: x, Second: y})
}
