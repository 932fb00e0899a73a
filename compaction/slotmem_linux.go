package compaction

import "golang.org/x/sys/unix"

// adviseHuge asks for huge pages: searches go all over the map. Where there are none it does as well without.
func adviseHuge(mem []byte) { _ = unix.Madvise(mem, unix.MADV_HUGEPAGE) }
