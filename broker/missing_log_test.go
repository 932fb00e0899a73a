package broker

import (
	"errors"
	"io/fs"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/vfs"
	"github.com/millrace-project/millrace/wire"
)

// wanting is a file system in memory that has no file descriptor for the logs of some topics while want is set.
func wanting(want *atomic.Bool, topics ...string) vfs.FS {
	return vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op) error {
		for _, topic := range topics {
			if want.Load() && op.Kind == vfs.OpCreate && strings.Contains(op.Name, "/"+topic+"-") {
				return &fs.PathError{Op: "open", Path: op.Name, Err: syscall.EMFILE}
			}
		}
		return nil
	})
}

// A log that cannot be made when its topic is created, or when the node starts, is made by itself when that can be done:
// until then its partition is refused with an error that clients retry, and other partitions are served.
func TestLogThatCannotBeMadeIsTriedAgain(t *testing.T) {
	for name, restart := range map[string]bool{"topic created": false, "node started": true} {
		t.Run(name, func(t *testing.T) {
			var want atomic.Bool
			disk := wanting(&want, "t", "gone")
			n := startOn(t, disk)
			want.Store(true)
			n.mustCreate("t", 3)
			n.mustCreate("gone", 1)
			n.mustCreate("other", 1)
			if restart {
				n.stop()
				n = startOn(t, disk)
			}
			for range 2 {
				if p := n.produce(9, produceRequest("t", 0, -1, recordsOf(plain(), "a"))); wire.Code(p.ErrorCode) != wire.KafkaStorageError {
					t.Fatalf("produce: %s", wire.Code(p.ErrorCode))
				}
				if p := n.fetch(11, fetchRequest("t", 0)); wire.Code(p.ErrorCode) != wire.KafkaStorageError {
					t.Fatalf("fetch: %s", wire.Code(p.ErrorCode))
				}
				n.mustProduce("other", "b")
				// So that it is not the next try that succeeds.
				eventually(t, "another try", func() bool {
					n.b.serving.Lock()
					defer n.b.serving.Unlock()
					return n.b.serving.backoff > openBackoff
				})
			}
			del, gone := kmsg.NewPtrDeleteTopicsRequest(), "gone"
			del.Topics, del.TimeoutMillis = []kmsg.DeleteTopicsRequestTopic{{Topic: &gone}}, 5000
			if r := askNode[*kmsg.DeleteTopicsResponse](n, del, 6).Topics[0]; r.ErrorCode != 0 {
				t.Fatalf("deleting a topic without a log: %s", wire.Code(r.ErrorCode))
			}
			want.Store(false)
			for i := range int32(3) {
				eventually(t, "the partition is served", func() bool {
					return n.produce(9, produceRequest("t", i, -1, recordsOf(plain(), "a"))).ErrorCode == 0
				})
				if end := n.listOffset("t", i, -1).Offset; end != 1 {
					t.Errorf("partition %d ends at %d", i, end)
				}
			}
			eventually(t, "nothing is left to be tried", func() bool {
				n.b.serving.Lock()
				defer n.b.serving.Unlock()
				return n.b.serving.retry == nil && n.b.serving.backoff == 0
			})
			if n.b.store.Log("gone-0") != nil {
				t.Error("the log of a deleted topic was made")
			}
			n.stop()
			again := startOn(t, disk)
			if end := again.listOffset("t", 2, -1).Offset; end != 1 {
				t.Errorf("after a restart: end %d", end)
			}
		})
	}
}

// The coordinator of groups begins when the log of its partition can be made.
func TestCoordinatorWhoseLogCannotBeMade(t *testing.T) {
	var want atomic.Bool
	want.Store(true)
	n := groupNode(t, wanting(&want, topicConsumerOffsets))
	n.mustCreate("t", 1)
	p := n.pipe()
	commit := func() wire.Code {
		resp := askPipe[*kmsg.OffsetCommitResponse](p, 9, commitRequest("g", "t", at{0, 7, ""}))
		return wire.Code(resp.Topics[0].Partitions[0].ErrorCode)
	}
	n.b.createInternal(topicConsumerOffsets)
	eventually(t, "the topic is there, without logs", func() bool {
		_, err := n.b.partitionNamed(topicConsumerOffsets, 0)
		return errors.Is(err, errNoLog)
	})
	if code := commit(); code != wire.NotCoordinator && code != wire.CoordinatorNotAvailable {
		t.Errorf("commit: %s", code)
	}
	want.Store(false)
	eventually(t, "a commit is taken", func() bool { return commit() == wire.None })
	if got := p.committed("g", "t", 0); got != 7 {
		t.Errorf("committed %d", got)
	}
}

// A node that stops does not go on trying.
func TestStopEndsTheTryingOfLogs(t *testing.T) {
	var want atomic.Bool
	want.Store(true)
	n := startOn(t, wanting(&want, "t"))
	n.mustCreate("t", 1)
	n.stop()
	v := &n.b.serving
	v.Lock()
	defer v.Unlock()
	if v.retry == nil || v.retry.Stop() {
		t.Error("it would have been tried again")
	}
	n.b.openLaterLocked()
	if v.retry.Stop() {
		t.Error("it would have been tried later")
	}
}

// madeAgain is a node with a topic t that was deleted and made again, while the directory of the old one cannot be renamed:
// as long as stuck is set.
func madeAgain(t *testing.T, mem *vfs.Mem, stuck *atomic.Bool) *node {
	t.Helper()
	n := startOn(t, vfs.NewFaulty(mem, func(op vfs.Op) error {
		if stuck.Load() && op.Kind == vfs.OpRename && strings.HasSuffix(op.Name, "/t-0") {
			return &fs.PathError{Op: "rename", Path: op.Name, Err: syscall.EIO}
		}
		return nil
	}))
	n.mustCreate("t", 1)
	n.mustProduce("t", "old")
	stuck.Store(true)
	n.mustDelete("t")
	n.mustCreate("t", 1)
	return n
}

// The directory of a deleted topic that cannot be renamed for a while keeps a topic that is made again under its name from
// being served only as long.
func TestTopicMadeAgainWhileItsOldLogIsThere(t *testing.T) {
	var stuck atomic.Bool
	n := madeAgain(t, vfs.NewMem(), &stuck)
	if code := wire.Code(n.produce(9, produceRequest("t", 0, -1, recordsOf(plain(), "early"))).ErrorCode); code == wire.None {
		t.Fatal("served while the old log is there")
	}
	stuck.Store(false)
	var base int64
	n.eventually("the topic is served", func() bool {
		p := n.produce(9, produceRequest("t", 0, -1, recordsOf(plain(), "new")))
		base = p.BaseOffset
		return p.ErrorCode == 0
	})
	if base != 0 {
		t.Errorf("its first record has offset %d", base)
	}
}

// The log of a deleted topic whose directory could not be renamed before a kill is not taken for that of the topic that has
// its name now.
func TestLogOfAnEarlierTopicOfTheNameIsSetAside(t *testing.T) {
	var stuck atomic.Bool
	mem := vfs.NewMem()
	madeAgain(t, mem, &stuck)
	again := startOn(t, mem.KillClone())
	if end := again.listOffset("t", 0, -1).Offset; end != 0 {
		t.Errorf("the new topic has %d records", end)
	}
	if base := again.mustProduce("t", "new"); base != 0 {
		t.Errorf("its first record has offset %d", base)
	}
}
