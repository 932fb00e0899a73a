package batch

import (
	"bufio"
	"errors"
	"io"
	"math"

	"github.com/klauspost/compress/zstd"
)

// EachStamp calls fn with the offset and the timestamp, in ms, of every record of the
// batch in order, until fn returns an error, which it returns as it is. It decompresses
// as it goes and keeps no records, so that there is no limit to their size: what takes
// more memory than a pooled scratch all the same, a large window or block, waits for its
// turn as validation does. As far as it gets it is as strict as Each.
func (b Batch) EachStamp(fn func(off, ts int64) error) error {
	if b.Codec() == None {
		return b.Each(0, func(rec *Record) error { return fn(rec.Offset, rec.Timestamp) })
	}
	s := getScratch()
	defer s.put()
	src, err := s.stream(b.Payload(), b.Codec())
	if err != nil {
		return undecodable(err)
	}
	r := stampReader{r: bufio.NewReader(src)}
	base := b.BaseOffset()
	baseTimestamp, appendTime := b.BaseTimestamp(), b.TimestampType() == LogAppendTime
	for i := range b.Count() {
		offsetDelta, timestampDelta, reason := r.next()
		if r.err != nil && r.err != io.EOF {
			return undecodable(r.err)
		}
		if reason != "" {
			return invalid("%s in record %d", reason, i)
		}
		ts := baseTimestamp + timestampDelta
		if appendTime {
			ts = b.MaxTimestamp()
		}
		if err := fn(base+int64(offsetDelta), ts); err != nil {
			return err
		}
	}
	left := 1
	if _, err := r.r.ReadByte(); err == io.EOF {
		left = 0
	} else if err != nil {
		return undecodable(err)
	}
	return checkEnd(b.Count(), left)
}

// stream returns the decompressed form of src as a reader, valid until put.
func (s *scratch) stream(src []byte, c Codec) (io.Reader, error) {
	s.src.Reset(src)
	switch c {
	case Gzip:
		if err := s.gz.Reset(&s.src); err != nil {
			return nil, noEOF(err)
		}
		s.gz.Multistream(false)
		return (*gzipMembers)(s), nil
	case Snappy:
		blocks, err := snappyBlocksOf(src)
		return &snappyStream{s: s, blocks: blocks}, err
	case LZ4:
		return s.lz4Stream(src)
	case Zstd:
		return s.zstdStream(src)
	}
	return nil, ErrUndecodable
}

// gzipMembers reads as gunzip does.
type gzipMembers scratch

func (g *gzipMembers) Read(p []byte) (n int, err error) {
	for n == 0 {
		n, err = g.gz.Read(p)
		if err != io.EOF {
			return n, err
		}
		if g.src.Len() == 0 || g.gz.Reset(&g.src) != nil {
			return n, io.EOF
		}
		g.gz.Multistream(false)
	}
	return n, nil
}

// snappyStream reads block by block.
type snappyStream struct {
	s      *scratch
	blocks snappyBlocks
	block  []byte // what is left of the present one
}

func (x *snappyStream) Read(p []byte) (int, error) {
	for len(x.block) == 0 {
		src, err := x.blocks.next()
		if err != nil {
			return 0, err
		}
		x.block, err = unsnapBlock(x.s.buf[:0], src, maxPooledScratch)
		if errors.Is(err, ErrTooLarge) {
			x.s.waitLarge()
			x.block, err = unsnapBlock(x.s.buf[:0], src, math.MaxInt)
		}
		x.s.buf = x.block[:0]
		if err != nil {
			return 0, err
		}
	}
	n := copy(p, x.block)
	x.block = x.block[n:]
	return n, nil
}

// zstdStream returns a decoder that keeps a window of what it has decoded.
func (s *scratch) zstdStream(src []byte) (io.Reader, error) {
	if len(src) == 0 {
		return nil, io.ErrUnexpectedEOF
	}
	var h zstd.Header
	if err := h.Decode(src); err != nil {
		return nil, err
	}
	window := h.WindowSize
	if h.SingleSegment {
		window = h.FrameContentSize
	}
	if window > maxPooledScratch {
		s.waitLarge()
	}
	// With a concurrency of one it has no goroutine, so that there is nothing to close.
	return zstd.NewReader(&s.src, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxZstdWindow))
}

// stampReader reads records without keeping them.
type stampReader struct {
	r    *bufio.Reader
	left int   // bytes of the record that are to come
	err  error // of r
}

// next reads one record, or says why it is not one.
func (r *stampReader) next() (offsetDelta int32, timestampDelta int64, reason string) {
	r.left = 5
	length, ok := r.varint(5)
	if !ok {
		return 0, 0, reasonStructure
	}
	if int32(length) < 1 {
		return 0, 0, reasonSize
	}
	r.left = int(int32(length))
	ok = r.skip(1) // attributes
	timestamp, ok2 := r.varint(10)
	offset, ok3 := r.varint(5)
	if !ok || !ok2 || !ok3 || !r.field() || !r.field() {
		return 0, 0, reasonStructure
	}
	return int32(offset), timestamp, r.headers()
}

func (r *stampReader) headers() (reason string) {
	count, ok := r.varint(5)
	if !ok {
		return reasonStructure
	}
	if int32(count) < 0 || int(int32(count)) > r.left {
		return reasonHeaderCount
	}
	for range int32(count) {
		keyLen, ok := r.varint(5)
		if !ok {
			return reasonStructure
		}
		if int32(keyLen) < 0 {
			return reasonHeaderKey
		}
		if !r.skip(int(int32(keyLen))) || !r.field() {
			return reasonStructure
		}
	}
	if r.left != 0 {
		return reasonSize
	}
	return ""
}

// field skips a length, negative for null, and as many bytes.
func (r *stampReader) field() bool {
	n, ok := r.varint(5)
	return ok && r.skip(max(int(int32(n)), 0))
}

func (r *stampReader) skip(n int) bool {
	if n > r.left || r.err != nil {
		return false
	}
	r.left -= n
	_, r.err = r.r.Discard(n)
	return r.err == nil
}

// varint reads a zig-zag varint of at most that many bytes. Of one of 5 bytes the
// lower 32 bits count, as in Java.
func (r *stampReader) varint(most int) (v int64, ok bool) {
	var u uint64
	for shift := 0; shift < 7*most && r.left > 0 && r.err == nil; shift += 7 {
		var c byte
		if c, r.err = r.r.ReadByte(); r.err != nil {
			break
		}
		r.left--
		u |= uint64(c&0x7f) << shift
		if c < 0x80 {
			if most == 5 {
				u = uint64(uint32(u))
			}
			return int64(u>>1) ^ -int64(u&1), true
		}
	}
	return 0, false
}
