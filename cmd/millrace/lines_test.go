package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-project/millrace"
)

// typed runs a command line that asks no broker.
func typed(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out strings.Builder
	root := rootCommand()
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs(args)
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

// A command that is not there is no success, and a family of commands alone is a question.
func TestUnknownCommands(t *testing.T) {
	for _, family := range []string{"topic", "group", "txn", "log", "bench"} {
		if out, err := typed(t, family, "verfy", "x"); err == nil || !strings.Contains(err.Error(), "verfy") {
			t.Errorf("%s verfy: %v\n%s", family, err, out)
		}
		if out, err := typed(t, family); err != nil || !strings.Contains(out, "Available Commands") {
			t.Errorf("%s: %v\n%s", family, err, out)
		}
	}
}

func TestFlagsThatExclude(t *testing.T) {
	for _, line := range []string{
		"produce t --json --key k", "produce t --json --key-separator :", "produce t --json --null-value x",
		"group reset-offsets g --from-file f --topic t", "group reset-offsets g --from-file f --all-topics",
	} {
		if _, err := typed(t, strings.Fields(line)...); err == nil || !strings.Contains(err.Error(), "none of the others can be") {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// Records without a key go to one partition after the other, as Kafka's own producer has them.
func TestProduceSpreads(t *testing.T) {
	n := startNode(t)
	n.run("topic", "create", "spread", "-p", "10")
	if out := n.run("topic", "create", "not-made", "--validate-only"); !strings.Contains(out, "could be created") {
		t.Errorf("nothing was to be created: %s", out)
	}
	file := filepath.Join(t.TempDir(), "lines")
	if err := os.WriteFile(file, []byte(strings.Repeat(strings.Repeat("x", 1000)+"\n", 20_000)), 0o600); err != nil {
		t.Fatal(err)
	}
	contains(t, n.run("produce", "spread", file), "20000 records acknowledged")
	contains(t, n.run("produce", "spread", file, "--partition", "3"), "20000 records acknowledged")
	used := map[string]int{}
	for _, line := range strings.Fields(n.run("consume", "spread", "--show", "partition")) {
		used[line]++
	}
	if len(used) < 3 || used["3"] < 20_000 { // 20 MB are some twenty batches
		t.Errorf("records by partition: %v", used)
	}
	if out := n.run("consume", "spread", "-n", "0"); out != "" {
		t.Errorf("no record was asked for: %.100s", out)
	}
}

func TestProduceJSONRefuses(t *testing.T) {
	n := startNode(t)
	for want, line := range map[string]string{
		"more than one JSON value": `{"value":"a"}{"value":"b"}`,
		"not UTF-8":                "{\"value\":\"caf\xe9\"}",
	} {
		file := filepath.Join(t.TempDir(), "lines")
		if err := os.WriteFile(file, []byte("{\"value\":\"good\"}\n"+line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		n.refuses("line 2: "+want, "produce", "json", file, "--json")
	}
}

// A signal ends what waits for a line that does not come.
func TestProduceEndsByASignal(t *testing.T) {
	n := startNode(t)
	binary := filepath.Join(t.TempDir(), "millrace")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(binary, "produce", "slow", "-b", n.addr)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintln(in, "a line"); err != nil {
		t.Fatal(err)
	}
	for n.try("consume", "slow"); ; time.Sleep(20 * time.Millisecond) {
		if out, _ := n.try("consume", "slow"); strings.Contains(out, "a line") {
			break
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		cmd.Process.Kill()
		t.Fatal("it goes on waiting for a line")
	}
	contains(t, said.String(), "1 records acknowledged, then: ")
}

// Damage is found whatever way the directory is named, and wherever a start would find it.
func TestLogVerifyFindsDamage(t *testing.T) {
	dir := t.TempDir()
	b, err := millrace.Start(dir)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t, b.Addr()}
	n.run("topic", "create", "orders")
	n.fill("orders", 10)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := typed(t, "log", "verify", dir); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, c := range []struct {
		file string // a pattern
		at   int64
	}{
		{"orders-0/*.log", -5}, {"meta.properties", 0}, {"recovery-point-offset-checkpoint", 0}, {"replication-offset-checkpoint", 0},
		{"log-start-offset-checkpoint", 0}, {"__cluster_metadata-0/quorum-state", 0}, {"__cluster_metadata-0/*.log", 40}, {"__cluster_metadata-0/*.checkpoint", 100},
	} {
		files, err := filepath.Glob(filepath.Join(dir, c.file))
		if err != nil || len(files) == 0 {
			t.Errorf("%s: no file (%v)", c.file, err)
			continue
		}
		whole, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		bad := []byte(string(whole))
		at := c.at
		if at < 0 {
			at += int64(len(bad))
		}
		bad[at] ^= 0x41
		if err := os.WriteFile(files[0], bad, 0o600); err != nil {
			t.Fatal(err)
		}
		dirs := []string{dir}
		if strings.HasPrefix(c.file, "orders") {
			dirs = append(dirs, filepath.Join(dir, "orders-0"), filepath.Join(dir, "orders-0")+"/", filepath.Join(dir, "orders-0", "."))
		}
		for _, d := range dirs {
			if out, err := typed(t, "log", "verify", d); err == nil || !strings.Contains(out, filepath.Base(files[0])) {
				t.Errorf("%s, by %s: %v\n%s", c.file, d, err, out)
			}
		}
		if err := os.WriteFile(files[0], whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(filepath.Join(dir, "orders-0"))
	if out, err := typed(t, "log", "verify", "."); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
