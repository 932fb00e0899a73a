package clients

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
)

// partitions of each topic.
const partitions = 2

// Records draws what is written: null and empty keys and values, headers, rising timestamps.
func Records(seed uint64, n int) []Record {
	rng := rand.New(rand.NewPCG(seed, 7))
	text := func(n int) []byte {
		p := make([]byte, rng.IntN(n))
		for i := range p {
			p[i] = "abcdefghijklmnopqrstuvwxyz0123456789"[rng.IntN(36)]
		}
		return p
	}
	var out []Record
	for i := range n {
		r := Record{Partition: int32(rng.IntN(partitions)), TimestampMs: 1_700_000_000_000 + int64(i)*1000, Key: []byte(fmt.Sprintf("k%d", rng.IntN(50))), Value: append([]byte(fmt.Sprintf("v%d-", i)), text(400)...)}
		switch rng.IntN(10) {
		case 0:
			r.Key = nil
		case 1:
			r.Headers = []Header{{"trace", text(20)}, {"empty", []byte{}}}
		}
		out = append(out, r)
	}
	return out
}

// Exchange has each writer write with each acknowledgement and codec, and each reader read it.
func Exchange(t *testing.T, addr string, writers, readers []Client, seed uint64) {
	t.Helper()
	for _, w := range writers {
		for _, acks := range []int16{0, 1, -1} {
			for _, codec := range Codecs {
				if !w.Can(acks, codec) {
					continue
				}
				name := fmt.Sprintf("%s-acks%d-%s", w.Name(), acks, codec)
				t.Run(name, func(t *testing.T) {
					seed++
					oneTopic(t, addr, name, w, readers, acks, codec, Records(seed, 240))
				})
			}
		}
	}
}

func oneTopic(t *testing.T, addr, topic string, w Client, readers []Client, acks int16, codec string, written []Record) {
	if err := CreateTopic(addr, topic, partitions, nil); err != nil {
		t.Fatal(err)
	}
	_, byKcat := w.(Kcat)
	if byKcat { // its lines have a key always
		for i := range written {
			if written[i].Key == nil {
				written[i].Key = []byte("k")
			}
		}
		written = plain(written)
	}
	if err := w.Produce(addr, topic, acks, codec, written); err != nil {
		t.Fatalf("produce: %v", err)
	}
	if err := AwaitEnd(addr, topic, len(written)); err != nil {
		t.Fatal(err)
	}
	var reads sync.WaitGroup // most of a read is a client's waiting for its last fetch
	for _, r := range readers {
		for p := range int32(partitions) {
			all := Expected(written, p, From{Offset: AtStart})
			places := []From{{Offset: AtStart}, {Offset: int64(len(all) / 3)}, {Offset: AtTime, TimestampMs: all[len(all)/2].TimestampMs - 1}}
			if byKcat {
				places = places[:2] // its timestamps are the clock's
			}
			for _, from := range places {
				reads.Go(func() { readBack(t, addr, topic, r, p, from, byKcat, Expected(written, p, from)) })
			}
		}
	}
	reads.Wait()
}

func readBack(t *testing.T, addr, topic string, r Client, p int32, from From, byKcat bool, want []Record) {
	got, err := r.Consume(addr, topic, p, from, len(want))
	if err != nil {
		t.Errorf("%s partition %d from %+v: %v", r.Name(), p, from, err)
		return
	}
	want, got = forReader(r, byKcat, want, got)
	if Hash(want) != Hash(got) {
		t.Errorf("%s partition %d from %+v: want %s, got %s\n%s", r.Name(), p, from, Hash(want), Hash(got), firstDifference(want, got))
	}
}

// forReader takes out of both lists what one of the two ends cannot tell.
func forReader(r Client, byKcat bool, want, got []Record) ([]Record, []Record) {
	if byKcat {
		return plain(want), plain(got)
	}
	if _, ok := r.(Kcat); ok {
		for i := range got { // empty and null headers print alike
			for j := range got[i].Headers {
				if len(got[i].Headers[j].Value) == 0 {
					got[i].Headers[j].Value = []byte{}
				}
			}
		}
	}
	return want, got
}
