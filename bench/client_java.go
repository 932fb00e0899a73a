package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// kafkaTools is Kafka's own client by the load generators of its distribution: a process for each
// connection that writes, and one that reads all partitions in a group of its own.
type kafkaTools struct {
	libs string             // the directory of the jars
	rate map[string]float64 // records a second that a target took in its fastest run, by its name
}

func (*kafkaTools) name() string { return "java" }

func (c *kafkaTools) version() (string, error) {
	if _, err := exec.LookPath("java"); err != nil {
		return "", errors.New("there is no java here: install a Java runtime, 17 or newer")
	}
	libs, err := kafkaLibs()
	if err != nil {
		return "", err
	}
	c.libs, c.rate = libs, map[string]float64{}
	clients, err := filepath.Glob(filepath.Join(libs, "kafka-clients-*.jar"))
	if err != nil || len(clients) == 0 {
		return "of unknown version", err
	}
	return strings.TrimSuffix(filepath.Base(clients[0]), ".jar"), nil
}

// kafkaLibs finds the jars: where KAFKA_LIBS says, or where peers/kafka.sh has fetched them.
func kafkaLibs() (string, error) {
	pattern := os.Getenv("KAFKA_LIBS")
	if pattern == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		pattern = filepath.Join(cache, "millrace-bench", "kafka-*")
	}
	tools, err := filepath.Glob(filepath.Join(pattern, "kafka-tools-[0-9]*.jar"))
	if err != nil {
		return "", err
	}
	if len(tools) == 0 {
		return "", fmt.Errorf("there is no kafka-tools jar in %s: name by KAFKA_LIBS the directory libs of a Kafka that is unpacked, or remove what is there and let --spawn kafka fetch it anew", pattern)
	}
	return filepath.Dir(tools[len(tools)-1]), nil
}

func (*kafkaTools) check(s Shape) error { return fewProcesses("java", s) }

// java is a process with the JVM options of Kafka's scripts.
func (c *kafkaTools) java(class string, args ...string) *process {
	jvm := []string{"-Xmx512M", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
		"-XX:+ExplicitGCInvokesConcurrent", "-Djava.awt.headless=true", "-Duser.language=en", "-Duser.country=US",
		"-cp", filepath.Join(c.libs, "*"), "org.apache.kafka.tools." + class}
	return &process{cmd: exec.Command("java", append(jvm, args...)...)}
}

// produce sends as many records as the target took in that time in the fastest run before: the tool
// counts records, not seconds. The first run, which is one of the warm-up, is short.
func (c *kafkaTools) produce(ctx context.Context, l *clientLoad) (Figure, error) {
	const firstBytes = 64 << 20
	s := l.work.shape
	records, throughput := float64(firstBytes/s.RecordBytes), "-1"
	if rate := c.rate[l.target.Name]; rate > 0 {
		records = rate * l.duration.Seconds()
	}
	if rate := l.rate(); rate > 0 {
		records, throughput = rate*l.duration.Seconds(), strconv.FormatFloat(rate/float64(s.Connections), 'f', 3, 64)
	}
	each := max(1, int64(math.Round(records))/int64(s.Connections))
	payloads, err := s.payloadFile()
	if err != nil {
		return Figure{}, err
	}
	defer os.Remove(payloads)
	all := make([]*process, s.Connections)
	for i := range all {
		all[i] = c.java("ProducerPerformance", "--bootstrap-server", l.target.Addr, "--topic", l.work.topic, "--payload-file", payloads,
			"--num-records", strconv.FormatInt(each, 10), "--throughput", throughput, "--command-property", "acks=all",
			"batch.size="+strconv.Itoa(s.BatchBytes), "compression.type="+s.Codec.String(),
			"max.in.flight.requests.per.connection="+strconv.Itoa(idempotentInFlight(s)))
	}
	f, err := l.byProcesses(ctx, all, func(p *process) (did, error) { return perfProduced(p.out.String(), each) })
	if err == nil && f.Elapsed > 0 {
		// A short run is slow, because the machine is cold: it must not make the next one shorter still.
		c.rate[l.target.Name] = max(c.rate[l.target.Name], float64(f.Records)/f.Elapsed.Seconds())
	}
	return f, err
}

// payloadFile is a file with a value a line; the caller removes it.
func (s Shape) payloadFile() (string, error) {
	f, err := os.CreateTemp("", "millrace-bench-values-")
	if err != nil {
		return "", fmt.Errorf("bench: %w", err)
	}
	for _, v := range s.textValues() {
		if _, err = f.Write(append(v, '\n')); err != nil {
			break
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("bench: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return f.Name(), nil
}

// perfTotal is the last line of Kafka's ProducerPerformance.
var perfTotal = regexp.MustCompile(`(?m)^(\d+) records sent, ([\d.]+) records/sec .* ([\d.]+) ms max latency, (\d+) ms 50th, (\d+) ms 95th, (\d+) ms 99th, (\d+) ms 99\.9th\.$`)

// perfProduced reads what ProducerPerformance prints in the end. Its latencies are whole
// milliseconds from the moment at which a record was handed to the client.
func perfProduced(out string, want int64) (did, error) {
	m := perfTotal.FindStringSubmatch(out)
	if m == nil {
		return did{}, fmt.Errorf("it printed no total:\n%s", out)
	}
	var v [7]float64
	for i, text := range m[1:] {
		var err error
		if v[i], err = strconv.ParseFloat(text, 64); err != nil {
			return did{}, fmt.Errorf("it printed %q", m[0])
		}
	}
	if int64(v[0]) != want || v[1] <= 0 {
		return did{}, fmt.Errorf("%d of %d records were acknowledged:\n%s", int64(v[0]), want, out)
	}
	ms := func(v float64) time.Duration { return time.Duration(v * float64(time.Millisecond)) }
	return did{
		records: want,
		took:    time.Duration(v[0] / v[1] * float64(time.Second)),
		latency: stepped(want, []float64{50, 95, 99, 99.9, 100}, []time.Duration{ms(v[3]), ms(v[4]), ms(v[5]), ms(v[6]), ms(v[2])}),
	}, nil
}

func (c *kafkaTools) consume(ctx context.Context, l *clientLoad) (Figure, error) {
	p := c.java("ConsumerPerformance", "--bootstrap-server", l.target.Addr, "--topic", l.work.topic, "--num-records", strconv.FormatInt(l.records(), 10),
		"--fetch-size", strconv.Itoa(l.work.shape.FetchBytes), "--group", l.work.topic, "--timeout", "10000", "--hide-header")
	f, err := l.byProcesses(ctx, []*process{p}, func(p *process) (did, error) { return perfConsumed(p.out.String()) })
	if err == nil {
		err = l.readAll(f)
	}
	return f, err
}

// perfConsumed reads the line that ConsumerPerformance prints: when it began and ended, MB and MB a
// second, records and records a second, the time in which it joined its group, and without that the
// time of fetching, which is what counts, and the rates in it.
func perfConsumed(out string) (did, error) {
	const fields, records, fetchMs = 10, 4, 7
	for line := range strings.Lines(out) {
		f := strings.Split(strings.TrimSpace(line), ", ")
		if len(f) != fields {
			continue
		}
		n, err := strconv.ParseInt(f[records], 10, 64)
		if err != nil {
			continue
		}
		ms, err := strconv.ParseInt(f[fetchMs], 10, 64)
		if err != nil {
			continue
		}
		return did{records: n, took: time.Duration(max(1, ms)) * time.Millisecond}, nil
	}
	return did{}, fmt.Errorf("it printed no total:\n%s", out)
}
