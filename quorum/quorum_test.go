package quorum

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/vfs"
)

const nowMs = 1_700_000_000_000

var testEndpoint = Endpoint{Name: "CONTROLLER", Host: "127.0.0.1", Port: 9093}

func format(t testing.TB, files vfs.FS, dir string) commitlog.MetaProperties {
	t.Helper()
	if err := Format(files, dir, FormatOptions{NodeID: 1, ControllerListener: testEndpoint, NowMs: nowMs}); err != nil {
		t.Fatal(err)
	}
	m, err := commitlog.ReadMetaProperties(files, dir)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// node is an open directory.
type node struct {
	store *commitlog.Store
	q     *Quorum
}

func openNode(files vfs.FS, dir string, edit ...func(*Options)) (*node, error) {
	m, err := commitlog.ReadMetaProperties(files, dir)
	if err != nil {
		return nil, err
	}
	o := Options{NowMs: func() int64 { return nowMs }, DirectoryID: m.DirectoryID}
	for _, e := range edit {
		e(&o)
	}
	if err := Check(files, dir); err != nil {
		return nil, err
	}
	store, err := commitlog.Open(dir, &commitlog.Options{FS: files, Durability: o.Durability, NoCheckpoint: []string{LogName}, NowMs: o.NowMs,
		Configure: func(string) *commitlog.Config { return LogConfig(o) }})
	if err != nil {
		return nil, err
	}
	q, err := Open(store, files, dir, m.NodeID, o)
	if err != nil {
		store.Close(-1)
		return nil, err
	}
	return &node{store, q}, nil
}

func mustOpen(t testing.TB, files vfs.FS, dir string, edit ...func(*Options)) *node {
	t.Helper()
	n, err := openNode(files, dir, edit...)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *node) close(t testing.TB) {
	t.Helper()
	if err := n.q.Close(); err != nil {
		t.Error(err)
	}
	if err := n.store.Close(5); err != nil {
		t.Error(err)
	}
}

// settle waits until everything that was appended is committed.
func (n *node) settle(t testing.TB) {
	t.Helper()
	moved := make(chan struct{}, 1)
	n.q.OnCommitted(func() {
		select {
		case moved <- struct{}{}:
		default:
		}
	})
	for n.q.Committed() < n.q.End() {
		if err := n.q.Err(); err != nil {
			t.Fatal(err)
		}
		<-moved
	}
}

func values(s ...string) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, v := range s {
			if !yield([]byte(v), nil) {
				return
			}
		}
	}
}

// content is what a reader of q sees: "s:…" from a snapshot, "@end" between, "c:type" and values from the log.
func (n *node) content(t testing.TB) (out []string) {
	t.Helper()
	err := n.q.Read(func(e Entry) error {
		out = append(out, "s:"+string(e.Value))
		return nil
	}, func(s Snapshot) error {
		out = append(out, fmt.Sprintf("@%d epoch %d", s.End, s.Epoch))
		return nil
	}, func(e Entry) error {
		if e.Control {
			out = append(out, fmt.Sprintf("%d c:%d", e.Offset, e.Type))
		} else {
			out = append(out, fmt.Sprintf("%d %s", e.Offset, e.Value))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func expect(t testing.TB, got []string, want ...string) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func (n *node) append(t testing.TB, batches ...[][]byte) int64 {
	t.Helper()
	base, err := n.q.Append(n.q.Epoch(), nowMs, batches)
	if err != nil {
		t.Fatal(err)
	}
	return base
}

func vals(s ...string) (out [][]byte) {
	for _, v := range s {
		out = append(out, []byte(v))
	}
	return out
}

func TestEpochsAndControlRecords(t *testing.T) {
	for _, d := range []commitlog.Durability{commitlog.Sync, commitlog.OS} {
		files := vfs.NewMem()
		dir := "/data"
		format(t, files, dir)
		durable := func(o *Options) { o.Durability = d }
		n := mustOpen(t, files, dir, durable)
		if n.q.Epoch() != 1 || n.q.End() != 3 {
			t.Fatalf("epoch %d, end %d", n.q.Epoch(), n.q.End())
		}
		if base := n.append(t, vals("a", "b"), vals("c")); base != 3 {
			t.Fatalf("base %d", base)
		}
		n.settle(t)
		if _, err := n.q.Append(0, nowMs, [][][]byte{vals("x")}); err == nil {
			t.Error("an older epoch could append")
		}
		expect(t, n.content(t), "@0 epoch 0", "0 c:2", "1 c:5", "2 c:6", "3 a", "4 b", "5 c")
		n.close(t)
		n = mustOpen(t, files, dir, durable)
		if n.q.Epoch() != 2 {
			t.Errorf("epoch %d after a restart", n.q.Epoch())
		}
		expect(t, n.content(t), "@0 epoch 0", "0 c:2", "1 c:5", "2 c:6", "3 a", "4 b", "5 c", "6 c:2")
		n.close(t)
		state, err := vfs.ReadFile(files, filepath.Join(dir, LogName, stateName))
		if want := `{"leaderId":1,"leaderEpoch":2,"votedId":-1,"votedDirectoryId":"AAAAAAAAAAAAAAAAAAAAAA","data_version":1}`; err != nil || string(state) != want {
			t.Errorf("%s, %v", state, err)
		}
	}
}

// A log of several times what is read at once is read whole, wherever a reading ends.
func TestLongLog(t *testing.T) {
	files := vfs.NewMem()
	dir := "/data"
	format(t, files, dir)
	n := mustOpen(t, files, dir)
	var want []string
	for i, bytes := 0, 0; bytes < 3*readChunk; i++ {
		value := fmt.Sprint(i, strings.Repeat("x", 900+i%97))
		n.append(t, vals(value))
		want, bytes = append(want, fmt.Sprint(3+i, " ", value)), bytes+len(value)
	}
	n.settle(t)
	n.close(t)
	n = mustOpen(t, files, dir)
	defer n.close(t)
	got := n.content(t)
	if len(got) < len(want)+4 || !slices.Equal(got[4:4+len(want)], want) {
		t.Fatalf("%d records of %d are read", len(got)-4, len(want))
	}
}

// Batches of more than a segment are refused as a whole, in a way that asks for fewer at a time; those roll.
func TestAppendAboveASegment(t *testing.T) {
	files := vfs.NewMem()
	format(t, files, "/d")
	n := mustOpen(t, files, "/d", func(o *Options) { o.SegmentBytes = 1000 })
	defer n.close(t)
	end := n.q.End()
	v := vals(strings.Repeat("x", 300))
	if _, err := n.q.Append(n.q.Epoch(), nowMs, [][][]byte{v, v, v, v}); !errors.Is(err, coordinator.ErrTooLarge) || n.q.End() != end {
		t.Fatalf("%v, %d records written", err, n.q.End()-end)
	}
	n.append(t, v, v)
	n.append(t, v, v)
	n.settle(t)
	if got := n.content(t); strings.Count(fmt.Sprint(got), string(v[0])) != 4 {
		t.Errorf("%q", got)
	}
}

func TestSnapshotAndRetention(t *testing.T) {
	files := vfs.NewMem()
	format(t, files, "/d")
	var clock atomic.Int64
	clock.Store(nowMs)
	o := func(o *Options) { o.NowMs = clock.Load }
	n := mustOpen(t, files, "/d", o)
	n.append(t, vals("a", "b"))
	n.settle(t)
	if err := n.q.WriteSnapshot(Snapshot{End: 99, Epoch: 1}, values("x")); err == nil {
		t.Error("a snapshot of what is not committed")
	}
	if err := n.q.WriteSnapshot(Snapshot{5, 1, clock.Load()}, values("A", "B")); err != nil {
		t.Fatal(err)
	}
	if err := n.q.WriteSnapshot(Snapshot{4, 1, clock.Load()}, values("older")); err != nil || n.q.NewestSnapshot() != 5 {
		t.Error("an older snapshot", err)
	}
	n.append(t, vals("c"))
	n.settle(t)
	expect(t, n.content(t), "s:A", "s:B", "@5 epoch 1", "5 c")
	n.close(t)
	n = mustOpen(t, files, "/d", o)
	expect(t, n.content(t), "s:A", "s:B", "@5 epoch 1", "5 c", "6 c:2")
	if got := n.q.SizeSinceSnapshot(); got != 69 { // one batch with one record of one byte
		t.Errorf("%d bytes behind the snapshot", got)
	}
	n.settle(t)
	clock.Add(weekMs + 1)
	if err := n.q.WriteSnapshot(Snapshot{7, 2, clock.Load()}, values("A", "B", "C")); err != nil {
		t.Fatal(err)
	}
	// Those of the format tool and of last week are too old: one is left, and the log behind it.
	if n.q.log.StartOffset() != 7 || len(n.q.snap.list) != 1 {
		t.Errorf("start %d, snapshots %v", n.q.log.StartOffset(), n.q.snap.list)
	}
	n.q.opts.RetentionBytes = 1
	n.append(t, vals("d"))
	n.settle(t)
	if err := n.q.WriteSnapshot(Snapshot{8, 2, clock.Load()}, values("A", "B", "C", "D")); err != nil {
		t.Fatal(err)
	}
	if n.q.log.StartOffset() != 8 || len(n.q.snap.list) != 1 {
		t.Errorf("start %d, snapshots %v", n.q.log.StartOffset(), n.q.snap.list)
	}
	n.close(t)
	n = mustOpen(t, files, "/d", o)
	expect(t, n.content(t), "s:A", "s:B", "s:C", "s:D", "@8 epoch 2", "8 c:2")
	if n.q.Epoch() != 3 || n.q.SizeSinceSnapshot() != 0 {
		t.Errorf("epoch %d, %d bytes behind the snapshot", n.q.Epoch(), n.q.SizeSinceSnapshot())
	}
	n.close(t)
}

// A snapshot beyond the log's end, as a copy of a directory may have it, wins over the log.
func TestSnapshotBeyondTheLog(t *testing.T) {
	files := vfs.NewMem()
	format(t, files, "/d")
	n := mustOpen(t, files, "/d")
	n.append(t, vals("a", "b", "c"))
	n.settle(t)
	if err := n.q.WriteSnapshot(Snapshot{6, 1, nowMs}, values("ABC")); err != nil {
		t.Fatal(err)
	}
	if err := n.q.log.TruncateTo(3); err != nil {
		t.Fatal(err)
	}
	n.close(t)
	n = mustOpen(t, files, "/d")
	defer n.close(t)
	expect(t, n.content(t), "s:ABC", "@6 epoch 1", "6 c:2")
}

func TestRefusals(t *testing.T) {
	files := vfs.NewMem()
	m := format(t, files, "/d")
	if err := Format(files, "/d", FormatOptions{NodeID: 1}); err != ErrFormatted {
		t.Error(err)
	}
	if _, err := openNode(files, "/d", func(o *Options) { o.DirectoryID = [16]byte{1} }); err == nil {
		t.Error("another directory id is taken")
	}
	m.NodeID = 2
	if err := commitlog.WriteMetaProperties(files, "/d", m, nowMs); err != nil {
		t.Fatal(err)
	}
	if _, err := openNode(files, "/d"); err == nil || err.Error() != "quorum: this node is not the only voter: voters are [1], this node is 2" {
		t.Error(err)
	}
}

func TestCorruptSnapshotIsNamed(t *testing.T) {
	files := vfs.NewMem()
	format(t, files, "/d")
	name := filepath.Join("/d", LogName, snapshotID{}.name())
	p, err := vfs.ReadFile(files, name)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		p    []byte
		want string
	}{
		{p[:len(p)-1], "does not end"}, {nil, "footer"}, {p[63:], "footer"},
	} {
		_ = c.want
		if err := walkSnapshot(name, c.p, func(Entry) error { return nil }); err == nil {
			t.Errorf("%d of %d bytes are taken for a snapshot", len(c.p), len(p))
		}
	}
	for i := range p {
		bad := bytes.Clone(p)
		bad[i] ^= 0x40
		err := walkSnapshot(name, bad, func(Entry) error { return nil })
		// Base offset and leader epoch stand outside the checksum and say nothing that a reader uses.
		if first := i < 8 || i >= 12 && i < 16; err == nil && !first && !outsideCRC(p, i) {
			t.Fatalf("byte %d flipped: no error", i)
		}
	}
}

// outsideCRC: byte i is part of a batch's base offset or leader epoch.
func outsideCRC(p []byte, i int) bool {
	for at := 0; at < len(p); {
		b, _, err := batch.Next(p[at:])
		if err != nil {
			return false
		}
		if i < at+len(b) {
			return i-at < 8 || i-at >= 12 && i-at < 16
		}
		at += len(b)
	}
	return false
}

func TestBootstrap(t *testing.T) {
	files := vfs.NewMem()
	format(t, files, "/d")
	n := mustOpen(t, files, "/d")
	defer n.close(t)
	check := func() {
		vs, err := n.q.Bootstrap()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, v := range vs {
			m, err := records.DecodeMetadata(v)
			if err != nil {
				t.Fatal(err)
			}
			f := m.(*records.FeatureLevelRecord)
			got = append(got, fmt.Sprint(f.Name, " ", f.FeatureLevel))
		}
		expect(t, got, "metadata.version 29", "eligible.leader.replicas.version 1", "group.version 1", "share.version 1", "streams.version 1", "transaction.version 2")
	}
	check()
	if err := files.Remove("/d/" + bootstrapName); err != nil {
		t.Fatal(err)
	}
	check()
}

// Each file has the bytes that Kafka 4.2's format tool wrote, but for the times of its batches.
func TestFormatIsKafkas(t *testing.T) {
	files := vfs.NewMem()
	dirID := parseUUID(t, "glFe-CjnSVq79g83oJkMVQ")
	kafkas, err := os.ReadFile(filepath.Join("testdata", "format", snapshotID{}.name()))
	if err != nil {
		t.Fatal(err)
	}
	at := int64(0)
	err = walkSnapshot("kafka's", kafkas, func(e Entry) (err error) {
		if e.Type == batch.SnapshotHeader {
			at, err = headerTimestamp(e.Value)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	err = Format(files, "/d", FormatOptions{NodeID: 1, DirectoryID: dirID, ControllerListener: Endpoint{"CONTROLLER", "127.0.0.1", 21011}, NowMs: at})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{bootstrapName, filepath.Join(LogName, snapshotID{}.name())} {
		want, err := os.ReadFile(filepath.Join("testdata", "format", filepath.Base(f)))
		if err != nil {
			t.Fatal(err)
		}
		got, err := vfs.ReadFile(files, filepath.Join("/d", f))
		if err != nil {
			t.Fatal(err)
		}
		if a, b := timeless(t, got), timeless(t, want); !bytes.Equal(a, b) {
			t.Errorf("%s:\n%x\nwant\n%x", f, a, b)
		}
	}
}

// timeless is p with all batch timestamps, and so the checksums, set to zero.
func timeless(t *testing.T, p []byte) []byte {
	p = bytes.Clone(p)
	for rest := p; len(rest) > 0; {
		b, next, err := batch.Next(rest)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		clear(b[17:21])
		clear(b[27:43])
		rest = next
	}
	return p
}

func parseUUID(t *testing.T, s string) [16]byte {
	id, err := commitlog.ParseTopicID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}
