package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/millrace-project/millrace/bench"
)

func benchLimitCommand() *cobra.Command {
	var l bench.Limit
	cmd := &cobra.Command{
		Use:   "limit",
		Short: "Run the least that any broker must do, to hold brokers against",
		Long: `Run a target that takes frames, checks each batch's CRC, writes it to a file and answers, and sends ranges
of files: what no broker can do without, and nothing else. It keeps what it is given until it ends, and
must never be used for anything but measuring. Prints its address, directory and process id, then runs
until it is interrupted.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := bench.ListenLimit(l)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "address=%s\ndirectory=%s\nversion=limit %s\npid=%d\n", s.Addr(), l.Dir, version, os.Getpid())
			return s.Serve(cmd.Context())
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&l.Addr, "listen", "127.0.0.1:9092", "HOST:PORT to listen on")
	fs.StringVar(&l.Dir, "data-dir", "./millrace-limit", "where the files are; they are removed at the end")
	fs.BoolVar(&l.Plain, "plain", false, "two reads and a write for each frame, instead of all frames that a read brings")
	fs.BoolVar(&l.Sync, "sync", false, "answer when the disk has what was written: one fdatasync at a time for each file, of all that came before it")
	return cmd
}
