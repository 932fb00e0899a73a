package fuzz

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"

	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/compaction"
	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/index"
	"github.com/millrace-project/millrace/vfs"
)

// fileTargets are decoders of single files. Those that the engine does not export are reached by the
// recovery's targets, which open whole directories.
func fileTargets() []*Target {
	return []*Target{
		{Name: "offset-index", About: "an offset index as found, writable and sealed: lookups, check, repair, truncation; what repair keeps passes the check", Seed: indexSeed(8), Check: checkOffsetIndex, MaxAlloc: 64 << 20},
		{Name: "time-index", About: "a time index likewise", Seed: indexSeed(12), Check: checkTimeIndex, MaxAlloc: 64 << 20},
		{Name: "txn-index", About: "an index of aborted transactions likewise", Seed: txnIndexSeed, Check: checkTxnIndex, MaxAlloc: 64 << 20},
		{Name: "offset-checkpoint", About: "recovery, start and cleaner offset checkpoints; what is read writes and reads to the same again", Seed: seedOffsetCheckpoint, Check: checkOffsetCheckpoint},
		{Name: "producer-snapshot", About: "producer snapshots behind a right checksum", Seed: pickSeed(snapshots), Fix: fixSnapshot, Check: checkProducerSnapshot},
		{Name: "meta-properties", About: "meta.properties; what is read writes and reads to the same again", Seed: seedMetaProperties, Check: checkMetaProperties},
		{Name: "server-properties", About: "the configuration file", Seed: seedProperties, Check: checkProperties},
		{Name: "swap-plan", About: "names in a partition's directory after a crash in the middle of a swap: nothing that the plan keeps is deleted", Seed: seedNames, Check: checkSwapPlan},
	}
}

// indexSeed makes entries whose fields all grow.
func indexSeed(size int) func(rng *rand.Rand) []byte {
	return func(rng *rand.Rand) (p []byte) {
		rel, other := uint32(0), uint64(rng.Int64N(3))
		for range rng.IntN(12) {
			rel, other = rel+1+rng.Uint32N(9), other+1+rng.Uint64N(5000)
			if size == 8 {
				p = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(p, rel), uint32(other))
			} else {
				p = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(p, other), rel)
			}
		}
		if rng.IntN(4) == 0 { // allocated ahead, as Kafka does
			p = append(p, make([]byte, size*rng.IntN(20))...)
		}
		return p
	}
}

func txnIndexSeed(rng *rand.Rand) (p []byte) {
	off := uint64(indexBase)
	for range rng.IntN(8) {
		first := off + rng.Uint64N(5)
		off = first + 1 + rng.Uint64N(9)
		p = binary.BigEndian.AppendUint16(p, 0)
		for _, v := range []uint64{rng.Uint64N(4), first, off, first} {
			p = binary.BigEndian.AppendUint64(p, v)
		}
	}
	return p
}

// indexBase is the base offset of the segments that the index targets open.
const indexBase = 1000

// withIndex opens content as an index, first writable and then sealed.
func withIndex(p []byte, use func(fs vfs.FS, h *vfs.Handles, name string, writable bool) (string, error)) (outcome string, err error) {
	for _, writable := range []bool{true, false} {
		fs, err := memDir(tree{"i": p})
		if err != nil {
			return "", err
		}
		said, err := use(fs, vfs.NewHandles(2, 4), "data/i", writable)
		if err != nil {
			return "", fmt.Errorf("writable %v: %w", writable, err)
		}
		outcome += said + "; "
	}
	return outcome, nil
}

// corrupt turns the error of an index into an outcome: it may only say that the file is damaged.
func corrupt(err error) (string, error) {
	if c := (*index.CorruptError)(nil); err == nil || errors.As(err, &c) {
		return fmt.Sprint(err), nil
	}
	return "", fmt.Errorf("an error of another kind: %w", err)
}

func checkOffsetIndex(p []byte) (string, error) {
	ask := int64(indexBase + len(p)%50)
	return withIndex(p, func(fs vfs.FS, h *vfs.Handles, name string, writable bool) (string, error) {
		x := index.OpenOffset(fs, h, name, indexBase, 1<<20, writable)
		defer x.Close()
		e, lookup := x.Lookup(ask)
		if lookup == nil && e.Offset > ask {
			return "", fmt.Errorf("lookup of %d gives %+v", ask, e)
		}
		_, _, ceil := x.Ceil(int64(len(p)))
		said, err := corrupt(errors.Join(x.Check(), lookup, ceil))
		if err != nil {
			return "", err
		}
		cut, err := corrupt(x.TruncateTo(ask))
		if err != nil || !writable {
			return said, err
		}
		if err := x.LoadUnchecked(); err != nil {
			return "", err
		}
		n, err := x.Valid(math.MaxInt64)
		if err := errors.Join(err, x.Keep(n), x.Sync(), x.Check()); err != nil {
			return "", fmt.Errorf("after %d valid entries were kept: %w", n, err)
		}
		return said + " " + cut, nil
	})
}

func checkTimeIndex(p []byte) (string, error) {
	return withIndex(p, func(fs vfs.FS, h *vfs.Handles, name string, writable bool) (string, error) {
		x := index.OpenTime(fs, h, name, indexBase, 1<<20, writable)
		defer x.Close()
		ask := int64(len(p)) * 200
		e, lookup := x.Lookup(ask)
		if lookup == nil && e.Timestamp > ask && e.Timestamp != index.NoTimestamp {
			return "", fmt.Errorf("lookup of %d gives %+v", ask, e)
		}
		_, last := x.Last()
		said, err := corrupt(errors.Join(x.Check(), lookup, last))
		if err != nil {
			return "", err
		}
		cut, err := corrupt(x.TruncateTo(indexBase + int64(len(p)%50)))
		if err != nil || !writable {
			return said, err
		}
		if err := x.LoadUnchecked(); err != nil {
			return "", err
		}
		n, err := x.Valid(math.MaxInt64)
		if err := errors.Join(err, x.Keep(n), x.Sync(), x.Check()); err != nil {
			return "", fmt.Errorf("after %d valid entries were kept: %w", n, err)
		}
		return said + " " + cut, nil
	})
}

func checkTxnIndex(p []byte) (string, error) {
	return withIndex(p, func(fs vfs.FS, h *vfs.Handles, name string, writable bool) (string, error) {
		x := index.OpenTxn(fs, h, name, indexBase, writable)
		defer x.Close()
		lo := int64(indexBase + len(p)%50)
		entries, _, collect := x.Collect(lo, lo+20)
		for _, e := range entries {
			if collect == nil && (e.LastOffset < lo || e.FirstOffset >= lo+20) {
				return "", fmt.Errorf("collecting [%d, %d) gives %+v", lo, lo+20, e)
			}
		}
		said, err := corrupt(errors.Join(x.Check(), collect))
		if err != nil {
			return "", err
		}
		cut, err := corrupt(x.TruncateTo(lo))
		if err != nil || !writable {
			return said, err
		}
		entry := index.TxnEntry{ProducerID: 1, FirstOffset: indexBase, LastOffset: indexBase + 3, LastStableOffset: indexBase}
		if err := errors.Join(x.Reset(), x.Append(entry), x.Sync(), x.Check()); err != nil {
			return "", fmt.Errorf("begun anew: %w", err)
		}
		return said + " " + cut, nil
	})
}

func seedOffsetCheckpoint(rng *rand.Rand) []byte {
	n := rng.IntN(6)
	p := fmt.Appendf(nil, "0\n%d\n", n)
	for range n {
		p = fmt.Appendf(p, "t%s %d %d\n", letters(rng, 5), rng.IntN(5), rng.Int64N(1<<40))
	}
	return p
}

func checkOffsetCheckpoint(p []byte) (string, error) {
	fs, err := memDir(tree{"c": p})
	if err != nil {
		return "", err
	}
	entries, err := commitlog.ReadOffsetCheckpoint(fs, "data/c")
	if err != nil {
		return corrupt(err)
	}
	if err := commitlog.WriteOffsetCheckpoint(fs, "data/d", entries); err != nil {
		return "", err
	}
	again, err := commitlog.ReadOffsetCheckpoint(fs, "data/d")
	if err != nil || !reflect.DeepEqual(entries, again) {
		return "", fmt.Errorf("%v came back as %v, %v", entries, again, err)
	}
	return fmt.Sprintf("%c", 'a'+min(len(entries), 20)), nil
}

// snapshots are the producer snapshots of the engine's directory.
func snapshots() (all [][]byte) {
	for _, d := range engineDirectories() {
		for _, name := range d.tree.names() {
			if strings.HasSuffix(name, ".snapshot") {
				all = append(all, d.tree[name])
			}
		}
	}
	return all
}

func pickSeed(list func() [][]byte) func(rng *rand.Rand) []byte {
	return func(rng *rand.Rand) []byte {
		all := list()
		return bytes.Clone(all[rng.IntN(len(all))])
	}
}

func fixSnapshot(p []byte) {
	if len(p) >= 10 {
		binary.BigEndian.PutUint32(p[2:], crcOf(p[6:]))
	}
}

func checkProducerSnapshot(p []byte) (string, error) {
	infos, err := commitlog.DecodeProducerSnapshot(p)
	if err != nil {
		return err.Error(), nil
	}
	return fmt.Sprintf("%c", 'a'+min(len(infos), 20)), nil
}

func seedMetaProperties(rng *rand.Rand) []byte {
	return fmt.Appendf(nil, "#\n#Sun Nov 22 01:46:56 UTC 2026\nnode.id=%d\ndirectory.id=xm02ftk5TROEaCo1ghQaCw\nversion=1\ncluster.id=%s\n", rng.IntN(5), "a"+string(letters(rng, 20)))
}

func checkMetaProperties(p []byte) (string, error) {
	fs, err := memDir(tree{"meta.properties": p})
	if err != nil {
		return "", err
	}
	m, err := commitlog.ReadMetaProperties(fs, "data")
	if err != nil {
		return corrupt(err)
	}
	if strings.TrimSpace(m.ClusterID) != m.ClusterID || strings.ContainsAny(m.ClusterID, "\n\r") {
		return "spaces", nil // Java's rules for them are not ours: no cluster has such a name
	}
	if err := commitlog.WriteMetaProperties(fs, "data", m, 0); err != nil {
		return "", err
	}
	if again, err := commitlog.ReadMetaProperties(fs, "data"); err != nil || again != m {
		return "", fmt.Errorf("%+v came back as %+v, %v", m, again, err)
	}
	return "ok", nil
}

func seedNames(rng *rand.Rand) []byte {
	var names []string
	for range 1 + rng.IntN(10) {
		ext := []string{".log", ".index", ".timeindex", ".txnindex", ".snapshot"}[rng.IntN(5)]
		names = append(names, fmt.Sprintf("%020d%s%s", rng.IntN(6)*10, ext, []string{"", "", ".swap", ".cleaned", ".deleted"}[rng.IntN(5)]))
	}
	return []byte(strings.Join(names, "\n"))
}

// checkSwapPlan carries a plan out on names alone.
func checkSwapPlan(p []byte) (string, error) {
	have := map[string]bool{}
	var names []string
	for name := range strings.SplitSeq(string(p), "\n") {
		if name != "" && !have[name] {
			have[name] = true
			names = append(names, name)
		}
	}
	plan, err := compaction.PlanRecovery(names, func(name string) (int64, error) {
		if !have[name] {
			return 0, fmt.Errorf("%s: %w", name, os.ErrNotExist)
		}
		base, err := strconv.ParseInt(strings.SplitN(name, ".", 2)[0], 10, 32)
		return base + 1 + int64(len(p))%30, err
	})
	if err != nil {
		return err.Error(), nil
	}
	for _, name := range plan.Delete {
		if !have[name] {
			return "", fmt.Errorf("the plan deletes %q, which is not there", name)
		}
	}
	for _, name := range plan.Delete {
		delete(have, name)
	}
	for _, r := range plan.Rename {
		if !have[r.From] || have[r.To] && strings.HasSuffix(r.To, ".log") {
			return "", fmt.Errorf("the plan renames %q to %q: there %v, taken %v", r.From, r.To, have[r.From], have[r.To])
		}
		delete(have, r.From)
		have[r.To] = true
	}
	for name := range have {
		if strings.HasSuffix(name, ".log.swap") || strings.HasSuffix(name, ".log.cleaned") {
			if len(filepath.Base(name)) == len(fmt.Sprintf("%020d.log.swap", 0)) {
				return "", fmt.Errorf("%q is left over", name)
			}
		}
	}
	return fmt.Sprintf("%c%c", 'a'+min(len(plan.Delete), 20), 'a'+min(len(plan.Rename), 20)), nil
}

func seedProperties(rng *rand.Rand) []byte {
	lines := []string{
		"listeners=PLAINTEXT://:9092", "listeners=A://[::1]:1,CONTROLLER://:2\nlistener.security.protocol.map=A:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"log.dirs=/data/a", "controller.listener.names=CONTROLLER", "log.retention.hours=168", "log.roll.hours=9\nlog.roll.ms=5",
		"max.connections.per.ip.overrides=a:1,b:2", "node.id=3", "millrace.durability=os", "advertised.listeners=PLAINTEXT://h:9092",
		"# a comment", "log.cleaner.dedupe.buffer.size=1000000", "a\\=b:c", "long=\\\n  value", "\\u00e9=\\t",
	}
	var out []string
	for range 1 + rng.IntN(5) {
		out = append(out, lines[rng.IntN(len(lines))])
	}
	return []byte(strings.Join(out, "\n"))
}

func checkProperties(p []byte) (string, error) {
	pairs, err := config.ParseProperties(bytes.NewReader(p))
	if err != nil {
		return err.Error(), nil
	}
	s, err := config.Load(pairs)
	if err != nil {
		return err.Error(), nil
	}
	if len(s.Listeners) == 0 || len(s.Advertised) != len(s.Listeners) || len(s.LogDirs) == 0 || s.Controller().Name == "" {
		return "", fmt.Errorf("loads as %+v", s)
	}
	return "ok", nil
}
