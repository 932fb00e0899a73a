package broker

import (
	"math"
	"slices"

	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// What a client may do where there is no authorizer: bits of Kafka's AclOperation codes.
const (
	opsUnasked int32 = math.MinInt32 // the client did not ask
	opsTopic   int32 = 3576          // read, write, create, delete, alter, describe and the configs
	opsCluster int32 = 8096          // create, alter, describe, cluster action, the configs, idempotent write
)

// zeroID is the topic id of no topic.
var zeroID [16]byte

// view is the cluster as one listener's clients see it.
type view struct {
	img      *metadata.Image
	listener string
}

func (b *Broker) viewOf(c *call) view {
	return view{img: b.image(), listener: c.listener()}
}

// node finds where a broker is reached through the view's listener; nil if it is not registered there.
func (v view) node(id int32) *metadata.Endpoint {
	br := v.img.Broker(id)
	if br == nil {
		return nil
	}
	for i := range br.Endpoints {
		if br.Endpoints[i].Name == v.listener {
			return &br.Endpoints[i]
		}
	}
	return nil
}

// alive says whether clients of this listener can be sent to a broker.
func (v view) alive(id int32) bool {
	br := v.img.Broker(id)
	return br != nil && !br.Fenced && v.node(id) != nil
}

// controllerID is the broker that clients send their controller requests to: any alive one, since
// brokers forward them. -1 if there is none.
func (v view) controllerID() int32 {
	for _, br := range v.img.Brokers() {
		if v.alive(br.ID) {
			return br.ID
		}
	}
	return -1
}

// offline lists the replicas of a partition that cannot serve.
func (v view) offline(p *metadata.Partition) []int32 {
	var out []int32
	for i, id := range p.Replicas {
		br := v.img.Broker(id)
		if br == nil || br.Fenced || v.node(id) == nil || !inOnlineDir(br, p, i) {
			out = append(out, id)
		}
	}
	return out
}

// inOnlineDir says whether the directory of a partition's i-th replica is one that its broker serves.
// The reserved ids of Kafka (KIP-858) are: lost, which is offline, and unassigned and migrating, which are not.
func inOnlineDir(br *metadata.Broker, p *metadata.Partition, i int) bool {
	lost := [16]byte{15: 2}
	if i >= len(p.Directories) || len(br.Directories) == 0 {
		return true
	}
	dir := p.Directories[i]
	if dir == lost {
		return false
	}
	reserved := dir == [16]byte{} || dir == [16]byte{15: 1}
	return reserved || slices.Contains(br.Directories, dir)
}

// handleMetadata answers Metadata 0–13: brokers, and topics by name, by id or all of them; with
// leave of client and configuration it has missing topics created.
func (b *Broker) handleMetadata(c *call, req *kmsg.MetadataRequest) {
	v := b.viewOf(c)
	version := c.h.APIVersion
	if code := metadataRefusal(req, version); code != wire.None {
		c.reply(refusedMetadata(req, code))
		return
	}
	resp := kmsg.NewPtrMetadataResponse()
	for _, br := range v.img.Brokers() {
		if !v.alive(br.ID) {
			continue
		}
		at := v.node(br.ID)
		mb := kmsg.NewMetadataResponseBroker()
		mb.NodeID, mb.Host, mb.Port, mb.Rack = br.ID, at.Host, int32(at.Port), br.Rack
		resp.Brokers = append(resp.Brokers, mb)
	}
	id := v.img.ClusterID()
	resp.ClusterID = &id
	resp.ControllerID = v.controllerID()
	if version >= 8 && version <= 10 && req.IncludeClusterAuthorizedOperations {
		resp.AuthorizedOperations = opsCluster
	}
	var missing []string
	resp.Topics, missing = v.metadataTopics(req, version)
	allowed := req.AllowAutoTopicCreation || version < 4 // which cannot say no
	if len(missing) > 0 && allowed && b.cfg.AutoCreateTopics {
		b.autoCreate(missing)
	}
	c.reply(resp)
}

// metadataRefusal is the error of a request whose topics are named in a way that its version has not.
func metadataRefusal(req *kmsg.MetadataRequest, version int16) wire.Code {
	byID := namesIDs(req)
	for i := range req.Topics {
		t := &req.Topics[i]
		switch {
		case version < 12 && (t.Topic == nil || t.TopicID != zeroID):
			return wire.InvalidRequest
		case t.Topic == nil && t.TopicID == zeroID && !byID:
			return wire.UnknownServerError
		}
	}
	return wire.None
}

// namesIDs says whether a request asks for topics by their ids.
func namesIDs(req *kmsg.MetadataRequest) bool {
	return slices.ContainsFunc(req.Topics, func(t kmsg.MetadataRequestTopic) bool { return t.TopicID != zeroID })
}

// refusedMetadata names the topics asked for, each with the code, and nothing else.
func refusedMetadata(req *kmsg.MetadataRequest, code wire.Code) *kmsg.MetadataResponse {
	resp := kmsg.NewPtrMetadataResponse()
	resp.ControllerID = -1
	for i := range req.Topics {
		t := kmsg.NewMetadataResponseTopic()
		name := ""
		if req.Topics[i].Topic != nil {
			name = *req.Topics[i].Topic
		}
		t.Topic, t.TopicID, t.ErrorCode = &name, req.Topics[i].TopicID, int16(code)
		resp.Topics = append(resp.Topics, t)
	}
	return resp
}

// metadataTopics answers for each topic that was asked for once. missing are those that do not
// exist and have a name that can be created.
func (v view) metadataTopics(req *kmsg.MetadataRequest, version int16) (topics []kmsg.MetadataResponseTopic, missing []string) {
	add := func(t kmsg.MetadataResponseTopic) {
		if version >= 8 && req.IncludeTopicAuthorizedOperations && t.Topic != nil {
			t.AuthorizedOperations = opsTopic
		}
		topics = append(topics, t)
	}
	if req.Topics == nil || version == 0 && len(req.Topics) == 0 {
		for t := range v.img.Topics() {
			add(v.metadataTopic(t, version))
		}
		return topics, nil
	}
	byID := namesIDs(req)
	seen := map[string]bool{}
	for i := range req.Topics {
		rt := &req.Topics[i]
		if byID {
			key := string(rt.TopicID[:])
			if rt.TopicID == zeroID || seen[key] {
				continue
			}
			seen[key] = true
			if t := v.img.TopicByID(rt.TopicID); t != nil {
				add(v.metadataTopic(t, version))
			} else {
				unknown := kmsg.NewMetadataResponseTopic()
				unknown.TopicID, unknown.ErrorCode = rt.TopicID, int16(wire.UnknownTopicID)
				add(unknown)
			}
			continue
		}
		name := *rt.Topic
		if seen[name] {
			continue
		}
		seen[name] = true
		if t := v.img.Topic(name); t != nil {
			add(v.metadataTopic(t, version))
			continue
		}
		unknown := kmsg.NewMetadataResponseTopic()
		unknown.Topic, unknown.IsInternal, unknown.ErrorCode = &name, isInternalTopic(name), int16(wire.UnknownTopicOrPartition)
		if invalidTopicName(name) != "" {
			unknown.ErrorCode = int16(wire.InvalidTopicException)
		} else {
			missing = append(missing, name)
		}
		add(unknown)
	}
	return topics, missing
}

func (v view) metadataTopic(t *metadata.Topic, version int16) kmsg.MetadataResponseTopic {
	out := kmsg.NewMetadataResponseTopic()
	name := t.Name
	out.Topic, out.TopicID, out.IsInternal = &name, t.ID, isInternalTopic(t.Name)
	out.Partitions = make([]kmsg.MetadataResponseTopicPartition, 0, len(t.Partitions))
	for i := range t.Partitions {
		p := &t.Partitions[i]
		mp := kmsg.NewMetadataResponseTopicPartition()
		mp.Partition, mp.Leader, mp.LeaderEpoch = p.Index, p.Leader, p.LeaderEpoch
		mp.Replicas, mp.ISR, mp.OfflineReplicas = p.Replicas, p.Isr, v.offline(p)
		if version == 0 { // which has no other way to say that a replica is away
			mp.Replicas, mp.ISR = v.onlyAlive(p.Replicas), v.onlyAlive(p.Isr)
		}
		switch {
		case v.node(p.Leader) != nil:
			if len(mp.Replicas) < len(p.Replicas) || len(mp.ISR) < len(p.Isr) {
				mp.ErrorCode = int16(wire.ReplicaNotAvailable)
			}
		case v.img.Broker(p.Leader) == nil || version < 6:
			mp.Leader, mp.ErrorCode = metadata.NoLeader, int16(wire.LeaderNotAvailable)
		default:
			mp.Leader, mp.ErrorCode = metadata.NoLeader, int16(wire.ListenerNotFound)
		}
		out.Partitions = append(out.Partitions, mp)
	}
	return out
}

func (v view) onlyAlive(ids []int32) []int32 {
	out := make([]int32, 0, len(ids))
	for _, id := range ids {
		if v.alive(id) {
			out = append(out, id)
		}
	}
	return out
}

// autoCreate asks the controller for topics that a client named. The client is told that they do
// not exist yet and asks again, as with Kafka.
func (b *Broker) autoCreate(names []string) {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = b.cfg.RequestTimeoutMs
	req.Version = 7
	for _, name := range names {
		req.Topics = append(req.Topics, creatable(b.cfg, name))
	}
	b.ctl.CreateTopics(req, func(*kmsg.CreateTopicsResponse) {})
}

// creatable is a topic as the configuration makes it when nobody says more; coordinators' own
// topics take their settings, which are Kafka's.
func creatable(cfg *config.Server, name string) kmsg.CreateTopicsRequestTopic {
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, cfg.NumPartitions, cfg.DefaultReplicationFactor
	own := func(partitions int32, factor int16, settings ...string) {
		t.NumPartitions, t.ReplicationFactor = partitions, factor
		for i := 0; i < len(settings); i += 2 {
			s := kmsg.NewCreateTopicsRequestTopicConfig()
			s.Name, s.Value = settings[i], &settings[i+1]
			t.Configs = append(t.Configs, s)
		}
	}
	static := cfg.Layers(nil, nil)
	value := func(name string) string {
		v := static.Value(config.Broker().Lookup(name))
		return v.String()
	}
	switch name {
	case topicConsumerOffsets:
		own(cfg.OffsetsTopicPartitions, cfg.OffsetsTopicReplication,
			"cleanup.policy", "compact", "compression.type", "producer", "segment.bytes", value("offsets.topic.segment.bytes"))
	case topicTransactionState:
		own(cfg.TxnLogPartitions, cfg.TxnLogReplicationFactor,
			"unclean.leader.election.enable", "false", "compression.type", "uncompressed", "cleanup.policy", "compact",
			"min.insync.replicas", value("transaction.state.log.min.isr"), "segment.bytes", value("transaction.state.log.segment.bytes"))
	}
	return t
}
