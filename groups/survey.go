package groups

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/millrace-project/millrace/coordinator"
)

// surveyChunk is about how many offsets one operation of a survey copies while the loop waits.
const surveyChunk = 4096

// GroupUsage is a group as a survey finds it.
type GroupUsage struct {
	ID      string
	Type    string // Kafka's name of the protocol: "classic", "consumer"
	State   string // Kafka's name
	Offsets int    // how many it has committed
}

// CommittedOffset is one committed offset.
type CommittedOffset struct {
	Topic     string
	Partition int32
	Offset    int64
}

// OffsetCounts count offsets since the start, each partition of a request for itself.
type OffsetCounts struct{ Commits, Expired, Deleted uint64 }

// OffsetCounts tells what was done with offsets on this node.
func (c *Coordinator) OffsetCounts() OffsetCounts {
	return OffsetCounts{Commits: c.counts.commits.Load(), Expired: c.counts.expired.Load(), Deleted: c.counts.deleted.Load()}
}

// Survey is a look at all groups that this node answers for.
type Survey struct {
	Groups []GroupUsage // ascending by ID

	shards []surveyed
}

type surveyed struct {
	shard *shard
	ids   []sizedGroup
}

type sizedGroup struct {
	id      string
	offsets int
}

// Survey looks at all groups. A partition that stops to be led meanwhile is left out.
func (c *Coordinator) Survey(ctx context.Context) (*Survey, error) {
	out := &Survey{}
	for _, s := range c.shards.All() {
		if !s.Answers() {
			continue
		}
		var found []GroupUsage
		ok, err := surveyRead(ctx, s, func(m *Machine) { found = m.usage() })
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		ids := make([]sizedGroup, len(found))
		for i, g := range found {
			ids[i] = sizedGroup{g.ID, g.Offsets}
		}
		out.Groups = append(out.Groups, found...)
		out.shards = append(out.shards, surveyed{s, ids})
	}
	slices.SortFunc(out.Groups, func(a, b GroupUsage) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

// Offsets calls visit with what each group has committed by now, ascending by topic and partition; groups come in no
// order, those that have committed nothing not at all. The loops are held for a part of a partition's groups at a time.
// The slice is valid during the call.
func (s *Survey) Offsets(ctx context.Context, visit func(group string, offsets []CommittedOffset)) error {
	var copied []CommittedOffset
	var ends []int
	for _, in := range s.shards {
		for rest := in.ids; len(rest) > 0; {
			n, size := 0, 0
			for n < len(rest) && (n == 0 || size+rest[n].offsets <= surveyChunk) {
				size += rest[n].offsets
				n++
			}
			part := rest[:n]
			rest = rest[n:]
			if size == 0 {
				continue
			}
			ok, err := surveyRead(ctx, in.shard, func(m *Machine) {
				copied, ends = copied[:0], ends[:0]
				for _, g := range part {
					copied = m.appendCommitted(copied, g.id)
					ends = append(ends, len(copied))
				}
			})
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			from := 0
			for i, end := range ends {
				if end > from {
					visit(part[i].id, copied[from:end])
				}
				from = end
			}
		}
	}
	return nil
}

// surveyRead runs fn on the shard's loop; ok is false when the shard answers no more. After an error fn may still run.
func surveyRead(ctx context.Context, s *shard, fn func(m *Machine)) (ok bool, err error) {
	done := make(chan error, 1)
	tell := func(err error) { done <- err }
	submit(s, "", func(m *Machine) decision {
		fn(m)
		return say(tell)
	}, tell)
	select {
	case err = <-done:
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	if errors.Is(err, coordinator.ErrBusy) || errors.Is(err, coordinator.ErrTimedOut) {
		return false, err
	}
	return err == nil, nil
}

// usage says how the machine's groups are.
func (m *Machine) usage() []GroupUsage {
	out := make([]GroupUsage, 0, len(m.groups))
	for id, g := range m.groups {
		u := GroupUsage{ID: id, Type: g.kind().String(), State: g.state()}
		if of := m.offsets.groups[id]; of != nil {
			for i := range of.topics {
				u.Offsets += len(of.topics[i].partitions)
			}
		}
		out = append(out, u)
	}
	return out
}

// appendCommitted appends what a group has committed for topics that exist.
func (m *Machine) appendCommitted(dst []CommittedOffset, group string) []CommittedOffset {
	of := m.offsets.groups[group]
	if of == nil {
		return dst
	}
	for i := range of.topics {
		t := &of.topics[i]
		now := m.image().Topic(t.topic.Value())
		for j := range t.partitions {
			if c := &t.partitions[j]; c.isOf(now) {
				dst = append(dst, CommittedOffset{t.topic.Value(), c.partition, c.offset})
			}
		}
	}
	return dst
}
