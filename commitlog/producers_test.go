package commitlog

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace-project/millrace/batch"
)

// producerOps runs the operations of the golden file on one log's producer state and
// answers each as Kafka's ProducerStateManager was made to.
type producerOps struct {
	t        *testing.T
	p        *producers
	snapshot []byte
	snapOff  int64 // Kafka takes no second snapshot at the same offset
}

func (o *producerOps) int(s string) int64 {
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		o.t.Fatal(err)
	}
	return v
}

func (o *producerOps) run(f []string) string {
	switch f[1] {
	case "new":
		o.p, o.snapshot, o.snapOff = newProducers(), nil, 0
		return "OK"
	case "hw":
		o.p.onHighWatermark(o.int(f[2]))
		return fmt.Sprintf("OK\t%d", o.p.firstUnstable())
	case "expire":
		o.p.expire(o.int(f[2]), 1000)
		return fmt.Sprintf("OK\t%d", o.p.count())
	case "snap":
		if off := o.int(f[2]); off > o.snapOff {
			o.snapshot, o.snapOff = encodeProducerSnapshot(nil, o.p.entries()), off
		} else if o.snapshot == nil {
			return "OK\tnone"
		}
		return "OK\t" + hex.EncodeToString(o.snapshot)
	case "reload":
		o.p = newProducers()
		entries, err := decodeProducerSnapshot(o.snapshot)
		if err != nil {
			o.t.Fatal(err)
		}
		o.p.load(entries, o.int(f[3]), 1000)
		return fmt.Sprintf("OK\t%s\t%d", f[2], o.p.firstUnstable())
	case "add":
		p, err := hex.DecodeString(f[3])
		if err != nil {
			o.t.Fatal(err)
		}
		return o.add(batch.Batch(p), f[2])
	}
	o.t.Fatalf("unknown operation %q", f)
	return ""
}

func (o *producerOps) add(b batch.Batch, origin string) string {
	from := map[string]Origin{"client": FromClient, "coord": FromCoordinator, "coord2": FromCoordinator, "replica": FromReplica}[origin]
	st := o.p.begin()
	if origin == "coord2" {
		st.transactionVersion = 2
	}
	dup, err := st.add(b, from)
	if dup != nil {
		st.drop()
		return fmt.Sprintf("DUP\t%d\t%d\t%d", dup.firstOffset(), dup.lastOffset, dup.timestamp)
	}
	if err != nil {
		st.drop()
		return "ERR\t" + kafkaException(err)
	}
	txns := st.commit()
	s := fmt.Sprintf("OK\t%d", o.p.firstUnstable())
	for _, t := range txns {
		// The answer of Kafka was taken when the transaction had been completed.
		s += fmt.Sprintf("\t%d,%d,%d,%v,%d", t.producerID, t.firstOffset, t.lastOffset, t.aborted, t.lastStableOffset)
	}
	return s
}

func kafkaException(err error) string {
	for name, target := range map[string]error{
		"OutOfOrderSequenceException":           ErrOutOfOrderSequence,
		"InvalidProducerEpochException":         ErrInvalidProducerEpoch,
		"InvalidTxnStateException":              ErrInvalidTxnState,
		"TransactionCoordinatorFencedException": ErrCoordinatorFenced,
	} {
		if errors.Is(err, target) {
			return name
		}
	}
	return err.Error()
}

// The same operations on Apache Kafka's ProducerStateManager and ours: duplicates, refusals,
// first unstable offsets, completed transactions, and the bytes of the snapshots.
func TestProducersAsKafka(t *testing.T) {
	name := "testdata/kafka-producers.tsv.gz"
	if v := os.Getenv("KAFKA_CASES"); v != "" {
		name = v
	}
	p, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	zr, err := gzip.NewReader(bytes.NewReader(p))
	if err != nil {
		t.Fatal(err)
	}
	o := &producerOps{t: t}
	sc := bufio.NewScanner(zr)
	sc.Buffer(nil, 1<<20)
	line := 0
	skip := false // until the next run: the states have parted
	for sc.Scan() {
		line++
		in, want, _ := strings.Cut(sc.Text(), "\t=>\t")
		f := strings.Split(in, "\t")
		if skip = skip && f[1] != "new"; skip {
			continue
		}
		got := o.run(f)
		if f[1] == "add" && f[2] == "replica" && strings.HasSuffix(want, "InvalidTxnStateException") {
			skip = true // ours takes what its leader has written
			continue
		}
		if got != want {
			t.Fatalf("line %d: %s\n got %s\nKafka %s", line, in, got, want)
		}
	}
	if err := sc.Err(); err != nil || line == 0 {
		t.Fatalf("%d lines, %v", line, err)
	}
}
