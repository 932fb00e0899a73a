package compaction

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func file(base int64, ext string) string { return fmt.Sprintf("%020d.%s", base, ext) }

func planOf(t *testing.T, next map[string]int64, names ...string) Plan {
	t.Helper()
	p, err := PlanRecovery(names, func(name string) (int64, error) {
		off, ok := next[name]
		if !ok {
			t.Fatalf("asked for the next offset of %q", name)
		}
		return off, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestCleanDirectoryNeedsNothing(t *testing.T) {
	p := planOf(t, nil, file(0, "log"), file(0, "index"), file(0, "snapshot"), "leader-epoch-checkpoint", "partition.metadata", "quorum-state",
		"00000000000000000000-0000000000.checkpoint", "00000000000000000000-0000000000.checkpoint.deleted")
	if !p.Empty() || p.SyncAt != 0 {
		t.Errorf("%+v", p)
	}
}

func TestDeletedFilesGo(t *testing.T) {
	p := planOf(t, nil, file(0, "log"), file(5, "log.deleted"), file(5, "snapshot.deleted"))
	if len(p.Delete) != 2 || len(p.Rename) != 0 {
		t.Errorf("%+v", p)
	}
}

// The cleaner died while it renamed .cleaned to .swap, from the highest base down.
func TestUnfinishedSwapRollsBack(t *testing.T) {
	p := planOf(t, nil, file(0, "log"), file(10, "log"), file(0, "log.cleaned"), file(0, "index.cleaned"), file(10, "log.swap"), file(10, "index.swap"))
	want := []string{file(10, "index.swap"), file(10, "log.swap"), file(0, "index.cleaned"), file(0, "log.cleaned")}
	if !slices.Equal(p.Delete, want) || p.SyncAt != 2 || len(p.Rename) != 0 {
		t.Errorf("%+v", p)
	}
}

// It died after that: what the swap replaces goes, the rest stays.
func TestFinishedSwapRollsForward(t *testing.T) {
	p := planOf(t, map[string]int64{file(10, "log.swap"): 30},
		file(0, "log"), file(10, "log"), file(10, "timeindex"), file(20, "log"), file(20, "snapshot"), file(30, "log"), file(30, "snapshot"),
		file(10, "log.swap"), file(10, "index.swap"), file(10, "timeindex.swap"))
	want := []string{file(10, "log"), file(10, "timeindex"), file(20, "log"), file(20, "snapshot")}
	if !slices.Equal(p.Delete, want) || len(p.Rename) != 3 || p.SyncAt != 0 {
		t.Errorf("%+v", p)
	}
	for _, r := range p.Rename {
		if r.From != r.To+SwapSuffix {
			t.Errorf("%+v", r)
		}
	}
}

func TestErrorOfTheCallbackIsReturned(t *testing.T) {
	boom := errors.New("boom")
	p, err := PlanRecovery([]string{file(0, "log.swap")}, func(string) (int64, error) { return 0, boom })
	if err != boom || !p.Empty() {
		t.Errorf("%+v, %v", p, err)
	}
}

// A swap of random segments is stopped at a random step, and so is its recovery, again and
// again. At the end there are the old segments or the new ones, never a mixture.
func TestSwapIsAllOrNothing(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 5))
		dir := map[string]int64{} // name to next offset of its content; old content is odd
		n := int64(2 + r.IntN(4))
		for i := range n {
			dir[file(i*10, "log")], dir[file(i*10, "index")] = i*10+9, i*10+9
		}
		lo := int64(r.IntN(int(n)))
		hi := lo + 1 + int64(r.IntN(int(n-lo)))
		before := snapshotOf(dir)
		steps := swapSteps(lo, hi, r)
		for _, step := range steps[:r.IntN(len(steps)+1)] {
			step(dir)
		}
		for range 4 {
			if recoverSome(t, dir, r) {
				break
			}
		}
		for !recoverSome(t, dir, nil) {
		}
		after := snapshotOf(dir)
		old, end := 0, int64(0)
		for i := lo; i < hi; i++ {
			for _, ext := range []string{"log", "index"} {
				next, ok := dir[file(i*10, ext)]
				if ok && next == i*10+9 {
					old++
				}
				end = max(end, next)
			}
		}
		whole := after == before || old == 0 && end == hi*10
		if !whole || strings.Contains(after, "swap") || strings.Contains(after, "cleaned") {
			t.Fatalf("seed %d: segments [%d, %d) of %d\nbefore %s\nafter  %s", seed, lo, hi, n, before, after)
		}
	}
}

// swapSteps replaces the segments [lo, hi) by one or two new ones.
func swapSteps(lo, hi int64, r *rand.Rand) (steps []func(dir map[string]int64)) {
	type made struct{ base, next int64 }
	out := []made{{lo * 10, hi * 10}}
	if hi-lo > 1 && r.IntN(2) == 0 {
		mid := lo + 1 + int64(r.IntN(int(hi-lo-1)))
		out = []made{{lo * 10, hi * 10}, {mid * 10, hi * 10}}
		out[0].next = mid * 10
	}
	rename := func(from, to string) {
		steps = append(steps, func(dir map[string]int64) {
			if next, ok := dir[from]; ok {
				delete(dir, from)
				dir[to] = next
			}
		})
	}
	exts := []string{"log", "index"}
	for _, m := range out {
		for _, ext := range exts {
			steps = append(steps, func(dir map[string]int64) { dir[file(m.base, ext+CleanedSuffix)] = m.next })
		}
	}
	for i := len(out) - 1; i >= 0; i-- {
		for _, ext := range exts {
			rename(file(out[i].base, ext+CleanedSuffix), file(out[i].base, ext+SwapSuffix))
		}
	}
	for i := lo; i < hi; i++ {
		for _, ext := range exts {
			rename(file(i*10, ext), file(i*10, ext+DeletedSuffix))
		}
	}
	for _, m := range out {
		for _, ext := range exts {
			rename(file(m.base, ext+SwapSuffix), file(m.base, ext))
		}
	}
	return steps
}

// recoverSome carries the plan out, up to a random step if r is not nil, and reports
// whether it came to the end.
func recoverSome(t *testing.T, dir map[string]int64, r *rand.Rand) bool {
	t.Helper()
	var names []string
	for name := range dir {
		names = append(names, name)
	}
	p, err := PlanRecovery(names, func(name string) (int64, error) { return dir[name], nil })
	if err != nil {
		t.Fatal(err)
	}
	left := len(p.Delete) + len(p.Rename)
	if r != nil && left > 0 {
		left = r.IntN(left + 1)
	}
	all := left == len(p.Delete)+len(p.Rename)
	for _, name := range p.Delete[:min(left, len(p.Delete))] {
		delete(dir, name)
	}
	for _, ren := range p.Rename[:max(0, left-len(p.Delete))] {
		dir[ren.To] = dir[ren.From]
		delete(dir, ren.From)
	}
	return all
}

func snapshotOf(dir map[string]int64) string {
	var s []string
	for name, next := range dir {
		if !strings.HasSuffix(name, DeletedSuffix) {
			s = append(s, fmt.Sprintf("%s=%d", strings.TrimLeft(name, "0"), next))
		}
	}
	slices.Sort(s)
	return strings.Join(s, " ")
}

func FuzzPlanRecovery(f *testing.F) {
	f.Add(strings.Join([]string{file(0, "log"), file(0, "log.swap"), file(5, "log.cleaned"), "x.deleted"}, "\n"), int64(7))
	f.Fuzz(func(t *testing.T, list string, next int64) {
		names := strings.Split(list, "\n")
		p, err := PlanRecovery(names, func(string) (int64, error) { return next, nil })
		if err != nil || p.SyncAt < 0 || p.SyncAt > len(p.Delete) {
			t.Fatalf("%+v, %v", p, err)
		}
		gone := map[string]bool{}
		for _, name := range p.Delete {
			gone[name] = true
			if !slices.Contains(names, name) {
				t.Fatalf("deletes %q, which is not there", name)
			}
		}
		for _, r := range p.Rename {
			if gone[r.From] || !slices.Contains(names, r.From) {
				t.Fatalf("renames %q", r.From)
			}
		}
	})
}
