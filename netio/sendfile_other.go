//go:build !linux

package netio

import (
	"errors"

	"golang.org/x/sys/unix"
)

// canSendfile is false: Views are read into a buffer here.
const canSendfile = false

type iovecs struct{}

// sendPieces sends the first piece of memory to a non-blocking socket; again: it takes nothing now.
func sendPieces(fd int, pieces [][]byte, _ bool, _ *iovecs) (n int, again bool, err error) {
	for {
		n, err = unix.Write(fd, pieces[0])
		switch err {
		case nil:
			return n, false, nil
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return 0, true, nil
		}
		return 0, false, err
	}
}

func sendFile(int, fileRange) (int64, bool, error) {
	return 0, false, errors.ErrUnsupported
}

// pollGone is what poll says of a socket whose peer has closed its side.
const pollGone = unix.POLLHUP
