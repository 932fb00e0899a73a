package bench

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// correlationPos is where a frame holds its correlation id: after size, API key and version.
const correlationPos = 4 + 2 + 2

// drive sends the ring's requests, InFlight of them outstanding, until ctx ends, and reads what is
// then still owed. Answers come in order, so their times wait in a queue.
func (w *replay) drive(ctx context.Context, l Load) (res Result, err error) {
	res.Latency = newHistogram()
	conn, err := net.DialTimeout("tcp", l.Addr, 10*time.Second)
	if err != nil {
		return res, fmt.Errorf("bench: %w", err)
	}
	defer conn.Close()
	var (
		tokens = make(chan struct{}, l.InFlight)
		sent   = make(chan sending, l.InFlight)
		failed = make(chan error, 1)
	)
	go func() {
		defer close(sent)
		failed <- w.send(ctx, conn, tokens, sent)
	}()
	in := bufio.NewReaderSize(conn, 256<<10)
	var answer []byte
	for s := range sent {
		conn.SetReadDeadline(time.Now().Add(time.Minute))
		if answer, err = readAnswer(in, answer, s.correlation); err == nil {
			err = w.verify(s.req, answer)
		}
		if err != nil {
			conn.Close() // the sender stops at its next write
			break
		}
		res.Latency.RecordValue(max(1, time.Since(s.at).Nanoseconds()))
		res.Requests++
		res.Records += s.req.records
		res.Bytes += s.req.bytes
		<-tokens
	}
	if err != nil {
		go func() { // let the sender out
			for range sent {
			}
		}()
		go func() {
			for {
				select {
				case <-tokens:
				case <-failed:
					return
				}
			}
		}()
		return res, err
	}
	return res, <-failed
}

type sending struct {
	req         *request
	correlation int32
	at          time.Time
}

func (w *replay) send(ctx context.Context, conn net.Conn, tokens chan struct{}, sent chan<- sending) error {
	for i := int32(0); ; i++ {
		select {
		case <-ctx.Done():
			return nil
		case tokens <- struct{}{}:
		}
		req := &w.requests[int(i)%len(w.requests)]
		binary.BigEndian.PutUint32(req.frame[correlationPos:], uint32(i))
		at := time.Now()
		conn.SetWriteDeadline(at.Add(time.Minute))
		if _, err := conn.Write(req.frame); err != nil {
			return fmt.Errorf("bench: %w", err)
		}
		sent <- sending{req, i, at}
	}
}

// verify decodes the first answer to a request whole; a later one of the same length is looked at
// by the same check, which then may trust the layout.
func (w *replay) verify(req *request, answer []byte) error {
	first := req.want == nil || len(req.want) != len(answer)
	if err := w.check(req, answer, first); err != nil {
		return err
	}
	if first {
		req.want = append(req.want[:0], answer...)
	}
	return nil
}

// readAnswer returns an answer without its size and correlation id, in buf where it fits.
func readAnswer(in *bufio.Reader, buf []byte, correlation int32) ([]byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return buf, fmt.Errorf("bench: reading an answer: %w", err)
	}
	n := int(int32(binary.BigEndian.Uint32(head[:]))) - 4
	if n < 0 || n > 256<<20 {
		return buf, fmt.Errorf("bench: an answer of %d bytes", n+4)
	}
	if got := int32(binary.BigEndian.Uint32(head[4:])); got != correlation {
		return buf, fmt.Errorf("bench: answer to request %d where %d was due", got, correlation)
	}
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := io.ReadFull(in, buf); err != nil {
		return buf, fmt.Errorf("bench: reading an answer: %w", err)
	}
	return buf, nil
}

// frame encodes a request whole, size prefix included.
func frame(req kmsg.Request) []byte {
	return formatter.AppendRequest(nil, req, 0)
}

// ask sends one request on a connection of its own.
func ask(ctx context.Context, addr string, req kmsg.Request) (kmsg.Response, error) {
	var d net.Dialer
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	if _, err := conn.Write(frame(req)); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	answer, err := readAnswer(bufio.NewReader(conn), nil, 0)
	if err != nil {
		return nil, err
	}
	return decoded(req, answer)
}

// decoded reads the answer to a request.
func decoded(req kmsg.Request, answer []byte) (kmsg.Response, error) {
	resp := req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	return resp, decode(resp, answer)
}

// decode reads an answer's body; a flexible one has tagged fields between header and body.
func decode(resp kmsg.Response, answer []byte) error {
	if resp.IsFlexible() && resp.Key() != int16(kmsg.ApiVersions) {
		if len(answer) == 0 || answer[0] != 0 {
			return errors.New("bench: tagged fields in an answer's header")
		}
		answer = answer[1:]
	}
	if err := resp.ReadFrom(answer); err != nil {
		return fmt.Errorf("bench: %s answer: %w", kmsg.NameForKey(resp.Key()), err)
	}
	return nil
}

// createTopic makes the topic of a load; one that exists is taken as it is.
func createTopic(ctx context.Context, l Load, configs map[string]string) error {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.SetVersion(5)
	req.TimeoutMillis = 30_000
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = l.Topic, int32(l.Partitions), 1
	for k, v := range configs {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = k, &v
		t.Configs = append(t.Configs, c)
	}
	req.Topics = append(req.Topics, t)
	resp, err := ask(ctx, l.Addr, req)
	if err != nil {
		return err
	}
	for _, t := range resp.(*kmsg.CreateTopicsResponse).Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return fmt.Errorf("bench: topic %s: %w", t.Topic, err)
		}
	}
	return nil
}
