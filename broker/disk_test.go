package broker

import (
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"github.com/millrace-project/millrace/quorum"
	"github.com/millrace-project/millrace/vfs"
	"github.com/millrace-project/millrace/wire"
)

// What the file system refuses is an error that clients try again after.
func TestCodeOfFileErrors(t *testing.T) {
	for _, err := range []error{
		&fs.PathError{Op: "open", Path: "x", Err: syscall.EMFILE}, &fs.PathError{Op: "read", Path: "x", Err: syscall.EIO}, vfs.ErrTooManyOpen,
	} {
		if got := codeOf(fmt.Errorf("commitlog: read t-0 at offset 5: %w", err)); got != wire.KafkaStorageError {
			t.Errorf("%v is told as %v", err, got)
		}
	}
	if got := codeOf(fmt.Errorf("whatever")); got != wire.UnknownServerError {
		t.Error(got)
	}
}

func TestPrivilegedLogs(t *testing.T) {
	for name, want := range map[string]bool{
		quorum.LogName: true, "__consumer_offsets-49": true, "__transaction_state-0": true, "__share_group_state-3": true,
		"orders-0": false, "__consumer_offsets": false, "__consumer_offsets-copy-1": false, "data": false, "": false,
	} {
		if got := privilegedLog(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}
