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
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const fullDiskBytes = 48 << 20

var diskFullRounds = flag.Int("diskfull.rounds", 1, "how often the disk is filled")

// TestDiskFull fills a small file system of its own, again and again, by several producers at a time. Producers are told so by
// an error that they may retry, reads go on, groups commit, records and topics are deleted, a restart on the full disk works,
// also of a broker that was killed; then the room that a deletion makes goes to producers again. All that was acknowledged is
// there, always.
func TestDiskFull(t *testing.T) {
	mount := mountSmall(t)
	if mount == "" {
		return
	}
	d := &diskFull{t: t, bin: buildBinary(t), dir: filepath.Join(mount, "data"), logPath: filepath.Join(t.TempDir(), "broker.log")}
	d.start()
	d.commit("before the disk is full", 0) // makes the topic of the groups' offsets
	d.awaitReserve()
	for d.round = range *diskFullRounds {
		d.fillAndEmpty()
		if t.Failed() {
			t.Fatalf("round %d:\n%s", d.round, tail(d.p.log()))
		}
	}
	if err := d.p.stop(); err != nil {
		t.Errorf("a clean stop ended with %v\n%s", err, tail(d.p.log()))
	}
	if err := d.p.verify(); err != nil {
		t.Error(err)
	}
	out := string(d.p.log())
	used, whole := strings.Count(out, "THE DISK IS FULL"), strings.Count(out, "the reserve is whole")
	if strings.Contains(out, "log is offline") || used < *diskFullRounds || whole < *diskFullRounds {
		t.Errorf("the reserve was used %d times and whole again %d times:\n%s", used, whole, tail(d.p.log()))
	}
	t.Logf("the disk was full %d times, %d records acknowledged, all in place; the last refusal was: %v; the reserve was used %d times and whole again %d times",
		*diskFullRounds, d.total, d.last, used, whole)
}

// fillAndEmpty is one round.
func (d *diskFull) fillAndEmpty() {
	keep, ballast := fmt.Sprintf("keep-%d", d.round), fmt.Sprintf("ballast-%d", d.round)
	d.topic, d.acked = keep, map[place]string{}
	d.create(keep, ballast)
	d.fill(ballast, 6<<20, 1)
	d.fill(keep, fullDiskBytes, 4)
	if d.refusal == nil {
		d.t.Fatalf("%d records went to a disk of %d bytes", len(d.acked), fullDiskBytes)
	}
	if !isRetriable(d.refusal) {
		d.t.Errorf("a full disk is told by %v, which clients do not retry", d.refusal)
	}
	d.last = d.refusal
	d.checkKept("on the full disk")
	d.commit("on the full disk", 1)
	d.deleteRecords(ballast, 20)

	for i := range 3 {
		if d.round%2 == i%2 {
			d.p.kill()
		} else if err := d.p.stop(); err != nil {
			d.t.Errorf("stopping on the full disk ended with %v", err)
		}
		d.start()
		d.checkKept("after a restart on the full disk")
		d.commit("after a restart on the full disk", int64(2+i))
	}

	d.delete(ballast)
	d.awaitRoom(keep)
	d.checkKept("after room was made")
	d.total += len(d.acked)
	d.delete(keep)
}

// mountSmall makes and mounts a small ext4; "": it cannot be done here, which is said.
func mountSmall(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Log("NOT tested: mounting a small file system takes root")
		return ""
	}
	image, mount := filepath.Join(t.TempDir(), "image"), t.TempDir()
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(fullDiskBytes), f.Close()); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"mkfs.ext4", "-q", "-m", "0", image}, {"mount", "-o", "loop", image, mount}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Logf("NOT tested: %v: %v\n%s", args, err, out)
			return ""
		}
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(mount, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmounting %s: %v", mount, err)
		}
	})
	return mount
}

type diskFull struct {
	t       *testing.T
	bin     string
	dir     string
	logPath string
	p       *process
	round   int
	total   int // records acknowledged in earlier rounds

	topic   string           // of this round, whose records are kept
	acked   map[place]string // of it
	refusal error            // of the last fill; nil: there was none
	last    error            // of a full disk
}

func (d *diskFull) start() {
	d.t.Helper()
	d.p = startProcess(d.t, d.bin, d.dir, d.logPath, "log.segment.bytes=1048576", "log.segment.delete.delay.ms=0",
		"offsets.topic.num.partitions=1", "metadata.log.segment.bytes=8388608")
}

func (d *diskFull) client(opts ...kgo.Opt) *kgo.Client {
	d.t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(d.p.addr))...)
	if err != nil {
		d.t.Fatal(err)
	}
	return cl
}

// admin does one thing as an administrator.
func (d *diskFull) admin(what string, do func(ctx context.Context, adm *kadm.Client) error) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 20*time.Second)
	defer cancel()
	cl := d.client()
	defer cl.Close()
	if err := do(ctx, kadm.NewClient(cl)); err != nil {
		d.t.Errorf("%s: %v", what, err)
	}
}

func (d *diskFull) create(topics ...string) {
	d.t.Helper()
	d.admin("creating topics", func(ctx context.Context, adm *kadm.Client) error {
		resp, err := adm.CreateTopics(ctx, 2, 1, nil, topics...)
		return errors.Join(err, resp.Error())
	})
}

func (d *diskFull) delete(topic string) {
	d.t.Helper()
	d.admin("deleting a topic", func(ctx context.Context, adm *kadm.Client) error {
		resp, err := adm.DeleteTopics(ctx, topic)
		return errors.Join(err, resp.Error())
	})
}

// deleteRecords deletes the records of a partition below off.
func (d *diskFull) deleteRecords(topic string, off int64) {
	d.t.Helper()
	d.admin("deleting records on the full disk", func(ctx context.Context, adm *kadm.Client) error {
		var offs kadm.Offsets
		offs.Add(kadm.Offset{Topic: topic, Partition: 0, At: off})
		resp, err := adm.DeleteRecords(ctx, offs)
		if err = errors.Join(err, resp.Error()); err != nil {
			return err
		}
		if r, _ := resp.Lookup(topic, 0); r.LowWatermark != off {
			return fmt.Errorf("the low watermark is %d, want %d", r.LowWatermark, off)
		}
		return nil
	})
}

// commit commits an offset of a group and reads it again.
func (d *diskFull) commit(when string, at int64) {
	d.t.Helper()
	d.admin("committing offsets "+when, func(ctx context.Context, adm *kadm.Client) error {
		var offs kadm.Offsets
		offs.Add(kadm.Offset{Topic: "of-the-group", Partition: 0, At: at, LeaderEpoch: -1})
		if at == 0 {
			d.create("of-the-group")
		}
		var err error
		for range 100 { // while the coordinator loads
			var resp kadm.OffsetResponses
			if resp, err = adm.CommitOffsets(ctx, "group", offs); err == nil {
				err = resp.Error()
			}
			if !errors.Is(err, kerr.CoordinatorNotAvailable) && !errors.Is(err, kerr.CoordinatorLoadInProgress) && !errors.Is(err, kerr.NotCoordinator) {
				break
			}
		}
		if err != nil {
			return err
		}
		resp, err := adm.FetchOffsets(ctx, "group")
		if err = errors.Join(err, resp.Error()); err != nil {
			return err
		}
		if got, _ := resp.Lookup("of-the-group", 0); got.At != at {
			return fmt.Errorf("committed %d, and %d is there", at, got.At)
		}
		return nil
	})
}

func (d *diskFull) producer(topic string, partition int32) *kgo.Client {
	return d.client(kgo.DefaultProduceTopic(topic), kgo.DisableIdempotentWrite(), kgo.RecordRetries(0), kgo.RequestRetries(0),
		kgo.MaxProduceRequestsInflightPerBroker(1), kgo.RecordDeliveryTimeout(10*time.Second), kgo.RecordPartitioner(kgo.ManualPartitioner()))
}

// fill writes records that do not compress by several producers, until most bytes are written or each of them was refused:
// large ones first, then small ones, so that the last block goes too.
func (d *diskFull) fill(topic string, most, producers int) {
	d.t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	d.refusal = nil
	for k := range producers {
		partition := int32(k % 2)
		cl := d.producer(topic, partition)
		wg.Go(func() {
			defer cl.Close()
			rng := rand.New(rand.NewPCG(uint64(d.round), uint64(k)))
			sizes := []int{100 << 10, 4 << 10, 100}
			for n := 0; n < most/producers; {
				value := make([]byte, 1+rng.IntN(sizes[0]))
				for i := range value {
					value[i] = byte(rng.Uint32())
				}
				n += len(value)
				r, err := cl.ProduceSync(d.t.Context(), &kgo.Record{Value: value, Partition: partition}).First()
				mu.Lock()
				if err != nil {
					d.refusal = err
				} else if topic == d.topic {
					d.acked[place{r.Partition, r.Offset}] = string(value)
				}
				mu.Unlock()
				if err == nil {
					continue
				}
				if sizes = sizes[1:]; len(sizes) == 0 {
					return
				}
			}
		})
	}
	wg.Wait()
}

// awaitReserve waits until the broker has made its reserve, which it does a while after its first start.
func (d *diskFull) awaitReserve() {
	d.t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if info, err := os.Stat(filepath.Join(d.dir, "millrace.reserve")); err == nil && info.Size() > fullDiskBytes/200 {
			return
		}
		select {
		case <-deadline:
			d.t.Fatalf("there is no reserve:\n%s", tail(d.p.log()))
		case <-tick.C:
		}
	}
}

// awaitRoom produces until it is not refused any more.
func (d *diskFull) awaitRoom(topic string) {
	d.t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for d.fill(topic, 1<<20, 2); d.refusal != nil; d.fill(topic, 1<<20, 2) {
		if !isRetriable(d.refusal) {
			d.t.Errorf("refused by %v, which clients do not retry", d.refusal)
		}
		select {
		case <-deadline:
			d.t.Fatalf("there is room again, and producing fails: %v\n%s", d.refusal, tail(d.p.log()))
		case <-tick.C:
		}
	}
}

func isRetriable(err error) bool {
	var e *kerr.Error
	return errors.As(err, &e) && e.Retriable
}

// checkKept reads all of the topic that is kept.
func (d *diskFull) checkKept(when string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 30*time.Second)
	defer cancel()
	start := kgo.NewOffset().AtStart()
	cl := d.client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{d.topic: {0: start, 1: start}}), kgo.FetchMaxWait(100*time.Millisecond))
	defer cl.Close()
	found := map[place]string{}
	for seen := 0; seen < len(d.acked); {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			d.t.Errorf("%s: %d of %d acknowledged records were read: %v", when, seen, len(d.acked), fetches.Err())
			return
		}
		fetches.EachRecord(func(r *kgo.Record) {
			at := place{r.Partition, r.Offset}
			found[at] = string(r.Value)
			if _, ok := d.acked[at]; ok {
				seen++
			}
		})
	}
	for at, value := range d.acked {
		if found[at] != value {
			d.t.Errorf("%s: partition %d, offset %d holds something else", when, at.partition, at.off)
			return
		}
	}
}
