package groups

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// quickLog keeps nothing; what is appended is committed at once. Replay waits for load and then fails with err.
type quickLog struct {
	end  int64
	load chan struct{}
	err  error
}

func (l *quickLog) Append(_ int32, _ int64, decisions [][]Record) (int64, error) {
	base := l.end
	for _, d := range decisions {
		l.end += int64(len(d))
	}
	return base, nil
}
func (l *quickLog) Committed() int64   { return 1 << 62 }
func (l *quickLog) OnCommitted(func()) {}
func (l *quickLog) Err() error         { return nil }
func (l *quickLog) Replay(fn func(Entry) error) (int64, error) {
	if l.load != nil {
		<-l.load
	}
	return 0, l.err
}

func quickCoordinator(partitions int32) *Coordinator {
	img := imageOf("t", "orders")
	var n atomic.Uint64
	c := New(Options{
		Config: simConfig(), Image: func() *metadata.Image { return img }, NowMs: coordinator.NowMs,
		NewID: func() string {
			return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint64(make([]byte, 8), n.Add(1)))
		},
	})
	c.SetPartitions(partitions)
	return c
}

// codes asks every API for the group and gives the codes of the answers.
func codes(c *Coordinator, group string) map[string]wire.Code {
	var mu sync.Mutex
	out := map[string]wire.Code{}
	put := func(api string) func(int16) {
		return func(code int16) {
			mu.Lock()
			defer mu.Unlock()
			if _, twice := out[api]; twice {
				panic(api + " is answered twice")
			}
			out[api] = wire.Code(code)
		}
	}
	who := Client{ID: "c", Host: "/127.0.0.1"}
	join := kmsg.NewPtrJoinGroupRequest()
	join.Version, join.Group, join.SessionTimeoutMillis, join.ProtocolType = 9, group, 10_000, "consumer"
	c.JoinGroup(who, join, func(r *kmsg.JoinGroupResponse) { put("JoinGroup")(r.ErrorCode) })
	syn := kmsg.NewPtrSyncGroupRequest()
	syn.Version, syn.Group = 5, group
	c.SyncGroup(who, syn, func(r *kmsg.SyncGroupResponse) { put("SyncGroup")(r.ErrorCode) })
	beat := kmsg.NewPtrHeartbeatRequest()
	beat.Version, beat.Group = 4, group
	c.Heartbeat(who, beat, func(r *kmsg.HeartbeatResponse) { put("Heartbeat")(r.ErrorCode) })
	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Version, leave.Group = 5, group
	c.LeaveGroup(who, leave, func(r *kmsg.LeaveGroupResponse) { put("LeaveGroup")(r.ErrorCode) })
	describe := kmsg.NewPtrDescribeGroupsRequest()
	describe.Version, describe.Groups = 6, []string{group}
	c.DescribeGroups(who, describe, func(r *kmsg.DescribeGroupsResponse) { put("DescribeGroups")(r.Groups[0].ErrorCode) })
	list := kmsg.NewPtrListGroupsRequest()
	list.Version = 5
	c.ListGroups(who, list, func(r *kmsg.ListGroupsResponse) { put("ListGroups")(r.ErrorCode) })
	del := kmsg.NewPtrDeleteGroupsRequest()
	del.Version, del.Groups = 2, []string{group}
	c.DeleteGroups(who, del, func(r *kmsg.DeleteGroupsResponse) { put("DeleteGroups")(r.Groups[0].ErrorCode) })
	commit := kmsg.NewPtrOffsetCommitRequest()
	commit.Version, commit.Group, commit.Generation = 9, group, -1
	commit.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "t", Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Partition: 1, Offset: 7}}}}
	c.OffsetCommit(who, commit, func(r *kmsg.OffsetCommitResponse) { put("OffsetCommit")(r.Topics[0].Partitions[0].ErrorCode) })
	fetch := kmsg.NewPtrOffsetFetchRequest()
	fetch.Version, fetch.Groups = 8, []kmsg.OffsetFetchRequestGroup{{Group: group, MemberEpoch: -1}}
	c.OffsetFetch(who, fetch, func(r *kmsg.OffsetFetchResponse) { put("OffsetFetch")(r.Groups[0].ErrorCode) })
	drop := kmsg.NewPtrOffsetDeleteRequest()
	drop.Group = group
	c.OffsetDelete(who, drop, func(r *kmsg.OffsetDeleteResponse) { put("OffsetDelete")(r.ErrorCode) })
	txn := kmsg.NewPtrTxnOffsetCommitRequest()
	txn.Version, txn.Group, txn.Generation = 3, group, -1
	txn.Topics = []kmsg.TxnOffsetCommitRequestTopic{{Topic: "t", Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{{Partition: 1}}}}
	c.TxnOffsetCommit(who, txn, 0, func(r *kmsg.TxnOffsetCommitResponse) { put("TxnOffsetCommit")(r.Topics[0].Partitions[0].ErrorCode) })
	consumer := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	consumer.Version, consumer.Group, consumer.MemberID, consumer.RebalanceTimeoutMillis = 1, group, "m", 1000
	consumer.SubscribedTopicNames, consumer.Topics = []string{}, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	c.ConsumerGroupHeartbeat(who, consumer, func(r *kmsg.ConsumerGroupHeartbeatResponse) { put("ConsumerGroupHeartbeat")(r.ErrorCode) })
	look := kmsg.NewPtrConsumerGroupDescribeRequest()
	look.Version, look.Groups = 1, []string{group}
	c.ConsumerGroupDescribe(who, look, func(r *kmsg.ConsumerGroupDescribeResponse) { put("ConsumerGroupDescribe")(r.Groups[0].ErrorCode) })
	synctest.Wait()
	mu.Lock()
	defer mu.Unlock()
	return maps.Clone(out)
}

const groupAPIs = 13

func expectCodes(t *testing.T, what string, got map[string]wire.Code, all wire.Code, but map[string]wire.Code) {
	t.Helper()
	if len(got) != groupAPIs {
		t.Errorf("%s: %d of %d APIs answer", what, len(got), groupAPIs)
	}
	for api, code := range got {
		want, ok := but[api]
		if !ok {
			want = all
		}
		if code != want {
			t.Errorf("%s: %s is answered %v, want %v", what, api, code, want)
		}
	}
}

func TestWhoIsNotTheCoordinatorSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := quickCoordinator(0)
		ofAll := map[string]wire.Code{"ListGroups": wire.None}
		expectCodes(t, "without a topic", codes(c, "g"), wire.NotCoordinator, ofAll)
		c.SetPartitions(1)
		expectCodes(t, "not led", codes(c, "g"), wire.NotCoordinator, ofAll)

		log := &quickLog{load: make(chan struct{})}
		c.Lead(0, 1, log)
		expectCodes(t, "loading", codes(c, "g"), wire.CoordinatorLoadInProgress, map[string]wire.Code{"Heartbeat": wire.None})
		close(log.load)
		synctest.Wait()
		if code := codes(c, "g")["OffsetCommit"]; code != wire.None {
			t.Errorf("a commit to who leads is answered %v", code)
		}
		empty := codes(c, "")
		for _, api := range []string{"JoinGroup", "SyncGroup", "Heartbeat", "LeaveGroup", "OffsetDelete", "TxnOffsetCommit", "ConsumerGroupDescribe"} {
			if empty[api] != wire.InvalidGroupID {
				t.Errorf("%s of the group without a name is answered %v", api, empty[api])
			}
		}
		if empty["OffsetCommit"] != wire.None || empty["OffsetFetch"] != wire.None {
			t.Errorf("the group without a name holds offsets, but: %v", empty)
		}
		c.Resign(0)
		expectCodes(t, "resigned", codes(c, "g"), wire.NotCoordinator, ofAll)

		c.Lead(0, 2, &quickLog{err: errors.New("broken")})
		synctest.Wait()
		expectCodes(t, "failed to load", codes(c, "g"), wire.NotCoordinator, ofAll)
		c.Lead(0, 3, &quickLog{})
		synctest.Wait()
		if code := codes(c, "h")["OffsetCommit"]; code != wire.None {
			t.Errorf("after a failed load a newer leader answers %v", code)
		}
		c.Close()
		expectCodes(t, "closed", codes(c, "g"), wire.CoordinatorNotAvailable, nil)
	})
}

// A member that waits for a rebalance is told when the coordinator goes away.
func TestResignAnswersWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := quickCoordinator(1)
		defer c.Close()
		c.Lead(0, 1, &quickLog{})
		synctest.Wait()
		var got atomic.Int32
		got.Store(-99)
		join := classicJoin("g", "")
		join.Version = 3 // needs no member id
		c.JoinGroup(Client{}, join, func(r *kmsg.JoinGroupResponse) { got.Store(int32(r.ErrorCode)) })
		synctest.Wait()
		if code := got.Load(); code != -99 {
			t.Fatalf("answered %d before the initial delay", code)
		}
		c.Resign(0)
		synctest.Wait()
		if code := wire.Code(got.Load()); code != wire.NotCoordinator {
			t.Errorf("who waits is told %v", code)
		}
	})
}

// failingLog goes offline when told, or refuses what is appended.
type failingLog struct {
	mu      sync.Mutex
	end     int64
	entries []Entry // of Replay
	refuse  error   // of every append
	err     error
	notify  func()
}

func (l *failingLog) Append(_ int32, _ int64, batches [][]Record) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refuse != nil {
		return 0, l.refuse
	}
	base := l.end
	for _, b := range batches {
		l.end += int64(len(b))
	}
	return base, nil
}
func (l *failingLog) Committed() int64      { return 1 << 62 }
func (l *failingLog) OnCommitted(fn func()) { l.notify = fn }
func (l *failingLog) Err() error            { l.mu.Lock(); defer l.mu.Unlock(); return l.err }
func (l *failingLog) Replay(fn func(Entry) error) (int64, error) {
	for _, e := range l.entries {
		if err := fn(e); err != nil {
			return 0, err
		}
	}
	l.end = int64(len(l.entries))
	return l.end, nil
}

// set has appends refused, and with err the log offline.
func (l *failingLog) set(refuse, err error) {
	l.mu.Lock()
	l.refuse, l.err = refuse, err
	l.mu.Unlock()
	l.notify()
}

// Members that wait for each other are told when the log has failed: none of them would ask before that. So is who comes
// later.
func TestFailedLogAnswersWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := quickCoordinator(1)
		defer c.Close()
		log := &failingLog{}
		c.Lead(0, 1, log)
		synctest.Wait()
		var leader, follower, alone kmsg.JoinGroupResponse
		var synced kmsg.SyncGroupResponse
		join := func(group string, out *kmsg.JoinGroupResponse) {
			req := classicJoin(group, "")
			req.Version = 3 // needs no member id
			out.ErrorCode = -99
			c.JoinGroup(Client{}, req, func(r *kmsg.JoinGroupResponse) { *out = *r })
		}
		join("g", &leader)
		join("g", &follower)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if follower.ErrorCode != 0 || follower.LeaderID == follower.MemberID {
			t.Fatalf("%+v", follower)
		}
		syn := kmsg.NewPtrSyncGroupRequest()
		syn.Version, syn.Group, syn.MemberID, syn.Generation = 3, "g", follower.MemberID, follower.Generation
		synced.ErrorCode = -99
		c.SyncGroup(Client{}, syn, func(r *kmsg.SyncGroupResponse) { synced = *r })
		join("h", &alone)
		synctest.Wait()
		if alone.ErrorCode != -99 || synced.ErrorCode != -99 {
			t.Fatalf("answered %d and %d too early", alone.ErrorCode, synced.ErrorCode)
		}
		log.set(nil, errors.New("a failed sync"))
		synctest.Wait()
		if code := wire.Code(alone.ErrorCode); code != wire.NotCoordinator {
			t.Errorf("who has joined is told %v", code)
		}
		if code := wire.Code(synced.ErrorCode); code != wire.NotCoordinator {
			t.Errorf("who waits for the leader's assignment is told %v", code)
		}
		expectCodes(t, "offline", codes(c, "g"), wire.NotCoordinator, map[string]wire.Code{"ListGroups": wire.None})
	})
}

// The offsets of a topic that was deleted go, though at first there is no room for the tombstones, and count no more in the
// meantime: for the topic that was made again by the name only what was committed since.
func TestTombstonesOfADeletedTopicAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := quickCoordinator(1)
		defer c.Close()
		var img atomic.Pointer[metadata.Image]
		img.Store(imageOf("a", "orders"))
		c.o.Image = img.Load
		log := &failingLog{}
		for p := range int32(3) { // as Kafka writes them, without the topic's id
			r := offsetRecord("g", "a", p, records.OffsetCommitValue{Offset: 7})
			log.entries = append(log.entries, Entry{Offset: int64(p), Key: r.Key, Value: r.Value, ProducerID: -1})
		}
		c.Lead(0, 1, log)
		synctest.Wait()
		expectOffsets := func(what string, all, named string, found, held int) {
			t.Helper()
			s, err := c.shards.At(0)
			if err != nil {
				t.Fatal(err)
			}
			submit(s, "", func(m *Machine) decision {
				expect(t, what, fetch(m, "g", false), all)
				expect(t, what+", by name", fetch(m, "g", false, "a 0", "a 1", "a 2"), named)
				if m.offsets.n != held {
					t.Errorf("%s: %d offsets in memory", what, m.offsets.n)
				}
				return decision{}
			}, func(err error) { t.Error(err) })
			survey, err := c.Survey(t.Context())
			n := 0
			if err == nil {
				err = survey.Offsets(t.Context(), func(_ string, offsets []CommittedOffset) { n += len(offsets) })
			}
			if err != nil || n != found {
				t.Errorf("%s: a survey finds %d offsets, %v", what, n, err)
			}
		}
		expectOffsets("loaded", "a 0 7, a 1 7, a 2 7", "a 0 7, a 1 7, a 2 7", 3, 3)
		log.set(errors.New("no space"), nil)
		img.Store(madeAgain(img.Load(), "a", [16]byte{1}))
		c.TopicsDeleted([]string{"a"})
		time.Sleep(3200 * time.Millisecond)
		expectOffsets("refused", "", "a 0 -1, a 1 -1, a 2 -1", 0, 3)
		log.set(nil, nil)
		c.OffsetCommit(Client{}, commitRequest(9, "g", "a 1 1"), func(*kmsg.OffsetCommitResponse) {})
		synctest.Wait()
		expectOffsets("with room again", "a 1 1", "a 0 -1, a 1 1, a 2 -1", 1, 3)
		time.Sleep(time.Second)
		expectOffsets("tried again", "a 1 1", "a 0 -1, a 1 1, a 2 -1", 1, 1)
	})
}

// unreadLog cannot be read the first time.
type unreadLog struct {
	failingLog
	tried bool
}

func (l *unreadLog) Replay(fn func(Entry) error) (int64, error) {
	if !l.tried {
		l.tried = true
		return 0, coordinator.ErrPassing
	}
	return l.failingLog.Replay(fn)
}

// A topic that is deleted and made again before a second try to load is another: what is committed by its name alone was so
// for the first.
func TestTopicMadeAgainBetweenTriesToLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := quickCoordinator(1)
		defer c.Close()
		var img atomic.Pointer[metadata.Image]
		img.Store(imageOf("a"))
		c.o.Image = img.Load
		log := &unreadLog{}
		r := offsetRecord("g", "a", 0, records.OffsetCommitValue{Offset: 7})
		log.entries = []Entry{{Key: r.Key, Value: r.Value, ProducerID: -1}}
		c.Lead(0, 1, log)
		synctest.Wait()
		img.Store(madeAgain(img.Load(), "a", [16]byte{1}))
		c.TopicsDeleted([]string{"a"})
		time.Sleep(time.Second)
		synctest.Wait()
		s, err := c.shards.At(0)
		if err != nil {
			t.Fatal(err)
		}
		submit(s, "", func(m *Machine) decision {
			expect(t, "the new topic's", fetch(m, "g", false, "a 0"), "a 0 -1")
			return decision{}
		}, func(err error) { t.Error(err) })
		synctest.Wait()
	})
}

// stalledLog takes records and commits none.
type stalledLog struct{ quickLog }

func (l *stalledLog) Committed() int64 { return 0 }

// A marker that was taken need not be written again because records before it are not committed in time.
func TestMarkerIsTakenThoughTheLogStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := quickCoordinator(1)
		defer c.Close()
		c.Lead(0, 1, &stalledLog{})
		synctest.Wait()
		commitOne(c, "g")
		if err := answered(func(done func(error)) { c.EndTransaction(0, Producer{ID: 1}, true, done) }); err != nil {
			t.Error(err)
		}
		c.Resign(0)
		if err := answered(func(done func(error)) { c.EndTransaction(0, Producer{ID: 1}, true, done) }); err == nil {
			t.Error("who is no coordinator takes a marker")
		}
	})
}

// A topic's offsets go with it while as many requests wait as may.
func TestTopicsDeletedWhileTheQueueIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := quickCoordinator(1)
		defer c.Close()
		var img atomic.Pointer[metadata.Image]
		img.Store(c.o.Image())
		c.o.Image = img.Load
		c.Lead(0, 1, &stalledLog{})
		synctest.Wait()
		var full atomic.Int32
		for i := range 10_001 {
			c.OffsetCommit(Client{}, commitOf(fmt.Sprint("g", i)), func(r *kmsg.OffsetCommitResponse) {
				if wire.Code(r.Topics[0].Partitions[0].ErrorCode) == wire.CoordinatorNotAvailable {
					full.Add(1)
				}
			})
		}
		img.Store(imageOf("t"))
		c.TopicsDeleted([]string{"orders"})
		synctest.Wait()
		if n := full.Load(); n != 1 {
			t.Fatalf("%d commits refused", n)
		}
		time.Sleep(6 * time.Second)
		s, _ := c.shards.At(0)
		submit(s, "", func(m *Machine) decision {
			if m.offsets.n != 0 {
				t.Errorf("%d offsets of a topic that was deleted", m.offsets.n)
			}
			return decision{}
		}, func(err error) { t.Error(err) })
		synctest.Wait()
	})
}

func classicJoin(group, member string) *kmsg.JoinGroupRequest {
	req := kmsg.NewPtrJoinGroupRequest()
	req.Version, req.Group, req.MemberID = 9, group, member
	req.SessionTimeoutMillis, req.RebalanceTimeoutMillis, req.ProtocolType = 45_000, 60_000, "consumer"
	meta := kmsg.NewConsumerMemberMetadata()
	meta.Topics = []string{"orders"}
	p := kmsg.NewJoinGroupRequestProtocol()
	p.Name, p.Metadata = "range", meta.AppendTo(nil)
	req.Protocols = []kmsg.JoinGroupRequestProtocol{p}
	return req
}

// answered gives the answer of a request.
func answered[R any](ask func(done func(R))) R {
	ch := make(chan R, 1)
	ask(func(r R) { ch <- r })
	return <-ch
}

// BenchmarkIdleGroup tells what a group costs that nobody asks about: no goroutine, and memory. Empty groups have one
// committed offset; the others have ten members that are subscribed to one topic and sent their last heartbeat just now.
func BenchmarkIdleGroup(b *testing.B) {
	b.Run("empty", func(b *testing.B) { benchmarkIdle(b, 20_000, func(c *Coordinator, id string) { commitOne(c, id) }) })
	b.Run("classic-10-members", func(b *testing.B) { benchmarkIdle(b, 1000, joinTenClassic) })
	b.Run("consumer-10-members", func(b *testing.B) { benchmarkIdle(b, 1000, joinTenConsumers) })
}

func benchmarkIdle(b *testing.B, groups int, fill func(c *Coordinator, id string)) {
	for range b.N {
		c := quickCoordinator(50)
		c.o.Config.InitialRebalanceDelayMs = 300 // all ten join within it
		for p := range int32(50) {
			c.Lead(p, 1, &quickLog{})
		}
		for loaded := false; !loaded; runtime.Gosched() {
			loaded = true
			for _, s := range c.shards.All() {
				loaded = loaded && s.Answers()
			}
		}
		before, goroutines := heapInUse(), runtime.NumGoroutine()
		var fills sync.WaitGroup
		for part := range 100 {
			fills.Go(func() {
				for i := part; i < groups; i += 100 {
					fill(c, fmt.Sprintf("group-%06d", i))
				}
			})
		}
		fills.Wait()
		time.Sleep(100 * time.Millisecond) // the loops end
		more := runtime.NumGoroutine() - goroutines
		b.ReportMetric(float64(heapInUse()-before)/float64(groups), "bytes/group")
		b.ReportMetric(float64(more), "goroutines")
		c.Close()
	}
}

func heapInUse() uint64 {
	var ms runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&ms)
	return ms.HeapAlloc
}

func commitOne(c *Coordinator, id string) {
	answered(func(done func(*kmsg.OffsetCommitResponse)) { c.OffsetCommit(Client{}, commitOf(id), done) })
}

func commitOf(id string) *kmsg.OffsetCommitRequest {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Version, req.Group, req.Generation = 9, id, -1
	req.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "orders", Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 7}}}}
	return req
}

func joinTenClassic(c *Coordinator, id string) {
	who := Client{ID: "consumer-1", Host: "/127.0.0.1"}
	var joins [10]chan *kmsg.JoinGroupResponse
	join := func(i int, member string) {
		joins[i] = make(chan *kmsg.JoinGroupResponse, 1)
		c.JoinGroup(who, classicJoin(id, member), func(r *kmsg.JoinGroupResponse) { joins[i] <- r })
	}
	var members [10]string
	for i := range members { // ids first: who has one is waited for
		given := answered(func(done func(*kmsg.JoinGroupResponse)) { c.JoinGroup(who, classicJoin(id, ""), done) })
		members[i] = given.MemberID
	}
	for i := range members {
		join(i, members[i])
	}
	for i := range joins {
		joined := <-joins[i]
		syn := kmsg.NewPtrSyncGroupRequest()
		syn.Version, syn.Group, syn.MemberID, syn.Generation = 3, id, members[i], joined.Generation
		for _, m := range joined.Members {
			a := kmsg.NewSyncGroupRequestGroupAssignment()
			a.MemberID, a.MemberAssignment = m.MemberID, encodeAssigned(map[topicPartition]bool{{"orders", int32(len(syn.GroupAssignment))}: true})
			syn.GroupAssignment = append(syn.GroupAssignment, a)
		}
		c.SyncGroup(who, syn, func(r *kmsg.SyncGroupResponse) {
			if r.ErrorCode != 0 {
				panic(wire.Code(r.ErrorCode).String())
			}
		})
	}
}

func joinTenConsumers(c *Coordinator, id string) {
	for i := range 10 {
		req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
		req.Version, req.Group, req.MemberID, req.RebalanceTimeoutMillis = 1, id, fmt.Sprintf("%s-member-%02d", id, i), 60_000
		req.SubscribedTopicNames, req.Topics = []string{"orders"}, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
		answered(func(done func(*kmsg.ConsumerGroupHeartbeatResponse)) {
			c.ConsumerGroupHeartbeat(Client{ID: "consumer-1", Host: "/127.0.0.1"}, req, done)
		})
	}
}
