package fuzz

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

var (
	killRounds = flag.Int("kill.rounds", 4, "how often the broker is killed")
	killSeed   = flag.Uint64("kill.seed", 0, "seed of the moments and sizes; 0: from the clock")
	killDir    = flag.String("kill.dir", "", "data directory, kept; empty: a temporary one")
)

const (
	killTopic      = "killed"
	killPartitions = 3
	killMost       = 3000 // records a producer writes in a round: each round reads back all that were ever written
)

// TestKill kills the broker with SIGKILL under load, starts it again on what is left, and holds
// that every record that a producer was told of, and every record that a consumer was shown, is
// where it was, that offsets have no holes, and that the files pass `log verify` after a clean stop.
func TestKill(t *testing.T) {
	seed := *killSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d (repeat with -kill.seed=%d)", seed, seed)
	dir := *killDir
	if dir == "" {
		dir = t.TempDir()
	}
	k := &killer{t: t, rng: rand.New(rand.NewPCG(seed, 0)), dir: dir, bin: buildBinary(t), known: map[place]uint64{}, seed: maphash.MakeSeed()}
	for round := range *killRounds {
		k.round(round)
		if t.Failed() {
			t.Fatalf("round %d, seed %d", round, seed)
		}
	}
	k.finish()
	if *killRounds > 1 && k.acknowledged.Load() == 0 {
		t.Errorf("nothing was acknowledged in %d rounds, and so nothing was tested", *killRounds)
	}
	t.Logf("%d kills, %d records acknowledged, %d acknowledged or shown, all in place", *killRounds, k.acknowledged.Load(), len(k.known))
}

// place is where a record was told to be.
type place struct {
	partition int32
	off       int64
}

type killer struct {
	t    *testing.T
	rng  *rand.Rand
	dir  string
	bin  string
	addr string
	p    *process

	seed maphash.Seed

	acknowledged atomic.Int64

	mu    sync.Mutex
	known map[place]uint64 // hash of what some client was told or shown
}

func (k *killer) start(durability string) {
	k.t.Helper()
	k.p = startProcess(k.t, k.bin, k.dir, filepath.Join(k.dir, "..", "broker.log"),
		"millrace.durability="+durability, "log.segment.bytes=1048576", "num.partitions="+strconv.Itoa(killPartitions))
	k.addr = k.p.addr
}

func (k *killer) round(round int) {
	durability := []string{"sync", "os"}[round%2]
	k.start(durability)
	k.verify(round)
	if k.t.Failed() {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for p := range 2 + k.rng.IntN(3) {
		size := 1 << k.rng.IntN(13)
		wg.Go(func() { k.produce(ctx, fmt.Sprintf("%d-%d", round, p), size) })
	}
	wg.Go(func() { k.consume(ctx) })
	<-time.After(time.Duration(50+k.rng.IntN(350)) * time.Millisecond)
	k.p.kill()
	cancel()
	wg.Wait()
}

// produce writes until it is stopped. A record counts from the moment that its offset was told.
func (k *killer) produce(ctx context.Context, name string, size int) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.addr), kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic(killTopic),
		kgo.MaxBufferedRecords(500), kgo.RecordRetries(3), kgo.ProducerLinger(0), kgo.RetryTimeout(5*time.Second))
	if err != nil {
		k.t.Error(err)
		return
	}
	defer cl.Close()
	pad := strings.Repeat("x", size)
	for i := 0; ctx.Err() == nil && i < killMost; i++ {
		value := fmt.Sprintf("%s-%d-%s", name, i, pad)
		cl.Produce(ctx, kgo.StringRecord(value), func(r *kgo.Record, err error) {
			if err == nil {
				k.acknowledged.Add(1)
				k.told(r, value)
			}
		})
	}
}

// told notes what a client saw at an offset; two different things at one offset are a failure.
func (k *killer) told(r *kgo.Record, value string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	at, hash := place{r.Partition, r.Offset}, maphash.String(k.seed, value)
	if was, ok := k.known[at]; ok && was != hash {
		k.t.Errorf("partition %d offset %d held another record and now holds %.40q", at.partition, at.off, value)
	}
	k.known[at] = hash
}

func (k *killer) consume(ctx context.Context) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.addr), kgo.ConsumeTopics(killTopic), kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()),
		kgo.FetchMaxWait(100*time.Millisecond), kgo.AllowAutoTopicCreation(), kgo.MetadataMinAge(20*time.Millisecond))
	if err != nil {
		k.t.Error(err)
		return
	}
	defer cl.Close()
	for ctx.Err() == nil {
		cl.PollFetches(ctx).EachRecord(func(r *kgo.Record) { k.told(r, string(r.Value)) })
	}
}

// verify reads every partition from its start and holds it against all that was told so far.
func (k *killer) verify(round int) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.addr), kgo.FetchMaxWait(100*time.Millisecond))
	if err != nil {
		k.t.Error(err)
		return
	}
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, killTopic)
	if err != nil || ends[killTopic][0].Err != nil {
		if len(k.known) > 0 {
			k.t.Errorf("round %d: listing end offsets: %v", round, errors.Join(err, ends[killTopic][0].Err))
		}
		return
	}
	assign, left := map[int32]kgo.Offset{}, map[int32]int64{}
	for p, o := range ends[killTopic] {
		assign[p] = kgo.NewOffset().AtStart()
		if o.Offset > 0 {
			left[p] = o.Offset
		}
	}
	found := map[place]uint64{}
	cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{killTopic: assign})
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			k.t.Errorf("round %d: reading back: %v", round, err)
			return
		}
		fetches.EachRecord(func(r *kgo.Record) {
			found[place{r.Partition, r.Offset}] = maphash.Bytes(k.seed, r.Value)
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
		})
	}
	k.compare(round, found, ends)
}

func (k *killer) compare(round int, found map[place]uint64, ends kadm.ListedOffsets) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for at, value := range k.known {
		if got, ok := found[at]; !ok {
			k.t.Errorf("round %d: partition %d offset %d was told to hold a record and is gone", round, at.partition, at.off)
		} else if got != value {
			k.t.Errorf("round %d: partition %d offset %d holds another record than was told", round, at.partition, at.off)
		}
		if k.t.Failed() {
			return
		}
	}
	for p, o := range ends[killTopic] {
		for off := range o.Offset {
			if _, ok := found[place{p, off}]; !ok {
				k.t.Errorf("round %d: partition %d has a hole at offset %d", round, p, off)
				return
			}
		}
	}
}

// finish stops the broker as an operator would, and lets the offline check read every file.
func (k *killer) finish() {
	k.start("sync")
	k.verify(*killRounds)
	if err := k.p.stop(); err != nil {
		k.t.Errorf("a clean stop ended with %v", err)
	}
	if err := k.p.verify(); err != nil {
		k.t.Error(err)
	}
}
