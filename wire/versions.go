package wire

import "slices"

// API is one request kind: its key, Kafka's name, the versions that are answered, [Min, Max]
// inclusive, and the first flexible version (-1: none is).
type API struct {
	Key          int16
	Name         string
	Min, Max     int16
	FlexibleFrom int16
}

// Flexible says whether version of this API has compact lengths and tagged fields.
func (a API) Flexible(version int16) bool { return a.FlexibleFrom >= 0 && version >= a.FlexibleFrom }

// Has says whether version is one of those answered.
func (a API) Has(version int16) bool { return version >= a.Min && version <= a.Max }

// AdvertisedMin is the lowest version that ApiVersions names: Min, but 0 for Produce, because
// librdkafka takes a broker without Produce 0 for one without features (KAFKA-18659).
// Kafka 4.2 does the same and refuses versions 0–2 all the same.
func (a API) AdvertisedMin() int16 {
	if a.Key == KeyProduce {
		return 0
	}
	return a.Min
}

// The keys that code speaks of by name.
const (
	KeyProduce     int16 = 0
	KeyFetch       int16 = 1
	KeyApiVersions int16 = 18
)

// Lookup finds an API that this build answers, Kafka's or one of its own.
func Lookup(key int16) (API, bool) {
	if key >= own[0].Key {
		return lookupOwn(key)
	}
	i := rowOf(key)
	if i < 0 || !apis[i].served {
		return API{}, false
	}
	return apis[i].API, true
}

// LookupKafka finds an API that Kafka 4.2 answers on its broker listener, whether this build does or not.
func LookupKafka(key int16) (API, bool) {
	if i := rowOf(key); i >= 0 {
		return apis[i].API, true
	}
	return API{}, false
}

// Own lists the APIs that this build answers and Kafka does not have. ApiVersions does not name them, so that
// no client stumbles over them: who asks for them is one of Millrace's tools. The slice is the caller's.
func Own() []API { return slices.Clone(own[:]) }

func lookupOwn(key int16) (API, bool) {
	for _, api := range own {
		if api.Key == key {
			return api, true
		}
	}
	return API{}, false
}

// own are they, by key. It is never changed.
var own = [...]API{{KeyCompactTopic, "CompactTopic", 0, 0, -1}}

// Served lists Kafka's APIs that this build answers, by key. The slice is the caller's.
func Served() []API {
	var out []API
	for _, row := range apis {
		if row.served {
			out = append(out, row.API)
		}
	}
	return out
}

func rowOf(key int16) int {
	// The keys below 48 are nearly without gaps, so the search starts close to the row.
	for i := min(int(key), len(apis)-1); i >= 0; i-- {
		if apis[i].Key == key {
			return i
		}
	}
	return -1
}

// apis is what Apache Kafka 4.2.0 answers on a broker listener, and which of it this build
// answers at the same versions. It is never changed.
var apis = [...]struct {
	API
	served bool
}{
	{API{0, "Produce", 3, 13, 9}, true},
	{API{1, "Fetch", 4, 18, 12}, true},
	{API{2, "ListOffsets", 1, 11, 6}, true},
	{API{3, "Metadata", 0, 13, 9}, true},
	{API{8, "OffsetCommit", 2, 10, 8}, true},
	{API{9, "OffsetFetch", 1, 10, 6}, true},
	{API{10, "FindCoordinator", 0, 6, 3}, true},
	{API{11, "JoinGroup", 0, 9, 6}, true},
	{API{12, "Heartbeat", 0, 4, 4}, true},
	{API{13, "LeaveGroup", 0, 5, 4}, true},
	{API{14, "SyncGroup", 0, 5, 4}, true},
	{API{15, "DescribeGroups", 0, 6, 5}, true},
	{API{16, "ListGroups", 0, 5, 3}, true},
	{API{17, "SaslHandshake", 0, 1, -1}, false},
	{API{18, "ApiVersions", 0, 4, 3}, true},
	{API{19, "CreateTopics", 2, 7, 5}, true},
	{API{20, "DeleteTopics", 1, 6, 4}, true},
	{API{21, "DeleteRecords", 0, 2, 2}, true},
	{API{22, "InitProducerId", 0, 5, 2}, true},
	{API{23, "OffsetForLeaderEpoch", 2, 4, 4}, true},
	{API{24, "AddPartitionsToTxn", 0, 5, 3}, true},
	{API{25, "AddOffsetsToTxn", 0, 4, 3}, true},
	{API{26, "EndTxn", 0, 5, 3}, true},
	{API{27, "WriteTxnMarkers", 1, 2, 1}, true},
	{API{28, "TxnOffsetCommit", 0, 5, 3}, true},
	{API{29, "DescribeAcls", 1, 3, 2}, false},
	{API{30, "CreateAcls", 1, 3, 2}, false},
	{API{31, "DeleteAcls", 1, 3, 2}, false},
	{API{32, "DescribeConfigs", 1, 4, 4}, true},
	{API{33, "AlterConfigs", 0, 2, 2}, true},
	{API{34, "AlterReplicaLogDirs", 1, 2, 2}, false},
	{API{35, "DescribeLogDirs", 1, 4, 2}, false},
	{API{36, "SaslAuthenticate", 0, 2, 2}, false},
	{API{37, "CreatePartitions", 0, 3, 2}, true},
	{API{38, "CreateDelegationToken", 1, 3, 2}, false},
	{API{39, "RenewDelegationToken", 1, 2, 2}, false},
	{API{40, "ExpireDelegationToken", 1, 2, 2}, false},
	{API{41, "DescribeDelegationToken", 1, 3, 2}, false},
	{API{42, "DeleteGroups", 0, 2, 2}, true},
	{API{43, "ElectLeaders", 0, 2, 2}, false},
	{API{44, "IncrementalAlterConfigs", 0, 1, 1}, true},
	{API{45, "AlterPartitionReassignments", 0, 1, 0}, false},
	{API{46, "ListPartitionReassignments", 0, 0, 0}, false},
	{API{47, "OffsetDelete", 0, 0, -1}, true},
	{API{48, "DescribeClientQuotas", 0, 1, 1}, false},
	{API{49, "AlterClientQuotas", 0, 1, 1}, false},
	{API{50, "DescribeUserScramCredentials", 0, 0, 0}, false},
	{API{51, "AlterUserScramCredentials", 0, 0, 0}, false},
	{API{55, "DescribeQuorum", 0, 2, 0}, false},
	{API{57, "UpdateFeatures", 0, 2, 0}, false},
	{API{60, "DescribeCluster", 0, 2, 0}, true},
	{API{61, "DescribeProducers", 0, 0, 0}, true},
	{API{64, "UnregisterBroker", 0, 0, 0}, false},
	{API{65, "DescribeTransactions", 0, 0, 0}, true},
	{API{66, "ListTransactions", 0, 2, 0}, true},
	{API{68, "ConsumerGroupHeartbeat", 0, 1, 0}, true},
	{API{69, "ConsumerGroupDescribe", 0, 1, 0}, true},
	{API{74, "ListConfigResources", 0, 1, 0}, true},
	{API{75, "DescribeTopicPartitions", 0, 0, 0}, true},
	{API{76, "ShareGroupHeartbeat", 1, 1, 0}, false},
	{API{77, "ShareGroupDescribe", 1, 1, 0}, false},
	{API{78, "ShareFetch", 1, 2, 0}, false},
	{API{79, "ShareAcknowledge", 1, 2, 0}, false},
	{API{80, "AddRaftVoter", 0, 1, 0}, false},
	{API{81, "RemoveRaftVoter", 0, 0, 0}, false},
	{API{83, "InitializeShareGroupState", 0, 0, 0}, false},
	{API{84, "ReadShareGroupState", 0, 0, 0}, false},
	{API{85, "WriteShareGroupState", 0, 1, 0}, false},
	{API{86, "DeleteShareGroupState", 0, 0, 0}, false},
	{API{87, "ReadShareGroupStateSummary", 0, 1, 0}, false},
	{API{88, "StreamsGroupHeartbeat", 0, 0, 0}, false},
	{API{89, "StreamsGroupDescribe", 0, 0, 0}, false},
	{API{90, "DescribeShareGroupOffsets", 0, 1, 0}, false},
	{API{91, "AlterShareGroupOffsets", 0, 0, 0}, false},
	{API{92, "DeleteShareGroupOffsets", 0, 0, 0}, false},
}
