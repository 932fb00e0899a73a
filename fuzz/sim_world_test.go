package fuzz

import (
	"context"
	oldrand "math/rand"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/millrace-project/millrace/broker"
	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/netio"
	"github.com/millrace-project/millrace/vfs"
)

// simAddr is where the broker of a simulation listens.
const simAddr = "127.0.0.1:9092"

// simCrash is how a broker ends.
type simCrash int

const (
	simKill  simCrash = iota // the process is killed: what was written stays, synced or not
	simPower                 // the power is cut: any part of what was not synced is gone
	simStop                  // a clean stop
)

// simWorld is a whole broker in one process with all that is around it: a network, a disk and a
// clock of its own. It lives in a synctest bubble.
type simWorld struct {
	t    *testing.T
	rng  *rand.Rand // of the goroutine that directs
	net  *netio.Memory
	plan simPlan

	disk   atomic.Pointer[simDisk] // the running broker's
	broker *broker.Broker

	began  time.Time
	clock  atomic.Int64 // of the history: an event, a tick
	values atomic.Int64 // the last value that was given to a record
	over   atomic.Bool  // clients begin nothing more

	mu   sync.Mutex
	ops  []simOp
	txns []*simTxn // that are over
	// producers are who was given a producer id.
	producers map[int64]int

	kills, cuts, stops, failedSyncs int
	cutAt                           []time.Duration // since the beginning
}

// simPlan is what a seed decides for all of a simulation.
type simPlan struct {
	durability string
	crashes    []simCrash // one for each round
	failSyncs  bool
	settings   []config.Pair
	calm       time.Duration // in which nothing ends yet
	length     time.Duration // after which nothing ends any more; 0: after all crashes
}

// tick is a moment of the history, later than all before.
func (w *simWorld) tick() int64 { return w.clock.Add(1) }

// gave notes that a client was given a producer id. Nobody else may get it.
func (w *simWorld) gave(pid int64, client int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.producers == nil {
		w.producers = map[int64]int{}
	}
	if other, given := w.producers[pid]; given && other != client {
		w.t.Errorf("client %d was given producer id %d, which client %d has", client, pid, other)
	}
	w.producers[pid] = client
}

// simDisk is the disk of one run of the broker: what it does, and the moment at which all ends.
type simDisk struct {
	mem  *vfs.Mem
	dead atomic.Bool

	mu      sync.Mutex
	rng     *rand.Rand
	left    int             // changes until the crash; 0: it comes from elsewhere
	tell    atomic.Int64    // answers until the crash; 0: it comes from elsewhere
	fail    int             // one sync of a log in so many fails; 0: none
	failed  int             // how many have
	crash   func() *vfs.Mem // ends the run: what the next one finds
	next    *vfs.Mem        // what crash returned
	crashed chan struct{}   // closed with it
}

// hook is called before each operation on the disk.
func (d *simDisk) hook(op vfs.Op) error {
	if !op.Kind.Changes() || d.dead.Load() {
		return nil
	}
	d.mu.Lock()
	if d.left > 0 {
		if d.left--; d.left == 0 {
			d.endLocked()
		}
	}
	slow, fails := false, false
	if op.Kind == vfs.OpSync && !d.dead.Load() {
		slow = d.rng.IntN(16) == 0
		fails = d.fail > 0 && strings.HasSuffix(op.Name, ".log") && !strings.Contains(op.Name, "__cluster") && d.rng.IntN(d.fail) == 0
		if fails {
			d.failed++
			d.mem.FailSync(op.Name)
		}
	}
	d.mu.Unlock()
	if slow {
		// A millisecond of real time: who waits for the lock under which this sync runs keeps the clock
		// of the bubble from going on.
		_, _ = unix.Poll(nil, 1) // a signal makes it shorter
	}
	return nil
}

// told is called when a client was told that something has happened: the moment at which what is not
// on disk yet, and should be, is lost.
func (d *simDisk) told() {
	if d.tell.Load() > 0 && d.tell.Add(-1) == 0 {
		d.end()
	}
}

// end is the crash, unless it has been.
func (d *simDisk) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.dead.Load() {
		d.endLocked()
	}
}

func (d *simDisk) endLocked() {
	d.dead.Store(true)
	d.next = d.crash()
	close(d.crashed)
}

// start runs a broker on what the last one left. It ends with the crash after so many changes of
// the disk, which may be before it serves anybody, or after so many answers, unless these are 0.
func (w *simWorld) start(mem *vfs.Mem, crash simCrash, changes, answers int) {
	w.t.Helper()
	d := &simDisk{mem: mem, rng: rand.New(rand.NewPCG(w.rng.Uint64(), 3)), left: changes, crashed: make(chan struct{})}
	d.tell.Store(int64(answers))
	if w.plan.failSyncs && crash != simStop && !w.calm() {
		d.fail = 10 << w.rng.IntN(4)
	}
	seed := w.rng.Int64()
	d.crash = func() *vfs.Mem {
		// First nobody is told anything any more, then it is decided what is left of what was not told.
		w.net.Cut()
		if crash == simPower {
			w.cutAt = append(w.cutAt, time.Since(w.began))
			return mem.CrashClone(oldrand.New(oldrand.NewSource(seed)))
		}
		return mem.KillClone()
	}
	w.disk.Store(d)
	pairs := append(config.Standalone("data", simAddr), w.plan.settings...)
	cfg, err := config.Load(append(pairs, config.Pair{Key: "millrace.durability", Value: w.plan.durability}))
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := broker.New(cfg, broker.Options{FS: vfs.NewFaulty(mem, d.hook), Network: w.net})
	if err != nil {
		if d.failed == 0 && !d.dead.Load() {
			w.t.Fatalf("start: %v", err)
		}
		d.end()
		return
	}
	w.broker = b
	if !d.dead.Load() {
		b.Start()
	}
}

// stop ends the run as it was to end, and returns what is left.
func (w *simWorld) stop(crash simCrash) *vfs.Mem {
	w.t.Helper()
	d := w.disk.Load()
	if crash == simStop && !d.dead.Load() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := w.broker.Shutdown(ctx); err != nil && d.failed == 0 && ctx.Err() == nil {
			w.t.Errorf("a clean stop: %v", err)
		}
		w.broker = nil
		w.net.Cut()
		w.stops++
		return d.mem
	}
	d.end()
	if w.broker != nil {
		_ = w.broker.Close() // of a process that is gone already: it works on what nobody will see
		w.broker = nil
	}
	if crash == simPower {
		w.cuts++
	} else {
		w.kills++
	}
	w.failedSyncs += d.failed
	return d.next
}

// play lets clients work while brokers come and go, and returns what is left at the end, where
// all clients have stopped. The last broker, on a disk without faults, runs.
func (w *simWorld) play(clients ...func()) {
	w.t.Helper()
	w.net, w.began = netio.NewMemory(), time.Now()
	mem := vfs.NewMem()
	mem.NowMs = func() int64 { return time.Now().UnixMilli() }
	var working sync.WaitGroup
	for _, c := range clients {
		working.Go(c)
	}
	for _, crash := range w.plan.crashes {
		if w.enough() {
			break
		}
		changes, answers, most := 0, 0, w.someTime()
		switch how := w.rng.IntN(5); {
		case w.calm():
			most = w.plan.calm - time.Since(w.began)
		case how < 2:
			changes = 1 + w.rng.IntN(1<<(2+w.rng.IntN(8)))
		case how < 4:
			answers = 1 + w.rng.IntN(1<<w.rng.IntN(8))
		}
		w.start(mem, crash, changes, answers)
		select {
		case <-w.disk.Load().crashed:
		case <-time.After(most):
		}
		mem = w.stop(crash)
	}
	w.plan.failSyncs = false
	w.start(mem, simStop, 0, 0)
	<-time.After(time.Second)
	w.over.Store(true)
	working.Wait()
}

func (w *simWorld) calm() bool { return time.Since(w.began) < w.plan.calm }

func (w *simWorld) enough() bool {
	return w.plan.length > 0 && time.Since(w.began) >= w.plan.length
}

// someTime is how long a broker runs at most: mostly moments, sometimes until files have rolled and
// checkpoints were written.
func (w *simWorld) someTime() time.Duration {
	return time.Duration(w.rng.ExpFloat64() * float64(time.Second) * []float64{0.2, 2, 40}[w.rng.IntN(3)])
}

// pause is a client's: nothing, a moment, or long.
func pause(rng *rand.Rand) {
	switch rng.IntN(12) {
	case 0, 1, 2, 3, 4, 5:
	case 6:
		<-time.After(time.Duration(rng.Int64N(int64(2 * time.Second))))
	default:
		<-time.After(time.Duration(rng.Int64N(int64(20 * time.Millisecond))))
	}
}
