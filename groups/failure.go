package groups

import (
	"errors"

	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/wire"
)

// Coded is an error of a Log that has a code of Kafka's.
type Coded interface {
	error
	Code() wire.Code
}

// unwritten says whether a decision's records are not in the log: then what memory has in advance of them is taken back.
// Those that were not committed in time are there, and count.
func unwritten(err error) bool { return err != nil && !errors.Is(err, coordinator.ErrTimedOut) }

// failureCode is the answer to a request whose records were not committed.
func failureCode(err error) wire.Code {
	var coded Coded
	switch {
	case err == nil:
		return wire.None
	case errors.Is(err, coordinator.ErrClosed):
		return wire.NotCoordinator
	case errors.Is(err, coordinator.ErrBusy), errors.Is(err, coordinator.ErrTimedOut):
		return wire.CoordinatorNotAvailable
	case errors.As(err, &coded):
		return coordinatorCode(coded.Code())
	}
	return wire.UnknownServerError
}

// fetchFailureCode is failureCode for OffsetFetch: consumers before 3.9 do not expect COORDINATOR_NOT_AVAILABLE there.
func fetchFailureCode(err error) wire.Code {
	if code := failureCode(err); code != wire.CoordinatorNotAvailable {
		return code
	}
	return wire.NotCoordinator
}

// coordinatorCode turns what a partition answers to a write into what a coordinator answers.
func coordinatorCode(code wire.Code) wire.Code {
	switch code {
	case wire.NetworkException:
		return wire.CoordinatorLoadInProgress
	case wire.UnknownTopicOrPartition, wire.NotEnoughReplicas, wire.RequestTimedOut:
		return wire.CoordinatorNotAvailable
	case wire.NotLeaderOrFollower, wire.KafkaStorageError:
		return wire.NotCoordinator
	case wire.MessageTooLarge, wire.RecordListTooLarge, wire.InvalidFetchSize:
		return wire.UnknownServerError
	}
	return code
}
