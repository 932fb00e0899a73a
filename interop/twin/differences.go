package twin

import "strings"

// Difference names one field of an answer in which Millrace may differ from Apache Kafka 4.2, or
// two Kafkas from each other. docs/compat.md has the same list for readers.
type Difference struct {
	API   string // kmsg's name of the API, "*" for all
	Field string // path without indexes, "Topics[].Partitions[].ErrorCode"
	How   How
	Key   string // Unordered: the fields that identify an element, separated by spaces
	Why   string
}

// How says what is still compared of a field that is not compared as it stands.
type How int

// What is still compared of the field.
const (
	Ignored   How = iota // nothing
	Labelled             // the name that the sequence gave to an id
	Recent               // a time: recent on both sides or the same on both
	Unordered            // an array: the elements, in the order of their key
	Records              // a record set: batch by batch, see diffRecords
	Served               // an array: what the second side has must be as the first has it
	Clocked              // the field, unless the Timestamp beside it is recent on both sides
	Assigned             // an array of topics with partitions: Unordered, or how many partitions where only that is determined
	Reached              // an array of transactions: those that begin within the records beside it
	Encoded              // a member's assignment in bytes: what it says, in any order; as Assigned
)

// Differences is the written list. What is not here must be equal.
var Differences = []Difference{
	{API: "*", Field: "ThrottleMillis", How: Ignored, Why: "quotas are each broker's own"},

	{API: "ApiVersions", Field: "ApiKeys", How: Served, Key: "ApiKey", Why: "an API is advertised once it is served; the ranges of those are Kafka's"},
	{API: "ApiVersions", Field: "FinalizedFeaturesEpoch", How: Ignored, Why: "offset in the metadata log, which also holds what other requests did"},
	{API: "ApiVersions", Field: "SupportedFeatures", How: Served, Key: "Name", Why: "a feature is advertised once its APIs are served"},
	{API: "ApiVersions", Field: "FinalizedFeatures", How: Served, Key: "Name", Why: "a feature is advertised once its APIs are served"},

	{API: "Metadata", Field: "Brokers[].Port", How: Ignored, Why: "each broker's own address"},
	{API: "Metadata", Field: "ClusterID", How: Ignored, Why: "each cluster's own id"},
	{API: "Metadata", Field: "Topics", How: Unordered, Key: "Topic TopicID", Why: "a Java map's order"},
	{API: "Metadata", Field: "Topics[].TopicID", How: Labelled, Why: "topic ids are random"},

	{API: "Metadata", Field: "Topics[].Partitions", How: Unordered, Key: "Partition", Why: "a Java map's order"},

	{API: "Produce", Field: "Topics", How: Unordered, Key: "Topic TopicID", Why: "a Java map's order"},
	{API: "Produce", Field: "Topics[].Partitions", How: Unordered, Key: "Partition", Why: "a Java map's order"},
	{API: "Produce", Field: "Topics[].TopicID", How: Labelled, Why: "topic ids are random"},
	{API: "Produce", Field: "Topics[].Partitions[].LogAppendTime", How: Recent, Why: "the broker's clock"},
	{API: "Produce", Field: "Brokers[].Port", How: Ignored, Why: "each broker's own address"},

	{API: "Fetch", Field: "SessionID", How: Labelled, Why: "session ids are random"},
	{API: "Fetch", Field: "Topics[].TopicID", How: Labelled, Why: "topic ids are random"},
	{API: "Fetch", Field: "Topics[].Partitions[].RecordBatches", How: Records, Why: "producer ids are the broker's; bytes that the broker itself compresses differ by compressor"},
	{API: "Fetch", Field: "Brokers[].Port", How: Ignored, Why: "each broker's own address"},

	{API: "ListOffsets", Field: "Topics", How: Unordered, Key: "Topic", Why: "a Java map's order"},
	{API: "ListOffsets", Field: "Topics[].Partitions", How: Unordered, Key: "Partition", Why: "a Java map's order"},
	{API: "ListOffsets", Field: "Topics[].Partitions[].Offset", How: Clocked, Why: "which of several batches has the largest time depends on the broker's clock where it stamps"},
	{API: "ListOffsets", Field: "Topics[].Partitions[].Timestamp", How: Recent, Why: "the broker's clock where it stamps"},

	{API: "CreateTopics", Field: "Topics", How: Unordered, Key: "Topic", Why: "a Java map's order"},
	{API: "CreateTopics", Field: "Topics[].TopicID", How: Labelled, Why: "topic ids are random"},
	{API: "CreateTopics", Field: "Topics[].Configs", How: Unordered, Key: "Name", Why: "a Java map's order"},
	{API: "DeleteTopics", Field: "Topics", How: Unordered, Key: "Topic TopicID ErrorCode", Why: "Kafka shuffles them"},
	{API: "DeleteTopics", Field: "Topics[].TopicID", How: Labelled, Why: "topic ids are random"},
	{API: "CreatePartitions", Field: "Topics", How: Unordered, Key: "Topic", Why: "a Java map's order"},
	{API: "DeleteRecords", Field: "Topics", How: Unordered, Key: "Topic", Why: "a Java map's order"},
	{API: "DeleteRecords", Field: "Topics[].Partitions", How: Unordered, Key: "Partition", Why: "a Java map's order"},

	{API: "DescribeConfigs", Field: "Resources", How: Unordered, Key: "ResourceType ResourceName", Why: "a Java map's order"},
	{API: "DescribeConfigs", Field: "Resources[].Configs", How: Unordered, Key: "Name", Why: "a Java map's order"},
	{API: "DescribeConfigs", Field: "Resources[].Configs[].Documentation", How: Ignored, Why: "Kafka's texts are not carried along"},
	{API: "IncrementalAlterConfigs", Field: "Resources", How: Unordered, Key: "ResourceType ResourceName", Why: "a Java map's order"},
	{API: "AlterConfigs", Field: "Resources", How: Unordered, Key: "ResourceType ResourceName", Why: "a Java map's order"},

	{API: "ListConfigResources", Field: "ConfigResources", How: Unordered, Key: "Type Name", Why: "a Java map's order"},

	{API: "DescribeCluster", Field: "Brokers[].Port", How: Ignored, Why: "each broker's own address"},
	{API: "DescribeCluster", Field: "ClusterID", How: Ignored, Why: "each cluster's own id"},
	{API: "DescribeTopicPartitions", Field: "Topics[].TopicID", How: Labelled, Why: "topic ids are random"},

	{API: "InitProducerID", Field: "ProducerID", How: Labelled, Why: "producer ids come from each broker's own blocks"},

	{API: "EndTxn", Field: "ProducerID", How: Labelled, Why: "producer ids come from each broker's own blocks"},
	{API: "AddPartitionsToTxn", Field: "Topics", How: Unordered, Key: "Topic", Why: "a Java map's order"},
	{API: "AddPartitionsToTxn", Field: "Topics[].Partitions", How: Unordered, Key: "Partition", Why: "a Java map's order"},
	{API: "AddPartitionsToTxn", Field: "Transactions", How: Unordered, Key: "TransactionalID", Why: "each is answered when it is done"},
	{API: "AddPartitionsToTxn", Field: "Transactions[].Topics", How: Unordered, Key: "Topic", Why: "a Java map's order"},
	{API: "AddPartitionsToTxn", Field: "Transactions[].Topics[].Partitions", How: Unordered, Key: "Partition", Why: "a Java map's order"},
	{API: "TxnOffsetCommit", Field: "Topics", How: Unordered, Key: "Topic", Why: "a Java map's order"},
	{API: "WriteTxnMarkers", Field: "Markers", How: Unordered, Key: "ProducerID", Why: "a Java map's order"},
	{API: "WriteTxnMarkers", Field: "Markers[].ProducerID", How: Labelled, Why: "producer ids come from each broker's own blocks"},
	{API: "WriteTxnMarkers", Field: "Markers[].Topics", How: Unordered, Key: "Topic", Why: "a Java map's order"},
	{API: "WriteTxnMarkers", Field: "Markers[].Topics[].Partitions", How: Unordered, Key: "Partition", Why: "a Java map's order"},
	{API: "ListTransactions", Field: "TransactionStates", How: Unordered, Key: "TransactionalID", Why: "a Java map's order"},
	{API: "ListTransactions", Field: "TransactionStates[].ProducerID", How: Labelled, Why: "producer ids come from each broker's own blocks"},
	{API: "DescribeTransactions", Field: "TransactionStates[].ProducerID", How: Labelled, Why: "producer ids come from each broker's own blocks"},
	{API: "DescribeTransactions", Field: "TransactionStates[].StartTimestamp", How: Recent, Why: "the broker's clock"},
	{API: "DescribeTransactions", Field: "TransactionStates[].Topics", How: Unordered, Key: "Topic", Why: "a Java map's order"},
	{API: "DescribeTransactions", Field: "TransactionStates[].Topics[].Partitions", How: Unordered, Why: "a Java set's order"},
	{API: "DescribeProducers", Field: "Topics[].Partitions[].ActiveProducers", How: Unordered, Key: "ProducerID", Why: "a Java map's order"},
	{API: "DescribeProducers", Field: "Topics[].Partitions[].ActiveProducers[].ProducerID", How: Labelled, Why: "producer ids come from each broker's own blocks"},
	{API: "DescribeProducers", Field: "Topics[].Partitions[].ActiveProducers[].LastTimestamp", How: Recent, Why: "a marker has the broker's clock"},
	{API: "Fetch", Field: "Topics[].Partitions[].AbortedTransactions", How: Reached, Why: "Kafka also names some that begin behind the records, as far as an entry of its offset index reaches"},
	{API: "Fetch", Field: "Topics[].Partitions[].AbortedTransactions[].ProducerID", How: Labelled, Why: "producer ids come from each broker's own blocks"},

	{API: "FindCoordinator", Field: "Port", How: Ignored, Why: "each broker's own address"},
	{API: "FindCoordinator", Field: "Coordinators[].Port", How: Ignored, Why: "each broker's own address"},

	{API: "JoinGroup", Field: "Members", How: Unordered, Key: "MemberID", Why: "a Java map's order"},
	{API: "SyncGroup", Field: "MemberAssignment", How: Encoded, Why: "the order of a Java map where the group's other members speak KIP-848"},
	{API: "DescribeGroups", Field: "Groups", How: Unordered, Key: "Group ErrorCode", Why: "Kafka asks each partition of __consumer_offsets apart; errors of empty ids come first"},
	{API: "ConsumerGroupDescribe", Field: "Groups", How: Unordered, Key: "Group ErrorCode", Why: "as in DescribeGroups"},
	{API: "DescribeGroups", Field: "Groups[].Members", How: Unordered, Key: "MemberID", Why: "a Java map's order"},
	{API: "DescribeGroups", Field: "Groups[].Members[].MemberAssignment", How: Encoded, Why: "as in SyncGroup"},
	{API: "ListGroups", Field: "Groups", How: Unordered, Key: "Group", Why: "a Java map's order"},
	{API: "DeleteGroups", Field: "Groups", How: Unordered, Key: "Group ErrorCode", Why: "as in DescribeGroups"},
	{API: "OffsetCommit", Field: "Topics", How: Unordered, Key: "Topic TopicID", Why: "a Java map's order"},
	{API: "OffsetCommit", Field: "Topics[].TopicID", How: Labelled, Why: "topic ids are random"},
	{API: "OffsetFetch", Field: "Topics", How: Unordered, Key: "Topic", Why: "a Java map's order where all are asked"},
	{API: "OffsetFetch", Field: "Topics[].Partitions", How: Unordered, Key: "Partition", Why: "a Java map's order where all are asked"},
	{API: "OffsetFetch", Field: "Groups[].Topics", How: Unordered, Key: "Topic TopicID", Why: "a Java map's order where all are asked"},
	{API: "OffsetFetch", Field: "Groups[].Topics[].TopicID", How: Labelled, Why: "topic ids are random"},
	{API: "OffsetFetch", Field: "Groups[].Topics[].Partitions", How: Unordered, Key: "Partition", Why: "a Java map's order where all are asked"},
	{API: "OffsetDelete", Field: "Topics", How: Unordered, Key: "Topic", Why: "a Java map's order"},
	{API: "OffsetDelete", Field: "Topics[].Partitions", How: Unordered, Key: "Partition", Why: "a Java map's order"},
	{API: "ConsumerGroupHeartbeat", Field: "Assignment.Topics", How: Assigned, Key: "TopicID", Why: "a Java map's order; the uniform assignor takes back what a map of the JVM's seed has last"},
	{API: "ConsumerGroupHeartbeat", Field: "Assignment.Topics[].TopicID", How: Labelled, Why: "topic ids are random"},
	{API: "ConsumerGroupHeartbeat", Field: "Assignment.Topics[].Partitions", How: Unordered, Why: "a Java set's order"},
	{API: "ConsumerGroupDescribe", Field: "Groups[].Members", How: Unordered, Key: "MemberID", Why: "a Java map's order"},
	{API: "ConsumerGroupDescribe", Field: "Groups[].Members[].SubscribedTopics", How: Unordered, Why: "a Java set's order"},
	{API: "ConsumerGroupDescribe", Field: "Groups[].Members[].Assignment.TopicPartitions", How: Assigned, Key: "Topic", Why: "as in ConsumerGroupHeartbeat"},
	{API: "ConsumerGroupDescribe", Field: "Groups[].Members[].Assignment.TopicPartitions[].TopicID", How: Labelled, Why: "topic ids are random"},
	{API: "ConsumerGroupDescribe", Field: "Groups[].Members[].Assignment.TopicPartitions[].Partitions", How: Unordered, Why: "a Java set's order"},
	{API: "ConsumerGroupDescribe", Field: "Groups[].Members[].TargetAssignment.TopicPartitions", How: Assigned, Key: "Topic", Why: "as in ConsumerGroupHeartbeat"},
	{API: "ConsumerGroupDescribe", Field: "Groups[].Members[].TargetAssignment.TopicPartitions[].TopicID", How: Labelled, Why: "topic ids are random"},
	{API: "ConsumerGroupDescribe", Field: "Groups[].Members[].TargetAssignment.TopicPartitions[].Partitions", How: Unordered, Why: "a Java set's order"},
}

// ownConfigs are the broker settings whose values are the node's own.
var ownConfigs = map[string]bool{
	"listeners": true, "advertised.listeners": true, "log.dirs": true, "log.dir": true, "metadata.log.dir": true,
	"controller.quorum.bootstrap.servers": true, "controller.quorum.voters": true, "controller.listener.names": true,
	"listener.security.protocol.map": true,
}

// fixedConfigs are broker settings that Kafka can change while it runs and Millrace cannot: what
// DescribeConfigs tells of them but the name and the value may differ.
var fixedConfigs = map[string]bool{
	"listeners": true, "listener.security.protocol.map": true, "max.connections": true, "max.connections.per.ip": true,
	"max.connections.per.ip.overrides": true, "num.recovery.threads.per.data.dir": true, "producer.id.expiration.ms": true,
}

// named are whole answers that differ on purpose, each with its reason; docs/compat.md has them too.
var named = []struct {
	step string // part of the step's name
	why  string
}{
	{`DescribeTopicPartitions with an empty name`, "Kafka's broker throws and fails every topic of the request; Millrace fails that one"},
}

// namedDifference returns why a step's answers may differ, or "".
func namedDifference(step string) string {
	for _, n := range named {
		if strings.Contains(step, n.step) {
			return n.why
		}
	}
	return ""
}
