package main

import (
	"os"
	"syscall"
)

// touchMemory uses and gives back that much memory, so that the kernel has pages at hand whose
// first use is over. On a virtual machine that one costs a fault in the hypervisor, which is
// charged to whichever broker happens to write to the page cache first. It is best effort: a
// machine that cannot give the memory measures without.
func touchMemory(n int64) {
	mem, err := syscall.Mmap(-1, 0, int(n), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return
	}
	for i := 0; i < len(mem); i += os.Getpagesize() {
		mem[i] = 1
	}
	_ = syscall.Munmap(mem) // it cannot fail for what Mmap gave
}
