package batch

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
)

// kafkaCases reads a file of cases and what Apache Kafka 4.2.0 answered to each;
// testdata/README.md says how they were made.
func kafkaCases(t *testing.T, name string) (cases [][]string, answers [][]string) {
	t.Helper()
	p, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	zr, err := gzip.NewReader(bytes.NewReader(p))
	if err != nil {
		t.Fatal(err)
	}
	sc := bufio.NewScanner(zr)
	sc.Buffer(nil, 16<<20)
	for sc.Scan() {
		in, out, ok := strings.Cut(sc.Text(), "\t=>\t")
		if !ok {
			t.Fatalf("%s: bad line %.80q", name, sc.Text())
		}
		cases = append(cases, strings.Split(in, "\t"))
		answers = append(answers, strings.Split(out, "\t"))
	}
	if err := sc.Err(); err != nil || len(cases) == 0 {
		t.Fatalf("%s: %d cases, %v", name, len(cases), err)
	}
	return cases, answers
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	p, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func integer(t *testing.T, s string) int64 {
	t.Helper()
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Kafka's exceptions, and ours.
var kafkaKinds = map[string]Kind{
	"InvalidRecordException":    InvalidRecord,
	"InvalidTimestampException": InvalidTimestamp,
	"CorruptRecordException":    CorruptMessage,
	"KafkaException":            Undecodable, // a stream that cannot be decoded
	"IllegalArgumentException":  Undecodable, // an unknown codec
}

func validateCase(t *testing.T, f []string) (b Batch, next int64, r *Rules) {
	r = &Rules{
		NowMs:          integer(t, f[1]),
		TimestampType:  TimestampType(integer(t, f[2])),
		BeforeMaxMs:    integer(t, f[3]),
		AfterMaxMs:     integer(t, f[4]),
		RequireKey:     f[5] == "1",
		LeaderEpoch:    int32(integer(t, f[7])),
		FromClient:     f[8] == "1",
		ZstdAllowed:    true,
		TopicPartition: "t-0",
	}
	if f[6] != "-1" {
		r.Target = Target{Set: true, Codec: Codec(integer(t, f[6]))}
	}
	b, _, err := Next(unhex(t, f[10]))
	if err != nil {
		t.Fatal(err)
	}
	return b, integer(t, f[9]), r
}

func TestValidateAsKafka(t *testing.T) {
	name := "testdata/kafka-validate.tsv.gz"
	if v := os.Getenv("KAFKA_CASES"); v != "" {
		name = v
	}
	cases, answers := kafkaCases(t, name)
	bad := 0
	for i, f := range cases {
		b, next, r := validateCase(t, f)
		if kafkaTrips(answers[i]) || damaged(b) {
			continue
		}
		out, err := ValidateAndAssign(b, next, r)
		if diff := differsFromKafka(t, out, err, answers[i]); diff != "" {
			t.Errorf("case %d: %s\n  case %s\n  Kafka %s", i, diff, strings.Join(f, " "), strings.Join(answers[i], " | "))
			if bad++; bad > 10 {
				t.FailNow()
			}
		}
	}
}

// differsFromKafka says how an outcome differs from Kafka's, in bytes if the batch is
// uncompressed and in what the records say otherwise.
func differsFromKafka(t *testing.T, out Batch, err error, want []string) string {
	if want[0] == "OK" {
		if err != nil {
			return "refused: " + err.Error()
		}
		k := Batch(unhex(t, want[1]))
		if out.Codec() == None && !bytes.Equal(out, k) {
			return fmt.Sprintf("got %x", []byte(out))
		}
		if got, want := render(out), render(k); got != want {
			return fmt.Sprintf("got %s want %s", got, want)
		}
		if err := out.VerifyCRC(); err != nil {
			return err.Error()
		}
		return ""
	}
	var v *ValidationError
	if !errors.As(err, &v) {
		return fmt.Sprintf("not refused: %v", err)
	}
	kind, ok := kafkaKinds[want[1]]
	if !ok || v.Kind != kind {
		return fmt.Sprintf("refused as %s: %s", v.Kind, v.Msg)
	}
	var records []string
	for _, e := range v.Records {
		records = append(records, fmt.Sprintf("%d:%s", e.Index, e.Msg))
	}
	if strings.Join(records, "\t") != strings.Join(want[3:], "\t") {
		return fmt.Sprintf("record errors %q", records)
	}
	if isText(want[2]) && v.Msg != want[2] {
		return fmt.Sprintf("message %q", v.Msg)
	}
	return ""
}

// kafkaTrips names what Kafka trips over only inside of its builder: batches that no
// honest client sends.
func kafkaTrips(answer []string) bool {
	return answer[0] == "ERR" && (answer[2] == "Invalid negative sequence number used" ||
		answer[2] == "Cannot write transactional messages without a valid producer ID" ||
		answer[1] == "UnsupportedOperationException") || answer[0] == "OK" && answer[1] == ""
}

// damaged reports whether a compressed stream or the records in it are damaged. There the
// outcomes may differ: Kafka reads while it decompresses, so it may meet another damage
// first, and where it keeps a batch it overlooks a record that is not as long as it says.
func damaged(b Batch) bool {
	if b.Codec() == None {
		return false
	}
	var v *ValidationError
	err := b.Each(0, func(*Record) error { return nil })
	return errors.As(err, &v) && (v.Kind == Undecodable && b.Codec() <= Zstd || strings.Contains(v.Msg, "in record"))
}

// isText tells the texts that reach a client or an operator from those about the
// structure of bytes, which are worded freely.
func isText(s string) bool {
	for _, head := range []string{"Invalid record size", "Found invalid", "Incorrect declared", "Invalid negative", "null"} {
		if strings.HasPrefix(s, head) {
			return false
		}
	}
	for _, head := range []string{"One or more", "Batch ", "Invalid reported", "Inconsistent", "Clients are", "Invalid sequence", "The baseOffset", "Record is corrupt", "Unknown compression"} {
		if strings.HasPrefix(s, head) {
			return true
		}
	}
	return false
}

// buildCase makes the builder that a case describes, with its records.
func buildCase(t *testing.T, f []string) *Builder {
	bl := NewBuilder(BuilderOptions{
		Codec: Codec(integer(t, f[1])), TimestampType: TimestampType(integer(t, f[2])), LogAppendTime: integer(t, f[3]),
		BaseOffset: integer(t, f[4]), LeaderEpoch: int32(integer(t, f[10])),
		HasProducer: f[5] != "-1", ProducerID: integer(t, f[5]), ProducerEpoch: int16(integer(t, f[6])), BaseSequence: int32(integer(t, f[7])),
		Transactional: f[8] == "1", Control: f[9] == "1",
	})
	bytesOrNull := func(s string) []byte {
		if s == "-" {
			return nil
		}
		return unhex(t, s)
	}
	for _, rec := range f[11:] {
		r := strings.Split(rec, ",")
		var headers []RecordHeader
		for _, h := range strings.Split(r[4], ";") {
			if key, value, ok := strings.Cut(h, "="); ok {
				headers = append(headers, RecordHeader{Key: key, Value: bytesOrNull(value)})
			}
		}
		bl.AppendAt(integer(t, r[0]), integer(t, r[1]), bytesOrNull(r[2]), bytesOrNull(r[3]), headers)
	}
	return bl
}

// The same records through Kafka's builder and ours: the same bytes uncompressed, the same
// content from each codec.
func TestBuildAsKafka(t *testing.T) {
	name := "testdata/kafka-build.tsv.gz"
	if v := os.Getenv("KAFKA_BUILD_CASES"); v != "" {
		name = v
	}
	cases, answers := kafkaCases(t, name)
	for i, f := range cases {
		k, rest, err := Next(unhex(t, answers[i][1]))
		if err != nil || len(rest) != 0 || k.VerifyCRC() != nil {
			t.Fatalf("case %d: Kafka's batch: %v", i, err)
		}
		b, err := buildCase(t, f).Build(nil)
		if err != nil {
			t.Fatalf("case %d: %v", i, err)
		}
		if b.Codec() == None && !bytes.Equal(b, k) {
			t.Errorf("case %d: got\n%x\nKafka\n%x", i, []byte(b), []byte(k))
		}
		if got, want := render(b), render(k); got != want {
			t.Errorf("case %d: got\n%.2000s\nKafka\n%.2000s", i, got, want)
		}
	}
}

// render is everything that a batch says, whatever its compression.
func render(b Batch) string {
	h := b.Header()
	h.Length, h.CRC = 0, 0
	s := fmt.Sprintf("%+v", h)
	err := b.Each(0, func(rec *Record) error {
		s += fmt.Sprintf(" %d@%d %s", rec.Offset, rec.Timestamp, renderBytes(rec.Key)+"="+renderBytes(rec.Value))
		for _, h := range rec.Headers {
			s += " " + h.Key + ":" + renderBytes(h.Value)
		}
		return nil
	})
	return fmt.Sprint(s, err)
}

func renderBytes(p []byte) string {
	if p == nil {
		return "null"
	}
	return fmt.Sprintf("%q", p)
}

// A segment that Kafka's cleaner wrote: gaps, batches without records, delete horizons,
// markers.
func TestCompactedSegment(t *testing.T) {
	f, err := os.Open("testdata/kafka-compacted.log.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zr, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	p, err := io.ReadAll(zr)
	if err != nil {
		t.Fatal(err)
	}
	var batches, gaps, empty, horizons, markers int
	last := int64(-1)
	for len(p) > 0 {
		var b Batch
		if b, p, err = Next(p); err != nil {
			t.Fatal(err)
		}
		batches++
		if err := b.VerifyCRC(); err != nil {
			t.Fatal(err)
		}
		if b.BaseOffset() <= last {
			t.Fatalf("base offset %d after %d", b.BaseOffset(), last)
		}
		n := 0
		err := b.Each(0, func(rec *Record) error {
			if n++; rec.Offset <= last || rec.Offset > b.LastOffset() || rec.Offset < b.BaseOffset() {
				return fmt.Errorf("offset %d after %d", rec.Offset, last)
			}
			last = rec.Offset
			return nil
		})
		if err != nil || n != int(b.Count()) {
			t.Fatalf("batch at %d: %d of %d records, %v", b.BaseOffset(), n, b.Count(), err)
		}
		last = b.LastOffset()
		if b.HasDeleteHorizon() {
			horizons++
		}
		switch {
		case n == 0:
			empty++
		case b.IsControl():
			markers++
			if _, err := b.EndTxnMarker(); err != nil {
				t.Error(err)
			}
		case n <= int(b.LastOffsetDelta()):
			gaps++
		}
	}
	t.Logf("%d batches: %d with gaps, %d empty, %d with a delete horizon, %d markers", batches, gaps, empty, horizons, markers)
	if gaps == 0 || horizons == 0 || markers == 0 {
		t.Error("the segment does not show what it is for")
	}
}
