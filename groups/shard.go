package groups

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/wire"
)

// shard is one partition of __consumer_offsets that this node leads, from Lead to what ends it.
type shard struct {
	c         *Coordinator
	partition int32
	epoch     int32
	log       Log

	once   sync.Once
	gone   chan struct{} // closed by resign
	ended  chan struct{} // closed when nothing of the shard runs any more
	failed atomic.Bool   // it could not be loaded
	active atomic.Pointer[active]
}

// active is what a shard has after its load.
type active struct {
	m  *Machine
	rt *coordinator.Runtime[Record]
}

// code is why the shard does not answer, 0 when it does.
func (s *shard) code() wire.Code {
	switch {
	case s.resigned() || s.failed.Load():
		return wire.NotCoordinator
	case s.active.Load() == nil:
		return wire.CoordinatorLoadInProgress
	}
	return wire.None
}

// submit runs a decision of an active shard. refused is called when it was not even made.
func (s *shard) submit(group string, decide func(m *Machine) decision, refused func(error)) {
	a := s.active.Load()
	a.rt.Submit(a.m.request(group, func() decision { return decide(a.m) }, refused))
}

// resign makes the shard end, soon.
func (s *shard) resign() { s.once.Do(func() { close(s.gone) }) }

func (s *shard) resigned() bool {
	select {
	case <-s.gone:
		return true
	default:
		return false
	}
}

// run is the shard's life. The one before, if any, must have ended: it may still be writing.
func (s *shard) run(before *shard) {
	defer s.c.running.Done()
	defer s.c.forget(s)
	defer close(s.ended)
	if before != nil {
		<-before.ended
	}
	if err := s.load(); err != nil {
		s.failed.Store(true)
		if !errors.Is(err, errResigned) {
			s.logger().Error("groups could not be loaded", "partition", s.partition, "epoch", s.epoch, "error", err)
		}
	}
	<-s.gone
	if a := s.active.Load(); a != nil {
		a.rt.Close()
		a.m.unloaded()
	}
}

func (s *shard) logger() *slog.Logger {
	if s.c.o.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.c.o.Logger
}

// loaded is called once, after the log was replayed and before the first request.
func (m *Machine) loaded() {
	m.loadedClassic()
	m.loadedConsumer()
	m.loadedOffsets()
}

// unloaded is called once, after the last operation: nobody waits any longer.
func (m *Machine) unloaded() { m.unloadedClassic() }

// op makes an operation of a decision, for a timer. After a failure the timer is tried again, unless it was set anew.
func (m *Machine) op(group string, decide func() decision) coordinator.Op[Record] {
	return m.request(group, decide, func(error) {})
}

// request makes an operation of a decision; refused is called when it was not even made.
func (m *Machine) request(group string, decide func() decision, refused func(error)) coordinator.Op[Record] {
	var d decision
	made := false
	return coordinator.Op[Record]{
		Key: group,
		Run: func() (batches [][]Record, err error) {
			if m.panicked != nil {
				defer func() {
					if v := recover(); v != nil {
						m.panicked(v)
						err = errPanicked
					}
				}()
			}
			d = decide()
			made = true
			return d.batches(), nil
		},
		Done: func(err error) {
			switch {
			case !made:
				refused(err)
			case d.then != nil:
				d.then(err)
			}
		},
	}
}

var errPanicked = errors.New("groups: a decision panicked")

// reportPanic logs what a decision panicked with; it is called from the deferred function.
func (s *shard) reportPanic(v any) {
	s.logger().Error("a decision about a group panicked", "partition", s.partition, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
}

// batches are the decision's records, those together that must be written together.
func (d *decision) batches() [][]Record {
	switch {
	case len(d.records) == 0:
		return nil
	case !d.split:
		return [][]Record{d.records}
	}
	out := make([][]Record, len(d.records))
	for i := range d.records {
		out[i] = d.records[i : i+1]
	}
	return out
}
