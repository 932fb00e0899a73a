package broker

import (
	"encoding/base64"
	"strconv"
	"strings"

	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Coordinator types of FindCoordinator.
const (
	coordinatorGroup int8 = iota
	coordinatorTransaction
	coordinatorShare
)

// maxKeysAgain is how many keys that a request gives again FindCoordinator answers again: a key takes one byte of it and a
// hundred of memory to be answered. The others are left out, which says no less: there is an answer to each key.
const maxKeysAgain = 10_000

// Kafka's default texts of two errors.
const (
	textInvalidRequest         = "This most likely occurs because of a request being malformed by the client library or the message was sent to an incompatible broker. See the broker logs for more details."
	textCoordinatorUnavailable = "The coordinator is not available."
)

// handleFindCoordinator answers FindCoordinator 0–6: which broker leads the partition of the internal topic that holds a
// group or a transactional id. While there is no such topic it is created, and the answer is COORDINATOR_NOT_AVAILABLE,
// which clients retry. So is that for shares, which have no coordinator in this build.
func (b *Broker) handleFindCoordinator(c *call, req *kmsg.FindCoordinatorRequest) {
	v := b.viewOf(c)
	c.reply(findCoordinator(req, c.h.APIVersion, func(key string) (wire.NodeEndpoint, wire.Code) {
		if req.CoordinatorType == coordinatorTransaction {
			return b.coordinatorOf(v, topicTransactionState, key, b.txns.PartitionFor)
		}
		return b.coordinatorOf(v, topicConsumerOffsets, key, b.groups.PartitionFor)
	}))
}

// findCoordinator answers with what at says of groups and transactional ids.
func findCoordinator(req *kmsg.FindCoordinatorRequest, version int16, at func(key string) (wire.NodeEndpoint, wire.Code)) *kmsg.FindCoordinatorResponse {
	resp := kmsg.NewPtrFindCoordinatorResponse()
	find := func(key string) (wire.NodeEndpoint, wire.Code) {
		if req.CoordinatorType == coordinatorGroup || req.CoordinatorType == coordinatorTransaction {
			return at(key)
		}
		return nowhere, coordinatorError(req.CoordinatorType, key, version)
	}
	if version < 4 {
		node, code := find(req.CoordinatorKey)
		text := textOf(code)
		resp.ErrorCode, resp.ErrorMessage = int16(code), &text
		resp.NodeID, resp.Host, resp.Port = node.NodeID, node.Host, node.Port
		return resp
	}
	text := "" // Kafka leaves it empty but for a type that does not exist
	if req.CoordinatorType < coordinatorGroup || req.CoordinatorType > coordinatorShare {
		text = textInvalidRequest
	}
	for _, key := range distinct(req.CoordinatorKeys, maxKeysAgain) {
		node, code := find(key)
		co := kmsg.NewFindCoordinatorResponseCoordinator()
		co.Key, co.ErrorCode = key, int16(code)
		co.NodeID, co.Host, co.Port = node.NodeID, node.Host, node.Port
		co.ErrorMessage = &text
		resp.Coordinators = append(resp.Coordinators, co)
	}
	return resp
}

// textOf is what versions before 4 say beside a code.
func textOf(code wire.Code) string {
	switch code {
	case wire.None:
		return "NONE"
	case wire.InvalidRequest:
		return textInvalidRequest
	}
	return textCoordinatorUnavailable
}

// nowhere is the coordinator of a key that has none.
var nowhere = wire.NodeEndpoint{NodeID: -1, Port: -1}

// coordinatorError is why a key of another type has no coordinator.
func coordinatorError(kind int8, key string, version int16) wire.Code {
	if kind == coordinatorShare && version >= 6 && validShareKey(key) {
		return wire.CoordinatorNotAvailable
	}
	return wire.InvalidRequest
}

// coordinatorOf is where the coordinator of a key is reached through the view's listener; topic is whose partitions hold
// such keys.
func (b *Broker) coordinatorOf(v view, topic, key string, partitionFor func(key string) (int32, bool)) (wire.NodeEndpoint, wire.Code) {
	t := v.img.Topic(topic)
	if t == nil {
		b.createInternal(topic)
		return nowhere, wire.CoordinatorNotAvailable
	}
	index, ok := partitionFor(key)
	if !ok {
		return nowhere, wire.CoordinatorNotAvailable
	}
	p := t.Partition(index)
	if p == nil || !v.alive(p.Leader) {
		return nowhere, wire.CoordinatorNotAvailable
	}
	at := v.node(p.Leader)
	return wire.NodeEndpoint{NodeID: p.Leader, Host: at.Host, Port: int32(at.Port)}, wire.None
}

// validShareKey says whether key is group:topicId:partition (KIP-932).
func validShareKey(key string) bool {
	parts := strings.Split(key, ":")
	if len(parts) != 3 || parts[0] == "" {
		return false
	}
	id, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || len(id) != 16 {
		return false
	}
	_, err = strconv.ParseInt(parts[2], 10, 32)
	return err == nil
}
