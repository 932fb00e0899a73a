package vfs

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSyncReachesTheKernel: what cannot be synced says so, and what was synced is dirty no more.
func TestSyncReachesTheKernel(t *testing.T) {
	f, err := OS().OpenFile("/proc/self/status", os.O_RDONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	if err := f.Sync(); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("sync of a file of /proc: %v, the kernel says %v", err, syscall.EINVAL)
	}
	if err := OS().SyncDir("/proc/self"); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("sync of a directory of /proc: %v, the kernel says %v", err, syscall.EINVAL)
	}
	f = mustOpen(t, OS(), filepath.Join(t.TempDir(), "f"))
	defer f.Close()
	dirty := func() uint64 {
		t.Helper()
		fd, _ := f.Fd()
		var stat unix.Cachestat_t
		if err := unix.Cachestat(uint(fd), &unix.CachestatRange{}, &stat, 0); err != nil {
			t.Skip(err)
		}
		return stat.Dirty + stat.Writeback
	}
	if _, err := f.WriteAt(make([]byte, 1<<20), 0); err != nil {
		t.Fatal(err)
	}
	if dirty() == 0 {
		t.Skip("a file system that writes nothing back")
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if n := dirty(); n > 0 {
		t.Errorf("%d pages are dirty after a sync", n)
	}
}
