package compaction

import (
	"slices"
	"strings"
	"testing"
)

func checkContents(t *testing.T, l *aLog, want string) {
	t.Helper()
	if got := strings.Join(l.contents(), " "); got != want {
		t.Errorf("the log has %q, not %q", got, want)
	}
}

func TestLatestValueOfEachKeyStays(t *testing.T) {
	l := newLog(t)
	l.add(&seg{base: 0, batches: []bat{plain(0, 10, "a=1", "b=1", "c=1"), plain(3, 11, "b=2")}}, 1000)
	l.add(&seg{base: 4, batches: []bat{plain(4, 12, "a=2", "d=1"), plain(6, 13, "e")}}, 2000)
	o := l.options()
	o.Limit, o.NowMs, o.DeleteRetentionMs = 7, 5000, 100
	p, groups := l.run(o)
	if p.EndOffset() != 7 || len(groups) != 1 || len(groups[0].Sources) != 2 {
		t.Errorf("end %d, %d groups", p.EndOffset(), len(groups))
	}
	checkContents(t, l, "2:c=1 3:b=2 4:a=2 5:d=1 6:e")
	got := l.load(l.segs[0])
	want := []int64{0, 3, 4, 6} // base offsets stay
	for i, b := range got.batches {
		if b.base != want[i] {
			t.Error(b)
		}
	}
	if tomb := got.batches[3]; tomb.horizon != 5100 || tomb.recs[0].ts != 13 || tomb.maxTime != 13 {
		t.Error(tomb)
	}
	if first := got.batches[0]; first.last != 2 || first.recs[0].ts != 10 {
		t.Error(first)
	}
	if ms, err := l.segs[0].ModTimeMs(); ms != 2000 || err != nil {
		t.Errorf("modification time %d, %v", ms, err)
	}
	if s := p.Stats(); s.RecordsRead != 7 || s.RecordsKept != 5 || s.Keys != 5 || s.BytesKept != l.segs[0].Size() {
		t.Errorf("%+v", s)
	}
	// One ms before its horizon the tombstone stays, then it goes. Nothing is dirty any more.
	for _, step := range []struct {
		nowMs int64
		want  string
	}{{5099, "2:c=1 3:b=2 4:a=2 5:d=1 6:e"}, {5100, "2:c=1 3:b=2 4:a=2 5:d=1"}} {
		o := l.options()
		o.FirstDirty, o.Limit, o.NowMs = 7, 7, step.nowMs
		l.run(o)
		checkContents(t, l, step.want)
	}
	if b := l.load(l.segs[0]).batches; len(b) != 4 || b[3].base != 6 || b[3].last != 6 {
		t.Errorf("the last batch of the round: %v", b)
	}
}

func TestRecordsWithoutKeyGo(t *testing.T) {
	l := newLog(t)
	b := plain(0, 1, "a=1", "b=1", "c=1")
	b.recs[1].key = nil
	l.add(&seg{batches: []bat{b}}, 0)
	o := l.options()
	o.Limit = 3
	p, _ := l.run(o)
	checkContents(t, l, "0:a=1 2:c=1")
	if s := p.Stats(); s.Invalid != 1 {
		t.Errorf("%+v", s)
	}
}

func TestOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	l := newLog(t)
	l.add(&seg{base: 0, batches: []bat{plain(0, 1, "a=1")}}, 0)
	l.add(&seg{base: 1, batches: []bat{plain(1, 1, "a=1")}}, 0)
	for name, change := range map[string]func(o *Options){
		"order":     func(o *Options) { slices.Reverse(o.Sources) },
		"limit":     func(o *Options) { o.Limit = 1 },
		"clock":     func(o *Options) { o.NowMs = -1 },
		"retention": func(o *Options) { o.DeleteRetentionMs = -1 },
	} {
		o := l.options()
		o.Limit = 2
		change(o)
		if _, err := Begin(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
