package coordinator

import (
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// replayLog is a fakeLog that gives back what it holds.
type replayLog struct {
	fakeLog
	hold  chan struct{} // Replay waits for it, if set
	fail  error
	fails atomic.Int32 // how often Replay fails passingly before it does as fail says
}

func (l *replayLog) Replay(fn func(int) error) (int64, error) {
	if l.hold != nil {
		<-l.hold
	}
	for _, v := range l.recs {
		if err := fn(v); err != nil {
			return 0, err
		}
	}
	if l.fails.Add(-1) >= 0 {
		return 0, fmt.Errorf("%w: no descriptor", ErrPassing)
	}
	return int64(len(l.recs)), l.fail
}

func sumShards(k Kind[*sumMachine, int, int]) *Shards[*sumMachine, int, int] {
	k.Make = func(*Shard[*sumMachine, int, int]) func(*Timers[int]) *sumMachine {
		return func(*Timers[int]) *sumMachine { return &sumMachine{} }
	}
	k.Replay = func(m *sumMachine, v *int) { m.Apply(int64(len(m.applied)), 0, [][]int{{*v}}) }
	if k.Loaded == nil {
		k.Loaded = func(*sumMachine) {}
	}
	return NewShards(k)
}

func sumOf(t *testing.T, s *Shard[*sumMachine, int, int]) (sum int, err error) {
	t.Helper()
	s.Submit("", func(m *sumMachine) Decision[int] { sum = m.sum; return Decision[int]{Then: func(e error) { err = e }} }, func(e error) { err = e })
	synctest.Wait()
	return sum, err
}

func TestShardsLoadAnswerAndResign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loaded, unloaded := 0, 0
		c := sumShards(Kind[*sumMachine, int, int]{Loaded: func(m *sumMachine) { loaded += m.sum }, Unloaded: func(*sumMachine) { unloaded++ }})
		if _, err := c.For("k"); !errors.Is(err, ErrNoTopic) {
			t.Errorf("without a topic: %v", err)
		}
		c.SetPartitions(1)
		if _, err := c.For("k"); !errors.Is(err, ErrElsewhere) {
			t.Errorf("before Lead: %v", err)
		}
		log := &replayLog{fakeLog: fakeLog{recs: []int{1, 2, 3}, committed: 3}, hold: make(chan struct{})}
		c.Lead(0, 5, log)
		synctest.Wait()
		if s, err := c.For("k"); !errors.Is(err, ErrLoading) || !s.Loading() {
			t.Errorf("while it loads: %v", err)
		}
		if c.All()[0].Loaded() {
			t.Error("loaded before it has")
		}
		close(log.hold)
		synctest.Wait()
		s, err := c.For("k")
		if err != nil {
			t.Fatal(err)
		}
		s.ready.Store(false) // as it is for a moment when Kind.Loaded may have run
		if s.Answers() || !s.Loaded() {
			t.Error("not loaded when it has")
		}
		s.ready.Store(true)
		if sum, err := sumOf(t, s); sum != 6 || err != nil || loaded != 6 {
			t.Errorf("sum %d, %v, loaded %d", sum, err, loaded)
		}
		c.Lead(0, 5, log) // no news
		if again, _ := c.For("k"); again != s {
			t.Error("the same epoch made another shard")
		}
		c.Lead(0, 6, &replayLog{fakeLog: fakeLog{recs: []int{9}, committed: 1}})
		synctest.Wait()
		next, err := c.For("k")
		if err != nil || next == s || unloaded != 1 {
			t.Fatalf("a new epoch: %v, %d unloaded", err, unloaded)
		}
		if sum, _ := sumOf(t, next); sum != 9 {
			t.Errorf("sum %d", sum)
		}
		c.Resign(0)
		synctest.Wait()
		if _, err := c.For("k"); !errors.Is(err, ErrElsewhere) || unloaded != 2 {
			t.Errorf("after Resign: %v, %d unloaded", err, unloaded)
		}
		c.Close()
		c.Lead(0, 7, log)
		if _, err := c.For("k"); !errors.Is(err, ErrElsewhere) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// A shard whose log fails ends: who waits in its machine is told, and it may be led again.
func TestShardEndsWithItsLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		unloaded := 0
		c := sumShards(Kind[*sumMachine, int, int]{Unloaded: func(*sumMachine) { unloaded++ }})
		defer c.Close()
		log := &replayLog{}
		c.Lead(0, 5, log)
		synctest.Wait()
		log.fakeLog.fail(errPoison)
		synctest.Wait()
		if _, err := c.At(0); !errors.Is(err, ErrElsewhere) || unloaded != 1 {
			t.Errorf("%v, %d unloaded", err, unloaded)
		}
		c.Lead(0, 5, &replayLog{})
		synctest.Wait()
		if _, err := c.At(0); err != nil {
			t.Errorf("led again: %v", err)
		}
	})
}

func TestShardThatCannotLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sumShards(Kind[*sumMachine, int, int]{Logger: slog.New(slog.DiscardHandler)})
		c.SetPartitions(2)
		c.Lead(0, 1, &replayLog{fail: errors.New("torn")})
		c.Lead(1, 1, &replayLog{})
		synctest.Wait()
		if _, err := c.At(0); !errors.Is(err, ErrElsewhere) {
			t.Errorf("a log that does not replay: %v", err)
		}
		s, err := c.At(1)
		if err != nil {
			t.Fatal(err)
		}
		var got error
		s.Submit("k", func(*sumMachine) Decision[int] { panic("at work") }, func(err error) { got = err })
		synctest.Wait()
		if !errors.Is(got, errPanicked) {
			t.Errorf("a decision that panics: %v", got)
		}
		if _, err := sumOf(t, s); err != nil {
			t.Errorf("after it: %v", err)
		}
		c.Close()
	})
}

// A log that cannot be read for a while is read again, into a machine that has seen nothing, while clients are told to wait.
func TestShardIsLoadedWhenItsLogCanBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sumShards(Kind[*sumMachine, int, int]{Width: 1})
		defer c.Close()
		const fails = 10
		log := &replayLog{fakeLog: fakeLog{recs: []int{1, 2, 3}, committed: 3}}
		log.fails.Store(fails)
		began := time.Now()
		c.Lead(0, 1, log)
		c.Lead(1, 1, &replayLog{}) // whose turn comes while the first waits
		synctest.Wait()
		if _, err := c.At(0); !errors.Is(err, ErrLoading) {
			t.Errorf("when it could not be read: %v", err)
		}
		if _, err := c.At(1); err != nil {
			t.Errorf("another partition: %v", err)
		}
		for log.fails.Load() > 0 {
			if _, err := c.At(0); !errors.Is(err, ErrLoading) {
				t.Fatalf("with %d failures to come: %v", log.fails.Load(), err)
			}
			time.Sleep(firstPause)
			synctest.Wait()
		}
		time.Sleep(longestPause)
		synctest.Wait()
		s, err := c.At(0)
		if err != nil {
			t.Fatal(err)
		}
		if sum, err := sumOf(t, s); sum != 6 || err != nil {
			t.Errorf("sum %d, %v", sum, err)
		}
		if took := time.Since(began); took > fails*longestPause {
			t.Errorf("loaded after %v", took)
		}
	})
}

// What ends a shard ends its pause at once; a log that has failed is not read again.
func TestShardThatWaitsForItsLogEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sumShards(Kind[*sumMachine, int, int]{})
		unread, failed := &replayLog{}, &replayLog{fakeLog: fakeLog{err: errPoison}}
		unread.fails.Store(1000)
		failed.fails.Store(1000)
		c.Lead(0, 1, unread)
		c.Lead(1, 1, failed)
		synctest.Wait()
		if _, err := c.At(1); !errors.Is(err, ErrElsewhere) || failed.fails.Load() != 999 {
			t.Errorf("a log that has failed: %v, read %d times", err, 1000-failed.fails.Load())
		}
		time.Sleep(time.Minute)
		began := time.Now()
		c.Resign(0)
		synctest.Wait()
		c.mu.RLock()
		left := c.mu.shards[0]
		c.mu.RUnlock()
		if left != nil {
			t.Error("it is there when it has resigned")
		}
		c.Close()
		if took := time.Since(began); took > 0 {
			t.Errorf("it ended after %v", took)
		}
	})
}

// Places of keys as Kafka's own hash has them.
func TestPlaces(t *testing.T) {
	for _, c := range []struct {
		key  string
		want int32
	}{{"", 0}, {"a", 97 % 50}, {"group", 98629247 % 50}, {"polygenelubricants", 0}, {"naïve", 104710475 % 50}, {"𝄞", 1772394 % 50}} {
		got, ok := place(c.key, 50)
		if !ok || got != c.want {
			t.Errorf("%q: %d, %v, want %d", c.key, got, ok, c.want)
		}
	}
	if _, ok := place("a", 0); ok {
		t.Error("a place among none")
	}
}
