package netio

import (
	"encoding/binary"
	"fmt"
	"math"
	"sync"
)

// Reply is one answer: bytes, with Views placed between them. The size prefix is filled in when it
// is given to Exchange.Reply. It is built by one goroutine and comes from NewReply.
type Reply struct {
	buf   []byte // sizePrefix bytes of room, then the reply
	views []placedView
	extra int64 // sum of the Views' lengths
}

type placedView struct {
	pos int // in buf
	n   int64
	v   View
}

const (
	sizePrefix = 4
	// keepReplyBytes is the largest buffer that a pooled Reply keeps.
	keepReplyBytes = 16 << 10
)

// replies is a pool of Replies; it has no state that anyone could observe.
var replies = sync.Pool{New: func() any { return &Reply{buf: make([]byte, sizePrefix, 512)} }}

// NewReply returns an empty Reply. It ends in Exchange.Reply or in Discard.
func NewReply() *Reply { return replies.Get().(*Reply) }

// Append lets fn append to the reply's bytes.
func (r *Reply) Append(fn func(dst []byte) []byte) { r.buf = fn(r.buf) }

// Buf returns the reply's bytes so far, to be appended to and given back with SetBuf. Its first
// four bytes are the size prefix's room.
func (r *Reply) Buf() []byte { return r.buf }

// SetBuf takes the bytes that Buf gave, appended to.
func (r *Reply) SetBuf(b []byte) {
	if len(b) < sizePrefix {
		panic("BUG: netio: the size prefix was cut from a reply")
	}
	r.buf = b
}

// AddView places v after the bytes so far. The Reply closes it, whatever happens.
func (r *Reply) AddView(v View) { r.AddViewAt(len(r.buf), v) }

// AddViewAt places v at pos, a length that Buf had, not before a View that was placed earlier.
func (r *Reply) AddViewAt(pos int, v View) {
	if pos < sizePrefix || len(r.views) > 0 && pos < r.views[len(r.views)-1].pos {
		panic("BUG: netio: views of a reply must be placed in order")
	}
	n := v.Len()
	r.views = append(r.views, placedView{pos, n, v})
	r.extra += n
}

// Discard closes the Views of a reply that will not be sent.
func (r *Reply) Discard() { r.recycle() }

// Len is how long the answer is, without its size prefix. One of over math.MaxInt32 bytes cannot be sent.
func (r *Reply) Len() int64 { return int64(len(r.buf)-sizePrefix) + r.extra }

// seal fills in the size prefix.
func (r *Reply) seal() {
	n := r.Len()
	if n > math.MaxInt32 {
		panic(fmt.Sprintf("BUG: netio: a reply of %d bytes", n))
	}
	binary.BigEndian.PutUint32(r.buf, uint32(n))
}

// recycle closes the Views and makes r usable again.
func (r *Reply) recycle() {
	for i := range r.views {
		// A View's Close only drops a reference; what it reports is its owner's to report.
		_ = r.views[i].v.Close()
		r.views[i] = placedView{}
	}
	r.views, r.extra = r.views[:0], 0
	if cap(r.buf) > keepReplyBytes || cap(r.views) > 256 {
		return
	}
	poison(r.buf)
	r.buf = r.buf[:sizePrefix]
	replies.Put(r)
}
