// Package broker answers Kafka's protocol: one file for each API, and the wiring of everything
// below into a node.
//
// It owns the order of start and stop, the partitions that this node serves, and the translation
// between requests and what the floors below do. errcode.go is the one table from their errors to
// Kafka's codes. It refuses to decide: a handler in which there is something to decide has it one
// floor too high. time.Now enters the house here.
package broker

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/controller"
	"github.com/millrace-project/millrace/groups"
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/netio"
	"github.com/millrace-project/millrace/quorum"
	"github.com/millrace-project/millrace/replication"
	"github.com/millrace-project/millrace/session"
	"github.com/millrace-project/millrace/txn"
	"github.com/millrace-project/millrace/vfs"
)

// Options are what New needs beside the configuration. The zero value is the default.
type Options struct {
	// Logger is told what an operator wants to know; nil is silence.
	Logger *slog.Logger
	// FS is the door to files; nil is the operating system's.
	FS vfs.FS
	// Network is where to listen; nil is the machine's, by TCP.
	Network *netio.Memory
	// Version is this build's, for the log.
	Version string
	// Loading is called before the logs are loaded, which is waiting for a disk for the most part,
	// and what it returns when they are; nil is nothing.
	Loading func() (loaded func())
}

// Broker is one node: broker and controller in one process.
type Broker struct {
	cfg *config.Server
	log *slog.Logger
	fs  vfs.FS
	net *netio.Memory // nil: TCP
	dir string

	store  *commitlog.Store
	quorum *quorum.Quorum
	ctl    *controller.Controller
	server *netio.Server

	groups      *groups.Coordinator
	offsets     *internalTopic[groups.Record, groups.Entry]
	txns        *txn.Coordinator
	txnStates   *internalTopic[txn.Record, txn.Entry]
	markers     *markerWriter
	compactions compactions
	creations   creations
	topics      topicTable
	serving     serving
	producerIDs producerIDs
	sessions    *session.Cache
	deadlines   replication.Deadlines
	completions *replication.Completions // nil where an append acknowledges itself

	metrics *metricsServer // nil: no endpoint
	version string
	loading func() (loaded func())

	clusterID   string
	directoryID [16]byte
	brokerEpoch int64

	starting sync.Mutex // Start and Shutdown decide who was first
	stopping atomic.Bool
	done     chan struct{} // closed when everything is
	stopped  error         // of Shutdown; valid once done is closed
}

// image is the cluster's metadata as of now.
func (b *Broker) image() *metadata.Image { return b.ctl.Image() }

func nowMs() int64 { return time.Now().UnixMilli() }
