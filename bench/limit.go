package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Limit is a target that does the least that any broker must do, and nothing else: it takes
// frames, checks each batch's CRC, stamps the offset, writes to a file and answers; it sends ranges
// of files by sendfile. It keeps no producers' state, validates no records, syncs nothing unless it is
// told to, rolls nothing and forgets everything when it ends. What a broker needs beyond it is the price of being
// one, so a figure can be read as a share of what is possible.
//
// It serves as much of the protocol as bench and a plain client ask: ApiVersions, Metadata,
// CreateTopics, DeleteTopics, InitProducerId, ListOffsets of the two ends, Produce and Fetch.
type Limit struct {
	Addr string // HOST:PORT to listen on
	Dir  string // where the logs' files are; created when it is missing
	// Plain gives each frame two reads and a write of its own. Otherwise all whole frames that one
	// read brings are handled, batches that follow each other in a log are written by one call, and
	// one call writes their answers.
	Plain bool
	// Sync answers for a batch, and lets readers see it, when fdatasync(2) of its file has returned.
	// A file is synced by one call at a time, for all that was written before it.
	Sync bool
}

// LimitServer is a limit that listens. Serve runs it until Close.
type LimitServer struct {
	o       Limit
	l       net.Listener
	dir     string                                 // of this run's files
	disk    *limitDisk                             // nil: nothing is synced
	topics  atomic.Pointer[map[string][]*limitLog] // by name, a log a partition; replaced whole
	nextPID atomic.Int64
	closing chan struct{}
	conns   sync.WaitGroup

	mu struct {
		sync.Mutex // held to replace topics too
		closed     bool
		open       map[net.Conn]struct{}
	}
}

// ListenLimit binds the address, so that Addr is known, and makes a new directory below Dir.
func ListenLimit(o Limit) (*LimitServer, error) {
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("bench: limit: %w", err)
	}
	dir, err := os.MkdirTemp(o.Dir, "limit-")
	if err != nil {
		return nil, fmt.Errorf("bench: limit: %w", err)
	}
	l, err := net.Listen("tcp", o.Addr)
	if err != nil {
		return nil, fmt.Errorf("bench: limit: %w", errors.Join(err, os.Remove(dir)))
	}
	s := &LimitServer{o: o, l: l, dir: dir, closing: make(chan struct{})}
	if o.Sync {
		s.disk = newLimitDisk()
	}
	s.topics.Store(&map[string][]*limitLog{})
	s.mu.open = map[net.Conn]struct{}{}
	return s, nil
}

// Addr is the address that is listened on.
func (s *LimitServer) Addr() string { return s.l.Addr().String() }

// Serve answers until ctx ends or Close is called, then returns nil once every connection has ended
// and the files are removed.
func (s *LimitServer) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, s.Close)
	defer stop()
	var failed error
	for {
		conn, err := s.l.Accept()
		if err != nil {
			select {
			case <-s.closing:
			default:
				failed = fmt.Errorf("bench: limit: %w", err)
			}
			break
		}
		if !s.admit(conn) {
			conn.Close()
			break
		}
	}
	s.Close()
	s.conns.Wait()
	if s.disk != nil {
		s.disk.work.Wait()
	}
	return errors.Join(failed, s.removeAll())
}

// admit starts a connection's goroutine unless the server is closed.
func (s *LimitServer) admit(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return false
	}
	s.mu.open[conn] = struct{}{}
	s.conns.Go(func() {
		err := newLimitConn(s, conn.(*net.TCPConn)).serve()
		s.mu.Lock()
		delete(s.mu.open, conn)
		s.mu.Unlock()
		conn.Close()
		if err != nil && !hungUp(err) {
			fmt.Fprintf(os.Stderr, "limit: %v: %v\n", conn.RemoteAddr(), err)
		}
	})
	return true
}

// hungUp tells the end of a connection from what is worth a line.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE)
}

// Close ends the listener and every connection. It may be called more than once.
func (s *LimitServer) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return
	}
	s.mu.closed = true
	close(s.closing)
	s.l.Close()
	for conn := range s.mu.open {
		conn.Close()
	}
}

// log finds a partition's log; nil: there is none.
func (s *LimitServer) log(topic []byte, partition int32) *limitLog {
	logs := (*s.topics.Load())[string(topic)]
	if partition < 0 || int(partition) >= len(logs) {
		return nil
	}
	return logs[partition]
}

// create makes a topic; false: there is one of that name.
func (s *LimitServer) create(topic string, partitions int) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := *s.topics.Load()
	if _, exists := old[topic]; exists {
		return false, nil
	}
	logs := make([]*limitLog, partitions)
	for i := range logs {
		var err error
		if logs[i], err = newLimitLog(s.dir, topic, i, s.disk); err != nil {
			for _, l := range logs[:i] {
				err = errors.Join(err, l.remove())
			}
			return false, err
		}
	}
	topics := make(map[string][]*limitLog, len(old)+1)
	for name, logs := range old {
		topics[name] = logs
	}
	topics[topic] = logs
	s.topics.Store(&topics)
	return true, nil
}

// delete removes a topic; false: there is none of that name.
func (s *LimitServer) delete(topic string) (bool, error) {
	s.mu.Lock()
	old := *s.topics.Load()
	logs, exists := old[topic]
	if exists {
		topics := make(map[string][]*limitLog, len(old))
		for name, logs := range old {
			if name != topic {
				topics[name] = logs
			}
		}
		s.topics.Store(&topics)
	}
	s.mu.Unlock()
	var err error
	for _, l := range logs {
		err = errors.Join(err, l.remove())
	}
	return exists, err
}

func (s *LimitServer) removeAll() error {
	var err error
	for topic := range *s.topics.Load() {
		_, e := s.delete(topic)
		err = errors.Join(err, e)
	}
	if e := os.Remove(s.dir); e != nil {
		err = errors.Join(err, fmt.Errorf("bench: limit: %w", e))
	}
	return err
}

// farAway is a wait that never ends by time.
const farAway = time.Hour
