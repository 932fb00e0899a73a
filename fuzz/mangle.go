package fuzz

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace-project/millrace/batch"
)

// tree is the content of the files of a directory, by their path below it.
type tree map[string][]byte

// names are the paths in order.
func (t tree) names() []string { return slices.Sorted(maps.Keys(t)) }

// written is a batch as it is in a file.
type written struct {
	seg, pos int64 // the segment's base offset, the position in its file
	bytes    batch.Batch
}

// truth is what a data directory holds before it is mangled.
type truth struct {
	files    []string
	logs     map[string][]written      // by partition, internal topics left out
	segments map[string]map[int64]bool // by partition: the base offsets
	known    map[string]bool           // what the checksum covers of every batch, of all partitions
}

// readTruth reads a directory that nothing is wrong with.
func readTruth(t tree) (*truth, error) {
	tr := &truth{files: t.names(), logs: map[string][]written{}, segments: map[string]map[int64]bool{}, known: map[string]bool{}}
	for _, rel := range tr.files {
		partition := filepath.Dir(rel)
		if filepath.Ext(rel) != ".log" || strings.HasPrefix(partition, "__") {
			continue
		}
		seg, err := strconv.ParseInt(strings.TrimSuffix(filepath.Base(rel), ".log"), 10, 64)
		if err != nil {
			return nil, err
		}
		if tr.segments[partition] == nil {
			tr.segments[partition] = map[int64]bool{}
		}
		tr.segments[partition][seg] = true
		pos := int64(0)
		for p := t[rel]; len(p) > 0; {
			b, rest, err := batch.Next(p)
			if err != nil {
				return nil, fmt.Errorf("%s at %d: %w", rel, pos, err)
			}
			tr.logs[partition] = append(tr.logs[partition], written{seg, pos, b})
			tr.known[covered(b)] = true
			pos += int64(b.Size())
			p = rest
		}
	}
	return tr, nil
}

// covered is what a batch's checksum covers, and the checksum. Base offset, length, leader epoch
// and magic are not.
func covered(b batch.Batch) string { return string(b[17:]) }

// mangler damages a copy of a directory and keeps account of what has to be there all the same.
type mangler struct {
	rng   *rand.Rand
	truth *truth
	tree  tree
	did   []string
	files []string         // what was damaged
	first map[string]int64 // by partition: the offset from which on its .log files are damaged
	index map[string]int64 // by partition: the offset from which on reads may find a damaged .index
}

// newMangler begins with whole files; t stays as it is.
func newMangler(rng *rand.Rand, tr *truth, t tree) *mangler {
	return &mangler{rng: rng, truth: tr, tree: maps.Clone(t), first: map[string]int64{}, index: map[string]int64{}}
}

// pick chooses a file: first a kind, so that the few of a kind are not lost among the many.
func (m *mangler) pick() string {
	kinds := map[string][]string{}
	for _, f := range m.truth.files {
		kind := filepath.Ext(f)
		if kind == "" || strings.HasPrefix(f, "__") {
			kind = f
			if dir := filepath.Dir(f); !strings.HasPrefix(f, "__") && dir != "." {
				kind = filepath.Base(f)
			}
		}
		if kind == ".lock" {
			continue
		}
		kinds[kind] = append(kinds[kind], f)
	}
	names := slices.Sorted(maps.Keys(kinds))
	kind := names[m.rng.IntN(len(names))]
	if m.rng.IntN(3) == 0 {
		kind = ".log"
	}
	return kinds[kind][m.rng.IntN(len(kinds[kind]))]
}

// damaged notes that a file is not what it was from pos on.
func (m *mangler) damaged(rel string, pos int64) {
	m.files = append(m.files, rel)
	partition := filepath.Dir(rel)
	ext := filepath.Ext(rel)
	seg, err := strconv.ParseInt(strings.TrimSuffix(filepath.Base(rel), ext), 10, 64)
	first := m.first
	switch {
	case err != nil:
		return
	case ext == ".index":
		first, pos = m.index, 0
	case ext != ".log":
		return
	}
	off := seg // a segment more: it is in the way from its base offset on
	for _, w := range m.truth.logs[partition] {
		if !m.truth.segments[partition][seg] {
			break
		}
		if w.seg == seg && w.pos+int64(w.bytes.Size()) > pos || w.seg > seg {
			off = w.bytes.BaseOffset()
			break
		}
		off = max(off, w.bytes.LastOffset()+1)
	}
	if was, ok := first[partition]; !ok || off < was {
		first[partition] = off
	}
}

// mutate damages one file, or two that it swaps.
func (m *mangler) mutate() {
	rel := m.pick()
	was, ok := m.tree[rel]
	if !ok {
		return // an earlier mutation took it
	}
	p := slices.Clone(was)
	switch op := m.rng.IntN(9); {
	case op <= 1 && len(p) > 0:
		at := m.rng.IntN(len(p))
		p[at] ^= 1 << m.rng.IntN(8)
		m.write(rel, p, at, "flip a bit of")
	case op == 2 && len(p) > 0:
		at := m.rng.IntN(len(p))
		m.write(rel, p[:at], at, "truncate")
	case op == 3 && len(p) > 0:
		at := m.rng.IntN(len(p))
		clear(p[at:min(len(p), at+1+m.rng.IntN(512))])
		m.write(rel, p, at, "zero a range of")
	case op == 4:
		m.write(rel, append(p, make([]byte, 1+m.rng.IntN(5000))...), len(p), "add zeros to")
	case op == 5:
		m.write(rel, append(p, noise(m.rng, 1+m.rng.IntN(500))...), len(p), "add noise to")
	case op == 6:
		delete(m.tree, rel)
		m.damaged(rel, 0)
		m.did = append(m.did, "delete "+rel)
	case op == 7:
		m.swap(rel, p)
	default:
		m.duplicate(rel, p)
	}
}

func (m *mangler) write(rel string, p []byte, at int, what string) {
	m.tree[rel] = p
	m.damaged(rel, int64(at))
	m.did = append(m.did, fmt.Sprintf("%s %s at %d", what, rel, at))
}

// replace gives a file another content.
func (m *mangler) replace(rel string, p []byte) {
	at, was := 0, m.tree[rel]
	for at < len(p) && at < len(was) && p[at] == was[at] {
		at++
	}
	if at == len(p) && at == len(was) {
		return
	}
	m.write(rel, p, at, "replace")
}

// swap gives two files of a kind each other's content.
func (m *mangler) swap(rel string, p []byte) {
	var like []string
	for _, f := range m.truth.files {
		if f != rel && (filepath.Ext(f) == filepath.Ext(rel) && filepath.Ext(f) != "" || filepath.Base(f) == filepath.Base(rel)) {
			like = append(like, f)
		}
	}
	if len(like) == 0 {
		return
	}
	other := like[m.rng.IntN(len(like))]
	q, ok := m.tree[other]
	if !ok {
		return
	}
	m.write(rel, q, 0, "swap with "+other+":")
	m.write(other, p, 0, "swap with "+rel+":")
}

// duplicate leaves a copy of a file under a name that the engine has a use for.
func (m *mangler) duplicate(rel string, p []byte) {
	ext := filepath.Ext(rel)
	name := rel + []string{".deleted", ".cleaned", ".swap", ".tmp"}[m.rng.IntN(4)]
	if ext == ".log" || ext == ".snapshot" || ext == ".index" {
		if m.rng.IntN(2) == 0 {
			name = filepath.Join(filepath.Dir(rel), fmt.Sprintf("%020d%s", m.rng.IntN(300), ext))
		}
	}
	if _, ok := m.tree[name]; ok {
		return
	}
	if strings.HasSuffix(name, ".log.swap") { // what a swap file is named after it takes the place of
		m.damaged(rel, 0)
	}
	m.write(name, p, 0, "duplicate as")
}

// what was done, in a line.
func (m *mangler) what() string { return strings.Join(m.did, "; ") }

// named: the text says which file is damaged, or whose.
func (m *mangler) named(text string) bool {
	return slices.ContainsFunc(m.files, func(f string) bool {
		return strings.Contains(text, filepath.Base(f)) || filepath.Dir(f) != "." && strings.Contains(text, filepath.Dir(f))
	})
}

// must is what has to be served of a partition: all that is before its first damage. touched says
// that some file of it, or of the whole directory, was damaged.
func (m *mangler) must(partition string, want []written) (must []written, touched bool) {
	for _, f := range m.files {
		touched = touched || concerns(f, partition)
	}
	return before(before(want, m.first, partition), m.index, partition), touched
}

// before is what of a partition comes before an offset, if there is one.
func before(want []written, first map[string]int64, partition string) []written {
	at, ok := first[partition]
	i := slices.IndexFunc(want, func(w written) bool { return ok && w.bytes.LastOffset() >= at })
	if i < 0 {
		return want
	}
	return want[:i]
}

// concerns says whether damage to a file may keep a partition from being served: its own files, and
// those that say which partitions there are.
func concerns(file, partition string) bool {
	dir := filepath.Dir(file)
	return dir == partition || dir == "." || strings.HasPrefix(dir, "__")
}

// compareBatches: what must be there is there, in its place; what else is there was once written.
func (m *mangler) compareBatches(partition string, got []batch.Batch, must []written) error {
	for i, w := range must {
		if i >= len(got) || got[i].BaseOffset() != w.bytes.BaseOffset() || covered(got[i]) != covered(w.bytes) {
			return fmt.Errorf("%s: of %d batches before the damage, number %d at offset %d is not served (%d batches are)", partition, len(must), i, w.bytes.BaseOffset(), len(got))
		}
	}
	for _, b := range got {
		if !m.truth.known[covered(b)] {
			return fmt.Errorf("%s: a batch at offset %d that nobody wrote", partition, b.BaseOffset())
		}
	}
	return nil
}
