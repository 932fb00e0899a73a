package groups

import "github.com/millrace-project/millrace/wire"

// upgradeGroup makes a KIP-848 group of a classic one.
func (m *Machine) upgradeGroup(c group) (g *consumerGroup, records []Record, then func(error), err error) {
	return nil, nil, nil, refuse(wire.GroupIDNotFound, "Cannot upgrade classic group %s to consumer group because online upgrade is disabled.", c.id())
}

// mayDowngrade says whether the group becomes a classic one when these members leave.
func (m *Machine) mayDowngrade(g *consumerGroup, leaving []*consumerMember) bool { return false }

// downgradeGroup makes a classic group of a KIP-848 one.
func (m *Machine) downgradeGroup(g *consumerGroup, leaving []*consumerMember, joining *consumerMember, subscriptionChanged bool) (decision, error) {
	return decision{}, nil
}

// updateRegexes follows a change of the member's regular expression.
func (c *consumerChange) updateRegexes(who Client) (regexChange, error) { return regexUnchanged, nil }
