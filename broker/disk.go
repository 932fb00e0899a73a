package broker

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/quorum"
)

// privilegedLog says which logs may take from the reserve of disk space: those without which the
// broker can neither start nor delete, nor groups and transactions go on.
func privilegedLog(name string) bool {
	return name == quorum.LogName || isInternalTopic(name[:max(strings.LastIndexByte(name, '-'), 0)])
}

// diskEvents tells an operator how the disk does.
func (b *Broker) diskEvents(l *commitlog.EventListener) {
	l.ReserveMoved = func(s commitlog.ReserveState) {
		if s.Short {
			b.log.Error("THE DISK IS FULL: producers are refused, and what must be written takes from the reserve, until there is room",
				"dir", b.dir, "left", s.Left, "of", s.Bytes)
		} else {
			b.log.Info("there is room on the disk again: the reserve is whole, and producers are served", "dir", b.dir, "reserve", s.Bytes)
		}
	}
	l.Damaged = func(name string, err error) {
		b.log.Error("the scrub found damage, which stays as it is", "log", name, "cause", err)
	}
	l.Scrubbed = func(r commitlog.ScrubReport) {
		say := b.log.Info
		if r.Damaged > 0 {
			say = b.log.Error
		}
		say("all sealed segments were read", "segments", r.Segments, "bytes", r.Bytes, "batches", r.Batches, "damaged", r.Damaged,
			"after", time.Duration(r.EndedMs-r.StartedMs)*time.Millisecond)
	}
}

var (
	descReserve      = desc("reserve_bytes", "Room that is kept on the disk (millrace.reserve.bytes).")
	descReserveLeft  = desc("reserve_left_bytes", "What is left of that room.")
	descReserveShort = desc("reserve_short", "1: the disk is full, and producers are refused until there is room.")
	descOffline      = desc("logs_offline", "Logs that a failing disk took offline until a restart.")
	descScrubRunning = desc("scrub_running", "1: sealed segments are being read (millrace.scrub.interval.ms).")
	descScrubRead    = desc("scrub_read_bytes_total", "Bytes read by the scrub.")
	descScrubDamaged = desc("scrub_damaged_total", "Places that the scrub found damaged; one that stays counts in each pass.")
	descScrubLast    = desc("scrub_last_pass_timestamp_seconds", "When the scrub's last whole pass ended; 0: none since the start.")
)

// collectDisk tells how the disk does.
func (c *collector) collectDisk(gauge, counter func(*prometheus.Desc, float64, ...string)) {
	one := func(yes bool) float64 {
		if yes {
			return 1
		}
		return 0
	}
	r, s := c.b.store.Reserve(), c.b.store.Scrub()
	gauge(descReserve, float64(r.Bytes))
	gauge(descReserveLeft, float64(r.Left))
	gauge(descReserveShort, one(r.Short))
	gauge(descOffline, float64(c.b.store.Offline()))
	gauge(descScrubRunning, one(s.Running))
	counter(descScrubRead, float64(s.Bytes))
	counter(descScrubDamaged, float64(s.Damaged))
	gauge(descScrubLast, float64(s.Last.EndedMs)/1000)
}
