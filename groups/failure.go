package groups

import (
	"errors"

	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/wire"
)

// failureCode is the answer to a request whose records were not committed, or that no machine could take.
func failureCode(err error) wire.Code { return coordinator.Code(err) }

// fetchFailureCode is failureCode for OffsetFetch: consumers before 3.9 do not expect COORDINATOR_NOT_AVAILABLE there.
func fetchFailureCode(err error) wire.Code {
	if code := failureCode(err); code != wire.CoordinatorNotAvailable {
		return code
	}
	return wire.NotCoordinator
}

// unwritten says that a decision's records are not in the log, so that what it changed in memory must be undone. After a
// timeout they are: only the answer does not wait for their commit. Where it is not known, the machine is at its end.
func unwritten(err error) bool { return err != nil && !errors.Is(err, coordinator.ErrTimedOut) }
