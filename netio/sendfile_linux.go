package netio

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const canSendfile = true

// iovecs is memory for one call of sendmsg; its writer keeps it.
type iovecs struct {
	msg unix.Msghdr
	iov [maxPieces]unix.Iovec
}

// sendPieces sends memory to a non-blocking socket; again: it takes nothing now. more keeps the
// kernel from sending a packet that is not full, because the rest follows at once.
func sendPieces(fd int, pieces [][]byte, more bool, v *iovecs) (n int, again bool, err error) {
	flags := unix.MSG_NOSIGNAL
	if more {
		flags |= unix.MSG_MORE
	}
	for i, p := range pieces {
		v.iov[i].Base = &p[0]
		v.iov[i].SetLen(len(p))
	}
	v.msg.Iov = &v.iov[0]
	v.msg.SetIovlen(len(pieces))
	for {
		r, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&v.msg)), uintptr(flags))
		if errno == unix.EINTR {
			continue
		}
		clear(v.iov[:len(pieces)])
		switch errno {
		case 0:
			return int(r), false, nil
		case unix.EAGAIN:
			return 0, true, nil
		}
		return 0, false, errno
	}
}

// sendFile sends a range of a file, or the beginning of it, to a non-blocking socket; again: it
// takes nothing now. 0 bytes mean that the file ends there. The file's own position is not used:
// any number of readers may share a descriptor.
func sendFile(fd int, f fileRange) (n int64, again bool, err error) {
	// The kernel sends at most 2 GiB less a page at a time, and says how much it was.
	const most = 1 << 30
	for {
		pos := f.pos
		k, err := unix.Sendfile(fd, int(f.fd), &pos, int(min(f.n, most)))
		switch err {
		case nil:
			return int64(k), false, nil
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return 0, true, nil
		}
		return 0, false, err
	}
}

// pollGone is what poll says of a socket whose peer has closed its side.
const pollGone = unix.POLLRDHUP
