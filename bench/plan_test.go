package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// scripted is a workload that writes down what is done with it.
type scripted struct {
	name   string
	log    *[]string
	figure func(t *Target, run string) (Figure, error)
	verify func(t *Target) error
	runs   map[string]bool
	run    string
}

func (s *scripted) note(what string, t *Target) { *s.log = append(*s.log, what+" "+t.Name) }
func (s *scripted) Name() string                { return s.name }
func (s *scripted) Prepare(_ context.Context, t *Target, run string) error {
	if s.runs[run] {
		return fmt.Errorf("run %s was there before", run)
	}
	s.runs[run], s.run = true, run
	s.note("prepare", t)
	return nil
}

func (s *scripted) Run(_ context.Context, t *Target, d time.Duration) (Figure, error) {
	s.note("run "+d.String(), t)
	return s.figure(t, s.run)
}

func (s *scripted) Verify(_ context.Context, t *Target) error {
	s.note("verify", t)
	if s.verify != nil {
		return s.verify(t)
	}
	return nil
}

func (s *scripted) Clean(_ context.Context, t *Target) error {
	s.note("clean", t)
	return nil
}

func newScripted(name string, figure func(t *Target, run string) (Figure, error)) *scripted {
	return &scripted{name: name, log: new([]string), figure: figure, runs: map[string]bool{}}
}

func good(*Target, string) (Figure, error) { return figureOf(100, time.Second), nil }

// twoTargets are one broker under two names.
func twoTargets(t *testing.T) []*Target {
	a := startTarget(t)
	a.Dir = ""
	b := *a
	a.Name, b.Name = "a", "b"
	return []*Target{a, &b}
}

func TestPlanInterleavesRounds(t *testing.T) {
	w := newScripted("w", good)
	var measured int
	p := Plan{Targets: twoTargets(t), Workloads: []Workload{w}, Rounds: 2, Duration: time.Second, Warm: -1, Against: []string{"b"},
		Watch: func(e Event) {
			if e.Stage == Measured {
				measured++
			}
		}}
	report, err := p.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for range 2 {
		for _, target := range []string{"a", "b"} {
			want = append(want, "prepare "+target, "run 1s "+target, "verify "+target, "clean "+target)
		}
	}
	if !slices.Equal(*w.log, want) {
		t.Errorf("%q, want %q", *w.log, want)
	}
	if len(report.Rows) != 2 || len(report.Rows[0].Figures) != 2 || report.Rows[0].Refused != "" || measured != 4 {
		t.Errorf("%+v, %d told", report.Rows, measured)
	}
	if len(report.Ratios) == 0 || report.Ratios[0].Target != "a" || report.Ratios[0].Against != "b" || report.Machine["CPUs"] == "" {
		t.Errorf("%+v %v", report.Ratios, report.Machine)
	}
}

// paired is a scripted workload that is held against another.
type pairedScript struct {
	*scripted
	against string
}

func (p pairedScript) HeldAgainst() string { return p.against }

// A workload takes turns with the one that it is held against, wherever that stands in the plan, and the report says what
// the one is of the other on each target; a partner that is not in the plan, or failed, is none.
func TestPlanTakesTurnsWithWhatItIsHeldAgainst(t *testing.T) {
	log := new([]string)
	script := func(name string, requests int64) *scripted {
		w := newScripted(name, func(t *Target, _ string) (Figure, error) {
			*log = append(*log, name+" "+t.Name)
			return figureOf(requests, time.Second), nil
		})
		return w
	}
	bare, other, loaded := script("bare", 200), script("other", 1), script("loaded", 150)
	alone := pairedScript{script("alone", 1), "not there"}
	bare.verify = func(t *Target) error {
		if t.Name == "b" {
			return errors.New("lost")
		}
		return nil
	}
	p := Plan{Targets: twoTargets(t), Workloads: []Workload{bare, other, pairedScript{loaded, "bare"}, alone}, Rounds: 2, Duration: time.Second, Warm: -1}
	report, err := p.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"bare a", "bare b", "loaded a", "loaded b", "bare a", "loaded a", "loaded b", // bare does not count on b after its first round
		"other a", "other b", "other a", "other b", "alone a", "alone b", "alone a", "alone b",
	}
	if !slices.Equal(*log, want) {
		t.Errorf("ran %q, want %q", *log, want)
	}
	found := false
	for _, x := range report.Held {
		if x.Workload != "loaded" || x.Against != "bare" || x.Target != "a" {
			t.Errorf("held: %+v", x)
		}
		found = found || x.Metric == "requests" && x.Value == 0.75
	}
	if !found {
		t.Errorf("held: %+v", report.Held)
	}
}

func TestPlanWarmsUpByTheRule(t *testing.T) {
	rates := []int64{100, 200, 300, 400, 401, 500}
	w := newScripted("w", func(t *Target, run string) (Figure, error) {
		if !strings.Contains(run, "warm") || t.Name == "b" {
			return good(t, run)
		}
		f := figureOf(rates[0], time.Second)
		rates = rates[1:]
		return f, nil
	})
	p := Plan{Targets: twoTargets(t), Workloads: []Workload{w}, Rounds: 1, Duration: time.Second, Warm: 3 * time.Second}
	if _, err := p.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Windows are as long as the least when that is shorter than theirs: two at least, to compare.
	var windows int
	for _, line := range *w.log {
		if line == "run 3s a" {
			windows++
		}
		if line == "verify a" && windows != 5 {
			t.Errorf("%d windows before the first figure, want 5: the fifth is the first that is like the one before", windows)
		}
	}
}

func TestPlanRefusesWhatDoesNotCount(t *testing.T) {
	for _, c := range []struct {
		name   string
		figure func(t *Target, run string) (Figure, error)
		verify func(t *Target) error
		want   string
	}{
		{"errors", func(*Target, string) (Figure, error) {
			f := figureOf(100, time.Second)
			f.Errors, f.Error = 3, "no room"
			return f, nil
		}, nil, "3 errors, the first: no room"},
		{"content", good, func(*Target) error { return errors.New("one record less") }, "one record less"},
		{"a failure", func(*Target, string) (Figure, error) { return Figure{}, errors.New("no topic") }, nil, "no topic"},
		{"silence", func(*Target, string) (Figure, error) { return figureOf(0, 0), nil }, nil, "nothing was answered"},
	} {
		bad := newScripted("bad", func(t *Target, run string) (Figure, error) {
			if t.Name == "b" {
				return c.figure(t, run)
			}
			return good(t, run)
		})
		bad.verify = func(t *Target) error {
			if t.Name == "b" && c.verify != nil {
				return c.verify(t)
			}
			return nil
		}
		fine := newScripted("fine", good)
		p := Plan{Targets: twoTargets(t), Workloads: []Workload{bad, fine}, Rounds: 3, Duration: time.Second, Warm: -1}
		report, err := p.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		rows := report.Rows
		if rows[0].Refused != "" || !strings.Contains(rows[1].Refused, c.want) || rows[2].Refused != "" || rows[3].Refused != "" || len(rows[0].Figures) != 3 {
			t.Errorf("%s: %q %q %q %q", c.name, rows[0].Refused, rows[1].Refused, rows[2].Refused, rows[3].Refused)
		}
		for _, r := range report.Ratios {
			if r.Workload == "bad" {
				t.Errorf("%s: a ratio with a row that does not count: %+v", c.name, r)
			}
		}
		if n := len(*bad.log); (*bad.log)[n-1] != "clean a" {
			t.Errorf("%s: not cleaned up after: %q", c.name, *bad.log)
		}
	}
}

// An interrupt leaves what was measured before it.
func TestPlanInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var runs int
	w := newScripted("w", func(t *Target, run string) (Figure, error) {
		if runs++; runs == 4 {
			cancel()
			return Figure{}, ctx.Err()
		}
		return good(t, run)
	})
	late := newScripted("late", good)
	p := Plan{Targets: twoTargets(t), Workloads: []Workload{w, late}, Rounds: 5, Duration: time.Second, Warm: -1}
	report, err := p.Run(ctx)
	if !errors.Is(err, context.Canceled) || len(report.Rows) != 2 {
		t.Fatalf("%v, %d rows", err, len(report.Rows))
	}
	a, b := report.Rows[0], report.Rows[1]
	if len(a.Figures) != 2 || len(b.Figures) != 1 || a.Refused != "" || b.Refused != "" || len(report.Ratios) == 0 {
		t.Errorf("%d and %d figures, %q %q, %d ratios", len(a.Figures), len(b.Figures), a.Refused, b.Refused, len(report.Ratios))
	}
	if n := len(*w.log); (*w.log)[n-1] != "clean b" || len(*late.log) != 0 {
		t.Errorf("%q, then %q", *w.log, *late.log)
	}
}

func TestPlanSaysWhatIsWrongWithIt(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := &Target{Name: "dead", Addr: listener.Addr().String()}
	listener.Close()
	w := newScripted("w", good)
	for _, c := range []struct {
		p    Plan
		want string
	}{
		{Plan{}, "nothing to do"},
		{Plan{Targets: []*Target{dead, dead}, Workloads: []Workload{w}}, "two targets"},
		{Plan{Targets: []*Target{dead}, Workloads: []Workload{w, w}}, "twice"},
		{Plan{Targets: []*Target{dead}, Workloads: []Workload{w}, Against: []string{"kafka"}}, "no target is called kafka"},
		{Plan{Targets: []*Target{dead}, Workloads: []Workload{w}, Against: []string{"dead", "dead"}}, "against dead twice"},
		{Plan{Targets: []*Target{dead}, Workloads: []Workload{w}}, "target dead: bench: dial"},
	} {
		if _, err := c.p.Run(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
	if len(*w.log) != 0 {
		t.Errorf("%q was done all the same", *w.log)
	}
}
