package bench

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var updateReports = flag.Bool("report.update", false, "write the golden files of the reports")

// syntheticFigure is a run in which every number follows from its arguments.
func syntheticFigure(rng *rand.Rand, requestsPerSecond, bytesPerRequest int, cpuPerGB, p50 float64) Figure {
	const runs = 10
	f := Figure{Elapsed: runs * time.Second, RSS: 1 << 28, Latency: newHistogram()}
	for i := range runs {
		n := int64(float64(requestsPerSecond) * (0.97 + 0.06*rng.Float64()))
		s := Sample{At: time.Duration(i+1) * time.Second, Requests: n, Bytes: n * int64(bytesPerRequest), RSS: f.RSS}
		s.ServerCPU = time.Duration(cpuPerGB * float64(s.Bytes))
		s.ClientCPU = 300 * time.Millisecond
		s.P99 = time.Duration((3.6 + 0.8*rng.Float64()) * p50 * 1e6)
		f.Samples = append(f.Samples, s)
		f.Requests, f.Bytes, f.Records = f.Requests+n, f.Bytes+s.Bytes, f.Records+n
		f.ServerCPU += s.ServerCPU
		f.ClientCPU += s.ClientCPU
	}
	f.Written, f.DiskBytes = f.Bytes, f.Bytes+1<<26
	for range 20_000 {
		_ = f.Latency.RecordValue(int64(p50 * 1e6 * math.Exp(0.6*rng.NormFloat64())))
	}
	return f
}

func syntheticReport() Report {
	rng := rand.New(rand.NewPCG(1, 2))
	r := Report{
		Title: "Produce & <consume>", Begun: time.Date(2026, 11, 29, 13, 30, 0, 0, time.UTC),
		Machine: map[string]string{"CPUs": "2", "CPU": `a "fast" one`, "file system of kafka-2": "ext4"},
		Rounds:  5, Duration: 10 * time.Second,
	}
	for _, w := range []struct {
		name         string
		rate, bytes  int
		cpu, latency float64
	}{{"produce", 11_000, 65_000, 1.7, 1.1}, {"many-producers", 43_000, 180, 150, 2}} {
		for _, t := range []struct {
			name                string
			faster, cheaper, by float64
		}{{"kafka-2", 1, 1, 1}, {"millrace", 2.1, 0.3, 0.4}, {"limit", 2.4, 0.25, 0.3}} {
			row := Row{Workload: w.name, Target: t.name}
			for range r.Rounds {
				f := syntheticFigure(rng, int(float64(w.rate)*t.faster), w.bytes, w.cpu*t.cheaper, w.latency*t.by)
				if t.name == "limit" {
					f.RSS, f.DiskBytes, f.Written = -1, -1, 0
				}
				row.Figures = append(row.Figures, f)
			}
			r.Rows = append(r.Rows, row)
		}
	}
	refused := syntheticFigure(rng, 10, 10, 1, 1)
	refused.Errors, refused.Error = 3, "NOT_LEADER_OR_FOLLOWER"
	r.Rows = append(r.Rows, Row{Workload: "many-producers", Target: "other", Figures: []Figure{refused}, Refused: "3 errors <of> 10, the first: NOT_LEADER_OR_FOLLOWER"})
	r.Ratios = ratios(r.Rows, []string{"kafka-2", "limit"})
	r.Held = held(r.Rows, "many-producers", "produce")
	return r
}

// The reports are as the golden files have them. After a change that is meant:
// go test ./bench -run TestReports -report.update, and a look at what has changed.
func TestReports(t *testing.T) {
	r := syntheticReport()
	hdr := regexp.MustCompile(`"hdr": "[^"]*"`) // deflated: its bytes are the compressor's affair
	for file, write := range map[string]func(io.Writer) error{
		"report.txt": r.WriteTable, "report.json": r.WriteJSON, "report.bench": r.WriteBenchstat, "report.html": r.WriteHTML, "report.md": r.WriteMarkdown,
	} {
		var got bytes.Buffer
		if err := write(&got); err != nil {
			t.Fatal(err)
		}
		text := hdr.ReplaceAll(got.Bytes(), []byte(`"hdr": "…"`))
		golden := filepath.Join("testdata", file)
		if *updateReports {
			if err := os.WriteFile(golden, text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(text, want) {
			t.Errorf("%s differs from what is written:\n%s", golden, firstDifference(string(text), string(want)))
		}
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range g {
		if i >= len(w) || g[i] != w[i] {
			return "got  " + g[i] + "\nwant " + strings.Join(w[min(i, len(w)):min(i+1, len(w))], "")
		}
	}
	return "the end is missing"
}

// JSON keeps all of a report.
func TestJSONReportIsReadBack(t *testing.T) {
	want := syntheticReport()
	want.Rows[1].Figures[0].ServerCPU, want.Rows[1].Figures[0].Samples[0].RSS = -1, -1
	want.Rows[0].Figures[0].Latency = nil
	want.Ratios[0].Low, want.Ratios[0].High = 0, 0
	want.Ratios[1].Value = math.Inf(1)
	var buf, again bytes.Buffer
	if err := want.WriteJSON(&buf); err != nil {
		t.Fatal(err)
	}
	first := buf.String()
	got, err := ReadJSON(&buf)
	if err != nil {
		t.Fatal(err)
	}
	if err := got.WriteJSON(&again); err != nil {
		t.Fatal(err)
	}
	if again.String() != first {
		t.Errorf("not the same again: %s", firstDifference(again.String(), first))
	}
	for i, row := range want.Rows {
		for j, f := range row.Figures {
			g := got.Rows[i].Figures[j]
			if (f.Latency == nil) != (g.Latency == nil) || f.Latency != nil && !f.Latency.Equals(g.Latency) {
				t.Errorf("the latencies of row %d, round %d differ", i, j)
			}
			if f.ServerCPU != g.ServerCPU || f.Samples[0] != g.Samples[0] || f.Elapsed != g.Elapsed || f.RSS != g.RSS {
				t.Errorf("row %d, round %d: %+v, want %+v", i, j, g, f)
			}
		}
	}
	for _, bad := range []string{"", "[]", `{"format": 2}`, `{"format": 1, "rows": [{"rounds": [{"latency": {"hdr": "x"}}]}]}`} {
		if _, err := ReadJSON(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

// The page is well-formed, with all its pictures, and asks nobody for anything.
func TestHTMLReportStandsAlone(t *testing.T) {
	for name, r := range map[string]Report{
		"full":  syntheticReport(),
		"empty": {Title: "nothing"},
		"bare": {Rounds: 1, Rows: []Row{
			{Workload: "w", Target: "a", Figures: []Figure{{Elapsed: time.Second, ServerCPU: -1, ClientCPU: -1, RSS: -1, DiskBytes: -1}}},
			{Workload: "w", Target: "b"},
			{Workload: "w", Target: "c", Refused: "no"},
		}},
		"one sample": {Rounds: 1, Rows: []Row{{Workload: "w", Target: "a", Figures: []Figure{oneSample()}}}},
	} {
		var buf bytes.Buffer
		if err := r.WriteHTML(&buf); err != nil {
			t.Fatal(err)
		}
		page := buf.String()
		if i := regexp.MustCompile(`(?i)<script|<link|src=|href=|url\(|@import|https?:`).FindStringIndex(page); i != nil {
			t.Errorf("%s: the page asks for something: %.80s", name, page[i[0]:])
		}
		if i := regexp.MustCompile(`NaN|[^a-z]Inf|%!|-?\d+e[+-]\d+"`).FindStringIndex(page); i != nil {
			t.Errorf("%s: a number that is none: %.80s", name, page[max(0, i[0]-60):])
		}
		dec := xml.NewDecoder(strings.NewReader(strings.TrimPrefix(page, "<!DOCTYPE html>")))
		for pictures := 0; ; {
			tok, err := dec.Token()
			if errors.Is(err, io.EOF) {
				if name == "full" && pictures != 12 {
					t.Errorf("%s: %d pictures, want 12", name, pictures)
				}
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if el, ok := tok.(xml.StartElement); ok && el.Name.Local == "svg" {
				pictures++
			}
		}
	}
}

func oneSample() Figure {
	f := Figure{Requests: 1, Bytes: 1, Elapsed: time.Second, ServerCPU: 1, ClientCPU: -1, RSS: -1, DiskBytes: -1, Latency: newHistogram(),
		Samples: []Sample{{At: time.Second, Requests: 1, Bytes: 1}}}
	_ = f.Latency.RecordValue(1)
	return f
}

func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		metric           string
		value, low, high float64
		want             verdict
	}{
		{"throughput", 2, 1.5, 2.5, better},
		{"throughput", 0.5, 0.4, 0.6, worse},
		{"throughput", 2, 0.9, 2.5, undecided},
		{"throughput", 2, 0, 0, undecided},
		{"p99", 0.5, 0.4, 0.6, better},
		{"CPU per GB", 2, 1.5, 2.5, worse},
		{"p50", 0.99, 0.98, 1, undecided},
	} {
		if got := (Ratio{Metric: c.metric, Value: c.value, Low: c.low, High: c.high, Rounds: 5}).verdict(); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	if got := (Ratio{Metric: "throughput", Value: 2, Low: 1.9, High: 2.1, Rounds: 4}).verdict(); got != undecided {
		t.Errorf("of four rounds: %v", got)
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0.00", 1234567: "1234567", 99.96: "100", 99.94: "99.9", 9.996: "10.0", 9.994: "9.99", 1: "1.00", 0.9996: "1.00", 0.9994: "0.999",
		0.012: "0.012", 0.0001: "1.0e-04", -5: "-5.00", math.NaN(): "–", math.Inf(1): "–",
	} {
		if got := number(v); got != want {
			t.Errorf("%g: %s, want %s", v, got, want)
		}
	}
}

func TestBenchNames(t *testing.T) {
	for in, want := range map[[2]string]string{
		{"many-partitions", "kafka"}:  "BenchmarkManyPartitions/target=kafka",
		{"produce 1 KB", "kafka-4"}:   "BenchmarkProduce1KB/target=kafka_4",
		{"fetch", "millrace-v1.2-rc"}: "BenchmarkFetch/target=millrace-v1.2-rc",
	} {
		if got := benchName(in[0], in[1]); got != want {
			t.Errorf("%v: %s, want %s", in, got, want)
		}
	}
	for in, want := range map[string]string{"CPUs": "cpus", "file system of A": "file-system-of-a", "4x": "x-4x", "": "x-"} {
		if got := benchKey(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestTicks(t *testing.T) {
	for _, c := range []struct {
		a    axis
		n    int
		want []float64
	}{
		{axis{lo: 0, hi: 10}, 5, []float64{0, 2, 4, 6, 8, 10}},
		{axis{lo: 0, hi: 9.3}, 6, []float64{0, 2, 4, 6, 8}},
		{axis{lo: 0.3, hi: 7, log: true}, 5, []float64{0.3, 0.5, 1, 2, 3, 5}},
		{axis{lo: 0.75, hi: 1.33, log: true}, 5, []float64{0.8, 0.9, 1, 1.1, 1.2}},
		{axis{lo: 0.01, hi: 1000, log: true}, 5, []float64{0.01, 0.1, 1, 10, 100, 1000}},
	} {
		got := c.a.ticks(c.n)
		same := len(got) == len(c.want)
		for i := range min(len(got), len(c.want)) {
			same = same && math.Abs(got[i]-c.want[i]) < 1e-9
		}
		if !same {
			t.Errorf("%+v: %v, want %v", c.a, got, c.want)
		}
	}
	a := axis{lo: 1, hi: 100, log: true, from: 50, to: 250}
	if got := a.at(10); math.Abs(got-150) > 1e-9 {
		t.Errorf("10 of 1 to 100 is at %g", got)
	}
}

// The first error of the writer comes out.
func TestReportSaysWhenItCannotBeWritten(t *testing.T) {
	r := syntheticReport()
	for name, write := range map[string]func(io.Writer) error{"table": r.WriteTable, "JSON": r.WriteJSON, "benchstat": r.WriteBenchstat, "HTML": r.WriteHTML, "Markdown": r.WriteMarkdown} {
		if err := write(&fullWriter{room: 1000}); !errors.Is(err, errFull) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

var errFull = errors.New("full")

type fullWriter struct{ room int }

func (w *fullWriter) Write(p []byte) (int, error) {
	if len(p) > w.room {
		return 0, errFull
	}
	w.room -= len(p)
	return len(p), nil
}

// Ratios against several targets stand beside each other where there is room, else below.
func TestTableKeepsToItsWidth(t *testing.T) {
	r := syntheticReport()
	for _, name := range []string{"a-rather-long-name-of-a-target", "another-long-name-of-a-target"} {
		for _, row := range r.Rows[:2] {
			row.Target = name
			r.Rows = append(r.Rows, row)
		}
	}
	r.Rows = r.rowsOf("produce")
	r.Ratios = ratios(r.Rows, []string{"kafka-2", "limit"})
	var out strings.Builder
	if err := r.WriteTable(&out); err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(out.String(), "\n\n  ratio")
	for line := range strings.Lines(table) {
		if n := utf8.RuneCountInString(line); n > tableWidth+1 {
			t.Errorf("%d characters: %s", n, line)
		}
	}
	for _, p := range r.pairs("produce") {
		if n := strings.Count(table, p[0]+" ÷ "+p[1]); n != 1 {
			t.Errorf("%s ÷ %s stands there %d times", p[0], p[1], n)
		}
	}
	if n := strings.Count(table, "throughput"); n < 2 {
		t.Errorf("%d blocks of ratios:\n%s", n, table)
	}
}

// A table in Markdown shows what is worse and what does not count, and no cell ends early.
func TestMarkdownLeavesNothingOut(t *testing.T) {
	r := syntheticReport()
	r.Ratios = ratios(r.Rows, []string{"limit"}) // next to which everything is worse
	r.Rows = append(r.Rows, Row{Workload: "none|at all", Target: "kafka-2", Refused: "no <leader>"})
	var out strings.Builder
	if err := r.WriteMarkdown(&out); err != nil {
		t.Fatal(err)
	}
	table, notes, _ := strings.Cut(out.String(), "\n\n")
	lines := strings.Split(table, "\n")
	for _, line := range lines {
		if got, want := strings.Count(strings.ReplaceAll(line, `\|`, ""), "|"), strings.Count(lines[0], "|"); got != want {
			t.Errorf("%d bars where the head has %d: %s", got, want, line)
		}
	}
	if n := strings.Count(table, "*worse:*"); n < 10 || strings.Contains(table, "**") {
		t.Errorf("%d ratios are said to be worse:\n%s", n, table)
	}
	for _, want := range []string{`none\|at all on kafka-2 does not count: no &lt;leader>`, "many-producers on other does not count: 3 errors"} {
		if !strings.Contains(notes, want) {
			t.Errorf("no %q in\n%s", want, notes)
		}
	}
}
