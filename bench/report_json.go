package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// jsonFormat is raised when a field changes its meaning or goes; one that comes needs no rise.
const jsonFormat = 1

// jsonReport is a Report as JSON: names with their units, null for what is unknown. The medians and
// percentiles are for readers; ReadJSON takes a latency from its histogram.
type jsonReport struct {
	Format     int               `json:"format"`
	Title      string            `json:"title"`
	Begun      time.Time         `json:"begun"`
	Machine    map[string]string `json:"machine"`
	Rounds     int               `json:"rounds"`
	DurationNs int64             `json:"duration_ns"`
	Rows       []jsonRow         `json:"rows"`
	Ratios     []jsonRatio       `json:"ratios"`
	Held       []jsonRatio       `json:"held,omitempty"` // against the workload named in against, on the same target
}

type jsonRow struct {
	Workload string              `json:"workload"`
	Target   string              `json:"target"`
	Refused  string              `json:"refused,omitempty"` // why the row does not count
	Medians  map[string]*float64 `json:"medians,omitempty"` // over the rounds, by metric and unit
	Rounds   []jsonFigure        `json:"rounds"`
}

type jsonFigure struct {
	Requests    int64        `json:"requests"`
	Records     int64        `json:"records"`
	Bytes       int64        `json:"bytes"`
	Written     int64        `json:"written_bytes"`
	Errors      int64        `json:"errors"`
	Error       string       `json:"error,omitempty"`
	ElapsedNs   int64        `json:"elapsed_ns"`
	ServerCPUNs *int64       `json:"server_cpu_ns"`
	ClientCPUNs *int64       `json:"client_cpu_ns"`
	RSSBytes    *int64       `json:"rss_bytes"`
	DiskBytes   *int64       `json:"disk_bytes"`
	Latency     *jsonLatency `json:"latency"`
	Samples     []jsonSample `json:"samples"`
}

type jsonLatency struct {
	Count       int64            `json:"count"`
	Percentiles []jsonPercentile `json:"percentiles"`
	MaxNs       int64            `json:"max_ns"`
	HDR         string           `json:"hdr"` // the histogram, HdrHistogram V2 deflated, base64
}

type jsonPercentile struct {
	Percent float64 `json:"percent"`
	Ns      int64   `json:"ns"`
}

type jsonSample struct {
	AtNs        int64  `json:"at_ns"`
	Requests    int64  `json:"requests"`
	Bytes       int64  `json:"bytes"`
	ServerCPUNs *int64 `json:"server_cpu_ns"`
	ClientCPUNs *int64 `json:"client_cpu_ns"`
	RSSBytes    *int64 `json:"rss_bytes"`
	P99Ns       int64  `json:"p99_ns"`
}

type jsonRatio struct {
	Workload string   `json:"workload"`
	Metric   string   `json:"metric"`
	Target   string   `json:"target"`
	Against  string   `json:"against"`
	Value    *float64 `json:"value"`
	Low      *float64 `json:"low"` // of the interval of 95 %; null with a single round
	High     *float64 `json:"high"`
	Rounds   int      `json:"rounds"`
}

// WriteJSON writes all that the report has.
func (r Report) WriteJSON(w io.Writer) error {
	out := jsonReport{Format: jsonFormat, Title: r.Title, Begun: r.Begun, Machine: r.Machine, Rounds: r.Rounds, DurationNs: int64(r.Duration),
		Rows: []jsonRow{}, Ratios: []jsonRatio{}}
	for _, row := range r.Rows {
		jr := jsonRow{Workload: row.Workload, Target: row.Target, Refused: row.Refused, Rounds: []jsonFigure{}}
		if row.Refused == "" && len(row.Figures) > 0 {
			jr.Medians = map[string]*float64{}
			for _, m := range Metrics() {
				jr.Medians[m.Name+", "+m.Unit] = finite(row.median(m.Of))
			}
		}
		for _, f := range row.Figures {
			jf, err := f.toJSON()
			if err != nil {
				return fmt.Errorf("bench: the latencies of %s on %s: %w", row.Workload, row.Target, err)
			}
			jr.Rounds = append(jr.Rounds, jf)
		}
		out.Rows = append(out.Rows, jr)
	}
	for _, x := range r.Ratios {
		out.Ratios = append(out.Ratios, x.toJSON())
	}
	for _, x := range r.Held {
		out.Held = append(out.Held, x.toJSON())
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", " ")
	if err := enc.Encode(out); err != nil {
		return fmt.Errorf("bench: writing the report: %w", err)
	}
	return nil
}

// ReadJSON reads what WriteJSON wrote.
func ReadJSON(r io.Reader) (Report, error) {
	var in jsonReport
	if err := json.NewDecoder(r).Decode(&in); err != nil {
		return Report{}, fmt.Errorf("bench: reading a report: %w", err)
	}
	if in.Format != jsonFormat {
		return Report{}, fmt.Errorf("bench: a report of format %d: this one reads %d", in.Format, jsonFormat)
	}
	out := Report{Title: in.Title, Begun: in.Begun, Machine: in.Machine, Rounds: in.Rounds, Duration: time.Duration(in.DurationNs)}
	for _, jr := range in.Rows {
		row := Row{Workload: jr.Workload, Target: jr.Target, Refused: jr.Refused}
		for _, jf := range jr.Rounds {
			f, err := jf.figure()
			if err != nil {
				return Report{}, fmt.Errorf("bench: the latencies of %s on %s: %w", row.Workload, row.Target, err)
			}
			row.Figures = append(row.Figures, f)
		}
		out.Rows = append(out.Rows, row)
	}
	for _, x := range in.Ratios {
		out.Ratios = append(out.Ratios, x.ratio())
	}
	for _, x := range in.Held {
		out.Held = append(out.Held, x.ratio())
	}
	return out, nil
}

func (x Ratio) toJSON() jsonRatio {
	out := jsonRatio{Workload: x.Workload, Metric: x.Metric, Target: x.Target, Against: x.Against, Value: finite(x.Value), Rounds: x.Rounds}
	if x.hasInterval() {
		out.Low, out.High = finite(x.Low), finite(x.High)
	}
	return out
}

func (x jsonRatio) ratio() Ratio {
	return Ratio{Workload: x.Workload, Metric: x.Metric, Target: x.Target, Against: x.Against,
		Value: orElse(x.Value, math.NaN()), Low: orElse(x.Low, 0), High: orElse(x.High, 0), Rounds: x.Rounds}
}

// percents are those that JSON lists.
var percents = [...]float64{50, 90, 95, 99, 99.9, 99.99}

func (f Figure) toJSON() (jsonFigure, error) {
	j := jsonFigure{Requests: f.Requests, Records: f.Records, Bytes: f.Bytes, Written: f.Written, Errors: f.Errors, Error: f.Error, ElapsedNs: int64(f.Elapsed),
		ServerCPUNs: known(f.ServerCPU), ClientCPUNs: known(f.ClientCPU), RSSBytes: known(f.RSS), DiskBytes: known(f.DiskBytes), Samples: []jsonSample{}}
	if f.Latency != nil {
		hdr, err := f.Latency.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
		if err != nil {
			return j, err
		}
		j.Latency = &jsonLatency{Count: f.Latency.TotalCount(), MaxNs: f.Latency.Max(), HDR: string(hdr)}
		for _, q := range percents {
			j.Latency.Percentiles = append(j.Latency.Percentiles, jsonPercentile{q, int64(f.Quantile(q))})
		}
	}
	for _, s := range f.Samples {
		j.Samples = append(j.Samples, jsonSample{AtNs: int64(s.At), Requests: s.Requests, Bytes: s.Bytes, ServerCPUNs: known(s.ServerCPU),
			ClientCPUNs: known(s.ClientCPU), RSSBytes: known(s.RSS), P99Ns: int64(s.P99)})
	}
	return j, nil
}

func (j jsonFigure) figure() (Figure, error) {
	f := Figure{Requests: j.Requests, Records: j.Records, Bytes: j.Bytes, Written: j.Written, Errors: j.Errors, Error: j.Error, Elapsed: time.Duration(j.ElapsedNs),
		ServerCPU: time.Duration(orElse(j.ServerCPUNs, -1)), ClientCPU: time.Duration(orElse(j.ClientCPUNs, -1)),
		RSS: orElse(j.RSSBytes, -1), DiskBytes: orElse(j.DiskBytes, -1)}
	if j.Latency != nil {
		var err error
		if f.Latency, err = hdrhistogram.Decode([]byte(j.Latency.HDR)); err != nil {
			return f, err
		}
	}
	for _, s := range j.Samples {
		f.Samples = append(f.Samples, Sample{At: time.Duration(s.AtNs), Requests: s.Requests, Bytes: s.Bytes,
			ServerCPU: time.Duration(orElse(s.ServerCPUNs, -1)), ClientCPU: time.Duration(orElse(s.ClientCPUNs, -1)),
			RSS: orElse(s.RSSBytes, -1), P99: time.Duration(s.P99Ns)})
	}
	return f, nil
}

// known is null for the -1 of what is unknown.
func known[T ~int64](v T) *int64 {
	if v < 0 {
		return nil
	}
	n := int64(v)
	return &n
}

// finite is null for what JSON cannot say.
func finite(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

func orElse[T any](p *T, or T) T {
	if p == nil {
		return or
	}
	return *p
}
