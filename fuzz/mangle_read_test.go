package fuzz

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/millrace-project/millrace"
	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/commitlog"
)

// compare reads everything as a client that checks what it gets, and holds it against the truth.
func (m *started) compare(what string, b *millrace.Broker) (outcome string) {
	ctx, cancel := context.WithTimeout(m.t.Context(), 30*time.Second)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Addr()), kgo.MaxVersions(kversion.V3_0_0()), kgo.RequestRetries(0))
	if err != nil {
		m.t.Fatal(err)
	}
	defer cl.Close()
	outcome = "served whole"
	for partition, want := range m.truth.logs {
		read := func(off int64) ([]batch.Batch, error) {
			got, err := readPartition(ctx, cl, partition, off)
			return slices.DeleteFunc(got, func(b batch.Batch) bool { return m.endedAgain(partition, b) }), err
		}
		got, err := read(0)
		must, touched := m.must(partition, want)
		if m.excused(partition, err, len(got)) {
			outcome = "served without partitions that lost what they are"
			m.keptOnDisk(what, partition, want)
			continue
		}
		switch {
		case err != nil:
			outcome = "served, with damage told"
		case len(got) < len(want) && outcome == "served whole":
			outcome = "served up to the damage"
		}
		if err != nil && !touched {
			m.t.Errorf("%s: %s, which was not touched: %v", what, partition, err)
		}
		if err == nil && len(got) < len(want) {
			if _, log := m.first[partition]; !log {
				m.t.Errorf("%s: %s: %d of %d batches are served without an error, and no .log file was damaged", what, partition, len(got), len(want))
			}
		}
		if err := m.compareBatches(partition, got, must); err != nil {
			m.t.Errorf("%s: %v", what, err)
		}
		for _, row := range m.behind(partition, want) {
			got, err := read(row[0].bytes.BaseOffset())
			if cerr := m.compareBatches(partition, got, row); cerr != nil {
				m.t.Errorf("%s: %v, %v", what, cerr, err)
			}
		}
		for range 3 {
			m.compareFrom(ctx, cl, what, partition, want, must)
		}
	}
	m.compareRemembered(ctx, cl, what)
	return outcome
}

// excused: without its identity a partition cannot be served, and where a file that the engine needs
// beside the records is unreadable it may be offline.
func (m *started) excused(partition string, err error, got int) bool {
	if got > 0 {
		return false
	}
	for _, f := range m.files {
		switch dir, base := filepath.Dir(f), filepath.Base(f); {
		case dir == partition && base == "partition.metadata" && (err == nil || errors.Is(err, kerr.OffsetOutOfRange)):
			return true
		case dir == partition && base == "leader-epoch-checkpoint" && errors.Is(err, kerr.KafkaStorageError):
			return true
		}
	}
	return false
}

// keptOnDisk: what is not served is not deleted either.
func (m *started) keptOnDisk(what, partition string, want []written) {
	topic := partition[:strings.LastIndexByte(partition, '-')]
	dirs, err := filepath.Glob(filepath.Join(m.dir, topic+"*"))
	if err != nil {
		m.t.Fatal(err)
	}
	for _, dir := range dirs {
		p, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%020d.log", want[0].seg)))
		if err == nil && bytes.HasPrefix(p, want[0].bytes[:8]) && bytes.Contains(p, want[0].bytes[17:]) {
			return
		}
	}
	if m.first[partition] > 0 || m.first[partition] == 0 && !slices.ContainsFunc(m.files, func(f string) bool { return filepath.Dir(f) == partition && filepath.Ext(f) == ".log" }) {
		m.t.Errorf("%s: %s is not served, and its records are not on the disk either", what, partition)
	}
}

// compareFrom reads from some offset in the middle, where the indexes say where to begin.
func (m *started) compareFrom(ctx context.Context, cl *kgo.Client, what, partition string, want, must []written) {
	i := m.rng.IntN(len(want))
	off := want[i].bytes.BaseOffset() + m.rng.Int64N(int64(want[i].bytes.Count()))
	got, err := fetchOnce(ctx, cl, partition, off)
	if i >= len(before(want, m.first, partition)) || i >= len(must) && len(got) == 0 {
		return // whatever it says, as long as it says something
	}
	if len(got) == 0 || covered(got[0]) != covered(want[i].bytes) {
		m.t.Errorf("%s: %s: offset %d is before the damage, and something else or nothing is served: %v (%d batches)", what, partition, off, err, len(got))
	}
}

// readPartition reads from an offset to the end, or to the first thing that a client would not take.
func readPartition(ctx context.Context, cl *kgo.Client, partition string, off int64) (all []batch.Batch, err error) {
	for {
		got, err := fetchOnce(ctx, cl, partition, off)
		for _, b := range got {
			if b.LastOffset() < off {
				continue
			}
			all, off = append(all, b), b.LastOffset()+1
		}
		if err != nil || len(got) == 0 || got[len(got)-1].LastOffset() < off-1 {
			return all, err
		}
	}
}

// fetchOnce returns the whole batches of one fetch up to the first that a client would not take.
func fetchOnce(ctx context.Context, cl *kgo.Client, partition string, off int64) ([]batch.Batch, error) {
	topic, index, err := commitlog.ParseLogName(partition)
	if err != nil {
		return nil, err
	}
	req := kmsg.NewPtrFetchRequest()
	req.ReplicaID, req.MaxBytes, req.SessionEpoch = -1, 1<<20, -1
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes = index, off, 4096
	req.Topics = []kmsg.FetchRequestTopic{{Topic: topic, Partitions: []kmsg.FetchRequestTopicPartition{p}}}
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return nil, err
	}
	answer := resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
		return nil, err
	}
	var out []batch.Batch
	for rest := answer.RecordBatches; len(rest) > 0; {
		b, next, err := batch.Next(rest)
		if err == batch.ErrShort && len(out) > 0 {
			return out, nil // a limit cut it
		}
		if err != nil {
			return out, fmt.Errorf("%s: after %d batches from offset %d: %w", partition, len(out), off, err)
		}
		if err := b.VerifyCRC(); err != nil {
			return out, fmt.Errorf("%s: offset %d: %w", partition, b.BaseOffset(), err)
		}
		out, rest = append(out, b), next
	}
	return out, nil
}
