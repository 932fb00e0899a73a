package workers

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// Each job runs, however many are under way, and no more goroutines stay than are kept.
func TestAllRunAndFewStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const keep, jobs = 3, 50
		before := runtime.NumGoroutine()
		g := New(keep)
		var ran atomic.Int64
		release := make(chan struct{})
		for range jobs {
			g.Go(func() { <-release; ran.Add(1) })
		}
		synctest.Wait()
		if n := runtime.NumGoroutine() - before; n != jobs {
			t.Errorf("%d goroutines for %d jobs that wait", n, jobs)
		}
		close(release)
		synctest.Wait()
		if n := runtime.NumGoroutine() - before; n != keep || ran.Load() != jobs {
			t.Errorf("%d goroutines stay, %d jobs ran", n, ran.Load())
		}
		g.Go(func() { ran.Add(1) })
		synctest.Wait()
		if n := runtime.NumGoroutine() - before; n != keep || ran.Load() != jobs+1 {
			t.Errorf("%d goroutines stay, %d jobs ran", n, ran.Load())
		}
		g.Close()
		if n := runtime.NumGoroutine() - before; n != 0 {
			t.Errorf("%d goroutines after Close", n)
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
