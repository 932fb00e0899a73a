package fuzz

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

var (
	compactionRounds = flag.Int("compaction.rounds", 4, "how often the broker is killed while its cleaner works")
	compactionSeed   = flag.Uint64("compaction.seed", 0, "seed of the moments and writes; 0: from the clock")
)

// cleaning is a broker with one compacted topic, and what is known of that.
type cleaning struct {
	t       *testing.T
	rng     *rand.Rand
	bin     string
	dir     string
	logPath string
	p       *process
	k       *keyed
	reader  keyReader
}

const (
	cleanedTopic  = "cleaned"
	stillCleaning = 60 * time.Second // after which a cleaner that is left alone is taken for stuck
)

func newCleaning(t *testing.T, partitions int32) *cleaning {
	t.Helper()
	seed := *compactionSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d (repeat with -compaction.seed=%d)", seed, seed)
	c := &cleaning{t: t, rng: rand.New(rand.NewPCG(seed, 0)), bin: buildBinary(t), dir: filepath.Join(t.TempDir(), "data"), k: newKeyed()}
	c.logPath = filepath.Join(t.TempDir(), "broker.log")
	c.reader = keyReader{k: c.k, topic: cleanedTopic, partitions: partitions}
	return c
}

// cleanerOff keeps the cleaner from working.
const cleanerOff = "log.cleaner.enable=false"

// cleaningSettings let the cleaner work as soon as there is something, and old segments go at once.
var cleaningSettings = []string{"log.segment.bytes=1048576", "log.cleaner.backoff.ms=100", "log.segment.delete.delay.ms=0"}

func (c *cleaning) start(settings ...string) {
	c.t.Helper()
	c.p = startProcess(c.t, c.bin, c.dir, c.logPath, append(slices.Clone(cleaningSettings), settings...)...)
}

// startAndKill kills the broker while it starts.
func (c *cleaning) startAndKill(after time.Duration) {
	c.t.Helper()
	args := []string{"serve", "--data-dir", c.dir, "--listen", "127.0.0.1:0"}
	for _, s := range cleaningSettings {
		args = append(args, "--set", s)
	}
	cmd := exec.Command(c.bin, args...)
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	<-time.After(after)
	_ = cmd.Process.Kill() // it may have ended by itself, which the next start shows
	_ = cmd.Wait()
}

func (c *cleaning) admin() *kadm.Client {
	c.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.p.addr))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(cl.Close)
	return kadm.NewClient(cl)
}

// create makes the topic: every byte that is not clean is to be cleaned.
func (c *cleaning) create(configs map[string]string) {
	c.t.Helper()
	all := map[string]*string{}
	for k, v := range map[string]string{"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0"} {
		all[k] = &v
	}
	for k, v := range configs {
		all[k] = &v
	}
	if _, err := c.admin().CreateTopic(c.t.Context(), c.reader.partitions, 1, all, cleanedTopic); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cleaning) writer(name string, keys, size, most int) *keyWriter {
	return &keyWriter{
		k: c.k, name: name, topic: cleanedTopic, partitions: c.reader.partitions, keys: keys, size: size, most: most,
		rng: rand.New(rand.NewPCG(c.rng.Uint64(), 0)),
	}
}

// check reads everything and holds it against what was told.
func (c *cleaning) check(when string, o keyedCheck) []write {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	found, err := c.reader.readAll(ctx, c.p.addr)
	if err == nil {
		err = c.k.check(found, o)
	}
	if err != nil {
		c.t.Errorf("%s: %v\n%s", when, err, tail(c.p.log()))
	}
	return found
}

// logDir is the directory of a partition.
func (c *cleaning) logDir(p int32) string {
	return filepath.Join(c.dir, cleanedTopic+"-"+strconv.Itoa(int(p)))
}

// cleanedTo reads up to which offset each partition is clean, by Kafka's file of it.
func (c *cleaning) cleanedTo() (map[int32]int64, error) {
	to := map[int32]int64{}
	p, err := os.ReadFile(filepath.Join(c.dir, "cleaner-offset-checkpoint"))
	if errors.Is(err, os.ErrNotExist) {
		return to, nil
	}
	for _, line := range strings.Split(string(p), "\n") {
		var topic string
		var partition int32
		var off int64
		if n, _ := fmt.Sscanf(line, "%s %d %d", &topic, &partition, &off); n == 3 && topic == cleanedTopic {
			to[partition] = off
		}
	}
	return to, err
}

// activeBase is the base offset of a partition's last segment.
func (c *cleaning) activeBase(p int32) (int64, error) {
	logs, err := filepath.Glob(filepath.Join(c.logDir(p), "*.log"))
	if err != nil || len(logs) == 0 {
		return 0, fmt.Errorf("no segments of partition %d: %w", p, err)
	}
	return strconv.ParseInt(strings.TrimSuffix(filepath.Base(logs[len(logs)-1]), ".log"), 10, 64)
}

// unclean says which partition is not clean up to its active segment.
func (c *cleaning) unclean() error {
	to, err := c.cleanedTo()
	if err != nil {
		return err
	}
	for p := range c.reader.partitions {
		base, err := c.activeBase(p)
		if err != nil {
			return err
		}
		if to[p] < base {
			return fmt.Errorf("partition %d is clean up to offset %d, its active segment begins at %d", p, to[p], base)
		}
	}
	return nil
}

// settle waits until everything below the active segments is clean, with nobody's help.
func (c *cleaning) settle(when string) {
	c.t.Helper()
	var why error
	c.await(when+": the cleaner to come to its end", func() bool {
		why = c.unclean()
		return why == nil
	}, func() any { return why })
}

// await polls until something is so; why says what is not, in the end.
func (c *cleaning) await(what string, so func() bool, why func() any) {
	c.t.Helper()
	deadline := time.After(stillCleaning)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-deadline:
			c.t.Fatalf("waited for %s: %v\n%s", what, why(), tail(c.p.log()))
		case <-tick.C:
		}
	}
}

// onceEach says which key is written more than once in what is clean.
func (c *cleaning) onceEach(when string, found []write) {
	c.t.Helper()
	to, err := c.cleanedTo()
	if err != nil {
		c.t.Fatal(err)
	}
	cleaned := func(at place) bool { return at.off < to[at.partition] }
	for key, ws := range repeated(found, cleaned) {
		c.t.Errorf("%s: of key %s offsets %d and %d are kept, and everything up to %d is said to be clean", when, key, ws[0].at.off, ws[1].at.off, to[ws[0].at.partition])
		return
	}
}

// finish stops the broker as an operator would, and lets the offline check read every file.
func (c *cleaning) finish() {
	c.t.Helper()
	if err := c.p.stop(); err != nil {
		c.t.Errorf("a clean stop ended with %v\n%s", err, tail(c.p.log()))
	}
	if err := c.p.verify(); err != nil {
		c.t.Error(err)
	}
}

// TestKillCleaner kills the broker with SIGKILL while its cleaner works under load, and starts it again on what is left:
// no acknowledged write that is the latest of its key is lost, none comes back, readers go on, and in the
// end the cleaner comes to its end by itself.
func TestKillCleaner(t *testing.T) {
	c := newCleaning(t, 3)
	k := cleanerKiller{cleaning: c}
	for i := range 3 {
		w := c.writer(fmt.Sprintf("w%d", i), 150, 64<<c.rng.IntN(6), 0)
		k.writers = append(k.writers, w)
	}
	for round := range *compactionRounds {
		k.round(round)
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
	c.start()
	k.release()
	c.load("last", 150, 1<<20) // so that each partition has a segment to clean, however little was written between kills
	c.settle("after the last kill")
	for p := range c.reader.partitions {
		c.awaitSaid("what was cleaned", fmt.Sprintf(`cleaned a compacted log" log=%s-%d `, cleanedTopic, p))
	}
	c.onceEach("after the last kill", c.check("after the last kill", keyedCheck{}))
	c.finish()
	t.Logf("%d kills, %d of them with cleaned segments half written and %d with a swap half done; %d writes were acknowledged", *compactionRounds, k.cleaned, k.swap, len(c.k.mu.places))
}

type cleanerKiller struct {
	*cleaning
	writers       []*keyWriter
	cleaned, swap int // kills that found such files
}

// round starts the broker with a cleaner that is slow enough to be killed in the middle of a pass.
func (k *cleanerKiller) round(round int) {
	c := k.cleaning
	c.start("millrace.durability="+[]string{"sync", "os"}[round%2],
		fmt.Sprintf("log.cleaner.io.max.bytes.per.second=%d", 2_000_000<<c.rng.IntN(5)),
		fmt.Sprintf("log.cleaner.threads=%d", 1+c.rng.IntN(3)), "log.cleaner.dedupe.buffer.size=8388608")
	if round == 0 {
		c.create(map[string]string{"delete.retention.ms": "3600000"})
	} else {
		c.check(fmt.Sprintf("before round %d", round), keyedCheck{})
	}
	ctx, cancel := context.WithCancel(c.t.Context())
	var wg sync.WaitGroup
	for i, w := range k.writers {
		w.most = 6000
		work := w.write
		if i == 0 {
			work = w.transact
		}
		wg.Go(func() {
			if err := work(ctx, c.p.addr); err != nil && ctx.Err() == nil && !unreachable(err) {
				c.t.Logf("round %d: %s: %v", round, w.name, err)
			}
		})
	}
	wg.Go(func() {
		if err := c.reader.follow(ctx, c.p.addr); err != nil && ctx.Err() == nil {
			c.t.Errorf("round %d: %v", round, err)
		}
	})
	k.aim(round)
	c.p.kill()
	cancel()
	wg.Wait()
	k.count()
	if c.rng.IntN(2) == 0 {
		c.startAndKill(time.Duration(c.rng.IntN(150)) * time.Millisecond)
	}
}

// aim waits for the moment of the kill: any, one while a cleaned segment is written, or one while such segments take
// the place of others.
func (k *cleanerKiller) aim(round int) {
	suffix := []string{"", ".cleaned", ".swap"}[round%3]
	late := time.After(time.Duration(100+k.rng.IntN(1900)) * time.Millisecond)
	if suffix == "" {
		<-late
		return
	}
	late = time.After(4 * time.Second)
	for !k.left(suffix) {
		select {
		case <-late:
			return
		default: // the moment is short: no pause
		}
	}
	if suffix == ".cleaned" {
		<-time.After(time.Duration(k.rng.IntN(200)) * time.Millisecond)
	}
}

// left says whether there are files of that ending.
func (k *cleanerKiller) left(suffix string) bool {
	found, err := filepath.Glob(filepath.Join(k.dir, cleanedTopic+"-*", "*"+suffix))
	if err != nil {
		k.t.Error(err)
	}
	return len(found) > 0
}

// count notes what the kill has left half done.
func (k *cleanerKiller) count() {
	if k.left(".cleaned") {
		k.cleaned++
	}
	if k.left(".swap") {
		k.swap++
	}
}

// release ends the transactions that kills have left open: below them nothing is cleaned.
func (k *cleanerKiller) release() {
	ctx, cancel := context.WithTimeout(k.t.Context(), 30*time.Second)
	defer cancel()
	if err := k.writers[0].release(ctx, k.p.addr); err != nil {
		k.t.Errorf("taking over the transactional id: %v\n%s", err, tail(k.p.log()))
	}
}

// The workload and its check, with no cleaner to do anything wrong.
func TestKillWithoutCleaner(t *testing.T) {
	c := newCleaning(t, 2)
	c.start(cleanerOff)
	c.create(nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	plain, txn := c.writer("plain", 100, 500, 3000), c.writer("txn", 100, 500, 1000)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := plain.write(ctx, c.p.addr); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() {
		if err := txn.transact(ctx, c.p.addr); err != nil {
			t.Error(err)
		}
	})
	wg.Wait()
	found := c.check("before the kill", keyedCheck{})
	if len(found) != len(c.k.mu.places) || len(c.k.mu.aborted) == 0 || len(repeated(found, func(place) bool { return true })) == 0 {
		t.Errorf("%d records are there, %d were acknowledged, %d aborted", len(found), len(c.k.mu.places), len(c.k.mu.aborted))
	}
	c.p.kill()
	c.start(cleanerOff)
	c.check("after the kill", keyedCheck{})
	c.finish()
}
