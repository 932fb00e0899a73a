package controller

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/records"
)

// deletion collects the topics that a DeleteTopics request names, by name or by id (KIP-516).
type deletion struct {
	resp           *kmsg.DeleteTopicsResponse
	names          map[string]int // how often
	ids            map[records.UUID]int
	orderedNames   []string
	orderedIDs     []records.UUID
	chosen         map[records.UUID]*metadata.Topic
	orderedTargets []records.UUID
}

// deleteTopics decides a DeleteTopics request. Kafka shuffles its answers; here they come in the order of its checks.
func (m *machine) deleteTopics(req *kmsg.DeleteTopicsRequest) ([]metadata.Record, *kmsg.DeleteTopicsResponse) {
	d := &deletion{resp: kmsg.NewPtrDeleteTopicsResponse(), names: map[string]int{}, ids: map[records.UUID]int{}, chosen: map[records.UUID]*metadata.Topic{}}
	d.resp.Version = req.Version
	if !m.opts.Config.DeleteTopicEnable {
		if req.Version < 3 {
			return nil, failedDeleteTopics(req, refuse(kerr.InvalidRequest, "Topic deletion is disabled."))
		}
		return nil, failedDeleteTopics(req, bare(kerr.TopicDeletionDisabled))
	}
	d.collect(req)
	for _, name := range d.orderedNames {
		if d.names[name] > 1 {
			d.add(&name, records.UUID{}, refuse(kerr.InvalidRequest, "Duplicate topic name."))
		}
	}
	for _, id := range d.orderedIDs {
		if d.ids[id] > 1 {
			d.add(nil, id, refuse(kerr.InvalidRequest, "Duplicate topic id."))
		}
	}
	d.resolve(m.img)
	var recs []metadata.Record
	for _, id := range d.orderedTargets {
		t := d.chosen[id]
		if t == nil {
			continue
		}
		recs = append(recs, metadata.Record{Message: &records.RemoveTopicRecord{TopicID: id}})
		d.add(&t.Name, id, nil)
	}
	return recs, d.resp
}

func (d *deletion) add(name *string, id records.UUID, a *answer) {
	t := kmsg.NewDeleteTopicsResponseTopic()
	t.Topic, t.TopicID = name, id
	t.ErrorCode, t.ErrorMessage = a.get()
	d.resp.Topics = append(d.resp.Topics, t)
}

func (d *deletion) collect(req *kmsg.DeleteTopicsRequest) {
	byName := func(name string) {
		if d.names[name]++; d.names[name] == 1 {
			d.orderedNames = append(d.orderedNames, name)
		}
	}
	for _, name := range req.TopicNames {
		byName(name)
	}
	for _, t := range req.Topics {
		noID := t.TopicID == records.UUID{}
		switch {
		case t.Topic == nil && noID:
			d.add(nil, records.UUID{}, refuse(kerr.InvalidRequest, "Neither topic name nor id were specified."))
		case t.Topic == nil:
			if d.ids[t.TopicID]++; d.ids[t.TopicID] == 1 {
				d.orderedIDs = append(d.orderedIDs, t.TopicID)
			}
		case noID:
			byName(*t.Topic)
		default:
			d.add(t.Topic, t.TopicID, refuse(kerr.InvalidRequest, "You may not specify both topic name and topic id."))
		}
	}
}

// resolve finds the topics that were named once.
func (d *deletion) resolve(img *metadata.Image) {
	for _, id := range d.orderedIDs {
		if d.ids[id] > 1 {
			continue
		}
		if t := img.TopicByID(id); t == nil {
			d.add(nil, id, refuse(kerr.UnknownTopicID, "This server does not host this topic ID."))
		} else {
			d.target(t)
		}
	}
	for _, name := range d.orderedNames {
		if d.names[name] > 1 {
			continue
		}
		t := img.Topic(name)
		switch {
		case t == nil:
			d.add(&name, records.UUID{}, refuse(kerr.UnknownTopicOrPartition, "This server does not host this topic-partition."))
		case d.ids[t.ID] > 0:
			d.chosen[t.ID] = nil
			d.add(&name, t.ID, refuse(kerr.InvalidRequest, "The provided topic name maps to an ID that was already supplied."))
		default:
			d.target(t)
		}
	}
}

func (d *deletion) target(t *metadata.Topic) {
	d.chosen[t.ID] = t
	d.orderedTargets = append(d.orderedTargets, t.ID)
}

func failedDeleteTopics(req *kmsg.DeleteTopicsRequest, a *answer) *kmsg.DeleteTopicsResponse {
	d := &deletion{resp: kmsg.NewPtrDeleteTopicsResponse()}
	d.resp.Version = req.Version
	for _, name := range req.TopicNames {
		d.add(&name, records.UUID{}, a)
	}
	for _, t := range req.Topics {
		d.add(t.Topic, t.TopicID, a)
	}
	return d.resp
}
