package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/quorum"
	"github.com/millrace-project/millrace/vfs"
)

func logCommand() *cobra.Command {
	cmd := family("log", "Look into data directories offline", logDumpCommand(), logVerifyCommand())
	// They change nothing, so that a signal may end them wherever they are.
	cmd.PersistentPreRun = func(*cobra.Command, []string) { signal.Reset(stopSignals()...) }
	return cmd
}

func logVerifyCommand() *cobra.Command {
	var o commitlog.VerifyOptions
	var verbose bool
	cmd := &cobra.Command{
		Use:   "verify DIR...",
		Short: "Check every file of partitions or whole data directories, and say where the first bad byte is",
		Long: `Check batches against their checksums and each other, every record, the indexes against the batches,
snapshots and checkpoints against their form. Writes nothing. DIR is a partition's directory or a data
directory. Where the directory was not closed, a torn tail of the last segment is no damage: the next
start cuts it, and nobody was told of it. Ends with status 1 when anything is damaged.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return verifyDirs(cmd, args, o, verbose)
		},
	}
	cmd.Flags().BoolVar(&o.Shallow, "shallow", false, "headers and checksums only, records are not decoded")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "a line for every partition, not only for damaged ones")
	return cmd
}

func verifyDirs(cmd *cobra.Command, args []string, o commitlog.VerifyOptions, verbose bool) error {
	dirs, roots, err := partitionDirs(args)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	bad := 0
	for _, root := range roots {
		found, err := verifyRoot(root)
		if err != nil {
			return err
		}
		if len(found) > 0 {
			bad++
			fmt.Fprintf(out, "%s: DAMAGED\n", root)
		}
		for _, f := range found {
			fmt.Fprintf(out, "  %s\n", f)
		}
	}
	prog := newProgress("verify")
	var read, batches, records int64
	o.Progress = func(n int64) {
		read += n
		prog.at("%.0f MB read", float64(read)/1e6)
	}
	for _, d := range dirs {
		o.Unclean = d.unclean
		r, err := commitlog.Verify(vfs.OS(), d.path, o)
		if err != nil {
			return err
		}
		prog.done()
		batches, records = batches+r.Batches, records+r.Records
		if verbose || len(r.Findings) > 0 {
			verdict := "ok"
			if r.Bad() {
				verdict = "DAMAGED"
			}
			fmt.Fprintf(out, "%s: %s, %d segments, %d batches, %d records, offsets [%d, %d)\n", d.path, verdict, r.Segments, r.Batches, r.Records, r.Start, r.End)
		}
		for _, f := range r.Findings {
			fmt.Fprintf(out, "  %s\n", f)
		}
		if r.Bad() {
			bad++
		}
	}
	fmt.Fprintf(out, "%d partitions, %d batches, %d records, %.1f MB: ", len(dirs), batches, records, float64(read)/1e6)
	if bad > 0 {
		fmt.Fprintf(out, "%d DAMAGED\n", bad)
		return errVerdict
	}
	fmt.Fprintln(out, "all good")
	return nil
}

// verifyRoot looks at what a data directory has besides partitions, and whether a start would take the metadata in it.
func verifyRoot(dir string) ([]commitlog.Finding, error) {
	found, err := commitlog.VerifyDataDir(vfs.OS(), dir)
	if err != nil {
		return nil, err
	}
	var corrupt *commitlog.CorruptError
	switch err := quorum.Check(vfs.OS(), dir); {
	case errors.As(err, &corrupt):
		found = append(found, commitlog.Finding{File: corrupt.File, Pos: corrupt.Pos, Reason: corrupt.Reason})
	case err != nil:
		found = append(found, commitlog.Finding{File: filepath.Join(dir, quorum.LogName), Reason: err.Error()})
	}
	return found, nil
}

type partitionDir struct {
	path    string
	unclean bool // the data directory has no marker of a clean stop
}

// partitionDirs finds the partitions that the arguments name, one by one or by their data directories, which
// are roots.
func partitionDirs(args []string) (out []partitionDir, roots []string, err error) {
	for _, arg := range args {
		info, err := os.Stat(arg)
		if err != nil {
			return nil, nil, err
		}
		if !info.IsDir() {
			return nil, nil, fmt.Errorf("%s is a file: verify takes directories, dump takes files", arg)
		}
		if arg, err = filepath.Abs(arg); err != nil { // "." lies in a data directory too
			return nil, nil, err
		}
		logs, err := filepath.Glob(filepath.Join(arg, "*.log"))
		if err != nil {
			return nil, nil, err
		}
		if len(logs) > 0 {
			out = append(out, partitionDir{arg, !closedCleanly(filepath.Dir(arg))})
			continue
		}
		subs, err := os.ReadDir(arg)
		if err != nil {
			return nil, nil, err
		}
		n := len(out)
		for _, s := range subs {
			isDir, err := vfs.IsDir(vfs.OS(), arg, s)
			if err != nil {
				return nil, nil, err
			}
			if _, _, err := commitlog.ParseLogName(s.Name()); isDir && err == nil {
				out = append(out, partitionDir{filepath.Join(arg, s.Name()), !closedCleanly(arg)})
			}
		}
		if len(out) == n {
			return nil, nil, fmt.Errorf("%s is neither a partition's directory nor a data directory with partitions", arg)
		}
		roots = append(roots, arg)
	}
	return out, roots, nil
}

func closedCleanly(dataDir string) bool {
	_, err := os.Stat(filepath.Join(dataDir, ".kafka_cleanshutdown"))
	return !errors.Is(err, fs.ErrNotExist)
}

// dumpKinds maps the endings that dump reads to the functions that print them.
var dumpEndings = []string{".log", ".checkpoint", ".index", ".timeindex", ".txnindex", ".snapshot"}

func logDumpCommand() *cobra.Command {
	var d dumper
	cmd := &cobra.Command{
		Use:   "dump FILE...",
		Short: "Print what is in log, index and snapshot files",
		Long: `Print batches (and with --records every record) of .log files and metadata snapshots, the entries of
.index, .timeindex and .txnindex files, and the producers of .snapshot files, a line each, in the words
of Kafka's own dump tool. Records of the metadata log are decoded. Ends with status 1 at the first bad
byte, after it has said where that is.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			for _, f := range files {
				if !slices.ContainsFunc(dumpEndings, func(e string) bool { return strings.HasSuffix(f, e) }) {
					return fmt.Errorf("%s: want a file that ends in %s", f, strings.Join(dumpEndings, ", "))
				}
			}
			d.out = cmd.OutOrStdout()
			return d.files(files)
		},
	}
	cmd.Flags().BoolVarP(&d.records, "records", "r", false, "every record of every batch, not the batches alone")
	cmd.Flags().BoolVar(&d.metadata, "metadata", false, "decode records as cluster metadata (on by itself below __cluster_metadata-0)")
	return cmd
}
