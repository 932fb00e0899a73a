package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/bench"
)

func benchCommand() *cobra.Command {
	return family("bench", "Load a Kafka-compatible broker, check its answers, print figures",
		benchRunCommand(), benchListCommand(), benchLimitCommand(), benchProduceCommand(), benchFetchCommand(), benchFootprintCommand(), benchDurabilityCommand(), benchRestartCommand())
}

func addLoad(fs *pflag.FlagSet, l *bench.Load) {
	fs.StringVarP(&l.Addr, "bootstrap-server", "b", "127.0.0.1:9092", "the broker, HOST:PORT")
	fs.StringVar(&l.Topic, "topic", "millrace-bench", "topic to use, created when it does not exist")
	fs.IntVar(&l.Partitions, "partitions", 1, "partitions of the topic")
	fs.IntVar(&l.Connections, "connections", 1, "connections")
	fs.IntVar(&l.InFlight, "in-flight", 8, "requests outstanding on each connection")
	fs.DurationVarP(&l.Duration, "duration", "d", 10*time.Second, "how long")
	fs.IntVar(&l.BrokerPID, "broker-pid", 0, "count the CPU time of this process")
}

func parseCodec(s string) (batch.Codec, error) {
	for _, c := range []batch.Codec{batch.None, batch.Gzip, batch.Snappy, batch.LZ4, batch.Zstd} {
		if c.String() == s {
			return c, nil
		}
	}
	return 0, fmt.Errorf("--compression %q: want none, gzip, snappy, lz4 or zstd", s)
}

func benchProduceCommand() *cobra.Command {
	var p bench.Produce
	var codec, acks string
	cmd := &cobra.Command{
		Use:   "produce",
		Short: "Replay produce requests",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if p.Codec, err = parseCodec(codec); err != nil {
				return err
			}
			switch acks {
			case "all", "-1":
				p.Acks = -1
			case "1":
				p.Acks = 1
			default:
				return errors.New("--acks: want all or 1: without answers nothing can be checked")
			}
			return printBench(cmd, "Produce", p.Duration, func() (bench.Result, error) { return p.Run(cmd.Context()) })
		},
	}
	addLoad(cmd.Flags(), &p.Load)
	cmd.Flags().IntVar(&p.RecordBytes, "record-bytes", 1024, "bytes of a record's value")
	cmd.Flags().IntVar(&p.BatchBytes, "batch-bytes", 64<<10, "bytes of a batch before compression; a batch holds at least one record")
	cmd.Flags().StringVarP(&codec, "compression", "z", "none", "none, gzip, snappy, lz4 or zstd")
	cmd.Flags().StringVar(&acks, "acks", "all", "all or 1")
	cmd.Flags().Uint64Var(&p.Seed, "seed", 1, "of the values' bytes")
	return cmd
}

func benchFetchCommand() *cobra.Command {
	var f bench.Fetch
	var codec string
	cmd := &cobra.Command{
		Use:   "fetch",
		Short: "Replay fetch requests over a topic that is filled first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if f.Codec, err = parseCodec(codec); err != nil {
				return err
			}
			return printBench(cmd, "Fetch", f.Duration, func() (bench.Result, error) { return f.Run(cmd.Context()) })
		},
	}
	addLoad(cmd.Flags(), &f.Load)
	cmd.Flags().IntVar(&f.FetchBytes, "fetch-bytes", 64<<10, "bytes that a request asks for")
	cmd.Flags().IntVar(&f.RecordBytes, "record-bytes", 1024, "bytes of a record's value")
	cmd.Flags().Int64Var(&f.FillBytes, "fill-bytes", 256<<20, "bytes that the topic holds before the load begins")
	cmd.Flags().StringVarP(&codec, "compression", "z", "none", "none, gzip, snappy, lz4 or zstd")
	return cmd
}

func benchFootprintCommand() *cobra.Command {
	var f bench.Footprint
	cmd := &cobra.Command{
		Use:   "footprint",
		Short: "Measure start, idle memory, idle CPU, and what idle partitions and connections add",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if f.Binary == "" {
				if f.Binary, err = os.Executable(); err != nil {
					return err
				}
			}
			if f.Dir, err = os.MkdirTemp("", "millrace-footprint-"); err != nil {
				return err
			}
			defer os.RemoveAll(f.Dir)
			return f.Run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.Binary, "binary", "", "the millrace to measure; empty: this one")
	fs.IntVar(&f.Starts, "starts", 10, "starts that are timed")
	fs.DurationVar(&f.Idle, "idle", time.Minute, "how long idleness is watched")
	fs.IntVar(&f.Partitions, "partitions", 1000, "idle partitions to add")
	fs.IntVar(&f.Connections, "connections", 10_000, "idle connections to add")
	return cmd
}

// printBench runs a load with a clock on the terminal and prints what it measured; an interrupted
// load has no figures.
func printBench(cmd *cobra.Command, name string, d time.Duration, run func() (bench.Result, error)) error {
	prog := newProgress("bench " + name)
	stop := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		start := time.Now()
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				prog.done()
				return
			case <-tick.C:
				prog.at("%.0f s (the load itself takes %s)", time.Since(start).Seconds(), d)
			}
		}
	}()
	res, err := run()
	close(stop)
	<-stopped
	if err != nil {
		return err
	}
	if cmd.Context().Err() != nil {
		return errors.New("bench: interrupted")
	}
	res.Print(cmd.OutOrStdout(), name)
	return nil
}
