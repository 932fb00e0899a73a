package groups

import (
	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/metadata"
)

// NewMachine makes the machine of an empty partition.
func NewMachine(cfg *Config, image func() *metadata.Image, nowMs func() int64, newID func() string, timers *coordinator.Timers[Record]) *Machine {
	return &Machine{cfg: cfg, image: image, nowMs: nowMs, newID: newID, timers: timers, groups: map[string]group{}, offsets: newOffsetStore()}
}

// loaded is called once, after the log was replayed and before the first request.
func (m *Machine) loaded() {
	m.loadedClassic()
	m.loadedConsumer()
	m.loadedOffsets()
}

// unloaded is called once, after the last operation: nobody waits any longer.
func (m *Machine) unloaded() { m.unloadedClassic() }

// op makes an operation of a decision, for a timer.
func (m *Machine) op(group string, decide func() decision) coordinator.Op[Record] {
	return operation(group, decide, func(error) {})
}

// operation makes an operation of a decision; refused is called when it was not even made.
func operation(group string, decide func() decision, refused func(error)) coordinator.Op[Record] {
	var d decision
	made := false
	return coordinator.Op[Record]{
		Key: group,
		Run: func() ([][]Record, error) {
			d, made = decide(), true
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

// batches are the decision's records, those together that must be written together.
func (d *decision) batches() [][]Record {
	if len(d.records) == 0 {
		return nil
	}
	return [][]Record{d.records}
}
