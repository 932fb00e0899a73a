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

// handleFindCoordinator answers FindCoordinator 0–6. This build has no coordinators, so each key
// that could have one gets COORDINATOR_NOT_AVAILABLE, which clients retry.
func (b *Broker) handleFindCoordinator(c *call, req *kmsg.FindCoordinatorRequest) {
	c.reply(findCoordinator(req, c.h.APIVersion))
}

func findCoordinator(req *kmsg.FindCoordinatorRequest, version int16) *kmsg.FindCoordinatorResponse {
	resp := kmsg.NewPtrFindCoordinatorResponse()
	if version < 4 {
		code := coordinatorError(req.CoordinatorType, req.CoordinatorKey, version)
		text := textCoordinatorUnavailable
		if code == wire.InvalidRequest {
			text = textInvalidRequest
		}
		resp.ErrorCode, resp.ErrorMessage = int16(code), &text
		resp.NodeID, resp.Port = -1, -1
		return resp
	}
	for _, key := range req.CoordinatorKeys {
		co := kmsg.NewFindCoordinatorResponseCoordinator()
		co.Key, co.NodeID, co.Port = key, -1, -1
		co.ErrorCode = int16(coordinatorError(req.CoordinatorType, key, version))
		text := "" // Kafka leaves it empty but for a type that does not exist
		if req.CoordinatorType < coordinatorGroup || req.CoordinatorType > coordinatorShare {
			text = textInvalidRequest
		}
		co.ErrorMessage = &text
		resp.Coordinators = append(resp.Coordinators, co)
	}
	return resp
}

func coordinatorError(kind int8, key string, version int16) wire.Code {
	switch {
	case kind == coordinatorGroup, kind == coordinatorTransaction:
		return wire.CoordinatorNotAvailable
	case kind == coordinatorShare && version >= 6 && validShareKey(key):
		return wire.CoordinatorNotAvailable
	}
	return wire.InvalidRequest
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
