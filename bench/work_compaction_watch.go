package bench

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// await waits until the cleaner's checkpoint says that every sealed segment is clean, and gives f its
// times. They begin when the target has read or written more than what a request or a look at a
// checkpoint takes; where that cannot be told, when the cleaner was let go.
func (d *dirtyTopic) await(ctx context.Context, t *Target, f *Figure) error {
	const (
		poll  = 5 * time.Millisecond
		begun = 256 << 10 // bytes
	)
	from, ended := time.Now(), make([]time.Time, len(d.logs))
	base, counting := bytesMoved(t.PID)
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for idle := from; ; {
		now := time.Now()
		if counting {
			if n, ok := bytesMoved(t.PID); ok && n-base > begun {
				from, counting = idle, false
			}
			idle = now
		}
		f.RSS = max(f.RSS, residentBytes(t.PID))
		cleaned, err := cleanerCheckpoint(t.Dir)
		if err != nil {
			return err
		}
		left := 0
		for p, l := range d.logs {
			if cleaned[fmt.Sprintf("%s %d", d.name, p)] < l.before.active {
				left++
			} else if ended[p].IsZero() {
				ended[p] = now
			}
		}
		if left == 0 {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("bench: %d of %d logs of %s on %s are still dirty: %w", left, len(d.logs), d.name, t.Name, ctx.Err())
		case <-tick.C:
		}
	}
	for _, at := range ended {
		record(f.Latency, at.Sub(from))
		f.Elapsed = max(f.Elapsed, at.Sub(from))
	}
	return nil
}

// cleanerCheckpoint reads cleaner-offset-checkpoint: a version, a count, and a line "topic partition
// offset" for each partition. It is replaced by a rename, so that it is always whole.
func cleanerCheckpoint(dir string) (map[string]int64, error) {
	p, err := os.ReadFile(filepath.Join(dir, "cleaner-offset-checkpoint"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	out := map[string]int64{}
	for line := range strings.Lines(string(p)) {
		at := strings.LastIndexByte(line, ' ')
		if at < 0 {
			continue
		}
		off, err := strconv.ParseInt(strings.TrimSpace(line[at:]), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("bench: cleaner-offset-checkpoint: %q", line)
		}
		out[line[:at]] = off
	}
	return out, nil
}

// logFiles are the segments of a partition but for the last one, which no cleaner touches.
type logFiles struct {
	bytes  int64
	active int64 // base offset of the last segment
}

func surveyLog(dir string) (l logFiles, err error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		return l, fmt.Errorf("bench: %w", err)
	}
	if len(names) < 2 {
		return l, fmt.Errorf("bench: %s has %d segments: nothing in it can be cleaned", dir, len(names))
	}
	slices.Sort(names) // twenty digits each
	sealed, last := names[:len(names)-1], names[len(names)-1]
	if l.active, err = strconv.ParseInt(strings.TrimSuffix(filepath.Base(last), ".log"), 10, 64); err != nil {
		return l, fmt.Errorf("bench: %s: %w", last, err)
	}
	for _, name := range sealed {
		info, err := os.Stat(name)
		if err != nil {
			return l, fmt.Errorf("bench: %w", err)
		}
		l.bytes += info.Size()
	}
	return l, nil
}

// bytesMoved is what a process has read and written by system calls (proc(5), /proc/PID/io, rchar
// and wchar), from the page cache or not.
func bytesMoved(pid int) (n int64, ok bool) {
	if pid == 0 {
		return 0, false
	}
	for _, name := range []string{"rchar", "wchar"} {
		v, err := strconv.ParseInt(procField(fmt.Sprintf("/proc/%d/io", pid), name), 10, 64)
		if err != nil {
			return 0, false
		}
		n += v
	}
	return n, true
}
