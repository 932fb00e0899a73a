package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/batch"
)

// cleanInput is a seeded stream of batches whose keys are drawn from a fixed set: the same seed gives
// the same bytes, so each broker cleans the same log.
type cleanInput struct {
	valueBytes int
	codec      batch.Codec
	bytes      int64 // of batches, as they are on the wire
	seed       uint64
}

const (
	cleanBatchBytes = 16 << 10 // of records before compression: the producer's default batch.size
	cleanKeyBytes   = 16
	cleanPerKey     = 2 // records a key, on average
	cleanFirstMs    = 1_700_000_000_000
	cleanInFlight   = 32
)

// keys is the size of the set that keys are drawn from: two million for 512 MiB of 100-byte values.
func (in cleanInput) keys() int {
	const recordOverhead = 8
	bytes := in.bytes
	if in.codec != batch.None {
		bytes *= 3 // about what zstd makes of the text
	}
	return max(1, int(bytes/int64(in.valueBytes+cleanKeyBytes+recordOverhead)/cleanPerKey))
}

// segmentBytes is the topic's: an eighth of the log is the active segment, which no cleaner touches.
func (in cleanInput) segmentBytes() int64 { return min(max(in.bytes/8, 1<<20), 64<<20) }

// cleanStream makes the batches of an input, one after the other.
type cleanStream struct {
	cleanInput
	rng   *rand.Rand
	pool  []byte // that values are cut from
	key   []byte
	next  int64   // offset
	made  int64   // bytes
	first []int64 // by key, the offset of its first record; -1 if it has none
}

func (in cleanInput) stream() *cleanStream {
	s := &cleanStream{cleanInput: in, rng: rand.New(rand.NewPCG(in.seed, 6)), first: make([]int64, in.keys())}
	for i := range s.first {
		s.first[i] = -1
	}
	s.pool = make([]byte, 4<<20)
	if in.codec == batch.None {
		for i := 0; i+8 <= len(s.pool); i += 8 {
			binary.LittleEndian.PutUint64(s.pool[i:], s.rng.Uint64())
		}
	} else {
		s.fillText()
	}
	return s
}

// fillText fills the pool with records of a table in JSON, in which about a third is new each time.
func (s *cleanStream) fillText() {
	states := []string{"open", "paid", "packed", "shipped", "delivered", "returned"}
	p := s.pool[:0]
	for {
		row := fmt.Appendf(nil, `{"order":%d,"customer":"%08x","state":"%s","amount":%d.%02d,"currency":"EUR","updated":"2026-%02d-%02dT%02d:%02d:00Z","note":"%016x"}`,
			s.rng.IntN(1e9), s.rng.Uint32(), states[s.rng.IntN(len(states))], s.rng.IntN(1000), s.rng.IntN(100), 1+s.rng.IntN(12), 1+s.rng.IntN(28), s.rng.IntN(24), s.rng.IntN(60), s.rng.Uint64())
		if len(p)+len(row) > cap(p) {
			s.pool = p
			return
		}
		p = append(p, row...)
	}
}

// batch returns the next one in dst's memory where it has room, or nil at the end.
func (s *cleanStream) batch(dst []byte) (batch.Batch, error) {
	if s.made >= s.bytes {
		return nil, nil
	}
	bld := batch.NewBuilder(batch.BuilderOptions{Codec: s.codec, LeaderEpoch: -1})
	for n := 0; n == 0 || n+s.valueBytes <= cleanBatchBytes; n += s.valueBytes + cleanKeyBytes {
		key := s.rng.IntN(len(s.first))
		if s.first[key] < 0 {
			s.first[key] = s.next
		}
		s.next++
		s.key = appendKey(s.key[:0], key)
		at := s.rng.IntN(len(s.pool) - s.valueBytes)
		bld.Append(cleanFirstMs+s.next, s.key, s.pool[at:at+s.valueBytes], nil)
	}
	b, err := bld.Build(dst)
	s.made += int64(len(b))
	return b, err
}

// appendKey writes a key of cleanKeyBytes.
func appendKey(dst []byte, key int) []byte {
	digits := strconv.Itoa(key)
	return append(append(dst, "key-000000000000"[:cleanKeyBytes-len(digits)]...), digits...)
}

// survivors is how many records cleaning must leave below an offset: the last one of each key there.
func (s *cleanStream) survivors(below int64) (n int64) {
	for _, off := range s.first {
		if off >= 0 && off < below {
			n++
		}
	}
	return n
}

// load produces the whole stream to partition 0.
func (s *cleanStream) load(ctx context.Context, addr, topic string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Minute)); err != nil {
		return err
	}
	sent, failed := make(chan struct{}, cleanInFlight), make(chan error, 1)
	go func() {
		var answer []byte
		var err error
		for range sent {
			if err != nil {
				continue // the sender has not seen it yet
			}
			if answer, err = readFrame(conn, answer); err == nil {
				err = produceError(answer)
			}
			if err != nil {
				conn.Close() // the sender stops at its next write
			}
		}
		failed <- err
	}()
	sendErr := s.send(ctx, conn, topic, sent)
	close(sent)
	if err := <-failed; err != nil {
		return err
	}
	return sendErr
}

func (s *cleanStream) send(ctx context.Context, conn net.Conn, topic string, sent chan<- struct{}) error {
	var buf []byte
	for ctx.Err() == nil {
		b, err := s.batch(buf[:0])
		if err != nil || b == nil {
			return err
		}
		buf = b
		if _, err := conn.Write(produceFrame(topic, b)); err != nil {
			return err
		}
		sent <- struct{}{}
	}
	return ctx.Err()
}

const cleanProduceVersion = 9

func produceFrame(topic string, b batch.Batch) []byte {
	req := kmsg.NewPtrProduceRequest()
	req.SetVersion(cleanProduceVersion)
	req.Acks, req.TimeoutMillis = -1, 30_000
	t := kmsg.NewProduceRequestTopic()
	t.Topic = topic
	part := kmsg.NewProduceRequestTopicPartition()
	part.Records = b
	t.Partitions = append(t.Partitions, part)
	req.Topics = append(req.Topics, t)
	return requestFrame(req)
}

// produceError reads an answer to produceFrame, its size cut off.
func produceError(answer []byte) error {
	resp := kmsg.NewPtrProduceResponse()
	resp.SetVersion(cleanProduceVersion)
	if err := resp.ReadFrom(answer[5:]); err != nil { // after correlation id and tags
		return fmt.Errorf("produce: %w", err)
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return fmt.Errorf("produce: an answer for %d topics", len(resp.Topics))
	}
	if err := kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode); err != nil {
		return fmt.Errorf("produce: %w", err)
	}
	return nil
}

// logFiles is what the segments of a partition hold, by their batches' headers, but for the last one,
// which no cleaner touches.
type logFiles struct {
	bytes, batches, records int64
	active                  int64 // base offset of the last segment
}

func surveyLog(dir string) (l logFiles, err error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		return l, err
	}
	if len(names) < 2 {
		return l, fmt.Errorf("%s has %d segments: nothing in it can be cleaned", dir, len(names))
	}
	slices.Sort(names) // twenty digits each
	last := names[len(names)-1]
	if l.active, err = strconv.ParseInt(strings.TrimSuffix(filepath.Base(last), ".log"), 10, 64); err != nil {
		return l, err
	}
	for _, name := range names[:len(names)-1] {
		if err := l.add(name); err != nil {
			return l, fmt.Errorf("%s: %w", name, err)
		}
	}
	return l, nil
}

func (l *logFiles) add(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	var header [batch.HeaderSize]byte
	for pos := int64(0); pos < st.Size(); {
		if _, err := f.ReadAt(header[:], pos); err != nil {
			return err
		}
		h, err := batch.ParseHeader(header[:])
		if err != nil {
			return fmt.Errorf("position %d: %w", pos, err)
		}
		l.batches++
		l.records += int64(h.Count)
		l.bytes += int64(h.Size())
		if pos += int64(h.Size()); pos > st.Size() {
			return fmt.Errorf("a batch ends at position %d, behind the file", pos)
		}
	}
	return nil
}

// requestFrame encodes a request whole.
func requestFrame(req kmsg.Request) []byte {
	body := req.AppendTo(nil)
	p := make([]byte, 4, 24+len(body))
	p = binary.BigEndian.AppendUint16(p, uint16(req.Key()))
	p = binary.BigEndian.AppendUint16(p, uint16(req.GetVersion()))
	p = append(p, 0, 0, 0, 1, 0, 6, 'v', 'e', 'r', 's', 'u', 's') // correlation id, client id
	if req.IsFlexible() {
		p = append(p, 0)
	}
	p = append(p, body...)
	binary.BigEndian.PutUint32(p, uint32(len(p)-4))
	return p
}

// readFrame reads an answer without its size, into buf where it fits.
func readFrame(c net.Conn, buf []byte) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(size[:]))
	const least, most = 5, 1 << 20
	if n < least || n > most {
		return nil, fmt.Errorf("an answer of %d bytes", n)
	}
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	_, err := io.ReadFull(c, buf[:n])
	return buf[:n], err
}
