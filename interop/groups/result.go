package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// testTime bounds one round of a suite, as go test's -timeout.
const testTime = 15 * time.Minute

// result counts tests and subtests by how they ended.
type result struct {
	passed  int
	failed  map[string]string // name to output
	skipped map[string]string // name to reason
	gaveUp  map[string]string // name to output: failed by what no broker can spare its client
}

func (r *result) String() string {
	out := fmt.Sprintf("%d passed, %d failed, %d skipped", r.passed, len(r.failed), len(r.skipped))
	if len(r.gaveUp) > 0 {
		out += fmt.Sprintf(", %d gave up", len(r.gaveUp))
	}
	return out
}

// setApart takes the tests whose output has the text and nothing wrong, and what they are parts of,
// out of those that failed: they gave up.
func (r *result) setApart(text, wrong string) {
	for _, name := range slices.Backward(sortedKeys(r.failed)) { // a test after its parts
		output := r.failed[name]
		if strings.Contains(output, wrong) || !strings.Contains(output, text) && !r.onlyParts(name) {
			continue
		}
		if r.gaveUp == nil {
			r.gaveUp = map[string]string{}
		}
		r.gaveUp[name] += output
		delete(r.failed, name)
	}
}

// onlyParts says that a test has parts that gave up and none that failed otherwise.
func (r *result) onlyParts(name string) bool {
	part := func(other string) bool { return strings.HasPrefix(other, name+"/") }
	return slices.ContainsFunc(sortedKeys(r.gaveUp), part) && !slices.ContainsFunc(sortedKeys(r.failed), part)
}

func (r *result) fail(name, output string) {
	if r.failed == nil {
		r.failed = map[string]string{}
	}
	r.failed[name] += output
}

func (r *result) skip(name, reason string) {
	if r.skipped == nil {
		r.skipped = map[string]string{}
	}
	r.skipped[name] = reason
}

func (r *result) add(other *result) {
	r.passed += other.passed
	for name, output := range other.failed {
		r.fail(name, output)
	}
	for name, reason := range other.skipped {
		r.skip(name, reason)
	}
	for name, output := range other.gaveUp {
		if r.gaveUp == nil {
			r.gaveUp = map[string]string{}
		}
		r.gaveUp[name] += output
	}
}

func (r *result) printFailed(w io.Writer) {
	for _, name := range sortedKeys(r.failed) {
		fmt.Fprintf(w, "  FAILED %s\n", name)
		lines := strings.Split(strings.TrimSpace(r.failed[name]), "\n")
		for _, line := range lines[max(0, len(lines)-20):] {
			fmt.Fprintf(w, "    %s\n", line)
		}
	}
}

func (r *result) printSkipped(w io.Writer) {
	for _, name := range sortedKeys(r.skipped) {
		fmt.Fprintf(w, "  skipped %s: %s\n", name, r.skipped[name])
	}
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

// execute runs the binary but for the tests that are left out. All that it prints, the clients'
// logs with it, goes to out.log.
func execute(s *suite, c *compiled, env []string, pattern, out string) (result, error) {
	args := []string{"-test.v=test2json", "-test.timeout=" + testTime.String()}
	if len(s.left) > 0 {
		args = append(args, "-test.skip=^("+strings.Join(sortedKeys(s.left), "|")+")$")
	}
	if pattern != "" {
		args = append(args, "-test.run="+pattern)
	}
	log, err := os.Create(out + ".log")
	if err != nil {
		return result{}, err
	}
	defer log.Close()
	test := exec.Command(c.binary, append(args, c.args...)...)
	test.Dir, test.Env, test.Stderr = c.dir, append(os.Environ(), env...), log
	test.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	text, err := test.StdoutPipe()
	if err != nil {
		return result{}, err
	}
	convert := exec.Command("go", "tool", "test2json", "-t")
	convert.Stdin, convert.Stderr = io.TeeReader(text, log), os.Stderr
	events, err := convert.StdoutPipe()
	if err != nil {
		return result{}, err
	}
	if err := test.Start(); err != nil {
		return result{}, err
	}
	if err := convert.Start(); err != nil {
		return result{}, err
	}
	r, err := read(events)
	if e := convert.Wait(); err == nil {
		err = e
	}
	if e := test.Wait(); e != nil && len(r.failed) == 0 {
		r.fail("(the test binary)", fmt.Sprintf("%v; its output is in %s.log", e, out))
	}
	return r, err
}

// read collects test2json's events.
func read(events io.Reader) (result, error) {
	var r result
	outputs := map[string]*strings.Builder{}
	lines := bufio.NewScanner(events)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e struct{ Action, Test, Output string }
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return r, fmt.Errorf("test2json printed %q: %w", lines.Bytes(), err)
		}
		if e.Test == "" {
			continue
		}
		if outputs[e.Test] == nil {
			outputs[e.Test] = new(strings.Builder)
		}
		switch e.Action {
		case "output":
			outputs[e.Test].WriteString(e.Output)
			continue
		case "pass":
			r.passed++
		case "fail":
			r.fail(e.Test, outputs[e.Test].String())
		case "skip":
			r.skip(e.Test, reason(outputs[e.Test].String()))
		default:
			continue
		}
		delete(outputs, e.Test)
	}
	for name, output := range outputs { // a panic or the time limit left them
		r.fail(name, output.String()+"did not end")
	}
	return r, lines.Err()
}

// reason picks what t.Skip said out of a test's output.
func reason(output string) string {
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "===") || strings.HasPrefix(line, "---") {
			continue
		}
		if _, text, ok := strings.Cut(line, ".go:"); ok {
			_, text, _ = strings.Cut(text, ": ")
			return text
		}
		return line
	}
	return "no reason given"
}
