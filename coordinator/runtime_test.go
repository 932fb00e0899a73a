package coordinator

import (
	"errors"
	"fmt"
	"math/rand"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

// fakeLog commits when told.
type fakeLog struct {
	mu        sync.Mutex
	appends   [][][]int
	poison    int // an append with this value is refused
	most      int // records in an append, if not 0
	recs      []int
	committed int64
	err       error
	refuse    error
	notify    func()
}

func (l *fakeLog) Append(epoch int32, timestampMs int64, batches [][]int) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refuse != nil {
		return 0, l.refuse
	}
	if l.most != 0 && count(batches) > l.most {
		return 0, fmt.Errorf("%w: %d records", ErrTooLarge, count(batches))
	}
	if l.poison != 0 {
		for _, b := range batches {
			if slices.Contains(b, l.poison) {
				return 0, errPoison
			}
		}
	}
	l.appends = append(l.appends, slices.Clone(batches))
	base := int64(len(l.recs))
	for _, b := range batches {
		l.recs = append(l.recs, b...)
	}
	return base, nil
}
func (l *fakeLog) Committed() int64      { l.mu.Lock(); defer l.mu.Unlock(); return l.committed }
func (l *fakeLog) OnCommitted(fn func()) { l.notify = fn }
func (l *fakeLog) Err() error            { l.mu.Lock(); defer l.mu.Unlock(); return l.err }

func (l *fakeLog) commit(end int64) {
	l.mu.Lock()
	l.committed = end
	l.mu.Unlock()
	l.notify()
}

func (l *fakeLog) fail(err error) {
	l.mu.Lock()
	l.err = err
	l.mu.Unlock()
	l.notify()
}

var errPoison = errors.New("poison")

type sumMachine struct {
	sum       int
	applied   []int
	committed []int64
}

func (m *sumMachine) Apply(base int64, _ int64, batches [][]int) {
	if base != int64(len(m.applied)) {
		panic(fmt.Sprintf("applied at %d, have %d", base, len(m.applied)))
	}
	for _, b := range batches {
		for _, v := range b {
			m.sum += v
			m.applied = append(m.applied, v)
		}
	}
}
func (m *sumMachine) Committed(end int64) { m.committed = append(m.committed, end) }

func TestAnswersWaitForTheCommitInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, m := &fakeLog{}, &sumMachine{}
		r := New[int](log, m, 0, Options{})
		var got []string
		submit := func(name string, vals ...int) {
			r.Submit(Op[int]{
				Run: func() ([][]int, error) {
					if len(vals) == 0 {
						return nil, nil
					}
					return [][]int{vals}, nil
				},
				Done: func(err error) { got = append(got, fmt.Sprint(name, err)) },
			})
		}
		submit("a", 1, 2)
		submit("read") // may have read a's records: it waits for them
		submit("b", 3)
		synctest.Wait()
		if len(got) != 0 || m.sum != 6 {
			t.Fatalf("before the commit: %v, sum %d", got, m.sum)
		}
		log.commit(1)
		synctest.Wait()
		if len(got) != 0 {
			t.Fatalf("half of a is committed: %v", got)
		}
		log.commit(2)
		synctest.Wait()
		if want := []string{"a<nil>", "read<nil>"}; !slices.Equal(got, want) {
			t.Fatalf("%v, want %v", got, want)
		}
		log.commit(3)
		submit("late")
		synctest.Wait()
		if want := []string{"a<nil>", "read<nil>", "b<nil>", "late<nil>"}; !slices.Equal(got, want) {
			t.Fatalf("%v, want %v", got, want)
		}
		if !slices.Equal(m.committed, []int64{1, 2, 3}) {
			t.Errorf("the machine was told %v", m.committed)
		}
		r.Close()
	})
}

func TestErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, m := &fakeLog{}, &sumMachine{}
		r := New[int](log, m, 0, Options{MaxQueue: 2})
		got := map[string]error{}
		submit := func(name string, run func() ([][]int, error)) {
			r.Submit(Op[int]{Run: run, Done: func(err error) { got[name] = err }})
		}
		one := func() ([][]int, error) { return [][]int{{1}}, nil }
		bad, broken, offline := errors.New("bad"), errors.New("broken"), errors.New("offline")
		submit("run", func() ([][]int, error) { return nil, bad })
		synctest.Wait()
		log.refuse = broken
		submit("append", one)
		synctest.Wait()
		log.refuse = nil
		submit("first", one)
		submit("second", one)
		submit("third", one)
		r.Submit(Op[int]{Own: true, Run: one, Done: func(error) {}})
		synctest.Wait()
		if got["run"] != bad || got["append"] != broken || got["third"] != ErrBusy || m.sum != 3 {
			t.Fatalf("%v, sum %d", got, m.sum)
		}
		log.commit(1)
		log.fail(offline)
		synctest.Wait()
		if got["first"] != nil || got["second"] != offline {
			t.Fatalf("%v", got)
		}
		submit("after", one)
		synctest.Wait()
		if got["after"] != offline {
			t.Fatalf("%v", got)
		}
		r.Close()
		submit("closed", one)
		if got["closed"] != ErrClosed {
			t.Fatalf("%v", got)
		}
	})
}

func TestCloseAnswersWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &fakeLog{}
		r := New[int](log, &sumMachine{}, 0, Options{})
		var got error
		r.Submit(Op[int]{Run: func() ([][]int, error) { return [][]int{{1}}, nil }, Done: func(err error) { got = err }})
		r.Close()
		if got != ErrClosed || len(log.recs) != 1 {
			t.Errorf("%v, %d records", got, len(log.recs))
		}
	})
}

// Random submits, commits and failures: every operation is answered once, in order, and never as committed before it is.
func TestRandomCommits(t *testing.T) {
	for seed := range int64(50) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewSource(seed))
			log, m := &fakeLog{}, &sumMachine{}
			r := New[int](log, m, 0, Options{})
			next, answered := 0, 0
			for range 200 {
				if rng.Intn(3) > 0 {
					n, id := rng.Intn(3), next
					next++
					var end int64
					r.Submit(Op[int]{
						Run: func() ([][]int, error) {
							end = int64(len(m.applied) + n)
							return [][]int{make([]int, n)}, nil
						},
						Done: func(err error) {
							if id != answered || err == nil && log.Committed() < end {
								t.Errorf("seed %d: operation %d answered in place %d, %v, end %d, committed %d", seed, id, answered, err, end, log.Committed())
							}
							answered++
						},
					})
				} else {
					synctest.Wait()
					log.commit(log.Committed() + int64(rng.Intn(1+len(log.recs)-int(log.Committed()))))
				}
			}
			synctest.Wait()
			log.commit(int64(len(log.recs)))
			r.Close()
			if answered != next {
				t.Errorf("seed %d: %d of %d answered", seed, answered, next)
			}
		})
	}
}
