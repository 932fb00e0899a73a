package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// DefaultMaxDecompressed is the limit of decompression where none is given: what a
// client could send uncompressed in one request (socket.request.max.bytes).
const DefaultMaxDecompressed = 100 << 20

// maxPooledScratch is the largest scratch that is kept for the next batch.
const maxPooledScratch = 4 << 20

// maxLargeScratches is how many batches that decompress to more than that are
// validated at a time, so that all validation together takes at most
// maxLargeScratches × the limit, and maxPooledScratch for each of the others. One
// more waits, as does EachStamp where it comes upon a large window or block.
const maxLargeScratches = 4

// maxZstdWindow is the largest window that a zstd frame may ask for, as in Kafka's
// library.
const maxZstdWindow = 128 << 20

// Decompress appends the decompressed form of src, in the framing that Kafka uses
// for the codec, to dst. It fails with ErrTooLarge if that is more than limit bytes
// (0 is DefaultMaxDecompressed), having used memory in proportion to limit at most,
// and with an error that wraps ErrUndecodable if src is damaged or the codec is not
// one. dst and src must not overlap.
func Decompress(dst, src []byte, c Codec, limit int) ([]byte, error) {
	s := getScratch()
	defer s.put()
	return s.appendDecompressed(dst, src, c, limit)
}

// scratch is the memory of one decompression.
type scratch struct {
	buf []byte
	src bytes.Reader
	gz  gzip.Reader
	lz  *lz4.Reader

	large bool // holds one of largeScratches
}

var (
	scratches      = sync.Pool{New: func() any { return new(scratch) }}
	largeScratches = make(chan struct{}, maxLargeScratches)
)

func getScratch() *scratch { return scratches.Get().(*scratch) }

func (s *scratch) put() {
	if cap(s.buf) > maxPooledScratch {
		s.buf = nil
	}
	if s.large {
		s.large = false
		<-largeScratches
	}
	s.src.Reset(nil)
	scratches.Put(s)
}

// decompress returns the decompressed form of src, valid until put.
func (s *scratch) decompress(src []byte, c Codec, limit int) ([]byte, error) {
	p, err := s.appendDecompressed(s.buf[:0], src, c, limit)
	s.buf = p[:0]
	return p, err
}

// decompressBounded is decompress for bytes that nobody has vouched for: what takes
// more than a pooled scratch waits for its turn. No lock is taken between it and put.
func (s *scratch) decompressBounded(src []byte, c Codec, limit int) ([]byte, error) {
	if limit <= 0 {
		limit = DefaultMaxDecompressed
	}
	p, err := s.decompress(src, c, min(limit, maxPooledScratch))
	if limit <= maxPooledScratch || !errors.Is(err, ErrTooLarge) {
		return p, err
	}
	s.waitLarge()
	return s.decompress(src, c, limit)
}

// waitLarge waits until s may take more than what is pooled, until put.
func (s *scratch) waitLarge() {
	if !s.large {
		largeScratches <- struct{}{}
		s.large = true
	}
}

func (s *scratch) appendDecompressed(dst, src []byte, c Codec, limit int) ([]byte, error) {
	if limit <= 0 {
		limit = DefaultMaxDecompressed
	}
	var err error
	switch c {
	case None:
		if len(src) > limit {
			return dst, ErrTooLarge
		}
		return append(dst, src...), nil
	case Gzip:
		dst, err = s.gunzip(dst, src, limit)
	case Snappy:
		dst, err = unsnap(dst, src, limit)
	case LZ4:
		dst, err = s.unlz4(dst, src, limit)
	case Zstd:
		dst, err = unzstd(dst, src, limit)
	default:
		err = fmt.Errorf("%w: Unknown compression type id: %d", ErrUndecodable, c)
	}
	if err != nil && !errors.Is(err, ErrTooLarge) && !errors.Is(err, ErrUndecodable) {
		err = fmt.Errorf("%w: %s: %w", ErrUndecodable, c, err)
	}
	return dst, err
}

// readAll appends what r has to dst; end is one past the last byte that dst may hold.
func readAll(dst []byte, r io.Reader, end int) ([]byte, error) {
	for {
		if len(dst) == cap(dst) {
			dst = slices.Grow(dst, max(512, min(len(dst), end+1-len(dst))))
		}
		n, err := r.Read(dst[len(dst):min(cap(dst), end+1)])
		dst = dst[:len(dst)+n]
		if len(dst) > end {
			return dst[:end], ErrTooLarge
		}
		if err == io.EOF {
			return dst, nil
		}
		if err != nil {
			return dst, err
		}
	}
}

// gunzip reads gzip members until the end, or until what follows is none, as Java
// does.
func (s *scratch) gunzip(dst, src []byte, limit int) ([]byte, error) {
	end := len(dst) + limit
	s.src.Reset(src)
	if err := s.gz.Reset(&s.src); err != nil {
		return dst, noEOF(err)
	}
	for {
		s.gz.Multistream(false)
		var err error
		if dst, err = readAll(dst, &s.gz, end); err != nil {
			return dst, noEOF(err)
		}
		if s.src.Len() == 0 {
			return dst, nil
		}
		if err := s.gz.Reset(&s.src); err != nil {
			return dst, nil
		}
	}
}

// noEOF makes sure that an early end is not taken for a regular one.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// unlz4 reads one LZ4 frame and overlooks what follows, as Kafka does.
func (s *scratch) unlz4(dst, src []byte, limit int) ([]byte, error) {
	r, err := s.lz4Stream(src)
	if err != nil {
		return dst, err
	}
	return readAll(dst, r, len(dst)+limit)
}

func (s *scratch) lz4Stream(src []byte) (io.Reader, error) {
	frame, err := lz4Frame(src)
	if err != nil {
		return nil, err
	}
	s.src.Reset(frame)
	if s.lz == nil {
		s.lz = lz4.NewReader(&s.src)
	} else {
		s.lz.Reset(&s.src)
	}
	return s.lz, nil
}

var errLZ4Frame = errors.New("not an LZ4 frame")

// lz4Frame returns the frame at the start of src.
func lz4Frame(src []byte) ([]byte, error) {
	const magic = 0x184d2204
	if len(src) < 7 {
		return nil, io.ErrUnexpectedEOF
	}
	if binary.LittleEndian.Uint32(src) != magic {
		return nil, errLZ4Frame
	}
	flags := src[4]
	pos := 7 // magic, flags, block size, checksum
	if flags&0x08 != 0 {
		pos += 8 // content size
	}
	if flags&0x01 != 0 {
		pos += 4 // dictionary id
	}
	for pos+4 <= len(src) {
		n := int(binary.LittleEndian.Uint32(src[pos:]) &^ (1 << 31))
		pos += 4
		if n == 0 { // the end mark
			if flags&0x04 != 0 {
				pos += 4 // content checksum
			}
			if pos > len(src) {
				break
			}
			return src[:pos], nil
		}
		if flags&0x10 != 0 {
			n += 4 // block checksum
		}
		if n > len(src)-pos {
			break
		}
		pos += n
	}
	return nil, io.ErrUnexpectedEOF
}

// The framing of snappy-java, "xerial": a header, then blocks, each with its
// length before it.
var xerialMagic = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0}

const (
	xerialHeaderSize = 8 + 4 + 4 // magic, version 1, lowest compatible version 1
	xerialBlockSize  = 32 << 10
	// maxSnappyRatio bounds what a snappy block can hold: an element of 3 bytes
	// copies at most 64.
	maxSnappyRatio = 22
)

// unsnap reads the xerial framing, or a bare snappy block where its magic is missing.
func unsnap(dst, src []byte, limit int) ([]byte, error) {
	end := len(dst) + limit
	blocks, err := snappyBlocksOf(src)
	for err == nil {
		var block []byte
		if block, err = blocks.next(); err == nil {
			dst, err = unsnapBlock(dst, block, end)
		}
	}
	if err == io.EOF {
		err = nil
	}
	return dst, err
}

// snappyBlocks goes over the blocks of the xerial framing, or has the one bare block.
type snappyBlocks struct {
	src    []byte
	framed bool
	bare   bool // the one block is still to come
}

func snappyBlocksOf(src []byte) (snappyBlocks, error) {
	if !bytes.HasPrefix(src, xerialMagic) {
		return snappyBlocks{src: src, bare: true}, nil
	}
	if len(src) < xerialHeaderSize {
		return snappyBlocks{}, io.ErrUnexpectedEOF
	}
	return snappyBlocks{src: src[xerialHeaderSize:], framed: true}, nil
}

// next returns the next block, io.EOF behind the last one.
func (x *snappyBlocks) next() (block []byte, err error) {
	if x.bare {
		x.bare = false
		return x.src, nil
	}
	for x.framed && bytes.HasPrefix(x.src, xerialMagic) && len(x.src) >= xerialHeaderSize {
		x.src = x.src[xerialHeaderSize:] // streams one after another
	}
	if !x.framed || len(x.src) < 4 { // Java overlooks less than a length at the end
		return nil, io.EOF
	}
	n := binary.BigEndian.Uint32(x.src)
	x.src = x.src[4:]
	if int64(n) > int64(len(x.src)) {
		return nil, io.ErrUnexpectedEOF
	}
	block, x.src = x.src[:n], x.src[n:]
	return block, nil
}

func unsnapBlock(dst, src []byte, end int) ([]byte, error) {
	n, err := snappy.DecodedLen(src)
	if err != nil {
		return dst, err
	}
	if n > len(src)*maxSnappyRatio {
		return dst, snappy.ErrCorrupt
	}
	if n > end-len(dst) {
		return dst, ErrTooLarge
	}
	dst = slices.Grow(dst, n)
	if _, err := snappy.Decode(dst[len(dst):len(dst)+n], src); err != nil {
		return dst, err
	}
	return dst[:len(dst)+n], nil
}

// zstdDecoders are made on first use; the one at i decodes up to 4 MiB << i, and
// takes memory in proportion to what it decodes, not to what a frame claims. They
// are shared: DecodeAll may be called concurrently. (WithDecodeAllCapLimit would
// spare the steps, but with it a frame that needs more room than there is may be
// called damaged.)
var zstdDecoders = func() (all [10]func() *zstd.Decoder) {
	for i := range all {
		all[i] = sync.OnceValue(func() *zstd.Decoder {
			d, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(4<<(20+i)), zstd.WithDecoderMaxWindow(maxZstdWindow))
			if err != nil {
				panic("BUG: batch: " + err.Error())
			}
			return d
		})
	}
	return all
}()

// unzstd decodes with the smallest decoder that reaches limit. A frame whose window
// is larger than what that one may decode is taken to be too large.
func unzstd(dst, src []byte, limit int) ([]byte, error) {
	if len(src) == 0 {
		return dst, io.ErrUnexpectedEOF
	}
	i := min(max(bits.Len(uint(limit-1))-22, 0), len(zstdDecoders)-1)
	p, err := zstdDecoders[i]().DecodeAll(src, dst)
	switch {
	case errors.Is(err, zstd.ErrDecoderSizeExceeded), err == nil && len(p)-len(dst) > limit,
		errors.Is(err, zstd.ErrWindowSizeExceeded) && 4<<(20+i) < maxZstdWindow:
		return dst, ErrTooLarge
	case err != nil:
		return dst, err
	}
	return p, nil
}
