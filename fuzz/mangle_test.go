package fuzz

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-project/millrace"
	"github.com/millrace-project/millrace/batch"
)

var (
	mangleSeed   = flag.Uint64("mangle.seed", 0, "seed of the mutations; 0: from the clock")
	mangleRounds = flag.Int("mangle.rounds", 120, "how many directories are mangled")
	mangleOnly   = flag.Int("mangle.only", -1, "the one round to do; -1: all")
)

// TestMangle damages data directories and starts the broker on them. It refuses and names the file,
// or it serves; then what was before the damage is there byte for byte, partitions that were not
// touched are whole, and no record comes out that nobody wrote.
func TestMangle(t *testing.T) {
	seed := *mangleSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	fmt.Printf("mangle: seed %d (repeat with -mangle.seed=%d)\n", seed, seed) // now: a panic in a goroutine of the broker ends the test without its log
	rounds := *mangleRounds
	if testing.Short() {
		rounds = min(rounds, 60)
	}
	stopped, killed := writeDirectories(t)
	truths := []*truth{readTruth(t, stopped), readTruth(t, killed)}
	outcomes := map[string]int{}
	for round := range rounds {
		if *mangleOnly >= 0 && round != *mangleOnly {
			continue
		}
		m := &mangler{t: t, rng: rand.New(rand.NewPCG(seed, uint64(round))), truth: truths[round%2], dir: filepath.Join(t.TempDir(), "data")}
		m.copyDir()
		for range 1 + m.rng.IntN(2) {
			m.mutate()
		}
		what := fmt.Sprintf("round %d (%s): %s", round, []string{"stopped", "killed"}[round%2], strings.Join(m.did, "; "))
		fmt.Println(what)
		outcomes[m.check(what)]++
		if err := os.RemoveAll(m.dir); err != nil {
			t.Fatal(err)
		}
		if t.Failed() && *mangleOnly < 0 && *mangleRounds <= 120 {
			t.Fatalf("seed %d, %s", seed, what)
		}
	}
	t.Logf("outcomes: %v", outcomes)
}

// writeDirectories has a broker write topics with every codec, in several segments each, by
// idempotent producers: a directory as a clean stop leaves it, and one as a kill does.
func writeDirectories(t *testing.T) (stopped, killed string) {
	t.Helper()
	stopped, killed = filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "data")
	b, err := millrace.Start(stopped)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	at := time.Now().Add(-time.Hour).Truncate(time.Second)
	for codec, option := range map[string]kgo.CompressionCodec{"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression()} {
		cl, err := kgo.NewClient(kgo.SeedBrokers(b.Addr()), kgo.DefaultProduceTopic(codec), kgo.ProducerBatchCompression(option), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
		if err != nil {
			t.Fatal(err)
		}
		roll, every, forever := "10000", "512", "-1"
		configs := map[string]*string{"segment.ms": &roll, "index.interval.bytes": &every, "retention.ms": &forever}
		if _, err := kadm.NewClient(cl).CreateTopic(ctx, 2, 1, configs, codec); err != nil {
			t.Fatal(err)
		}
		for i := range 40 { // a batch a second: a segment holds ten
			var records []*kgo.Record
			for j := range 10 {
				value := fmt.Sprintf("%s %d %d %s", codec, i, j, strings.Repeat("value ", j))
				records = append(records, &kgo.Record{Key: []byte(strconv.Itoa(j)), Value: []byte(value), Partition: int32(i / 2 % 2), Timestamp: at.Add(time.Duration(i)*time.Second + time.Duration(j)*time.Millisecond)})
			}
			if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		cl.Close()
	}
	for {
		err := os.CopyFS(killed, os.DirFS(stopped))
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || ctx.Err() != nil { // the broker tidies up beside us
			t.Fatal(err)
		}
		if err := os.RemoveAll(killed); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	return stopped, killed
}

// written is a batch as it is in a file.
type written struct {
	seg, pos int64 // the segment's base offset, the position in its file
	bytes    batch.Batch
}

// truth is what a directory holds before it is mangled.
type truth struct {
	dir      string
	files    []string                  // relative to dir
	logs     map[string][]written      // by partition, user topics only
	segments map[string]map[int64]bool // by partition: the base offsets
	known    map[string]bool           // what the checksum covers of every batch, of all partitions
}

func readTruth(t *testing.T, dir string) *truth {
	t.Helper()
	tr := &truth{dir: dir, logs: map[string][]written{}, segments: map[string]map[int64]bool{}, known: map[string]bool{}}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		tr.files = append(tr.files, rel)
		partition := filepath.Dir(rel)
		if filepath.Ext(rel) != ".log" || strings.HasPrefix(partition, "__") {
			return nil
		}
		p, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		seg, err := strconv.ParseInt(strings.TrimSuffix(filepath.Base(rel), ".log"), 10, 64)
		if err != nil {
			return err
		}
		if tr.segments[partition] == nil {
			tr.segments[partition] = map[int64]bool{}
		}
		tr.segments[partition][seg] = true
		for pos := int64(0); len(p) > 0; {
			b, rest, err := batch.Next(p)
			if err != nil {
				return fmt.Errorf("%s at %d: %w", rel, pos, err)
			}
			tr.logs[partition] = append(tr.logs[partition], written{seg, pos, b})
			tr.known[covered(b)] = true
			pos += int64(b.Size())
			p = rest
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(tr.logs) != 10 {
		t.Fatalf("%s holds %d partitions", dir, len(tr.logs))
	}
	return tr
}

// covered is what a batch's checksum covers, and the checksum. Base offset, length, leader epoch
// and magic are not.
func covered(b batch.Batch) string { return string(b[17:]) }

// mangler damages one copy of a directory.
type mangler struct {
	t     *testing.T
	rng   *rand.Rand
	truth *truth
	dir   string
	did   []string
	files []string         // what was damaged, relative
	first map[string]int64 // by partition: the offset from which on its .log files are damaged
	index map[string]int64 // by partition: the offset from which on reads may find a damaged .index
}

func (m *mangler) copyDir() {
	if err := os.CopyFS(m.dir, os.DirFS(m.truth.dir)); err != nil {
		m.t.Fatal(err)
	}
	if err := filepath.WalkDir(m.dir, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Chmod(path, 0o755)) // snapshots are read-only
	}); err != nil {
		m.t.Fatal(err)
	}
	m.first, m.index = map[string]int64{}, map[string]int64{}
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
	names := make([]string, 0, len(kinds))
	for k := range kinds {
		names = append(names, k)
	}
	slices.Sort(names)
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

func (m *mangler) mutate() {
	rel := m.pick()
	path := filepath.Join(m.dir, rel)
	p, err := os.ReadFile(path)
	if err != nil {
		return // an earlier mutation took it
	}
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
		junk := make([]byte, 1+m.rng.IntN(500))
		for i := range junk {
			junk[i] = byte(m.rng.Uint32())
		}
		m.write(rel, append(p, junk...), len(p), "add noise to")
	case op == 6:
		if err := os.Remove(path); err != nil {
			m.t.Fatal(err)
		}
		m.damaged(rel, 0)
		m.did = append(m.did, "delete "+rel)
	case op == 7:
		m.swap(rel, p)
	default:
		m.duplicate(rel, p)
	}
}

func (m *mangler) write(rel string, p []byte, at int, what string) {
	if err := os.WriteFile(filepath.Join(m.dir, rel), p, 0o644); err != nil {
		m.t.Fatal(err)
	}
	m.damaged(rel, int64(at))
	m.did = append(m.did, fmt.Sprintf("%s %s at %d", what, rel, at))
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
	q, err := os.ReadFile(filepath.Join(m.dir, other))
	if err != nil {
		return
	}
	m.write(rel, q, 0, "swap with "+other+":")
	m.write(other, p, 0, "swap with "+rel+":")
}

// duplicate leaves a copy of a file under a name that the broker has a use for.
func (m *mangler) duplicate(rel string, p []byte) {
	ext := filepath.Ext(rel)
	name := rel + []string{".deleted", ".cleaned", ".swap", ".tmp"}[m.rng.IntN(4)]
	if ext == ".log" || ext == ".snapshot" || ext == ".index" {
		if m.rng.IntN(2) == 0 {
			name = filepath.Join(filepath.Dir(rel), fmt.Sprintf("%020d%s", m.rng.IntN(300), ext))
		}
	}
	if _, err := os.Stat(filepath.Join(m.dir, name)); err == nil {
		return
	}
	if strings.HasSuffix(name, ".log.swap") { // what a swap file is named after it takes the place of
		m.damaged(rel, 0)
	}
	m.write(name, p, 0, "duplicate as")
}

// logLines is what a broker logged.
type logLines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// named: the error says which file is damaged, or whose.
func (m *mangler) named(err error) bool {
	return slices.ContainsFunc(m.files, func(f string) bool {
		return strings.Contains(err.Error(), filepath.Base(f)) || filepath.Dir(f) != "." && strings.Contains(err.Error(), filepath.Dir(f))
	})
}

// check starts the broker on the mangled directory, and says what became of it.
func (m *mangler) check(what string) (outcome string) {
	var log logLines
	b, err := millrace.Start(m.dir, millrace.Logger(slog.New(slog.NewTextHandler(&log, nil))))
	if err != nil {
		if !m.named(err) {
			m.t.Errorf("%s: the refusal names no file: %v", what, err)
		}
		if strings.Contains(err.Error(), "BUG:") {
			m.t.Errorf("%s: %v", what, err)
		}
		return "refused"
	}
	outcome = m.compare(what, b)
	if err := b.Close(); err != nil && !m.named(err) {
		m.t.Errorf("%s: close: %v", what, err)
	}
	if m.rng.IntN(3) == 0 && !m.t.Failed() { // what was served once is served again
		again, err := millrace.Start(m.dir, millrace.Logger(slog.New(slog.NewTextHandler(&log, nil))))
		if err != nil {
			m.t.Errorf("%s: it was served, and is refused the second time: %v", what, err)
		} else {
			m.compare(what+" (second start)", again)
			again.Close()
		}
	}
	if s := log.String(); strings.Contains(s, "BUG:") || strings.Contains(s, "panic") {
		m.t.Errorf("%s: in the log:\n%s", what, s)
	}
	if m.t.Failed() || *mangleOnly >= 0 {
		m.t.Logf("the log:\n%s", log.String())
	}
	return outcome
}
