package fuzz

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path"
	"regexp"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
)

// Target is one thing that reads bytes which it cannot trust.
type Target struct {
	Name  string
	About string // for the list: what is read, and what is held against it

	// Seed makes an input as it should be. It must depend on nothing but rng.
	Seed func(rng *rand.Rand) []byte
	// Fix puts checksums right after a mutation, so that what stands behind them is reached; nil: there are none.
	Fix func(p []byte)
	// Check reads the input. The error is a finding. outcome is what became of the input in a few
	// words, the same words for the same way through the code: inputs with a new outcome are kept
	// and mutated further. Check may change p only if Writes is set, and keep it never.
	Check func(p []byte) (outcome string, err error)
	// Writes: what is read is stamped in place.
	Writes bool
	// MaxAlloc bounds what one input may allocate; 0 is 32 MiB and 1 KiB for each of its bytes.
	MaxAlloc uint64
}

// Targets lists all targets, by name.
func Targets() []*Target {
	all := slices.Concat(batchTargets(), recordTargets(), fileTargets(), requestTargets(), recoveryTargets())
	slices.SortFunc(all, func(a, b *Target) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Select returns the targets that the patterns name, each "all", a name, or a pattern with * as in
// file names. A pattern that names none is an error.
func Select(patterns []string) ([]*Target, error) {
	var out []*Target
	for _, pattern := range patterns {
		found := false
		for _, t := range Targets() {
			match, err := path.Match(pattern, t.Name)
			if err != nil {
				return nil, fmt.Errorf("fuzz: target %q: %w", pattern, err)
			}
			if !match && pattern != "all" {
				continue
			}
			found = true
			if !slices.ContainsFunc(out, func(o *Target) bool { return o.Name == t.Name }) {
				out = append(out, t)
			}
		}
		if !found {
			return nil, fmt.Errorf("fuzz: no target %q: see --list", pattern)
		}
	}
	return out, nil
}

// Finding is an input that a target does not take as it should.
type Finding struct {
	Target string
	Kind   string // panic, wrong, memory, hang or crash
	Detail string // what happened, with the stack where there is one
	Key    string // findings of one cause share it
	Input  []byte
}

// Title is a finding in a line.
func (f *Finding) Title() string {
	first, _, _ := strings.Cut(f.Detail, "\n")
	return fmt.Sprintf("%s: %s: %.200s", f.Target, f.Kind, first)
}

// Try has the target read one input in this goroutine. It returns the outcome, or what is wrong.
// A hang, and whatever ends a process, is the caller's to notice.
func (t *Target) Try(p []byte) (outcome string, f *Finding) {
	in := bytes.Clone(p)
	before := allocated()
	defer func() {
		if r := recover(); r != nil {
			stack := string(debug.Stack())
			f = t.finding("panic", fmt.Sprintf("%v\n%s", r, stack), panicKey(fmt.Sprint(r), stack), p)
		}
	}()
	outcome, err := t.Check(in)
	spent := allocated() - before
	switch limit := t.allocLimit(len(p)); {
	case err != nil:
		return outcome, t.finding("wrong", err.Error(), Words(err.Error()), p)
	case spent > limit:
		return outcome, t.finding("memory", fmt.Sprintf("%d bytes were allocated for an input of %d; the limit is %d", spent, len(p), limit), "", p)
	case !t.Writes && !bytes.Equal(in, p):
		return outcome, t.finding("wrong", "the input was changed by its reader", "", p)
	}
	return outcome, nil
}

func (t *Target) finding(kind, detail, key string, p []byte) *Finding {
	return &Finding{Target: t.Name, Kind: kind, Detail: detail, Key: kind + " " + key, Input: bytes.Clone(p)}
}

func (t *Target) allocLimit(n int) uint64 {
	if t.MaxAlloc > 0 {
		return t.MaxAlloc
	}
	return 32<<20 + 1024*uint64(n)
}

// allocated is the sum of all allocations of this process so far.
func allocated() uint64 {
	sample := [1]metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample[:])
	return sample[0].Value.Uint64()
}

var (
	quoted     = regexp.MustCompile(`"(\\.|[^"\\])*"`)
	numbers    = regexp.MustCompile(`-?\b([0-9][0-9a-fA-Fx]*|[0-9a-f]{8,})\b`)
	stackLines = regexp.MustCompile(`(?m)^\t(\S+\.go:\d+)`)
)

// Words is a text without what differs from input to input: numbers and quoted parts.
func Words(s string) string {
	if len(s) > 400 {
		s = s[:400]
	}
	return numbers.ReplaceAllString(quoted.ReplaceAllString(s, `""`), "#")
}

// panicKey is where a panic came from: the frames nearest to it that are not the runtime's.
func panicKey(what, stack string) string {
	if i := strings.LastIndex(stack, "panic("); i >= 0 {
		stack = stack[i:]
	}
	key := Words(what)
	n := 0
	for _, m := range stackLines.FindAllStringSubmatch(stack, -1) {
		if strings.Contains(m[1], "/runtime/") {
			continue
		}
		key += " " + path.Base(m[1])
		if n++; n == 3 {
			break
		}
	}
	return key
}
