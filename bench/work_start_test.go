package bench

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// spawnMillrace starts a broker as a process of its own.
func spawnMillrace(t *testing.T) *Spawned {
	t.Helper()
	s, err := Spawn{Name: "it", Kind: kindMillrace, Settings: []string{"millrace.durability=os"}}.Start(t.Context(), SpawnOptions{Dir: t.TempDir(), Binary: os.Args[0]})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestStart(t *testing.T) {
	s := spawnMillrace(t)
	pid, w := s.PID, newStartWork("start", Shape{})
	f, err := w.Run(t.Context(), &s.Target, time.Nanosecond)
	if err = errors.Join(err, w.Verify(t.Context(), &s.Target)); err != nil {
		t.Fatal(err)
	}
	if f.Requests != 1 || f.Latency.TotalCount() != 1 || f.Elapsed <= 0 || f.Quantile(50) < f.Elapsed*9/10 || s.PID == pid {
		t.Errorf("%d starts, %d latencies, %v in all, p50 %v; process %d, then %d", f.Requests, f.Latency.TotalCount(), f.Elapsed, f.Quantile(50), pid, s.PID)
	}
	if err := w.Prepare(t.Context(), &Target{Name: "far"}, "1"); !errors.Is(err, errNotServed) {
		t.Errorf("a target that cannot be started: %v", err)
	}
}

func TestRecover(t *testing.T) {
	s := spawnMillrace(t)
	pid := s.PID
	w := newRecoverWork("recover", Shape{Connections: 2, Partitions: 5, RecordBytes: 100, BatchBytes: 1000, FillBytes: 1 << 20, Rate: 1000}).(*recoverWork)
	if err := w.Prepare(t.Context(), &s.Target, "1"); err != nil {
		t.Fatal(err)
	}
	f, err := w.Run(t.Context(), &s.Target, 100*time.Millisecond)
	if err = errors.Join(err, w.Verify(t.Context(), &s.Target)); err != nil {
		t.Fatal(err)
	}
	if f.Requests != 1 || f.Errors != 0 || f.Bytes < 1<<20-5*1000 || f.Records == 0 || f.Latency.TotalCount() != 1 || s.PID == pid {
		t.Errorf("%+v; process %d, then %d", f, pid, s.PID)
	}
	// What was acknowledged and is gone is found, on the producers that the kill cut off too.
	p := w.producers[len(w.producers)-1][0]
	if p.acked = p.sent + 1; !p.cut {
		t.Error("the producer was not cut off")
	}
	if err := w.Verify(t.Context(), &s.Target); err == nil || !strings.Contains(err.Error(), "were acknowledged") {
		t.Errorf("%v", err)
	}
	if err := w.Clean(t.Context(), &s.Target); err != nil {
		t.Error(err)
	}
}

// What a producer that was cut off has sent may be there, acknowledged or not, and nothing more.
func TestWholeAfterACut(t *testing.T) {
	for _, c := range []struct {
		cut  bool
		seen int64
		ok   bool
	}{{false, 3, true}, {false, 4, false}, {true, 2, false}, {true, 3, true}, {true, 4, true}, {true, 5, true}, {true, 6, false}} {
		v := verification{producers: map[int64]*producer{1: {id: 1, acked: 3, sent: 5, cut: c.cut}}, seen: map[int64]int64{1: c.seen}}
		if err := v.whole(0); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// A target that does not come back says why, at once.
func TestRestartThatFails(t *testing.T) {
	s := spawnMillrace(t)
	was := s.command
	s.command = func() (*exec.Cmd, error) { return exec.Command(os.Args[0], "serve", "--set", "a=b"), nil }
	never := func(context.Context) error { return errors.New("not yet") }
	if _, err := s.Restart(t.Context(), true, never); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("%v", err)
	}
	if _, err := s.Restart(t.Context(), false, never); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("one that has ended was stopped: %v", err)
	}
	s.command = was
	if _, err := s.start(t.Context(), s.Answers, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := s.Restart(ctx, false, never); err == nil || !strings.Contains(err.Error(), "not yet") {
		t.Errorf("one that is never ready: %v", err)
	}
	if s.Running() == nil {
		t.Error("one that was never ready runs on")
	}
}

// An answer counts only when it has the last batch of every partition.
func TestCheckLast(t *testing.T) {
	c := testContents(t, contentOptions{recordBytes: 100, batchBytes: 1000, redundancy: 1})
	p := &producer{id: 4}
	log, records := logOf(c, p, 0, 2), int64(c.records)
	last := log[len(log)/2:]
	damaged := append([]byte{}, last...)
	damaged[len(damaged)-1] ^= 1
	for _, x := range []struct {
		name string
		body []byte
		n    int
		want string
	}{
		{"the last one", fetchAnswer(0, 0, last), 1, ""},
		{"the one before", fetchAnswer(0, 0, log), 1, "its last batch ends at"},
		{"damage", fetchAnswer(0, 0, damaged), 1, "checksum"},
		{"nothing", fetchAnswer(0, 0, nil), 1, "EOF"},
		{"one of two", fetchAnswer(0, 0, last), 2, "did not answer"},
	} {
		err := checkLast(x.body, x.n, []int64{2 * records})
		if x.want == "" && err != nil || x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)) {
			t.Errorf("%s: %v, want %q", x.name, err, x.want)
		}
	}
}
