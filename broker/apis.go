package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/wire"
)

// handler answers one request: it calls c.reply or c.fail once, now or later, from any goroutine.
// An error is a malformed request: the connection is closed.
type handler func(b *Broker, c *call, body []byte) error

// handlers is the table of what is answered, by API key. Each is a method in the file named after
// its API, with its contract on top; Produce is apart, because several requests go into one append.
var handlers = map[int16]handler{
	1:  (*Broker).handleFetch,
	2:  typed((*Broker).handleListOffsets),
	3:  typed((*Broker).handleMetadata),
	8:  typed((*Broker).handleOffsetCommit),
	9:  typed((*Broker).handleOffsetFetch),
	10: typed((*Broker).handleFindCoordinator),
	11: typed((*Broker).handleJoinGroup),
	12: typed((*Broker).handleHeartbeat),
	13: typed((*Broker).handleLeaveGroup),
	14: typed((*Broker).handleSyncGroup),
	15: typed((*Broker).handleDescribeGroups),
	16: typed((*Broker).handleListGroups),
	18: typed((*Broker).handleApiVersions),
	19: typed((*Broker).handleCreateTopics),
	20: typed((*Broker).handleDeleteTopics),
	21: typed((*Broker).handleDeleteRecords),
	22: typed((*Broker).handleInitProducerID),
	23: typed((*Broker).handleOffsetForLeaderEpoch),
	24: typed((*Broker).handleAddPartitionsToTxn),
	25: typed((*Broker).handleAddOffsetsToTxn),
	26: typed((*Broker).handleEndTxn),
	27: typed((*Broker).handleWriteTxnMarkers),
	28: typed((*Broker).handleTxnOffsetCommit),
	32: typed((*Broker).handleDescribeConfigs),
	33: typed((*Broker).handleAlterConfigs),
	37: typed((*Broker).handleCreatePartitions),
	42: typed((*Broker).handleDeleteGroups),
	44: typed((*Broker).handleIncrementalAlterConfigs),
	47: typed((*Broker).handleOffsetDelete),
	60: typed((*Broker).handleDescribeCluster),
	61: typed((*Broker).handleDescribeProducers),
	65: typed((*Broker).handleDescribeTransactions),
	66: typed((*Broker).handleListTransactions),
	68: typed((*Broker).handleConsumerGroupHeartbeat),
	69: typed((*Broker).handleConsumerGroupDescribe),
	74: typed((*Broker).handleListConfigResources),
	75: typed((*Broker).handleDescribeTopicPartitions),

	wire.KeyCompactTopic: (*Broker).handleCompactTopic,
}

// typed adapts a handler of a decoded request. What the request decodes to aliases the frame, which
// is the handler's for good.
func typed[T any, R interface {
	*T
	kmsg.Request
}](handle func(b *Broker, c *call, req R)) handler {
	return func(b *Broker, c *call, body []byte) error {
		req := R(new(T))
		req.SetVersion(c.h.APIVersion)
		if err := req.ReadFrom(body); err != nil {
			return &wire.FormatError{What: kmsg.NameForKey(c.h.APIKey), Why: err.Error()}
		}
		handle(b, c, req)
		return nil
	}
}
