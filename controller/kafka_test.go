package controller

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/quorum"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/vfs"
)

// kafkaDir is a directory that Apache Kafka 4.2 wrote, in memory, without the files that drop names.
func kafkaDir(t *testing.T, name string, drop func(name string) bool) *vfs.Mem {
	t.Helper()
	files := vfs.NewMem()
	root := filepath.Join("testdata", name)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join("/d", strings.TrimPrefix(path, root))
		if d.IsDir() {
			return files.MkdirAll(to, 0o755)
		}
		p, err := os.ReadFile(path)
		if err != nil || drop(d.Name()) {
			return err
		}
		return vfs.WriteFileAtomic(files, to, p)
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

type opened struct {
	store *commitlog.Store
	q     *quorum.Quorum
	meta  commitlog.MetaProperties
}

func open(t *testing.T, files vfs.FS, edit ...func(*quorum.Options)) *opened {
	t.Helper()
	m, err := commitlog.ReadMetaProperties(files, "/d")
	if err != nil {
		t.Fatal(err)
	}
	o := quorum.Options{DirectoryID: m.DirectoryID, NowMs: func() int64 { return 1_800_000_000_000 }}
	for _, e := range edit {
		e(&o)
	}
	store, err := commitlog.Open("/d", &commitlog.Options{FS: files, NoCheckpoint: []string{quorum.LogName}, Configure: func(string) *commitlog.Config { return quorum.LogConfig(o) }})
	if err != nil {
		t.Fatal(err)
	}
	q, err := quorum.Open(store, files, "/d", m.NodeID, o)
	if err != nil {
		t.Fatal(err)
	}
	return &opened{store, q, m}
}

func (o *opened) close(t *testing.T) {
	t.Helper()
	if err := o.q.Close(); err != nil {
		t.Error(err)
	}
	if err := o.store.Close(1); err != nil {
		t.Error(err)
	}
}

func (o *opened) options(t *testing.T) Options {
	opts := testOptions(t)
	opts.ClusterID, opts.NodeID, opts.DirectoryID, opts.EnforcesSecurity = o.meta.ClusterID, o.meta.NodeID, o.meta.DirectoryID, true
	return opts
}

func keep(string) bool { return false }

// The log of a Kafka with topics, settings of every kind, ACLs, SCRAM credentials and producer ids, replayed up to where
// Kafka's own snapshot ends, gives record for record what that snapshot holds.
func TestReplayGivesKafkasSnapshot(t *testing.T) {
	const end = 74
	withoutSnapshots := func(name string) bool {
		return strings.HasSuffix(name, ".checkpoint") && name != "bootstrap.checkpoint" && !strings.HasPrefix(name, fmt.Sprintf("%020d", 0))
	}
	logOnly := open(t, kafkaDir(t, "kafka-4.2-clean", withoutSnapshots))
	defer logOnly.close(t)
	b := metadata.NewBuilder(metadata.Empty("c"))
	none := func(quorum.Entry) error { return nil }
	err := logOnly.q.Read(none, func(quorum.Snapshot) error { return nil }, func(e quorum.Entry) error {
		if e.Control || e.Offset >= end {
			return nil
		}
		m, version, err := records.DecodeMetadataVersion(e.Value)
		if err != nil {
			return err
		}
		if p, err := records.AppendMetadata(nil, m, version); err != nil || string(p) != string(e.Value) {
			t.Errorf("offset %d, %s: %x is written back as %x, %v", e.Offset, m.Schema().Name, e.Value, p, err)
		}
		return b.Apply(e.Offset, e.Epoch, e.TimestampMs, m)
	})
	if err != nil {
		t.Fatal(err)
	}
	img, _ := b.Build()
	var ours, kafkas []string
	for r := range img.Records() {
		p, err := records.AppendMetadata(nil, r.Message, r.Version)
		if err != nil {
			t.Fatal(err)
		}
		ours = append(ours, fmt.Sprintf("%s %x", r.Message.Schema().Name, p))
	}
	withSnapshot := open(t, kafkaDir(t, "kafka-4.2-clean", keep))
	defer withSnapshot.close(t)
	err = withSnapshot.q.Read(func(e quorum.Entry) error {
		m, err := records.DecodeMetadata(e.Value)
		if err == nil {
			kafkas = append(kafkas, fmt.Sprintf("%s %x", m.Schema().Name, e.Value))
		}
		return err
	}, func(s quorum.Snapshot) error {
		if s.End != end {
			t.Errorf("the newest snapshot ends at %d", s.End)
		}
		return nil
	}, none)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(ours)
	slices.Sort(kafkas)
	expect(t, "snapshot", ours, kafkas...)
	if got := img.Security(); !slices.Equal(got, []string{"ACLs", "SCRAM credentials"}) {
		t.Errorf("security: %v", got)
	}
}

// Directories after a clean stop and after a kill of Kafka are taken over: every partition that was led is led again, at
// a higher epoch, and the same directory opens again after our own stop and after our own kill.
func TestTakeOverFromKafka(t *testing.T) {
	for _, name := range []string{"kafka-4.2-clean", "kafka-4.2-killed"} {
		files := kafkaDir(t, name, keep)
		if name == "kafka-4.2-killed" {
			// A killed Kafka leaves its indexes at their preallocated size.
			for _, x := range []struct {
				suffix string
				n      int
			}{{".index", 10485760}, {".timeindex", 10485756}} {
				if err := vfs.WriteFileAtomic(files, filepath.Join("/d", quorum.LogName, fmt.Sprintf("%020d%s", 0, x.suffix)), make([]byte, x.n)); err != nil {
					t.Fatal(err)
				}
			}
		}
		epochs := map[string]int32{}
		for round := range 4 {
			o := open(t, files)
			before, err := replay(o.q, o.meta.ClusterID)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			c, err := Start(o.q, o.options(t))
			if err != nil {
				t.Fatalf("%s round %d: %v", name, round, err)
			}
			n := 0
			for topic := range c.Image().Topics() {
				for _, p := range topic.Partitions {
					n++
					key := fmt.Sprint(topic.Name, p.Index)
					if p.Leader != 1 || !slices.Equal(p.Isr, []int32{1}) || p.LeaderEpoch <= epochs[key] {
						t.Errorf("%s round %d: %s: %+v", name, round, key, p)
					}
					epochs[key] = p.LeaderEpoch
				}
			}
			if n == 0 || before.TopicCount() != c.Image().TopicCount() {
				t.Errorf("%s: %d partitions", name, n)
			}
			if round == 2 {
				err := o.q.WriteSnapshot(quorum.Snapshot{End: c.Image().Offset(), Epoch: c.Image().Epoch(), TimestampMs: c.Image().TimestampMs()}, values(c.Image()))
				if err != nil {
					t.Fatal(err)
				}
			}
			if round%2 == 0 {
				if err := c.Shutdown(); err != nil {
					t.Error(err)
				}
				c.Close()
				o.close(t)
				continue
			}
			next := files.KillClone()
			c.Close()
			o.close(t)
			files = next
		}
	}
}
