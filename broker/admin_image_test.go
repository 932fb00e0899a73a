package broker

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/vfs"
)

// testListener is the listener that the tests' clients come by.
const testListener = "PLAINTEXT"

// imageOf builds the image of a cluster from records: broker 1 alive, then the records given.
func imageOf(t *testing.T, msgs ...records.Message) *metadata.Image {
	t.Helper()
	b := metadata.NewBuilder(metadata.Empty("tq3vDB-rT9-5QJgfPPR7pQ"))
	all := append([]records.Message{
		&records.FeatureLevelRecord{Name: "metadata.version", FeatureLevel: 29},
		&records.FeatureLevelRecord{Name: "group.version", FeatureLevel: 1},
		&records.FeatureLevelRecord{Name: "eligible.leader.replicas.version", FeatureLevel: 1},
		brokerRecord(1, false, testListener),
	}, msgs...)
	for i, m := range all {
		if err := b.Apply(int64(i), 1, 0, m); err != nil {
			t.Fatal(err)
		}
	}
	img, _ := b.Build()
	return img
}

func brokerRecord(id int32, fenced bool, listeners ...string) *records.RegisterBrokerRecord {
	r := records.NewRegisterBrokerRecord()
	r.BrokerID, r.Fenced, r.LogDirs = id, fenced, []records.UUID{{0: byte(id), 1: 7}}
	for i, name := range listeners {
		r.EndPoints = append(r.EndPoints, records.BrokerEndpoint{Name: name, Host: "h", Port: uint16(9000 + 10*int(id) + i)})
	}
	return r
}

// topicRecords are a topic whose id starts with id, with n partitions on the replicas given; the first leads.
func topicRecords(name string, id byte, n int32, replicas ...int32) []records.Message {
	out := []records.Message{&records.TopicRecord{Name: name, TopicID: records.UUID{0: id}}}
	for i := range n {
		p := records.NewPartitionRecord()
		p.PartitionID, p.TopicID, p.Replicas, p.Isr, p.Leader, p.LeaderEpoch, p.PartitionEpoch = i, records.UUID{0: id}, replicas, replicas, replicas[0], 5, 0
		for _, r := range replicas {
			p.Directories = append(p.Directories, records.UUID{0: byte(r), 1: 7})
		}
		out = append(out, p)
	}
	return out
}

func configRecord(kind config.ResourceType, name, key, value string) *records.ConfigRecord {
	return &records.ConfigRecord{ResourceType: int8(kind), ResourceName: name, Name: key, Value: &value}
}

// serverOf loads a configuration from key, value, key, value…
func serverOf(t *testing.T, settings ...string) *config.Server {
	t.Helper()
	pairs := config.Standalone("/data", "127.0.0.1:9092")
	for i := 0; i < len(settings); i += 2 {
		pairs = append(pairs, config.Pair{Key: settings[i], Value: settings[i+1]})
	}
	s, err := config.Load(pairs)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func describerOf(t *testing.T, cfg *config.Server, img *metadata.Image) describer {
	t.Helper()
	return describer{img: img, nodeID: cfg.NodeID, layers: layersOf(cfg, img), log: slog.New(slog.DiscardHandler), synonyms: true, docs: true}
}

// A retention of 0 is not the default: of the metadata log only the newest snapshot stays, and what lies above it.
func TestNoRetentionOfMetadata(t *testing.T) {
	mem := vfs.NewMem()
	n := startOn(t, mem, "metadata.max.retention.bytes", "0", "metadata.log.max.record.bytes.between.snapshots", "1")
	for i := range 5 {
		n.mustCreate(fmt.Sprint("t", i), 1)
	}
	eventually(t, "one snapshot", func() bool {
		entries, err := mem.ReadDir("data/__cluster_metadata-0")
		if err != nil {
			t.Fatal(err)
		}
		var ends []string
		for _, e := range entries {
			if end, ok := strings.CutSuffix(e.Name(), ".checkpoint"); ok {
				ends = append(ends, end)
			}
		}
		return len(ends) == 1 && n.b.quorum.NewestSnapshot() > 0
	})
	n.stop()
	if again := startOn(t, mem); again.b.image().Topic("t4") == nil {
		t.Error("a topic is gone")
	}
}
