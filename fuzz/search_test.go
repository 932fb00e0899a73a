package fuzz

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace-project/millrace/records"
)

// workerEnv makes the test's own binary a worker: its value is the target and the options.
const workerEnv = "MILLRACE_FUZZ_TEST_WORKER"

func TestMain(m *testing.M) {
	if os.Getenv(workerEnv) == "" || len(os.Args) < 3 {
		os.Exit(m.Run())
	}
	name, o, err := ParseWorkerArgs(os.Args[len(os.Args)-2:])
	for _, t := range append(plantedTargets(), Targets()...) {
		if err == nil && t.Name == name {
			err = Work(t, o, os.Stdin, os.Stdout)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

var sink [][]byte

// plantedTargets each do one thing that must be found, at a byte that only mutation puts there.
func plantedTargets() []*Target {
	planted := func(name string, do func() error) *Target {
		return &Target{
			Name: name,
			Seed: func(*rand.Rand) []byte { return []byte("0123456789") },
			Check: func(p []byte) (string, error) {
				if i := bytes.IndexByte(p, 0xff); i > 0 {
					return "planted", do()
				}
				return "fine", nil
			},
		}
	}
	forever := make(chan int)
	return []*Target{
		planted("planted-panic", func() error { panic("planted") }),
		planted("planted-wrong", func() error { return errors.New("planted 17") }),
		planted("planted-memory", func() error { sink = append(sink[:0], make([]byte, 64<<20)); return nil }),
		planted("planted-hang", func() error { <-forever; return nil }),
		planted("planted-crash", func() error {
			go panic("planted in a goroutine")
			<-forever
			return nil
		}),
	}
}

func runPlanted(t *testing.T, target *Target, edit func(*Options)) (found []*Finding, dir string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(workerEnv, "1")
	o := Options{Targets: []*Target{target}, Seed: 1, Inputs: 3000, Workers: 1, Deadline: 20 * time.Second, Dir: filepath.Join(t.TempDir(), "found"), Command: []string{self}}
	o.Found = func(f *Finding, file string) {
		found = append(found, f)
		if p, err := os.ReadFile(file); err != nil || !bytes.Equal(p, f.Input) {
			t.Errorf("%s: %q, %v; the input is %q", file, p, err, f.Input)
		}
	}
	if edit != nil {
		edit(&o)
	}
	n, err := Run(t.Context(), o)
	if err != nil || n != len(found) {
		t.Fatalf("%d findings, %d told, %v", n, len(found), err)
	}
	return found, o.Dir
}

// A search finds each kind of failure, once, with an input that has it.
func TestPlantedFailuresAreFound(t *testing.T) {
	for _, target := range plantedTargets() {
		kind := strings.TrimPrefix(target.Name, "planted-")
		inputs := int64(3000)
		if kind == "hang" || kind == "crash" {
			inputs = 60 // each ends a process
		}
		found, _ := runPlanted(t, target, func(o *Options) {
			if o.Inputs = inputs; kind == "hang" {
				o.Deadline = 300 * time.Millisecond
			}
		})
		if len(found) != 1 || found[0].Kind != kind {
			t.Errorf("%s: %+v", target.Name, found)
			continue
		}
		if in := found[0].Input; bytes.IndexByte(in, 0xff) < 1 {
			t.Errorf("%s: the input is %q", target.Name, in)
		} else if (kind == "panic" || kind == "wrong") && len(in) != 2 {
			t.Errorf("%s: %q is not the smallest input", target.Name, in)
		}
	}
}

// The same seed and stream are the same inputs; another is another.
func TestStreamsRepeat(t *testing.T) {
	row := func(target *Target, seed, number uint64) (all [][]byte) {
		s := newStream(target, seed, number)
		for range 300 {
			p := s.next()
			all = append(all, p)
			if outcome, f := target.Try(p); f != nil {
				t.Fatal(f.Title())
			} else {
				s.learn(p, outcome)
			}
		}
		return all
	}
	equal := func(a, b [][]byte) bool { return bytes.Equal(bytes.Join(a, nil), bytes.Join(b, nil)) }
	for _, name := range []string{"batch", "records-group"} {
		targets, err := Select([]string{name})
		if err != nil {
			t.Fatal(err)
		}
		first := row(targets[0], 7, 0)
		if !equal(first, row(targets[0], 7, 0)) {
			t.Errorf("%s: the same seed gives other inputs", name)
		}
		if equal(first, row(targets[0], 8, 0)) || equal(first, row(targets[0], 7, 1)) {
			t.Errorf("%s: another seed or stream gives the same inputs", name)
		}
	}
}

// Every target takes its own seeds and some hundred mutations of them, and tells them apart.
func TestTargets(t *testing.T) {
	rounds := 300
	if testing.Short() {
		rounds = 60
	}
	for _, target := range Targets() {
		s := newStream(target, 1, 0)
		for range rounds {
			p := s.next()
			outcome, f := target.Try(p)
			if f != nil {
				t.Errorf("%s\n%x\n%s", f.Title(), p, f.Detail)
				break
			}
			s.learn(p, outcome)
		}
		if len(s.seen) < 2 {
			t.Errorf("%s: every input has the same outcome: %v", target.Name, s.seen)
		}
	}
}

func TestSelect(t *testing.T) {
	for _, c := range []struct {
		patterns string
		want     int
	}{{"batch", 1}, {"records-*", 6}, {"batch,records-group,records-*", 7}} {
		if got, err := Select(strings.Split(c.patterns, ",")); err != nil || len(got) != c.want {
			t.Errorf("%s: %d targets, %v", c.patterns, len(got), err)
		}
	}
	if _, err := Select([]string{"btach"}); err == nil || !strings.Contains(err.Error(), `"btach"`) {
		t.Errorf("%v", err)
	}
	seen := map[string]bool{}
	for _, target := range Targets() {
		if seen[target.Name] || target.About == "" || target.Seed == nil || target.Check == nil {
			t.Errorf("%+v", target)
		}
		seen[target.Name] = true
	}
}

// Every record type that there is has a seed.
func TestEveryRecordHasASeed(t *testing.T) {
	have := map[string]bool{}
	for _, m := range append(append(metadataRecords(), remoteRecords()...), controls()...) {
		have[m.Schema().Name] = true
	}
	for _, pairs := range [][][2]records.Message{groupRecords(), transactionRecords(), shareRecords()} {
		for _, pair := range pairs {
			have[pair[0].Schema().Name], have[pair[1].Schema().Name] = true, true
		}
	}
	files, err := filepath.Glob("../records/*_gen.go")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, file := range files {
		p, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(p)) {
			rest, ok := strings.CutPrefix(line, "func New")
			if name, _, is := strings.Cut(rest, "()"); ok && is {
				n++
				if !have[name] {
					t.Errorf("%s has no seed", name)
				}
			}
		}
	}
	if n < 60 {
		t.Errorf("only %d record types were found", n)
	}
}
