package bench

import (
	"bufio"
	"encoding/binary"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/millrace-project/millrace/batch"
)

// What was read back must be what was sent: nothing less, nothing more, nothing else.
func TestVerifyFindsWhatDiffers(t *testing.T) {
	target := startTarget(t, "millrace.durability=os")
	w := newProduceWork("verified", Shape{Connections: 2, Partitions: 2, RecordBytes: 100, BatchBytes: 1000}).(*produceWork)
	if err := w.Prepare(t.Context(), target, "1"); err != nil {
		t.Fatal(err)
	}
	if f, err := w.Run(t.Context(), target, 50*time.Millisecond); err != nil || f.Errors > 0 {
		t.Fatalf("%v, %d errors: %s", err, f.Errors, f.Error)
	}
	if err := w.Verify(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	p := w.producers[1][1]
	other, err := newContents(contentOptions{recordBytes: 100, batchBytes: 1000, redundancy: 4, seed: 8})
	if err != nil {
		t.Fatal(err)
	}
	same := w.contents
	for _, c := range []struct {
		name       string
		break_, un func()
		want       string
	}{
		{"a batch was lost", func() { p.acked++ }, func() { p.acked-- }, "were acknowledged"},
		{"a batch is there twice", func() { p.acked-- }, func() { p.acked++ }, "were acknowledged"},
		{"another's batches", func() { p.id += 1000 }, func() { p.id -= 1000 }, "who sent none here"},
		{"other records", func() { w.contents = other }, func() { w.contents = same }, errContent.Error()},
		{"another order", func() { p.first++ }, func() { p.first-- }, errContent.Error()},
	} {
		c.break_()
		if err := w.Verify(t.Context(), target); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		c.un()
	}
	if err := w.Verify(t.Context(), target); err != nil {
		t.Error(err)
	}
}

// readBack verifies a partition that is answered with these bytes, whatever is asked for.
func readBack(t *testing.T, c *contents, p *producer, log []byte, end int64) error {
	t.Helper()
	client, server := net.Pipe()
	defer client.Close()
	go func() {
		defer server.Close()
		for request := make([]byte, 4096); ; {
			if _, err := server.Read(request); err != nil {
				return
			}
			body := fetchAnswer(0, 0, log)
			head := binary.BigEndian.AppendUint32(nil, uint32(4+len(body)))
			if _, err := server.Write(append(append(head, request[8:12]...), body...)); err != nil {
				return
			}
			log = nil // all of it was read
		}
	}()
	v := verification{contents: c, producers: map[int64]*producer{p.id: p}, seen: map[int64]int64{}}
	return v.read(&caller{conn: client, in: bufio.NewReader(client)}, "t", 0, end)
}

// A target whose log and answers disagree is found out, wherever they do.
func TestVerifyFindsBrokenLogs(t *testing.T) {
	c := testContents(t, contentOptions{recordBytes: 100, batchBytes: 1000, redundancy: 1})
	p := &producer{id: 4, acked: 3}
	log := logOf(c, p, 0, 3)
	size, records := len(log)/3, int64(c.records)
	if err := readBack(t, c, p, log, 3*records); err != nil {
		t.Fatal(err)
	}
	gap := append([]byte{}, log...)
	batch.Batch(gap[2*size:]).SetBaseOffset(2*records + 1)
	damaged := append([]byte{}, log...)
	damaged[size+crcPos] ^= 1
	moved := append([]byte{}, log...)
	copy(moved[batch.HeaderSize:size], log[size+batch.HeaderSize:2*size])
	for _, bad := range []struct {
		name string
		log  []byte
		end  int64
		want string
	}{
		{"a gap", gap, 3*records + 1, "a batch from"},
		{"damage", damaged, 3 * records, batch.ErrCRC.Error()},
		{"another batch's records", moved, 3 * records, errContent.Error()},
		{"an end before the last record", log, 2 * records, "where the end is said to be"},
		{"an end behind the last record", log, 4 * records, "nothing to read"},
		{"a batch less", log[:2*size], 2 * records, "of which 3 were acknowledged"},
		{"a batch twice", append(append([]byte{}, log...), log[:size]...), 4 * records, "a batch from"},
	} {
		if err := readBack(t, c, p, bad.log, bad.end); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s: %v, want %q", bad.name, err, bad.want)
		}
	}
}
