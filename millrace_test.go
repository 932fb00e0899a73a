package millrace_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-project/millrace"
)

func TestWhatAClientProducesItReadsBack(t *testing.T) {
	for _, durability := range []string{"sync", "os"} {
		t.Run(durability, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			dir := t.TempDir()
			b, err := millrace.Start(dir, millrace.Set("millrace.durability", durability))
			if err != nil {
				t.Fatal(err)
			}
			produce(t, ctx, b.Addr(), "orders", 100)
			consume(t, ctx, b.Addr(), "orders", 100)
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			b, err = millrace.Start(dir)
			if err != nil {
				t.Fatal(err)
			}
			consume(t, ctx, b.Addr(), "orders", 100)
			if err := b.Shutdown(ctx); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func produce(t *testing.T, ctx context.Context, addr, topic string, n int) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic(topic))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for i := range n {
		if err := cl.ProduceSync(ctx, kgo.StringRecord(fmt.Sprint("record ", i))).FirstErr(); err != nil {
			t.Fatalf("produce record %d: %v", i, err)
		}
	}
}

func consume(t *testing.T, ctx context.Context, addr, topic string, n int) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for i := 0; i < n; {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("consume after %d records: %v", i, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if want := fmt.Sprint("record ", i); string(r.Value) != want || r.Offset != int64(i) {
				t.Fatalf("record %d is %q at offset %d, want %q", i, r.Value, r.Offset, want)
			}
			i++
		})
	}
}

func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		br, err := millrace.Start(b.TempDir())
		if err != nil {
			b.Fatal(err)
		}
		if err := br.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
