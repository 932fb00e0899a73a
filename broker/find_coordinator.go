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

// Kafka's default texts of two errors.
const (
	textInvalidRequest         = "This most likely occurs because of a request being malformed by the client library or the message was sent to an incompatible broker. See the broker logs for more details."
	textCoordinatorUnavailable = "The coordinator is not available."
)

// handleFindCoordinator answers FindCoordinator 0–6: which broker leads the partition of __consumer_offsets that holds a
// group. While there is no such topic it is created, and the answer is COORDINATOR_NOT_AVAILABLE, which clients retry. So is
// that for transactions and shares, which have no coordinator in this build.
func (b *Broker) handleFindCoordinator(c *call, req *kmsg.FindCoordinatorRequest) {
	v := b.viewOf(c)
	c.reply(findCoordinator(req, c.h.APIVersion, func(group string) (wire.NodeEndpoint, wire.Code) { return b.groupCoordinator(v, group) }))
}

// findCoordinator answers with what ofGroup says of groups.
func findCoordinator(req *kmsg.FindCoordinatorRequest, version int16, ofGroup func(id string) (wire.NodeEndpoint, wire.Code)) *kmsg.FindCoordinatorResponse {
	resp := kmsg.NewPtrFindCoordinatorResponse()
	find := func(key string) (wire.NodeEndpoint, wire.Code) {
		if req.CoordinatorType == coordinatorGroup {
			return ofGroup(key)
		}
		return nowhere, coordinatorError(req.CoordinatorType, key, version)
	}
	if version < 4 {
		at, code := find(req.CoordinatorKey)
		text := textOf(code)
		resp.ErrorCode, resp.ErrorMessage = int16(code), &text
		resp.NodeID, resp.Host, resp.Port = at.NodeID, at.Host, at.Port
		return resp
	}
	for _, key := range req.CoordinatorKeys {
		at, code := find(key)
		co := kmsg.NewFindCoordinatorResponseCoordinator()
		co.Key, co.ErrorCode = key, int16(code)
		co.NodeID, co.Host, co.Port = at.NodeID, at.Host, at.Port
		text := "" // Kafka leaves it empty but for a type that does not exist
		if req.CoordinatorType < coordinatorGroup || req.CoordinatorType > coordinatorShare {
			text = textInvalidRequest
		}
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

// coordinatorError is why a key that is no group's has no coordinator.
func coordinatorError(kind int8, key string, version int16) wire.Code {
	if kind == coordinatorTransaction || kind == coordinatorShare && version >= 6 && validShareKey(key) {
		return wire.CoordinatorNotAvailable
	}
	return wire.InvalidRequest
}

// groupCoordinator is where the coordinator of a group is reached through the view's listener.
func (b *Broker) groupCoordinator(v view, group string) (wire.NodeEndpoint, wire.Code) {
	t := v.img.Topic(topicConsumerOffsets)
	if t == nil {
		b.createOffsetsTopic()
		return nowhere, wire.CoordinatorNotAvailable
	}
	index, ok := b.groups.PartitionFor(group)
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
