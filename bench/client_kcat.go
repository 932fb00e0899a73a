package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strconv"
	"time"

	"github.com/millrace-project/millrace/batch"
)

// kcat is librdkafka by its command-line tool: a process for each connection that writes, or for
// each partition that is read. It tells no latencies.
type kcat struct{}

func (kcat) name() string { return "librdkafka" }

var librdkafkaVersion = regexp.MustCompile(`librdkafka (\S+)`)

func (kcat) version() (string, error) {
	if _, err := exec.LookPath("kcat"); err != nil {
		return "", errors.New("there is no kcat here, which loads targets by librdkafka: install the package kcat")
	}
	out, err := exec.Command("kcat", "-V").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("kcat -V: %w\n%s", err, out)
	}
	if m := librdkafkaVersion.FindSubmatch(out); m != nil {
		return string(m[1]), nil
	}
	return "of unknown version", nil
}

func (kcat) check(s Shape) error {
	if s.Rate > 0 {
		return errors.New("bench: client librdkafka writes as fast as it can and tells no latencies: a rate is not for it")
	}
	return fewProcesses("librdkafka", s)
}

// fewProcesses keeps programs from being more than a machine can bear.
func fewProcesses(name string, s Shape) error {
	const most = 16
	if s.Connections > most {
		return fmt.Errorf("bench: client %s is a process for each connection, %d at most, and %d are wanted: say less by --connections", name, most, s.Connections)
	}
	return nil
}

func (kcat) produce(ctx context.Context, l *clientLoad) (Figure, error) {
	s := l.work.shape
	const lines = 64 // written at once
	block := bytes.Join(append(s.textValues()[:lines], nil), []byte("\n"))
	all, written := make([]*process, s.Connections), map[*process]*int64{}
	for i := range all {
		args := []string{"-P", "-q", "-b", l.target.Addr, "-t", l.work.topic, "-X", "acks=all", "-X", "enable.idempotence=true",
			"-X", "max.in.flight=" + strconv.Itoa(idempotentInFlight(s)), "-X", "batch.size=" + strconv.Itoa(max(s.BatchBytes, 1))}
		if s.Codec != batch.None {
			args = append(args, "-z", s.Codec.String())
		}
		n := new(int64)
		all[i] = &process{cmd: exec.Command("kcat", args...)}
		all[i].feed = func(ctx context.Context, in io.Writer) error {
			for end := time.Now().Add(l.duration); time.Now().Before(end) && ctx.Err() == nil; *n += lines {
				if _, err := in.Write(block); err != nil {
					return err
				}
			}
			return nil
		}
		written[all[i]] = n
	}
	return l.byProcesses(ctx, all, func(p *process) (did, error) { return did{records: *written[p], took: p.took}, nil })
}

func (kcat) consume(ctx context.Context, l *clientLoad) (Figure, error) {
	read := func(more ...string) *process {
		args := []string{"-C", "-q", "-e", "-f", "\n", "-o", "beginning", "-b", l.target.Addr, "-t", l.work.topic,
			"-X", "fetch.message.max.bytes=" + strconv.Itoa(l.work.shape.FetchBytes)}
		return &process{cmd: exec.Command("kcat", append(args, more...)...)}
	}
	all := []*process{read()}
	if l.work.shape.Connections > 1 {
		all = all[:0]
		for p := range l.ends {
			all = append(all, read("-p", strconv.Itoa(p)))
		}
	}
	f, err := l.byProcesses(ctx, all, func(p *process) (did, error) { // which prints a byte a record
		return did{records: int64(p.out.Len()), took: p.took}, nil
	})
	if err == nil {
		err = l.readAll(f)
	}
	return f, err
}
