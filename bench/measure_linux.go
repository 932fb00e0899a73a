package bench

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// selfCPU is the user and system time of this process.
func selfCPU() time.Duration {
	var use syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &use) != nil {
		return -1
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

// residentBytes is the resident set of a process (proc(5), /proc/PID/statm), -1 when it is not known.
func residentBytes(pid int) int64 {
	if pid == 0 {
		return -1
	}
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return -1
	}
	fields := bytes.Fields(statm)
	if len(fields) < 2 {
		return -1
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return -1
	}
	return pages * int64(os.Getpagesize())
}

// allocated is what a file takes of the disk, holes left out and preallocated blocks included.
func allocated(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}

// settle writes back what is dirty on a target's file system, so that no run pays for the one
// before it.
func settle(dir string) error {
	if dir == "" {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("bench: writing back %s: %w", dir, err)
	}
	return nil
}

// evict drops a file's clean pages from the page cache.
func evict(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("bench: evicting %s: %w", path, err)
	}
	return nil
}

// fileSystem says what kind of file system a directory lies on, and on which device.
func fileSystem(dir string) string {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return ""
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return ""
	}
	best, name := "", ""
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 4 || len(f[1]) < len(best) {
			continue
		}
		if under := strings.TrimSuffix(f[1], "/") + "/"; strings.HasPrefix(real+"/", under) {
			best, name = f[1], fmt.Sprintf("%s on %s (%s)", f[2], f[0], f[3])
		}
	}
	return name
}
