package controller

import (
	"errors"
	"fmt"
	"math/rand"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/quorum"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/vfs"
)

func kinds(msgs []records.Message) (out []string) {
	for _, m := range msgs {
		out = append(out, m.Schema().Name)
	}
	return out
}

// The first start writes what Kafka writes on its first start, offset by offset, without its NO_OPs.
func TestFirstStart(t *testing.T) {
	l := newMemLog(t)
	c := startOn(t, l)
	defer c.Close()
	got := l.since(t, 0)
	expect(t, "records", kinds(got), "BeginTransactionRecord", "FeatureLevelRecord", "FeatureLevelRecord", "FeatureLevelRecord", "FeatureLevelRecord", "FeatureLevelRecord", "FeatureLevelRecord",
		"ConfigRecord", "EndTransactionRecord", "RegisterControllerRecord", "RegisterBrokerRecord", "BrokerRegistrationChangeRecord")
	if cfg := got[7].(*records.ConfigRecord); cfg.ResourceType != 4 || cfg.ResourceName != "" || cfg.Name != "min.insync.replicas" || *cfg.Value != "1" {
		t.Errorf("%+v", cfg)
	}
	b := got[10].(*records.RegisterBrokerRecord)
	if b.BrokerEpoch != 11 || c.BrokerEpoch() != 11 || !b.Fenced || !slices.Equal(b.LogDirs, []records.UUID{{0xd1}}) {
		t.Errorf("%+v, epoch %d", b, c.BrokerEpoch())
	}
	img := c.Image()
	if x := img.Broker(1); x.Fenced || x.Epoch != 11 || img.Controller(1) == nil || img.Feature("metadata.version") != 29 || img.Offset() != l.End() {
		t.Errorf("broker %+v at offset %d of %d", x, img.Offset(), l.End())
	}
}

// A stop leaves, and the next start undoes, what Kafka's does; the epochs rise by one each.
func TestStopAndStart(t *testing.T) {
	l := newMemLog(t)
	c := startOn(t, l)
	create(c, createReq(topic("t", 2, 1)))
	at := l.End()
	if err := c.Shutdown(); err != nil {
		t.Fatal(err)
	}
	c.Close()
	got := l.since(t, at)
	expect(t, "stop", kinds(got), "BrokerRegistrationChangeRecord", "PartitionChangeRecord", "PartitionChangeRecord", "BrokerRegistrationChangeRecord")
	want := records.NewPartitionChangeRecord()
	want.PartitionID, want.TopicID, want.Leader, want.Isr, want.EligibleLeaderReplicas, want.LastKnownElr = 0, c.Image().Topic("t").ID, -1, []int32{}, []int32{1}, []int32{1}
	if !reflect.DeepEqual(got[1], records.Message(want)) || got[0].(*records.BrokerRegistrationChangeRecord).InControlledShutdown != 1 || got[3].(*records.BrokerRegistrationChangeRecord).Fenced != 1 {
		t.Errorf("stop wrote %#v, want %#v", got[1], want)
	}
	l.restart()
	at = l.End()
	c = startOn(t, l)
	defer c.Close()
	got = l.since(t, at)
	expect(t, "start", kinds(got), "RegisterControllerRecord", "RegisterBrokerRecord", "BrokerRegistrationChangeRecord", "PartitionChangeRecord", "PartitionChangeRecord")
	want = records.NewPartitionChangeRecord()
	want.PartitionID, want.TopicID, want.Leader, want.Isr, want.EligibleLeaderReplicas, want.LastKnownElr = 0, c.Image().Topic("t").ID, 1, []int32{1}, []int32{}, []int32{}
	if !reflect.DeepEqual(got[3], records.Message(want)) {
		t.Errorf("start wrote %+v", got[3])
	}
	if p := c.Image().Topic("t").Partitions[0]; p.Leader != 1 || p.LeaderEpoch != 2 || p.PartitionEpoch != 2 || len(p.Elr)+len(p.LastKnownElr) != 0 {
		t.Errorf("%+v", p)
	}
}

// After a kill the leader epoch of each partition rises all the same.
func TestStartAfterAKill(t *testing.T) {
	l := newMemLog(t)
	c := startOn(t, l)
	create(c, createReq(topic("t", 1, 1)))
	c.Close()
	l.restart()
	c = startOn(t, l)
	defer c.Close()
	if p := c.Image().Topic("t").Partitions[0]; p.Leader != 1 || p.LeaderEpoch != 1 || p.PartitionEpoch != 1 || !slices.Equal(p.Isr, []int32{1}) {
		t.Errorf("%+v", p)
	}
	if b := c.Image().Broker(1); b.Fenced || b.Epoch != c.BrokerEpoch() {
		t.Errorf("%+v, want epoch %d", b, c.BrokerEpoch())
	}
}

// partitionCase is a partition as an earlier run left it and as a start of node 1 makes it.
func TestElectionOnStart(t *testing.T) {
	one, two := []int32{1}, []int32{1, 2}
	for _, x := range []struct {
		name string
		in   metadata.Partition
		want string // leader isr elr lastKnownElr
	}{
		{"led before", metadata.Partition{Leader: 1, Replicas: one, Isr: one}, "1 [1] [] []"},
		{"clean stop", metadata.Partition{Leader: -1, Replicas: one, Elr: one, LastKnownElr: one}, "1 [1] [] []"},
		{"last known leader", metadata.Partition{Leader: -1, Replicas: one, LastKnownElr: one}, "1 [1] [] []"},
		{"recovering", metadata.Partition{Leader: -1, Replicas: one, Isr: one, RecoveryState: 1}, "1 [1] [] []"},
		{"other leader, in sync", metadata.Partition{Leader: 2, Replicas: two, Isr: []int32{2, 1}}, "1 [1] [] []"},
		{"not in sync", metadata.Partition{Leader: 2, Replicas: two, Isr: []int32{2}}, "-1 [] [2] [2]"},
		{"eligible, others in sync", metadata.Partition{Leader: 2, Replicas: two, Isr: []int32{2}, Elr: one}, "-1 [] [1 2] [2]"},
		{"no leader, not eligible", metadata.Partition{Leader: -1, Replicas: two, Elr: []int32{2}}, "-1 [] [2] []"},
		{"not here", metadata.Partition{Leader: 2, Replicas: []int32{2}, Isr: []int32{2}}, "-1 [] [2] [2]"},
	} {
		l := newMemLog(t)
		c := startOn(t, l)
		id := records.UUID{1}
		p := x.in
		c.rt.Close()
		c.m.Apply(l.End(), 0, [][]metadata.Record{{{Message: &records.TopicRecord{Name: "t", TopicID: id}}, {Message: &records.PartitionRecord{TopicID: id, Leader: p.Leader, Replicas: p.Replicas, Isr: p.Isr,
			EligibleLeaderReplicas: p.Elr, LastKnownElr: p.LastKnownElr, LeaderRecoveryState: p.RecoveryState, Directories: make([]records.UUID, len(p.Replicas))}}}})
		batches, _ := c.m.start(nil, c.m.img.LogEnd())
		c.m.Apply(c.m.img.LogEnd(), 0, batches)
		got := c.m.img.Topic("t").Partitions[0]
		if s := fmt.Sprint(got.Leader, got.Isr, got.Elr, got.LastKnownElr); s != x.want {
			t.Errorf("%s: %s, want %s", x.name, s, x.want)
		}
		if got.Leader == 1 && (got.LeaderEpoch != p.LeaderEpoch+1 || got.RecoveryState != 0 || got.Directories[slices.Index(got.Replicas, 1)] != [16]byte{0xd1}) {
			t.Errorf("%s: %+v", x.name, got)
		}
	}
}

// An older metadata version gets only what it allows: no eligible replicas, no directories, no controllers.
func TestOlderMetadataVersion(t *testing.T) {
	l := newMemLog(t)
	v, err := records.AppendMetadata(nil, &records.FeatureLevelRecord{Name: "metadata.version", FeatureLevel: 8}, 0)
	if err != nil {
		t.Fatal(err)
	}
	l.boot = [][]byte{v}
	c := startOn(t, l)
	create(c, createReq(topic("t", 1, 1)))
	if err := c.Shutdown(); err != nil {
		t.Fatal(err)
	}
	if p := c.Image().Topic("t").Partitions[0]; p.Leader != -1 || !slices.Equal(p.Isr, []int32{1}) {
		t.Errorf("after the stop: %+v", p)
	}
	c.Close()
	l.restart()
	c = startOn(t, l)
	defer c.Close()
	if p := c.Image().Topic("t").Partitions[0]; p.Leader != 1 || p.LeaderEpoch != 2 {
		t.Errorf("after the start: %+v", p)
	}
	for _, name := range kinds(l.since(t, 0)) {
		if name == "RegisterControllerRecord" || name == "BeginTransactionRecord" {
			t.Errorf("%s was written at metadata version 8", name)
		}
	}
	for _, e := range l.entries {
		if m, version, err := records.DecodeMetadataVersion(e.Value); err == nil {
			switch m.(type) {
			case *records.PartitionRecord, *records.PartitionChangeRecord:
				if version != 0 {
					t.Errorf("%s version %d", m.Schema().Name, version)
				}
			case *records.RegisterBrokerRecord:
				if version != 2 {
					t.Errorf("registration version %d", version)
				}
			}
		}
	}
}

func appendRaw(t *testing.T, l *memLog, msgs ...records.Message) {
	t.Helper()
	var vs [][]byte
	for _, m := range msgs {
		v, err := records.AppendMetadata(nil, m, 0)
		if err != nil {
			t.Fatal(err)
		}
		vs = append(vs, v)
	}
	l.notify = func() {}
	if _, err := l.Append(l.epoch, 0, [][][]byte{vs}); err != nil {
		t.Fatal(err)
	}
}

// A transaction that a crash left open is aborted, and where it was the bootstrap's, begun again.
func TestOpenTransactionIsAborted(t *testing.T) {
	l := newMemLog(t)
	appendRaw(t, l, &records.BeginTransactionRecord{Name: ptr("Bootstrap records")}, &records.FeatureLevelRecord{Name: "metadata.version", FeatureLevel: 29})
	at := l.End()
	c := startOn(t, l)
	defer c.Close()
	got := kinds(l.since(t, at))
	if got[0] != "AbortTransactionRecord" || got[1] != "BeginTransactionRecord" || c.Image().InTransaction() || c.Image().Feature("metadata.version") != 29 {
		t.Errorf("%v", got)
	}
}

// A start that was refused leaves nothing behind that writes: the directory may be another process's by then.
func TestRefusedStartWritesNoSnapshot(t *testing.T) {
	for _, refused := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			l := newMemLog(t)
			startOn(t, l).Close()
			if refused {
				appendRaw(t, l, &records.AccessControlEntryRecord{ID: records.UUID{1}})
			}
			l.restart()
			l.unsnapped = 1
			o := testOptions(t)
			o.SnapshotMs = 1000
			c, err := Start(l, o)
			if (err != nil) != refused {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if wrote := l.snaps > 0; wrote == refused {
				t.Errorf("refused %v: %d snapshots", refused, l.snaps)
			}
			if c != nil {
				c.Close()
			}
		})
	}
}

func TestStartRefuses(t *testing.T) {
	l := newMemLog(t)
	c := startOn(t, l)
	c.Close()
	appendRaw(t, l, &records.UserScramCredentialRecord{Name: "u", Mechanism: 1}, &records.AccessControlEntryRecord{ID: records.UUID{1}})
	l.restart()
	end := l.End()
	_, err := Start(l, testOptions(t))
	var security *SecurityError
	if !errors.As(err, &security) || !slices.Equal(security.Kinds, []string{"ACLs", "SCRAM credentials"}) || l.End() != end {
		t.Errorf("%v, %d records written", err, l.End()-end)
	}
	c = startOn(t, l, func(o *Options) { o.EnforcesSecurity = true })
	c.Close()
	appendRaw(t, l, &records.FeatureLevelRecord{Name: "metadata.version", FeatureLevel: 30})
	if _, err = Start(l, testOptions(t)); err == nil || err.Error() != "controller: the metadata is at metadata.version 30, this build knows 7 to 29" {
		t.Error(err)
	}
}

func TestOtherBrokersAreFencedOnStart(t *testing.T) {
	l := newMemLog(t)
	startOn(t, l).Close()
	appendRaw(t, l, &records.RegisterBrokerRecord{BrokerID: 2, BrokerEpoch: 5, Fenced: false})
	l.restart()
	c := startOn(t, l)
	defer c.Close()
	if !c.Image().Broker(2).Fenced || c.Image().Broker(1).Fenced {
		t.Error("broker 2 is alive")
	}
	expect(t, "placement", create(c, createReq(topic("two", 1, 2), topic("three", 1, 3))), "two: 0",
		"three: 38 Unable to replicate the partition 3 time(s): The target replication factor of 3 cannot be reached because only 2 broker(s) are registered.")
	if p := c.Image().Topic("two").Partitions[0]; !slices.Equal(p.Replicas, []int32{1, 2}) || !slices.Equal(p.Isr, []int32{1}) {
		t.Errorf("%+v", p)
	}
}

// The restart of 10 000 partitions is one append, and takes less than 50 ms of this package's time.
func TestRestartOfManyPartitions(t *testing.T) {
	l := newMemLog(t)
	c := startOn(t, l)
	for i := range 11 {
		create(c, createReq(topic(fmt.Sprint("t", i), 909, 1)))
	}
	if err := c.Shutdown(); err != nil {
		t.Fatal(err)
	}
	c.Close()
	l.restart()
	appends := l.End()
	began := time.Now()
	c = startOn(t, l)
	t.Logf("%d partitions, %d records written, after %v", 11*909, l.End()-appends, time.Since(began))
	defer c.Close()
	for topic := range c.Image().Topics() {
		for _, p := range topic.Partitions {
			if p.Leader != 1 || p.LeaderEpoch != 2 {
				t.Fatalf("%s-%d: %+v", topic.Name, p.Index, p)
			}
		}
	}
}

// A stop and a start that write more than a segment of the metadata log write it by several appends.
func TestStopAndStartAboveASegment(t *testing.T) {
	files := vfs.NewMem()
	err := quorum.Format(files, "/d", quorum.FormatOptions{NodeID: 1, ControllerListener: quorum.Endpoint{Name: "CONTROLLER", Host: "127.0.0.1", Port: 9093}})
	if err != nil {
		t.Fatal(err)
	}
	small := func(o *quorum.Options) { o.SegmentBytes = 1 << 20 }
	o := open(t, files, small)
	c, err := Start(o.q, o.options(t))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 25 {
		create(c, createReq(topic(fmt.Sprint("t", i), 909, 1)))
	}
	if err := c.Shutdown(); err != nil {
		t.Fatal(err)
	}
	c.Close()
	o.close(t)

	o = open(t, files, small)
	defer o.close(t)
	if c, err = Start(o.q, o.options(t)); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for topic := range c.Image().Topics() {
		for _, p := range topic.Partitions {
			if p.Leader != 1 || p.LeaderEpoch != 2 {
				t.Fatalf("%s-%d: %+v", topic.Name, p.Index, p)
			}
		}
	}
}

func BenchmarkRestart10000Partitions(b *testing.B) {
	l := newMemLog(b)
	c := startOn(b, l)
	for i := range 1000 {
		create(c, createReq(topic(fmt.Sprint("t", i), 10, 1)))
	}
	c.Close()
	entries := l.entries
	for b.Loop() {
		l.entries = entries[:len(entries):len(entries)]
		l.restart()
		startOn(b, l).Close()
	}
}

// Nothing is answered or published before it is committed; the publication comes before the answer.
func TestAnswersAfterCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog(t)
		c := startOn(t, l)
		defer c.Close()
		l.mu.Lock()
		l.held = true
		l.mu.Unlock()
		var events []string
		c.Subscribe(func(img *metadata.Image, d *metadata.Delta) {
			for _, x := range d.Created {
				events = append(events, "published "+x.Name)
			}
			if d.Image != img || d.Base.Offset() >= img.Offset() {
				t.Errorf("delta from %d to %d", d.Base.Offset(), img.Offset())
			}
		})
		for _, name := range []string{"a", "b", "a"} {
			c.CreateTopics(createReq(topic(name, 1, 1)), func(r *kmsg.CreateTopicsResponse) {
				events = append(events, fmt.Sprint("answered ", name, " ", r.Topics[0].ErrorCode))
			})
		}
		synctest.Wait()
		if len(events) > 0 || c.Image().Topic("a") != nil {
			t.Fatalf("before the commit: %v", events)
		}
		l.mu.Lock()
		l.committed = l.End()
		l.mu.Unlock()
		l.notify()
		synctest.Wait()
		expect(t, "events", events, "published a", "published b", "answered a 0", "answered b 0", "answered a 36")
	})
}

func TestFailureOfTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog(t)
		c := startOn(t, l)
		l.mu.Lock()
		l.held = true
		l.mu.Unlock()
		var code int16
		c.CreateTopics(createReq(topic("a", 1, 1)), func(r *kmsg.CreateTopicsResponse) { code = r.Topics[0].ErrorCode })
		synctest.Wait()
		l.mu.Lock()
		l.err = errors.New("disk")
		l.mu.Unlock()
		l.notify()
		synctest.Wait()
		if code != 56 || c.Image().Topic("a") != nil {
			t.Errorf("code %d", code)
		}
		c.Close()
		expect(t, "closed", create(c, createReq(topic("a", 1, 1))), "a: 41")
	})
}

func TestProducerIDs(t *testing.T) {
	l := newMemLog(t)
	c := startOn(t, l)
	defer c.Close()
	for want := int64(0); want < 5000; want += 1000 {
		done := make(chan int64, 1)
		c.AllocateProducerIDs(func(first int64, n int32, err error) {
			if err != nil || n != 1000 {
				t.Error(n, err)
			}
			done <- first
		})
		if first := <-done; first != want {
			t.Errorf("first %d, want %d", first, want)
		}
	}
	recs := l.since(t, l.End()-1)
	if r := recs[0].(*records.ProducerIdsRecord); r.NextProducerID != 5000 || r.BrokerID != 1 || r.BrokerEpoch != c.BrokerEpoch() {
		t.Errorf("%+v", r)
	}
}

// A change of min.insync.replicas makes older eligible replicas ineligible.
func TestMinInsyncClearsEligibleReplicas(t *testing.T) {
	l := newMemLog(t)
	c := startOn(t, l)
	defer c.Close()
	create(c, createReq(topic("a", 1, 1)))
	for _, x := range []struct {
		in   change
		want string // topic name of the ClearElrRecord
	}{{set(4, "", "min.insync.replicas", "2"), ""}, {set(2, "a", "min.insync.replicas", "2"), "a"}} {
		at := l.End()
		incremental(c, false, x.in)
		got := l.since(t, at)
		if r, ok := got[len(got)-1].(*records.ClearElrRecord); len(got) != 2 || !ok || r.TopicName != x.want {
			t.Errorf("%v wrote %v", x.in, kinds(got))
		}
	}
}

// White space around a value is none of it, here as where it was checked.
func TestMinInsyncIsReadAsItWasChecked(t *testing.T) {
	c := startOn(t, newMemLog(t))
	expect(t, "create", create(c, createReq(topic("a", 1, 1, minInsyncReplicas, " 2 "))), "a: 0")
	c.Close()
	if n := c.m.minInsync(c.m.img.Topic("a")); n != 2 {
		t.Errorf("min.insync.replicas is %d", n)
	}
}

// Snapshots come by bytes and by age; none comes while nothing was written.
func TestSnapshotsByBytesAndByAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog(t)
		c := startOn(t, l, func(o *Options) { o.SnapshotBytes, o.SnapshotMs = 10_000, 3_600_000 })
		defer c.Close()
		count := func() int {
			synctest.Wait()
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.snaps
		}
		time.Sleep(59 * time.Minute)
		if n := count(); n != 0 {
			t.Fatalf("%d snapshots before their time", n)
		}
		time.Sleep(2 * time.Minute)
		if n := count(); n != 1 {
			t.Fatalf("%d snapshots after an hour", n)
		}
		time.Sleep(10 * time.Hour)
		if n := count(); n != 1 {
			t.Fatalf("%d snapshots of nothing new", n)
		}
		create(c, createReq(topic("big", 200, 1)))
		if n := count(); n != 2 {
			t.Fatalf("%d snapshots after 13 KB", n)
		}
		c.Close()
		l.restart()
		again := startOn(t, l)
		defer again.Close()
		if got := again.Image().Topic("big"); got == nil || len(got.Partitions) != 200 {
			t.Error("the snapshot lost a topic")
		}
	})
}

// Where snapshots by time are off, they come by bytes alone; one that failed is tried again all the same.
func TestNoSnapshotsByAge(t *testing.T) {
	for _, forever := range []string{"0", "9223372036854775807"} {
		synctest.Test(t, func(t *testing.T) {
			l := newMemLog(t)
			cfg, err := config.Load(append(config.Standalone("data", "127.0.0.1:9092"), config.Pair{Key: "metadata.log.max.snapshot.interval.ms", Value: forever}))
			if err != nil {
				t.Fatal(err)
			}
			c := startOn(t, l, func(o *Options) { o.Config, o.SnapshotBytes = cfg, 10_000 })
			defer c.Close()
			wait := func(d time.Duration, snaps int) {
				time.Sleep(d)
				synctest.Wait()
				l.mu.Lock()
				defer l.mu.Unlock()
				if l.snaps != snaps {
					t.Fatalf("interval %s: %d snapshots, want %d", forever, l.snaps, snaps)
				}
			}
			create(c, createReq(topic("small", 1, 1)))
			wait(1000*time.Hour, 0)
			if forever != "0" {
				return
			}
			l.mu.Lock()
			l.snapErr = errors.New("no room")
			l.mu.Unlock()
			create(c, createReq(topic("big", 200, 1)))
			wait(0, 0)
			wait(2*time.Hour, 1)
			wait(1000*time.Hour, 1)
		})
	}
}

// Random requests, stops, kills and snapshots: what was answered with success is there, what was refused is not, and a
// replay of the log gives the image that was served.
func TestRandomRequestsAgainstModel(t *testing.T) {
	for seed := range int64(30) {
		rng := rand.New(rand.NewSource(seed))
		l := newMemLog(t)
		c := startOn(t, l, func(o *Options) { o.SnapshotBytes = 3000 })
		topics, configs := map[string]int{}, map[string]string{}
		for step := range 150 {
			name := fmt.Sprint("t", rng.Intn(6))
			_, exists := topics[name]
			switch rng.Intn(8) {
			case 0, 1:
				n := rng.Intn(4)
				ok := create(c, createReq(topic(name, int32(n), 1)))[0] == name+": 0"
				if ok != (!exists && n > 0) {
					t.Fatalf("seed %d step %d: create %s: %v", seed, step, name, ok)
				}
				if ok {
					topics[name] = n
				}
			case 2:
				n := rng.Intn(8)
				ok := partitions(c, partitionsReq(name, int32(n)))[0] == name+": 0"
				if ok != (exists && n > topics[name]) {
					t.Fatalf("seed %d step %d: partitions %s: %v", seed, step, name, ok)
				}
				if ok {
					topics[name] = n
				}
			case 3:
				v := fmt.Sprint(rng.Intn(100))
				if ok := incremental(c, false, set(2, name, "retention.ms", v))[0] == "2 "+name+": 0"; ok != exists {
					t.Fatalf("seed %d step %d: config %s: %v", seed, step, name, ok)
				} else if ok {
					configs[name] = v
				}
			case 4:
				req := kmsg.NewPtrDeleteTopicsRequest()
				req.Topics = []kmsg.DeleteTopicsRequestTopic{{Topic: &name}}
				done := make(chan int16, 1)
				c.DeleteTopics(req, func(r *kmsg.DeleteTopicsResponse) { done <- r.Topics[0].ErrorCode })
				if code := <-done; (code == 0) != exists {
					t.Fatalf("seed %d step %d: delete %s: %d", seed, step, name, code)
				}
				delete(topics, name)
				delete(configs, name)
			case 5:
				if rng.Intn(2) == 0 {
					if err := c.Shutdown(); err != nil {
						t.Fatal(err)
					}
				}
				before := c.Image()
				c.Close()
				replayed, err := replay(l, "c")
				if err != nil {
					t.Fatal(err)
				}
				if got, want := dump(t, replayed), dump(t, before); got != want {
					t.Fatalf("seed %d step %d: replay gives\n%s\nwant\n%s", seed, step, got, want)
				}
				l.restart()
				c = startOn(t, l, func(o *Options) { o.SnapshotBytes = 3000 })
			}
			img := c.Image()
			if img.TopicCount() != len(topics) {
				t.Fatalf("seed %d step %d: %d topics, want %d", seed, step, img.TopicCount(), len(topics))
			}
			for name, n := range topics {
				if x := img.Topic(name); x == nil || len(x.Partitions) != n || img.Config(2, name)["retention.ms"] != configs[name] {
					t.Fatalf("seed %d step %d: %s is %+v with %v, want %d partitions and %q", seed, step, name, x, img.Config(2, name), n, configs[name])
				}
				for _, p := range img.Topic(name).Partitions {
					if p.Leader != 1 {
						t.Fatalf("seed %d step %d: %s-%d has no leader", seed, step, name, p.Index)
					}
				}
			}
		}
		c.Close()
	}
}
