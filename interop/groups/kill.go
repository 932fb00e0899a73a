package main

import (
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/millrace-project/millrace/interop/process"
	"github.com/millrace-project/millrace/interop/subject"
)

// A member that leaves while its group rebalances, or whose farewell a kill swallows, is a member
// again after it, here as in Kafka: until its session ends, which every start of the broker begins
// anew. The others wait for its partitions so long, and a client tries to join for so long only.
// So there is peace after some kills, for longer than any session lasts.
const (
	killsInARow = 3
	peace       = time.Minute
)

// killer ends a broker with SIGKILL again and again and starts it where it was.
type killer struct {
	quit  chan struct{}
	done  chan struct{}
	kills int   // these two are read after done is closed
	err   error // the broker did not start again, or went by itself
}

// startKilling takes over the broker, which was started with the options.
func startKilling(b *process.Broker, o subject.Options, every time.Duration) *killer {
	k := &killer{quit: make(chan struct{}), done: make(chan struct{})}
	o.Data = b.Dir
	go func() {
		defer close(k.done)
		k.err = k.run(b, o, every)
	}()
	return k
}

func (k *killer) run(b *process.Broker, o subject.Options, every time.Duration) error {
	_, port, err := net.SplitHostPort(b.Addr)
	if err != nil {
		return err
	}
	if o.Port, err = strconv.Atoi(port); err != nil {
		return err
	}
	defer func() { b.Kill() }()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-k.quit:
			return nil
		case <-tick.C:
		}
		if !b.Running() {
			return fmt.Errorf("the broker has gone; its output is in %s", b.Log)
		}
		b.Kill()
		k.kills++
		next, err := subject.Start(o)
		if err != nil {
			return err
		}
		b = next
		if k.kills%killsInARow == 0 {
			tick.Reset(peace)
			continue
		}
		tick.Reset(every) // it serves that long, however long its start took
	}
}

// stop ends the broker for good and returns how often it was killed before.
func (k *killer) stop() (kills int, err error) {
	close(k.quit)
	<-k.done
	return k.kills, k.err
}
