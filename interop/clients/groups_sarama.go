package clients

import (
	"context"
	"errors"
	"fmt"

	"github.com/IBM/sarama"
)

// SaramaGroups are sarama's consumers with each of its strategies.
func SaramaGroups() []GroupConsumer {
	var out []GroupConsumer
	for name, strategy := range map[string]func() sarama.BalanceStrategy{
		"range": sarama.NewBalanceStrategyRange, "roundrobin": sarama.NewBalanceStrategyRoundRobin, "sticky": sarama.NewBalanceStrategySticky,
	} {
		out = append(out, GroupConsumer{Name: "sarama-" + name, Static: true, Join: func(m Membership) (Member, error) { return joinSarama(m, strategy()) }})
	}
	return out
}

type saramaMember struct {
	m     Membership
	group sarama.ConsumerGroup
	stop  context.CancelFunc
	done  chan error
}

func joinSarama(m Membership, strategy sarama.BalanceStrategy) (Member, error) {
	c := Sarama{}.config()
	c.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{strategy}
	c.Consumer.Group.Heartbeat.Interval = beat
	c.Consumer.Group.Session.Timeout = patience / 2
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.MaxWaitTime = beat / 2
	c.Consumer.Return.Errors = false
	if m.Static {
		c.Consumer.Group.InstanceId = m.Name
	}
	group, err := sarama.NewConsumerGroup([]string{m.Addr}, m.Group, c)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &saramaMember{m, group, cancel, make(chan error, 1)}
	go func() {
		for ctx.Err() == nil { // one turn for each generation
			if err := group.Consume(ctx, []string{m.Topic}, s); err != nil && !errors.Is(err, context.Canceled) {
				s.done <- err
				return
			}
		}
		s.done <- nil
	}()
	return s, nil
}

// Setup is called at the start of a generation.
func (s *saramaMember) Setup(g sarama.ConsumerGroupSession) error {
	s.m.Watch.Assigned(s.m.Name, g.Claims()[s.m.Topic]...)
	return nil
}

// Cleanup is called when all claims have ended.
func (s *saramaMember) Cleanup(g sarama.ConsumerGroupSession) error {
	s.m.Watch.Revoked(s.m.Name, g.Claims()[s.m.Topic]...)
	return nil
}

// ConsumeClaim reads one partition in one generation. What is marked is committed at its end.
func (s *saramaMember) ConsumeClaim(g sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case m, ok := <-claim.Messages():
			if !ok {
				return nil
			}
			s.m.Watch.Record(s.m.Name, m.Partition, m.Offset)
			g.MarkMessage(m, "")
		case <-g.Context().Done():
			return nil
		}
	}
}

func (s *saramaMember) Close() error {
	s.stop()
	err := errors.Join(<-s.done, s.group.Close())
	s.m.Watch.Closed(s.m.Name)
	if err != nil {
		return fmt.Errorf("%s: %w", s.m.Name, err)
	}
	return nil
}
