package kfake

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"reflect"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Control may answer a request in the broker's place. It does when it returns true: with the
// response, or by closing the connection when it returns an error. It is asked no more then.
type Control func(kmsg.Request) (kmsg.Response, error, bool)

// Fault answers the next request of the keys for which When is true with an error at its top.
type Fault struct {
	Keys []kmsg.Key
	Err  *kerr.Error
	When func(kmsg.Request) bool
}

type control struct {
	key int16
	fn  Control
}

// proxy passes requests on to one broker and shows them to the controls first.
type proxy struct {
	l     net.Listener
	conns sync.WaitGroup

	mu struct {
		sync.Mutex
		controls []*control
		open     map[net.Conn]struct{} // nil once closed
	}
}

func listen() (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{l: l}
	p.mu.open = map[net.Conn]struct{}{}
	return p, nil
}

func (p *proxy) addr() string { return p.l.Addr().String() }

// serve accepts connections for the broker at the address until close.
func (p *proxy) serve(broker string) {
	p.conns.Go(func() {
		for {
			c, err := p.l.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", broker)
			if err != nil {
				c.Close()
				continue
			}
			if !p.track(c, b) {
				return
			}
			p.conns.Go(func() { p.pass(c, b) })
		}
	})
}

// track keeps the connections for close, and closes them when that was called.
func (p *proxy) track(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		if p.mu.open == nil {
			c.Close()
			continue
		}
		p.mu.open[c] = struct{}{}
	}
	return p.mu.open != nil
}

func (p *proxy) close() {
	p.l.Close()
	p.mu.Lock()
	for c := range p.mu.open {
		c.Close()
	}
	p.mu.open = nil
	p.mu.Unlock()
	p.conns.Wait()
}

// link is one client's connection and the broker's end of it.
type link struct {
	client, broker net.Conn

	mu struct {
		sync.Mutex
		waiting int        // requests passed on that the broker has not answered
		changed *sync.Cond // waiting or closed changed
		closed  bool
	}
}

func (p *proxy) pass(client, broker net.Conn) {
	l := &link{client: client, broker: broker}
	l.mu.changed = sync.NewCond(&l.mu)
	var answers sync.WaitGroup
	answers.Go(l.answers)
	for {
		frame, err := readFrame(client)
		if err != nil {
			break
		}
		answer, err, mine := p.control(frame)
		if err != nil {
			break
		}
		if mine {
			err = l.answer(answer)
		} else {
			err = l.forward(frame)
		}
		if err != nil {
			break
		}
	}
	client.Close()
	broker.Close()
	answers.Wait()
	p.mu.Lock()
	delete(p.mu.open, client)
	delete(p.mu.open, broker)
	p.mu.Unlock()
}

func (l *link) forward(frame []byte) error {
	l.mu.Lock()
	l.mu.waiting++
	l.mu.Unlock()
	_, err := l.broker.Write(frame)
	return err
}

// answer writes a control's answer once the broker has answered what came before.
func (l *link) answer(frame []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.mu.waiting > 0 && !l.mu.closed {
		l.mu.changed.Wait()
	}
	_, err := l.client.Write(frame)
	return err
}

// answers copies what the broker answers.
func (l *link) answers() {
	for {
		frame, err := readFrame(l.broker)
		l.mu.Lock()
		if err == nil {
			_, err = l.client.Write(frame)
		}
		l.mu.waiting--
		l.mu.closed = err != nil
		l.mu.changed.Broadcast()
		l.mu.Unlock()
		if err != nil {
			l.client.Close()
			return
		}
	}
}

// readFrame returns a frame with its size prefix.
func readFrame(r io.Reader) ([]byte, error) {
	size := make([]byte, 4)
	if _, err := io.ReadFull(r, size); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(size))
	if n < 8 || n > 200<<20 {
		return nil, errors.New("kfake: a frame of no sensible size")
	}
	frame := append(size, make([]byte, n)...)
	_, err := io.ReadFull(r, frame[4:])
	return frame, err
}

// ControlKey shows requests of the key to a function before the broker gets them.
func (c *Cluster) ControlKey(key int16, fn Control) {
	c.proxy.mu.Lock()
	defer c.proxy.mu.Unlock()
	c.proxy.mu.controls = append(c.proxy.mu.controls, &control{key, fn})
}

// Fault installs a fault.
func (c *Cluster) Fault(f Fault) {
	for _, key := range f.Keys {
		c.ControlKey(int16(key), func(req kmsg.Request) (kmsg.Response, error, bool) {
			if f.When != nil && !f.When(req) {
				return nil, nil, false
			}
			resp := req.ResponseKind()
			reflect.ValueOf(resp).Elem().FieldByName("ErrorCode").SetInt(int64(f.Err.Code))
			return resp, nil, true
		})
	}
}

// control returns the answer of the first control that answers the request in the frame.
func (p *proxy) control(frame []byte) (answer []byte, err error, mine bool) {
	key, version := int16(binary.BigEndian.Uint16(frame[4:])), int16(binary.BigEndian.Uint16(frame[6:]))
	p.mu.Lock()
	controls := slices.DeleteFunc(slices.Clone(p.mu.controls), func(c *control) bool { return c.key != key })
	p.mu.Unlock()
	if len(controls) == 0 {
		return nil, nil, false
	}
	req, err := decode(key, version, frame)
	if err != nil {
		return nil, err, false
	}
	for _, c := range controls {
		resp, err, mine := c.fn(req)
		if !mine {
			continue
		}
		p.mu.Lock()
		p.mu.controls = slices.DeleteFunc(p.mu.controls, func(other *control) bool { return other == c })
		p.mu.Unlock()
		if err != nil {
			return nil, err, true
		}
		return encode(req, resp, frame[8:12]), nil, true
	}
	return nil, nil, false
}

// decode reads the request behind the header: key, version, correlation id, client id, tags.
func decode(key, version int16, frame []byte) (kmsg.Request, error) {
	req := kmsg.RequestForKey(key)
	if req == nil {
		return nil, errors.New("kfake: a request of an unknown key")
	}
	req.SetVersion(version)
	body := frame[12:]
	if n := int16(binary.BigEndian.Uint16(body)); n > 0 {
		body = body[n:]
	}
	body = body[2:]
	if req.IsFlexible() {
		body = body[1:] // no client sends tags here
	}
	return req, req.ReadFrom(body)
}

// encode writes a response with the size and header before it.
func encode(req kmsg.Request, resp kmsg.Response, correlation []byte) []byte {
	resp.SetVersion(req.GetVersion())
	out := append(make([]byte, 4), correlation...)
	if resp.IsFlexible() {
		out = append(out, 0)
	}
	out = resp.AppendTo(out)
	binary.BigEndian.PutUint32(out, uint32(len(out)-4))
	return out
}
