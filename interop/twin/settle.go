package twin

import (
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// poll asks again until done, for at most ten seconds. Kafka answers a change once the controller
// has it; the broker's own view follows a little later.
func poll(what string, done func() (bool, error)) error {
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := done()
		if err != nil || ok {
			return err
		}
		select {
		case <-deadline:
			return fmt.Errorf("still not so after 10 s: %s", what)
		case <-tick.C:
		}
	}
}

func (s *Side) metadataOf(name string) (*kmsg.MetadataResponseTopic, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.SetVersion(12)
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = kmsg.StringPtr(name)
	req.Topics = append(req.Topics, rt)
	resp, err := s.Ask(req)
	if err != nil {
		return nil, err
	}
	ts := resp.(*kmsg.MetadataResponse).Topics
	if len(ts) != 1 {
		return nil, fmt.Errorf("metadata of %s has %d topics", name, len(ts))
	}
	return &ts[0], nil
}

// AwaitTopic waits until the broker leads n partitions of the topic and answers for their logs.
func (s *Side) AwaitTopic(name string, n int32) error {
	return poll(fmt.Sprintf("topic %s is served by %s", name, s.Name), func() (bool, error) {
		t, err := s.metadataOf(name)
		if err != nil || t.ErrorCode != 0 || int32(len(t.Partitions)) != n {
			return false, err
		}
		s.learnTopic(name, t.TopicID)
		req := kmsg.NewPtrListOffsetsRequest()
		req.SetVersion(7)
		rt := kmsg.NewListOffsetsRequestTopic()
		rt.Topic = name
		for _, p := range t.Partitions {
			if p.Leader < 0 || p.ErrorCode != 0 {
				return false, nil
			}
			rp := kmsg.NewListOffsetsRequestTopicPartition()
			rp.Partition, rp.Timestamp = p.Partition, -1
			rt.Partitions = append(rt.Partitions, rp)
		}
		req.Topics = append(req.Topics, rt)
		resp, err := s.Ask(req)
		if err != nil {
			return false, err
		}
		for _, p := range resp.(*kmsg.ListOffsetsResponse).Topics[0].Partitions {
			if p.ErrorCode != 0 {
				return false, nil
			}
		}
		return true, nil
	})
}

func (s *Side) awaitNoTopic(name string) error {
	return poll(fmt.Sprintf("topic %s is gone from %s", name, s.Name), func() (bool, error) {
		t, err := s.metadataOf(name)
		return err == nil && t.ErrorCode != 0, err
	})
}

// awaitTopics waits until the broker serves every topic of the sequence that is still there: after a
// restart Kafka answers before it leads them.
func (s *Side) awaitTopics(topics []*topic) error {
	for _, t := range topics {
		m, err := s.metadataOf(t.name)
		if err != nil {
			return err
		}
		const unknown = 3
		if m.ErrorCode == unknown {
			continue
		}
		if err := s.AwaitTopic(t.name, int32(len(m.Partitions))); err != nil {
			return err
		}
	}
	return nil
}

// settleConfigs sets one more setting of the topic and waits until DescribeConfigs tells it: then
// all that was altered before is known too, whatever it was. After that it waits as long again as
// Kafka's broker takes to hand a new configuration to its logs, which no request shows.
func (s *Side) settleConfigs(topic string, mark int) error {
	const (
		key      = "file.delete.delay.ms"
		handOver = 50 * time.Millisecond
	)
	value := fmt.Sprint(60_000 + mark)
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	req.SetVersion(1)
	rr := kmsg.NewIncrementalAlterConfigsRequestResource()
	rr.ResourceType, rr.ResourceName = kmsg.ConfigResourceTypeTopic, topic
	rr.Configs = append(rr.Configs, kmsg.IncrementalAlterConfigsRequestResourceConfig{Name: key, Value: kmsg.StringPtr(value)})
	req.Resources = append(req.Resources, rr)
	if _, err := s.Ask(req); err != nil {
		return err
	}
	err := poll(fmt.Sprintf("%s of %s is %s at %s", key, topic, value, s.Name), func() (bool, error) {
		req := kmsg.NewPtrDescribeConfigsRequest()
		req.SetVersion(1)
		rr := kmsg.NewDescribeConfigsRequestResource()
		rr.ResourceType, rr.ResourceName, rr.ConfigNames = kmsg.ConfigResourceTypeTopic, topic, []string{key}
		req.Resources = append(req.Resources, rr)
		resp, err := s.Ask(req)
		if err != nil {
			return false, err
		}
		rs := resp.(*kmsg.DescribeConfigsResponse).Resources
		return len(rs) == 1 && len(rs[0].Configs) == 1 && rs[0].Configs[0].Value != nil && *rs[0].Configs[0].Value == value, nil
	})
	<-time.After(handOver)
	return err
}

// cleanUp removes the sequence's topics, groups, transactions and fetch sessions, so that both brokers stay small.
func (s *Side) cleanUp(g *generator) error {
	if err := s.endTxns(g.txns); err != nil {
		return err
	}
	for _, id := range s.openSessions() {
		req := kmsg.NewPtrFetchRequest()
		req.SetVersion(12)
		req.SessionID, req.SessionEpoch = id, -1
		if _, err := s.Ask(req); err != nil {
			return err
		}
	}
	if err := s.removeGroups(g.groups); err != nil {
		return err
	}
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.SetVersion(5)
	req.TimeoutMillis = 10_000
	for _, t := range g.allTopics() {
		req.TopicNames = append(req.TopicNames, t.name)
	}
	_, err := s.Ask(req)
	return err
}
