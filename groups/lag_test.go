package groups

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/metadata"
)

// instantLog commits what it is given.
type instantLog struct {
	mu     sync.Mutex
	end    int64
	notify func()
}

func (l *instantLog) Append(_ int32, _ int64, batches [][]Record) (int64, error) {
	l.mu.Lock()
	base := l.end
	for _, b := range batches {
		l.end += int64(len(b))
	}
	l.mu.Unlock()
	l.notify()
	return base, nil
}
func (l *instantLog) Committed() int64                        { l.mu.Lock(); defer l.mu.Unlock(); return l.end }
func (l *instantLog) OnCommitted(fn func())                   { l.notify = fn }
func (l *instantLog) Err() error                              { return nil }
func (l *instantLog) Replay(func(Entry) error) (int64, error) { return 0, nil }

// lagLogs are topics whose partition p has the end 100·(p+1) and at offset o a record of the time 10·o s; x is not here.
type lagLogs struct{ reads int }

func (l *lagLogs) End(topic string, partition int32) (int64, bool) {
	return 100 * (int64(partition) + 1), topic != "x"
}

func (l *lagLogs) TimeAt(topic string, _ int32, off int64) (int64, bool) {
	l.reads++
	return 10_000 * off, topic != "timeless"
}

// lagWorld is a coordinator of three partitions; every group is as far as told, "topic partition offset".
func lagWorld(t *testing.T, groups map[string][]string) *Coordinator {
	img := imageOf("a", "b", "timeless", "x")
	c := New(Options{
		Config: Config{OffsetMetadataMaxBytes: 100, RetentionCheckMs: 1 << 40},
		Image:  func() *metadata.Image { return img }, NewID: func() string { return "id" },
		NowMs: func() int64 { return 2_000_000 },
	})
	c.SetPartitions(3)
	for p := range int32(3) {
		c.Lead(p, 1, &instantLog{})
	}
	synctest.Wait()
	for id, commits := range groups {
		req := commitRequest(9, id, commits...)
		got := "no answer"
		c.OffsetCommit(Client{}, req, func(resp *kmsg.OffsetCommitResponse) { got = commitCodes(req, resp) })
		synctest.Wait()
		if got != "" {
			t.Fatalf("commit of %q: %s", id, got)
		}
	}
	return c
}

func measured(t *testing.T, l *LagMeter) (*LagReport, string) {
	t.Helper()
	r, err := l.Measure(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, p := range r.Partitions {
		out = append(out, fmt.Sprintf("%s %s-%d %d %gs", p.Group, p.Topic, p.Partition, p.Records, p.Seconds))
	}
	slices.Sort(out)
	return r, strings.Join(out, ", ")
}

func TestLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := lagWorld(t, map[string][]string{
			"f": {"a 0 0", "a 1 150", "a 2 300", "b 0 250"}, "g": {"a 0 40"}, "h": {"timeless 0 99", "x 0 1"},
		})
		defer c.Close()
		logs := &lagLogs{}
		meter := NewLagMeter(c, logs, LagOptions{})
		r, got := measured(t, meter)
		// At 2000 s; the record at offset o is of 10·o s. Behind the end of the log nothing is left to read.
		expect(t, "lag", got, "f a-0 100 2000s, f a-1 50 500s, f a-2 0 0s, f b-0 0 0s, g a-0 60 1600s, h timeless-0 1 -1s")
		if r.Unled != 1 || r.Untimed != 0 || r.Overflow.Groups != 0 || r.Overflow.Partitions != 0 || r.Overflow.Records != 0 {
			t.Errorf("%+v", r)
		}
		if len(r.Survey.Groups) != 3 || r.Survey.Groups[0] != (GroupUsage{"f", "classic", "Empty", 4}) {
			t.Errorf("%+v", r.Survey.Groups)
		}
		if n := c.OffsetCounts(); n != (OffsetCounts{Commits: 7}) {
			t.Errorf("%+v", n)
		}
		// Nothing moved: no log is read but the one that gave no time.
		logs.reads = 0
		if _, again := measured(t, meter); again != got || logs.reads != 1 {
			t.Errorf("again, with %d reads: %s", logs.reads, again)
		}
	})
}

func TestLagIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		long := strings.Repeat("l", maxToldGroupID+1)
		c := lagWorld(t, map[string][]string{
			"f": {"a 0 0", "a 1 0"}, "g": {"a 0 0", "a 1 0", "a 2 0"}, "h": {"a 0 10"}, "i": {"a 0 20"}, long: {"a 0 30"},
		})
		defer c.Close()
		logs := &lagLogs{}
		meter := NewLagMeter(c, logs, LagOptions{MaxPartitions: 3, MaxTimeReads: 2})
		r, got := measured(t, meter)
		expect(t, "shown", strings.ReplaceAll(got, "-1s", "?"), "f a-0 100 2000s, f a-1 200 2000s, h a-0 90 ?")
		if o := r.Overflow; o.Groups != 3 || o.Partitions != 5 || o.Records != 600+80+70 || r.Untimed != 1 {
			t.Errorf("%+v, %d without a time", o, r.Untimed)
		}
		// The next one goes on where reads ran out.
		r, got = measured(t, meter)
		expect(t, "then", got, "f a-0 100 2000s, f a-1 200 2000s, h a-0 90 1900s")
		if r.Untimed != 0 || logs.reads != 3 {
			t.Errorf("%d without a time after %d reads", r.Untimed, logs.reads)
		}
	})
}

func TestLagAfterTheCoordinatorMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := lagWorld(t, map[string][]string{"f": {"a 0 0"}})
		meter := NewLagMeter(c, &lagLogs{}, LagOptions{})
		p, _ := c.PartitionFor("f")
		c.Resign(p)
		if r, got := measured(t, meter); got != "" || len(r.Survey.Groups) != 0 {
			t.Errorf("after a resignation: %s", got)
		}
		c.Close()
		if _, got := measured(t, meter); got != "" {
			t.Errorf("after the end: %s", got)
		}
	})
}

func TestLagEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := lagWorld(t, map[string][]string{"f": {"a 0 0"}})
		defer c.Close()
		ctx, cancel := context.WithCancelCause(context.Background())
		why := errors.New("gone")
		cancel(why)
		_, err := NewLagMeter(c, &lagLogs{}, LagOptions{}).Measure(ctx)
		if err != nil && !errors.Is(err, why) && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// A survey copies the offsets of many groups in parts, and misses none.
func TestSurveyInParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		groups := map[string][]string{"none": nil}
		want := map[string]int{}
		for i := range 40 {
			id := fmt.Sprint("g", i)
			for p := range 1 + i*17 {
				groups[id] = append(groups[id], fmt.Sprintf("a %d 5", p))
			}
			want[id] = len(groups[id])
		}
		c := lagWorld(t, groups)
		defer c.Close()
		s, err := c.Survey(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		err = s.Offsets(context.Background(), func(group string, offsets []CommittedOffset) {
			if len(offsets) != want[group] || offsets[len(offsets)-1].Partition != int32(len(offsets)-1) {
				t.Errorf("%s: %d offsets, want %d", group, len(offsets), want[group])
			}
			delete(want, group)
		})
		if err != nil || len(want) != 0 {
			t.Errorf("%v, not seen: %v", err, want)
		}
	})
}

// The coordinator's own clock takes offsets away, and then the group; a commit in between keeps both.
func TestOffsetsExpireInTheCoordinator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		img := imageOf("a")
		c := New(Options{
			Config: Config{OffsetMetadataMaxBytes: 100, MaxRecordBytes: 1 << 20, RetentionCheckMs: 600_000, OffsetsRetentionMs: 3_600_000},
			Image:  func() *metadata.Image { return img }, NewID: func() string { return "id" }, NowMs: coordinator.NowMs,
		})
		defer c.Close()
		c.SetPartitions(1)
		c.Lead(0, 1, &instantLog{})
		synctest.Wait()
		commit := func() {
			c.OffsetCommit(Client{}, commitRequest(9, "g", "a 0 1"), func(*kmsg.OffsetCommitResponse) {})
			synctest.Wait()
		}
		offsets := func() (n, groups int) {
			s, err := c.Survey(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			for _, g := range s.Groups {
				n += g.Offsets
			}
			return n, len(s.Groups)
		}
		commit()
		time.Sleep(50 * time.Minute)
		commit()
		time.Sleep(59 * time.Minute)
		if n, groups := offsets(); n != 1 || groups != 1 {
			t.Fatalf("%d offsets of %d groups a minute before", n, groups)
		}
		time.Sleep(12 * time.Minute)
		if n, groups := offsets(); n != 0 || groups != 0 || c.OffsetCounts().Expired != 1 {
			t.Fatalf("%d offsets of %d groups, %d expired", n, groups, c.OffsetCounts().Expired)
		}
	})
}
