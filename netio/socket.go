package netio

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socket is an end of a connection: the kernel's, or one on a Memory. Who waits for it does so by
// the syscall.RawConn that comes with it, from which the descriptors below are.
type socket interface {
	// read reads once and does not wait; again: there is nothing now. n is 0 at the end of the input.
	read(fd uintptr, p []byte) (n int, again bool, err error)
	// send sends the beginning of pieces and does not wait; again: nothing is taken now. more says
	// that the rest follows at once.
	send(fd uintptr, pieces [][]byte, more bool, v *iovecs) (n int, again bool, err error)
	// sendsFiles says whether sendFile works on its descriptor.
	sendsFiles() bool
	// peerGone says whether the peer sends nothing more, though there may be something left to read.
	peerGone() bool

	Close() error
	LocalAddr() net.Addr
	RemoteAddr() net.Addr
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
}

// listener is where sockets come from.
type listener interface {
	accept() (socket, syscall.RawConn, error)
	Close() error
	Addr() net.Addr
}

func (o *Options) listen(addr string) (listener, error) {
	if o.Memory != nil {
		return o.Memory.listen(addr)
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	return tcpListener{ln.(*net.TCPListener)}, nil
}

type tcpListener struct{ *net.TCPListener }

func (l tcpListener) accept() (socket, syscall.RawConn, error) {
	tcp, err := l.AcceptTCP()
	if err != nil {
		return nil, nil, err
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		_ = tcp.Close() // the socket is gone already
		return nil, nil, err
	}
	return tcpSocket{tcp}, raw, nil
}

// tcpSocket is a socket of the kernel.
type tcpSocket struct{ *net.TCPConn }

func (tcpSocket) read(fd uintptr, p []byte) (n int, again bool, err error) {
	return readSocket(int(fd), p)
}

func (tcpSocket) send(fd uintptr, pieces [][]byte, more bool, v *iovecs) (n int, again bool, err error) {
	return sendPieces(int(fd), pieces, more, v)
}

func (tcpSocket) sendsFiles() bool { return canSendfile }

func (s tcpSocket) peerGone() (gone bool) {
	raw, err := s.SyscallConn()
	if err != nil {
		return true
	}
	err = raw.Control(func(fd uintptr) {
		polled := []unix.PollFd{{Fd: int32(fd), Events: pollGone}}
		n, err := unix.Poll(polled, 0)
		gone = err == nil && n > 0 && polled[0].Revents&(pollGone|unix.POLLHUP|unix.POLLERR) != 0
	})
	return gone || err != nil
}

// readSocket reads once from a non-blocking socket; again: there is nothing now. n is 0 at the end
// of the input.
func readSocket(fd int, p []byte) (n int, again bool, err error) {
	for {
		n, err = unix.Read(fd, p)
		switch err {
		case nil:
			return n, false, nil
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return 0, true, nil
		}
		return 0, false, err
	}
}
