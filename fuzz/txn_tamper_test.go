package fuzz

import (
	"context"
	"encoding/binary"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/fuzz/history"
)

// faults are what a broken broker might do, done to it on the way from the clients: each changes some requests of a live
// run, and the checker must find it.
var faults = []struct {
	name   string
	change func(r *txnRound, n int64, req kmsg.Request) (changed bool) // n counts the requests of the kind
	key    int16
	want   []history.Class // at least one
}{
	{"commits become aborts", func(_ *txnRound, n int64, req kmsg.Request) bool {
		end := req.(*kmsg.EndTxnRequest)
		was := end.Commit
		end.Commit = was && n%15 != 0
		return end.Commit != was
	}, 26, []history.Class{history.LostWrite}},
	{"aborts become commits", func(_ *txnRound, n int64, req kmsg.Request) bool {
		end := req.(*kmsg.EndTxnRequest)
		was := end.Commit
		end.Commit = true
		return !was
	}, 26, []history.Class{history.AbortedRead}},
	{"a partition is told of an abort before the others are told of the commit", func(r *txnRound, n int64, req kmsg.Request) bool {
		end := req.(*kmsg.EndTxnRequest)
		return end.Commit && n%3 == 0 && r.abortFirst(end.ProducerID, end.ProducerEpoch)
	}, 26, []history.Class{history.Torn}},
	{"read_committed becomes read_uncommitted", func(_ *txnRound, _ int64, req kmsg.Request) bool {
		fetch := req.(*kmsg.FetchRequest)
		was := fetch.IsolationLevel
		fetch.IsolationLevel = 0
		return was != 0
	}, 1, []history.Class{history.AbortedRead, history.EarlyRead}},
	{"offsets do not move with their transactions", func(_ *txnRound, _ int64, req kmsg.Request) bool {
		commit := req.(*kmsg.TxnOffsetCommitRequest)
		for i := range commit.Topics {
			for j := range commit.Topics[i].Partitions {
				commit.Topics[i].Partitions[j].Offset = 0
			}
		}
		return true
	}, 28, []history.Class{history.ConsumedTwice, history.OffsetBehind}},
	{"offsets move past what was not consumed", func(_ *txnRound, _ int64, req kmsg.Request) bool {
		commit := req.(*kmsg.TxnOffsetCommitRequest)
		for i := range commit.Topics {
			for j := range commit.Topics[i].Partitions {
				commit.Topics[i].Partitions[j].Offset += 20
			}
		}
		return true
	}, 28, []history.Class{history.NotConsumed}},
	{"fetches leave records out", func(_ *txnRound, n int64, req kmsg.Request) bool {
		if n%20 != 0 {
			return false
		}
		fetch := req.(*kmsg.FetchRequest)
		for i := range fetch.Topics {
			for j := range fetch.Topics[i].Partitions {
				fetch.Topics[i].Partitions[j].FetchOffset += 4
			}
		}
		return true
	}, 1, []history.Class{history.LostWrite, history.Torn}},
}

// TestPlantedFaultsAreFound runs TestTransactions without kills on a broker that is made to seem broken.
func TestPlantedFaultsAreFound(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a while")
	}
	x := newTxnRun(t, *txnSeed)
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			x.t, x.p.t = t, t
			for range 5 { // what a fault does may need a rebalance, which not every short round has
				r := x.newRound()
				w := &tamperer{key: f.key, change: f.change, round: r}
				x.dial = w.dial
				r.patience = 3 * time.Second // a fault may well be one that somebody waits for
				var classes []history.Class
				for _, a := range r.play(2*time.Second, 0) {
					classes = append(classes, a.Class)
				}
				slices.Sort(classes)
				classes = slices.Compact(classes)
				t.Logf("%d requests changed; found %v", w.changed.Load(), classes)
				if slices.ContainsFunc(classes, func(c history.Class) bool { return slices.Contains(f.want, c) }) {
					return
				}
			}
			t.Errorf("none of %v was found", f.want)
		})
	}
	x.t, x.p.t = t, t
}

// abortFirst writes an abort marker to the first partition in which the producer's transaction is open.
func (r *txnRound) abortFirst(producerID int64, epoch int16) bool {
	adm := r.admin()
	defer adm.Close()
	ctx, cancel := context.WithTimeout(context.Background(), r.patience)
	defer cancel()
	var all kadm.TopicsSet
	for p := range txnPartitions {
		all.Add(r.in, p)
	}
	described, err := adm.DescribeProducers(ctx, all)
	if err != nil {
		return false
	}
	for _, p := range described.SortedProducers() {
		if p.ProducerID != producerID || p.CurrentTxnStartOffset < 0 {
			continue
		}
		answers, err := adm.WriteTxnMarkers(ctx, kadm.TxnMarkers{
			ProducerID: producerID, ProducerEpoch: epoch, CoordinatorEpoch: max(p.CoordinatorEpoch, 0), Topics: one(p.Topic, p.Partition),
		})
		return err == nil && answers != nil
	}
	return false
}

func one(topic string, p int32) (set kadm.TopicsSet) {
	set.Add(topic, p)
	return set
}

// tamperer is the way from clients to the broker, with somebody on it.
type tamperer struct {
	key     int16
	round   *txnRound
	change  func(r *txnRound, n int64, req kmsg.Request) bool
	seen    atomic.Int64
	changed atomic.Int64
}

func (w *tamperer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &tampered{Conn: conn, way: w}, nil
}

// tampered is a connection whose requests may be changed. One goroutine writes at a time.
type tampered struct {
	net.Conn
	way *tamperer
	buf []byte
}

// Write implements net.Conn: whole requests go out.
func (c *tampered) Write(p []byte) (int, error) {
	c.buf = append(c.buf, p...)
	for len(c.buf) >= 4 {
		size := 4 + int(binary.BigEndian.Uint32(c.buf))
		if len(c.buf) < size {
			break
		}
		if _, err := c.Conn.Write(c.way.tamper(c.buf[:size])); err != nil {
			return 0, err
		}
		c.buf = c.buf[size:]
	}
	return len(p), nil
}

// tamper gives the frame of a request as it is to go on.
func (w *tamperer) tamper(frame []byte) []byte {
	r := kbin.Reader{Src: frame[4:]}
	key, version := r.Int16(), r.Int16()
	if key != w.key {
		return frame
	}
	r.Int32() // correlation id
	r.NullableString()
	req := kmsg.RequestForKey(key)
	req.SetVersion(version)
	if req.IsFlexible() {
		kmsg.SkipTags(&r)
	}
	head := len(frame) - len(r.Src)
	if err := req.ReadFrom(slices.Clone(r.Src)); err != nil {
		panic("BUG: a request of the client's own: " + err.Error())
	}
	if !w.change(w.round, w.seen.Add(1), req) {
		return frame
	}
	w.changed.Add(1)
	out := req.AppendTo(slices.Clone(frame[:head]))
	binary.BigEndian.PutUint32(out, uint32(len(out)-4))
	return out
}
