package bench

import (
	"fmt"
	"net"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/wire"
)

// limitAPIs are the requests that a limit answers: those with topic names, not ids.
var limitAPIs = [...]struct{ key, min, max int16 }{
	{int16(kmsg.Produce), 3, 12},
	{int16(kmsg.Fetch), 4, 12},
	{int16(kmsg.ListOffsets), 1, 6},
	{int16(kmsg.Metadata), 0, 9},
	{int16(kmsg.ApiVersions), 0, 3},
	{int16(kmsg.CreateTopics), 0, 6},
	{int16(kmsg.DeleteTopics), 0, 5},
	{int16(kmsg.InitProducerID), 0, 4},
}

const limitNode = 1

func checkLimitVersion(key, version int16) error {
	for _, a := range limitAPIs {
		if a.key == key && (a.min <= version && version <= a.max || key == wire.KeyApiVersions) {
			return nil
		}
	}
	return fmt.Errorf("%s version %d is not served", kmsg.NameForKey(key), version)
}

// handleOther answers what is not on the path of records.
func (c *limitConn) handleOther(body []byte) error {
	if err := c.write(); err != nil {
		return err
	}
	if c.head.APIKey == wire.KeyApiVersions && c.head.APIVersion > 3 {
		c.head.APIVersion = 0 // as brokers answer a client that is newer than they are
		c.reply(limitVersions(wire.UnsupportedVersion))
		return nil
	}
	req := kmsg.RequestForKey(c.head.APIKey)
	req.SetVersion(c.head.APIVersion)
	if err := req.ReadFrom(body); err != nil {
		return fmt.Errorf("%s: %w", kmsg.NameForKey(c.head.APIKey), err)
	}
	switch req := req.(type) {
	case *kmsg.ApiVersionsRequest:
		c.reply(limitVersions(wire.None))
	case *kmsg.MetadataRequest:
		resp, err := c.metadata(req)
		if err != nil {
			return err
		}
		c.reply(resp)
	case *kmsg.CreateTopicsRequest:
		c.reply(c.createTopics(req))
	case *kmsg.DeleteTopicsRequest:
		c.reply(c.deleteTopics(req))
	case *kmsg.ListOffsetsRequest:
		c.reply(c.listOffsets(req))
	case *kmsg.InitProducerIDRequest:
		resp := kmsg.NewPtrInitProducerIDResponse()
		resp.ProducerID, resp.ProducerEpoch = c.s.nextPID.Add(1)-1, 0
		if req.TransactionalID != nil {
			resp.ErrorCode = int16(wire.InvalidRequest)
		}
		c.reply(resp)
	}
	return nil
}

func (c *limitConn) reply(resp kmsg.Response) {
	resp.SetVersion(c.head.APIVersion)
	at := c.begin()
	c.out = resp.AppendTo(c.out)
	c.finish(at, 0)
}

func limitVersions(code wire.Code) *kmsg.ApiVersionsResponse {
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.ErrorCode = int16(code)
	for _, a := range limitAPIs {
		k := kmsg.NewApiVersionsResponseApiKey()
		k.ApiKey, k.MinVersion, k.MaxVersion = a.key, a.min, a.max
		resp.ApiKeys = append(resp.ApiKeys, k)
	}
	return resp
}

// metadata names this one node, as the client has found it, and never makes a topic.
func (c *limitConn) metadata(req *kmsg.MetadataRequest) (*kmsg.MetadataResponse, error) {
	host, port, err := net.SplitHostPort(c.tcp.LocalAddr().String())
	if err != nil {
		return nil, err
	}
	b := kmsg.NewMetadataResponseBroker()
	b.NodeID, b.Host = limitNode, host
	n, err := strconv.ParseInt(port, 10, 32)
	if err != nil {
		return nil, err
	}
	b.Port = int32(n)
	resp := kmsg.NewPtrMetadataResponse()
	resp.Brokers, resp.ControllerID = append(resp.Brokers, b), limitNode
	id := "limit"
	resp.ClusterID = &id
	var names []string
	if req.Topics == nil || req.Version == 0 && len(req.Topics) == 0 {
		for name := range *c.s.topics.Load() {
			names = append(names, name)
		}
		slices.Sort(names)
	}
	for _, t := range req.Topics {
		if t.Topic != nil {
			names = append(names, *t.Topic)
		}
	}
	for _, name := range names {
		resp.Topics = append(resp.Topics, c.topicMetadata(name))
	}
	return resp, nil
}

func (c *limitConn) topicMetadata(name string) kmsg.MetadataResponseTopic {
	t := kmsg.NewMetadataResponseTopic()
	t.Topic = &name
	logs, ok := (*c.s.topics.Load())[name]
	if !ok {
		t.ErrorCode = int16(wire.UnknownTopicOrPartition)
	}
	for i := range logs {
		p := kmsg.NewMetadataResponseTopicPartition()
		p.Partition, p.Leader, p.LeaderEpoch, p.Replicas, p.ISR = int32(i), limitNode, 0, []int32{limitNode}, []int32{limitNode}
		t.Partitions = append(t.Partitions, p)
	}
	return t
}

// createTopics takes every configuration and heeds none.
func (c *limitConn) createTopics(req *kmsg.CreateTopicsRequest) *kmsg.CreateTopicsResponse {
	resp := kmsg.NewPtrCreateTopicsResponse()
	for _, t := range req.Topics {
		r := kmsg.NewCreateTopicsResponseTopic()
		r.Topic, r.NumPartitions, r.ReplicationFactor = t.Topic, max(1, t.NumPartitions), 1
		r.ErrorCode = int16(c.createTopic(&t, int(r.NumPartitions), req.ValidateOnly))
		resp.Topics = append(resp.Topics, r)
	}
	return resp
}

func (c *limitConn) createTopic(t *kmsg.CreateTopicsRequestTopic, partitions int, validateOnly bool) wire.Code {
	switch {
	case checkName(t.Topic) != nil || t.Topic == "." || t.Topic == "..":
		return wire.InvalidTopicException
	case len(t.ReplicaAssignment) > 0 || t.ReplicationFactor > 1:
		return wire.InvalidReplicationFactor
	case validateOnly:
		return wire.None
	}
	created, err := c.s.create(t.Topic, partitions)
	switch {
	case err != nil:
		return wire.KafkaStorageError
	case !created:
		return wire.TopicAlreadyExists
	}
	return wire.None
}

func (c *limitConn) deleteTopics(req *kmsg.DeleteTopicsRequest) *kmsg.DeleteTopicsResponse {
	resp := kmsg.NewPtrDeleteTopicsResponse()
	for _, name := range req.TopicNames {
		t := kmsg.NewDeleteTopicsResponseTopic()
		t.Topic = &name
		switch existed, err := c.s.delete(name); {
		case err != nil:
			t.ErrorCode = int16(wire.KafkaStorageError)
		case !existed:
			t.ErrorCode = int16(wire.UnknownTopicOrPartition)
		}
		resp.Topics = append(resp.Topics, t)
	}
	return resp
}

// listOffsets knows the two ends of a log.
func (c *limitConn) listOffsets(req *kmsg.ListOffsetsRequest) *kmsg.ListOffsetsResponse {
	const latest, earliest = -1, -2
	resp := kmsg.NewPtrListOffsetsResponse()
	for _, t := range req.Topics {
		rt := kmsg.NewListOffsetsResponseTopic()
		rt.Topic = t.Topic
		for _, p := range t.Partitions {
			rp := kmsg.NewListOffsetsResponseTopicPartition()
			rp.Partition, rp.Offset, rp.LeaderEpoch = p.Partition, -1, 0
			l := c.s.log([]byte(t.Topic), p.Partition)
			switch {
			case l == nil:
				rp.ErrorCode = int16(wire.UnknownTopicOrPartition)
			case p.Timestamp == latest:
				rp.Offset = l.end()
			case p.Timestamp == earliest:
				rp.Offset = 0
			default:
				rp.ErrorCode = int16(wire.UnsupportedForMessageFormat)
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp
}
