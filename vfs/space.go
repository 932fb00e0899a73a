package vfs

import (
	"errors"
	"math/rand/v2"
	"syscall"
)

// Space is what a file system has room for, in bytes.
type Space struct {
	Free  int64 // for a process without privileges
	Total int64
}

// IsFull reports whether an error says that there is no room: the file system
// is full, or a quota is used up.
func IsFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// IsExhausted reports whether an error says that there are too many open files, in
// the process or on the machine. What failed with it did nothing, and may succeed
// when it is tried again.
func IsExhausted(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, ErrTooManyOpen)
}

// fillChunk is how much fillWith writes at once.
const fillChunk = 256 << 10

// fillWith is Allocate where the kernel cannot do it: it writes the bytes. They
// do not compress, since a file system that compresses would not set aside much
// for others.
func fillWith(write func(p []byte, pos int64) (int, error), pos, n int64) error {
	rng := rand.NewChaCha8([32]byte{})
	p := make([]byte, min(n, fillChunk))
	for n > 0 {
		p = p[:min(n, fillChunk)]
		rng.Read(p) // never fails
		done, err := write(p, pos)
		if err != nil {
			return err
		}
		pos, n = pos+int64(done), n-int64(done)
	}
	return nil
}
