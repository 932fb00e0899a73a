package clients

import (
	"fmt"
	"maps"
	"slices"
	"sync"
)

// GroupConsumer is a client library's consumer as a member of a group, set up in one way.
type GroupConsumer struct {
	Name   string
	Silent bool // it does not tell which partitions it has
	Late   bool // it tells of lost partitions too late at times: the broker's own description counts alone
	Static bool // it can be a static member
	// Consumer says that the members use the consumer protocol (KIP-848), else the classic one.
	Consumer bool
	Join     func(Membership) (Member, error)
}

// Membership is what one member joins with, and where it tells what it does.
type Membership struct {
	Addr, Group, Topic string
	Name               string // in Watch; the instance id of a static member
	Static             bool
	Watch              *Watch
}

// Member is one running member of a group: it reads all records of its partitions and commits
// what it has read at the latest when it loses them.
type Member interface {
	// Close stops reading, commits, and leaves the group, which a static member does not.
	Close() error
}

// Watch sees what the members of one group are given and what they read. Its methods may be called
// from any goroutine.
type Watch struct {
	mu struct {
		sync.Mutex
		owner   map[int32]string
		changes map[string]int             // member to assignments and revocations
		seen    map[int32]map[int64]string // partition and offset to who read it last
		repeats int
		wrong   []string
	}
}

// NewWatch returns a watch that has seen nothing.
func NewWatch() *Watch {
	w := new(Watch)
	w.mu.owner, w.mu.changes, w.mu.seen = map[int32]string{}, map[string]int{}, map[int32]map[int64]string{}
	return w
}

// Assigned is called by a member after it got partitions, and Revoked before it gives them up.
func (w *Watch) Assigned(member string, partitions ...int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(partitions) == 0 {
		return
	}
	w.mu.changes[member]++
	for _, p := range partitions {
		if has, ok := w.mu.owner[p]; ok && has != member {
			w.mu.wrong = append(w.mu.wrong, fmt.Sprintf("partition %d was given to %s while %s had it", p, member, has))
		}
		w.mu.owner[p] = member
	}
}

// Revoked is called when the member gives the partitions up.
func (w *Watch) Revoked(member string, partitions ...int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(partitions) > 0 {
		w.mu.changes[member]++
	}
	for _, p := range partitions {
		if w.mu.owner[p] == member {
			delete(w.mu.owner, p)
		}
	}
}

// Closed is called when the member reads no more.
func (w *Watch) Closed(member string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.mu.owner, func(_ int32, has string) bool { return has == member })
}

// Record is called for each record that a member reads.
func (w *Watch) Record(member string, partition int32, offset int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.seen[partition] == nil {
		w.mu.seen[partition] = map[int64]string{}
	}
	if _, again := w.mu.seen[partition][offset]; again {
		w.mu.repeats++
	}
	w.mu.seen[partition][offset] = member
}

// Owned returns the partitions of a member, in order.
func (w *Watch) Owned(member string) []int32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []int32
	for p, has := range w.mu.owner {
		if has == member {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

// Changes returns how often a member was given partitions or lost some.
func (w *Watch) Changes(member string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.changes[member]
}

// ReadBy returns how many partitions a member was the last to read from.
func (w *Watch) ReadBy(member string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, offsets := range w.mu.seen {
		var last int64 = -1
		for off := range offsets {
			last = max(last, off)
		}
		if offsets[last] == member {
			n++
		}
	}
	return n
}

// Unread returns how many of the offsets in [lo, hi) of a partition nobody read, and the first one.
func (w *Watch) Unread(partition int32, lo, hi int64) (n int, first int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for off := hi - 1; off >= lo; off-- {
		if _, ok := w.mu.seen[partition][off]; !ok {
			n, first = n+1, off
		}
	}
	return n, first
}

// Least returns the least offset of a partition that was read.
func (w *Watch) Least(partition int32) (least int64, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for off := range w.mu.seen[partition] {
		if !ok || off < least {
			least, ok = off, true
		}
	}
	return least, ok
}

// Wrong returns what must not have been, and how many records were read more than once.
func (w *Watch) Wrong() (wrong []string, repeats int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.mu.wrong), w.mu.repeats
}
