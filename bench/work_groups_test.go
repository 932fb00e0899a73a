package bench

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestOwnedOnce(t *testing.T) {
	for _, c := range []struct {
		name    string
		members [][]owned
		want    string
	}{
		{"all, in parts", [][]owned{{{"a", []int32{0, 2}}, {"b", []int32{0}}}, {}, {{"a", []int32{1}}}}, ""},
		{"one is nobody's", [][]owned{{{"a", []int32{0, 2}}}, {{"a", []int32{1}}}}, "3 of 4 partitions"},
		{"one is two members'", [][]owned{{{"a", []int32{0, 1}}, {"b", []int32{0}}}, {{"a", []int32{1}}}}, "two members"},
		{"one is a member's twice", [][]owned{{{"a", []int32{0, 1, 2, 2}}}}, "two members"},
		{"one too many", [][]owned{{{"a", []int32{0, 1, 2, 3, 4}}}}, "5 of 4"},
		{"nobody is there", nil, "0 of 4"},
	} {
		err := ownedOnce(c.members, 4)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// brought has a workload's groups settle and rebalance.
func brought(t *testing.T, target *Target, w *groupsWork) *groupsWork {
	t.Helper()
	if err := w.Prepare(t.Context(), target, "1"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Clean(t.Context(), target); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	f, err := w.Run(t.Context(), target, time.Second)
	if err != nil || f.Errors > 0 {
		t.Fatalf("%v, %d errors: %s", err, f.Errors, f.Error)
	}
	if err := w.Verify(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	return w
}

func bothProtocols(s Shape) []*groupsWork {
	return []*groupsWork{newGroupsWork("classic", s).(*groupsWork), newConsumerGroupsWork("consumer", s).(*groupsWork)}
}

// Where the target holds the first rebalance back all members are in it, and what comes then is one
// more, whatever the order in which they hear of it.
func TestGroupsRebalanceOnce(t *testing.T) {
	target := startTarget(t, "millrace.durability=os", "group.initial.rebalance.delay.ms=200")
	w := brought(t, target, newGroupsWork("classic", Shape{Connections: 4, Groups: 8, Members: 5, Partitions: 7}).(*groupsWork))
	for _, g := range w.groups {
		for _, m := range g.members {
			if m.generation != 2 {
				t.Errorf("group %s: a member in generation %d, want 2", g.id, m.generation)
			}
		}
	}
}

// A group with more members than partitions has some that own nothing, in either protocol.
func TestGroupsOfMoreMembersThanPartitions(t *testing.T) {
	target := startTarget(t, "millrace.durability=os", "group.initial.rebalance.delay.ms=0")
	for _, w := range bothProtocols(Shape{Connections: 2, Groups: 3, Members: 5, Partitions: 2}) {
		brought(t, target, w)
	}
}

// A group that is not what its members believe does not pass.
func TestGroupsVerifyFindsWhatDiffers(t *testing.T) {
	target := startTarget(t, "millrace.durability=os", "group.initial.rebalance.delay.ms=0")
	for _, w := range bothProtocols(Shape{Groups: 2, Members: 3, Partitions: 3}) {
		brought(t, target, w)
		conn, err := dialCaller(t.Context(), target.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.conn.Close()
		gone := &group{id: w.groups[1].id, members: w.groups[1].members[:1]}
		if err := w.protocol.leave(conn, gone); err != nil {
			t.Fatal(err)
		}
		err = w.Verify(t.Context(), target)
		if err == nil || !strings.Contains(err.Error(), w.groups[1].id) {
			t.Errorf("%v after a member of %s has left", err, w.groups[1].id)
		}
	}
}

// An offset that was acknowledged and is not there, or one that nobody has committed, is found out.
func TestCommitsVerifyFindsWhatDiffers(t *testing.T) {
	target := startTarget(t, "millrace.durability=os", "group.initial.rebalance.delay.ms=0")
	w := newCommitsWork("commits", Shape{Connections: 2, Groups: 3, Members: 2}).(*commitsWork)
	if err := w.Prepare(t.Context(), target, "1"); err != nil {
		t.Fatal(err)
	}
	if f, err := w.Run(t.Context(), target, 50*time.Millisecond); err != nil || f.Errors > 0 {
		t.Fatalf("%v, %d errors: %s", err, f.Errors, f.Error)
	}
	if err := w.Verify(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	c := &w.sources[1].commits[1]
	last := c.last
	for _, other := range []int64{last + 1, last - 1, -1} {
		c.last = other
		if err := w.Verify(t.Context(), target); err == nil || !strings.Contains(err.Error(), c.group.id) {
			t.Errorf("%d where %d is committed: %v", other, last, err)
		}
	}
	c.last = last
	if err := w.Verify(t.Context(), target); err != nil {
		t.Error(err)
	}
}

// What carries no batches has a cost for its requests, and none for bytes.
func TestCostWithoutBytes(t *testing.T) {
	f := Figure{Requests: 2000, ServerCPU: 4 * time.Second}
	if perRequest, perGB := cpuOf(true)(f), cpuOf(false)(f); perRequest != 2000 || !math.IsNaN(perGB) {
		t.Errorf("%v s for a million requests, want 2000; %v for 10⁹ bytes", perRequest, perGB)
	}
}
