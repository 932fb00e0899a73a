// Package clients drives other people's Kafka clients against a broker: each writes the same
// records with every kind of acknowledgement and every codec, and each reads by partition what
// every other has written: from the start, from an offset, from a timestamp. What comes back must
// be the same records, by count and hash.
package clients

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
)

// Record is what a client wrote, or read back.
type Record struct {
	Partition   int32
	Offset      int64 // set when read
	TimestampMs int64
	Key, Value  []byte
	Headers     []Header
}

// Header is one header of a record.
type Header struct {
	Key   string
	Value []byte
}

// From says where a read starts. TimestampMs is used when Offset is AtTime.
type From struct {
	Offset      int64
	TimestampMs int64
}

// Places that are no offset.
const (
	AtStart int64 = -2
	AtTime  int64 = -10
)

// Client is one client library or tool.
type Client interface {
	Name() string
	// Can reports whether the client offers the codec with the acknowledgement.
	Can(acks int16, codec string) bool
	// Produce writes the records to their partitions in order and returns when all are sent and,
	// acks 0 apart, acknowledged.
	Produce(addr, topic string, acks int16, codec string, records []Record) error
	// Consume reads n records of a partition.
	Consume(addr, topic string, partition int32, from From, n int) ([]Record, error)
}

// Codecs by the names that the clients know them by.
var Codecs = []string{"none", "gzip", "snappy", "lz4", "zstd"}

// Hash is over count, offsets, timestamps, keys, values and headers.
func Hash(records []Record) string {
	h := sha256.New()
	for _, r := range records {
		fmt.Fprintf(h, "%d|%d|%d|%x|%x|%d", r.Partition, r.Offset, r.TimestampMs, r.Key, r.Value, len(r.Headers))
		for _, k := range r.Headers {
			fmt.Fprintf(h, "|%s=%x", k.Key, k.Value)
		}
		h.Write([]byte{'\n'})
	}
	return fmt.Sprintf("%d records %s", len(records), hex.EncodeToString(h.Sum(nil)[:12]))
}

// Expected is what reading a partition from a place must bring, of the records as they were written.
func Expected(written []Record, partition int32, from From) []Record {
	var out []Record
	var off int64
	found := false
	for _, r := range written {
		if r.Partition != partition {
			continue
		}
		r.Offset = off
		off++
		switch from.Offset {
		case AtStart:
			found = true
		case AtTime:
			found = found || r.TimestampMs >= from.TimestampMs
		default:
			found = r.Offset >= from.Offset
		}
		if found {
			out = append(out, r)
		}
	}
	return out
}

// firstDifference tells where two lists part, for a message.
func firstDifference(want, got []Record) string {
	for i := range min(len(want), len(got)) {
		if Hash(want[i:i+1]) != Hash(got[i:i+1]) {
			return fmt.Sprintf("record %d: want %+v, got %+v", i, want[i], got[i])
		}
	}
	return fmt.Sprintf("want %d records, got %d", len(want), len(got))
}

// plain drops what kcat cannot write: headers and timestamps of one's own.
func plain(records []Record) []Record {
	out := slices.Clone(records)
	for i := range out {
		out[i].Headers, out[i].TimestampMs = nil, 0
	}
	return out
}
