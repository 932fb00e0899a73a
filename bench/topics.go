package bench

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// newTopic creates a topic with the target's settings and waits until every partition has a leader.
func newTopic(ctx context.Context, t *Target, topic string, partitions int) error {
	if err := createTopic(ctx, Load{Addr: t.Addr, Topic: topic, Partitions: partitions}, t.Configs); err != nil {
		return err
	}
	_, err := endOffsets(ctx, t.Addr, topic, partitions)
	return err
}

// dropTopic deletes a topic and, where the target's directory is known, waits until its files have
// gone, so that no later run pays for them.
func dropTopic(ctx context.Context, t *Target, topic string) error {
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.SetVersion(5)
	req.TimeoutMillis = 30_000
	req.TopicNames = []string{topic}
	resp, err := ask(ctx, t.Addr, req)
	if err != nil {
		return err
	}
	for _, r := range resp.(*kmsg.DeleteTopicsResponse).Topics {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition) {
			return fmt.Errorf("bench: deleting topic %s: %w", topic, err)
		}
	}
	if t.Dir == "" {
		return nil
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(2 * time.Minute) // brokers wait a minute unless they are told not to
	for {
		left, err := filepath.Glob(filepath.Join(t.Dir, topic+"-*"))
		if err != nil || len(left) == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline:
			return fmt.Errorf("bench: topic %s was deleted, but %s is still there: give the target log.segment.delete.delay.ms=1000", topic, left[0])
		case <-tick.C:
		}
	}
}

// endOffsets are the end of each partition. A partition that is only finding its leader is waited for.
func endOffsets(ctx context.Context, addr, topic string, partitions int) (ends []int64, err error) {
	err = patiently(ctx, func() error {
		ends, err = listEnds(ctx, addr, topic, partitions)
		return err
	})
	return ends, err
}

// listEnds asks for the end of each partition.
func listEnds(ctx context.Context, addr, topic string, partitions int) ([]int64, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.SetVersion(4)
	req.ReplicaID = -1
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = topic
	for p := range partitions {
		part := kmsg.NewListOffsetsRequestTopicPartition()
		part.Partition, part.Timestamp, part.CurrentLeaderEpoch = int32(p), -1, -1
		t.Partitions = append(t.Partitions, part)
	}
	req.Topics = append(req.Topics, t)
	resp, err := ask(ctx, addr, req)
	if err != nil {
		return nil, err
	}
	ends, err := endsOf(resp.(*kmsg.ListOffsetsResponse), partitions)
	if err != nil {
		return nil, fmt.Errorf("bench: ends of %s: %w", topic, err)
	}
	return ends, nil
}

// patiently asks again for a minute what is answered with an error that passes: a leader or a
// coordinator that is only being made, a transaction that is only ending.
func patiently(ctx context.Context, ask func() error) error {
	for deadline := time.Now().Add(time.Minute); ; {
		err := ask()
		if !passes(err) || time.Now().After(deadline) {
			return err
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

func passes(err error) bool {
	return kerr.IsRetriable(err) || errors.Is(err, kerr.ConcurrentTransactions)
}

// pause ends early, with its error, when ctx does.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func endsOf(resp *kmsg.ListOffsetsResponse, partitions int) ([]int64, error) {
	ends, found := make([]int64, partitions), 0
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return nil, err
			}
			if p.Partition < 0 || int(p.Partition) >= partitions {
				return nil, fmt.Errorf("partition %d was not asked for", p.Partition)
			}
			ends[p.Partition] = p.Offset
			found++
		}
	}
	if found != partitions {
		return nil, fmt.Errorf("%d of %d partitions answered", found, partitions)
	}
	return ends, nil
}

// initProducer asks for a producer id, for that transactional id unless it is empty.
func initProducer(ctx context.Context, addr, transactionalID string) (id int64, epoch int16, err error) {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.SetVersion(4)
	if transactionalID != "" {
		req.TransactionalID = &transactionalID
	}
	req.ProducerID, req.ProducerEpoch = -1, -1
	req.TransactionTimeoutMillis = 60_000
	err = patiently(ctx, func() error {
		resp, err := ask(ctx, addr, req)
		if err != nil {
			return err
		}
		got := resp.(*kmsg.InitProducerIDResponse)
		id, epoch = got.ProducerID, got.ProducerEpoch
		return kerr.ErrorForCode(got.ErrorCode)
	})
	if err != nil {
		return 0, 0, fmt.Errorf("bench: a producer id: %w", err)
	}
	return id, epoch, nil
}

// Kinds of coordinators.
const ofGroups, ofTransactions int8 = 0, 1

// findCoordinator has the target make what its coordinators keep their state in, and returns when
// one is found.
func findCoordinator(ctx context.Context, addr, key string, kind int8) error {
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.SetVersion(findCoordinatorVersion)
	req.CoordinatorKey, req.CoordinatorType = key, kind
	err := patiently(ctx, func() error {
		resp, err := ask(ctx, addr, req)
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(resp.(*kmsg.FindCoordinatorResponse).ErrorCode)
	})
	if err != nil {
		return fmt.Errorf("bench: the coordinator of %s: %w", key, err)
	}
	return nil
}

// findCoordinatorVersion is the newest that asks for one key.
const findCoordinatorVersion = 3

// Probe asks a target for its versions: whether anything answers there that speaks the protocol,
// and serves what every workload asks for.
func Probe(ctx context.Context, addr string) error {
	return serves(ctx, addr, map[kmsg.Key]int16{
		kmsg.Produce: produceVersion, kmsg.Fetch: fetchVersion, kmsg.ListOffsets: 4,
		kmsg.CreateTopics: 5, kmsg.DeleteTopics: 5, kmsg.InitProducerID: 4,
	})
}

// serves is nil when the target knows these versions, and names those that it does not know.
func serves(ctx context.Context, addr string, want map[kmsg.Key]int16) error {
	resp, err := ask(ctx, addr, kmsg.NewPtrApiVersionsRequest())
	if err != nil {
		return err
	}
	versions := resp.(*kmsg.ApiVersionsResponse)
	if err := kerr.ErrorForCode(versions.ErrorCode); err != nil {
		return fmt.Errorf("bench: %s: %w", addr, err)
	}
	served := map[kmsg.Key]bool{}
	for _, api := range versions.ApiKeys {
		v, ok := want[kmsg.Key(api.ApiKey)]
		served[kmsg.Key(api.ApiKey)] = ok && api.MinVersion <= v && v <= api.MaxVersion
	}
	var missing []string
	for key, v := range want {
		if !served[key] {
			missing = append(missing, fmt.Sprintf("%s %d", kmsg.NameForKey(key.Int16()), v))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	return fmt.Errorf("%w: %s has no %s", errNotServed, addr, strings.Join(missing, ", "))
}

// errNotServed is about a target that cannot do what a workload is about.
var errNotServed = errors.New("bench: not served")

// caller is a connection that asks one thing after another.
type caller struct {
	conn net.Conn
	in   *bufio.Reader
	out  outbox
	body []byte
	n    int32
}

func dialCaller(ctx context.Context, addr string) (*caller, error) {
	dialer := net.Dialer{Timeout: 10 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	return &caller{conn: conn, in: bufio.NewReaderSize(conn, 64<<10)}, nil
}

// call sends the frame that build appends and returns the answer, which is valid until the next call.
func (c *caller) call(build func(out *outbox, correlation int32)) ([]byte, error) {
	c.n++
	c.conn.SetDeadline(time.Now().Add(30 * time.Second))
	build(&c.out, c.n)
	if err := c.out.flush(c.conn); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	body, err := readAnswer(c.in, c.body, c.n)
	c.body = body
	return body, err
}

// ask sends a request and decodes its answer, whose bytes are valid until the next call.
func (c *caller) ask(req kmsg.Request) (kmsg.Response, error) {
	body, err := c.call(func(out *outbox, correlation int32) { out.request(correlation, req) })
	if err != nil {
		return nil, err
	}
	return decoded(req, body)
}

// askAll sends requests in one write, and gives fn their answers one after the other, whose bytes
// are valid during the call only.
func (c *caller) askAll(reqs []kmsg.Request, fn func(i int, resp kmsg.Response) error) error {
	first := c.n + 1
	c.conn.SetDeadline(time.Now().Add(30 * time.Second))
	for _, req := range reqs {
		c.n++
		c.out.request(c.n, req)
	}
	if err := c.out.flush(c.conn); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	for i, req := range reqs {
		body, err := readAnswer(c.in, c.body, first+int32(i))
		c.body = body
		if err != nil {
			return err
		}
		resp, err := decoded(req, body)
		if err == nil {
			err = fn(i, resp)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// records fetches what is committed of a partition from an offset on, as much as a large answer
// holds. They are valid until the next call, and may end inside a batch.
func (c *caller) records(topic string, partition int32, off int64) (records []byte, err error) {
	const fetchBytes = 8 << 20
	body, err := c.call(func(out *outbox, correlation int32) {
		out.fetch(correlation, topic, fetchOptions{maxWaitMs: 1000, minBytes: 1, maxBytes: fetchBytes, sessionEpoch: -1, isolation: readCommitted}, []place{{partition, off, fetchBytes}})
	})
	if err != nil {
		return nil, err
	}
	var bad error
	_, err = fetched(body, func(_ int32, _ int64, got []byte, err error) {
		records, bad = got, errors.Join(bad, err)
	})
	return records, errors.Join(err, bad)
}

// hello makes sure that a connection that is to stay idle is one that the target has taken.
func hello(conn net.Conn) error {
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	defer conn.SetDeadline(time.Time{})
	if _, err := conn.Write(frame(kmsg.NewPtrApiVersionsRequest())); err != nil {
		return err
	}
	var head [4]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return err
	}
	_, err := io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(head[:])))
	return err
}
