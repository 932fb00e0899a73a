package bench

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/batch"
)

// Restart measures how soon a broker that holds many logs serves them again: after a clean stop,
// and after kills in the middle of a load over all of them. Each partition counts as served when
// its end was told and its last acknowledged batch came back whole.
//
// Logs can be made to look larger than they are: a hole is put into each segment, between the
// first half of what was written and the second. The file's length, its indexes and both its ends
// are what they would be; whoever reads the middle finds zeros. A restart has no business there.
type Restart struct {
	Binary     string   // the millrace binary
	Dir        string   // a scratch directory; its contents are the caller's to remove
	Set        []string // settings KEY=VALUE of the broker
	Topics     int      // 13
	Partitions int      // of each topic; 100
	Segments   int      // of each log; 1
	FillBytes  int64    // that are really written into each segment; 2 MiB
	LogBytes   int64    // that each log shows, holes included; less than is written: no holes
	BatchBytes int      // 16 KiB
	InFlight   int      // requests outstanding; 256
	Kills      int      // kills after the clean stop; 3
	Load       time.Duration
}

func (r Restart) withDefaults() Restart {
	r.Topics, r.Partitions, r.Segments = max(r.Topics, 1), max(r.Partitions, 1), max(r.Segments, 1)
	if r.BatchBytes <= 0 {
		r.BatchBytes = 16 << 10
	}
	if r.FillBytes <= 0 {
		r.FillBytes = 2 << 20
	}
	if r.InFlight <= 0 {
		r.InFlight = 256
	}
	if r.Load <= 0 {
		r.Load = 5 * time.Second
	}
	return r
}

// restartRun is one run over one directory.
type restartRun struct {
	Restart
	w        io.Writer
	dir      string
	requests []request // one a partition, topic by topic
	mu       struct {
		sync.Mutex
		acked []int64 // one past the last offset that was acknowledged, by place in requests
	}
}

// Run makes the logs in Dir, stops and starts, and writes a line a figure.
func (r Restart) Run(ctx context.Context, w io.Writer) (err error) {
	r = r.withDefaults()
	run := &restartRun{Restart: r, w: w, dir: filepath.Join(r.Dir, "data")}
	if err := run.encode(); err != nil {
		return err
	}
	b, took, err := startBroker(ctx, r.Binary, run.dir, r.Set...)
	if err != nil {
		return err
	}
	defer func() { b.kill() }()
	run.line("start to first answer, new directory", "%10.1f ms", ms(took))
	if err := run.build(ctx, b); err != nil {
		return err
	}
	if b, err = run.cleanly(ctx, b); err != nil {
		return err
	}
	for k := range r.Kills {
		if b, err = run.killed(ctx, b, k+1); err != nil {
			return err
		}
	}
	return run.stop(b)
}

func (r *restartRun) line(what, format string, args ...any) {
	fmt.Fprintf(r.w, "%-52s "+format+"\n", append([]any{what}, args...)...)
}

func (r *restartRun) logs() int { return r.Topics * r.Partitions }

func (r *restartRun) topic(i int) string { return fmt.Sprintf("restart%d", i) }

// encode makes the one request of every partition that all writing is done with.
func (r *restartRun) encode() error {
	p := Produce{BatchBytes: r.BatchBytes - batch.HeaderSize, RecordBytes: min(1024, r.BatchBytes-batch.HeaderSize-16)}.withDefaults()
	for t := range r.Topics {
		p.Topic = r.topic(t)
		for i := range r.Partitions {
			req, err := p.encode(int32(i))
			if err != nil {
				return err
			}
			r.requests = append(r.requests, req)
		}
	}
	r.mu.acked = make([]int64, len(r.requests))
	return nil
}

// build creates the topics and fills their logs.
func (r *restartRun) build(ctx context.Context, b *brokerProcess) error {
	before, err := b.settledRSS(ctx)
	if err != nil {
		return err
	}
	start := time.Now()
	configs := map[string]string{}
	if r.Segments > 1 {
		configs["segment.bytes"] = fmt.Sprint(max(r.FillBytes, 1<<20))
	}
	for t := range r.Topics {
		if err := createTopic(ctx, Load{Addr: b.addr, Topic: r.topic(t), Partitions: r.Partitions}, configs); err != nil {
			return err
		}
	}
	r.line(fmt.Sprintf("create %d logs", r.logs()), "%10.1f ms", ms(time.Since(start)))
	if err := r.footprint(ctx, b, "created, never written", before); err != nil {
		return err
	}
	start = time.Now()
	perLog := max(1, r.FillBytes/r.requests[0].bytes) * int64(r.Segments)
	n, err := r.produce(ctx, b, perLog*int64(r.logs()))
	if err != nil {
		return err
	}
	r.line(fmt.Sprintf("write %d batches of %d bytes", n, r.requests[0].bytes), "%10.1f ms", ms(time.Since(start)))
	if err := r.footprint(ctx, b, "written", before); err != nil {
		return err
	}
	if r.Segments == 1 {
		return nil
	}
	for t := range r.Topics { // what looks larger than the setting would roll at the next append
		if err := r.forgetSetting(ctx, b, r.topic(t), "segment.bytes"); err != nil {
			return err
		}
	}
	return nil
}

func (r *restartRun) forgetSetting(ctx context.Context, b *brokerProcess, topic, name string) error {
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	req.SetVersion(1)
	res := kmsg.NewIncrementalAlterConfigsRequestResource()
	res.ResourceType, res.ResourceName = kmsg.ConfigResourceTypeTopic, topic
	c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	c.Name, c.Op = name, kmsg.IncrementalAlterConfigOpDelete
	res.Configs = append(res.Configs, c)
	req.Resources = append(req.Resources, res)
	resp, err := ask(ctx, b.addr, req)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(resp.(*kmsg.IncrementalAlterConfigsResponse).Resources[0].ErrorCode)
}

// footprint tells what the broker holds now.
func (r *restartRun) footprint(ctx context.Context, b *brokerProcess, when string, before int64) error {
	rss, err := b.settledRSS(ctx)
	if err != nil {
		return err
	}
	files, maps, err := b.open()
	if err != nil {
		return err
	}
	r.line(fmt.Sprintf("%d logs %s", r.logs(), when), "%10.1f MB RSS, %.0f bytes a log; %d open files, %d mappings",
		mb(rss), float64(rss-before)/float64(r.logs()), files, maps)
	return nil
}

// open counts the process's descriptors and mappings.
func (b *brokerProcess) open() (files, maps int, err error) {
	pid := b.cmd.Process.Pid
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return 0, 0, fmt.Errorf("bench: %w", err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, 0, fmt.Errorf("bench: %w", err)
	}
	return len(fds), strings.Count(string(text), "\n"), nil
}

// produce writes n batches, partition after partition, and returns how many were acknowledged;
// 0: until ctx ends.
func (r *restartRun) produce(ctx context.Context, b *brokerProcess, n int64) (int64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	place := make(map[*request]int, len(r.requests))
	for i := range r.requests {
		place[&r.requests[i]] = i
	}
	done := int64(0)
	w := &replay{requests: r.requests}
	w.check = func(req *request, answer []byte, _ bool) error {
		if err := checkProduced(req, answer, true); err != nil {
			return err
		}
		base := int64(binary.BigEndian.Uint64(answer[baseOffsetPos(answer):]))
		r.mu.Lock()
		r.mu.acked[place[req]] = base + req.records
		r.mu.Unlock()
		if done++; done == n {
			return errFilled
		}
		return nil
	}
	_, err := w.drive(ctx, Load{Addr: b.addr, InFlight: r.InFlight})
	if errors.Is(err, errFilled) {
		err = nil
	}
	return done, err
}

// cleanly stops the broker, makes the logs look large, and starts it again, twice: the first start
// has to look at what was just changed.
func (r *restartRun) cleanly(ctx context.Context, b *brokerProcess) (*brokerProcess, error) {
	if err := r.stop(b); err != nil {
		return b, err
	}
	shown, files, err := r.stretch()
	if err != nil {
		return b, err
	}
	r.line("the logs show", "%10.1f GB in %d segments", float64(shown)/1e9, files)
	for range 2 {
		if b, err = r.start(ctx, "a clean stop"); err != nil {
			return b, err
		}
		if err := r.footprint(ctx, b, "served", 0); err != nil {
			return b, err
		}
		if err := r.stop(b); err != nil {
			return b, err
		}
	}
	return r.start(ctx, "a clean stop")
}

func (r *restartRun) stop(b *brokerProcess) error {
	start := time.Now()
	if err := b.stop(); err != nil {
		return err
	}
	r.line("stop", "%10.1f ms", ms(time.Since(start)))
	return nil
}

// killed loads all partitions for a while, kills the broker in the middle, and starts it.
func (r *restartRun) killed(ctx context.Context, b *brokerProcess, k int) (*brokerProcess, error) {
	loaded, cancel := context.WithTimeout(ctx, r.Load)
	defer cancel()
	go func() {
		<-loaded.Done()
		b.kill()
	}()
	start := time.Now()
	n, err := r.produce(ctx, b, 0)
	if loaded.Err() == nil {
		return b, err // not the kill, then
	}
	b.kill()
	r.line(fmt.Sprintf("load before kill %d", k), "%10.1f MB acknowledged in %.1f s", float64(n*r.requests[0].bytes)/1e6, time.Since(start).Seconds())
	if ctx.Err() != nil {
		return b, ctx.Err()
	}
	if b, err = r.start(ctx, fmt.Sprintf("kill %d", k)); err != nil {
		return b, err
	}
	return b, r.footprint(ctx, b, "served", 0)
}

// start starts the broker on the directory and asks for every partition.
func (r *restartRun) start(ctx context.Context, after string) (*brokerProcess, error) {
	begun := time.Now()
	b, took, err := startBroker(ctx, r.Binary, r.dir, r.Set...)
	if err != nil {
		return &brokerProcess{}, err
	}
	c, err := net.Dial("tcp", b.addr)
	if err != nil {
		return b, fmt.Errorf("bench: %w", err)
	}
	defer c.Close()
	in := bufio.NewReaderSize(c, 1<<20)
	ends := make([]int64, 0, r.logs())
	for t := range r.Topics {
		if ends, err = r.ends(c, in, t, ends); err != nil {
			return b, err
		}
	}
	listed := time.Since(begun)
	for t := range r.Topics {
		if err = r.fetchLast(c, in, t, ends[t*r.Partitions:][:r.Partitions]); err != nil {
			return b, err
		}
	}
	r.line("start after "+after, "%10.1f ms to the first answer, %.1f the end of all, %.1f the last batch of all", ms(took), ms(listed), ms(time.Since(begun)))
	return b, nil
}

// exchange sends one request and reads its answer.
func exchange(c net.Conn, in *bufio.Reader, req kmsg.Request) (kmsg.Response, error) {
	c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := c.Write(frame(req)); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	answer, err := readAnswer(in, nil, 0)
	if err != nil {
		return nil, err
	}
	resp := req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	return resp, decode(resp, answer)
}

// ends appends the end offsets of topic t's partitions; one below what was acknowledged is an error.
func (r *restartRun) ends(c net.Conn, in *bufio.Reader, t int, to []int64) ([]int64, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.SetVersion(4)
	req.ReplicaID = -1
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic = r.topic(t)
	for i := range r.Partitions {
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.Timestamp, p.CurrentLeaderEpoch = int32(i), -1, -1
		rt.Partitions = append(rt.Partitions, p)
	}
	req.Topics = append(req.Topics, rt)
	resp, err := exchange(c, in, req)
	if err != nil {
		return to, err
	}
	for _, rt := range resp.(*kmsg.ListOffsetsResponse).Topics {
		for _, p := range rt.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return to, fmt.Errorf("bench: end of %s-%d: %w", rt.Topic, p.Partition, err)
			}
			if acked := r.mu.acked[t*r.Partitions+int(p.Partition)]; p.Offset < acked {
				return to, fmt.Errorf("bench: %s-%d ends at %d, below %d, which was acknowledged: RECORDS ARE LOST", rt.Topic, p.Partition, p.Offset, acked)
			}
			to = append(to, p.Offset)
		}
	}
	return to, nil
}

// fetchLast fetches the last batch of each of topic t's partitions and checks it. One request asks
// for several partitions, so that answers stay small.
func (r *restartRun) fetchLast(c net.Conn, in *bufio.Reader, t int, ends []int64) error {
	const atOnce = 100
	for from := 0; from < len(ends); from += atOnce {
		req := kmsg.NewPtrFetchRequest()
		req.SetVersion(fetchVersion)
		req.ReplicaID, req.MinBytes, req.MaxBytes, req.SessionEpoch = -1, 1, 1<<30, -1
		rt := kmsg.NewFetchRequestTopic()
		rt.Topic = r.topic(t)
		for i := from; i < min(from+atOnce, len(ends)); i++ {
			p := kmsg.NewFetchRequestTopicPartition()
			p.Partition, p.FetchOffset, p.PartitionMaxBytes = int32(i), ends[i]-1, int32(2*r.BatchBytes)
			p.CurrentLeaderEpoch, p.LastFetchedEpoch, p.LogStartOffset = -1, -1, -1
			rt.Partitions = append(rt.Partitions, p)
		}
		req.Topics = append(req.Topics, rt)
		resp, err := exchange(c, in, req)
		if err != nil {
			return err
		}
		for _, p := range resp.(*kmsg.FetchResponse).Topics[0].Partitions {
			err := kerr.ErrorForCode(p.ErrorCode)
			if err == nil {
				err = endsAt(p.RecordBatches, ends[p.Partition])
			}
			if err != nil {
				return fmt.Errorf("bench: last batch of %s-%d: %w", r.topic(t), p.Partition, err)
			}
		}
	}
	return nil
}

// endsAt checks that records is one whole batch that ends at off.
func endsAt(records []byte, off int64) error {
	b, rest, err := batch.Next(records)
	switch {
	case err != nil:
		return err
	case len(rest) > 0 || b.LastOffset()+1 != off:
		return fmt.Errorf("ends at %d, want %d", b.LastOffset()+1, off)
	}
	return b.VerifyCRC()
}

// kill ends the process at once; one that has ended stays so.
func (b *brokerProcess) kill() {
	if b != nil && b.cmd != nil {
		b.cmd.Process.Kill()
		<-b.ended
	}
}

// stretch puts holes into the segments and returns the bytes that all logs show then, and in how
// many files.
func (r *restartRun) stretch() (shown int64, files int, err error) {
	for t := range r.Topics {
		for i := range r.Partitions {
			names, err := filepath.Glob(filepath.Join(r.dir, fmt.Sprintf("%s-%d", r.topic(t), i), "*.log"))
			if err != nil {
				return 0, 0, err
			}
			for _, name := range names {
				n, err := stretch(name, r.LogBytes/int64(len(names)))
				if err != nil {
					return 0, 0, fmt.Errorf("bench: %w", err)
				}
				shown += n
				files++
			}
		}
	}
	return shown, files, nil
}

// stretch makes a segment's log as long as want, if it is shorter, by a hole before the batch that
// stands in the offset index nearest its middle. The entries from there on are moved.
func stretch(name string, want int64) (size int64, err error) {
	log, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	info, err := log.Stat()
	if err != nil {
		return 0, err
	}
	indexName := strings.TrimSuffix(name, ".log") + ".index"
	entries, err := os.ReadFile(indexName)
	if err != nil {
		return 0, err
	}
	const entrySize, posPos = 8, 4 // of an offset index entry, and where it has the position
	size, by := info.Size(), want-info.Size()
	pos := func(e int) int64 { return int64(binary.BigEndian.Uint32(entries[e+posPos:])) }
	first := 0
	for first < len(entries) && pos(first) < size/2 {
		first += entrySize
	}
	if by <= 0 || first == len(entries) {
		return size, nil
	}
	at := pos(first)
	behind := make([]byte, size-at)
	if _, err := log.ReadAt(behind, at); err != nil {
		return 0, err
	}
	if err := log.Truncate(at); err != nil {
		return 0, err
	}
	if _, err := log.WriteAt(behind, at+by); err != nil {
		return 0, err
	}
	for e := first; e < len(entries); e += entrySize {
		binary.BigEndian.PutUint32(entries[e+posPos:], uint32(pos(e)+by))
	}
	return want, os.WriteFile(indexName, entries, 0o644)
}
