package vfs

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestAllocate: what is allocated has blocks on the disk, and what was there stays.
func TestAllocate(t *testing.T) {
	const mib = 1 << 20
	for kind, fs := range map[string]FS{"os": OS(), "mem": NewMem()} {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			if err := fs.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			f, err := fs.OpenFile(filepath.Join(dir, "a"), os.O_RDWR|os.O_CREATE, 0o644)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt([]byte("here"), 0); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(f.Allocate(0, mib), f.Allocate(mib, mib), f.Allocate(0, mib)); err != nil {
				t.Fatal(err)
			}
			p := make([]byte, 4)
			if _, err := f.ReadAt(p, 0); err != nil || string(p) != "here" {
				t.Errorf("%q, %v", p, err)
			}
			info, err := fs.Stat(f.Name())
			if err != nil || info.Size() != 2*mib {
				t.Fatalf("%d bytes: %v", info.Size(), err)
			}
			if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Blocks*512 < 2*mib {
				t.Errorf("%d bytes of blocks", st.Blocks*512)
			}
			space, err := fs.Space(dir)
			if kind == "mem" {
				if !errors.Is(err, errors.ErrUnsupported) {
					t.Errorf("space without a limit: %+v, %v", space, err)
				}
			} else if err != nil || space.Free <= 0 || space.Total < space.Free {
				t.Errorf("space: %+v, %v", space, err)
			}
		})
	}
}

// TestFillWith: where the kernel cannot allocate, bytes are written.
func TestFillWith(t *testing.T) {
	for _, n := range []int64{1, fillChunk, fillChunk + 1, 3*fillChunk - 1} {
		next := int64(7)
		err := fillWith(func(p []byte, pos int64) (int, error) {
			if pos != next {
				t.Fatalf("wrote at %d, not at %d", pos, next)
			}
			next += int64(len(p))
			return len(p), nil
		}, 7, n)
		if err != nil || next != 7+n {
			t.Errorf("%d bytes: wrote up to %d: %v", n, next, err)
		}
	}
	err := fillWith(func([]byte, int64) (int, error) { return 0, syscall.ENOSPC }, 0, 10)
	if !IsFull(err) || !IsFull(&os.PathError{Err: syscall.EDQUOT}) || IsFull(syscall.EIO) || IsFull(nil) {
		t.Error(err)
	}
}

// TestMemLimit: a memory file system can be full, writes what fits, and has room
// again when something went.
func TestMemLimit(t *testing.T) {
	m := NewMem()
	m.Limit = 100
	create := func(name string) File {
		f, err := m.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	a, b := create("a"), create("b")
	if _, err := a.WriteAt(make([]byte, 70), 0); err != nil {
		t.Fatal(err)
	}
	if n, err := b.WriteAt(make([]byte, 50), 0); n != 30 || !IsFull(err) {
		t.Fatalf("wrote %d: %v", n, err)
	}
	if _, err := a.WriteAt(make([]byte, 70), 0); err != nil {
		t.Errorf("writing over what is there: %v", err)
	}
	if err := a.Allocate(60, 11); !IsFull(err) {
		t.Errorf("allocate: %v", err)
	}
	if s, err := m.Space("."); err != nil || s != (Space{Free: 0, Total: 100}) {
		t.Errorf("%+v, %v", s, err)
	}
	if err := m.Remove("a"); err != nil {
		t.Fatal(err)
	}
	if err := b.Allocate(30, 70); err != nil {
		t.Error(err)
	}
	if s, err := m.KillClone().Space("."); err != nil || s.Free != 0 {
		t.Errorf("clone: %+v, %v", s, err)
	}
	if err := b.Truncate(10); err != nil {
		t.Fatal(err)
	}
	if s, err := m.Space("."); err != nil || s.Free != 90 {
		t.Errorf("%+v, %v", s, err)
	}
}
