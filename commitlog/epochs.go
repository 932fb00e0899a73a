package commitlog

import "slices"

// epochEntry says that a leader epoch begins at an offset.
type epochEntry struct {
	epoch int32
	start int64
}

// epochCache is a log's leader epochs: entries strictly increasing in epoch and in
// start offset (KIP-101, KIP-279). It is pure; its owner locks it and writes it
// down (encodeEpochs).
type epochCache struct {
	entries []epochEntry
}

func newEpochCache() *epochCache { return &epochCache{} }

// assign notes that epoch begins at start and reports whether that was news.
// Entries of the same or a later epoch, or at the same offset or beyond, are
// removed first, as Kafka does. A negative epoch or offset is no news.
func (c *epochCache) assign(epoch int32, start int64) (changed bool) {
	if epoch < 0 || start < 0 {
		return false
	}
	n := len(c.entries)
	if n > 0 && epoch == c.entries[n-1].epoch && start >= c.entries[n-1].start {
		return false
	}
	for n > 0 && (c.entries[n-1].epoch >= epoch || c.entries[n-1].start >= start) {
		n--
	}
	c.entries = append(c.entries[:n], epochEntry{epoch: epoch, start: start})
	return true
}

// endOffsetFor answers OffsetForLeaderEpoch: the largest known epoch not above the
// one asked for, and the offset at which it ends; leo is the log end offset. An
// epoch before all known ones, negative ones too, ends where the first known one
// begins. (-1, -1) if the epoch is -1 or above all known ones.
func (c *epochCache) endOffsetFor(epoch int32, leo int64) (e int32, end int64) {
	n := len(c.entries)
	if epoch == -1 || n == 0 {
		return -1, -1
	}
	if c.entries[n-1].epoch == epoch {
		return epoch, leo
	}
	higher, _ := slices.BinarySearchFunc(c.entries, epoch, func(x epochEntry, t int32) int {
		if x.epoch <= t {
			return -1
		}
		return 1
	})
	switch {
	case higher == n:
		return -1, -1
	case higher == 0:
		return epoch, c.entries[0].start
	}
	return c.entries[higher-1].epoch, c.entries[higher].start
}

// latest is the newest epoch.
func (c *epochCache) latest() (epoch int32, ok bool) {
	if len(c.entries) == 0 {
		return -1, false
	}
	return c.entries[len(c.entries)-1].epoch, true
}

// epochForOffset is the epoch under which off was or would be written; not ok
// below the first entry.
func (c *epochCache) epochForOffset(off int64) (epoch int32, ok bool) {
	for i := len(c.entries) - 1; i >= 0; i-- {
		if c.entries[i].start <= off {
			return c.entries[i].epoch, true
		}
	}
	return -1, false
}

// truncateFromEnd removes the epochs that begin at end or beyond.
func (c *epochCache) truncateFromEnd(end int64) (changed bool) {
	n := len(c.entries)
	for n > 0 && c.entries[n-1].start >= end {
		n--
	}
	changed = n < len(c.entries)
	c.entries = c.entries[:n]
	return changed
}

// truncateFromStart removes what lies before the log start offset: of the epochs
// that begin at start or before only the newest stays, beginning at start.
func (c *epochCache) truncateFromStart(start int64) (changed bool) {
	last := -1
	for i, e := range c.entries {
		if e.start <= start {
			last = i
		}
	}
	if last < 0 || last == 0 && c.entries[0].start == start {
		return false
	}
	c.entries = slices.Delete(c.entries, 0, last)
	c.entries[0].start = start
	return true
}
