package bench

import (
	"strings"
	"testing"
	"time"
)

// What was read back must be what was sent: nothing less, nothing more, nothing else.
func TestVerifyFindsWhatDiffers(t *testing.T) {
	target := startTarget(t, "millrace.durability=os")
	w := newProduceWork("verified", Shape{Connections: 2, Partitions: 2, RecordBytes: 100, BatchBytes: 1000}).(*produceWork)
	if err := w.Prepare(t.Context(), target, "1"); err != nil {
		t.Fatal(err)
	}
	if f, err := w.Run(t.Context(), target, 50*time.Millisecond); err != nil || f.Errors > 0 {
		t.Fatalf("%v, %d errors: %s", err, f.Errors, f.Error)
	}
	if err := w.Verify(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	p := w.producers[1][1]
	other, err := newContents(contentOptions{recordBytes: 100, batchBytes: 1000, redundancy: 4, seed: 8})
	if err != nil {
		t.Fatal(err)
	}
	same := w.contents
	for _, c := range []struct {
		name       string
		break_, un func()
		want       string
	}{
		{"a batch was lost", func() { p.acked++ }, func() { p.acked-- }, "were acknowledged"},
		{"a batch is there twice", func() { p.acked-- }, func() { p.acked++ }, "were acknowledged"},
		{"another's batches", func() { p.id += 1000 }, func() { p.id -= 1000 }, "who sent none here"},
		{"other records", func() { w.contents = other }, func() { w.contents = same }, errContent.Error()},
		{"another order", func() { p.first++ }, func() { p.first-- }, errContent.Error()},
	} {
		c.break_()
		if err := w.Verify(t.Context(), target); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		c.un()
	}
	if err := w.Verify(t.Context(), target); err != nil {
		t.Error(err)
	}
}
