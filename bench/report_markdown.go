package bench

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
)

// WriteMarkdown writes the table that a README shows: for each workload what was measured of every
// target, and the ratios with their intervals. What is worse says so, and so does a row that does
// not count; nothing is left out for being either.
func (r Report) WriteMarkdown(w io.Writer) error {
	out := &printer{w: w}
	targets, pairs := r.targets(), r.allPairs()
	head := append([]string{"workload", "median of"}, targets...)
	for _, p := range pairs {
		head = append(head, p[0]+" ÷ "+p[1])
	}
	out.row(head)
	out.printf("|---|---|%s\n", strings.Repeat("---:|", len(head)-2))
	for _, name := range r.workloads() {
		r.markdownWorkload(out, name, targets, pairs)
	}
	for _, row := range r.Rows {
		if row.Refused != "" {
			out.printf("\n%s on %s does not count: %s\n", cell(row.Workload), cell(row.Target), cell(row.Refused))
		}
	}
	out.printf("\n%s; %s; %s.", cell(r.Title), r.subtitle(), r.legend())
	if r.Rounds > 1 {
		out.printf(" Bold is better, *worse* is worse: only where the whole interval lies on one side of 1, in at least %d rounds.", verdictRounds)
	}
	for _, k := range slices.Sorted(maps.Keys(r.Machine)) {
		out.printf(" %s.", cell(k+": "+r.Machine[k]))
	}
	out.printf("\n")
	return out.err
}

// markdownWorkload has a line for each metric that is looked at first and that some target has.
func (r Report) markdownWorkload(out *printer, name string, targets []string, pairs [][2]string) {
	rows, label := r.rowsOf(name), name
	for _, m := range r.firstMetrics(rows) {
		line, some := []string{label, m.Name + ", " + m.Unit}, false
		for _, t := range targets {
			text := ""
			if i := slices.IndexFunc(rows, func(row Row) bool { return row.Target == t }); i >= 0 {
				v := rows[i].median(m.Of)
				text, some = number(v), some || !math.IsNaN(v)
			}
			line = append(line, text)
		}
		for _, p := range pairs {
			text := ""
			if x, ok := r.ratio(name, m.Name, p); ok {
				text = x.markdown()
			}
			line = append(line, text)
		}
		if some {
			out.row(line)
			label = ""
		}
	}
	r.markdownHeld(out, name, targets, len(pairs))
	if label != "" { // no target has a figure
		out.row(append([]string{label, "does not count"}, make([]string, len(targets)+len(pairs))...))
	}
}

// markdownHeld has a line for each of these metrics of a workload ÷ the one without what it adds.
func (r Report) markdownHeld(out *printer, name string, targets []string, pairs int) {
	other, _ := r.heldOf(name)
	if other == "" {
		return
	}
	label := "÷ " + other
	for _, m := range r.firstMetrics(r.rowsOf(name)) {
		if cells, some := r.heldCells(name, m.Name, targets, ""); some {
			out.row(slices.Concat([]string{label, m.Name}, cells, make([]string, pairs)))
			label = ""
		}
	}
}

// firstMetrics are those of the first look, by requests where these are small.
func (r Report) firstMetrics(rows []Row) (out []Metric) {
	var all []series
	for _, row := range rows {
		all = append(all, series{row: row})
	}
	names := atAGlance[:]
	if perRequest(all) {
		names = slices.Concat([]string{"requests", "requests per CPU"}, names[2:])
	}
	for _, name := range names {
		i := slices.IndexFunc(Metrics(), func(m Metric) bool { return m.Name == name })
		out = append(out, Metrics()[i])
	}
	return out
}

// allPairs are the comparisons of all workloads.
func (r Report) allPairs() (out [][2]string) {
	for _, name := range r.workloads() {
		for _, p := range r.pairs(name) {
			if !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	return out
}

// markdown is the ratio's text with its verdict.
func (x Ratio) markdown() string {
	switch x.verdict() {
	case better:
		return fmt.Sprintf("**%s** (%s–%s)", number(x.Value), number(x.Low), number(x.High))
	case worse:
		return "*worse:* " + x.text()
	}
	return x.text()
}

func (p *printer) row(cells []string) {
	for i, c := range cells {
		cells[i] = cell(c)
	}
	p.printf("| %s |\n", strings.Join(cells, " | "))
}

// cell is text on one line that ends no cell of a table and is no HTML.
func cell(s string) string {
	return strings.NewReplacer("|", `\|`, "<", "&lt;", "&", "&amp;").Replace(oneLine(s))
}
