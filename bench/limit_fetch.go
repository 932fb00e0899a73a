package bench

import (
	"slices"
	"time"

	"github.com/millrace-project/millrace/wire"
)

// handleFetch answers at once when there is enough, or something is wrong; else it waits as long as
// the client allows, and the connection with it: its answers come in order anyway.
func (c *limitConn) handleFetch(body []byte) error {
	if err := c.fetch.Decode(c.head.APIVersion, body); err != nil {
		return err
	}
	if err := c.write(); err != nil { // so that a reader sees what its connection has written
		return err
	}
	if !c.collect() && c.fetch.MaxWaitMs > 0 {
		if err := c.flush(); err != nil { // answers before this one need not wait
			return err
		}
		c.waitForRecords(time.Duration(c.fetch.MaxWaitMs) * time.Millisecond)
	}
	return c.answerFetch()
}

// collect looks up what there is for each partition and reports whether it is to be answered now.
func (c *limitConn) collect() (enough bool) {
	c.fetched.Reset()
	c.ranges = c.ranges[:0]
	var total int64
	for i := range c.fetch.Topics {
		t := &c.fetch.Topics[i]
		name := ""
		for j := t.First; j < t.First+t.Count; j++ {
			p := &c.fetch.Partitions[j]
			l := c.s.log(t.Name, p.Index)
			r, res := limitRange{}, wire.NewFetchResult(p.Index, wire.None)
			if l == nil {
				res.Code, enough = wire.UnknownTopicOrPartition, true
			} else {
				name = l.topic
				most := min(int64(p.MaxBytes), int64(c.fetch.MaxBytes)-total)
				pos, n, end, ok := l.find(p.FetchOffset, most, total == 0)
				if !ok {
					res.Code, enough = wire.OffsetOutOfRange, true
				}
				r = limitRange{file: l.file, from: pos, n: n}
				res.HighWatermark, res.LastStableOffset, res.LogStartOffset, res.RecordsLen = end, end, 0, n
				total += n
			}
			c.ranges = append(c.ranges, r)
			c.fetched.Partitions = append(c.fetched.Partitions, res)
		}
		if name == "" {
			name = string(t.Name)
		}
		c.fetched.Topics = append(c.fetched.Topics, wire.FetchResponseTopic{Name: name, First: t.First, Count: t.Count})
	}
	return enough || total > 0 && total >= int64(c.fetch.MinBytes) || c.fetch.MinBytes <= 0
}

// waitForRecords returns when there is enough, or the time is over.
func (c *limitConn) waitForRecords(d time.Duration) {
	c.timer.Reset(d)
	defer c.timer.Stop()
	for {
		select {
		case <-c.wake: // of a wait before
		default:
		}
		c.eachLog(func(l *limitLog) { l.await(c.wake) })
		if c.collect() {
			break
		}
		select {
		case <-c.wake:
			c.eachLog(func(l *limitLog) { l.forget(c.wake) })
			continue
		case <-c.timer.C:
			c.collect()
		case <-c.s.closing:
		}
		break
	}
	c.eachLog(func(l *limitLog) { l.forget(c.wake) })
}

func (c *limitConn) eachLog(fn func(l *limitLog)) {
	for i := range c.fetch.Partitions {
		p := &c.fetch.Partitions[i]
		if l := c.s.log(c.fetch.Topics[p.Topic].Name, p.Index); l != nil {
			fn(l)
		}
	}
}

// answerFetch appends what collect has found. A small range is read into the answer, a large one is
// left to sendfile.
func (c *limitConn) answerFetch() error {
	at := c.begin()
	c.body = c.fetched.AppendTo(c.body[:0], c.head.APIVersion, func(i, pos int) { c.ranges[i].pos = pos })
	copied, apart := 0, int64(0)
	for _, r := range c.ranges {
		if r.n == 0 {
			continue
		}
		c.out = append(c.out, c.body[copied:r.pos]...)
		copied = r.pos
		if r.n >= limitSendfileMin {
			r.pos = len(c.out)
			c.files = append(c.files, r)
			apart += r.n
			continue
		}
		end := len(c.out)
		c.out = slices.Grow(c.out, int(r.n))[:end+int(r.n)]
		if _, err := r.file.ReadAt(c.out[end:], r.from); err != nil {
			return err
		}
	}
	c.out = append(c.out, c.body[copied:]...)
	c.finish(at, apart)
	return nil
}
