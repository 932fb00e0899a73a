// Package workers runs short jobs that come often in goroutines that stay. A goroutine that is
// started anew begins with a small stack and copies it each time it outgrows it: of a job that ends
// in a system call that is a good part.
//
// Refused: a queue, a bound on what runs at once, a job's errors.
package workers

import "sync"

// Group is goroutines that wait for jobs. Its methods may be called from anywhere.
type Group struct {
	jobs   chan func()
	idle   chan struct{} // a place for each that may wait
	closed chan struct{}
	once   sync.Once
	wg     sync.WaitGroup
}

// New returns a Group of which at most keep goroutines wait for jobs. Until Close they stay.
func New(keep int) *Group {
	return &Group{jobs: make(chan func()), idle: make(chan struct{}, keep), closed: make(chan struct{})}
}

// Go runs fn as the go statement does: at once, whatever else runs.
func (g *Group) Go(fn func()) {
	select {
	case g.jobs <- fn:
	default:
		g.wg.Add(1)
		go g.run(fn)
	}
}

func (g *Group) run(fn func()) {
	defer g.wg.Done()
	for {
		fn()
		select {
		case g.idle <- struct{}{}:
		default:
			return
		}
		select {
		case fn = <-g.jobs:
			<-g.idle
		case <-g.closed:
			<-g.idle
			return
		}
	}
}

// Close ends those that wait and returns when no job runs. What Go is given from then on runs all
// the same.
func (g *Group) Close() {
	g.once.Do(func() { close(g.closed) })
	g.wg.Wait()
}
