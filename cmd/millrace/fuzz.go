package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace-project/millrace/fuzz"
)

type fuzzFlags struct {
	targets  []string
	list     bool
	input    string
	duration time.Duration
	inputs   int64
	seed     uint64
	workers  int
	deadline time.Duration
	dir      string
}

func fuzzCommand() *cobra.Command {
	var f fuzzFlags
	cmd := &cobra.Command{
		Use:   "fuzz",
		Short: "Search for bytes that a decoder or the recovery does not take as it should",
		Long: `Mutate inputs from a seed and give them to decoders of files, records and requests, and to the recovery
of whole directories. A panic, a hang, a mad allocation and a wrong answer are findings: the input is
written to a file, and the command line that repeats it is printed. Touches no data directory, needs no
broker and no Go. The same seed and number of workers give the same inputs. Ends with status 1 when
there is a finding.`,
		Example: `  millrace fuzz --duration 5m
  millrace fuzz --target 'records-*' --target recovery --duration 1h --seed 7
  millrace fuzz --target batch --input fuzz-findings/batch-0123456789ab`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case f.list:
				return listTargets(cmd)
			case f.input != "":
				return f.repeat(cmd)
			}
			return f.search(cmd)
		},
	}
	fs := cmd.Flags()
	fs.StringArrayVarP(&f.targets, "target", "t", []string{"all"}, "target, or pattern with * of targets; may be given again")
	fs.BoolVar(&f.list, "list", false, "list the targets")
	fs.StringVar(&f.input, "input", "", "try the bytes of this file once and say what becomes of them")
	fs.DurationVarP(&f.duration, "duration", "d", time.Minute, "how long, all targets together")
	fs.Int64Var(&f.inputs, "inputs", 0, "end after so many inputs of each worker on each target, not by time")
	fs.Uint64Var(&f.seed, "seed", 0, "where the inputs come from (default: at random, and printed)")
	fs.IntVar(&f.workers, "workers", runtime.GOMAXPROCS(0), "processes that search at the same time")
	fs.DurationVar(&f.deadline, "deadline", 20*time.Second, "an input that takes longer hangs")
	fs.StringVar(&f.dir, "out", "fuzz-findings", "directory for the inputs of findings, made when there is one")
	cmd.AddCommand(fuzzWorkerCommand())
	return cmd
}

// fuzzWorkerCommand is the process that tries the inputs; fuzz starts it.
func fuzzWorkerCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "worker TARGET OPTIONS",
		Hidden: true,
		Args:   cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			signal.Ignore(os.Interrupt, syscall.SIGTERM) // they go to the whole group, and fuzz ends its workers
			name, o, err := fuzz.ParseWorkerArgs(args)
			if err != nil {
				return err
			}
			targets, err := fuzz.Select([]string{name})
			if err != nil {
				return err
			}
			return fuzz.Work(targets[0], o, os.Stdin, os.Stdout)
		},
	}
}

func listTargets(cmd *cobra.Command) error {
	for _, t := range fuzz.Targets() {
		fmt.Fprintf(cmd.OutOrStdout(), "%-36s %s\n", t.Name, t.About)
	}
	return nil
}

// repeat tries one input in this process, so that whatever it does is seen as it is.
func (f *fuzzFlags) repeat(cmd *cobra.Command) error {
	targets, err := fuzz.Select(f.targets)
	if err != nil {
		return err
	}
	if len(targets) != 1 {
		return fmt.Errorf("--input goes with one --target, here are %d", len(targets))
	}
	p, err := os.ReadFile(f.input)
	if err != nil {
		return err
	}
	type answer struct {
		outcome string
		finding *fuzz.Finding
	}
	done := make(chan answer, 1)
	go func() {
		outcome, finding := targets[0].Try(p)
		done <- answer{outcome, finding}
	}()
	select {
	case a := <-done:
		if a.finding == nil {
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %d bytes taken as they should be: %s\n", targets[0].Name, len(p), a.outcome)
			return nil
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %s: %s\n", targets[0].Name, a.finding.Kind, a.finding.Detail)
	case <-time.After(f.deadline):
		fmt.Fprintf(cmd.OutOrStdout(), "%s: hang: no answer within %v\n", targets[0].Name, f.deadline)
	}
	return errVerdict
}

func (f *fuzzFlags) search(cmd *cobra.Command) error {
	targets, err := fuzz.Select(f.targets)
	if err != nil {
		return err
	}
	if f.workers < 1 || f.inputs < 0 || f.inputs == 0 && f.duration <= 0 || f.deadline <= 0 {
		return errors.New("--workers, --duration and --deadline are above 0, --inputs is not below")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if !cmd.Flags().Changed("seed") {
		var p [4]byte
		_, _ = rand.Read(p[:])
		f.seed = uint64(binary.BigEndian.Uint32(p[:]))
	}
	if f.inputs > 0 && !cmd.Flags().Changed("duration") {
		f.duration = 0
	}
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "%d targets, %d workers, seed %d\n", len(targets), f.workers, f.seed)
	prog := newProgress("fuzz")
	o := fuzz.Options{
		Targets: targets, Seed: f.seed, Duration: f.duration, Inputs: f.inputs, Workers: f.workers, Deadline: f.deadline, Dir: f.dir,
		Command:  []string{self, "fuzz", "worker"},
		Progress: func(s fuzz.Status) { showFuzz(out, prog, s) },
		Found: func(finding *fuzz.Finding, file string) {
			prog.done()
			fmt.Fprintf(out, "FOUND %s\n  %s\n  millrace fuzz --target %s --input %s\n", finding.Title(), file+".txt", finding.Target, file)
		},
	}
	began := time.Now()
	n, err := fuzz.Run(cmd.Context(), o)
	prog.done()
	if err != nil {
		return err
	}
	if errors.Is(cmd.Context().Err(), context.Canceled) {
		fmt.Fprintln(out, "stopped")
	}
	fmt.Fprintf(out, "%s, %d findings, seed %d\n", time.Since(began).Round(time.Second/10), n, f.seed)
	if n > 0 {
		return errVerdict
	}
	return nil
}

// showFuzz prints a line for each target that is done, and the one that is not on the terminal.
func showFuzz(out io.Writer, prog *progress, s fuzz.Status) {
	rate := float64(s.Inputs) / max(s.Elapsed.Seconds(), 1e-3)
	if !s.Done {
		prog.at("%d of %d %s: %d inputs, %.0f/s, %d outcomes, %d findings", s.Number, s.Total, s.Target, s.Inputs, rate, s.Outcomes, s.Findings)
		return
	}
	prog.done()
	verdict := "ok"
	if s.Findings > 0 {
		verdict = fmt.Sprintf("%d FINDINGS", s.Findings)
	}
	fmt.Fprintf(out, "%s %10d inputs %8.0f/s %6d outcomes  %s\n", fmt.Sprintf("%-36s", strings.TrimSpace(s.Target)), s.Inputs, rate, s.Outcomes, verdict)
}
