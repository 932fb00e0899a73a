package fuzz

import (
	"fmt"
	"hash/crc32"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/quorum"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/vfs"
)

// dataDir is where the directories of targets lie in their memory file systems.
const dataDir = "data"

// clockMs is the time in them: nothing expires in a search.
const clockMs = 1_700_000_000_000

func clock() int64 { return clockMs }

func crcOf(p []byte) uint32 { return crc32.Checksum(p, castagnoli) }

// memDir puts files below dataDir of a new memory file system.
func memDir(t tree) (*vfs.Mem, error) {
	fs := vfs.NewMem()
	for _, rel := range t.names() {
		name := filepath.Join(dataDir, rel)
		if err := fs.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return nil, err
		}
		f, err := fs.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
		if err != nil {
			return nil, err
		}
		if len(t[rel]) > 0 {
			_, err = f.WriteAt(t[rel], 0)
		}
		if f.Close(); err != nil {
			return nil, err
		}
	}
	return fs, nil
}

// memTree reads what is below a directory.
func memTree(fs vfs.FS, dir string) (tree, error) {
	out := tree{}
	var walk func(dir, rel string) error
	walk = func(dir, rel string) error {
		entries, err := fs.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			name, below := filepath.Join(dir, e.Name()), filepath.Join(rel, e.Name())
			if e.IsDir() {
				err = walk(name, below)
			} else {
				out[below], err = vfs.ReadFile(fs, name)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	return out, walk(dir, "")
}

// directory is one that the engine wrote, with what it holds.
type directory struct {
	about string
	tree  tree
	truth *truth
}

// engineLogs are a log of every codec, one of transactions, and one of several leader epochs.
var engineLogs = []string{"codecs-0", "txn-0", "epochs-0"}

// engineDirectories are what the engine leaves after a kill, some segments behind its recovery points,
// and after a start on that and a clean stop. Each process has the same, byte for byte, so that an
// input is in each what it was in the one that found it: what is appended is appended while nothing
// makes checkpoints beside it, which is before Load.
var engineDirectories = sync.OnceValue(makeEngineDirectories)

func makeEngineDirectories() []*directory {
	fs := vfs.NewMem()
	inStore(fs, nil, func(store *commitlog.Store) {
		for i, name := range engineLogs {
			_, err := store.Create(name, commitlog.TopicID{1, byte(i)}, engineConfig())
			must(err)
		}
	})
	rng := rand.New(rand.NewPCG(1, 2))
	inStore(fs, engineLogs, func(store *commitlog.Store) { appendEngine(store, rng, 0, 15) })
	inStore(fs, nil, func(*commitlog.Store) {}) // its stop moves the recovery points
	var killed *vfs.Mem
	inStore(fs, engineLogs, func(store *commitlog.Store) {
		appendEngine(store, rng, 15, 40)
		killed = fs.KillClone()
	})
	stopped := killed.KillClone()
	inStore(stopped, nil, func(*commitlog.Store) {})
	var all []*directory
	for _, d := range []struct {
		about string
		fs    *vfs.Mem
	}{{"stopped", stopped}, {"killed", killed}} {
		t, err := memTree(d.fs, dataDir)
		must(err)
		all = append(all, &directory{d.about, t, mustReadTruth(t)})
	}
	return all
}

// inStore opens the engine's store, with first without loading any other log, and closes it.
func inStore(fs vfs.FS, first []string, fn func(store *commitlog.Store)) {
	o := engineOptions(fs, nil)
	o.First = first
	store, err := commitlog.Open(dataDir, o)
	must(err)
	fn(store)
	must(store.Close(1))
}

// appendEngine appends the batches [from, to) of each log.
func appendEngine(store *commitlog.Store, rng *rand.Rand, from, to int) {
	for _, name := range engineLogs {
		l := store.Log(name)
		for n := from; n < to; n++ {
			epoch := int32(0)
			if name == "epochs-0" {
				epoch = int32(n / 7)
				must(l.AssignEpoch(epoch, l.EndOffset()))
			}
			b, origin := engineBatch(rng, name, n)
			e := commitlog.Entry{Data: b, Origin: origin, ZstdAllowed: true}
			l.Append(clockMs+int64(n), epoch, []*commitlog.Entry{&e})
			must(e.Err)
		}
		must(l.Sync())
	}
}

func mustReadTruth(t tree) *truth {
	tr, err := readTruth(t)
	must(err)
	return tr
}

// must is for what is done with sound inputs only.
func must(err error) {
	if err != nil {
		panic("BUG: " + err.Error())
	}
}

func engineConfig() *commitlog.Config {
	c := *commitlog.DefaultConfig()
	c.SegmentBytes, c.IndexIntervalBytes, c.RetentionMs = 3000, 256, -1
	return &c
}

func engineOptions(fs vfs.FS, listen *commitlog.EventListener) *commitlog.Options {
	o := &commitlog.Options{FS: fs, NowMs: clock, RecoveryWorkers: 1, Configure: func(string) *commitlog.Config { return engineConfig() }}
	if listen != nil {
		o.Listener = *listen
	}
	return o
}

// engineBatch is the n-th batch of one of the logs.
func engineBatch(rng *rand.Rand, name string, n int) ([]byte, commitlog.Origin) {
	o := batch.BuilderOptions{LeaderEpoch: -1}
	switch name {
	case "codecs-0":
		o.Codec = batch.Codec(n % 5)
	case "txn-0":
		pid := int64(n % 2)
		if n%8 >= 6 {
			return batch.AppendEndTxnMarker(nil, batch.MarkerOptions{Timestamp: clockMs, ProducerID: pid, Commit: n%16 < 8}), commitlog.FromCoordinator
		}
		o.HasProducer, o.ProducerID, o.Transactional = true, pid, true
		o.BaseSequence = int32((n/8*3 + n%8/2) * 4)
	}
	bl := batch.NewBuilder(o)
	for i := range 4 {
		bl.Append(clockMs+int64(n), fmt.Appendf(nil, "key %d", i), append(fmt.Appendf(nil, "%s %d ", name, n), letters(rng, 150)...), nil)
	}
	b, err := bl.Build(nil)
	must(err)
	return b, commitlog.FromClient
}

// metadataDirectory is a formatted directory with a metadata log of some epochs and a snapshot.
var metadataDirectory = sync.OnceValue(makeMetadataDirectory)

func makeMetadataDirectory() tree {
	fs := vfs.NewMem()
	must(quorum.Format(fs, dataDir, quorum.FormatOptions{ClusterID: "cluster", NodeID: 1, DirectoryID: [16]byte{9}, ControllerListener: quorum.Endpoint{Name: "CONTROLLER", Host: "127.0.0.1", Port: 9093}, NowMs: clockMs}))
	for epoch := range 3 {
		store, q, err := openQuorum(fs)
		must(err)
		moved := make(chan struct{}, 1)
		q.OnCommitted(func() {
			select {
			case moved <- struct{}{}:
			default:
			}
		})
		for i := range 4 {
			topic := records.NewTopicRecord()
			topic.Name, topic.TopicID = fmt.Sprintf("t%d-%d", epoch, i), records.UUID{byte(epoch), byte(i)}
			value, err := records.AppendMetadata(nil, topic, 0)
			must(err)
			_, err = q.Append(q.Epoch(), clockMs, [][][]byte{{value}})
			must(err)
		}
		for q.Committed() < q.End() {
			<-moved
		}
		if epoch == 1 {
			must(q.WriteSnapshot(quorum.Snapshot{End: q.Committed(), Epoch: q.Epoch(), TimestampMs: clockMs}, snapshotValues()))
		}
		must(q.Close())
		must(store.Close(5))
	}
	t, err := memTree(fs, dataDir)
	must(err)
	return t
}

func snapshotValues() iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for i := range 8 {
			topic := records.NewTopicRecord()
			topic.Name, topic.TopicID = fmt.Sprintf("t%d", i), records.UUID{1, byte(i)}
			if !yield(records.AppendMetadata(nil, topic, 0)) {
				return
			}
		}
	}
}

// openQuorum opens the metadata log of a directory as the broker does: checked first.
func openQuorum(fs vfs.FS) (*commitlog.Store, *quorum.Quorum, error) {
	m, err := commitlog.ReadMetaProperties(fs, dataDir)
	if err != nil {
		return nil, nil, err
	}
	if err := quorum.Check(fs, dataDir); err != nil {
		return nil, nil, err
	}
	o := quorum.Options{NowMs: clock, DirectoryID: m.DirectoryID}
	store, err := commitlog.Open(dataDir, &commitlog.Options{FS: fs, NowMs: clock, NoCheckpoint: []string{quorum.LogName}, Configure: func(string) *commitlog.Config { return quorum.LogConfig(o) }})
	if err != nil {
		return nil, nil, err
	}
	q, err := quorum.Open(store, fs, dataDir, m.NodeID, o)
	if err != nil {
		_ = store.Close(-1)
		return nil, nil, err
	}
	return store, q, nil
}
