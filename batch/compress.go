package batch

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Levels of the codecs under Kafka's names; 0 stands for the default everywhere.
const (
	DefaultGzipLevel = -1 // 1 to 9
	DefaultLZ4Level  = 9  // 1 to 17
	DefaultZstdLevel = 3  // -131072 to 22
)

// Compress appends src to dst, compressed in the framing that Kafka uses for the
// codec: a gzip stream, xerial blocks of snappy, an LZ4 frame of independent 64 KiB
// blocks, a zstd frame. level is Kafka's for the codec, 0 its default, and is
// brought to the nearest that the encoder has; the bytes are not those of Java's
// encoders. dst and src must not overlap.
func Compress(dst, src []byte, c Codec, level int) ([]byte, error) {
	switch c {
	case None:
		return append(dst, src...), nil
	case Gzip:
		return gzipTo(dst, src, level)
	case Snappy:
		return snap(dst, src), nil
	case LZ4:
		return lz4To(dst, src, level)
	case Zstd:
		return zstdEncoder(level).EncodeAll(src, dst), nil
	}
	return dst, fmt.Errorf("batch: Unknown compression type id: %d", c)
}

// appendTo is a writer that appends.
type appendTo struct{ p []byte }

func (w *appendTo) Write(p []byte) (int, error) {
	w.p = append(w.p, p...)
	return len(p), nil
}

// gzipWriters has a pool for each level, level 0 is the default's.
var gzipWriters [gzip.BestCompression + 1]sync.Pool

func gzipTo(dst, src []byte, level int) ([]byte, error) {
	if level < 0 {
		level = 0
	}
	level = min(level, gzip.BestCompression)
	out := appendTo{p: dst}
	w, _ := gzipWriters[level].Get().(*gzip.Writer)
	if w == nil {
		libLevel := level
		if level == 0 {
			libLevel = gzip.DefaultCompression
		}
		var err error
		if w, err = gzip.NewWriterLevel(&out, libLevel); err != nil {
			return dst, fmt.Errorf("batch: gzip: %w", err)
		}
	} else {
		w.Reset(&out)
	}
	defer gzipWriters[level].Put(w)
	if _, err := w.Write(src); err != nil {
		return dst, fmt.Errorf("batch: gzip: %w", err)
	}
	if err := w.Close(); err != nil {
		return dst, fmt.Errorf("batch: gzip: %w", err)
	}
	return out.p, nil
}

func snap(dst, src []byte) []byte {
	dst = append(dst, xerialMagic...)
	dst = append(dst, 0, 0, 0, 1, 0, 0, 0, 1)
	for len(src) > 0 {
		n := min(len(src), xerialBlockSize)
		dst = slices.Grow(dst, 4+snappy.MaxEncodedLen(n))
		at := len(dst)
		block := snappy.Encode(dst[at+4:cap(dst)], src[:n])
		binary.BigEndian.PutUint32(dst[at:at+4], uint32(len(block)))
		dst = dst[:at+4+len(block)]
		src = src[n:]
	}
	return dst
}

// lz4Writers has a pool for each of the encoder's levels.
var lz4Writers [10]sync.Pool

// lz4Levels are the encoder's levels by index; Kafka's default is the fast one there too.
var lz4Levels = [10]lz4.CompressionLevel{
	lz4.Fast, lz4.Level1, lz4.Level2, lz4.Level3, lz4.Level4,
	lz4.Level5, lz4.Level6, lz4.Level7, lz4.Level8, lz4.Level9,
}

func lz4To(dst, src []byte, level int) ([]byte, error) {
	i := 0
	if level != 0 && level != DefaultLZ4Level {
		i = min(max((level+1)/2, 1), 9)
	}
	out := appendTo{p: dst}
	w, _ := lz4Writers[i].Get().(*lz4.Writer)
	if w == nil {
		w = lz4.NewWriter(&out)
		err := w.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.BlockChecksumOption(false), lz4.ChecksumOption(false),
			lz4.CompressionLevelOption(lz4Levels[i]), lz4.ConcurrencyOption(1))
		if err != nil {
			return dst, fmt.Errorf("batch: lz4: %w", err)
		}
	} else {
		w.Reset(&out)
	}
	defer lz4Writers[i].Put(w)
	if _, err := w.Write(src); err != nil {
		return dst, fmt.Errorf("batch: lz4: %w", err)
	}
	if err := w.Close(); err != nil {
		return dst, fmt.Errorf("batch: lz4: %w", err)
	}
	return out.p, nil
}

// zstdEncoders are made on first use, one for each of the encoder's four levels.
// EncodeAll may be called concurrently.
var zstdEncoders = [...]func() *zstd.Encoder{
	newZstdEncoder(zstd.SpeedFastest),
	newZstdEncoder(zstd.SpeedDefault),
	newZstdEncoder(zstd.SpeedBetterCompression),
	newZstdEncoder(zstd.SpeedBestCompression),
}

func newZstdEncoder(level zstd.EncoderLevel) func() *zstd.Encoder {
	return sync.OnceValue(func() *zstd.Encoder {
		// Kafka's frames have no checksum, and the window of level 3 is 2 MiB.
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderCRC(false),
			zstd.WithWindowSize(2<<20), zstd.WithLowerEncoderMem(true))
		if err != nil {
			panic("BUG: batch: " + err.Error())
		}
		return e
	})
}

func zstdEncoder(level int) *zstd.Encoder {
	if level == 0 {
		level = DefaultZstdLevel
	}
	i := zstd.EncoderLevelFromZstd(level) - zstd.SpeedFastest
	return zstdEncoders[min(max(int(i), 0), len(zstdEncoders)-1)]()
}
