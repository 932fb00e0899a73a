package controller

import (
	"errors"
	"fmt"
	"iter"
	"sync"
	"testing"

	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/quorum"
	"github.com/millrace-project/millrace/records"
)

// memLog is the metadata log done dumb: a slice of values. It commits at once unless held.
type memLog struct {
	mu        sync.Mutex
	epoch     int32
	entries   []quorum.Entry
	committed int64
	held      bool
	err       error
	notify    func()
	snapshot  [][]byte
	snapAt    quorum.Snapshot
	snaps     int
	unsnapped int64 // bytes behind the newest snapshot, as a start finds them
	snapErr   error // what the next snapshot fails with
	boot      [][]byte
}

func newMemLog(t testing.TB) *memLog {
	l := &memLog{epoch: 1}
	for _, f := range []records.FeatureLevelRecord{
		{Name: "metadata.version", FeatureLevel: 29}, {Name: "eligible.leader.replicas.version", FeatureLevel: 1}, {Name: "group.version", FeatureLevel: 1},
		{Name: "share.version", FeatureLevel: 1}, {Name: "streams.version", FeatureLevel: 1}, {Name: "transaction.version", FeatureLevel: 2},
	} {
		v, err := records.AppendMetadata(nil, &f, 0)
		if err != nil {
			t.Fatal(err)
		}
		l.boot = append(l.boot, v)
	}
	l.control()
	return l
}

// control is a leader's first record of an epoch.
func (l *memLog) control() {
	l.entries = append(l.entries, quorum.Entry{Offset: l.End(), Epoch: l.epoch, Control: true})
	l.committed = l.End()
}

// restart is what a new leader epoch does to the log.
func (l *memLog) restart() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epoch++
	l.control()
	l.held, l.err = false, nil
}

func (l *memLog) Epoch() int32 { return l.epoch }
func (l *memLog) End() int64   { return l.snapAt.End + int64(len(l.entries)) }
func (l *memLog) Committed() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.committed
}
func (l *memLog) OnCommitted(fn func()) { l.notify = fn }
func (l *memLog) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

func (l *memLog) Append(epoch int32, timestampMs int64, batches [][][]byte) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if epoch != l.epoch {
		return 0, fmt.Errorf("epoch %d", epoch)
	}
	base := l.End()
	for _, b := range batches {
		for _, v := range b {
			l.entries = append(l.entries, quorum.Entry{Offset: l.End(), Epoch: epoch, TimestampMs: timestampMs, Value: v})
		}
	}
	if !l.held {
		l.committed = l.End()
		l.notify()
	}
	return base, nil
}

func (l *memLog) Read(snapshot func(quorum.Entry) error, begun func(quorum.Snapshot) error, log func(quorum.Entry) error) error {
	for i, v := range l.snapshot {
		if err := snapshot(quorum.Entry{Offset: int64(i), Value: v}); err != nil {
			return err
		}
	}
	if err := begun(l.snapAt); err != nil {
		return err
	}
	for _, e := range l.entries {
		if err := log(e); err != nil {
			return err
		}
	}
	return nil
}

func (l *memLog) Bootstrap() ([][]byte, error) { return l.boot, nil }

func (l *memLog) WriteSnapshot(at quorum.Snapshot, values iter.Seq2[[]byte, error]) error {
	var all [][]byte
	for v, err := range values {
		if err != nil {
			return err
		}
		all = append(all, v)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.snapErr; err != nil {
		l.snapErr = nil
		return err
	}
	if at.End > l.committed {
		return errors.New("snapshot above the committed end")
	}
	l.entries = l.entries[at.End-l.snapAt.End:]
	l.snapshot, l.snapAt = all, at
	l.snaps++
	return nil
}

func (l *memLog) SizeSinceSnapshot() int64 { return l.unsnapped }

// since gives the records from offset on, decoded.
func (l *memLog) since(t testing.TB, off int64) (out []records.Message) {
	t.Helper()
	for _, e := range l.entries {
		if e.Offset >= off && !e.Control {
			m, err := records.DecodeMetadata(e.Value)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, m)
		}
	}
	return out
}

func testOptions(t testing.TB) Options {
	s, err := config.Load(config.Standalone(t.TempDir(), "127.0.0.1:9092"))
	if err != nil {
		t.Fatal(err)
	}
	return Options{
		ClusterID: "c", NodeID: 1, Config: s, DirectoryID: [16]byte{0xd1},
		Listeners:          []Endpoint{{Name: "PLAINTEXT", Host: "127.0.0.1", Port: 9092}},
		ControllerEndpoint: Endpoint{Name: "CONTROLLER", Host: "127.0.0.1", Port: 9093},
		NowMs:              func() int64 { return 1000 },
	}
}

func startOn(t testing.TB, l *memLog, edit ...func(*Options)) *Controller {
	t.Helper()
	o := testOptions(t)
	for _, e := range edit {
		e(&o)
	}
	c, err := Start(l, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// dump is an image's records as text.
func dump(t testing.TB, img *metadata.Image) (s string) {
	t.Helper()
	for r := range img.Records() {
		v, err := records.AppendMetadata(nil, r.Message, r.Version)
		if err != nil {
			t.Fatal(err)
		}
		s += fmt.Sprintf("%s %x\n", r.Message.Schema().Name, v)
	}
	return s
}
