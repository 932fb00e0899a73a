package txn

import (
	"errors"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-project/millrace/wire"
)

func TestLifeBeforeEpochBump(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.version.Store(1)
		a := r.init("x", nil)
		r.expect("init", a, "101/0 NONE")
		r.expect("end of nothing", r.end("x", a.Identity, true, 0).code, wire.InvalidTxnState)
		r.expect("add", r.add("x", a.Identity, p0, p1), wire.None)
		r.expect("add again", r.add("x", a.Identity, p1), wire.None)
		r.expect("state", r.state("x"), "Ongoing 101/0")
		r.expect("commit", r.end("x", a.Identity, true, 0), "-1/-1 NONE")
		r.expect("state", r.state("x"), "CompleteCommit 101/0")
		r.expect("commit again", r.end("x", a.Identity, true, 0), "-1/-1 NONE")
		r.expect("abort after it", r.end("x", a.Identity, false, 0).code, wire.InvalidTxnState)
		if len(r.markers) != 1 || !r.markers[0].Commit || r.markers[0].Identity != a.Identity || !same(partitionsOf(r.markers[0]), map[Partition]struct{}{p0: {}, p1: {}}) {
			t.Errorf("markers %+v", r.markers)
		}
		r.expect("add of another", r.add("x", Identity{a.ProducerID, a.Epoch + 1}, p0), wire.ProducerFenced)
		r.expect("add of a stranger", r.add("x", Identity{7, 0}, p0), wire.InvalidProducerIDMapping)
		r.expect("add of nobody", r.add("y", a.Identity, p0), wire.InvalidProducerIDMapping)
	})
}

func TestEpochBump(t *testing.T) {
	inBubble(t, func(r *rig) {
		a := r.init("x", nil)
		r.expect("add", r.add("x", a.Identity, p0), wire.None)
		b := r.end("x", a.Identity, true, 2)
		r.expect("commit", b, "101/1 NONE")
		r.expect("state", r.state("x"), "CompleteCommit 101/1")
		r.expect("the marker's epoch", r.markers[0].Identity, Identity{101, 1})
		r.expect("commit again", r.end("x", a.Identity, true, 2), "101/1 NONE")
		r.expect("abort of what was committed", r.end("x", a.Identity, false, 2).code, wire.InvalidTxnState)
		r.expect("commit of nothing", r.end("x", b.Identity, true, 2).code, wire.InvalidTxnState)
		c := r.end("x", b.Identity, false, 2)
		r.expect("abort of nothing", c, "101/2 NONE")
		r.expect("state", r.state("x"), "CompleteAbort 101/2")
		r.expect("abort again", r.end("x", b.Identity, false, 2), "101/2 NONE")
		r.expect("commit of what was aborted", r.end("x", b.Identity, true, 2).code, wire.InvalidTxnState)
		r.expect("an old epoch", r.end("x", a.Identity, true, 2).code, wire.ProducerFenced)
		if len(r.markers) != 1 {
			t.Errorf("markers %+v", r.markers)
		}
	})
}

// A producer that does not know yet that it is fenced ends its transaction, after the one that fences it, older than
// version 2, has ended its own in the same way under the next epoch. Kafka takes this for the end of one transaction tried
// again and gives the second producer's identity to the first.
func TestFencedIsNotTakenForTriedAgain(t *testing.T) {
	for _, commit := range []bool{true, false} {
		inBubble(t, func(r *rig) {
			a := r.init("x", nil)
			b := r.init("x", nil)
			r.expect("the second", b, "101/1 NONE")
			r.version.Store(1)
			r.expect("its add", r.add("x", b.Identity, p0), wire.None)
			r.expect("its end", r.end("x", b.Identity, commit, 0), "-1/-1 NONE")
			r.version.Store(2)
			r.state("x")
			r.expect("the end of the first", r.end("x", a.Identity, commit, 2), "-1/-1 PRODUCER_FENCED")
			r.restart(0)
			r.expect("and after a restart", r.end("x", a.Identity, commit, 2), "-1/-1 PRODUCER_FENCED")
		})
	}
}

func TestWhilePrepared(t *testing.T) {
	inBubble(t, func(r *rig) {
		a := r.init("x", nil)
		r.add("x", a.Identity, p0)
		r.hold.Store(true)
		b := r.end("x", a.Identity, true, 2)
		r.expect("commit", b.code, wire.None)
		r.expect("state", r.state("x"), "PrepareCommit 101/1")
		r.expect("init", r.init("x", nil).code, wire.ConcurrentTransactions)
		r.expect("add, and no end in sight", r.add("x", b.Identity, p0), wire.ConcurrentTransactions)
		r.expect("commit again", r.end("x", a.Identity, true, 2).code, wire.ConcurrentTransactions)
		r.expect("abort", r.end("x", a.Identity, false, 2).code, wire.ConcurrentTransactions)
		r.expect("the end of the next one", r.end("x", b.Identity, false, 2).code, wire.ConcurrentTransactions)
		r.expect("another's add", r.add("x", Identity{7, 7}, p0), wire.ConcurrentTransactions)
		r.hold.Store(false)
		r.restart(0)
		r.expect("state after a restart", r.state("x"), "CompleteCommit 101/1")
		r.expect("marker's coordinator epoch", r.markers[0].CoordinatorEpoch, 2)
		r.expect("add after it", r.add("x", b.Identity, p0), wire.None)
	})
}

func TestFencing(t *testing.T) {
	for _, version := range []int16{1, 2} {
		inBubble(t, func(r *rig) {
			r.version.Store(int32(version))
			a := r.init("x", nil)
			r.add("x", a.Identity, p0)
			r.expect("init over an open transaction", r.init("x", nil), "-1/-1 CONCURRENT_TRANSACTIONS")
			r.expect("state", r.state("x"), "CompleteAbort 101/1")
			b := r.init("x", nil)
			r.expect("init", b, "101/2 NONE")
			r.expect("the fenced one adds", r.add("x", a.Identity, p0), wire.ProducerFenced)
			r.expect("the fenced one ends", r.end("x", a.Identity, true, version).code, wire.ProducerFenced)
			r.expect("the fenced one begins", r.init("x", &a.Identity).code, wire.ProducerFenced)
			if len(r.markers) != 1 || r.markers[0].Commit || r.markers[0].Identity != (Identity{101, 1}) {
				t.Errorf("markers %+v", r.markers)
			}
			c := r.init("x", &b.Identity)
			r.expect("the same producer again", c, "101/3 NONE")
			r.expect("its request tried again", r.init("x", &b.Identity), "101/3 NONE")
			r.expect("a stranger", r.init("x", &Identity{7, 3}).code, wire.ProducerFenced)
		})
	}
}

func TestEpochsUsedUp(t *testing.T) {
	const last = math.MaxInt16 - 1
	inBubble(t, func(r *rig) {
		x := first("x", 50)
		x.epoch, x.timeoutMs = last, 60_000
		r.put(x)
		r.expect("init", r.init("x", nil), "101/0 NONE")

		y := first("y", 60)
		y.epoch, y.timeoutMs = last, 60_000
		r.put(y)
		r.expect("init of the same", r.init("y", &Identity{60, last}), "102/0 NONE")
		r.expect("tried again", r.init("y", &Identity{60, last}), "102/0 NONE")

		z := first("z", 70)
		z.epoch, z.timeoutMs = last, 60_000
		r.put(z)
		at := Identity{70, last}
		r.expect("add", r.add("z", at, p0), wire.None)
		r.hold.Store(true)
		r.expect("commit", r.end("z", at, true, 2), "103/0 NONE")
		r.expect("state", r.state("z"), "PrepareCommit 70/32767")
		r.hold.Store(false)
		r.restart(0)
		r.expect("state after a restart", r.state("z"), "CompleteCommit 103/0")
		r.expect("commit again", r.end("z", at, true, 2), "103/0 NONE")
		r.expect("the marker's identity", r.markers[0].Identity, Identity{70, math.MaxInt16})
		r.expect("fence at the last epoch", func() any {
			r.put(func() *transaction { w := first("w", 80); w.epoch, w.timeoutMs = last, 60_000; return w }())
			r.add("w", Identity{80, last}, p0)
			r.init("w", nil)
			return r.state("w")
		}(), "CompleteAbort 80/32767")
		r.expect("who is fenced by it", r.end("w", Identity{80, last}, false, 2), "-1/-1 PRODUCER_FENCED")
		for _, commit := range []bool{true, false} {
			for version := range int16(3) {
				r.expect("end by nobody", r.end("w", Identity{80, math.MaxInt16}, commit, version), "-1/-1 PRODUCER_FENCED")
			}
		}
		r.expect("add by nobody", r.add("w", Identity{80, math.MaxInt16}, p0), wire.ProducerFenced)
		r.expect("init after it", r.init("w", nil), "104/0 NONE")
	})
}

// A transaction that is open under the last epoch, as Kafka may leave one, is aborted under it.
func TestOpenAtTheLastEpoch(t *testing.T) {
	for by, end := range map[string]func(r *rig){
		"InitProducerId": func(r *rig) { r.expect("init", r.init("x", nil).code, wire.ConcurrentTransactions) },
		"the timeout":    func(*rig) { time.Sleep(61 * time.Second) },
	} {
		inBubble(t, func(r *rig) {
			x := first("x", 50)
			x.epoch, x.timeoutMs = math.MaxInt16, 60_000
			r.put(x.with([]Partition{p0}, 2, time.Now().UnixMilli()))
			r.expect("commit, before "+by, r.end("x", x.identity(), true, 2), "-1/-1 PRODUCER_FENCED")
			end(r)
			r.expect("state, by "+by, r.state("x"), "CompleteAbort 50/32767")
			if r.written() != 1 || r.markers[0].Commit || r.markers[0].Identity != x.identity() || r.markers[0].Version >= epochBump {
				t.Errorf("markers, by %s: %+v", by, r.markers)
			}
			r.expect("init, by "+by, r.init("x", nil), "101/0 NONE")
		})
	}
}

func TestTimeoutAndExpiry(t *testing.T) {
	inBubble(t, func(r *rig) {
		a := r.init("x", nil)
		r.add("x", a.Identity, p0)
		time.Sleep(59 * time.Second)
		r.expect("before the timeout", r.state("x"), "Ongoing 101/0")
		r.restart(0)
		time.Sleep(2 * time.Second)
		r.expect("after the timeout", r.state("x"), "CompleteAbort 101/1")
		r.expect("the producer goes on", r.end("x", a.Identity, true, 2).code, wire.InvalidTxnState)
		time.Sleep(7*24*time.Hour - time.Hour)
		r.expect("before its expiry", r.state("x"), "CompleteAbort 101/1")
		time.Sleep(3 * time.Hour)
		r.expect("after its expiry", r.state("x"), "none")
		r.restart(0)
		r.expect("after a restart", r.state("x"), "none")
		r.expect("timeouts", []wire.Code{r.cfg.checkTimeout(0), r.cfg.checkTimeout(900_001), r.cfg.checkTimeout(900_000)},
			[]wire.Code{wire.InvalidTransactionTimeout, wire.InvalidTransactionTimeout, wire.None})
	})
}

func TestFailedAppends(t *testing.T) {
	inBubble(t, func(r *rig) {
		a := r.init("x", nil)
		r.failAppend(errNoSpace)
		r.expect("add", r.add("x", a.Identity, p0), wire.UnknownServerError)
		r.expect("state", r.state("x"), "Empty 101/0")
		r.expect("add", r.add("x", a.Identity, p0), wire.None)
		r.hold.Store(true)
		r.expect("commit", r.end("x", a.Identity, true, 2).code, wire.None)
		synctest.Wait()
		r.hold.Store(false)
		r.restart(0)
		r.failAppend(errNoSpace) // of the completion, which is tried again
		time.Sleep(2 * time.Second)
		r.expect("state", r.state("x"), "CompleteCommit 101/1")
	})
}

// A decision that takes longer to be committed than its answer waits is one all the same: the markers follow, and not before
// it is committed.
func TestSlowDecisionIsCarriedOut(t *testing.T) {
	for by, decide := range map[string]func(r *rig, a answered) any{
		"EndTxn":         func(r *rig, a answered) any { return r.end("x", a.Identity, false, 2).code },
		"InitProducerId": func(r *rig, _ answered) any { return r.init("x", nil).code },
		"the timeout":    func(*rig, answered) any { time.Sleep(91 * time.Second); return wire.CoordinatorNotAvailable },
	} {
		inBubble(t, func(r *rig) {
			a := r.init("x", nil)
			r.expect("add", r.add("x", a.Identity, p0), wire.None)
			r.slow(91 * time.Second) // as long as three answers wait
			r.expect(by, decide(r, a), wire.CoordinatorNotAvailable)
			r.slow(time.Millisecond)
			time.Sleep(59 * time.Second)
			r.expect("markers before the decision is committed, by "+by, r.written(), 0)
			time.Sleep(5 * time.Second)
			r.expect("state, by "+by, r.state("x"), "CompleteAbort 101/1")
			r.expect("markers, by "+by, r.written(), 1)
			r.expect("init, by "+by, r.init("x", nil).code, wire.None)
		})
	}
}

// That the markers are written is not lost while as many requests wait as may.
func TestMarkersAreWrittenWhileTheQueueIsFull(t *testing.T) {
	inBubble(t, func(r *rig) {
		a, b := r.init("x", nil), r.init("y", nil)
		r.expect("add", r.add("x", a.Identity, p0), wire.None)
		r.hold.Store(true)
		r.expect("commit", r.end("x", a.Identity, true, 2).code, wire.None)
		synctest.Wait()
		r.slow(5 * time.Second)
		full := 0
		for range 10_100 {
			r.c.AddPartitions("y", b.Identity, []Partition{p1}, 2, func(c wire.Code) {
				if c == wire.CoordinatorNotAvailable {
					full++
				}
			})
		}
		r.held(nil, nil)
		synctest.Wait()
		r.expect("refused", full, 100)
		time.Sleep(11 * time.Second)
		r.slow(time.Millisecond)
		r.expect("state", r.state("x"), "CompleteCommit 101/1")
	})
}

// The first request of the next transaction waits for the end of the last one, in the same append as its record.
func TestNextTransactionWaits(t *testing.T) {
	inBubble(t, func(r *rig) {
		a := r.init("x", nil)
		r.add("x", a.Identity, p0)
		b := r.end("x", a.Identity, true, 2)
		start := time.Now()
		r.expect("add while the last transaction ends", r.add("x", b.Identity, p1), wire.None)
		if d := time.Since(start); d > 10*time.Millisecond {
			t.Errorf("it took %v", d)
		}
		r.expect("state", r.state("x"), "Ongoing 101/1")
		c := r.end("x", b.Identity, true, 2)
		r.hold.Store(true)
		r.add("x", c.Identity, p0)
		d := r.end("x", c.Identity, false, 2)
		got := make(chan wire.Code, 1)
		r.c.AddPartitions("x", d.Identity, []Partition{p0}, 2, func(code wire.Code) { got <- code })
		synctest.Wait()
		r.c.Resign(0)
		r.expect("who waits when the coordinator goes", <-got, wire.NotCoordinator)
		r.hold.Store(false)
		r.restart(0)
		r.expect("state", r.state("x"), "CompleteAbort 101/3")
	})
}

// lateEnd is a transaction that has ended but for its markers, its producer's next identity, and a request of the next one,
// which waits.
func (r *rig) lateEnd() (next Identity, got chan wire.Code) {
	a := r.init("x", nil)
	r.add("x", a.Identity, p0)
	r.hold.Store(true)
	next = r.end("x", a.Identity, true, 2).Identity
	synctest.Wait()
	got = make(chan wire.Code, 1)
	r.c.AddPartitions("x", next, []Partition{p1}, 2, func(c wire.Code) { got <- c })
	synctest.Wait()
	return next, got
}

// Who waits for a transaction's end waits no longer than a second, also while the end cannot be written.
func TestWaitEndsThoughTheEndCannotBeWritten(t *testing.T) {
	inBubble(t, func(r *rig) {
		start := time.Now()
		next, got := r.lateEnd()
		r.fill(errNoSpace)
		r.held(nil, nil)
		select {
		case code := <-got:
			r.expect("who waits", code, wire.ConcurrentTransactions)
		case <-time.After(10 * time.Second):
			t.Error("who waits is not answered")
		}
		if d := time.Since(start); d > 1100*time.Millisecond {
			t.Errorf("it took %v", d)
		}
		r.fill(nil)
		time.Sleep(time.Second)
		r.expect("state", r.state("x"), "CompleteCommit 101/1")
		r.expect("add", r.add("x", next, p1), wire.None)
	})
}

// Who waits for a transaction's end is told when the log has failed.
func TestFailedLogAnswersWhoWaits(t *testing.T) {
	inBubble(t, func(r *rig) {
		next, got := r.lateEnd()
		start := time.Now()
		r.log.mu.Lock()
		r.log.err = errors.New("a failed sync")
		r.log.mu.Unlock()
		r.log.notify()
		select {
		case code := <-got:
			r.expect("who waits", code, wire.NotCoordinator)
		case <-time.After(10 * time.Second):
			t.Error("who waits is not answered")
		}
		r.expect("who comes later", r.add("x", next, p1), wire.NotCoordinator)
		if d := time.Since(start); d != 0 {
			t.Errorf("it took %v", d)
		}
	})
}

// A clock that is set back makes a transaction live for as much longer, since its age is the time since it began; it is not
// forgotten. One that is set ahead ends it when its timeout is over all the same.
func TestTimeoutWhenTheClockIsSet(t *testing.T) {
	for by, late := range map[time.Duration]time.Duration{-10 * time.Minute: 10 * time.Minute, 10 * time.Minute: 0} {
		inBubble(t, func(r *rig) {
			a := r.init("x", nil)
			r.add("x", a.Identity, p0)
			time.Sleep(30 * time.Second)
			r.setBy.Store(by.Milliseconds())
			r.init("y", nil) // somebody comes by
			time.Sleep(29*time.Second + late)
			r.expect("before the timeout", r.state("x"), "Ongoing 101/0")
			time.Sleep(2 * time.Second)
			r.expect("after the timeout", r.state("x"), "CompleteAbort 101/1")
		})
	}
}

// A transaction that has not ended is not forgotten, however long its markers cannot be written: nobody else would write them.
func TestWhatIsOpenDoesNotExpire(t *testing.T) {
	inBubble(t, func(r *rig) {
		a := r.init("x", nil)
		r.add("x", a.Identity, p0)
		r.hold.Store(true)
		r.expect("commit", r.end("x", a.Identity, true, 2).code, wire.None)
		time.Sleep(8 * 24 * time.Hour)
		r.expect("after a week", r.state("x"), "PrepareCommit 101/1")
		r.hold.Store(false)
		r.restart(0)
		time.Sleep(time.Second)
		synctest.Wait()
		r.expect("after a restart", r.state("x"), "CompleteCommit 101/1")
		if len(r.markers) != 1 {
			t.Errorf("%d markers were written", len(r.markers))
		}
	})
}

// A partition that knows a newer epoch than its producer's coordinator takes no marker of the transaction, but an abort
// of what it may have open. The id comes to rest, and its next producer has another producer id.
func TestPartitionKnowsANewerEpoch(t *testing.T) {
	for when, pass := range map[string]func(r *rig){
		"at once": func(*rig) {},
		"with no room for it at first": func(r *rig) {
			r.fill(errNoSpace)
			time.Sleep(2 * time.Second)
			r.fill(nil)
			time.Sleep(time.Second)
		},
		"when that is committed late": func(r *rig) {
			r.slow(91 * time.Second)
			time.Sleep(50 * time.Millisecond)
			r.slow(time.Millisecond)
			time.Sleep(92 * time.Second)
		},
		"over restarts": func(r *rig) {
			r.restart(0)
			time.Sleep(1500 * time.Microsecond)
			r.restart(1)
		},
	} {
		for _, commit := range []bool{true, false} {
			inBubble(t, func(r *rig) {
				r.newest = map[Partition]int16{p0: 50}
				a := r.init("x", nil)
				r.expect("add", r.add("x", a.Identity, p0, p1), wire.None)
				b := r.end("x", a.Identity, commit, 2)
				r.expect("end", b, "101/1 NONE")
				pass(r)
				r.expect("state, "+when, r.state("x"), "CompleteAbort 101/32767")
				got := map[Partition][]string{}
				for _, m := range r.markers {
					for _, p := range m.Partitions {
						got[p] = append(got[p], fmt.Sprint(m.Commit, m.Epoch, m.Version < epochBump))
					}
				}
				for _, s := range got[p1] {
					r.expect("marker where all is well, "+when, s, fmt.Sprint(commit, 1, false))
				}
				for _, s := range got[p0] {
					r.expect("marker at the newer epoch, "+when, s, fmt.Sprint(false, math.MaxInt16, true))
				}
				if len(got[p0]) == 0 || len(got[p1]) == 0 {
					t.Errorf("markers, %s: %v", when, got)
				}
				r.expect("the producer goes on, "+when, r.add("x", b.Identity, p0), wire.ProducerFenced)
				r.expect("init, "+when, r.init("x", nil), "102/0 NONE")
			})
		}
	}
}
