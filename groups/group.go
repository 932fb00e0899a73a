package groups

import "github.com/millrace-project/millrace/wire"

// group is one group of either protocol, as offsets, lists and deletions see it.
type group interface {
	id() string
	kind() kind
	// state is Kafka's name: Empty, PreparingRebalance, CompletingRebalance, Stable, Dead; Empty, Assigning,
	// Reconciling, Stable, Dead.
	state() string
	protocolType() string

	// checkCommit refuses a commit by who makes it; version is OffsetCommit's, transactional of TxnOffsetCommit. The
	// partition check, when not nil, is asked for each partition (KIP-1251: epochs of a member's own partitions).
	checkCommit(c commitBy) (check func(topicID [16]byte, topic string, partition int32) wire.Code, code wire.Code)
	// checkFetch refuses an OffsetFetch that names a member (version 9 on).
	checkFetch(memberID *string, memberEpoch int32) wire.Code
	checkOffsetDelete() wire.Code
	checkDelete() wire.Code
	// subscribed says whether a member is subscribed to the topic, as far as the group knows.
	subscribed(topic string) bool
	// expiry gives when an offset of the group expires: at base + retention for the given commit; ok is false while it
	// may not (KIP-211).
	expiry(topic string, commitMs int64) (baseMs int64, ok bool)
	// tombstones delete the group's own records (not its offsets).
	tombstones() []Record
}

// commitBy is who commits.
type commitBy struct {
	memberID      string
	instanceID    *string
	epoch         int32 // generation, or member epoch
	transactional bool
	version       int16
}
