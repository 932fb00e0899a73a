package broker

// How a fetch waits for more to read. Whoever may still come to it is counted in users: the handler
// while it parks it, the deadline that stands, and each call of Woken that is under way. A panic
// leaves its count behind, and such a fetch is not used again.

// park lets the request wait. What was read is given back; it is read again for the answer.
func (f *fetch) park(maxWaitMs int64) {
	f.closeViews()
	f.users.Store(1)
	conn := f.x.Conn() // f.x is its own only until it is answered
	f.conn.setWaiting(f)
	var early []int
	for i := range f.parts {
		p := &f.parts[i]
		if p.partition != nil && p.partition.Watch(&p.watch, f, i, f.committed, p.res.Bound) {
			early = append(early, i)
		}
	}
	f.users.Add(1)
	f.b.deadlines.Add(&f.deadline, maxWaitMs, f)
	f.mu.Lock()
	f.mu.parked = true
	early = append(early, f.mu.early...)
	f.mu.Unlock()
	for _, i := range early {
		f.lookAgain(i)
	}
	if f.b.stopping.Load() || conn.Closed() {
		f.expire()
	}
	f.leave()
}

// setWaiting notes which fetch of the connection waits; nil: none.
func (st *connState) setWaiting(f *fetch) {
	st.waiting.Lock()
	st.waiting.fetch = f
	st.waiting.Unlock()
}

// closed, when the connection is over, ends the wait of its fetch: nobody takes the answer.
func (st *connState) closed() {
	st.waiting.Lock()
	f := st.waiting.fetch
	if f != nil {
		f.Hold()
	}
	st.waiting.Unlock()
	if f != nil {
		f.Expired()
	}
}

// leave ends one use of a fetch that waits or has waited.
func (f *fetch) leave() {
	if f.users.Add(-1) == 0 { // the deadline's has ended: it is answered
		f.recycle()
	}
}

// Hold implements replication.Watcher.
func (f *fetch) Hold() { f.users.Add(1) }

// Woken implements replication.Watcher: partition i may have more to read now.
func (f *fetch) Woken(i int) {
	defer f.rescue()
	f.lookAgain(i)
	f.leave()
}

// lookAgain answers if partition i makes it enough.
func (f *fetch) lookAgain(i int) {
	f.mu.Lock()
	if f.mu.done || !f.mu.parked {
		if !f.mu.done {
			f.mu.early = append(f.mu.early, i)
		}
		f.mu.Unlock()
		return
	}
	f.mu.Unlock()
	n, final := f.look(i)
	f.mu.Lock()
	if f.mu.done { // meanwhile another goroutine began to answer, and the parts are its own
		f.mu.Unlock()
		return
	}
	p := &f.parts[i]
	p.stale = true
	if n > p.size {
		f.mu.total += n - p.size
		p.size = n
	}
	answer := final || f.mu.total >= f.minBytes
	f.mu.done = answer
	f.mu.Unlock()
	if answer {
		f.finish()
	}
}

// look measures what is readable of partition i; final says that it must be answered whatever it is.
func (f *fetch) look(i int) (n int64, final bool) {
	p := &f.parts[i]
	res := f.readPart(p, f.maxBytes, true)
	if res.View != nil {
		n = res.Len()
		res.View.Close()
	}
	return n, res.Err != nil || res.Diverged
}

// Expired implements replication.Expirer: the wait is over, and what there is is the answer.
func (f *fetch) Expired() {
	defer f.rescue()
	f.expire()
	f.leave()
}

func (f *fetch) expire() {
	f.mu.Lock()
	answer := !f.mu.done
	f.mu.done = true
	f.mu.Unlock()
	if !answer {
		return
	}
	for i := range f.parts {
		f.parts[i].stale = true
	}
	f.finish()
}

// finish answers a parked request. Whoever set done calls it. Partitions of which nothing was heard
// are as they were: at most their log start offset is not the latest.
func (f *fetch) finish() {
	f.conn.setWaiting(nil)
	cancelled := f.b.deadlines.Cancel(&f.deadline)
	for i := range f.parts {
		if p := &f.parts[i]; p.partition != nil {
			p.partition.Unwatch(&p.watch)
		}
	}
	f.read()
	f.respond()
	if cancelled {
		f.leave() // Expired would have
	}
}
