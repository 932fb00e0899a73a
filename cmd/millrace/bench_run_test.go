package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/millrace-project/millrace"
	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/bench"
)

// tryBench runs `millrace bench` with what follows.
func tryBench(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	root := rootCommand()
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs(append([]string{"bench"}, args...))
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

func TestBenchRunComparesTargets(t *testing.T) {
	a, b := startNode(t, millrace.Set("millrace.durability", "os")), startNode(t, millrace.Set("millrace.durability", "os"))
	dir := t.TempDir()
	out, err := tryBench(t, "run", "produce-s*", "end-to-end", "--target", "old="+a.addr, "--target", "new="+b.addr, "--against", "old,new",
		"--rounds", "2", "--duration", "100ms", "--warm", "0",
		"--html", filepath.Join(dir, "r.html"), "--json", filepath.Join(dir, "r.json"), "--benchstat", filepath.Join(dir, "r.txt"), "--markdown", filepath.Join(dir, "r.md"))
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"produce-single", "end-to-end", "old", "new", "new ÷ old"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	f, err := os.Open(filepath.Join(dir, "r.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	report, err := bench.ReadJSON(f)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Rows) != 4 || len(report.Rows[0].Figures) != 2 || len(report.Ratios) == 0 {
		t.Errorf("%d rows, %d ratios", len(report.Rows), len(report.Ratios))
	}
	for _, name := range []string{"r.html", "r.txt", "r.md"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v %v", name, info, err)
		}
	}
}

func TestBenchRunSaysWhatIsWrong(t *testing.T) {
	const dead = "x=127.0.0.1:1"
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"run"}, "at least 1 arg"},
		{[]string{"run", "produce"}, "name a target"},
		{[]string{"run", "prodce", "--target", dead}, `no workload is called "prodce"`},
		{[]string{"run", "[", "--target", dead}, "syntax error"},
		{[]string{"run", "produce", "--target", dead}, "refused"},
		{[]string{"run", "produce", "--target", "127.0.0.1:1"}, "no name"},
		{[]string{"run", "produce", "--target", dead, "--target", dead}, "two targets"},
		{[]string{"run", "produce", "--target", dead, "--against", "y"}, "no target is called y"},
		{[]string{"run", "produce", "--target", dead, "--client", "sarama"}, `no client is called "sarama"`},
		{[]string{"run", "tail", "--target", dead, "--client", "franz-go"}, "own client only"},
		{[]string{"run", "produce", "--target", dead, "--client", "own,own"}, "twice"},
		{[]string{"run", "produce", "--target", dead, "--rounds", "0"}, "--rounds"},
		{[]string{"run", "produce", "--target", dead, "--connections", "-3"}, "--connections"},
		{[]string{"run", "produce", "--target", dead, "--compression", "rar"}, "--compression"},
		{[]string{"run", "produce", "--target", dead, "--json", filepath.Join(t.TempDir(), "none", "x.json")}, "no such file"},
		{[]string{"run", "produce", "--spawn", "redis"}, "redis"},
	} {
		if out, err := tryBench(t, c.args...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q\n%s", c.args, err, c.want, out)
		}
	}
}

// A row that does not count makes the command fail, after the table has said why.
func TestBenchRunFailsWhenARowDoesNotCount(t *testing.T) {
	n := startNode(t)
	out, err := tryBench(t, "run", "produce", "--target", "small="+n.addr, "--rounds", "1", "--duration", "50ms", "--warm", "0", "--batch-bytes", "2000000")
	if err == nil || !strings.Contains(out, "MESSAGE_TOO_LARGE") {
		t.Errorf("%v\n%s", err, out)
	}
}

// Flags that are given change every workload; the others leave each its own.
func TestBenchShapeFlags(t *testing.T) {
	var b benchRun
	fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
	b.add(fs)
	if err := fs.Parse([]string{"--rate", "7", "--in-flight", "3", "-z", "zstd", "--fill-bytes", "99", "--key-bytes", "0", "--groups", "5", "--members", "2", "--commit-every", "20ms"}); err != nil {
		t.Fatal(err)
	}
	change, err := b.change(fs)
	if err != nil {
		t.Fatal(err)
	}
	s := bench.Shape{Rate: 1, InFlight: 1, Codec: batch.Gzip, FillBytes: 1, KeyBytes: 1, Connections: 44, RecordBytes: 55, Groups: 66, Members: 1}
	change(&s)
	if want := (bench.Shape{Rate: 7, InFlight: 3, Codec: batch.Zstd, FillBytes: 99, Connections: 44, RecordBytes: 55, Groups: 5, Members: 2, CommitEvery: 20 * time.Millisecond}); s != want {
		t.Errorf("%+v, want %+v", s, want)
	}
}

func TestBenchListNamesEveryWorkload(t *testing.T) {
	out, err := tryBench(t, "list")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range bench.Catalogue() {
		if !strings.Contains(out, e.Name) || !strings.Contains(out, e.About) {
			t.Errorf("%s is not in\n%s", e.Name, out)
		}
	}
}

// Each client has a row of its own, which is called by it.
func TestBenchRunByClients(t *testing.T) {
	n := startNode(t, millrace.Set("millrace.durability", "os"))
	out, err := tryBench(t, "run", "produce", "--target", "it="+n.addr, "--client", "own,franz-go", "--rounds", "1", "--duration", "100ms", "--warm", "0")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"\nproduce\n", "\nproduce-by-franz-go\n", "client franz-go: "} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}
