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
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-project/millrace"
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
	stopped, killed, said := writeDirectories(t)
	trees := []tree{readTree(t, stopped), readTree(t, killed)}
	truths := []*truth{mustTruth(t, trees[0]), mustTruth(t, trees[1])}
	outcomes := map[string]int{}
	for round := range rounds {
		if *mangleOnly >= 0 && round != *mangleOnly {
			continue
		}
		rng := rand.New(rand.NewPCG(seed, uint64(round)))
		m := &started{newMangler(rng, truths[round%2], trees[round%2]), t, filepath.Join(t.TempDir(), "data"), said, new(logLines)}
		for range 1 + m.rng.IntN(2) {
			m.mutate()
		}
		m.writeDir()
		what := fmt.Sprintf("round %d (%s): %s", round, []string{"stopped", "killed"}[round%2], m.what())
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
// idempotent producers, and what coordinators remember: a directory as a clean stop leaves it, and one
// as a kill does.
func writeDirectories(t *testing.T) (stopped, killed string, said remembered) {
	t.Helper()
	stopped, killed = filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "data")
	b, err := startMangled(stopped, nil)
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
	said = remember(ctx, t, b)
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
	return stopped, killed, said
}

// startMangled starts the broker with one partition of each coordinator.
func startMangled(dir string, log *logLines) (*millrace.Broker, error) {
	options := []millrace.Option{millrace.Set("offsets.topic.num.partitions", "1"), millrace.Set("transaction.state.log.num.partitions", "1")}
	if log != nil {
		options = append(options, millrace.Logger(slog.New(slog.NewTextHandler(log, nil))))
	}
	return millrace.Start(dir, options...)
}

// readTree reads the files below a directory.
func readTree(t *testing.T, dir string) tree {
	t.Helper()
	out := tree{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		out[rel], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func mustTruth(t *testing.T, from tree) *truth {
	t.Helper()
	tr, err := readTruth(from)
	if err != nil || len(tr.logs) != 10 {
		t.Fatalf("%d partitions, %v", len(tr.logs), err)
	}
	return tr
}

// started is a mangled directory that a broker is started on.
type started struct {
	*mangler
	t    *testing.T
	dir  string
	said remembered
	log  *logLines
}

func (m *started) writeDir() {
	for rel, p := range m.tree {
		path := filepath.Join(m.dir, rel)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, p, 0o644)); err != nil {
			m.t.Fatal(err)
		}
	}
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

// check starts the broker on the mangled directory, and says what became of it.
func (m *started) check(what string) (outcome string) {
	b, err := startMangled(m.dir, m.log)
	if err != nil {
		if !m.named(err.Error()) {
			m.t.Errorf("%s: the refusal names no file: %v", what, err)
		}
		if strings.Contains(err.Error(), "BUG:") {
			m.t.Errorf("%s: %v", what, err)
		}
		return "refused"
	}
	outcome = m.compare(what, b)
	if err := b.Close(); err != nil && !m.named(err.Error()) {
		m.t.Errorf("%s: close: %v", what, err)
	}
	if m.rng.IntN(3) == 0 && !m.t.Failed() { // what was served once is served again
		again, err := startMangled(m.dir, m.log)
		if err != nil {
			m.t.Errorf("%s: it was served, and is refused the second time: %v", what, err)
		} else {
			m.compare(what+" (second start)", again)
			again.Close()
		}
	}
	if s := m.log.String(); strings.Contains(s, "BUG:") || strings.Contains(s, "panic") {
		m.t.Errorf("%s: in the log:\n%s", what, s)
	}
	if m.t.Failed() || *mangleOnly >= 0 {
		m.t.Logf("the log:\n%s", m.log.String())
	}
	return outcome
}
