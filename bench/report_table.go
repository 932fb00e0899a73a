package bench

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// tableWidth is what a terminal shows without breaking lines: ratios that need more go below.
const tableWidth = 120

// WriteTable writes the report for a terminal: for each workload the medians of the rounds, then
// the ratios with their intervals.
func (r Report) WriteTable(w io.Writer) error {
	out := &printer{w: w}
	out.printf("%s\n%s\n%s\n", r.Title, r.subtitle(), r.legend())
	for _, k := range slices.Sorted(maps.Keys(r.Machine)) {
		out.printf("%s: %s\n", k, r.Machine[k])
	}
	for _, name := range r.workloads() {
		out.printf("\n%s\n", name)
		r.writeMedians(out, name)
		r.writeRatios(out, name)
		r.writeHeld(out, name)
	}
	return out.err
}

func (r Report) subtitle() string {
	return fmt.Sprintf("%s, %s of %v, targets in turns", r.Begun.UTC().Format("2006-01-02 15:04 UTC"), plural(r.Rounds, "round"), r.Duration)
}

// legend says what the numbers are.
func (r Report) legend() string {
	if r.Rounds == 1 {
		return "figures and ratios are those of a single round, which has no intervals"
	}
	return "figures are medians of the rounds; ratios are those of medians (with their intervals of 95 %)"
}

func plural(n int, what string) string {
	if n == 1 {
		return fmt.Sprintf("%d %s", n, what)
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// workloads names them in the order of the rows.
func (r Report) workloads() []string {
	var out []string
	for _, row := range r.Rows {
		if !slices.Contains(out, row.Workload) {
			out = append(out, row.Workload)
		}
	}
	return out
}

// rowsOf are a workload's rows.
func (r Report) rowsOf(workload string) []Row {
	return slices.DeleteFunc(slices.Clone(r.Rows), func(row Row) bool { return row.Workload != workload })
}

// targets names them in the order of the rows.
func (r Report) targets() []string {
	var out []string
	for _, row := range r.Rows {
		if !slices.Contains(out, row.Target) {
			out = append(out, row.Target)
		}
	}
	return out
}

// pairs are the comparisons of a workload: those of the ratios with the same two targets.
func (r Report) pairs(workload string) (pairs [][2]string) {
	for _, x := range r.Ratios {
		if p := [2]string{x.Target, x.Against}; x.Workload == workload && !slices.Contains(pairs, p) {
			pairs = append(pairs, p)
		}
	}
	return pairs
}

func (r Report) ratio(workload, metric string, pair [2]string) (Ratio, bool) {
	i := slices.IndexFunc(r.Ratios, func(x Ratio) bool {
		return x.Workload == workload && x.Metric == metric && x.Target == pair[0] && x.Against == pair[1]
	})
	if i < 0 {
		return Ratio{}, false
	}
	return r.Ratios[i], true
}

// clientCores is how many cores the load itself took: above the half of what the machine has, it is
// the load that is measured.
func clientCores(f Figure) float64 {
	if f.ClientCPU < 0 || f.Elapsed <= 0 {
		return math.NaN()
	}
	return f.ClientCPU.Seconds() / f.Elapsed.Seconds()
}

func (r Report) writeMedians(out *printer, workload string) {
	head := []string{"  target"}
	for _, m := range Metrics() {
		head = append(head, m.header())
	}
	lines := [][]string{append(head, "client cores", "rounds")}
	rows := r.rowsOf(workload)
	for _, row := range rows {
		line := []string{"  " + row.Target}
		for _, m := range Metrics() {
			line = append(line, number(row.median(m.Of)))
		}
		lines = append(lines, append(line, number(row.median(clientCores)), fmt.Sprint(len(row.Figures))))
	}
	out.columns(lines, true)
	for _, row := range rows {
		if row.Refused != "" {
			out.printf("  %s DOES NOT COUNT: %s\n", row.Target, oneLine(row.Refused))
		}
	}
}

// writeRatios has a column for each pair of targets, as many beside each other as fit.
func (r Report) writeRatios(out *printer, workload string) {
	names := []string{"  ratio"}
	for _, m := range Metrics() {
		names = append(names, "  "+m.Name)
	}
	columns, width := [][]string{names}, widest(names)
	flush := func() {
		if len(columns) > 1 {
			out.printf("\n")
			out.columns(across(columns), false)
		}
	}
	for _, p := range r.pairs(workload) {
		column := []string{p[0] + " ÷ " + p[1]}
		for _, m := range Metrics() {
			cell := "–"
			if x, ok := r.ratio(workload, m.Name, p); ok {
				cell = x.text()
			}
			column = append(column, cell)
		}
		if len(columns) > 1 && width+2+widest(column) > tableWidth {
			flush()
			columns, width = columns[:1], widest(names)
		}
		columns, width = append(columns, column), width+2+widest(column)
	}
	flush()
}

// writeHeld has a column for each target.
func (r Report) writeHeld(out *printer, workload string) {
	other, targets := r.heldOf(workload)
	if other == "" {
		return
	}
	lines := [][]string{append([]string{"  ÷ " + other}, targets...)}
	for _, m := range Metrics() {
		if cells, some := r.heldCells(workload, m.Name, targets, "–"); some {
			lines = append(lines, append([]string{"  " + m.Name}, cells...))
		}
	}
	out.printf("\n")
	out.columns(lines, false)
}

// heldOf is what a workload is held against, and the targets of which that is known.
func (r Report) heldOf(workload string) (other string, targets []string) {
	for _, x := range r.Held {
		if x.Workload == workload {
			other = x.Against
			if !slices.Contains(targets, x.Target) {
				targets = append(targets, x.Target)
			}
		}
	}
	return other, targets
}

// heldCells are a metric's ratios of the targets, unknown for those that have none; some says that one has.
func (r Report) heldCells(workload, metric string, targets []string, unknown string) (cells []string, some bool) {
	for _, t := range targets {
		text := unknown
		if x, ok := r.held(workload, metric, t); ok {
			text, some = x.text(), true
		}
		cells = append(cells, text)
	}
	return cells, some
}

func (r Report) held(workload, metric, target string) (Ratio, bool) {
	i := slices.IndexFunc(r.Held, func(x Ratio) bool { return x.Workload == workload && x.Metric == metric && x.Target == target })
	if i < 0 {
		return Ratio{}, false
	}
	return r.Held[i], true
}

func widest(cells []string) (n int) {
	for _, c := range cells {
		n = max(n, utf8.RuneCountInString(c))
	}
	return n
}

// across turns columns into lines, without those of which only the first cell says something.
func across(columns [][]string) (lines [][]string) {
	for i := range columns[0] {
		line, some := make([]string, len(columns)), false
		for j, c := range columns {
			line[j] = c[i]
			some = some || j > 0 && c[i] != "–"
		}
		if some {
			lines = append(lines, line)
		}
	}
	return lines
}

// header is the unit, or for what has no rate of its own name and unit.
func (m Metric) header() string {
	if m.Unit == "ms" || m.Unit == "MB" {
		return m.Name + " " + m.Unit
	}
	return m.Unit
}

// median of what a row's figures have; NaN when the row does not count, or one of them lacks it.
func (row Row) median(of func(Figure) float64) float64 {
	vs := values(row.Figures, Metric{Of: of})
	if row.Refused != "" || vs == nil {
		return math.NaN()
	}
	return Median(vs)
}

// text is the ratio with its interval, where it has one.
func (x Ratio) text() string {
	if !x.hasInterval() {
		return number(x.Value)
	}
	return fmt.Sprintf("%s (%s–%s)", number(x.Value), number(x.Low), number(x.High))
}

func (x Ratio) hasInterval() bool { return x.Low != 0 || x.High != 0 }

// verdict of a ratio: better and worse only where its whole interval is on one side of 1, and there
// are rounds enough for an interval to mean that: all of five are on one side by chance once in 16
// times, all of three once in four.
type verdict int

const verdictRounds = 5

const (
	undecided verdict = iota
	better
	worse
)

func (x Ratio) verdict() verdict {
	lower := slices.ContainsFunc(Metrics(), func(m Metric) bool { return m.Name == x.Metric && m.LowerIsBetter })
	switch {
	case !x.hasInterval() || x.Rounds < verdictRounds || x.Low <= 1 && x.High >= 1:
		return undecided
	case (x.Value < 1) == lower:
		return better
	}
	return worse
}

// number writes three figures, and none behind the point of what is larger; a dash for what is unknown.
func number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "–"
	case a >= 99.95:
		return fmt.Sprintf("%.0f", v)
	case a >= 9.995:
		return fmt.Sprintf("%.1f", v)
	case a >= 0.9995 || a == 0:
		return fmt.Sprintf("%.2f", v)
	case a >= 0.0005:
		return fmt.Sprintf("%.3f", v)
	}
	return fmt.Sprintf("%.1e", v)
}

// printer keeps the first error of its writer.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) Write(b []byte) (int, error) {
	if p.err != nil {
		return 0, p.err
	}
	n, err := p.w.Write(b)
	if err != nil {
		p.err = fmt.Errorf("bench: writing the report: %w", err)
	}
	return n, err
}

func (p *printer) printf(format string, args ...any) { fmt.Fprintf(p, format, args...) }

// columns writes lines of cells: the first of each to the left, the others to the side that is asked for.
func (p *printer) columns(lines [][]string, right bool) {
	var width []int
	for _, line := range lines {
		for i, cell := range line {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for _, line := range lines {
		var b strings.Builder
		for i, cell := range line {
			blanks := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if i > 0 {
				b.WriteString("  ")
			}
			if i > 0 && right {
				cell, blanks = blanks, cell
			}
			b.WriteString(cell)
			b.WriteString(blanks)
		}
		p.printf("%s\n", strings.TrimRight(b.String(), " "))
	}
}
