package broker

import (
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/vfs"
	"github.com/millrace-project/millrace/wire"
)

// Groups and transactional ids may be named again, as with Kafka, but not so often that a small request takes all memory.

// againAndAgain names a large group or id over and over, and between that another.
func againAndAgain() (names []string) {
	for range 1000 {
		names = append(names, "large")
	}
	names[10] = "other"
	return append(names, "new", "large", "other")
}

// toldAgain holds the answers to againAndAgain against what is to be told. size is that of the large one alone.
func toldAgain[T any](t *testing.T, answers []T, size int, code func(T) (string, wire.Code)) {
	t.Helper()
	names := againAndAgain()
	if len(answers) != len(names) {
		t.Fatalf("%d answers to %d groups", len(answers), len(names))
	}
	told := 0
	for i, a := range answers {
		name, got := code(a)
		if name != names[i] {
			t.Fatalf("answer %d is for %s, want %s", i, name, names[i])
		}
		first := name == "new" || i == 0 || i == 10
		switch {
		case got == wire.InvalidRequest && !first:
		case got == wire.InvalidRequest:
			t.Errorf("answer %d: what is named first is refused", i)
		case name == "large":
			if told++; !reflect.DeepEqual(a, answers[0]) {
				t.Fatalf("answer %d is another than the first", i)
			}
		}
	}
	if least := maxAgainBytes/size + 1; told < least || told > least+1 {
		t.Errorf("told %d times of %d bytes, want %d", told, size, least)
	}
}

func TestDescribeGroupsOfTheSameOverAndOver(t *testing.T) {
	n := groupNode(t, vfs.NewMem())
	p := n.pipe()
	for _, group := range []string{"large", "other", "new"} {
		findGroup(p, group)
		joined := p.joinNew(group)
		assignment := ""
		if group == "large" {
			assignment = strings.Repeat("a", 100_000)
		}
		if r := askPipe[*kmsg.SyncGroupResponse](p, 1, syncRequest(group, joined, assignment)); r.ErrorCode != 0 {
			t.Fatal(wire.Code(r.ErrorCode))
		}
	}
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.Groups = []string{"large"}
	size := len(askPipe[*kmsg.DescribeGroupsResponse](p, 6, req).AppendTo(nil))
	req.Groups = againAndAgain()
	toldAgain(t, askPipe[*kmsg.DescribeGroupsResponse](p, 6, req).Groups, size, func(g kmsg.DescribeGroupsResponseGroup) (string, wire.Code) {
		return g.Group, wire.Code(g.ErrorCode)
	})
}

func TestConsumerGroupDescribeOfTheSameOverAndOver(t *testing.T) {
	n := groupNode(t, vfs.NewMem())
	n.mustCreate("t", 1)
	p := n.pipe()
	for _, group := range []string{"large", "other", "new"} {
		findGroup(p, group)
		beat := beatRequest(group, modernMember, 0)
		for i := 0; group == "large" && i < 400; i++ {
			beat.SubscribedTopicNames = append(beat.SubscribedTopicNames, fmt.Sprint(strings.Repeat("n", 200), i))
		}
		if r := askPipe[*kmsg.ConsumerGroupHeartbeatResponse](p, 1, beat); r.ErrorCode != 0 {
			t.Fatal(wire.Code(r.ErrorCode))
		}
	}
	req := kmsg.NewPtrConsumerGroupDescribeRequest()
	req.Groups = []string{"large"}
	size := len(askPipe[*kmsg.ConsumerGroupDescribeResponse](p, 1, req).AppendTo(nil))
	req.Groups = againAndAgain()
	toldAgain(t, askPipe[*kmsg.ConsumerGroupDescribeResponse](p, 1, req).Groups, size, func(g kmsg.ConsumerGroupDescribeResponseGroup) (string, wire.Code) {
		return g.Group, wire.Code(g.ErrorCode)
	})
}

func TestOffsetFetchOfTheSameOverAndOver(t *testing.T) {
	n := groupNode(t, vfs.NewMem())
	n.mustCreate("t", 25)
	p := n.pipe()
	for _, group := range []string{"large", "other", "new"} {
		findGroup(p, group)
		p.commit(group, "t", at{0, 7, ""})
	}
	for i := range int32(25) {
		p.commit("large", "t", at{i, 7, strings.Repeat("m", 4000)})
	}
	code := func(g kmsg.OffsetFetchResponseGroup) (string, wire.Code) { return g.Group, wire.Code(g.ErrorCode) }
	for _, version := range []int16{8, 10} {
		req := kmsg.NewPtrOffsetFetchRequest()
		req.Groups = append(req.Groups, fetchGroup("large", ""))
		size := len(askPipe[*kmsg.OffsetFetchResponse](p, version, req).AppendTo(nil))
		req.Groups = nil
		for _, name := range againAndAgain() {
			req.Groups = append(req.Groups, fetchGroup(name, ""))
		}
		toldAgain(t, askPipe[*kmsg.OffsetFetchResponse](p, version, req).Groups, size, code)
	}
	// By partitions it is another question each time; all of it by another member is refused.
	req := kmsg.NewPtrOffsetFetchRequest()
	member := "m"
	for i := range int32(3) {
		req.Groups = append(req.Groups, fetchGroup("large", "t", i, i+1), fetchGroup("large", ""))
		req.Groups[2*i+1].MemberEpoch = max(i-1, 0)
	}
	req.Groups = append(req.Groups, fetchGroup("large", ""))
	req.Groups[6].MemberID = &member
	got := askPipe[*kmsg.OffsetFetchResponse](p, 9, req).Groups
	for i, want := range []string{"0 0", "0 0", "0 1", "0 0", "0 2", "42 -1", "42 -1"} {
		first := int32(-1)
		if len(got[i].Topics) > 0 {
			first = got[i].Topics[0].Partitions[0].Partition
		}
		if text := fmt.Sprint(got[i].ErrorCode, first); text != want {
			t.Errorf("answer %d: %s, want %s", i, text, want)
		}
	}
}

func TestDescribeTransactionsOfTheSameOverAndOver(t *testing.T) {
	n := startOn(t, vfs.NewMem())
	n.mustCreate("t", 5000)
	all := kmsg.AddPartitionsToTxnRequestTopic{Topic: "t"}
	for i := range int32(5000) {
		all.Partitions = append(all.Partitions, i)
	}
	n.txnProducer("other", 9)
	n.txnProducer("new", 9)
	large := n.txnProducer("large", 9)
	add := kmsg.NewPtrAddPartitionsToTxnRequest()
	add.TransactionalID, add.ProducerID, add.ProducerEpoch = large.id, large.pid, large.epoch
	add.Topics = append(add.Topics, all)
	large.patient(func() wire.Code {
		return wire.Code(askNode[*kmsg.AddPartitionsToTxnResponse](n, add, 3).Topics[0].Partitions[0].ErrorCode)
	})
	p := n.pipe()
	req := kmsg.NewPtrDescribeTransactionsRequest()
	req.TransactionalIDs = []string{"large"}
	size := len(askPipe[*kmsg.DescribeTransactionsResponse](p, 0, req).AppendTo(nil))
	req.TransactionalIDs = againAndAgain()
	toldAgain(t, askPipe[*kmsg.DescribeTransactionsResponse](p, 0, req).TransactionStates, size,
		func(s kmsg.DescribeTransactionsResponseTransactionState) (string, wire.Code) {
			return s.TransactionalID, wire.Code(s.ErrorCode)
		})
}

// A key of one byte takes a hundred times as much to be answered: of those given again some are, and the others left out.
func TestFindCoordinatorOfTheSameOverAndOver(t *testing.T) {
	n := groupNode(t, vfs.NewMem())
	p := n.pipe()
	for version := int16(4); version <= 6; version++ {
		req := kmsg.NewPtrFindCoordinatorRequest()
		req.CoordinatorKeys = make([]string, maxControlFrame-1000)
		req.CoordinatorKeys[0], req.CoordinatorKeys[2] = "first", "first"
		req.CoordinatorKeys[len(req.CoordinatorKeys)-1] = "last"
		frame := p.frame(req, version)
		p.sent = append(p.sent, req)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		p.write(frame)
		got := p.receive().(*kmsg.FindCoordinatorResponse).Coordinators
		runtime.ReadMemStats(&after)
		if mib := (after.TotalAlloc - before.TotalAlloc) >> 20; mib > 1500 {
			t.Errorf("version %d: the answer took %d MiB", version, mib)
		}
		if len(got) != 3+maxKeysAgain {
			t.Fatalf("version %d: %d answers", version, len(got))
		}
		var keys []string
		for _, co := range append(got[:4:4], got[len(got)-1]) {
			keys = append(keys, co.Key)
		}
		if want := []string{"first", "", "first", "", "last"}; !reflect.DeepEqual(keys, want) {
			t.Errorf("version %d: answers to %q, want %q", version, keys, want)
		}
	}
}
