package clients

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// Kcat is the command-line tool. It has no headers and timestamps of one's own for each record, and
// its lines are text.
type Kcat struct{}

// Name of the client.
func (Kcat) Name() string { return "kcat" }

// Can do what its librdkafka was built with, which is all.
func (Kcat) Can(int16, string) bool { return true }

// Produce runs kcat once for each partition. Keys and values must have no tab and no newline.
func (Kcat) Produce(addr, topic string, acks int16, codec string, records []Record) error {
	lines := map[int32]*bytes.Buffer{}
	for _, r := range records {
		if lines[r.Partition] == nil {
			lines[r.Partition] = &bytes.Buffer{}
		}
		fmt.Fprintf(lines[r.Partition], "%s\t%s\n", r.Key, r.Value)
	}
	for p, in := range lines {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		cmd := exec.CommandContext(ctx, "kcat", "-P", "-b", addr, "-t", topic, "-p", strconv.Itoa(int(p)), "-K", "\t", "-z", codec, "-X", "acks="+strconv.Itoa(int(acks)))
		cmd.Stdin = in
		out, err := cmd.CombinedOutput()
		cancel()
		if err != nil {
			return fmt.Errorf("kcat: %w\n%s", err, out)
		}
	}
	return nil
}

// Consume reads one partition. Values and keys come in hexadecimal lengths first, so any bytes do.
func (Kcat) Consume(addr, topic string, partition int32, from From, n int) ([]Record, error) {
	at := strconv.FormatInt(from.Offset, 10)
	switch from.Offset {
	case AtStart:
		at = "beginning"
	case AtTime:
		at = fmt.Sprintf("s@%d", from.TimestampMs)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "kcat", "-C", "-q", "-b", addr, "-t", topic, "-p", strconv.Itoa(int(partition)), "-o", at, "-c", strconv.Itoa(n), "-f", "%p %o %T %K %S\n%k%s\n%h\n")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("kcat: %w\n%s", err, &stderr)
	}
	return parseKcat(stdout.Bytes())
}

// parseKcat reads "partition offset timestamp keyLength valueLength", the bytes, and the headers.
func parseKcat(p []byte) ([]Record, error) {
	var out []Record
	for len(p) > 0 {
		line, rest, ok := bytes.Cut(p, []byte{'\n'})
		var r Record
		var key, value int
		if _, err := fmt.Sscanf(string(line), "%d %d %d %d %d", &r.Partition, &r.Offset, &r.TimestampMs, &key, &value); err != nil || !ok {
			return out, fmt.Errorf("kcat's output at record %d: %q", len(out), line)
		}
		if key >= 0 {
			r.Key, rest = rest[:key:key], rest[key:]
		}
		if value >= 0 {
			r.Value, rest = rest[:value:value], rest[value:]
		}
		var headers []byte
		if headers, p, ok = bytes.Cut(rest[1:], []byte{'\n'}); !ok {
			return out, fmt.Errorf("kcat's output is cut after record %d", len(out))
		}
		for _, h := range strings.FieldsFunc(string(headers), func(c rune) bool { return c == ',' }) {
			k, v, _ := strings.Cut(h, "=")
			r.Headers = append(r.Headers, Header{k, []byte(v)})
		}
		out = append(out, r)
	}
	return out, nil
}
