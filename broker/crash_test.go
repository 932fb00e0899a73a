package broker

import (
	"errors"
	"fmt"
	oldrand "math/rand"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/vfs"
	"github.com/millrace-project/millrace/wire"
)

// startOn serves a directory of a file system in memory.
func startOn(t *testing.T, fs vfs.FS, settings ...string) *node {
	t.Helper()
	pairs := config.Standalone("data", "127.0.0.1:0")
	for i := 0; i < len(settings); i += 2 {
		pairs = append(pairs, config.Pair{Key: settings[i], Value: settings[i+1]})
	}
	cfg, err := config.Load(pairs)
	if err != nil {
		t.Fatal(err)
	}
	b, err := New(cfg, Options{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	b.Start()
	n := &node{t: t, b: b}
	t.Cleanup(n.stop)
	return n
}

// What was acknowledged, and what a consumer was shown, survives a kill at any moment, and with
// durability sync a power cut, which keeps only what was synced and any part of the rest.
func TestWhatWasToldSurvivesACrash(t *testing.T) {
	for _, c := range []struct{ durability, crash string }{{"sync", "power"}, {"sync", "kill"}, {"os", "kill"}} {
		for seed := range uint64(8) {
			t.Run(fmt.Sprint(c.durability, "-", c.crash, "-", seed), func(t *testing.T) {
				crashRound(t, c.durability, c.crash, seed)
			})
		}
	}
}

func crashRound(t *testing.T, durability, crash string, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 4))
	mem := vfs.NewMem()
	n := startOn(t, mem, "millrace.durability", durability)
	n.mustCreate("t", 1, "segment.bytes", "1048576")
	var acked, shown atomic.Int64
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() { produceUntil(n.pipe(), stop, &acked) })
	wg.Go(func() { consumeUntil(n.pipe(), stop, &shown) })
	for target := 50 + rng.Int64N(300); acked.Load() < target; {
		if wait := n.pipe(); wait != nil { // a round trip, so that time passes
			wait.send(0, kmsg.NewPtrApiVersionsRequest())
			wait.receive()
			wait.conn.Close()
		}
	}
	low := max(acked.Load(), shown.Load()) // before the cut: the least that must survive it
	var cut *vfs.Mem
	if crash == "kill" {
		cut = mem.KillClone()
	} else {
		cut = mem.CrashClone(oldrand.New(oldrand.NewSource(int64(seed))))
	}
	close(stop)
	wg.Wait()

	again := startOn(t, cut, "millrace.durability", durability)
	end := again.listOffset("t", 0, -1).Offset
	if end < low {
		t.Fatalf("%d records of %d that were told are there", end, low)
	}
	var off int64
	for off < end {
		for _, v := range values(t, again.fetch(11, fetchRequest("t", off)).RecordBatches) {
			if v != fmt.Sprint(off) {
				t.Fatalf("offset %d holds %q", off, v)
			}
			off++
		}
	}
	if base := again.mustProduce("t", "more"); base != end {
		t.Fatalf("appended at %d, the end was %d", base, end)
	}
}

// produceUntil appends the numbers in order, several at a time, and counts what is acknowledged.
func produceUntil(p *pipe, stop chan struct{}, acked *atomic.Int64) {
	for next := 0; ; {
		select {
		case <-stop:
			return
		default:
		}
		var reqs []kmsg.Request
		for range 4 {
			reqs = append(reqs, produceRequest("t", 0, -1, recordsOf(plain(), fmt.Sprint(next))))
			next++
		}
		p.send(9, reqs...)
		for range reqs {
			if r := p.receive().(*kmsg.ProduceResponse).Topics[0].Partitions[0]; r.ErrorCode == 0 {
				acked.Store(r.BaseOffset + 1)
			}
		}
	}
}

// consumeUntil tails the topic and counts what it is shown.
func consumeUntil(p *pipe, stop chan struct{}, shown *atomic.Int64) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		p.send(11, fetchRequest("t", shown.Load(), func(r *kmsg.FetchRequest, _ *kmsg.FetchRequestTopicPartition) { r.MaxWaitMillis = 20 }))
		r := p.receive().(*kmsg.FetchResponse).Topics[0].Partitions[0]
		shown.Add(int64(len(values(p.t, r.RecordBatches))))
	}
}

// A failed sync takes its log offline with KAFKA_STORAGE_ERROR, and no other.
func TestAFailedSyncFailsItsLogOnly(t *testing.T) {
	var broken atomic.Bool
	fs := vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op) error {
		if op.Kind == vfs.OpSync && broken.Load() && strings.Contains(op.Name, "bad-0") {
			return errors.New("input/output error")
		}
		return nil
	})
	n := startOn(t, fs)
	n.mustCreate("bad", 1)
	n.mustCreate("good", 1)
	n.mustProduce("bad", "kept")
	broken.Store(true)
	for i := range 2 {
		if p := n.produce(9, produceRequest("bad", 0, -1, recordsOf(plain(), "lost"))); wire.Code(p.ErrorCode) != wire.KafkaStorageError {
			t.Fatalf("produce %d: %s", i, wire.Code(p.ErrorCode))
		}
	}
	if p := n.fetch(11, fetchRequest("bad", 0)); wire.Code(p.ErrorCode) != wire.KafkaStorageError {
		t.Fatalf("fetch: %s", wire.Code(p.ErrorCode))
	}
	if p := n.fetch(5, fetchRequest("bad", 0)); wire.Code(p.ErrorCode) != wire.NotLeaderOrFollower {
		t.Fatalf("fetch of an old client: %s", wire.Code(p.ErrorCode))
	}
	n.mustProduce("good", "a")
	broken.Store(false)
	n.conn.Close()
	n.conn = nil
	if err := n.b.Close(); err == nil {
		t.Fatal("a stop with a log offline says that all is well")
	}
	n.t = &testing.T{} // its stop has been judged
	again := startOn(t, fs)
	if end := again.listOffset("bad", 0, -1).Offset; end < 1 {
		t.Fatalf("the acknowledged record is gone: end %d", end)
	}
}

// A full disk refuses writes in a way that clients try again, keeps reading, and goes on when there is room.
func TestAFullDiskRefusesAndRecovers(t *testing.T) {
	var full atomic.Bool
	fs := vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op) error {
		if op.Kind == vfs.OpWrite && full.Load() && strings.Contains(op.Name, "t-0") {
			return errors.New("no space left on device")
		}
		return nil
	})
	n := startOn(t, fs)
	n.mustCreate("t", 1)
	n.mustProduce("t", "a")
	full.Store(true)
	if p := n.produce(9, produceRequest("t", 0, -1, recordsOf(plain(), "b"))); wire.Code(p.ErrorCode) != wire.KafkaStorageError {
		t.Fatalf("%s", wire.Code(p.ErrorCode))
	}
	if p := n.fetch(11, fetchRequest("t", 0)); p.ErrorCode != 0 || p.HighWatermark != 1 {
		t.Fatalf("fetch: %+v", p)
	}
	full.Store(false)
	if base := n.mustProduce("t", "b"); base != 1 {
		t.Fatalf("appended at %d", base)
	}
}

func TestStartRefusesByName(t *testing.T) {
	dir := t.TempDir()
	n := startNode(t, dir)
	start := func(settings ...string) error {
		pairs := config.Standalone(dir, "127.0.0.1:0")
		for i := 0; i < len(settings); i += 2 {
			pairs = append(pairs, config.Pair{Key: settings[i], Value: settings[i+1]})
		}
		cfg, err := config.Load(pairs)
		if err != nil {
			t.Fatal(err)
		}
		b, err := New(cfg, Options{})
		if err == nil {
			b.Close()
		}
		return err
	}
	if err := start(); !errors.Is(err, vfs.ErrLocked) {
		t.Errorf("a directory that is served: %v", err)
	}
	n.stop()
	for _, c := range []struct {
		settings []string
		says     string
	}{
		{[]string{"node.id", "7"}, "node id"},
		{[]string{"log.dirs", dir + "," + dir + "2"}, "log.dirs"},
		{[]string{"metadata.log.dir", dir + "2"}, "metadata.log.dir"},
		{[]string{"listeners", "PLAINTEXT://192.0.2.1:1"}, "192.0.2.1"},
	} {
		if err := start(c.settings...); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: %v", c.settings, err)
		}
	}
	if err := start(); err != nil {
		t.Errorf("after refusals: %v", err)
	}
}

// Whatever one connection sends, others are served, and nothing panics.
func TestHostileFramesLeaveOthersUndisturbed(t *testing.T) {
	n := startNode(t, t.TempDir())
	n.mustCreate("t", 1)
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 5))
	served := wire.Served()
	for i := range 600 {
		conn, err := net.Dial("tcp", n.b.Addr())
		if err != nil {
			t.Fatal(err)
		}
		p := &pipe{t: t, conn: conn}
		conn.Write(hostile(rng, p, served[rng.IntN(len(served))]))
		if i%3 == 0 {
			conn.(*net.TCPConn).CloseWrite()
		}
		conn.Close()
		if i%20 == 0 {
			n.mustProduce("t", fmt.Sprint(seed, i))
		}
	}
	if p := n.fetch(11, fetchRequest("t", 0)); p.HighWatermark < 30 {
		t.Fatalf("seed %d: %+v", seed, p)
	}
}

// hostile is a frame that is wrong in some way: noise, a body of noise, a request that was bent.
func hostile(rng *rand.Rand, p *pipe, api wire.API) []byte {
	noise := make([]byte, 4+rng.IntN(200))
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	version := api.Min + int16(rng.IntN(int(api.Max-api.Min)+2))
	req := kmsg.RequestForKey(api.Key)
	switch rng.IntN(4) {
	case 0:
		return noise
	case 1: // an honest header and a body of noise
		f := p.frame(req, version)
		f = append(f[:14:14], noise...)
		f[0], f[1], f[2], f[3] = 0, 0, byte((len(f)-4)>>8), byte(len(f)-4)
		return f
	}
	if api.Key == wire.KeyProduce {
		req = produceRequest("t", 0, int16(rng.IntN(3)-1), recordsOf(plain(), "value"))
	}
	if api.Key == wire.KeyFetch {
		req = fetchRequest("t", rng.Int64N(5))
	}
	f := p.frame(req, min(version, req.MaxVersion()))
	for range 1 + rng.IntN(3) {
		f[4+rng.IntN(len(f)-4)] ^= byte(1 << rng.IntN(8))
	}
	return f
}

// A handler that panics ends its connection; the next one is served.
func TestAPanicEndsItsConnectionOnly(t *testing.T) {
	n := startNode(t, t.TempDir())
	n.mustCreate("t", 1)
	n.b.topics.put(&servedTopic{name: "poison"}) // without partitions: a bug
	for _, bad := range []kmsg.Request{fetchRequest("poison", 0), produceRequest("poison", 0, -1, recordsOf(plain(), "v"))} {
		p := n.pipe()
		p.send(9, produceRequest("t", 0, -1, recordsOf(plain(), "v")))
		p.receive()
		p.send(9, bad)
		p.wantClosed("a handler that panicked")
	}
	n.mustProduce("t", "a")
	if r := n.fetch(11, fetchRequest("t", 0)); r.HighWatermark != 3 {
		t.Fatalf("%+v", r)
	}
}
