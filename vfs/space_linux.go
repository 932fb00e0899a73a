package vfs

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

func (osFS) Space(dir string) (Space, error) {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Statfs(dir, &st) }); err != nil {
		return Space{}, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return Space{Free: int64(st.Bavail) * st.Bsize, Total: int64(st.Blocks) * st.Bsize}, nil
}

func (f *osFile) Allocate(pos, n int64) error {
	err := retry(func() error { return unix.Fallocate(f.fd, 0, pos, n) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return fillWith(f.f.WriteAt, pos, n)
	}
	return f.wrap("fallocate", err)
}
