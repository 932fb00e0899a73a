package fuzz

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// WorkerOptions say what one searching process does.
type WorkerOptions struct {
	Seed     uint64
	Stream   uint64        // the number of the row of inputs
	Inputs   int64         // 0: as many as the time allows
	Duration time.Duration // 0: as long as the inputs last
	Deadline time.Duration // for one input
	Current  string        // file that holds the input that is being tried
}

// message is what a worker tells its supervisor: a line of JSON each.
type message struct {
	Inputs   int64    `json:",omitempty"` // so far
	Outcomes int      `json:",omitempty"`
	Finding  *Finding `json:",omitempty"`
	Done     bool     `json:",omitempty"`
}

// Statuses of a worker's process beside 0 and those of a crash.
const (
	statusHang   = 3
	statusOrphan = 4
)

// maxData is what a worker's process may have in memory that it writes to, so that a mad allocation
// ends it and not the machine.
const maxData = 4 << 30

// worker is the state of one searching process.
type worker struct {
	t       *Target
	o       WorkerOptions
	current *os.File
	began   atomic.Int64 // when the input that is being tried was begun, unix nanoseconds; 0: none is
	inputs  atomic.Int64
	known   atomic.Int64 // outcomes

	out struct {
		sync.Mutex
		enc *json.Encoder
	}
}

// Work searches one target in this process and tells what it finds on out. It is the body of the
// processes that Run starts: it ends the process when an input hangs, or when in, which the parent
// holds open, ends.
func Work(t *Target, o WorkerOptions, in io.Reader, out io.Writer) error {
	current, err := os.OpenFile(o.Current, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("fuzz: %w", err)
	}
	defer current.Close()
	limitData(maxData)
	w := &worker{t: t, o: o, current: current}
	w.out.enc = json.NewEncoder(out)
	go func() {
		_, _ = io.Copy(io.Discard, in)
		os.Exit(statusOrphan)
	}()
	stop := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() { w.watch(stop) })
	err = w.search()
	close(stop)
	watching.Wait()
	w.tell(message{Inputs: w.inputs.Load(), Outcomes: int(w.known.Load()), Done: err == nil})
	return err
}

func (w *worker) tell(m message) {
	w.out.Lock()
	defer w.out.Unlock()
	if w.out.enc.Encode(m) != nil {
		os.Exit(statusOrphan) // nobody listens
	}
}

func (w *worker) search() error {
	s := newStream(w.t, w.o.Seed, w.o.Stream)
	end := time.Now().Add(w.o.Duration)
	told := map[string]bool{}
	for n := int64(0); w.o.Inputs == 0 || n < w.o.Inputs; n++ {
		now := time.Now()
		if w.o.Duration > 0 && now.After(end) {
			return nil
		}
		p := s.next()
		if err := writeCurrent(w.current, p); err != nil {
			return err
		}
		w.began.Store(now.UnixNano())
		outcome, f := w.t.Try(p)
		w.began.Store(0)
		w.inputs.Store(n + 1)
		switch {
		case f == nil:
			s.learn(p, outcome)
			w.known.Store(int64(len(s.seen)))
		case !told[f.Key]:
			told[f.Key] = true
			w.tell(message{Finding: minimize(w.t, f, time.Now)})
		}
	}
	return nil
}

// watch tells how far the search is, and ends the process when an input takes too long: nothing
// else stops a goroutine.
func (w *worker) watch(stop chan struct{}) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		w.tell(message{Inputs: w.inputs.Load(), Outcomes: int(w.known.Load())})
		began := w.began.Load()
		if began == 0 || time.Since(time.Unix(0, began)) < w.o.Deadline {
			continue
		}
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		if w.began.Load() != began {
			continue // it came to an end after all
		}
		p, err := readCurrent(w.o.Current)
		if err != nil {
			p = nil
		}
		w.tell(message{Finding: w.t.finding("hang", fmt.Sprintf("no answer within %v\n%s", w.o.Deadline, stacks), "", p)})
		os.Exit(statusHang)
	}
}

// writeCurrent notes the input that is about to be tried, where it outlives this process.
func writeCurrent(f *os.File, p []byte) error {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(p)), uint32(len(p)))
	if _, err := f.WriteAt(append(b, p...), 0); err != nil {
		return fmt.Errorf("fuzz: %w", err)
	}
	return nil
}

func readCurrent(name string) ([]byte, error) {
	p, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("fuzz: %w", err)
	}
	if len(p) < 4 || int64(binary.BigEndian.Uint32(p)) > int64(len(p)-4) {
		return nil, fmt.Errorf("fuzz: %s holds no whole input", name)
	}
	return p[4 : 4+binary.BigEndian.Uint32(p)], nil
}
