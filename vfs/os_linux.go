package vfs

import "golang.org/x/sys/unix"

// setLock takes an open file description lock: it excludes the process locks
// that Java takes, and, unlike those, other openings in this process too.
const setLock = unix.F_OFD_SETLK

func fdatasync(fd int) error { return unix.Fdatasync(fd) }

func dropCache(fd int, pos, n int64) error {
	return unix.Fadvise(fd, pos, n, unix.FADV_DONTNEED)
}

func startWriteback(fd int, pos, n int64) error {
	return unix.SyncFileRange(fd, pos, n, unix.SYNC_FILE_RANGE_WRITE)
}

func pwritev(fd int, bufs [][]byte, pos int64) (int, error) {
	return unix.Pwritev(fd, bufs, pos)
}
