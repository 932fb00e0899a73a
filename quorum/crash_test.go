package quorum

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/vfs"
)

var cutsFlag = flag.Int("crash.cuts", 0, "how many power cuts TestCrashes makes at least")

// crashRun appends, takes snapshots and restarts on a memory file system, and knows what was committed.
type crashRun struct {
	t         *testing.T
	rng       *rand.Rand
	files     *vfs.Mem
	n         *node
	durable   func(*Options)
	written   []string // values that are or were about to be in the log, in order
	committed int      // how many of them are committed
	epoch     int32
	cuts      *int
}

// cut is the power going off.
func (r *crashRun) cut() *vfs.Mem {
	*r.cuts++
	return r.files.CrashClone(r.rng)
}

// all is what a reader of n sees, snapshot and log as one, without control records.
func (r *crashRun) all(n *node) (out []string) {
	r.t.Helper()
	for _, s := range n.content(r.t) {
		if v, ok := strings.CutPrefix(s, "s:"); ok {
			out = append(out, v)
		} else if _, v, ok := strings.Cut(s, " v"); ok {
			out = append(out, "v"+v)
		}
	}
	return out
}

func (r *crashRun) append() {
	var batches [][][]byte
	for range 1 + r.rng.Intn(2) {
		var b [][]byte
		for range 1 + r.rng.Intn(3) {
			v := fmt.Sprint("v", len(r.written))
			r.written = append(r.written, v)
			b = append(b, []byte(v))
		}
		batches = append(batches, b)
	}
	if _, err := r.n.q.Append(r.n.q.Epoch(), nowMs, batches); err != nil {
		r.t.Fatal(err)
	}
}

func (r *crashRun) settle() {
	r.n.settle(r.t)
	r.committed = len(r.written)
}

func (r *crashRun) snapshot() {
	r.settle()
	at := Snapshot{End: r.n.q.Committed(), Epoch: r.n.q.Epoch(), TimestampMs: nowMs}
	if err := r.n.q.WriteSnapshot(at, values(r.written...)); err != nil {
		r.t.Fatal(err)
	}
}

// check opens what a crash leaves and compares it with what was committed; the run may go on from there.
func (r *crashRun) check(files *vfs.Mem, goOn bool) {
	r.t.Helper()
	n, err := openNode(files, "/d", r.durable)
	if err != nil {
		r.t.Fatalf("after a crash: %v", err)
	}
	got := r.all(n)
	if len(got) < r.committed || len(got) > len(r.written) || !slices.Equal(got, r.written[:len(got)]) {
		r.t.Fatalf("after a crash:\n%v\nwritten\n%v\ncommitted %d", got, r.written, r.committed)
	}
	if n.q.Epoch() <= r.epoch-1 {
		r.t.Fatalf("epoch %d after a crash, was %d", n.q.Epoch(), r.epoch)
	}
	if !goOn {
		n.close(r.t)
		return
	}
	r.n.close(r.t)
	r.files, r.n, r.written, r.epoch = files, n, got, n.q.Epoch()
	r.settle()
}

// Whatever a power cut leaves of unsynced bytes and names, what was committed is there, nothing else than what was
// written is there, the epoch never falls, and the directory opens.
func TestCrashes(t *testing.T) {
	cuts := 0
	for seed := int64(0); seed < 120 || cuts < *cutsFlag; seed++ {
		rng := rand.New(rand.NewSource(seed))
		files := vfs.NewMem()
		format(t, files, "/d")
		r := &crashRun{t: t, rng: rng, files: files, cuts: &cuts, durable: func(o *Options) {
			o.Durability = commitlog.Durability(seed % 2)
			o.RetentionBytes = 600
			if seed%3 == 0 {
				o.SegmentBytes = 400
			}
		}}
		r.n = mustOpen(t, files, "/d", r.durable)
		r.epoch = r.n.q.Epoch()
		for range 25 {
			switch rng.Intn(7) {
			case 0, 1, 2:
				r.append()
			case 3:
				r.settle()
			case 4:
				r.snapshot()
			case 5:
				r.check(r.cut(), rng.Intn(3) == 0)
			case 6:
				r.check(r.files.KillClone(), rng.Intn(3) == 0)
			}
		}
		r.check(r.cut(), false)
		r.n.close(t)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d power cuts", cuts)
}

// A power cut while the store's retention takes several segments below a snapshot leaves a directory that opens.
func TestCutInRetention(t *testing.T) {
	for seed := range int64(60) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewSource(seed))
			mem := vfs.NewMem()
			format(t, mem, "/d")
			var mu sync.Mutex
			var clone *vfs.Mem
			armed := false
			faulty := vfs.NewFaulty(mem, func(op vfs.Op) error {
				mu.Lock()
				defer mu.Unlock()
				if armed && clone == nil && op.Kind == vfs.OpSyncDir && strings.HasSuffix(op.Name, LogName) && rng.Intn(3) == 0 {
					clone = mem.CrashClone(rng)
				}
				return nil
			})
			small := func(o *Options) {
				o.SegmentBytes, o.RetentionBytes = 300, 1
				o.NowMs = func() int64 { return time.Now().UnixMilli() }
			}
			n := mustOpen(t, faulty, "/d", small)
			for i := range 12 {
				n.append(t, vals(fmt.Sprint("value", i)))
				n.settle(t)
			}
			if err := n.q.WriteSnapshot(Snapshot{End: n.q.Committed(), Epoch: n.q.Epoch(), TimestampMs: nowMs}, values("all")); err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			armed = true
			mu.Unlock()
			time.Sleep(time.Minute)
			synctest.Wait()
			n.close(t)
			if n := len(n.q.log.Segments()); n > 1 {
				t.Fatalf("retention left %d segments", n)
			}
			if clone == nil {
				clone = mem.CrashClone(rng)
			}
			again, err := openNode(clone, "/d", small)
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			again.close(t)
		})
	}
}

// A crash at any moment of formatting leaves a directory that is formatted or can be.
func TestCrashWhileFormatting(t *testing.T) {
	for seed := range int64(200) {
		rng := rand.New(rand.NewSource(seed))
		mem := vfs.NewMem()
		left := rng.Intn(40)
		var clone *vfs.Mem
		faulty := vfs.NewFaulty(mem, func(vfs.Op) error {
			if left--; left == 0 {
				clone = mem.CrashClone(rng)
			}
			return nil
		})
		format(t, faulty, "/d")
		if clone == nil {
			clone = mem.CrashClone(rng)
		}
		if _, err := commitlog.ReadMetaProperties(clone, "/d"); err != nil {
			format(t, clone, "/d")
		}
		mustOpen(t, clone, "/d").close(t)
	}
}

// A kill in the middle of the format leaves a snapshot that is not whole and read-only, which the next start replaces.
func TestFormatAfterAKill(t *testing.T) {
	mem := vfs.NewMem()
	part := filepath.Join("/d", LogName, snapshotID{}.name()+partSuffix)
	killed, dead := errors.New("killed"), false
	err := Format(vfs.NewFaulty(mem, func(op vfs.Op) error {
		if dead = dead || op.Kind == vfs.OpWrite && op.Name == part; dead && op.Kind != vfs.OpClose {
			return killed // nothing of the process happens from here on
		}
		return nil
	}), "/d", FormatOptions{NodeID: 1, ControllerListener: testEndpoint, NowMs: nowMs})
	if !errors.Is(err, killed) {
		t.Fatal(err)
	}
	if _, err := mem.Stat(part); err != nil {
		t.Fatal(err)
	}
	format(t, vfs.NewFaulty(mem, func(op vfs.Op) error { // a user who is not root
		if _, err := mem.Stat(op.Name); op.Kind == vfs.OpCreate && op.Name == part && err == nil {
			return fs.ErrPermission
		}
		return nil
	}), "/d")
	mustOpen(t, mem, "/d").close(t)
}

// A sync that fails takes the log offline: nothing more is committed, and whoever waits learns it.
func TestFailedSync(t *testing.T) {
	for _, d := range []commitlog.Durability{commitlog.Sync, commitlog.OS} {
		files := vfs.NewMem()
		format(t, files, "/d")
		n := mustOpen(t, files, "/d", func(o *Options) { o.Durability = d })
		n.append(t, vals("a"))
		n.settle(t)
		files.FailSync(filepath.Join("/d", LogName, fmt.Sprintf("%020d.log", 0)))
		committed, failed := n.q.Committed(), make(chan struct{}, 100)
		n.q.OnCommitted(func() {
			if n.q.Err() != nil {
				failed <- struct{}{}
			}
		})
		n.append(t, vals("b"))
		<-failed
		if n.q.Committed() != committed {
			t.Errorf("%v: committed moved to %d over a failed sync", d, n.q.Committed())
		}
		if _, err := n.q.Append(n.q.Epoch(), nowMs, [][][]byte{vals("c")}); err == nil {
			t.Errorf("%v: an offline log took a record", d)
		}
		n.q.Close()
		n.store.Close(5)
	}
}

func FuzzQuorumState(f *testing.F) {
	f.Add([]byte(`{"leaderId":1,"leaderEpoch":1,"votedId":-1,"votedDirectoryId":"AAAAAAAAAAAAAAAAAAAAAA","data_version":1}`))
	f.Add([]byte(`{"clusterId":"","leaderId":1,"leaderEpoch":2,"votedId":-1,"appliedOffset":0,"currentVoters":[{"voterId":1}],"data_version":0}`))
	f.Fuzz(func(t *testing.T, p []byte) {
		if s, err := parseState(p); err == nil && s.LeaderEpoch < 0 {
			t.Errorf("%q gives epoch %d", p, s.LeaderEpoch)
		}
	})
}

func FuzzSnapshot(f *testing.F) {
	files := vfs.NewMem()
	format(f, files, "/d")
	for _, name := range []string{bootstrapName, filepath.Join(LogName, snapshotID{}.name())} {
		p, err := vfs.ReadFile(files, filepath.Join("/d", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		h := &history{}
		_ = walkSnapshot("x", p, func(e Entry) error { return h.control(e, true) })
	})
}

func FuzzSnapshotName(f *testing.F) {
	f.Add("00000000000000000074-0000000001.checkpoint")
	f.Fuzz(func(t *testing.T, name string) {
		if s, ok := parseSnapshotName(name); ok && s.name() != name {
			t.Errorf("%q is %v, whose name is %q", name, s, s.name())
		}
	})
}

// kraft.version 0: voters are configured and stand in no record; quorum-state is of the older form.
func TestConfiguredVoters(t *testing.T) {
	files := vfs.NewMem()
	format(t, files, "/d")
	if err := files.Remove(filepath.Join("/d", LogName, snapshotID{}.name())); err != nil {
		t.Fatal(err)
	}
	for epoch := int32(1); epoch < 3; epoch++ {
		n := mustOpen(t, files, "/d")
		n.append(t, vals("v"))
		n.settle(t)
		state, err := vfs.ReadFile(files, filepath.Join("/d", LogName, stateName))
		if want := fmt.Sprintf(`{"clusterId":"","leaderId":1,"leaderEpoch":%d,"votedId":-1,"appliedOffset":0,"currentVoters":[{"voterId":1}],"data_version":0}`, epoch); err != nil || string(state) != want {
			t.Errorf("%s, %v; want %s", state, err, want)
		}
		if epoch == 1 {
			expect(t, n.content(t), "@0 epoch 0", "0 c:2", "1 v")
		}
		n.close(t)
	}
}

// With kraft.version 0 a node of several voters is known by its last leader change, and where that lies below the newest
// snapshot by quorum-state.
func TestOtherConfiguredVotersAreRefused(t *testing.T) {
	for _, snapshot := range []bool{false, true} {
		files := vfs.NewMem()
		format(t, files, "/d")
		if err := files.Remove(filepath.Join("/d", LogName, snapshotID{}.name())); err != nil {
			t.Fatal(err)
		}
		n := mustOpen(t, files, "/d")
		three := []records.LeaderChangeVoter{{VoterID: 1}, {VoterID: 2}, {VoterID: 3}}
		b, err := controlBatch(0, n.q.epoch, nowMs, []controlRecord{{batch.LeaderChange, &records.LeaderChangeMessage{LeaderID: 2, Voters: three, GrantingVoters: three[1:]}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.q.append(nowMs, b); err != nil {
			t.Fatal(err)
		}
		n.append(t, vals("a"))
		n.settle(t)
		if snapshot {
			if err := n.q.WriteSnapshot(Snapshot{End: n.q.Committed(), Epoch: n.q.Epoch(), TimestampMs: nowMs}, values("a")); err != nil {
				t.Fatal(err)
			}
		}
		n.close(t)
		state := []byte(`{"clusterId":"","leaderId":2,"leaderEpoch":1,"votedId":-1,"appliedOffset":0,"currentVoters":[{"voterId":1},{"voterId":2},{"voterId":3}],"data_version":0}`)
		name := filepath.Join("/d", LogName, stateName)
		if err := vfs.WriteFileAtomic(files, name, state); err != nil {
			t.Fatal(err)
		}
		if _, err := openNode(files, "/d"); !errors.Is(err, ErrVoters) {
			t.Fatalf("snapshot %v: a log of three voters was opened: %v", snapshot, err)
		}
		if after, err := vfs.ReadFile(files, name); err != nil || !bytes.Equal(after, state) {
			t.Errorf("snapshot %v: quorum-state is now %s, %v", snapshot, after, err)
		}
	}
}
