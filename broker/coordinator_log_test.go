package broker

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/groups"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/replication"
	"github.com/millrace-project/millrace/vfs"
	"github.com/millrace-project/millrace/wire"
)

// offsetRecord is a commit of a group that names itself by its metadata, which makes it as large as one likes.
func offsetRecord(group string, partition int32, metadata string) groups.Record {
	k := records.NewOffsetCommitKey()
	k.Group, k.Topic, k.Partition = group, "t", partition
	v := records.NewOffsetCommitValue()
	v.Offset, v.Metadata, v.CommitTimestamp = int64(partition), metadata, 5
	return groups.Record{Key: k, Value: v}
}

// groupLog is a partition of groups' records.
type groupLog struct {
	*coordinatorLog[groups.Record, groups.Entry]
}

// openGroupLog opens the log of a partition that no coordinator has.
func openGroupLog(t *testing.T, codec batch.Codec, loadBytes int, settings ...string) *groupLog {
	t.Helper()
	return openGroupLogOn(t, vfs.NewMem(), codec, loadBytes, settings...)
}

func openGroupLogOn(t *testing.T, files vfs.FS, codec batch.Codec, loadBytes int, settings ...string) *groupLog {
	t.Helper()
	n := startOn(t, files)
	n.mustCreate("log", 1, append([]string{"cleanup.policy", "compact"}, settings...)...)
	part, err := n.b.partitionNamed("log", 0)
	if err != nil {
		t.Fatal(err)
	}
	l := &groupLog{&coordinatorLog[groups.Record, groups.Entry]{
		form: &groupRecords, partition: part, epoch: part.Leadership().Epoch, codec: codec, loadBytes: loadBytes,
	}}
	t.Cleanup(l.release)
	return l
}

func (g *groupLog) mustAppend(t *testing.T, decisions ...[]groups.Record) int64 {
	t.Helper()
	base, err := g.Append(g.epoch, 1_700_000_000_000, decisions)
	if err != nil {
		t.Fatal(err)
	}
	return base
}

// batches are the record batches of the log's start.
func (g *groupLog) batches(t *testing.T) (out []batch.Batch) {
	t.Helper()
	log := g.partition.Log()
	v, err := log.Read(log.StartOffset(), log.EndOffset(), 1<<30, true)
	if err != nil {
		t.Fatal(err)
	}
	p, err := readView(nil, v)
	if err != nil {
		t.Fatal(err)
	}
	for {
		b, tail, err := batch.Next(p)
		if err != nil {
			return out
		}
		out, p = append(out, bytes.Clone(b)), tail
	}
}

// replayed lists what Replay gives: group/partition/metadata, "-" for a tombstone, and the ends of transactions.
func (g *groupLog) replayed(t *testing.T) (out []string, end int64) {
	t.Helper()
	end, err := g.Replay(func(e groups.Entry) error {
		text := ""
		switch k := e.Key.(type) {
		case nil:
			text = "unknown"
		case *records.OffsetCommitKey:
			text = fmt.Sprintf("%s/%d", k.Group, k.Partition)
			if v, is := e.Value.(*records.OffsetCommitValue); is {
				text += "/" + fmt.Sprint(len(v.Metadata))
			} else {
				text += "/-"
			}
		}
		if e.Control {
			text = fmt.Sprint("end ", e.Commit)
		}
		if e.Transactional {
			text += fmt.Sprint(" of ", e.ProducerID, "/", e.ProducerEpoch)
		}
		out = append(out, fmt.Sprint(e.Offset, " ", text))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out, end
}

// Decisions share a batch as far as max.message.bytes goes, and none is torn.
func TestDecisionsShareBatchesAndStayWhole(t *testing.T) {
	g := openGroupLog(t, batch.None, 1<<20, "max.message.bytes", "1000")
	var decisions [][]groups.Record
	var want []string
	next := int64(0)
	for i := range 12 {
		var d []groups.Record
		for j := range int32(1 + i%3) {
			d = append(d, offsetRecord(fmt.Sprint("g", i), j, strings.Repeat("m", 100)))
			want = append(want, fmt.Sprintf("%d g%d/%d/100", next, i, j))
			next++
		}
		decisions = append(decisions, d)
	}
	decisions = append(decisions, []groups.Record{{Key: offsetRecord("g", 7, "").Key}})
	want = append(want, fmt.Sprintf("%d g/7/-", next))
	if base := g.mustAppend(t, decisions...); base != 0 {
		t.Fatalf("base %d", base)
	}
	got, end := g.replayed(t)
	if fmt.Sprint(got) != fmt.Sprint(want) || end != next+1 {
		t.Errorf("end %d, got\n%v\nwant\n%v", end, got, want)
	}
	bs := g.batches(t)
	if len(bs) < 4 || len(bs) >= len(decisions) {
		t.Errorf("%d batches for %d decisions", len(bs), len(decisions))
	}
	firsts := map[int64]bool{}
	at := int64(0)
	for _, d := range decisions {
		firsts[at] = true
		at += int64(len(d))
	}
	for _, b := range bs {
		if !firsts[b.BaseOffset()] {
			t.Errorf("a batch begins at offset %d, within a decision", b.BaseOffset())
		}
		if len(b) > 1000 || b.LeaderEpoch() != g.epoch {
			t.Errorf("a batch of %d bytes, leader epoch %d", len(b), b.LeaderEpoch())
		}
	}
	if again := g.mustAppend(t, []groups.Record{offsetRecord("h", 0, "")}); again != end {
		t.Errorf("appended at %d, want %d", again, end)
	}
}

// A decision that no batch can hold is refused by a code, and nothing of its append is written.
func TestADecisionTooLargeIsRefused(t *testing.T) {
	g := openGroupLog(t, batch.None, 1<<20, "max.message.bytes", "1000")
	_, err := g.Append(g.epoch, 1, [][]groups.Record{
		{offsetRecord("ok", 0, "")}, {offsetRecord("big", 0, strings.Repeat("m", 600)), offsetRecord("big", 1, strings.Repeat("m", 600))},
	})
	var coded coordinator.Coded
	if !errors.As(err, &coded) || coded.Code() != wire.MessageTooLarge {
		t.Fatalf("%v", err)
	}
	if end := g.partition.Log().EndOffset(); end != 0 {
		t.Fatalf("%d records of an append that was refused", end)
	}
	for _, size := range []int{800, 860, 870, 880, 890, 900, 910} { // where the bound of the size does not tell
		g.Append(g.epoch, 1, [][]groups.Record{{offsetRecord("edge", 0, strings.Repeat("m", size))}})
	}
	for _, b := range g.batches(t) {
		if len(b) > 1000 {
			t.Errorf("a batch of %d bytes", len(b))
		}
	}
	if n := len(g.batches(t)); n < 2 || n == 7 {
		t.Errorf("%d of 7 fit", n)
	}
}

// Every codec is written and read back, through a buffer that is smaller than one batch.
func TestEveryCodecReplays(t *testing.T) {
	for codec := batch.None; codec <= batch.Zstd; codec++ {
		t.Run(codec.String(), func(t *testing.T) {
			g := openGroupLog(t, codec, 300)
			var want []string
			for i := range int32(50) {
				g.mustAppend(t, []groups.Record{offsetRecord("g", i, strings.Repeat("m", 400)), offsetRecord("h", i, "")})
				want = append(want, fmt.Sprintf("%d g/%d/400", 2*i, i), fmt.Sprintf("%d h/%d/0", 2*i+1, i))
			}
			got, end := g.replayed(t)
			if fmt.Sprint(got) != fmt.Sprint(want) || end != 100 {
				t.Errorf("end %d, got\n%v", end, got)
			}
			for _, b := range g.batches(t) {
				if b.Codec() != codec {
					t.Fatalf("a batch in %s", b.Codec())
				}
			}
		})
	}
}

// A transaction's records are in batches of their producer, several appends long, and its end is told.
func TestTransactionalRecordsReplay(t *testing.T) {
	g := openGroupLog(t, batch.None, 1<<20)
	in := func(p groups.Producer, r groups.Record) []groups.Record { r.Producer = &p; return []groups.Record{r} }
	a, b := groups.Producer{ID: 7, Epoch: 1}, groups.Producer{ID: 8, Epoch: 0}
	g.mustAppend(t, []groups.Record{offsetRecord("plain", 0, "")}, in(a, offsetRecord("x", 0, "")), in(a, offsetRecord("x", 1, "")), in(b, offsetRecord("y", 0, "")))
	g.mustAppend(t, in(a, offsetRecord("x", 2, "")), []groups.Record{offsetRecord("plain", 1, "")})
	// What may not begin a transaction is refused, and with it what is written together with it; what goes on may.
	late := groups.Producer{ID: 9, Guard: int64(commitlog.MustBeOpen)}
	_, err := g.Append(g.epoch, 1, [][]groups.Record{in(b, offsetRecord("y", 1, "")), in(late, offsetRecord("z", 0, ""))})
	var coded coordinator.Coded
	if !errors.As(err, &coded) || coded.Code() != wire.InvalidTxnState {
		t.Fatalf("a late record: %v", err)
	}
	b.Guard = int64(commitlog.MustBeOpen)
	g.mustAppend(t, in(b, offsetRecord("y", 1, "")))
	for _, m := range []batch.MarkerOptions{{ProducerID: 7, ProducerEpoch: 1, Commit: true}, {ProducerID: 8}} {
		m.Timestamp = 9
		e := commitlog.Entry{Data: batch.AppendEndTxnMarker(nil, m), Origin: commitlog.FromCoordinator}
		if g.partition.Append(9, []*commitlog.Entry{&e}); e.Err != nil {
			t.Fatal(e.Err)
		}
	}
	got, _ := g.replayed(t)
	want := []string{
		"0 plain/0/0", "1 x/0/0 of 7/1", "2 x/1/0 of 7/1", "3 y/0/0 of 8/0", "4 x/2/0 of 7/1", "5 plain/1/0", "6 y/1/0 of 8/0", "7 end true of 7/1", "8 end false of 8/0",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got\n%v\nwant\n%v", got, want)
	}
}

// What each pass of the cleaner leaves of a transaction replays: its data's batch without a record, and its marker's.
func TestReplayBehindTheCleaner(t *testing.T) {
	for _, c := range []struct {
		name     string
		version  int16 // of the transaction; from 2 on the marker has an epoch of its own, whose last batch it is
		epoch    int16
		ofMarker bool // whose batch is left without a record
	}{
		{name: "the data is the producer's last", ofMarker: false},
		{name: "the marker is the producer's last", version: 2, epoch: 1, ofMarker: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := openGroupLog(t, batch.None, 1<<20, "delete.retention.ms", "0")
			inTxn := offsetRecord("g", 0, "in a transaction")
			inTxn.Producer = &groups.Producer{ID: 7}
			g.mustAppend(t, []groups.Record{inTxn})
			end := commitlog.Entry{Origin: commitlog.FromCoordinator, TransactionVersion: c.version, Data: batch.AppendEndTxnMarker(nil, batch.MarkerOptions{
				LeaderEpoch: -1, Timestamp: nowMs(), ProducerID: 7, ProducerEpoch: c.epoch, Commit: true,
			})}
			if g.partition.Append(nowMs(), []*commitlog.Entry{&end}); end.Err != nil {
				t.Fatal(end.Err)
			}
			g.mustAppend(t, []groups.Record{offsetRecord("g", 0, "later")})
			log := g.partition.Log()
			if err := log.Sync(); err != nil {
				t.Fatal(err)
			}
			left := false
			for pass := 1; pass <= 4; pass++ {
				if _, err := log.Compact(t.Context(), nil); err != nil {
					t.Fatal(err)
				}
				for _, b := range g.batches(t) {
					left = left || b.Count() == 0 && b.IsControl() == c.ofMarker
				}
				if got, _ := g.replayed(t); !strings.HasSuffix(got[len(got)-1], " g/0/5") {
					t.Errorf("after pass %d: %v", pass, got)
				}
			}
			if !left {
				t.Error("the cleaner left no batch without a record")
			}
		})
	}
}

// What the file system refuses for a while passes; bytes that are not what was written do not.
func TestReplayThatPasses(t *testing.T) {
	var fails atomic.Pointer[error]
	mem := vfs.NewMem()
	g := openGroupLogOn(t, vfs.NewFaulty(mem, func(op vfs.Op) error {
		if err := fails.Load(); err != nil && op.Kind == vfs.OpRead && strings.HasSuffix(op.Name, "log-0/00000000000000000000.log") {
			return *err
		}
		return nil
	}), batch.None, 1<<20)
	g.mustAppend(t, []groups.Record{offsetRecord("g", 0, "")})
	none := func(groups.Entry) error { return nil }
	for _, err := range []error{&fs.PathError{Op: "open", Path: "log", Err: syscall.EMFILE}, syscall.ENFILE, vfs.ErrTooManyOpen} {
		fails.Store(&err)
		if _, got := g.Replay(none); !errors.Is(got, coordinator.ErrPassing) || !errors.Is(got, err) {
			t.Errorf("%v: %v", err, got)
		}
	}
	fails.Store(nil)
	if got, _ := g.replayed(t); len(got) != 1 {
		t.Errorf("replayed %v", got)
	}
	f, err := mem.OpenFile("data/log-0/00000000000000000000.log", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{0xff}, 70); err != nil {
		t.Fatal(err)
	}
	if _, got := g.Replay(none); got == nil || errors.Is(got, coordinator.ErrPassing) {
		t.Errorf("a batch that is not what was written: %v", got)
	}
}

// A record of a type that is not known is passed over; one of a version that is not known stops the load, as in Kafka.
func TestUnknownRecordsOfANewerKafka(t *testing.T) {
	one := func(key, value string) ([]string, error) {
		bl := batch.NewBuilder(batch.BuilderOptions{})
		bl.Append(1, []byte(key), []byte(value), nil)
		b, err := bl.Build(nil)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		_, err = groupRecords.replay(b, 0, func(e groups.Entry) error { out = append(out, fmt.Sprint(e.Key == nil)); return nil })
		return out, err
	}
	if got, err := one("\x01\x00new", "\x00\x00"); err != nil || fmt.Sprint(got) != "[true]" {
		t.Errorf("unknown type: %v, %v", got, err)
	}
	if got, err := one("\x00\x02\x00\x01g", "\x00\x63"); !errors.Is(err, records.ErrUnknown) || got != nil {
		t.Errorf("unknown version: %v, %v", got, err)
	}
	if got, err := one("\x00\x02\x00", "\x00\x00"); err == nil || got != nil {
		t.Errorf("a key cut short: %v, %v", got, err)
	}
}

// A log whose partition is led in another epoch, or by nobody, refuses and says so; who waits is told.
func TestALogEndsWithItsEpoch(t *testing.T) {
	g := openGroupLog(t, batch.None, 1<<20)
	told := make(chan struct{}, 100)
	g.OnCommitted(func() { told <- struct{}{} })
	g.mustAppend(t, []groups.Record{offsetRecord("g", 0, "")})
	<-told
	for g.Committed() < 1 {
		<-told
	}
	if err := g.Err(); err != nil {
		t.Fatal(err)
	}
	l := g.partition.Leadership()
	l.Epoch, l.PartitionEpoch = l.Epoch+1, l.PartitionEpoch+1
	g.partition.SetLeadership(l)
	<-told
	var coded coordinator.Coded
	if err := g.Err(); !errors.As(err, &coded) || coded.Code() != wire.NotLeaderOrFollower || !errors.Is(err, replication.ErrFencedEpoch) {
		t.Errorf("in an older epoch: %v", err)
	}
	if _, err := g.Append(g.epoch, 1, [][]groups.Record{{offsetRecord("g", 1, "")}}); !errors.As(err, &coded) || coded.Code() != wire.NotLeaderOrFollower {
		t.Errorf("append in an older epoch: %v", err)
	}
	g.release()
	g.OnCommitted(func() { t.Error("told after release") })
	g.partition.Close()
	if err := g.Err(); err == nil {
		t.Error("a log of a partition that is gone has no error")
	}
}
