// Package millrace runs a Kafka-compatible broker inside a Go program, most often a test:
//
//	b, err := millrace.Start(t.TempDir())
//	if err != nil { … }
//	defer b.Close()
//	client, err := kgo.NewClient(kgo.SeedBrokers(b.Addr()))
//
// It owns nothing beyond a few defaults: the broker is package broker's, its settings have Kafka's
// names, and its directory has Kafka's files. It refuses what `millrace serve` refuses.
package millrace

import (
	"context"
	"log/slog"

	"github.com/millrace-project/millrace/broker"
	"github.com/millrace-project/millrace/config"
)

// Broker is a running broker. Its methods may be called from any goroutine.
type Broker struct{ b *broker.Broker }

// Option changes how Start runs the broker.
type Option func(*options)

type options struct {
	addr   string
	logger *slog.Logger
	pairs  []config.Pair
}

// Listen sets the address ("host:port") to listen on. Without it the broker listens on a free port
// of 127.0.0.1.
func Listen(addr string) Option { return func(o *options) { o.addr = addr } }

// Set gives a setting under Kafka's name, such as num.partitions, or one of Millrace's own, such as
// millrace.durability.
func Set(key, value string) Option {
	return func(o *options) { o.pairs = append(o.pairs, config.Pair{Key: key, Value: value}) }
}

// Logger says where the broker logs to. Without it the broker is silent.
func Logger(l *slog.Logger) Option { return func(o *options) { o.logger = l } }

// Start runs a broker on the data directory dir, which is made and formatted if need be. It answers
// when Start returns. Topics are created as clients name them.
func Start(dir string, opts ...Option) (*Broker, error) {
	o := options{addr: "127.0.0.1:0"}
	for _, opt := range opts {
		opt(&o)
	}
	cfg, err := config.Load(append(config.Standalone(dir, o.addr), o.pairs...))
	if err != nil {
		return nil, err
	}
	b, err := broker.New(cfg, broker.Options{Logger: o.logger})
	if err != nil {
		return nil, err
	}
	b.Start()
	return &Broker{b}, nil
}

// Addr is the address ("host:port") to give to clients.
func (b *Broker) Addr() string { return b.b.Addr() }

// Shutdown stops the broker after the requests in flight are answered, or ctx is done. Everything
// acknowledged is on disk when it returns.
func (b *Broker) Shutdown(ctx context.Context) error { return b.b.Shutdown(ctx) }

// Close stops the broker without waiting for requests in flight. Everything acknowledged is on disk
// when it returns.
func (b *Broker) Close() error { return b.b.Close() }
