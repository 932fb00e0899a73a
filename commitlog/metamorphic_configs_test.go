package commitlog

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/vfs"
)

// metaConfig is one way to run a history: nothing in it may be seen in the answer.
type metaConfig struct {
	durability                Durability
	onDisk                    bool // the operating system's files, mapped; else in memory
	traced                    bool // without descriptors or mappings
	replica                   bool // the answers are those of a log that copies the first one
	oneByOne                  bool // each entry of an append in a call of its own
	restarts                  bool
	reconfigure               bool // settings change at restarts and between
	handles                   int  // 0: as many as there are
	checkpointBytes           int64
	maxSyncs, recoveryWorkers int
	segmentBytes, segmentMs   int64
	jitterMs, flushMessages   int64
	indexInterval, indexMax   int
	manyPasses                bool // an offset map that is too small for one pass
	cleaner                   CleanerOptions
	scrubMs, reserveBytes     int64
}

// plainMetaConfig is that under which a history is drawn.
func plainMetaConfig() metaConfig {
	return metaConfig{
		durability: OS, checkpointBytes: 1 << 30, segmentBytes: 1 << 30, segmentMs: 1 << 50, flushMessages: 1 << 50,
		indexInterval: 256, indexMax: 10 << 20, cleaner: CleanerOptions{Disabled: true},
	}
}

func pick[T any](rng *rand.Rand, from ...T) T { return from[rng.Intn(len(from))] }

// randomMetaConfig draws the ith configuration for a history.
func randomMetaConfig(rng *rand.Rand, i int, shaped bool) metaConfig {
	c := plainMetaConfig()
	c.durability = Durability(rng.Intn(2))
	c.onDisk = i%9 == 4
	c.replica = i%3 == 1
	c.traced = rng.Intn(3) == 0
	c.oneByOne = rng.Intn(3) == 0
	c.restarts = rng.Intn(4) > 0
	c.reconfigure = rng.Intn(2) == 0
	c.handles = pick(rng, 0, 0, 1, 2, 4)
	c.checkpointBytes = pick[int64](rng, 2000, 20_000, 1<<30)
	c.maxSyncs, c.recoveryWorkers = pick(rng, 1, 16), pick(rng, 1, 8)
	c.flushMessages = pick[int64](rng, 1, 5, 1<<50)
	c.indexInterval = pick(rng, 0, 1, 100, 300, 1000, 4096, 1<<20)
	c.cleaner.BufferBytes = pick(rng, 0, 512, 4096)
	c.cleaner.LoadFactor = pick(rng, 0, 0.3, 0.9)
	c.cleaner.Workers = pick(rng, 1, 2)
	c.scrubMs = pick[int64](rng, 0, 0, 1)
	c.reserveBytes = pick[int64](rng, 0, 0, 4096)
	if !shaped {
		c.segmentBytes = pick[int64](rng, 1000, 2000, 10_000, 1<<30)
		c.segmentMs = pick[int64](rng, 100, 3000, 1<<50)
		c.jitterMs = pick[int64](rng, 0, 0, 50)
		c.indexMax = pick(rng, 24, 64, 10<<20)
		if rng.Intn(3) == 0 {
			c.manyPasses, c.cleaner.MapBytes = true, 1024
		}
	}
	return c
}

// metaDisk is the operating system's, for tests that do not cut its power: a sync
// would take most of their time.
type metaDisk struct{ vfs.FS }

func (d metaDisk) OpenFile(name string, flag int, perm os.FileMode) (vfs.File, error) {
	f, err := d.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return metaFile{f}, nil
}

func (d metaDisk) SyncDir(string) error { return nil }

type metaFile struct{ vfs.File }

func (metaFile) Sync() error { return nil }

// metaRun is a history under way.
type metaRun struct {
	t     *testing.T
	h     *metaHistory
	cfg   metaConfig
	rng   *rand.Rand // of what may not be seen
	nowMs atomic.Int64
	at    int // the operation
	trail []string

	dir    string
	mem    *vfs.Mem // nil on disk
	opts   *Options
	log    *Log // the one that is asked
	leader *Log // the one that clients append to
	store  *Store
	logCfg *Config
}

func newMetaRun(t *testing.T, h *metaHistory, cfg metaConfig) *metaRun {
	r := &metaRun{t: t, h: h, cfg: cfg, rng: rand.New(rand.NewSource(h.seed + 1)), dir: testDir}
	r.nowMs.Store(fixedClock())
	c := DefaultConfig()
	c.SegmentBytes, c.SegmentMs, c.SegmentJitterMs = cfg.segmentBytes, cfg.segmentMs, cfg.jitterMs
	c.IndexIntervalBytes, c.IndexMaxBytes, c.FlushMessages = cfg.indexInterval, cfg.indexMax, cfg.flushMessages
	c.RetentionMs, c.DeleteRetentionMs, c.Delete, c.Compact = -1, 3000, !h.compact, h.compact
	c.TimestampType, c.Target = h.timestampType, h.target
	r.logCfg = c
	r.opts = &Options{
		Durability: cfg.durability, NowMs: r.nowMs.Load, CheckpointBytes: cfg.checkpointBytes, Cleaner: cfg.cleaner,
		InitialTaskDelayMs: 1 << 50, RetentionCheckMs: 1 << 50, ProducerExpirationMs: 1 << 50, MaxSyncs: cfg.maxSyncs,
		RecoveryWorkers: cfg.recoveryWorkers, ScrubIntervalMs: cfg.scrubMs, ReserveBytes: cfg.reserveBytes,
		Configure: func(string) *Config { return r.logCfg },
		Listener:  EventListener{Damaged: func(name string, err error) { t.Errorf("the scrub says of %s: %v", name, err) }},
	}
	if cfg.onDisk {
		r.dir = t.TempDir()
	} else {
		r.mem = vfs.NewMem()
	}
	r.open()
	return r
}

// open opens the store, and makes the logs if it has none.
func (r *metaRun) open() {
	fs := vfs.FS(metaDisk{vfs.OS()})
	if r.mem != nil {
		r.mem.NowMs = r.nowMs.Load
		fs = r.mem
	}
	if r.cfg.traced {
		fs = vfs.NewFaulty(fs, func(vfs.Op) error { return nil })
	}
	r.opts.FS, r.opts.idleHandles = fs, r.cfg.handles
	s, err := Open(r.dir, r.opts)
	if err != nil {
		r.fatalf("open: %v", err)
	}
	if r.cfg.reserveBytes > 0 { // a power cut may have left it short: it is filled before records are taken
		if err := s.reserve.fill(); err != nil {
			r.fatalf("reserve: %v", err)
		}
	}
	r.store = s
	names := []string{"t-0"}
	if r.cfg.replica {
		names = append(names, "t-1")
	}
	for i, name := range names {
		l := s.Log(name)
		if l == nil && r.at > 0 {
			r.fatalf("%s is gone", name)
		}
		if l == nil {
			if l, err = s.Create(name, TopicID{1}, r.logCfg); err != nil {
				r.fatalf("create: %v", err)
			}
		}
		if r.log = l; i == 0 {
			r.leader = l
		}
	}
}

func (r *metaRun) close() {
	if err := r.store.Close(1); err != nil {
		r.fatalf("close: %v", err)
	}
	fs := vfs.OS()
	if r.mem != nil {
		fs = r.mem
	}
	if report, err := Verify(fs, filepath.Join(r.dir, r.log.Name()), VerifyOptions{}); err != nil || report.Bad() {
		r.fatalf("log verify: %v %+v", err, report)
	}
}

// each does the same to the log and to its replica.
func (r *metaRun) each(fn func(l *Log) error) {
	r.follow()
	for _, l := range []*Log{r.leader, r.log} {
		if err := fn(l); err != nil {
			r.fatalf("%v", err)
		}
		if l == r.log {
			return
		}
	}
}

func (r *metaRun) sync() {
	r.each((*Log).Sync)
}

func (r *metaRun) append(op *metaOp) {
	entries := make([]*Entry, len(op.entries))
	for i, e := range op.entries {
		entries[i] = &Entry{Data: bytes.Clone(e.data), Origin: e.origin, ZstdAllowed: true}
		if r.cfg.oneByOne {
			r.leader.Append(op.nowMs, op.epoch, entries[i:i+1])
		}
	}
	if !r.cfg.oneByOne {
		r.leader.Append(op.nowMs, op.epoch, entries)
	}
	for i, e := range entries {
		got := fmt.Sprintf("%d-%d", e.Result.BaseOffset, e.Result.LastOffset)
		var invalid *batch.ValidationError
		switch {
		case errors.Is(e.Err, ErrOutOfOrderSequence):
			got = ErrOutOfOrderSequence.Error()
		case errors.As(e.Err, &invalid):
			got = "refused"
		case e.Err != nil:
			got = e.Err.Error()
		case e.Result.Duplicate:
			got += " again"
		}
		if got != op.entries[i].want {
			r.fatalf("entry %d: %s (%v), want %s", i, got, e.Err, op.entries[i].want)
		}
	}
}

// follow copies to the replica what it does not have.
func (r *metaRun) follow() {
	for r.log != r.leader && r.log.EndOffset() < r.leader.EndOffset() {
		off := r.log.EndOffset()
		v, err := r.leader.Read(off, r.leader.EndOffset(), r.rng.Intn(3000), true)
		if err != nil || v == nil {
			r.fatalf("read %d to copy it: %v", off, err)
		}
		p := make([]byte, v.Len())
		if _, err := v.ReadAt(p, 0); err != nil {
			r.fatalf("read %d to copy it: %v", off, err)
		}
		v.Close()
		whole := 0
		for rest := p; ; {
			b, next, err := batch.Next(rest)
			if err != nil || len(b) == 0 {
				break
			}
			whole += len(b)
			rest = next
		}
		if _, err := r.log.AppendReplica(p[:whole]); err != nil {
			r.fatalf("copy %d: %v", off, err)
		}
	}
}

// restart stops and starts the store in some way, or does nothing, and changes settings.
func (r *metaRun) restart() {
	if r.cfg.reconfigure {
		c := *r.logCfg
		c.IndexIntervalBytes = pick(r.rng, 0, 50, 700, 4096)
		c.FlushMessages = pick[int64](r.rng, 1, 1<<50)
		if !r.h.shaped {
			c.SegmentBytes = pick[int64](r.rng, 1000, 3000, 1<<20)
		}
		r.logCfg = &c
		r.leader.Configure(&c)
		r.log.Configure(&c)
		o := r.opts.Cleaner
		o.BufferBytes = pick(r.rng, 600, 8192)
		r.store.ConfigureCleaner(o)
	}
	if !r.cfg.restarts {
		return
	}
	how := pick(r.rng, "none", "clean", "unclean", "indexes lost", "kill", "power cut")
	r.trail = append(r.trail, fmt.Sprintf("%s at %d", how, r.at))
	fs := vfs.OS()
	if r.mem != nil {
		fs = r.mem
	} else if how == "kill" || how == "power cut" {
		how = "unclean"
	}
	var next *vfs.Mem
	switch how {
	case "none":
		return
	case "kill":
		r.follow()
		next = r.mem.KillClone()
	case "power cut":
		r.sync()
		r.each(func(l *Log) error { l.checkpoint(); return l.Err() }) // also the name of a segment that is empty
		next = r.mem.CrashClone(r.rng)
	}
	if err := r.store.Close(1); err != nil {
		r.fatalf("close: %v", err)
	}
	switch how {
	case "unclean":
		if err := fs.Remove(filepath.Join(r.dir, cleanShutdownFile)); err != nil {
			r.fatalf("%v", err)
		}
	case "indexes lost":
		r.loseIndexes(fs)
	case "kill", "power cut":
		r.mem = next
	}
	r.open()
}

// loseIndexes removes some of the files that a start can make anew.
func (r *metaRun) loseIndexes(fs vfs.FS) {
	for _, l := range []*Log{r.leader, r.log} {
		for _, name := range names(r.t, fs, filepath.Join(r.dir, l.Name())) {
			if r.rng.Intn(2) == 0 && (strings.HasSuffix(name, ".index") || strings.HasSuffix(name, ".timeindex")) {
				if err := fs.Remove(filepath.Join(r.dir, l.Name(), name)); err != nil && !errors.Is(err, os.ErrNotExist) {
					r.fatalf("%v", err)
				}
			}
		}
	}
}
