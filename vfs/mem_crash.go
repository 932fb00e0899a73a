package vfs

import (
	"maps"
	"math/rand"
	"slices"
	"syscall"
)

// sector is the unit in which a power cut tears a write.
const sector = 512

// FailSync makes the next Sync of the named file fail with EIO, as Linux does:
// what was dirty counts as clean from then on, is still read, is never
// written, and is gone after DropCache.
func (m *Mem) FailSync(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.walkLocked(split(name))
	if n == nil || n.isDir() {
		panic("BUG: vfs: no such file: " + name)
	}
	n.failSync = syscall.EIO
}

// KillClone returns what a new process finds after this one was killed: the
// page cache survives, so every write is there, synced or not, and may still
// be lost by a power cut.
func (m *Mem) KillClone() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := cloner{nodes: map[*inode]*inode{}}
	out := &Mem{NowMs: m.NowMs, Limit: m.Limit}
	out.mu.locked = map[*inode]bool{}
	out.mu.root = c.alive(m.mu.root)
	for _, op := range m.mu.pending {
		var edits dirOp
		for _, e := range op {
			edits = append(edits, dirEdit{c.alive(e.dir), e.name, c.alive(e.node)})
		}
		out.mu.pending = append(out.mu.pending, edits)
	}
	return out
}

// CrashClone returns what a power cut at this moment could leave. What was
// synced is there. Of the writes since, each 512-byte sector is kept or lost
// on its own, so writes are torn, reordered and leave holes; a file may have
// grown without its bytes. Of the directory operations since, some subset
// happened; none happened on a name whose earlier operation was lost.
func (m *Mem) CrashClone(rng *rand.Rand) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := cloner{nodes: map[*inode]*inode{}, rng: rng}
	out := &Mem{NowMs: m.NowMs, Limit: m.Limit}
	out.mu.locked = map[*inode]bool{}
	out.mu.root = c.crashed(m.mu.root)
	type key struct {
		dir  *inode
		name string
	}
	undone := map[key]bool{}
	keep := chance(rng)
	for _, op := range m.mu.pending {
		ok := keep()
		for _, e := range op {
			ok = ok && !undone[key{e.dir, e.name}]
		}
		for _, e := range op {
			if !ok {
				undone[key{e.dir, e.name}] = true
				continue
			}
			edit := dirEdit{c.crashed(e.dir), e.name, c.crashed(e.node)}
			apply(edit.dir.entries, edit)
			apply(edit.dir.durableEntries, edit)
		}
	}
	return out
}

// chance returns a coin for one crash: it keeps nothing, everything, or some.
func chance(rng *rand.Rand) func() bool {
	switch rng.Intn(4) {
	case 0:
		return func() bool { return false }
	case 1:
		return func() bool { return true }
	}
	p := rng.Float64()
	return func() bool { return rng.Float64() < p }
}

// cloner copies inodes, each once.
type cloner struct {
	nodes map[*inode]*inode
	rng   *rand.Rand
}

func (c *cloner) alive(n *inode) *inode {
	if n == nil {
		return nil
	}
	if out := c.nodes[n]; out != nil {
		return out
	}
	out := &inode{
		modMs: n.modMs, lost: n.lost,
		data: slices.Clone(n.data), durable: slices.Clone(n.durable), writes: slices.Clone(n.writes),
	}
	c.nodes[n] = out
	out.entries = c.cloneDir(n.entries, c.alive)
	out.durableEntries = c.cloneDir(n.durableEntries, c.alive)
	return out
}

func (c *cloner) crashed(n *inode) *inode {
	if n == nil {
		return nil
	}
	if out := c.nodes[n]; out != nil {
		return out
	}
	out := &inode{modMs: n.modMs}
	c.nodes[n] = out
	if n.isDir() {
		out.entries = c.cloneDir(n.durableEntries, c.crashed)
		out.durableEntries = maps.Clone(out.entries)
		return out
	}
	out.data = c.survivors(n)
	out.durable = slices.Clone(out.data)
	return out
}

// cloneDir copies entries in the order of their names, so that a seed decides
// the same whatever the order of the map.
func (c *cloner) cloneDir(entries map[string]*inode, clone func(*inode) *inode) map[string]*inode {
	if entries == nil {
		return nil
	}
	out := make(map[string]*inode, len(entries))
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		out[name] = clone(entries[name])
	}
	return out
}

// survivors returns a file's bytes after the power cut.
func (c *cloner) survivors(n *inode) []byte {
	p := slices.Clone(n.durable)
	keep := chance(c.rng)
	for _, w := range n.writes {
		if w.trunc {
			if keep() {
				p = w.apply(p)
			}
			continue
		}
		for lo := int64(0); lo < int64(len(w.data)); {
			hi := min((w.pos+lo)/sector*sector+sector-w.pos, int64(len(w.data)))
			part := write{pos: w.pos + lo, data: w.data[lo:hi]}
			switch {
			case keep():
				p = part.apply(p)
			case c.rng.Intn(8) == 0: // the size came through, the bytes did not
				p = resize(p, max(int64(len(p)), w.pos+hi))
			}
			lo = hi
		}
	}
	return p
}
