// Package controller is the cluster's controller.
package controller

import (
	"log/slog"

	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/metadata"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Quorum is the metadata log that the controller writes to; *quorum.Quorum satisfies it.
type Quorum interface {
}

// Endpoint is one advertised listener.
type Endpoint = metadata.Endpoint

// Options of Start.
type Options struct {
	ClusterID          string
	NodeID             int32
	Listeners          []Endpoint // advertised, broker listeners only
	ControllerEndpoint Endpoint
	Rack               *string
	DirectoryID        [16]byte
	Incarnation        [16]byte       // zero = random
	Config             *config.Server // static settings: what new topics take, what settings are checked against
	NowMs              func() int64
	Logger             *slog.Logger
	// TopicConfigs gives the effective configs of a topic with these overrides, for CreateTopics responses of version 5 and later. nil = none.
	TopicConfigs func(topic string, overrides map[string]string) []kmsg.CreateTopicsResponseTopicConfig
}

// Controller owns the cluster's metadata.
type Controller struct{}

// Start replays the log, registers this node and elects leaders for its partitions.
func Start(q Quorum, o Options) (*Controller, error) { panic("BUG: unfinished") }

func (c *Controller) Image() *metadata.Image { panic("BUG: unfinished") }
func (c *Controller) Subscribe(fn func(img *metadata.Image, d *metadata.Delta)) {
	panic("BUG: unfinished")
}
func (c *Controller) BrokerEpoch() int64 { panic("BUG: unfinished") }
func (c *Controller) CreateTopics(req *kmsg.CreateTopicsRequest, done func(*kmsg.CreateTopicsResponse)) {
	panic("BUG: unfinished")
}
func (c *Controller) DeleteTopics(req *kmsg.DeleteTopicsRequest, done func(*kmsg.DeleteTopicsResponse)) {
	panic("BUG: unfinished")
}
func (c *Controller) CreatePartitions(req *kmsg.CreatePartitionsRequest, done func(*kmsg.CreatePartitionsResponse)) {
	panic("BUG: unfinished")
}
func (c *Controller) IncrementalAlterConfigs(req *kmsg.IncrementalAlterConfigsRequest, done func(*kmsg.IncrementalAlterConfigsResponse)) {
	panic("BUG: unfinished")
}
func (c *Controller) AlterConfigs(req *kmsg.AlterConfigsRequest, done func(*kmsg.AlterConfigsResponse)) {
	panic("BUG: unfinished")
}
func (c *Controller) AllocateProducerIDs(done func(first int64, n int32, err error)) {
	panic("BUG: unfinished")
}

// Shutdown leaves in the log what a clean stop of Kafka leaves, and returns when it is committed.
func (c *Controller) Shutdown() error { panic("BUG: unfinished") }

// Close stops the controller.
func (c *Controller) Close() error { panic("BUG: unfinished") }
