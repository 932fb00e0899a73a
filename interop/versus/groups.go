package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// groupLoad is many consumer groups on one broker: their members join until every group is stable,
// commit for a while, and then say nothing. Members are raw requests over as few connections as
// a blocking JoinGroup allows (one a member of the groups that join at the same time), so that the
// clients cost little beside the broker.
type groupLoad struct {
	side    *side
	next    bool // KIP-848
	prefix  string
	groups  int
	members int
	sets    int           // groups that join at the same time
	commit  time.Duration // of commits
	idle    time.Duration // of silence; 0: none
	topic   string        // has a partition a member
}

// groupFigure is what one load has measured.
type groupFigure struct {
	join        time.Duration // until all groups were stable
	joinCPU     time.Duration // of the broker
	commits     float64       // a second
	commitsCPU  float64       // a second of the broker's CPU time
	bytesPer    float64       // resident memory that a group has added
	resident    int64         // bytes, with all groups
	before      idleFigure    // with no groups
	after       idleFigure    // with all of them, nobody saying anything
	clientShare float64       // CPU time of the clients by that of the broker, while they joined and committed
}

// idleFigure is what a broker costs a second while nobody asks for anything.
type idleFigure struct {
	cpu      float64 // milliseconds
	switches float64 // context switches, of both kinds, of all its threads
}

// sets of connections: one of them is one client host with members of several groups.
const groupSets = 16

// run measures the load; the groups stay.
func (l *groupLoad) run(ctx context.Context) (f groupFigure, err error) {
	if f.before, err = l.quiet(ctx, min(l.idle, 10*time.Second)); err != nil {
		return f, err
	}
	start, err := l.usage()
	if err != nil {
		return f, err
	}
	sets := make([]*memberSet, l.sets)
	for i := range sets {
		sets[i] = &memberSet{load: l, number: i}
		defer sets[i].close()
	}
	if err := l.each(sets, func(s *memberSet) error { return s.joinAll(ctx) }); err != nil {
		return f, err
	}
	joined, err := l.usage()
	if err != nil {
		return f, err
	}
	f.join, f.joinCPU = joined.at.Sub(start.at), joined.cpu-start.cpu
	var commits atomic.Int64
	until := time.Now().Add(l.commit)
	if err := l.each(sets, func(s *memberSet) error {
		n, err := s.commitAll(ctx, until)
		commits.Add(n)
		return err
	}); err != nil {
		return f, err
	}
	end, err := l.usage()
	if err != nil {
		return f, err
	}
	f.commits = float64(commits.Load()) / end.at.Sub(joined.at).Seconds()
	f.commitsCPU = float64(commits.Load()) / (end.cpu - joined.cpu).Seconds()
	f.clientShare = (end.self - start.self).Seconds() / (end.cpu - start.cpu).Seconds()
	f.after, err = l.quiet(ctx, l.idle)
	last, err2 := l.usage()
	f.resident = last.rss
	f.bytesPer = float64(last.rss-start.rss) / float64(l.groups)
	return f, firstError(err, err2)
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// each runs fn for all sets at the same time.
func (l *groupLoad) each(sets []*memberSet, fn func(*memberSet) error) error {
	errs := make([]error, len(sets))
	var wg sync.WaitGroup
	for i, s := range sets {
		wg.Go(func() { errs[i] = fn(s) })
	}
	wg.Wait()
	return firstError(errs...)
}

// quiet waits until the broker has done what it does after a load, and then measures its rest.
func (l *groupLoad) quiet(ctx context.Context, d time.Duration) (f idleFigure, err error) {
	if d == 0 {
		return f, nil
	}
	runtime.GC()
	if err := wait(ctx, min(d, 3*time.Second)); err != nil {
		return f, err
	}
	start, err := l.usage()
	if err != nil {
		return f, err
	}
	if err := wait(ctx, d); err != nil {
		return f, err
	}
	end, err := l.usage()
	seconds := end.at.Sub(start.at).Seconds()
	f.cpu = float64((end.cpu - start.cpu).Microseconds()) / 1000 / seconds
	f.switches = float64(end.switches-start.switches) / seconds
	return f, err
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// usage is what the broker has used until a moment.
type usage struct {
	at       time.Time
	cpu      time.Duration
	self     time.Duration // CPU time of this process
	rss      int64         // bytes
	switches int64
}

func (l *groupLoad) usage() (u usage, err error) {
	u.at, u.self = time.Now(), readCPU().self
	if u.cpu, err = l.side.CPU(); err != nil {
		return u, err
	}
	proc := filepath.Join("/proc", strconv.Itoa(l.side.PID()))
	status, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		return u, err
	}
	u.rss = statusField(status, "VmRSS") << 10
	tasks, err := filepath.Glob(filepath.Join(proc, "task", "*", "status"))
	for _, name := range tasks {
		if p, err := os.ReadFile(name); err == nil { // a thread that has ended meanwhile counts no more
			u.switches += statusField(p, "voluntary_ctxt_switches") + statusField(p, "nonvoluntary_ctxt_switches")
		}
	}
	return u, err
}

func statusField(status []byte, field string) int64 {
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		if fields := strings.Fields(value); name == field && len(fields) > 0 {
			n, _ := strconv.ParseInt(fields[0], 10, 64) // a kernel's number
			return n
		}
	}
	return 0
}

// remove lets no group of the load stay: its members leave, and it is deleted.
func (l *groupLoad) remove(ctx context.Context) error {
	sets := make([]*memberSet, l.sets)
	for i := range sets {
		sets[i] = &memberSet{load: l, number: i}
		defer sets[i].close()
	}
	return l.each(sets, func(s *memberSet) error { return s.removeAll(ctx) })
}

func (l *groupLoad) name(n int) string { return fmt.Sprintf("%s-%d", l.prefix, n) }

func (s *memberSet) removeAll(ctx context.Context) error {
	del := kmsg.NewPtrDeleteGroupsRequest()
	del.SetVersion(2)
	for n := s.number; n < s.load.groups; n += s.load.sets {
		del.Groups = append(del.Groups, s.load.name(n))
	}
	describe := kmsg.NewPtrDescribeGroupsRequest()
	describe.SetVersion(5)
	describe.Groups = del.Groups
	if s.load.next {
		return s.removeNext(ctx, del)
	}
	resp, err := s.ask(ctx, 0, describe)
	if err != nil {
		return err
	}
	for _, gr := range resp.(*kmsg.DescribeGroupsResponse).Groups {
		leave := kmsg.NewPtrLeaveGroupRequest()
		leave.SetVersion(5)
		leave.Group = gr.Group
		for _, m := range gr.Members {
			lm := kmsg.NewLeaveGroupRequestMember()
			lm.MemberID = m.MemberID
			leave.Members = append(leave.Members, lm)
		}
		if _, err := s.ask(ctx, 0, leave); err != nil {
			return err
		}
	}
	_, err = s.ask(ctx, 0, del)
	return err
}

func (s *memberSet) removeNext(ctx context.Context, del *kmsg.DeleteGroupsRequest) error {
	for n := s.number; n < s.load.groups; n += s.load.sets {
		for m := range s.load.members {
			req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
			req.SetVersion(1)
			req.Group, req.MemberID, req.MemberEpoch, req.RebalanceTimeoutMillis = s.load.name(n), memberName(n, m), -1, -1
			if _, err := s.ask(ctx, 0, req); err != nil {
				return err
			}
		}
	}
	_, err := s.ask(ctx, 0, del)
	return err
}
