package fuzz

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-project/millrace/vfs"
)

// TestCleanerOnAFullDisk fills a small file system while the cleaner is in a pass. The pass fails and says so; what is there
// is read, the broker starts again on the full disk, and once there is room the cleaner comes to its end by itself.
func TestCleanerOnAFullDisk(t *testing.T) {
	mount := mountSmall(t)
	if mount == "" {
		return
	}
	c := newCleaning(t, 1)
	c.dir = filepath.Join(mount, "data")
	ballast := filepath.Join(mount, "ballast")
	slow := "log.cleaner.io.max.bytes.per.second=8000000"
	c.start(slow)
	c.create(map[string]string{"min.cleanable.dirty.ratio": "1", "delete.retention.ms": "3600000"}) // a ratio is never above 1
	c.load("first", 4000, 10<<20)
	c.clean()
	c.awaitPass()
	c.fillUntilItFails(ballast)
	c.refuses()
	c.checkFull("on the full disk")
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	c.settle("when there is room again")
	c.onceEach("when there is room again", c.check("when there is room again", keyedCheck{}))

	c.load("second", 4000, 6<<20)
	c.fillUntilItFails(ballast)
	if err := c.p.stop(); err != nil {
		t.Logf("stopping on the full disk ended with %v", err)
	}
	c.start(slow)
	c.checkFull("after a restart on the full disk")
	c.awaitFailures(1)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	c.settle("when there is room again, the second time")
	c.onceEach("in the end", c.check("in the end", keyedCheck{}))
	c.finish()
	if strings.Contains(string(c.p.log()), "offline") {
		t.Errorf("the log went offline:\n%s", tail(c.p.log()))
	}
}

// clean lets the cleaner take the topic up.
func (c *cleaning) clean() {
	c.t.Helper()
	ratio := "0"
	resp, err := c.admin().AlterTopicConfigs(c.t.Context(), []kadm.AlterConfig{{Name: "min.cleanable.dirty.ratio", Value: &ratio}}, cleanedTopic)
	if err == nil {
		_, err = resp.On(cleanedTopic, nil)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// awaitPass waits until a pass writes.
func (c *cleaning) awaitPass() {
	c.t.Helper()
	c.await("a cleaned segment to be written", func() bool {
		found, err := filepath.Glob(filepath.Join(c.logDir(0), "*.cleaned"))
		return err == nil && len(found) > 0
	}, c.progress)
}

// progress says how far the cleaner is.
func (c *cleaning) progress() any { return c.unclean() }

const cleaningFailed = "cleaning a compacted log failed"

func (c *cleaning) failures() int { return strings.Count(string(c.p.log()), cleaningFailed) }

func (c *cleaning) awaitFailures(more int) {
	c.t.Helper()
	want := c.failures() + more
	c.await("a pass to fail for want of room", func() bool { return c.failures() >= want }, c.progress)
}

// fillUntilItFails takes every byte that is free, and every one that comes free, until a pass has failed.
func (c *cleaning) fillUntilItFails(name string) {
	c.t.Helper()
	f, err := os.Create(name)
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	before := c.failures()
	page := make([]byte, 64<<10)
	// Once the disk is full, a little that becomes free is left alone: it may be of the reserve, in which the broker
	// writes what it must.
	const little = 512 << 10
	full := false
	c.await("a pass to fail for want of room", func() bool {
		space, err := vfs.OS().Space(filepath.Dir(name))
		if err != nil {
			c.t.Fatal(err)
		}
		if full && space.Free < little {
			return c.failures() > before
		}
		full = true
		for n := len(page); n > 0; {
			_, err := f.Write(page[:n])
			switch {
			case errors.Is(err, syscall.ENOSPC):
				n /= 2
			case err != nil && !errors.Is(err, io.ErrShortWrite):
				c.t.Fatal(err)
			}
		}
		return c.failures() > before
	}, c.progress)
	if line := c.failureLine(); !strings.Contains(line, "no space left") {
		c.t.Errorf("the failure does not say why: %s", line)
	}
}

// failureLine is the last that says that a pass failed.
func (c *cleaning) failureLine() (last string) {
	for _, line := range strings.Split(string(c.p.log()), "\n") {
		if strings.Contains(line, cleaningFailed) {
			last = line
		}
	}
	return last
}

// refuses: who writes is told that it may try again.
func (c *cleaning) refuses() {
	c.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.p.addr), kgo.DisableIdempotentWrite(), kgo.RecordRetries(0), kgo.RequestRetries(0), kgo.RecordDeliveryTimeout(10*time.Second), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		c.t.Fatal(err)
	}
	defer cl.Close()
	for i := range 100 { // what a file's last page takes may still go
		r := &kgo.Record{Topic: cleanedTopic, Key: fmt.Appendf(nil, "0/full/%d", i), Value: make([]byte, 100<<10)}
		c.k.sent(r)
		switch err := cl.ProduceSync(c.t.Context(), r).FirstErr(); {
		case err == nil:
			c.k.acked(r)
		case !isRetriable(err):
			c.t.Errorf("a full disk is told by %v, which clients do not retry", err)
			return
		default:
			return
		}
	}
	c.t.Error("10 MB went to a full disk")
}

// checkFull is check where nothing can be written.
func (c *cleaning) checkFull(when string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	ends, err := c.reader.lastOffsets(ctx, c.p.addr)
	if err != nil {
		c.t.Fatalf("%s: %v\n%s", when, err, tail(c.p.log()))
	}
	found, err := c.reader.readTo(ctx, c.p.addr, ends)
	if err == nil {
		err = c.k.check(found, keyedCheck{})
	}
	if err != nil {
		c.t.Errorf("%s: %v\n%s", when, err, tail(c.p.log()))
	}
}
