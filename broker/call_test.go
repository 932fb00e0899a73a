package broker

import (
	"context"
	"errors"
	"io"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/netio"
)

// hugeView is more bytes than an answer can have. It counts how often it is closed.
type hugeView struct{ closed *atomic.Int32 }

func (hugeView) Len() int64                            { return math.MaxInt32 }
func (hugeView) Fd() (uintptr, int64, bool)            { return 0, 0, false }
func (hugeView) ReadAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (v hugeView) Close() error                        { v.closed.Add(1); return nil }

// An answer of over 2 GiB ends its connection, and nothing waits for it any more.
func TestAnswerThatIsTooLarge(t *testing.T) {
	var closed atomic.Int32
	key := kmsg.ListGroups.Int16()
	real := handlers[key]
	defer func() { handlers[key] = real }()
	handlers[key] = func(_ *Broker, c *call, _ []byte) error {
		r := netio.NewReply()
		r.Append(func(b []byte) []byte { return append(b, 0) })
		r.AddView(hugeView{&closed})
		c.send(r)
		return nil
	}
	cfg, err := config.Load(config.Standalone(t.TempDir(), "127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := New(cfg, Options{})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- b.Serve() }()
	n := &node{t: t, b: b}
	p := n.pipe()
	p.write(append(p.frame(kmsg.NewPtrListGroupsRequest(), 0), p.frame(kmsg.NewPtrApiVersionsRequest(), 0)...))
	p.conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := p.read(); !errors.Is(err, io.EOF) {
		t.Errorf("the connection: %v", err)
	}
	if closed.Load() != 1 {
		t.Errorf("the answer's View was closed %d times", closed.Load())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	go b.Shutdown(ctx)
	select {
	case <-served:
	case <-time.After(10 * time.Second):
		t.Fatal("the broker does not stop")
	}
}
