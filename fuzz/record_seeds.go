package fuzz

import "github.com/millrace-project/millrace/records"

// The records that seeds are made of: one empty message of each type.

func metadataRecords() []records.Message {
	return []records.Message{
		records.NewRegisterBrokerRecord(), records.NewUnregisterBrokerRecord(), records.NewTopicRecord(),
		records.NewPartitionRecord(), records.NewConfigRecord(), records.NewPartitionChangeRecord(),
		records.NewFenceBrokerRecord(), records.NewUnfenceBrokerRecord(), records.NewRemoveTopicRecord(),
		records.NewDelegationTokenRecord(), records.NewUserScramCredentialRecord(), records.NewFeatureLevelRecord(),
		records.NewClientQuotaRecord(), records.NewProducerIdsRecord(), records.NewBrokerRegistrationChangeRecord(),
		records.NewAccessControlEntryRecord(), records.NewRemoveAccessControlEntryRecord(), records.NewNoOpRecord(),
		records.NewZkMigrationStateRecord(), records.NewRemoveUserScramCredentialRecord(), records.NewBeginTransactionRecord(),
		records.NewEndTransactionRecord(), records.NewAbortTransactionRecord(), records.NewRemoveDelegationTokenRecord(),
		records.NewRegisterControllerRecord(), records.NewClearElrRecord(),
	}
}

func remoteRecords() []records.Message {
	return []records.Message{
		records.NewRemoteLogSegmentMetadataRecord(), records.NewRemoteLogSegmentMetadataUpdateRecord(), records.NewRemotePartitionDeleteMetadataRecord(),
		records.NewRemoteLogSegmentMetadataSnapshotRecord(),
	}
}

// groupRecords are keys, each with its value.
func groupRecords() [][2]records.Message {
	return [][2]records.Message{
		{records.NewLegacyOffsetCommitKey(), records.NewLegacyOffsetCommitValue()},
		{records.NewOffsetCommitKey(), records.NewOffsetCommitValue()},
		{records.NewGroupMetadataKey(), records.NewGroupMetadataValue()},
		{records.NewConsumerGroupMetadataKey(), records.NewConsumerGroupMetadataValue()},
		{records.NewConsumerGroupPartitionMetadataKey(), records.NewConsumerGroupPartitionMetadataValue()},
		{records.NewConsumerGroupMemberMetadataKey(), records.NewConsumerGroupMemberMetadataValue()},
		{records.NewConsumerGroupTargetAssignmentMetadataKey(), records.NewConsumerGroupTargetAssignmentMetadataValue()},
		{records.NewConsumerGroupTargetAssignmentMemberKey(), records.NewConsumerGroupTargetAssignmentMemberValue()},
		{records.NewConsumerGroupCurrentMemberAssignmentKey(), records.NewConsumerGroupCurrentMemberAssignmentValue()},
		{records.NewShareGroupMemberMetadataKey(), records.NewShareGroupMemberMetadataValue()},
		{records.NewShareGroupMetadataKey(), records.NewShareGroupMetadataValue()},
		{records.NewShareGroupTargetAssignmentMetadataKey(), records.NewShareGroupTargetAssignmentMetadataValue()},
		{records.NewShareGroupTargetAssignmentMemberKey(), records.NewShareGroupTargetAssignmentMemberValue()},
		{records.NewShareGroupCurrentMemberAssignmentKey(), records.NewShareGroupCurrentMemberAssignmentValue()},
		{records.NewShareGroupStatePartitionMetadataKey(), records.NewShareGroupStatePartitionMetadataValue()},
		{records.NewConsumerGroupRegularExpressionKey(), records.NewConsumerGroupRegularExpressionValue()},
		{records.NewStreamsGroupMetadataKey(), records.NewStreamsGroupMetadataValue()},
		{records.NewStreamsGroupMemberMetadataKey(), records.NewStreamsGroupMemberMetadataValue()},
		{records.NewStreamsGroupTargetAssignmentMetadataKey(), records.NewStreamsGroupTargetAssignmentMetadataValue()},
		{records.NewStreamsGroupTargetAssignmentMemberKey(), records.NewStreamsGroupTargetAssignmentMemberValue()},
		{records.NewStreamsGroupCurrentMemberAssignmentKey(), records.NewStreamsGroupCurrentMemberAssignmentValue()},
		{records.NewStreamsGroupTopologyKey(), records.NewStreamsGroupTopologyValue()},
	}
}

// transactionRecords are keys, each with its value.
func transactionRecords() [][2]records.Message {
	return [][2]records.Message{
		{records.NewTransactionLogKey(), records.NewTransactionLogValue()},
	}
}

// shareRecords are keys, each with its value.
func shareRecords() [][2]records.Message {
	return [][2]records.Message{
		{records.NewShareSnapshotKey(), records.NewShareSnapshotValue()},
		{records.NewShareUpdateKey(), records.NewShareUpdateValue()},
	}
}
