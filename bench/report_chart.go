package bench

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// The charts of the HTML report, as inline SVG. Colours come from the page's style sheet by the
// classes s0 to s5, one a target, so that they follow its light and dark.

const (
	chartWidth  = 560.0
	chartHeight = 300.0
	chartLeft   = 58.0
	chartRight  = 26.0
	chartTop    = 12.0
	chartBottom = 40.0
)

// svg is a picture that is being drawn.
type svg struct {
	b    strings.Builder
	w, h float64
}

func (s *svg) add(format string, args ...any) { fmt.Fprintf(&s.b, format, args...) }

func (s *svg) line(x1, y1, x2, y2 float64, class string) {
	s.add(`<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, class, x1, y1, x2, y2)
}

// text is anchored at its start, middle or end.
func (s *svg) text(x, y float64, anchor, class, text string) {
	s.add(`<text class="%s" x="%.1f" y="%.1f" text-anchor="%s">%s</text>`, class, x, y, anchor, escape(text))
}

// path joins points; what is not a number breaks it.
func (s *svg) path(points [][2]float64, class, title string) {
	s.add(`<path class="%s" d="`, class)
	pen := "M"
	for _, p := range points {
		if math.IsNaN(p[0]) || math.IsNaN(p[1]) {
			pen = "M"
			continue
		}
		s.add("%s%.1f %.1f", pen, p[0], p[1])
		pen = "L"
	}
	s.add(`"><title>%s</title></path>`, escape(title))
}

// String is the whole picture; label says what it shows to who cannot see it.
func (s *svg) picture(label string) string {
	return fmt.Sprintf(`<svg viewBox="0 0 %.0f %.0f" role="img" aria-label="%s">%s</svg>`, s.w, s.h, escape(label), s.b.String())
}

// axis maps lo to from and hi to to, in pixels.
type axis struct {
	lo, hi   float64
	from, to float64
	log      bool
}

func (a axis) at(v float64) float64 {
	lo, hi := a.lo, a.hi
	if a.log {
		lo, hi, v = math.Log(lo), math.Log(hi), math.Log(v)
	}
	return a.from + (v-lo)/(hi-lo)*(a.to-a.from)
}

// ticks are round numbers within the axis, about n of them.
func (a axis) ticks(n int) (out []float64) {
	if !a.log {
		step := roundUp((a.hi - a.lo) / float64(n))
		for i := int(math.Ceil(a.lo/step - 1e-9)); float64(i)*step <= a.hi+step*1e-9; i++ {
			out = append(out, float64(i)*step)
		}
		return out
	}
	for _, steps := range [][]float64{{1, 1.1, 1.2, 1.5, 2, 3, 4, 5, 6, 7, 8, 9}, {1, 1.5, 2, 3, 4, 6, 8}, {1, 2, 3, 5}, {1, 2, 5}, {1, 3}, {1}} {
		out = out[:0]
		for decade := math.Floor(math.Log10(a.lo)); decade <= math.Log10(a.hi); decade++ {
			for _, s := range steps {
				if v := s * math.Pow(10, decade); v >= a.lo*(1-1e-9) && v <= a.hi*(1+1e-9) {
					out = append(out, v)
				}
			}
		}
		if len(out) <= n+2 {
			break
		}
	}
	return out
}

// roundUp is the next of 1, 2, 5, 10, 20, …; 1 for what is not above 0.
func roundUp(v float64) float64 {
	if !(v > 0) || math.IsInf(v, 0) {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(v)))
	for _, s := range []float64{1, 2, 5} {
		if v <= s*unit*(1+1e-9) {
			return s * unit
		}
	}
	return 10 * unit
}

// roundDown is the 1, 2, 5, 10, … at or below.
func roundDown(v float64) float64 {
	unit := math.Pow(10, math.Floor(math.Log10(v)))
	for _, s := range []float64{5, 2} {
		if v >= s*unit*(1-1e-9) {
			return s * unit
		}
	}
	return unit
}

// tick labels a place of an axis without zeros that say nothing.
func tick(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%gM", v/1e6)
	case v >= 1e4:
		return fmt.Sprintf("%gk", v/1e3)
	}
	return fmt.Sprintf("%.6g", v)
}

// series is one target's place in every chart: its colour is its number.
type series struct {
	row    Row
	colour int
}

func (s series) class(more string) string { return fmt.Sprintf("s%d %s", s.colour%chartColours, more) }

// perRequest tells whether a workload is about requests rather than bytes: they are small.
func perRequest(all []series) bool {
	var requests, bytes int64
	for _, s := range all {
		for _, f := range s.row.Figures {
			requests, bytes = requests+f.Requests, bytes+f.Bytes
		}
	}
	const small = 4096 + 512
	return bytes < small*requests
}

func rateUnit(requests bool) string {
	if requests {
		return "requests/s"
	}
	return "MB/s"
}

// rates are a run's, a point a sample: it counts over the time since the one before and stands in
// the middle of it.
func rates(f Figure, requests bool) (points [][2]float64) {
	var before time.Duration
	for _, s := range f.Samples {
		took, mid := (s.At - before).Seconds(), (s.At+before).Seconds()/2
		before = s.At
		n := float64(s.Bytes) / 1e6
		if requests {
			n = float64(s.Requests)
		}
		if took > 0 {
			points = append(points, [2]float64{mid, n / took})
		}
	}
	return points
}

// medianPoints are the medians of the runs' first points, second points, and so on.
func medianPoints(runs [][][2]float64) (out [][2]float64) {
	for i := 0; ; i++ {
		var xs, ys []float64
		for _, run := range runs {
			if i < len(run) {
				xs, ys = append(xs, run[i][0]), append(ys, run[i][1])
			}
		}
		if 2*len(xs) <= len(runs) || len(xs) == 0 {
			return out
		}
		out = append(out, [2]float64{Median(xs), Median(ys)})
	}
}

// frame draws axes with their ticks and titles.
func (s *svg) frame(x, y axis, xTicks []float64, xLabel func(float64) string, xTitle string) {
	for _, v := range y.ticks(5) {
		s.line(chartLeft, y.at(v), s.w-chartRight, y.at(v), "grid")
		s.text(chartLeft-8, y.at(v)+4, "end", "tick", tick(v))
	}
	for _, v := range xTicks {
		s.line(x.at(v), chartTop, x.at(v), s.h-chartBottom, "grid")
		at, anchor := x.at(v), "middle"
		if label := xLabel(v); at+4*float64(len(label)) > s.w {
			at, anchor = s.w, "end" // else its end would be cut off
		}
		s.text(at, s.h-chartBottom+18, anchor, "tick", xLabel(v))
	}
	s.text((chartLeft+s.w-chartRight)/2, s.h-5, "middle", "tick", xTitle)
}

// throughputChart shows the rate over time.
func throughputChart(all []series) string {
	requests := perRequest(all)
	return timeChart(all, "throughput over time in "+rateUnit(requests), false, func(f Figure) [][2]float64 { return rates(f, requests) })
}

// p99Chart shows what a stall does: the 99th percentile of each second, on a logarithmic axis.
func p99Chart(all []series) string {
	return timeChart(all, "99th percentile of latency over time in ms", true, func(f Figure) (points [][2]float64) {
		var before time.Duration
		for _, s := range f.Samples {
			if s.P99 > 0 {
				points = append(points, [2]float64{(before + s.At).Seconds() / 2, float64(s.P99) / 1e6})
			}
			before = s.At
		}
		return points
	})
}

// timeChart shows a value over time: every round thin, their median thick.
func timeChart(all []series, label string, log bool, of func(Figure) [][2]float64) string {
	lastX, least, most := 0.0, math.Inf(1), 0.0
	for _, s := range all {
		for _, f := range s.row.Figures {
			lastX = max(lastX, f.Elapsed.Seconds())
		}
	}
	runs := make([][][][2]float64, len(all))
	for i, s := range all {
		for _, f := range s.row.Figures {
			run := of(f)
			runs[i] = append(runs[i], run)
			for _, p := range run {
				lastX, least, most = max(lastX, p[0]), min(least, p[1]), max(most, p[1])
			}
		}
	}
	if most == 0 {
		return nothing
	}
	pic := &svg{w: chartWidth, h: chartHeight}
	x := axis{lo: 0, hi: lastX, from: chartLeft, to: pic.w - chartRight}
	step := roundUp(most / 5)
	y := axis{lo: 0, hi: math.Ceil(most/step) * step, from: pic.h - chartBottom, to: chartTop}
	if log {
		y.lo, y.hi, y.log = logRange(least, most)
	}
	pic.frame(x, y, x.ticks(6), tick, "seconds")
	place := func(points [][2]float64) [][2]float64 {
		out := make([][2]float64, len(points))
		for i, p := range points {
			out[i] = [2]float64{x.at(p[0]), y.at(p[1])}
		}
		return out
	}
	for i, s := range all {
		for n, run := range runs[i] {
			pic.path(place(run), s.class("thin"), fmt.Sprintf("%s, round %d", s.row.Target, n+1))
		}
	}
	for i, s := range all {
		pic.path(place(medianPoints(runs[i])), s.class("thick"), s.row.Target+", median of the rounds")
	}
	return pic.picture(label)
}

// logRange is round numbers around what a logarithmic axis is to show.
func logRange(least, most float64) (lo, hi float64, log bool) {
	lo = roundDown(least)
	return lo, max(roundUp(most), 2*lo), true
}

// merged is the latencies of all rounds; nil: there are none.
func merged(row Row) *hdrhistogram.Histogram {
	var all *hdrhistogram.Histogram
	for _, f := range row.Figures {
		switch {
		case f.Latency == nil || f.Latency.TotalCount() == 0:
		case all == nil:
			all = f.Latency.Clone()
		default:
			all.Merge(f.Latency)
		}
	}
	return all
}

// latencyChart shows latencies by percentile on logarithmic axes: to the right, ten times rarer.
func latencyChart(all []series) string {
	rarest, least, most := 1.0, math.Inf(1), 0.0
	hists := make([]*hdrhistogram.Histogram, len(all))
	for i, s := range all {
		h := merged(s.row)
		if hists[i] = h; h == nil {
			continue
		}
		rarest = max(rarest, math.Log10(float64(h.TotalCount())))
		least, most = min(least, max(1, float64(h.ValueAtQuantile(1)))), max(most, float64(h.Max()))
	}
	if most == 0 {
		return nothing
	}
	rarest = min(rarest, 6)
	pic := &svg{w: chartWidth, h: chartHeight}
	x := axis{lo: 0, hi: rarest, from: chartLeft, to: pic.w - chartRight}
	y := axis{from: pic.h - chartBottom, to: chartTop}
	y.lo, y.hi, y.log = logRange(least/1e6, most/1e6)
	marks := []float64{0.30103}
	for n := 1.0; n <= rarest; n++ {
		marks = append(marks, n)
	}
	pic.frame(x, y, marks, func(v float64) string { return fmt.Sprintf("%.6g %%", 100*(1-math.Pow(10, -v))) }, "percentile")
	for i, s := range all {
		if hists[i] == nil {
			continue
		}
		var points [][2]float64
		for n := 0.0; n <= min(rarest, math.Log10(float64(hists[i].TotalCount())))+1e-9; n += 0.02 {
			v := float64(max(1, hists[i].ValueAtQuantile(100*(1-math.Pow(10, -n)))))
			points = append(points, [2]float64{x.at(n), y.at(max(v/1e6, y.lo))})
		}
		pic.path(points, s.class("thick"), fmt.Sprintf("%s: p50 %s ms, p99 %s ms, p99.9 %s ms, max %s ms", s.row.Target, number(float64(hists[i].ValueAtQuantile(50))/1e6),
			number(float64(hists[i].ValueAtQuantile(99))/1e6), number(float64(hists[i].ValueAtQuantile(99.9))/1e6), number(float64(hists[i].Max())/1e6)))
	}
	return pic.picture("latency in ms by percentile")
}

// cpuOf is the target's CPU time for the work, less is better: seconds for 10⁹ bytes, or for a
// million requests where they are small.
func cpuOf(requests bool) func(Figure) float64 {
	return func(f Figure) float64 {
		switch {
		case f.ServerCPU < 0 || f.Requests == 0:
			return math.NaN()
		case requests:
			return f.ServerCPU.Seconds() / float64(f.Requests) * 1e6
		case f.Bytes == 0:
			return math.NaN()
		}
		return f.CPUSecondsPerGB()
	}
}

func cpuUnit(requests bool) string {
	if requests {
		return "CPU s per million requests"
	}
	return "CPU s per GB"
}

// cpuChart shows a bar a target, the median of the rounds, and from their least to their greatest.
func cpuChart(all []series) string {
	const rowHeight, barHeight = 38.0, 20.0
	requests := perRequest(all)
	var most float64
	costs := make([][]float64, len(all))
	for i, s := range all {
		for _, f := range s.row.Figures {
			if v := cpuOf(requests)(f); !math.IsNaN(v) {
				costs[i] = append(costs[i], v)
				most = max(most, v)
			}
		}
	}
	if most == 0 {
		return nothing
	}
	pic := &svg{w: chartWidth, h: chartTop + rowHeight*float64(len(all)) + chartBottom}
	left := chartLeft + 52
	x := axis{lo: 0, hi: most, from: left, to: pic.w - 74}
	for _, v := range x.ticks(5) {
		pic.line(x.at(v), chartTop, x.at(v), pic.h-chartBottom, "grid")
		pic.text(x.at(v), pic.h-chartBottom+18, "middle", "tick", tick(v))
	}
	pic.text((x.from+x.to)/2, pic.h-5, "middle", "tick", cpuUnit(requests))
	for i, s := range all {
		mid := chartTop + rowHeight*(float64(i)+0.5)
		pic.text(left-8, mid+4, "end", "label", short(s.row.Target, 15))
		if len(costs[i]) == 0 {
			pic.text(left+4, mid+4, "start", "tick", "unknown")
			continue
		}
		m, lo, hi := Median(costs[i]), slices.Min(costs[i]), slices.Max(costs[i])
		pic.add(`<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="2"><title>%s: %s to %s</title></rect>`,
			s.class("bar"), left, mid-barHeight/2, max(1, x.at(m)-left), barHeight, escape(s.row.Target), number(lo), number(hi))
		pic.line(x.at(lo), mid, x.at(hi), mid, "whisker")
		pic.line(x.at(lo), mid-5, x.at(lo), mid+5, "whisker")
		pic.line(x.at(hi), mid-5, x.at(hi), mid+5, "whisker")
		pic.text(x.at(hi)+8, mid+4, "start", "label", number(m))
	}
	return pic.picture(cpuUnit(requests) + " of each target")
}

// ratioChart shows a workload's ratios against one target on a logarithmic axis, each with its interval.
func (r Report) ratioChart(workload, against string, colourOf func(target string) int) string {
	const rowHeight, left, right = 19.0, 132.0, 152.0
	pairs := r.pairs(workload)
	var shown []Ratio
	lo, hi := 0.8, 1.25
	for _, m := range Metrics() {
		for _, p := range pairs {
			if x, ok := r.ratio(workload, m.Name, p); ok && p[1] == against && x.Value > 0 && !math.IsInf(x.Value, 0) {
				shown = append(shown, x)
				lo, hi = min(lo, x.Value, cmp.Or(x.Low, x.Value)), max(hi, x.Value, x.High)
			}
		}
	}
	if len(shown) == 0 {
		return nothing
	}
	pic := &svg{w: chartWidth, h: chartTop + rowHeight*float64(len(shown)) + chartBottom}
	x := axis{lo: lo / 1.08, hi: hi * 1.08, log: true, from: left, to: pic.w - right}
	for _, v := range x.ticks(5) {
		pic.line(x.at(v), chartTop, x.at(v), pic.h-chartBottom, "grid")
		pic.text(x.at(v), pic.h-chartBottom+18, "middle", "tick", tick(v))
	}
	pic.line(x.at(1), chartTop-4, x.at(1), pic.h-chartBottom, "one")
	before := ""
	for i, one := range shown {
		mid := chartTop + rowHeight*(float64(i)+0.5)
		if one.Metric != before {
			pic.text(left-10, mid+4, "end", "label", one.Metric)
			before = one.Metric
		}
		class := fmt.Sprintf("s%d", colourOf(one.Target)%chartColours)
		if one.hasInterval() {
			pic.line(x.at(one.Low), mid, x.at(one.High), mid, class+" interval")
		}
		pic.add(`<circle class="%s dot" cx="%.1f" cy="%.1f" r="4"><title>%s ÷ %s, %s: %s</title></circle>`,
			class, x.at(one.Value), mid, escape(one.Target), escape(one.Against), escape(one.Metric), escape(one.text()))
		pic.text(pic.w-right+14, mid+4, "start", "value "+one.verdict().class(), one.text())
	}
	pic.text((x.from+x.to)/2, pic.h-5, "middle", "tick", "ratio")
	return pic.picture("ratios of " + workload + " against " + against)
}

func (v verdict) class() string { return [...]string{"even", "good", "bad"}[v] }

// nothing stands where a chart has no data.
const nothing = `<p class="none">no data</p>`

// short cuts a name to what fits.
func short(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

var escaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&#39;")

// escape makes text of the report safe in HTML, in attributes too.
func escape(s string) string { return escaper.Replace(s) }
