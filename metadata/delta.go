package metadata

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// Delta is what changed between two images.
type Delta struct {
	Base, Image *Image

	Created []*Topic      // topics of Image whose id Base lacks, by name
	Deleted []*Topic      // topics of Base whose id Image lacks, by name
	Changed []TopicChange // topics of both in which partitions differ, by name
	Configs []Resource    // resources whose configs differ, those of deleted topics included
	Brokers []int32       // brokers whose registration differs
	// Features tells whether a finalized feature level differs.
	Features bool
}

// TopicChange names the partitions of one topic that are new or differ.
type TopicChange struct {
	Topic      *Topic // as Image has it
	Base       *Topic
	Partitions []int32 // ascending
}

// Empty tells whether nothing that a Delta names has changed.
func (d *Delta) Empty() bool {
	return len(d.Created)+len(d.Deleted)+len(d.Changed)+len(d.Configs)+len(d.Brokers) == 0 && !d.Features
}

func (b *Builder) delta(img *Image) *Delta {
	d := &Delta{Base: b.base, Image: img, Features: b.featuresChanged}
	byName := func(x, y *Topic) int { return strings.Compare(x.Name, y.Name) }
	for id, e := range b.topics {
		before := b.base.TopicByID(id)
		switch {
		case before == nil && e.topic != nil:
			d.Created = append(d.Created, e.topic)
		case before != nil && e.topic == nil:
			d.Deleted = append(d.Deleted, before)
		case before != nil && len(e.changed) > 0:
			c := TopicChange{Topic: e.topic, Base: before}
			for p := range e.changed {
				c.Partitions = append(c.Partitions, p)
			}
			slices.Sort(c.Partitions)
			d.Changed = append(d.Changed, c)
		}
	}
	slices.SortFunc(d.Created, byName)
	slices.SortFunc(d.Deleted, byName)
	slices.SortFunc(d.Changed, func(x, y TopicChange) int { return strings.Compare(x.Topic.Name, y.Topic.Name) })
	for r := range b.configs {
		if !maps.Equal(b.base.Config(r.Type, r.Name), img.Config(r.Type, r.Name)) {
			d.Configs = append(d.Configs, r)
		}
	}
	slices.SortFunc(d.Configs, func(x, y Resource) int {
		return cmp.Or(cmp.Compare(x.Type, y.Type), strings.Compare(x.Name, y.Name))
	})
	for id := range b.brokersChanged {
		d.Brokers = append(d.Brokers, id)
	}
	slices.Sort(d.Brokers)
	return d
}
