package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace-project/millrace/broker"
	"github.com/millrace-project/millrace/config"
)

const (
	defaultDataDir = "./millrace-data"
	defaultListen  = "127.0.0.1:9092"

	// gcPercent is how much the heap may grow before it is collected. The hot paths make no garbage, so
	// that less than Go's 100 costs nothing there and keeps what topics and connections leave behind small.
	gcPercent = 75

	// loadingProcessors is how many threads may run Go while the logs are loaded.
	loadingProcessors = 16

	// drainTime is how long a stop waits for requests in flight; the sync after it is never skipped.
	drainTime = 10 * time.Second
)

type serveFlags struct {
	dataDir  string
	listen   string
	file     string
	set      []string
	logLevel string
	logJSON  bool
	addrFile string
	metrics  string
}

func serveCommand() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the broker",
		Long: `Run the broker. Without flags it keeps its data in ./millrace-data, listens on 127.0.0.1:9092 and
creates topics as they are named. Settings go by Kafka's names; --set wins over --config.
The first SIGTERM or interrupt drains what is in flight, syncs and stops; a second one skips the draining.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	fs := cmd.Flags()
	fs.StringVar(&f.dataDir, "data-dir", defaultDataDir, "where the data is; with --config, wins over log.dirs when given")
	fs.StringVar(&f.listen, "listen", defaultListen, "HOST:PORT to listen on; with --config, wins over listeners when given")
	fs.StringVarP(&f.file, "config", "c", "", "settings, in the form of Kafka's server.properties")
	fs.StringArrayVar(&f.set, "set", nil, "a setting KEY=VALUE, may be repeated")
	fs.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	fs.BoolVar(&f.logJSON, "log-json", false, "log lines as JSON")
	fs.StringVar(&f.metrics, "metrics", "", "HOST:PORT to answer GET /metrics on, for Prometheus; as millrace.metrics.listen")
	fs.StringVar(&f.addrFile, "addr-file", "", "write the address that is listened on to this file, once it answers")
	return cmd
}

func (f *serveFlags) run(cmd *cobra.Command) error {
	// Whoever reads the log may end; that is no reason to end as if killed.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(cmd.Context(), stopSignals()...)
	defer stop()
	log, err := f.logger()
	if err != nil {
		return err
	}
	pairs, err := f.settings(cmd)
	if err != nil {
		return err
	}
	cfg, err := config.Load(pairs)
	if err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(broker.MemoryLimit(cfg))
	}
	b, err := broker.New(cfg, broker.Options{Logger: log, Version: version, Loading: loading})
	if err != nil {
		return err
	}
	if f.addrFile != "" {
		if err := os.WriteFile(f.addrFile, []byte(b.Addr()+"\n"), 0o644); err != nil {
			b.Close()
			return err
		}
	}
	failed := make(chan error, 1)
	go func() { failed <- b.Serve() }()
	select {
	case err := <-failed:
		b.Close()
		return err
	case <-ctx.Done():
	}
	return f.stop(b, log)
}

// stopSignals are the signals that stop the broker. A terminal that is closed does, unless it was started by nohup.
func stopSignals() []os.Signal {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	return signals
}

// loading lets more threads run Go than there are processors, until loaded is called. A thread
// that waits for a disk keeps its processor until the runtime takes notice: with a thread a
// processor, a quarter of a start after a kill was spent idle.
func loading() (loaded func()) {
	before := runtime.GOMAXPROCS(0)
	if before >= loadingProcessors {
		return func() {}
	}
	runtime.GOMAXPROCS(loadingProcessors)
	return func() {
		if os.Getenv("GOMAXPROCS") != "" {
			runtime.GOMAXPROCS(before)
			return
		}
		runtime.SetDefaultGOMAXPROCS() // it goes on following a container's limit
	}
}

// stop drains for a while, or until a second signal, and always syncs and closes.
func (f *serveFlags) stop(b *broker.Broker, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	ctx, stop := signal.NotifyContext(ctx, stopSignals()...)
	defer stop()
	log.Info("stopping; a second signal skips the draining")
	return b.Shutdown(ctx)
}

func (f *serveFlags) logger() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, fmt.Errorf("--log-level %q: want debug, info, warn or error", f.logLevel)
	}
	o := &slog.HandlerOptions{Level: level}
	if f.logJSON {
		return slog.New(slog.NewJSONHandler(os.Stderr, o)), nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, o)), nil
}

// settings puts the sources in order, later ones winning: the defaults of this command or the
// file, then the flags that were given, then --set.
func (f *serveFlags) settings(cmd *cobra.Command) ([]config.Pair, error) {
	var pairs []config.Pair
	if f.file == "" {
		pairs = config.Standalone(f.dataDir, f.listen)
	} else {
		file, err := os.Open(f.file)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		if pairs, err = config.ParseProperties(file); err != nil {
			return nil, fmt.Errorf("%s: %w", f.file, err)
		}
		if cmd.Flags().Changed("data-dir") {
			pairs = append(pairs, config.Pair{Key: "log.dirs", Value: f.dataDir})
		}
		if cmd.Flags().Changed("listen") {
			pairs = append(pairs, config.Pair{Key: "listeners", Value: "PLAINTEXT://" + f.listen})
		}
	}
	if cmd.Flags().Changed("metrics") {
		pairs = append(pairs, config.Pair{Key: "millrace.metrics.listen", Value: f.metrics})
	}
	for _, kv := range f.set {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || k == "" {
			return nil, fmt.Errorf("--set %q: want KEY=VALUE", kv)
		}
		pairs = append(pairs, config.Pair{Key: strings.TrimSpace(k), Value: v})
	}
	return pairs, nil
}
