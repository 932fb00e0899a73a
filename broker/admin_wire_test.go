package broker

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// node is a broker that a test talks to over its socket.
type node struct {
	t    *testing.T
	b    *Broker
	conn net.Conn
	corr int32
}

// startNode serves a directory with settings key, value, key, value… over a port of the kernel's choice.
func startNode(t *testing.T, dir string, settings ...string) *node {
	t.Helper()
	pairs := config.Standalone(dir, "127.0.0.1:0")
	for i := 0; i < len(settings); i += 2 {
		pairs = append(pairs, config.Pair{Key: settings[i], Value: settings[i+1]})
	}
	cfg, err := config.Load(pairs)
	if err != nil {
		t.Fatal(err)
	}
	b, err := New(cfg, Options{})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- b.Serve() }()
	n := &node{t: t, b: b}
	t.Cleanup(func() {
		n.stop()
		<-served
	})
	return n
}

func (n *node) stop() {
	if n.conn != nil {
		n.conn.Close()
		n.conn = nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := n.b.Shutdown(ctx); err != nil {
		n.t.Errorf("shutdown: %v", err)
	}
}

// askNode sends a request at a version and reads its answer; the connection is kept.
func askNode[T kmsg.Response](n *node, req kmsg.Request, version int16) T {
	n.t.Helper()
	body := n.exchange(req, version)
	resp := req.ResponseKind()
	resp.SetVersion(version)
	if resp.IsFlexible() && req.Key() != wire.KeyApiVersions {
		if body[0] != 0 {
			n.t.Fatalf("response header has %d tags", body[0])
		}
		body = body[1:]
	}
	if err := resp.ReadFrom(body); err != nil {
		n.t.Fatalf("%T version %d: %v", resp, version, err)
	}
	return resp.(T)
}

// exchange sends a request and returns the answer behind its correlation id.
func (n *node) exchange(req kmsg.Request, version int16) []byte {
	n.t.Helper()
	if n.conn == nil {
		conn, err := net.Dial("tcp", n.b.Addr())
		if err != nil {
			n.t.Fatal(err)
		}
		n.conn = conn
	}
	n.corr++
	req.SetVersion(version)
	frame := make([]byte, 4, 128)
	frame = kbin.AppendInt16(frame, req.Key())
	frame = kbin.AppendInt16(frame, version)
	frame = kbin.AppendInt32(frame, n.corr)
	frame = kbin.AppendNullableString(frame, nil)
	if req.IsFlexible() {
		frame = append(frame, 0)
	}
	frame = req.AppendTo(frame)
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
	n.conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := n.conn.Write(frame); err != nil {
		n.t.Fatal(err)
	}
	var head [8]byte
	if _, err := io.ReadFull(n.conn, head[:]); err != nil {
		n.t.Fatalf("%T version %d: %v", req, version, err)
	}
	if got := int32(binary.BigEndian.Uint32(head[4:])); got != n.corr {
		n.t.Fatalf("correlation id %d, want %d", got, n.corr)
	}
	body := make([]byte, binary.BigEndian.Uint32(head[:4])-4)
	if _, err := io.ReadFull(n.conn, body); err != nil {
		n.t.Fatal(err)
	}
	return body
}

func (n *node) create(name string, partitions int32, settings ...string) kmsg.CreateTopicsResponseTopic {
	n.t.Helper()
	req := kmsg.NewPtrCreateTopicsRequest()
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = name, partitions, -1
	for i := 0; i < len(settings); i += 2 {
		s := kmsg.NewCreateTopicsRequestTopicConfig()
		s.Name, s.Value = settings[i], &settings[i+1]
		rt.Configs = append(rt.Configs, s)
	}
	req.Topics, req.TimeoutMillis = append(req.Topics, rt), 5000
	return askNode[*kmsg.CreateTopicsResponse](n, req, 7).Topics[0]
}

func (n *node) described(kind config.ResourceType, name, key string) string {
	n.t.Helper()
	req := kmsg.NewPtrDescribeConfigsRequest()
	req.Resources, req.IncludeSynonyms = append(req.Resources, *ask(kind, name, key)), true
	r := askNode[*kmsg.DescribeConfigsResponse](n, req, 4).Resources[0]
	if r.ErrorCode != 0 {
		return kerr.ErrorForCode(r.ErrorCode).Error()
	}
	if len(r.Configs) != 1 {
		return "none"
	}
	return line(&r.Configs[0])
}

func (n *node) alter(r *kmsg.IncrementalAlterConfigsRequestResource) string {
	n.t.Helper()
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	req.Resources = append(req.Resources, *r)
	out := askNode[*kmsg.IncrementalAlterConfigsResponse](n, req, 1).Resources[0]
	if out.ErrorCode != 0 {
		msg := ""
		if out.ErrorMessage != nil {
			msg = *out.ErrorMessage
		}
		return wire.Code(out.ErrorCode).String() + ": " + msg
	}
	return ""
}

// Every version that is advertised is answered, and answers decode at that version.
func TestEveryVersionIsAnswered(t *testing.T) {
	n := startNode(t, t.TempDir())
	if top := n.create("t", 2); top.ErrorCode != 0 {
		t.Fatalf("create: %+v", top)
	}
	requests := map[int16]func() kmsg.Request{
		3: func() kmsg.Request { return metadataFor("t") },
		10: func() kmsg.Request {
			r := kmsg.NewPtrFindCoordinatorRequest()
			r.CoordinatorKey, r.CoordinatorKeys = "g", []string{"g"}
			return r
		},
		18: func() kmsg.Request {
			r := kmsg.NewPtrApiVersionsRequest()
			r.ClientSoftwareName, r.ClientSoftwareVersion = "test", "1"
			return r
		},
		19: func() kmsg.Request { return kmsg.NewPtrCreateTopicsRequest() },
		20: func() kmsg.Request { return kmsg.NewPtrDeleteTopicsRequest() },
		32: func() kmsg.Request {
			r := kmsg.NewPtrDescribeConfigsRequest()
			r.Resources = append(r.Resources, *ask(2, "t"), *ask(4, "1"), *ask(4, ""), *ask(8, "1"), *ask(32, "g"))
			return r
		},
		33: func() kmsg.Request { return kmsg.NewPtrAlterConfigsRequest() },
		37: func() kmsg.Request { return kmsg.NewPtrCreatePartitionsRequest() },
		44: func() kmsg.Request { return kmsg.NewPtrIncrementalAlterConfigsRequest() },
		60: func() kmsg.Request { return kmsg.NewPtrDescribeClusterRequest() },
		74: func() kmsg.Request { return kmsg.NewPtrListConfigResourcesRequest() },
		75: func() kmsg.Request { return kmsg.NewPtrDescribeTopicPartitionsRequest() },
	}
	for _, api := range wire.Served() {
		request := requests[api.Key]
		if request == nil {
			continue // a request about records: their tests ask
		}
		for v := api.Min; v <= api.Max; v++ {
			askNode[kmsg.Response](n, request(), v)
		}
	}
}

func TestUnknownApiVersionsVersionGetsTheRange(t *testing.T) {
	n := startNode(t, t.TempDir())
	req := kmsg.NewPtrApiVersionsRequest()
	body := n.exchange(req, 77)
	resp := kmsg.NewPtrApiVersionsResponse()
	if err := resp.ReadFrom(body); err != nil {
		t.Fatal(err)
	}
	if resp.ErrorCode != int16(wire.UnsupportedVersion) || len(resp.ApiKeys) != 1 || resp.ApiKeys[0].ApiKey != 18 || resp.ApiKeys[0].MaxVersion != 4 {
		t.Errorf("got %+v", resp)
	}
	askNode[*kmsg.ApiVersionsResponse](n, req, 0) // the connection goes on
}

// What is described follows what is set, at once and after a restart, and so do the logs.
func TestSettingsAreInForceAtOnce(t *testing.T) {
	dir := t.TempDir()
	n := startNode(t, dir, "log.retention.ms", "700000")
	if top := n.create("t", 1, "segment.bytes", "2000000"); top.ErrorCode != 0 || len(top.Configs) != 33 {
		t.Fatalf("create: %+v", top)
	}
	check := func(n *node, kind config.ResourceType, name, want string) {
		t.Helper()
		key, _, _ := strings.Cut(want, "=")
		if got := n.described(kind, name, key); got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
	}
	check(n, 2, "t", "segment.bytes=2000000 1[segment.bytes=2000000:1 log.segment.bytes=1073741824:5]")
	check(n, 2, "t", "retention.ms=700000 4[log.retention.ms=700000:4 log.retention.hours=168:5]")
	for _, r := range []*kmsg.IncrementalAlterConfigsRequestResource{
		change(4, "", "log.retention.ms", "0", "800000"),
		change(2, "t", "compression.type", "0", "zstd", "cleanup.policy", "2", "compact"),
	} {
		if failed := n.alter(r); failed != "" {
			t.Fatal(failed)
		}
	}
	after := func(n *node) {
		t.Helper()
		check(n, 2, "t", "retention.ms=800000 3[log.retention.ms=800000:3 log.retention.ms=700000:4 log.retention.hours=168:5]")
		check(n, 2, "t", "cleanup.policy=delete,compact 1[cleanup.policy=delete,compact:1 log.cleanup.policy=delete:5]")
		check(n, 4, "", "log.retention.ms=800000 3[log.retention.ms=800000:3]")
		c := logConfig(n.b.image(), n.b.cfg, "t")
		if c.RetentionMs != 800000 || !c.Compact || !c.Delete || !c.Target.Set {
			t.Errorf("log config %+v", c)
		}
	}
	after(n)
	if failed := n.alter(change(2, "t", "retention.ms", "0", "-7")); failed != "INVALID_CONFIG: Invalid value -7 for configuration retention.ms: Value must be at least -1" {
		t.Errorf("got %q", failed)
	}
	if failed := n.alter(change(4, "1", "num.partitions", "0", "5")); failed != "INVALID_REQUEST: Cannot update these configs dynamically: Set(num.partitions)" {
		t.Errorf("got %q", failed)
	}
	n.stop()
	after(startNode(t, dir, "log.retention.ms", "700000"))
}

// awaitCreated names a topic until it is there: until then the client is told to ask again.
func (n *node) awaitCreated(name string, version int16) kmsg.MetadataResponseTopic {
	n.t.Helper()
	req := metadataFor(name)
	req.AllowAutoTopicCreation = version >= 4
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		top := askNode[*kmsg.MetadataResponse](n, req, version).Topics[0]
		if top.ErrorCode == 0 {
			return top
		}
		if top.ErrorCode != int16(wire.UnknownTopicOrPartition) {
			n.t.Fatalf("got %+v", top)
		}
	}
	n.t.Fatalf("%s was not created", name)
	panic("unreachable")
}

func TestTopicsComeAndGo(t *testing.T) {
	n := startNode(t, t.TempDir(), "num.partitions", "3")
	made := n.awaitCreated("made", 12)
	if len(made.Partitions) != 3 || made.Partitions[0].Leader != 1 {
		t.Fatalf("got %+v", made)
	}
	n.awaitCreated("old", 0) // by a client that cannot forbid it
	more := kmsg.NewPtrCreatePartitionsRequest()
	mt := kmsg.NewCreatePartitionsRequestTopic()
	mt.Topic, mt.Count = "made", 5
	more.Topics, more.TimeoutMillis = append(more.Topics, mt), 5000
	if top := askNode[*kmsg.CreatePartitionsResponse](n, more, 3).Topics[0]; top.ErrorCode != 0 {
		t.Fatalf("got %+v", top)
	}
	req := kmsg.NewPtrDescribeTopicPartitionsRequest()
	req.ResponsePartitionLimit = 4
	if got := page(askNode[*kmsg.DescribeTopicPartitionsResponse](n, req, 0)); got != "made[0 1 2 3] next made/4" {
		t.Errorf("got %s", got)
	}
	if top := n.create("made", 1); top.ErrorCode != int16(wire.TopicAlreadyExists) {
		t.Errorf("got %+v", top)
	}
	gone := kmsg.NewPtrDeleteTopicsRequest()
	dt := kmsg.NewDeleteTopicsRequestTopic()
	dt.Topic = kmsg.StringPtr("made")
	gone.Topics, gone.TopicNames, gone.TimeoutMillis = append(gone.Topics, dt), []string{"made"}, 5000
	if top := askNode[*kmsg.DeleteTopicsResponse](n, gone, 6).Topics[0]; top.ErrorCode != 0 {
		t.Fatalf("got %+v", top)
	}
	if got := topicCodes(askNode[*kmsg.MetadataResponse](n, metadataFor("made"), 12).Topics); !slices.Equal(got, []string{"made:UNKNOWN_TOPIC_OR_PARTITION"}) {
		t.Errorf("got %v", got)
	}
}
