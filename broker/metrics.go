package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/millrace-project/millrace/groups"
	"github.com/millrace-project/millrace/txn"
)

// Bounds of the metrics endpoint. A scrape holds what it measured, some 10 MB at the default of 10 000 partitions, until
// it is written; there is one at a time.
const (
	metricsPath         = "/metrics"
	metricsConnections  = 8
	metricsMeasureTime  = 10 * time.Second
	metricsWriteTime    = 20 * time.Second
	metricsHeaderTime   = 5 * time.Second
	metricsIdleTime     = 2 * time.Minute
	metricsHeaderBytes  = 8 << 10
	metricsShutdownTime = time.Second
)

// metricsServer answers GET /metrics. Everything that takes work is measured by a scrape, for a scrape.
type metricsServer struct {
	log       *slog.Logger
	ln        net.Listener
	http      http.Server
	handler   http.Handler
	meter     *groups.LagMeter
	collector *collector
	scraping  chan struct{} // capacity 1: the one scrape
	stop      context.CancelFunc
	serving   sync.WaitGroup

	overflowed bool // the last scrape's lag did not fit; of the one scrape
}

// listenMetrics opens the endpoint if there is to be one. It answers from Start on.
func (b *Broker) listenMetrics() error {
	if b.cfg.MetricsListen == "" {
		return nil
	}
	ln, err := net.Listen("tcp", b.cfg.MetricsListen)
	if err != nil {
		return fmt.Errorf("broker: millrace.metrics.listen: %w", err)
	}
	m := &metricsServer{
		log: b.log, ln: &boundedListener{Listener: ln, room: make(chan struct{}, metricsConnections), closed: make(chan struct{})},
		meter:     groups.NewLagMeter(b.groups, topicTimes{b}, groups.LagOptions{MaxPartitions: b.cfg.MetricsLagPartitions}),
		collector: newCollector(b), scraping: make(chan struct{}, 1),
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(m.collector)
	m.handler = promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(b.log.Handler(), slog.LevelWarn), ErrorHandling: promhttp.ContinueOnError,
	})
	ctx, stop := context.WithCancel(context.Background())
	m.stop = stop
	m.http = http.Server{
		Handler: m, ReadHeaderTimeout: metricsHeaderTime, ReadTimeout: metricsHeaderTime, WriteTimeout: metricsMeasureTime + metricsWriteTime,
		IdleTimeout: metricsIdleTime, MaxHeaderBytes: metricsHeaderBytes, ErrorLog: slog.NewLogLogger(b.log.Handler(), slog.LevelWarn),
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	b.metrics = m
	b.log.Info("metrics", "listen", "http://"+ln.Addr().String()+metricsPath)
	return nil
}

// MetricsAddr is the address ("host:port") of the metrics endpoint, "" without one.
func (b *Broker) MetricsAddr() string {
	if b.metrics == nil {
		return ""
	}
	return b.metrics.ln.Addr().String()
}

// serve answers until close.
func (m *metricsServer) serve() {
	m.serving.Go(func() {
		if err := m.http.Serve(m.ln); !errors.Is(err, http.ErrServerClosed) {
			m.log.Error("metrics are served no more", "cause", err)
		}
	})
}

// close ends the endpoint, and waits for the scrape that runs.
func (m *metricsServer) close() {
	m.stop()
	ctx, cancel := context.WithTimeout(context.Background(), metricsShutdownTime)
	defer cancel()
	if m.http.Shutdown(ctx) != nil {
		m.http.Close()
	}
	m.ln.Close() // it was never served if there was no Start
	m.serving.Wait()
	m.scraping <- struct{}{} // for good
}

// ServeHTTP implements http.Handler.
func (m *metricsServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path != metricsPath:
		http.NotFound(w, r)
		return
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "only GET", http.StatusMethodNotAllowed)
		return
	}
	select {
	case m.scraping <- struct{}{}:
		defer func() { <-m.scraping }()
	default:
		w.Header().Set("Retry-After", "1")
		http.Error(w, "another scrape is in work", http.StatusServiceUnavailable)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), metricsMeasureTime)
	defer cancel()
	began := time.Now()
	report, err := m.meter.Measure(ctx)
	if err != nil {
		http.Error(w, "groups could not be measured: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	txns, err := m.collector.b.surveyTransactions(ctx)
	if err != nil {
		http.Error(w, "transactions could not be measured: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	m.sayOverflow(report)
	m.collector.set(report, txns, time.Since(began))
	defer m.collector.set(nil, txn.Survey{}, 0)
	m.handler.ServeHTTP(w, r)
}

// sayOverflow tells the log when lag begins not to fit, and when it fits again.
func (m *metricsServer) sayOverflow(r *groups.LagReport) {
	over := r.Overflow.Partitions > 0
	if over == m.overflowed {
		return
	}
	if m.overflowed = over; over {
		m.log.Warn("lag is told one by one for the first groups only, and summed up for the others: see millrace.metrics.lag.partitions.max",
			"told", len(r.Partitions), "summed", r.Overflow.Partitions, "groups", r.Overflow.Groups)
	} else {
		m.log.Info("lag is told one by one for all groups", "told", len(r.Partitions))
	}
}

// boundedListener has few connections open at once; more wait in the kernel.
type boundedListener struct {
	net.Listener
	room   chan struct{}
	once   sync.Once
	closed chan struct{}
}

// Accept implements net.Listener.
func (l *boundedListener) Accept() (net.Conn, error) {
	select {
	case l.room <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.room
		return nil, err
	}
	return &boundedConn{Conn: conn, room: l.room}, nil
}

// Close implements net.Listener.
func (l *boundedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type boundedConn struct {
	net.Conn
	room chan struct{}
	once sync.Once
}

// Close implements net.Conn.
func (c *boundedConn) Close() error {
	c.once.Do(func() { <-c.room })
	return c.Conn.Close()
}
