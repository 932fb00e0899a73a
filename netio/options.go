package netio

import (
	"log/slog"
	"net/netip"
	"time"
)

// View is a range of bytes, usually of a file, that stays readable until Close.
type View interface {
	// Len is the number of bytes; it does not change while a Reply holds the View.
	Len() int64
	// Fd is the descriptor that holds the bytes, from pos on; ok is false when no kernel file does.
	// The descriptor stays open until Close.
	Fd() (fd uintptr, pos int64, ok bool)
	// ReadAt reads at a position relative to the View's start, as io.ReaderAt does.
	ReadAt(p []byte, at int64) (int, error)
	// Close lets the bytes go. It is called exactly once, from any goroutine.
	Close() error
}

// Handler answers requests. Handle is called on the connection's goroutine with the whole frames
// of one read, in their order, and takes the first of them, or all: it returns how many. The others
// are given again when a request before them has been answered or a reply has left, or Conn.Again
// was called; until then nothing more is read from that connection. Handle must not wait for an
// answer itself: it is called with memory that other connections wait for. xs is valid only during
// the call, the Exchanges that it took until they are answered.
type Handler interface {
	Handle(c *Conn, xs []*Exchange) (taken int)
}

// Listener is an address to listen on, under the name by which the broker knows it.
type Listener struct {
	Name string
	Addr string // host:port; an empty host is every address, IPv4 and IPv6
}

// Options says what a Server does. The zero value of each field but Listeners and Handler is its default.
type Options struct {
	Listeners []Listener
	Handler   Handler

	// MaxFrame is the largest frame in bytes, without its size prefix; 0: 100 MiB. A larger one
	// closes the connection (socket.request.max.bytes).
	MaxFrame int
	// QueuedBytes bounds the memory of frames that do not fit a read buffer or are still arriving;
	// 0: 256 MiB. It is never less than the largest frame takes (queued.max.request.bytes).
	QueuedBytes int64
	// MaxConns and MaxConnsPerIP bound the connections, MaxConnsOf those of single addresses; 0: no
	// bound, negative: none is taken. One too many is closed (max.connections and those beside it).
	MaxConns      int
	MaxConnsPerIP int
	MaxConnsOf    map[netip.Addr]int
	// IdleTimeout closes a connection that sends nothing and waits for nothing; 0: 10 minutes,
	// negative: never (connections.max.idle.ms).
	IdleTimeout time.Duration
	// StallTimeout closes a connection in the middle of a frame that does not arrive, or that
	// takes nothing of its replies; 0: 30 seconds.
	StallTimeout time.Duration
	// Pooled says for which API keys frames lie in pooled memory; nil: for none.
	Pooled func(apiKey int16) bool
	// Memory is the network on which to listen; nil: the machine's, by TCP.
	Memory *Memory
	// Logger gets a line for each connection that is refused or closed for a fault; nil: none.
	Logger *slog.Logger
}

func (o *Options) withDefaults() Options {
	out := *o
	if out.MaxFrame <= 0 {
		out.MaxFrame = 100 << 20
	}
	if out.QueuedBytes <= 0 {
		out.QueuedBytes = 256 << 20
	}
	out.QueuedBytes = max(out.QueuedBytes, int64(classSize(out.MaxFrame)))
	if out.IdleTimeout == 0 {
		out.IdleTimeout = 10 * time.Minute
	}
	if out.StallTimeout <= 0 {
		out.StallTimeout = 30 * time.Second
	}
	if out.Pooled == nil {
		out.Pooled = func(int16) bool { return false }
	}
	if out.Logger == nil {
		out.Logger = slog.New(slog.DiscardHandler)
	}
	return out
}
