package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// clientFlags are what every command that speaks to a broker takes.
type clientFlags struct {
	bootstrap []string
	timeout   time.Duration
}

func (f *clientFlags) add(fs *pflag.FlagSet) {
	fs.StringSliceVarP(&f.bootstrap, "bootstrap-server", "b", []string{"127.0.0.1:9092"}, "brokers to begin with, HOST:PORT")
	fs.DurationVar(&f.timeout, "timeout", 10*time.Second, "how long a request may take before it is an error")
}

func (f *clientFlags) client(opts ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(f.bootstrap...),
		kgo.ClientID("millrace-cli"),
		kgo.SoftwareNameAndVersion("millrace", version),
		kgo.RetryTimeout(f.timeout),
		kgo.RequestTimeoutOverhead(f.timeout),
	}, opts...)...)
}

func (f *clientFlags) admin() (*kadm.Client, func(), error) {
	cl, err := f.client()
	if err != nil {
		return nil, nil, err
	}
	adm := kadm.NewClient(cl)
	adm.SetTimeoutMillis(int32(f.timeout.Milliseconds()))
	return adm, cl.Close, nil
}

// again runs fn until its error is none that passes by itself, such as that of a coordinator which is only being made, or
// the time is over.
func (f *clientFlags) again(ctx context.Context, fn func() error) error {
	const pause = 50 * time.Millisecond
	for until := time.Now().Add(f.timeout); ; {
		err := fn()
		if err == nil || !kerr.IsRetriable(err) || time.Now().After(until) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

// progress tells, once a second and only on a terminal, how far a long command has come.
type progress struct {
	w    io.Writer
	last time.Time
	what string
	line int
}

func newProgress(what string) *progress {
	p := &progress{what: what, last: time.Now()}
	if info, err := os.Stderr.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
		p.w = os.Stderr
	}
	return p
}

// at reports a state; most calls print nothing.
func (p *progress) at(format string, args ...any) {
	if p.w == nil || time.Since(p.last) < time.Second {
		return
	}
	p.last = time.Now()
	text := p.what + ": " + fmt.Sprintf(format, args...)
	pad := max(0, p.line-len(text))
	p.line = len(text)
	fmt.Fprintf(p.w, "\r%s%s", text, strings.Repeat(" ", pad))
}

// done clears the line.
func (p *progress) done() {
	if p.w != nil && p.line > 0 {
		fmt.Fprintf(p.w, "\r%s\r", strings.Repeat(" ", p.line))
	}
}
