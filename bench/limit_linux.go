package bench

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// writeAt writes pieces one behind the other from pos on, by one call where the kernel takes all.
func writeAt(f *os.File, pieces [][]byte, pos int64) error {
	if len(pieces) == 1 {
		_, err := f.WriteAt(pieces[0], pos)
		return err
	}
	n, err := unix.Pwritev(int(f.Fd()), pieces, pos)
	if err != nil && err != unix.EINTR {
		return os.NewSyscallError("pwritev", err)
	}
	return writeRest(f, pieces, pos, max(n, 0))
}

// writeRest writes pieces, of which the first n bytes are written already, from pos on.
func writeRest(f *os.File, pieces [][]byte, pos int64, n int) error {
	for _, p := range pieces {
		if done := min(n, len(p)); done < len(p) {
			if _, err := f.WriteAt(p[done:], pos+int64(done)); err != nil {
				return err
			}
		}
		pos += int64(len(p))
		n = max(0, n-len(p))
	}
	return nil
}

// dataSync returns when what was written to the file is on disk, and its length.
func dataSync(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var syncErr error
	err = raw.Control(func(fd uintptr) {
		for syncErr = unix.EINTR; syncErr == unix.EINTR; {
			syncErr = unix.Fdatasync(int(fd))
		}
	})
	return errors.Join(err, os.NewSyscallError("fdatasync", syncErr))
}

// trySend sends some of p and tells the kernel that more follows at once.
func trySend(fd int, p []byte) (int, error) {
	return unix.SendmsgN(fd, p, nil, nil, unix.MSG_MORE|unix.MSG_NOSIGNAL)
}

const sendCall = "sendmsg"

// sendFile sends a range of a file, whose own position it does not use.
func sendFile(raw syscall.RawConn, f *os.File, from, n int64) error {
	src, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var writeErr, sendErr error
	err = src.Control(func(in uintptr) {
		writeErr = raw.Write(func(out uintptr) (done bool) {
			done, sendErr = trySendFile(int(out), int(in), &from, &n)
			return done
		})
	})
	if sendErr != nil {
		return fmt.Errorf("%s: %w", f.Name(), sendErr)
	}
	return errors.Join(err, writeErr)
}

// trySendFile sends until n is 0; false: the socket takes nothing now.
func trySendFile(out, in int, from, n *int64) (done bool, err error) {
	for *n > 0 {
		k, err := unix.Sendfile(out, in, from, int(*n))
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return false, nil
		case err != nil:
			return true, os.NewSyscallError("sendfile", err)
		case k == 0:
			return true, io.ErrUnexpectedEOF
		default:
			*n -= int64(k)
		}
	}
	return true, nil
}
