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
func endOffsets(ctx context.Context, addr, topic string, partitions int) ([]int64, error) {
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
	for deadline := time.Now().Add(time.Minute); ; {
		resp, err := ask(ctx, addr, req)
		if err != nil {
			return nil, err
		}
		ends, err := endsOf(resp.(*kmsg.ListOffsetsResponse), partitions)
		if err == nil {
			return ends, nil
		}
		if !kerr.IsRetriable(err) || time.Now().After(deadline) {
			return nil, fmt.Errorf("bench: ends of %s: %w", topic, err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
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

// initProducer asks for a producer id; a coordinator that is only being made is waited for.
func initProducer(ctx context.Context, addr string) (id int64, epoch int16, err error) {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.SetVersion(4)
	req.ProducerID, req.ProducerEpoch = -1, -1
	req.TransactionTimeoutMillis = 60_000
	for deadline := time.Now().Add(time.Minute); ; {
		resp, err := ask(ctx, addr, req)
		if err != nil {
			return 0, 0, err
		}
		got := resp.(*kmsg.InitProducerIDResponse)
		err = kerr.ErrorForCode(got.ErrorCode)
		if err == nil {
			return got.ProducerID, got.ProducerEpoch, nil
		}
		if !kerr.IsRetriable(err) || time.Now().After(deadline) {
			return 0, 0, fmt.Errorf("bench: a producer id: %w", err)
		}
		select {
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Probe asks a target for its versions: whether anything answers there that speaks the protocol.
func Probe(ctx context.Context, addr string) error {
	resp, err := ask(ctx, addr, kmsg.NewPtrApiVersionsRequest())
	if err != nil {
		return err
	}
	versions := resp.(*kmsg.ApiVersionsResponse)
	if err := kerr.ErrorForCode(versions.ErrorCode); err != nil {
		return fmt.Errorf("bench: %s: %w", addr, err)
	}
	want := map[int16]int16{0: produceVersion, 1: fetchVersion, 2: 4, 19: 5, 20: 5, 22: 4}
	for _, api := range versions.ApiKeys {
		if v, ok := want[api.ApiKey]; ok && api.MinVersion <= v && v <= api.MaxVersion {
			delete(want, api.ApiKey)
		}
	}
	if len(want) == 0 {
		return nil
	}
	var missing []string
	for key, v := range want {
		missing = append(missing, fmt.Sprintf("%s %d", kmsg.NameForKey(key), v))
	}
	return fmt.Errorf("bench: %s does not serve %s", addr, strings.Join(missing, ", "))
}

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
