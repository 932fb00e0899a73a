// Package java drives Apache Kafka's own clients against the broker: its producer and consumer by a
// small program compiled from Exchange.java, and its command-line tools.
package java

import (
	"bufio"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/millrace-project/millrace/interop/clients"
	"github.com/millrace-project/millrace/interop/kafka"
)

//go:embed Exchange.java
var source []byte

// Client is Kafka's Java producer and consumer in one running JVM. It does one thing at a time.
type Client struct {
	mu struct {
		sync.Mutex
		in  io.WriteCloser
		out *bufio.Reader
	}
	cmd *exec.Cmd
}

// Start compiles the program into dir and runs it.
func Start(dir string) (*Client, error) {
	cp, err := kafka.Classpath()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "Exchange.java")
	if err := os.WriteFile(file, source, 0o644); err != nil {
		return nil, err
	}
	if out, err := exec.Command("javac", "-cp", cp, "-d", dir, file).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("javac: %w\n%s", err, out)
	}
	c := &Client{cmd: exec.Command("java", "-Xmx256m", "-XX:+UseSerialGC", "-cp", cp+string(os.PathListSeparator)+dir, "Exchange")}
	log, err := os.Create(filepath.Join(dir, "java.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	c.cmd.Stderr = log
	in, err1 := c.cmd.StdinPipe()
	out, err2 := c.cmd.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	c.mu.in, c.mu.out = in, bufio.NewReader(out)
	return c, c.cmd.Start()
}

// Close ends the JVM.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(c.mu.in.Close(), c.cmd.Wait())
}

// Name of the client.
func (*Client) Name() string { return "java" }

// Can do all.
func (*Client) Can(int16, string) bool { return true }

// Produce with acks all is idempotent.
func (c *Client) Produce(addr, topic string, acks int16, codec string, records []clients.Record) error {
	var b strings.Builder
	fmt.Fprintf(&b, "produce %s %s %d %s %d\n", addr, topic, acks, codec, len(records))
	for _, r := range records {
		fmt.Fprintf(&b, "%d\t0\t%d\t%s\t%s", r.Partition, r.TimestampMs, text(r.Key), text(r.Value))
		for _, h := range r.Headers {
			fmt.Fprintf(&b, "\t%s=%s", h.Key, text(h.Value))
		}
		b.WriteByte('\n')
	}
	_, err := c.command(b.String())
	return err
}

// Consume reads one partition.
func (c *Client) Consume(addr, topic string, partition int32, from clients.From, n int) ([]clients.Record, error) {
	place, value := "offset", from.Offset
	switch from.Offset {
	case clients.AtStart:
		place, value = "start", 0
	case clients.AtTime:
		place, value = "time", from.TimestampMs
	}
	lines, err := c.command(fmt.Sprintf("consume %s %s %d %s %d %d\n", addr, topic, partition, place, value, n))
	if err != nil {
		return nil, err
	}
	var out []clients.Record
	for _, l := range lines {
		r, err := parse(l)
		if err != nil {
			return out, err
		}
		out = append(out, r)
	}
	return out, nil
}

func (c *Client) command(text string) ([]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := io.WriteString(c.mu.in, text); err != nil {
		return nil, err
	}
	var lines []string
	for {
		line, err := c.mu.out.ReadString('\n')
		if err != nil {
			return lines, fmt.Errorf("the JVM has gone: %w", err)
		}
		line = strings.TrimSuffix(line, "\n")
		if line == "ok" {
			return lines, nil
		}
		if msg, bad := strings.CutPrefix(line, "error "); bad {
			return lines, errors.New(msg)
		}
		lines = append(lines, line)
	}
}

func parse(line string) (clients.Record, error) {
	f := strings.Split(line, "\t")
	if len(f) < 5 {
		return clients.Record{}, fmt.Errorf("java printed %q", line)
	}
	part, err1 := strconv.ParseInt(f[0], 10, 32)
	off, err2 := strconv.ParseInt(f[1], 10, 64)
	ts, err3 := strconv.ParseInt(f[2], 10, 64)
	key, err4 := unhex(f[3])
	value, err5 := unhex(f[4])
	r := clients.Record{Partition: int32(part), Offset: off, TimestampMs: ts, Key: key, Value: value}
	err := errors.Join(err1, err2, err3, err4, err5)
	for _, h := range f[5:] {
		name, v, _ := strings.Cut(h, "=")
		p, e := unhex(v)
		err = errors.Join(err, e)
		r.Headers = append(r.Headers, clients.Header{Key: name, Value: p})
	}
	return r, err
}

func text(p []byte) string {
	if p == nil {
		return "-"
	}
	return hex.EncodeToString(p)
}

func unhex(s string) ([]byte, error) {
	if s == "-" {
		return nil, nil
	}
	return hex.DecodeString(s)
}
