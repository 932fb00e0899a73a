package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func seeded(t *testing.T) *rand.Rand {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewSource(seed))
}

// outcome is what an operation gave, in a form that two file systems share.
func outcome(n int, err error) string {
	for _, e := range []error{fs.ErrNotExist, fs.ErrExist, io.EOF, syscall.ENOTEMPTY, syscall.EBADF} {
		if errors.Is(err, e) {
			return fmt.Sprintf("%d %v", n, e)
		}
	}
	if err != nil {
		return fmt.Sprintf("%d error", n)
	}
	return fmt.Sprintf("%d ok", n)
}

// TestMemIsLikeOS does the same operations to both and compares every answer.
func TestMemIsLikeOS(t *testing.T) {
	rng := seeded(t)
	mem, root := NewMem(), t.TempDir()
	fss := []FS{mem, OS()}
	if err := mem.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	name := func() string {
		return filepath.Join(root, []string{"a", "b", "d/a", "d/b", "e/x"}[rng.Intn(5)])
	}
	dir := func() string { return filepath.Join(root, []string{"", "d", "e"}[rng.Intn(3)]) }
	for i := range 3000 {
		a, b, d, seed := name(), name(), dir(), rng.Int63()
		kind := rng.Intn(8)
		var got [2]string
		for k, fsys := range fss {
			rng := rand.New(rand.NewSource(seed))
			switch kind {
			case 0:
				got[k] = outcome(0, fsys.MkdirAll(d, 0o755))
			case 1:
				got[k] = outcome(0, fsys.Rename(a, b))
			case 2:
				got[k] = outcome(0, fsys.Remove(a))
			case 3:
				if rng.Intn(10) == 0 {
					got[k] = outcome(0, fsys.RemoveAll(d))
					fsys.MkdirAll(root, 0o755)
				}
			case 4:
				got[k] = listing(fsys, d)
			default:
				got[k] = fileOps(rng, fsys, a)
			}
		}
		if got[0] != got[1] {
			t.Fatalf("operation %d of kind %d on %s, %s, %s:\nmem: %s\nos:  %s", i, kind, a, b, d, got[0], got[1])
		}
	}
}

func listing(fsys FS, dir string) string {
	var b strings.Builder
	entries, err := fsys.ReadDir(dir)
	b.WriteString(outcome(len(entries), err))
	for _, e := range entries {
		fi, err := e.Info()
		if err != nil {
			return err.Error()
		}
		size := fi.Size()
		if e.IsDir() {
			size = 0
		}
		fmt.Fprintf(&b, " %s %v %d", e.Name(), e.IsDir(), size)
	}
	return b.String()
}

func fileOps(rng *rand.Rand, fsys FS, name string) string {
	flag := os.O_RDWR
	for _, f := range []int{os.O_CREATE, os.O_CREATE, os.O_TRUNC, os.O_EXCL} {
		if rng.Intn(3) == 0 {
			flag |= f
		}
	}
	if flag&os.O_CREATE == 0 {
		flag &^= os.O_EXCL
	}
	f, err := fsys.OpenFile(name, flag, 0o644)
	if err != nil {
		return outcome(0, err)
	}
	defer f.Close()
	var out []string
	for range 4 {
		pos := int64(rng.Intn(3000))
		p := make([]byte, rng.Intn(1500))
		rng.Read(p)
		switch rng.Intn(5) {
		case 0:
			out = append(out, outcome(f.WriteAt(p, pos)))
		case 1:
			cut := rng.Intn(len(p) + 1)
			out = append(out, outcome(f.WritevAt([][]byte{p[:cut], nil, p[cut:]}, pos)))
		case 2:
			out = append(out, outcome(0, f.Truncate(pos)))
		case 3:
			n, err := f.ReadAt(p, pos)
			out = append(out, outcome(n, err)+fmt.Sprintf(" %08x", crc32.ChecksumIEEE(p[:n])))
		case 4:
			out = append(out, outcome(0, errors.Join(f.Sync(), f.DropCache(0, 0), f.StartWriteback(0, 10), fsys.SyncDir(filepath.Dir(name)))))
		}
	}
	size, err := f.Size()
	if m, merr := f.Map(size); merr != nil {
		out = append(out, merr.Error())
	} else {
		out = append(out, fmt.Sprintf("%08x", crc32.ChecksumIEEE(m.Bytes())))
		m.Close()
	}
	return strings.Join(append(out, outcome(int(size), err)), ", ")
}

func TestWritevAtTakesMoreBuffersThanTheKernel(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	f, err := OS().OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var bufs [][]byte
	for i := range 3*maxIov + 7 {
		bufs = append(bufs, bytes.Repeat([]byte{byte(i)}, i%5))
	}
	want := slices.Concat(bufs...)
	if n, err := f.WritevAt(bufs, 3); n != len(want) || err != nil {
		t.Fatal(n, err)
	}
	if got, err := ReadFile(OS(), name); err != nil || !bytes.Equal(got[3:], want) {
		t.Fatalf("%d bytes read back, %v", len(got), err)
	}
}

func TestWritevAtDoesNotAllocate(t *testing.T) {
	f, err := OS().OpenFile(filepath.Join(t.TempDir(), "f"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	bufs := [][]byte{make([]byte, 100), make([]byte, 200), make([]byte, 300), make([]byte, 1)}
	if n := testing.AllocsPerRun(100, func() { f.WritevAt(bufs, 0); f.WritevAt(bufs[:1], 0) }); n > 0 {
		t.Fatalf("%v allocations", n)
	}
}

// TestFaultIsAnError truncates a file that is mapped: the read that would kill
// the process is an error, and the process goes on.
func TestFaultIsAnError(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, bytes.Repeat([]byte{7}, 1<<16), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := OS().OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := f.Map(1 << 16)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	sum := func(p []byte) error {
		n := 0
		for _, b := range p {
			n += int(b)
		}
		if n != 7<<16 {
			return fmt.Errorf("sum %d", n)
		}
		return nil
	}
	if err := m.Read(sum); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(100); err != nil {
		t.Fatal(err)
	}
	var fault *FaultError
	if err := m.Read(sum); !errors.As(err, &fault) || fault.File != name {
		t.Fatalf("read of a truncated mapping: %v", err)
	}
	bug := func() (v any) {
		defer func() { v = recover() }()
		m.Read(func([]byte) error { panic("mine") })
		return nil
	}
	if v := bug(); v != "mine" {
		t.Fatalf("a panic of the caller came back as %v", v)
	}
}

func TestWriteFileAtomic(t *testing.T) {
	rng := seeded(t)
	for range 50 {
		m := NewMem()
		m.MkdirAll("d", 0o755)
		m.SyncDir(".")
		if err := WriteFileAtomic(m, "d/f", []byte("old")); err != nil {
			t.Fatal(err)
		}
		var clones []*Mem
		f := NewFaulty(m, func(op Op) error {
			clones = append(clones, m.CrashClone(rng))
			return nil
		})
		if err := WriteFileAtomic(f, "d/f", []byte("new")); err != nil {
			t.Fatal(err)
		}
		for i, c := range clones {
			if got, err := ReadFile(c, "d/f"); err != nil || (string(got) != "old" && string(got) != "new") {
				t.Fatalf("crash at operation %d leaves %q, %v", i, got, err)
			}
		}
		if got, err := ReadFile(m.CrashClone(rng), "d/f"); err != nil || string(got) != "new" {
			t.Fatalf("a crash after the return leaves %q, %v", got, err)
		}
	}
}

// TestLockExcludesJava locks a file and has another process try what Java's
// FileLock does: a process lock on the whole file.
func TestLockExcludesJava(t *testing.T) {
	if name := os.Getenv("VFS_TEST_LOCK"); name != "" {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err == nil {
			lk := unix.Flock_t{Type: unix.F_WRLCK}
			err = unix.FcntlFlock(f.Fd(), unix.F_SETLK, &lk)
		}
		fmt.Println("lock:", err)
		return
	}
	name := filepath.Join(t.TempDir(), ".lock")
	java := func() string {
		cmd := exec.Command(os.Args[0], "-test.run=^TestLockExcludesJava$")
		cmd.Env = append(os.Environ(), "VFS_TEST_LOCK="+name)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		line, _, _ := strings.Cut(string(out), "\n")
		return line
	}
	l, err := OS().Lock(name)
	if err != nil {
		t.Fatal(err)
	}
	if got := java(); got != "lock: "+unix.EAGAIN.Error() {
		t.Fatalf("while it is locked: %q", got)
	}
	if setLock != unix.F_SETLK { // a process lock does not exclude its own process
		if _, err := OS().Lock(name); !errors.Is(err, ErrLocked) {
			t.Fatalf("second lock of this process: %v", err)
		}
	}
	l.Close()
	if got := java(); got != "lock: <nil>" {
		t.Fatalf("after it is closed: %q", got)
	}
}

func TestMemLock(t *testing.T) {
	m := NewMem()
	l, err := m.Lock("f")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Lock("f"); !errors.Is(err, ErrLocked) {
		t.Fatal(err)
	}
	if _, err := m.KillClone().Lock("f"); err != nil {
		t.Fatal("a lock outlives its process:", err)
	}
	l.Close()
	if _, err := m.Lock("f"); err != nil {
		t.Fatal(err)
	}
}

// TestModificationTimes sets a file's time on each file system.
func TestModificationTimes(t *testing.T) {
	root := t.TempDir()
	mem := NewMem()
	if err := mem.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	var ops []string
	faulty := NewFaulty(mem, func(op Op) error {
		ops = append(ops, op.String())
		return nil
	})
	name := filepath.Join(root, "f")
	for _, fsys := range []FS{mem, OS(), faulty} {
		if err := fsys.Chtimes(filepath.Join(root, "none"), time.UnixMilli(5)); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("%T: %v", fsys, err)
		}
		f := mustOpen(t, fsys, name)
		for _, ms := range []int64{1, 1_700_000_000_123} {
			if err := fsys.Chtimes(name, time.UnixMilli(ms)); err != nil {
				t.Fatal(err)
			}
			if fi, err := fsys.Stat(name); err != nil || fi.ModTime().UnixMilli() != ms {
				t.Fatalf("%T: %v, want %d ms", fsys, fi.ModTime(), ms)
			}
		}
		f.Close()
	}
	if !slices.Contains(ops, "chtimes "+name) {
		t.Fatalf("not seen: %v", ops)
	}
}

// TestResident writes, drops and reads again: the answer follows.
func TestResident(t *testing.T) {
	const size = 1 << 20
	f := mustOpen(t, NewMem(), "f")
	f.WriteAt(make([]byte, size), 0)
	if n, ok := f.Resident(size-10, 100); n != 10 || !ok {
		t.Fatal(n, ok)
	}
	f = mustOpen(t, OS(), filepath.Join(t.TempDir(), "f"))
	defer f.Close()
	f.WriteAt(make([]byte, size), 0)
	f.Sync()
	all, ok := f.Resident(0, 0)
	if !ok {
		t.Skip("the kernel does not say")
	}
	if part, _ := f.Resident(0, size/2); all != size || part != size/2 {
		t.Fatalf("%d bytes of %d, %d of half", all, size, part)
	}
	if err := f.DropCache(0, 0); err != nil {
		t.Fatal(err)
	}
	if n, _ := f.Resident(0, 0); n > size/2 {
		t.Skipf("%d bytes are there after all: no such file system", n)
	}
	f.ReadAt(make([]byte, 100), 0)
	if n, _ := f.Resident(0, 100); n < 100 {
		t.Fatalf("%d bytes of a page that was read", n)
	}
	if !f.Arrived(0) {
		t.Error("a page that was read has not come")
	}
}

// What was dropped has not come until it was read ahead, and then comes by itself.
func TestReadAheadArrives(t *testing.T) {
	const size = 4 << 20
	f := mustOpen(t, OS(), filepath.Join(t.TempDir(), "f"))
	defer f.Close()
	f.WriteAt(make([]byte, size), 0)
	if err := errors.Join(f.Sync(), f.DropCache(0, 0)); err != nil {
		t.Fatal(err)
	}
	if n, ok := f.Resident(0, 0); !ok || n > 0 {
		t.Skipf("%d bytes are there after all, if that is known: %v", n, ok)
	}
	if f.Arrived(size / 2) {
		t.Error("a page that was dropped has come")
	}
	if err := f.ReadAhead(0, size); err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(time.Minute); !f.Arrived(size - 1); time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("what was asked for a minute ago has not come")
		}
	}
	if n, _ := f.Resident(0, 0); n != size {
		t.Errorf("%d bytes of %d are there", n, size)
	}
}
