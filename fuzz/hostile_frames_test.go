package fuzz

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"reflect"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/batch"
)

// hostileTopic is a topic that attackers name. They never name those of the honest clients.
func hostileTopic(rng *rand.Rand) string { return "hostile-" + strconv.Itoa(rng.IntN(4)) }

var frames = kmsg.NewRequestFormatter(kmsg.FormatterClientID("hostile"))

// forge is a whole frame, size prefix included, of an API and version, with every field filled.
func (a *attacker) forge(key, version int16) []byte {
	req := kmsg.RequestForKey(key)
	if req == nil {
		return a.header(key, version, a.bytes(a.rng.IntN(100)))
	}
	if version > req.MaxVersion() {
		return a.header(key, version, a.bytes(a.rng.IntN(100)))
	}
	req.SetVersion(version)
	a.fill(reflect.ValueOf(req).Elem(), "")
	return frames.AppendRequest(nil, req, int32(a.rng.Uint32()))
}

// header is a frame of a valid header and any body.
func (a *attacker) header(key, version int16, body []byte) []byte {
	p := make([]byte, 4, 32+len(body))
	p = binary.BigEndian.AppendUint16(p, uint16(key))
	p = binary.BigEndian.AppendUint16(p, uint16(version))
	p = binary.BigEndian.AppendUint32(p, a.rng.Uint32())
	p = binary.BigEndian.AppendUint16(p, 1)
	p = append(p, 'h', 0) // the client id, and no tags if there may be any
	return sized(append(p, body...))
}

// sized sets the size prefix of a frame right.
func sized(frame []byte) []byte {
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
	return frame
}

func (a *attacker) bytes(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(a.rng.Uint32())
	}
	return p
}

// fill gives a request's fields values that a handler takes seriously often enough.
func (a *attacker) fill(v reflect.Value, name string) {
	if v.Kind() != reflect.Struct {
		a.fillField(v, name)
		return
	}
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Name == "Version" || f.Name == "UnknownTags" || !f.IsExported() {
			continue
		}
		a.fill(v.Field(i), f.Name)
	}
}

func (a *attacker) fillField(v reflect.Value, name string) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(a.rng.IntN(2) == 0)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		a.fillInt(v, name)
	case reflect.String:
		v.SetString(a.text(name))
	case reflect.Pointer:
		if a.rng.IntN(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			a.fill(v.Elem(), name)
		}
	case reflect.Array:
		for i := range v.Len() {
			v.Index(i).SetUint(uint64(byte(a.rng.Uint32())))
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes(a.records())
			return
		}
		n := a.rng.IntN(3)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			a.fill(v.Index(i), name)
		}
	}
}

func (a *attacker) fillInt(v reflect.Value, name string) {
	n := int64(a.rng.IntN(4))
	switch dice := a.rng.IntN(10); {
	case name == "ResourceType":
		n = []int64{2, 2, 16, 32, 99}[a.rng.IntN(5)] // not the broker's own: that concerns everybody
	case strings.HasPrefix(name, "Timeout") || name == "MaxWaitMillis":
		n = int64(a.rng.IntN(200))
		if dice == 0 {
			n = math.MaxInt32
		}
	case name == "MaxBytes" || name == "PartitionMaxBytes":
		n = 1 << a.rng.IntN(31)
	case name == "ReplicationFactor" && dice > 1:
		n = 1
	case dice < 3:
		n = -1
	case dice == 3:
		n = []int64{math.MaxInt64, math.MinInt64, math.MaxInt32, math.MinInt32, math.MaxInt16, math.MinInt16}[a.rng.IntN(6)]
	}
	switch v.Kind() { // cut to width, as on the wire
	case reflect.Int8:
		n = int64(int8(n))
	case reflect.Int16:
		n = int64(int16(n))
	case reflect.Int32:
		n = int64(int32(n))
	}
	v.SetInt(n)
}

func (a *attacker) text(name string) string {
	switch {
	case strings.Contains(name, "Topic") || name == "ResourceName" || name == "Name" && a.rng.IntN(2) == 0:
		return hostileTopic(a.rng)
	case name == "Name":
		return []string{"retention.ms", "cleanup.policy", "segment.bytes", "max.message.bytes", "nonsense", ""}[a.rng.IntN(6)]
	case name == "Value":
		return []string{"1000", "compact", "delete", "-1", "nonsense", "99999999999999999999"}[a.rng.IntN(6)]
	}
	switch a.rng.IntN(4) {
	case 0:
		return ""
	case 1:
		return string(a.bytes(a.rng.IntN(64)))
	case 2:
		return strings.Repeat("x", a.rng.IntN(300))
	}
	return hostileTopic(a.rng)
}

// mutate damages a frame. Its size prefix is set right after, most of the time.
func (a *attacker) mutate(frame []byte) []byte {
	p := bytes.Clone(frame)
	for range 1 + a.rng.IntN(4) {
		if len(p) < 16 {
			break
		}
		at := 8 + a.rng.IntN(len(p)-8)
		switch a.rng.IntN(7) {
		case 0:
			p[at] ^= 1 << a.rng.IntN(8)
		case 1: // a count or length of 32 bits
			n := []uint32{math.MaxInt32, math.MaxUint32, 1 << 28, 100 << 20, 1 << 31}[a.rng.IntN(5)]
			binary.BigEndian.PutUint32(p[min(at, len(p)-4):], n)
		case 2: // of 16
			binary.BigEndian.PutUint16(p[min(at, len(p)-2):], uint16(a.rng.Uint32()))
		case 3: // a compact one
			long := [][]byte{{0xff, 0xff, 0xff, 0xff, 0x07}, {0xff, 0xff, 0xff, 0xff, 0x0f}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}, {0x80, 0x80, 0x80, 0x80, 0x80}}
			p = append(p[:at:at], append(long[a.rng.IntN(len(long))], p[min(at+1, len(p)):]...)...)
		case 4:
			p = p[:at]
		case 5:
			p = append(p, a.bytes(a.rng.IntN(32))...)
		case 6:
			p = append(p[:at:at], append(a.bytes(4), p[at:]...)...)
		}
	}
	if a.rng.IntN(20) > 0 {
		sized(p)
	}
	return p
}

// produce is a produce request of one partition.
func (a *attacker) produce(records []byte) []byte {
	version := int16(3 + a.rng.IntN(10)) // those that name topics
	req := kmsg.NewPtrProduceRequest()
	req.SetVersion(version)
	req.Acks = int16(a.rng.IntN(3) - 1)
	req.TimeoutMillis = 1000
	req.Topics = []kmsg.ProduceRequestTopic{{Topic: hostileTopic(a.rng), Partitions: []kmsg.ProduceRequestTopicPartition{{Records: records}}}}
	return frames.AppendRequest(nil, req, 7)
}

// records are those of a produce request: honest ones, damaged ones, bombs, or noise.
func (a *attacker) records() []byte {
	switch a.rng.IntN(5) {
	case 0:
		return a.bytes(a.rng.IntN(200))
	case 1:
		return a.bomb()
	case 2:
		return a.countBomb()
	}
	codec := batch.Codec(a.rng.IntN(5))
	b := batch.NewBuilder(batch.BuilderOptions{Codec: codec, ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1})
	for range 1 + a.rng.IntN(5) {
		b.Append(int64(a.rng.IntN(1e9)), a.bytes(a.rng.IntN(20)), a.bytes(a.rng.IntN(200)), nil)
	}
	out, err := b.Build(nil)
	if err != nil {
		panic(err)
	}
	if a.rng.IntN(2) == 0 {
		out[a.rng.IntN(len(out))] ^= 1 << a.rng.IntN(8)
		if a.rng.IntN(2) == 0 {
			signBatch(out)
		}
	}
	return out
}

// signBatch sets a batch's length and checksum right.
func signBatch(p []byte) []byte {
	binary.BigEndian.PutUint32(p[8:], uint32(len(p)-batch.LogOverhead))
	binary.BigEndian.PutUint32(p[17:], crc32.Checksum(p[21:], crc32.MakeTable(crc32.Castagnoli)))
	return p
}

// rawBatch is a batch of format version 2 with a right checksum around any payload.
func rawBatch(codec batch.Codec, count int32, payload []byte) []byte {
	p := make([]byte, batch.HeaderSize, batch.HeaderSize+len(payload))
	p[16] = batch.Magic
	binary.BigEndian.PutUint16(p[21:], uint16(codec))
	binary.BigEndian.PutUint32(p[23:], uint32(count-1)) // last offset delta
	binary.BigEndian.PutUint64(p[43:], math.MaxUint64)  // no producer
	binary.BigEndian.PutUint16(p[51:], math.MaxUint16)
	binary.BigEndian.PutUint32(p[53:], math.MaxUint32)
	binary.BigEndian.PutUint32(p[57:], uint32(count))
	return signBatch(append(p, payload...))
}

// bomb is a batch of less than a megabyte that says it inflates to gigabytes, and mostly does.
func (a *attacker) bomb() []byte {
	bombs := a.s.bombs
	b := bombs[a.rng.IntN(len(bombs))]
	return rawBatch(b.codec, 1+int32(a.rng.IntN(1000)), b.payload)
}

// countBomb is a batch that says it has more of something than there are bytes.
func (a *attacker) countBomb() []byte {
	count := []int32{math.MaxInt32, 1 << 24, 1 << 16}[a.rng.IntN(3)]
	record := []byte{0, 0, 0, 1, 1}                    // attributes, deltas, null key, null value
	huge := binary.AppendVarint(nil, math.MaxInt32)    //
	long := binary.AppendVarint(nil, int64(1<<20))     //
	minus := binary.AppendVarint(nil, math.MinInt32)   //
	sizes := [][]byte{huge, long, minus, {0xff, 0xff}} //
	size := sizes[a.rng.IntN(len(sizes))]
	var payload []byte
	switch a.rng.IntN(4) {
	case 0: // records
		payload = append([]byte{12}, append(record, 0)...)
		return rawBatch(batch.None, count, payload)
	case 1: // the record's length
		payload = append(bytes.Clone(size), append(record, 0)...)
	case 2: // its headers
		body := append(bytes.Clone(record), size...)
		payload = append(binary.AppendVarint(nil, int64(len(body))), body...)
	case 3: // its key
		body := append([]byte{0, 0, 0}, size...)
		payload = append(binary.AppendVarint(nil, int64(len(body))), body...)
	}
	codec := batch.Codec(a.rng.IntN(5))
	packed, err := batch.Compress(nil, payload, codec, 1)
	if err != nil {
		panic(err)
	}
	return rawBatch(codec, 1, packed)
}

// zipBomb is a compressed payload.
type zipBomb struct {
	codec   batch.Codec
	payload []byte
}

// makeBombs packs zeros: streams that end and begin again are one stream to each of these formats,
// so a few packed megabytes repeated are gigabytes.
func makeBombs() ([]zipBomb, error) {
	zeros := make([]byte, 4<<20)
	var out []zipBomb
	var gz, l4 bytes.Buffer
	w, err := gzip.NewWriterLevel(&gz, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(zeros); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	lw := lz4.NewWriter(&l4)
	if err := lw.Apply(lz4.BlockSizeOption(lz4.Block4Mb)); err != nil {
		return nil, err
	}
	if _, err := lw.Write(zeros); err != nil {
		return nil, err
	}
	if err := lw.Close(); err != nil {
		return nil, err
	}
	zw, err := zstd.NewWriter(nil)
	if err != nil {
		return nil, err
	}
	zs := zw.EncodeAll(zeros, nil)
	const most = 900 << 10
	out = append(out,
		zipBomb{batch.Gzip, bytes.Repeat(gz.Bytes(), most/gz.Len())},
		zipBomb{batch.LZ4, bytes.Repeat(l4.Bytes(), most/l4.Len())},
		zipBomb{batch.Zstd, bytes.Repeat(zs, most/len(zs))})
	sn, err := batch.Compress(nil, make([]byte, 16<<20), batch.Snappy, 1)
	if err != nil {
		return nil, err
	}
	out = append(out, zipBomb{batch.Snappy, sn})
	return append(out,
		// Sizes that are announced and not there.
		zipBomb{batch.Snappy, []byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0}},
		zipBomb{batch.Snappy, append([]byte("\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01\x7f\xff\xff\xff"), 0xff, 0xff, 0xff, 0xff, 0x0f)},
		zipBomb{batch.Zstd, []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 0x03, 0xff, 0xff, 0}},                                    // a window of 2 TiB, a block of RLE
		zipBomb{batch.Zstd, []byte{0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0x03, 0xff, 0xff, 0}},               // a content of 2^60 bytes
		zipBomb{batch.LZ4, []byte{0x04, 0x22, 0x4d, 0x18, 0x4c, 0x70, 0, 0, 0, 0, 0, 0, 0, 0x10, 0xb1, 0xff, 0xff, 0xff, 0x7f}}, // the same
		zipBomb{batch.Gzip, []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xed, 0xc0}},
	), nil
}
