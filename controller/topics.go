package controller

import (
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/records"
)

// Limits of one request: partitions that it may create, and records that it may lead to (Kafka's MAX_RECORDS_PER_USER_OP).
const (
	maxRequestPartitions = 10_000
	maxRequestRecords    = 10_000
)

const textTooManyRecords = "Unable to perform excessively large batch operation."

// metadataTopic is the name of the metadata log, which is no topic that clients can have.
const metadataTopic = "__cluster_metadata"

// createTopics decides a CreateTopics request.
func (m *machine) createTopics(req *kmsg.CreateTopicsRequest) ([]metadata.Record, *kmsg.CreateTopicsResponse) {
	resp := kmsg.NewPtrCreateTopicsResponse()
	resp.Version = req.Version
	names, duplicates := unique(req.Topics, func(t kmsg.CreateTopicsRequestTopic) string { return t.Topic })
	if m.partitionsWanted(req, names) > maxRequestPartitions {
		return nil, failedCreateTopics(req, refuse(kerr.PolicyViolation, "Excessively large number of partitions per request."))
	}
	var recs []metadata.Record
	defaults := m.defaults()
	for i := range req.Topics {
		t := &req.Topics[i]
		if !names[t.Topic] || t.Topic == metadataTopic {
			continue
		}
		topicRecs, result, refused := m.createTopic(t, defaults)
		if refused != nil {
			result = failedTopic(t.Topic, refused)
		}
		recs = append(recs, topicRecs...)
		resp.Topics = append(resp.Topics, result)
	}
	if len(recs) > maxRequestRecords {
		return nil, failedCreateTopics(req, refuse(kerr.PolicyViolation, textTooManyRecords))
	}
	for _, name := range duplicates {
		resp.Topics = append(resp.Topics, failedTopic(name, refuse(kerr.InvalidRequest, "Duplicate topic name.")))
	}
	if names[metadataTopic] {
		resp.Topics = append(resp.Topics, failedTopic(metadataTopic, refuse(kerr.InvalidRequest, "Creation of internal topic %s is prohibited.", metadataTopic)))
	}
	if req.ValidateOnly {
		recs = nil
	}
	return recs, resp
}

// unique tells the names that occur once; the others are listed in the order of their first occurrence.
func unique[T any](items []T, name func(T) string) (once map[string]bool, more []string) {
	count := map[string]int{}
	for _, t := range items {
		n := name(t)
		if count[n]++; count[n] == 2 {
			more = append(more, n)
		}
	}
	once = map[string]bool{}
	for n, c := range count {
		if c == 1 {
			once[n] = true
		}
	}
	return once, more
}

// partitionsWanted is the sum over the topics, as far as it can be known before they are looked at.
func (m *machine) partitionsWanted(req *kmsg.CreateTopicsRequest, names map[string]bool) int64 {
	sum := int64(0)
	for _, t := range req.Topics {
		switch {
		case !names[t.Topic]:
		case len(t.ReplicaAssignment) > 0:
			sum += int64(len(t.ReplicaAssignment))
		case t.NumPartitions > 0:
			sum += int64(t.NumPartitions)
		case t.NumPartitions == -1:
			sum += int64(m.opts.Config.NumPartitions)
		}
	}
	return sum
}

// createTopic decides about one topic, in Kafka's order of checks.
func (m *machine) createTopic(t *kmsg.CreateTopicsRequestTopic, defaults *config.Layers) ([]metadata.Record, kmsg.CreateTopicsResponseTopic, *answer) {
	result := kmsg.NewCreateTopicsResponseTopic()
	if refused := m.checkNewName(t.Topic); refused != nil {
		return nil, result, refused
	}
	overrides, configRecs, refused := m.newTopicConfigs(t, defaults)
	if refused != nil {
		return nil, result, refused
	}
	assignment, refused := m.assign(t)
	if refused != nil {
		return nil, result, refused
	}
	id := m.newID()
	recs := []metadata.Record{{Message: &records.TopicRecord{Name: t.Topic, TopicID: id}}}
	recs = append(recs, configRecs...)
	for p, replicas := range assignment {
		isr := m.active(replicas)
		if len(isr) == 0 {
			if len(t.ReplicaAssignment) > 0 {
				return nil, result, refuse(kerr.InvalidReplicaAssignment, "All brokers specified in the manual partition assignment for partition %d are fenced or in controlled shutdown.", p)
			}
			return nil, result, refuse(kerr.InvalidReplicationFactor, "Unable to replicate the partition %d time(s): All brokers are currently fenced or in controlled shutdown.", len(replicas))
		}
		recs = append(recs, m.newPartition(id, int32(p), replicas, isr))
	}
	result.Topic, result.TopicID = t.Topic, id
	result.NumPartitions, result.ReplicationFactor = int32(len(assignment)), int16(len(assignment[0]))
	result.Configs = []kmsg.CreateTopicsResponseTopicConfig{}
	if m.opts.TopicConfigs != nil {
		result.Configs = m.opts.TopicConfigs(t.Topic, overrides)
	}
	return recs, result, nil
}

func (m *machine) newPartition(id records.UUID, index int32, replicas, isr []int32) metadata.Record {
	p := &records.PartitionRecord{PartitionID: index, TopicID: id, Replicas: replicas, Isr: isr, Leader: isr[0]}
	if metadata.DirectoriesAllowed(m.level()) {
		for _, r := range replicas {
			p.Directories = append(p.Directories, m.directoryOf(r))
		}
	}
	return metadata.Record{Message: p, Version: metadata.PartitionVersion(m.level())}
}

// directoryOf is where a broker keeps a new replica: in its only directory, or where it will say itself.
func (m *machine) directoryOf(broker int32) records.UUID {
	if b := m.img.Broker(broker); b != nil && len(b.Directories) == 1 {
		return b.Directories[0]
	}
	return records.UUID{15: 1} // UNASSIGNED (KIP-858)
}

// checkNewName refuses names that no topic can have, that are taken, or that would share a metric's name with another.
func (m *machine) checkNewName(name string) *answer {
	if m.img.Topic(name) != nil {
		return refuse(kerr.TopicAlreadyExists, "Topic '%s' already exists.", name)
	}
	if reason := invalidName(name); reason != "" {
		return refuse(kerr.InvalidTopicException, "Topic name is invalid: %s", reason)
	}
	if other, ok := m.img.Colliding(name); ok {
		return refuse(kerr.InvalidTopicException, "Topic '%s' collides with existing topic: %s", name, other)
	}
	return nil
}

// invalidName says why no topic can have the name, "" when one can.
func invalidName(name string) string {
	switch {
	case name == "":
		return "the empty string is not allowed"
	case name == "." || name == "..":
		return "'" + name + "' is not allowed"
	case utf16Len(name) > 249:
		return "the length of '" + name + "' is longer than the max allowed length 249"
	case strings.ContainsFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-')
	}):
		return "'" + name + "' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
	}
	return ""
}

// utf16Len is the length of s as Java counts it.
func utf16Len(s string) (n int) {
	for _, r := range s {
		if n++; r > 0xffff {
			n++
		}
	}
	return n
}

func failedTopic(name string, a *answer) kmsg.CreateTopicsResponseTopic {
	t := kmsg.NewCreateTopicsResponseTopic()
	t.Topic = name
	t.ErrorCode, t.ErrorMessage = a.get()
	t.Configs = []kmsg.CreateTopicsResponseTopicConfig{}
	return t
}

func failedCreateTopics(req *kmsg.CreateTopicsRequest, a *answer) *kmsg.CreateTopicsResponse {
	resp := kmsg.NewPtrCreateTopicsResponse()
	resp.Version = req.Version
	for _, t := range req.Topics {
		resp.Topics = append(resp.Topics, failedTopic(t.Topic, a))
	}
	return resp
}

// createPartitions decides a CreatePartitions request.
func (m *machine) createPartitions(req *kmsg.CreatePartitionsRequest) ([]metadata.Record, *kmsg.CreatePartitionsResponse) {
	resp := kmsg.NewPtrCreatePartitionsResponse()
	resp.Version = req.Version
	names, duplicates := unique(req.Topics, func(t kmsg.CreatePartitionsRequestTopic) string { return t.Topic })
	add := func(name string, a *answer) {
		t := kmsg.NewCreatePartitionsResponseTopic()
		t.Topic = name
		t.ErrorCode, t.ErrorMessage = a.get()
		resp.Topics = append(resp.Topics, t)
	}
	for _, name := range duplicates {
		add(name, refuse(kerr.InvalidRequest, "Duplicate topic name."))
	}
	var recs []metadata.Record
	for i := range req.Topics {
		t := &req.Topics[i]
		if !names[t.Topic] {
			continue
		}
		more, refused := m.addPartitions(t, maxRequestRecords-len(recs))
		recs = append(recs, more...)
		add(t.Topic, refused)
	}
	if req.ValidateOnly {
		recs = nil
	}
	return recs, resp
}

// addPartitions decides about one topic; room is how many records the request may still lead to.
func (m *machine) addPartitions(t *kmsg.CreatePartitionsRequestTopic, room int) ([]metadata.Record, *answer) {
	topic := m.img.Topic(t.Topic)
	if topic == nil {
		return nil, bare(kerr.UnknownTopicOrPartition)
	}
	have := int32(len(topic.Partitions))
	switch {
	case t.Count == have:
		return nil, refuse(kerr.InvalidPartitions, "Topic already has %d partition(s).", have)
	case t.Count < have:
		return nil, refuse(kerr.InvalidPartitions, "The topic %s currently has %d partition(s); %d would not be an increase.", t.Topic, have, t.Count)
	}
	additional := t.Count - have
	if t.Assignment != nil && int32(len(t.Assignment)) != additional {
		return nil, refuse(kerr.InvalidReplicaAssignment, "Attempted to add %d additional partition(s), but only %d assignment(s) were specified.", additional, len(t.Assignment))
	}
	if int(additional) > room {
		return nil, bare(kerr.UnknownServerError)
	}
	rf := len(topic.Partitions[0].Replicas)
	var assignment [][]int32
	if t.Assignment != nil {
		for _, a := range t.Assignment {
			if refused := m.checkAssignment(a.Replicas, rf); refused != nil {
				return nil, refused
			}
			assignment = append(assignment, slices.Clone(a.Replicas))
		}
	} else {
		var reason string
		if assignment, reason = m.place(have, additional, rf); reason != "" {
			return nil, refuse(kerr.InvalidReplicationFactor, "%s", reason)
		}
	}
	var recs []metadata.Record
	for i, replicas := range assignment {
		isr := m.active(replicas)
		if len(isr) == 0 && t.Assignment != nil {
			return nil, refuse(kerr.InvalidReplicaAssignment, "All brokers specified in the manual partition assignment for partition %d are fenced or in controlled shutdown.", int(have)+i)
		} else if len(isr) == 0 {
			return nil, refuse(kerr.InvalidReplicationFactor, "Unable to replicate the partition %d time(s): All brokers are currently fenced or in controlled shutdown.", rf)
		}
		recs = append(recs, m.newPartition(topic.ID, have+int32(i), replicas, isr))
	}
	return recs, nil
}

func failedCreatePartitions(req *kmsg.CreatePartitionsRequest, a *answer) *kmsg.CreatePartitionsResponse {
	resp := kmsg.NewPtrCreatePartitionsResponse()
	resp.Version = req.Version
	for _, r := range req.Topics {
		t := kmsg.NewCreatePartitionsResponseTopic()
		t.Topic = r.Topic
		t.ErrorCode, t.ErrorMessage = a.get()
		resp.Topics = append(resp.Topics, t)
	}
	return resp
}
