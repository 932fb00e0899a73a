package vfs

import (
	"os"

	"golang.org/x/sys/unix"
)

// setLock takes an open file description lock: it excludes the process locks
// that Java takes, and, unlike those, other openings in this process too.
const setLock = unix.F_OFD_SETLK

func fdatasync(fd int) error { return unix.Fdatasync(fd) }

func dropCache(fd int, pos, n int64) error {
	return unix.Fadvise(fd, pos, n, unix.FADV_DONTNEED)
}

func readAhead(fd int, pos, n int64) error {
	return unix.Fadvise(fd, pos, n, unix.FADV_WILLNEED)
}

func startWriteback(fd int, pos, n int64) error {
	switch err := unix.SyncFileRange(fd, pos, n, unix.SYNC_FILE_RANGE_WRITE); err {
	case unix.ENOSYS, unix.EPERM:
		return nil // a container forbids it: it is a hint
	default:
		return err
	}
}

// resident asks cachestat(2), which Linux has from 6.5 on; containers may forbid it.
func resident(fd int, pos, n int64) (bytes int64, ok bool) {
	var stat unix.Cachestat_t
	err := unix.Cachestat(uint(fd), &unix.CachestatRange{Off: uint64(pos), Len: uint64(n)}, &stat, 0)
	if err != nil {
		return 0, false
	}
	return int64(stat.Cache) * int64(os.Getpagesize()), true
}

// arrived reads a byte with RWF_NOWAIT, which file systems that do not have it refuse.
func arrived(fd int, pos int64) bool {
	var p [1]byte
	_, err := unix.Preadv2(fd, [][]byte{p[:]}, pos, unix.RWF_NOWAIT)
	return err != unix.EAGAIN
}

func pwritev(fd int, bufs [][]byte, pos int64) (int, error) {
	return unix.Pwritev(fd, bufs, pos)
}
