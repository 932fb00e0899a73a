//go:build !linux

package bench

import (
	"errors"
	"io/fs"
	"time"
)

func selfCPU() time.Duration { return -1 }

func residentBytes(int) int64 { return -1 }

func allocated(info fs.FileInfo) int64 { return info.Size() }

// settle is left to the system: what is dirty may be paid for by the next run.
func settle(string) error { return nil }

func evict(string) error {
	return errors.New("bench: pages can be dropped from the page cache on Linux only")
}

func fileSystem(string) string { return "" }
