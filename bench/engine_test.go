package bench

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/millrace-project/millrace/commitlog"
)

// The engine's rows stand in a report beside those of targets, or alone.
func TestEngineIsItsOwnTarget(t *testing.T) {
	dir := t.TempDir()
	shape := Shape{Partitions: 2, Connections: 2, InFlight: 2, RecordBytes: 100, BatchBytes: 1000, FetchBytes: 4000, FillBytes: 100_000}
	p := Plan{Rounds: 2, Duration: 20 * time.Millisecond, Warm: -1, Dir: dir, Workloads: []Workload{
		newEngineAppendWork(commitlog.OS)("append", shape), newEngineAppendWork(commitlog.Sync)("append-sync", shape), newEngineReadWork("read", shape),
	}}
	report, err := p.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Rows) != 3 || len(report.Ratios) != 0 {
		t.Errorf("%d rows, %d ratios", len(report.Rows), len(report.Ratios))
	}
	for _, row := range report.Rows {
		if row.Target != "engine" || row.Refused != "" || len(row.Figures) != 2 {
			t.Errorf("%+v", row)
		}
		for _, f := range row.Figures {
			if f.Requests == 0 || f.Records == 0 || f.Bytes == 0 || f.Latency.TotalCount() != f.Requests || f.ClientCPU != -1 {
				t.Errorf("%s: %+v", row.Workload, f)
			}
			if read := row.Workload == "read"; read != (f.Written == 0) {
				t.Errorf("%s: %d bytes written", row.Workload, f.Written)
			}
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestEngineFindsWhatIsNotThere(t *testing.T) {
	w := newEngineAppendWork(commitlog.Sync)("it", Shape{InFlight: 2, RecordBytes: 100, BatchBytes: 1000}).(*engineAppendWork)
	target := &Target{Dir: t.TempDir()}
	if err := w.Prepare(t.Context(), target, "1"); err != nil {
		t.Fatal(err)
	}
	defer w.Clean(t.Context(), target)
	if f, err := w.Run(t.Context(), target, 10*time.Millisecond); err != nil || f.Errors > 0 {
		t.Fatalf("%+v %v", f, err)
	}
	if err := w.Verify(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	w.producers[1][0].acked++
	if err := w.Verify(t.Context(), target); err == nil || !strings.Contains(err.Error(), "were acknowledged") {
		t.Errorf("%v", err)
	}
}
