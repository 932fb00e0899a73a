package replication

import (
	"math"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// ringer notes when it expired.
type ringer struct {
	deadline Deadline
	due      time.Time
	rang     []time.Time
	canceled bool
}

func (r *ringer) Expired() { r.rang = append(r.rang, time.Now()) }

func TestDeadlinesExpireOnceAndNeverEarly(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			var d Deadlines
			var all []*ringer
			for range 500 {
				switch rng.IntN(4) {
				case 0, 1:
					after := rng.Int64N(2000)
					r := &ringer{due: time.Now().Add(time.Duration(after) * time.Millisecond)}
					all = append(all, r)
					d.Add(&r.deadline, after, r)
				case 2:
					if len(all) > 0 {
						r := all[rng.IntN(len(all))]
						r.canceled = d.Cancel(&r.deadline) || r.canceled
					}
				case 3:
					time.Sleep(time.Duration(rng.Int64N(300)) * time.Millisecond)
				}
			}
			time.Sleep(3 * time.Second)
			synctest.Wait()
			d.Close()
			for i, r := range all {
				if r.canceled {
					if len(r.rang) != 0 {
						t.Fatalf("seed %d: deadline %d expired though it was cancelled", seed, i)
					}
					continue
				}
				if len(r.rang) != 1 {
					t.Fatalf("seed %d: deadline %d expired %d times", seed, i, len(r.rang))
				}
				if late := r.rang[0].Sub(r.due); late < 0 || late > 2*granuleMs*time.Millisecond {
					t.Fatalf("seed %d: deadline %d was %v late", seed, i, late)
				}
			}
		})
	}
}

func TestDeadlinesDoNotTickWhenIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d Deadlines
		r := &ringer{}
		d.Add(&r.deadline, 50, r)
		d.Cancel(&r.deadline)
		time.Sleep(time.Minute)
		synctest.Wait()
		if d.mu.armed != 0 || len(d.mu.order) != 0 {
			t.Fatalf("armed for %d with %d moments though nothing waits", d.mu.armed, len(d.mu.order))
		}
		d.Add(&r.deadline, 50, r)
		time.Sleep(time.Second)
		synctest.Wait()
		if len(r.rang) != 1 {
			t.Fatalf("expired %d times after the idle time", len(r.rang))
		}
		d.Close()
	})
}

// A produce with the largest timeout that is answered soon leaves nothing behind, also while others
// wait all the time, so that the far moments never are the first.
func TestFarDeadlinesThatAreCancelledLeaveNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d Deadlines
		defer d.Close()
		polls := make([]ringer, 100)
		for i := range 10_000 {
			if i%50 == 0 { // a long poll begins each 250 ms and ends after 500
				poll := &polls[i/50%len(polls)]
				d.Add(&poll.deadline, 500, poll)
			}
			var p ringer
			d.Add(&p.deadline, math.MaxInt32, &p)
			d.Cancel(&p.deadline)
			time.Sleep(5 * time.Millisecond)
		}
		d.mu.Lock()
		moments, granules := len(d.mu.moments), len(d.mu.order)
		d.mu.Unlock()
		if moments != granules || moments > fewMoments {
			t.Errorf("%d moments, %d of them in order, are kept for %d deadlines that stand", moments, granules, d.Waiting())
		}
	})
}

// What a sweep leaves expires in order, each at its time.
func TestDeadlinesExpireAfterASweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d Deadlines
		defer d.Close()
		began := time.Now()
		all := make([]ringer, 4*fewMoments)
		for i := range all {
			after := int64(len(all)-i) * 2 * granuleMs
			all[i].due = began.Add(time.Duration(after) * time.Millisecond)
			d.Add(&all[i].deadline, after, &all[i])
			if all[i].canceled = i%4 != 0; all[i].canceled {
				d.Cancel(&all[i].deadline)
			}
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		for i := range all {
			r := &all[i]
			switch {
			case r.canceled && len(r.rang) > 0:
				t.Errorf("deadline %d expired though it was cancelled", i)
			case !r.canceled && (len(r.rang) != 1 || r.rang[0].Before(r.due) || r.rang[0].Sub(r.due) > 2*granuleMs*time.Millisecond):
				t.Errorf("deadline %d, due at %v, expired at %v", i, r.due, r.rang)
			}
		}
	})
}

func TestHurryPicksOnlyWhatMatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d Deadlines
		a, b := &ringer{}, &ringer{}
		d.Add(&a.deadline, 1000, a)
		d.Add(&b.deadline, 1000, b)
		d.Hurry(func(e Expirer) bool { return e == Expirer(a) })
		if len(a.rang) != 1 || len(b.rang) != 0 {
			t.Fatalf("hurried: %d and %d", len(a.rang), len(b.rang))
		}
		d.Close()
		time.Sleep(2 * time.Second)
		if len(b.rang) != 0 {
			t.Fatal("expired after Close")
		}
	})
}

func BenchmarkDeadlineAddCancel(b *testing.B) {
	var d Deadlines
	r := &ringer{}
	b.ReportAllocs()
	for b.Loop() {
		d.Add(&r.deadline, 30_000, r)
		d.Cancel(&r.deadline)
	}
	d.Close()
}
