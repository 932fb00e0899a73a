//go:build unix

package compaction

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// slotMemory returns memory for n slots outside of the Go heap: the collector neither scans nor counts it, and it is
// given back at once. The kernel gives it out as it is touched.
func slotMemory(n int) (mem []byte, heap []slot, err error) {
	mem, err = unix.Mmap(-1, 0, int(slotSize)*n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, nil, fmt.Errorf("compaction: memory for an offset map of %d slots: %w", n, err)
	}
	adviseHuge(mem)
	return mem, nil, nil
}

func freeSlotMemory(mem []byte) {
	if mem == nil {
		return
	}
	if err := unix.Munmap(mem); err != nil {
		panic("BUG: compaction: " + err.Error())
	}
}
