package workers

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// Each job runs, however many are under way, and no more goroutines stay than are kept, until Close.
func TestAllRunAndFewStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // which fails if a goroutine is left
		const keep, jobs = 3, 50
		g := New(keep)
		var began, ran atomic.Int64
		release := make(chan struct{})
		for range jobs {
			g.Go(func() { began.Add(1); <-release; ran.Add(1) })
		}
		synctest.Wait()
		if n := began.Load(); n != jobs {
			t.Errorf("%d of %d jobs run at once", n, jobs)
		}
		close(release)
		for range 2 {
			synctest.Wait()
			if len(g.idle) != keep {
				t.Errorf("%d goroutines stay", len(g.idle))
			}
			g.Go(func() { ran.Add(1) })
		}
		synctest.Wait()
		if n := ran.Load(); n != jobs+2 {
			t.Errorf("%d jobs ran", n)
		}
		g.Close()
		if len(g.idle) != 0 {
			t.Errorf("%d goroutines after Close", len(g.idle))
		}
		late := make(chan struct{})
		g.Go(func() { close(late) })
		<-late
		g.Close()
	})
}

func TestCloseWaitsForJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(1)
		release := make(chan struct{})
		g.Go(func() { <-release })
		closed := make(chan struct{})
		go func() { g.Close(); close(closed) }()
		synctest.Wait()
		select {
		case <-closed:
			t.Error("closed while a job runs")
		default:
		}
		close(release)
		<-closed
	})
}

// deep needs a stack that a new goroutine does not have, as a system call's path does.
func deep(n int) int {
	var room [256]byte
	if n == 0 {
		return len(room)
	}
	room[n] = byte(n)
	return deep(n-1) + int(room[n])
}

func BenchmarkGo(b *testing.B) {
	g := New(4)
	defer g.Close()
	for _, c := range []struct {
		name string
		run  func(func())
	}{{"workers", g.Go}, {"go", func(fn func()) { go fn() }}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			var wg sync.WaitGroup
			job := func() { deep(20); wg.Done() }
			for range b.N {
				wg.Add(1)
				c.run(job)
				wg.Wait()
			}
		})
	}
}
