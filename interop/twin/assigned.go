package twin

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// countPartitions sums the partitions of an array of topics.
func countPartitions(topics reflect.Value) int {
	n := 0
	for i := range topics.Len() {
		n += topics.Index(i).FieldByName("Partitions").Len()
	}
	return n
}

func countText(n int) string { return fmt.Sprintf("%d partitions", n) }

// assignmentText shows what a classic member's assignment says: topics in the order of their names,
// or how many partitions they are where only that is determined. Other bytes are shown as they are.
func (c *comparer) assignmentText(p []byte) string {
	var as kmsg.ConsumerMemberAssignment
	if len(p) == 0 || as.ReadFrom(p) != nil || as.Version > 3 || as.Version < 0 {
		return fmt.Sprintf("%x", p)
	}
	n := 0
	slices.SortFunc(as.Topics, func(a, b kmsg.ConsumerMemberAssignmentTopic) int { return strings.Compare(a.Topic, b.Topic) })
	for _, t := range as.Topics {
		slices.Sort(t.Partitions)
		n += len(t.Partitions)
	}
	if c.counted {
		return fmt.Sprintf("version %d, %s, data %x", as.Version, countText(n), as.UserData)
	}
	return fmt.Sprintf("version %d, topics %v, data %x, in %d bytes", as.Version, as.Topics, as.UserData, len(p))
}
