package fuzz

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-project/millrace/batch"
)

// plants are what may happen to a batch on its disk. Each is given the segment and the batch to damage, and returns the
// bytes [pos, end) of whole batches that cannot be trusted any more.
var plants = []struct {
	name string
	do   func(c *cleaning, p []byte, at batchAt) (pos, end int)
}{
	{"a bit of a record", func(c *cleaning, p []byte, at batchAt) (int, int) {
		p[at.pos+batch.HeaderSize+c.rng.IntN(at.size-batch.HeaderSize)] ^= 1 << c.rng.IntN(8)
		return at.pos, at.pos + at.size
	}},
	{"the header", func(c *cleaning, p []byte, at batchAt) (int, int) {
		for i := range batch.HeaderSize {
			p[at.pos+i] ^= byte(1 + c.rng.IntN(255))
		}
		return at.pos, at.pos + at.size
	}},
	{"the header, zeroed", func(_ *cleaning, p []byte, at batchAt) (int, int) {
		clear(p[at.pos:][:batch.HeaderSize])
		return at.pos, at.pos + at.size
	}},
	{"the length, far too long", func(_ *cleaning, p []byte, at batchAt) (int, int) {
		binary.BigEndian.PutUint32(p[at.pos+8:], 1<<30)
		return at.pos, at.pos + at.size
	}},
	{"the length, past the next batch", func(_ *cleaning, p []byte, at batchAt) (int, int) {
		binary.BigEndian.PutUint32(p[at.pos+8:], uint32(at.size-12+100))
		return at.pos, at.pos + at.size
	}},
	{"the length, too short", func(_ *cleaning, p []byte, at batchAt) (int, int) {
		binary.BigEndian.PutUint32(p[at.pos+8:], uint32(batch.HeaderSize-12+1))
		return at.pos, at.pos + at.size
	}},
	{"the base offset, ahead of the next segment", func(_ *cleaning, p []byte, at batchAt) (int, int) {
		p[at.pos+4] ^= 0x40
		return at.pos, at.pos + at.size
	}},
	{"the base offset, before the segment", func(_ *cleaning, p []byte, at batchAt) (int, int) {
		clear(p[at.pos:][:8])
		return at.pos, at.pos + at.size
	}},
	{"a page of zeros", func(_ *cleaning, p []byte, at batchAt) (int, int) {
		const page = 4096
		from := at.pos / page * page
		clear(p[from:][:page])
		pos, end := at.pos, at.pos
		for _, b := range at.all {
			if b.pos < from+page && b.pos+b.size > from {
				pos, end = min(pos, b.pos), max(end, b.pos+b.size)
			}
		}
		return pos, end
	}},
}

// batchAt is a batch in its segment.
type batchAt struct {
	pos, size int
	b         batch.Batch
	all       []batchAt // of the segment
}

// planted is damage of a partition.
type planted struct {
	what        string
	base        int64  // of the segment
	pos         int    // there
	bytes       []byte // as they are now
	first, last int64  // offsets of the batches
}

// TestCleanerGoesOnBehindDamage damages batches in the middle of sealed segments while the broker is stopped. The cleaner
// comes to its end by itself, says what it could not read, and keeps it byte for byte; all else is cleaned as if
// nothing had happened, today and next time.
func TestCleanerGoesOnBehindDamage(t *testing.T) {
	c := newCleaning(t, int32(len(plants)))
	c.start(cleanerOff)
	c.create(map[string]string{"delete.retention.ms": "3600000"})
	c.load("first", 600, 4<<20)
	c.finish()
	damage := map[int32]*planted{}
	for p := range c.reader.partitions {
		damage[p] = c.plant(p)
	}

	c.start()
	c.settle("behind the damage")
	for p, d := range damage {
		c.awaitSaid(fmt.Sprintf("partition %d (%s): what cannot be read", p, d.what), fmt.Sprintf(`cannot read.* log=%s-%d file=\S*%020d\.log pos=%d `, cleanedTopic, p, d.base, d.pos))
		c.awaitSaid(fmt.Sprintf("partition %d (%s): what was cleaned", p, d.what), fmt.Sprintf(`cleaned a compacted log" log=%s-%d `, cleanedTopic, p))
	}
	c.readOn(damage)
	c.load("second", 600, 2<<20)
	c.settle("behind the damage, the second time")
	c.p.kill()
	c.start(cleanerOff)
	if err := c.p.stop(); err != nil {
		t.Errorf("a clean stop ended with %v", err)
	}
	c.checkDamaged(damage)
	c.verifyDamaged(damage)
}

// awaitSaid waits for a line of the broker's log.
func (c *cleaning) awaitSaid(what, line string) {
	c.t.Helper()
	re := regexp.MustCompile(line)
	c.await("the log to say "+what, func() bool { return re.Match(c.p.log()) }, func() any { return line })
}

// load writes until each partition has grown by so many bytes, or by up to twice as many where they do not compress.
func (c *cleaning) load(name string, keys, bytes int) {
	c.t.Helper()
	const size = 2000 // of which a value takes half on average, and half of that when it is compressed
	w := c.writer(name, keys, size, int(c.reader.partitions)*bytes/(size/4))
	ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Minute)
	defer cancel()
	if err := w.write(ctx, c.p.addr); err != nil {
		c.t.Fatalf("%v\n%s", err, tail(c.p.log()))
	}
}

// segmentFiles are the .log files of a partition, in order.
func (c *cleaning) segmentFiles(p int32) []string {
	c.t.Helper()
	files, err := filepath.Glob(filepath.Join(c.logDir(p), "*.log"))
	if err != nil {
		c.t.Fatal(err)
	}
	slices.Sort(files)
	return files
}

func baseOf(t *testing.T, file string) int64 {
	t.Helper()
	base, err := strconv.ParseInt(strings.TrimSuffix(filepath.Base(file), ".log"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return base
}

// walk splits bytes that hold nothing but whole, sound batches.
func walk(p []byte) (all []batchAt, err error) {
	for pos := 0; pos < len(p); {
		b, _, err := batch.Next(p[pos:])
		if err == nil {
			err = b.VerifyCRC()
		}
		if err != nil {
			return all, fmt.Errorf("at byte %d: %w", pos, err)
		}
		all = append(all, batchAt{pos: pos, size: b.Size(), b: slices.Clone(b)})
		pos += b.Size()
	}
	return all, nil
}

// plant damages one batch in the middle of a sealed segment that is neither the first nor the last of them.
func (c *cleaning) plant(p int32) *planted {
	c.t.Helper()
	files := c.segmentFiles(p)
	if len(files) < 4 {
		c.t.Fatalf("partition %d has only %d segments", p, len(files))
	}
	file := files[1+c.rng.IntN(len(files)-3)]
	data, err := os.ReadFile(file)
	if err != nil {
		c.t.Fatal(err)
	}
	all, err := walk(data)
	if err != nil || len(all) < 10 {
		c.t.Fatalf("%s: %d batches, %v", file, len(all), err)
	}
	at := all[len(all)/4+c.rng.IntN(len(all)/2)]
	at.all = all
	kind := plants[p]
	pos, end := kind.do(c, data, at)
	d := &planted{what: kind.name, base: baseOf(c.t, file), pos: pos, bytes: slices.Clone(data[pos:end]), first: -1}
	for _, b := range all {
		if b.pos >= pos && b.pos < end {
			if d.first < 0 {
				d.first = b.b.BaseOffset()
			}
			d.last = b.b.LastOffset()
		}
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		c.t.Fatal(err)
	}
	c.t.Logf("partition %d: damaged %s at byte %d of segment %d, offsets %d to %d", p, d.what, d.pos, d.base, d.first, d.last)
	return d
}

// readOn: who asks for what lies in the segments behind the damage gets it.
func (c *cleaning) readOn(damage map[int32]*planted) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	ends, err := c.reader.barrier(ctx, c.p.addr)
	if err != nil {
		c.t.Fatal(err)
	}
	for p, d := range damage {
		from := int64(-1)
		for _, f := range c.segmentFiles(p) {
			if base := baseOf(c.t, f); base > d.last && from < 0 {
				from = base
			}
		}
		cl, err := kgo.NewClient(kgo.SeedBrokers(c.p.addr), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{cleanedTopic: {p: kgo.NewOffset().At(from)}}))
		if err != nil {
			c.t.Fatal(err)
		}
		for reached := int64(-1); reached < ends[p]; {
			fetches := cl.PollFetches(ctx)
			if err := fetches.Err(); err != nil {
				c.t.Errorf("partition %d (%s): reading from offset %d, behind the damage, up to %d: %v", p, d.what, from, ends[p], err)
				break
			}
			fetches.EachRecord(func(r *kgo.Record) {
				reached = r.Offset
				if err := c.k.shown(c.k.of(r)); err != nil {
					c.t.Errorf("partition %d (%s): %v", p, d.what, err)
				}
			})
		}
		cl.Close()
	}
}

// checkDamaged reads the files: the damaged bytes are there as they are, once, and around them is what must be.
func (c *cleaning) checkDamaged(damage map[int32]*planted) {
	c.t.Helper()
	to, err := c.cleanedTo()
	if err != nil {
		c.t.Fatal(err)
	}
	var found []write
	hurt := map[place]bool{} // what is in a segment with damage
	for p := range c.reader.partitions {
		d, times := damage[p], 0
		for _, file := range c.segmentFiles(p) {
			data, err := os.ReadFile(file)
			if err != nil {
				c.t.Fatal(err)
			}
			at := bytes.Index(data, d.bytes)
			rest := [][]byte{data}
			if at >= 0 {
				times++
				rest = [][]byte{data[:at], data[at+len(d.bytes):]}
			}
			for _, part := range rest {
				ws, err := c.writes(p, part)
				if err != nil {
					c.t.Errorf("partition %d (%s): %s: %v", p, d.what, file, err)
				}
				for _, w := range ws {
					hurt[w.at] = at >= 0
				}
				found = append(found, ws...)
			}
		}
		if times != 1 {
			c.t.Errorf("partition %d (%s): the damaged bytes are there %d times", p, d.what, times)
		}
	}
	excused := func(at place) bool {
		d := damage[at.partition]
		return at.off >= d.first && at.off <= d.last
	}
	if err := c.k.check(found, keyedCheck{excused: excused}); err != nil {
		c.t.Error(err)
	}
	cleaned := func(at place) bool { return at.off < to[at.partition] }
	for key, ws := range repeated(found, cleaned) {
		if !slices.ContainsFunc(ws, func(w write) bool { return hurt[w.at] }) {
			c.t.Errorf("of key %s offsets %d and %d are kept, and there is no damage in their segments", key, ws[0].at.off, ws[1].at.off)
			return
		}
	}
}

// writes decodes the records of whole, sound batches.
func (c *cleaning) writes(p int32, part []byte) (found []write, err error) {
	all, err := walk(part)
	for _, at := range all {
		err = errors.Join(err, at.b.Each(0, func(r *batch.Record) error {
			var headers []kgo.RecordHeader
			for _, h := range r.Headers {
				headers = append(headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
			}
			found = append(found, c.k.write(p, r.Offset, r.Key, r.Value, headers))
			return nil
		}))
	}
	return found, err
}

// before says whether the segment before a file holds these bytes.
func (c *cleaning) before(file string, p int32, damaged []byte) bool {
	files := c.segmentFiles(p)
	i := slices.Index(files, file)
	if i < 1 {
		return false
	}
	data, err := os.ReadFile(files[i-1])
	return err == nil && bytes.Contains(data, damaged)
}

var findingLine = regexp.MustCompile(`(?m)^\s+(?:BAD|torn) (\S+) at byte (\d+): (.*)$`)

// verifyDamaged: the offline check finds the damage, where it is, and nothing else.
func (c *cleaning) verifyDamaged(damage map[int32]*planted) {
	c.t.Helper()
	out, err := exec.Command(c.bin, "log", "verify", c.dir).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		c.t.Errorf("log verify ended with %v on %d damaged partitions\n%s", err, len(damage), tail(out))
	}
	seen := map[int32]bool{}
	for _, m := range findingLine.FindAllStringSubmatch(string(out), -1) {
		var p int32
		if n, _ := fmt.Sscanf(filepath.Base(filepath.Dir(m[1])), cleanedTopic+"-%d", &p); n != 1 {
			c.t.Errorf("log verify finds something elsewhere: %s", m[0])
			continue
		}
		d := damage[p]
		seen[p] = true
		data, err := os.ReadFile(strings.TrimSuffix(m[1], filepath.Ext(m[1])) + ".log")
		if err != nil {
			c.t.Error(err)
		}
		at := bytes.Index(data, d.bytes)
		pos, err := strconv.Atoi(m[2])
		if err != nil {
			c.t.Error(err)
		}
		// A base offset that is too great shows with the batch behind it, and with the next segment.
		if at < 0 && pos == 0 && c.before(m[1], p, d.bytes) {
			continue
		}
		if at < 0 || filepath.Ext(m[1]) == ".log" && (pos < at || pos > at+len(d.bytes)) {
			c.t.Errorf("partition %d (%s, now at byte %d): log verify finds something else: %s", p, d.what, at, m[0])
		}
	}
	for p, d := range damage {
		if !seen[p] {
			c.t.Errorf("partition %d: log verify does not find the damage: %s\n%s", p, d.what, tail(out))
		}
	}
}
