package groups

import (
	"fmt"
	"runtime/debug"

	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/metadata"
)

// NewMachine makes the machine of an empty partition.
func NewMachine(cfg *Config, image func() *metadata.Image, nowMs func() int64, newID func() string, timers *coordinator.Timers[Record]) *Machine {
	return &Machine{cfg: cfg, image: image, nowMs: nowMs, newID: newID, timers: timers, groups: map[string]group{}, offsets: newOffsetStore()}
}

// load replays the log, when it is the shard's turn, and makes the shard active.
func (s *shard) load() error {
	select {
	case <-s.gone:
		return errResigned
	case s.c.width <- struct{}{}:
		defer func() { <-s.c.width }()
	}
	startMs := s.c.o.NowMs()
	timers := coordinator.NewTimers[Record]()
	m := NewMachine(&s.c.o.Config, s.c.o.Image, s.c.o.NowMs, s.c.o.NewID, timers)
	m.offsets.counts = &s.c.counts
	if s.c.o.Logger != nil {
		m.panicked = s.reportPanic
	}
	end, err := s.replay(m)
	if err != nil {
		return err
	}
	s.logger().Info("groups loaded", "partition", s.partition, "epoch", s.epoch, "groups", len(m.groups), "end", end, "ms", s.c.o.NowMs()-startMs)
	rt := coordinator.NewTimed(s.log, m, timers, end, coordinator.Options{
		Epoch: s.epoch, TimeoutMs: s.c.o.CommitTimeoutMs, NowMs: s.c.o.NowMs,
	})
	// The first operation: whatever is asked finds the deadlines set.
	rt.Submit(m.op("", func() decision {
		m.loaded()
		return decision{}
	}))
	s.active.Store(&active{m, rt})
	return nil
}

// replay gives the machine all that the log has. A log that no machine could have written fails it, and with it the
// shard: to answer without what was in it would lose offsets.
func (s *shard) replay(m *Machine) (end int64, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("groups: the log does not replay: %v\n%s", v, debug.Stack())
		}
	}()
	return s.log.Replay(func(e Entry) error {
		if s.resigned() {
			return errResigned
		}
		m.replay(&e)
		return nil
	})
}

// replay takes one entry of the log.
func (m *Machine) replay(e *Entry) {
	producer := Producer{e.ProducerID, e.ProducerEpoch}
	switch {
	case e.Control:
		m.applyMarker(producer, e.Commit)
	case e.Key == nil: // of a newer version's type, which nobody must delete
	case e.Transactional:
		m.apply(e.Offset, e.TimestampMs, e.Key, e.Value, &producer)
	default:
		m.apply(e.Offset, e.TimestampMs, e.Key, e.Value, nil)
	}
}
