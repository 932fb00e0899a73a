package fuzz

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/quorum"
	"github.com/millrace-project/millrace/vfs"
)

// recoveryAlloc is what opening a directory may allocate.
const recoveryAlloc = 256 << 20

// recoveryTargets open directories of which a file, or several, are not what was written.
func recoveryTargets() []*Target {
	all := []*Target{{
		Name:  "recovery",
		About: "a data directory of the engine, mangled by a script: opens without a panic, or names a file that is damaged; loses nothing before the first damage, serves nothing that nobody wrote, says what it cut, and opens again",
		Seed:  func(rng *rand.Rand) []byte { return noise(rng, 3+rng.IntN(60)) },
		Check: checkMangled, MaxAlloc: recoveryAlloc,
	}}
	const likewise = " of a data directory, whatever it holds; the same is held against what the engine makes of it"
	for _, kind := range []struct{ name, about, suffix string }{
		{"dir-log", "a segment", ".log"},
		{"dir-offset-index", "an offset index", ".index"},
		{"dir-time-index", "a time index", ".timeindex"},
		{"dir-txn-index", "a transaction index", ".txnindex"},
		{"dir-producer-snapshot", "a producer snapshot", ".snapshot"},
		{"dir-leader-epochs", "leader-epoch-checkpoint", "leader-epoch-checkpoint"},
		{"dir-partition-metadata", "partition.metadata", "partition.metadata"},
		{"dir-checkpoints", "the recovery point, start offset or high watermark checkpoint", "-checkpoint"},
		{"dir-clean-marker", ".kafka_cleanshutdown", ".kafka_cleanshutdown"},
	} {
		all = append(all, &Target{
			Name: kind.name, About: kind.about + likewise,
			Seed:  func(rng *rand.Rand) []byte { return seedFileOf(rng, kind.suffix) },
			Fix:   func(p []byte) { fixFileOf(kind.suffix, p) },
			Check: func(p []byte) (string, error) { return checkFileOf(kind.suffix, p) }, MaxAlloc: recoveryAlloc,
		})
	}
	for _, kind := range []struct{ name, about, part string }{
		{"metadata-log", "the metadata log", quorum.LogName + "/" + fmt.Sprintf("%020d.log", 0)},
		{"metadata-snapshot", "a snapshot of the metadata", "-0000000002.checkpoint"},
		{"metadata-bootstrap", "bootstrap.checkpoint", "bootstrap.checkpoint"},
		{"metadata-quorum-state", "quorum-state", "quorum-state"},
	} {
		all = append(all, &Target{
			Name: kind.name, About: kind.about + " of a formatted directory, whatever it holds: checked, opened and read, or refused by name, and a check writes nothing",
			Seed: func(*rand.Rand) []byte {
				t := metadataDirectory()
				return bytes.Clone(t[fileNamed(t, kind.part)])
			},
			Fix: func(p []byte) {
				if kind.name != "metadata-quorum-state" {
					fixBatches(p)
				}
			},
			Check: func(p []byte) (string, error) { return checkMetadataFile(kind.part, p) }, MaxAlloc: recoveryAlloc,
		})
	}
	return all
}

// script is a source of random numbers that takes what it gives from an input, so that a changed
// byte is a changed decision; what comes after its end follows from the whole.
type script struct {
	p    []byte
	rest *rand.PCG
}

func newScript(p []byte) *script {
	return &script{p, rand.NewPCG(uint64(crcOf(p)), uint64(len(p)))}
}

func (s *script) Uint64() uint64 {
	if len(s.p) < 2 {
		s.p = nil
		return s.rest.Uint64()
	}
	v := uint64(s.p[0])<<56 | uint64(s.p[1])<<48
	s.p = s.p[2:]
	return v | s.rest.Uint64()>>16
}

func checkMangled(p []byte) (string, error) {
	if len(p) == 0 {
		return "no script", nil
	}
	d := engineDirectories()[int(p[0])%2]
	s := newScript(p[1:])
	m := newMangler(rand.New(s), d.truth, d.tree)
	for range 1 + int(p[0]>>1)%3 {
		m.mutate()
	}
	return opened{m, d, map[string]left{}}.check()
}

// filesOf are the files of a kind of both directories, with the directory's number in front.
func filesOf(suffix string) (all []string) {
	for i, d := range engineDirectories() {
		for _, name := range d.tree.names() {
			top := filepath.Dir(name) == "." // the checkpoints of the directory, not those of its logs
			if strings.HasSuffix(name, suffix) && (suffix != "-checkpoint" || top) {
				all = append(all, string(rune('0'+i))+name)
			}
		}
	}
	return all
}

// seedFileOf is which file it is, in a byte, and its content.
func seedFileOf(rng *rand.Rand, suffix string) []byte {
	all := filesOf(suffix)
	i := rng.IntN(len(all))
	p := append([]byte{byte(i)}, engineDirectories()[all[i][0]-'0'].tree[all[i][1:]]...)
	if suffix == "-checkpoint" && rng.IntN(2) == 0 {
		p[0] += byte(len(all)) // see checkFileOf
	}
	return p
}

func fixFileOf(suffix string, p []byte) {
	switch {
	case len(p) == 0:
	case suffix == ".log":
		fixBatches(p[1:])
	case suffix == ".snapshot":
		fixSnapshot(p[1:])
	}
}

func checkFileOf(suffix string, p []byte) (string, error) {
	if len(p) == 0 {
		return "nothing", nil
	}
	all := filesOf(suffix)
	name := all[int(p[0])%len(all)]
	d := engineDirectories()[name[0]-'0']
	m := newMangler(rand.New(newScript(p)), d.truth, d.tree)
	m.replace(name[1:], bytes.Clone(p[1:]))
	if name[1:] == recoveryPoints && int(p[0])/len(all)%2 > 0 { // the engine has written them, whatever they are
		m.tree[ownPoints] = fmt.Appendf(nil, "0\n%08x\n", crcOf(p[1:]))
		m.did = append(m.did, "as the engine's own")
	}
	if suffix == ".log" { // a batch with a right checksum is a batch that somebody may have written
		m.know(p[1:])
	}
	return opened{m, d, map[string]left{}}.check()
}

// know adds the batches of a file to those that may come out.
func (m *mangler) know(p []byte) {
	tr := *m.truth
	tr.known = map[string]bool{}
	for k := range m.truth.known {
		tr.known[k] = true
	}
	for i := 0; i+batch.HeaderSize <= len(p); i++ {
		if b, _, err := batch.Next(p[i:]); err == nil && b.VerifyCRC() == nil {
			tr.known[covered(b)] = true
			i += len(b) - 1
		}
	}
	m.truth = &tr
}

// opened is a mangled directory that the engine opens.
type opened struct {
	*mangler
	d    *directory
	left map[string]left
}

// left is what the first start has left of a log that it serves.
type left struct {
	batches  []batch.Batch
	appended batch.Batch // as it was read again; nil: it was refused
}

// events is what the engine said while it had the directory.
type events struct {
	mu    sync.Mutex
	said  []string
	cause map[string]bool // logs that were cut or taken offline
}

func (e *events) listener() *commitlog.EventListener {
	note := func(name, what string, cut bool) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.said = append(e.said, name+": "+what)
		e.cause[name] = e.cause[name] || cut
	}
	return &commitlog.EventListener{
		LogOffline:   func(name string, err error) { note(name, err.Error(), true) },
		Recovered:    func(r commitlog.RecoveryReport) { note(r.Log, fmt.Sprint(r.Cause), r.Cause != nil) },
		JanitorError: func(name string, err error) { note(name, err.Error(), false) },
	}
}

// told says whether the log was cut or taken offline, and that was said.
func (e *events) told(name string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.cause[name]
}

func (o opened) check() (outcome string, err error) {
	fs, err := memDir(o.tree)
	if err != nil {
		return "", err
	}
	if err := o.verify(fs, false); err != nil {
		return "", fmt.Errorf("%s (%s): %w", o.what(), o.d.about, err)
	}
	for _, time := range []string{"first", "second"} {
		said, err := o.open(fs, time == "first")
		if err != nil {
			return "", fmt.Errorf("%s (%s), %s start: %w", o.what(), o.d.about, time, err)
		}
		outcome += said
		if strings.HasPrefix(said, "refused") {
			if time == "second" {
				return "", fmt.Errorf("%s (%s): it was served, and is %s the second time", o.what(), o.d.about, said)
			}
			return outcome, nil
		}
	}
	return outcome, nil
}

// verify looks at every log offline. It may find what it will; it changes nothing.
func (o opened) verify(fs vfs.FS, clean bool) error {
	for partition := range o.truth.logs {
		r, err := commitlog.Verify(fs, filepath.Join(dataDir, partition), commitlog.VerifyOptions{Unclean: !clean})
		if err != nil && !o.named(err.Error()) {
			return fmt.Errorf("log verify names no damaged file: %w", err)
		}
		if _, touched := o.must(partition, nil); err == nil && r.Bad() && !touched {
			return fmt.Errorf("log verify finds damage in %s, which was not touched: %v", partition, r.Findings)
		}
	}
	return nil
}

// open has the engine open the directory once, compares, and closes it.
func (o opened) open(fs vfs.FS, first bool) (outcome string, err error) {
	e := &events{cause: map[string]bool{}}
	store, err := commitlog.Open(dataDir, engineOptions(fs, e.listener()))
	if err != nil {
		if !o.named(err.Error()) || strings.Contains(err.Error(), "BUG:") {
			return "", fmt.Errorf("the refusal names no damaged file: %w", err)
		}
		return "refused: " + err.Error(), nil
	}
	if epoch, clean := store.CleanShutdown(); clean {
		outcome = fmt.Sprintf("clean, epoch known: %v ", epoch >= 0)
	}
	for _, partition := range slices.Sorted(maps.Keys(o.truth.logs)) {
		l := store.Log(partition)
		var said string
		switch {
		case l == nil || l.Err() != nil:
			said, err = "gone ", o.gone(fs, l, partition)
		case first:
			said, err = o.compare(l, partition, e.told(partition))
		default:
			said, err = "again ", o.compareAgain(l, partition, e.told(partition))
		}
		if err != nil {
			_ = store.Close(-1)
			return "", errors.Join(err, fmt.Errorf("said: %q", e.said))
		}
		outcome += said
	}
	if err := store.Close(1); err != nil && !o.named(err.Error()) {
		return "", fmt.Errorf("close: %w", err)
	}
	return outcome, nil
}

// required is what a partition has to serve: what comes before the first damage, and rows of batches
// behind it. A log start offset that can be read is what it is.
func (o opened) required(partition string) (must []written, behind [][]written) {
	want := o.truth.logs[partition]
	must, _ = o.must(partition, want)
	start := o.checkpointed(startOffsets, partition)
	below := func(w written) bool { return w.bytes.LastOffset() < start }
	for _, row := range o.behind(partition, want) {
		if row[0].bytes.BaseOffset() >= start {
			behind = append(behind, row)
		}
	}
	return slices.DeleteFunc(slices.Clone(must), below), behind
}

// gone is held against a log that is not served: it says which damaged file it is, and what it should
// have is on the disk still.
func (o opened) gone(fs vfs.FS, l *commitlog.Log, partition string) error {
	if l == nil {
		return fmt.Errorf("%s is not there", partition)
	}
	if !o.named(l.Err().Error()) {
		return fmt.Errorf("%s is not served, and it names no damaged file: %w", partition, l.Err())
	}
	if _, ok := o.left[partition]; ok {
		return fmt.Errorf("%s was served, and is not the second time: %w", partition, l.Err())
	}
	must, behind := o.required(partition)
	for _, w := range slices.Concat(append(behind, must)...) {
		name := filepath.Join(dataDir, partition, fmt.Sprintf("%020d.log", w.seg))
		p, err := vfs.ReadFile(fs, name)
		if err != nil || !bytes.HasPrefix(p[min(int64(len(p)), w.pos):], w.bytes) {
			return fmt.Errorf("%s is not served (%w), and %s has lost the batch at offset %d (%v)", partition, l.Err(), name, w.bytes.BaseOffset(), err)
		}
	}
	return nil
}

// compare holds one log against what it held before, at the first start, and uses it.
func (o opened) compare(l *commitlog.Log, partition string, told bool) (outcome string, err error) {
	want := o.truth.logs[partition]
	must, behind := o.required(partition)
	_, touched := o.must(partition, want)
	got, err := readLog(l)
	if err != nil && !touched {
		return "", fmt.Errorf("%s, which was not touched: %w", partition, err)
	}
	if berr := o.compareBatches(partition, got, must); berr != nil {
		return "", errors.Join(berr, err)
	}
	for _, row := range behind {
		from, err := readFrom(l, row[0].bytes.BaseOffset())
		if berr := o.compareBatches(partition, from, row); berr != nil {
			return "", errors.Join(berr, err)
		}
	}
	if err == nil && !told {
		if err := o.untold(partition, got, want); err != nil {
			return "", err
		}
	}
	after, err2 := o.use(l)
	if o.left[partition] = after; len(after.batches) < len(got) || (err == nil) != (err2 == nil) {
		return "", fmt.Errorf("%s: %d batches were served (%v), and %d after an append (%v)", partition, len(got), err, len(after.batches), err2)
	}
	switch {
	case len(got) < len(want):
		outcome = "less "
	case len(got) > len(want):
		outcome = "more "
	}
	if told {
		outcome += "told "
	}
	return outcome + fmt.Sprint(err), nil
}

// untold holds what is not served against what nothing can tell of: below the log start offset, what
// is missing in a segment that is gone or ends where a batch does, and in segments that a cleaned one
// replaces.
func (o opened) untold(partition string, got []batch.Batch, want []written) error {
	place := func(b batch.Batch) string { return fmt.Sprint(b.BaseOffset(), covered(b)) }
	served := map[string]bool{}
	for _, b := range got {
		served[place(b)] = true
	}
	start := o.checkpointed(startOffsets, partition)
	lo, hi := o.replaced(partition)
	for _, w := range want {
		if served[place(w.bytes)] || w.bytes.LastOffset() < start || lo <= w.seg && w.seg < hi {
			continue
		}
		if !o.hides(partition, w) {
			return fmt.Errorf("%s: %d of %d batches are served, that at offset %d is not, and nobody said why", partition, len(got), len(want), w.bytes.BaseOffset())
		}
	}
	return nil
}

// hides reports whether a damaged segment in which nothing is wrong to be seen keeps readers from a batch:
// its own, one before it that reaches beyond the batch, or one that begins inside the batch's own, which
// readers come to from another that reaches there.
func (o opened) hides(partition string, w written) bool {
	off := w.bytes.BaseOffset()
	reaches := map[int64]int64{}
	for seg := range o.hurt[partition] {
		if reach, plain := o.plain(partition, seg); plain {
			reaches[seg] = reach
		}
	}
	for seg, reach := range reaches {
		led := w.seg < seg && seg <= off && slices.ContainsFunc(slices.Collect(maps.Values(reaches)), func(r int64) bool { return seg <= r && r <= off })
		if seg == w.seg || seg < w.seg && reach > off || led {
			return true
		}
	}
	return false
}

// compareAgain: what the second start finds is what the first left, no less and no more, and the batch
// that was appended to it. A last segment that is damaged in its batches and in an index ends at the
// damage once that index is made anew, which is told.
func (o opened) compareAgain(l *commitlog.Log, partition string, told bool) error {
	was, ok := o.left[partition]
	if !ok {
		must, _ := o.required(partition)
		got, err := readLog(l)
		if _, touched := o.must(partition, nil); touched {
			err = nil // it was not served the first time, and a reader comes upon the damage
		}
		return errors.Join(o.compareBatches(partition, got, must), err)
	}
	same := func(a, b batch.Batch) bool { return bytes.Equal(a, b) }
	got, err := readLog(l)
	if !slices.EqualFunc(got, was.batches, same) {
		return fmt.Errorf("%s: the first start left %d batches, the second serves %d (%v)", partition, len(was.batches), len(got), err)
	}
	if was.appended == nil {
		return nil
	}
	got, err = readFrom(l, was.appended.BaseOffset())
	if err != nil && len(o.lookups[partition]) > 0 {
		return nil // beside a clean stop the last entry of an index is all that a start looks at: readers are told
	}
	if told && len(got) == 0 && o.brokenTwice(partition) {
		return nil
	}
	if len(got) != 1 || !same(got[0], was.appended) {
		return fmt.Errorf("%s: the batch at offset %d was appended and synced, and there are %d after a stop (%v)", partition, was.appended.BaseOffset(), len(got), err)
	}
	return nil
}

// brokenTwice says whether the last segment's file is damaged, and one of its indexes.
func (o opened) brokenTwice(partition string) bool {
	last := slices.Max(slices.Collect(maps.Keys(o.truth.segments[partition])))
	index := slices.ContainsFunc(o.files, func(f string) bool {
		return filepath.Dir(f) == partition && strings.HasPrefix(filepath.Base(f), fmt.Sprintf("%020d.", last)) && strings.HasSuffix(f, "index")
	})
	return index && o.hurt[partition][last]
}

// readLog reads all that a log serves, as a client that checks checksums.
func readLog(l *commitlog.Log) (all []batch.Batch, err error) { return readFrom(l, l.StartOffset()) }

func readFrom(l *commitlog.Log, off int64) (all []batch.Batch, err error) {
	for end := l.EndOffset(); off < end; {
		v, err := l.Read(off, end, 1<<20, true)
		if err != nil || v == nil {
			return all, err
		}
		p := make([]byte, v.Len())
		_, err = v.ReadAt(p, 0)
		v.Close()
		if err != nil && !errors.Is(err, io.EOF) {
			return all, err
		}
		from := off
		for len(p) > 0 {
			b, rest, err := batch.Next(p)
			if err != nil {
				return all, fmt.Errorf("at offset %d: %w", off, err)
			}
			if err := b.VerifyCRC(); err != nil {
				return all, fmt.Errorf("at offset %d: %w", b.BaseOffset(), err)
			}
			all, p, off = append(all, b), rest, b.LastOffset()+1
		}
		if off <= from {
			return all, fmt.Errorf("a read at offset %d leads back to %d", from, off)
		}
	}
	return all, nil
}

// use asks a log of whatever it holds, and writes to it: it may refuse, and that is all. It reads what
// is there then, up to the first damage.
func (o opened) use(l *commitlog.Log) (after left, err error) {
	end := l.EndOffset()
	off := o.rng.Int64N(min(end, math.MaxInt64-2) + 2)
	_, _, _ = l.OffsetForTime(clockMs+off%50, end)
	_, _ = l.MaxTimestamp()
	_, _ = l.Aborted(0, end)
	_, _ = l.EndOffsetForEpoch(int32(off % 7))
	_ = l.ActiveProducers()
	_ = l.Segments()
	if v, err := l.Read(off, end, 500, false); err == nil && v != nil {
		_ = v.Close()
	}
	b, origin := engineBatch(o.rng, "codecs-0", 1)
	e := commitlog.Entry{Data: b, Origin: origin, ZstdAllowed: true}
	l.Append(clockMs, 9, []*commitlog.Entry{&e})
	if synced := l.Sync(); e.Err == nil && synced == nil {
		got, err := readFrom(l, e.Result.BaseOffset)
		if len(got) != 1 || len(got[0]) != len(b) {
			return after, fmt.Errorf("a batch was appended at offset %d, and there are %d: %v", e.Result.BaseOffset, len(got), err)
		}
		after.appended = got[0]
	}
	after.batches, err = readLog(l)
	return after, err
}
