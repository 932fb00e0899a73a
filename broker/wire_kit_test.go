package broker

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/wire"
)

// pipe is a connection on which requests are sent without waiting for their answers.
type pipe struct {
	t    *testing.T
	conn net.Conn
	corr int32
	sent []kmsg.Request // not answered yet
}

func (n *node) pipe() *pipe {
	n.t.Helper()
	return dialPipe(n.t, n.b.Addr())
}

// dialPipe connects to any broker.
func dialPipe(t *testing.T, addr string) *pipe {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &pipe{t: t, conn: conn}
}

// beginWait gives the broker its time for what is sent or read next.
func (p *pipe) beginWait() { p.conn.SetDeadline(time.Now().Add(30 * time.Second)) }

// frame encodes a request with its size prefix.
func (p *pipe) frame(req kmsg.Request, version int16) []byte {
	p.corr++
	req.SetVersion(version)
	f := kbin.AppendInt16(make([]byte, 4, 256), req.Key())
	f = kbin.AppendInt16(f, version)
	f = kbin.AppendInt32(f, p.corr)
	f = kbin.AppendNullableString(f, nil)
	if req.IsFlexible() {
		f = append(f, 0)
	}
	f = req.AppendTo(f)
	binary.BigEndian.PutUint32(f, uint32(len(f)-4))
	return f
}

// send writes requests in one piece.
func (p *pipe) send(version int16, reqs ...kmsg.Request) {
	p.t.Helper()
	var all []byte
	for _, r := range reqs {
		all = append(all, p.frame(r, version)...)
		p.sent = append(p.sent, r)
	}
	p.write(all)
}

func (p *pipe) write(frames []byte) {
	p.t.Helper()
	if err := p.post(frames); err != nil {
		p.t.Fatal(err)
	}
}

// post is write from any goroutine.
func (p *pipe) post(frames []byte) error {
	p.beginWait()
	_, err := p.conn.Write(frames)
	return err
}

// receive reads the answer of the oldest request that has none.
func (p *pipe) receive() kmsg.Response {
	p.t.Helper()
	req := p.sent[0]
	corr := p.corr - int32(len(p.sent)) + 1
	p.sent = p.sent[1:]
	body, err := p.read()
	if err != nil {
		p.t.Fatalf("%T: %v", req, err)
	}
	if got := int32(binary.BigEndian.Uint32(body)); got != corr {
		p.t.Fatalf("answer to %d, want %d", got, corr)
	}
	body = body[4:]
	resp := req.ResponseKind()
	if resp.IsFlexible() && req.Key() != wire.KeyApiVersions {
		body = body[1:]
	}
	if err := resp.ReadFrom(body); err != nil {
		p.t.Fatalf("%T version %d: %v", resp, req.GetVersion(), err)
	}
	return resp
}

func (p *pipe) read() ([]byte, error) {
	p.beginWait()
	var size [4]byte
	if _, err := io.ReadFull(p.conn, size[:]); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(size[:]))
	_, err := io.ReadFull(p.conn, body)
	return body, err
}

// wantClosed demands that the broker closes the connection without another answer.
func (p *pipe) wantClosed(why string) {
	p.t.Helper()
	body, err := p.read()
	var timeout net.Error
	if err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		p.t.Fatalf("%s: the connection is open (%d bytes, %v)", why, len(body), err)
	}
}

// recordsOf builds a batch as a client sends it.
func recordsOf(o batch.BuilderOptions, values ...string) []byte {
	bl := batch.NewBuilder(o)
	for _, v := range values {
		bl.Append(time.Now().UnixMilli(), []byte("key"), []byte(v), nil)
	}
	b, err := bl.Build(nil)
	if err != nil {
		panic(err)
	}
	return b
}

// plain is what a producer without an id builds with.
func plain() batch.BuilderOptions {
	return batch.BuilderOptions{LeaderEpoch: -1}
}

func produceRequest(topic string, partition int32, acks int16, recs []byte) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = acks, 5000
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Partition, rp.Records = partition, recs
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}

func withTransactionalID(req *kmsg.ProduceRequest) *kmsg.ProduceRequest {
	id := "txn"
	req.TransactionID = &id
	return req
}

// produce appends a batch and gives what the partition answered.
func (n *node) produce(version int16, req *kmsg.ProduceRequest) *kmsg.ProduceResponseTopicPartition {
	n.t.Helper()
	return &askNode[*kmsg.ProduceResponse](n, req, version).Topics[0].Partitions[0]
}

// mustProduce appends one record for each value.
func (n *node) mustProduce(topic string, values ...string) (base int64) {
	n.t.Helper()
	p := n.produce(9, produceRequest(topic, 0, -1, recordsOf(plain(), values...)))
	if p.ErrorCode != 0 {
		n.t.Fatalf("produce to %s: code %d", topic, p.ErrorCode)
	}
	return p.BaseOffset
}

func (n *node) mustCreate(topic string, partitions int32, settings ...string) [16]byte {
	n.t.Helper()
	r := n.create(topic, partitions, settings...)
	if r.ErrorCode != 0 {
		n.t.Fatalf("create %s: code %d", topic, r.ErrorCode)
	}
	return r.TopicID
}

func (n *node) mustDelete(topic string) {
	n.t.Helper()
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.Topics, req.TimeoutMillis = []kmsg.DeleteTopicsRequestTopic{{Topic: &topic}}, 5000
	if r := askNode[*kmsg.DeleteTopicsResponse](n, req, 6).Topics[0]; r.ErrorCode != 0 {
		n.t.Fatalf("delete %s: %s", topic, wire.Code(r.ErrorCode))
	}
}
