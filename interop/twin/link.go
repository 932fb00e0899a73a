package twin

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// answerWait bounds how long an answer may take: longer than any wait that a request asks for.
const answerWait = 20 * time.Second

// Call is one request frame and what is needed to read its answer.
type Call struct {
	Frame  []byte // without the size prefix
	Key    int16
	Vers   int16
	Silent bool // acks=0: nothing comes back
}

// Answer is what a broker did with one request: a response, a closed connection, or silence.
type Answer struct {
	Closed   bool
	Silent   bool // nothing within answerWait
	Body     []byte
	Response kmsg.Response
	Err      error // the body does not decode

	canonical bool // the body is what kmsg would write
}

// link is one connection to one broker. It is redialled after the broker has closed it.
type link struct {
	addr        string
	c           net.Conn
	correlation int32
}

func (l *link) dial() error {
	if l.c != nil {
		return nil
	}
	c, err := net.DialTimeout("tcp", l.addr, 10*time.Second)
	if err != nil {
		return err
	}
	l.c = c
	return nil
}

func (l *link) close() {
	if l.c != nil {
		l.c.Close()
		l.c = nil
	}
}

// frame encodes the request header that the version asks for, then the body.
func frame(req kmsg.Request, correlation int32, clientID *string) []byte {
	return appendHeader(nil, req.Key(), req.GetVersion(), correlation, clientID, req.IsFlexible(), req.AppendTo(nil))
}

func appendHeader(dst []byte, key, version int16, correlation int32, clientID *string, flexible bool, body []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(key))
	dst = binary.BigEndian.AppendUint16(dst, uint16(version))
	dst = binary.BigEndian.AppendUint32(dst, uint32(correlation))
	if clientID == nil {
		dst = append(dst, 0xff, 0xff)
	} else {
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(*clientID)))
		dst = append(dst, *clientID...)
	}
	if flexible {
		dst = append(dst, 0)
	}
	return append(dst, body...)
}

// send writes the frames of all calls at once and reads the answers in order.
// Raw bytes, when given, are written in place of the frames.
func (l *link) send(calls []Call, raw []byte) ([]Answer, error) {
	if err := l.write(calls, raw); err != nil {
		return nil, err
	}
	return l.answers(calls)
}

func (l *link) write(calls []Call, raw []byte) error {
	if err := l.dial(); err != nil {
		return err
	}
	out := raw
	if out == nil {
		for _, c := range calls {
			out = binary.BigEndian.AppendUint32(out, uint32(len(c.Frame)))
			out = append(out, c.Frame...)
		}
	}
	if err := l.c.SetWriteDeadline(time.Now().Add(answerWait)); err != nil {
		return err
	}
	if _, err := l.c.Write(out); err != nil && !closedByPeer(err) {
		return err
	}
	return nil
}

// answers reads the answers of calls that were written before.
func (l *link) answers(calls []Call) ([]Answer, error) {
	if l.c == nil {
		return nil, errors.New("BUG: the connection was closed before its answers were read")
	}
	if err := l.c.SetReadDeadline(time.Now().Add(answerWait)); err != nil {
		return nil, err
	}
	answers := make([]Answer, len(calls))
	for i := range calls {
		if calls[i].Silent {
			continue
		}
		answers[i] = l.read(&calls[i])
		if answers[i].Closed || answers[i].Silent {
			for j := i + 1; j < len(calls); j++ {
				answers[j] = answers[i]
			}
			l.close()
			break
		}
	}
	return answers, nil
}

func (l *link) read(call *Call) Answer {
	var size [4]byte
	if _, err := io.ReadFull(l.c, size[:]); err != nil {
		var ne net.Error
		if errors.As(err, &ne) && ne.Timeout() {
			return Answer{Silent: true}
		}
		return Answer{Closed: true}
	}
	n := int32(binary.BigEndian.Uint32(size[:]))
	if n < 4 || n > 128<<20 {
		return Answer{Err: fmt.Errorf("answer's size is %d", n)}
	}
	p := make([]byte, n)
	if _, err := io.ReadFull(l.c, p); err != nil {
		return Answer{Closed: true, Err: fmt.Errorf("answer is cut: %w", err)}
	}
	want := binary.BigEndian.Uint32(call.Frame[4:])
	if got := binary.BigEndian.Uint32(p); got != want {
		return Answer{Body: p, Err: fmt.Errorf("answer's correlation id is %d, not %d", got, want)}
	}
	return decode(call, p[4:])
}

// decode reads the response header's tags and the body. An ApiVersions request of an unknown
// version is answered in version 0.
func decode(call *Call, p []byte) Answer {
	resp := kmsg.ResponseForKey(call.Key)
	if resp == nil {
		return Answer{Body: p, Err: fmt.Errorf("no schema for key %d", call.Key)}
	}
	resp.SetVersion(call.Vers)
	if call.Key == int16(kmsg.ApiVersions) {
		if call.Vers > 4 || call.Vers < 0 {
			resp.SetVersion(0)
		}
	} else if resp.IsFlexible() {
		if len(p) == 0 || p[0] != 0 {
			return Answer{Body: p, Err: errors.New("response header has tags or none at all")}
		}
		p = p[1:]
	}
	a := Answer{Body: p, Response: resp}
	if err := resp.ReadFrom(p); err != nil {
		a.Err = fmt.Errorf("decode %s v%d: %w", kmsg.NameForKey(call.Key), call.Vers, err)
	} else {
		a.canonical = bytes.Equal(resp.AppendTo(nil), p)
	}
	return a
}

func closedByPeer(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && !ne.Timeout()
}
