package metadata

// Levels of the feature metadata.version (Kafka's MetadataVersion): what a level allows to be written.
const (
	MinMetadataVersion int16 = 7  // 3.3-IV3, the oldest that Kafka 4 opens
	MaxMetadataVersion int16 = 29 // 4.2-IV1

	levelMigration    int16 = 8  // 3.4-IV0: RegisterBrokerRecord 2
	levelTransactions int16 = 13 // 3.6-IV1: metadata transactions
	levelControllers  int16 = 15 // 3.7-IV0: RegisterControllerRecord
	levelDirectories  int16 = 17 // 3.7-IV2: directory ids
	levelELR          int16 = 23 // 4.0-IV1: eligible leader replicas
)

// RegisterBrokerVersion is the version of a RegisterBrokerRecord at a metadata version.
func RegisterBrokerVersion(level int16) int16 {
	switch {
	case level >= levelDirectories:
		return 3
	case level >= levelMigration:
		return 2
	}
	return 1
}

// PartitionVersion is the version of a PartitionRecord and a PartitionChangeRecord at a metadata version.
func PartitionVersion(level int16) int16 {
	switch {
	case level >= levelELR:
		return 2
	case level >= levelDirectories:
		return 1
	}
	return 0
}

// TransactionsAllowed tells whether metadata transactions may be written.
func TransactionsAllowed(level int16) bool { return level >= levelTransactions }

// ControllersAllowed tells whether controllers register.
func ControllersAllowed(level int16) bool { return level >= levelControllers }

// DirectoriesAllowed tells whether partitions name their replicas' log directories.
func DirectoriesAllowed(level int16) bool { return level >= levelDirectories }

// ELRAllowed tells whether partitions may have eligible leader replicas.
func ELRAllowed(level int16) bool { return level >= levelELR }
