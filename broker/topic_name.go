package broker

import (
	"strconv"
	"unicode/utf8"
)

// Topics that Kafka keeps for itself.
const (
	topicConsumerOffsets  = "__consumer_offsets"
	topicTransactionState = "__transaction_state"
	topicShareGroupState  = "__share_group_state"
)

func isInternalTopic(name string) bool {
	return name == topicConsumerOffsets || name == topicTransactionState || name == topicShareGroupState
}

// invalidTopicName says in Kafka's words what is wrong with a topic's name; empty if nothing is.
func invalidTopicName(name string) string {
	const maxLen = 249
	switch {
	case name == "":
		return "Topic name is invalid: the empty string is not allowed"
	case name == ".":
		return "Topic name is invalid: '.' is not allowed"
	case name == "..":
		return "Topic name is invalid: '..' is not allowed"
	case utf8.RuneCountInString(name) > maxLen:
		return "Topic name is invalid: the length of '" + name + "' is longer than the max allowed length " + strconv.Itoa(maxLen)
	}
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return "Topic name is invalid: '" + name + "' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
		}
	}
	return ""
}
