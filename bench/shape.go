package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace-project/millrace/batch"
)

// Shape is what a workload's load looks like. Not every workload asks for all of it.
type Shape struct {
	Partitions  int
	Connections int // that carry the load
	InFlight    int // requests outstanding on each of them
	PerRequest  int // partitions that a produce request carries a batch for
	RecordBytes int // of a record's value
	KeyBytes    int // of a record's key; 0: null
	BatchBytes  int // before compression; a batch holds at least one record
	Codec       batch.Codec
	Redundancy  int           // a value compresses to about one part in so many; 1: not at all
	Rate        float64       // requests a second, an open loop: of a tail its produce requests; 0: as many as are answered
	FetchBytes  int           // that a fetch asks for
	FillBytes   int64         // that a topic holds before it is read
	Readers     int           // connections that read the tail of what is produced
	Cold        int           // connections that read what was there before
	Idle        int           // connections that do nothing
	Groups      int           // consumer groups
	Members     int           // of each group
	CommitEvery time.Duration // between the commits of a transactional producer
	Seed        uint64
}

func (s Shape) withDefaults() Shape {
	atLeast := func(n *int, least int) {
		if *n <= 0 {
			*n = least
		}
	}
	atLeast(&s.Partitions, 1)
	atLeast(&s.Connections, 1)
	atLeast(&s.InFlight, 5) // what a producer of Kafka's has
	atLeast(&s.PerRequest, 1)
	atLeast(&s.RecordBytes, 1024)
	atLeast(&s.BatchBytes, 1)
	atLeast(&s.Redundancy, 4)
	atLeast(&s.FetchBytes, 1<<20)
	atLeast(&s.Groups, 1)
	atLeast(&s.Members, 1)
	if s.FillBytes <= 0 {
		s.FillBytes = 256 << 20
	}
	if s.CommitEvery <= 0 {
		s.CommitEvery = 100 * time.Millisecond
	}
	s.PerRequest = min(s.PerRequest, s.Partitions)
	return s
}

func (s Shape) contents() (*contents, error) {
	return newContents(contentOptions{recordBytes: s.RecordBytes, keyBytes: s.KeyBytes, batchBytes: s.BatchBytes, codec: s.Codec, redundancy: s.Redundancy, seed: s.Seed})
}

// work is what every workload has: a name, a shape, the batches, and the topic that it is at.
type work struct {
	name      string
	shape     Shape
	driver    driver
	contents  *contents
	topic     string
	producers [][]*producer // by connection, then by partition; nil where a connection has none

	transactional bool // each connection's producer has a transactional id
}

// HeldAgainst is the workload without what this one adds; "" if there is none.
func (w *work) HeldAgainst() string { return heldAgainst(w.name) }

func newWork(name string, s Shape) work { return work{name: name, shape: s.withDefaults()} }

// Name is the workload's.
func (w *work) Name() string { return w.name }

// Watch has fn called with each sample of the runs to come.
func (w *work) Watch(fn func(Sample)) { w.driver.watch = fn }

// prepare makes the topic and the batches.
func (w *work) prepare(ctx context.Context, t *Target, run string) error {
	if w.contents == nil {
		c, err := w.shape.contents()
		if err != nil {
			return err
		}
		w.contents = c
	}
	w.topic, w.producers = fmt.Sprintf("bench-%s-%s", w.name, run), nil
	return newTopic(ctx, t, w.topic, w.shape.Partitions)
}

// Clean removes the topic.
func (w *work) Clean(ctx context.Context, t *Target) error {
	if w.topic == "" {
		return nil
	}
	topic := w.topic
	w.topic, w.producers = "", nil
	return dropTopic(ctx, t, topic)
}

// Verify reads the topic back.
func (w *work) Verify(ctx context.Context, t *Target) error {
	if w.topic == "" {
		return errors.New("bench: nothing was prepared")
	}
	return verifyTopic(ctx, t, w.topic, w.shape.Partitions, w.contents, w.producers)
}

// newProducers gives a producer id for every connection, and each a producer on the partitions
// that it is to write to.
func (w *work) newProducers(ctx context.Context, t *Target, connections int, writes func(connection, partition int) bool) ([][]*producer, error) {
	out := make([][]*producer, connections)
	for c := range out {
		id, epoch, err := initProducer(ctx, t.Addr, w.transactionalID(c))
		if err != nil {
			return nil, err
		}
		out[c] = make([]*producer, w.shape.Partitions)
		for p := range out[c] {
			if writes(c, p) {
				out[c][p] = &producer{id: id, epoch: epoch, first: (13*c + 7*p) % distinctBatches, transactional: w.transactional}
			}
		}
	}
	w.producers = append(w.producers, out...)
	return out, nil
}

// transactionalID is that of a connection's producer; empty: it has none.
func (w *work) transactionalID(connection int) string {
	if !w.transactional {
		return ""
	}
	return fmt.Sprintf("%s-%d", w.topic, connection)
}

func everywhere(int, int) bool { return true }

// fill writes so many bytes over the topic's partitions, as fast as it is taken.
func (w *work) fill(ctx context.Context, t *Target, size int64) error {
	connections := min(4, w.shape.Partitions)
	producers, err := w.newProducers(ctx, t, connections, func(c, p int) bool { return p%connections == c })
	if err != nil {
		return err
	}
	_, n := w.contents.nth(&producer{}, 0)
	batches := max(1, size/int64(w.shape.Partitions)/int64(n)) // on each partition
	lanes := make([]*lane, connections)
	for c, own := range producers {
		s := newProduceSource(w, own, 5)
		s.perRequest, s.left = 1, batches*int64(len(s.partitions))
		lanes[c] = newLane(s, 5)
	}
	d := w.driver
	d.watch = nil
	fig, err := d.untilDone(ctx, &Target{Name: t.Name, Addr: t.Addr}, lanes)
	if err == nil && fig.Errors > 0 {
		err = errors.New(fig.Error)
	}
	if err != nil {
		return fmt.Errorf("bench: filling %s on %s: %w", w.topic, t.Name, err)
	}
	return nil
}

// runName is a name for topics that no earlier run of a bench has used.
func runName(begun time.Time, part string) string {
	return fmt.Sprintf("%s-%s", begun.UTC().Format("0102150405.000"), part)
}
