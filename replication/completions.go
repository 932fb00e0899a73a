package replication

import "sync"

// Completions runs what follows from a log's progress apart from the goroutine that made it: the
// store's syncer hands partitions over and goes on to the next sync. Its goroutines live only while
// partitions are queued. The queue's bound is the number of partitions: each stands in it once.
type Completions struct {
	workers int
	wg      sync.WaitGroup
	mu      struct {
		sync.Mutex
		queue   []*Partition
		running int
	}
}

// NewCompletions makes a queue that at most workers goroutines serve.
func NewCompletions(workers int) *Completions { return &Completions{workers: workers} }

func (c *Completions) add(p *Partition) {
	c.mu.Lock()
	c.mu.queue = append(c.mu.queue, p)
	start := c.mu.running < c.workers
	if start {
		c.mu.running++
		c.wg.Add(1)
	}
	c.mu.Unlock()
	if start {
		go c.run()
	}
}

func (c *Completions) run() {
	defer c.wg.Done()
	for {
		c.mu.Lock()
		if len(c.mu.queue) == 0 {
			c.mu.running--
			if c.mu.running == 0 && cap(c.mu.queue) > keepWaits {
				c.mu.queue = nil
			}
			c.mu.Unlock()
			return
		}
		p := c.mu.queue[0]
		n := copy(c.mu.queue, c.mu.queue[1:])
		c.mu.queue[n] = nil
		c.mu.queue = c.mu.queue[:n]
		c.mu.Unlock()
		p.queued.Store(false)
		p.advance()
	}
}

// Wait returns when nothing is queued and nothing runs. No log may make progress meanwhile that
// anyone still waits for.
func (c *Completions) Wait() { c.wg.Wait() }
