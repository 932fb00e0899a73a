package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// by is a workload of the catalogue, made small, by another client.
func by(t *testing.T, client, workload string, change func(*Shape)) Workload {
	t.Helper()
	i := slices.IndexFunc(Catalogue(), func(e Entry) bool { return e.Name == workload })
	w, err := WithClient(Catalogue()[i].New(change), client)
	if err != nil {
		t.Fatal(err)
	}
	if want := workload + "-by-" + client; w.Name() != want {
		t.Errorf("it is called %s, not %s", w.Name(), want)
	}
	return w
}

// clientFigure takes a verified figure.
func clientFigure(t *testing.T, target *Target, w Workload, d time.Duration) Figure {
	t.Helper()
	f := verified(t, target, w, d)
	if f.Errors > 0 || f.Records == 0 || f.Requests != f.Records || f.Bytes == 0 || f.Elapsed <= 0 {
		t.Errorf("%s: %d errors (%s), %d requests, %d records, %d bytes in %v", w.Name(), f.Errors, f.Error, f.Requests, f.Records, f.Bytes, f.Elapsed)
	}
	return f
}

// clientTargets are a broker, and the limit, which serves what clients ask as well.
func clientTargets(t *testing.T) []*Target {
	broker := startTarget(t, "millrace.durability=os", "log.segment.delete.delay.ms=10")
	return []*Target{broker, {Name: "limit", Addr: startLimit(t, Limit{})}}
}

func TestFranzGoLoads(t *testing.T) {
	for _, target := range clientTargets(t) {
		small := func(s *Shape) { s.Partitions, s.FillBytes = 3, 1<<20 }
		f := clientFigure(t, target, by(t, "franz-go", "produce", small), 100*time.Millisecond)
		if f.Latency.TotalCount() != f.Records || f.Written != f.Records*1024 {
			t.Errorf("%d latencies, %d bytes written of %d records", f.Latency.TotalCount(), f.Written, f.Records)
		}
		// In an open loop so many records are due as a batch of the bench's own has, times the rate.
		f = clientFigure(t, target, by(t, "franz-go", "produce-paced", nil), 200*time.Millisecond)
		if want := int64(200 * 3 / 5); f.Records != want && f.Records != want+1 {
			t.Errorf("%d records of %d that were due", f.Records, want)
		}
		f = clientFigure(t, target, by(t, "franz-go", "consume", small), 300*time.Millisecond)
		if f.Bytes != f.Records*1024 || f.Records < 2000 {
			t.Errorf("%d bytes of %d records: it is to read again what it has read", f.Bytes, f.Records)
		}
	}
}

func TestKcatLoads(t *testing.T) {
	if _, err := exec.LookPath("kcat"); err != nil {
		t.Skip("kcat is not installed")
	}
	for _, target := range clientTargets(t) {
		small := func(s *Shape) { s.Partitions, s.FillBytes = 3, 1<<20 }
		clientFigure(t, target, by(t, "librdkafka", "produce", small), 100*time.Millisecond)
		for _, connections := range []int{1, 4} {
			w := by(t, "librdkafka", "consume", func(s *Shape) { small(s); s.Connections = connections })
			if f := clientFigure(t, target, w, 100*time.Millisecond); f.Bytes != f.Records*1024 || f.Latency.TotalCount() != 0 {
				t.Errorf("%d bytes of %d records, %d latencies", f.Bytes, f.Records, f.Latency.TotalCount())
			}
		}
	}
}

// fakeJava puts a java into the way that prints what it is told to and does nothing, and a jar.
func fakeJava(t *testing.T, prints string) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("needs a shell")
	}
	dir := t.TempDir()
	script := "#!/bin/sh\nfor a; do case $before in --num-records) n=$a;; esac; before=$a; done\n" + prints + "\n"
	for name, text := range map[string]string{"java": script, "kafka-tools-4.2.0.jar": "", "kafka-clients-4.2.0.jar": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	t.Setenv("KAFKA_LIBS", dir)
}

// What Kafka's tools say is taken for what was done, and found out when it was not.
func TestJavaToolsAreReadAndNotBelieved(t *testing.T) {
	target := &Target{Name: "limit", Addr: startLimit(t, Limit{})}
	fakeJava(t, `case "$*" in
*ProducerPerformance*) echo "100 records sent, 1.0 records/sec (0.00 MB/sec), 9.0 ms avg latency, 9.0 ms max latency."
	echo "$n records sent, 20000.000000 records/sec (19.53 MB/sec), 25.31 ms avg latency, 187.00 ms max latency, 19 ms 50th, 60 ms 95th, 133 ms 99th, 180 ms 99.9th.";;
*) echo "2026-11-29 16:40:01:123, 2026-11-29 16:40:02:623, 1.0000, 0.6667, $n, 666.6667, 500, 1000, 1.0000, 1000.0000";;
esac`)
	w := by(t, "java", "produce", func(s *Shape) { s.Connections = 4 })
	if err := w.Prepare(t.Context(), target, "test"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int64{64 << 10, 80_000 * 8} { // of 64 MiB first, then as many as the target took
		f, err := w.Run(t.Context(), target, 8*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if f.Records != want || f.Elapsed != time.Duration(want/4)*50*time.Microsecond || f.Bytes != want*1024 {
			t.Errorf("%d records, %d bytes in %v, want %d records", f.Records, f.Bytes, f.Elapsed, want)
		}
		for q, ms := range map[float64]float64{50: 19, 99: 133, 99.9: 180, 100: 187} {
			if got := f.Quantile(q).Seconds() * 1e3; got < ms*0.999 || got > ms*1.001 {
				t.Errorf("p%g is %.2f ms, want %g", q, got, ms)
			}
		}
	}
	if err := w.Verify(t.Context(), target); err == nil || !strings.Contains(err.Error(), "holds 0 records") {
		t.Errorf("nothing was written, and verifying says: %v", err)
	}
	w = by(t, "java", "consume", func(s *Shape) { s.FillBytes = 1 << 20 })
	if f := clientFigure(t, target, w, time.Second); f.Elapsed != time.Second {
		t.Errorf("it took %v: the time in which it fetched counts", f.Elapsed)
	}
}

// A tool that fails, that loses records, or that says nothing of use makes no figure.
func TestJavaToolsThatFail(t *testing.T) {
	target := &Target{Name: "limit", Addr: startLimit(t, Limit{})}
	for prints, want := range map[string]string{
		"echo no broker >&2; exit 3": "exit status 3\nno broker",
		"echo hello":                 "printed no total",
		`echo "7 records sent, 20.0 records/sec (19.53 MB/sec), 25.31 ms avg latency, 187.00 ms max latency, 19 ms 50th, 60 ms 95th, 133 ms 99th, 180 ms 99.9th."`: "7 of ",
	} {
		fakeJava(t, prints)
		w := by(t, "java", "produce", nil)
		if err := w.Prepare(t.Context(), target, fmt.Sprint(len(prints))); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Run(t.Context(), target, time.Second); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", prints, err, want)
		}
	}
}

func TestWithClientSaysWhatIsWrong(t *testing.T) {
	find := func(name string) Workload {
		i := slices.IndexFunc(Catalogue(), func(e Entry) bool { return e.Name == name })
		return Catalogue()[i].New(nil)
	}
	if w := find("produce"); w.Name() != "produce" {
		t.Error(w.Name())
	}
	if w, err := WithClient(find("tail"), OwnClient); err != nil || w.Name() != "tail" {
		t.Errorf("%v", err)
	}
	try := func(workload, client, want string) {
		t.Helper()
		if _, err := WithClient(find(workload), client); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s by %s: %v, want %q", workload, client, err, want)
		}
	}
	try("produce", "sarama", "want own, franz-go, librdkafka, java")
	try("tail", "franz-go", "more than writing or reading")
	try("connections", "franz-go", "more than writing or reading")
	try("many-producers", "franz-go", "has keys")
	fakeJava(t, "")
	if _, err := exec.LookPath("kcat"); err == nil {
		try("produce-paced", "librdkafka", "a rate is not for it")
	}
	if _, err := WithClient(find("connections-active"), "java"); err == nil {
		t.Error("connections-active by java")
	}
	t.Setenv("KAFKA_LIBS", t.TempDir())
	try("produce", "java", "name by KAFKA_LIBS")
	t.Setenv("PATH", t.TempDir())
	try("produce", "java", "install a Java runtime")
	try("produce", "librdkafka", "install the package kcat")
}

// What is between two percentiles counts as the upper one, so that each percentile is as it was said.
func TestSteppedLatencies(t *testing.T) {
	at := []time.Duration{1e6, 2e6, 3e6, 4e6, 5e6}
	for _, n := range []int64{1, 2, 10, 1000, 12_345_678} {
		h := stepped(n, []float64{50, 95, 99, 99.9, 100}, at)
		if h.TotalCount() != n {
			t.Errorf("%d latencies of %d", h.TotalCount(), n)
		}
		if n < 1000 {
			continue
		}
		for i, q := range []float64{50, 95, 99, 99.9, 100} {
			if got, want := h.ValueAtQuantile(q), int64(at[i]); got < want || got > want+want/500 {
				t.Errorf("of %d: p%g is %d, want %d", n, q, got, want)
			}
		}
	}
}
