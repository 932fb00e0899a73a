// Package netio is the only door to sockets: frames in, ordered replies out.
package netio

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"time"
)

type View interface {
	Len() int64
	Fd() (fd uintptr, pos int64, ok bool)
	ReadAt(p []byte, at int64) (int, error)
	Close() error
}

// Handler: Handle gets every whole frame of one read, in order, on the connection's goroutine. xs is valid only during the call.
type Handler interface{ Handle(c *Conn, xs []*Exchange) }

// Exchange: Reply, NoReply or Fail exactly once, from any goroutine; after it neither x nor its Frame may be used
// (each implies Release). Release may be called earlier. A pooled frame (Options.Pooled) is recycled at Release; others are the handler's for good.
type Exchange struct{ Frame []byte }

func (x *Exchange) Conn() *Conn    { panic("BUG: skeleton") }
func (x *Exchange) Reply(r *Reply) { panic("BUG: skeleton") }
func (x *Exchange) NoReply()       { panic("BUG: skeleton") }
func (x *Exchange) Fail(err error) { panic("BUG: skeleton") } // closes the connection when the replies before it are out
func (x *Exchange) Release()       { panic("BUG: skeleton") }

type Reply struct{}

func NewReply() *Reply                             { panic("BUG: skeleton") }
func (r *Reply) Append(fn func(dst []byte) []byte) { panic("BUG: skeleton") }
func (r *Reply) Buf() []byte                       { panic("BUG: skeleton") } // append to it, give it back with SetBuf
func (r *Reply) SetBuf(b []byte)                   { panic("BUG: skeleton") }
func (r *Reply) AddView(v View)                    { panic("BUG: skeleton") } // after what is in the buffer
func (r *Reply) AddViewAt(pos int, v View)         { panic("BUG: skeleton") } // pos = a length that the buffer had (ascending); for wire.FetchResponse.AppendTo's place
func (r *Reply) Discard()                          { panic("BUG: skeleton") } // closes its views; instead of Exchange.Reply

type Conn struct{}

func (c *Conn) ID() uint64                         { panic("BUG: skeleton") }
func (c *Conn) RemoteAddr() netip.AddrPort         { panic("BUG: skeleton") }
func (c *Conn) LocalAddr() netip.AddrPort          { panic("BUG: skeleton") }
func (c *Conn) Listener() string                   { panic("BUG: skeleton") }
func (c *Conn) SetClient(software, version string) { panic("BUG: skeleton") }
func (c *Conn) Client() (software, version string) { panic("BUG: skeleton") }
func (c *Conn) SetValue(v any)                     { panic("BUG: skeleton") } // only inside Handle
func (c *Conn) Value() any                         { panic("BUG: skeleton") }
func (c *Conn) Mute(d time.Duration)               { panic("BUG: skeleton") } // stop reading the socket for d
func (c *Conn) OnClose(fn func())                  { panic("BUG: skeleton") } // once, when the connection is over; at once if it is
func (c *Conn) Closed() bool                       { panic("BUG: skeleton") }

type Listener struct{ Name, Addr string }

type Options struct {
	Listeners     []Listener
	Handler       Handler
	MaxFrame      int                     // 0: 100 MiB
	QueuedBytes   int64                   // 0: 256 MiB
	MaxConns      int                     // 0: no limit
	MaxConnsPerIP int                     // 0: no limit
	IdleTimeout   time.Duration           // 0: 10 min; <0: none
	StallTimeout  time.Duration           // 0: 30 s
	Pooled        func(apiKey int16) bool // nil: none
	Logger        *slog.Logger
}

type Server struct{}

func Listen(o *Options) (*Server, error)             { panic("BUG: skeleton") }
func (s *Server) Serve()                             { panic("BUG: skeleton") } // starts accepting; returns at once
func (s *Server) Addrs() map[string]net.Addr         { panic("BUG: skeleton") } // by listener name
func (s *Server) Shutdown(ctx context.Context) error { panic("BUG: skeleton") }
func (s *Server) Close() error                       { panic("BUG: skeleton") }
func (s *Server) Stats() Stats                       { panic("BUG: skeleton") }

type Stats struct{ Conns, PinnedBytes int64 }
