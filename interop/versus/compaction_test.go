package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/batch"
)

// TestStreamKnowsItsSurvivors holds what a cleaner must leave against a plain map of the last record
// of each key, and the same seed to the same bytes.
func TestStreamKnowsItsSurvivors(t *testing.T) {
	for _, codec := range []batch.Codec{batch.None, batch.Zstd} {
		in := cleanInput{valueBytes: 100, codec: codec, bytes: 300_000, seed: 7}
		s, twin := in.stream(), in.stream()
		last, off := map[string]int64{}, int64(0)
		var below, want int64
		for {
			b, err := s.batch(nil)
			if err != nil {
				t.Fatal(err)
			}
			if again, err := twin.batch(nil); err != nil || !bytes.Equal(b, again) {
				t.Fatalf("%v: the same seed gave another batch (%v)", codec, err)
			}
			if b == nil {
				break
			}
			err = b.Each(1<<20, func(rec *batch.Record) error {
				if len(rec.Key) != cleanKeyBytes || len(rec.Value) != in.valueBytes {
					return fmt.Errorf("a key of %d bytes, a value of %d", len(rec.Key), len(rec.Value))
				}
				last[string(rec.Key)] = off
				off++
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if s.made < in.bytes*7/8 {
				below, want = off, int64(len(last))
			}
		}
		if got := s.survivors(below); got != want || want == 0 {
			t.Errorf("%v: %d survivors below %d, want %d", codec, got, below, want)
		}
		if share := float64(len(last)) / float64(off); share < 0.3 || share > 0.6 {
			t.Errorf("%v: %.2f of the records are the last of their key: too few or too many are dirty", codec, share)
		}
	}
}

func TestSurveyLeavesTheActiveSegmentOut(t *testing.T) {
	dir := t.TempDir()
	s := cleanInput{valueBytes: 1024, bytes: 200_000}.stream()
	var want logFiles
	for seg := range 3 {
		var data []byte
		base := s.next
		for range 2 + seg {
			b, err := s.batch(nil)
			if err != nil {
				t.Fatal(err)
			}
			data = append(data, b...)
			if seg < 2 {
				want.batches, want.records, want.bytes = want.batches+1, want.records+int64(b.Count()), want.bytes+int64(len(b))
			}
		}
		want.active = base
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%020d.log", base)), data, 0o644); err != nil {
			t.Fatal(err)
		}
		if seg == 0 {
			if _, err := surveyLog(dir); err == nil {
				t.Error("a log without a sealed segment was taken")
			}
		}
	}
	got, err := surveyLog(dir)
	if err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if err := os.Truncate(filepath.Join(dir, fmt.Sprintf("%020d.log", 0)), 1000); err != nil {
		t.Fatal(err)
	}
	if _, err := surveyLog(dir); err == nil {
		t.Error("a batch that ends behind the file was taken")
	}
}

func TestCleanerCheckpoint(t *testing.T) {
	dir := t.TempDir()
	if got, err := cleanerCheckpoint(dir); err != nil || len(got) != 0 {
		t.Errorf("no file: %v, %v", got, err)
	}
	name := filepath.Join(dir, "cleaner-offset-checkpoint")
	if err := os.WriteFile(name, []byte("0\n2\nversus-a 0 4711\nb 11 0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := cleanerCheckpoint(dir)
	if err != nil || len(got) != 2 || got["versus-a 0"] != 4711 || got["b 11"] != 0 {
		t.Errorf("%v, %v", got, err)
	}
	if err := os.WriteFile(name, []byte("0\n1\na 0 x\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := cleanerCheckpoint(dir); err == nil {
		t.Error("an offset that is no number was taken")
	}
}

func TestProcessCPU(t *testing.T) {
	before, err := processCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); time.Since(start) < 20*time.Millisecond; {
	}
	after, err := processCPU(os.Getpid())
	if err != nil || after <= before || after-before > 10*time.Second {
		t.Errorf("%v before 20 ms of work, %v after, %v", before, after, err)
	}
}

// answering is a broker that answers every produce request with one error code, and holds each tenth
// answer for a while.
func answering(t *testing.T, code int16, hold time.Duration) string {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	resp := kmsg.NewPtrProduceResponse()
	resp.SetVersion(cleanProduceVersion)
	rt := kmsg.NewProduceResponseTopic()
	rp := kmsg.NewProduceResponseTopicPartition()
	rp.ErrorCode = code
	rt.Partitions = append(rt.Partitions, rp)
	resp.Topics = append(resp.Topics, rt)
	body := resp.AppendTo(nil)
	size := len(body) + 5
	answer := append([]byte{0, 0, byte(size >> 8), byte(size), 0, 0, 0, 1, 0}, body...)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		var frame []byte
		for n := 1; ; n++ {
			if frame, err = readFrame(c, frame); err != nil {
				return
			}
			if n%10 == 0 {
				<-time.After(hold)
			}
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	}()
	return l.Addr().String()
}

// A broker that is held up makes the requests due meanwhile late as well: that is what an open loop is for.
func TestBesideCountsFromWhenARequestWasDue(t *testing.T) {
	const hold = 20 * time.Millisecond
	l, err := startBeside(t.Context(), answering(t, 0, hold), "t", 16e6) // a request a millisecond
	if err != nil {
		t.Fatal(err)
	}
	<-time.After(300 * time.Millisecond)
	if err := firstError(l.stop(), l.stop()); err != nil {
		t.Fatal(err)
	}
	if len(l.took) != len(l.late) || len(l.took) < 100 {
		t.Errorf("%d answers to %d requests", len(l.took), len(l.late))
	}
	all, late := l.between(l.began, l.due(int64(len(l.took))))
	if int(all.TotalCount()) != len(l.took) || late.TotalCount() != all.TotalCount() {
		t.Errorf("%d of %d counted", all.TotalCount(), len(l.took))
	}
	if p50 := ms(all, 50); p50 < 10 {
		t.Errorf("p50 is %.2f ms where the broker takes 20 ms for what is due in 10: the requests that waited are not counted as late", p50)
	}
	if none, _ := l.between(l.began.Add(-time.Second), l.began); none.TotalCount() != 0 {
		t.Errorf("%d requests before the first", none.TotalCount())
	}
}

func TestBesideEndsWithTheBrokersError(t *testing.T) {
	l, err := startBeside(context.Background(), answering(t, kerr.KafkaStorageError.Code, 0), "t", 16e6)
	if err != nil {
		t.Fatal(err)
	}
	<-time.After(50 * time.Millisecond)
	if err := l.stop(); err == nil || !strings.Contains(err.Error(), "KAFKA_STORAGE_ERROR") {
		t.Errorf("%v", err)
	}
}

// TestCleaningVerdicts holds the table to figures worked out by hand.
func TestCleaningVerdicts(t *testing.T) {
	all := cleanWorkloads(options{cleanBytes: 1 << 20})
	if len(all) != 3 || len(cleanWorkloads(options{})) != 0 || len(cleanWorkloads(options{cleanBytes: 1, workloads: "zstd"})) != 1 {
		t.Fatal("the wrong workloads are chosen")
	}
	at := func(cpu time.Duration) cleaning {
		return cleaning{bytes: 100e6, kept: 50e6, wall: time.Second, cpu: cpu}
	}
	for _, w := range all {
		w.a = []cleaning{at(time.Second), at(2 * time.Second), at(4 * time.Second)}
		w.b = []cleaning{at(time.Second), at(time.Second), at(time.Second)}
	}
	var out bytes.Buffer
	printCleaning(&out, "somewhere", pair{}, all)
	for _, want := range []string{
		"1.00–4.00",
		"holds   compaction 1 KB values: MB per CPU second at least 2x: 2.00x",
		"MISSED  compaction 100 B values: MB per CPU second at least 3x: 2.00x",
		"compaction 1 KB values, MB/CPU s by round: Kafka 100 50 25; ours 100 100 100",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, &out)
		}
	}
}
