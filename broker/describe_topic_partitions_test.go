package broker

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// The pages are those of Kafka 4.2 for the same requests.
func TestDescribeTopicPartitionsPages(t *testing.T) {
	v := view{img: imageOf(t, slices.Concat(topicRecords("t1", 1, 3, 1), topicRecords("t2", 2, 3, 1))...), listener: testListener}
	at := func(topic string, partition int32) *kmsg.DescribeTopicPartitionsRequestCursor {
		c := kmsg.NewDescribeTopicPartitionsRequestCursor()
		c.Topic, c.Partition = topic, partition
		return &c
	}
	for _, c := range []struct {
		limit  int32
		cursor *kmsg.DescribeTopicPartitionsRequestCursor
		topics string
		want   string
	}{
		{2000, nil, "", "t1[0 1 2] t2[0 1 2]"},
		{2000, nil, "t2 t1 t1", "t1[0 1 2] t2[0 1 2]"},
		{2, nil, "t2 t1", "t1[0 1] next t1/2"},
		{3, nil, "t2 t1", "t1[0 1 2] next t2/0"},
		{0, nil, "t2 t1", "t1[0] next t1/1"},
		{2, at("t1", 2), "t2 t1", "t1[2] t2[0] next t2/1"},
		{2, at("t1", 7), "t2 t1", "t1[] t2[0 1] next t2/2"},
		{2, at("t3", 0), "t2 t1", "t2!42[] t1!42[]"},
		{2, at("t1", -1), "t2 t1", "t2!42[] t1!42[]"},
		{20, at("t1x", 1), "", "t2[0 1 2]"},
		{20, nil, "nope a/b t1", "a/b!17[] nope!3[] t1[0 1 2]"},
		{1, nil, "nope a/b t1", "a/b!17[] nope!3[] t1[0] next t1/1"},
		{20, at("nope", 1), "nope t1", "nope!3[] t1[0 1 2]"},
	} {
		req := kmsg.NewPtrDescribeTopicPartitionsRequest()
		req.ResponsePartitionLimit, req.Cursor = c.limit, c.cursor
		for _, name := range strings.Fields(c.topics) {
			rt := kmsg.NewDescribeTopicPartitionsRequestTopic()
			rt.Topic = name
			req.Topics = append(req.Topics, rt)
		}
		if got := page(v.describeTopicPartitions(req, 2000)); got != c.want {
			t.Errorf("limit %d cursor %v topics %q:\n got %s\nwant %s", c.limit, c.cursor, c.topics, got, c.want)
		}
	}
}

func page(resp *kmsg.DescribeTopicPartitionsResponse) string {
	var out []string
	for _, t := range resp.Topics {
		var parts []int32
		for _, p := range t.Partitions {
			parts = append(parts, p.Partition)
		}
		s := *t.Topic
		if t.ErrorCode != 0 {
			s += fmt.Sprintf("!%d", t.ErrorCode)
		}
		out = append(out, s+fmt.Sprint(parts))
	}
	if resp.NextCursor != nil {
		out = append(out, fmt.Sprintf("next %s/%d", resp.NextCursor.Topic, resp.NextCursor.Partition))
	}
	return strings.Join(out, " ")
}
