// Package kfake stands where franz-go's broker in memory of that name does in the tests that its
// project translated from Kafka's own: the names that those tests use, and behind them the broker
// under test, one for each cluster. A proxy before it lets a test answer a request in the broker's
// place.
package kfake

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/interop/process"
	"github.com/millrace-project/millrace/interop/subject"
)

// patience bounds what is done outside of a test's own timeouts.
const patience = 30 * time.Second

type seed struct {
	partitions int32
	topics     []string
}

type settings struct {
	brokers int
	seeds   []seed
	configs map[string]string
}

// Opt is an option of NewCluster.
type Opt func(*settings)

// NumBrokers says how many brokers the cluster has. Only one can be had.
func NumBrokers(n int) Opt { return func(s *settings) { s.brokers = n } }

// SeedTopics creates the topics, or one topic for each name.
func SeedTopics(partitions int32, topics ...string) Opt {
	return func(s *settings) { s.seeds = append(s.seeds, seed{partitions, topics}) }
}

// BrokerConfigs sets broker settings by Kafka's names. The lower limits of what a group may ask for
// follow what is set.
func BrokerConfigs(configs map[string]string) Opt {
	return func(s *settings) {
		for name, value := range configs {
			s.configs[name] = value
		}
	}
}

// Cluster is one running broker. Its methods may be called from any goroutine.
type Cluster struct {
	dir    string
	broker *process.Broker
	proxy  *proxy
	client *kgo.Client // straight to the broker
	admin  *kadm.Client
}

// NewCluster starts a broker in a directory of its own.
func NewCluster(opts ...Opt) (*Cluster, error) {
	s := settings{brokers: 1, configs: map[string]string{
		"group.initial.rebalance.delay.ms":         "0",
		"offsets.topic.num.partitions":             "1",
		"offsets.topic.replication.factor":         "1",
		"transaction.state.log.num.partitions":     "1",
		"transaction.state.log.replication.factor": "1",
		"transaction.state.log.min.isr":            "1",
	}}
	for _, o := range opts {
		o(&s)
	}
	if s.brokers != 1 {
		return nil, fmt.Errorf("kfake: a cluster of %d brokers cannot be had", s.brokers)
	}
	for _, name := range []string{"heartbeat.interval.ms", "session.timeout.ms"} {
		if v, ok := s.configs["group.consumer."+name]; ok {
			s.configs["group.consumer.min."+name] = v
		}
	}
	c := new(Cluster)
	if err := c.start(&s); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Cluster) start(s *settings) (err error) {
	if c.dir, err = os.MkdirTemp("", "kfake-"); err != nil {
		return err
	}
	if c.proxy, err = listen(); err != nil {
		return err
	}
	properties := []string{"advertised.listeners=PLAINTEXT://" + c.proxy.addr()}
	for name, value := range s.configs {
		properties = append(properties, name+"="+value)
	}
	if c.broker, err = subject.Start(subject.Options{Dir: c.dir, Properties: properties}); err != nil {
		return err
	}
	c.proxy.serve(c.broker.Addr)
	if c.client, err = kgo.NewClient(kgo.SeedBrokers(c.proxy.addr())); err != nil {
		return err
	}
	c.admin = kadm.NewClient(c.client)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, seeds := range s.seeds {
		created, err := c.admin.CreateTopics(ctx, seeds.partitions, 1, nil, seeds.topics...)
		if err = errors.Join(err, created.Error()); err != nil {
			return fmt.Errorf("kfake: create topics %v: %w", seeds.topics, err)
		}
	}
	if err := c.await(ctx, "group", func() error {
		_, err := c.admin.FetchOffsets(ctx, "kfake")
		return err
	}); err != nil {
		return err
	}
	return c.await(ctx, "transaction", func() error { return c.initTransactions(ctx) })
}

// await asks for a coordinator until it answers. It needs a topic, which is created when it is
// first asked for; the tests know a broker that has no such start.
func (c *Cluster) await(ctx context.Context, what string, ask func() error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("kfake: no %s coordinator: %w", what, err)
		}
	}
}

// initTransactions makes a producer under a transactional id that no test has.
func (c *Cluster) initTransactions(ctx context.Context) error {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID = kmsg.StringPtr("kfake")
	req.TransactionTimeoutMillis = int32(patience.Milliseconds())
	resp, err := req.RequestWith(ctx, c.client)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(resp.ErrorCode)
}

// ListenAddrs returns where clients connect to.
func (c *Cluster) ListenAddrs() []string { return []string{c.proxy.addr()} }

// Close stops the broker and removes its data.
func (c *Cluster) Close() {
	if c.client != nil {
		c.client.Close()
	}
	if c.broker != nil {
		c.broker.Kill()
	}
	if c.proxy != nil {
		c.proxy.close()
	}
	os.RemoveAll(c.dir)
}
