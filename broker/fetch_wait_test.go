package broker

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/batch"
)

// Fetches of many partitions wait, are woken by several at once, or by the clock at the same moment,
// or lose their connection meanwhile, and what they were made of is used for others at once: each
// consumer still sees every record of every partition once, and no other.
func TestWideFetchesThatWaitSeeEveryRecordOnce(t *testing.T) {
	const partitions, total, consumers = 12, 60, 6
	seed := rand.Uint64()
	for _, durability := range []string{"sync", "os"} {
		n := startNode(t, t.TempDir(), "millrace.durability", durability)
		n.mustCreate("t", partitions)
		var wg sync.WaitGroup
		failed := make(chan error, partitions+2*consumers)
		run := func(stream uint64, fn func(rng *rand.Rand) error) {
			rng := rand.New(rand.NewPCG(seed, stream))
			wg.Go(func() {
				if err := fn(rng); err != nil {
					failed <- err
				}
			})
		}
		stop := make(chan struct{})
		for i := range consumers {
			p, gone := n.pipe(), make(chan *pipe, 200)
			for range cap(gone) {
				gone <- n.pipe()
			}
			run(uint64(i), func(rng *rand.Rand) error { return (&wideTail{p: p, rng: rng}).run(partitions, total) })
			run(uint64(consumers+i), func(rng *rand.Rand) error { return leaveWaiting(gone, rng, partitions, stop) })
		}
		var producers sync.WaitGroup
		for i := range int32(partitions) {
			p := n.pipe()
			producers.Go(func() {
				for seq := range total {
					p.send(9, produceRequest("t", i, -1, recordsOf(plain(), fmt.Sprintf("%d/%d", i, seq))))
					p.receive()
				}
			})
		}
		producers.Wait()
		close(stop)
		wg.Wait()
		close(failed)
		for err := range failed {
			t.Errorf("%s seed %d: %v", durability, seed, err)
		}
		if n := n.b.deadlines.Waiting(); n > 2*consumers {
			t.Errorf("%s seed %d: %d fetches wait", durability, seed, n)
		}
	}
}

// wideFetch is a fetch of all partitions from the given offsets.
func wideFetch(rng *rand.Rand, offsets []int64) *kmsg.FetchRequest {
	return fetchRequest("t", 0, func(r *kmsg.FetchRequest, p *kmsg.FetchRequestTopicPartition) {
		r.MaxWaitMillis, r.MinBytes, r.SessionEpoch = rng.Int32N(12), 1+rng.Int32N(300), 0
		one := *p
		r.Topics[0].Partitions = nil
		for i, off := range offsets {
			one.Partition, one.FetchOffset = int32(i), off
			r.Topics[0].Partitions = append(r.Topics[0].Partitions, one)
		}
	})
}

// leaveWaiting lets connections end while a fetch of theirs waits.
func leaveWaiting(conns chan *pipe, rng *rand.Rand, partitions int, stop chan struct{}) error {
	for {
		select {
		case <-stop:
			return nil
		case p := <-conns:
			req := wideFetch(rng, make([]int64, partitions))
			req.SessionEpoch = -1 // or the sessions of those who are gone fill the cache
			err := p.post(p.frame(req, 11))
			p.conn.Close()
			if err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

// wideTail reads all partitions in one session.
type wideTail struct {
	p       *pipe
	rng     *rand.Rand
	next    []int64
	session int32
	epoch   int32
}

func (w *wideTail) run(partitions, total int) error {
	w.next = make([]int64, partitions)
	for left := partitions * total; left > 0; {
		req := wideFetch(w.rng, w.next)
		req.SessionID, req.SessionEpoch = w.session, w.epoch
		resp, err := w.p.fetch(req)
		if err != nil {
			return err
		}
		if resp.ErrorCode != 0 || w.session != 0 && resp.SessionID != w.session {
			return fmt.Errorf("session %d, epoch %d: code %d, session %d", w.session, w.epoch, resp.ErrorCode, resp.SessionID)
		}
		w.session, w.epoch = resp.SessionID, w.epoch+1
		for _, topic := range resp.Topics {
			for i := range topic.Partitions {
				n, err := w.take(&topic.Partitions[i])
				if err != nil {
					return err
				}
				left -= n
			}
		}
	}
	return nil
}

// take holds a partition's answer against what it must say, and returns how many records are new.
func (w *wideTail) take(p *kmsg.FetchResponseTopicPartition) (n int, err error) {
	if p.ErrorCode != 0 {
		return 0, fmt.Errorf("partition %d: code %d", p.Partition, p.ErrorCode)
	}
	next := &w.next[p.Partition]
	for rest := p.RecordBatches; len(rest) > 0; {
		b, after, err := batch.Next(rest)
		if err != nil {
			return n, nil // cut at the limit
		}
		rest = after
		err = b.Each(0, func(r *batch.Record) error {
			if want := fmt.Sprintf("%d/%d", p.Partition, *next); r.Offset != *next || string(r.Value) != want || r.Offset >= p.HighWatermark {
				return fmt.Errorf("offset %d of partition %d, high watermark %d, holds %q, want %q", r.Offset, p.Partition, p.HighWatermark, r.Value, want)
			}
			*next++
			n++
			return nil
		})
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
