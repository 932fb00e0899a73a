package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Footprint measures what a broker costs that nobody uses: how soon it answers, what it holds in
// memory, what it burns while idle, and what idle partitions and connections add.
type Footprint struct {
	Binary      string        // the millrace binary
	Dir         string        // a scratch directory; its contents are the caller's to remove
	Starts      int           // starts that are timed; 10
	Idle        time.Duration // how long idleness is watched; 60 s
	Partitions  int           // idle partitions to add; 1000
	Connections int           // idle connections to add; 10 000
}

// Run starts brokers in Dir and writes a line a figure.
func (f Footprint) Run(ctx context.Context, w io.Writer) error {
	if f.Starts < 1 || f.Idle <= 0 || f.Partitions < 1 || f.Connections < 1 {
		return fmt.Errorf("bench: %d starts, %s idle, %d partitions, %d connections: all must be above 0", f.Starts, f.Idle, f.Partitions, f.Connections)
	}
	if err := f.starts(ctx, w); err != nil {
		return err
	}
	b, _, err := startBroker(ctx, f.Binary, filepath.Join(f.Dir, "idle"))
	if err != nil {
		return err
	}
	defer b.stop()
	if err := f.idle(ctx, w, b); err != nil {
		return err
	}
	before, err := b.settledRSS(ctx)
	if err != nil {
		return err
	}
	if err := createTopic(ctx, Load{Addr: b.addr, Topic: "idle", Partitions: f.Partitions}, nil); err != nil {
		return err
	}
	after, err := b.settledRSS(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "%-44s %8.1f MB (RSS %.1f → %.1f)\n", fmt.Sprintf("%d idle partitions add", f.Partitions), mb(after-before), mb(before), mb(after))
	return f.connections(ctx, w, b)
}

func mb(n int64) float64 { return float64(n) / 1e6 }

func (f Footprint) starts(ctx context.Context, w io.Writer) error {
	var fresh, again []time.Duration
	for i := range f.Starts {
		dir := filepath.Join(f.Dir, fmt.Sprintf("start%d", i))
		for _, times := range []*[]time.Duration{&fresh, &again} {
			b, took, err := startBroker(ctx, f.Binary, dir)
			if err != nil {
				return err
			}
			*times = append(*times, took)
			if err := b.stop(); err != nil {
				return err
			}
		}
	}
	slices.Sort(fresh)
	slices.Sort(again)
	n := len(fresh)
	fmt.Fprintf(w, "%-44s %8.1f ms median, %.1f worst of %d\n", "start to first answer, new directory", ms(fresh[n/2]), ms(fresh[n-1]), n)
	fmt.Fprintf(w, "%-44s %8.1f ms median, %.1f worst of %d\n", "start to first answer, existing directory", ms(again[n/2]), ms(again[n-1]), n)
	return nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }

func (f Footprint) idle(ctx context.Context, w io.Writer, b *brokerProcess) error {
	rss, err := b.settledRSS(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "%-44s %8.1f MB\n", "idle RSS", mb(rss))
	cpu0, err0 := cpuTime(b.cmd.Process.Pid)
	sw0, err1 := b.switches()
	if err := wait(ctx, f.Idle); err != nil {
		return err
	}
	cpu1, err2 := cpuTime(b.cmd.Process.Pid)
	sw1, err3 := b.switches()
	if err := errors.Join(err0, err1, err2, err3); err != nil {
		return err
	}
	fmt.Fprintf(w, "%-44s %8.2f %% CPU, %.1f context switches a second over %s\n", "idle",
		100*(cpu1-cpu0).Seconds()/f.Idle.Seconds(), float64(sw1-sw0)/f.Idle.Seconds(), f.Idle)
	return nil
}

// connectionRest is how long connections are left alone before they count as idle: a broker may
// keep what a request needed for a while.
const connectionRest = 15 * time.Second

func (f Footprint) connections(ctx context.Context, w io.Writer, b *brokerProcess) error {
	before, err := b.settledRSS(ctx)
	if err != nil {
		return err
	}
	conns := make([]net.Conn, 0, f.Connections)
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	hello := frame(kmsg.NewPtrApiVersionsRequest())
	for range f.Connections {
		c, err := net.DialTimeout("tcp", b.addr, 5*time.Second)
		if err != nil {
			return fmt.Errorf("bench: connection %d: %w", len(conns), err)
		}
		conns = append(conns, c)
		c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Write(hello); err != nil {
			return err
		}
		var head [8]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return fmt.Errorf("bench: connection %d: %w", len(conns), err)
		}
	}
	if err := wait(ctx, connectionRest); err != nil {
		return err
	}
	after, err := b.settledRSS(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "%-44s %8.1f MB (RSS %.1f → %.1f)\n", fmt.Sprintf("%d idle connections add", f.Connections), mb(after-before), mb(before), mb(after))
	return nil
}

// brokerProcess is a `millrace serve` of ours.
type brokerProcess struct {
	cmd   *exec.Cmd
	addr  string
	ended chan struct{} // closed when the process is gone
	err   error         // how, and
	log   bytes.Buffer  // what it has said, then
}

// startBroker runs the binary with settings KEY=VALUE and returns when it has answered its first request, with the time since it was run.
func startBroker(ctx context.Context, binary, dir string, settings ...string) (*brokerProcess, time.Duration, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, 0, err
	}
	addrFile := filepath.Join(filepath.Dir(dir), filepath.Base(dir)+".addr")
	if err := os.Remove(addrFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, 0, err
	}
	b := &brokerProcess{}
	b.cmd = exec.CommandContext(ctx, binary, "serve", "--data-dir", dir, "--listen", "127.0.0.1:0", "--addr-file", addrFile)
	for _, s := range settings {
		b.cmd.Args = append(b.cmd.Args, "--set", s)
	}
	b.cmd.Stderr = &b.log
	start := time.Now()
	if err := b.cmd.Start(); err != nil {
		return nil, 0, fmt.Errorf("bench: %w", err)
	}
	b.ended = make(chan struct{})
	go func() {
		b.err = b.cmd.Wait()
		close(b.ended)
	}()
	for {
		addr, err := os.ReadFile(addrFile)
		if err == nil && bytes.HasSuffix(addr, []byte("\n")) {
			b.addr = strings.TrimSpace(string(addr))
			break
		}
		if time.Since(start) > 5*time.Minute {
			b.kill()
			return nil, 0, fmt.Errorf("bench: the broker did not start: %s", b.log.Bytes())
		}
		select {
		case <-b.ended:
			return nil, 0, fmt.Errorf("bench: the broker ended (%v): %s", b.err, b.log.Bytes())
		case <-ctx.Done():
			<-b.ended
			return nil, 0, ctx.Err()
		case <-time.After(500 * time.Microsecond):
		}
	}
	if _, err := ask(ctx, b.addr, kmsg.NewPtrApiVersionsRequest()); err != nil {
		b.stop()
		return nil, 0, err
	}
	return b, time.Since(start), nil
}

func (b *brokerProcess) stop() error {
	b.cmd.Process.Signal(syscall.SIGTERM)
	<-b.ended
	if b.err != nil {
		return fmt.Errorf("bench: stopping the broker: %w: %s", b.err, b.log.Bytes())
	}
	return nil
}

// settledRSS waits a second, for what was just done to end, and reads the resident set in bytes.
func (b *brokerProcess) settledRSS(ctx context.Context) (int64, error) {
	if err := wait(ctx, time.Second); err != nil {
		return 0, err
	}
	kb, err := statusField(fmt.Sprintf("/proc/%d/status", b.cmd.Process.Pid), "VmRSS:")
	return kb << 10, err
}

// switches counts the context switches of every thread.
func (b *brokerProcess) switches() (int64, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", b.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, t := range tasks {
		for _, field := range []string{"voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"} {
			n, err := statusField(t, field)
			if err != nil {
				return 0, err
			}
			sum += n
		}
	}
	return sum, nil
}

func statusField(file, field string) (int64, error) {
	status, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("bench: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, field); ok {
			return strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
		}
	}
	return 0, fmt.Errorf("bench: %s has no %s", file, field)
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
