// Package bench loads Kafka-compatible brokers, checks their answers and compares them. A Plan runs
// Workloads on Targets in interleaved rounds and gives a Report; docs/bench.md says by which method.
// Its client encodes batches once and sends them again and again, so that what is measured is the
// broker and not what loads it. It speaks the protocol over plain sockets and knows nothing of the
// broker behind them, so the same workload runs against any address.
//
// It refuses to average: every figure says how many requests, how many bytes, how long, the
// broker's own CPU time where it can be read, and the latency at its percentiles. And it refuses
// what was not checked: a row counts only when nothing failed and the log was read back.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Load is what every workload has in common. The zero value of a field is its default.
type Load struct {
	Addr        string        // HOST:PORT of the broker that leads every partition; 127.0.0.1:9092
	Topic       string        // created when it does not exist; millrace-bench
	Partitions  int           // 1
	Connections int           // 1
	InFlight    int           // requests outstanding on each connection; 8
	Duration    time.Duration // 10 s
	BrokerPID   int           // the process whose CPU time is counted; 0: none
}

func (l Load) withDefaults() Load {
	if l.Addr == "" {
		l.Addr = "127.0.0.1:9092"
	}
	if l.Topic == "" {
		l.Topic = "millrace-bench"
	}
	l.Partitions = max(l.Partitions, 1)
	l.Connections = max(l.Connections, 1)
	if l.InFlight <= 0 {
		l.InFlight = 8
	}
	if l.Duration <= 0 {
		l.Duration = 10 * time.Second
	}
	return l
}

// Result is what a run measured.
type Result struct {
	Requests  int64
	Records   int64
	Bytes     int64         // of record batches, as they are on the wire
	Elapsed   time.Duration // wall time of the load
	BrokerCPU time.Duration // user and system time of BrokerPID; -1 where unknown
	Latency   *hdrhistogram.Histogram
}

// MBPerSecond is the throughput in 10⁶ bytes of batches a second.
func (r Result) MBPerSecond() float64 { return float64(r.Bytes) / 1e6 / r.Elapsed.Seconds() }

// CPUSecondsPerGB is the broker's CPU time for 10⁹ bytes, or -1 where it is unknown.
func (r Result) CPUSecondsPerGB() float64 {
	if r.BrokerCPU < 0 || r.Bytes == 0 {
		return -1
	}
	return r.BrokerCPU.Seconds() / (float64(r.Bytes) / 1e9)
}

// RequestsPerCPUSecond is how many requests the broker answers in a second of its CPU time, or -1.
func (r Result) RequestsPerCPUSecond() float64 {
	if r.BrokerCPU <= 0 {
		return -1
	}
	return float64(r.Requests) / r.BrokerCPU.Seconds()
}

// Print writes a result in the form that benchstat reads, a line of percentiles below it.
func (r Result) Print(w io.Writer, name string) {
	fmt.Fprintf(w, "Benchmark%s\t%8d\t%12.0f ns/op\t%10.2f MB/s\t%12.0f req/s", name, r.Requests,
		float64(r.Elapsed.Nanoseconds())/float64(max(r.Requests, 1)), r.MBPerSecond(), float64(r.Requests)/r.Elapsed.Seconds())
	if r.BrokerCPU >= 0 {
		fmt.Fprintf(w, "\t%8.3f brokerCPUs/GB\t%10.0f req/brokerCPUs", r.CPUSecondsPerGB(), r.RequestsPerCPUSecond())
	}
	us := func(q float64) float64 { return float64(r.Latency.ValueAtQuantile(q)) / 1e3 }
	fmt.Fprintf(w, "\n# latency µs: p50 %.0f  p90 %.0f  p99 %.0f  p99.9 %.0f  max %.0f\n", us(50), us(90), us(99), us(99.9), float64(r.Latency.Max())/1e3)
}

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, time.Minute.Nanoseconds(), 3)
}

// replay is one connection's work: a ring of encoded requests and how to check their answers.
type replay struct {
	requests []request
	check    func(req *request, answer []byte, first bool) error
}

// request is an encoded frame, size prefix included, that is sent again and again.
type request struct {
	frame   []byte
	bytes   int64 // of batches that it carries, or that its answer must carry
	records int64
	want    []byte // the first answer, kept for comparison
}

// run drives every connection until the time is over, then sums up.
func run(ctx context.Context, l Load, work []*replay) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, l.Duration)
	defer cancel()
	before, cpuErr := cpuTime(l.BrokerPID)
	start := time.Now()
	var mu struct {
		sync.Mutex
		total Result
		errs  []error
	}
	mu.total.Latency = newHistogram()
	var wg sync.WaitGroup
	for _, w := range work {
		wg.Go(func() {
			res, err := w.drive(ctx, l)
			mu.Lock()
			defer mu.Unlock()
			mu.total.Requests += res.Requests
			mu.total.Records += res.Records
			mu.total.Bytes += res.Bytes
			mu.total.Latency.Merge(res.Latency)
			if err != nil {
				mu.errs = append(mu.errs, err)
				cancel()
			}
		})
	}
	wg.Wait()
	total := mu.total
	total.Elapsed = time.Since(start)
	total.BrokerCPU = -1
	if l.BrokerPID != 0 {
		after, err := cpuTime(l.BrokerPID)
		if err = errors.Join(cpuErr, err); err != nil {
			return total, err
		}
		total.BrokerCPU = after - before
	}
	return total, errors.Join(mu.errs...)
}
