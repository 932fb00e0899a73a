package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace-project/millrace/bench"
)

func benchRestartCommand() *cobra.Command {
	var r bench.Restart
	var dir string
	var keep bool
	cmd := &cobra.Command{
		Use:   "restart",
		Short: "Measure starts over many logs, after clean stops and after kills under load",
		Long: `Create topics, fill them, and measure how soon every partition is served again after a clean stop and after
kills in the middle of a load. With --log-bytes the logs are made to look that large: files with a hole in the middle.
No acknowledged record may be missing after a start; one that is ends the run.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if r.Binary == "" {
				if r.Binary, err = os.Executable(); err != nil {
					return err
				}
			}
			if r.Dir, err = os.MkdirTemp(dir, "millrace-restart-"); err != nil {
				return err
			}
			if keep {
				fmt.Fprintln(cmd.OutOrStdout(), "data in", r.Dir)
			} else {
				defer os.RemoveAll(r.Dir)
			}
			return r.Run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&r.Binary, "binary", "", "the millrace to measure; empty: this one")
	fs.StringVar(&dir, "dir", "", "where the data goes, and is removed in the end; empty: the directory for temporary files")
	fs.BoolVar(&keep, "keep", false, "leave the data")
	fs.StringArrayVar(&r.Set, "set", nil, "a setting KEY=VALUE of the broker, may be repeated")
	fs.IntVar(&r.Topics, "topics", 13, "topics")
	fs.IntVar(&r.Partitions, "partitions", 100, "partitions of each topic")
	fs.IntVar(&r.Segments, "segments", 1, "segments of each log")
	fs.Int64Var(&r.FillBytes, "fill-bytes", 2<<20, "bytes written into each segment")
	fs.Int64Var(&r.LogBytes, "log-bytes", 26<<20, "bytes that each log is made to show; less than is written: none are added")
	fs.IntVar(&r.BatchBytes, "batch-bytes", 16<<10, "bytes of a batch, at most")
	fs.IntVar(&r.InFlight, "in-flight", 256, "requests outstanding")
	fs.IntVar(&r.Kills, "kills", 3, "kills after the clean stops")
	fs.DurationVar(&r.Load, "load", 5*time.Second, "how long all partitions are written to before each kill")
	return cmd
}
