package broker

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/vfs"
)

// Logs that Apache Kafka has compacted go on being compacted from where it was: no record changes its offset, and the
// last one of every key stays, tombstones apart. MILLRACE_FIXTURES names the directory that holds the archives.
func TestKafkasCompactedLogsGoOnBeingCleaned(t *testing.T) {
	dir := os.Getenv("MILLRACE_FIXTURES")
	if dir == "" {
		t.Log("MILLRACE_FIXTURES is not set: NOT checked against directories that Kafka wrote")
		return
	}
	archives, err := filepath.Glob(filepath.Join(dir, "*.tar.zst"))
	if err != nil || len(archives) == 0 {
		t.Fatalf("no archives in %s: %v", dir, err)
	}
	for _, archive := range archives {
		name := strings.TrimSuffix(filepath.Base(archive), ".tar.zst")
		t.Run(name, func(t *testing.T) {
			data := t.TempDir()
			unpack(t, archive, data)
			checkpoint, err := commitlog.ReadOffsetCheckpoint(vfs.OS(), filepath.Join(data, "cleaner-offset-checkpoint"))
			if err != nil || len(checkpoint) == 0 {
				t.Fatalf("Kafka's cleaner was never here: %v %v", checkpoint, err)
			}
			for i, e := range checkpoint {
				log := fmt.Sprintf("%s-%d", e.Topic, e.Partition)
				mustVerify(t, filepath.Join(data, log), true)
				n := startNode(t, data, "log.cleaner.enable", "false")
				goOnCleaning(n, log, e.Offset)
				n.stop()
				if i == 0 {
					n = startNode(t, data)
					n.checkCleaned(log)
					n.stop()
				}
				if r := mustVerify(t, filepath.Join(data, log), false); r.Cleaned != r.End && r.Cleaned <= e.Offset {
					t.Errorf("%+v", r)
				}
			}
		})
	}
}

func mustVerify(t *testing.T, dir string, unclean bool) *commitlog.VerifyReport {
	t.Helper()
	r, err := commitlog.Verify(vfs.OS(), dir, commitlog.VerifyOptions{Unclean: unclean})
	if err != nil || r.Bad() {
		t.Fatalf("%s: %+v %v", dir, r, err)
	}
	return r
}

// goOnCleaning makes three passes over a log that Kafka has cleaned up to an offset.
func goOnCleaning(n *node, name string, from int64) {
	n.t.Helper()
	log := n.b.store.Log(name)
	start, end := log.StartOffset(), log.EndOffset()
	before := n.records(log)
	for pass := range 3 {
		report, err := log.Compact(context.Background(), nil)
		if err != nil {
			n.t.Fatal(err)
		}
		n.t.Logf("%s, pass %d: %+v", name, pass, report)
		if pass == 0 && (report.FirstDirty != from || report.End != end || report.RecordsKept >= report.RecordsRead || report.Quarantined != 0) {
			n.t.Errorf("cleaned from %d to %d, want from %d to %d: %+v", report.FirstDirty, report.End, from, end, report)
		}
	}
	if log.StartOffset() != start || log.EndOffset() != end {
		n.t.Errorf("log is [%d, %d), was [%d, %d)", log.StartOffset(), log.EndOffset(), start, end)
	}
	after := n.records(log)
	last := map[string]int64{}
	for off, rec := range before {
		if off >= last[rec.key] {
			last[rec.key] = off
		}
	}
	for off, rec := range after {
		if before[off] != rec {
			n.t.Errorf("record %d of %s is %+v, was %+v", off, name, rec, before[off])
		}
		if last[rec.key] != off {
			n.t.Errorf("record %d of %s is there, though %d has its key", off, name, last[rec.key])
		}
	}
	for key, off := range last {
		if _, ok := after[off]; !ok && before[off].value != "null" {
			n.t.Errorf("the last record of %s, at %d of %s, is gone", key, off, name)
		}
	}
}

// checkCleaned holds a log after a restart against itself, as consumers read it.
func (n *node) checkCleaned(name string) {
	n.t.Helper()
	log := n.b.store.Log(name)
	keys := map[string]int{}
	for _, rec := range n.records(log) {
		keys[rec.key]++
	}
	if len(keys) == 0 || slices.Max(slices.Collect(maps.Values(keys))) != 1 {
		n.t.Errorf("%s: %d keys, some more than once", name, len(keys))
	}
}

type fixtureRecord struct{ key, value string }

// records reads what a consumer of committed records reads, by offset.
func (n *node) records(log *commitlog.Log) map[int64]fixtureRecord {
	n.t.Helper()
	out := map[int64]fixtureRecord{}
	for off, upTo := log.StartOffset(), log.StableOffset(); off < upTo; {
		v, aborted, err := log.ReadCommitted(off, upTo, 1<<20, true)
		if err != nil {
			n.t.Fatal(err)
		}
		if v == nil {
			break
		}
		p, err := readView(nil, v)
		if err != nil {
			n.t.Fatal(err)
		}
		s := served{expectation: expectation{Isolation: "read_committed"}, aborted: map[int64][]int64{}}
		for _, a := range aborted {
			s.aborted[a.ProducerID] = append(s.aborted[a.ProducerID], a.FirstOffset)
		}
		for b, rest, err := batch.Next(p); err == nil; b, rest, err = batch.Next(rest) {
			off = b.LastOffset() + 1
			if b.IsControl() || s.drops(b) {
				continue
			}
			err := b.Each(0, func(r *batch.Record) error {
				out[r.Offset] = fixtureRecord{string(r.Key), hexOrNull(r.Value)}
				return nil
			})
			if err != nil {
				n.t.Fatal(err)
			}
		}
	}
	return out
}

// drops says whether the batch is one of an aborted transaction.
func (s *served) drops(b batch.Batch) bool {
	firsts := s.aborted[b.ProducerID()]
	return b.IsTransactional() && len(firsts) > 0 && firsts[0] <= b.BaseOffset()
}
