package broker

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/controller"
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/netio"
	"github.com/millrace-project/millrace/quorum"
	"github.com/millrace-project/millrace/replication"
	"github.com/millrace-project/millrace/session"
	"github.com/millrace-project/millrace/vfs"
	"github.com/millrace-project/millrace/wire"
)

// New opens a node: it locks the directory, formats it when it is empty, recovers the logs, takes the
// controller's place, and leads what it led before. It listens when it returns; Start or Serve
// answer.
func New(cfg *config.Server, o Options) (*Broker, error) {
	b := &Broker{cfg: cfg, log: o.Logger, fs: o.FS, net: o.Network, version: o.Version, loading: o.Loading, done: make(chan struct{})}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	if b.fs == nil {
		b.fs = vfs.OS()
	}
	b.topics.init()
	began := time.Now()
	for _, step := range []func() error{b.checkConfig, b.openStore, b.listen, b.openController, b.loadLogs, b.openGroups, b.openTransactions, b.serveImage, b.listenMetrics} {
		if err := step(); err != nil {
			return nil, errors.Join(err, b.abandon())
		}
	}
	b.log.Info("ready", "version", o.Version, "listen", b.Addr(), "dir", b.dir, "cluster", b.clusterID,
		"node", cfg.NodeID, "durability", cfg.Durability, "after", time.Since(began).Round(time.Microsecond))
	return b, nil
}

// checkConfig refuses what this build cannot do and says so by the setting's name.
func (b *Broker) checkConfig() error {
	if n := len(b.cfg.LogDirs); n != 1 {
		return fmt.Errorf("broker: log.dirs names %d directories; one is served", n)
	}
	b.dir = b.cfg.LogDirs[0]
	if b.cfg.MetadataLogDir != b.dir {
		return fmt.Errorf("broker: metadata.log.dir %s is not the log directory %s; they must be one", b.cfg.MetadataLogDir, b.dir)
	}
	for _, l := range b.cfg.Listeners {
		if l.Protocol != "PLAINTEXT" {
			return fmt.Errorf("broker: listener %s: %s is not served", l.Name, l.Protocol)
		}
	}
	for _, name := range b.cfg.Unknown {
		b.log.Warn("unknown setting, ignored", "setting", name)
	}
	for _, name := range b.cfg.Ignored {
		b.log.Warn("setting is known and has no effect here", "setting", name)
	}
	return nil
}

// prepare makes sure that the directory is one that this node may serve, and changes nothing where it is not. The
// directory is locked: of two first starts at once only one formats it.
func (b *Broker) prepare() error {
	if err := b.format(); err != nil {
		return err
	}
	return quorum.Check(b.fs, b.dir)
}

// format makes an empty directory one that Kafka's format tool made, and reads who it belongs to.
func (b *Broker) format() error {
	if _, err := b.fs.Stat(filepath.Join(b.dir, "meta.properties")); errors.Is(err, fs.ErrNotExist) {
		if err := b.refuseUnformatted(); err != nil {
			return err
		}
		c := b.cfg.Controller()
		err := quorum.Format(b.fs, b.dir, quorum.FormatOptions{
			NodeID: b.cfg.NodeID, NowMs: nowMs(),
			ControllerListener: quorum.Endpoint{Name: c.Name, Host: c.Host, Port: uint16(c.Port)},
		})
		if err != nil {
			return fmt.Errorf("format %s: %w", b.dir, err)
		}
		b.log.Info("formatted a new data directory", "dir", b.dir)
	}
	meta, err := commitlog.ReadMetaProperties(b.fs, b.dir)
	if err != nil {
		return err
	}
	if meta.NodeID != b.cfg.NodeID {
		return fmt.Errorf("stored node id %d doesn't match node.id %d in %s. If you moved your data, make sure your configured node id matches. If you intend to create a new node, you should remove all data in your data directories",
			meta.NodeID, b.cfg.NodeID, b.dir)
	}
	b.clusterID, b.directoryID = meta.ClusterID, meta.DirectoryID
	return nil
}

// refuseUnformatted keeps from taking over a directory that holds logs and does not say whose. A metadata log without
// records is what a format leaves that did not come to its end.
func (b *Broker) refuseUnformatted() error {
	begun, err := quorum.Begun(b.fs, b.dir)
	if err != nil {
		return err
	}
	entries, err := b.fs.ReadDir(b.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		dash := strings.LastIndexByte(e.Name(), '-')
		if _, err := strconv.Atoi(e.Name()[dash+1:]); err != nil || dash <= 0 || e.Name() == quorum.LogName && !begun {
			continue
		}
		isDir, err := vfs.IsDir(b.fs, b.dir, e)
		if err != nil {
			return err
		}
		if isDir {
			return fmt.Errorf("%s holds the log %s and no meta.properties: it is not known whose it is", b.dir, e.Name())
		}
	}
	return nil
}

// openStore opens the metadata log. The others wait for what it says of their settings.
func (b *Broker) openStore() error {
	durability := commitlog.Sync
	if b.cfg.Durability == config.DurabilityOS {
		durability = commitlog.OS
	} else {
		b.completions = replication.NewCompletions(max(2, runtime.GOMAXPROCS(0)))
	}
	var err error
	b.store, err = commitlog.Open(b.dir, &commitlog.Options{
		FS: b.fs, Durability: durability, Listener: b.logEvents(), NoCheckpoint: []string{quorum.LogName},
		Prepare:            b.prepare,
		InitialTaskDelayMs: cmp.Or(b.cfg.LogInitialTaskDelayMs, -1),
		RetentionCheckMs:   b.cfg.LogRetentionCheckMs, CheckpointIntervalMs: b.cfg.LogFlushOffsetCheckpointMs,
		ProducerExpirationMs: b.cfg.ProducerExpirationMs,
		ReserveBytes:         b.cfg.ReserveBytes, Privileged: privilegedLog,
		ScrubIntervalMs: b.cfg.ScrubIntervalMs, ScrubBytesPerSecond: b.cfg.ScrubBytesPerSecond,
		First:     []string{quorum.LogName},
		Configure: func(string) *commitlog.Config { return quorum.LogConfig(b.quorumOptions(durability)) },
	})
	if err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	b.brokerEpoch, _ = b.store.CleanShutdown()
	q := b.quorumOptions(durability)
	nameless := b.directoryID == ([16]byte{}) // a directory of Kafka before 3.7
	if nameless {
		b.directoryID = quorum.RandomUUID()
		q.DirectoryID = b.directoryID
	}
	b.quorum, err = quorum.Open(b.store, b.store.FS(), b.dir, b.cfg.NodeID, q)
	if err != nil {
		return fmt.Errorf("broker: %s: %w", filepath.Join(b.dir, quorum.LogName), err)
	}
	if nameless {
		m := commitlog.MetaProperties{Version: 1, ClusterID: b.clusterID, NodeID: b.cfg.NodeID, DirectoryID: b.directoryID}
		if err := commitlog.WriteMetaProperties(b.store.FS(), b.dir, m, nowMs()); err != nil {
			return fmt.Errorf("broker: %w", err)
		}
	}
	return nil
}

func (b *Broker) quorumOptions(d commitlog.Durability) quorum.Options {
	return quorum.Options{
		Durability: d, DirectoryID: b.directoryID,
		SegmentBytes: b.cfg.MetadataSegmentBytes, SegmentMs: b.cfg.MetadataSegmentMs,
		// 0, which is the default in Options, keeps the newest snapshot and no log below it; so does 1.
		RetentionBytes: cmp.Or(b.cfg.MetadataRetentionBytes, 1), RetentionMs: cmp.Or(b.cfg.MetadataRetentionMs, 1),
	}
}

// logEvents tells an operator what the engine did by itself.
func (b *Broker) logEvents() commitlog.EventListener {
	var told atomic.Int64 // ms
	told.Store(nowMs())
	l := commitlog.EventListener{
		LogOffline: func(name string, err error) {
			b.log.Error("log is offline until restart", "log", name, "cause", err)
		},
		Recovered: func(r commitlog.RecoveryReport) {
			level := slog.LevelInfo
			if r.BytesCut > 0 {
				level = slog.LevelWarn
			}
			b.log.Log(context.Background(), level, "recovered", "log", r.Log, "bytesRead", r.BytesWalked, "bytesCut", r.BytesCut, "end", r.End, "cause", r.Cause)
		},
		RetentionDeleted: func(r commitlog.RetentionReport) {
			b.log.Info("retention removed segments", "log", r.Log, "reason", r.Reason, "segments", r.Segments, "bytes", r.Bytes, "start", r.Start)
		},
		JanitorError: func(name string, err error) {
			b.log.Error("upkeep failed and is tried again", "log", name, "cause", err)
		},
		Progress: func(done, total int) {
			now, last := nowMs(), told.Load()
			if now-last >= 1000 && done < total && told.CompareAndSwap(last, now) {
				b.log.Info("loading logs", "done", done, "of", total)
			}
		},
	}
	b.cleanerEvents(&l)
	b.diskEvents(&l)
	return l
}

// listen binds the listeners, so that their ports are known; nothing is answered before Start.
func (b *Broker) listen() error {
	limits, err := limitsOf(b.cfg.MaxConnectionsPerIPOverrides)
	if err != nil {
		return err
	}
	o := netio.Options{
		Handler: b, MaxFrame: int(b.cfg.SocketRequestMaxBytes), QueuedBytes: max(b.cfg.QueuedMaxRequestBytes, 0),
		MaxConns: limit(b.cfg.MaxConnections), MaxConnsPerIP: limit(b.cfg.MaxConnectionsPerIP), MaxConnsOf: limits,
		IdleTimeout: time.Duration(b.cfg.ConnectionsMaxIdleMs) * time.Millisecond,
		Pooled:      func(key int16) bool { return key == wire.KeyProduce },
		Logger:      b.log,
		Memory:      b.net,
	}
	for _, l := range b.cfg.Listeners {
		o.Listeners = append(o.Listeners, netio.Listener{Name: l.Name, Addr: net.JoinHostPort(l.Host, strconv.Itoa(l.Port))})
		if !loopback(l.Host) {
			b.log.Warn("LISTENING WITHOUT AUTHENTICATION beyond this machine: whoever reaches this address reads and writes everything",
				"listener", l.Name, "address", net.JoinHostPort(l.Host, strconv.Itoa(l.Port)))
		}
	}
	if b.server, err = netio.Listen(&o); err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	return nil
}

// limit is a bound on connections as netio has it, where 0 is none.
func limit(n int32) int {
	switch n {
	case math.MaxInt32:
		return 0
	case 0:
		return -1
	}
	return int(n)
}

// limitsOf are the bounds of single addresses, max.connections.per.ip.overrides. Hosts are looked up once, as Kafka does.
func limitsOf(overrides map[string]int32) (map[netip.Addr]int, error) {
	limits := map[netip.Addr]int{}
	for host, n := range overrides {
		if inner, ok := strings.CutPrefix(host, "["); ok {
			host = strings.TrimSuffix(inner, "]") // an IPv6 address
		}
		ips, err := net.DefaultResolver.LookupNetIP(context.Background(), "ip", host)
		if err != nil {
			return nil, fmt.Errorf("broker: max.connections.per.ip.overrides: %w", err)
		}
		for _, ip := range ips {
			limits[ip.Unmap()] = limit(n)
		}
	}
	return limits, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// openController takes the controller's place, registers this node, and elects. The controller refuses
// metadata that promises protection which this build does not give (ACLs, SCRAM, tokens), before it
// writes anything.
func (b *Broker) openController() error {
	listeners, err := b.advertised()
	if err != nil {
		return err
	}
	c := b.cfg.Controller()
	b.ctl, err = controller.Start(b.quorum, controller.Options{
		ClusterID: b.clusterID, NodeID: b.cfg.NodeID, Listeners: listeners,
		ControllerEndpoint: controller.Endpoint{Name: c.Name, Host: c.Host, Port: uint16(c.Port)},
		Rack:               b.cfg.Rack, DirectoryID: b.directoryID,
		Config: b.cfg,
		NowMs:  nowMs, Logger: b.log, TopicConfigs: b.newTopicConfigs,
	})
	if err != nil {
		return fmt.Errorf("broker: %s: %w", filepath.Join(b.dir, quorum.LogName), err)
	}
	b.brokerEpoch = b.ctl.BrokerEpoch()
	return nil
}

// protocolIDs are Kafka's numbers of the security protocols.
var protocolIDs = map[string]int16{"PLAINTEXT": 0, "SSL": 1, "SASL_PLAINTEXT": 2, "SASL_SSL": 3}

// advertised is where clients are told to connect: what is configured, with the host and port that
// only the machine and the kernel know filled in.
func (b *Broker) advertised() ([]metadata.Endpoint, error) {
	bound := b.server.Addrs()
	var out []metadata.Endpoint
	for _, l := range b.cfg.Advertised {
		if l.Name == "" {
			continue
		}
		host, port := l.Host, l.Port
		if host == "" {
			name, err := os.Hostname()
			if err != nil {
				return nil, fmt.Errorf("broker: advertised.listeners names no host for %s: %w", l.Name, err)
			}
			host = name
		}
		if port == 0 {
			port = bound[l.Name].(*net.TCPAddr).Port
		}
		out = append(out, metadata.Endpoint{Name: l.Name, Host: host, Port: uint16(port), Protocol: protocolIDs[l.Protocol]})
	}
	return out, nil
}

// loadLogs loads the partitions' logs, each by its topic's settings in the image.
func (b *Broker) loadLogs() error {
	img := b.ctl.Image()
	b.configureCleaner(img)
	if b.loading != nil {
		defer b.loading()()
	}
	var mu sync.Mutex
	byTopic := map[string]*commitlog.Config{}
	err := b.store.Load(func(name string) *commitlog.Config {
		mu.Lock()
		defer mu.Unlock()
		topic := name[:max(strings.LastIndexByte(name, '-'), 0)]
		if byTopic[topic] == nil {
			byTopic[topic] = logConfig(img, b.cfg, topic)
		}
		return byTopic[topic]
	})
	if err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	return nil
}

// serveImage serves the partitions of the image.
func (b *Broker) serveImage() error {
	b.sessions = session.NewCache(int(b.cfg.MaxFetchSessions), randomID)
	if err := b.serveAll(b.ctl.Image()); err != nil {
		return err
	}
	b.ctl.Subscribe(b.apply)
	return nil
}

func randomID() uint32 {
	var p [4]byte
	rand.Read(p[:]) // never fails
	return binary.BigEndian.Uint32(p[:])
}
