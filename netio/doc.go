// Package netio is the only door to sockets: frames in, ordered replies out. It knows a frame's
// length, and of its content only the API key that it starts with; everything else about the
// protocol is its Handler's.
//
// # The door
//
// A connection is one goroutine. It waits for the socket to become readable without holding a
// buffer, so an idle connection costs its goroutine and little more. When bytes come it takes a
// pooled 64 KiB buffer, reads once, and gives every whole frame of that read to one Handler.Handle
// call, in order, so that the handler can treat many small requests as one piece of work. Those that
// it does not take yet are given again when something was answered. When the
// buffer is empty and the socket has no more, the buffer goes back; before the handler gets a request
// that does not lie in it, it is left to those that do. What is left of a frame moves to a buffer of
// its own size, and from then on the socket is read straight into it. A connection whose last frame was
// larger than 64 KiB gets a buffer of that size for its next read, so that the frame of a steady
// producer arrives by one read, in place.
//
// Frames of the APIs that Options.Pooled names (Produce) lie in pooled memory and are recycled at
// Exchange.Release; every other frame is given away, because decoded requests alias it.
//
// # Replies
//
// Handlers are two-phase: an Exchange may be answered during Handle or later from any goroutine,
// and answers leave in the order of the requests. Whoever completes the head of a connection's
// queue sees to it that all that is complete is written: the connection's own goroutine at the end
// of Handle, and a goroutine made for the purpose otherwise. So the completer never writes to a
// socket. No goroutine stands by to write.
//
// A Reply is bytes with Views placed between them. A View of SendfileMinBytes or more (of
// SendfileMinBytesAtEnd, if nothing follows it) leaves by sendfile(2) with an explicit offset, after
// a header sent with MSG_MORE; smaller ones are read into the buffer that the header is in. A View
// that cannot deliver its bytes closes the connection, and the log says so; nothing is ever padded.
//
// What is not in memory is asked for before it is sent, for a few connections at a time, and
// the goroutine, not a thread, waits for the disk (ColdView): readers of what is old take no
// processor from those of what is new.
//
// # Bounds
//
// Memory is a sum: Options.QueuedBytes of frames, maxReadBuffers × 64 KiB of read buffers,
// maxScratches × 64 KiB of reply buffers, and for each connection at most maxPending requests and
// about maxReplyBytes of replies that wait, and what of one read buffer the handler did not take yet
// (setAside). No connection waits for another, for its peer or for an answer with a read buffer in its
// hands, nor for a disk, but for that which takes the frames in it; with memory of frames only until
// others have wanted it for Options.StallTimeout. What is full makes connections wait, which is back-pressure on their clients
// by TCP. A frame that stops arriving loses its place after
// Options.StallTimeout, and so does a connection that stops taking its replies, so that a View
// cannot hold deleted files for ever. At most maxTransfers threads are inside sendfile or pread at
// once.
//
// A connection that has waited for restAfter goes on by a new goroutine, whose stack is small: 10 000
// idle connections take 40 MB, whatever their handlers needed before.
//
// There is no timer that ticks: a deadline is armed when a connection has to wait, and moved only
// when it fires or must come sooner.
//
// Options.Memory has all of this over a network in the process, for simulations: only what is below the
// socket interface is another.
//
// Owned here: sockets, frame buffers, the order of replies. Refused: what bytes mean, retries,
// padding, logging without the peer's name.
package netio
