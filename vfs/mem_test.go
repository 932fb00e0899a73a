package vfs

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func mustOpen(t *testing.T, fs FS, name string) File {
	t.Helper()
	f, err := fs.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestCrashKeepsWhatWasSynced writes at random and looks at each sector after
// crashes: it is one of those that it was since the last sync, or zeros where
// the file was shorter then.
func TestCrashKeepsWhatWasSynced(t *testing.T) {
	rng := seeded(t)
	const sectors = 40
	seen := map[string]bool{}
	for range 300 {
		m := NewMem()
		f := mustOpen(t, m, "f")
		m.SyncDir(".")
		var since [sectors][][]byte // what each sector was since the sync, the synced one first
		synced := 0
		data := make([]byte, 0, sectors*sector)
		note := func() {
			for i := range since {
				s := make([]byte, sector)
				if i*sector < len(data) {
					copy(s, data[i*sector:])
				}
				since[i] = append(since[i], s)
			}
		}
		note()
		for range rng.Intn(12) {
			if rng.Intn(4) == 0 {
				f.Sync()
				for i := range since {
					since[i] = since[i][len(since[i])-1:]
				}
				synced = len(data)
				continue
			}
			pos := rng.Intn(sectors) * sector
			p := bytes.Repeat([]byte{byte(1 + rng.Intn(255))}, (1+rng.Intn(sectors-pos/sector))*sector)
			f.WriteAt(p, int64(pos))
			data = data[:max(len(data), pos+len(p))]
			copy(data[pos:], p)
			note()
		}
		got, err := ReadFile(m.CrashClone(rng), "f")
		if err != nil || len(got) < synced || len(got) > len(data) {
			t.Fatalf("%d bytes after a crash, %d synced, %d written (%v)", len(got), synced, len(data), err)
		}
		whole := true
		for i := 0; i*sector < len(got); i++ {
			s := got[i*sector : (i+1)*sector]
			if !slices.ContainsFunc(since[i], func(old []byte) bool { return bytes.Equal(s, old) }) && !(bytes.Count(s, []byte{0}) == sector && i*sector >= synced) {
				t.Fatalf("sector %d is nothing that it was", i)
			}
			whole = whole && bytes.Equal(s, data[i*sector:(i+1)*sector])
		}
		switch {
		case len(got) == synced:
			seen["lost"] = true
		case len(got) == len(data) && whole:
			seen["kept"] = true
		default:
			seen["torn"] = true
		}
	}
	if len(seen) != 3 {
		t.Fatalf("crashes were only %v", seen)
	}
}

func TestCrashLosesUnsyncedNames(t *testing.T) {
	rng := seeded(t)
	m := NewMem()
	m.MkdirAll("d", 0o755)
	m.SyncDir(".")
	for _, name := range []string{"d/old", "d/gone"} {
		f := mustOpen(t, m, name)
		f.WriteAt([]byte(name), 0)
		f.Sync()
	}
	m.SyncDir("d")
	f := mustOpen(t, m, "d/new")
	f.WriteAt([]byte("d/new"), 0)
	f.Sync()
	m.Rename("d/new", "d/newer")
	m.Rename("d/old", "d/older")
	m.Remove("d/gone")
	states := map[string]bool{}
	for range 200 {
		c := m.CrashClone(rng)
		entries, err := c.ReadDir("d")
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			p, err := ReadFile(c, "d/"+e.Name())
			if err != nil || !strings.HasPrefix(e.Name(), strings.TrimPrefix(string(p), "d/")) {
				t.Fatalf("%s holds %q, %v", e.Name(), p, err)
			}
			names = append(names, e.Name())
		}
		if slices.Contains(names, "old") == slices.Contains(names, "older") {
			t.Fatalf("a rename is not atomic: %v", names)
		}
		if slices.Contains(names, "new") && slices.Contains(names, "newer") {
			t.Fatalf("a renamed file is there twice: %v", names)
		}
		states[strings.Join(names, " ")] = true
	}
	if len(states) < 6 {
		t.Fatalf("only %d states: %v", len(states), states)
	}
	m.SyncDir("d")
	if entries, _ := m.CrashClone(rng).ReadDir("d"); len(entries) != 2 {
		t.Fatalf("%v after the directory was synced", entries)
	}
}

func TestKillKeepsWritesThatAPowerCutMayLose(t *testing.T) {
	rng := seeded(t)
	m := NewMem()
	f := mustOpen(t, m, "f")
	f.WriteAt(make([]byte, 5000), 0)
	k := m.KillClone()
	f.WriteAt([]byte("later"), 0)
	if p, err := ReadFile(k, "f"); err != nil || !bytes.Equal(p, make([]byte, 5000)) {
		t.Fatal(len(p), err)
	}
	lost := false
	for range 50 {
		_, err := k.CrashClone(rng).Stat("f")
		lost = lost || err != nil
	}
	if !lost {
		t.Fatal("a kill made a file durable")
	}
}

// TestFailedSync is Linux's: the pages count as clean, are read, and are gone
// when the cache is.
func TestFailedSync(t *testing.T) {
	m := NewMem()
	f := mustOpen(t, m, "f")
	f.WriteAt([]byte("one"), 0)
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	f.WriteAt([]byte("two"), 3)
	m.FailSync("f")
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal("the second sync tells, which Linux's does not:", err)
	}
	if p, _ := ReadFile(m, "f"); string(p) != "onetwo" {
		t.Fatalf("%q before the cache is dropped", p)
	}
	f.DropCache(0, 0)
	if p, _ := ReadFile(m, "f"); string(p) != "one" {
		t.Fatalf("%q after", p)
	}
}

func TestFaultyAndLogging(t *testing.T) {
	m := NewMem()
	var trace strings.Builder
	boom := errors.New("boom")
	var next error
	fs := NewLogging(NewFaulty(m, func(op Op) error {
		if op.Kind == OpWrite {
			return next
		}
		return nil
	}), &trace)
	fs.MkdirAll("d", 0o755)
	f := mustOpen(t, fs, "d/f")
	if n, err := f.WritevAt([][]byte{[]byte("ab"), []byte("cd")}, 1); n != 4 || err != nil {
		t.Fatal(n, err)
	}
	next = &ShortWrite{N: 1, Err: boom}
	if n, err := f.WriteAt([]byte("xyz"), 1); n != 1 || !errors.Is(err, boom) {
		t.Fatal(n, err)
	}
	next = boom
	if n, err := f.WriteAt([]byte("xyz"), 1); n != 0 || err != boom {
		t.Fatal(n, err)
	}
	if p, _ := ReadFile(m, "d/f"); string(p) != "\x00xbcd" {
		t.Fatalf("%q", p)
	}
	f.Truncate(2)
	f.Sync()
	f.Close()
	fs.Rename("d/f", "d/g")
	fs.SyncDir("d")
	fs.Remove("d/g")
	want := "mkdir d\ncreate d/f\nwrite d/f 1+4\nwrite d/f 1+3\nwrite d/f 1+3\ntruncate d/f 2\nsync d/f\nclose d/f\nrename d/f d/g\nsyncdir d\nremove d/g\n"
	if trace.String() != want {
		t.Fatalf("trace:\n%s\nwant:\n%s", trace.String(), want)
	}
}
