package bench

import (
	_ "embed"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
)

// chartColours is how many colours the style sheet has for targets.
const chartColours = 6

//go:embed report.css
var reportStyle string

// atAGlance are the metrics of the page's first table.
var atAGlance = [...]string{"throughput", "CPU per GB", "p50", "p99", "p99.9"}

// WriteHTML writes one page that needs nothing beside it: no script, no font, no picture from
// elsewhere. It reads in light and in dark.
func (r Report) WriteHTML(w io.Writer) error {
	out := &printer{w: w}
	out.printf(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"/><meta name="viewport" content="width=device-width, initial-scale=1"/>
<title>%s</title><style>%s</style></head><body><main>
<h1>%s</h1><p class="sub">%s</p>
`, escape(r.Title), reportStyle, escape(r.Title), escape(r.subtitle()))
	r.htmlGlance(out)
	for _, name := range r.workloads() {
		r.htmlWorkload(out, name)
	}
	r.htmlMethod(out)
	out.printf("</main></body></html>\n")
	return out.err
}

// colourOf gives each target the same colour in every chart.
func (r Report) colourOf() func(target string) int {
	targets := r.targets()
	return func(target string) int { return max(0, slices.Index(targets, target)) }
}

// htmlGlance is every comparison's most important ratios in one table.
func (r Report) htmlGlance(out *printer) {
	if len(r.Ratios) == 0 {
		return
	}
	out.printf(`<section><h2>At a glance</h2><div class="wide"><table><thead><tr><th>workload</th><th class="name">ratio</th>`)
	for _, m := range atAGlance {
		out.printf("<th>%s</th>", m)
	}
	out.printf("</tr></thead><tbody>\n")
	for _, name := range r.workloads() {
		for i, pair := range r.pairs(name) {
			first := ""
			if i == 0 {
				first = name
			}
			out.printf("<tr><th>%s</th><td class=\"name\">%s ÷ %s</td>", escape(first), escape(pair[0]), escape(pair[1]))
			for _, m := range atAGlance {
				if x, ok := r.ratio(name, m, pair); ok {
					out.printf(`<td class="%s" title="%s">%s</td>`, x.verdict().class(), escape(x.text()), number(x.Value))
				} else {
					out.printf("<td>–</td>")
				}
			}
			out.printf("</tr>\n")
		}
	}
	out.printf(`</tbody></table></div><p class="note"><span class="good">Better</span> and <span class="bad">worse</span> only where the whole interval lies on one side of 1, in at least %d rounds.</p></section>`, verdictRounds)
}

func (r Report) htmlWorkload(out *printer, name string) {
	rows := r.rowsOf(name)
	colour := r.colourOf()
	var shown []series
	for _, row := range rows {
		if row.Refused == "" && len(row.Figures) > 0 {
			shown = append(shown, series{row, colour(row.Target)})
		}
	}
	out.printf("<section><h2>%s</h2>\n", escape(name))
	r.htmlMedians(out, rows, colour)
	r.htmlHeld(out, name)
	for _, row := range rows {
		if row.Refused != "" {
			out.printf(`<p class="refused"><b>%s does not count:</b> %s</p>`+"\n", escape(row.Target), escape(row.Refused))
		}
	}
	if len(shown) > 0 {
		requests := perRequest(shown)
		out.printf("<div class=\"charts\">\n")
		out.figure("Throughput over time, "+rateUnit(requests), throughputChart(shown))
		out.figure("p99 over time, ms", p99Chart(shown))
		out.figure("Cost on the target, "+cpuUnit(requests), cpuChart(shown))
		out.figure("Latency by percentile, ms", latencyChart(shown))
		for _, against := range r.against(name) {
			out.figure("Ratios to "+against+" with their intervals of 95 %", r.ratioChart(name, against, colour))
		}
		out.printf("</div>")
	}
	out.printf("</section>\n")
}

// against are the targets that a workload's ratios are to.
func (r Report) against(workload string) (out []string) {
	for _, p := range r.pairs(workload) {
		if !slices.Contains(out, p[1]) {
			out = append(out, p[1])
		}
	}
	return out
}

func (p *printer) figure(caption, picture string) {
	p.printf("<figure><figcaption>%s</figcaption>%s</figure>\n", escape(caption), picture)
}

func (r Report) htmlMedians(out *printer, rows []Row, colour func(string) int) {
	out.printf(`<div class="wide"><table><thead><tr><th>target</th>`)
	for _, m := range Metrics() {
		out.printf("<th>%s</th>", escape(m.header()))
	}
	out.printf("<th>client cores</th><th>rounds</th></tr></thead><tbody>\n")
	for _, row := range rows {
		out.printf(`<tr><th><i class="key s%d"></i>%s</th>`, colour(row.Target)%chartColours, escape(row.Target))
		for _, m := range Metrics() {
			out.printf(`<td title="%s">%s</td>`, escape(extent(row, m.Of)), number(row.median(m.Of)))
		}
		out.printf("<td>%s</td><td>%d</td></tr>\n", number(row.median(clientCores)), len(row.Figures))
	}
	out.printf("</tbody></table></div>\n")
}

// htmlHeld is what a workload costs over the one without what it adds.
func (r Report) htmlHeld(out *printer, name string) {
	other, targets := r.heldOf(name)
	if other == "" {
		return
	}
	out.printf(`<div class="wide"><table><thead><tr><th>÷ %s</th>`, escape(other))
	for _, m := range Metrics() {
		out.printf("<th>%s</th>", escape(m.Name))
	}
	out.printf("</tr></thead><tbody>\n")
	for _, t := range targets {
		out.printf("<tr><th>%s</th>", escape(t))
		for _, m := range Metrics() {
			if x, ok := r.held(name, m.Name, t); ok {
				out.printf(`<td title="%s">%s</td>`, escape(x.text()), number(x.Value))
			} else {
				out.printf("<td>–</td>")
			}
		}
		out.printf("</tr>\n")
	}
	out.printf("</tbody></table></div>\n")
}

// extent is from the least to the greatest of the rounds.
func extent(row Row, of func(Figure) float64) string {
	if math.IsNaN(row.median(of)) {
		return "unknown"
	}
	vs := values(row.Figures, Metric{Of: of})
	return fmt.Sprintf("%s to %s in %s", number(slices.Min(vs)), number(slices.Max(vs)), plural(len(vs), "round"))
}

func (r Report) htmlMethod(out *printer) {
	out.printf(`<section><h2>How it was measured</h2>
<p>Every target had the same client and the same bytes, one workload at a time, the targets in turns within each round.
Figures are medians over the rounds. A ratio is one of medians, with its interval of 95 %% by bootstrap over the rounds; of fewer than six rounds
that is about from the least to the greatest.
A row counts only with no error at all, and after what was written was read back and found whole. CPU and memory are the
target's own process; client cores is what the load took, which shares the machine with the target.</p>
<dl>`)
	for _, k := range slices.Sorted(maps.Keys(r.Machine)) {
		out.printf("<dt>%s</dt><dd>%s</dd>", escape(k), escape(r.Machine[k]))
	}
	out.printf("</dl></section>\n")
}
