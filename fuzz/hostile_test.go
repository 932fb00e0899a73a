package fuzz

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

var (
	hostileSeed     = flag.Uint64("hostile.seed", 0, "seed of the attacks; 0: from the clock")
	hostileDuration = flag.Duration("hostile.duration", 8*time.Second, "how long the storm lasts")
)

const (
	honestTopic      = "honest"
	honestPartitions = 3
	bigTopic         = "hostile-big"
	attackers        = 8

	// The most memory that the broker may be seen with: 256 MiB of frames, 96 MiB of read and reply
	// buffers, and 100 MiB of decompressed records for each of the four logs that bombs are sent to;
	// and as much again, which the garbage collector lets pass before it collects.
	stormMaxRSS = 1000 << 20
	// Threads are those in sendfile and pread (64), fdatasync (16), and the runtime's.
	stormMaxThreads = 150
)

// TestStorm has hostile clients do their worst to the broker while honest ones go on. Nobody honest
// loses anything, nothing panics, memory stays in its bounds, the log names who did what, and
// nothing is left over when the storm is past.
func TestStorm(t *testing.T) {
	seed := *hostileSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d (repeat with -hostile.seed=%d)", seed, seed)
	bombs, err := makeBombs()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := &storm{t: t, bombs: bombs, told: map[place][sha256.Size]byte{}, seen: map[place][sha256.Size]byte{}, counts: map[string]int{}}
	s.p = startProcess(t, buildBinary(t), filepath.Join(dir, "data"), filepath.Join(dir, "broker.log"), "num.partitions=2")
	s.prepare()
	s.t.Log("prepared")
	before, err := s.p.usage()
	if err != nil {
		t.Logf("memory, threads and connections NOT measured: %v", err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), *hostileDuration)
	defer cancel()
	var hostile, honest sync.WaitGroup
	honestCtx, stopProducing := context.WithCancel(t.Context())
	defer stopProducing()
	honest.Go(func() { s.produce(honestCtx, seed) })
	honest.Go(func() { s.consume(honestCtx) })
	for i := range attackers {
		a := &attacker{s: s, rng: rand.New(rand.NewPCG(seed, uint64(i)))}
		hostile.Go(func() { a.run(ctx) })
	}
	hostile.Go(func() { s.watch(ctx) })
	began := time.Now()
	hostile.Wait()
	t.Logf("the last attacker left after %v", time.Since(began).Round(time.Millisecond))
	stopProducing()
	honest.Wait()
	t.Logf("the honest clients were done after %v", time.Since(began).Round(time.Millisecond))

	s.checkHonest()
	s.checkCalm(before)
	s.checkEnd()
	t.Logf("attacks: %v", s.counts)
	if t.Failed() {
		t.Logf("the end of the broker's log:\n%s", tail(s.p.log()))
	}
}

type storm struct {
	t     *testing.T
	p     *process
	bombs []zipBomb

	mu      sync.Mutex
	told    map[place][sha256.Size]byte // what the honest producer was told of
	seen    map[place][sha256.Size]byte // what the honest consumer was given
	slowest time.Duration               // of an honest produce
	ends    map[int32]int64             // set when the honest producer is done
	counts  map[string]int
	peak    usage
}

func (s *storm) count(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[name]++
}

// prepare makes the topics, and one so large that a fetch of 55 MB finds as much.
func (s *storm) prepare() {
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.p.addr), kgo.DefaultProduceTopic(bigTopic), kgo.ProducerBatchMaxBytes(1000000), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		s.t.Fatal(err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	for topic, n := range map[string]int32{honestTopic: honestPartitions, bigTopic: 1, "hostile-0": 2, "hostile-1": 2, "hostile-2": 2, "hostile-3": 2} {
		if _, err := adm.CreateTopic(ctx, n, 1, nil, topic); err != nil {
			s.t.Fatal(err)
		}
	}
	value := make([]byte, 900<<10)
	for range 64 {
		cl.Produce(ctx, &kgo.Record{Value: value}, nil)
	}
	if err := cl.Flush(ctx); err != nil {
		s.t.Fatal(err)
	}
}

// produce writes records of all sizes until ctx is done, and then sees to it that all are answered.
func (s *storm) produce(ctx context.Context, seed uint64) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.p.addr), kgo.DefaultProduceTopic(honestTopic), kgo.MaxBufferedRecords(200))
	if err != nil {
		s.t.Error(err)
		return
	}
	defer cl.Close()
	rng := rand.New(rand.NewPCG(seed, 1000))
	whole := context.WithoutCancel(ctx)
	for i := uint64(0); ctx.Err() == nil; i++ {
		value := binary.BigEndian.AppendUint64(nil, i)
		value = append(value, bytes.Repeat([]byte{byte(i)}, rng.IntN(1<<rng.IntN(19)))...)
		began := time.Now()
		cl.Produce(whole, &kgo.Record{Value: value}, func(r *kgo.Record, err error) {
			if err != nil {
				s.t.Errorf("an honest record was refused: %v", err)
				return
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.slowest = max(s.slowest, time.Since(began))
			s.told[place{r.Partition, r.Offset}] = sha256.Sum256(r.Value)
		})
		if i%50 == 0 {
			<-time.After(20 * time.Millisecond) // leave some of the machine to the storm
		}
	}
	late, cancel := context.WithTimeout(whole, time.Minute)
	defer cancel()
	if err := cl.Flush(late); err != nil {
		s.t.Errorf("honest records were not answered within a minute of the storm's end: %v", err)
	}
	ends := map[int32]int64{}
	s.mu.Lock()
	defer s.mu.Unlock()
	for at := range s.told {
		ends[at.partition] = max(ends[at.partition], at.off+1)
	}
	s.ends = ends
}

// consume reads along, and after the storm until it has seen all that the producer was told of.
func (s *storm) consume(ctx context.Context) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.p.addr), kgo.ConsumeTopics(honestTopic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(200*time.Millisecond))
	if err != nil {
		s.t.Error(err)
		return
	}
	defer cl.Close()
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), *hostileDuration+2*time.Minute)
	defer cancel()
	reached := map[int32]int64{}
	for !s.reached(reached) {
		poll, stop := context.WithTimeout(late, 500*time.Millisecond) // the producer may have been done before
		fetches := cl.PollFetches(poll)
		stop()
		if late.Err() != nil {
			s.t.Errorf("the honest consumer came to %v", reached)
			return
		}
		fetches.EachRecord(func(r *kgo.Record) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.seen[place{r.Partition, r.Offset}] = sha256.Sum256(r.Value)
			reached[r.Partition] = r.Offset + 1
		})
	}
}

func (s *storm) reached(reached map[int32]int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, end := range s.ends {
		if reached[p] < end {
			return false
		}
	}
	return s.ends != nil
}

// watch looks at the broker while the storm lasts.
func (s *storm) watch(ctx context.Context) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if !s.p.alive() {
				s.t.Errorf("the broker is dead:\n%s", tail(s.p.log()))
				return
			}
			u, err := s.p.usage()
			if err != nil {
				return // said once before
			}
			s.peak = usage{max(s.peak.rss, u.rss), max(s.peak.peak, u.peak), max(s.peak.threads, u.threads), max(s.peak.sockets, u.sockets)}
		}
	}
}

// checkHonest holds what the honest consumer saw against what the honest producer was told.
func (s *storm) checkHonest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for at, sum := range s.told {
		if got, ok := s.seen[at]; !ok || got != sum {
			s.t.Errorf("partition %d offset %d: what was read is not what was written (read: %v)", at.partition, at.off, ok)
			return
		}
	}
	if len(s.seen) != len(s.told) {
		s.t.Errorf("%d records were read of %d that were written", len(s.seen), len(s.told))
	}
	if len(s.told) == 0 {
		s.t.Error("the honest producer got nothing through")
	}
	s.t.Logf("%d honest records, the slowest answered after %v", len(s.told), s.slowest.Round(time.Millisecond))
}

// checkCalm holds that the broker comes back to what it was.
func (s *storm) checkCalm(before usage) {
	if !s.p.alive() || before.rss == 0 {
		return
	}
	s.t.Logf("before: %s; most: %s", before, s.peak)
	if s.peak.peak > stormMaxRSS {
		s.t.Errorf("the broker took %d MB of memory, more than %d", s.peak.peak>>20, stormMaxRSS>>20)
	}
	if s.peak.threads > stormMaxThreads {
		s.t.Errorf("the broker had %d threads, more than %d", s.peak.threads, stormMaxThreads)
	}
	var u usage
	began := time.Now()
	for deadline := time.Now().Add(40 * time.Second); time.Now().Before(deadline); <-time.After(100 * time.Millisecond) {
		var err error
		if u, err = s.p.usage(); err != nil {
			s.t.Error(err)
			return
		}
		if u.sockets <= before.sockets {
			break
		}
	}
	s.t.Logf("after: %s, %v after the storm", u, time.Since(began).Round(time.Millisecond))
	if u.sockets > before.sockets {
		s.t.Errorf("%d sockets are open long after the storm, %d were before", u.sockets, before.sockets)
	}
}

func (u usage) String() string {
	return fmt.Sprintf("%d MB (peak %d), %d threads, %d sockets", u.rss>>20, u.peak>>20, u.threads, u.sockets)
}

var (
	complaint = regexp.MustCompile(`level=(WARN|ERROR)`)
	names     = regexp.MustCompile(`peer=127\.0\.0\.1:\d+.*(cause|reason)=.`)
	aboutLogs = regexp.MustCompile(`msg="(log is offline|upkeep|recovered|cannot accept)`)
)

// checkEnd stops the broker, and reads its log and its files.
func (s *storm) checkEnd() {
	began := time.Now()
	if err := s.p.stop(); err != nil {
		s.t.Errorf("a clean stop ended with %v:\n%s", err, tail(s.p.log()))
	}
	s.t.Logf("stopped within %v", time.Since(began).Round(time.Millisecond))
	if err := s.p.verify(); err != nil {
		s.t.Error(err)
	}
	log := s.p.log()
	lines := 0
	for line := range bytes.Lines(log) {
		if bytes.Contains(line, []byte("BUG:")) || bytes.Contains(line, []byte("panic")) || bytes.Contains(line, []byte("goroutine ")) {
			s.t.Errorf("in the log: %s", line)
		}
		if complaint.Match(line) {
			lines++
			if !names.Match(line) && !aboutLogs.Match(line) {
				s.t.Errorf("a complaint that does not say who and why: %s", line)
			}
		}
		if s.t.Failed() && lines > 10000 {
			break
		}
	}
	s.t.Logf("%d complaints in the log, %d KB in all", lines, len(log)>>10)
}
