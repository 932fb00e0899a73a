// Command millrace is the broker and its tools in one binary: serve runs the broker, topic, group, txn,
// produce and consume speak to any Kafka-compatible one, log looks into data directories
// offline, bench loads a broker and checks its answers, and fuzz searches for bytes that a decoder
// does not take as it should.
//
// It owns flags, terminals and exit codes; what it does with them lives in the packages below.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
)

// version is set by the linker from the repository's tag.
var version = "dev"

// errVerdict ends the process with status 1 after a command has printed its own verdict.
var errVerdict = errors.New("verdict printed")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), stopSignals()...)
	context.AfterFunc(ctx, stop) // a second signal ends what does not end by itself; serve goes on taking them
	err := rootCommand().ExecuteContext(ctx)
	switch {
	case err == nil:
	case errors.Is(err, errVerdict):
		os.Exit(1)
	default:
		fmt.Fprintln(os.Stderr, "millrace:", err)
		os.Exit(1)
	}
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "millrace",
		Short:         "A Kafka-compatible broker in one binary",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(
		serveCommand(),
		topicCommand(),
		groupCommand(),
		txnCommand(),
		produceCommand(),
		consumeCommand(),
		logCommand(),
		benchCommand(),
		fuzzCommand(),
		&cobra.Command{
			Use:   "version",
			Short: "Print the version",
			Args:  cobra.NoArgs,
			Run: func(cmd *cobra.Command, _ []string) {
				fmt.Fprintln(cmd.OutOrStdout(), "millrace", version)
			},
		},
	)
	return root
}

// family is a command that only has others below it: without one it prints its help, and it refuses a
// name that it does not know.
func family(use, short string, of ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(of...)
	return cmd
}
