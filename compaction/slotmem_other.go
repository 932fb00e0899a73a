//go:build !unix

package compaction

// slotMemory returns memory for n slots.
func slotMemory(n int) (mem []byte, heap []slot, err error) { return nil, make([]slot, n), nil }

func freeSlotMemory([]byte) {}
