package fuzz

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/wire"
)

// attacker is one hostile client after another. It belongs to one goroutine.
type attacker struct {
	s   *storm
	rng *rand.Rand
}

// attacks are what an attacker chooses from. None of them asks for a certain answer: what the
// storm holds is what becomes of everybody else.
var attacks = []struct {
	name string
	do   func(*attacker, context.Context, *net.TCPConn)
}{
	{"noise", (*attacker).noise},
	{"any body", (*attacker).anyBody},
	{"cut body", (*attacker).cutBody},
	{"valid", (*attacker).valid},
	{"mutated", (*attacker).mutated},
	{"mutated", (*attacker).mutated},
	{"bad size", (*attacker).badSize},
	{"announce", (*attacker).announce},
	{"announce and send some", (*attacker).announceAndSend},
	{"bombs", (*attacker).bombs},
	{"bombs", (*attacker).bombs},
	{"slow reader", (*attacker).slowReader},
	{"slow writer", (*attacker).slowWriter},
	{"cut frame", (*attacker).cutFrame},
	{"half closed", (*attacker).halfClosed},
	{"pipeline", (*attacker).pipeline},
	{"amplify", (*attacker).amplify},
	{"wait for ever", (*attacker).waitForever},
}

// run attacks until ctx is done.
func (a *attacker) run(ctx context.Context) {
	for ctx.Err() == nil {
		i := a.rng.IntN(len(attacks))
		c, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", a.s.p.addr)
		if err != nil {
			if ctx.Err() == nil {
				a.s.t.Errorf("%s: %v", attacks[i].name, err)
			}
			return
		}
		if *hostileDuration < time.Minute {
			// After an end without a reset the broker rightly keeps a connection whose requests wait,
			// for as long as half a minute: a peer that is done writing may still read.
			_ = c.(*net.TCPConn).SetLinger(0)
		}
		attacks[i].do(a, ctx, c.(*net.TCPConn))
		_ = c.Close() // some attacks have closed it
		a.s.count(attacks[i].name)
	}
}

// send writes with a deadline, because a broker that does not read is one right answer, and reports
// whether all went out.
func (a *attacker) send(c *net.TCPConn, p []byte) bool {
	_ = c.SetWriteDeadline(time.Now().Add(3 * time.Second))
	_, err := c.Write(p)
	return err == nil
}

// taste reads some of what comes.
func (a *attacker) taste(c *net.TCPConn, d time.Duration) {
	_ = c.SetReadDeadline(time.Now().Add(d))
	_, _ = io.CopyN(io.Discard, c, 1<<20) // ends in whatever way
}

// hold keeps the connection as it is for a while, or until the broker closes it.
func (a *attacker) hold(ctx context.Context, c *net.TCPConn, most time.Duration) {
	d := time.Duration(a.rng.Int64N(int64(most)))
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
	_ = c.Close()
}

// api chooses an API and version: mostly what is served, sometimes what is not, or what is none.
func (a *attacker) api() (key, version int16) {
	switch a.rng.IntN(8) {
	case 0:
		key = int16(a.rng.IntN(kmsg.MaxKey + 3))
		return key, int16(a.rng.IntN(20) - 1)
	case 1:
		return int16(a.rng.Uint32()), int16(a.rng.Uint32())
	}
	served := wire.Served()
	s := served[a.rng.IntN(len(served))]
	return s.Key, s.Min + int16(a.rng.IntN(int(s.Max-s.Min)+1))
}

func (a *attacker) noise(_ context.Context, c *net.TCPConn) {
	p := a.bytes(1 + a.rng.IntN(1<<a.rng.IntN(18)))
	if a.rng.IntN(2) == 0 && len(p) >= 4 {
		sized(p)
	}
	a.send(c, p)
	a.taste(c, 100*time.Millisecond)
}

func (a *attacker) anyBody(_ context.Context, c *net.TCPConn) {
	key, version := a.api()
	a.send(c, a.header(key, version, a.bytes(a.rng.IntN(300))))
	a.taste(c, 100*time.Millisecond)
}

func (a *attacker) cutBody(_ context.Context, c *net.TCPConn) {
	p := a.forge(a.api())
	p = p[:4+a.rng.IntN(len(p)-3)]
	a.send(c, sized(p))
	a.taste(c, 100*time.Millisecond)
}

func (a *attacker) valid(_ context.Context, c *net.TCPConn) {
	for range 20 {
		if !a.send(c, a.forge(a.api())) {
			return
		}
	}
	a.taste(c, 300*time.Millisecond)
}

func (a *attacker) mutated(_ context.Context, c *net.TCPConn) {
	key, version := a.api()
	p := a.forge(key, version)
	for range 1 + a.rng.IntN(3) {
		if !a.send(c, a.mutate(p)) {
			break
		}
	}
	a.taste(c, 100*time.Millisecond)
}

func (a *attacker) badSize(ctx context.Context, c *net.TCPConn) {
	n := []int32{-1, math.MinInt32, 0, 1, 3, 100<<20 + 1, math.MaxInt32}[a.rng.IntN(7)]
	p := binary.BigEndian.AppendUint32(nil, uint32(n))
	if a.rng.IntN(2) == 0 {
		p = append(p, a.bytes(a.rng.IntN(100))...)
	}
	a.send(c, p)
	a.hold(ctx, c, 300*time.Millisecond)
}

// opening is the beginning of a frame of n bytes.
func (a *attacker) opening(n int) []byte {
	key := []int16{wire.KeyProduce, wire.KeyProduce, wire.KeyFetch, 3}[a.rng.IntN(4)]
	p := a.header(key, 8, a.bytes(50))
	binary.BigEndian.PutUint32(p, uint32(n))
	return p
}

func (a *attacker) announce(ctx context.Context, c *net.TCPConn) {
	for range 20 {
		more, err := net.Dial("tcp", a.s.p.addr)
		if err != nil {
			return
		}
		defer more.Close()
		a.send(more.(*net.TCPConn), a.opening(100<<20-a.rng.IntN(4096)))
	}
	a.send(c, a.opening(100<<20))
	a.hold(ctx, c, 2*time.Second)
}

func (a *attacker) announceAndSend(ctx context.Context, c *net.TCPConn) {
	if !a.send(c, a.opening(100<<20)) {
		return
	}
	chunk := make([]byte, 1<<20)
	for range a.rng.IntN(60) {
		if !a.send(c, chunk) {
			break
		}
	}
	a.hold(ctx, c, time.Second)
}

func (a *attacker) bombs(_ context.Context, c *net.TCPConn) {
	for range 1 + a.rng.IntN(4) {
		records := a.bomb()
		if a.rng.IntN(3) == 0 {
			records = a.countBomb()
		}
		if !a.send(c, a.produce(records)) {
			return
		}
	}
	a.taste(c, 2*time.Second)
}

func (a *attacker) slowReader(ctx context.Context, c *net.TCPConn) {
	_ = c.SetReadBuffer(4096)
	req := kmsg.NewPtrFetchRequest()
	req.SetVersion(12)
	req.ReplicaID, req.MaxBytes, req.SessionEpoch = -1, 55<<20, -1
	p := kmsg.NewFetchRequestTopicPartition()
	p.PartitionMaxBytes = 55 << 20
	req.Topics = []kmsg.FetchRequestTopic{{Topic: bigTopic, Partitions: []kmsg.FetchRequestTopicPartition{p}}}
	frame := frames.AppendRequest(nil, req, 1)
	for range 1 + a.rng.IntN(8) {
		a.send(c, frame)
	}
	a.hold(ctx, c, 2*time.Second)
}

func (a *attacker) slowWriter(ctx context.Context, c *net.TCPConn) {
	for _, b := range a.forge(a.api()) {
		if !a.send(c, []byte{b}) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(a.rng.IntN(30)) * time.Millisecond):
		}
	}
}

func (a *attacker) cutFrame(_ context.Context, c *net.TCPConn) {
	p := a.forge(a.api())
	a.send(c, p[:a.rng.IntN(len(p))])
	if a.rng.IntN(2) == 0 {
		_ = c.SetLinger(0) // a reset in place of an end
	}
}

// halfClosed sends requests and its end, and reads until the broker's.
func (a *attacker) halfClosed(_ context.Context, c *net.TCPConn) {
	for range a.rng.IntN(10) {
		a.send(c, a.forge(wire.KeyApiVersions, int16(a.rng.IntN(5))))
	}
	if err := c.CloseWrite(); err != nil {
		return // it is closed already
	}
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.Copy(io.Discard, c); err != nil {
		if e, ok := err.(net.Error); ok && e.Timeout() {
			a.s.t.Errorf("half closed: the broker keeps a connection whose peer has said that it is done")
		}
	}
}

func (a *attacker) pipeline(ctx context.Context, c *net.TCPConn) {
	_ = c.SetReadBuffer(4096)
	key := []int16{wire.KeyApiVersions, 3, wire.KeyProduce, 60, 32}[a.rng.IntN(5)]
	api, _ := wire.Lookup(key)
	frame := a.forge(key, api.Max)
	if key == wire.KeyProduce {
		records := a.records()
		frame = a.produce(records[:min(100, len(records))])
	}
	p := bytes.Repeat(frame, min(1000, 1+(8<<20)/len(frame)))
	_ = c.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
	for range 5 {
		if _, err := c.Write(p); err != nil {
			break
		}
	}
	a.hold(ctx, c, time.Second)
}

// amplify sends a frame that costs little and decodes to as much as may be: an array of nothings.
func (a *attacker) amplify(_ context.Context, c *net.TCPConn) {
	served := wire.Served()
	api := served[a.rng.IntN(len(served))]
	version := api.Min + int16(a.rng.IntN(int(api.Max-api.Min)+1))
	n := 1 << (10 + a.rng.IntN(14)) // up to 8 MiB
	body := make([]byte, n)
	fill := byte(a.rng.IntN(3)) // as a length of a compact form: null, empty, one
	for i := range body {
		body[i] = fill
	}
	at := a.rng.IntN(24) // where the array begins differs between the APIs
	if api.Flexible(version) {
		copy(body[at:], binary.AppendUvarint(nil, uint64(n/2)))
	} else {
		binary.BigEndian.PutUint32(body[at:], uint32(n/8))
	}
	a.send(c, a.header(api.Key, version, body))
	a.taste(c, time.Second)
}

func (a *attacker) waitForever(_ context.Context, c *net.TCPConn) {
	for range 1 + a.rng.IntN(20) {
		req := kmsg.NewPtrFetchRequest()
		req.SetVersion(12)
		req.ReplicaID, req.MaxBytes, req.MinBytes, req.MaxWaitMillis, req.SessionEpoch = -1, 1<<20, math.MaxInt32, math.MaxInt32, int32(a.rng.IntN(2)-1)
		p := kmsg.NewFetchRequestTopicPartition()
		p.PartitionMaxBytes = 1 << 20
		req.Topics = []kmsg.FetchRequestTopic{{Topic: hostileTopic(a.rng), Partitions: []kmsg.FetchRequestTopicPartition{p}}}
		if !a.send(c, frames.AppendRequest(nil, req, 1)) {
			return
		}
	}
	a.taste(c, 100*time.Millisecond)
}
