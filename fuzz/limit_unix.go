//go:build unix

package fuzz

import "golang.org/x/sys/unix"

// limitData bounds the memory of this process that is written to, where the system can.
func limitData(n uint64) {
	var was unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_DATA, &was) == nil {
		was.Cur = min(n, was.Max)
		_ = unix.Setrlimit(unix.RLIMIT_DATA, &was)
	}
}
