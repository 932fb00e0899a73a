package bench

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"sync"
	"time"
)

// driver is how a load meets the world; the zero value is the real one.
type driver struct {
	dial  func(ctx context.Context, addr string) (net.Conn, error)
	sleep func() func(time.Duration) // gives the sleep of the goroutine that calls it
	watch func(Sample)               // is given each sample as it is taken; may be nil
	end   <-chan struct{}            // closed, it ends a load before its time; may be nil
}

func (d driver) withDefaults() driver {
	if d.dial == nil {
		d.dial = func(ctx context.Context, addr string) (net.Conn, error) {
			dialer := net.Dialer{Timeout: 10 * time.Second}
			return dialer.DialContext(ctx, "tcp", addr)
		}
	}
	if d.sleep == nil {
		d.sleep = preciseSleep
	}
	return d
}

// drive connects the lanes, loads the target for that long, and says what it saw. With a rate,
// the counted lanes together send so many requests a second; without, as many as fit their windows.
func (d driver) drive(ctx context.Context, t *Target, lanes []*lane, rate float64, duration time.Duration) (Figure, error) {
	d = d.withDefaults()
	tallies := make([]*tally, len(lanes))
	defer func() {
		for _, l := range lanes {
			if l.conn != nil {
				l.conn.Close()
			}
		}
	}()
	for i, l := range lanes {
		conn, err := d.dial(ctx, t.Addr)
		if err != nil {
			return Figure{}, fmt.Errorf("bench: %s: %w", t.Name, err)
		}
		l.conn, tallies[i] = conn, &l.tally
	}
	return d.measure(ctx, t, tallies, func(start time.Time) time.Duration {
		return d.runLanes(ctx, lanes, rate, start, duration)
	})
}

// runLanes returns how long the counted lanes took, and longer where helpers were behind them with bytes
// that count: what else these do at the end is not what is measured.
func (d driver) runLanes(ctx context.Context, lanes []*lane, rate float64, start time.Time, duration time.Duration) time.Duration {
	stop := make(chan struct{})
	var all, counted, helpers sync.WaitGroup
	if rate > 0 {
		var paced []*lane
		for _, l := range lanes {
			if l.counted {
				paced = append(paced, l)
			}
		}
		for i, s := range spreadOver(start, rate, len(paced)) {
			paced[i].due = s
		}
		all.Go(func() { pace(stop, paced, d.sleep()) })
	}
	for _, l := range lanes {
		wg := &helpers
		if l.counted {
			wg = &counted
		}
		wg.Go(func() { l.run(ctx, stop) })
	}
	select {
	case <-ctx.Done():
	case <-d.end:
	case <-time.After(duration):
	}
	close(stop)
	counted.Wait()
	elapsed := time.Since(start)
	helpers.Wait()
	all.Wait()
	for _, l := range lanes {
		elapsed = max(elapsed, l.lastBytes.Sub(start))
	}
	return elapsed
}

// measure looks at the target and at this process while load runs, which enters what it sees into
// the tallies and returns how much of its time, from start on, the figure is about.
func (d driver) measure(ctx context.Context, t *Target, tallies []*tally, load func(start time.Time) time.Duration) (Figure, error) {
	disk := diskBytes(t.Dir)
	m, err := newMeter(t, tallies, d.watch)
	if err != nil {
		return Figure{}, err
	}
	over, sampled := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(sampled)
		m.sample(over)
	}()
	elapsed := load(m.start)
	close(over)
	<-sampled
	m.figure.Elapsed = elapsed
	m.finish(disk)
	return m.figure, ctx.Err()
}

// untilDone drives the lanes until their sources have nothing more to send.
func (d driver) untilDone(ctx context.Context, t *Target, lanes []*lane) (Figure, error) {
	for _, l := range lanes {
		l.counted = false
	}
	return d.drive(ctx, t, lanes, 0, 0)
}

// meter takes the samples of one run.
type meter struct {
	target  *Target
	tallies []*tally
	watch   func(Sample)
	start   time.Time
	figure  Figure

	serverCPU, clientCPU time.Duration // at the start of the second
	firstServer          time.Duration
	firstClient          time.Duration
}

func newMeter(t *Target, tallies []*tally, watch func(Sample)) (*meter, error) {
	server, err := cpuTime(t.PID)
	if err != nil {
		return nil, fmt.Errorf("bench: %s: %w", t.Name, err)
	}
	m := &meter{target: t, tallies: tallies, watch: watch, serverCPU: server, clientCPU: selfCPU()}
	m.firstServer, m.firstClient = m.serverCPU, m.clientCPU
	m.figure = Figure{ServerCPU: -1, ClientCPU: -1, RSS: -1, DiskBytes: -1, Latency: newHistogram()}
	m.start = time.Now()
	return m, nil
}

// sample takes one each second until over is closed.
func (m *meter) sample(over <-chan struct{}) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-over:
			return
		case <-tick.C:
			s := m.second()
			m.figure.Samples = append(m.figure.Samples, s)
			if m.watch != nil {
				m.watch(s)
			}
		}
	}
}

// second adds what the tallies have seen since the last call to the figure.
func (m *meter) second() Sample {
	before, latency := m.figure, newHistogram()
	for _, y := range m.tallies {
		y.drain(&m.figure, latency)
	}
	s := Sample{
		At:       time.Since(m.start),
		Requests: m.figure.Requests - before.Requests, Bytes: m.figure.Bytes - before.Bytes,
		ServerCPU: -1, ClientCPU: -1, RSS: residentBytes(m.target.PID),
	}
	if latency.TotalCount() > 0 {
		s.P99 = time.Duration(latency.ValueAtQuantile(99))
	}
	if now, err := cpuTime(m.target.PID); err == nil && m.target.PID != 0 {
		s.ServerCPU, m.serverCPU = now-m.serverCPU, now
	}
	if now := selfCPU(); now >= 0 {
		s.ClientCPU, m.clientCPU = now-m.clientCPU, now
	}
	m.figure.RSS = max(m.figure.RSS, s.RSS)
	return s
}

// finish sums up. What came after the last whole second is no sample, but counts.
func (m *meter) finish(disk int64) {
	m.second()
	f := &m.figure
	if m.target.PID != 0 && m.serverCPU >= 0 {
		f.ServerCPU = m.serverCPU - m.firstServer
	}
	if m.clientCPU >= 0 {
		f.ClientCPU = m.clientCPU - m.firstClient
	}
	if after := diskBytes(m.target.Dir); disk >= 0 && after >= 0 {
		f.DiskBytes = after - disk
	}
	for _, y := range m.tallies {
		y.mu.Lock()
		f.Errors += y.mu.errors
		if f.Error == "" && y.mu.first != nil {
			f.Error = y.mu.first.Error()
		}
		y.mu.Unlock()
	}
}

// diskBytes is what the files below a directory take of the disk, -1 when it is not known. Files
// that go away meanwhile are left out.
func diskBytes(dir string) int64 {
	if dir == "" {
		return -1
	}
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		if info, err := d.Info(); err == nil {
			sum += allocated(info)
		}
		return nil
	})
	if err != nil {
		return -1
	}
	return sum
}
