//go:build unix && !linux

package vfs

import (
	"errors"
	"os"
)

func (osFS) Space(dir string) (Space, error) {
	return Space{}, &os.PathError{Op: "statfs", Path: dir, Err: errors.ErrUnsupported}
}

func (f *osFile) Allocate(pos, n int64) error { return fillWith(f.f.WriteAt, pos, n) }
