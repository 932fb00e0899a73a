package bench

import (
	"context"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Target is a broker that is measured, or the limit that brokers are held against.
type Target struct {
	Name    string
	Addr    string            // HOST:PORT of the broker that leads every partition
	PID     int               // the process whose CPU time and memory are counted; 0: unknown
	Dir     string            // its data directory, whose bytes are counted; empty: unknown
	Configs map[string]string // are set on every topic that a workload makes

	// Restart stops the target, or kills it at once, and starts it on what it holds. It returns how
	// long ready took to succeed since the target was run: ready is called again and again until it
	// does, until the target ends, or ctx. Nobody else may use the Target meanwhile: its PID changes.
	// nil: the target is not ours to stop, or keeps nothing.
	Restart func(ctx context.Context, kill bool, ready func(context.Context) error) (time.Duration, error)
}

// Workload is one question that is asked of every target in the same bytes. One value serves one
// target after another, never two at once; what it keeps between Prepare and Clean is of the target
// that it is at.
type Workload interface {
	// Name is as it stands in reports: lower case, words joined by hyphens.
	Name() string
	// Prepare makes the topics and what they hold before the load begins. The run's name goes into
	// every name that it makes, so that a target that outlives one bench can be asked by the next.
	Prepare(ctx context.Context, t *Target, run string) error
	// Run loads the target for d and says what was measured. An error is one of the workload itself;
	// what the target refused is counted in the figure, and the figure then does not count.
	Run(ctx context.Context, t *Target, d time.Duration) (Figure, error)
	// Verify reads back what the runs since Prepare have left.
	Verify(ctx context.Context, t *Target) error
	// Clean removes what Prepare made. It is called also when something before it has failed.
	Clean(ctx context.Context, t *Target) error
}

// Sample is one second of a run.
type Sample struct {
	At        time.Duration // its end, since the load began
	Requests  int64
	Bytes     int64
	ServerCPU time.Duration // in this second; -1: unknown
	ClientCPU time.Duration // in this second; -1: unknown
	RSS       int64         // at its end; -1: unknown
	P99       time.Duration // of the latencies that ended in this second; 0: there were none
}

// Figure is what one run of one workload on one target measured.
type Figure struct {
	Requests int64
	Records  int64
	Bytes    int64  // of record batches, as they are on the wire
	Written  int64  // bytes of batches that the target took; 0 where it is only read
	Errors   int64  // answers that were refusals, and connections that broke
	Error    string // the first of them

	Elapsed   time.Duration // wall time of the load
	ServerCPU time.Duration // user and system time of the target; -1: unknown
	ClientCPU time.Duration // user and system time of this process; -1: unknown
	RSS       int64         // the largest of the samples, in bytes; -1: unknown
	DiskBytes int64         // what the target's directory grew by; -1: unknown

	Latency *hdrhistogram.Histogram // ns; of an open loop from the moment at which a request was due
	Samples []Sample
}

// Row is a workload on a target, a figure a round.
type Row struct {
	Workload string
	Target   string
	Figures  []Figure
	Refused  string // why the row does not count; empty: it does
}

// Ratio is Target ÷ Against of one metric: the ratio of their medians over the rounds and its
// interval of 95 %. A single round has no interval: Low and High are 0.
type Ratio struct {
	Workload string
	Metric   string
	Target   string
	Against  string
	Value    float64
	Low      float64
	High     float64
	Rounds   int
}

// Report is what a bench has to say.
type Report struct {
	Title    string
	Begun    time.Time
	Machine  map[string]string // what a reader needs to judge the figures: CPUs, memory, kernel, file system
	Rounds   int
	Duration time.Duration // of one run
	Rows     []Row
	Ratios   []Ratio
	Held     []Ratio // of a target to itself: a workload ÷ the one without what it adds, whose name is in Against
}

// MBPerSecond is the throughput in 10⁶ bytes of batches a second.
func (f Figure) MBPerSecond() float64 { return perSecond(float64(f.Bytes)/1e6, f.Elapsed) }

// RequestsPerSecond is the rate of answers.
func (f Figure) RequestsPerSecond() float64 { return perSecond(float64(f.Requests), f.Elapsed) }

// CPUSecondsPerGB is the target's CPU time for 10⁹ bytes, or -1 where it is unknown.
func (f Figure) CPUSecondsPerGB() float64 {
	if f.ServerCPU < 0 || f.Bytes == 0 {
		return -1
	}
	return f.ServerCPU.Seconds() / (float64(f.Bytes) / 1e9)
}

// RequestsPerCPUSecond is how many requests the target answers in a second of its CPU time, or -1.
func (f Figure) RequestsPerCPUSecond() float64 {
	if f.ServerCPU <= 0 {
		return -1
	}
	return float64(f.Requests) / f.ServerCPU.Seconds()
}

// Quantile is the latency that q percent of the requests did not exceed; 0 when none was measured.
func (f Figure) Quantile(q float64) time.Duration {
	if f.Latency == nil || f.Latency.TotalCount() == 0 {
		return 0
	}
	return time.Duration(f.Latency.ValueAtQuantile(q))
}

func perSecond(n float64, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return n / d.Seconds()
}
