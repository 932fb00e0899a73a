package broker

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/wire"
)

// compact sends CompactTopic and reads the answer.
func (p *pipe) compact(req wire.CompactTopicRequest) wire.CompactTopicResponse {
	p.t.Helper()
	p.corr++
	f := binary.BigEndian.AppendUint16(make([]byte, 4), uint16(wire.KeyCompactTopic))
	f = binary.BigEndian.AppendUint32(append(f, 0, 0), uint32(p.corr))
	f = req.AppendTo(append(f, 0xff, 0xff)) // no client id
	binary.BigEndian.PutUint32(f, uint32(len(f)-4))
	p.write(f)
	body, err := p.read()
	if err != nil || int32(binary.BigEndian.Uint32(body)) != p.corr {
		p.t.Fatalf("CompactTopic: %x, %v", body, err)
	}
	var resp wire.CompactTopicResponse
	if err := resp.Decode(body[4:]); err != nil {
		p.t.Fatal(err)
	}
	return resp
}

// await asks until no partition has more to say.
func (p *pipe) awaitCompacted(topic string) []wire.CompactTopicPartition {
	p.t.Helper()
	deadline, tick := time.After(30*time.Second), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for {
		resp, over := p.compact(wire.CompactTopicRequest{Topic: topic}), true
		for _, part := range resp.Partitions {
			over = over && part.Phase.Over()
		}
		if over {
			return resp.Partitions
		}
		select {
		case <-deadline:
			p.t.Fatalf("it does not end: %+v", resp)
		case <-tick.C:
		}
	}
}

// fillKeys writes each of some keys many times to partition 0, in batches.
func (n *node) fillKeys(topic string, keys, times int) {
	n.t.Helper()
	value := []byte(strings.Repeat("x", 1000))
	for range times {
		bl := batch.NewBuilder(plain())
		for k := range keys {
			bl.Append(time.Now().UnixMilli(), fmt.Append(nil, k), value, nil)
		}
		b, err := bl.Build(nil)
		if err != nil {
			n.t.Fatal(err)
		}
		if got := n.produce(9, produceRequest(topic, 0, -1, b)); got.ErrorCode != 0 {
			n.t.Fatal(got)
		}
	}
}

func TestCompactTopic(t *testing.T) {
	n := startNode(t, t.TempDir())
	n.mustCreate("keys", 2, "cleanup.policy", "compact,delete")
	n.fillKeys("keys", 10, 50)
	p := n.pipe()
	if got := p.compact(wire.CompactTopicRequest{Topic: "keys"}); got.Code != wire.None || len(got.Partitions) != 2 || got.Partitions[1] != (wire.CompactTopicPartition{Index: 1}) {
		t.Errorf("nobody has asked for it: %+v", got)
	}
	for i, part := range p.compact(wire.CompactTopicRequest{Topic: "keys", Start: true}).Partitions {
		if part.Index != int32(i) || part.Code != wire.None || part.Phase == wire.CompactionNone {
			t.Errorf("begun: %+v", part)
		}
	}
	got := p.awaitCompacted("keys")
	if g := got[0]; g.Phase != wire.CompactionDone || g.RecordsBefore != 500 || g.RecordsAfter != 10 || g.CleanedTo != 500 || g.BytesAfter <= 0 || g.BytesAfter*40 > g.BytesBefore {
		t.Errorf("%+v", g)
	}
	if g := got[1]; g.Phase != wire.CompactionDone || g.Code != wire.None || g.BytesBefore != 0 {
		t.Errorf("an empty log: %+v", g)
	}
	// What came of it is told until it is asked for again.
	if again := p.compact(wire.CompactTopicRequest{Topic: "keys", Partitions: []int32{0}}).Partitions; len(again) != 1 || again[0] != got[0] {
		t.Errorf("%+v, before %+v", again, got[0])
	}
}

func TestCompactTopicRefusals(t *testing.T) {
	n := startNode(t, t.TempDir())
	n.mustCreate("events", 1)
	n.mustCreate("keys", 1, "cleanup.policy", "compact")
	p := n.pipe()
	if got := p.compact(wire.CompactTopicRequest{Topic: "none", Start: true}); got.Code != wire.UnknownTopicOrPartition || got.Partitions != nil {
		t.Errorf("an unknown topic: %+v", got)
	}
	for _, c := range []struct {
		topic string
		index int32
		code  wire.Code
	}{{"events", 0, wire.PolicyViolation}, {"keys", 1, wire.UnknownTopicOrPartition}, {"keys", -1, wire.UnknownTopicOrPartition}} {
		got := p.compact(wire.CompactTopicRequest{Topic: c.topic, Partitions: []int32{c.index}, Start: true})
		if len(got.Partitions) != 1 || got.Partitions[0].Code != c.code || got.Partitions[0].Message == "" || got.Partitions[0].Phase != wire.CompactionFailed {
			t.Errorf("%+v: %+v", c, got)
		}
	}
	p.write([]byte{0, 0, 0, 10, 0x75, 0x30, 0, 0, 0, 0, 0, 9, 0xff, 0xff})
	p.wantClosed("a request without a body")
}

// What goes on is not begun again, and a broker that stops does not wait for it.
func TestCompactTopicGoesOnUntilTheStop(t *testing.T) {
	dir := t.TempDir()
	n := startNode(t, dir, "log.cleaner.io.max.bytes.per.second", "20000")
	n.mustCreate("keys", 1, "cleanup.policy", "compact")
	n.fillKeys("keys", 10, 50)
	p := n.pipe()
	p.compact(wire.CompactTopicRequest{Topic: "keys", Start: true})
	n.b.compactions.mu.Lock()
	if len(n.b.compactions.mu.runs) != 1 {
		t.Errorf("%d runs", len(n.b.compactions.mu.runs))
	}
	var first *compactionRun
	for _, r := range n.b.compactions.mu.runs {
		first = r
	}
	n.b.compactions.mu.Unlock()
	if got := p.compact(wire.CompactTopicRequest{Topic: "keys", Start: true}).Partitions[0]; got.Phase.Over() {
		t.Errorf("begun again: %+v", got)
	}
	n.b.compactions.mu.Lock()
	for _, r := range n.b.compactions.mu.runs {
		if r != first {
			t.Error("it was begun twice")
		}
	}
	n.b.compactions.mu.Unlock()

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := n.b.Shutdown(ctx); err != nil || ctx.Err() != nil {
		t.Errorf("stopping in the middle of it: %v, %v", err, ctx.Err())
	}
	if first.told.Phase != wire.CompactionFailed || first.told.Code != wire.BrokerNotAvailable {
		t.Errorf("after the stop: %+v", first.told)
	}
	n = startNode(t, dir)
	if got := n.pipe().compact(wire.CompactTopicRequest{Topic: "keys"}).Partitions[0]; got.Phase != wire.CompactionNone {
		t.Errorf("after a restart: %+v", got)
	}
}
