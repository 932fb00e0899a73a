package history

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// world makes histories as a faultless broker would give them: logs with markers, transactions, readers.
type world struct {
	h     History
	clock int64
	logs  map[Key][]stored
	next  int64
}

type stored struct {
	value  int64 // 0: a marker
	hidden bool  // read_committed does not show it
}

var (
	a, b = Key{"in", 0}, Key{"in", 1}
	out  = Key{"out", 0}
)

func newWorld() *world {
	return &world{logs: map[Key][]stored{}, h: History{Ends: map[Key]int64{}, Offsets: map[string]map[Key]int64{}}}
}

func (w *world) now() int64 { w.clock++; return w.clock }

// open is a transaction under way.
type open struct {
	w   *world
	op  Op
	aff []Key
}

func (w *world) begin(process int, id string) *open {
	return &open{w: w, op: Op{Process: process, Txn: true, ID: id, Committed: true, Invoke: w.now()}}
}

func (o *open) send(k Key) *open {
	o.w.next++
	o.op.Steps = append(o.op.Steps, Step{Kind: Send, Key: k, Value: o.w.next, Offset: int64(len(o.w.logs[k]))})
	o.w.logs[k] = append(o.w.logs[k], stored{value: o.w.next, hidden: true})
	if !slices.Contains(o.aff, k) {
		o.aff = append(o.aff, k)
	}
	return o
}

// poll reads the record at an offset.
func (o *open) poll(k Key, off int64) *open {
	o.op.Steps = append(o.op.Steps, Step{Kind: Poll, Key: k, Value: o.w.logs[k][off].value, Offset: off})
	return o
}

// transform sends what it makes of the record at an offset of k.
func (o *open) transform(k Key, off int64) *open {
	o.poll(k, off)
	of := len(o.op.Steps)
	o.send(out)
	o.op.Steps[of].Of = of
	o.op.Group = "g"
	return o
}

// end writes the markers. said is what the client learns.
func (o *open) end(commit bool, said Outcome) int {
	o.op.Ended = o.w.now()
	for _, k := range o.aff {
		log := o.w.logs[k]
		for _, s := range o.op.Steps {
			if s.Kind == Send && s.Key == k {
				log[s.Offset].hidden = !commit
			}
		}
		o.w.logs[k] = append(log, stored{})
	}
	if o.op.Group != "" && commit {
		if o.w.h.Offsets["g"] == nil {
			o.w.h.Offsets["g"] = map[Key]int64{}
		}
		for _, s := range o.op.Steps {
			if s.Kind == Poll {
				o.w.h.Offsets["g"][s.Key] = s.Offset + 1
			}
		}
	}
	o.op.Complete, o.op.Outcome = o.w.now(), said
	o.w.h.Ops = append(o.w.h.Ops, o.op)
	return len(o.w.h.Ops) - 1
}

// readAll lets one process of each isolation read everything, n records at a time.
func (w *world) readAll(n int) {
	for process, committed := range []bool{true, false} {
		for _, k := range sortedKeys(w.logs) {
			w.h.Ends[k] = int64(len(w.logs[k]))
			for from := 0; from < len(w.logs[k]); from += n {
				to := min(from+n, len(w.logs[k]))
				op := Op{Process: 100 + process, Committed: committed, Outcome: OK, Invoke: w.now(), Spans: []Span{{k, int64(from), int64(to)}}}
				for i, s := range w.logs[k][from:to] {
					if s.value != 0 && !(committed && s.hidden) {
						op.Steps = append(op.Steps, Step{Kind: Poll, Key: k, Value: s.value, Offset: int64(from + i)})
					}
				}
				op.Complete = w.now()
				w.h.Ops = append(w.h.Ops, op)
			}
		}
	}
}

func classes(found []Anomaly) (out []Class) {
	for _, f := range found {
		if !slices.Contains(out, f.Class) {
			out = append(out, f.Class)
		}
	}
	return out
}

// good is a history with everything in it: op 0 commits, 1 aborts, 2 commits unknown to its client, 3 aborts so, 4 and 5
// interleave, 6 and 7 transform, 8 reads in a transaction, 9 transforms and aborts; the others are the readers'.
func good() *world {
	w := newWorld()
	w.begin(1, "x").send(a).send(b).send(a).end(true, OK)            // a 0 1 2m, b 0 1m
	w.begin(2, "y").send(a).send(b).end(false, Fail)                 // a 3 4m, b 2 3m
	w.begin(1, "x").send(a).send(b).end(true, Info)                  // a 5 6m, b 4 5m
	w.begin(2, "y").send(a).end(false, Info)                         // a 7 8m
	x, y := w.begin(1, "x"), w.begin(2, "y")                         // a 9x 10y, b 6y 7x: each wrote before the other
	x.send(a)                                                        //
	y.send(a).send(b)                                                //
	x.send(b).end(true, OK)                                          // a 11m, b 8m
	y.end(true, OK)                                                  // a 12m, b 9m
	w.begin(3, "t").transform(a, 0).transform(a, 1).end(true, OK)    // out 0 1 2m
	w.begin(3, "t").transform(a, 5).transform(b, 0).end(true, Info)  // out 3 4 5m
	w.begin(4, "z").poll(a, 9).poll(a, 10).send(a).end(true, OK)     // a 13 14m
	w.begin(3, "t").transform(b, 4).transform(b, 6).end(false, Fail) // out 6 7 8m
	w.readAll(3)
	return w
}

func TestAFaultlessHistory(t *testing.T) {
	if found := Check(&good().h); len(found) > 0 {
		t.Errorf("found %v", found)
	}
}

// reads calls fn with every poll of the final reader of a partition.
func (w *world) reads(committed bool, k Key, fn func(op *Op, i int) (drop bool)) {
	for i := range w.h.Ops {
		op := &w.h.Ops[i]
		if op.Process < 100 || op.Committed != committed {
			continue
		}
		for j := 0; j < len(op.Steps); j++ {
			if op.Steps[j].Key == k && fn(op, j) {
				op.Steps = slices.Delete(op.Steps, j, j+1)
				j--
			}
		}
	}
}

// hide lets read_committed readers not see an offset.
func (w *world) hide(k Key, off int64) {
	w.reads(true, k, func(op *Op, i int) bool { return op.Steps[i].Offset == off })
}

// show lets read_committed readers see an offset that is aborted.
func (w *world) show(k Key, off int64) {
	for i := range w.h.Ops {
		op := &w.h.Ops[i]
		if op.Process == 100 && op.Spans[0].Key == k && op.Spans[0].From <= off && off < op.Spans[0].To {
			op.Steps = append(op.Steps, Step{Kind: Poll, Key: k, Value: w.logs[k][off].value, Offset: off})
			slices.SortFunc(op.Steps, func(x, y Step) int { return int(x.Offset - y.Offset) })
		}
	}
}

// planted are histories with one thing wrong, and what must be found, first of all.
var planted = []struct {
	name  string
	wrong func(w *world)
	want  []Class
}{
	{"a record of a committed transaction is gone for all readers", func(w *world) { w.hide(b, 7) }, []Class{Torn, LostWrite}},
	{"a whole committed transaction is gone", func(w *world) {
		w.hide(a, 13)
	}, []Class{LostWrite}},
	{"a committed record whose offset was never said is gone", func(w *world) {
		w.h.Ops[5].Steps[1].Offset = Unknown
		w.reads(false, b, func(op *Op, i int) bool { return op.Steps[i].Offset == 7 })
		w.hide(b, 7)
	}, []Class{Torn, LostWrite}},
	{"read_uncommitted does not show an acknowledged record", func(w *world) {
		w.reads(false, a, func(op *Op, i int) bool { return op.Steps[i].Offset == 3 })
	}, []Class{LostWrite}},
	{"an aborted record is shown", func(w *world) { w.show(a, 3) }, []Class{AbortedRead}},
	{"a part of a transaction of unknown fate is shown", func(w *world) { w.hide(b, 4) }, []Class{Torn}},
	{"one of two readers is not shown a committed record", func(w *world) {
		w.hide(a, 13)
		w.h.Ops = append(w.h.Ops, Op{Process: 102, Committed: true, Outcome: OK, Invoke: w.now(), Complete: w.now(),
			Steps: []Step{{Kind: Poll, Key: a, Offset: 13, Value: w.logs[a][13].value}}, Spans: []Span{{a, 13, 15}}})
	}, []Class{LostWrite}},
	{"read_committed shows a record before its commit", func(w *world) {
		o := &w.h.Ops[0]
		w.h.Ops = append(w.h.Ops, Op{Process: 102, Committed: true, Outcome: OK, Complete: o.Ended - 1, Invoke: o.Invoke,
			Steps: []Step{{Kind: Poll, Key: a, Offset: 0, Value: o.Steps[0].Value}}, Spans: []Span{{a, 0, 1}}})
	}, []Class{EarlyRead}},
	{"an offset has two values", func(w *world) {
		w.reads(false, a, func(op *Op, i int) bool {
			if op.Steps[i].Offset == 3 {
				op.Steps[i].Value = w.h.Ops[3].Steps[0].Value
			}
			return false
		})
	}, []Class{InconsistentOffset, Duplicate}},
	{"a value is at two offsets", func(w *world) {
		w.logs[a] = append(w.logs[a], stored{value: w.h.Ops[8].Steps[2].Value})
		end := int64(len(w.logs[a]))
		w.h.Ops = append(w.h.Ops, Op{Process: 100, Committed: true, Outcome: OK, Invoke: w.now(), Complete: w.now(),
			Steps: []Step{{Kind: Poll, Key: a, Offset: end - 1, Value: w.h.Ops[8].Steps[2].Value}}, Spans: []Span{{a, end - 1, end}}})
	}, []Class{Duplicate}},
	{"a value that nobody sent", func(w *world) {
		w.h.Ops = append(w.h.Ops, Op{Process: 100, Committed: true, Outcome: OK, Steps: []Step{{Kind: Poll, Key: a, Offset: 15, Value: 777}}})
	}, []Class{Phantom}},
	{"a reader goes back", func(w *world) {
		w.h.Ops = append(w.h.Ops, Op{Process: 100, Committed: true, Outcome: OK, Steps: []Step{{Kind: Poll, Key: a, Offset: 0, Value: w.logs[a][0].value}}})
	}, []Class{NonmonotonicPoll}},
	{"a reader is thrown back", func(w *world) {
		w.h.Ops = append(w.h.Ops, Op{Process: 100, Generation: 1, Committed: true, Outcome: OK, Spans: []Span{{a, 9, 3}}})
	}, []Class{NonmonotonicPoll}},
	{"what a process sends later lies before", func(w *world) {
		w.h.Ops[0].Process, w.h.Ops[3].Process = 1, 1
		w.h.Ops[0], w.h.Ops[3] = w.h.Ops[3], w.h.Ops[0]
	}, []Class{NonmonotonicSend}},
	{"what is sent after another has his answer lies before", func(w *world) {
		w.h.Ops[0].Invoke, w.h.Ops[0].Complete = 1000, 1002
		w.h.Ops[0].Process, w.h.Ops[0].Ended = 9, 1
	}, []Class{NonmonotonicSend}},
	{"transactions of one id interleave", func(w *world) {
		w.h.Ops[4].ID, w.h.Ops[5].ID = "x", "x"
	}, []Class{WriteCycle}},
	{"transactions interleave where they must not", func(w *world) { w.h.IsolatedWrites = true }, []Class{WriteCycle}},
	{"two transactions read from each other", func(w *world) {
		x, y := &w.h.Ops[0], &w.h.Ops[4]
		x.Steps = append(x.Steps, Step{Kind: Poll, Key: a, Offset: 9, Value: w.logs[a][9].value})
		y.Steps = append(y.Steps, Step{Kind: Poll, Key: a, Offset: 0, Value: w.logs[a][0].value})
		x.Complete, x.Generation, y.Generation = 0, 1, 2
	}, []Class{ReadCycle}},
	{"an input is consumed twice", func(w *world) {
		w.begin(5, "u").transform(a, 0).end(true, OK)
		w.h.Offsets["g"][a] = 6
		w.readAgain()
	}, []Class{ConsumedTwice}},
	{"the group is past an input without output", func(w *world) { w.h.Offsets["g"][b] = 6 }, []Class{NotConsumed}},
	{"the group's offset did not move with the output", func(w *world) { w.h.Offsets["g"][b] = 0 }, []Class{OffsetBehind}},
	{"nobody comes to the end", func(w *world) { w.h.Ends[a]++ }, []Class{Stuck}},
}

// readAgain has another process read what was written after the first have.
func (w *world) readAgain() {
	for _, k := range sortedKeys(w.logs) {
		w.h.Ends[k] = int64(len(w.logs[k]))
		op := Op{Process: 200, Committed: true, Outcome: OK, Spans: []Span{{k, 0, w.h.Ends[k]}}}
		for off, s := range w.logs[k] {
			if s.value != 0 && !s.hidden {
				op.Steps = append(op.Steps, Step{Kind: Poll, Key: k, Value: s.value, Offset: int64(off)})
			}
		}
		w.h.Ops = append(w.h.Ops, op)
	}
}

func TestPlantedAnomaliesAreFound(t *testing.T) {
	for _, p := range planted {
		t.Run(p.name, func(t *testing.T) {
			w := good()
			p.wrong(w)
			found := Check(&w.h)
			got := classes(found)
			for _, want := range p.want {
				if !slices.Contains(got, want) {
					t.Errorf("no %s in %v", want, found)
				}
			}
			for _, class := range got {
				if !slices.Contains(p.want, class) {
					t.Errorf("%s besides %v: %v", class, p.want, found)
				}
			}
		})
	}
}

// TestRandomFaultlessHistories: whatever a faultless broker's clients see, nothing is found.
func TestRandomFaultlessHistories(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		w := newWorld()
		var running []*open
		busy := map[string]bool{}
		for range 100 {
			id := fmt.Sprintf("id%d", rng.IntN(4))
			switch {
			case len(running) < 3 && !busy[id]:
				busy[id] = true
				running = append(running, w.begin(int(id[2]), id))
			case rng.IntN(3) == 0:
				i := rng.IntN(len(running))
				busy[running[i].op.ID] = false
				commit := rng.IntN(3) > 0
				running[i].end(commit, []Outcome{map[bool]Outcome{true: OK, false: Fail}[commit], Info}[rng.IntN(2)])
				running = slices.Delete(running, i, i+1)
			case len(running) > 0:
				running[rng.IntN(len(running))].send([]Key{a, b, out}[rng.IntN(3)])
			}
		}
		for _, o := range running {
			o.end(true, OK)
		}
		w.readAll(1 + rng.IntN(10))
		if found := Check(&w.h); len(found) > 0 {
			t.Fatalf("seed %d: found %v", seed, found)
		}
	}
}

func TestALongChainOfTransactions(t *testing.T) {
	w := newWorld()
	for range 20_000 {
		w.begin(1, "x").send(a).send(b).end(true, OK)
	}
	w.readAll(1000)
	if found := Check(&w.h); len(found) > 0 {
		t.Fatalf("found %v", found)
	}
}
