// Package quorum is the metadata log, __cluster_metadata-0, with this node as its only voter: elections, epochs, control
// records, snapshots and their retention.
//
// It owns the files of the log's directory that the engine does not: quorum-state and *.checkpoint. It writes what Kafka
// writes and opens what Kafka wrote, of kraft.version 0 and 1, and refuses by name a log with other voters. A record is
// committed when it is synced: with one voter there is nobody else to ask. It does not know what records mean beyond
// the control records of KIP-595, KIP-630 and KIP-853.
//
// Format: docs/format/metadata-log.md, docs/format/quorum-state.md, docs/format/metadata-snapshot.md.
package quorum

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/vfs"
)

// LogName is the metadata log's directory. The store must be opened with it in NoCheckpoint.
const LogName = "__cluster_metadata-0"

// topicID is Kafka's fixed id of the topic __cluster_metadata.
func topicID() commitlog.TopicID { return commitlog.TopicID{15: 1} }

// Options of Open. The zero value of a field is its default.
type Options struct {
	NowMs func() int64
	// Durability must be the store's. With OS the quorum syncs its log itself: metadata is committed when it is on disk
	// whatever the data's rule is.
	Durability commitlog.Durability
	// DirectoryID is this directory's id in meta.properties. A log whose voter has another one is refused.
	DirectoryID [16]byte
	// SegmentBytes is metadata.log.segment.bytes (1 GiB), SegmentMs metadata.log.segment.ms (7 days).
	SegmentBytes, SegmentMs int64
	// RetentionBytes is metadata.max.retention.bytes (100 MiB), RetentionMs metadata.max.retention.ms (7 days).
	RetentionBytes, RetentionMs int64
}

func (o Options) withDefaults() Options {
	if o.NowMs == nil {
		o.NowMs = func() int64 { return time.Now().UnixMilli() }
	}
	for _, d := range []struct {
		v *int64
		d int64
	}{{&o.SegmentBytes, 1 << 30}, {&o.SegmentMs, weekMs}, {&o.RetentionBytes, 100 << 20}, {&o.RetentionMs, weekMs}} {
		if *d.v == 0 {
			*d.v = d.d
		}
	}
	return o
}

const weekMs = 7 * 24 * 3600 * 1000

// maxBatchBytes is the largest batch of the log (KafkaRaftClient.MAX_BATCH_SIZE_BYTES).
const maxBatchBytes = 8 << 20

// LogConfig is how the metadata log is kept: nothing is deleted by age or size, snapshots decide.
func LogConfig(o Options) *commitlog.Config {
	o = o.withDefaults()
	c := commitlog.DefaultConfig()
	c.Delete, c.Compact = false, false
	c.RetentionMs, c.RetentionBytes = -1, -1
	c.SegmentBytes, c.SegmentMs = o.SegmentBytes, o.SegmentMs
	c.MaxMessageBytes = maxBatchBytes
	c.BeforeMaxMs, c.AfterMaxMs = math.MaxInt64, math.MaxInt64
	return c
}

// ErrVoters is wrapped by errors about a log that other nodes have a say in.
var ErrVoters = errors.New("quorum: this node is not the only voter")

// Quorum is the metadata log with this node as leader. Its methods may be called from anywhere, but Append by one
// goroutine at a time.
type Quorum struct {
	files  vfs.FS
	root   string // the data directory
	dir    string // the metadata log's
	nodeID int32
	opts   Options
	log    *commitlog.Log
	epoch  int32

	kraftVersion int16
	voters       *records.VotersRecord // nil with kraft.version 0
	sizeAtOpen   int64

	notify  atomic.Pointer[func()]
	flush   chan struct{} // capacity 1; nil when the store syncs by itself
	stop    chan struct{}
	stopped sync.WaitGroup

	snap struct {
		sync.Mutex
		list []snapshotID // ascending; the last is the newest
	}
}

// Open opens the metadata log in store's directory dir, or creates it, and makes this node its leader in a new epoch,
// which is durable before the first record of the epoch is written. The control records of the new epoch are appended
// and committed with what follows. The log belongs to the store; Close only stops what Open started.
func Open(store *commitlog.Store, files vfs.FS, dir string, nodeID int32, o Options) (*Quorum, error) {
	q := &Quorum{files: files, root: dir, dir: filepath.Join(dir, LogName), nodeID: nodeID, opts: o.withDefaults(), stop: make(chan struct{})}
	if q.log = store.Log(LogName); q.log == nil {
		log, err := store.Create(LogName, topicID(), LogConfig(o))
		if err != nil {
			return nil, fmt.Errorf("quorum: %w", err)
		}
		q.log = log
	}
	q.log.Configure(LogConfig(o))
	if err := q.findSnapshots(); err != nil {
		return nil, err
	}
	past, err := q.history()
	if err != nil {
		return nil, err
	}
	if q.opts.Durability == commitlog.OS {
		q.flush = make(chan struct{}, 1) // before the election, whose records are to be synced too
	}
	if err := q.elect(past); err != nil {
		return nil, err
	}
	if q.flush != nil {
		q.stopped.Go(q.flusher)
	}
	q.log.OnAdvance(q.advanced)
	return q, nil
}

// history is what the log says about who may lead it.
type history struct {
	epoch        int32   // newest epoch in log, snapshot or quorum-state; 0 = none yet
	configured   []int32 // who votes by a quorum-state of kraft.version 0
	leaderVoters []int32 // who voted by the last leader change; it may lie below the newest snapshot
	kraftVersion int16
	voters       *records.VotersRecord
	votersInLog  bool // not only in the snapshot of the format tool
}

// history reads the control records of the newest snapshot and of the log behind it.
func (q *Quorum) history() (*history, error) {
	h := &history{}
	state, ok, err := readState(q.files, q.dir)
	if err != nil {
		return nil, err
	}
	if ok {
		h.epoch = state.LeaderEpoch
		for _, v := range state.voters {
			h.configured = append(h.configured, v.VoterID)
		}
	}
	if s, ok := q.newestSnapshot(); ok {
		h.epoch = max(h.epoch, s.epoch)
		if err := q.readSnapshot(s, func(e Entry) error { return h.control(e, s.end > 0) }); err != nil {
			return nil, err
		}
		if s.end > q.log.EndOffset() {
			// The log lost its end, or a snapshot was put here without the log it came from: the snapshot is the truth.
			if err := q.log.TruncateAll(s.end); err != nil {
				return nil, fmt.Errorf("quorum: %w", err)
			}
		}
	}
	q.sizeAtOpen, err = q.readLog(true, func(e Entry) error {
		h.epoch = max(h.epoch, e.Epoch)
		return h.control(e, true)
	})
	return h, err
}

// control takes in one control record.
func (h *history) control(e Entry, inLog bool) error {
	if !e.Control {
		return nil
	}
	switch e.Type {
	case batch.LeaderChange:
		var m records.LeaderChangeMessage
		if err := readControl(&m, e.Value); err != nil {
			return fmt.Errorf("quorum: offset %d: %w", e.Offset, err)
		}
		h.leaderVoters = nil
		for _, v := range m.Voters {
			h.leaderVoters = append(h.leaderVoters, v.VoterID)
		}
	case batch.KRaftVersion:
		var m records.KRaftVersionRecord
		if err := readControl(&m, e.Value); err != nil {
			return fmt.Errorf("quorum: offset %d: %w", e.Offset, err)
		}
		if m.KRaftVersion > 1 {
			return fmt.Errorf("quorum: offset %d: kraft.version %d, known are 0 and 1", e.Offset, m.KRaftVersion)
		}
		h.kraftVersion = m.KRaftVersion
	case batch.KRaftVoters:
		m := records.NewVotersRecord()
		if err := readControl(m, e.Value); err != nil {
			return fmt.Errorf("quorum: offset %d: %w", e.Offset, err)
		}
		h.voters, h.votersInLog = m, h.votersInLog || inLog
	}
	return nil
}

// readControl reads the value of a control record. Kafka's leader change names its schema version in its first field
// and writes version 0.
func readControl(m records.Message, value []byte) error {
	version := int16(0)
	if _, ok := m.(*records.LeaderChangeMessage); ok && len(value) >= 2 {
		version = int16(value[0])<<8 | int16(value[1])
	}
	return m.ReadFrom(value, version)
}

// elect wins the election that only this node votes in: it raises the epoch in quorum-state, durably, and appends the
// records with which a leader begins its epoch.
func (q *Quorum) elect(h *history) error {
	if err := q.checkVoters(h); err != nil {
		return err
	}
	q.epoch, q.kraftVersion, q.voters = h.epoch+1, h.kraftVersion, h.voters
	if err := writeState(q.files, q.dir, q.nodeID, q.epoch, q.kraftVersion); err != nil {
		return err
	}
	self := []records.LeaderChangeVoter{{VoterID: q.nodeID}}
	control := []controlRecord{{batch.LeaderChange, &records.LeaderChangeMessage{LeaderID: q.nodeID, Voters: self, GrantingVoters: self}}}
	if q.voters != nil && !h.votersInLog {
		control = append(control,
			controlRecord{batch.KRaftVersion, &records.KRaftVersionRecord{KRaftVersion: q.kraftVersion}},
			controlRecord{batch.KRaftVoters, q.voters})
	}
	nowMs := q.opts.NowMs()
	b, err := controlBatch(0, q.epoch, nowMs, control)
	if err != nil {
		return err
	}
	_, err = q.append(nowMs, b)
	return err
}

// checkVoters refuses a log in which this node is not the one voter.
func (q *Quorum) checkVoters(h *history) error {
	if h.kraftVersion == 0 {
		other := func(id int32) bool { return id != q.nodeID }
		if slices.ContainsFunc(h.configured, other) {
			return fmt.Errorf("%w: the voters of %s are %v, this node is %d", ErrVoters, stateName, h.configured, q.nodeID)
		}
		if slices.ContainsFunc(h.leaderVoters, other) {
			return fmt.Errorf("%w: the log's last leader was elected by %v, this node is %d", ErrVoters, h.leaderVoters, q.nodeID)
		}
		return nil
	}
	if h.voters == nil {
		return fmt.Errorf("quorum: kraft.version is %d and %s has no voters record", h.kraftVersion, q.dir)
	}
	if len(h.voters.Voters) != 1 || h.voters.Voters[0].VoterID != q.nodeID {
		var ids []int32
		for _, v := range h.voters.Voters {
			ids = append(ids, v.VoterID)
		}
		return fmt.Errorf("%w: voters are %v, this node is %d", ErrVoters, ids, q.nodeID)
	}
	if id := h.voters.Voters[0].VoterDirectoryID; id != q.opts.DirectoryID {
		return fmt.Errorf("%w: voter %d has directory id %s, that of meta.properties is %s", ErrVoters, q.nodeID, uuidString(id), uuidString(q.opts.DirectoryID))
	}
	return nil
}

// Epoch is the leader epoch of this node.
func (q *Quorum) Epoch() int32 { return q.epoch }

// End is the end of the log.
func (q *Quorum) End() int64 { return q.log.EndOffset() }

// Committed is the end of what is committed: on disk.
func (q *Quorum) Committed() int64 { return q.log.SyncedOffset() }

// OnCommitted sets the function that is called, without locks held, after Committed has moved or the log has failed.
func (q *Quorum) OnCommitted(fn func()) { q.notify.Store(&fn) }

// Err is why the log takes no more records, nil while it does.
func (q *Quorum) Err() error { return q.log.Err() }

// Close stops what Open started. The log stays open until its store is closed.
func (q *Quorum) Close() error {
	close(q.stop)
	q.stopped.Wait()
	return nil
}

// advanced is called after the log's acknowledged offset has moved or the log has failed.
func (q *Quorum) advanced() {
	q.log.SetHighWatermark(q.log.SyncedOffset())
	if fn := q.notify.Load(); fn != nil {
		(*fn)()
	}
}

// flusher syncs the log after appends where the store does not: what arrives during a sync joins the next one.
func (q *Quorum) flusher() {
	for {
		select {
		case <-q.stop:
			return
		case <-q.flush:
			// An error takes the log offline, and whoever waits asks Err.
			_ = q.log.Sync()
			q.advanced()
		}
	}
}
