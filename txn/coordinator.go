package txn

import (
	"log/slog"

	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/wire"
)

// Options of New. All but Logger, LoadWidth and TimeoutMs must be set.
type Options struct {
	Config  Config
	NowMs   func() int64
	Version func() int16 // the cluster's finalized transaction.version
	Markers Markers
	// ProducerID gives a producer id that nobody has, now or later.
	ProducerID func(done func(id int64, err error))
	// LoadWidth is how many partitions are loaded at once; 0 = 4. TimeoutMs is how long an answer waits for its records to
	// be committed; 0 = for ever.
	LoadWidth int
	TimeoutMs int64
	Logger    *slog.Logger
}

// Log is a partition of __transaction_state. Its errors have a code if they are coordinator.Coded.
type Log = coordinator.ReplayLog[Record, Entry]

// Entry is a record of the log as it is read back.
type Entry struct {
	ID    string                       // "": of a type that this build does not know
	Value *records.TransactionLogValue // nil: a tombstone
}

// Coordinator runs a Machine for each partition of __transaction_state that this node leads, and takes each request to
// that of its transactional id. Its methods may be called from anywhere. What takes a done calls it once, from any
// goroutine.
type Coordinator struct {
	*coordinator.Shards[*Machine, Record, Entry]
	o Options
}

type shard = coordinator.Shard[*Machine, Record, Entry]

// New makes a coordinator that leads nothing.
func New(o Options) *Coordinator {
	c := &Coordinator{o: o}
	c.Shards = coordinator.NewShards(coordinator.Kind[*Machine, Record, Entry]{
		Name: "transactions", Make: c.make, Replay: replay, Loaded: (*Machine).loaded, Unloaded: (*Machine).unloaded,
		NowMs: o.NowMs, Width: o.LoadWidth, TimeoutMs: o.TimeoutMs, Logger: o.Logger,
	})
	return c
}

func (c *Coordinator) make(s *shard) func(timers *coordinator.Timers[Record]) *Machine {
	return func(timers *coordinator.Timers[Record]) *Machine { return c.machine(s, timers) }
}

func (c *Coordinator) machine(s *shard, timers *coordinator.Timers[Record]) *Machine {
	op := func(id string, decide func() decision) coordinator.Op[Record] {
		return s.Op(id, func() coordinator.Decision[Record] { return decide().out() }, func(error) {})
	}
	return &Machine{
		cfg: &c.o.Config, epoch: s.Epoch, nowMs: c.o.NowMs, version: c.o.Version, timers: timers, markers: c.o.Markers, op: op,
		submit: func(id string, decide func() decision, refused func(wire.Code)) {
			s.Submit(id, func(*Machine) coordinator.Decision[Record] { return decide().out() }, func(err error) { refused(coordinator.Code(err)) })
		},
		submitOwn: func(id string, decide func() decision) {
			s.SubmitOwn(id, func(*Machine) coordinator.Decision[Record] { return decide().out() })
		},
		txns: map[string]*transaction{}, waits: map[string][]waiting{},
	}
}

func replay(m *Machine, e *Entry) {
	if e.ID != "" {
		m.apply(&Record{ID: e.ID, Value: e.Value, lastEpoch: -1})
	}
}

// out is the decision as the runtime takes it.
func (d decision) out() coordinator.Decision[Record] {
	return coordinator.Decide(d.records, d.split, d.then)
}

// ask lets the id's machine decide. refused is called when it does not come to that.
func (c *Coordinator) ask(id string, decide func(m *Machine) decision, refused func(wire.Code)) {
	s, err := c.For(id)
	if err != nil {
		refused(coordinator.Code(err))
		return
	}
	s.Submit(id, func(m *Machine) coordinator.Decision[Record] { return decide(m).out() }, func(err error) { refused(coordinator.Code(err)) })
}

// askFresh is ask for a decision that may want a fresh producer id: it is made again with one then.
func (c *Coordinator) askFresh(id string, fresh int64, decide func(m *Machine, fresh int64) decision, refused func(wire.Code)) {
	c.ask(id, func(m *Machine) decision {
		d := decide(m, fresh)
		if !d.fresh {
			return d
		}
		return answer(func(err error) {
			if err != nil {
				refused(coordinator.Code(err))
				return
			}
			c.o.ProducerID(func(n int64, err error) {
				if err != nil {
					refused(wire.CoordinatorLoadInProgress) // as Kafka: the client tries again
					return
				}
				c.askFresh(id, n, decide, refused)
			})
		})
	}, refused)
}

// InitProducerID begins a producer under a transactional id. expected is who it takes itself for, nil when it is new.
func (c *Coordinator) InitProducerID(id string, timeoutMs int32, twoPhaseCommit bool, expected *Identity, done func(Identity, wire.Code)) {
	refused := func(code wire.Code) { done(noIdentity, code) }
	switch {
	case id == "":
		refused(wire.InvalidRequest)
		return
	case twoPhaseCommit && !c.o.Config.TwoPhaseCommit:
		refused(wire.TransactionalIDAuthorizationFailed)
		return
	case twoPhaseCommit:
		timeoutMs = noTimeout
	case c.o.Config.checkTimeout(timeoutMs) != wire.None:
		refused(wire.InvalidTransactionTimeout)
		return
	}
	c.askFresh(id, -1, func(m *Machine, fresh int64) decision { return m.initProducerID(id, timeoutMs, expected, fresh, done) }, refused)
}

// AddPartitions adds partitions to the producer's transaction; version is the client's transaction version.
func (c *Coordinator) AddPartitions(id string, p Identity, ps []Partition, version int16, done func(wire.Code)) {
	if id == "" {
		done(wire.InvalidRequest)
		return
	}
	c.ask(id, func(m *Machine) decision { return m.addPartitions(id, p, ps, version, done) }, done)
}

// Verify says of each partition whether it is in the producer's open transaction.
func (c *Coordinator) Verify(id string, p Identity, ps []Partition, done func([]wire.Code)) {
	refused := func(code wire.Code) {
		codes := make([]wire.Code, len(ps))
		for i := range codes {
			codes[i] = code
		}
		done(codes)
	}
	if id == "" {
		refused(wire.InvalidRequest)
		return
	}
	c.ask(id, func(m *Machine) decision { return m.verify(id, p, ps, done) }, refused)
}

// EndTxn ends the producer's transaction; version is the client's transaction version.
func (c *Coordinator) EndTxn(id string, p Identity, commit bool, version int16, done func(Identity, wire.Code)) {
	refused := func(code wire.Code) { done(noIdentity, code) }
	if id == "" {
		refused(wire.InvalidRequest)
		return
	}
	c.askFresh(id, -1, func(m *Machine, fresh int64) decision { return m.endTxn(id, p, commit, version, fresh, done) }, refused)
}
