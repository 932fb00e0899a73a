// Command mutants plants known bugs, one at a time, into a copy of the source tree and runs the
// narrow test command that has to notice each. It prints which test did, and how long that took. A
// mutant that survives is a test that is missing; one whose text is no longer in its file, or that
// does not compile, is an error of the table. It touches the tree that it is run in never.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

func main() {
	only := flag.String("run", "", "only mutants whose name, file or package matches this expression")
	list := flag.Bool("list", false, "list the mutants")
	with := flag.String("with", "", "package and expression, such as './commitlog TestPowerCuts': these tests have to notice, instead of those of the table")
	timeout := flag.Duration("timeout", 3*time.Minute, "for each test command; one that takes longer has noticed a hang")
	flag.Parse()
	pattern, err := regexp.Compile(*only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(2)
	}
	var chosen []mutant
	for _, m := range mutants {
		if pattern.MatchString(m.name) || pattern.MatchString(m.file) || pattern.MatchString(m.pkg) {
			if pkg, run, ok := strings.Cut(*with, " "); ok {
				m.pkg, m.run = pkg, run
			}
			chosen = append(chosen, m)
		}
	}
	if *list {
		for _, m := range chosen {
			fmt.Printf("%-48s %-28s go test %s -run '%s'\n", m.name, m.file, m.pkg, m.run)
		}
		return
	}
	survived, err := run(chosen, *timeout)
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(2)
	case survived > 0:
		os.Exit(1)
	}
}

// run tries the mutants in a copy of the module that holds the working directory.
func run(chosen []mutant, timeout time.Duration) (survived int, err error) {
	root, err := moduleRoot()
	if err != nil {
		return 0, err
	}
	if err := check(root, chosen); err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "millrace-mutants-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if err := copyTree(dir, root); err != nil {
		return 0, err
	}
	sound := map[string]bool{} // test commands that pass without a mutant
	began := time.Now()
	var errs []error
	for _, m := range chosen {
		if key := m.pkg + " " + m.run; !sound[key] {
			if v := test(dir, m, timeout); v.caught || v.err != nil {
				errs = append(errs, fmt.Errorf("%s: go test %s -run '%s' fails without a mutant: %s %v\n%s", m.name, m.pkg, m.run, v.by, v.err, v.out))
				fmt.Printf("%-48s %-28s ERROR: the test fails without it\n", m.name, m.file)
				continue
			}
			sound[key] = true
		}
		v, err := plant(dir, m, timeout)
		verdict := "caught by " + v.by
		switch {
		case err != nil:
			verdict = "ERROR"
			errs = append(errs, err)
		case !v.caught:
			verdict = "SURVIVED"
			survived++
		}
		fmt.Printf("%-48s %-28s %6.1f s  %s\n", m.name, m.file, v.took.Seconds(), verdict)
	}
	fmt.Printf("%d mutants, %d caught, %d survived, %d errors, %s\n", len(chosen), len(chosen)-survived-len(errs), survived, len(errs), time.Since(began).Round(time.Second))
	return survived, errors.Join(errs...)
}

// moduleRoot is the nearest directory with a go.mod.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if filepath.Dir(dir) == dir {
			return "", errors.New("no go.mod here or above")
		}
	}
	return "", err
}

// check says which mutants have no place any more: their text must be in the file once.
func check(root string, chosen []mutant) error {
	var errs []error
	for _, m := range chosen {
		p, err := os.ReadFile(filepath.Join(root, m.file))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if n := strings.Count(string(p), m.old); n != 1 {
			errs = append(errs, fmt.Errorf("%s: its text stands %d times in %s, and must once", m.name, n, m.file))
		}
	}
	return errors.Join(errs...)
}

func copyTree(to, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if rel == "interop" || rel == "bin" || rel != "." && strings.HasPrefix(d.Name(), ".") {
				return filepath.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		p, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), p, 0o644)
	})
}

// plant puts a mutant into the copy, tests it and takes it out again.
func plant(dir string, m mutant, timeout time.Duration) (v verdict, err error) {
	name := filepath.Join(dir, m.file)
	was, err := os.ReadFile(name)
	if err != nil {
		return v, err
	}
	if err := os.WriteFile(name, []byte(strings.Replace(string(was), m.old, m.new, 1)), 0o644); err != nil {
		return v, err
	}
	v = test(dir, m, timeout)
	if err := os.WriteFile(name, was, 0o644); err != nil {
		return v, err
	}
	if v.err != nil {
		return v, fmt.Errorf("%s: %w\n%s", m.name, v.err, v.out)
	}
	return v, nil
}

// verdict is what became of a test command.
type verdict struct {
	caught bool
	by     string // the first test that failed
	took   time.Duration
	out    string
	err    error // the command could not be run, or did not compile
}

var (
	failed  = regexp.MustCompile(`(?m)^--- FAIL: (\S+)`)
	running = regexp.MustCompile(`(?m)^\t\t?(Test\S+|Fuzz\S+) \(`)
	paniced = regexp.MustCompile(`(?m)^(panic: .{0,80}|fatal error: .{0,80})`)
)

func test(dir string, m mutant, timeout time.Duration) verdict {
	ctx, cancel := context.WithTimeout(context.Background(), timeout+time.Minute) // and what it takes to compile
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "test", "-vet=off", "-short", "-count=1", "-failfast", "-timeout", timeout.String(), "-run", m.run, m.pkg)
	cmd.Dir, cmd.WaitDelay = dir, 10*time.Second // a test's child may hold its output open
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	began := time.Now()
	p, err := cmd.CombinedOutput()
	v := verdict{took: time.Since(began), out: string(p)}
	var exit *exec.ExitError
	switch {
	case err == nil && strings.Contains(v.out, "[no tests to run]"):
		v.err = errors.New("no test of that name")
	case err == nil:
	case strings.Contains(v.out, "[build failed]") || strings.Contains(v.out, "[setup failed]"):
		v.err = errors.New("it does not compile")
	case !errors.As(err, &exit):
		v.err = err
	default:
		v.caught, v.by = true, noticed(v.out)
	}
	return v
}

// noticed says by what a failed test command noticed.
func noticed(out string) string {
	if m := failed.FindStringSubmatch(out); m != nil {
		return m[1]
	}
	by := "the end of the process"
	if m := paniced.FindStringSubmatch(out); m != nil {
		by = m[1]
	}
	if m := running.FindStringSubmatch(out); m != nil {
		by += " in " + m[1]
	}
	return by
}
