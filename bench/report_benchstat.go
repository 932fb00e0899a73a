package bench

import (
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"unicode"
)

// WriteBenchstat writes a line a round in the form of Go's benchmarks, so that benchstat compares
// targets (-col /target), or two reports, with its own statistics. Rows that do not count are left out.
func (r Report) WriteBenchstat(w io.Writer) error {
	out := &printer{w: w}
	for _, k := range slices.Sorted(maps.Keys(r.Machine)) {
		out.printf("%s: %s\n", benchKey(k), oneLine(r.Machine[k]))
	}
	for _, m := range Metrics() {
		better := "higher"
		if m.LowerIsBetter {
			better = "lower"
		}
		out.printf("Unit %s better=%s\n", m.benchUnit(), better)
	}
	for _, row := range r.Rows {
		if row.Refused != "" {
			continue
		}
		name := benchName(row.Workload, row.Target)
		for _, f := range row.Figures {
			out.printf("%s\t%d", name, f.Requests)
			for _, m := range Metrics() {
				if v := m.Of(f); !math.IsNaN(v) {
					out.printf("\t%.6g %s", m.benchValue(v), m.benchUnit())
				}
			}
			out.printf("\n")
		}
	}
	return out.err
}

// benchUnit is the metric's unit without blanks. Durations and sizes are in base units, which
// benchstat scales.
func (m Metric) benchUnit() string {
	switch m.Unit {
	case "ms":
		return m.Name + "-sec"
	case "MB":
		return m.Name + "-B"
	}
	return strings.ReplaceAll(m.Unit, " ", "-")
}

func (m Metric) benchValue(v float64) float64 {
	switch m.Unit {
	case "ms":
		return v / 1e3
	case "MB":
		return v * 1e6
	}
	return v
}

// benchName is BenchmarkManyPartitions/target=kafka. A number that ends it after a hyphen would be
// taken for GOMAXPROCS, so it follows a low line.
func benchName(workload, target string) string {
	var b strings.Builder
	b.WriteString("Benchmark")
	for word := range strings.FieldsFuncSeq(workload, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
		for i, r := range word {
			if i == 0 {
				r = unicode.ToUpper(r)
			}
			b.WriteRune(r)
		}
	}
	if i := strings.LastIndexByte(target, '-'); i >= 0 && strings.Trim(target[i+1:], "0123456789") == "" {
		target = target[:i] + "_" + target[i+1:]
	}
	return b.String() + "/target=" + target
}

// benchKey makes the key of a line of configuration: it begins with a small letter and has no blanks.
func benchKey(s string) string {
	s = strings.Join(strings.Fields(strings.ToLower(s)), "-")
	if s == "" || s[0] < 'a' || s[0] > 'z' {
		s = "x-" + s
	}
	return s
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
