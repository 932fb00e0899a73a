package index

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"sort"
	"sync"

	"github.com/millrace-project/millrace/vfs"
)

const (
	maxEntrySize = txnEntrySize

	// tailMax and tailKeep bound the entries in memory of an active index: at
	// tailMax they are written out and the newest tailKeep are kept, which is
	// where lookups of a log's readers mostly fall.
	tailMax  = 1024
	tailKeep = 512

	// blockSize is what one pread of a lookup in an active index's older part
	// takes from the file.
	blockSize = 4096
)

// layout is what tells one kind of index from another.
type layout struct {
	size     int                           // bytes of an entry
	order    func(e []byte) int64          // strictly increasing key
	offset   func(e []byte, b int64) int64 // absolute offset, for the check against the base offset
	optional bool                          // a missing file is an empty index
	padded   bool                          // Kafka preallocates the file: it may end in entries of zeros
	zeroLone bool                          // a lone entry of zeros is an entry all the same
}

// entry is room for one entry of any kind.
type entry [maxEntrySize]byte

// table is a file of fixed-size entries in increasing order. It is the whole
// mechanism of the three kinds of index; they add only their fields.
type table struct {
	layout
	fs      vfs.FS
	handles *vfs.Handles
	base    int64

	// slot holds a vfs.File for reading and writing, or, once sealed and
	// synced, a *vfs.Mapping.
	slot vfs.Slot

	// write serialises flushes, loads and truncations, so that mu is never
	// held over I/O. Taken before mu.
	write sync.Mutex

	mu struct {
		sync.Mutex
		path     string
		loaded   bool
		writable bool
		n        int    // entries
		tail     []byte // entries [tailFrom, n)
		tailFrom int
		flushed  int    // entries [0, flushed) are in the file; tailFrom ≤ flushed
		trim     bool   // the file is longer than flushed entries, or missing
		held     bool   // nothing is written but by Flush, Sync and Seal
		pinned   bool   // file is held open: it has bytes that no Sync has covered
		foreign  bool   // Distrust, and no Sync since
		gen      uint64 // counts changes of the file
		failed   error  // a sync failed: no other is tried
	}
}

func (t *table) init(fs vfs.FS, h *vfs.Handles, path string, base int64, writable bool) {
	t.fs, t.handles, t.base = fs, h, base
	t.mu.path, t.mu.writable = path, writable
	t.slot.Open = t.open
}

func (t *table) open() (io.Closer, error) {
	t.mu.Lock()
	path, writable := t.mu.path, t.mu.writable
	t.mu.Unlock()
	if writable {
		return t.fs.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	}
	f, err := t.fs.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	return f.Map(size)
}

// Path returns the file's name as it is now.
func (t *table) Path() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.path
}

// SetPath tells the index that its file was renamed. Handles that are open
// stay valid.
func (t *table) SetPath(path string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.path = path
}

func (t *table) corrupt(pos int64, reason string) error {
	return &CorruptError{File: t.Path(), Pos: pos, Reason: reason}
}

// load finds out how many entries the file has.
func (t *table) load() error {
	t.mu.Lock()
	loaded := t.mu.loaded
	t.mu.Unlock()
	if loaded {
		return nil
	}
	t.write.Lock()
	defer t.write.Unlock()
	return t.loadLocked()
}

// loadLocked is load for one who holds write.
func (t *table) loadLocked() error {
	t.mu.Lock()
	loaded := t.mu.loaded
	t.mu.Unlock()
	if loaded {
		return nil
	}
	size, err := t.fileSize()
	if err != nil {
		return err
	}
	if size%int64(t.size) != 0 {
		return t.corrupt(size-size%int64(t.size), "length is not a multiple of the entry size")
	}
	n := 0
	if size > 0 {
		err = t.withEntries(int(size)/t.size, func(e entries) error {
			n, err = t.count(e)
			return err
		})
		if err != nil {
			return err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.n, t.mu.tailFrom, t.mu.flushed = n, n, n
	t.mu.tail = nil
	t.mu.trim = int64(n*t.size) < size
	t.mu.loaded = true
	return nil
}

// LoadUnchecked takes the file for what its length says, zeros and a torn tail
// included, where Check would refuse it or cut it. It is for recovery, which
// then asks Valid and calls Keep. A missing file is an empty one, to be created.
// What it finds the disk has, whatever the kernel believed.
func (t *table) LoadUnchecked() error {
	t.write.Lock()
	defer t.write.Unlock()
	t.unmap()
	if err := t.dropCache(); err != nil {
		return err
	}
	size, err := t.fileSize()
	if _, missing := err.(*CorruptError); err != nil && !missing {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.n = int(size) / t.size
	t.mu.tail, t.mu.tailFrom, t.mu.flushed = nil, t.mu.n, t.mu.n
	t.mu.trim = err != nil || size%int64(t.size) != 0
	t.mu.loaded, t.mu.writable = true, true
	return nil
}

// dropCache has the file read from the disk: after a failed sync, of a process that is
// gone too, what was lost counts as clean, and no later sync would write it.
func (t *table) dropCache() error {
	f, err := t.fs.OpenFile(t.Path(), os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(f.DropCache(0, 0), f.Close())
}

func (t *table) fileSize() (int64, error) {
	path := t.Path()
	fi, err := t.fs.Stat(path)
	switch {
	case err == nil:
		return fi.Size(), nil
	case !errors.Is(err, fs.ErrNotExist):
		return 0, err
	case t.optional:
		return 0, nil
	}
	return 0, t.corrupt(0, "file is missing")
}

// unmap closes an idle handle: before the index is opened for appending, whose
// handle is another. Lookups are excluded then.
func (t *table) unmap() {
	t.mu.Lock()
	writable := t.mu.writable
	t.mu.Unlock()
	if writable {
		return // the handle is a file, perhaps a pinned one
	}
	t.handles.Drop(&t.slot)
}

// count returns how many of the entries are there before the zeros that
// preallocation leaves, and checks the first and the last.
func (t *table) count(all entries) (int, error) {
	var e entry
	var err error
	zero := func(i int) bool {
		if err == nil {
			err = all.at(i, &e)
		}
		return e == entry{}
	}
	n := all.n
	if t.padded && zero(n-1) && !(t.zeroLone && n == 1) {
		n = sort.Search(n, zero)
	}
	if err != nil || n == 0 {
		return 0, err
	}
	var first, last entry
	if err = all.at(0, &first); err == nil {
		err = all.at(n-1, &last)
	}
	if err != nil {
		return 0, err
	}
	if t.offset(last[:], t.base) < t.base {
		return 0, t.corrupt(int64((n-1)*t.size), "last entry lies below the base offset")
	}
	if n > 1 && t.order(first[:]) >= t.order(last[:]) {
		return 0, t.corrupt(int64((n-1)*t.size), "last entry is not above the first")
	}
	return n, nil
}

// entries is the file's first n entries, in memory or by pread.
type entries struct {
	t     *table
	n     int
	all   []byte   // nil: read from file
	file  vfs.File // through block
	block *[blockSize]byte
}

// withEntries runs fn over the first n entries of the file. A fault in a
// mapping is a CorruptError.
func (t *table) withEntries(n int, fn func(e entries) error) error {
	val, err := t.handles.Acquire(&t.slot)
	if err != nil {
		return err
	}
	defer t.handles.Release(&t.slot)
	m, ok := val.(*vfs.Mapping)
	if !ok {
		block := blocks.Get().(*[blockSize]byte)
		defer blocks.Put(block)
		e := entries{t: t, n: n, file: val.(vfs.File), block: block}
		if n*t.size <= blockSize { // one read, whatever is asked of it
			if e.all, err = e.get(0, n); err != nil {
				return err
			}
		}
		return fn(e)
	}
	if m.Len() < int64(n*t.size) {
		return t.corrupt(m.Len(), "file has shrunk")
	}
	err = m.Read(func(p []byte) error { return fn(entries{t: t, n: n, all: p[:n*t.size]}) })
	if fault, ok := err.(*vfs.FaultError); ok {
		return t.corrupt(0, fault.Error())
	}
	return err
}

// get returns entries [lo, hi), at most a block of them, valid until the next call.
func (e entries) get(lo, hi int) ([]byte, error) {
	size := e.t.size
	if e.all != nil {
		return e.all[lo*size : hi*size], nil
	}
	p := e.block[:(hi-lo)*size]
	n, err := e.file.ReadAt(p, int64(lo*size))
	if n == len(p) {
		return p, nil
	}
	if err == io.EOF {
		err = e.t.corrupt(int64(lo*size+n), "file has shrunk")
	}
	return nil, err
}

// at copies entry i.
func (e entries) at(i int, to *entry) error {
	p, err := e.get(i, i+1)
	copy(to[:], p)
	return err
}

// find is table.find among these entries. In a file it reads block by block: the last one, where readers mostly are, then
// where the target lies if keys grow evenly, as they nearly do, and by halves where they do not.
func (e entries) find(key func(e []byte) int64, target int64, floor, ceil *entry) (int, error) {
	if e.all != nil {
		return e.t.search(e.all, key, target, floor, ceil), nil
	}
	var (
		per          = blockSize / e.t.size
		lo, hi       = 0, e.n // the answer is in [lo, hi]
		loKey, hiKey int64    // of entry 0 or the one below lo, and of entry hi
		at           = e.n - per
	)
	for turn := 0; ; turn++ {
		a := max(min(at, hi+1-per, e.n-per), lo-1, 0)
		b := min(a+per, e.n)
		p, err := e.get(a, b)
		if err != nil {
			return 0, err
		}
		i := a + e.t.search(p, key, target, floor, ceil)
		switch {
		case i == a && a > 0:
			hi, hiKey = a, key(p)
		case i == b && b < e.n:
			lo, loKey = b, key(p[(b-a-1)*e.t.size:])
		default:
			return i, nil
		}
		if lo == 0 && turn == 0 {
			if p, err = e.get(0, 1); err != nil {
				return 0, err
			}
			loKey = key(p)
		}
		at = int(uint(lo+hi)/2) - per/2
		if turn%2 == 0 && loKey < target && target < hiKey {
			share := float64(target-loKey) / float64(hiKey-loKey)
			at = lo + int(share*float64(hi-lo)) - per/2
		}
	}
}

var blocks = sync.Pool{New: func() any { return new([blockSize]byte) }}

// find returns the index i of the first entry whose key is at least target, or
// n; floor receives entry i-1 and ceil entry i, where there is one.
func (t *table) find(key func(e []byte) int64, target int64, floor, ceil *entry) (i, n int, err error) {
	if err := t.load(); err != nil {
		return 0, 0, err
	}
	t.mu.Lock()
	n = t.mu.n
	inFile := t.mu.tailFrom
	if tail := t.mu.tail; len(tail) > 0 {
		if inFile == 0 || key(tail) < target {
			i = t.search(tail, key, target, floor, ceil) + inFile
			t.mu.Unlock()
			return i, n, nil
		}
		copy(ceil[:t.size], tail)
	}
	t.mu.Unlock()
	if inFile == 0 {
		return 0, n, nil
	}
	err = t.withEntries(inFile, func(e entries) (err error) {
		i, err = e.find(key, target, floor, ceil)
		return err
	})
	return i, n, err
}

// search is find over the bytes of whole entries.
func (t *table) search(p []byte, key func(e []byte) int64, target int64, floor, ceil *entry) int {
	lo, hi := 0, len(p)/t.size
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if key(p[mid*t.size:]) < target {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo > 0 {
		copy(floor[:t.size], p[(lo-1)*t.size:])
	}
	if lo < len(p)/t.size {
		copy(ceil[:t.size], p[lo*t.size:])
	}
	return lo
}

// last copies the last entry to e and returns how many there are.
func (t *table) last(e *entry) (n int, err error) {
	var above entry
	_, n, err = t.find(t.order, math.MaxInt64, e, &above)
	return n, err
}

// read calls fn with whole entries from entry from on, in pieces, until fn
// returns false. The slice is valid during the call only.
func (t *table) read(from int, fn func(p []byte, i int) bool) error {
	if err := t.load(); err != nil {
		return err
	}
	t.mu.Lock()
	inFile := t.mu.tailFrom
	tail := append([]byte(nil), t.mu.tail...)
	t.mu.Unlock()
	if from < inFile {
		more := true
		err := t.withEntries(inFile, func(e entries) error {
			for from < inFile && more {
				hi := min(from+blockSize/t.size, inFile)
				p, err := e.get(from, hi)
				if err != nil {
					return err
				}
				more = fn(p, from)
				from = hi
			}
			return nil
		})
		if err != nil || !more {
			return err
		}
	}
	if p := tail[(from-inFile)*t.size:]; len(p) > 0 {
		fn(p, from)
	}
	return nil
}

func be32(p []byte) int64 { return int64(int32(binary.BigEndian.Uint32(p))) }
func be64(p []byte) int64 { return int64(binary.BigEndian.Uint64(p)) }
