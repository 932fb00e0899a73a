package netio

import (
	"golang.org/x/sys/unix"
)

// readSocket reads once from a non-blocking socket; again: there is nothing now. n is 0 at the end
// of the input.
func readSocket(fd int, p []byte) (n int, again bool, err error) {
	for {
		n, err = unix.Read(fd, p)
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
