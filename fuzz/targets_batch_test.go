package fuzz

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/millrace-project/millrace/batch"
)

// An uncompressed batch of a client whose records are numbered 0, 0 is taken as it is, as by Kafka: no
// finding of the target, which once said so of an input. A compressed one is numbered anew.
func TestCheckValidateTakesOffsetsAsKafkaDoes(t *testing.T) {
	for _, codec := range []batch.Codec{batch.None, batch.LZ4} {
		bl := batch.NewBuilder(batch.BuilderOptions{LeaderEpoch: -1})
		bl.Append(1_700_000_000_000, []byte("k"), make([]byte, 4), nil)
		bl.Append(1_700_000_000_000, []byte("k"), make([]byte, 4), nil)
		b, err := bl.Build(nil)
		if err != nil {
			t.Fatal(err)
		}
		payload := b.Payload()
		payload[len(payload)/2+3] = 0 // the second record's offset delta
		p := []byte(b)
		if codec != batch.None {
			if p, err = batch.Compress(p[:batch.HeaderSize:batch.HeaderSize], payload, codec, 0); err != nil {
				t.Fatal(err)
			}
			p[22] |= byte(codec)
			binary.BigEndian.PutUint32(p[8:], uint32(len(p)-batch.LogOverhead))
		}
		fixBatches(p)
		if said, err := checkValidate(p); err != nil || !strings.HasPrefix(said, "accepted") {
			t.Errorf("%v: %s, %v", codec, said, err)
		}
	}
}
