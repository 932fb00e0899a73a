package txn

import (
	"sync"

	"github.com/millrace-project/millrace/coordinator"
)

// Survey counts the transactional ids that this node coordinates.
type Survey struct {
	States   map[string]int // by Kafka's name of the state; all of them are there
	OldestMs int64          // when the transaction that has been open longest began, -1 = none is open
}

// Survey looks at all partitions that this node leads and has loaded.
func (c *Coordinator) Survey(done func(Survey)) {
	var shards []*shard
	for _, s := range c.All() {
		if s.Answers() {
			shards = append(shards, s)
		}
	}
	sum := Survey{States: map[string]int{}, OldestMs: -1}
	for s := empty; s <= completeAbort; s++ {
		sum.States[s.String()] = 0
	}
	var mu sync.Mutex
	left := 1 + len(shards)
	one := func(count func()) {
		mu.Lock()
		count()
		left--
		last := left == 0
		mu.Unlock()
		if last {
			done(sum)
		}
	}
	for _, s := range shards {
		s.Submit("", func(m *Machine) coordinator.Decision[Record] {
			return coordinator.Decision[Record]{Then: func(error) { one(func() { m.count(&sum) }) }}
		}, func(error) { one(func() {}) })
	}
	one(func() {})
}

func (m *Machine) count(sum *Survey) {
	for _, t := range m.txns {
		sum.States[t.state.String()]++
		if !t.state.atRest() && (sum.OldestMs < 0 || t.startMs < sum.OldestMs) {
			sum.OldestMs = t.startMs
		}
	}
}
