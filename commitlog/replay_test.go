package commitlog

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/millrace-project/millrace/batch"
)

// A partition with two transactional producers, written by Apache Kafka: replaying its
// segments must give the snapshots that Kafka took, byte for byte, and its transaction index.
func TestReplayGivesKafkasSnapshots(t *testing.T) {
	const dir = "testdata/kafka-txn"
	p := newProducers()
	var txns []byte
	for _, seg := range []string{"00000000000000000000.log", "00000000000000000019.log"} {
		rest, err := os.ReadFile(filepath.Join(dir, seg))
		if err != nil {
			t.Fatal(err)
		}
		if off := seg[:20]; off != "00000000000000000000" {
			compareSnapshot(t, p, filepath.Join(dir, off+snapshotSuffix))
		}
		for len(rest) > 0 {
			var b batch.Batch
			if b, rest, err = batch.Next(rest); err != nil {
				t.Fatal(err)
			}
			txn, ok, err := p.replay(b)
			if err != nil {
				t.Fatal(err)
			}
			if ok && txn.aborted {
				txns = binary.BigEndian.AppendUint16(txns, 0)
				for _, v := range []int64{txn.producerID, txn.firstOffset, txn.lastOffset, txn.lastStableOffset} {
					txns = binary.BigEndian.AppendUint64(txns, uint64(v))
				}
			}
		}
	}
	compareSnapshot(t, p, filepath.Join(dir, "00000000000000000167.snapshot"))
	want, err := os.ReadFile(filepath.Join(dir, "00000000000000000019.txnindex"))
	if err != nil || !bytes.Equal(txns, want) {
		t.Errorf("transaction index\n got %x\nwant %x, %v", txns, want, err)
	}
	if p.firstUnstable() < 0 {
		t.Error("the last transaction was left open")
	}
}

func compareSnapshot(t *testing.T, p *producers, name string) {
	t.Helper()
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got := encodeProducerSnapshot(nil, p.entries()); !bytes.Equal(got, want) {
		entries, _ := decodeProducerSnapshot(want)
		t.Errorf("%s:\n got %+v\nwant %+v", name, p.entries(), entries)
	}
}
