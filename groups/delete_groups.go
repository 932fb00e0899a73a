package groups

import "github.com/millrace-project/millrace/wire"

// deleteGroup gives the records that delete a group without members, its offsets first, or why it may not be deleted.
func (m *Machine) deleteGroup(id string) (wire.Code, []Record) {
	g := m.groups[id]
	if g == nil {
		return wire.GroupIDNotFound, nil
	}
	if code := g.checkDelete(); code != wire.None {
		return code, nil
	}
	var out []Record
	if of := m.offsets.groups[id]; of != nil {
		for _, t := range of.topics {
			for _, c := range t.partitions {
				out = append(out, offsetTombstone(id, t.topic.Value(), c.partition))
			}
		}
	}
	for tp := range m.offsets.open[id] {
		if m.offsets.get(offsetKey{id, tp}) == nil {
			out = append(out, offsetTombstone(id, tp.topic, tp.partition))
		}
	}
	return wire.None, append(out, g.tombstones()...)
}
