package fuzz

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const fullDiskBytes = 48 << 20

// TestDiskFull fills a small file system of its own. Producers are told so by an error that they
// may retry, reads go on, deleting a topic makes room again, a restart on the full disk works, and
// all that was acknowledged is there.
func TestDiskFull(t *testing.T) {
	mount := mountSmall(t)
	if mount == "" {
		return
	}
	d := &diskFull{t: t, bin: buildBinary(t), dir: filepath.Join(mount, "data"), logPath: filepath.Join(t.TempDir(), "broker.log"), acked: map[place]string{}}
	d.start()
	d.create("keep", "ballast")
	d.fill("ballast", 10<<20)
	d.fill("keep", fullDiskBytes)
	if !d.refused {
		t.Fatalf("%d records went to a disk of %d bytes", len(d.acked), fullDiskBytes)
	}
	if !isRetriable(d.refusal) {
		t.Errorf("a full disk is told by %v, which clients do not retry", d.refusal)
	}
	d.checkKept("on the full disk")

	if err := d.p.stop(); err != nil {
		t.Logf("stopping on the full disk ended with %v", err)
	}
	d.start()
	d.checkKept("after a restart on the full disk")

	d.delete("ballast")
	if err := d.p.stop(); err != nil { // what was deleted a while ago goes at a start at the latest
		t.Logf("stopping after the deletion ended with %v", err)
	}
	d.start()
	d.refused = false
	d.fill("keep", 1<<20)
	if d.refused {
		t.Errorf("there is room again, and producing fails: %v\n%s", d.refusal, tail(d.p.log()))
	}
	d.checkKept("after room was made")
	if err := d.p.stop(); err != nil {
		t.Errorf("a clean stop ended with %v\n%s", err, tail(d.p.log()))
	}
	if err := d.p.verify(); err != nil {
		t.Error(err)
	}
	t.Logf("%d records acknowledged, all in place; a full disk said: %v", len(d.acked), d.refusal)
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

	acked   map[place]string // of topic keep
	refused bool
	refusal error
}

func (d *diskFull) start() {
	d.t.Helper()
	d.p = startProcess(d.t, d.bin, d.dir, d.logPath, "log.segment.bytes=1048576", "log.segment.delete.delay.ms=0")
}

func (d *diskFull) client(opts ...kgo.Opt) *kgo.Client {
	d.t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(d.p.addr))...)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(cl.Close)
	return cl
}

func (d *diskFull) create(topics ...string) {
	for _, topic := range topics {
		if _, err := kadm.NewClient(d.client()).CreateTopic(d.t.Context(), 1, 1, nil, topic); err != nil {
			d.t.Fatal(err)
		}
	}
}

// fill writes records that do not compress until most bytes are written or one is refused.
func (d *diskFull) fill(topic string, most int) {
	cl := d.client(kgo.DefaultProduceTopic(topic), kgo.DisableIdempotentWrite(), kgo.RecordRetries(0), kgo.RequestRetries(0), kgo.MaxProduceRequestsInflightPerBroker(1), kgo.RecordDeliveryTimeout(10*time.Second))
	rng := rand.New(rand.NewPCG(1, uint64(len(d.acked))))
	for n := 0; n < most; {
		value := make([]byte, 100<<10)
		for i := range value {
			value[i] = byte(rng.Uint32())
		}
		n += len(value)
		r, err := cl.ProduceSync(d.t.Context(), &kgo.Record{Value: value}).First()
		if err != nil {
			d.refused, d.refusal = true, err
			return
		}
		if topic == "keep" {
			d.acked[place{r.Partition, r.Offset}] = string(value)
		}
	}
}

func isRetriable(err error) bool {
	var e *kerr.Error
	return errors.As(err, &e) && e.Retriable
}

// checkKept reads all of topic keep.
func (d *diskFull) checkKept(when string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 30*time.Second)
	defer cancel()
	cl := d.client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"keep": {0: kgo.NewOffset().AtStart()}}), kgo.FetchMaxWait(100*time.Millisecond))
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
			d.t.Errorf("%s: offset %d holds something else", when, at.off)
			return
		}
	}
}

func (d *diskFull) delete(topic string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 20*time.Second)
	defer cancel()
	resp, err := kadm.NewClient(d.client()).DeleteTopics(ctx, topic)
	if err == nil {
		err = resp.Error()
	}
	if err != nil {
		d.t.Errorf("deleting a topic on the full disk: %v", fmt.Errorf("%w\n%s", err, tail(d.p.log())))
	}
}
