// Package controller decides about the cluster's metadata: topics and their partitions, leaders, settings, producer ids,
// and this node's own registration.
//
// The machine in it is pure: a request and the image give records and an answer, and only records change the image. The
// controller runs that machine on the metadata log, publishes each image once its records are committed, and then
// answers. Codes and messages of the answers are those of Apache Kafka 4.2. It does no authorization, which stands above
// it, knows no connection, and refuses to start on metadata that promises protection which this build does not give.
//
// Format: docs/format/metadata-log.md; KIP-500, KIP-631, KIP-858, KIP-866, KIP-966.
package controller

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/quorum"
	"github.com/millrace-project/millrace/records"
)

// Quorum is the metadata log that the controller writes; *quorum.Quorum is one.
type Quorum interface {
	Epoch() int32
	End() int64
	Committed() int64
	OnCommitted(fn func())
	Err() error
	Append(epoch int32, timestampMs int64, batches [][][]byte) (base int64, err error)
	Read(snapshot func(quorum.Entry) error, begun func(quorum.Snapshot) error, log func(quorum.Entry) error) error
	Bootstrap() ([][]byte, error)
	WriteSnapshot(at quorum.Snapshot, values iter.Seq2[[]byte, error]) error
	SizeSinceSnapshot() int64
}

// Endpoint is one advertised listener.
type Endpoint = metadata.Endpoint

// Options of Start.
type Options struct {
	ClusterID          string
	NodeID             int32
	Listeners          []Endpoint // advertised, of the broker
	ControllerEndpoint Endpoint
	Rack               *string
	DirectoryID        [16]byte
	Incarnation        [16]byte       // of this process; zero = random
	Config             *config.Server // static settings: what new topics take, what settings are checked against; nil = Kafka's defaults
	NowMs              func() int64   // nil = the wall clock
	Logger             *slog.Logger   // nil = nothing is logged
	// TopicConfigs gives the effective settings of a topic with these overrides, sorted by name, for answers to
	// CreateTopics. It is called on the controller's loop. nil = none are given.
	TopicConfigs func(topic string, overrides map[string]string) []kmsg.CreateTopicsResponseTopicConfig
	// EnforcesSecurity says that the caller enforces ACLs, SCRAM credentials and delegation tokens. Without it Start
	// refuses metadata that holds any.
	EnforcesSecurity bool
	// SnapshotBytes is metadata.log.max.record.bytes.between.snapshots, SnapshotMs
	// metadata.log.max.snapshot.interval.ms, negative for no snapshots by time; 0 = as Config says.
	SnapshotBytes, SnapshotMs int64
}

func (o Options) withDefaults() (Options, error) {
	if o.NowMs == nil {
		o.NowMs = coordinator.NowMs
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Incarnation == ([16]byte{}) {
		o.Incarnation = quorum.RandomUUID()
	}
	if o.Config == nil {
		s, err := config.Load(config.Standalone(".", "127.0.0.1:9092"))
		if err != nil {
			return o, err
		}
		o.Config = s
	}
	if o.SnapshotBytes == 0 {
		o.SnapshotBytes = o.Config.MetadataSnapshotBytes
	}
	if o.SnapshotMs == 0 {
		o.SnapshotMs = cmp.Or(o.Config.MetadataSnapshotMs, -1) // there 0 turns them off
	}
	return o, nil
}

// SecurityError says that the metadata promises protection that nobody would enforce.
type SecurityError struct{ Kinds []string }

func (e *SecurityError) Error() string {
	return "controller: the metadata holds " + strings.Join(e.Kinds, ", ") + ", which this build does not enforce"
}

// Controller owns the cluster's metadata. Its methods may be called from anywhere. done functions are called on its loop
// (or by the caller itself when the controller refuses work) and must not block.
type Controller struct {
	q     Quorum
	opts  Options
	m     *machine
	rt    *coordinator.Runtime[metadata.Record]
	image atomic.Pointer[metadata.Image] // committed
	epoch atomic.Int64                   // broker epoch

	subscribers struct {
		sync.Mutex
		fns []func(*metadata.Image, *metadata.Delta)
	}
	snaps snapshots
}

// Start replays the log, registers this node as controller and broker, and elects it for every partition that it can
// lead; each of these partitions gets a higher leader epoch, so that nothing of an earlier run can be taken for this
// one's. All of it is one append, committed when Start returns.
func Start(q Quorum, o Options) (*Controller, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("controller: %w", err)
	}
	img, err := replay(q, o.ClusterID)
	if err != nil {
		return nil, err
	}
	c := &Controller{q: q, opts: o, m: newMachine(img, q.Epoch(), &o)}
	c.m.published = c.publish
	c.image.Store(img)
	bootstrap, err := c.bootstrap()
	if err != nil {
		return nil, err
	}
	c.snaps.init(c, q.SizeSinceSnapshot()) // not before: the caller of a start that is refused lets go of the directory
	c.rt = coordinator.New[metadata.Record](&metadataLog{Quorum: q, snaps: &c.snaps}, c.m, img.LogEnd(), coordinator.Options{Epoch: q.Epoch(), NowMs: o.NowMs})
	err = c.wait(func() ([][]metadata.Record, error) {
		batches, brokerEpoch := c.m.start(bootstrap, q.End())
		c.epoch.Store(brokerEpoch)
		return batches, nil
	})
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("controller: registration: %w", err)
	}
	return c, nil
}

// replay builds the image from the newest snapshot and the log behind it.
func replay(q Quorum, clusterID string) (*metadata.Image, error) {
	b := metadata.NewBuilder(metadata.Empty(clusterID))
	apply := func(e quorum.Entry) error {
		if e.Control {
			b.Control(e.Offset, e.Epoch, e.TimestampMs)
			return nil
		}
		msg, err := records.DecodeMetadata(e.Value)
		if err != nil {
			return fmt.Errorf("controller: offset %d: %w", e.Offset, err)
		}
		return b.Apply(e.Offset, e.Epoch, e.TimestampMs, msg)
	}
	begun := func(s quorum.Snapshot) error {
		b.Snapshot(s.End, s.Epoch, s.TimestampMs)
		return nil
	}
	if err := q.Read(apply, begun, apply); err != nil {
		return nil, err
	}
	img, _ := b.Build()
	return img, nil
}

// bootstrap gives the records that an empty log begins with, and refuses what cannot be served.
func (c *Controller) bootstrap() ([]records.Message, error) {
	img := c.m.img
	var msgs []records.Message
	if img.Feature(metadata.FeatureMetadataVersion) == 0 {
		values, err := c.q.Bootstrap()
		if err != nil {
			return nil, err
		}
		b := metadata.NewBuilder(metadata.Empty(c.opts.ClusterID))
		for i, v := range values {
			msg, err := records.DecodeMetadata(v)
			if err != nil {
				return nil, fmt.Errorf("controller: bootstrap record %d: %w", i, err)
			}
			if err := b.Apply(int64(i), 0, 0, msg); err != nil {
				return nil, err
			}
			msgs = append(msgs, msg)
		}
		img, _ = b.Build()
	}
	if err := checkFeatures(img); err != nil {
		return nil, err
	}
	if kinds := img.Security(); len(kinds) > 0 && !c.opts.EnforcesSecurity {
		return nil, &SecurityError{kinds}
	}
	return msgs, nil
}

// Image is the committed image.
func (c *Controller) Image() *metadata.Image { return c.image.Load() }

// BrokerEpoch is the epoch of this process's registration as broker.
func (c *Controller) BrokerEpoch() int64 { return c.epoch.Load() }

// Subscribe has fn called with each image that is committed from now on, in order, on the controller's loop, before the
// requests that led to it are answered. fn must not block. The first call's Base may be older than what Image gives
// now, never newer.
func (c *Controller) Subscribe(fn func(img *metadata.Image, d *metadata.Delta)) {
	c.subscribers.Lock()
	defer c.subscribers.Unlock()
	c.subscribers.fns = append(c.subscribers.fns, fn)
}

func (c *Controller) publish(img *metadata.Image, d *metadata.Delta) {
	c.image.Store(img)
	c.subscribers.Lock()
	fns := c.subscribers.fns[:len(c.subscribers.fns):len(c.subscribers.fns)]
	c.subscribers.Unlock()
	for _, fn := range fns {
		fn(img, d)
	}
	c.snaps.published(img)
}

// Shutdown writes what a clean stop of Kafka leaves: this node in controlled shutdown, its partitions without leader and
// with it as eligible replica, and then its registration fenced. It returns when that is committed.
func (c *Controller) Shutdown() error {
	err := c.wait(func() ([][]metadata.Record, error) { return c.m.shutdown(c.BrokerEpoch()), nil })
	if err != nil {
		return fmt.Errorf("controller: shutdown: %w", err)
	}
	return nil
}

// wait runs an operation and returns when it is committed. It must not be called on the loop.
func (c *Controller) wait(run func() ([][]metadata.Record, error)) error {
	done := make(chan error, 1)
	c.rt.Submit(coordinator.Op[metadata.Record]{Run: run, Done: func(err error) { done <- err }})
	return <-done
}

// Close stops the controller; what waits is answered with an error. Nothing is written.
func (c *Controller) Close() error {
	c.rt.Close()
	c.snaps.close()
	return nil
}

// AllocateProducerIDs gives out the next block of producer ids: n ids from first on.
func (c *Controller) AllocateProducerIDs(done func(first int64, n int32, err error)) {
	var first int64
	c.rt.Submit(coordinator.Op[metadata.Record]{
		Run: func() (batches [][]metadata.Record, err error) {
			var rec metadata.Record
			first, rec, err = c.m.allocateProducerIDs(c.BrokerEpoch())
			return [][]metadata.Record{{rec}}, err
		},
		Done: func(err error) {
			if err != nil {
				done(0, 0, err)
				return
			}
			done(first, producerIDBlock, nil)
		},
	})
}

// errTimedOut is the end of a request whose time was over before its turn came.
var errTimedOut = errors.New("controller: timed out")

// submit runs a request's decision unless its time is over.
func (c *Controller) submit(timeoutMs int32, decide func() []metadata.Record, done func(error)) {
	deadlineMs := c.opts.NowMs() + int64(timeoutMs)
	c.rt.Submit(coordinator.Op[metadata.Record]{
		Run: func() ([][]metadata.Record, error) {
			if timeoutMs <= 0 || c.opts.NowMs() >= deadlineMs {
				return nil, errTimedOut
			}
			recs := decide()
			if len(recs) == 0 {
				return nil, nil
			}
			return [][]metadata.Record{recs}, nil
		},
		Done: done,
	})
}

// noTimeout is for requests without one of their own.
const noTimeout = 1<<31 - 1

// CreateTopics creates topics. req belongs to the controller until done.
func (c *Controller) CreateTopics(req *kmsg.CreateTopicsRequest, done func(*kmsg.CreateTopicsResponse)) {
	var resp *kmsg.CreateTopicsResponse
	c.submit(req.TimeoutMillis, func() (recs []metadata.Record) {
		recs, resp = c.m.createTopics(req)
		return recs
	}, func(err error) {
		if err != nil {
			resp = failedCreateTopics(req, failure(err))
		}
		done(resp)
	})
}

// DeleteTopics deletes topics by name or id. req belongs to the controller until done.
func (c *Controller) DeleteTopics(req *kmsg.DeleteTopicsRequest, done func(*kmsg.DeleteTopicsResponse)) {
	var resp *kmsg.DeleteTopicsResponse
	c.submit(req.TimeoutMillis, func() (recs []metadata.Record) {
		recs, resp = c.m.deleteTopics(req)
		return recs
	}, func(err error) {
		if err != nil {
			resp = failedDeleteTopics(req, failure(err))
		}
		done(resp)
	})
}

// CreatePartitions adds partitions to topics. req belongs to the controller until done.
func (c *Controller) CreatePartitions(req *kmsg.CreatePartitionsRequest, done func(*kmsg.CreatePartitionsResponse)) {
	var resp *kmsg.CreatePartitionsResponse
	c.submit(req.TimeoutMillis, func() (recs []metadata.Record) {
		recs, resp = c.m.createPartitions(req)
		return recs
	}, func(err error) {
		if err != nil {
			resp = failedCreatePartitions(req, failure(err))
		}
		done(resp)
	})
}

// IncrementalAlterConfigs changes settings one by one (KIP-339). req belongs to the controller until done.
func (c *Controller) IncrementalAlterConfigs(req *kmsg.IncrementalAlterConfigsRequest, done func(*kmsg.IncrementalAlterConfigsResponse)) {
	var resp *kmsg.IncrementalAlterConfigsResponse
	c.submit(noTimeout, func() (recs []metadata.Record) {
		recs, resp = c.m.incrementalAlterConfigs(req)
		return recs
	}, func(err error) {
		if err != nil {
			resp = failedIncrementalAlterConfigs(req, failure(err))
		}
		done(resp)
	})
}

// AlterConfigs replaces all settings of resources. req belongs to the controller until done.
func (c *Controller) AlterConfigs(req *kmsg.AlterConfigsRequest, done func(*kmsg.AlterConfigsResponse)) {
	var resp *kmsg.AlterConfigsResponse
	c.submit(noTimeout, func() (recs []metadata.Record) {
		recs, resp = c.m.alterConfigs(req)
		return recs
	}, func(err error) {
		if err != nil {
			resp = failedAlterConfigs(req, failure(err))
		}
		done(resp)
	})
}
