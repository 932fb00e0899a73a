package broker

import (
	"bytes"
	"errors"
	"log/slog"
	"math/rand"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/quorum"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/vfs"
	"github.com/millrace-project/millrace/wire"
)

// nameless is a new directory whose meta.properties has no directory.id, as Kafka wrote them before 3.7.
func nameless(t *testing.T) *vfs.Mem {
	t.Helper()
	mem := vfs.NewMem()
	if err := mem.MkdirAll("data", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := quorum.Format(mem, "data", quorum.FormatOptions{NodeID: 1, NowMs: nowMs()}); err != nil {
		t.Fatal(err)
	}
	p, err := vfs.ReadFile(mem, "data/meta.properties")
	if err != nil {
		t.Fatal(err)
	}
	var kept strings.Builder
	for line := range strings.Lines(string(p)) {
		if !strings.HasPrefix(line, "directory.id=") {
			kept.WriteString(line)
		}
	}
	if err := vfs.WriteFileAtomic(mem, "data/meta.properties", []byte(kept.String())); err != nil {
		t.Fatal(err)
	}
	return mem
}

func directoryID(t *testing.T, mem *vfs.Mem) commitlog.TopicID {
	t.Helper()
	m, err := commitlog.ReadMetaProperties(mem, "data")
	if err != nil {
		t.Fatal(err)
	}
	return m.DirectoryID
}

// A directory of the time before directories had ids, when voters were configured, gets one and keeps it.
func TestDirectoryGetsAnID(t *testing.T) {
	mem := nameless(t)
	if err := mem.Remove("data/" + quorum.LogName + "/00000000000000000000-0000000000.checkpoint"); err != nil {
		t.Fatal(err)
	}
	n := startOn(t, mem)
	n.mustCreate("t", 1)
	n.mustProduce("t", "a")
	id := directoryID(t, mem)
	if id == (commitlog.TopicID{}) || id != n.b.directoryID {
		t.Fatalf("directory.id is %s, the broker's %s", id, commitlog.TopicID(n.b.directoryID))
	}
	again := startOn(t, mem.KillClone())
	if again.b.directoryID != n.b.directoryID {
		t.Errorf("directory.id is %s after a restart, was %s", commitlog.TopicID(again.b.directoryID), id)
	}
}

// Where the metadata log knows the id of the voter's directory, a made-up one is none, and is not written.
func TestLostDirectoryIDIsNotMadeUp(t *testing.T) {
	mem := nameless(t)
	cfg, err := config.Load(config.Standalone("data", "127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(cfg, Options{FS: mem}); err == nil || !strings.Contains(err.Error(), "directory id") {
		t.Errorf("error %v", err)
	}
	if id := directoryID(t, mem); id != (commitlog.TopicID{}) {
		t.Errorf("directory.id %s was written", id)
	}
}

// Of two processes that begin on one empty directory at once, one is refused, and has changed nothing.
func TestTwoFirstStarts(t *testing.T) {
	cfg, err := config.Load(config.Standalone("data", "127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	mem := vfs.NewMem()
	n := startOn(t, vfs.NewFaulty(mem, func(op vfs.Op) error {
		if op.Kind == vfs.OpCreate && strings.HasSuffix(op.Name, "bootstrap.checkpoint.part") {
			if b, err := New(cfg, Options{FS: mem}); !errors.Is(err, vfs.ErrLocked) {
				t.Errorf("a second start: %v", err)
				if err == nil {
					b.Close()
				}
			}
		}
		return nil
	}))
	n.mustCreate("t", 1)
	n.mustProduce("t", "a")
	n.stop()
	again := startOn(t, mem)
	if again.b.directoryID != n.b.directoryID || again.listOffset("t", 0, -1).Offset != 1 {
		t.Errorf("directory.id %x, was %x", again.b.directoryID, n.b.directoryID)
	}
}

// Whatever a kill or a power cut leaves of a first start, the next one goes on from there.
func TestCrashInTheFirstStart(t *testing.T) {
	rng := rand.New(rand.NewSource(1))
	for at, ended := int64(1), false; !ended; at++ {
		mem := vfs.NewMem()
		var left []*vfs.Mem
		var changes atomic.Int64
		startOn(t, vfs.NewFaulty(mem, func(op vfs.Op) error {
			if op.Kind.Changes() && changes.Add(1) == at {
				left = []*vfs.Mem{mem.KillClone(), mem.CrashClone(rng)}
			}
			return nil
		})).stop()
		for _, mem := range left {
			startOn(t, mem).stop()
		}
		ended = len(left) == 0
	}
}

// A metadata log whose meta.properties is lost gets no new identity.
func TestLostIdentityIsNotMadeUp(t *testing.T) {
	cfg, err := config.Load(config.Standalone("data", "127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	for _, lost := range [][]string{{}, {"quorum-state"}, {"00000000000000000000.log"}} {
		mem := vfs.NewMem()
		startOn(t, mem).stop()
		for _, name := range append(lost, "../meta.properties") {
			if err := mem.Remove(filepath.Join("data", quorum.LogName, name)); err != nil {
				t.Fatal(err)
			}
		}
		if b, err := New(cfg, Options{FS: mem}); err == nil || !strings.Contains(err.Error(), "data holds the log "+quorum.LogName) {
			t.Errorf("without meta.properties and %v: %v", lost, err)
			if err == nil {
				b.Close()
			}
		}
		if _, err := mem.Stat("data/meta.properties"); err == nil {
			t.Errorf("without %v: meta.properties was made", lost)
		}
	}
}

// moveTo has the metadata say that the log of a topic's first partition is in another log directory of the node, as Kafka
// writes it where log.dirs has several.
func moveTo(t *testing.T, mem *vfs.Mem, directory, topic, other [16]byte) {
	t.Helper()
	o := quorum.Options{DirectoryID: directory}
	store, err := commitlog.Open("data", &commitlog.Options{FS: mem, NoCheckpoint: []string{quorum.LogName}, First: []string{quorum.LogName}})
	if err != nil {
		t.Fatal(err)
	}
	q, err := quorum.Open(store, mem, "data", 1, o)
	if err != nil {
		t.Fatal(err)
	}
	c := records.NewPartitionChangeRecord()
	c.TopicID, c.PartitionID, c.Directories = topic, 0, []records.UUID{other}
	v, err := records.AppendMetadata(nil, c, 2)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.Append(q.Epoch(), nowMs(), [][][]byte{{v}}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(q.Close(), store.Close(0)); err != nil {
		t.Fatal(err)
	}
}

// A partition whose log is in a log directory that was not given has no leader, and no empty log is served in its place.
func TestPartitionInAnotherDirectory(t *testing.T) {
	mem := vfs.NewMem()
	n := startOn(t, mem)
	id := n.mustCreate("t", 2)
	n.mustProduce("t", "precious")
	n.stop()
	moveTo(t, mem, n.b.directoryID, id, [16]byte{7: 0xee})
	if err := mem.Rename("data/t-0", "other-t-0"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		var log bytes.Buffer
		cfg, err := config.Load(config.Standalone("data", "127.0.0.1:0"))
		if err != nil {
			t.Fatal(err)
		}
		b, err := New(cfg, Options{FS: mem, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		b.Start()
		n := &node{t: t, b: b}
		t.Cleanup(n.stop)
		if !strings.Contains(log.String(), "partitions=1 first=[t-0]") {
			t.Errorf("the start does not tell: %s", log.String())
		}
		if c := wire.Code(n.listOffset("t", 0, -1).ErrorCode); c != wire.NotLeaderOrFollower {
			t.Errorf("the partition is served: %s", c)
		}
		if _, err := mem.Stat("data/t-0"); err == nil {
			t.Error("an empty log was made")
		}
		if p := n.b.image().Topic("t").Partitions[0]; p.Leader != metadata.NoLeader {
			t.Errorf("%+v", p)
		}
		if c := wire.Code(n.listOffset("t", 1, -1).ErrorCode); c != 0 {
			t.Errorf("the other one is not served: %s", c)
		}
		n.stop()
	}
	moveTo(t, mem, n.b.directoryID, id, n.b.directoryID)
	if err := mem.Rename("other-t-0", "data/t-0"); err != nil {
		t.Fatal(err)
	}
	if end := startOn(t, mem).listOffset("t", 0, -1); end.ErrorCode != 0 || end.Offset != 1 {
		t.Errorf("back in this directory: %+v", end)
	}
}

// The log of a partition that is said to be elsewhere goes with its topic all the same.
func TestDeletedTopicInAnotherDirectory(t *testing.T) {
	mem := vfs.NewMem()
	n := startOn(t, mem)
	id := n.mustCreate("t", 1)
	n.mustProduce("t", "old")
	n.stop()
	moveTo(t, mem, n.b.directoryID, id, [16]byte{7: 0xee})
	n = startOn(t, mem)
	del, name := kmsg.NewPtrDeleteTopicsRequest(), "t"
	del.Topics, del.TimeoutMillis = []kmsg.DeleteTopicsRequestTopic{{Topic: &name}}, 5000
	if r := askNode[*kmsg.DeleteTopicsResponse](n, del, 6).Topics[0]; r.ErrorCode != 0 {
		t.Fatal(wire.Code(r.ErrorCode))
	}
	n.mustCreate("t", 1)
	if base := n.mustProduce("t", "new"); base != 0 {
		t.Errorf("the new topic's first record is at %d", base)
	}
}
