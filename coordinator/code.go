package coordinator

import (
	"errors"

	"github.com/millrace-project/millrace/wire"
)

// Coded is an error of a Log that has a code of Kafka's: that of the partition which is the log.
type Coded interface {
	error
	Code() wire.Code
}

// Code is what a coordinator answers to a request whose records were not committed, or that it could not take.
func Code(err error) wire.Code {
	var coded Coded
	switch {
	case err == nil:
		return wire.None
	case errors.Is(err, ErrClosed), errors.Is(err, ErrElsewhere), errors.Is(err, ErrNoTopic):
		return wire.NotCoordinator
	case errors.Is(err, ErrLoading):
		return wire.CoordinatorLoadInProgress
	case errors.Is(err, ErrBusy), errors.Is(err, ErrTimedOut):
		return wire.CoordinatorNotAvailable
	case errors.As(err, &coded):
		return ofPartition(coded.Code())
	}
	return wire.UnknownServerError
}

// ofPartition turns what a partition answers to a write into what a coordinator answers.
func ofPartition(code wire.Code) wire.Code {
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
