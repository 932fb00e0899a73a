//go:build unix && !linux

package vfs

import "golang.org/x/sys/unix"

// setLock takes a process lock, as Java does: it excludes other processes, not
// other openings in this one.
const setLock = unix.F_SETLK

func fdatasync(fd int) error { return unix.Fsync(fd) }

func dropCache(int, int64, int64) error { return nil }

func readAhead(int, int64, int64) error { return nil }

func startWriteback(int, int64, int64) error { return nil }

func arrived(int, int64) bool { return true }

func resident(int, int64, int64) (bytes int64, ok bool) { return 0, false }

func pwritev(fd int, bufs [][]byte, pos int64) (n int, err error) {
	for _, b := range bufs {
		for len(b) > 0 {
			done, err := unix.Pwrite(fd, b, pos)
			if err != nil {
				return n, err
			}
			n, pos, b = n+done, pos+int64(done), b[done:]
		}
	}
	return n, nil
}
