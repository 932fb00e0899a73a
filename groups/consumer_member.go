package groups

import (
	"maps"
	"slices"

	"github.com/millrace-project/millrace/assignor"
	"github.com/millrace-project/millrace/records"
)

// memberState is how far a member is on the way to its target.
type memberState int8

const (
	memberStable     memberState = 0 // has what the target of its epoch gives it
	memberUnrevoked  memberState = 1 // was told to give partitions up and has not yet
	memberUnreleased memberState = 2 // waits for partitions that others have not given up
	memberUnknown    memberState = 127
)

// Member epochs that are none.
const (
	leaveEpoch       = -1
	leaveStaticEpoch = -2 // a static member that is to come back
)

// consumerMember is a member of a KIP-848 group. It never changes: a change makes another one.
type consumerMember struct {
	id                   string
	epoch, previousEpoch int32
	instanceID, rackID   *string
	rebalanceTimeoutMs   int32
	clientID, clientHost string
	topics               []string // subscribed by name; ascending, none twice
	regex                *string  // nil and "" are none
	assignor             *string
	state                memberState
	assigned, revoking   assignor.Assignment            // revoking: told to give up; both are never nil
	classic              *records.ClassicMemberMetadata // nil: speaks the consumer protocol
}

// newConsumerMember is a member of which no record is known.
func newConsumerMember(id string) *consumerMember {
	return &consumerMember{
		id: id, previousEpoch: -1, rebalanceTimeoutMs: -1, regex: new(string),
		assigned: assignor.Assignment{}, revoking: assignor.Assignment{},
	}
}

func (m *consumerMember) reconciledTo(epoch int32) bool {
	return m.state == memberStable && m.epoch == epoch
}

// pattern is the regular expression that the member subscribes to, "" without.
func (m *consumerMember) pattern() string {
	if m == nil || m.regex == nil {
		return ""
	}
	return *m.regex
}

// with gives a changed copy.
func (m *consumerMember) with(change func(*consumerMember)) *consumerMember {
	c := *m
	change(&c)
	return &c
}

func (m *consumerMember) equal(o *consumerMember) bool {
	return m.id == o.id && m.epoch == o.epoch && m.previousEpoch == o.previousEpoch && m.state == o.state &&
		m.rebalanceTimeoutMs == o.rebalanceTimeoutMs && m.clientID == o.clientID && m.clientHost == o.clientHost &&
		equalString(m.instanceID, o.instanceID) && equalString(m.rackID, o.rackID) &&
		equalString(m.regex, o.regex) && equalString(m.assignor, o.assignor) &&
		slices.Equal(m.topics, o.topics) && equalAssignment(m.assigned, o.assigned) &&
		equalAssignment(m.revoking, o.revoking) && equalClassic(m.classic, o.classic)
}

func equalString(a, b *string) bool { return a == b || a != nil && b != nil && *a == *b }

func equalAssignment(a, b assignor.Assignment) bool { return maps.EqualFunc(a, b, slices.Equal) }

func equalClassic(a, b *records.ClassicMemberMetadata) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.SessionTimeoutMs == b.SessionTimeoutMs &&
		slices.EqualFunc(a.SupportedProtocols, b.SupportedProtocols, func(p, q records.ClassicProtocol) bool {
			return p.Name == q.Name && slices.Equal(p.Metadata, q.Metadata)
		})
}
