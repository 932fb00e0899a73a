// Command groups runs other people's own tests of consumer groups against the broker: all of
// franz-go's client tests, at the version that this module requires, from the source in the module
// cache; and the tests that franz-go's project translated from Kafka's, through package kfake here.
// Each round starts brokers of its own. It prints what passed, failed and was left out, and why,
// and exits with 1 after a failure. With BROKER=kafka it runs the same against Apache Kafka.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/millrace-project/millrace/interop/subject"
)

// suite is one project's tests: their compiled binary and how it is run.
type suite struct {
	name string
	// prepare compiles the tests into the directory.
	prepare func(dir string) (compiled, error)
	// left names tests that are not run, each with the reason.
	left map[string]string
	// kill matches the tests that run while their broker is killed again and again, unless others
	// are asked for: those that need nothing but answers in the end. None when it is empty.
	kill string
	// gaveUp is what a test prints that fails then for nothing but what no broker can spare its client.
	gaveUp string
	// wrong is what it prints when an answer was wrong, whatever became of it then.
	wrong string
}

// compiled is a test binary.
type compiled struct {
	binary string
	dir    string // what it runs in
	env    []string
	args   []string
	broker []string // settings of the broker that it needs; nil when it starts its own
}

type options struct {
	rounds int
	kill   time.Duration
	run    string
	suites string
	keep   bool
}

func main() {
	var o options
	var records int
	flag.IntVar(&o.rounds, "rounds", 1, "how often everything runs")
	flag.IntVar(&records, "records", 50_000, "records that franz-go's chains of groups move, three times for each balancer")
	flag.DurationVar(&o.kill, "kill", 0, "kill the broker with SIGKILL this often while the tests run, three times and after a minute again, and start it on its port and directory")
	flag.StringVar(&o.run, "run", "", "run only the tests that match, as of go test")
	flag.StringVar(&o.suites, "suites", "kgo,kafka_tests", "what to run")
	flag.BoolVar(&o.keep, "keep", false, "keep the output of rounds without failures too")
	flag.Parse()
	dir, err := os.MkdirTemp("", "millrace-groups-")
	bad := true
	if err == nil {
		bad, err = run(&o, []suite{kgo(records), kafkaTests()}, dir)
	}
	subject.Cleanup()
	if err != nil {
		fmt.Fprintln(os.Stderr, "groups:", err)
		os.Exit(1)
	}
	if bad {
		fmt.Println("output is in", dir)
		os.Exit(1)
	}
	if !o.keep {
		os.RemoveAll(dir)
	}
}

// run reports whether a test failed, or none passed: a pattern that names nothing is no success.
func run(o *options, suites []suite, dir string) (bad bool, err error) {
	wanted := strings.Split(o.suites, ",")
	var tests []compiled
	suites = slices.DeleteFunc(suites, func(s suite) bool {
		return !slices.Contains(wanted, s.name) || o.kill > 0 && s.kill == ""
	})
	for _, s := range suites {
		c, err := s.prepare(dir)
		if err != nil {
			return true, fmt.Errorf("%s: %w", s.name, err)
		}
		tests = append(tests, c)
	}
	totals := make([]result, len(suites))
	for round := range o.rounds {
		for i, s := range suites {
			begin := time.Now()
			out := filepath.Join(dir, fmt.Sprintf("%s-%d", s.name, round+1))
			r, err := runRound(o, &s, &tests[i], out)
			if err != nil {
				return true, fmt.Errorf("%s: %w", s.name, err)
			}
			fmt.Printf("round %d  %-12s %s in %v\n", round+1, s.name, &r, time.Since(begin).Round(time.Second))
			r.printFailed(os.Stdout)
			totals[i].add(&r)
			bad = bad || len(r.failed) > 0 || r.passed == 0
		}
	}
	for i, s := range suites {
		fmt.Printf("\n%s, %d rounds: %s\n", s.name, o.rounds, &totals[i])
		totals[i].printSkipped(os.Stdout)
		for _, name := range sortedKeys(s.left) {
			fmt.Printf("  left out %s: %s\n", name, s.left[name])
		}
	}
	return bad, nil
}

func runRound(o *options, s *suite, c *compiled, out string) (result, error) {
	env := slices.Clone(c.env)
	if !subject.IsKafka() { // built once, for the tests that start brokers too
		binary, err := subject.Binary()
		if err != nil {
			return result{}, err
		}
		env = append(env, "MILLRACE="+binary)
	}
	if c.broker == nil {
		return execute(s, c, env, o.run, out)
	}
	b, err := subject.Start(subject.Options{Dir: out + ".broker", Properties: c.broker})
	if err != nil {
		return result{}, err
	}
	env = append(env, "KGO_SEEDS="+b.Addr)
	if o.kill > 0 {
		pattern := o.run
		if pattern == "" {
			pattern = s.kill
		}
		k := startKilling(b, subject.Options{Dir: out + ".broker", Properties: c.broker}, o.kill)
		r, err := execute(s, c, env, pattern, out)
		r.setApart(s.gaveUp, s.wrong)
		kills, e := k.stop()
		fmt.Printf("the broker was killed %d times\n", kills)
		if e != nil {
			r.fail("(the broker)", e.Error())
		}
		return r, err
	}
	defer b.Kill()
	r, err := execute(s, c, env, o.run, out)
	if err == nil && !b.Running() {
		r.fail("(the broker)", "it has gone; its output is in "+b.Log)
	}
	return r, err
}
