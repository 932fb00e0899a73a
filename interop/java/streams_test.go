//go:build java

package java

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-project/millrace/interop/clients"
	"github.com/millrace-project/millrace/interop/process"
	"github.com/millrace-project/millrace/interop/subject"
)

// counting is a word count under way, and the broker under it.
type counting struct {
	t      *testing.T
	broker *process.Broker
	o      subject.Options
	app    *WordCount
	want   map[string]int // the reference: how often each word was written
}

// TestStreamsExactlyOnce counts words by Kafka Streams with exactly_once_v2 while the application is
// restarted and killed, and the broker too, several times each. The output must have each count of
// each word once and in order, and the last ones must be those of the reference.
func TestStreamsExactlyOnce(t *testing.T) {
	if _, running := subject.Running(); running {
		t.Skip("needs a broker of its own")
	}
	for _, store := range []string{"memory", "rocksdb"} {
		t.Run(store, func(t *testing.T) { count(t, store) })
	}
}

func count(t *testing.T, store string) {
	port, err := process.FreePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	c := &counting{t: t, want: map[string]int{}, o: subject.Options{Dir: t.TempDir(), Port: port, Properties: []string{
		"group.initial.rebalance.delay.ms=0", "offsets.topic.num.partitions=5", "offsets.topic.replication.factor=1",
		"transaction.state.log.num.partitions=5", "transaction.state.log.replication.factor=1", "transaction.state.log.min.isr=1",
	}}}
	if c.broker, err = subject.Start(c.o); err != nil {
		t.Fatal(err)
	}
	c.o.Data = c.broker.Dir
	t.Cleanup(func() { c.broker.Kill() })
	if c.app, err = NewWordCount(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	c.app.Addr, c.app.ID, c.app.Input, c.app.Output, c.app.Store = net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), "count-"+store, "lines", "counts", store
	for topic, partitions := range map[string]int32{"lines": 4, "counts": 3} {
		if err := clients.CreateTopic(c.broker.Addr, topic, partitions, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.app.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.app.End(syscall.SIGKILL) }) // it has ended before when all went well
	c.disturb()
	c.check()
	if err := c.app.End(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
}

// disturb writes lines all the while that the application and the broker come and go.
func (c *counting) disturb() {
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- c.write(stop) }()
	c.counted(1)
	for round := range 2 {
		c.restart(syscall.SIGTERM)
		c.progress()
		c.restart(syscall.SIGKILL)
		c.progress()
		for range 2 + round {
			c.killBroker()
			time.Sleep(3 * time.Second)
		}
		c.progress()
	}
	c.killBroker()
	c.restart(syscall.SIGKILL) // and both at once
	close(stop)
	if err := <-done; err != nil {
		c.t.Fatal(err)
	}
}

// write produces a line of some words every few milliseconds, each once, until stop is closed.
func (c *counting) write(stop chan struct{}) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.app.Addr), kgo.AlwaysRetryEOF(), kgo.DefaultProduceTopic("lines"), kgo.UnknownTopicRetries(-1))
	if err != nil {
		return err
	}
	defer cl.Close()
	rng := rand.New(rand.NewPCG(3, 5))
	var failed error
	var stopped bool
	for !stopped {
		var words []string
		for range 1 + rng.IntN(6) {
			word := fmt.Sprintf("w%d", min(rng.IntN(60), rng.IntN(60)))
			c.want[word]++
			words = append(words, word)
		}
		cl.Produce(context.Background(), &kgo.Record{Key: fmt.Appendf(nil, "%d", rng.IntN(100)), Value: []byte(strings.Join(words, " "))}, func(_ *kgo.Record, err error) {
			if err != nil {
				failed = err // callbacks come one after the other, and Flush after the last
			}
		})
		select {
		case <-time.After(4 * time.Millisecond):
		case <-stop:
			stopped = true
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	if err := cl.Flush(ctx); err != nil {
		return err
	}
	return failed
}

func (c *counting) restart(sig syscall.Signal) {
	c.t.Helper()
	if err := c.app.End(sig); err != nil {
		c.fail(err)
	}
	if err := c.app.Start(); err != nil {
		c.fail(err)
	}
}

func (c *counting) killBroker() {
	c.t.Helper()
	c.broker.Kill()
	b, err := subject.Start(c.o)
	if err != nil {
		c.fail(err)
	}
	c.broker = b
}

func (c *counting) fail(err error) {
	c.t.Helper()
	log, _ := os.ReadFile(c.app.Log())
	c.t.Fatalf("%v\n%s", err, log[max(0, len(log)-8<<10):])
}

// progress waits until the application has counted more than it had: it has got over what was done
// to it.
func (c *counting) progress() { c.t.Helper(); c.counted(c.counted(0) + 1) }

// counted waits until so many records of the output are committed, and returns how many are.
func (c *counting) counted(atLeast int) int {
	c.t.Helper()
	n := 0
	c.output(func(*kgo.Record) bool { n++; return n >= atLeast }, atLeast)
	return n
}

// output reads what is committed of the output until enough says so, or the end when nothing is
// awaited.
func (c *counting) output(enough func(*kgo.Record) bool, await int) {
	c.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.app.Addr), kgo.AlwaysRetryEOF(), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeTopics("counts"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		c.t.Fatal(err)
	}
	defer cl.Close()
	patience := 3 * wait
	if await == 0 {
		patience = time.Second
	}
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		ctx, cancel := context.WithDeadline(context.Background(), deadline)
		fetches := cl.PollFetches(ctx)
		cancel()
		for r := range fetches.RecordsAll() {
			if enough(r) && await > 0 {
				return
			}
		}
	}
	if await > 0 {
		c.fail(fmt.Errorf("the application does not go on: not within %v", patience))
	}
}

// check waits for the last count of every word, and has each count come once and in order.
func (c *counting) check() {
	total, left := 0, len(c.want)
	for _, n := range c.want {
		total += n
	}
	have := map[string]int{}
	wrong := 0
	c.output(func(r *kgo.Record) bool {
		word := string(r.Key)
		n, err := strconv.Atoi(string(r.Value))
		if err != nil || n != have[word]+1 {
			if wrong++; wrong < 10 {
				c.t.Errorf("the count of %s after %d is %q (partition %d, offset %d)", word, have[word], r.Value, r.Partition, r.Offset)
			}
		}
		have[word] = n
		if n == c.want[word] {
			left--
		}
		return left == 0
	}, total)
	for word, n := range c.want {
		if have[word] != n {
			c.t.Errorf("%s was counted %d times, it was written %d times", word, have[word], n)
		}
	}
	c.t.Logf("%d words, %d counts", len(c.want), total)
}
