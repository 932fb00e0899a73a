package fuzz

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/quorum"
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
		if filepath.Ext(rel) != ".log" || partition == quorum.LogName {
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
			if !strings.HasPrefix(partition, "__") {
				tr.logs[partition] = append(tr.logs[partition], written{seg, pos, b})
			}
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

	// By partition, base offsets of segments: whose .log is damaged or nobody wrote, and whose .index is.
	hurt, lookups map[string]map[int64]bool
}

// newMangler begins with whole files; t stays as it is.
func newMangler(rng *rand.Rand, tr *truth, t tree) *mangler {
	return &mangler{rng: rng, truth: tr, tree: maps.Clone(t), first: map[string]int64{}, index: map[string]int64{},
		hurt: map[string]map[int64]bool{}, lookups: map[string]map[int64]bool{}}
}

// pick chooses a file: first a kind, so that the few of a kind are not lost among the many.
func (m *mangler) pick() string {
	const coordinators = "the log of a coordinator"
	kinds := map[string][]string{}
	for _, f := range m.truth.files {
		dir, kind := filepath.Dir(f), filepath.Ext(f)
		switch {
		case dir == quorum.LogName:
			kind = f
		case strings.HasPrefix(dir, "__") && kind == ".log":
			kind = coordinators
		case kind == "" && dir != ".":
			kind = filepath.Base(f)
		case kind == "":
			kind = f
		}
		if kind == ".lock" {
			continue
		}
		kinds[kind] = append(kinds[kind], f)
	}
	names := slices.Sorted(maps.Keys(kinds))
	kind := names[m.rng.IntN(len(names))]
	switch m.rng.IntN(6) {
	case 0, 1:
		kind = ".log"
	case 2:
		if len(kinds[coordinators]) > 0 {
			kind = coordinators
		}
	}
	return kinds[kind][m.rng.IntN(len(kinds[kind]))]
}

// damaged notes that a file is not what it was from pos on.
func (m *mangler) damaged(rel string, pos int64) {
	m.files = append(m.files, rel)
	partition := filepath.Dir(rel)
	ext := filepath.Ext(rel)
	seg, err := strconv.ParseInt(strings.TrimSuffix(filepath.Base(rel), ext), 10, 64)
	first, segments := m.first, m.hurt
	switch {
	case err != nil:
		return
	case ext == ".index":
		if _, ok := m.tree[rel]; !ok {
			return // it is made anew
		}
		first, segments, pos = m.index, m.lookups, 0
	case ext != ".log":
		return
	}
	if segments[partition] == nil {
		segments[partition] = map[int64]bool{}
	}
	segments[partition][seg] = true
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
		if index := strings.TrimSuffix(rel, ".log") + ".index"; index != rel+".index" && m.rng.IntN(3) == 0 { // a segment without it is walked wherever it is
			m.remove(index)
		}
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
		m.remove(rel)
	case op == 7:
		m.swap(rel, p)
	default:
		m.duplicate(rel, p)
	}
}

func (m *mangler) remove(rel string) {
	if _, ok := m.tree[rel]; !ok {
		return
	}
	delete(m.tree, rel)
	m.damaged(rel, 0)
	m.did = append(m.did, "delete "+rel)
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

// behind is what has to be served of a partition although something before it is damaged: rows of
// batches, each in whole segments that can be read from the first one's base offset on. Recovery cuts
// a segment that is damaged and deletes those behind it only where nothing says that they were synced
// before: not beside a clean-shutdown marker, nor from a segment below our recovery point.
func (m *mangler) behind(partition string, want []written) (rows [][]written) {
	end, was := m.keptBelow(partition), false
	hurt := slices.Sorted(maps.Keys(m.hurt[partition]))
	for i := 0; i < len(want); {
		seg, from := want[i].seg, i
		for i < len(want) && want[i].seg == seg {
			i++
		}
		at, _ := slices.BinarySearch(hurt, seg)
		in := at < len(hurt) && (i == len(want) || hurt[at] < want[i].seg) // it is damaged, or another begins in it
		whole := !in && !m.lookups[partition][seg] && seg < end
		switch {
		case whole && was && len(rows) > 0:
			rows[len(rows)-1] = append(rows[len(rows)-1], want[from:i]...)
		case whole && from > 0: // what is at the beginning comes before the damage: see must
			rows = append(rows, slices.Clone(want[from:i]))
		}
		was = whole
	}
	return rows
}

// keptBelow is the base offset of the first segment that recovery may delete although it is whole.
func (m *mangler) keptBelow(partition string) int64 {
	end := int64(math.MaxInt64)
	for _, f := range m.files {
		// The header of a batch says how far a segment goes that takes the place of others, and if it is
		// damaged, how many those are.
		if base, ok := strings.CutSuffix(f, ".log.swap"); ok && filepath.Dir(f) == partition {
			seg, _ := strconv.ParseInt(filepath.Base(base), 10, 64)
			end = min(end, seg)
		}
	}
	first := m.walkedFrom(partition)
	for seg := range m.hurt[partition] {
		if seg >= first {
			end = min(end, seg)
		}
	}
	return end
}

// walkedFrom is the base offset of the segment from which on recovery walks a partition: none beside
// the marker of a clean stop.
func (m *mangler) walkedFrom(partition string) int64 {
	if _, clean := m.tree[".kafka_cleanshutdown"]; clean {
		return math.MaxInt64
	}
	point := m.checkpointed(recoveryPoints, partition)
	if m.ownPoints() { // the segment that ends there may have been sealed since
		point = max(point-1, 0)
	}
	first := int64(-1)
	for rel := range m.tree {
		seg, err := strconv.ParseInt(strings.TrimSuffix(filepath.Base(rel), ".log"), 10, 64)
		if err == nil && filepath.Dir(rel) == partition && filepath.Ext(rel) == ".log" && seg <= point {
			first = max(first, seg)
		}
	}
	return first
}

// plain: a segment's file is not there, or has whole batches only, after which nothing can tell that
// there was more. reach is the offset behind them: a reader goes on there, past the next segments if
// they begin below. The checksum of a batch does not cover its base offset, so that batches may be in
// any place, but where recovery walks the segment.
func (m *mangler) plain(partition string, seg int64) (reach int64, plain bool) {
	name := filepath.Join(partition, fmt.Sprintf("%020d.log", seg))
	p, swapped := m.tree[name+".swap"] // which takes the place of the other
	if !swapped {
		p = m.tree[name]
	}
	walked := seg > m.walkedFrom(partition)
	for next := seg; len(p) > 0; {
		b, rest, err := batch.Next(p)
		if err != nil || b.VerifyCRC() != nil || walked && b.BaseOffset() < next {
			return 0, false
		}
		p, next = rest, b.LastOffset()+1
		reach = max(reach, next)
	}
	return reach, true
}

// replaced is the range of base offsets whose segments give way to the .log.swap files of a partition:
// from the smallest of theirs to the greatest offset behind them. A segment may reach beyond it, as the
// last source does of which the cleaner has removed the end.
func (m *mangler) replaced(partition string) (lo, hi int64) {
	lo = math.MaxInt64
	for rel, p := range m.tree {
		base, ok := strings.CutSuffix(filepath.Base(rel), ".log.swap")
		seg, err := strconv.ParseInt(base, 10, 64)
		if !ok || err != nil || filepath.Dir(rel) != partition {
			continue
		}
		lo = min(lo, seg)
		for len(p) > 0 {
			b, rest, err := batch.Next(p)
			if err != nil {
				break
			}
			p, hi = rest, max(hi, b.LastOffset()+1)
		}
	}
	return lo, hi
}

// ownPoints says whether this engine has written the recovery points.
func (m *mangler) ownPoints() (own bool) {
	points, ok := m.tree[recoveryPoints]
	lines := strings.Split(string(m.tree[ownPoints]), "\n")
	if !ok || len(lines) < 2 || lines[0] != "0" {
		return false
	}
	for _, sum := range strings.Fields(lines[1]) {
		v, err := strconv.ParseUint(sum, 16, 32)
		own = own || err == nil && uint32(v) == crcOf(points)
	}
	return own
}

// The files with recovery points, and the one that says which content of it is the engine's.
const (
	recoveryPoints = "recovery-point-offset-checkpoint"
	ownPoints      = "millrace.recovery-point"
	startOffsets   = "log-start-offset-checkpoint"
)

// checkpointed is what an offset checkpoint says of a partition; 0 if nothing, or if it cannot be read.
func (m *mangler) checkpointed(file, partition string) (off int64) {
	fs, err := memDir(tree{file: m.tree[file]})
	must(err)
	entries, err := commitlog.ReadOffsetCheckpoint(fs, filepath.Join(dataDir, file))
	for _, e := range entries {
		if err == nil && fmt.Sprintf("%s-%d", e.Topic, e.Partition) == partition {
			off = e.Offset
		}
	}
	return off
}

// concerns says whether damage to a file may keep a partition from being served: its own files, and
// those that say which partitions there are.
func concerns(file, partition string) bool {
	dir := filepath.Dir(file)
	return dir == partition || dir == "." || dir == quorum.LogName
}

// compareBatches: what must be there is there, in its place; what else is there was once written.
func (m *mangler) compareBatches(partition string, got []batch.Batch, must []written) error {
	for i, w := range must {
		if i >= len(got) || got[i].BaseOffset() != w.bytes.BaseOffset() || covered(got[i]) != covered(w.bytes) {
			return fmt.Errorf("%s: of %d batches that have to be served from offset %d on, number %d at offset %d is not (%d batches are served)", partition, len(must), must[0].bytes.BaseOffset(), i, w.bytes.BaseOffset(), len(got))
		}
	}
	for _, b := range got {
		if !m.truth.known[covered(b)] {
			return fmt.Errorf("%s: a batch at offset %d that nobody wrote", partition, b.BaseOffset())
		}
	}
	return nil
}
