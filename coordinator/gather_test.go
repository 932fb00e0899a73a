package coordinator

import (
	"errors"
	"fmt"
	"math/rand"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// bench is a runtime over a log that commits when told, and what it has answered.
type bench struct {
	log    *fakeLog
	m      *sumMachine
	timers *Timers[int]
	rt     *Runtime[int]
	mu     sync.Mutex
	got    []string
}

func newBench(o Options) *bench {
	b := &bench{log: &fakeLog{}, m: &sumMachine{}, timers: NewTimers[int](steadyClock())}
	b.rt = NewTimed[int](b.log, b.m, b.timers, 0, o)
	return b
}

func (b *bench) op(name, key string, shared bool, vals ...int) Op[int] {
	return Op[int]{
		Key: key, Shared: shared,
		Run: func() ([][]int, error) {
			if len(vals) == 0 {
				return nil, nil
			}
			return [][]int{vals}, nil
		},
		Done: func(err error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.got = append(b.got, fmt.Sprint(name, " ", err))
		},
	}
}

// parts is an operation whose records need not be written together.
func (b *bench) parts(name string, vals ...int) Op[int] {
	op := b.op(name, name, false)
	op.Run = func() ([][]int, error) { return slices.Collect(slices.Chunk(vals, 1)), nil }
	return op
}

// together submits operations that the loop takes up at once.
func (b *bench) together(ops ...Op[int]) {
	b.rt.Submit(Op[int]{Key: "-", Run: func() ([][]int, error) {
		for _, op := range ops {
			b.rt.Submit(op)
		}
		return nil, nil
	}, Done: func(error) {}})
	synctest.Wait()
}

func (b *bench) expect(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Equal(b.got, want) {
		t.Errorf("answers %q, want %q", b.got, want)
	}
	b.got = nil
}

func TestOperationsOfOtherKeysAreWrittenByOneAppend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(Options{})
		b.together(
			b.op("a", "A", false, 1), b.op("b", "B", false, 2, 3), b.op("read", "C", false), b.op("s", "S", true, 4), b.op("s2", "S", true, 5),
			b.op("a2", "A", false, 6), b.op("c", "C", false, 7),
			b.op("read a2", "A", false),
			b.op("shared after exclusive", "C", true, 8), b.op("all", "", false, 9), b.op("d", "D", false, 10))
		want := [][][]int{{{1}, {2, 3}, {4}, {5}}, {{6}, {7}}, {{8}}, {{9}}, {{10}}}
		if !reflect.DeepEqual(b.log.appends, want) {
			t.Errorf("appends %v, want %v", b.log.appends, want)
		}
		b.expect(t)
		b.log.commit(3)
		b.expect(t, "a <nil>", "b <nil>", "read <nil>")
		b.log.commit(10)
		b.expect(t, "s <nil>", "s2 <nil>", "a2 <nil>", "c <nil>", "read a2 <nil>", "shared after exclusive <nil>", "all <nil>", "d <nil>")
		b.rt.Close()
	})
}

func TestOneThatCannotBeWrittenFailsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(Options{})
		b.log.poison = 13
		b.together(b.op("a", "A", false, 1), b.op("bad", "B", false, 2, 13), b.op("read", "R", false), b.op("c", "C", false, 3))
		b.expect(t, "bad poison")
		if want := []int{1, 3}; !slices.Equal(b.m.applied, want) || !slices.Equal(b.log.recs, want) {
			t.Errorf("applied %v, written %v, want %v", b.m.applied, b.log.recs, want)
		}
		b.log.commit(1)
		b.expect(t, "a <nil>", "read <nil>")
		b.log.commit(2)
		b.expect(t, "c <nil>")

		b.together(b.op("alone", "B", false, 13))
		b.expect(t, "alone poison")
		b.rt.Close()
	})
}

// What is too much for one append is written by several, batch by batch; what was written before one fails is kept.
func TestTooMuchForOneAppend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(Options{})
		b.log.most = 3
		b.together(b.op("a", "A", false, 1), b.op("whole", "B", false, 2, 2, 2, 2), b.parts("split", 3, 4, 5, 6, 7, 8, 9))
		b.expect(t, "whole coordinator: too much for one append: 4 records")
		if want := [][][]int{{{1}}, {{3}, {4}, {5}}, {{6}, {7}}, {{8}, {9}}}; !reflect.DeepEqual(b.log.appends, want) {
			t.Errorf("appends %v, want %v", b.log.appends, want)
		}
		b.log.commit(7)
		b.expect(t, "a <nil>")
		b.log.commit(8)
		b.expect(t, "split <nil>")

		b.log.poison = 13
		b.together(b.parts("bad", 10, 11, 12, 13, 14))
		b.expect(t, "bad poison")
		if want := []int{1, 3, 4, 5, 6, 7, 8, 9, 10, 11}; !slices.Equal(b.m.applied, want) || !slices.Equal(b.log.recs, want) {
			t.Errorf("applied %v, written %v, want %v", b.m.applied, b.log.recs, want)
		}
		b.rt.Close()
	})
}

func TestALogThatIsOfflineIsNotTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(Options{})
		offline := errors.New("offline")
		b.log.refuse = errors.New("refused")
		b.together(
			b.op("a", "A", false, 1),
			Op[int]{Key: "X", Run: func() ([][]int, error) { b.log.mu.Lock(); b.log.err = offline; b.log.mu.Unlock(); return nil, nil }, Done: func(error) {}},
			b.op("b", "B", false, 2))
		b.expect(t, "b offline", "a offline")
		b.timers.Set(TimerKey{"A", "t"}, 0, func() Op[int] { t.Error("a timer ran"); return b.op("", "", false) })
		b.log.notify()
		time.Sleep(time.Hour)
		b.rt.Close()
	})
}

func TestAnswersWaitNoLongerThanTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(Options{TimeoutMs: 5000})
		b.rt.Submit(b.op("a", "A", false, 1))
		time.Sleep(2 * time.Second)
		b.rt.Submit(b.op("b", "B", false, 2))
		time.Sleep(2999 * time.Millisecond)
		b.expect(t)
		time.Sleep(time.Millisecond)
		b.expect(t, "a coordinator: not committed in time")
		b.log.commit(2)
		b.expect(t, "b <nil>")
		if b.m.sum != 3 {
			t.Error("what was written was not kept")
		}
		b.rt.Close()
	})
}

func TestTimers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(Options{})
		key := func(name string) TimerKey { return TimerKey{"G", name} }
		set := func(name string, afterMs int64, vals ...int) {
			b.timers.Set(key(name), afterMs, func() Op[int] { return b.op(name, "G", false, vals...) })
		}
		in := func(fn func()) { // on the loop
			b.rt.Submit(Op[int]{Key: "G", Run: func() ([][]int, error) { fn(); return nil, nil }, Done: func(error) {}})
			synctest.Wait()
		}
		in(func() { set("late", 3000); set("early", 1000, 1); set("gone", 2000) })
		time.Sleep(999 * time.Millisecond)
		b.expect(t)
		time.Sleep(time.Millisecond)
		synctest.Wait()
		b.log.commit(1)
		b.expect(t, "early <nil>")
		in(func() { b.timers.Cancel(key("gone")); set("late", 60_000) })
		time.Sleep(59_999 * time.Millisecond)
		b.expect(t)
		time.Sleep(time.Millisecond)
		b.expect(t, "late <nil>")

		// One whose records are refused is tried again, unless it was set anew.
		in(func() { set("bad", 10, 13); b.log.poison = 13 })
		time.Sleep(10 * time.Millisecond)
		b.expect(t, "bad poison")
		time.Sleep((retryMs - 1) * time.Millisecond)
		b.expect(t)
		time.Sleep(time.Millisecond)
		b.expect(t, "bad poison")
		in(func() { set("bad", 60_000) })
		time.Sleep(retryMs * 2 * time.Millisecond)
		b.expect(t)
		time.Sleep(time.Minute)
		b.expect(t, "bad <nil>")

		// What was submitted before a deadline is seen runs before it.
		b.rt.Submit(Op[int]{Key: "G", Run: func() ([][]int, error) { set("session", 0); time.Sleep(time.Second); return nil, nil }, Done: func(error) {}})
		b.rt.Submit(Op[int]{Key: "G", Run: func() ([][]int, error) { b.timers.Cancel(key("session")); return nil, nil }, Done: func(error) {}})
		time.Sleep(time.Minute)
		b.expect(t)
		b.rt.Close()
	})
}

func TestNothingRunsWhileThereIsNothingToDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const few = 5 // goroutines that are about to end, or are the test's
		before := runtime.NumGoroutine()
		var rts []*bench
		for range 100 {
			b := newBench(Options{TimeoutMs: 5000})
			rts = append(rts, b)
			b.rt.Submit(b.op("a", "A", false, 1))
		}
		synctest.Wait()
		if n := runtime.NumGoroutine() - before; n > few {
			t.Errorf("%d goroutines wait for commits", n)
		}
		for _, b := range rts {
			b.log.commit(1)
			b.expect(t, "a <nil>")
			if b.rt.mu.running || b.rt.waiting != nil || b.rt.alarm.Stop() {
				t.Error("an idle machine has a goroutine, an alarm, or memory of answers")
			}
			b.rt.Close()
			b.rt.kick() // a late notice
		}
		synctest.Wait()
		if n := runtime.NumGoroutine() - before; n > few {
			t.Errorf("%d goroutines after Close", n)
		}
	})
}

// Random operations of several keys, refusals, commits and restarts of the alarm: each key's operations are decided on
// the sum of its earlier records, and the log holds what the machine has applied.
func TestRandomKeysSeeTheirOwnRecords(t *testing.T) {
	for seed := range int64(60) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewSource(seed))
			b := newBench(Options{})
			b.log.poison = 13
			sums, answered, submitted := map[string]int{}, 0, 0
			for range 300 {
				switch rng.Intn(4) {
				case 0:
					synctest.Wait()
					b.log.commit(b.log.Committed() + rng.Int63n(1+int64(len(b.log.recs))-b.log.Committed()))
				default:
					key, v := string(rune('A'+rng.Intn(4))), 1+rng.Intn(14)
					n := int(key[0])*1000 + v // the key is in the record
					if v == 13 {
						n = 13
					}
					submitted++
					b.rt.Submit(Op[int]{
						Key: key,
						Run: func() ([][]int, error) {
							sum := 0
							for _, a := range b.m.applied {
								if a/1000 == int(key[0]) {
									sum += a % 1000
								}
							}
							if sum != sums[key] {
								t.Errorf("seed %d: %s decides on %d, written is %d", seed, key, sum, sums[key])
							}
							if v != 13 {
								sums[key] += v
							}
							return [][]int{{n}}, nil
						},
						Done: func(err error) {
							answered++
							if (err == nil) != (v != 13) {
								t.Errorf("seed %d: %d is answered %v", seed, v, err)
							}
						},
					})
				}
			}
			synctest.Wait()
			b.log.commit(int64(len(b.log.recs)))
			b.rt.Close()
			if answered != submitted || !slices.Equal(b.m.applied, b.log.recs) {
				t.Errorf("seed %d: %d of %d answered, %d of %d applied", seed, answered, submitted, len(b.m.applied), len(b.log.recs))
			}
		})
	}
}

func BenchmarkSubmit(b *testing.B) {
	log := &instantLog{}
	rt := New[int](log, nopMachine{}, 0, Options{})
	defer rt.Close()
	done := make(chan struct{}, 64)
	b.ReportAllocs()
	for range 64 {
		done <- struct{}{}
	}
	keys := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	for i := range b.N {
		<-done
		rt.Submit(Op[int]{Key: keys[i%8], Run: func() ([][]int, error) { return [][]int{{1}}, nil }, Done: func(error) { done <- struct{}{} }})
	}
}

type instantLog struct{ end int64 }

func (l *instantLog) Append(_ int32, _ int64, batches [][]int) (int64, error) {
	base := l.end
	l.end += int64(count(batches))
	return base, nil
}
func (l *instantLog) Committed() int64   { return l.end }
func (l *instantLog) OnCommitted(func()) {}
func (l *instantLog) Err() error         { return nil }

type nopMachine struct{}

func (nopMachine) Apply(int64, int64, [][]int) {}
func (nopMachine) Committed(int64)             {}
