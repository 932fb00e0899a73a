package fuzz

import (
	"bytes"
	"cmp"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var corpusSearch = flag.Duration("corpus.search", 0, "how long TestCorpora searches for better inputs of each target, before it writes the corpora")

// Bounds of a corpus, and how long making one input smaller may take.
const (
	corpusMost   = 32
	corpusLength = 2 << 10
	corpusShrink = 200 * time.Millisecond
)

// Each input of a corpus has the outcome that is written beside it: that a reader answers damage as it
// did. Where it is to answer otherwise, -corpus.search=1s writes what it answers now.
func TestCorpora(t *testing.T) {
	for _, target := range Targets() {
		if *corpusSearch > 0 {
			writeCorpus(t, target)
			continue
		}
		all := target.corpus()
		if len(all) == 0 {
			t.Errorf("%s has no corpus", target.Name)
		}
		for _, k := range all {
			outcome, f := target.Try(k.input)
			if f != nil {
				t.Errorf("%s\n%x", f.Title(), k.input)
			} else if got := Words(outcome); got != k.outcome {
				t.Errorf("%s: %q, and it was %q, of\n%x", target.Name, got, k.outcome, k.input)
			}
		}
	}
}

// writeCorpus searches for inputs with different outcomes, makes them small and writes the corpus.
func writeCorpus(t *testing.T, target *Target) {
	t.Helper()
	found := map[string][]byte{}
	try := func(p []byte) (outcome string, ok bool) {
		outcome, f := target.Try(p)
		if outcome = Words(outcome); f != nil || len(p) > corpusLength {
			return outcome, f == nil
		}
		if old, ok := found[outcome]; !ok || len(p) < len(old) {
			found[outcome] = slices.Clone(p)
		}
		return outcome, true
	}
	s := newStream(target, 1, 0)
	for _, p := range s.pool {
		try(p)
	}
	for end := time.Now().Add(*corpusSearch); time.Now().Before(end); {
		p := s.next()
		if outcome, ok := try(p); ok {
			s.learn(p, outcome)
		} else {
			t.Errorf("%s: a finding in %x", target.Name, p)
		}
	}
	var all []kept
	for outcome, p := range found {
		all = append(all, kept{outcome, p})
	}
	// Long outcomes are several short ones one after another.
	slices.SortFunc(all, func(a, b kept) int {
		return cmp.Or(cmp.Compare(len(a.outcome), len(b.outcome)), strings.Compare(a.outcome, b.outcome))
	})
	all = all[:min(len(all), corpusMost)]
	for i := range all {
		shrinkKept(target, &all[i])
	}
	if err := os.WriteFile(corpusFile(target.Name), []byte(formatCorpus(all)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// shrinkKept makes an input smaller that keeps its outcome, with its checksums put right where it must.
func shrinkKept(target *Target, k *kept) {
	same := func(p []byte) bool {
		outcome, f := target.Try(p)
		return f == nil && Words(outcome) == k.outcome
	}
	end := time.Now().Add(corpusShrink)
	k.input = shrink(k.input, func() bool { return time.Now().After(end) }, func(p []byte) ([]byte, bool) {
		if same(p) {
			return p, true
		}
		if target.Fix == nil {
			return nil, false
		}
		target.Fix(p)
		return p, same(p)
	})
}

// No file is left of a target that is gone, and what is written can be read.
func TestCorporaAreOfTargets(t *testing.T) {
	names := map[string]bool{}
	for _, target := range Targets() {
		names[filepath.Base(corpusFile(target.Name))] = true
	}
	files, err := fs.ReadDir(corpora, "testdata/corpora")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !names[f.Name()] {
			t.Errorf("%s is no target's", f.Name())
		}
	}
	all := []kept{{"an \"outcome\"\t#", []byte{0, 1, 2}}, {"", nil}}
	got, err := parseCorpus(formatCorpus(all))
	if err != nil || !slices.EqualFunc(got, all, func(a, b kept) bool { return a.outcome == b.outcome && string(a.input) == string(b.input) }) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"outcome\tAAAA\n", "\"outcome\"\tA\n"} {
		if _, err := parseCorpus(bad); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
}

// What was found once is taken as it should be now. The files are as millrace fuzz writes them.
func TestFoundOnce(t *testing.T) {
	files, err := filepath.Glob("testdata/found/*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no inputs: %v", err)
	}
	for _, file := range files {
		i := strings.LastIndexByte(file, '-')
		targets, err := Select([]string{filepath.Base(file[:i])})
		if err != nil {
			t.Error(err)
			continue
		}
		p, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, f := targets[0].Try(p); f != nil {
			t.Errorf("%s: %s", file, f.Title())
		}
	}
}

// An input is in every process what it was in the one that found it: the directories that it mangles are
// the same whenever they are made.
func TestDirectoriesRepeat(t *testing.T) {
	want := append([]*directory{{about: "metadata", tree: metadataDirectory()}}, engineDirectories()...)
	for range 20 {
		for i, d := range append([]*directory{{tree: makeMetadataDirectory()}}, makeEngineDirectories()...) {
			if !slices.Equal(d.tree.names(), want[i].tree.names()) {
				t.Fatalf("%s: files %v, and they were %v", want[i].about, d.tree.names(), want[i].tree.names())
			}
			for name, p := range d.tree {
				if !bytes.Equal(p, want[i].tree[name]) {
					t.Errorf("%s: %s is another:\n%x\n%x", want[i].about, name, p, want[i].tree[name])
				}
			}
		}
	}
}
