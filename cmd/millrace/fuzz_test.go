package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The command starts its own binary again as workers, so it is run as a binary.
func TestFuzzCommand(t *testing.T) {
	dir := t.TempDir()
	bin := filepath.Join(dir, "millrace")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	run := func(args ...string) (string, int) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), bin, append([]string{"fuzz"}, args...)...)
		cmd.Dir = dir
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return out.String(), cmd.ProcessState.ExitCode()
	}

	list, status := run("--list")
	for _, want := range []string{"batch ", "recovery ", "request-Produce ", "offset-index ", "records-metadata ", "metadata-quorum-state "} {
		if status != 0 || !strings.Contains(list, want) {
			t.Errorf("the list has no %q, status %d:\n%s", want, status, list)
		}
	}
	row := func() string {
		out, status := run("--target", "batch", "--target", "request-Fetch", "--inputs", "200", "--workers", "2", "--seed", "5")
		if status != 0 || !strings.Contains(out, "0 findings, seed 5") {
			t.Fatalf("status %d:\n%s", status, out)
		}
		var rows []string
		for line := range strings.Lines(out) {
			if f := strings.Fields(line); len(f) > 5 && f[2] == "inputs" {
				rows = append(rows, f[0]+" "+f[1]+" "+f[4])
			}
		}
		return strings.Join(rows, "\n")
	}
	if first, again := row(), row(); first != again || !strings.Contains(first, "batch 400 ") {
		t.Errorf("the same seed gave:\n%s\nthen:\n%s", first, again)
	}
	if _, err := os.Stat(filepath.Join(dir, "fuzz-findings")); err == nil {
		t.Error("a directory for findings was made, and there are none")
	}

	input := filepath.Join(dir, "input")
	if err := os.WriteFile(input, []byte("0\n1\nt 0 17\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, status := run("--target", "offset-checkpoint", "--input", input); status != 0 || !strings.Contains(out, "11 bytes taken as they should be") {
		t.Errorf("status %d: %s", status, out)
	}
	for want, args := range map[string][]string{
		`no target "btach"`: {"--target", "btach"},
		"with one --target": {"--input", input},
		"no such file":      {"--target", "batch", "--input", filepath.Join(dir, "none")},
		"--workers":         {"--workers", "0"},
	} {
		if out, status := run(args...); status != 1 || !strings.Contains(out, want) {
			t.Errorf("%q: status %d: %s", args, status, out)
		}
	}
}
